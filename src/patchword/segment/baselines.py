"""The training-free methods: how each turns CLIP into a segmenter, and how its authors ran it.

What each computes is written down, equation by equation, in `patchword.models.dense` and `patchword.models.proxy`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from patchword.errors import PatchwordError
from patchword.segment.settings import SegmentSettings

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from patchword.models.clip import ClipEncoder
    from patchword.models.dense import Dense
    from patchword.models.protocols import ImageTextEncoder, PatchEncoder
    from patchword.models.proxy import ProxyClip
    from patchword.segment.baseline import DenseSegmenter

MethodName = Literal["maskclip", "sclip", "clearclip", "naclip", "proxyclip"]

DINO_OFFSET = 0.1  # patches; in the authors' code of all methods but MaskCLIP, from DINO's


@dataclass(frozen=True)
class Method:
    """A training-free method.

    Attributes:
        name: as `--method` takes it.
        description: what it does, in a line.
        equation: of the last layer of CLIP's image tower; x is its input, y = layer_norm1(x), q, k, v its projections
            of y in heads of size e, out its output projection.
        paper: authors and arXiv number.
        dense: variant of the last layer, see `models.dense`; "value" where only the layer's values are taken.
        needs_encoder: whether it takes features from a vision encoder beside CLIP.
        position_offset: how position embeddings are resampled, see `models.common.interpolate_positions`.
        published: the authors' own settings, by protocol.
    """

    name: MethodName
    description: str
    equation: str
    paper: str
    dense: Dense
    needs_encoder: bool
    position_offset: float
    published: Mapping[str, SegmentSettings]


def _sclip336(*, window: int) -> SegmentSettings:
    return SegmentSettings(
        shorter_side=336, window=window, stride=112, join="logits", temperature=1 / 40, softmax_over="words"
    )


_METHODS = (
    Method(
        "maskclip",
        "every patch keeps its own value; residual and MLP as in CLIP",
        "u = x + out(v); u + mlp(layer_norm2(u))",
        "Zhou et al., arXiv 2112.01071",
        dense="maskclip",
        needs_encoder=False,
        position_offset=0.0,
        published={},
    ),
    Method(
        "sclip",
        "patches attend by query-query and key-key similarity; residual and MLP as in CLIP",
        "u = x + out((softmax(q q^T / sqrt e) + softmax(k k^T / sqrt e)) v); u + mlp(layer_norm2(u))",
        "Wang et al., arXiv 2312.01597",
        dense="sclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published={"sclip336": _sclip336(window=224)},
    ),
    Method(
        "clearclip",
        "patches attend by query-query similarity; no residual, no MLP",
        "out(softmax(q q^T / sqrt e) v)",
        "Lan et al., arXiv 2407.12442",
        dense="clearclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published={"sclip336": _sclip336(window=224)},
    ),
    Method(
        "naclip",
        "patches attend by key-key similarity, more to those near by; no residual, no MLP",
        "out(softmax(k k^T / sqrt e + w) v), w = exp(-distance^2 / (2 * 5^2)) in patches",
        "Hajimiri et al., arXiv 2404.08181",
        dense="naclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published={"sclip336": _sclip336(window=224)},
    ),
    Method(
        "proxyclip",
        "patches attend by the similarity of another vision encoder's features; no residual, no MLP",
        "out(softmax(B) v), B = 3 (A - 1.2 mean A) where not negative, else -inf; A: cosine of the encoder's features",
        "Lan et al., arXiv 2408.04883",
        dense="value",
        needs_encoder=True,
        position_offset=DINO_OFFSET,
        published={"sclip336": _sclip336(window=336)},
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}


def find_method(name: str, *, encoder: object = None) -> Method:
    """The method of that name.

    Args:
        name: one of `METHODS`.
        encoder: what is given as its vision encoder, None for nothing.

    Raises:
        PatchwordError: when there is no such method, it lacks a vision encoder, or has no use for one.
    """
    if name not in METHODS:
        raise PatchwordError(f"method is {name!r}; allowed are {', '.join(METHODS)}")
    method = METHODS[name]
    if method.needs_encoder and encoder is None:
        raise PatchwordError(f"method {name} needs a vision encoder beside CLIP; pass encoder, such as a DINOv2")
    if encoder is not None and not method.needs_encoder:
        needing = ", ".join(method.name for method in _METHODS if method.needs_encoder)
        raise PatchwordError(f"method {name} has no use for a vision encoder; allowed is one for {needing}")
    return method


def load_method(
    name: str,
    *,
    image_text: str | Path | ImageTextEncoder,
    encoder: str | Path | PatchEncoder | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> DenseSegmenter:
    """A segmenter by a training-free method.

    Args:
        name: one of `METHODS`.
        image_text: CLIP: hub name, `name@revision`, folder, or loaded.
        encoder: the vision encoder of "proxyclip", any that `load_patch_encoder` loads; none for the others.
        device: "auto" or a torch device; of models that are loaded here.
        dtype: "auto", "float32", "bfloat16" or "float16"; likewise.

    Returns:
        the segmenter, which sees images whole at CLIP's own size unless settings say otherwise.

    Raises:
        PatchwordError: for an unknown method, an encoder that is missing or too many, an image-text model that is not
            CLIP, and all that loading refuses.
    """
    from patchword.models.clip import ClipEncoder
    from patchword.models.proxy import ProxyClip
    from patchword.parts import Loader
    from patchword.segment.baseline import DenseSegmenter

    method = find_method(name, encoder=encoder)
    loader = Loader(device=device, dtype=dtype)
    clip = loader.image_text(image_text)
    if not isinstance(clip, ClipEncoder):
        kind = clip.record.family
        raise PatchwordError(f"method {name} changes CLIP's last layer; {clip.record.name} is {kind}, allowed is clip")
    variant = clip.varied(dense=method.dense, position_offset=method.position_offset)
    if encoder is None:
        return DenseSegmenter(clip, features=MethodFeatures(method, clip=variant))
    proxy = ProxyClip(variant, encoder=loader.patch_encoder(encoder))
    return DenseSegmenter(clip, features=MethodFeatures(method, clip=variant, proxy=proxy))


class MethodFeatures:
    """`DenseFeatures` of a method.

    Args:
        method: which one.
        clip: CLIP, with the method's path to patch features.
        proxy: what goes on from there, for a method that takes a vision encoder.
    """

    def __init__(self, method: Method, *, clip: ClipEncoder, proxy: ProxyClip | None = None) -> None:
        self._method = method
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
            record = self._encoder.record
            facts["encoder"] = {"name": record.name, "fingerprint": record.fingerprint}
        return facts
