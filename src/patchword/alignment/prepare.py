"""From the files of a labelled data set to what the trainer takes; items that are broken are set aside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.data import LabelledImages
from patchword.alignment.estimate import feature_line, plan_features
from patchword.alignment.features import FeatureCache
from patchword.alignment.online import OnlineFeatures
from patchword.alignment.photographs import content_hash
from patchword.alignment.settings import AlignSettings
from patchword.alignment.targets import patch_labels
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.models.protocols import PatchEncoder
from patchword.runs.progress import Progress


@dataclass(frozen=True)
class HashedItem:
    """An item of a data set and the SHA-256 of its photograph (`key`) and of its label map."""

    image: Path
    label_map: Path
    key: str
    label_key: str


def hash_items(dataset: LabelledImages, *, skipped: dict[str, str], quiet: bool) -> list[HashedItem]:
    """Hash the files of every item.

    Args:
        dataset: photographs with label maps.
        skipped: takes, by path of the photograph, why an item cannot be read.
        quiet: whether to show no progress.

    Returns:
        the items that can be read, in their order.
    """
    hashed = []
    with Progress(len(dataset.items), "reading files", quiet=quiet) as progress:
        for item in dataset.items:
            try:
                hashed.append(
                    HashedItem(item.image, item.label_map, content_hash(item.image), content_hash(item.label_map))
                )
            except PatchwordError as error:
                skipped[str(item.image)] = str(error)
            progress.advance()
    return hashed


def prepare_features(
    photographs: Sequence[tuple[str, Path]],
    *,
    encoder: PatchEncoder,
    settings: AlignSettings,
    cache: Path,
    begun: str | None = None,
    quiet: bool,
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

    Returns:
        the features' source, and content hash -> reason of photographs that cannot be read.
    """
    kept = FeatureCache(cache, encoder=encoder, settings=settings)
    estimate = kept.estimate((key for key, _ in photographs), measure=not quiet)
    plan = plan_features(estimate, cache=cache, settings=settings, begun=begun)
    if photographs and not quiet:
        sys.stderr.write(feature_line(estimate, plan) + "\n")
    if plan.source == "cached":
        with Progress(len(photographs), "computing features", quiet=quiet) as progress:
            return kept, kept.fill(photographs, progress=progress)
    online = OnlineFeatures(encoder=encoder, settings=settings)
    with Progress(len(photographs), "checking photographs", quiet=quiet) as progress:
        return online, online.check(photographs, progress=progress)


def label_items(
    hashed: Sequence[HashedItem],
    dataset: LabelledImages,
    *,
    features: FeatureCache | OnlineFeatures,
    settings: AlignSettings,
    skipped: dict[str, str],
    quiet: bool,
) -> tuple[list[HashedItem], Tensor]:
    """Label the patches of every item.

    Args:
        hashed: items whose photographs can be read.
        dataset: its vocabulary names the maps' indices.
        features: tells the grid of patches and the sizes of the photographs.
        settings: the majority that a label needs.
        skipped: takes, by path of the photograph, why a label map cannot be used.
        quiet: whether to show no progress.

    Returns:
        the items that can be used, and their labels (n, h, w) with -1 for ignored.
    """
    names = dataset.vocabulary.names
    kind = torch.int16 if len(names) <= torch.iinfo(torch.int16).max else torch.int32
    usable, labels = [], []
    with Progress(len(hashed), "labelling patches", quiet=quiet) as progress:
        for item in hashed:
            try:
                label_map = LabelMap.load(item.label_map, names=names)
                _check_size(item, label_map, features=features)
            except PatchwordError as error:
                skipped[str(item.image)] = str(error)
            else:
                usable.append(item)
                labels.append(_labels_of(label_map, grid=features.grid, majority=settings.majority).to(kind))
            progress.advance()
    return usable, torch.stack(labels) if labels else torch.empty((0, *features.grid), dtype=kind)


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
