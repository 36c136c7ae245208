"""Output folders: what is refused, and what survives an interruption."""

from __future__ import annotations

import errno
import json
import os
import sys
from io import FileIO
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword.data import folders
from patchword.data.folders import (
    MARKER_FILE,
    cache_folder,
    check_output,
    expand_home,
    prepare_output,
    remove_leftovers,
    replace_file,
    sole_use,
    write_bytes,
    write_json,
    write_text,
)
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _used(folder: Path, marker: str = "labels") -> Path:
    prepare_output(folder, marker=marker)
    write_text(folder / "masks" / "a.png", "old")
    return folder


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    assert prepare_output(tmp_path / "a" / "b", marker="labels") == tmp_path / "a" / "b"
    (tmp_path / "empty").mkdir()
    prepare_output(tmp_path / "empty", marker="labels")
    prepare_output(tmp_path / "empty", marker="labels")  # a run that ended before its first result
    for flags in ({"resume": True}, {"overwrite": True}):
        prepare_output(str(tmp_path / f"new {len(flags)}"), marker="labels", **flags)
    assert (tmp_path / "empty" / MARKER_FILE).read_text() == "labels\n"


def test_a_used_folder_is_refused_unless_resumed_or_overwritten(tmp_path: Path) -> None:
    folder = _used(tmp_path / "out")
    with pytest.raises(PatchwordError, match=r"out is not empty; .*--resume or --overwrite"):
        prepare_output(folder, marker="labels")
    assert _files(folder) == [MARKER_FILE, "masks/a.png"]
    prepare_output(folder, marker="labels", resume=True)
    assert _files(folder) == [MARKER_FILE, "masks/a.png"]
    prepare_output(folder, marker="labels", overwrite=True)
    assert _files(folder) == [MARKER_FILE]
    with pytest.raises(PatchwordError, match="either resume or overwrite"):
        prepare_output(folder, marker="labels", resume=True, overwrite=True)


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_somebody_else_is_never_touched(tmp_path: Path, flags: dict[str, bool]) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(PatchwordError, match="was not made by patchword"):
        prepare_output(tmp_path, marker="labels", **flags)
    assert _files(tmp_path) == ["precious.txt"]


@pytest.mark.parametrize("flags", [{"resume": True}, {"overwrite": True}])
def test_a_result_of_another_kind_is_not_touched(tmp_path: Path, flags: dict[str, bool]) -> None:
    folder = _used(tmp_path / "out", marker="model")
    with pytest.raises(PatchwordError, match="holds 'model', not 'labels'"):
        prepare_output(folder, marker="labels", **flags)
    assert _files(folder) == [MARKER_FILE, "masks/a.png"]


def test_overwriting_leaves_what_links_point_to(tmp_path: Path) -> None:
    folder = _used(tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("photograph")
    (folder / "photos").symlink_to(tmp_path / "photos")
    prepare_output(folder, marker="labels", overwrite=True)
    assert _files(tmp_path / "photos") == ["a.jpg"]
    assert not (folder / "photos").exists()


def test_resuming_clears_files_that_were_cut_off(tmp_path: Path) -> None:
    folder = _used(tmp_path / "out")
    (folder / "masks" / ".patchword-0123456789abcdef.tmp").write_text("half")
    prepare_output(folder, marker="labels", resume=True)
    assert len(_files(folder)) == 3  # the run may still be refused
    remove_leftovers(folder)
    assert _files(folder) == [MARKER_FILE, "masks/a.png"]


@pytest.mark.parametrize("flags", [{}, {"resume": True}, {"overwrite": True}])
def test_checking_an_output_changes_nothing(tmp_path: Path, flags: dict[str, bool]) -> None:
    check_output(tmp_path / "new" / "out", marker="labels", **flags)
    assert list(tmp_path.iterdir()) == []
    folder = _used(tmp_path / "out")
    before = _files(folder)
    if flags:
        check_output(folder, marker="labels", **flags)
    else:
        with pytest.raises(PatchwordError, match="out is not empty"):
            check_output(folder, marker="labels")
    assert _files(folder) == before


def test_output_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PatchwordError, match="file is a file; the output must be a folder"):
        prepare_output(tmp_path / "file", marker="labels")
    with pytest.raises(PatchwordError, match=r"cannot use output folder .*below: Not a directory"):
        prepare_output(tmp_path / "file" / "below", marker="labels")


def test_files_are_written_with_their_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_bytes(path, b"\x00one\r\n")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert _files(tmp_path) == ["a/b.bin"]
    write_text(path, "é\r\n")
    assert path.read_bytes() == "é\r\n".encode()


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    write_text(tmp_path / "a.txt", "old")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((os, "fsync") if failing == "fsync" else (Path, "replace")), fail)
    expected = PatchwordError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_text(tmp_path / "a.txt", "new")
    monkeypatch.undo()
    assert _files(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_name_that_is_too_long_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"cannot write .*File name too long"):
        write_text(tmp_path / ("a" * 300), "")
    write_text(tmp_path / ("a" * 255), "whole")
    assert _files(tmp_path) == ["a" * 255]


