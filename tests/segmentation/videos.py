"""Tiny videos, made here."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from local_segmenter import picture
from numpy.typing import NDArray


def make_video(
    path: Path,
    *,
    frames: int = 10,
    size: tuple[int, int] = (48, 64),
    rate: int = 10,
    codec: str = "mpeg4",
    times: list[int] | None = None,
    still: bool = False,
) -> Path:
    """A video of blocks of random brightness.

    Args:
        path: its suffix decides the container.
        frames: how many.
        size: (height, width), both even.
        rate: frames a second.
        codec: of libavcodec.
        times: in hundredths of a second, when each is shown; even by default.
        still: whether all frames show the same.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"g": "1"} if codec == "mpeg4" else {}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 100)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(*size, seed=0 if still else number), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode(path: Path) -> list[NDArray[np.uint8]]:
    """All frames as they are stored, without any of our code."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def turn(path: Path, matrix_of_display: tuple[int, int, int, int] = (0, 1, -1, 0)) -> None:
    """Let an MP4 say how it is to be shown; by default a quarter turned clockwise, as by telephones held upright.

    Args:
        path: of the file.
        matrix_of_display: (a, b, c, d); a stored pixel (p, q) is shown at (a p + c q, b p + d q).
    """
    a, b, c, d = (number << 16 for number in matrix_of_display)
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4
    assert data[place] == 0  # the version with 32-bit times
    matrix = place + 4 + 4 + 4 + 4 + 4 + 4 + 8 + 2 + 2 + 2 + 2
    rows = [a, b, 0, c, d, 0, 0, 0, 1 << 30]
    data[matrix : matrix + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in rows)
    path.write_bytes(data)
