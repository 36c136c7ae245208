"""`patchword export` and `patchword import`: labels and segmenters out to other tools, and corrected labels back."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from patchword.cli.options import AsJson, Assignments, ClassList, Moved, Overwrite, OverwriteCorrections, Quiet
from patchword.cli.terminal import command_line, parse_settings, print_columns, print_json, report_labels, say_where
from patchword.errors import PatchwordError

ONNX, TEXT_EMBEDDINGS = "onnx", "text-embeddings"
MODEL_FORMATS = (ONNX, TEXT_EMBEDDINGS)
FORMER_NAMES = {"text-vectors": TEXT_EMBEDDINGS}


@dataclass(frozen=True)
class ModelOptions:
    """The options of `patchword export` that only segmenters have; each None or False where it was not given."""

    opset: int | None
    int8: bool
    classes: str | None
    encoder: str | None
    text_encoder: str | None

    def refuse_others(self, export_format: str, *allowed: str) -> None:
        """Refuse options that the format does not have."""
        given = [name for name, value in asdict(self).items() if value not in (None, False)]
        wrong = next((name for name in given if name not in allowed), None)
        if wrong is not None:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in allowed) or "none of a segmenter's options"
            raise PatchwordError(
                f"--{wrong.replace('_', '-')} is not for the format {export_format}; allowed: {options}"
            )


def export_model(
    model: Path,
    *,
    export_format: str,
    out: Path,
    options: ModelOptions,
    settings: list[str],
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write an ONNX file or a file of text embeddings, and say what was written."""
    from patchword.models.hub import segmenter_folder

    segmenter_folder(model)  # refuses what is none before torch is imported
    if export_format == ONNX:
        options.refuse_others(export_format, "opset", "int8", "encoder")
        _export_onnx(model, out=out, options=options, settings=settings, overwrite=overwrite, as_json=as_json)
        return
    options.refuse_others(export_format, "classes", "text_encoder")
    if settings:
        raise PatchwordError(f"--set is not for the format {export_format}, which has no settings")
    _export_text_embeddings(model, out=out, options=options, overwrite=overwrite, as_json=as_json)


def _export_onnx(
    model: Path, *, out: Path, options: ModelOptions, settings: list[str], overwrite: bool, as_json: bool
) -> None:
    from patchword.export.onnx.run import export_onnx

    values = parse_settings(settings)
    if options.opset is not None:
        values["opset"] = options.opset
    if options.int8:
        values["int8"] = True
    summary = export_onnx(model, out=out, settings=values, encoder=options.encoder, overwrite=overwrite)
    if as_json:
        said = summary.facts.model_dump(mode="json")
        print_json({"path": str(summary.path), "megabytes": summary.megabytes, "facts": said})
        return
    facts = summary.facts
    print_columns(
        [
            ("encoder", facts.encoder.name),
            (
                "patch",
                f"{facts.patch_size} pixels; images with as many pixels as {facts.image_size} x {facts.image_size}",
            ),
            ("operator set", facts.opset),
            ("numbers", facts.precision),
            ("differs from torch by", f"{facts.largest_difference:.1e} at most{', before 8 bits' * options.int8}"),
            *(
                [
                    ("8 bits keep", f"the class of {facts.int8_agreement:.1%} of the patches of drawn pictures"),
                    ("8 bits turn", f"a patch's vector by 1 - cosine = {1 - (facts.int8_cosine or 0):.1e} at most"),
                ]
                if facts.int8_agreement is not None
                else []
            ),
            ("licence of the encoder", facts.encoder.licence or "not known"),
            ("written", f"{summary.path}, {summary.megabytes:,.1f} MB"),
        ]
    )


def _export_text_embeddings(model: Path, *, out: Path, options: ModelOptions, overwrite: bool, as_json: bool) -> None:
    from patchword.export.text_embeddings import export_text_embeddings

    summary = export_text_embeddings(
        model, out=out, classes=options.classes, text_encoder=options.text_encoder, overwrite=overwrite
    )
    if as_json:
        print_json({"path": str(summary.path), "classes": list(summary.names), "words": summary.words})
        return
    print_columns([("classes", len(summary.names)), ("words", summary.words), ("written", summary.path)])


ExportFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="Of labels: coco, coco-panoptic, voc, yolo-seg, cvat, label-studio, fiftyone, cityscapes or hf. Of a "
        "segmenter: onnx or text-embeddings.",
    ),
]
ImportFormat = Annotated[
    str, typer.Option("--format", metavar="FORMAT", help="coco, voc or label-studio; what CVAT exports is voc or coco.")
]


def export(
    labels: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Labels that `patchword label` made, or a segmenter of `align`.")
    ],
    export_format: ExportFormat,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="Folder, or the file that the format is.")],
    photos: Moved = None,
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="Operator set of onnx, 18 to 23 [default: 20].")
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="8-bit weights in onnx: smaller, a little less exact.")] = False,
    classes: Annotated[
        str | None, typer.Option(help="Of text-embeddings: class list file or names; by default those of the training.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(metavar="NAME", help="Of onnx: where the encoder is now.")] = None,
    text_encoder: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of text-embeddings: where the text encoder is now.")
    ] = None,
    settings: Assignments = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Labels in the format of another tool, or a segmenter as a file that needs no torch."""
    export_format = FORMER_NAMES.get(export_format, export_format)
    options = ModelOptions(opset=opset, int8=int8, classes=classes, encoder=encoder, text_encoder=text_encoder)
    if export_format in MODEL_FORMATS:
        if photos is not None:
            raise PatchwordError(f"--photos is not for the format {export_format}, which holds no photographs")
        export_model(
            labels,
            export_format=export_format,
            out=out,
            options=options,
            settings=settings or [],
            overwrite=overwrite,
            as_json=as_json,
        )
        return
    from patchword.export.run import FORMATS, export_labels

    if export_format not in FORMATS:
        raise PatchwordError(
            f"format {export_format!r} is unknown (choose from {', '.join(FORMATS)} for labels, "
            f"{', '.join(MODEL_FORMATS)} for a segmenter)"
        )
    options.refuse_others(export_format)
    from patchword.labeling.dataset import LabelledDataset

    dataset = LabelledDataset.open(labels, photos=photos, allow_missing=True)
    summary = export_labels(
        dataset,
        format=export_format,
        out=out,
        settings=parse_settings(settings or []),
        overwrite=overwrite,
        quiet=quiet,
    )
    say_where(dataset, photos=photos, quiet=quiet)
    if as_json:
        print_json(summary.model_dump(mode="json"))
        return
    rows: list[tuple[str, object]] = [("photographs", summary.images)]
    if summary.segments is not None:
        rows.append(("objects", summary.segments))
    if summary.left_out:
        rows.append(("left out, for labelling failed", summary.left_out))
    if summary.slivers is not None:
        slivers = summary.slivers
        what = "1 piece" if slivers.pieces == 1 else f"{slivers.pieces} pieces"
        rows.append(("left out", f"{what} too small for an object, {slivers.share:.2%} of the labels"))
    if summary.polygon_loss is not None:
        loss = summary.polygon_loss
        rows.append(("polygons", f"{loss.polygons} with {loss.corners} corners"))
        rows.append(("IoU lost by them", f"{loss.mean_iou_loss:.2%} on average, {loss.worst_iou_loss:.2%} at worst"))
    rows += [("note", note) for note in summary.notes]
    print_columns([*rows, ("written", summary.path)])


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="File or folder of the other tool; of voc also a .zip.")
    ],
    import_format: ImportFormat,
    photos: Annotated[Path, typer.Option("--photos", metavar="FOLDER", help="Folder of the photographs.")],
    classes: ClassList,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the labels.")],
    settings: Assignments = None,
    overwrite: Overwrite = False,
    overwrite_corrections: OverwriteCorrections = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Labels that a person corrected in another tool, for `align`.

    Exit code 1 when something could not be used and was left out.
    """
    from patchword.export.importers import import_labels

    dataset = import_labels(
        source,
        format=import_format,
        photos=photos,
        classes=classes,
        out=out,
        settings=parse_settings(settings or []),
        overwrite=overwrite,
        overwrite_corrections=overwrite_corrections,
        quiet=quiet,
        command=command_line(),
    )
    report_labels(dataset, out=out, done="imported", as_json=as_json)