def test_json_is_sorted_indented_and_readable(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1, 2.5], "a": {"name": "café"}})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == (
        '{\n  "a": {\n    "name": "café"\n  },\n  "b": [\n    1,\n    2.5\n  ]\n}\n'
    )
    odd_name = os.fsdecode(b"caf\xe9.jpg")
    write_json(tmp_path / "a.json", {"name": odd_name})
    assert json.loads((tmp_path / "a.json").read_text())["name"] == odd_name
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"score": float("nan")})


def test_manifest_keeps_the_last_record_of_a_name_and_ends_sorted(tmp_path: Path) -> None:
    with Manifest(tmp_path / "out" / "manifest.jsonl") as manifest:
        assert manifest.read() == {}
        for name, status in (("b", "failed"), ("c", "done"), ("a", "done"), ("b", "done")):
            manifest.append({"status": status, "name": name})
        assert list(manifest.read()) == ["b", "c", "a"]  # readable while it is written
        assert manifest.finish() == {name: {"name": name, "status": "done"} for name in "abc"}
    assert (tmp_path / "out" / "manifest.jsonl").read_text() == "".join(
        f'{{"name": "{name}", "status": "done"}}\n' for name in "abc"
    )
    manifest.append({"name": "aa"})
    assert list(manifest.finish()) == ["a", "aa", "b", "c"]


_records = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=3)


@given(st.lists(st.tuples(st.text(max_size=4), _records), min_size=1, max_size=6), st.data())
def test_a_manifest_cut_off_anywhere_goes_on(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, dict[str, object]]], data: st.DataObject
) -> None:
    records = [{**record, "name": name} for name, record in entries]
    path = tmp_path_factory.mktemp("manifest") / "manifest.jsonl"
    with Manifest(path) as manifest:
        for record in records:
            manifest.append(record)
    written = path.read_bytes()
    length = data.draw(st.integers(0, len(written)))
    path.write_bytes(written[:length])
    whole = written[:length].count(b"\n")
    with Manifest(path) as manifest:
        assert manifest.read() == {record["name"]: record for record in records[:whole]}
        for record in records[whole:]:
            manifest.append(record)
    assert path.read_bytes() == written


