"""`patchword export MODEL --format onnx`: from a segmenter to one ONNX file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchword.alignment.artifact import Artifact, read_artifact
from patchword.config.exchange import OnnxSettings
from patchword.errors import PatchwordError, first_line
from patchword.export.files import check_file_target
from patchword.export.onnx.facts import (
    KEY,
    Agreement,
    OnnxFacts,
    import_onnx_package,
    open_session,
    quiet,
    run_patches,
)
from patchword.export.onnx.graph import ImageSide, trace
from patchword.export.onnx.head import attach_head, parse_head
from patchword.export.publish import find_artifact
from patchword.models.loading import load_patch_encoder
from patchword.models.protocols import PatchEncoder
from patchword.segmentation.segmenter import load_tower
from patchword.versions import versions

_PACKAGES = ("onnx", "onnx_ir", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxSummary:
    """What was written: the file, its size with the weights beside it, and what it says of itself."""

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
    """
    chosen = OnnxSettings.of(settings)
    out = Path(out)
    check_file_target(out, suffix=SUFFIX, overwrite=overwrite)
    packages = {name: str(import_onnx_package(name).__version__) for name in _PACKAGES}
    artifact = read_artifact(find_artifact(model))
    side = _image_side(artifact, encoder, place=str(model))
    graph = _whole_graph(side, temperature=artifact.config.temperature, settings=chosen)
    with _workplace(out) as folder:
        plain = folder / f"float32{SUFFIX}"
        save_model(graph, plain)
        difference = _check(plain, side, tolerance=chosen.tolerance)
        kept = None
        if chosen.int8:
            small = folder / f"int8{SUFFIX}"
            quantise(plain, out=small)
            kept = _check_8_bits(small, plain, side, least=chosen.int8_agreement)
            graph = import_onnx_package("onnx_ir").load(small)
        config = artifact.config
        facts = OnnxFacts(
            opset=chosen.opset,
            precision="int8" if kept else "float32",
            encoder=config.encoder,
            text_encoder=config.text_encoder,
            module=config.module,
            patch_size=config.encoder.patch_size,
            image_size=config.image_size,
            temperature=config.temperature,
            vocabulary=config.vocabulary,
            vocabulary_hash=config.vocabulary_hash or config.parsed_vocabulary().hash,
            data_fingerprint=config.training.data_fingerprint,
            largest_difference=difference,
            int8_agreement=kept.share if kept else None,
            int8_cosine=kept.cosine if kept else None,
            versions={**versions(), **packages},
        )
        graph.metadata_props[KEY] = facts.model_dump_json()
        save_model(graph, folder / out.name)
    size = sum(path.stat().st_size for path in (out, weights_beside(out)) if path.exists())
    return OnnxSummary(out, size / 1e6, facts)


def _whole_graph(side: ImageSide, *, temperature: float, settings: OnnxSettings) -> Any:
    graph = trace(side, opset=settings.opset)
    head = parse_head(opset=settings.opset, temperature=temperature, values_at_once=settings.values_at_once)
    attach_head(graph, head=head)
    graph.producer_name, graph.producer_version = "patchword", versions()["patchword"]
    return graph


def _check(path: Path, side: ImageSide, *, tolerance: float) -> float:
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


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder beside the output, where files are made; that of its name, and its weights, then take their places.

    An older model goes first, so that no model ever stands beside another one's weights.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".patchword-", suffix=".tmp", dir=out.parent)
    except OSError as error:
        raise PatchwordError(f"cannot write {out}: {error.strerror}") from None
    with folder:
        made = Path(folder.name) / out.name
        yield made.parent
        try:
            out.unlink(missing_ok=True)
            weights_beside(out).unlink(missing_ok=True)
            if weights_beside(made).exists():
                weights_beside(made).replace(weights_beside(out))
            made.replace(out)
        except OSError as error:
            raise PatchwordError(f"cannot write {out}: {error.strerror}") from None


def quantise(model: Path, *, out: Path) -> None:
    """Keep the weights of matrix products as 8-bit integers, a scale a column; activations are rounded while running.

    No photographs are needed for it: each activation's range is found when it is there (onnxruntime's dynamic
    quantisation). Convolutions, norms and the comparison with words stay float32.

    Weights have 7 bits, -64 to 64. Processors without VNNI add two products of an 8-bit activation and a weight in 16
    bits, which saturate with 8-bit weights (2 x 255 x 127 is above 32,767) and cannot with these (2 x 255 x 64 is not).
    """
    quantization = import_onnx_package("onnxruntime.quantization")
    large = weights_beside(model).exists() or model.stat().st_size > MOST_IN_ONE_FILE
    try:
        with quiet():
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


_CHECKED = ((1, 4, 4), (3, 9, 2), (2, 14, 5))  # batch, rows and columns
_PICTURES, _PATCHES_A_SIDE, _STAND_INS = 4, 12, 21


def largest_difference(session: Any, side: ImageSide) -> float:
    """The largest difference of a channel of a patch vector between an ONNX file and torch.

    Images of noise are compared at three shapes and batch sizes, none of which the file was traced with.
    """
    patch, dim = side.encoder.record.patch_size, side.module.text_dim
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch, rows, columns in _CHECKED:
        images = torch.rand(batch, 3, rows * patch, columns * patch, generator=generator)
        with torch.no_grad():
            expected = side(images).numpy()
        try:
            found = run_patches(session, images.numpy(), dim=dim)
        except Exception as error:
            raise PatchwordError(
                f"{side.encoder.record.name} ({side.encoder.record.family}) cannot be exported to ONNX: "
                f"{batch} images of {rows} x {columns} patches fail in onnxruntime: {first_line(error)}"
            ) from error
        worst = max(worst, float(np.abs(found - expected).max()))
    return worst


def agreement(small: Any, plain: Any, *, patch_size: int, dim: int) -> Agreement:
    """How much of a float32 file an int8 file keeps, on pictures drawn here.

    Class names need a text tower, which an export does without. Patch vectors of the float32 file that are far from
    each other stand in for them: a patch's class is the nearest of those.
    """
    pictures = drawn_pictures(_PICTURES, side=_PATCHES_A_SIDE * patch_size)
    expected, found = (
        np.moveaxis(run_patches(session, pictures, dim=dim), 1, -1).reshape(-1, dim)  # (n, d), unit length
        for session in (plain, small)
    )
    chosen = [0]
    while len(chosen) < _STAND_INS:  # the one that is furthest from those chosen
        chosen.append(int((expected @ expected[chosen].T).max(1).argmin()))
    words = expected[chosen].T
    same = (expected @ words).argmax(1) == (found @ words).argmax(1)
    return Agreement(float(same.mean()), float((expected * found).sum(1).min()))


def drawn_pictures(count: int, *, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Pictures of sloping colours with discs, boxes and stripes: (count, 3, side, side) in [0, 1]."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    pictures = np.empty((count, 3, side, side), np.float32)
    for picture in pictures:
        low, high = generator.random((2, 3, 1, 1), dtype=np.float32)
        picture[:] = low + (high - low) * rows
        for number in range(8):
            x, y, size = generator.uniform((0, 0, 0.06), (1, 1, 0.25))
            round_one = np.hypot(rows - y, columns - x) < size
            inside = round_one if number % 2 else (np.abs(rows - y) < size) & (np.abs(columns - x) < size)
            if number % 4 == 3:
                inside &= np.sin(columns * 60) > 0
            picture[:, inside] = generator.random((3, 1), dtype=np.float32)
    return pictures
