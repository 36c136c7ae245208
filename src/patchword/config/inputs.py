"""What the public functions share: finding the photographs, and saying what was understood before anything begins."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.config.shared import PhotosValue
from patchword.data.folders import MARKER_FILE, read_marker
from patchword.data.storage import StoredPath, as_path, is_stored
from patchword.data.tar_shards import SUFFIX, expand_braces
from patchword.errors import PatchwordError

_KINDS_TOLD = 5  # of skipped files
_RESULTS = {"labels": "labels", "segmentation": "masks of `patchword segment`", "model": "a model of `patchword align`"}


@dataclass(frozen=True)
class Photographs:
    """The photographs of one or several folders and files.

    Attributes:
        images: all of them, sorted by name.
        root: folder that their names are relative to.
        named: those that were not found in a folder, but named themselves.
        skipped: what was found and not taken: kind -> how many.
    """

    images: tuple[Path, ...]
    root: Path
    named: frozenset[Path]
    skipped: Mapping[str, int]

    def spoken(self, taken: int | None = None) -> str:
        """What was found, in one line for a person: "6 photographs in photos; skipped: 2 .cr2, 1 .svg".

        Args:
            taken: how many of them are; None for all.
        """
        count = len(self.images)
        kinds = sorted(self.skipped.items(), key=lambda each: (-each[1], each[0]))
        told = [f"{number:,} {kind}" for kind, number in kinds[:_KINDS_TOLD]]
        if others := sum(number for _, number in kinds[_KINDS_TOLD:]):
            told.append(f"{others:,} others")
        first = f", the first {taken:,} taken" if taken is not None and taken < count else ""
        skipped = f"; skipped: {', '.join(told)}" if told else ""
        return f"{count:,} photograph{'' if count == 1 else 's'} in {self.root}{first}{skipped}"


def choose_images(
    photos: PhotosValue, *, out: str | Path | None = None, also: frozenset[str] = frozenset()
) -> Photographs:
    """The photographs of folders and files; files with the extensions `also` are taken, too.

    What lies in `out`, or in any other folder below them that patchword has written, is a result and no photograph.
    """
    from patchword.data.image_files import find_images

    sources, skipped = _sources(photos), Counter[str]()
    root = _root(sources)
    found = {
        path.relative_to(root).as_posix(): path
        for source in sources
        for path in find_images(source, also=also, skipped=skipped)
    }
    chosen = tuple(outside_results([found[name] for name in sorted(found)], root=root))
    if out is not None and is_stored(root):
        chosen = tuple(path for path in chosen if not path.is_relative_to(as_path(out)))
    elif out is not None:
        result = os.path.realpath(out)  # of `Path.resolve`, a link that leads to itself makes an error
        chosen = tuple(path for path in chosen if not Path(os.path.realpath(path)).is_relative_to(result))
    if len(chosen) < len(found):
        skipped["in results of patchword"] = len(found) - len(chosen)
    if not chosen:
        raise PatchwordError(f"no photographs in {root} outside the output folder {out}")
    return Photographs(chosen, root, frozenset(source for source in sources if not source.is_dir()), skipped)


def _sources(photos: PhotosValue) -> list[Path]:
    """What was named, patterns such as `photos/*.jpg` replaced by the files that they stand for."""
    named = [photos] if isinstance(photos, str | Path) else list(photos)
    sources: list[Path] = []
    for each in (piece for text in map(str, named) for piece in _spelled_out(text)):
        if not each:
            raise PatchwordError("photos is empty; pass a path")
        path = as_path(each)
        is_pattern = any(mark in each for mark in "*?[") and not (is_stored(path) or os.path.lexists(path))
        matching = sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor)))) if is_pattern else [path]
        if isinstance(path, StoredPath) and any(mark in each for mark in "*?["):
            matching = path.matching()
        if not matching:
            raise PatchwordError(f"no file matches {each}; pass photographs or a folder of photographs")
        sources += matching
    if not sources:
        raise PatchwordError("no photographs are named; pass photographs or a folder of photographs")
    for source in sources:
        if source.is_dir() and (result := _RESULTS.get(read_marker(source) or "")):
            raise PatchwordError(f"{source} holds {result}, not photographs; pass a folder of photographs")
    if len({is_stored(source) and source.parts[0] for source in sources}) > 1:
        raise PatchwordError("photographs are named in several places; copy them into one, or make a run of each")
    if len(sources) > 1 and any(source.is_absolute() or ".." in source.parts for source in sources):
        sources = [source.absolute() for source in sources]
    return sources


def _spelled_out(text: str) -> list[str]:
    """What `{000..119}.tar` stands for, where no file is called so."""
    return expand_braces(text) if text.endswith(f"}}{SUFFIX}") and not os.path.lexists(text) else [text]


def _root(sources: Sequence[Path]) -> Path:
    """The folder that photographs' names are relative to."""
    folders = list(dict.fromkeys(source if source.is_dir() else source.parent for source in sources))
    return folders[0] if len(folders) == 1 else type(folders[0])(os.path.commonpath(folders))


def outside_results(paths: Sequence[Path], *, root: Path) -> list[Path]:
    """Those that lie in no folder below the root that patchword has written; of stored ones that is known already."""
    if is_stored(root):
        return list(paths)
    results = _Results(root)
    return [path for path in paths if path not in results]


class _Results:
    """The folders below a root that hold results; each is looked at once."""

    def __init__(self, root: Path) -> None:
        self._known = {root: False}

    def __contains__(self, path: Path) -> bool:
        folder = path.parent
        if folder not in self._known:
            self._known[folder] = (folder / MARKER_FILE).is_file() or (folder != folder.parent and folder in self)
        return self._known[folder]


def tell(*lines: str, quiet: bool) -> None:
    """Say on standard error what a run was understood as, before it works; empty lines are left out."""
    if not quiet and os.environ.get("RANK", "0") == "0":  # the first of a launcher's processes speaks for all
        for line in filter(None, lines):
            print(line, file=sys.stderr)


def spoken_models(models: Mapping[str, str], *, of: str = "models") -> str:
    """The models of a run in one line: "preset fast: image-text NAME (in the hub's cache), mask generator NAME"."""
    return f"{of}: {', '.join(f'{role} {name}' for role, name in models.items())}" if models else ""
