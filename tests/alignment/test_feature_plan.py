"""Estimate of features, and the decision between keeping them and computing them in every step."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from colour_world import FEATURE_DIM, SETTINGS, ColourPatches, ColourText, make_data
from PIL import Image

from patchword.alignment import estimate as estimate_module
from patchword.alignment.estimate import FeatureEstimate, estimate_features, estimate_run, plan_features
from patchword.alignment.features import FeatureCache
from patchword.alignment.online import OnlineFeatures
from patchword.alignment.photographs import content_hash
from patchword.alignment.run import align_labels
from patchword.alignment.shards import bytes_held, image_bytes
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.loading import Loader
from patchword.models.registry import ModelName
from patchword.runs.progress import byte_count


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def estimate_of(images: int, *, missing: int | None = None, one: int = 2_000_000, held: int = 0) -> FeatureEstimate:
    return FeatureEstimate(
        images=images,
        missing=images if missing is None else missing,
        image_bytes=one,
        held_bytes=held,
        seconds=None,
        feature_dtype="float16",
    )


def with_limit(gigabytes: float, **more: Any) -> AlignSettings:
    return SETTINGS.model_copy(update={"cache_gigabytes": gigabytes, **more})


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate_module.shutil, "disk_usage", lambda path: Usage(10**15, 0, 10**15))


def found_in(folder: Path, count: int = 5) -> list[tuple[str, Path]]:
    return [(content_hash(item.image), item.image) for item in make_data(folder, images=count).items]


def test_bytes_of_the_papers_setting() -> None:
    """DINOv2-B at 518 pixels: 37 x 37 patches of 768 channels in two bytes each."""
    one = image_bytes(dim=768, grid=(37, 37), feature_dtype="float16")
    assert one == pytest.approx(37 * 37 * 768 * 2, rel=2e-4)
    assert byte_count(118_287 * one) == "249 GB"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("size", [16, 64])
def test_estimate_is_close_to_what_is_written_and_never_below(tmp_path: Path, dtype: str, size: int) -> None:
    settings = SETTINGS.model_copy(update={"feature_dtype": dtype, "image_size": size})
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=settings)
    found = found_in(tmp_path)
    estimate = estimate_features(cache, [key for key, _ in found])
    assert (estimate.images, estimate.missing, estimate.held_bytes) == (5, 5, 0)
    cache.fill(found)
    written = bytes_held(tmp_path / "cache")
    assert estimate.total_bytes >= written - 300  # the file's own header
    assert estimate.total_bytes <= written + 5 * 120


def test_estimate_knows_what_is_there(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
    found = found_in(tmp_path)
    cache.fill(found[:3])
    estimate = estimate_features(cache, [key for key, _ in [*found, *found]])
    assert (estimate.images, estimate.missing) == (5, 2)
    assert estimate.held_bytes == bytes_held(tmp_path / "cache")
    assert "3 of them in the cache already" in estimate.text()
    cache.fill(found)
    assert estimate_features(cache, [key for key, _ in found]).missing_bytes == 0


def test_time_is_measured_where_it_is_worth_it(tmp_path: Path) -> None:
    encoder = ColourPatches()
    cache = FeatureCache(tmp_path / "cache", encoder=encoder, settings=SETTINGS)
    assert estimate_features(cache, [f"{number:064x}" for number in range(99)]).seconds is None
    assert encoder.images == 0
    keys = [f"{number:064x}" for number in range(100)]
    estimate = estimate_features(cache, keys)
    assert encoder.images == 2
    assert estimate.seconds is not None
    assert estimate.seconds > 0
    assert "to compute" in estimate.text()
    assert estimate_features(cache, keys, measure=False).seconds is None


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    ("images", "limit", "source"), [(50, 0.1, "cached"), (51, 0.1, "online"), (10_000, 100, "cached")]
)
def test_limit_decides(tmp_path: Path, images: int, limit: float, source: str) -> None:
    plan = plan_features(estimate_of(images), cache=tmp_path, settings=with_limit(limit))
    assert plan.source == source
    if source == "online":
        assert plan.reason == "they take 102 MB and `cache_gigabytes` is 0.1"


@pytest.mark.usefixtures("roomy")
def test_what_is_there_already_counts_against_the_limit(tmp_path: Path) -> None:
    half = estimate_of(100, missing=30, held=140_000_000)
    assert plan_features(half, cache=tmp_path, settings=with_limit(0.2)).source == "cached"
    assert plan_features(half, cache=tmp_path, settings=with_limit(0.19)).source == "online"


def test_disk_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a folder that is not there yet; what other runs have left in the cache may go."""
    asked = []
    monkeypatch.setattr(
        estimate_module.shutil, "disk_usage", lambda path: asked.append(path) or Usage(10**9, 0, 150_000_000)
    )
    cache = tmp_path / "not" / "there"
    assert plan_features(estimate_of(75), cache=cache, settings=SETTINGS).source == "cached"
    plan = plan_features(estimate_of(76), cache=cache, settings=SETTINGS)
    assert plan.source == "online"
    assert plan.reason == "they take 152 MB more and the disk has 150 MB free"
    assert set(asked) == {tmp_path}
    monkeypatch.setattr(estimate_module, "bytes_held", lambda folder: 2_000_000)
    assert plan_features(estimate_of(76), cache=cache, settings=SETTINGS).source == "cached"


