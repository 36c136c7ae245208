"""Whether photographs are still those that a result was made of, by the SHA-256 of their files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from patchword.runs.progress import Progress, photograph_count

_THREADS = 4  # that read at once; a disk is kept busy, and hashing is faster than most


def content_of(path: Path) -> str | None:
    """SHA-256 of a file's bytes, 64 hexadecimal digits; None for what is no file or cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for; the reader says what is wrong
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def changed_photographs(
    recorded: Mapping[str, str | None], *, paths: Mapping[str, Path], quiet: bool = True
) -> tuple[list[str], list[str]]:
    """Compare photographs with what is recorded of them.

    Args:
        recorded: name -> content; photographs of which none is recorded are only looked for.
        paths: name -> file, of all of them.
        quiet: whether to show no progress.

    Returns:
        names of those that are not there, or cannot be read any more, and of those with other content; each sorted.
    """
    names = sorted(recorded)
    files = list(dict.fromkeys(paths[name] for name in names if recorded[name] is not None))
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="patchword-hash")
    found: dict[Path, str | None] = {}
    try:
        with Progress(len(files), "checking photographs", "files", quiet=quiet) as progress:
            for path, content in zip(files, pool.map(content_of, files), strict=True):
                found[path] = content
                progress.advance()
    finally:
        pool.shutdown(cancel_futures=True)
    there = {name: found[paths[name]] is not None if recorded[name] else paths[name].is_file() for name in names}
    changed = [name for name in names if there[name] and recorded[name] not in (None, found.get(paths[name]))]
    return [name for name in names if not there[name]], changed


def told(names: Sequence[str], one: str, *, more: str = "") -> str:
    """`1 photograph is gone: a.jpg`, or `2 photographs are gone, such as a.jpg`.

    Args:
        names: of the photographs, at least one.
        one: what is said of a single one.
        more: what is said of several; the same by default.
    """
    if len(names) == 1:
        return f"{photograph_count(1)} {one}: {names[0]}"
    return f"{photograph_count(len(names))} {more or one}, such as {min(names)}"
