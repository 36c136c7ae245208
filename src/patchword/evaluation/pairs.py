"""Which mask belongs to which photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from patchword.config.inputs import outside_results
from patchword.data.images import find_images
from patchword.data.masks import find_mask
from patchword.errors import PatchwordError


@dataclass(frozen=True)
class Pair:
    """A photograph and its mask.

    Attributes:
        name: the photograph's path relative to the folder, with forward slashes.
        photo, mask: paths of the two files.
    """

    name: str
    photo: Path
    mask: Path


def find_pairs(
    photos: Path, *, masks: Path, suffix: str = "", names: Path | None = None, limit: int | None = None
) -> list[Pair]:
    """Pair every photograph with the mask of its name.

    Args:
        photos: a folder, searched recursively, or one photograph. What patchword has written below it is no photograph.
        masks: a folder; for `a/b.jpg` it holds `a/b.jpg.png` or `a/b.png`.
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
            f"allowed for a/b.jpg are a/b.jpg{suffix}.png and a/b{suffix}.png, another suffix of the masks' names can "
            "be given, and a list of names takes only some photographs"
        )
    check_not_shared({name: mask for name, _, mask in pairs if mask is not None})
    return [Pair(name, path, mask) for name, path, mask in pairs if mask is not None]


def check_not_shared(files: Mapping[str, Path]) -> None:
    """Refuse a mask or prediction that two photographs would take, such as `a.png` of `a.jpg` and `a.webp`.

    Args:
        files: photograph -> its mask or prediction.
    """
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
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchwordError(
            f"cannot read the list of names {path}: {getattr(error, 'strerror', None) or error}"
        ) from None
    names = dict.fromkeys(line.strip() for line in lines if line.strip())
    if not names:
        raise PatchwordError(f"the list of names {path} is empty; allowed is one name a line")
    return names


def _without_suffix(name: str) -> str:
    return Path(name).with_suffix("").as_posix()
