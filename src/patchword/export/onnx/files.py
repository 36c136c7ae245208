"""An ONNX file on disk: whole or not at all, its weights beside it where they are too large for one file."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
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


SUFFIX = ".onnx"
MOST_IN_ONE_FILE = 2**31 - 2**26  # bytes of weights; the format's limit is 2 GiB for everything


def weights_beside(out: Path) -> Path:
    """Where the weights are that do not fit into the file."""
    return out.with_name(out.name + ".data")


def save_model(model: Any, out: Path) -> None:
    """Write an `onnx_ir.Model`, with its weights in a second file where they are too large for one."""
    ir = import_onnx_package("onnx_ir")
    size = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None)
    beside = weights_beside(out).name if size > MOST_IN_ONE_FILE else None
    try:
        ir.save(model, out, external_data=beside)
    except OSError as error:
        raise PatchwordError(f"cannot write {out}: {error.strerror or error}") from None


class Workplace:
    """A folder beside the output, where files are made before they take their names; it vanishes at the end.

    Args:
        out: the file that is to be.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            self._folder = tempfile.TemporaryDirectory(prefix=".patchword-", suffix=".tmp", dir=out.parent)
        except OSError as error:
            raise PatchwordError(f"cannot write {out}: {error.strerror}") from None

    def __enter__(self) -> Path:
        return Path(self._folder.name)

    def __exit__(self, *exception: object) -> None:
        self._folder.cleanup()

    def publish(self, made: Path) -> None:
        """Give a model made in this folder, and the weights beside it, their names.

        An older model goes first, so that no model ever stands beside another one's weights.
        """
        try:
            self._out.unlink(missing_ok=True)
            weights_beside(self._out).unlink(missing_ok=True)
            if weights_beside(made).exists():
                weights_beside(made).replace(weights_beside(self._out))
            made.replace(self._out)
        except OSError as error:
            raise PatchwordError(f"cannot write {self._out}: {error.strerror}") from None


def quantise(model: Path, *, out: Path) -> None:
    """Keep the weights of matrix products as 8-bit integers, a scale a column; activations are rounded while running.

    No photographs are needed for it: each activation's range is found when it is there (onnxruntime's dynamic
    quantisation). Convolutions, norms and the comparison with words stay float32.

    Weights have 7 bits, -64 to 64. Processors without VNNI add two products of an 8-bit activation and a weight in 16
    bits, which saturate with 8-bit weights (2 x 255 x 127 is above 32,767) and cannot with these (2 x 255 x 64 is not).

    Args:
        model: a float32 ONNX file.
        out: the new file.
    """
    quantization = import_onnx_package("onnxruntime.quantization")
    large = weights_beside(model).exists() or model.stat().st_size > MOST_IN_ONE_FILE
    try:
        with _quiet():
            quantization.quantize_dynamic(
                model,
                out,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                reduce_range=True,
                weight_type=quantization.QuantType.QInt8,
                use_external_data_format=large,
            )
    except Exception as error:  # it has no exceptions of its own
        raise PatchwordError(f"{model.name} cannot be kept in 8 bits: {first_line(error)}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep its advice on graphs that other exporters made off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
