"""An ONNX file on disk: whole or not at all, its weights beside it where they are too large for one file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.export.onnx.packages import import_onnx_package

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
