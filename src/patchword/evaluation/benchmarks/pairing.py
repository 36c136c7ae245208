"""Photographs of a split and their masks, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.evaluation.pairs import Pair, read_names

JPEG = ".jpg"


def photographs_in(folder: Path, *, ending: str = JPEG) -> dict[str, Path]:
    """The photographs of a folder and of those in it, by name without ending, relative to it, in order.

    Hidden files are none: archives that went through a Mac have a `._0001.jpg` beside many a photograph.

    Args:
        folder: where to look.
        ending: of their names; a benchmark's photographs all have the same.
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
    """The pairs that a list names.

    Args:
        names: a text file with one name a line, without ending, as `val.txt`.
        photos: the folder of photographs.
        mask_of: where the mask of a name is.
    """
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
