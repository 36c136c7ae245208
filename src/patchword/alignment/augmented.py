"""Features and labels of augmented photographs, computed anew whenever they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from patchword.alignment.augment import augment_labels, augment_photograph, draw_augmentation
from patchword.alignment.photographs import content_hash, encode_together, in_batches
from patchword.alignment.prepare import HashedItem
from patchword.alignment.schedule import seeded_generator
from patchword.alignment.targets import patch_labels
from patchword.config.align import AlignSettings
from patchword.data.images import read_image, to_tensor
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.models.batching import Batches
from patchword.models.pixels import nearest_multiple
from patchword.models.protocols import PatchEncoder
from patchword.runs.pipeline import read_ahead


@dataclass(frozen=True)
class _Augmented:
    """A photograph as the encoder takes it, (1, 3, side, side), and its patches' labels (rows, columns)."""

    pixels: Tensor
    labels: Tensor


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

        Args:
            positions: at least one.
            epoch: what is done to the images is another in each.

        Returns:
            features (b, D, h, w) float32 on the encoder's device, labels (b, h, w) int64 with -1 for ignored.
        """
        tasks = (partial(self._read_one, self._items[position], epoch=epoch) for position in positions)
        features, labels, threads = [], [], self._settings.decode_threads
        ahead = read_ahead(tasks, ahead=threads, threads=threads)
        for batch in in_batches(ahead, size=self._settings.feature_batch):
            pixels = torch.cat([each.pixels for each in batch])
            features.append(encode_together(self._encoder, pixels, batches=self._batches))  # (b, D, h, w)
            labels += [each.labels for each in batch]
        return torch.cat(features), torch.stack(labels)

    def _read_one(self, item: HashedItem, *, epoch: int) -> _Augmented:
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
            augment_labels(torch.from_numpy(label_map.indices.astype("int64")), augmentation),
            ignore=label_map.ignore,
            classes=len(self._names),
            grid=(rows, rows),
            majority=self._settings.majority,
        )
        return _Augmented(augment_photograph(pixels, augmentation, side=self._side), labels)
