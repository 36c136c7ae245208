"""Matrix products with 8-bit weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.files import MOST_IN_ONE_FILE, weights_beside
from patchword.export.onnx.packages import import_onnx_package


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
