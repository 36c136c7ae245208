"""What the values of ground-truth masks mean, and how predictions are held against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.evaluate import ZeroIs
from patchword.config.inputs import outside_results
from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap, find_mask, read_indices
from patchword.data.vocabulary import BACKGROUND_NAME, Vocabulary
from patchword.errors import PatchwordError
from patchword.runs.records import Record


@dataclass(frozen=True)
class Pair:
    """A photograph and its mask; `name` is its path relative to the folder, with forward slashes."""

    name: str
    photo: Path
    mask: Path


def find_pairs(
    photos: Path, *, masks: Path, suffix: str = "", names: Path | None = None, limit: int | None = None
) -> list[Pair]:
    """Pair every photograph with the mask of its name: for `a/b.jpg` that is `a/b.jpg.png` or `a/b.png`.

    Args:
        photos: a folder, searched recursively, or one photograph. What patchword has written below it is no photograph.
        suffix: what stands between a mask's name and `.png`, such as `_labelTrainIds`: `a/b_labelTrainIds.png`.
        names: a text file with one name a line, with or without suffix: only these photographs are taken, in the
            photographs' order. PASCAL VOC's `val.txt` is such a file.
        limit: take the first so many; None for all.
    """
    if not masks.is_dir():
        raise PatchwordError(f"no such folder of masks: {masks}")
    root = photos if photos.is_dir() else photos.parent
    found = {path.relative_to(root).as_posix(): path for path in outside_results(find_images(photos), root=root)}
    chosen = _only(found, names) if names is not None else found
    pairs = [(name, path, find_mask(masks, name=name, suffix=suffix)) for name, path in list(chosen.items())[:limit]]
    missing = [name for name, _, mask in pairs if mask is None]
    if missing:
        raise PatchwordError(
            f"{len(missing)} of {len(pairs)} photographs have no mask in {masks}, such as {missing[0]}; "
            f"the mask of a/b.jpg is a/b.jpg{suffix}.png or a/b{suffix}.png; another suffix of the masks' names can "
            "be given, and a list of names takes only some photographs"
        )
    check_not_shared({name: mask for name, _, mask in pairs if mask is not None})
    return [Pair(name, path, mask) for name, path, mask in pairs if mask is not None]


def check_not_shared(files: Mapping[str, Path]) -> None:
    """Refuse a mask or prediction that two photographs would take, such as `a.png` of `a.jpg` and `a.webp`."""
    owners: dict[Path, str] = {}
    for name, path in files.items():
        if owners.setdefault(path, name) != name:
            raise PatchwordError(
                f"{path} may be of {owners[path]} or of {name}; name it after one of them, their ending included"
            )


def _only(found: dict[str, Path], names: Path) -> dict[str, Path]:
    wanted = read_names(names)
    chosen = {name: path for name, path in found.items() if name in wanted or _without_suffix(name) in wanted}
    known = {*chosen, *map(_without_suffix, chosen)}
    absent = [name for name in wanted if name not in known]
    if absent:
        many = "a photograph that is" if len(absent) == 1 else f"{len(absent)} photographs that are"
        raise PatchwordError(f"{names} names {many} not there, such as {absent[0]}")
    return chosen


def read_names(path: Path) -> dict[str, None]:
    """The names of a list, one a line, each once and in order."""
    names = dict.fromkeys(line.strip() for line in read_lines(path, "the list of names ") if line.strip())
    if not names:
        raise PatchwordError(f"the list of names {path} is empty; write one name per line")
    return names


def read_lines(path: Path, what: str = "") -> list[str]:
    """The lines of a text file; `what` is what errors call it."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchwordError(f"cannot read {what}{path}: {getattr(error, 'strerror', None) or error}") from None


