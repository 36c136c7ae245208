"""The 459 labels of PASCAL Context, and which of them are the 59 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.lists import class_list

# Ids of the 59 classes among the 459 labels, in the order of the class list, which is alphabetical in both.
# Source: PASCAL Context (Mottaghi et al., CVPR 2014), as the Detail API and mmsegmentation's converter have them.
_PUBLISHED = (
    *(2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158, 159),
    *(162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368),
    *(397, 415, 416, 420, 424, 427, 440, 445, 454, 458),
)
_LARGEST = 65535
_OTHER_NAMES = {"diningtable": "table", "tv/monitor": "tvmonitor"}


def class_ids(labels: Mapping[str, int]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Ids of the 59 classes: by name where the labels say a name's id, else the published one.

    Args:
        labels: name -> id, as the annotations' own list has them; may be empty.

    Returns:
        the classes in the benchmark's order, and name -> id.
    """
    names = class_list("context").names
    said = _by_class(labels)
    return names, {name: said.get(name, published) for name, published in zip(names, _PUBLISHED, strict=True)}


def ids_by_name(labels: Mapping[str, int], *, source: Path) -> tuple[tuple[str, ...], dict[str, int]]:
    """Ids of the 59 classes by name alone."""
    names = class_list("context").names
    said = _by_class(labels)
    missing = [name for name in names if name not in said]
    if missing:
        raise PatchwordError(f"{source} lacks {len(missing)} of the {len(names)} classes, such as {missing[0]!r}")
    return names, {name: said[name] for name in names}


def read_label_file(path: Path) -> dict[str, int]:
    """Read lines such as `2: aeroplane`."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchwordError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        value, colon, name = line.partition(":")
        if not line.strip():
            continue
        if not colon or not value.strip().isdecimal() or not name.strip():
            raise PatchwordError(f"{path}:{number}: {line!r} is not understood; allowed is such as '2: aeroplane'")
        try:
            if labels.setdefault(name.strip(), label_id(int(value))) != int(value):
                raise ValueError(f"{name.strip()!r} is {labels[name.strip()]} in an earlier line")
        except ValueError as error:
            raise PatchwordError(f"{path}:{number}: {error}") from None
    return labels


def label_id(value: Any) -> int:
    """The id of a label, 0 to 65535, which is what masks can hold.

    Raises:
        ValueError: when it is none.
    """
    number = int(value)
    if not 0 <= number <= _LARGEST:
        raise ValueError(f"label id {number} is outside 0 to {_LARGEST}")
    return number


def _by_class(labels: Mapping[str, int]) -> dict[str, int]:
    """The labels by the names that the benchmark has for them: without spaces, in small letters."""
    plain = {name.replace(" ", "").casefold(): value for name, value in labels.items()}
    return {_OTHER_NAMES.get(name, name): value for name, value in plain.items()}
