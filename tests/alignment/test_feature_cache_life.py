"""The life of a feature cache: killed, damaged, too large, stale, shared by processes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_world import FEATURE_DIM, SETTINGS, ColourPatches, make_data
from PIL import Image

import warm
from patchword.alignment import features as features_module
from patchword.alignment import shards
from patchword.alignment.features import FeatureCache, feature_identity
from patchword.alignment.photographs import content_hash
from patchword.alignment.shards import bytes_held, shard_files
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError

SMALL = SETTINGS.model_copy(update={"feature_batch": 2, "shard_megabytes": 1e-6})  # one shard a batch
KEYS_AND_PATHS = list[tuple[str, Path]]

FILLER = """
import sys, time
from pathlib import Path
from colour_world import SETTINGS, ColourPatches
from patchword.alignment.features import FeatureCache
from patchword.alignment.photographs import content_hash

photos, folder, number, still, go_on = sys.argv[1:]

class Stopping(ColourPatches):
    calls = 0

    def __call__(self, images):
        self.calls += 1
        if self.calls == int(number):
            Path(still).touch()
            while not Path(go_on).exists():
                time.sleep(0.01)
        return super().__call__(images)

settings = SETTINGS.model_copy(update={"feature_batch": 2, "shard_megabytes": 1e-6})
photographs = [(content_hash(path), path) for path in sorted(Path(photos).glob("*.png"))]
cache = FeatureCache(Path(folder), encoder=Stopping(), settings=settings)
assert cache.fill(photographs) == {}
cache.read([key for key, _ in photographs])
"""


def photographs(folder: Path, count: int = 6) -> KEYS_AND_PATHS:
    return [(content_hash(item.image), item.image) for item in make_data(folder, images=count).items]


def filled(folder: Path, found: KEYS_AND_PATHS, settings: AlignSettings = SMALL) -> FeatureCache:
    cache = FeatureCache(folder, encoder=ColourPatches(), settings=settings)
    assert cache.fill(found) == {}
    return cache


def everything(cache: FeatureCache, found: KEYS_AND_PATHS) -> torch.Tensor:
    return cache.read([key for key, _ in found])


def start_filler(photos: Path, cache: Path, *, call: int, still: Path, go_on: Path) -> warm.Popen:
    """A process that fills a cache; at this call of its encoder it makes one file and waits for the other."""
    command = [sys.executable, "-c", FILLER, str(photos), str(cache), str(call), str(still), str(go_on)]
    return warm.Popen(command)


def test_killed_while_filling_and_gone_on_with(tmp_path: Path) -> None:
    found = photographs(tmp_path, count=12)
    expected = everything(filled(tmp_path / "whole", found), found)
    still = tmp_path / "still"
    process = start_filler(tmp_path / "photos", tmp_path / "cache", call=4, still=still, go_on=tmp_path / "never")
    while not still.exists() or len(list((tmp_path / "cache").glob("*/*.safetensors"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    encoder = ColourPatches()
    again = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SMALL)
    kept = len(again)
    assert 4 <= kept < 12
    again.fill(found)
    assert encoder.images == 12 - kept
    assert torch.equal(everything(again, found), expected)


@pytest.mark.parametrize("cut", [1, 9, 500])
def test_a_shard_that_was_being_written_is_never_read(tmp_path: Path, cut: int) -> None:
    """What a kill leaves of a shard has another name; it goes once it is too old for another run to be writing it."""
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found)
    shard = shard_files(cache.folder)[0]
    part = shard.parent / ".patchword-0123456789abcdef.tmp"
    part.write_bytes(shard.read_bytes()[:cut])
    shard.unlink()
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)) == 4
    assert part.exists()
    os.utime(part, (time.time() - 4000,) * 2)
    FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    assert not part.exists()


def test_every_flipped_byte_is_noticed_and_made_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At any place of the file: length, header, names, sizes, checksums, values. Only padding may go unnoticed."""
    found = photographs(tmp_path, count=2)
    cache = filled(tmp_path / "cache", found)
    expected, sizes = everything(cache, found), [cache.size_of(key) for key, _ in found]
    (shard,) = shard_files(cache.folder)
    content = shard.read_bytes()
    header = int.from_bytes(content[:8], "little")
    padding = len(content[8 : 8 + header]) - len(content[8 : 8 + header].rstrip())
    caplog.set_level(logging.CRITICAL)
    for place in [*range(0, 8 + header - padding, 7), *range(8 + header, len(content), 41)]:
        damaged = bytearray(content)
        damaged[place] ^= 1
        shard.unlink()
        shard.write_bytes(damaged)
        encoder = ColourPatches()
        again = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SMALL)
        again.fill(found)
        assert torch.equal(everything(again, found), expected), place
        assert [again.size_of(key) for key, _ in found] == sizes, place
        assert encoder.images > 0, place
        for path in shard_files(cache.folder):
            path.unlink()
        shard.write_bytes(content)


