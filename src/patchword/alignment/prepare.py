"""From the files of a labelled data set to what the trainer takes; items that are broken are set aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.data import LabelledImages
from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.estimate import FeaturePlan, feature_line, plan_features
from patchword.alignment.features import FeatureCache
from patchword.alignment.online import OnlineFeatures
from patchword.alignment.photographs import content_hash, known_contents, remember_contents
from patchword.alignment.targets import patch_labels
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.models.protocols import PatchEncoder
from patchword.runs.progress import Progress, say


@dataclass(frozen=True)
class HashedItem:
    """An item of a data set and the SHA-256 of its photograph (`key`) and of its label map."""

    image: Path
    label_map: Path
    key: str
    label_key: str


def hash_items(
    dataset: LabelledImages, *, skipped: dict[str, str], quiet: bool, processes: Processes = ALONE
) -> list[HashedItem]:
    """Hash the files of every item, each process its share.

    Args:
        dataset: photographs with label maps.
        skipped: takes, by path of the photograph, why an item cannot be read.
        quiet: whether to show no progress.
        processes: that share the work.

    Returns:
        the items that can be read, in their order.
    """
    share = processes.shares(len(dataset.items))[processes.index]
    hashed, unread = [], {}
    with Progress(len(share), "reading files", quiet=quiet) as progress:
        for item in dataset.items[share.start : share.stop]:
            try:
                hashed.append(
                    HashedItem(item.image, item.label_map, content_hash(item.image), content_hash(item.label_map))
                )
            except PatchwordError as error:
                unread[str(item.image)] = str(error)
            progress.advance()
    skipped |= dict(processes.collect(list(unread.items())))
    if processes.count > 1:
        paths = [path for item in hashed for path in (item.image, item.label_map)]
        remember_contents(processes.collect(known_contents(paths)))
    return processes.collect(hashed)


def prepare_features(
    photographs: Sequence[tuple[str, Path]],
    *,
    encoder: PatchEncoder,
    settings: AlignSettings,
    cache: Path,
    begun: str | None = None,
    quiet: bool,
    processes: Processes = ALONE,
) -> tuple[FeatureCache | OnlineFeatures, dict[str, str]]:
    """Decide where features come from, tell it, and compute them where they are kept.

    Args:
        photographs: (content hash, path) of each.
        encoder: the frozen encoder.
        settings: of stage 2.
        cache: folder of kept features; not made where features are computed in every step.
        begun: "cached" or "online" where a run is gone on with that began so; room that came or went since must not
            change what it learns from.
        quiet: whether to tell nothing and show no progress.
        processes: that share the work.

    Returns:
        the features' source, and content hash -> reason of photographs that cannot be read.
    """
    with processes.first_before_others():
        kept = FeatureCache(cache, encoder=encoder, settings=settings)
    plan = processes.from_first(
        lambda: _planned(kept, photographs, cache=cache, settings=settings, begun=begun, quiet=quiet)
    )
    if plan.source == "cached":
        with Progress(len(photographs), "computing features", quiet=quiet) as progress:
            return kept, kept.fill(photographs, progress=progress, processes=processes)
    online = OnlineFeatures(encoder=encoder, settings=settings)
    with Progress(len(photographs), "checking photographs", quiet=quiet) as progress:
        return online, online.check(photographs, progress=progress, processes=processes)


def _planned(
    kept: FeatureCache,
    photographs: Sequence[tuple[str, Path]],
    *,
    cache: Path,
    settings: AlignSettings,
    begun: str | None,
    quiet: bool,
) -> FeaturePlan:
    """Decide, and tell it."""
    estimate = kept.estimate((key for key, _ in photographs), measure=not quiet)
    plan = plan_features(estimate, cache=cache, settings=settings, begun=begun)
    if photographs:
        say(feature_line(estimate, plan), quiet=quiet)
    return plan


def label_items(
    hashed: Sequence[HashedItem],
    dataset: LabelledImages,
    *,
    features: FeatureCache | OnlineFeatures,
    settings: AlignSettings,
    skipped: dict[str, str],
    quiet: bool,
    processes: Processes = ALONE,
) -> tuple[list[HashedItem], Tensor]:
    """Label the patches of every item, each process its share.

    Args:
        hashed: items whose photographs can be read.
        dataset: its vocabulary names the maps' indices.
        features: tells the grid of patches and the sizes of the photographs.
        settings: the majority that a label needs.
        skipped: takes, by path of the photograph, why a label map cannot be used.
        quiet: whether to show no progress.
        processes: that share the work.

    Returns:
        the items that can be used, and their labels (n, h, w) with -1 for ignored.
    """
    names = dataset.vocabulary.names
    kind = torch.int16 if len(names) <= torch.iinfo(torch.int16).max else torch.int32
    share = processes.shares(len(hashed))[processes.index]
    labelled: list[tuple[HashedItem, Tensor]] = []
    unusable = {}
    with Progress(len(share), "labelling patches", quiet=quiet) as progress:
        for item in hashed[share.start : share.stop]:
            try:
                label_map = LabelMap.load(item.label_map, names=names)
                _check_size(item, label_map, features=features)
            except PatchwordError as error:
                unusable[str(item.image)] = str(error)
            else:
                labels = _labels_of(label_map, grid=features.grid, majority=settings.majority)
                labelled.append((item, labels.to(kind)))
            progress.advance()
    skipped |= dict(processes.collect(list(unusable.items())))
    labelled = processes.collect(labelled)
    patches = [labels for _, labels in labelled]
    stacked = torch.stack(patches) if patches else torch.empty((0, *features.grid), dtype=kind)
    return [item for item, _ in labelled], stacked


def _labels_of(label_map: LabelMap, *, grid: tuple[int, int], majority: float) -> Tensor:
    indices = torch.from_numpy(label_map.indices.astype("int64"))
    return patch_labels(indices, ignore=label_map.ignore, classes=len(label_map.names), grid=grid, majority=majority)


def _check_size(item: HashedItem, label_map: LabelMap, *, features: FeatureCache | OnlineFeatures) -> None:
    size = features.size_of(item.key)
    if label_map.indices.shape != (size.height, size.width):
        height, width = label_map.indices.shape
        raise PatchwordError(
            f"label map {item.label_map} has {width} x {height} pixels; {item.image} has {size.width} x {size.height}"
        )
