"""Names of photographs in formats that know them without their suffix."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

from patchword.errors import PatchwordError


def stems(names: Iterable[str]) -> dict[str, str]:
    """A name without suffix for each photograph, folders kept; where two would be the same, the suffix stays.

    a/x.jpg and b/x.jpg become a/x and b/x; x.jpg and x.png become x.jpg and x.png. Names that differ only in letter
    case or in the way that accents are composed count as the same: some file systems cannot hold both.

    Args:
        names: relative paths with forward slashes, all different.
    """
    chosen = {name: PurePosixPath(name).with_suffix("").as_posix() for name in names}
    while clashing := _clashing(chosen):
        chosen.update((name, name) for name in clashing)
    return chosen


def check_line(name: str, *, format_name: str) -> str:
    """Refuse a name that a list with one name a line cannot hold."""
    if name.splitlines() != [name] or name != name.strip():
        raise PatchwordError(
            f"photograph {name!r} cannot stand in the lists of format {format_name}: its name has a line break or "
            "begins or ends with white space; rename it"
        )
    return name


def _clashing(chosen: dict[str, str]) -> list[str]:
    counted = Counter(map(_key, chosen.values()))
    return [name for name, stem in chosen.items() if counted[_key(stem)] > 1 and stem != name]


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
