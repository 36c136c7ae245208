"""The model families that can be used, and the published checkpoints of each with the facts a user chooses by.

A family is recognised by `model_type` in a checkpoint's config.json; a new checkpoint of a known family needs no entry.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from patchword.errors import PatchwordError

Kind = Literal["image-text", "patch", "mask"]

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Checkpoint:
    """A published checkpoint, as its publisher describes it.

    Attributes:
        name: hub name.
        patch_size: side of a patch in pixels of the input.
        dim: channels of a patch feature (of the text space for an image-text encoder).
        input_size: side in pixels of the input that it was trained on.
        parameters: number of weights in millions.
        licence: licence of the weights.
        gated: whether the publisher asks to accept terms before a download.
    """

    name: str
    patch_size: int
    dim: int
    input_size: int
    parameters: float
    licence: str
    gated: bool = False


@dataclass(frozen=True)
class Family:
    """A model architecture, with one adapter.

    Attributes:
        name: registry name.
        kind: which of the three protocols its adapter keeps.
        model_types: values of `model_type` in config.json that select it.
        mean, std: normalisation where the checkpoint states none.
        resample: filter of resizing where the checkpoint states none.
        checkpoints: published checkpoints known to work.
    """

    name: str
    kind: Kind
    model_types: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Literal["bilinear", "bicubic"]
    checkpoints: tuple[Checkpoint, ...]


_ROLES: dict[Kind, str] = {"image-text": "image-text encoder", "patch": "patch encoder", "mask": "mask proposer"}

FAMILIES: tuple[Family, ...] = (
    Family(
        "clip",
        "image-text",
        ("clip",),
        CLIP_MEAN,
        CLIP_STD,
        "bicubic",
        (
            Checkpoint("openai/clip-vit-base-patch16", 16, 512, 224, 149.6, "MIT"),
            Checkpoint("openai/clip-vit-large-patch14-336", 14, 768, 336, 427.9, "MIT"),
        ),
    ),
    Family(
        "siglip",
        "image-text",
        ("siglip",),
        HALF,
        HALF,
        "bilinear",
        (Checkpoint("google/siglip2-base-patch16-224", 16, 768, 224, 375.2, "Apache-2.0"),),
    ),
    Family(
        "dinov2",
        "patch",
        ("dinov2",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bicubic",
        (
            Checkpoint("facebook/dinov2-small", 14, 384, 518, 22.1, "Apache-2.0"),
            Checkpoint("facebook/dinov2-base", 14, 768, 518, 86.6, "Apache-2.0"),
            Checkpoint("facebook/dinov2-large", 14, 1024, 518, 304.4, "Apache-2.0"),
        ),
    ),
    Family(
        "dinov2-with-registers",
        "patch",
        ("dinov2_with_registers",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bicubic",
        (
            Checkpoint("facebook/dinov2-with-registers-small", 14, 384, 518, 22.1, "Apache-2.0"),
            Checkpoint("facebook/dinov2-with-registers-base", 14, 768, 518, 86.6, "Apache-2.0"),
            Checkpoint("facebook/dinov2-with-registers-large", 14, 1024, 518, 304.4, "Apache-2.0"),
        ),
    ),
    Family(
        "dinov3",
        "patch",
        ("dinov3_vit",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/dinov3-vits16-pretrain-lvd1689m", 16, 384, 224, 21.6, "DINOv3 License", gated=True),
            Checkpoint("facebook/dinov3-vitb16-pretrain-lvd1689m", 16, 768, 224, 85.7, "DINOv3 License", gated=True),
        ),
    ),
    Family(
        "sam",
        "mask",
        ("sam",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/sam-vit-base", 16, 256, 1024, 93.7, "Apache-2.0"),
            Checkpoint("facebook/sam-vit-large", 16, 256, 1024, 312.3, "Apache-2.0"),
            Checkpoint("facebook/sam-vit-huge", 16, 256, 1024, 641.1, "Apache-2.0"),
        ),
    ),
    Family(
        "sam2",
        "mask",
        ("sam2", "sam2_video"),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/sam2.1-hiera-tiny", 16, 256, 1024, 38.9, "Apache-2.0"),
            Checkpoint("facebook/sam2.1-hiera-small", 16, 256, 1024, 46.0, "Apache-2.0"),
            Checkpoint("facebook/sam2.1-hiera-base-plus", 16, 256, 1024, 80.8, "Apache-2.0"),
            Checkpoint("facebook/sam2.1-hiera-large", 16, 256, 1024, 224.4, "Apache-2.0"),
        ),
    ),
)


def family_of(model_type: str, *, kind: Kind | None = None, where: str) -> Family:
    """Find the family of a checkpoint by the `model_type` of its config.json.

    Args:
        model_type: the value found.
        kind: the kind that the caller needs; None for any.
        where: hub name or folder, for the message.

    Returns:
        the family.

    Raises:
        PatchwordError: when no family, or one of another kind, has that model type; the message names those allowed.
    """
    for family in FAMILIES:
        if model_type in family.model_types and kind in (None, family.kind):
            return family
    allowed = ", ".join(value for family in FAMILIES if kind in (None, family.kind) for value in family.model_types)
    role = f" as {_ROLES[kind]}" if kind else ""
    raise PatchwordError(f"{where}: model_type {model_type!r} cannot be used{role}; allowed are {allowed}")


def known_family(name: str) -> Family | None:
    """The family of a hub name, or None where the registry does not have the name."""
    return next((family for family in FAMILIES if name in [entry.name for entry in family.checkpoints]), None)


def checkpoint_of(name: str) -> Checkpoint | None:
    """The published facts of a hub name, or None where the registry does not have the name."""
    return next((entry for family in FAMILIES for entry in family.checkpoints if entry.name == name), None)
