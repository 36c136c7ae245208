"""Tar files in the layout of WebDataset: the bytes of the same photographs as files, and what is wrong is counted."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import webdataset

from patchword.config.inputs import choose_images
from patchword.data import tar_shards
from patchword.data.images import read_image
from patchword.data.tar_shards import ShardMember, expand_braces
from patchword.errors import PatchwordError, PatchwordWarning
from s3_store import Store, without_place
from small_world import Models, files_in, label_command, make_photos, run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Folders of photographs that are called like the shards that hold the same."""
    folder = tmp_path / "photos"
    for number in range(2):
        make_photos(folder / f"{number:03}.tar", 3)
    make_photos(folder / "001.tar" / "inner ü", 2)
    (folder / "001.tar" / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """The same in tar files, with what else WebDataset keeps there."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for source in sorted(photos.iterdir()):
        with webdataset.TarWriter(str(folder / source.name)) as writer:
            for path in sorted(source.rglob("*.*")):
                name = path.relative_to(source)
                key, suffix = name.with_suffix("").as_posix(), path.suffix[1:]
                others = {"json": {"caption": "none"}, "mask.png": path.read_bytes()}
                writer.write({"__key__": key, suffix: path.read_bytes(), **others})
    return folder


def test_labels_of_shards_have_the_bytes_of_those_of_files(
    store: Store, photos: Path, shards: Path, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path / "cache"))
    run(*label_command(photos, out=tmp_path / "files", models=models))
    ran = run(*label_command(shards, out=tmp_path / "labels", models=models))
    assert ran.code == 1
    assert "9 photographs in" in ran.err
    assert "skipped: 9 .json, 9 .mask.png" in ran.err
    expected = without_place(files_in(tmp_path / "files"), "dataset.json")
    assert without_place(files_in(tmp_path / "labels"), "dataset.json") == expected
    assert "masks/001.tar/inner ü/0.png.png" in expected

    with monkeypatch.context() as patch:  # the indices are kept
        patch.setattr(tar_shards, "_made", None)
        again = run(*label_command(f"{shards}/{{000..001}}.tar", out=tmp_path / "labels", models=models), "--resume")
    assert again.code == 1
    assert without_place(files_in(tmp_path / "labels"), "dataset.json") == expected

    url = store.put(shards, "shards")
    store.requests.clear()
    stored = run(*label_command(f"{url}/{{000..001}}.tar", out=tmp_path / "stored", models=models))
    assert stored.code == 1, stored.err
    assert without_place(files_in(tmp_path / "stored"), "dataset.json") == expected
    assert store.counted("shards/0")["GET"] <= 4  # 2 tar files, of which the page may show some again


def test_masks_of_shards_have_the_bytes_of_those_of_files(
    photos: Path, shards: Path, models: Models, tmp_path: Path
) -> None:
    options = ("--classes", "cat, dog", "--method", "maskclip", "--image-text", models.clip, "--set=batch=2", "-o")
    run("segment", photos, *options, tmp_path / "files")
    run("segment", shards / "000.tar", shards / "001.tar", *options, tmp_path / "masks")
    expected = without_place(files_in(tmp_path / "files"), "segment.json")
    assert without_place(files_in(tmp_path / "masks"), "segment.json") == expected


def _tar(path: Path, members: list[tuple[str, bytes]], *, kind: bytes = tarfile.REGTYPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data) if kind == tarfile.REGTYPE else 0, kind
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            tar.addfile(member, io.BytesIO(data))
    return path


def test_what_cannot_be_taken_of_a_shard_is_counted(tmp_path: Path) -> None:
    picture = (make_photos(tmp_path / "photos", 1) / "0.png").read_bytes()
    names = ["../a.png", "/b.png", "c/../../d.png", "e//f.png", "./g.png", "g.png", "g.jpg", "h.seg.png", ".i.png", "j"]
    _tar(tmp_path / "shards" / "1.tar", [(name, picture) for name in names])
    _tar(tmp_path / "shards" / "2.tar", [("k.png", b"")], kind=tarfile.SYMTYPE)
    (tmp_path / "shards" / "readme.txt").write_text("text")
    found = choose_images(tmp_path / "shards")
    assert [str(path.relative_to(found.root)) for path in found.images] == ["1.tar/g.png"]
    assert found.skipped == {
        "in tar files, with a path that leads out of them": 4,
        "in tar files, twice with one name": 1,
        "in tar files, with the key of another photograph": 1,
        "links and the like in tar files": 1,
        ".seg.png": 1,
        "without an extension": 1,
        ".txt": 1,
    }


@pytest.mark.parametrize("left", [512, 700, 1024, 1500, 1600, 2047, 2048])
def test_a_shard_that_is_cut_off_fails_what_it_lacks(left: int, tmp_path: Path) -> None:
    picture = (make_photos(tmp_path / "photos", 1) / "0.png").read_bytes()
    assert len(picture) < 512
    shard = _tar(tmp_path / "shards" / "cut.tar", [("a.png", picture), ("b.png", picture)])
    shard.write_bytes(shard.read_bytes()[:left])
    with pytest.warns(PatchwordWarning, match=r"cut\.tar: the tar file is cut off"):
        found = choose_images(shard).images
    assert len(found) == 1 + (left >= 1024 + 512)
    whole = (left >= 512 + len(picture)) + (left >= 1024 + 512 + len(picture))
    assert all(read_image(path).shape == (24, 32, 3) for path in found[:whole])
    for path in found[whole:]:
        with pytest.raises(PatchwordError) as raised:
            read_image(path)
        assert str(raised.value) == f"cannot read {path}: cut.tar is cut off"


def test_a_file_that_is_no_shard_is_one_line(tmp_path: Path) -> None:
    shard = tmp_path / "odd.tar"
    for data in (b"", b"no tar file", bytes(100), b"x" * 2000):
        shard.write_bytes(data)
        with pytest.warns(PatchwordWarning, match=r"odd\.tar: not a tar file"), pytest.raises(PatchwordError) as raised:
            choose_images(shard)
        assert str(raised.value).startswith(f"no photographs in {shard}")


def test_photographs_beside_shards_are_what_a_folder_is_taken_for(tmp_path: Path) -> None:
    folder = make_photos(tmp_path / "photos", 2)
    _tar(folder / "backup.tar", [("a.png", (folder / "0.png").read_bytes())])
    assert choose_images(folder).skipped == Counter({".tar": 1})
    assert len(choose_images([folder, folder / "backup.tar"]).images) == 3


def test_a_photograph_of_a_shard_can_be_sent(shards: Path) -> None:
    path = ShardMember(f"{shards}/000.tar/0.png")
    again = pickle.loads(pickle.dumps(path))
    assert again == path
    assert again.read_bytes() == path.read_bytes()
    assert not ShardMember(f"{shards}/000.tar/9.png").exists()
    assert not ShardMember(f"{shards}/009.tar/0.png").exists()


def test_braces() -> None:
    assert expand_braces("p/{008..010}.tar") == ["p/008.tar", "p/009.tar", "p/010.tar"]
    assert expand_braces("{a,b}-{0..1}.tar") == ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]
    assert expand_braces("plain.tar") == ["plain.tar"]
