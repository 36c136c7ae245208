"""The segmenters that a server has: opened at start, each with a name, its classes and what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from patchword.config.segment import SegmentSettings
from patchword.config.serve import ServeConfig, ServerOptions
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.segmentation.dense import DenseSegmenter

Pixels = NDArray[np.uint8]
SEEING = ("image_size", "window", "stride", "join")
"""Settings that features depend on."""
DECIDING = ("temperature", "softmax_over", "class_prior", "threshold", "background_threshold", "refine")
"""Settings that need no forward pass."""
_MOST_WINDOWS, _MOST_SEEN = 1024, 2**22  # windows of an image, and pixels of all of them


class Model(Protocol):
    """A segmenter that keeps what it has seen of an image apart from the words that it is asked for."""

    name: str
    kind: str
    method: str | None
    image_size: int
    trained: Vocabulary | None
    defaults: Mapping[str, Any]

    def vocabulary(self, classes: Sequence[str] | None, background: Sequence[str] | None) -> Vocabulary:
        """The classes of a request."""

    def check(self, size: tuple[int, int], settings: SegmentSettings) -> None:
        """Refuse settings that this model or an image of (height, width) cannot be seen with."""

    def encode(self, images: Sequence[Pixels], settings: SegmentSettings) -> list[Any]:
        """What the model sees of images (h, w, 3), in one forward pass; an error in place of one that fails."""

    def decide(
        self, encoded: Any, vocabulary: Vocabulary, settings: SegmentSettings
    ) -> tuple[LabelMap, NDArray[np.float32]]:
        """A class and a confidence in (0, 1] for every pixel, without a forward pass."""


class TorchModel:
    """A segmenter of torch: trained, or a training-free method."""

    def __init__(
        self, segmenter: DenseSegmenter, *, name: str, trained: Vocabulary | None, defaults: Mapping[str, Any]
    ) -> None:
        facts = segmenter.describe()
        self.name, self.kind, self.method = name, str(facts["kind"]), facts.get("method")
        self.image_size: int = segmenter.image_size
        self.trained = trained
        self.defaults = defaults
        self._segmenter = segmenter

    def vocabulary(self, classes: Sequence[str] | None, background: Sequence[str] | None) -> Vocabulary:
        return self._segmenter.vocabulary_of(self.trained if classes is None else classes, background=background)

    def check(self, size: tuple[int, int], settings: SegmentSettings) -> None:
        from patchword.segmentation.sliding_window import check_window, inference_windows

        check_window(settings, patch_size=self._segmenter.patch_size)
        plan = inference_windows(
            size, settings=settings, image_size=self.image_size, patch_size=self._segmenter.patch_size
        )
        seen = len(plan) * plan.window[0] * plan.window[1]
        if len(plan) > 1 and (len(plan) > _MOST_WINDOWS or seen > _MOST_SEEN):
            raise PatchwordError(
                f"these settings make {len(plan)} windows of {seen:,} pixels in all; {_MOST_WINDOWS} and "
                f"{_MOST_SEEN:,} are the limits"
            )
        if settings.refine == "sam" and self._segmenter.refiner is None:
            raise PatchwordError("refine is 'sam', but this server was started without --mask-generator")

    def encode(self, images: Sequence[Pixels], settings: SegmentSettings) -> list[Any]:
        return list(self._segmenter.encode_batch(images, settings=settings))

    def decide(
        self, encoded: Any, vocabulary: Vocabulary, settings: SegmentSettings
    ) -> tuple[LabelMap, NDArray[np.float32]]:
        (found,) = self._segmenter.segment_batch([encoded], classes=vocabulary, settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        return found.label_map, found.confidence


def open_models(config: ServeConfig) -> dict[str, Model]:
    """All models by id; the first is called "default". Without any, Toytown's."""
    opened: list[Model] = [open_model(config, model=path) for path in config.model]
    opened += [open_model(config, method=name) for name in config.method]
    opened = opened or list(toytown_models(config))
    ids = ["default", *(f"model-{number}" for number in range(2, len(opened) + 1))]
    return dict(zip(ids, opened, strict=True))


def toytown_models(config: ServerOptions) -> Iterator[Model]:
    """Toytown's segmenter and two methods without training, each opened when it is asked for."""
    from patchword.toytown import playground

    segmenters: Any = playground.open_segmenters(
        mask_generator=config.mask_generator, device=config.device, dtype=config.dtype
    )
    known = playground.vocabulary()
    for name, one, settings in segmenters:
        yield TorchModel(one, name=name, trained=known, defaults=settings)


def open_model(config: ServerOptions, *, model: str | None = None, method: str | None = None) -> Model:
    """A trained segmenter, an ONNX file, or a training-free method."""
    from patchword.segmentation.opening import ONNX, check_parts, open_segmenter

    parts: dict[str, Any] = {
        "image_text": config.image_text if method else None,
        "encoder": config.encoder if model or method == "proxyclip" else None,
        "text_encoder": config.text_encoder if model else None,
    }
    check_parts(model, method=method, **parts)
    if model is not None and Path(model).suffix == ONNX and str(config.text_encoder or "").endswith(".npz"):
        from patchword.serving.onnx_model import OnnxModel

        return OnnxModel(model, text=str(config.text_encoder))
    segmenter: Any = open_segmenter(
        model,
        method=method,
        mask_generator=config.mask_generator,
        device=config.device,
        dtype=config.dtype,
        **parts,
    )
    name = Path(model).resolve().stem if model is not None else str(method)
    return TorchModel(segmenter, name=name, trained=segmenter.words.trained, defaults={})