@pytest.mark.usefixtures("roomy")
def test_settings_decide(tmp_path: Path) -> None:
    plan = plan_features(estimate_of(1), cache=tmp_path, settings=with_limit(100, features="online"))
    assert plan.source == "online"
    cached = with_limit(0.1, features="cached")
    assert plan_features(estimate_of(50), cache=tmp_path, settings=cached).source == "cached"
    with pytest.raises(PatchwordError, match=r"do not fit the cache .*: they take 102 MB .* use a higher"):
        plan_features(estimate_of(51), cache=tmp_path, settings=cached)


@pytest.mark.usefixtures("roomy")
def test_a_run_that_is_gone_on_with_keeps_its_source(tmp_path: Path) -> None:
    """Cached features are never augmented, so that a run must not change from one to the other on its way."""
    fits, too_large = estimate_of(50), estimate_of(51)
    settings = with_limit(0.1)
    assert plan_features(fits, cache=tmp_path, settings=settings, begun="online").source == "online"
    assert plan_features(fits, cache=tmp_path, settings=settings, begun="cached").source == "cached"
    with pytest.raises(PatchwordError, match="do not fit the cache"):
        plan_features(too_large, cache=tmp_path, settings=settings, begun="cached")


def test_resumed_run_reads_how_it_began(tmp_path: Path) -> None:
    data = make_data(tmp_path, images=8)
    models: dict[str, Any] = {"encoder": ColourPatches(), "text_encoder": ColourText(), "quiet": True}

    class StopsInTraining(ColourPatches):
        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            if self.images > 20:
                raise KeyboardInterrupt
            return super().__call__(images)

    out = tmp_path / "model"
    settings = with_limit(1e-9)
    with pytest.raises(KeyboardInterrupt):
        align_labels(data, out=out, settings=settings, **{**models, "encoder": StopsInTraining()})
    assert json.loads((out / "training.json").read_text())["features"] == "online"
    result = align_labels(data, out=out, settings=with_limit(1.0), resume=True, **models)
    assert json.loads((out / "training.json").read_text())["features"] == "online"
    straight = align_labels(data, out=tmp_path / "straight", settings=settings, **models)
    assert result.history == straight.history


