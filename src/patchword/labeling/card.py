"""The data-set card that lies beside the labels: what they are, what made them, what they are worth."""

from __future__ import annotations

from patchword.labeling.records import DatasetRecord
from patchword.models.protocols import ModelRecord

CARD_FILE = "README.md"
_CLASSES_SHOWN = 500


def dataset_card(record: DatasetRecord) -> str:
    """Write the card of a finished data set of labels in Markdown.

    Args:
        record: of the data set.

    Returns:
        the text of `README.md`, the same for the same record.
    """
    parts = [*_front_matter(), *_summary(record), *_models(record), *_classes(record), *_settings(record), *_limits()]
    return "\n".join([*parts, ""])


def _front_matter() -> list[str]:
    return [
        "---",
        "task_categories: [image-segmentation]",
        "tags: [patchword, pseudo-labels, semantic-segmentation]",
        "---",
        "",
    ]


def _summary(record: DatasetRecord) -> list[str]:
    if record.source == "models":
        made = "No person has drawn or checked them: models made them from photographs and class names."
    else:
        made = f"They were imported from {record.source}."
    lines = ["# Labels of photographs", "", f"One label map a photograph, made by patchword. {made}", ""]
    counts = record.counts
    if counts is not None:
        lines += [
            f"- {counts.images} photographs: {counts.ok} with labels, {counts.empty} without any, {counts.failed} "
            "that could not be read or labelled",
            f"- {counts.segments} masks, each with its score, its points and the generator that made it",
            *(f"- left out: {count} x {trouble}" for trouble, count in counts.left_out.items()),
        ]
    return [
        *lines,
        "- `masks/<photograph>.png` holds class indices by the list below, 255 (65535 in 16-bit maps) for no label; "
        "`segments/<photograph>.json` the masks; `dataset.json` all settings. The photographs are not part of it.",
        "",
    ]


def _models(record: DatasetRecord) -> list[str]:
    named = [
        ("classes and where they are", record.image_text),
        ("masks", record.mask_proposer),
        ("where to ask for masks", record.patch_encoder),
    ]
    used = [(role, model) for role, model in named if model is not None]
    if not used:
        return []
    rows = [_model_row(role, model) for role, model in used]
    return ["## Models", "", "| for | weights | fingerprint | licence |", "|---|---|---|---|", *rows, ""]


def _model_row(role: str, model: ModelRecord) -> str:
    revision = f" at {model.revision}" if model.revision else ""
    return f"| {role} | {model.name}{revision} | `{model.fingerprint[:16]}` | {model.licence or 'not stated'} |"


def _classes(record: DatasetRecord) -> list[str]:
    names = record.vocabulary.names
    in_photographs = record.counts.images_with_class if record.counts is not None else {}
    rows = [
        f"| {index} | {name} | {in_photographs.get(name, 0)} |" for index, name in enumerate(names[:_CLASSES_SHOWN])
    ]
    left = len(names) - len(rows)
    more = [f"\nand {left} more, listed in `dataset.json`"] if left else []
    head = ["## Classes", "", f"Vocabulary `{record.vocabulary.hash[:16]}`.", ""]
    return [*head, "| index | class | photographs |", "|---|---|---|", *rows, *more, ""]


def _settings(record: DatasetRecord) -> list[str]:
    if record.settings is None:
        return []
    rows = [f"| {name} | {value} |" for name, value in sorted(record.settings.model_dump(mode="json").items())]
    return ["## Settings", "", "| setting | value |", "|---|---|", *rows, ""]


def _limits() -> list[str]:
    return [
        "## Limits",
        "",
        "- Labels that models made carry wrong names and miss small things; they are meant to be trained on or to be "
        "corrected, not to judge other models by.",
        "- A pixel without a label is not background: nobody said what it is.",
        "- The labels inherit the biases of the models, and the photographs keep their own licences.",
    ]
