"""The three protocols through which every stage sees the frozen foundation models.

Images enter as float tensors of shape (b, 3, h, w), RGB, values in [0, 1], on any device; an adapter moves, resizes,
pads and normalises them itself. Outputs are float32 on the adapter's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from patchword.errors import PatchwordError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from patchword.models.pixels import MaskFrame


@dataclass(frozen=True)
class ModelRecord:
    """What a caller needs to know of a checkpoint without loading it.

    Attributes:
        family: registry name of the adapter, such as "clip" or "dinov2".
        name: hub name or local folder that the weights came from.
        revision: hub commit, tag or branch; None for a local folder.
        fingerprint: content hash of the weights, set after loading; "" before.
        patch_size: side of a patch in pixels of the model's input.
        dim: channels of a patch feature (of the text space for an image-text encoder).
        mean, std: per-channel normalisation of RGB in [0, 1].
        input_size: side in pixels of the input that the model was trained on.
        licence: licence of the weights as their publisher states it; "" when unknown.
    """

    family: str
    name: str
    revision: str | None
    fingerprint: str
    patch_size: int
    dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_size: int
    licence: str

    def identity(self) -> dict[str, str | None]:
        """Which weights these are, as JSON can hold it."""
        return {"name": self.name, "revision": self.revision, "fingerprint": self.fingerprint}


@dataclass(frozen=True)
class ImageEmbedding:
    """What a mask generator keeps of an image.

    Attributes:
        features: one (1, c, h', w') map a level; the first is the one that prompts attend to.
        image_size: (height, width) in pixels of the image as given.
        input_size: (height, width) in pixels of the resized image within the model's padded input.
    """

    features: tuple[Tensor, ...]
    image_size: tuple[int, int]
    input_size: tuple[int, int]


@dataclass(frozen=True)
class MaskProposals:
    """Several candidate masks for each of n prompts, still at the decoder's low resolution.

    Attributes:
        logits: (n, m, h', w') mask logits over the valid (unpadded) part of the input, above 0 = inside.
        predicted_iou: (n, m) the model's own estimate of each mask's IoU, nominally in [0, 1].
        image_size: (height, width) in pixels of the image.
        padded: (n, m, h'', w'') the logits over the whole padded input, of a model that pads; else None.
        frame: where the image lies in that input.
    """

    logits: Tensor
    predicted_iou: Tensor
    image_size: tuple[int, int]
    padded: Tensor | None = None
    frame: MaskFrame | None = None

    def best(self) -> tuple[Tensor, Tensor]:
        """Take for every prompt the mask of highest predicted IoU.

        Returns:
            logits (n, h', w') and predicted IoU (n,).
        """
        import torch  # here, so that records of models can be read without it

        scores, choice = self.predicted_iou.max(dim=1)
        rows = torch.arange(len(choice), device=choice.device)
        return self.logits[rows, choice], scores

    def upsample(self, logits: Tensor) -> Tensor:
        """Bring low-resolution logits (n, h', w') to image pixels.

        Returns:
            boolean masks (n, height, width).
        """
        from patchword.models.pixels import full_logits

        return full_logits(logits, size=self.image_size) > 0


@runtime_checkable
class ImageTextEncoder(Protocol):
    """CLIP, SigLIP: images and words in one space."""

    record: ModelRecord
    device: torch.device

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts to (n, d), unit length."""

    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images of any size, each resized to the model's input, to (b, d), unit length."""

    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode images with sides of whole patches to (b, d, h/patch, w/patch), unit length, in the text space."""

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_images` and `encode_patches` give, in one pass where images have the model's own size."""


@runtime_checkable
class PatchEncoder(Protocol):
    """DINOv2, DINOv3, any vision transformer: images to patch features."""

    record: ModelRecord
    device: torch.device

    def __call__(self, images: Tensor) -> Tensor:
        """Encode images whose sides are multiples of the patch to (b, D, h/patch, w/patch)."""


@runtime_checkable
class MaskGenerator(Protocol):
    """SAM, SAM 2: points to masks."""

    record: ModelRecord
    device: torch.device

    def embed(self, images: Sequence[Tensor]) -> tuple[ImageEmbedding, ...]:
        """Run the image encoder once on images (1, 3, h, w) of any sizes; one embedding an image."""

    def masks_at(self, embeddings: Sequence[ImageEmbedding], points: Sequence[Tensor]) -> tuple[MaskProposals, ...]:
        """Decode the prompts of several images together, k foreground points a prompt.

        Args:
            embeddings: one an image.
            points: for each image (n, k, 2) as x, y in pixels of the image as given; n may differ, also be 0.

        Returns:
            for each image its n proposals.
        """


def check_each(images: Sequence[Tensor]) -> None:
    """Refuse anything but a sequence of single images, float (1, 3, h, w)."""
    for image in images:
        check_images(image)
        if len(image) != 1:
            raise PatchwordError(f"an image must be a batch of 1, (1, 3, height, width), not of {len(image)}")


def check_images(images: Tensor, *, multiple_of: int = 1) -> None:
    """Refuse anything but float (b, 3, h, w) with sides that are positive multiples of `multiple_of`."""
    if images.ndim != 4 or images.shape[1] != 3:
        raise PatchwordError(f"images must have shape (batch, 3, height, width), not {tuple(images.shape)}")
    if not images.is_floating_point():
        raise PatchwordError(f"images must be of a floating type with values in [0, 1], not {images.dtype}")
    height, width = images.shape[-2:]
    if height < 1 or width < 1 or height % multiple_of or width % multiple_of:
        raise PatchwordError(
            f"image sides are {height} x {width} pixels; they must be positive multiples of {multiple_of}"
        )
