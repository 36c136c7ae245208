"""Whether an ONNX file computes what torch does, at other sizes than it was traced with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.facts import CLASS_OF, IMAGES, PATCHES, SIZE, VECTORS, Agreement
from patchword.export.onnx.files import import_onnx_package
from patchword.export.onnx.traceable import ImageSide

_CPU = "CPUExecutionProvider"
_CHECKED = ((1, 4, 4), (3, 9, 2), (2, 14, 5))  # batch, rows and columns
_PICTURES, _PATCHES_A_SIDE, _STAND_INS = 4, 12, 21


def open_session(path: str | Path, *, threads: int | None = None, providers: Sequence[str] | None = None) -> Any:
    """Load an ONNX file into onnxruntime.

    Args:
        path: of the file.
        threads: that onnxruntime may use; None leaves it to onnxruntime.
        providers: onnxruntime's execution providers, the preferred first, such as "CUDAExecutionProvider"; it must
            start. None for the CPU's.
    """
    runtime = import_onnx_package("onnxruntime")
    path = Path(path)
    if not path.is_file():
        raise PatchwordError(f"{path} does not exist; give a file that `patchword export` wrote")
    there = runtime.get_available_providers()
    asked = [providers] if isinstance(providers, str) else list(providers or (_CPU,))
    for provider in asked:
        if provider not in there:
            raise PatchwordError(f"onnxruntime has no {provider} on this machine (choose from {', '.join(there)})")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are for onnxruntime's developers
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        session = runtime.InferenceSession(str(path), options, providers=asked)
    except Exception as error:  # onnxruntime has an exception type a status code
        raise PatchwordError(f"{path} cannot be loaded by onnxruntime: {first_line(error)}") from None
    if asked[0] not in session.get_providers():  # onnxruntime logs it and computes with the next
        raise PatchwordError(f"onnxruntime has {asked[0]}, but cannot start it on this machine (its log says why)")
    return session


def largest_difference(session: Any, side: ImageSide, *, seed: int = 0) -> float:
    """The largest difference of a channel of a patch vector between an ONNX file and torch.

    Images of noise are compared at three shapes and batch sizes, none of which the file was traced with.

    Args:
        session: of the file.
        side: what it was traced from.
        seed: of the noise.
    """
    patch, dim = side.encoder.record.patch_size, side.module.text_dim
    generator = torch.Generator().manual_seed(seed)
    worst = 0.0
    for batch, rows, columns in _CHECKED:
        images = torch.rand(batch, 3, rows * patch, columns * patch, generator=generator)
        with torch.no_grad():
            expected = side(images).numpy()
        try:
            found = run_patches(session, images.numpy(), dim=dim)
        except Exception as error:
            raise PatchwordError(
                f"{side.encoder.record.name} ({side.encoder.record.family}) cannot be exported to ONNX: "
                f"{batch} images of {rows} x {columns} patches fail in onnxruntime: {first_line(error)}"
            ) from error
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def agreement(small: Any, plain: Any, *, patch_size: int, dim: int) -> Agreement:
    """How much of a float32 file an int8 file keeps, on pictures drawn here.

    Class names need a text tower, which an export does without. Patch vectors of the float32 file that are far from
    each other stand in for them: a patch's class is the nearest of those.

    Args:
        small, plain: sessions of the int8 and of the float32 file.
        patch_size: of the encoder, in pixels.
        dim: d of the patch vectors.
    """
    pictures = drawn_pictures(_PICTURES, side=_PATCHES_A_SIDE * patch_size)
    expected, found = (
        np.moveaxis(run_patches(session, pictures, dim=dim), 1, -1).reshape(-1, dim)  # (n, d), unit length
        for session in (plain, small)
    )
    chosen = [0]
    while len(chosen) < _STAND_INS:  # the one that is furthest from those chosen
        chosen.append(int((expected @ expected[chosen].T).max(1).argmin()))
    words = expected[chosen].T
    same = (expected @ words).argmax(1) == (found @ words).argmax(1)
    return Agreement(float(same.mean()), float((expected * found).sum(1).min()))


def drawn_pictures(count: int, *, side: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pictures of sloping colours with discs, boxes and stripes: (count, 3, side, side) in [0, 1]."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    pictures = np.empty((count, 3, side, side), np.float32)
    for picture in pictures:
        low, high = generator.random((2, 3, 1, 1), dtype=np.float32)
        picture[:] = low + (high - low) * rows
        for number in range(8):
            x, y, size = generator.uniform((0, 0, 0.06), (1, 1, 0.25))
            round_one = np.hypot(rows - y, columns - x) < size
            inside = round_one if number % 2 else (np.abs(rows - y) < size) & (np.abs(columns - x) < size)
            if number % 4 == 3:
                inside &= np.sin(columns * 60) > 0
            picture[:, inside] = generator.random((3, 1), dtype=np.float32)
    return pictures


def run_patches(session: Any, images: np.ndarray[Any, np.dtype[np.float32]], *, dim: int) -> Any:
    """Patch vectors (b, d, rows, columns) of images (b, 3, h, w) in [0, 1]; the rest runs for one pixel."""
    nothing = {
        VECTORS: np.zeros((1, dim), np.float32),
        CLASS_OF: np.zeros(1, np.int64),
        SIZE: np.ones(2, np.int64),
    }
    return session.run([PATCHES], {IMAGES: images, **nothing})[0]