def test_a_manifest_with_a_damaged_line_names_it(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    for damaged in ("nonsense", "[1]", '{"status": "done"}', '{"name": 3}'):
        path.write_text(f'{{"name": "a"}}\n{damaged}\n{{"name": "b"}}\n')
        with pytest.raises(PatchwordError, match=r"manifest\.jsonl:2: not a JSON object with a name"):
            Manifest(path).read()
    with pytest.raises(ValueError, match="needs a name"):
        Manifest(path).append({"status": "done"})
    with pytest.raises(PatchwordError, match="cannot read"):
        Manifest(tmp_path).read()


def test_a_run_that_was_killed_before_its_marker_goes_on(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".patchword-0123456789abcdef.tmp").write_text("lab")
    prepare_output(tmp_path / "out", marker="labels", resume=True)
    assert (tmp_path / "out" / MARKER_FILE).read_text() == "labels\n"


def test_a_disk_that_fills_up_leaves_a_manifest_that_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    manifest.append({"name": "a"})
    room = [5]

    class Full(FileIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            taken = super().write(data[: room[0]])
            room[0] -= taken
            if not taken and data:
                raise OSError(28, "No space left on device")
            return taken

    manifest.close()
    with monkeypatch.context() as patched:
        patched.setattr("patchword.data.manifest.FileIO", Full)
        with pytest.raises(PatchwordError, match=r"cannot write .*manifest\.jsonl: No space left on device"):
            manifest.append({"name": "b"})
    assert path.read_bytes() == b'{"name": "a"}\n{"nam'
    manifest.append({"name": "c"})
    assert manifest.finish() == {name: {"name": name} for name in "ac"}


def test_emptying_begins_with_the_files_that_vouch_for_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _used(tmp_path / "out")
    write_text(folder / "zz.json", "{}")

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folders.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_output(folder, marker="labels", overwrite=True)
    assert _files(folder) == [MARKER_FILE, "masks/a.png"]


def test_one_run_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    folder = prepare_output(tmp_path / "out", marker="labels")
    with sole_use(folder):
        prepare_output(folder, marker="labels", resume=True)  # looks, and changes nothing
        with pytest.raises(PatchwordError, match="another run is at work in"), sole_use(folder):
            pass
        with pytest.raises(PatchwordError, match="another run is at work in"), sole_use(folder):
            pass
    with sole_use(folder):
        pass


def _without_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("PATCHWORD_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(Path, "expanduser", lambda path: nowhere() if str(path).startswith("~") else path)


def test_a_user_without_a_home_folder_has_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    _without_home(monkeypatch)
    assert cache_folder() is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "patchword"
    monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.setenv("PATCHWORD_CACHE", "")
    assert cache_folder() is None


def test_a_path_in_a_home_that_is_not_there_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_home(monkeypatch)
    assert expand_home("photos") == Path("photos")
    with pytest.raises(PatchwordError, match="~/models begins with ~, but this user has no home folder"):
        expand_home("~/models")


def test_where_there_are_only_windows_locks_one_run_at_a_time_works_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a locked byte cannot be read by others, so that the lock must lie outside what the file holds."""
    folder = prepare_output(tmp_path / "out", marker="labels")
    places: list[int] = []
    locks: dict[int, int] = {}

    def locking(file: int, mode: int, count: int) -> None:
        assert (mode, count) == (windows.LK_NBLCK, 1)
        places.append(os.lseek(file, 0, os.SEEK_CUR))
        locks.pop(file, None)  # a number that is given again: the file that had it is closed, which ends its lock
        if places[-1] in locks.values():
            raise PermissionError(errno.EACCES, "Permission denied")
        locks[file] = places[-1]

    windows = ModuleType("msvcrt")
    windows.locking, windows.LK_NBLCK = locking, 2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    monkeypatch.setattr(sys, "platform", "win32")
    with sole_use(folder):
        with pytest.raises(PatchwordError, match="another run is at work in"), sole_use(folder):
            pass
        assert len(set(places)) == 1
        assert places[0] > (folder / MARKER_FILE).stat().st_size
    with sole_use(folder):
        pass


def _held_open(monkeypatch: pytest.MonkeyPatch, *, times: int) -> list[float]:
    """Let files be replaced only after so many refusals; returns the pauses in between."""
    replace, refusals, pauses = Path.replace, iter(range(times)), list[float]()

    def refuse(new: Path, old: Path) -> Path:
        if next(refusals, None) is not None:
            raise PermissionError(errno.EACCES, "Access is denied")
        return replace(new, old)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(folders.time, "sleep", pauses.append)
    return pauses


def test_on_windows_a_file_that_is_open_for_a_moment_is_replaced_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_WINDOWS", True)
    write_text(tmp_path / "a", "old")
    pauses = _held_open(monkeypatch, times=3)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert len(pauses) == 3


def test_on_windows_a_file_that_stays_open_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_WINDOWS", True)
    write_text(tmp_path / "a", "old")
    pauses = _held_open(monkeypatch, times=10**6)
    with pytest.raises(PatchwordError, match=r"cannot write .*a: the file is protected or open in another program"):
        write_text(tmp_path / "a", "new")
    assert sum(pauses) < 5  # seconds
    assert _files(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_elsewhere_a_file_that_may_not_be_replaced_is_no_reason_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").touch()
    monkeypatch.setattr(folders, "_WINDOWS", False)
    pauses = _held_open(monkeypatch, times=1)
    with pytest.raises(PermissionError):
        replace_file(tmp_path / "new", tmp_path / "old")
    assert pauses == []


WINDOWS_DEVICES = ["CON", "con.png", "Nul.jpg.png", "aux .png", "LPT1", "com9.tar.gz", "COM\u00b2.png", "conin$"]
WINDOWS_OTHERS = ["a.", "a ", "a:b.png", "what?.png", "a*b", 'a"b', "a<b", "a>b", "a|b", "a\\b", "line\nbreak.png"]
WINDOWS_NAMES = ["conx.png", "a.con", "COM", "com10.png", "a b.png", "a..png", ".a", "\u00e9.png"]


@pytest.mark.parametrize("name", [*WINDOWS_DEVICES, *WINDOWS_OTHERS])
def test_names_that_windows_takes_for_something_else_are_never_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if sys.platform != "win32":
        write_text(tmp_path / "elsewhere" / name / "b.png", "whole")
    monkeypatch.setattr(folders, "_WINDOWS", True)
    for path in (tmp_path / "out" / name, tmp_path / "out" / name / "b.png"):
        with pytest.raises(PatchwordError, match=r"cannot write (?s:.*): Windows has no files called"):
            write_text(path, "whole")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", WINDOWS_NAMES)
def test_names_that_windows_knows_are_written_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(folders, "_WINDOWS", True)
    write_text(tmp_path / "out" / name, "whole")
    assert _files(tmp_path) == [f"out/{name}"]


def test_a_path_that_windows_cannot_find_for_its_length_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_WINDOWS", True)
    path = tmp_path / ("d" * 130) / ("e" * 130) / "a.png"
    mkdir = Path.mkdir

    def short(folder: Path, *arguments: object, **named: object) -> None:
        if len(str(folder)) > 259:
            raise FileNotFoundError(errno.ENOENT, "The system cannot find the path specified")
        mkdir(folder, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", short)
    with pytest.raises(PatchwordError, match="File name too long") as raised:
        write_text(path, "whole")
    assert isinstance(raised.value.__context__, OSError)
    assert raised.value.__context__.errno == errno.ENAMETOOLONG


def test_a_name_of_the_greatest_length_needs_no_longer_one_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    with folders.replacing_path(path) as temporary:
        assert len(temporary.name) < 64
        temporary.write_text("whole")
    assert path.read_text() == "whole"


def test_text_with_names_that_are_no_text_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.html", "<li>\udcff.png")
    assert (tmp_path / "a.html").read_text(encoding="utf-8") == "<li>\\udcff.png"
