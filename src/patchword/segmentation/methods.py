"""The training-free methods as records: what each does to CLIP, and how its authors ran it.

What each computes is written down, equation by equation, in `patchword.models.clip` and `patchword.models.clip`. The
settings are those of the authors' published code, benchmark by benchmark; a protocol that compares methods has settings
of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from patchword.config.refine import PamrSettings
from patchword.config.segment import SegmentSettings

if TYPE_CHECKING:
    from patchword.models.registry import Dense

MethodName = Literal["maskclip", "sclip", "clearclip", "naclip", "proxyclip"]

BENCHMARKS = ("voc21", "context60", "coco-object", "voc20", "context59", "coco-stuff", "cityscapes", "ade20k")
DINO_OFFSET = 0.1  # patches; in the authors' code of all methods but MaskCLIP, from DINO's
_WHOLE = {"window": None, "stride": None}
# Ten rounds on the cosines of every word, at the photograph's own size, whatever that is.
_NACLIP_PAMR = PamrSettings(iterations=10, dilations=(8, 16), spreads="cosines", guide="seen", pixels=4_000_000)


@dataclass(frozen=True)
class Method:
    """A training-free method.

    Attributes:
        name: as `--method` takes it.
        description: what it does, in a line.
        equation: of the last layer of CLIP's image tower; x is its input, y = layer_norm1(x), q, k, v its projections
            of y in heads of size e, out its output projection.
        paper: authors and arXiv number.
        dense: variant of the last layer, see `models.clip`; "value" where only the layer's values are taken.
        needs_encoder: whether it takes features from a vision encoder beside CLIP.
        position_offset: how position embeddings are resampled, see `models.pixels.interpolate_positions`.
        published: the settings of the authors' code, by benchmark; empty where they are not known here.
        beyond: what the authors' code does besides, and this does not.
    """

    name: MethodName
    description: str
    equation: str
    paper: str
    dense: Dense
    needs_encoder: bool
    position_offset: float
    published: Mapping[str, SegmentSettings]
    beyond: tuple[str, ...]


def _of_authors(by_benchmark: Mapping[str, Mapping[str, Any]], **shared: Any) -> dict[str, SegmentSettings]:
    """Settings by benchmark: those that the authors share among all, and where a benchmark has others."""
    usual = {
        "longest_side": 2048,
        "resize": "uint8",
        "join": "logits",
        "softmax_over": "words",
        "refine": "none",
        **shared,
    }
    return {name: SegmentSettings(**{**usual, **by_benchmark.get(name, {})}) for name in BENCHMARKS}


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
        beyond=(
            "its code normalises pixels as for ImageNet, activates by GELU and has 1e-6 in its layer norms, whatever "
            "CLIP was trained with; here these are the checkpoint's",
            "images are padded below and to the right to whole patches; here they are resized to them",
            "key smoothing and prompt denoising, both optional there",
        ),
    ),
    Method(
        "sclip",
        "patches attend by query-query and key-key similarity; residual and MLP as in CLIP",
        "u = x + out((softmax(q q^T / sqrt e) + softmax(k k^T / sqrt e)) v); u + mlp(layer_norm2(u))",
        "Wang et al., arXiv 2312.01597",
        dense="sclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published=_of_authors(
            {
                "voc21": {"temperature": 1 / 65, "background_threshold": 0.1},
                "context60": {"temperature": 1 / 50, "background_threshold": 0.1},
                "coco-object": {"temperature": 1 / 50, "background_threshold": 0.1},
                "coco-stuff": {"shorter_side": 448},
                "cityscapes": {"shorter_side": 560},
            },
            shorter_side=336,
            partial_patches="stretch",
            window=224,
            stride=112,
            temperature=1 / 40,
        ),
        beyond=(
            "on voc21, pixels of a class that covers no more than a tenth of an image's foreground go to the best of "
            "the other classes, background among them",
        ),
    ),
    Method(
        "clearclip",
        "patches attend by query-query similarity; no residual, no MLP",
        "out(softmax(q q^T / sqrt e) v)",
        "Lan et al., arXiv 2407.12442",
        dense="clearclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published=_of_authors(
            {
                "voc21": {"background_threshold": 0.5},
                "context60": {"background_threshold": 0.15},
                "coco-object": {"background_threshold": 0.4},
                "cityscapes": {"window": 224},
            },
            shorter_side=448,
            window=448,
            stride=224,
            temperature=1 / 50,
        ),
        beyond=("windows are padded to whole patches with the mean colour, in float16; here images are resized",),
    ),
    Method(
        "naclip",
        "patches attend by key-key similarity, more to those near by; no residual, no MLP",
        "out(softmax(k k^T / sqrt e + w) v), w = exp(-distance^2 / (2 * 5^2)) in patches",
        "Hajimiri et al., arXiv 2404.08181",
        dense="naclip",
        needs_encoder=False,
        position_offset=DINO_OFFSET,
        published=_of_authors(
            {
                "voc21": {"background_threshold": 0.1, **_WHOLE},
                "voc20": _WHOLE,
                "context60": {"background_threshold": 0.1},
                "coco-object": {"background_threshold": 0.1},
                "cityscapes": {"shorter_side": 560},
            },
            shorter_side=336,
            partial_patches="stretch",
            window=224,
            stride=112,
            temperature=1 / 40,
            refine="pamr",
            pamr=_NACLIP_PAMR,
        ),
        beyond=("float16; the rows without PAMR in the paper are refine=none",),
    ),
    Method(
        "proxyclip",
        "patches attend by the similarity of another vision encoder's features; no residual, no MLP",
        "out(softmax(B) v), B = 3 (A - 1.2 mean A) where not negative, else -inf; A: cosine of the encoder's features",
        "Lan et al., arXiv 2408.04883",
        dense="value",
        needs_encoder=True,
        position_offset=DINO_OFFSET,
        published=_of_authors(
            {
                "voc21": {"background_threshold": 0.2},
                "context60": {"background_threshold": 0.15},
                "coco-object": {"background_threshold": 0.25},
                "cityscapes": {"shorter_side": 448, "window": 224},
                "ade20k": {"shorter_side": 448},
            },
            shorter_side=336,
            window=336,
            stride=112,
            temperature=1 / 40,
        ),
        beyond=(
            "windows are padded to multiples of 56 pixels with the mean colour, in float16; here images are resized",
            "SAM sees every window at 1,024 x 1,024 pixels, MAE at 336 x 336; here at the window's own size",
            "DINO's positions are resampled with an offset of 0.1 and its layer norms have 1e-6; here so with "
            "as_published, and with the protocol published",
        ),
    ),
)

METHODS: dict[str, Method] = {method.name: method for method in _METHODS}
