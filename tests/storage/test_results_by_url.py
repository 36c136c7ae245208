"""Results by URL: the objects of a local folder, also where the run was killed and resumed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import fsspec
import pytest

import warm
from patchword.data.folders import replacing_path, write_bytes
from patchword.data.manifest import Manifest
from patchword.data.storage import StoredPath, as_path
from patchword.errors import PatchwordError
from patchword.runs import folder_run
from s3_store import Store, without_place
from small_world import Models, files_in, label_command, make_photos, must, run

# Runs the command with a manifest that is stored with every line, and ends without a word at the so-manyth object.
KILLED = """
import os, signal, sys
from patchword.cli import app
from patchword.data.storage import StoredPath
from patchword.runs import folder_run
folder_run.SAVED_EVERY = folder_run._SHARE_OF_TIME = 0
left, put = int(sys.argv.pop(1)), StoredPath.put
def counted(self, data):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    put(self, data)
StoredPath.put = counted
app.main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_photos(tmp_path / "photos", 5)
    make_photos(folder / "inner ü", 2)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_killed_and_resumed_the_objects_are_those_of_a_local_run(
    store: Store, photos: Path, models: Models, tmp_path: Path
) -> None:
    run(*label_command(photos, out=tmp_path / "local", models=models))
    expected = without_place(files_in(tmp_path / "local"), "dataset.json")
    url, out = store.put(photos, "killed"), "s3://bucket/killed labels"
    command = [*map(str, label_command(url, out=out, models=models)), "--resume", "-q"]
    stored = []
    for instant in (14, 9):
        ran = warm.run([sys.executable, "-c", KILLED, str(instant), *command])
        assert ran.returncode == -signal.SIGKILL, ran.stderr[-2000:]
        stored.append(len(store.files(out)))
    assert stored[0] > 5
    lines = store.files(out)["manifest.jsonl"]
    assert lines.endswith(b"\n")
    assert 0 < lines.count(b"\n") < 8
    store.requests.clear()
    ran = run(*command)
    assert ran.code == 1, ran.err
    assert without_place(store.files(out), "dataset.json") == expected
    assert store.counted("killed%20labels/masks")["PUT"] == 7 - lines.count(b'"ok"') - lines.count(b'"empty"')

    again = run(*label_command(url, out=out, models=models))
    assert again.code == 2
    assert f"output folder {out} is not empty" in again.complaint
    model = tmp_path / "model"
    options = ("--encoder", models.dinov2, "--set=image_size=28", "--set=steps=2", "--set=majority=0.01")
    must(run("align", out, "-o", model, *options))  # stored labels are read like others
    must(run("align", tmp_path / "local", "-o", tmp_path / "same", *options))
    assert (model / "model.safetensors").read_bytes() == (tmp_path / "same" / "model.safetensors").read_bytes()

    assert run(*label_command(photos, out=out, models=models), "--overwrite").code == 1
    assert without_place(store.files(out), "dataset.json") == expected


def test_masks_out(store: Store, photos: Path, models: Models, tmp_path: Path) -> None:
    options = ("--classes", "cat, dog", "--method", "maskclip", "--image-text", models.clip, "--confidence", "-o")
    run("segment", photos, *options, tmp_path / "local")
    out = "s3://bucket/masks"
    ran = run("segment", photos, *options, out)
    assert ran.code == 1, ran.err
    stored = without_place(store.files(out), "segment.json")
    assert stored == without_place(files_in(tmp_path / "local"), "segment.json")


def test_no_store_but_fsspec_is_needed(photos: Path, models: Models, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in photos.rglob("*.*"):
        memory.pipe_file(f"/photos/{path.relative_to(photos).as_posix()}", path.read_bytes())
    run(*label_command(photos, out=tmp_path / "local", models=models))
    command = label_command("memory://photos", out="memory://labels", models=models)
    assert run(*command).code == 1  # one photograph is broken

    def stored() -> dict[str, bytes]:
        return {key.removeprefix("/labels/"): memory.cat_file(key) for key in memory.find("/labels")}

    expected = without_place(files_in(tmp_path / "local"), "dataset.json")
    assert without_place(stored(), "dataset.json") == expected
    lines = memory.cat_file("/labels/manifest.jsonl").splitlines(keepends=True)
    memory.pipe_file("/labels/manifest.jsonl", b"".join(lines[:3]))  # as a run leaves it that was killed
    assert run(*command, "--resume").code == 1
    assert without_place(stored(), "dataset.json") == expected


def test_parts_on_a_store_are_put_together(store: Store, photos: Path, models: Models, tmp_path: Path) -> None:
    run(*label_command(photos, out=tmp_path / "local", models=models))
    for part in ("1/2", "2/2"):
        out = f"s3://bucket/part {part[0]}"
        run(*label_command(photos, out=out, models=models), "--shard", part)
    ran = run("merge", "s3://bucket/part 1", "s3://bucket/part 2", "-o", "s3://bucket/whole", "--photos", photos)
    assert ran.code == 1, ran.err
    stored = without_place(store.files("s3://bucket/whole"), "dataset.json")
    assert stored == without_place(files_in(tmp_path / "local"), "dataset.json")


def test_a_manifest_is_stored_when_it_is_saved_and_goes_on() -> None:
    path = as_path("memory://folder/manifest.jsonl")
    with Manifest(path) as manifest:
        manifest.append({"name": "a"})
        assert not path.exists()
        manifest.save()
        assert path.read_bytes() == b'{"name": "a"}\n'
        manifest.append({"name": "b"})
        assert list(manifest.read()) == ["a", "b"]
    assert path.read_bytes() == b'{"name": "a"}\n{"name": "b"}\n'
    write_bytes(path, path.read_bytes() + b'{"name": ')  # as another program may leave it
    with Manifest(path) as manifest:
        manifest.append({"name": "a", "again": True})
    assert list(manifest.finish()) == ["a", "b"]
    assert path.read_bytes() == b'{"again": true, "name": "a"}\n{"name": "b"}\n'


def test_manifests_are_saved_the_last_one_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_run, "SAVED_EVERY", 0)
    order: list[str] = []
    put = StoredPath.put
    monkeypatch.setattr(StoredPath, "put", lambda self, data: (order.append(self.name), put(self, data)))
    folder = as_path("memory://folder")
    manifests = [Manifest(folder / name) for name in ("quality.jsonl", "manifest.jsonl")]
    for each in manifests:
        each.append({"name": "a"})
    folder_run.Saving(folder).save(manifests)
    assert order == ["quality.jsonl", "manifest.jsonl"]
    folder_run.Saving(Path("folder")).save(manifests)
    assert len(order) == 2  # what is on a disk is there already


def test_where_a_store_has_files_they_take_their_names_when_they_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchword.data.storage._OF_OBJECTS", frozenset[str]())
    path = as_path("memory://folder/a.bin")
    files = fsspec.filesystem("memory")
    with monkeypatch.context() as patch:
        patch.setattr(type(files), "mv", lambda *_: (_ for _ in ()).throw(OSError("gone")))
        with pytest.raises(PatchwordError, match=r"cannot reach memory://folder/a\.bin: gone"):
            write_bytes(path, b"whole")
    assert not path.exists()
    assert len(files.find("folder")) == 1
    assert isinstance(path.parent, StoredPath)
    path.parent.remove_leftovers()
    assert files.find("folder") == []
    with replacing_path(path) as local:
        local.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert files.find("folder") == ["/folder/a.bin"]
