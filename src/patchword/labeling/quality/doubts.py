"""What a model that learned from labels says against them: `disagreement.jsonl`, made by `evaluate/disagreement.py`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from patchword.data.folders import Manifest
from patchword.errors import PatchwordError
from patchword.runs.records import Record

DISAGREEMENT_FILE = "disagreement.jsonl"


class MaskDoubt(Record):
    """How much a model contradicts one mask.

    Attributes:
        position: of the mask in the photograph's segments.
        class_name: what the labels say.
        doubt: mean over its labelled pixels of the model's confidence in another class, 0 where it agrees; 0 to 1.
        pixels: of the mask that the label map gives to its class.
        instead: the class that the model says most of them are.
    """

    position: int = Field(ge=0)
    class_name: str
    doubt: float = Field(ge=0, le=1)
    pixels: int = Field(ge=1)
    instead: str


class ImageDoubt(Record):
    """How much a model contradicts the labels of one photograph.

    Attributes:
        name: of the photograph.
        doubt: as a mask's, over all labelled pixels; 0 where there are none.
        masks: those with pixels in the label map, most doubtful first.
        reason: why the photograph could not be looked at; none otherwise.
        of: hash of the model, the photograph and the labels that were compared; none where an earlier version did.
    """

    name: str
    doubt: float = Field(ge=0, le=1)
    masks: tuple[MaskDoubt, ...]
    reason: str | None = None
    of: str | None = None


def read_doubts(folder: Path) -> tuple[ImageDoubt, ...]:
    """The doubts about the labels in a folder, most doubtful photograph first; empty where no model was asked."""
    path = folder / DISAGREEMENT_FILE
    try:
        return by_doubt(ImageDoubt.model_validate(line) for line in Manifest(path).read().values())
    except ValidationError as error:
        raise PatchwordError(f"{path} is damaged: {error.errors()[0]['msg']}; make it again or delete it") from None


def by_doubt(records: Iterable[ImageDoubt]) -> tuple[ImageDoubt, ...]:
    """Most doubtful first; those that could not be looked at last."""
    return tuple(sorted(records, key=lambda record: (record.reason is not None, -record.doubt, record.name)))


def worst_masks(records: Sequence[ImageDoubt]) -> list[tuple[str, MaskDoubt]]:
    """All masks of all photographs with the photographs' names, most doubtful first; of equal ones the larger."""
    flat = [(record.name, mask) for record in records for mask in record.masks]
    return sorted(flat, key=lambda entry: (-entry[1].doubt, -entry[1].pixels, entry[0], entry[1].position))
