"""Videos, frame by frame: whatever is odd about real files is dealt with here."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from patchword.errors import PatchwordError, WriteError, first_line
from patchword.visualization.overlays import legend, overlay

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".webm", ".wmv"}
)


@dataclass(frozen=True)
class VideoFrame:
    """One frame of a video.

    Attributes:
        number: from 0, in the order in which frames are shown; a frame that cannot be decoded counts.
        second: when it is shown, from the beginning of the video.
        pixels: (h, w, 3) uint8, upright; or why there are none.
    """

    number: int
    second: float
    pixels: NDArray[np.uint8] | PatchwordError


@dataclass
class FrameCount:
    """What only reading a video to its end tells.

    Attributes:
        frames: how many there are.
        cut_off: why the video ends before its end; None where it does not.
    """

    frames: int = 0
    cut_off: str | None = None


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def check_extra() -> None:
    """Refuse videos where the package that reads them is missing."""
    _av()


def frames_told(path: Path) -> int:
    """How many frames a video's head tells of, or makes likely by its length; 0 where it does not or cannot be read."""
    try:
        with _opened(path) as (container, stream):
            microseconds = container.duration
            length = _length(stream) or (microseconds / 1e6 if microseconds else 0.0)
            return int(stream.frames or round(length * float(stream.average_rate or 0)))
    except PatchwordError:
        return 0


def frame_rate(path: Path) -> Fraction:
    """Frames a second, on average; 25 where the video does not tell."""
    with _opened(path) as (_, stream):
        return Fraction(stream.average_rate or 25)


def read_frames(path: Path, *, wanted: Callable[[int], bool], count: FrameCount) -> Generator[VideoFrame, None, None]:
    """Decode a video; only what is wanted is turned into pixels.

    Args:
        path: of the video.
        wanted: whether the frame of that number is.
        count: told of every frame as it is met, and at the end whether the video was cut off.

    Yields:
        the frames that are wanted, in the order in which they are shown; one that cannot be decoded ends nothing.
    """
    with _opened(path) as (container, stream):
        clock, lost = _Clock(stream), list[tuple[float, PatchwordError]]()
        packets = _packets(container, stream, clock=clock, count=count)
        for met in _in_order(packets, clock=clock, lost=lost):
            number, count.frames = count.frames, count.frames + 1
            if wanted(number):
                second, found = met
                yield VideoFrame(number, second, found if isinstance(found, PatchwordError) else _pixels(found))
        if count.cut_off is None and clock.ends_early(_length(stream)):
            count.cut_off = f"ends at {clock.end:.3f} of {_length(stream):.3f} s; the file is cut off"


def _packets(container: Any, stream: Any, *, clock: _Clock, count: FrameCount) -> Iterator[Any]:
    """What the container holds; where it is damaged beyond its packets, what came before."""
    try:
        yield from container.demux(stream)
    except _av().error.FFmpegError as error:
        count.cut_off = f"ends at {clock.end:.3f} s: {first_line(error)}"


def _in_order(
    packets: Iterator[Any], *, clock: _Clock, lost: list[tuple[float, PatchwordError]]
) -> Iterator[tuple[float, Any]]:
    """Frames, and in their places the reasons why there is none, as (second, one of both)."""
    for packet in packets:
        try:
            frames = packet.decode()
        except _av().error.FFmpegError as error:
            lost.append((clock.second_of(packet), PatchwordError(f"cannot be decoded: {first_line(error)}")))
            continue
        for frame in frames:
            second = clock.show(frame)
            yield from _take_before(second, lost)
            yield second, frame
    yield from _take_before(math.inf, lost)


def _take_before(second: float, lost: list[tuple[float, PatchwordError]]) -> list[tuple[float, PatchwordError]]:
    due = sorted((each for each in lost if each[0] < second), key=lambda each: each[0])
    lost[:] = [each for each in lost if each[0] >= second]
    return due


class _Clock:
    """When frames are shown."""

    def __init__(self, stream: Any) -> None:
        self._base = stream.time_base
        self._start = stream.start_time or 0
        self._step = float(1 / stream.average_rate) if stream.average_rate else 0.0
        self.end = 0.0  # of the frames so far, in seconds

    def second_of(self, timed: Any) -> float:
        """Of a frame or a packet, from the beginning; where it has no time of its own, when the last one ends."""
        if timed.pts is None or self._base is None:
            return round(self.end, 6)
        return round(float((timed.pts - self._start) * self._base), 6)

    def show(self, frame: Any) -> float:
        """When a frame is shown."""
        second = self.second_of(frame)
        lasts = float(frame.duration * self._base) if frame.duration and self._base else self._step
        self.end = max(self.end, second + lasts)
        return second

    def ends_early(self, length: float | None) -> bool:
        """Whether at least a whole frame is missing at the end; lengths are rounded, so that less says nothing."""
        return length is not None and length - self.end > 2 * self._step > 0


def _length(stream: Any) -> float | None:
    """Seconds, where the head of the file tells."""
    return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None


def _pixels(frame: Any) -> NDArray[np.uint8] | PatchwordError:
    """(h, w, 3) uint8 RGB, turned as the file says that it is to be shown."""
    if frame.is_corrupt:
        return PatchwordError("is damaged")
    try:
        stored: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
    except (_av().error.FFmpegError, ValueError) as error:
        return PatchwordError(f"cannot be decoded: {first_line(error)}")
    return _upright(stored, frame)


def _upright(stored: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Turn and mirror a stored picture (h, w, 3) as the video's display matrix says.

    The matrix has rows (a, b, u), (c, d, v), (x, y, w) in fixed point; a stored pixel (p, q) is shown at
    (a p + c q, b p + d q). Angles between quarter turns go to the nearest.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return stored
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].astype(np.int64)
    lying = abs(b) + abs(c) > abs(a) + abs(d)
    shown = stored.transpose(1, 0, 2) if lying else stored
    along, down = (c, b) if lying else (a, d)
    return np.ascontiguousarray(shown[:: -1 if down < 0 else 1, :: -1 if along < 0 else 1])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of pictures."""
    av = _av()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise PatchwordError(f"cannot read {path}: {_why(error)}") from None
    with container:
        streams = container.streams.video
        if not streams:
            raise PatchwordError(f"cannot read {path}: it holds no pictures")
        stream = streams[0]
        stream.thread_type = "SLICE"  # else an error is told some frames after the one that it is of
        yield container, stream


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or first_line(error)


def _av() -> Any:
    try:
        return import_module("av")
    except ImportError:
        raise PatchwordError('videos need the package av; pip install "patchword[video]"') from None


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
