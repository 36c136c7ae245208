"""`patchword export MODEL --format onnx`: from a segmenter to one ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from patchword.alignment.artifact import Artifact, read_artifact
from patchword.config.exchange import OnnxSettings
from patchword.errors import PatchwordError
from patchword.export.files import check_file_target
from patchword.export.onnx.check import agreement, largest_difference, open_session
from patchword.export.onnx.facts import KEY, Agreement, OnnxFacts
from patchword.export.onnx.files import SUFFIX, Workplace, import_onnx_package, quantise, save_model, weights_beside
from patchword.export.onnx.graph import trace
from patchword.export.onnx.head import attach_head, parse_head
from patchword.export.onnx.traceable import ImageSide
from patchword.export.publish import find_artifact
from patchword.models import load_patch_encoder
from patchword.models.protocols import PatchEncoder
from patchword.segmentation.segmenter import load_tower
from patchword.versions import versions

_PACKAGES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxSummary:
    """What was written.

    Attributes:
        path: the file.
        megabytes: of the file and of the weights beside it.
        facts: what the file says of itself.
    """

    path: Path
    megabytes: float
    facts: OnnxFacts


def export_onnx(
    model: str | Path,
    *,
    out: str | Path,
    settings: OnnxSettings | Mapping[str, Any] | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    overwrite: bool = False,
) -> OnnxSummary:
    """Write a segmenter as one ONNX file that takes images, class vectors and the size of the result.

    Inputs: `images` (b, 3, h, w) float32, RGB in [0, 1], sides multiples of the patch; `vectors` (n, d) float32, unit
    length, one a word; `class_of` (n,) int64, the class that each word belongs to; `size` (2,) int64, height and width
    of the result in pixels. Outputs: `classes` (b, height, width) int32; `confidence` (b, height, width) float32;
    `scores` (b, classes, h/patch, w/patch) float32, cosines; `patches` (b, d, h/patch, w/patch) float32, unit length.

    The file is compared with torch before it takes its name, at sizes that it was not traced with.

    Args:
        model: folder of a segmenter that `align` made, or its hub name.
        out: a path that ends in .onnx; weights that do not fit into one file go beside it, as `<out>.data`.
        settings: all of them, or by name those that differ from the defaults.
        encoder: the vision encoder, loaded in float32 on the CPU, or where it is now; None looks where it was in
            training.
        overwrite: whether a file of that name may be replaced.

    Returns:
        where the file is, its size and what it says of itself.

    Raises:
        PatchwordError: when a package, the model or its encoder is missing, the encoder cannot be exported, the file
            differs from torch by more than the tolerance, or it cannot be written.
    """
    chosen = settings if isinstance(settings, OnnxSettings) else OnnxSettings(**(settings or {}))
    out = Path(out)
    check_file_target(out, suffix=SUFFIX, overwrite=overwrite)
    packages = {name: str(import_onnx_package(name).__version__) for name in _PACKAGES}
    artifact = read_artifact(find_artifact(model))
    side = _image_side(artifact, encoder, place=str(model))
    graph = _whole_graph(side, temperature=artifact.config.temperature, settings=chosen)
    workplace = Workplace(out)
    with workplace as folder:
        plain = folder / f"float32{SUFFIX}"
        save_model(graph, plain)
        difference = _check(plain, side, tolerance=chosen.tolerance)
        kept = None
        if chosen.int8:
            small = folder / f"int8{SUFFIX}"
            quantise(plain, out=small)
            kept = _check_8_bits(small, plain, side, least=chosen.int8_agreement)
            graph = import_onnx_package("onnx_ir").load(small)
        facts = OnnxFacts.of(
            artifact.config,
            opset=chosen.opset,
            int8=kept,
            largest_difference=difference,
            versions={**versions(), **packages},
        )
        graph.metadata_props[KEY] = facts.model_dump_json()
        made = folder / out.name
        save_model(graph, made)
        workplace.publish(made)
    size = sum(path.stat().st_size for path in (out, weights_beside(out)) if path.exists())
    return OnnxSummary(out, size / 1e6, facts)


def _whole_graph(side: ImageSide, *, temperature: float, settings: OnnxSettings) -> Any:
    """Image side and words' side in one `onnx_ir.Model`."""
    graph = trace(side, opset=settings.opset)
    head = parse_head(opset=settings.opset, temperature=temperature, values_at_once=settings.values_at_once)
    attach_head(graph, head=head)
    graph.producer_name, graph.producer_version = "patchword", versions()["patchword"]
    return graph


def _check(path: Path, side: ImageSide, *, tolerance: float) -> float:
    """The largest difference of a file from torch."""
    difference = largest_difference(open_session(path), side)
    if not difference <= tolerance:
        record = side.encoder.record
        raise PatchwordError(
            f"{record.name} ({record.family}) cannot be exported to ONNX: it differs from torch by {difference:.1e}; "
            f"the limit is {tolerance:g}"
        )
    return difference


def _check_8_bits(small: Path, plain: Path, side: ImageSide, *, least: float) -> Agreement:
    patch_size, dim = side.encoder.record.patch_size, side.module.text_dim
    found = agreement(open_session(small), open_session(plain), patch_size=patch_size, dim=dim)
    if found.share < least:
        raise PatchwordError(
            f"in 8 bits {found.share:.0%} of the patches of drawn pictures keep their class (at least {least:.0%} is "
            "asked for); --set int8_agreement=0 writes the file all the same"
        )
    return found


def _image_side(artifact: Artifact, encoder: str | Path | PatchEncoder | None, *, place: str) -> ImageSide:
    tower = artifact.config.encoder
    vision = load_tower(
        encoder, tower, load_patch_encoder, option="encoder", place=place, device="cpu", dtype="float32"
    )
    tower.check(vision.record, role="vision encoder", place=place)
    dtype = getattr(vision, "dtype", torch.float32)
    if vision.device.type != "cpu" or dtype != torch.float32:
        raise PatchwordError(
            f"{tower.name} is loaded as {dtype} on {vision.device}; an export needs float32 on the CPU"
        )
    return ImageSide(vision, artifact.module).eval().requires_grad_(False)
