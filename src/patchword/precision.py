"""In which number types models and training compute: decided here and nowhere else. Needs no torch before it is asked.

| asked | models (`dtype`) and training (`precision`) compute in |
|---|---|
| auto, CUDA that has bfloat16 (Ampere and later) | bfloat16 |
| auto, CUDA with older tensor cores (V100, T4), where bfloat16 is only emulated | float16 |
| auto, everything else | float32 |

Text embeddings are computed in float32 in full, whatever the rest is computed in, and so are weights and losses.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from patchword.errors import PatchwordError

if TYPE_CHECKING:
    import torch

MatmulPrecision = Literal["highest", "high", "medium"]

_DTYPES = ("float32", "bfloat16", "float16")
_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_TENSOR_CORES = 7  # first CUDA capability whose float16 is both fast and added up in float32 (V100, T4)


def choose_dtype(dtype: str, *, device: torch.device, training: bool = False) -> torch.dtype:
    """The torch dtype of that name, or for "auto" the fastest that a device computes in and is precise enough.

    Args:
        dtype: "auto", "float32", "bfloat16" or "float16", or as trainers write them "fp32", "bf16" or "fp16".
        training: whether gradients are computed in it too; float16 then needs a scaled loss.
    """
    import torch

    named = _SHORT.get(dtype, dtype)
    if named != "auto" and named not in _DTYPES:
        raise PatchwordError(f"dtype {dtype!r} is unknown (choose from auto, {', '.join(_DTYPES)})")
    if training and named == "float16" and device.type not in ("cuda", "cpu"):
        raise PatchwordError(f"precision is {dtype!r} on {device.type} (choose from auto, fp32, bf16)")
    found: torch.dtype = _fastest(device) if named == "auto" else getattr(torch, named)
    return found


def _fastest(device: torch.device) -> torch.dtype:
    import torch

    if device.type != "cuda":
        return torch.float32
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
    major, _ = torch.cuda.get_device_capability(device)
    return torch.float16 if major >= _TENSOR_CORES else torch.float32


@contextmanager
def float32_matmul(precision: MatmulPrecision | None) -> Iterator[None]:
    """Let float32 matrix products have that precision in the whole process while the block lasts; None: as it is."""
    if precision is None or (precision == "highest" and "torch" not in sys.modules):
        yield
        return
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def matmul_precision() -> MatmulPrecision:
    """How precise products of float32 matrices are now; torch need not be loaded."""
    torch = sys.modules.get("torch")
    precision: MatmulPrecision = "highest" if torch is None else torch.get_float32_matmul_precision()
    return precision


def matmul_note() -> str:
    """What records of a result say besides the type, where products of float32 matrices are not computed in full."""
    precision = matmul_precision()
    return "" if precision == "highest" else f" with float32_matmul_precision {precision}"
