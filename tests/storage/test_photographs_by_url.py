"""Photographs by URL: the bytes of a local run, one request each, and one line where they cannot be read."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path

import pytest

from patchword.config.inputs import choose_images
from patchword.data.storage import StoredPath, as_path, reaching
from patchword.errors import PatchwordError
from patchword.segmentation import heads
from s3_store import Store, without_place
from small_world import Models, align_command, files_in, label_command, make_photos, must, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_photos(tmp_path / "photos", 4)
    make_photos(folder / "odd, names" / "ü #1%20", 2)
    shutil.copy(folder / "0.png", folder / "again.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no photograph")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def test_labels_of_stored_photographs_have_the_bytes_of_local_ones(
    store: Store, photos: Path, models: Models, tmp_path: Path
) -> None:
    url = store.put(photos, "labelled")
    store.requests.clear()
    local = run(*label_command(photos, out=tmp_path / "local", models=models))
    stored = run(*label_command(url, out=tmp_path / "stored", models=models))
    assert local.code == stored.code == 1
    assert "photographs in s3://bucket/labelled; skipped: 1 .txt" in stored.err
    both = [without_place(files_in(tmp_path / name), "dataset.json") for name in ("local", "stored")]
    assert both[0] == both[1]
    read, shown = 9, 7  # the report shows those that have labels
    assert store.counted("labelled/") == {"GET": 1 + read + shown}  # 1 looks whether it is a result

    store.requests.clear()
    again = run(*label_command(url, out=tmp_path / "stored", models=models), "--resume")
    assert again.code == 1
    assert without_place(files_in(tmp_path / "stored"), "dataset.json") == both[0]

    models_of = [tmp_path / "local model", tmp_path / "stored model"]
    for labels, out in zip(("local", "stored"), models_of, strict=True):
        must(run(*align_command(tmp_path / labels, out=out, models=models)))
    assert len({(out / "model.safetensors").read_bytes() for out in models_of}) == 1
    exported = run("export", tmp_path / "stored", "--format", "hf", "-o", tmp_path / "exported")
    assert exported.code == 0, exported.err
    assert (tmp_path / "exported/train/images/0.png").read_bytes() == (photos / "0.png").read_bytes()

    store.put(photos / "odd, names" / "ü #1%20", "labelled")  # other photographs under two of the names
    store.client().delete_object(Bucket="bucket", Key="labelled/3.png")
    gone = run(*label_command(url, out=tmp_path / "stored", models=models), "--resume")
    assert gone.code == 2
    assert "1 of 9 labelled photographs are gone from s3://bucket/labelled, such as 3.png" in gone.err


def test_masks_of_stored_photographs_have_the_bytes_of_local_ones_and_are_read_once(
    store: Store, photos: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store.put(photos, "segmented")
    options = ("--classes", "cat, dog", "--method", "maskclip", "--image-text", models.clip, "--overlays")
    run("segment", photos, *options, "-o", tmp_path / "local")
    store.requests.clear()
    stored = run("segment", url, *options, "-o", tmp_path / "stored")
    assert stored.code == 1, stored.err
    both = [without_place(files_in(tmp_path / name), "segment.json") for name in ("local", "stored")]
    assert both[0] == both[1]
    looks, read, empty, shown = 1, 9, 1, 7  # whether it is a result; all once; one has no beginning; in the report
    assert store.counted("segmented/") == {"GET": looks + read + empty + shown}

    store.requests.clear()
    monkeypatch.setattr(heads, "_KEPT", 1)  # room for the first alone
    run("segment", url, *options, "-o", tmp_path / "again")
    assert without_place(files_in(tmp_path / "again"), "segment.json") == both[0]
    assert store.counted("segmented/") == {"GET": looks + read + empty + shown + read - 1}


def test_a_class_list_is_suggested_of_stored_photographs(
    store: Store, photos: Path, models: Models, tmp_path: Path
) -> None:
    nouns = ("--image-text", models.clip, "--nouns", "cat, dog, sofa", "--set=minimum_share=0", "-o")
    run("suggest", photos, *nouns, tmp_path / "local.txt")
    url = store.put(photos, "suggested")
    run("suggest", url, *nouns, tmp_path / "stored.txt")
    stored, local = ((tmp_path / name).read_text() for name in ("stored.txt", "local.txt"))
    assert stored.replace(url, str(photos)) == local


def test_several_places_and_patterns(store: Store, photos: Path) -> None:
    url = store.put(photos, "several")
    found = choose_images([f"{url}/odd, names", f"{url}/[01].png"])
    assert str(found.root) == url
    names = [path.relative_to(found.root).as_posix() for path in found.images]
    assert names == ["0.png", "1.png", "odd, names/ü #1%20/0.png", "odd, names/ü #1%20/1.png"]
    with pytest.raises(PatchwordError, match="no file matches s3://bucket/several/x"):
        choose_images(f"{url}/x*.jpg")
    with pytest.raises(PatchwordError, match="several places"):
        choose_images([url, photos])
    assert choose_images(photos).images == choose_images(f"file://{photos}").images


def test_results_below_a_url_are_no_photographs(store: Store, photos: Path, tmp_path: Path) -> None:
    (photos / "labels").mkdir()
    shutil.copy(photos / "0.png", photos / "labels" / "mask.png")
    (photos / "labels" / ".patchword").write_text("labels\n")
    url = store.put(photos, "results")
    found = choose_images(url)
    assert len(found.images) == 9
    assert found.skipped["in results of patchword"] == 1
    with pytest.raises(PatchwordError, match="s3://bucket/results/labels holds labels, not photographs"):
        choose_images(f"{url}/labels")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://name:secret@bucket/photos", "the URL s3://bucket/... has credentials in it"),
        ("https://host/photo.jpg?Signature=secret", "the URL https://host/... has credentials in it"),
        ("nowhere://bucket/photos", "nowhere://bucket/photos cannot be used: Protocol not known: nowhere"),
        ("gs://bucket/photos", "gs://bucket/photos cannot be used: Please install gcsfs"),
        ("s3:///photos", "names no bucket"),
        ("filecache::s3://bucket/photos", "no such file or folder"),
        ("s3://bucket/nothing", "no such file or folder: s3://bucket/nothing"),
        ("s3://no-such-bucket/photos", "no such file or folder: s3://no-such-bucket/photos"),
        ("s3://bucket/several/film.mp4", "no such file or folder"),
    ],
)
def test_a_url_that_cannot_be_used_is_one_line(store: Store, url: str, said: str, tmp_path: Path) -> None:
    ran = run("label", url, "--classes", "cat", "-o", tmp_path / "out")
    assert ran.code == 2
    assert said in ran.complaint
    assert "secret" not in ran.err
    assert not (tmp_path / "out").exists()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(PatchwordError, match=r"needs the package fsspec; install patchword\[storage\]"):
        as_path("s3://bucket/photos")


def test_a_store_that_is_out_of_reach_ends_the_run_and_fails_no_photograph(
    store: Store, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store.put(make_photos(tmp_path / "photos", 3), "reached")
    command = label_command(url, out=tmp_path / "labels", models=models)
    fetch = StoredPath._fetch

    def refused(self: StoredPath, start: int, stop: int | None) -> bytes:
        if self.name == "1.png":
            with reaching(self):
                raise PermissionError("the token is too old")
        return fetch(self, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(StoredPath, "_fetch", refused)
        ran = run(*command)
    assert ran.code == 2
    assert "cannot reach s3://bucket/reached/1.png: the token is too old; --resume goes on" in ran.complaint
    assert (tmp_path / "labels" / "manifest.jsonl").read_text().count("\n") <= 1
    must(run(*command, "--resume"))
    must(run(*label_command(tmp_path / "photos", out=tmp_path / "local", models=models)))
    both = [without_place(files_in(tmp_path / name), "dataset.json") for name in ("local", "labels")]
    assert both[0] == both[1]


@pytest.mark.parametrize("text", ["s3://bucket/a/b.jpg", "memory://a/b c/ü.png"])
def test_a_stored_path_is_a_path(text: str) -> None:
    path = as_path(text)
    assert isinstance(path, StoredPath)
    assert str(path) == f"{path.parent}/{path.name}" == str(pickle.loads(pickle.dumps(path))) == text
    assert path.parent / path.name == path
    assert path.relative_to(path.parent.parent).as_posix() == "/".join(path.parts[-2:])
    assert path.is_relative_to(path.parent)
    assert not path.is_relative_to(Path("/a"))
    assert path.with_suffix(".tar").suffix == ".tar"
