"""From a torch image side to an ONNX graph with every size open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchword.alignment.module import AlignmentModule
from patchword.errors import PatchwordError, first_line
from patchword.export.onnx.facts import IMAGES, PATCHES, import_onnx_package, quiet
from patchword.models.pixels import AntialiasedInterpolation
from patchword.models.protocols import PatchEncoder

# Batch, rows and columns: no two alike and none 1, or the trace would take them for fixed; neither rows nor columns are
# whole windows of a model that has windows, or it would take their padding for none.
_TRACED = (2, 11, 13)


def trace(side: ImageSide, *, opset: int) -> Any:
    """Trace an image side by torch's exporter, with batch, height and width open, into an `onnx_ir.Model` from `images`
    (b, 3, h, w) to `patches` (b, d, h/patch, w/patch).
    """
    import_onnx_package("onnxscript")
    patch = side.encoder.record.patch_size
    batch, rows, columns = _TRACED
    images = torch.rand(batch, 3, rows * patch, columns * patch)
    open_sizes = {0: torch.export.Dim("batch", min=1), 2: _multiple("rows", patch), 3: _multiple("cols", patch)}
    try:
        with torch.no_grad(), traceable(side.encoder), quiet():
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


_KEYS = -0.5  # Keys' cubic, which torch's antialiased filter is, as Pillow's


class ImageSide(nn.Module):
    """Encoder and alignment module: images (b, 3, h, w) in [0, 1] to unit patch vectors (b, d, h/patch, w/patch)."""

    def __init__(self, encoder: PatchEncoder, module: AlignmentModule) -> None:
        super().__init__()
        model = getattr(encoder, "model", None)
        if not isinstance(model, nn.Module):
            raise PatchwordError(
                f"{encoder.record.name} cannot be exported: its encoder, a {type(encoder).__name__}, is no torch model"
            )
        self.encoder = encoder
        self.tower = model
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        vectors: Tensor = self.module(self.encoder(images).float())
        return vectors


@contextmanager
def traceable(encoder: PatchEncoder) -> Iterator[None]:
    """Replace, while it lasts, what would be traced with fixed sizes in an encoder, by what computes the same.

    torch's antialiased interpolation takes its size as plain numbers, as transformers' DINOv2 with registers does; MAE
    shuffles patches that are all kept; SAM scales coordinates by a ratio that is 1. Other encoders stay as they are, in
    this thread and in others; this one is for this thread alone meanwhile.
    """
    with ExitStack() as undo:
        undo.enter_context(AntialiasedInterpolation(_by_matrices))
        for owner, name, value in _replacements(encoder):
            setattr(owner, name, value)
            undo.callback(delattr, owner, name)
        yield


def _replacements(encoder: PatchEncoder) -> list[tuple[nn.Module, str, Callable[..., Any]]]:
    model: Any = getattr(encoder, "model", None)
    if encoder.record.family == "dinov2-with-registers":
        return [(model.embeddings, "interpolate_pos_encoding", _interpolated_positions(model.embeddings))]
    if encoder.record.family == "mae":
        return [(model.embeddings, "random_masking", lambda sequence, noise=None: (sequence, None, None))]
    if encoder.record.family == "sam":
        return [
            replacement
            for layer in model.layers
            for replacement in (
                (layer.attn, "get_rel_pos", relative_positions),
                (layer, "window_partition", split_windows),
                (layer, "window_unpartition", join_windows),
            )
        ]
    return []


def _by_matrices(values: Tensor, size: Any = None, **named: Any) -> Tensor:
    """Antialiased `interpolate`, by matrices where it is cubic."""
    if named.get("mode") != "bicubic" or not isinstance(size, Sequence):
        return functional.interpolate(values, size, **named)
    return resample_antialiased(values, grid=(size[0], size[1]))


def _interpolated_positions(embeddings: Any) -> Callable[[Tensor, int, int], Tensor]:
    """The positions of DINOv2 with registers at any size of an image."""

    def interpolate(tokens: Tensor, height: int, width: int) -> Tensor:
        table = embeddings.position_embeddings
        first, around = table[:, :1], table[:, 1:]  # (1, 1, c) and (1, n, c)
        trained = round(around.shape[1] ** 0.5)
        maps = around.float().transpose(1, 2).unflatten(2, (trained, trained))  # (1, c, trained, trained)
        patch_height, patch_width = embeddings.patch_embeddings.patch_size
        resampled = resample_antialiased(maps, grid=(height // patch_height, width // patch_width))
        return torch.cat([first, resampled.flatten(2).transpose(1, 2).to(table.dtype)], dim=1)

    return interpolate


def split_windows(tokens: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """SAM's windows: tokens (b, h, w, c), padded with zeros to whole windows, to (b * windows, window, window, c), and
    (rows, columns) after padding; as SAM's own, with sizes that a trace can reason about.
    """
    batch, height, width, channels = tokens.shape
    rows, columns = ((length + window - 1) // window for length in (height, width))
    padded = functional.pad(tokens, (0, 0, 0, columns * window - width, 0, rows * window - height))
    split = padded.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
    return split.reshape(batch * rows * columns, window, window, channels), (rows * window, columns * window)


def join_windows(windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The way back from `split_windows`, to tokens (b, h, w, c) of that size."""
    rows, columns = (length // window for length in padded)
    batch = windows.shape[0] // (rows * columns)
    split = windows.reshape(batch, rows, columns, window, window, -1).transpose(2, 3)
    return split.reshape(batch, rows * window, columns * window, -1)[:, : size[0], : size[1]]


def relative_positions(query_size: int, key_size: int, table: Tensor) -> Tensor:
    """SAM's relative position embeddings between the places of one axis, of a table (l, c)."""
    resampled = linear_weights(table.shape[0], 2 * query_size - 1).to(table) @ table  # (2 * query_size - 1, c)
    places = torch.arange(query_size, device=table.device)
    return resampled[places[:, None] - places[None] + (key_size - 1)]


def resample_antialiased(values: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Resample maps (b, c, h, w) as `interpolate(mode="bicubic", antialias=True)` does, for any size of the result."""
    height, width = values.shape[-2:]
    down, across = (
        cubic_weights(before, after).to(values) for before, after in zip((height, width), grid, strict=True)
    )
    return down @ values @ across.T


def _centres(before: int, after: int) -> tuple[Tensor, Tensor]:
    """Where the middles of `after` places are among `before`, (after, 1), and the ratio of both, (1,)."""
    places = torch.arange(after, dtype=torch.float64)
    scale = before / (places[-1:] + 1)  # a tensor, so that it follows the size when it is traced
    return ((places + 0.5) * scale)[:, None], scale


def linear_weights(before: int, after: int) -> Tensor:
    """What each of `before` places gives to each of `after` in a linear resampling: (after, before)."""
    centre, _ = _centres(before, after)
    wanted = (centre - 0.5).clamp(min=0, max=before - 1)
    return (1 - (wanted - torch.arange(before, dtype=torch.float64)[None]).abs()).clamp(min=0)


def cubic_weights(before: int, after: int) -> Tensor:
    """What each of `before` places gives to each of `after` in an antialiased cubic resampling: (after, before)."""
    centre, scale = _centres(before, after)
    stretch = scale.clamp(min=1)
    source = torch.arange(before, dtype=torch.float64)[None]
    first = (centre - 2 * stretch + 0.5).trunc().clamp(min=0)
    end = (centre + 2 * stretch + 0.5).trunc()
    weights = _keys_cubic((source + 0.5 - centre) / stretch) * ((source >= first) & (source < end))
    return weights / weights.sum(dim=1, keepdim=True)


def _keys_cubic(distance: Tensor) -> Tensor:
    near = distance.abs()
    inner = ((_KEYS + 2) * near - (_KEYS + 3)) * near * near + 1
    outer = ((near - 5) * near + 8) * near * _KEYS - 4 * _KEYS
    return torch.where(near < 1, inner, torch.where(near < 2, outer, torch.zeros_like(near)))
