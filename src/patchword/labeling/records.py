"""What `dataset.json`, `manifest.jsonl` and `runs.jsonl` hold, as typed records.

A data set is the same to the byte for the same photographs, vocabulary, models and settings, however often its run was
stopped and resumed and whether it was made whole or in shards. What differs from run to run (when, where, how fast, by
which command and versions) stands in `runs.jsonl` alone. That holds for one kind of machine: other processors round
otherwise, and so does a batch of images that was halved because memory ran out. Types and kinds of devices, and the
versions that decide, stand in `dataset.json`, and no run mixes them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from pydantic import Field, ValidationError

from patchword.config.label import LabelSettings
from patchword.data.folders import check_version, write_json
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError
from patchword.models.protocols import ModelRecord
from patchword.runs.records import LineRecord, Numerics, Record, RunRecord, ShardRecord, VocabularyRecord

FORMAT: Literal["patchword-labels"] = "patchword-labels"
FORMAT_VERSION: Literal[2] = 2
MARKER = "labels"
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"


class ImageRecord(LineRecord):
    """One line of the manifest.

    Attributes:
        name: path of the photograph relative to the photographs' folder, with forward slashes.
        status: "ok"; "empty" when no pixel has a label; "failed" when the photograph could not be labelled.
        size: [height, width] in pixels; none when failed.
        classes: names of the classes in the label map, in the vocabulary's order.
        segments: number of masks.
        coverage: share of pixels with a label, in [0, 1].
        reason: why the status is not "ok"; none otherwise.
        content: sha256 of the photograph's file; none where it could not be read.
        duplicate_of: the first photograph, by name, with the same content; none for that one, and before a run's end.
            A duplicate is labelled all the same.
        left_out: of imported labels, the objects that could not be used: kind of trouble -> how many.
    """

    name: str
    status: Literal["ok", "empty", "failed"]
    size: tuple[int, int] | None
    classes: tuple[str, ...]
    segments: int
    coverage: float
    reason: str | None
    content: str | None = None
    duplicate_of: str | None = None
    left_out: dict[str, int] = Field(default_factory=dict)


class Counts(Record):
    """What a finished run amounts to.

    Attributes:
        images: photographs taken up; the sum of the next three.
        ok, empty, failed: how many have each status.
        duplicates: how many have the same content as another of an earlier name; they count above as well.
        segments: masks in all photographs together.
        images_with_class: for each class, in how many label maps it is.
        left_out: of imported labels, what could not be used: kind of trouble -> how many.
    """

    images: int
    ok: int
    empty: int
    failed: int
    duplicates: int
    segments: int
    images_with_class: dict[str, int]
    left_out: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def of(
        cls, records: Iterable[ImageRecord], *, names: tuple[str, ...], left_out: Mapping[str, int] | None = None
    ) -> Self:
        """Count the records of all photographs, and what was left out that belongs to none of them."""
        records = list(records)
        status = [record.status for record in records]
        present = Counter(name for record in records for name in record.classes)
        return cls(
            images=len(records),
            ok=status.count("ok"),
            empty=status.count("empty"),
            failed=status.count("failed"),
            duplicates=sum(record.duplicate_of is not None for record in records),
            segments=sum(record.segments for record in records),
            images_with_class={name: present[name] for name in names},
            left_out=dict(sorted(sum((Counter(record.left_out) for record in records), Counter(left_out)).items())),
        )


class DatasetRecord(RunRecord):
    """The whole of `dataset.json`.

    Attributes:
        format, format_version: what kind of folder this is.
        complete: false until a run has come to its end.
        photographs: their folder, relative to the data set's where there is such a path.
        source: "models" for labels that `label` made, else the format that they were imported from.
        vocabulary, settings: what was asked for; imported labels have no settings.
        image_text, mask_proposer: the models that were used; none for imported labels.
        patch_encoder: the vision encoder that said where to ask for masks; none where none did.
        shard: which part of the photographs this is; none for all of them.
        counts: none until the run is complete.
        numerics: how the models computed; none for imported labels, and where an earlier version began the run.
        preset: whose models took part where none was named; none for imported labels, and of an earlier version.
        encoder: the vision encoder that was named, which `align` takes unless it is told of another; none without one.
    """

    format: Literal["patchword-labels"]
    format_version: Literal[2]
    complete: bool
    photographs: str
    source: Literal["models", "coco", "voc", "label-studio"] = "models"
    vocabulary: VocabularyRecord
    settings: LabelSettings | None
    image_text: ModelRecord | None
    mask_proposer: ModelRecord | None
    patch_encoder: ModelRecord | None
    shard: ShardRecord | None
    counts: Counts | None
    numerics: Numerics | None = None
    preset: str | None = None
    encoder: str | None = None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder's `dataset.json`.

        Raises:
            PatchwordError: when it is missing, damaged or of another version.
        """
        path = folder / DATASET_FILE
        data = _read_object(path)
        if data.get("format") != FORMAT:
            raise PatchwordError(f"{path} is not the record of a label folder; make one with `patchword label`")
        check_version(path, data.get("format_version"), reads=FORMAT_VERSION, again="label again")
        if isinstance(data.get("settings"), dict):
            earlier = {"mask_embeddings": False, "crop_weight": 0.0, "score_temperature": None}
            data["settings"] = earlier | data["settings"]  # earlier versions had none of these
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(str(step) for step in detail["loc"])
            raise PatchwordError(f"{path} is damaged at `{place}`: {detail['msg']}") from error
        except PatchwordError as error:
            raise PatchwordError(f"{path}: {error}") from error

    def save(self, folder: Path) -> None:
        """Write `dataset.json`; the same record gives the same bytes."""
        data = self.model_dump(mode="json", exclude={"settings", "image_text", "mask_proposer", "patch_encoder"})
        data["settings"] = self.settings.recorded() if self.settings else None
        models = {
            "image_text": asdict(self.image_text) if self.image_text else None,
            "mask_proposer": asdict(self.mask_proposer) if self.mask_proposer else None,
            "patch_encoder": asdict(self.patch_encoder) if self.patch_encoder else None,
        }
        write_json(folder / DATASET_FILE, data | models)


def read_manifest(manifest: Manifest) -> dict[str, ImageRecord]:
    """A label folder's manifest, by name."""
    records = {}
    for name, line in manifest.read().items():
        try:
            records[name] = ImageRecord.model_validate(line)
        except ValidationError as error:
            detail = error.errors()[0]
            place = ".".join(str(step) for step in detail["loc"])
            raise PatchwordError(
                f"{manifest.path}: record of {name!r} is damaged at `{place}`: {detail['msg']}"
            ) from None
    return records


def label_map_path(folder: Path, name: str) -> Path:
    """Where a photograph's label map is; the suffix stays in the name, so that a.jpg and a.png do not collide."""
    return folder / "masks" / PurePosixPath(f"{name}.png")


def segments_path(folder: Path, name: str) -> Path:
    """Where a photograph's segments are."""
    return folder / "segments" / PurePosixPath(f"{name}.json")


def embeddings_path(folder: Path, name: str) -> Path:
    """Where the embeddings of a photograph's masks are, if they are kept."""
    return folder / "embeddings" / PurePosixPath(f"{name}.safetensors")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PatchwordError(
            f"{path.parent} is not a label folder: it has no {path.name}; make one with `patchword label`"
        ) from None
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise PatchwordError(f"{path} is damaged: {error}") from None
    if not isinstance(data, dict):
        raise PatchwordError(f"{path} is damaged: it holds no JSON object")
    return data


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
