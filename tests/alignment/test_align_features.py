"""The feature cache: what it computes, what it does not compute again, what it refuses."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
import torch
from colour_world import FEATURE_DIM, SETTINGS, ColourPatches, make_data
from PIL import Image

from patchword.alignment.data import hash_items
from patchword.alignment.features import FeatureCache
from patchword.alignment.online import AugmentedFeatures, OnlineFeatures
from patchword.alignment.photographs import content_hash
from patchword.data.images import read_image, to_tensor
from patchword.errors import PatchwordError
from patchword.models.pixels import nearest_multiple, resize
from patchword.runs.progress import Progress


def photographs(folder: Path, count: int = 5) -> list[tuple[str, Path]]:
    return [(content_hash(item.image), item.image) for item in make_data(folder, images=count).items]


@pytest.mark.parametrize(("length", "patch", "expected"), [(518, 14, 518), (518, 16, 512), (520, 16, 528), (1, 14, 14)])
def test_nearest_multiple(length: int, patch: int, expected: int) -> None:
    assert nearest_multiple(length, of=patch) == expected


def test_features_are_those_of_the_resized_image(tmp_path: Path) -> None:
    encoder = ColourPatches()
    cache = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS)
    found = photographs(tmp_path)
    assert cache.fill(found) == {}
    features = cache.read([key for key, _ in found])
    assert features.shape == (5, FEATURE_DIM, 4, 4)
    assert features.dtype == torch.float16
    for row, (key, path) in zip(features, found, strict=True):
        expected = encoder(resize(to_tensor(read_image(path)), size=(16, 16)))[0]
        torch.testing.assert_close(row.float(), expected, rtol=1e-3, atol=1e-3)
        assert cache.size_of(key) == (16, 16)


def test_any_shape_becomes_a_square_and_its_size_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "long.png"
    Image.new("RGB", (90, 3), (200, 10, 10)).save(path)
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    key = content_hash(path)
    cache.fill([(key, path)])
    assert cache.read([key]).shape == (1, FEATURE_DIM, 4, 4)
    assert cache.size_of(key) == (3, 90)


def test_nothing_is_computed_twice_even_after_moving(tmp_path: Path) -> None:
    encoder = ColourPatches()
    found = photographs(tmp_path)
    FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS).fill(found)
    moved = tmp_path / "moved.png"
    shutil.move(found[0][1], moved)
    again = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS)
    assert len(again) == 5
    again.fill([(content_hash(moved), moved), *found[1:], found[1]])
    assert encoder.images == 5


def test_equal_photographs_are_computed_once(tmp_path: Path) -> None:
    encoder = ColourPatches()
    found = photographs(tmp_path, count=1)
    with Progress(3, "test", quiet=True) as progress:
        FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS).fill(found * 3, progress=progress)
    assert encoder.images == 1
    assert progress.done == 3


def test_what_a_stopped_run_wrote_is_used(tmp_path: Path) -> None:
    """An encoder that fails on its third batch leaves the shards of the first two."""

    class Stops(ColourPatches):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            if self.images >= 4:
                raise KeyboardInterrupt
            return super().__call__(images)

    settings = SETTINGS.model_copy(update={"feature_batch": 2, "shard_megabytes": 1e-6})  # one shard a batch
    found = photographs(tmp_path, count=6)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(tmp_path / "cache", encoder=Stops(), settings=settings).fill(found)
    encoder = ColourPatches()
    again = FeatureCache(tmp_path / "cache", encoder=encoder, settings=settings)
    assert len(again) == 4
    again.fill(found)
    assert encoder.images == 2
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_broken_photographs_are_named_and_the_others_kept(tmp_path: Path) -> None:
    found = photographs(tmp_path, count=2)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    key = content_hash(broken)
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    failed = cache.fill([found[0], (key, broken), found[1]])
    assert list(failed) == [key]
    assert "broken.jpg" in failed[key]
    assert key not in cache
    assert found[1][0] in cache


def test_features_too_large_for_their_type_are_refused(tmp_path: Path) -> None:
    class Loud(ColourPatches):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return super().__call__(images) * 1e6

    cache = FeatureCache(tmp_path / "cache", encoder=Loud(), settings=SETTINGS)
    with pytest.raises(PatchwordError, match=r"float16.*bfloat16 or float32"):
        cache.fill(photographs(tmp_path))


@pytest.mark.parametrize("kept", [0, 5, 60])
def test_cut_shard_is_told_and_made_again(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    found = photographs(tmp_path)
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    cache.fill(found)
    expected = cache.read([key for key, _ in found])
    (shard,) = cache.folder.glob("*.safetensors")
    content = shard.read_bytes()
    shard.unlink()  # the file that the first cache has open stays whole
    shard.write_bytes(content[:kept])
    encoder = ColourPatches()
    again = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS)
    assert f"{shard.name} is damaged; its features are computed again" in caplog.text
    assert len(again) == 0
    again.fill(found)
    assert encoder.images == 5
    assert torch.equal(again.read([key for key, _ in found]), expected)


def test_what_is_no_shard_is_left_alone(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    cache.folder.mkdir(parents=True)
    save_file({"weight": torch.zeros(2)}, cache.folder / "foreign.safetensors")
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    cache.fill(photographs(tmp_path))
    assert len(cache) == 5
    assert (cache.folder / "foreign.safetensors").exists()


def test_more_shards_than_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchword.alignment.features._OPEN_SHARDS", 2)
    settings = SETTINGS.model_copy(update={"feature_batch": 1, "shard_megabytes": 1e-6})
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=settings)
    found = photographs(tmp_path, count=5)
    cache.fill(found)
    assert len(list(cache.folder.glob("*.safetensors"))) == 5
    keys = [key for key, _ in found]
    backwards = cache.read(keys[::-1])
    torch.testing.assert_close(cache.read(keys), backwards.flip(0))


class Small(ColourPatches):
    """An encoder whose memory suffices for two images."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().__call__(images)


