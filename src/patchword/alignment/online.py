"""Frozen features computed anew whenever they are read, for data sets whose features do not fit on disk."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from patchword.alignment.data import HashedItem, patch_labels
from patchword.alignment.distributed import ALONE, Processes
from patchword.alignment.photographs import (
    Photograph,
    Unreadable,
    content_hash,
    encode_together,
    in_batches,
    read_photograph,
)
from patchword.alignment.schedule import seeded_generator
from patchword.config.align import AlignSettings
from patchword.data.images import read_image, to_tensor
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import nearest_multiple, resize
from patchword.models.protocols import PatchEncoder
from patchword.runs.pipeline import read_ahead
from patchword.runs.progress import Progress


class OnlineFeatures:
    """The features of one encoder at one image size, each computed when it is asked for.

    Args:
        encoder: computes them.
        settings: image size, batch of the encoder, threads that decode.
    """

    def __init__(self, *, encoder: PatchEncoder, settings: AlignSettings) -> None:
        self.side = nearest_multiple(settings.image_size, of=encoder.record.patch_size)
        self.grid = (self.side // encoder.record.patch_size,) * 2
        self._encoder = encoder
        self._settings = settings
        self._batches = Batches()
        self._paths: dict[str, Path] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def size_of(self, key: str) -> tuple[int, int]:
        """(height, width) of a photograph that `check` has seen, before it was resized."""
        return self._sizes[key]

    def check(
        self,
        photographs: Iterable[tuple[str, Path]],
        *,
        progress: Progress | None = None,
        processes: Processes = ALONE,
    ) -> dict[str, str]:
        """Decode every photograph (content hash, path) once, so that unreadable ones are found before the training.

        Returns:
            content hash -> reason, of photographs that cannot be read.
        """
        wanted = list(photographs)
        share = processes.shares(len(wanted))[processes.index]
        found: list[tuple[str, tuple[int, int] | str]] = []
        for decoded in self._decode(wanted[share.start : share.stop]):
            found.append((decoded.key, decoded.reason if isinstance(decoded, Unreadable) else decoded.size))
            if progress is not None:
                progress.advance()
        if progress is not None:
            progress.advance(len(wanted) - len(share))
        everywhere = processes.collect(found)
        self._sizes |= {key: size for key, size in everywhere if isinstance(size, tuple)}
        self._paths |= {key: path for key, path in wanted if key in self._sizes}
        return {key: reason for key, reason in everywhere if isinstance(reason, str)}

    @torch.no_grad()
    def read(self, keys: Sequence[str]) -> Tensor:
        """Compute the features of photographs, (b, D, h, w) float32 on the encoder's device."""
        parts = []
        decoded = self._decode([(key, self._paths[key]) for key in keys])
        for batch in in_batches(decoded, size=self._settings.feature_batch):
            broken = [photograph.reason for photograph in batch if isinstance(photograph, Unreadable)]
            if broken:
                raise PatchwordError(f"features cannot be computed: {broken[0]}")
            pixels = torch.cat([photograph.pixels for photograph in batch if isinstance(photograph, Photograph)])
            parts.append(encode_together(self._encoder, pixels, batches=self._batches))  # (b, D, h, w)
        return torch.cat(parts)

    def _decode(self, photographs: Sequence[tuple[str, Path]]) -> Iterable[Photograph | Unreadable]:
        tasks = (partial(read_photograph, key, path, side=self.side) for key, path in photographs)
        threads = self._settings.decode_threads
        return read_ahead(tasks, ahead=threads, threads=threads)


