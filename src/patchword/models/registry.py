"""What a model's name means: the families, their published checkpoints, other libraries, presets. Needs no torch.

A family is recognised by `model_type` in a checkpoint's config.json; a new checkpoint of a known family needs no entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from patchword.data.folders import expand_home
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, ModelRecord, PatchEncoder

Kind = Literal["image-text", "patch", "mask"]
Filter = Literal["bilinear", "bicubic"]
Dense = Literal["value", "maskclip", "sclip", "clearclip", "naclip"]  # CLIP's last layer, see `patchword.models.clip`

CONFIG, WEIGHTS, WEIGHTS_INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model")
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_TOKENIZER = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pixels: normalisation of RGB in [0, 1] a channel, and the filter of resizing."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resample: Filter


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
        modules: for each role that it can serve in, its first one first, the module of `patchword.models` that has the
            adapter. It is imported when such a model is loaded.
        model_types: values of `model_type` in config.json that select it.
        preprocessing: what counts where the checkpoint says nothing.
        checkpoints: published checkpoints known to work.
    """

    name: str
    modules: Mapping[Kind, str]
    model_types: tuple[str, ...]
    preprocessing: Preprocessing
    checkpoints: tuple[Checkpoint, ...]

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The roles that it can serve in; the first is the one that it was published for."""
        return tuple(self.modules)


@dataclass(frozen=True)
class Layout:
    """Which files make a checkpoint: its config, weights of which one file must be there, all that loading may read."""

    config: str
    weights: tuple[str, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Library:
    """Another library whose checkpoints can be named by a prefix, `timm:NAME`.

    Attributes:
        prefix: before the colon; also the name of the Python package and of patchword's extra.
        kinds: the roles that its models can serve in.
        module: module of `patchword.models` that loads them.
        owner: put before a hub name that has none; "" where names are whole.
        layout: its checkpoints' files.
    """

    prefix: str
    kinds: tuple[Kind, ...]
    module: str
    owner: str
    layout: Layout


TRANSFORMERS = Layout(
    CONFIG,
    (WEIGHTS, WEIGHTS_INDEX),
    (CONFIG, PREPROCESSOR, PROCESSOR, WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors", *_TOKENIZER),
)
TIMM = Library("timm", ("patch",), "timm_encoder", "timm/", Layout(CONFIG, (WEIGHTS,), (CONFIG, WEIGHTS)))
OPEN_CLIP = Library(
    "open_clip",
    ("image-text", "patch"),
    "openclip",
    "",
    Layout(OPEN_CLIP_CONFIG, (OPEN_CLIP_WEIGHTS,), (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, *_TOKENIZER)),
)
LIBRARIES = (TIMM, OPEN_CLIP)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = Preprocessing((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711), "bicubic")
_BICUBIC = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic")
_BILINEAR = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear")
_HALF = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
_APACHE, _DINOV3 = "Apache-2.0", "DINOv3 License"
_MAE = "CC-BY-NC 4.0 (hub: Apache-2.0)"  # the publisher says both: in its code's repository, on the hub

_ROLES: dict[Kind, str] = {"image-text": "image-text encoder", "patch": "patch encoder", "mask": "mask generator"}
_UNUSABLE = {
    "siglip2": "a NaFlex SigLIP 2, which sees images as lists of patches; use one of fixed resolution, such as "
    "google/siglip2-base-patch16-224",
    "clip_vision_model": "an image tower alone; use the whole CLIP checkpoint, from which the tower is taken",
    "siglip_vision_model": "an image tower alone; use the whole SigLIP checkpoint, from which the tower is taken",
}

FAMILIES: tuple[Family, ...] = (
    Family(
        "clip",
        {"image-text": "clip", "patch": "encoders"},
        ("clip",),
        _CLIP,
        (
            Checkpoint("openai/clip-vit-base-patch32", 32, 512, 224, 151.3, "MIT", tower_dim=768),
            Checkpoint("openai/clip-vit-base-patch16", 16, 512, 224, 149.6, "MIT", tower_dim=768),
            Checkpoint("openai/clip-vit-large-patch14", 14, 768, 224, 427.6, "MIT", tower_dim=1024),
            Checkpoint("openai/clip-vit-large-patch14-336", 14, 768, 336, 427.9, "MIT", tower_dim=1024),
        ),
    ),
    Family(
        "siglip",
        {"image-text": "siglip", "patch": "encoders"},
        ("siglip",),
        _HALF,
        (
            Checkpoint("google/siglip-base-patch16-224", 16, 768, 224, 203.2, _APACHE, tower_dim=768),
            Checkpoint("google/siglip2-base-patch16-224", 16, 768, 224, 375.2, _APACHE, tower_dim=768),
            Checkpoint("google/siglip2-large-patch16-256", 16, 1024, 256, 881.5, _APACHE, tower_dim=1024),
        ),
    ),
    Family(
        "dinov2",
        {"patch": "encoders"},
        ("dinov2",),
        _BICUBIC,
        (
            Checkpoint("facebook/dinov2-small", 14, 384, 518, 22.1, _APACHE),
            Checkpoint("facebook/dinov2-base", 14, 768, 518, 86.6, _APACHE),
            Checkpoint("facebook/dinov2-large", 14, 1024, 518, 304.4, _APACHE),
            Checkpoint("facebook/dinov2-giant", 14, 1536, 518, 1136.5, _APACHE),
        ),
    ),
    Family(
        "dinov2-with-registers",
        {"patch": "encoders"},
        ("dinov2_with_registers",),
        _BICUBIC,
        (
            Checkpoint("facebook/dinov2-with-registers-small", 14, 384, 518, 22.1, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-base", 14, 768, 518, 86.6, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-large", 14, 1024, 518, 304.4, _APACHE),
            Checkpoint("facebook/dinov2-with-registers-giant", 14, 1536, 518, 1136.5, _APACHE),
        ),
    ),
    Family(
        "dinov3",
        {"patch": "encoders"},
        ("dinov3_vit",),
        _BILINEAR,
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
        {"patch": "encoders"},
        ("dinov3_convnext",),
        _BILINEAR,
        (
            Checkpoint("facebook/dinov3-convnext-tiny-pretrain-lvd1689m", 32, 768, 224, 27.8, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-small-pretrain-lvd1689m", 32, 768, 224, 49.5, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-base-pretrain-lvd1689m", 32, 1024, 224, 87.6, _DINOV3, gated=True),
            Checkpoint("facebook/dinov3-convnext-large-pretrain-lvd1689m", 32, 1536, 224, 196.2, _DINOV3, gated=True),
        ),
    ),
    Family(
        "mae",
        {"patch": "encoders"},
        ("vit_mae",),
        _BICUBIC,
        (
            Checkpoint("facebook/vit-mae-base", 16, 768, 224, 85.8, _MAE),
            Checkpoint("facebook/vit-mae-large", 16, 1024, 224, 303.3, _MAE),
            Checkpoint("facebook/vit-mae-huge", 14, 1280, 224, 630.8, _MAE),
        ),
    ),
    Family(
        "vit",
        {"patch": "encoders"},
        ("vit",),
        _HALF,
        (
            Checkpoint("facebook/dino-vits16", 16, 384, 224, 21.7, _APACHE),
            Checkpoint("facebook/dino-vitb16", 16, 768, 224, 85.8, _APACHE),
            Checkpoint("facebook/dino-vitb8", 8, 768, 224, 85.8, _APACHE),
            Checkpoint("google/vit-base-patch16-224-in21k", 16, 768, 224, 85.8, _APACHE),
        ),
    ),
    Family(
        "sam",
        {"mask": "sam", "patch": "encoders"},
        ("sam",),
        _BILINEAR,
        (
            Checkpoint("facebook/sam-vit-base", 16, 256, 1024, 93.7, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam-vit-large", 16, 256, 1024, 312.3, _APACHE, tower_dim=256),
            Checkpoint("facebook/sam-vit-huge", 16, 256, 1024, 641.1, _APACHE, tower_dim=256),
        ),
    ),
    Family(
        "sam2",
        {"mask": "sam", "patch": "encoders"},
        ("sam2", "sam2_video"),
        _BILINEAR,
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


def split_name(name: str) -> tuple[Library | None, str]:
    """The library that a model's name asks for, None for transformers, and the name without its prefix."""
    for library in LIBRARIES:
        if name.startswith(library.prefix + ":"):
            return library, name.removeprefix(library.prefix + ":")
    return None, name


