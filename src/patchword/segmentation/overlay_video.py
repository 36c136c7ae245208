"""A video with the classes painted over its frames, made of the frames' masks."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.folders import replacing
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, WriteError
from patchword.segmentation.video import FrameCount, frame_rate, read_frames
from patchword.visualization.overlays import legend, overlay

# The first that there is. x264's macroblock tree gives other bytes in every run.
_CODECS: dict[str, dict[str, str]] = {"libx264": {"x264-params": "mbtree=0"}, "mpeg4": {}}
_CLOCK = Fraction(1, 90_000)  # seconds; fine enough for the time of any frame


def write_overlay_video(
    path: Path, *, video: Path, masks: Mapping[int, Path], names: tuple[str, ...], colours: NDArray[np.uint8]
) -> None:
    """Write an MP4 of a video's frames with their classes painted over them, shown when the video shows them.

    Under the picture stand the classes of all frames, so that it does not move.

    Args:
        path: to be written, whole or not at all.
        video: the video.
        masks: number of a frame -> its mask; other frames are left out.
        names, colours: of the masks' values, (n, 3) uint8.
    """
    av = import_module("av")
    present, (height, width) = _present(masks, names=names)
    strip = legend([(names[index], colours[index]) for index in present], width=width, height=height)
    page = Image.new("RGB", _even(strip.width, height + strip.height), "white")
    page.paste(strip, (0, height))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file, av.open(file, "w", format="mp4") as container:
            stream = _stream(container, rate=frame_rate(video) / _step(masks), size=page.size)
            last = -1
            for frame in read_frames(video, wanted=masks.__contains__, count=FrameCount()):
                if isinstance(frame.pixels, PatchwordError):
                    continue
                label_map = LabelMap(LabelMap.load(masks[frame.number], names=names).indices, names, colours)
                page.paste(overlay(frame.pixels, label_map, legend=False))
                shown = av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24")
                last = max(last + 1, round(frame.second / _CLOCK))
                shown.pts, shown.time_base = last, _CLOCK
                container.mux(stream.encode(shown))
            container.mux(stream.encode(None))
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def _present(masks: Mapping[int, Path], *, names: tuple[str, ...]) -> tuple[list[int], tuple[int, int]]:
    """The classes of all masks, by index, and the (height, width) of the largest."""
    found: set[int] = set()
    height = width = 0
    for mask in masks.values():
        indices = LabelMap.load(mask, names=names).indices
        found.update(np.unique(indices).tolist())
        height, width = max(height, indices.shape[0]), max(width, indices.shape[1])
    return sorted(index for index in found if index < len(names)), (height, width)


def _step(masks: Mapping[int, Path]) -> int:
    """From a frame that is shown to the next."""
    return min((after - before for before, after in pairwise(sorted(masks))), default=1)


def _stream(container: Any, *, rate: Fraction, size: tuple[int, int]) -> Any:
    codec = next(name for name in _CODECS if name in import_module("av").codecs_available)
    stream = container.add_stream(codec, rate=rate.limit_denominator(1001))
    stream.width, stream.height = size
    stream.pix_fmt = "yuv420p"
    stream.options = _CODECS[codec]
    stream.codec_context.time_base = _CLOCK
    return stream


def _even(width: int, height: int) -> tuple[int, int]:
    """Sides as the codecs want them."""
    return width + width % 2, height + height % 2
