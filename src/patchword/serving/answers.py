"""From a label map to what a client gets: JSON with pictures in base64, run lengths, or a PNG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.masks import LabelMap
from patchword.data.run_lengths import run_lengths
from patchword.data.vocabulary import Vocabulary
from patchword.visualization.pages import hex_colour


@dataclass(frozen=True)
class Found:
    """What a model found in an image.

    Attributes:
        label_map: a class for every pixel.
        confidence: (h, w) in (0, 1].
        vocabulary: that was asked for.
        milliseconds: that the model took for it, without waiting.
        encoded: whether a forward pass was needed.
    """

    label_map: LabelMap
    confidence: NDArray[np.float32]
    vocabulary: Vocabulary
    milliseconds: float
    encoded: bool


def as_json(found: Found, *, rle: bool = False) -> dict[str, Any]:
    """The answer as JSON: classes, and pictures of indices and of confidence, or run lengths in their place."""
    indices = found.label_map.indices
    height, width = indices.shape
    facts: dict[str, Any] = {"width": width, "height": height, "classes": _classes(found)}
    if rle:
        present = np.unique(indices)
        names = found.label_map.names
        facts["masks"] = [
            {"index": int(index), "name": names[index], **run_lengths(indices == index)}
            for index in present
            if index < len(names)
        ]
    else:
        grey = np.rint(found.confidence * np.float32(255)).astype(np.uint8)
        facts |= {"labels": _base64_png(indices), "confidence": _base64_png(grey)}
    return {**facts, "milliseconds": round(found.milliseconds, 2), "encoded": found.encoded}


def class_list(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """Name, words and colour of each class."""
    colours = vocabulary.colours.tolist()
    return [
        {"name": entry.name, "words": list(entry.words), "colour": hex_colour(colour)}
        for entry, colour in zip(vocabulary.classes, colours, strict=True)
    ]


def _classes(found: Found) -> list[dict[str, Any]]:
    label_map = found.label_map
    count = len(label_map.names)
    flat = label_map.indices.ravel()
    pixels = np.bincount(flat, minlength=count)[:count]
    sums = np.bincount(flat, weights=found.confidence.ravel(), minlength=count)[:count]
    words = {entry.name: list(entry.words) for entry in found.vocabulary.classes}
    return [
        {
            "index": index,
            "name": name,
            "words": words.get(name, list(found.vocabulary.background)),
            "colour": hex_colour(colour),
            "share": round(float(pixels[index]) / flat.size, 6),
            "confidence": round(float(sums[index] / max(pixels[index], 1)), 6),
        }
        for index, (name, colour) in enumerate(zip(label_map.names, label_map.class_colours().tolist(), strict=True))
    ]


def _base64_png(values: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