def test_batches_halve_where_memory_runs_out(tmp_path: Path) -> None:
    """Whichever way features are read: from the cache, anew in every step, or of augmented photographs."""
    settings = SETTINGS.model_copy(update={"feature_batch": 5})
    data = make_data(tmp_path, images=5)
    found = [(content_hash(item.image), item.image) for item in data.items]
    keys = [key for key, _ in found]
    hashed = hash_items(data, skipped={}, quiet=True)

    def cached(encoder: ColourPatches) -> torch.Tensor:
        cache = FeatureCache(tmp_path / type(encoder).__name__, encoder=encoder, settings=settings)
        cache.fill(found)
        return cache.read(keys)

    def online(encoder: ColourPatches) -> torch.Tensor:
        features = OnlineFeatures(encoder=encoder, settings=settings)
        features.check(found)
        return features.read(keys)

    def augmented(encoder: ColourPatches) -> torch.Tensor:
        features = AugmentedFeatures(hashed, names=data.vocabulary.names, encoder=encoder, settings=settings)
        return features.read_augmented(range(5), epoch=0)[0]

    for read in (cached, online, augmented):
        small = Small()
        torch.testing.assert_close(read(small), read(ColourPatches()))
        assert small.sizes == [5, 3, 2, 2, 1]


def test_a_file_is_hashed_again_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, read = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(file.name) or digest(file, name))
    path = tmp_path / "a.png"
    path.write_bytes(b"first")
    os.utime(path, (1e9, 1e9))
    first = content_hash(path)
    assert content_hash(path) == first == hashlib.sha256(b"first").hexdigest()
    assert len(read) == 1
    path.write_bytes(b"other")  # as large as before, and made to look as old
    os.utime(path, (1e9, 1e9))
    assert content_hash(path) == hashlib.sha256(b"other").hexdigest()
    path.unlink()
    with pytest.raises(PatchwordError, match="cannot read"):
        content_hash(path)