def repository(name: str) -> tuple[str, Layout]:
    """The hub's name for a model's name, and the files of its checkpoint."""
    library, rest = split_name(name)
    if library is None:
        return rest, TRANSFORMERS
    return (rest if "/" in rest else library.owner + rest), library.layout


@dataclass(frozen=True)
class ModelName:
    """A model that is not loaded: hub name or folder, and the revision that was asked for."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | Path) -> ModelName:
        """Read `name`, `name@revision` or a folder."""
        given = str(text)
        _, place = split_name(given)
        if "@" not in given or expand_home(place).exists():
            name, revision = given, None
        else:
            name, _, revision = given.rpartition("@")
        if not name.strip() or revision == "":
            raise PatchwordError(f"model {given!r} must be a name, name@revision or a folder")
        return cls(name, revision)

    @classmethod
    def of(cls, record: ModelRecord) -> ModelName:
        """The name under which a loaded model can be loaded again."""
        return cls(record.name, record.revision)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


Named = str | Path | ModelName


def name_of(part: Named | ImageTextEncoder | MaskGenerator | PatchEncoder) -> ModelName:
    """The name of a model, or of a loaded one the name under which it can be loaded again."""
    if isinstance(part, Named):
        return part if isinstance(part, ModelName) else ModelName.parse(part)
    return ModelName.of(part.record)


@dataclass(frozen=True)
class Preset:
    """Hub names of the three models of a run."""

    image_text: str
    mask_generator: str
    patch_encoder: str

    @property
    def names(self) -> tuple[str, str, str]:
        """The three hub names, in the order in which a run needs them."""
        return self.image_text, self.mask_generator, self.patch_encoder


PRESETS: dict[str, Preset] = {
    "fast": Preset("openai/clip-vit-base-patch16", "facebook/sam2.1-hiera-tiny", "facebook/dinov2-small"),
    "balanced": Preset(
        "openai/clip-vit-base-patch16",
        "facebook/sam2.1-hiera-base-plus",
        "facebook/dinov2-with-registers-base",
    ),
    "thorough": Preset(
        "openai/clip-vit-large-patch14-336",
        "facebook/sam-vit-huge",
        "facebook/dinov2-with-registers-large",
    ),
}
PRESETS["paper"] = PRESETS["balanced"]  # which sizes the paper's table used is not known; its settings are in `config`


def find_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise PatchwordError(f"preset {name!r} is unknown (choose from {', '.join(PRESETS)})")
    return PRESETS[name]
