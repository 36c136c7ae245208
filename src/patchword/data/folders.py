"""Output folders: refused or resumed, written whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from patchword.data.storage import TEMPORARY as _TEMPORARY
from patchword.data.storage import StoredPath, as_path, is_stored
from patchword.errors import PatchwordError, WriteError

MARKER_FILE = ".patchword"
CACHE_VARIABLE = "PATCHWORD_CACHE"
_LOCKED_BYTE = 1 << 30  # on Windows nobody else can read a byte that is locked: one far behind the end harms nobody
_REPLACING_TRIES, _REPLACING_PAUSE = 20, 0.1  # seconds
_LONGEST_WINDOWS_PATH = 259  # characters, unless its long paths are switched on; what is longer "cannot be found"
_WINDOWS = sys.platform == "win32"
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)
_WINDOWS_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"|?*\\]|[. ]\Z')


def cache_folder() -> Path | None:
    """Where results that can be made again are kept: the folder that PATCHWORD_CACHE names, empty for nowhere.

    Without the variable it is `patchword` in XDG_CACHE_HOME, or else in `.cache` of the home folder; a user without a
    home folder has none.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named is not None:
        return expand_home(named) if named else None
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "patchword"
    except RuntimeError:
        return None


def expand_home(path: str | Path) -> Path:
    """A path with a leading `~` replaced by the home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise PatchwordError(f"{path} begins with ~, but this user has no home folder; give the whole path") from None


def prepare_output(path: str | Path, *, resume: bool = False, overwrite: bool = False, marker: str) -> Path:
    """Make an output folder ready, and never touch one that is not ours.

    The folder gets a small file `.patchword` that says which kind of result it holds.

    Args:
        path: the folder; made with its parents when missing.
        resume: go on in a folder that an earlier run of the same kind has left, which stays as it is; once the run is
            sure to go on, `remove_leftovers` clears it.
        overwrite: empty such a folder first, whatever it holds.
        marker: the kind of result, such as "labels" or "model".
    """
    path = as_path(path)
    check_output(path, resume=resume, overwrite=overwrite, marker=marker)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if overwrite and holds_anything(path):
            with sole_use(path):
                _empty(path)
    except OSError as error:
        raise PatchwordError(f"cannot use output folder {path}: {error.strerror}") from None
    if read_marker(path) != marker:
        write_text(path / MARKER_FILE, marker + "\n")
    return path


def check_output(path: str | Path, *, resume: bool = False, overwrite: bool = False, marker: str) -> None:
    """Refuse an output folder that a run cannot have, before minutes of loading; nothing on disk changes.

    Args:
        path, resume, overwrite, marker: as for `prepare_output`.
    """
    path = as_path(path)
    if resume and overwrite:
        raise PatchwordError("use either resume or overwrite, not both")
    try:
        if path.exists() and not path.is_dir():
            raise PatchwordError(f"{path} is a file; the output must be a folder")
        if path.is_symlink() and not path.exists():
            raise PatchwordError(f"{path} is a link that leads nowhere; the output must be a folder")
        if path.exists() and holds_anything(path):
            _check_used_folder(path, resume, overwrite, marker)
        if is_stored(path):
            return
        there = next(each for each in (path, *path.absolute().parents) if each.exists())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise PatchwordError(f"cannot use output folder {path}: {error.strerror}") from None


def remove_leftovers(path: Path) -> None:
    """Remove the temporary files that an interrupted run has left in its folder; nobody else may be at work there."""
    if isinstance(path, StoredPath):
        path.remove_leftovers()
        return
    for leftover in path.rglob(_TEMPORARY.format("*")):
        leftover.unlink(missing_ok=True)


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Keep other processes out of an output folder while a run works in it; a process that ends in any way lets go.

    Args:
        path: a folder that `prepare_output` has made ready; stores know no locks.
    """
    if is_stored(path):
        yield
        return
    with (path / MARKER_FILE).open("rb") as marker:
        if not _lock(marker):
            raise PatchwordError(f"another run is at work in {path}; wait until it has ended, or choose another folder")
        yield


def _lock(file: IO[bytes]) -> bool:
    """Whether nobody else has locked a file; true also where the system or the file system knows no locks."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):
        return True
    return True


@contextmanager
def locked(file: IO[bytes]) -> Iterator[None]:
    """Wait until no other process holds an open file's lock, and hold it; where the system has no locks, go on."""
    if sys.platform == "win32":
        while not _lock(file):
            time.sleep(_REPLACING_PAUSE)
        yield
        return  # closing the file lets go
    import fcntl

    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a file whole or not at all; folders on the way are made.

    The data goes to a temporary name beside the file, is forced to disk, and takes the file's name at the end.
    """
    path = as_path(path)
    try:
        with replacing(path) as file:
            file.write(data)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror}") from None


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does; line ends are kept, and a file's name that is not UTF-8 is escaped."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON as `write_bytes` does: keys sorted, two spaces of indent, the same bytes for the same value."""
    write_text(path, json_text(value, indent=2) + "\n")


