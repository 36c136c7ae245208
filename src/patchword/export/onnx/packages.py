"""The optional packages, each imported where it is used; one clear line where it is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from patchword.errors import PatchwordError, first_line


def import_onnx_package(name: str) -> Any:
    """Import onnx, onnx_ir, onnxscript or onnxruntime.

    Args:
        name: of the module, dotted for a part of one.
    """
    package = name.split(".")[0]
    try:
        return import_module(name)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == package
        why = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise PatchwordError(f'ONNX needs the package {package}, which {why}; pip install "patchword[onnx]"') from None