class AugmentedFeatures:
    """The features and labels of photographs, other crops, mirror images and colours in every epoch.

    What is done to a photograph follows from the seed, the epoch and its content alone.

    Args:
        items: the training set's photographs and label maps, in its order.
        names: of the classes.
        encoder: the frozen encoder.
        settings: image size, majority, augmentations, batch of the encoder, threads that decode.
    """

    def __init__(
        self, items: Sequence[HashedItem], *, names: Sequence[str], encoder: PatchEncoder, settings: AlignSettings
    ) -> None:
        self._items = items
        self._names = names
        self._encoder = encoder
        self._settings = settings
        self._batches = Batches()
        self._side = nearest_multiple(settings.image_size, of=encoder.record.patch_size)

    @torch.no_grad()
    def read_augmented(self, positions: Sequence[int], /, *, epoch: int) -> tuple[Tensor, Tensor]:
        """Read the images at these positions of the training set.

        Returns:
            features (b, D, h, w) float32 on the encoder's device, labels (b, h, w) int64 with -1 for ignored.
        """
        tasks = (partial(self._read_one, self._items[position], epoch=epoch) for position in positions)
        features, labels, threads = [], [], self._settings.decode_threads
        ahead = read_ahead(tasks, ahead=threads, threads=threads)
        for batch in in_batches(ahead, size=self._settings.feature_batch):
            pixels = torch.cat([image for image, _ in batch])
            features.append(encode_together(self._encoder, pixels, batches=self._batches))  # (b, D, h, w)
            labels += [each for _, each in batch]
        return torch.cat(features), torch.stack(labels)

    def _read_one(self, item: HashedItem, *, epoch: int) -> tuple[Tensor, Tensor]:
        """A photograph as the encoder takes it, (1, 3, side, side), and its patches' labels (rows, columns)."""
        for path, key in ((item.image, item.key), (item.label_map, item.label_key)):
            if content_hash(path) != key:
                raise PatchwordError(f"{path} has changed since the run began")
        pixels = to_tensor(read_image(item.image))  # (1, 3, h, w)
        label_map = LabelMap.load(item.label_map, names=self._names)
        generator = seeded_generator(self._settings.seed, "augment", epoch, item.key)
        height, width = pixels.shape[-2:]
        augmentation = draw_augmentation((height, width), settings=self._settings, generator=generator)
        rows = self._side // self._encoder.record.patch_size
        labels = patch_labels(
            move(torch.from_numpy(label_map.indices.astype("int64")), augmentation),
            ignore=label_map.ignore,
            classes=len(self._names),
            grid=(rows, rows),
            majority=self._settings.majority,
        )
        return augment_photograph(pixels, augmentation, side=self._side), labels


_GREY = (0.299, 0.587, 0.114)  # how bright red, green and blue look (ITU-R BT.601)


@dataclass(frozen=True)
class Augmentation:
    """What is done to one photograph.

    Attributes:
        top, left, height, width: of the crop, in whole pixels of the photograph.
        flipped: whether left and right are exchanged, after the crop.
        brightness, contrast, saturation: factors, 1 = as it is.
    """

    top: int
    left: int
    height: int
    width: int
    flipped: bool
    brightness: float
    contrast: float
    saturation: float


def draw_augmentation(size: tuple[int, int], *, settings: AlignSettings, generator: torch.Generator) -> Augmentation:
    """Draw what is done to a photograph of a (height, width) in pixels."""
    scale, ratio, down, right, mirror, *colours = torch.rand(8, generator=generator, dtype=torch.float64).tolist()
    area = settings.crop_scale + scale * (1 - settings.crop_scale)
    stretch = math.exp((2 * ratio - 1) * math.log(settings.crop_ratio) / 2)
    height = min(size[0], max(1, round(size[0] * math.sqrt(area) / stretch)))
    width = min(size[1], max(1, round(size[1] * math.sqrt(area) * stretch)))
    brightness, contrast, saturation = (1 + settings.colour * (2 * colour - 1) for colour in colours)
    return Augmentation(
        top=int(down * (size[0] - height + 1)),
        left=int(right * (size[1] - width + 1)),
        height=height,
        width=width,
        flipped=mirror < settings.flip,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
    )


def augment_photograph(pixels: Tensor, augmentation: Augmentation, *, side: int) -> Tensor:
    """Crop, mirror and colour a photograph (1, 3, h, w) in [0, 1]; (1, 3, side, side) in [0, 1]."""
    resized = resize(move(pixels, augmentation), size=(side, side))  # (1, 3, side, side)
    bright = resized * augmentation.brightness
    grey = (bright * bright.new_tensor(_GREY).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)  # (1, 1, side, side)
    contrasted = torch.lerp(grey.mean(), bright, augmentation.contrast)
    grey = torch.lerp(grey.mean(), grey, augmentation.contrast)
    return torch.lerp(grey, contrasted, augmentation.saturation).clamp(0, 1)


def move(pixels: Tensor, augmentation: Augmentation) -> Tensor:
    """The crop of (..., h, w), mirrored where it is to be; nothing is resized, so labels are not mixed."""
    rows = slice(augmentation.top, augmentation.top + augmentation.height)
    columns = slice(augmentation.left, augmentation.left + augmentation.width)
    moved = pixels[..., rows, columns]
    return moved.flip(-1) if augmentation.flipped else moved
