"""Segmentation without any training: dense features of frozen models against a text tower's vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.errors import PatchwordError
from patchword.models.common import compute_type
from patchword.models.protocols import ImageTextEncoder, MaskGenerator
from patchword.segmentation.dense import BaseSegmenter, DenseFeatures
from patchword.segmentation.methods import METHODS as METHODS
from patchword.segmentation.methods import Method, find_method
from patchword.segmentation.words import WordEncoder

if TYPE_CHECKING:
    from patchword.models.clip import ClipEncoder
    from patchword.models.protocols import PatchEncoder
    from patchword.models.proxy import ProxyClip
    from patchword.models.sources import ModelName


class OwnPatches:
    """The image-text model's own patch features; which variant of its last layer they come from is the encoder's
    affair (MaskCLIP's value path by default)."""

    def __init__(self, text: ImageTextEncoder) -> None:
        self._text = text
        self.patch_size = text.record.patch_size
        self.image_size = text.record.input_size
        self.device: torch.device = text.device

    def __call__(self, images: Tensor) -> Tensor:
        """As of `DenseFeatures`."""
        return self._text.encode_patches(images)

    def describe(self) -> dict[str, Any]:
        """Nothing beyond the text encoder, which `DenseSegmenter.describe` names."""
        return {"kind": "dense"}


class DenseSegmenter(BaseSegmenter):
    """Segments with dense features that are in the text space already, without any training.

    As with `Segmenter`, several threads may call one at the same time.

    Args:
        text: the image-text model, whose text tower gives the words' vectors.
        features: images to patch vectors in its text space; None for its own patches.
        image_size: side in pixels of the square that has as many pixels as the image that the model sees; None for the
            features' own.
        temperature: of the softmax that the confidence is taken from [chosen; the inverse of CLIP's logit scale].
        templates: prompt templates of classes that come without templates of their own.
        mask_proposer: what snaps edges where the setting `refine` is "sam".
        trained: the classes that the features were trained on, which are segmented where none are named; None for none.
    """

    def __init__(
        self,
        text: ImageTextEncoder,
        *,
        features: DenseFeatures | None = None,
        image_size: int | None = None,
        temperature: float = 0.01,
        templates: Sequence[str] = DEFAULT_TEMPLATES,
        mask_proposer: MaskGenerator | None = None,
        trained: Vocabulary | None = None,
    ) -> None:
        if not temperature > 0:
            raise PatchwordError(f"temperature is {temperature}; it must be above 0")
        self.text = text
        self.trained = trained
        self.features: DenseFeatures = OwnPatches(text) if features is None else features
        super().__init__(
            encode=self.features,
            words=WordEncoder(text, templates=templates, trained=trained),
            patch_size=self.features.patch_size,
            image_size=image_size or self.features.image_size,
            temperature=temperature,
            device=self.features.device,
            mask_proposer=mask_proposer,
        )

    def describe(self) -> dict[str, Any]:
        """The models and the numbers that a segmentation depends on."""
        return {
            **self.features.describe(),
            "text_encoder": self.text.record.identity(),
            **({} if self.refiner is None else {"mask_proposer": self.refiner.record.identity()}),
            "computed_in": str(compute_type(self.text)).removeprefix("torch."),
            **super().describe(),
        }


def load_method(
    name: str,
    *,
    image_text: str | Path | ImageTextEncoder,
    encoder: str | Path | PatchEncoder | None = None,
    device: str = "auto",
    dtype: str = "auto",
    as_published: bool = False,
) -> DenseSegmenter:
    """A segmenter by a training-free method.

    Args:
        name: one of `METHODS`.
        image_text: CLIP: hub name, `name@revision`, folder, or loaded.
        encoder: the vision encoder of "proxyclip", any that `load_patch_encoder` loads; none for the others.
        device: "auto" or a torch device; of models that are loaded here.
        dtype: "auto", "float32", "bfloat16" or "float16"; likewise.
        as_published: have DINO, or another encoder of the family "vit", as in its authors' code: positions resampled
            with an offset of 0.1 patches, 1e-6 in layer norms. transformers stretches positions exactly and has what
            the checkpoint's config says, 1e-12 for DINO.

    Returns:
        the segmenter, which sees images whole at CLIP's own size unless settings say otherwise.
    """
    from patchword.models.adapters import TokenEncoder, as_dino
    from patchword.models.clip import ClipEncoder
    from patchword.models.proxy import ProxyClip
    from patchword.models.sources import Loader, ModelName
    from patchword.segmentation.baseline import DenseSegmenter

    method = find_method(name, encoder=encoder)
    if isinstance(image_text, str | Path):
        _check_family(method, ModelName.parse(image_text))
    loader = Loader(device=device, dtype=dtype)
    clip = loader.image_text(image_text)
    if not isinstance(clip, ClipEncoder):
        raise _other_family(method, name=clip.record.name, family=clip.record.family)
    variant = clip.varied(dense=method.dense, position_offset=method.position_offset)
    if encoder is None:
        return DenseSegmenter(clip, features=MethodFeatures(method, clip=variant))
    vision = loader.patch_encoder(encoder)
    if as_published and isinstance(vision, TokenEncoder) and vision.record.family == "vit":
        vision = as_dino(vision)
    proxy = ProxyClip(variant, encoder=vision)
    features = MethodFeatures(method, clip=variant, proxy=proxy, as_published=as_published)
    return DenseSegmenter(clip, features=features)


def _check_family(method: Method, model: ModelName) -> None:
    """Refuse what the name alone tells not to be CLIP, before it is fetched."""
    from patchword.models.extras import split_name
    from patchword.models.registry import known_family

    library, _ = split_name(model.name)
    if library is not None:
        raise _other_family(method, name=model.name, family=library.prefix)
    family = known_family(model.name)
    if family is not None and family.name != "clip":
        raise _other_family(method, name=model.name, family=family.name)


def _other_family(method: Method, *, name: str, family: str) -> PatchwordError:
    return PatchwordError(
        f"method {method.name} changes CLIP's last layer, and {name} is of the family {family}; it needs a CLIP in "
        "transformers' format"
    )


class MethodFeatures:
    """`DenseFeatures` of a method.

    Args:
        method: which one.
        clip: CLIP, with the method's path to patch features.
        proxy: what goes on from there, for a method that takes a vision encoder.
        as_published: as for `load_method`; for the record.
    """

    def __init__(
        self, method: Method, *, clip: ClipEncoder, proxy: ProxyClip | None = None, as_published: bool = False
    ) -> None:
        self._method = method
        self._as_published = as_published
        self._encoder = None if proxy is None else proxy.encoder
        self._encode = clip.encode_patches if proxy is None else proxy
        self.patch_size = (clip if proxy is None else proxy.encoder).record.patch_size
        self.image_size = clip.record.input_size
        self.device: torch.device = clip.device

    def __call__(self, images: Tensor) -> Tensor:
        """As of `DenseFeatures`."""
        return self._encode(images)

    def describe(self) -> dict[str, Any]:
        """The method and the vision encoder; `DenseSegmenter.describe` names CLIP."""
        facts: dict[str, Any] = {"kind": "dense", "method": self._method.name}
        if self._encoder is not None:
            facts["encoder"] = self._encoder.record.identity()
            if self._as_published:
                facts["as_published"] = True
        return facts