def test_damage_during_training_is_told_and_made_good(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A byte that flips after the cache was filled, in a file that is open."""
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found)
    expected = everything(cache, found)
    shard = cache._shard_of[found[2][0]]
    with shard.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        value = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([value[0] ^ 8]))
    assert torch.equal(everything(cache, found), expected)
    assert f"{shard.name} is damaged; its features are computed again" in caplog.text
    assert torch.equal(
        everything(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL), found), expected
    )


def test_checksums_are_computed_once_however_often_shards_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = photographs(tmp_path)
    filled(tmp_path / "cache", found)
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    checked, checksum = [], shards._checksum
    monkeypatch.setattr(shards, "_checksum", lambda key, entry: checked.append(key) or checksum(key, entry))
    for shard in shard_files(cache.folder):
        os.utime(shard, (1000, 1000))  # as of a run long ago, so that each is marked as used when it is opened
    expected = everything(cache, found)
    assert sorted(checked) == sorted(key for key, _ in found)
    cache._open.clear()
    assert torch.equal(everything(cache, found), expected)
    assert len(checked) == len(found)


def test_damage_that_cannot_be_made_good_is_one_line(tmp_path: Path) -> None:
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found)
    for shard in shard_files(cache.folder):
        shard.unlink()
    unknown = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    with pytest.raises(PatchwordError, match=r"features of photograph .* are not in the cache .* any more; run again"):
        unknown.read([found[0][0]])
    found[0][1].unlink()
    other = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    other._paths = dict(found)
    with pytest.raises(PatchwordError, match=r"features are lost and cannot be computed again: cannot read"):
        other.read([found[0][0]])


def test_photograph_that_changes_while_features_are_computed_is_left_out(tmp_path: Path) -> None:
    """Its key is the hash of what it was; features of what it became must not bear that name."""
    found = photographs(tmp_path, count=3)
    Image.new("RGB", (16, 16), (9, 9, 9)).save(found[1][1])
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    failed = cache.fill(found)
    assert list(failed) == [found[1][0]]
    assert "has changed since the run began" in failed[found[1][0]]
    assert found[1][0] not in cache


RECORD_CHANGES: dict[str, Any] = {
    "fingerprint": "q" * 64,
    "family": "other",
    "mean": (0.1, 0.0, 0.0),
    "std": (1.0, 0.9, 1.0),
    "dim": FEATURE_DIM + 1,
    "patch_size": 8,
}


@pytest.mark.parametrize("part", RECORD_CHANGES)
def test_another_encoder_never_meets_these_features(tmp_path: Path, part: str) -> None:
    found = photographs(tmp_path)
    filled(tmp_path / "cache", found)
    other = ColourPatches()
    other.record = dataclasses.replace(other.record, **{part: RECORD_CHANGES[part]})
    assert len(FeatureCache(tmp_path / "cache", encoder=other, settings=SMALL)) == 0


@pytest.mark.parametrize(
    "change", [{"image_size": 20}, {"feature_dtype": "float32"}, {"feature_dtype": "bfloat16"}], ids=str
)
def test_other_settings_never_meet_these_features(tmp_path: Path, change: dict[str, Any]) -> None:
    filled(tmp_path / "cache", photographs(tmp_path))
    other = SMALL.model_copy(update=change)
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=other)) == 0


def test_type_that_the_encoder_computes_in_counts(tmp_path: Path) -> None:
    filled(tmp_path / "cache", photographs(tmp_path))
    half: Any = ColourPatches()
    half.dtype = torch.bfloat16
    assert len(FeatureCache(tmp_path / "cache", encoder=half, settings=SMALL)) == 0


@pytest.mark.parametrize(
    "change", [{"feature_batch": 5}, {"decode_threads": 1}, {"shard_megabytes": 9}, {"cache_gigabytes": 3}], ids=str
)
def test_settings_that_change_no_feature_share_the_cache(tmp_path: Path, change: dict[str, Any]) -> None:
    filled(tmp_path / "cache", photographs(tmp_path))
    other = SMALL.model_copy(update=change)
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=other)) == 6


def test_name_and_place_of_an_encoder_do_not_count() -> None:
    """The same weights from a folder and from the hub have the same features."""
    one, other = ColourPatches(), ColourPatches()
    other.record = dataclasses.replace(other.record, name="elsewhere", revision="abc", licence="MIT")
    identities = [feature_identity(encoder, side=16, feature_dtype="float16") for encoder in (one, other)]
    assert identities[0] == identities[1]


class OnAnother(ColourPatches):
    """Says that it computes on another kind of device."""

    device = torch.device("meta")


def test_features_of_another_device_are_not_mixed_in(tmp_path: Path) -> None:
    filled(tmp_path / "cache", photographs(tmp_path))
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)) == 6
    assert len(FeatureCache(tmp_path / "cache", encoder=OnAnother(), settings=SMALL)) == 0


def test_features_of_an_earlier_version_are_taken_over_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = filled(tmp_path / "cache", photographs(tmp_path))
    identity = feature_identity(ColourPatches(), side=cache.side, feature_dtype=SMALL.feature_dtype)
    del identity["computed_on"], identity["versions"]
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    cache.folder.rename(tmp_path / "cache" / name)
    caplog.set_level(logging.WARNING)
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)) == 6
    assert "earlier version of patchword, which did not record the device" in caplog.text
    assert json.loads((cache.folder / "cache.json").read_text())["computed_on"] == "cpu"
    assert len(FeatureCache(tmp_path / "cache", encoder=OnAnother(), settings=SMALL)) == 0


def shard_bytes(folder: Path) -> int:
    """Bytes of one shard of two photographs, measured."""
    found = photographs(folder / "measured", count=2)
    return bytes_held_of(filled(folder / "measured_cache", found))


def bytes_held_of(cache: FeatureCache) -> int:
    return bytes_held(cache.folder.parent)


def limited(folder: Path, shards: float) -> AlignSettings:
    return SMALL.model_copy(update={"cache_gigabytes": shards * shard_bytes(folder) / 1e9})


def test_least_recently_used_shards_go_when_the_limit_is_reached(tmp_path: Path) -> None:
    settings = limited(tmp_path, 4.6)
    old, used, new = (photographs(tmp_path / name, count=count) for name, count in (("a", 4), ("a", 2), ("b", 4)))
    first = filled(tmp_path / "cache", old, settings)
    for age, shard in enumerate(shard_files(first.folder)):
        os.utime(shard, (1000 + age,) * 2)
    filled(tmp_path / "cache", used, settings)  # marks the shard of the first two as used now
    new = [(content_hash(path), path) for path in repaint([path for _, path in new])]
    last = filled(tmp_path / "cache", new, settings)
    assert bytes_held_of(last) <= settings.cache_gigabytes * 1e9
    third = [(content_hash(path), path) for path in repaint([path for _, path in new[:2]], shade=77)]
    last = filled(tmp_path / "cache", third, settings)
    assert bytes_held_of(last) <= settings.cache_gigabytes * 1e9
    left = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=settings)
    assert all(key in left for key, _ in used)
    assert not any(key in left for key, _ in old[2:])
    assert all(key in left for key, _ in third)


def repaint(paths: list[Path], shade: int = 120) -> list[Path]:
    for number, path in enumerate(paths):
        Image.new("RGB", (16, 16), (shade, number * 20, shade)).save(path)
    return paths


def test_shards_of_other_encoders_go_too_and_those_of_the_run_stay(tmp_path: Path) -> None:
    settings = limited(tmp_path, 3.6)
    found = photographs(tmp_path)
    FeatureCache(tmp_path / "cache", encoder=ColourPatches("q" * 64), settings=settings).fill(found)
    cache = filled(tmp_path / "cache", found, settings)
    assert bytes_held_of(cache) <= settings.cache_gigabytes * 1e9
    everything(cache, found)
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=settings)) == 6
    assert len(FeatureCache(tmp_path / "cache", encoder=ColourPatches("q" * 64), settings=settings)) == 0


def test_limit_that_the_run_alone_exceeds_is_refused_and_never_exceeded(tmp_path: Path) -> None:
    settings = limited(tmp_path, 2.6)
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=settings)
    with pytest.raises(PatchwordError, match=r"may hold .* bytes, has .* in use and needs .* more; use a higher"):
        cache.fill(photographs(tmp_path))
    assert 0 < bytes_held_of(cache) <= settings.cache_gigabytes * 1e9


def test_shard_that_another_run_removed_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found)
    expected = everything(cache, found)
    cache._open.clear()
    for shard in shard_files(cache.folder)[:2]:
        shard.unlink()
    assert torch.equal(everything(cache, found), expected)
    again = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SMALL)
    for shard in shard_files(cache.folder)[:1]:
        shard.unlink()
    assert again.fill(found) == {}
    assert torch.equal(everything(again, found), expected)


def test_removed_shard_is_computed_whole_and_not_photograph_by_photograph(tmp_path: Path) -> None:
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found, SETTINGS)
    (shard,) = shard_files(cache.folder)
    cache._open.clear()
    shard.unlink()
    everything(cache, found)
    assert shard_files(cache.folder) == [shard]


def test_reading_marks_a_shard_as_used(tmp_path: Path) -> None:
    found = photographs(tmp_path)
    cache = filled(tmp_path / "cache", found)
    for shard in shard_files(cache.folder):
        os.utime(shard, (1000, 1000))
    cache._open.clear()
    cache.read([found[0][0]])
    used = [shard for shard in shard_files(cache.folder) if shard.stat().st_mtime > 1000]
    assert used == [cache._shard_of[found[0][0]]]


def test_two_processes_fill_one_cache(tmp_path: Path) -> None:
    found = photographs(tmp_path, count=16)
    expected = everything(filled(tmp_path / "whole", found), found)
    first, second = tmp_path / "first", tmp_path / "second"  # each stops in its middle until the other has, too
    both = [
        start_filler(tmp_path / "photos", tmp_path / "cache", call=call, still=still, go_on=go_on)
        for call, still, go_on in ((2, first, second), (4, second, first))
    ]
    assert [process.wait() for process in both] == [0, 0]
    encoder = ColourPatches()
    cache = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SMALL)
    assert torch.equal(everything(cache, found), expected)
    assert encoder.images == 0


def test_what_another_process_wrote_meanwhile_is_not_computed(tmp_path: Path) -> None:
    found = photographs(tmp_path, count=12)

    class Meanwhile(ColourPatches):
        """While the first batch is encoded another process fills the rest."""

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            if not self.images:
                filled(tmp_path / "cache", found[2:])
            return super().__call__(images)

    encoder = Meanwhile()
    settings = SMALL.model_copy(update={"decode_threads": 1})
    FeatureCache(tmp_path / "cache", encoder=encoder, settings=settings).fill(found)
    assert encoder.images <= 2 + 2 * settings.decode_threads + settings.feature_batch


@pytest.mark.parametrize("threads", [1, 3])
def test_memory_stays_bounded(tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decoded photographs and computed features that wait, however many there are in all."""
    found = photographs(tmp_path, count=40)
    decoded: list[str] = []
    read: Callable[..., Any] = features_module.read_photograph
    monkeypatch.setattr(
        features_module, "read_photograph", lambda key, *rest, **more: decoded.append(key) or read(key, *rest, **more)
    )
    written: list[int] = []
    write: Callable[..., Any] = features_module.write_shard
    monkeypatch.setattr(
        features_module, "write_shard", lambda folder, shard: written.append(len(shard)) or write(folder, shard)
    )
    waiting = []

    class Counts(ColourPatches):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            waiting.append(len(decoded) - self.images)
            return super().__call__(images)

    one = FEATURE_DIM * 16 * 2  # bytes of an image
    settings = SETTINGS.model_copy(
        update={"decode_threads": threads, "feature_batch": 2, "shard_megabytes": 3.5 * one / 1e6}
    )
    FeatureCache(tmp_path / "cache", encoder=Counts(), settings=settings).fill(found)
    assert max(waiting) <= 2 * threads + 2
    assert written == [4] * 10
