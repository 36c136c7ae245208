"""What `setup.json` and `images.jsonl` hold, as typed records.

An evaluation is the same to the byte for the same masks, predictions and settings, however often it was stopped and
resumed and whether it was made whole or in shards, but for the command and the software's versions, which
`evaluation.json` names too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError, field_validator

from patchword.config.base import one_line
from patchword.config.evaluate import ScoringSettings
from patchword.config.segment import SegmentSettings
from patchword.data.colours import class_colours
from patchword.data.folders import check_version, write_json
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.counts import ImageCounts, Sparse
from patchword.evaluation.masks import DataRecord
from patchword.runs.records import (
    LineRecord,
    RunRecord,
    ShardRecord,
    VocabularyRecord,
    identity_of,
    in_words,
    told_by_both,
    vocabulary_differences,
)

MARKER = "evaluation"
SETUP_FILE = "setup.json"
IMAGES_FILE = "images.jsonl"
FORMAT_VERSION: Literal[1] = 1
R = TypeVar("R", bound=BaseModel)
_PLACES = ("photographs", "masks", "predicted by: folder")
_AFTERWARDS = tuple(f"scoring: {name}" for name in ("resamples", "level", "seed", "most failures"))


class ImageScore(LineRecord):
    """One line of `images.jsonl`; docs/on-disk.md has its fields."""

    name: str
    status: Literal["ok", "empty", "failed"]
    reason: str | None = None
    content: str | None = None
    mask_content: str | None = None
    size: tuple[int, int] | None = None
    score: float | None = None
    pixel_accuracy: float | None = None
    boundary_iou: float | None = None
    pairs: Sparse = ()
    boundary: Sparse | None = None

    @classmethod
    def of(cls, counts: ImageCounts, *, name: str, size: tuple[int, int], content: str | None) -> Self:
        known = [value for value in counts.boundary_iou() if value is not None]
        return cls(
            name=name,
            status="ok" if counts.table.any() else "empty",
            content=content,
            size=size,
            score=counts.score(),
            pixel_accuracy=counts.matrix.pixel_accuracy(),
            boundary_iou=sum(known) / len(known) if known else None,
            pairs=counts.sparse_table(),
            boundary=counts.sparse_boundary(),
        )

    @classmethod
    def failure(cls, reason: str, *, name: str, content: str | None) -> Self:
        return cls(name=name, status="failed", reason=reason, content=content)

    def counts(self, count: int) -> ImageCounts:
        return ImageCounts.from_sparse(self.pairs, self.boundary, count=count)


class SetupRecord(RunRecord):
    """The whole of `setup.json`: what was asked, which every score in the folder depends on. See docs/on-disk.md."""

    format: Literal["patchword-evaluation-setup"] = "patchword-evaluation-setup"
    format_version: Literal[1] = FORMAT_VERSION
    data: DataRecord
    images: int
    images_hash: str
    vocabulary: VocabularyRecord
    classes: tuple[str, ...]
    predicted_by: dict[str, Any]
    scoring: ScoringSettings
    shard: ShardRecord | None = None

    @field_validator("predicted_by")
    @classmethod
    def _settings_of_earlier_versions(cls, predicted_by: dict[str, Any]) -> dict[str, Any]:
        settings = predicted_by.get("settings")
        return predicted_by | ({"settings": SegmentSettings.current(settings)} if isinstance(settings, dict) else {})

    def save(self, folder: Path) -> None:
        write_json(folder / SETUP_FILE, self.model_dump(mode="json"))

    def differences(self, other: SetupRecord, *, merging: bool = False) -> list[tuple[str, object, object]]:
        """What two setups do not have in common, but for the shard: what it is, its value here, its value there.

        Shards that are merged may have had their files in other places; else what follows from the images' lines alone
        may differ.
        """
        pairs: list[tuple[str, object, object]] = [
            *vocabulary_differences(self.vocabulary.text, other.vocabulary.text),
            ("the number of images", self.images, other.images),
            ("the hash of the images' names", self.images_hash, other.images_hash),
            ("the list of scored classes", list(self.classes), list(other.classes)),
        ]
        pairs += _differing("", self.data.model_dump(mode="json"), other.data.model_dump(mode="json"))
        pairs += _differing("predicted by: ", self.predicted_by, other.predicted_by)
        pairs += _differing("scoring: ", self.scoring.model_dump(mode="json"), other.scoring.model_dump(mode="json"))
        left_out = _PLACES if merging else _AFTERWARDS
        return [pair for pair in pairs if pair[1] != pair[2] and pair[0] not in left_out]


def read_record(path: Path, kind: type[R]) -> R:
    """A JSON file as a record."""
    try:
        values = json.loads(path.read_bytes())
        field = kind.model_fields.get("format_version")
        if field is not None and isinstance(values, dict) and "format_version" in values:
            check_version(path, values["format_version"], reads=field.default, again="evaluate again")
        return kind.model_validate(values)
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise PatchwordError(f"{path} is damaged: {one_line(error, place='field')}") from None
    except PatchwordError:
        raise
    except ValueError as error:
        raise PatchwordError(f"{path} is damaged: {error}") from None


def colours_of(names: Sequence[str], *, vocabulary: str) -> NDArray[np.uint8]:
    """Colours (n, 3) of scored classes: those of the class list where it has the name, else the palette's."""
    parsed = Vocabulary.recorded(vocabulary, source="vocabulary of the report")
    listed = {
        name: (red, green, blue) for name, (red, green, blue) in zip(parsed.names, parsed.colours.tolist(), strict=True)
    }
    return class_colours([listed.get(name) for name in names])


def _differing(prefix: str, first: dict[str, Any], second: dict[str, Any]) -> list[tuple[str, object, object]]:
    before, now = dict(identity_of(first)), dict(identity_of(second))
    keys = told_by_both(before, now)
    return [(f"{prefix}{in_words(key).replace('_', ' ')}", before.get(key), now.get(key)) for key in keys]
