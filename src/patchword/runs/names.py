"""What photographs are called in a run's results, and what is said of those that cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.runs.stream import Photograph

# What only a photograph's own name can be the reason of, such as one that is too long with `.png` behind it, or that
# the file system of the results does not know: a colon on FAT, bytes that are not UTF-8 on APFS.
_OF_THE_NAME = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ})


def name_images(images: Sequence[Path], *, root: Path, out: Path, verb: str) -> dict[str, Path]:
    """Photographs by their name: the path relative to the root, with forward slashes; none that is inside `out`.

    Args:
        images: all photographs.
        root: folder that names are relative to.
        out: folder of the results.
        verb: what is to be done with them, such as "label".
    """
    inner, outer = out.resolve(), root.resolve()
    if outer.is_relative_to(inner):  # overwriting the output would remove the photographs
        raise PatchwordError(f"photographs {root} are inside the output folder {out}; choose another output folder")
    named = {}
    for path in images:
        if not path.is_relative_to(root):
            raise PatchwordError(f"photograph {path} is outside {root}; photographs must lie inside it")
        name = path.relative_to(root)
        if not (outer / name).is_relative_to(inner):
            named[name.as_posix()] = path
    if not named:
        raise PatchwordError(f"no photographs to {verb} in {root}")
    return named


def why_unread(unread: Photograph) -> PatchwordError:
    """Why a photograph cannot be read, the same wherever its folder is and however that was typed."""
    return named_alike(unread.pixels, path=unread.path, name=unread.name)


def named_alike(error: object, *, path: Path, name: str) -> PatchwordError:
    """An error of a photograph that calls it by its name instead of by its path."""
    return PatchwordError(str(error).replace(str(path), name))


def why_unwritten(error: PatchwordError, *, folder: Path) -> PatchwordError:
    """What to write down of a photograph whose results cannot have its name.

    Args:
        error: of writing its files.
        folder: of the results.
    """
    cause = error.__context__
    if not (isinstance(cause, OSError) and cause.errno in _OF_THE_NAME):
        raise error
    return PatchwordError(f"its results cannot have its name: {error}".replace(f"{folder}{os.sep}", ""))


def remove_files(paths: Sequence[Path]) -> None:
    """Remove what an earlier run has made of a photograph, where there is any."""
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            if error.errno not in _OF_THE_NAME:
                raise PatchwordError(f"cannot remove {path}: {error.strerror}") from None
