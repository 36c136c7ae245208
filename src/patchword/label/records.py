"""What `dataset.json` and `manifest.jsonl` hold, as typed records."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from patchword.errors import PatchwordError
from patchword.folders import write_json
from patchword.label.settings import LabelSettings
from patchword.models.protocols import ModelRecord

FORMAT: Literal["patchword-labels"] = "patchword-labels"
FORMAT_VERSION: Literal[1] = 1
MARKER = "labels"
DATASET_FILE = "dataset.json"
MANIFEST_FILE = "manifest.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageRecord(_Record):
    """One line of the manifest.

    Attributes:
        name: path of the photograph relative to the photographs' folder, with forward slashes.
        status: "ok"; "empty" when no pixel has a label; "failed" when the photograph could not be labelled.
        size: [height, width] in pixels; none when failed.
        classes: names of the classes in the label map, in the vocabulary's order.
        segments: number of masks.
        coverage: share of pixels with a label, in [0, 1].
        seconds: time that labelling took; differs from run to run.
        reason: why the status is not "ok"; none otherwise.
    """

    name: str
    status: Literal["ok", "empty", "failed"]
    size: tuple[int, int] | None
    classes: tuple[str, ...]
    segments: int
    coverage: float
    seconds: float
    reason: str | None


class Counts(_Record):
    """What a finished run amounts to.

    Attributes:
        images: photographs taken up; the sum of the next three.
        ok, empty, failed: how many have each status.
        segments: masks in all photographs together.
        images_with_class: for each class, in how many label maps it is.
    """

    images: int
    ok: int
    empty: int
    failed: int
    segments: int
    images_with_class: dict[str, int]

    @classmethod
    def of(cls, records: Iterable[ImageRecord], *, names: tuple[str, ...]) -> Self:
        """Count the records of all photographs."""
        records = list(records)
        status = [record.status for record in records]
        return cls(
            images=len(records),
            ok=status.count("ok"),
            empty=status.count("empty"),
            failed=status.count("failed"),
            segments=sum(record.segments for record in records),
            images_with_class={name: sum(name in record.classes for record in records) for name in names},
        )


class VocabularyRecord(_Record):
    """The vocabulary: its canonical text, the hash of it, and the class names by index."""

    text: str
    hash: str
    names: tuple[str, ...]


class DatasetRecord(_Record):
    """The whole of `dataset.json`.

    Attributes:
        format, format_version: what kind of folder this is.
        complete: false until a run has come to its end.
        photographs: their folder, relative to the data set's where there is such a path.
        source: "models" for labels that `label` made, else the format that they were imported from.
        vocabulary, settings: what was asked for; imported labels have no settings.
        image_text, mask_proposer: the models that were used; none for imported labels.
        patch_encoder: the vision encoder that said where to ask for masks; none where none did.
        counts: none until the run is complete.
        versions: of Python and the packages that matter; a second entry when a run was resumed under others, and so on.
        command: what started the run, as the caller told it; that of the first run when resumed.
    """

    format: Literal["patchword-labels"]
    format_version: Literal[1]
    complete: bool
    photographs: str
    source: Literal["models", "coco", "voc", "label-studio"] = "models"
    vocabulary: VocabularyRecord
    settings: LabelSettings | None
    image_text: ModelRecord | None
    mask_proposer: ModelRecord | None
    patch_encoder: ModelRecord | None
    counts: Counts | None
    versions: tuple[dict[str, str], ...]
    command: str

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
        if data.get("format_version") != FORMAT_VERSION:
            found = data.get("format_version")
            raise PatchwordError(
                f"{path} has format version {found}; allowed is {FORMAT_VERSION}; label again to convert"
            )
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
        data = self.model_dump(mode="json", exclude={"image_text", "mask_proposer", "patch_encoder"})
        models = {
            "image_text": asdict(self.image_text) if self.image_text else None,
            "mask_proposer": asdict(self.mask_proposer) if self.mask_proposer else None,
            "patch_encoder": asdict(self.patch_encoder) if self.patch_encoder else None,
        }
        write_json(folder / DATASET_FILE, data | models)


def relative_root(root: Path, *, folder: Path) -> str:
    """How a data set in `folder` writes down where its photographs are: relative to itself where that is possible."""
    try:
        return Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return root.as_posix()


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
