"""From a torch image side to an ONNX graph with every size open."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.facts import IMAGES, PATCHES
from patchword.export.onnx.files import import_onnx_package
from patchword.export.onnx.traceable import ImageSide, traceable

# Batch, rows and columns: no two alike and none 1, or the trace would take them for fixed; neither rows nor columns are
# whole windows of a model that has windows, or it would take their padding for none.
_TRACED = (2, 11, 13)
_LOGGERS = ("torch.__trace", "torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")


def trace(side: ImageSide, *, opset: int) -> Any:
    """Trace an image side by torch's exporter, with batch, height and width open.

    Args:
        side: encoder and module in float32 on the CPU, in evaluation mode.
        opset: operator set.

    Returns:
        an `onnx_ir.Model` with input `images` (b, 3, h, w) and output `patches` (b, d, h/patch, w/patch).
    """
    import_onnx_package("onnxscript")
    patch = side.encoder.record.patch_size
    batch, rows, columns = _TRACED
    images = torch.rand(batch, 3, rows * patch, columns * patch)
    open_sizes = {0: torch.export.Dim("batch", min=1), 2: _multiple("rows", patch), 3: _multiple("cols", patch)}
    try:
        with torch.no_grad(), traceable(side.encoder), _quiet():
            exported = torch.export.export(side, (images,), dynamic_shapes=(open_sizes,), strict=False)
            program = torch.onnx.export(
                exported,
                (),
                dynamo=True,
                opset_version=opset,
                input_names=[IMAGES],
                output_names=[PATCHES],
                verbose=False,
            )
    except PatchwordError:
        raise
    except Exception as error:  # an exporter fails in as many ways as models are written
        raise PatchwordError(
            f"{side.encoder.record.name} ({side.encoder.record.family}) cannot be exported to ONNX: {_reason(error)}"
        ) from error
    model = program.model  # type: ignore[union-attr]
    _forget_the_trace(model)
    return model


def _multiple(name: str, patch: int) -> Any:
    size = torch.export.Dim(name, min=1)
    return size if patch == 1 else patch * size


def _reason(error: BaseException) -> str:
    """The innermost cause: the exporter wraps it in advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _forget_the_trace(model: Any) -> None:
    """Remove what the exporter notes of Python's files and modules: it is large and of this machine."""
    model.metadata_props.clear()
    graph = model.graph
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch's exporter says to its developers off the terminal."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