def _without_suffix(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


IGNORE = -1
Positions = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True)
class MaskRule:
    """What is scored, what the values of masks say of it, and how predictions are held against them.

    Attributes:
        vocabulary: what a model is asked for; background words are dropped where background is not scored.
        zero_is: what value 0 means. "class": the first class, and value v is the class at position v, counted from 0
            (COCO-Stuff, Cityscapes). "background": background, a class of its own before the list, and value v is the
            v-th class; a pixel for which nothing is predicted counts as background (PASCAL VOC). "ignore": such pixels
            do not count, and value v is the v-th class (ADE20K; VOC without background).
        ignore_index: the value of pixels that do not count; None for 255 in 8-bit masks and 65535 in 16-bit ones.
    """

    vocabulary: Vocabulary
    zero_is: ZeroIs = "class"
    ignore_index: int | None = None

    def __post_init__(self) -> None:
        if self.ignore_index is not None and not self.largest < self.ignore_index <= 65535:
            raise PatchwordError(
                f"ignore index is {self.ignore_index}; the masks' classes go to {self.largest}, "
                f"so it must be {self.largest + 1} to 65535"
            )
        if self.zero_is == "background" and BACKGROUND_NAME in self.vocabulary.names:
            raise PatchwordError(
                f"the class list has a class {BACKGROUND_NAME!r} and zero is background too; take the class out of the "
                "list, or let zero be a class"
            )
        if self.zero_is != "background":
            object.__setattr__(self, "vocabulary", replace(self.vocabulary, background=()))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes that are scored, in the order of the confusion matrix."""
        return (BACKGROUND_NAME, *self.vocabulary.names) if self.zero_is == "background" else self.vocabulary.names

    @property
    def largest(self) -> int:
        """The largest mask value that is a class."""
        return len(self.vocabulary) - (self.zero_is == "class")

    def read_truth(self, pair: Pair) -> Positions:
        """The truth of a photograph (h, w) as indices of `names`, -1 where a pixel does not count."""
        return self.of_values(read_indices(pair.mask), source=f"mask {pair.mask}")

    def of_values(self, values: NDArray[np.integer[Any]], *, source: str) -> Positions:
        """Values (h, w) coded as those of the masks, as indices of `names`, -1 for what does not count."""
        positions = _signed(values)
        ignore = self.ignore_index or (255 if values.dtype == np.uint8 else 65535)
        ignored = positions == ignore
        if ignore <= self.largest and ignored.any():
            raise PatchwordError(
                f"{source} has the value {ignore}, which is a class of {len(self.vocabulary)} and by default what "
                f"does not count; name another ignore index, {self.largest + 1} to 65535, or write 16-bit masks"
            )
        outside = ((positions > self.largest) | (positions < 0)) & ~ignored
        if outside.any():
            shifted = self.zero_is == "class" and bool((positions[outside] == self.largest + 1).all())
            raise PatchwordError(
                f"{source} has {values_of(positions[outside])}; {len(self.vocabulary)} classes with "
                f"zero as {self.zero_is} allow 0 to {self.largest}, and the ignore index"
                + ("; where 0 is not a class, zero is background or ignore (--zero-is)" if shifted else "")
            )
        if self.zero_is == "ignore":
            positions -= 1
        positions[ignored] = IGNORE
        return positions

    def prediction(self, label_map: LabelMap) -> Positions:
        """A label map over `vocabulary` as (h, w) indices of `names`, -1 where nothing is predicted.

        A class that the map has beyond the vocabulary is background, scored where that is; else no prediction.
        """
        values = _signed(label_map.indices)
        values[values >= len(self.vocabulary)] = IGNORE
        return values + 1 if self.zero_is == "background" else values


def values_of(values: NDArray[np.integer[Any]]) -> str:
    """The values among those given and how many pixels have each, the five most frequent first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:5]
    told = [f"{found[at]} ({counts[at]:,} pixel{'' if counts[at] == 1 else 's'})" for at in order]
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f"the value{'' if len(found) == 1 else 's'} {', '.join(told)}{more}"


def _signed(indices: NDArray[np.integer[Any]]) -> Positions:
    """A copy in the smallest signed type that holds every value of the indices' own and -1."""
    values: Positions = indices.astype(np.int16 if indices.dtype == np.uint8 else np.int32)
    return values


class DataRecord(Record):
    """Where photographs and masks are from and how they are read; stands in every report. See docs/on-disk.md."""

    photographs: str
    masks: str
    benchmark: str | None = None
    protocol: str | None = None
    reading: dict[str, Any]
    selection: dict[str, Any]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationTask:
    """Photographs with masks, and what is scored in them. A folder is one, a benchmark is one."""

    pairs: tuple[Pair, ...]
    truth: MaskRule
    data: DataRecord


def folder_task(
    photos: Path,
    *,
    masks: Path,
    rule: MaskRule,
    suffix: str = "",
    names: Path | None = None,
    limit: int | None = None,
) -> EvaluationTask:
    """Any folder of photographs with one of masks; the arguments are those of `find_pairs`."""

    def given(**options: Any) -> dict[str, Any]:
        return {name: value for name, value in options.items() if value is not None}

    pairs = find_pairs(photos, masks=masks, suffix=suffix, names=names, limit=limit)
    data = DataRecord(
        photographs=str(photos),
        masks=str(masks),
        reading=given(zero_is=rule.zero_is, ignore_index=rule.ignore_index, mask_suffix=suffix or None),
        selection=given(names=None if names is None else str(names), limit=limit),
    )
    return EvaluationTask(tuple(pairs), rule, data)