@pytest.mark.parametrize(("encoder", "patch", "dim"), [("facebook/dinov2-base", 14, 768), ("tiny_clip", 8, 32)])
def test_dry_run_tells_what_features_take(
    tmp_path: Path, encoder: str, patch: int, dim: int, request: pytest.FixtureRequest
) -> None:
    here = encoder.startswith("tiny")
    name = str(request.getfixturevalue(encoder)) if here else encoder
    settings = SETTINGS.model_copy(update={"image_size": patch * 3})
    line = estimate_run(
        ModelName(name),
        images=1000,
        classes=3,
        text_dim=8,
        settings=settings,
        cache=tmp_path / "cache",
        loader=Loader("cpu"),
    )
    size = byte_count(1000 * image_bytes(dim=dim, grid=(3, 3), feature_dtype="float16"))
    assert line.startswith(f"features of 1,000 photographs: {size} in float16")
    assert ("to compute" in line) == here
    assert "cached on disk" in line
    assert "; training on 1,000 photographs: 60 steps of 4, learning rate 0.003: about " in line
    assert not (tmp_path / "cache").exists()


def test_dry_run_of_an_encoder_that_is_elsewhere(tmp_path: Path) -> None:
    line = estimate_run(
        ModelName("someone/their-dinov2"),
        images=9,
        classes=3,
        text_dim=8,
        settings=SETTINGS,
        cache=tmp_path,
        loader=Loader("cpu"),
    )
    assert line == "the cost of features and training is not known: someone/their-dinov2 is not on this machine"


class TestOnline:
    def test_features_are_those_of_the_cache(self, tmp_path: Path) -> None:
        found = found_in(tmp_path)
        keys = [key for key, _ in found]
        online = OnlineFeatures(encoder=ColourPatches(), settings=SETTINGS)
        assert online.check(found) == {}
        cache = FeatureCache(tmp_path / "cache", encoder=ColourPatches(), settings=SETTINGS)
        cache.fill(found)
        torch.testing.assert_close(online.read(keys), cache.read(keys).float(), rtol=1e-3, atol=1e-3)
        assert (online.side, online.grid) == (cache.side, cache.grid)
        assert online.read(keys[:1]).shape == (1, FEATURE_DIM, 4, 4)

    def test_photographs_are_checked_before(self, tmp_path: Path) -> None:
        found = found_in(tmp_path, count=2)
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"no image")
        long = tmp_path / "long.png"
        Image.new("RGB", (90, 3), (200, 10, 10)).save(long)
        encoder = ColourPatches()
        online = OnlineFeatures(encoder=encoder, settings=SETTINGS)
        failed = online.check([*found, (content_hash(broken), broken), (content_hash(long), long)])
        assert list(failed) == [content_hash(broken)]
        assert online.size_of(content_hash(long)) == (3, 90)
        assert encoder.images == 0

    def test_photograph_that_changes_is_one_line(self, tmp_path: Path) -> None:
        found = found_in(tmp_path, count=2)
        online = OnlineFeatures(encoder=ColourPatches(), settings=SETTINGS)
        online.check(found)
        Image.new("RGB", (16, 16)).save(found[1][1])
        with pytest.raises(PatchwordError, match=r"features cannot be computed: .* has changed since the run began"):
            online.read([key for key, _ in found])


def test_run_that_does_not_fit_trains_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And leaves no features on disk; the result is that of cached features up to their rounding."""
    data = make_data(tmp_path, images=8)
    results = {}
    for limit in (1.0, 1e-9):
        out = tmp_path / f"model-{limit}"
        results[limit] = align_labels(
            data,
            encoder=ColourPatches(),
            text_encoder=ColourText(),
            out=out,
            settings=with_limit(limit, feature_dtype="float32", augment=False),
            cache=tmp_path / f"cache-{limit}",
        )
        shutil.rmtree(tmp_path / f"cache-{limit}", ignore_errors=True)
        told = capsys.readouterr().err
        assert "features of 8 photographs: " in told
        assert ("cached on disk" if limit == 1.0 else "computed in every step: they take") in told
    losses = [results[limit].history[-1].total for limit in results]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
