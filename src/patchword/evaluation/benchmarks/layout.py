"""How the files of a benchmark may lie on disk, where they are looked for, and what the pixels of masks mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import read_indices
from patchword.errors import PatchwordError
from patchword.evaluation.masks import IGNORE, MaskRule, Pair, read_names, values_of

BACKGROUND = -2  # what a table of mask values says of background; IGNORE is the other that is no class
UNLABELLED = -3  # pixels that nobody labelled, where it is a choice whether they are background or ignored
_UNKNOWN = -4
_LARGEST = 65535

Values = Callable[[Pair], NDArray[np.integer]]
Meaning = Mapping[int, int]


def mask_values(pair: Pair) -> NDArray[np.integer]:
    return read_indices(pair.mask)


@dataclass(frozen=True)
class BenchmarkTruth(MaskRule):
    """The ground truth of a benchmark that was found on disk; `zero_is` is "background" where that is scored.

    Attributes:
        values: reads the values of a pair's mask, (h, w) integers.
        meaning: what each value is: a position in the class list, BACKGROUND, IGNORE or UNLABELLED.
    """

    values: Values = mask_values
    meaning: Meaning = field(default_factory=dict)
    unlabelled_is_background: bool = False

    @property
    def scores_background(self) -> bool:
        return self.zero_is == "background"

    @property
    def rule(self) -> str:
        """How mask values were read, in words."""
        background = "background is scored, as class 0" if self.scores_background else "background does not count"
        chosen = self.unlabelled_is_background and UNLABELLED in self.meaning.values()
        unlabelled = "are background" if chosen else "do not count"
        return f"{len(self.vocabulary)} classes; {background}; unlabelled pixels {unlabelled}"

    def read_truth(self, pair: Pair) -> NDArray[np.int64]:
        return self.of_values(self.values(pair), source=f"mask {pair.mask} of {pair.name}")

    def of_values(self, values: NDArray[np.integer], *, source: str) -> NDArray[np.int64]:
        if values.dtype in (np.uint8, np.uint16):
            truth: NDArray[np.int64] = self._table[values]
        else:
            inside = np.clip(values, 0, _LARGEST)
            truth = np.where(inside == values, self._table[inside], _UNKNOWN)
        unknown = truth == _UNKNOWN
        if unknown.any():
            raise PatchwordError(f"{source} has {values_of(values[unknown])}; values must be {self._ranges}")
        return truth

    @cached_property
    def _table(self) -> NDArray[np.int64]:
        """Index of `names` of every mask value, (65536,)."""
        shift = int(self.scores_background)
        background = 0 if self.scores_background else IGNORE
        unlabelled = background if self.unlabelled_is_background else IGNORE
        special = {IGNORE: IGNORE, BACKGROUND: background, UNLABELLED: unlabelled}
        table = np.full(_LARGEST + 1, _UNKNOWN, dtype=np.int64)
        for value, position in self.meaning.items():
            table[value] = special.get(position, position + shift)
        return table

    @property
    def _ranges(self) -> str:
        """The values, neighbouring ones as a range."""
        numbered = enumerate(sorted(self.meaning))
        runs = [[value for _, value in run] for _, run in groupby(numbered, lambda each: each[1] - each[0])]
        return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


JPEG = ".jpg"


def photographs_in(folder: Path, *, ending: str = JPEG) -> dict[str, Path]:
    """The photographs below a folder, by name without ending, relative to it, in order.

    Hidden files are none: archives that went through a Mac have a `._0001.jpg` beside many a photograph.
    """
    found = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob(f"*{ending}")
        if not path.name.startswith(".")
    }
    if not found:
        raise PatchwordError(f"no photographs *{ending} in {folder}")
    return {name.removesuffix(ending): found[name] for name in sorted(found)}


def listed_pairs(names: Path, *, photos: Path, mask_of: Callable[[str], Path]) -> tuple[Pair, ...]:
    """The pairs that a list, with one name a line, without ending, as `val.txt`, names."""
    there = photographs_in(photos)
    wanted = read_names(names)
    absent = [name for name in wanted if name not in there]
    if absent:
        raise PatchwordError(
            f"{names} names {len(wanted)} photographs, {len(absent)} of them are not in {photos}, such as {absent[0]}"
        )
    return pairs_of({name: there[name] for name in wanted}, photos=photos, mask_of=mask_of)


def pairs_with_masks(photos: Path, *, mask_of: Callable[[str], Path]) -> tuple[Pair, ...]:
    """All photographs of a folder that have a mask: where there is no list the masks decide what the split is."""
    there = photographs_in(photos)
    chosen = {name: path for name, path in there.items() if mask_of(name).is_file()}
    if not chosen:
        raise PatchwordError(
            f"none of the {len(there)} photographs in {photos} has a mask such as {mask_of(next(iter(there)))}"
        )
    return pairs_of(chosen, photos=photos, mask_of=mask_of)


def pairs_of(chosen: Mapping[str, Path], *, photos: Path, mask_of: Callable[[str], Path]) -> tuple[Pair, ...]:
    """The pairs of photographs by name, all of which must have a mask."""
    pairs = tuple(Pair(path.relative_to(photos).as_posix(), path, mask_of(name)) for name, path in chosen.items())
    missing = [pair for pair in pairs if not pair.mask.is_file()]
    if missing:
        raise PatchwordError(
            f"{len(missing)} of {len(pairs)} photographs in {photos} have no mask; {missing[0].name} needs "
            f"{missing[0].mask}"
        )
    return pairs


_MOST_FOLDERS = 12  # folders beside each other that a message names


class NotOnDiskError(PatchwordError):
    """No layout of a benchmark has all that it needs in the folder that a user names."""


@dataclass(frozen=True)
class Part:
    """A folder or file of a layout.

    Attributes:
        paths: where it may be, relative to the layout's folder, the likeliest first.
        holds: a pattern that some file in the folder must match; "" where the path alone decides.
        needed: whether the layout is of no use without it.
    """

    what: str
    paths: tuple[str, ...]
    holds: str = ""
    needed: bool = True

    def find(self, root: Path) -> Path | None:
        """Its place below a folder; None where it is not there."""
        return next((path for path in (root / each for each in self.paths) if self._is_at(path)), None)

    def _is_at(self, path: Path) -> bool:
        try:
            return path.is_dir() and next(path.glob(self.holds), None) is not None if self.holds else path.exists()
        except OSError:  # a folder that may not be entered
            return False

    def __str__(self) -> str:
        inside = f" with {self.holds}" if self.holds else ""
        return f"{' or '.join(self.paths)}{inside} ({self.what})"


Found = Mapping[str, Path]  # a part's `what` -> where it is; parts that are not needed may be missing


@dataclass(frozen=True)
class Content:
    """What a layout holds; `split` says how it was decided which photographs belong to it."""

    pairs: tuple[Pair, ...]
    values: Values
    meaning: Meaning
    split: str


@dataclass(frozen=True)
class Layout:
    """One way in which users have a benchmark on disk.

    `places` are folders below the one that a user names in which it may be, "" for that folder itself.
    """

    name: str
    parts: tuple[Part, ...]
    places: tuple[str, ...]
    read: Callable[[Found], Content]

    def find(self, root: Path) -> Found:
        found = {part.what: part.find(root) for part in self.parts}
        return {what: path for what, path in found.items() if path is not None}

    def lacks(self, found: Found) -> list[Part]:
        return [part for part in self.parts if part.needed and part.what not in found]


@dataclass(frozen=True)
class Hit:
    """A layout with all that it needs, and the folder that it is in."""

    layout: Layout
    root: Path
    found: Found


def find_layout(title: str, layouts: Sequence[Layout], data: Path) -> Hit:
    """Find a benchmark in the folder that a user names, in a folder inside it, or in the one above it.

    The first layout that is complete is taken.
    """
    if not data.is_dir():
        raise PatchwordError(f"no such folder of {title}: {data}")
    inside = _folders_in(data)
    here = _complete(layouts, [data], below=True)
    if here:
        return here[0]
    below = _complete(layouts, inside, below=True)
    if len({hit.root for hit in below}) > 1:
        roots = sorted({str(hit.root) for hit in below})
        raise PatchwordError(f"{title} is in {data} more than once: {', '.join(roots)}; name one of these folders")
    above = _complete(layouts, [data.resolve().parent], below=False)
    if below or above:
        return (below or above)[0]
    raise NotOnDiskError(_what_is_missing(title, layouts, data, inside))


def _complete(layouts: Sequence[Layout], folders: Sequence[Path], *, below: bool) -> list[Hit]:
    """The layouts that have all that they need, in the folders themselves or also below them; of each folder the first.

    The folder above the one that a user names counts only where it is the layout's own: what lies beside may be meant
    for something else.
    """
    hits = []
    for folder in folders:
        roots = ((each, folder / place) for each in layouts for place in (each.places if below else ("",)))
        candidates = (Hit(layout, root, layout.find(root)) for layout, root in roots)
        hit = next((hit for hit in candidates if not hit.layout.lacks(hit.found)), None)
        if hit is not None:
            hits.append(hit)
    return hits


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise PatchwordError(f"cannot search {folder}: {error.strerror}") from None


def _what_is_missing(title: str, layouts: Sequence[Layout], data: Path, inside: Sequence[Path]) -> str:
    """One line: what is lacking where most of it is, and all the places that were looked at."""
    folders = [data, *inside]
    nearest = [_nearest(layout, folders) for layout in layouts]
    there = dict.fromkeys(str(path) for found in nearest for path in found.values())
    places = list(dict.fromkeys(place for layout in layouts for place in layout.places if place))
    shown = [str(folder) for folder in folders[: _MOST_FOLDERS + 1]]
    shown += [f"{len(folders) - len(shown)} more"] if len(folders) > len(shown) else []
    looked = f"{', '.join(shown)}, in {', '.join(places)} below them, and in {data.resolve().parent}"
    known = f"; there is {', '.join(there)}" if there else ""
    lacks = [layout.lacks(found) for layout, found in zip(layouts, nearest, strict=True)]
    return f"{title} is not in {data}: it lacks {_lacking(layouts, lacks)}{known}. Looked in {looked}"


def _nearest(layout: Layout, folders: Sequence[Path]) -> Found:
    """What there is where most of a layout is."""
    return max((layout.find(folder / place) for folder in folders for place in layout.places), key=len)


def _lacking(layouts: Sequence[Layout], lacks: Sequence[Sequence[Part]]) -> str:
    """What all layouts lack, then what each lacks beside it."""
    common = [part for part in lacks[0] if all(part in other for other in lacks)]
    said = ", ".join(map(str, common))
    ways = [
        f"{', '.join(str(part) for part in lack if part not in common)} [{layout.name}]"
        for layout, lack in zip(layouts, lacks, strict=True)
        if any(part not in common for part in lack)
    ]
    if len(ways) < len(layouts):  # what is common is all that some layout lacks
        return said
    return f"{said}{', and one of: ' if common else 'one of: '}{'; '.join(ways)}"
