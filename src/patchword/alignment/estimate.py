"""What frozen features will cost in bytes and time, and whether to keep them on disk or compute them on the fly."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from patchword.alignment.shards import bytes_held
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.runs.progress import byte_count, duration

GIGABYTE = 1_000_000_000
FEATURE_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_ENTRY = 250  # bytes of a feature's name, place and checksum in its shard; a little more than there are


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
        line = f"features of {self.images:,} photographs: {byte_count(self.total_bytes)} in {self.feature_dtype}"
        if self.missing < self.images:
            line += f", {self.images - self.missing:,} of them in the cache already"
        if self.seconds is not None and self.missing:
            line += f", about {duration(self.seconds)} to compute"
        return line


@dataclass(frozen=True)
class FeaturePlan:
    """Whether features are kept on disk ("cached") or computed in every step ("online"), and why."""

    source: Literal["cached", "online"]
    reason: str


def image_bytes(*, dim: int, grid: tuple[int, int], feature_dtype: str) -> int:
    """Bytes on disk of the features (dim, rows, columns) of one photograph."""
    return dim * grid[0] * grid[1] * FEATURE_TYPES[feature_dtype].itemsize + _ENTRY


def feature_line(estimate: FeatureEstimate, plan: FeaturePlan) -> str:
    """What a person is told before features are computed."""
    where = "kept on disk" if plan.source == "cached" else "computed in every step"
    return f"{estimate.text()}; {where}: {plan.reason}"


def plan_features(
    estimate: FeatureEstimate, *, cache: Path, settings: AlignSettings, begun: str | None = None
) -> FeaturePlan:
    """Decide where the features of a run come from.

    Args:
        estimate: of what the run needs.
        cache: folder of the cache; need not exist.
        settings: `features` (auto, cached or online) and `cache_gigabytes`.
        begun: what was decided when a run that is gone on with began; None for a new one.

    Returns:
        the decision; with `features` auto it is "cached" where the limit and the disk have room for all of them.
    """
    if begun == "online":
        return FeaturePlan("online", "as when the run began")
    if settings.features == "online" and begun is None:
        return FeaturePlan("online", "the setting `features` says so")
    shortage = _shortage(estimate, cache=cache, settings=settings)
    if not shortage:
        return FeaturePlan("cached", f"{byte_count(estimate.total_bytes)} fit")
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
    free = _free(cache)
    if estimate.missing_bytes > free + removable:
        return f"they take {byte_count(estimate.missing_bytes)} more and the disk has {byte_count(free)} free"
    return ""


def _free(folder: Path) -> int:
    """Bytes free on the disk that a folder is, or will be, on."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free
