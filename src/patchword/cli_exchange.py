"""`patchword export` and `patchword import`: labels out to other tools, and corrected ones back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from patchword.options import AsJson, Assignments, ClassList, Moved, Overwrite, Quiet
from patchword.terminal import command_line, parse_settings, print_columns, print_json, report_labels

ExportFormat = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="FORMAT",
        help="coco, coco-panoptic, voc, yolo-seg, cvat, label-studio, fiftyone, cityscapes or hf.",
    ),
]
ImportFormat = Annotated[str, typer.Option("--format", metavar="FORMAT", help="coco, voc or label-studio.")]


def export(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Folder that `patchword label` made.")],
    export_format: ExportFormat,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PATH", help="Folder, or the file that the format is.")],
    photos: Moved = None,
    settings: Assignments = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Labels in the format of another tool."""
    from patchword.export.run import export_labels
    from patchword.export.settings import ExportSettings
    from patchword.label.dataset import LabelledDataset

    chosen = ExportSettings(**parse_settings(settings or []))
    dataset = LabelledDataset.open(labels, photos=photos)
    summary = export_labels(dataset, format=export_format, out=out, settings=chosen, overwrite=overwrite, quiet=quiet)
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
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="File or folder of the other tool.")],
    import_format: ImportFormat,
    photos: Annotated[Path, typer.Option("--photos", metavar="FOLDER", help="Folder of the photographs.")],
    classes: ClassList,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder of the labels.")],
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Labels that a person corrected in another tool, for `align`."""
    from patchword.export.bring_back import import_labels
    from patchword.vocabulary import Vocabulary

    dataset = import_labels(
        source,
        format=import_format,
        photos=photos,
        vocabulary=Vocabulary.of(classes),
        out=out,
        overwrite=overwrite,
        quiet=quiet,
        command=command_line(),
    )
    report_labels(dataset, out=out, done="imported", as_json=as_json)
