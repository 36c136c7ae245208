"""The half of `patchword export` that concerns segmenters: an ONNX file, and text vectors for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from patchword.cli.terminal import parse_settings, print_columns, print_json
from patchword.errors import PatchwordError

ONNX, TEXT_VECTORS = "onnx", "text-vectors"
MODEL_FORMATS = (ONNX, TEXT_VECTORS)


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
    """Write an ONNX file or a file of text vectors, and say what was written."""
    if export_format == ONNX:
        options.refuse_others(export_format, "opset", "int8", "encoder")
        _export_onnx(model, out=out, options=options, settings=settings, overwrite=overwrite, as_json=as_json)
        return
    options.refuse_others(export_format, "classes", "text_encoder")
    if settings:
        raise PatchwordError(f"--set is not for the format {export_format}, which has no settings")
    _export_text_vectors(model, out=out, options=options, overwrite=overwrite, as_json=as_json)


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
                [("8 bits keep", f"the class of {facts.int8_agreement:.1%} of the patches of drawn pictures")]
                if facts.int8_agreement is not None
                else []
            ),
            ("licence of the encoder", facts.encoder.licence or "not known"),
            ("written", f"{summary.path}, {summary.megabytes:,.1f} MB"),
        ]
    )


def _export_text_vectors(model: Path, *, out: Path, options: ModelOptions, overwrite: bool, as_json: bool) -> None:
    from patchword.export.text_vectors import export_text_vectors

    summary = export_text_vectors(
        model, out=out, classes=options.classes, text_encoder=options.text_encoder, overwrite=overwrite
    )
    if as_json:
        print_json({"path": str(summary.path), "classes": list(summary.names), "words": summary.words})
        return
    print_columns([("classes", len(summary.names)), ("words", summary.words), ("written", summary.path)])
