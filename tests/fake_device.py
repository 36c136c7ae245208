"""An accelerator that is not there: tensors that compute on the CPU, and refuse what MPS and CUDA refuse.

While `fake_device()` lasts, torch names its device `mps:0`. A tensor that is moved there, and everything that is
computed from it, says so of itself, and the following raise as they would on the device: float64; a pooling whose
cells are not all equal; NumPy without `.cpu()`; an operation between tensors of two devices; a generator of another
device. Every thread that begins meanwhile has the same device. `traffic()` counts what would keep a real one waiting:
copies from the host, and what the host has to wait for.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad
from torch.optim import optimizer
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("mps", 0)
_CPU = torch.device("cpu")
_MARK = "_on_fake_device"
_POOLS = ("adaptive_avg_pool", "adaptive_max_pool")
# Absent from MPS, whole or in some of the versions of torch that are supported.
_MISSING = ("torch.histc", "torch.kthvalue", "torch.segment_reduce", "torch.sparse_coo_tensor")
_BETWEEN_DEVICES = ("copy_", "__setitem__", "__set__", "__deepcopy__")  # part of a name; these may mix devices


# What the host waits for, since it needs the numbers or how many there are.
_WAITS = ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__contains__", "nonzero", "unique")
_WAITS += ("unique_consecutive", "masked_select", "bincount", "equal", "allclose")
_MAKERS = ("torch.tensor", "torch.as_tensor", "torch.from_numpy", "new_tensor")  # of numbers of the host


@dataclass
class Traffic:
    """What went between host and device.

    Attributes:
        copies: values in each copy from the host, in order.
        waits: by name, how often the host waited for the device.
    """

    copies: list[int] = field(default_factory=list)
    waits: Counter[str] = field(default_factory=Counter)

    def large(self, values: int) -> int:
        """How many copies from the host had at least so many values."""
        return sum(count >= values for count in self.copies)


_counted: list[Traffic] = []


@contextmanager
def traffic() -> Iterator[Traffic]:
    """Count copies and waits while the block lasts, inside of `fake_device`."""
    counted = Traffic()
    _counted.append(counted)
    try:
        yield counted
    finally:
        _counted.remove(counted)


def is_there(value: Any) -> bool:
    """Whether a tensor is on the fake device."""
    return isinstance(value, torch.Tensor) and getattr(value, "__dict__", {}).get(_MARK, False)


@contextmanager
def fake_device(kind: str = DEVICE.type) -> Iterator[torch.device]:
    """Have the device while the block lasts; `--device auto` finds it. As "cuda" it has antialiasing and all pools."""
    begin, make = threading.Thread.run, torch.nn.Parameter.__new__

    def run(thread: threading.Thread) -> None:
        with _Device():
            begin(thread)

    def parameter(cls: Any, data: Any = None, requires_grad: bool = True) -> Any:  # of which modes are not told
        made = make(cls, data, requires_grad)
        made.__dict__[_MARK] = is_there(data)
        return made

    def grouped(*args: Any) -> Any:  # by devices that only C++ knows
        found = group(*args)
        there = {key: any(map(is_there, tree_leaves(each))) for key, each in found.items()}
        return {((DEVICE if there[key] else key[0]), *key[1:]): each for key, each in found.items()}

    group = optimizer._group_tensors_by_device_and_dtype
    with pytest.MonkeyPatch.context() as patch, _Device():
        patch.setattr(optimizer, "_group_tensors_by_device_and_dtype", grouped)
        patch.setattr(clip_grad, "_group_tensors_by_device_and_dtype", grouped)
        patch.setattr(sys.modules[__name__], "DEVICE", torch.device(kind, 0))
        patch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.backends.mps, "is_available", lambda: kind == "mps")
        patch.setattr(threading.Thread, "run", run)
        patch.setattr(torch.nn.Parameter, "__new__", parameter)
        yield DEVICE


class _Device(TorchFunctionMode):
    """What is asked of torch, answered for the fake device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = resolve_name(func) or getattr(func, "__name__", str(func))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if is_there(tensor)]
        if name.endswith("Tensor.device.__get__") and there:
            return DEVICE
        if there and name.endswith((".numpy", "__array__")):
            raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu()")
        if name.endswith("Tensor.pin_memory"):
            return args[0]
        if kwargs.get("generator") is not None and (there or DEVICE.type in str(kwargs.get("device"))):
            raise RuntimeError(f"Expected a '{DEVICE.type}' device type for generator but found 'cpu'")
        wanted = _wanted_device(name, args, kwargs)
        if wanted is not None:
            args, kwargs = tree_map(_to_real, args), tree_map(_to_real, kwargs)
        else:
            self._check(name, args, kwargs, tensors=tensors, there=there)
        for counted in _counted:
            _count(counted, name, args, kwargs, tensors=tensors, there=there, wanted=wanted)
        result = func(*args, **kwargs)
        if name.endswith("Tensor.data.__set__"):  # how a module's parameters are moved
            _mark(args[0], is_there(args[1]), given=set(), moved=False)
        target = bool(there) if wanted is None else wanted.type == DEVICE.type
        given = {id(tensor) for tensor in tensors}
        moved = wanted is not None and bool(tensors)
        return tree_map(lambda leaf: _mark(leaf, target, given=given, moved=moved), result)

    def _check(self, name: str, args: Any, kwargs: Any, *, tensors: list[Any], there: list[Any]) -> None:
        if not there:
            return
        self._check_devices(name, args, tensors=tensors)
        if DEVICE.type == "cuda":
            return
        if any(missing == name for missing in _MISSING):
            raise NotImplementedError(f"{name} is not implemented for {DEVICE}")
        for pool in _POOLS:
            if pool in name:
                _check_pool(args[0], args[1] if len(args) > 1 else kwargs["output_size"])
        if kwargs.get("antialias"):
            raise NotImplementedError(f"{name} with antialias is not implemented for {DEVICE}")

    def _check_devices(self, name: str, args: Any, *, tensors: list[Any]) -> None:
        if any(part in name for part in _BETWEEN_DEVICES):
            return
        if name.endswith("__getitem__"):
            tensors = [args[0]]  # indices may be on the CPU
        strangers = [tensor for tensor in tensors if not is_there(tensor) and tensor.ndim > 0]
        if strangers:
            raise RuntimeError(f"{name}: expected all tensors on one device, found {DEVICE} and cpu")


