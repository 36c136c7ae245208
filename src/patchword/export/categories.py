"""The one table of names, ids and colours that all formats share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError

UNLABELLED_COLOUR = (0, 0, 0)
MOST_8_BIT = 254


@dataclass(frozen=True)
class Category:
    """A class as every format knows it.

    Attributes:
        index: position in the vocabulary, from 0; used where every number is a class (train ids, YOLO, mask files of
            patchword).
        id: index + 1; used where 0 means that a pixel has no class (COCO, VOC, FiftyOne).
        name: the class's name.
        colour: red, green, blue, 0 to 255; that of patchword's own masks and overlays; never black.
    """

    index: int
    id: int
    name: str
    colour: tuple[int, int, int]

    @property
    def hexadecimal(self) -> str:
        """The colour as #rrggbb."""
        return "#" + bytes(self.colour).hex()

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        return {"id": self.id, "train_id": self.index, "name": self.name, "color": list(self.colour)}


def categories_of(vocabulary: Vocabulary) -> tuple[Category, ...]:
    """The table of a vocabulary's classes, in its order."""
    colours = vocabulary.colours.tolist()
    return tuple(
        Category(index, index + 1, name, (red, green, blue))
        for index, (name, (red, green, blue)) in enumerate(zip(vocabulary.names, colours, strict=True))
    )


def free_name(expected: str, otherwise: str, categories: tuple[Category, ...]) -> str:
    """What a table calls something that is no class: as its readers expect, unless a class has that name."""
    return otherwise if any(each.name.casefold() == expected for each in categories) else expected


def check_8_bit(categories: tuple[Category, ...], *, format_name: str) -> None:
    """Refuse more classes than an 8-bit mask can hold beside 0 and 255."""
    if len(categories) > MOST_8_BIT:
        raise PatchwordError(
            f"format {format_name} holds {MOST_8_BIT} classes at most, the vocabulary has {len(categories)}; "
            "coco, coco-panoptic, fiftyone and hf hold more"
        )
