"""What frozen features will cost in bytes and time, and whether to keep them on disk or compute them on the fly."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.nn import functional

from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.features import FeatureCache
from patchword.alignment.online import OnlineFeatures
from patchword.alignment.schedule import Schedule, schedule_for, seeded_generator
from patchword.alignment.shards import GIGABYTE, bytes_held, image_bytes
from patchword.alignment.state import start_state
from patchword.alignment.step import draw_batch, training_step
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.catalog import patch_shape
from patchword.models.hub import is_here
from patchword.models.loading import Loader, choose_device
from patchword.models.pixels import nearest_multiple
from patchword.models.protocols import PatchEncoder
from patchword.models.registry import ModelName
from patchword.runs.pipeline import Executor
from patchword.runs.progress import Progress, byte_count, duration, photograph_count, say

_MEASURED_FROM = 100  # photographs missing; for fewer the two passes that measure would cost more than they tell


@dataclass(frozen=True)
class FeatureEstimate:
    """What the features of a data set take.

    Attributes:
        images: photographs, each counted once.
        missing: those of them whose features are not in the cache.
        image_bytes: of the features of one photograph on disk.
        held_bytes: of the shards in the cache that hold features of the others.
        seconds: to compute what is missing, decoding left out; None where nothing was measured.
        feature_dtype: type that they are kept in.
    """

    images: int
    missing: int
    image_bytes: int
    held_bytes: int
    seconds: float | None
    feature_dtype: str

    @property
    def missing_bytes(self) -> int:
        """Bytes that are still to be written."""
        return self.missing * self.image_bytes

    @property
    def total_bytes(self) -> int:
        """Bytes on disk once everything is there."""
        return self.held_bytes + self.missing_bytes

    def text(self) -> str:
        """The estimate in one line."""
        line = f"features of {photograph_count(self.images)}: {byte_count(self.total_bytes)} in {self.feature_dtype}"
        if self.missing < self.images:
            line += f", {self.images - self.missing:,} of them in the cache already"
        if self.seconds is not None and self.missing:
            line += f", about {duration(self.seconds)} to compute"
        return line


def estimate_features(cache: FeatureCache, keys: Iterable[str], *, measure: bool = True) -> FeatureEstimate:
    """What the features of photographs take; the encoder is timed where at least 100 are missing."""
    distinct = set(keys)
    missing = sum(key not in cache for key in distinct)
    return FeatureEstimate(
        images=len(distinct),
        missing=missing,
        image_bytes=cache.image_bytes,
        held_bytes=cache.held_bytes(distinct),
        seconds=missing * cache.seconds_an_image() if measure and missing >= _MEASURED_FROM else None,
        feature_dtype=cache.settings.feature_dtype,
    )


@dataclass(frozen=True)
class FeaturePlan:
    """Whether features are kept on disk ("cached") or computed in every step ("online"), and why."""

    source: Literal["cached", "online"]
    reason: str


def feature_line(estimate: FeatureEstimate, plan: FeaturePlan) -> str:
    """One line for a person, before features are computed."""
    where = "cached on disk" if plan.source == "cached" else f"computed in every step: {plan.reason}"
    return f"{estimate.text()}; {where}"


def plan_features(
    estimate: FeatureEstimate, *, cache: Path, settings: AlignSettings, begun: str | None = None
) -> FeaturePlan:
    """Decide where the features of a run come from; a run that is resumed (`begun`) keeps its source."""
    if begun == "online":
        return FeaturePlan("online", "as when the run began")
    if settings.features == "online" and begun is None:
        return FeaturePlan("online", "the setting `features` says so")
    shortage = _shortage(estimate, cache=cache, settings=settings)
    if not shortage:
        return FeaturePlan("cached", "they fit")
    if "cached" in (settings.features, begun):
        raise PatchwordError(
            f"features do not fit the cache {cache}: {shortage}; use a higher `cache_gigabytes`, a smaller "
            "`image_size`, a cache on another disk, or `features` online"
        )
    return FeaturePlan("online", shortage)


def _shortage(estimate: FeatureEstimate, *, cache: Path, settings: AlignSettings) -> str:
    """Why there is no room, or "" where there is."""
    limit = round(settings.cache_gigabytes * GIGABYTE)
    if estimate.total_bytes > limit:
        return f"they take {byte_count(estimate.total_bytes)} and `cache_gigabytes` is {settings.cache_gigabytes:g}"
    removable = max(0, bytes_held(cache) - estimate.held_bytes)  # of other runs: goes, least recently used first
    there = next(place for place in (cache.absolute(), *cache.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if estimate.missing_bytes > free + removable:
        return f"they take {byte_count(estimate.missing_bytes)} more and the disk has {byte_count(free)} free"
    return ""


def prepare_features(
    photographs: Sequence[tuple[str, Path]],
    *,
    encoder: PatchEncoder,
    settings: AlignSettings,
    cache: Path,
    begun: str | None = None,
    quiet: bool,
    processes: Processes = ALONE,
    executor: Executor | None = None,
) -> tuple[FeatureCache | OnlineFeatures, dict[str, str]]:
    """Decide where the features of photographs (content hash, path) come from, and compute them where they are kept.

    Returns:
        the features, and content hash -> reason of photographs that cannot be read.
    """
    with processes.first_before_others():
        kept = FeatureCache(cache, encoder=encoder, settings=settings)

    def decide() -> FeaturePlan:
        estimate = estimate_features(kept, (key for key, _ in photographs), measure=not quiet)
        plan = plan_features(estimate, cache=cache, settings=settings, begun=begun)
        if photographs:
            say(feature_line(estimate, plan), quiet=quiet)
        return plan

    plan = processes.from_first(decide)
    if plan.source == "cached":
        with Progress(len(photographs), "computing features", quiet=quiet) as progress:
            return kept, kept.fill(photographs, progress=progress, processes=processes, executor=executor)
    online = OnlineFeatures(encoder=encoder, settings=settings)
    with Progress(len(photographs), "checking photographs", quiet=quiet) as progress:
        return online, online.check(photographs, progress=progress, processes=processes)


def estimate_run(
    encoder: ModelName,
    *,
    images: int,
    classes: int,
    text_dim: int,
    settings: AlignSettings,
    cache: Path,
    loader: Loader,
) -> str:
    """Say in one line what features and training would take; nothing is written.

    What a cache holds already is not counted: photographs are not read.
    """
    image_seconds = None
    if is_here(encoder):
        model = loader.patch_encoder(encoder)
        shape: tuple[int, int] | None = (model.record.patch_size, model.record.dim)
        image_seconds = FeatureCache(cache, encoder=model, settings=settings).seconds_an_image()
    else:
        shape = patch_shape(encoder.name, revision=encoder.revision)
    if shape is None:
        return f"the cost of features and training is not known: {encoder} is not on this machine"
    patch, dim = shape
    cells = nearest_multiple(settings.image_size, of=patch) // patch
    estimate = FeatureEstimate(
        images=images,
        missing=images,
        image_bytes=image_bytes(dim=dim, grid=(cells, cells), feature_dtype=settings.feature_dtype),
        held_bytes=0,
        seconds=None if image_seconds is None else images * image_seconds,
        feature_dtype=settings.feature_dtype,
    )
    plan = plan_features(estimate, cache=cache, settings=settings)
    schedule = schedule_for(images, settings=settings)
    device = choose_device(loader.device)
    seconds = schedule.steps * seconds_a_step(
        schedule, dim=dim, text_dim=text_dim, classes=classes, cells=cells, settings=settings, device=device
    )
    if plan.source == "online" and image_seconds is not None:  # once more in every epoch
        seconds += schedule.steps / schedule.epoch_steps * images * image_seconds
    encoding = ", its features left out" if plan.source == "online" and image_seconds is None else ""
    training = f"training on {schedule.line()}: about {duration(seconds)}{encoding}"
    return f"{feature_line(estimate, plan)}; {training}"


def seconds_a_step(
    schedule: Schedule,
    *,
    dim: int,
    text_dim: int,
    classes: int,
    cells: int,
    settings: AlignSettings,
    device: torch.device,
) -> float:
    """Time of a step of the training on random features, after one to warm up."""
    count = min(schedule.batch_size, schedule.images)
    generator = seeded_generator(settings.seed, "step to time")
    features = torch.randn((count, dim, cells, cells), generator=generator)
    labels = torch.randint(classes, (count, cells, cells), generator=generator)
    text = functional.normalize(torch.randn((classes, text_dim), generator=generator), dim=1).to(device)
    state = start_state(dim=dim, text_dim=text_dim, settings=settings, device=device)
    taken = 0.0
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        batch = draw_batch(
            features,
            labels,
            images=[range(count)],
            index=0,
            classes=classes,
            generator=generator,
            settings=settings,
            device=device,
        )
        rate = schedule.learning_rate
        terms = training_step(state, batch, text, forward=state.module, processes=ALONE, rate=rate, settings=settings)
        terms.total.item()  # until the device is done
        taken = time.perf_counter() - started
    return taken
