"""Where models run and in which type: the one place that decides it, for frozen models and for training alike."""

from __future__ import annotations

import logging
import os
from functools import cache

import torch

from patchword.errors import PatchwordError

_log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_TENSOR_CORES = 7  # first CUDA capability whose float16 is both fast and added up in float32 (V100, T4)


def choose_device(device: str) -> torch.device:
    """The torch device of that name, or the best there is for "auto" (CUDA, then Apple's MPS, then CPU).

    A CUDA device without a number is that of this process: `torchrun` and `accelerate launch` give each of theirs the
    number in LOCAL_RANK, and a process alone has number 0.

    Args:
        device: "auto" or a torch device such as "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        the device, with its number unless it is the CPU.
    """
    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    named = f"{name}:{_local_rank()}" if name == "cuda" else name
    try:
        found = torch.zeros(1, device=torch.device(named)).device
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        source = f"device {named!r}, by LOCAL_RANK," if named != name and _local_rank() else f"device {named!r}"
        here = ", ".join(_available())
        raise PatchwordError(f"{source} is not available on this machine (choose from {here})") from error
    if device == "auto" and found.type == "mps":
        _tell_that_mps_is_untested()
    return found


def choose_dtype(dtype: str, *, device: torch.device) -> torch.dtype:
    """The torch dtype of that name, or for "auto" the one of `fast_dtype`."""
    if dtype == "auto":
        return fast_dtype(device)
    if dtype not in DTYPES:
        raise PatchwordError(f"dtype {dtype!r} is unknown (choose from auto, {', '.join(DTYPES)})")
    return DTYPES[dtype]


def fast_dtype(device: torch.device) -> torch.dtype:
    """What "auto" means on a device.

    Returns:
        bfloat16 on a CUDA device that computes in it (from Ampere on; emulation does not count), float16 on one that
        has older tensor cores (V100, T4), float32 on all others.
    """
    if device.type != "cuda":
        return torch.float32
    with torch.cuda.device(device):
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
    major, _ = torch.cuda.get_device_capability(device)
    return torch.float16 if major >= _TENSOR_CORES else torch.float32


def _local_rank() -> int:
    stated = os.environ.get("LOCAL_RANK") or "0"
    if not stated.isdecimal():
        raise PatchwordError(f"the environment variable LOCAL_RANK is {stated!r}; it must be a whole number from 0 on")
    return int(stated)


def _available() -> list[str]:
    """Names of the devices of this machine."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{card}" for card in range(cards)), *(["mps"] if torch.backends.mps.is_available() else [])]


@cache  # once a process
def _tell_that_mps_is_untested() -> None:
    _log.warning("running on Apple's GPU (mps), which nobody has tested patchword on yet; --device cpu is tested")
