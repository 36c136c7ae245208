"""What the public functions share: reading what a user passes, and refusing it before anything heavy begins."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from patchword.data.folders import MARKER_FILE
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError


def choose_images(photos: str | Path, *, out: str | Path, also: frozenset[str] = frozenset()) -> list[Path]:
    """The photographs of a folder; files with the extensions `also` are taken, too.

    What lies in `out`, or in any other folder below `photos` that patchword has written, is a result and no photograph.
    """
    from patchword.data.images import find_images

    found = find_images(photos, also=also)
    result = os.path.realpath(out)  # of `Path.resolve`, a link that leads to itself makes an error
    chosen = [
        path
        for path in outside_results(found, root=root_of(photos))
        if not Path(os.path.realpath(path)).is_relative_to(result)
    ]
    if not chosen:
        raise PatchwordError(f"no photographs in {photos} outside the output folder {out}")
    return chosen


def outside_results(paths: Sequence[Path], *, root: Path) -> list[Path]:
    """Those that lie in no folder below the root that patchword has written."""
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


def root_of(photos: str | Path) -> Path:
    """The folder that photographs' names are relative to."""
    path = Path(photos)
    return path if path.is_dir() else path.parent


def tell_classes(vocabulary: Vocabulary, *, quiet: bool, also: str = "") -> None:
    """Say on standard error what a class list was understood as.

    Args:
        vocabulary: the class list.
        quiet: whether to say nothing.
        also: what else there is to say of it.
    """
    if not quiet and os.environ.get("RANK", "0") == "0":  # the first of a launcher's processes speaks for all
        print(vocabulary.spoken() + also, file=sys.stderr)
