"""Finding photographs: in folders with links and hidden files, in tar files, and below URLs."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from patchword.data.folders import MARKER_FILE
from patchword.data.image_extras import HEIF_EXTENSIONS
from patchword.data.images import formats
from patchword.data.storage import StoredPath, as_path, find_stored, is_stored
from patchword.data.tar_shards import SUFFIX, find_in_shard
from patchword.errors import PatchwordError


def find_images(
    source: str | Path,
    *,
    recursive: bool = True,
    follow_links: bool = True,
    also: frozenset[str] = frozenset(),
    skipped: Counter[str] | None = None,
) -> list[Path]:
    """Find the photographs in a folder, by extension, whatever its letter case.

    Hidden files and folders are skipped. A folder or file reached twice through links counts once, under its own name
    where it has one inside the source.

    Args:
        source: a folder, or one file, which is taken whatever its extension.
        recursive: whether folders inside the folder are searched.
        follow_links: whether symbolic links to files and folders count.
        also: other extensions that count, in lower case with their dot.
        skipped: where other files are counted, by their extension.

    Returns:
        paths that start with `source`, sorted by their relative path with forward slashes.
    """
    source = as_path(source)
    if is_stored(source) or source.suffix == SUFFIX:
        return _find_elsewhere(source, also=also, skipped=Counter() if skipped is None else skipped)
    try:
        missing = not source.exists()
    except OSError as error:
        raise PatchwordError(f"cannot search {source}: {error.strerror}") from None
    if missing:
        raise PatchwordError(f"no such file or folder: {source}; pass a photograph or a folder of photographs")
    if not source.is_dir():
        return [source]
    others = Counter[str]() if skipped is None else skipped
    candidates = _candidates(source, recursive, follow_links, also, others)
    found: dict[Path, _Candidate] = {}
    for candidate in sorted(candidates, key=lambda each: (each.linked, each.name)):
        found.setdefault(candidate.identity, candidate)
    if not found and others[SUFFIX]:
        return _find_in_shards(
            [path for path in sorted(source.rglob(f"*{SUFFIX}")) if path.is_file()], skipped=others, source=source
        )
    if not found:
        raise _nothing_in(source)
    return [candidate.path for candidate in sorted(found.values(), key=lambda each: each.name)]


def _nothing_in(source: Path) -> PatchwordError:
    looked_for = ", ".join(_common_extensions())
    return PatchwordError(f"no photographs in {source}; looked for {looked_for} and the like")


def _find_elsewhere(source: Path, *, also: frozenset[str], skipped: Counter[str]) -> list[Path]:
    """What is found below a URL, or in a tar file."""
    if isinstance(source, StoredPath) and source.is_dir():
        names, shards = find_stored(source, extensions=_extensions(), marker=MARKER_FILE, skipped=skipped)
        if not names and shards:
            return _find_in_shards([source / name for name in shards], skipped=skipped, source=source)
        if not names:
            raise _nothing_in(source)
        if shards:
            skipped[SUFFIX] += len(shards)
        return [source / name for name in names]
    if source.suffix.lower() in also:
        raise PatchwordError(f"{source} is a video, which is read from a disk of this machine; copy it there first")
    if not source.is_file():
        raise PatchwordError(f"no such file or folder: {source}; pass a photograph or a folder of photographs")
    if source.suffix == SUFFIX:
        return _find_in_shards([source], skipped=skipped, source=source)
    return [source]


def _find_in_shards(shards: Sequence[Path], *, skipped: Counter[str], source: Path) -> list[Path]:
    """Photographs in tar files, where a folder holds nothing else."""
    skipped.pop(SUFFIX, None)
    found = [path for shard in shards for path in find_in_shard(shard, extensions=_extensions(), skipped=skipped)]
    if not found:
        raise _nothing_in(source)
    return found


class _Candidate(NamedTuple):
    """A file that looks like a photograph: where it is, what it is called in the source, what it really is."""

    path: Path
    name: str
    identity: Path
    linked: bool


def _candidates(
    source: Path, recursive: bool, follow_links: bool, also: frozenset[str], skipped: Counter[str]
) -> Iterator[_Candidate]:
    """Every folder once, real ones before those reached through links, so that a loop of links ends."""
    visited: set[Path] = set()
    real, linked = [source], list[Path]()
    while real or linked:
        through_link = not real
        folder = (real or linked).pop(0)
        identity = Path(os.path.realpath(folder))
        if identity in visited:
            continue
        visited.add(identity)
        for entry in _entries(folder):
            is_link = entry.is_symlink()
            if is_link and not follow_links:
                continue
            path = Path(entry.path)
            if _is_folder(entry):
                (linked if is_link or through_link else real).append(path)
            elif path.suffix.lower() not in _extensions() | also:
                skipped[path.suffix.lower() or "without an extension"] += 1
            elif _may_be_file(entry):
                file_identity = Path(os.path.realpath(path)) if is_link else identity / entry.name
                yield _Candidate(path, path.relative_to(source).as_posix(), file_identity, is_link or through_link)
        if not recursive:
            return


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that is closed to us
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A link to nothing counts too, so that reading it names the file instead of losing it; a pipe does not."""
    try:
        return stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise PatchwordError(f"cannot search folder {folder}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: entry.name)


@cache
def _extensions() -> frozenset[str]:
    """Of all that can be read; of HEIF without its extra too, so that the reader says what is missing."""
    known = (suffix for suffix, name in Image.registered_extensions().items() if name in formats())
    return HEIF_EXTENSIONS.union(known)


def _common_extensions() -> list[str]:
    return [suffix for suffix in (".jpg", ".jpeg", ".png", ".webp", ".tif", ".bmp", ".gif") if suffix in _extensions()]