def holds_anything(path: Path) -> bool:
    """Whether a folder holds more than the marker, or the beginning of one from a run that was killed at once."""
    if isinstance(path, StoredPath):
        return any(name != MARKER_FILE for name in path.names())
    return any(entry.name != MARKER_FILE and not entry.match(_TEMPORARY.format("*")) for entry in path.iterdir())


def _check_used_folder(path: Path, resume: bool, overwrite: bool, marker: str) -> None:
    found = read_marker(path)
    if found is None:
        raise PatchwordError(
            f"output folder {path} is not empty and was not made by patchword (it has no {MARKER_FILE} file); choose "
            "another folder"
        )
    if found != marker:
        raise PatchwordError(f"output folder {path} holds {found!r}, not {marker!r}; choose another folder")
    if not resume and not overwrite:
        raise PatchwordError(f"output folder {path} is not empty; choose another, or pass --resume or --overwrite")
    with sole_use(path):
        pass


def read_marker(path: Path) -> str | None:
    """Which kind of result a folder holds, as `prepare_output` has written it; None for any other folder."""
    try:
        return (path / MARKER_FILE).read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        return None


def _empty(path: Path) -> None:
    """Remove what is in the folder but the marker, so that an interrupted removal can be repeated.

    Files go before folders: without the record of a run nobody takes the rest of its results for whole.
    """
    if isinstance(path, StoredPath):
        path.remove_all(but=MARKER_FILE)
        return
    for entry in sorted(path.iterdir(), key=lambda each: (each.is_dir(), each.name)):
        if entry.name == MARKER_FILE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file beside `path` that takes its name when the block ends well and vanishes when it does not.

    Folders on the way are made.
    """
    if isinstance(path, StoredPath):
        whole = io.BytesIO()
        yield whole
        path.put(whole.getvalue())
        return
    with replacing_path(path) as temporary, temporary.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """As `replacing`, for what writes files only by their path: the path of a file that is not there yet."""
    if isinstance(path, StoredPath):
        with tempfile.TemporaryDirectory() as folder:
            yield (local := Path(folder) / path.name)
            path.put(local.read_bytes())
        return
    _refuse_name(path)
    temporary = path.parent / _TEMPORARY.format(secrets.token_hex(8))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        replace_file(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        longest = max(len(str(each.absolute())) for each in (path, temporary))
        if _WINDOWS and isinstance(error, FileNotFoundError) and longest > _LONGEST_WINDOWS_PATH:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)) from None
        raise


def replace_file(new: Path, old: Path) -> None:
    """Give a file another's name, in whose place it then is.

    Windows refuses that while a program has the old file open, as scanners and previews do for a moment: it is tried
    again for two seconds.
    """
    for left in reversed(range(_REPLACING_TRIES)):
        try:
            new.replace(old)
            return
        except PermissionError:
            if not _WINDOWS:
                raise
            if not left:
                raise PermissionError(errno.EACCES, "the file is protected or open in another program") from None
            time.sleep(_REPLACING_PAUSE)


def _refuse_name(path: Path) -> None:
    """Refuse the names that Windows takes for something else: it would write to a device, a stream or another file."""
    for part in path.parts[1 if path.anchor else 0 :] if _WINDOWS else ():
        if part not in (".", "..") and (_WINDOWS_DEVICE.fullmatch(part) or _WINDOWS_FORBIDDEN.search(part)):
            raise OSError(errno.EINVAL, f"Windows has no files called {part!r}")


def check_version(path: Path, found: object, *, reads: int, again: str) -> None:
    """Refuse a record of another version; `again` says what to do where it is older, such as "label again"."""
    if found == reads:
        return
    if isinstance(found, int) and found > reads:
        raise PatchwordError(f"{path} was made by a newer patchword (format {found}, this one reads {reads}): upgrade")
    raise PatchwordError(f"{path} has format {found}, which this patchword no longer reads (it reads {reads}): {again}")


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON with sorted keys that UTF-8 can hold; the same value gives the same text."""
    text = json.dumps(value, sort_keys=True, indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a file name that is not UTF-8: escaped, so that it reads back the same
        return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False)
    return text
