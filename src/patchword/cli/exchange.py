"""`patchword export` and `patchword import`: labels and segmenters out to other tools, and corrected labels back."""

from __future__ import annotations

from pathlib import Path

from patchword.cli.terminal import command_line, print_columns, print_json, report_labels, say_where
from patchword.config.exchange import ONNX, TEXT_EMBEDDINGS, ExportCommand, ImportCommand
from patchword.data.storage import as_path


def export(labels: str, config: ExportCommand) -> None:
    """Write what the format is of, and say what was written."""
    if config.format not in (ONNX, TEXT_EMBEDDINGS):
        _export_labels(labels, config)
        return
    from patchword.models.hub import segmenter_folder

    segmenter_folder(labels)  # refuses what is none before torch is imported
    if config.format == ONNX:
        _export_onnx(labels, config)
    else:
        _export_text_embeddings(labels, config)


def _export_onnx(model: str, config: ExportCommand) -> None:
    from patchword.export.onnx.run import export_onnx

    values = config.numbers_of("settings").model_dump(exclude_unset=True)
    if config.opset is not None:
        values["opset"] = config.opset
    if config.int8:
        values["int8"] = True
    summary = export_onnx(model, out=config.out, settings=values, encoder=config.encoder, overwrite=config.overwrite)
    if config.as_json:
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
            ("differs from torch by", f"{facts.largest_difference:.1e} at most{', before 8 bits' * config.int8}"),
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


def _export_text_embeddings(model: str, config: ExportCommand) -> None:
    from patchword.export.text_embeddings import export_text_embeddings

    summary = export_text_embeddings(
        model, out=config.out, classes=config.classes, text_encoder=config.text_encoder, overwrite=config.overwrite
    )
    if config.as_json:
        print_json({"path": str(summary.path), "classes": list(summary.names), "words": summary.words})
        return
    print_columns([("classes", len(summary.names)), ("words", summary.words), ("written", summary.path)])


def _export_labels(labels: str, config: ExportCommand) -> None:
    from patchword.export.run import export_labels
    from patchword.labeling.dataset import LabelledDataset

    photos = None if config.photos is None else as_path(config.photos)
    dataset = LabelledDataset.open(labels, photos=photos, allow_missing=True)
    summary = export_labels(dataset, config=config.changed(photos=None))
    say_where(dataset, photos=photos, quiet=config.quiet)
    if config.as_json:
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


def import_(source: str, config: ImportCommand) -> None:
    """Bring labels in, and say what they amount to."""
    from patchword.export.importers import import_labels

    dataset = import_labels(source, config=config.changed(command=command_line()))
    from patchword.models.registry import find_preset

    text_encoder = find_preset("balanced").image_text  # these labels name none
    then = ("align", config.out, "--text-encoder", text_encoder, "-o", "model")
    report_labels(dataset, out=Path(config.out), done="imported", as_json=config.as_json, then=then)