def _count(
    counted: Traffic, name: str, args: Any, kwargs: Any, *, tensors: list[Any], there: list[Any], wanted: Any
) -> None:
    """Take down what a call moves, or waits for."""
    last = name.rsplit(".", 1)[-1]
    if wanted is not None and wanted.type == DEVICE.type:
        if tensors and not is_there(tensors[0]):
            counted.copies.append(tensors[0].numel())
        elif name.endswith(_MAKERS):
            counted.copies.append(torch.as_tensor(args[0]).numel() if not tensors else 1)
    elif wanted is not None and any(map(is_there, tensors)):
        counted.waits["cpu"] += 1
    elif there and last == "new_tensor":
        counted.copies.append(torch.as_tensor(args[1]).numel())
    elif there and last in _WAITS:
        counted.waits[last] += 1
    elif there and last == "copy_" and is_there(args[0]) != is_there(args[1]):
        if is_there(args[0]):
            counted.copies.append(args[1].numel())
        else:
            counted.waits["copy_"] += 1
    elif there and last in ("__getitem__", "__setitem__") and is_there(args[0]):
        for index in args[1] if isinstance(args[1], tuple) else (args[1],):
            if isinstance(index, torch.Tensor) and index.dtype == torch.bool and is_there(index):
                counted.waits["mask"] += 1
            elif isinstance(index, list) or (isinstance(index, torch.Tensor) and index.ndim and not is_there(index)):
                counted.copies.append(len(index))
    elif there and last == "repeat_interleave" and any(map(is_there, tensors[1:])) and "output_size" not in kwargs:
        counted.waits[last] += 1


def _wanted_device(name: str, args: Any, kwargs: Any) -> torch.device | None:
    """The device that a call names, itself or by a tensor to be like; None where it names none."""
    if name == "_parse_to":  # a module reads its arguments; its tensors are moved one by one
        return None
    if name.endswith(".cpu"):
        return _CPU
    if name.endswith((".cuda", ".mps")):
        raise AssertionError(f"{name} was called")
    for value in (kwargs.get("device"), *args[1:2]) if name.endswith("Tensor.to") else (kwargs.get("device"),):
        if isinstance(value, str | torch.device) and not isinstance(value, torch.dtype):
            return torch.device(value)
        if isinstance(value, torch.Tensor):
            return DEVICE if is_there(value) else _CPU
    if name.endswith("Tensor.to") and isinstance(kwargs.get("other"), torch.Tensor):
        return DEVICE if is_there(kwargs["other"]) else _CPU
    return None


def _to_real(leaf: Any) -> Any:
    if isinstance(leaf, torch.device) and leaf.type == DEVICE.type:
        return _CPU
    return "cpu" if isinstance(leaf, str) and leaf.split(":")[0] == DEVICE.type else leaf


def _mark(leaf: Any, target: bool, *, given: set[int], moved: bool) -> Any:
    if not isinstance(leaf, torch.Tensor):
        return leaf
    if moved and is_there(leaf) != target and id(leaf) in given:  # `to` gave back its argument
        leaf = leaf.clone()
    if target and leaf.dtype == torch.float64 and DEVICE.type == "mps":
        raise TypeError(f"Cannot convert a {DEVICE.type} Tensor to float64 dtype as it is not supported there")
    leaf.__dict__[_MARK] = target
    return leaf


def _check_pool(values: torch.Tensor, size: Any) -> None:
    sides = (size,) * 2 if isinstance(size, int) else tuple(size)
    for side, cells in zip(reversed(values.shape), reversed(sides), strict=False):
        if cells is not None and side % cells and cells % side:
            raise RuntimeError(f"Adaptive pool {DEVICE.type}: input sizes must be divisible by output sizes")
