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
        parameters: number of weights in millions, of all that is loaded for its first role.
        licence: licence of the weights.
        gated: whether the publisher asks to accept terms before a download.
        tower_dim: channels of a patch feature where being a patch encoder is its second role; 0 where it is not.
    """

    name: str
    patch_size: int
    dim: int
    input_size: int
    parameters: float
    licence: str
    gated: bool = False
    tower_dim: int = 0


@dataclass(frozen=True)
class Family:
    """A model architecture.

    Attributes:
        name: registry name.
        kinds: the roles that it can serve in, the first one first; each has its own adapter.
        model_types: values of `model_type` in config.json that select it.
        mean, std: normalisation where the checkpoint states none.
        resample: filter of resizing where the checkpoint states none.
        checkpoints: published checkpoints known to work.
    """

    name: str
    kinds: tuple[Kind, ...]
    model_types: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Literal["bilinear", "bicubic"]
    checkpoints: tuple[Checkpoint, ...]

    @property
    def kind(self) -> Kind:
        """The role that it was published for."""
        return self.kinds[0]


_ROLES: dict[Kind, str] = {"image-text": "image-text encoder", "patch": "patch encoder", "mask": "mask generator"}

_APACHE, _DINOV3 = "Apache-2.0", "DINOv3 License"
_MAE = "CC-BY-NC 4.0 (hub: Apache-2.0)"  # the publisher says both: in its code's repository, on the hub

_UNUSABLE = {
    "siglip2": "a NaFlex SigLIP 2, which sees images as lists of patches; use one of fixed resolution, such as "
    "google/siglip2-base-patch16-224",
    "clip_vision_model": "an image tower alone; use the whole CLIP checkpoint, from which the tower is taken",
    "siglip_vision_model": "an image tower alone; use the whole SigLIP checkpoint, from which the tower is taken",
}

FAMILIES: tuple[Family, ...] = (
    Family(
        "clip",
        ("image-text", "patch"),
        ("clip",),
        CLIP_MEAN,
        CLIP_STD,
        "bicubic",
        (
            Checkpoint("openai/clip-vit-base-patch32", 32, 512, 224, 151.3, "MIT", tower_dim=768),
            Checkpoint("openai/clip-vit-base-patch16", 16, 512, 224, 149.6, "MIT", tower_dim=768),
            Checkpoint("openai/clip-vit-large-patch14", 14, 768, 224, 427.6, "MIT", tower_dim=1024),
            Checkpoint("openai/clip-vit-large-patch14-336", 14, 768, 336, 427.9, "MIT", tower_dim=1024),
        ),
    ),
    Family(
        "siglip",
        ("image-text", "patch"),
        ("siglip",),
        HALF,
        HALF,
        "bilinear",
        (
            Checkpoint("google/siglip-base-patch16-224", 16, 768, 224, 203.2, _APACHE, tower_dim=768),
            Checkpoint("google/siglip2-base-patch16-224", 16, 768, 224, 375.2, _APACHE, tower_dim=768),
            Checkpoint("google/siglip2-large-patch16-256", 16, 1024, 256, 881.5, _APACHE, tower_dim=1024),
        ),
    ),
    Family(
        "dinov2",
        ("patch",),
        ("dinov2",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bicubic",
        (
            Checkpoint("facebook/dinov2-small", 14, 384, 518, 22.1, _APACHE),
            Checkpoint("facebook/dinov2-base", 14, 768, 518, 86.6, _APACHE),
            Checkpoint("facebook/dinov2-large", 14, 1024, 518, 304.4, _APACHE),
            Checkpoint("facebook/dinov2-giant", 14, 1536, 518, 1136.5, _APACHE),
        ),
    ),
    Family(
        "dinov2-with-registers",
        ("patch",),
        ("dinov2_with_registers",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bicubic",
        (
            Checkpoint("facebook/dinov2-with-registers-small", 14, 384, 518, 22.1, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-base", 14, 768, 518, 86.6, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-large", 14, 1024, 518, 304.4, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-giant", 14, 1536, 518, 1136.5, _APACHE),
        ),
    ),
    Family(
        "dinov3",
        ("patch",),
        ("dinov3_vit",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/dinov3-vits16-pretrain-lvd1689m", 16, 384, 224, 21.6, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-vits16plus-pretrain-lvd1689m", 16, 384, 224, 28.7, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-vitb16-pretrain-lvd1689m", 16, 768, 224, 85.7, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-vitl16-pretrain-lvd1689m", 16, 1024, 224, 303.1, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-vith16plus-pretrain-lvd1689m", 16, 1280, 224, 840.6, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-vit7b16-pretrain-lvd1689m", 16, 4096, 224, 6716.0, _DINOV3, gated=True),
        ),
    ),
    Family(
        "dinov3-convnext",
        ("patch",),
        ("dinov3_convnext",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", 32, 768, 224, 27.8, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-small-pretrain-lvd1689m", 32, 768, 224, 49.5, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-base-pretrain-lvd1689m", 32, 1024, 224, 87.6, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-large-pretrain-lvd1689m", 32, 1536, 224, 196.2, _DINOV3, gated=True),
        ),
    ),
    Family(
        "mae",
        ("patch",),
        ("vit_mae",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bicubic",
        (
            Checkpoint("facebook/vit-mae-base", 16, 768, 224, 85.8, _MAE),
            Checkpoint("facebook/vit-mae-large", 16, 1024, 224, 303.3, _MAE),
            Checkpoint("facebook/vit-mae-huge", 14, 1280, 224, 630.8, _MAE),
        ),
    ),
    Family(
        "vit",
        ("patch",),
        ("vit",),
        HALF,
        HALF,
        "bilinear",
        (
            Checkpoint("facebook/dino-vits16", 16, 384, 224, 21.7, _APACHE),
            Checkpoint("facebook/dino-vitb16", 16, 768, 224, 85.8, _APACHE),
            Checkpoint("facebook/dino-vitb8", 8, 768, 224, 85.8, _APACHE),
            Checkpoint("google/vit-base-patch16-224-in21k", 16, 768, 224, 85.8, _APACHE),
        ),
    ),
    Family(
        "sam",
        ("mask", "patch"),
        ("sam",),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/sam-vit-base", 16, 256, 1024, 93.7, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam-vit-large", 16, 256, 1024, 312.3, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam-vit-huge", 16, 256, 1024, 641.1, _APACHE, tower_dim=256),
        ),
    ),
    Family(
        "sam2",
        ("mask", "patch"),
        ("sam2", "sam2_video"),
        IMAGENET_MEAN,
        IMAGENET_STD,
        "bilinear",
        (
            Checkpoint("facebook/sam2.1-hiera-tiny", 16, 256, 1024, 38.9, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam2.1-hiera-small", 16, 256, 1024, 46.0, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam2.1-hiera-base-plus", 16, 256, 1024, 80.8, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam2.1-hiera-large", 16, 256, 1024, 224.4, _APACHE, tower_dim=256),
        ),
    ),
)


def family_of(model_type: str, *, kind: Kind | None = None, where: str) -> Family:
    """Find the family of a checkpoint by the `model_type` of its config.json.

    Args:
        model_type: the value found.
        kind: the role that the caller needs it for; None for any.
        where: hub name or folder, for the message.

    Returns:
        the family.
    """
    fitting = [family for family in FAMILIES if kind is None or kind in family.kinds]
    for family in fitting:
        if model_type in family.model_types:
            return family
    if model_type in _UNUSABLE:
        raise PatchwordError(f"{where}: model_type {model_type!r} is {_UNUSABLE[model_type]}")
    allowed = ", ".join(value for family in fitting for value in family.model_types)
    role = f" as {_ROLES[kind]}" if kind else ""
    raise PatchwordError(f"{where}: model_type {model_type!r} cannot be used{role} (choose from {allowed})")


def known_family(name: str) -> Family | None:
    """The family of a hub name, or None where the registry does not have the name."""
    return next((family for family in FAMILIES if name in [entry.name for entry in family.checkpoints]), None)


def checkpoint_of(name: str) -> Checkpoint | None:
    """The published facts of a hub name, or None where the registry does not have the name."""
    return next((entry for family in FAMILIES for entry in family.checkpoints if entry.name == name), None)


@dataclass(frozen=True)
class Preset:
    """Hub names of the three models of a run."""

    image_text: str
    mask_proposer: str
    patch_encoder: str

    @property
    def names(self) -> tuple[str, str, str]:
        """The three hub names, in the order in which a run needs them."""
        return self.image_text, self.mask_proposer, self.patch_encoder


PRESETS: dict[str, Preset] = {
    "fast": Preset(
        image_text="openai/clip-vit-base-patch16",
        mask_proposer="facebook/sam2.1-hiera-tiny",
        patch_encoder="facebook/dinov2-small",
    ),
    "balanced": Preset(
        image_text="openai/clip-vit-base-patch16",
        mask_proposer="facebook/sam2.1-hiera-base-plus",
        patch_encoder="facebook/dinov2-with-registers-base",
    ),
    "thorough": Preset(
        image_text="openai/clip-vit-large-patch14-336",
        mask_proposer="facebook/sam-vit-huge",
        patch_encoder="facebook/dinov2-with-registers-large",
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise PatchwordError(f"preset {name!r} is unknown (choose from {', '.join(PRESETS)})")
    return PRESETS[name]
