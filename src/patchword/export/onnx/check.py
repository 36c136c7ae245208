"""Whether an ONNX file computes what torch does, at other sizes than it was traced with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.facts import CLASS_OF, IMAGES, PATCHES, SIZE, VECTORS
from patchword.export.onnx.packages import import_onnx_package
from patchword.export.onnx.traceable import ImageSide

_CHECKED = ((1, 4, 4), (3, 9, 2), (2, 14, 5))  # batch, rows and columns


def open_session(path: str | Path, *, threads: int | None = None) -> Any:
    """Load an ONNX file into onnxruntime, on the CPU.

    Args:
        path: of the file.
        threads: that onnxruntime may use; None leaves it to onnxruntime.

    Raises:
        PatchwordError: when it is missing or damaged, or its operators are not known here.
    """
    runtime = import_onnx_package("onnxruntime")
    path = Path(path)
    if not path.is_file():
        raise PatchwordError(f"{path} is not there; allowed is a file that `patchword export` wrote")
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings are for onnxruntime's developers
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception type a status code
        raise PatchwordError(f"{path} cannot be loaded by onnxruntime: {first_line(error)}") from None


def largest_difference(session: Any, side: ImageSide, *, seed: int = 0) -> float:
    """The largest difference of a channel of a patch vector between an ONNX file and torch.

    Images of noise are compared at three shapes and batch sizes, none of which the file was traced with.

    Args:
        session: of the file.
        side: what it was traced from.
        seed: of the noise.

    Raises:
        PatchwordError: when the file cannot be run at one of the sizes.
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


def run_patches(session: Any, images: np.ndarray[Any, np.dtype[np.float32]], *, dim: int) -> Any:
    """Patch vectors (b, d, rows, columns) of images (b, 3, h, w) in [0, 1]; the rest runs for one pixel."""
    nothing = {
        VECTORS: np.zeros((1, dim), np.float32),
        CLASS_OF: np.zeros(1, np.int64),
        SIZE: np.ones(2, np.int64),
    }
    return session.run([PATCHES], {IMAGES: images, **nothing})[0]
