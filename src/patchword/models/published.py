"""The numbers that transformers' own tests state for some published weights, and whether an adapter gives them."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from patchword.data.images import read_image, to_tensor
from patchword.errors import PatchwordError, first_line
from patchword.models.hub import answer_within, fetch_file
from patchword.models.reference import LOADERS, Comparison
from patchword.models.registry import Kind

_HOME = "transformers, tests/models/{0}/test_modeling_{0}.py"


@dataclass(frozen=True)
class Published:
    """Numbers that a model's port states for a named public picture.

    Attributes:
        checkpoint: hub name of the weights.
        picture: what the picture is called, for whoever looks for it.
        repository, file, repository_type: where it lies on the hub; without a repository, `file` is its address.
        what: the quantity.
        values: of it.
        measure: from the checkpoint's name, device and dtype, and the picture (h, w, 3), to our values.
        allowed: largest absolute difference in float32; other types are allowed twenty times that.
        source: where the numbers stand.
    """

    checkpoint: str
    picture: str
    repository: str
    file: str
    repository_type: str
    what: str
    values: tuple[float, ...]
    measure: Callable[[Any, Image.Image], Tensor]
    allowed: float
    source: str


@torch.no_grad()
def compare_with_published(
    name: str,
    *,
    picture: Path | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> tuple[list[Comparison], list[str]]:
    """Compare with the numbers that transformers' own tests state for these weights.

    Args:
        name, revision, device, dtype: as for `load_image_text`.
        picture: the named public picture, where it lies on this machine; None fetches it from the hub.

    Returns:
        the comparisons, and a line for each that could not be made.
    """
    made: list[Comparison] = []
    missed: list[str] = []
    for entry in (each for each in PUBLISHED if each.checkpoint == name):
        try:
            pixels = Image.fromarray(read_image(picture)) if picture else _fetch_picture(entry)
        except PatchwordError as error:
            missed.append(f"{entry.what} not compared: {error}")
            continue
        kind: Kind = "mask" if "sam" in name else "patch" if "dino" in name else "image-text"
        adapter = LOADERS[kind](name, revision=revision, device=device, dtype=dtype)
        found = entry.measure(adapter, pixels).float().cpu()
        exact = (adapter.encoder_dtype if kind == "mask" else adapter.dtype) == torch.float32
        difference = float((found - torch.tensor(entry.values)).abs().max())
        made.append(Comparison(entry.what, difference, entry.allowed * (1 if exact else 20), entry.source))
    return made, missed


def _fetch_picture(entry: Published) -> Image.Image:
    """The public picture, from the hub or from the address where it lies."""
    from huggingface_hub.constants import is_offline_mode

    offline = is_offline_mode()
    try:
        if entry.repository:
            place = fetch_file(entry.repository, entry.file, kind=entry.repository_type, offline=offline)
            return Image.fromarray(read_image(place))
        if offline:
            raise PatchwordError(f"{entry.picture} is not fetched, because HF_HUB_OFFLINE is set")
        with urllib.request.urlopen(entry.file, timeout=answer_within()) as answer:
            return Image.open(io.BytesIO(answer.read())).convert("RGB")
    except Exception as error:  # any failure of network, proxy or disk, each of its own type
        raise PatchwordError(f"{first_line(error)}; give the picture with --picture ({entry.picture})") from None


def _cropped(picture: Image.Image, *, shorter: int, side: int) -> Tensor:
    """Shorter side to so many pixels (bicubic), then the middle square, as the reference processors do."""
    width, height = picture.size
    scale = shorter / min(width, height)
    small = picture.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    left, top = (small.width - side) // 2, (small.height - side) // 2
    return to_tensor(np.array(small.crop((left, top, left + side, top + side))))


def _clip_logits(adapter: Any, picture: Image.Image) -> Tensor:
    image = adapter.encode_images(_cropped(picture, shorter=224, side=224))
    text = adapter.encode_text(["a photo of a cat", "a photo of a dog"])
    logits: Tensor = adapter.model.logit_scale.exp().float() * (image @ text.T)[0]
    return logits


def _siglip_logits(adapter: Any, picture: Image.Image) -> Tensor:
    image = adapter.encode_images(to_tensor(np.array(picture)))
    text = adapter.encode_text(["a photo of 2 cats", "a photo of 2 dogs"])
    logits: Tensor = adapter.model.logit_scale.exp().float() * (image @ text.T)[0] + adapter.model.logit_bias.float()
    return logits


def _dino_patches(adapter: Any, picture: Image.Image) -> Tensor:
    features: Tensor = adapter(_cropped(picture, shorter=256, side=224))  # (1, d, 16, 16)
    return features[0, :3, 0, :2].T.flatten()


def _sam_scores(points: tuple[tuple[float, float], ...], *, ranked: bool) -> Callable[[Any, Image.Image], Tensor]:
    def measure(adapter: Any, picture: Image.Image) -> Tensor:
        (embedding,) = adapter.embed([to_tensor(np.array(picture))])
        (found,) = adapter.masks_at([embedding], [torch.tensor(points)[:, None]])
        scores: Tensor = found.predicted_iou
        return scores.sort(dim=1, descending=True).values.flatten() if ranked else scores.flatten()

    return measure


_CATS, _CATS_AT = "COCO val2017, 000000039769.jpg", "http://images.cocodataset.org/val2017/000000039769.jpg"
PUBLISHED: tuple[Published, ...] = (
    Published(
        "openai/clip-vit-base-patch32",
        _CATS,
        "",
        _CATS_AT,
        "",
        "logits of a photo of a cat and of a dog",
        (24.5701, 19.3049),
        _clip_logits,
        0.05,
        _HOME.format("clip"),
    ),
    Published(
        "google/siglip-base-patch16-224",
        _CATS,
        "",
        _CATS_AT,
        "",
        "logits of a photo of 2 cats and of 2 dogs",
        (-0.7567, -10.3354),
        _siglip_logits,
        0.05,
        _HOME.format("siglip"),
    ),
    Published(
        "facebook/dinov2-base",
        _CATS,
        "",
        _CATS_AT,
        "",
        "first three channels of the first two patches",
        (-3.2780, -0.8269, -0.9210, -2.9129, 1.1284, -0.7306),
        _dino_patches,
        0.05,
        _HOME.format("dinov2"),
    ),
    Published(
        "facebook/sam-vit-base",
        "car.png of ybelkada/segment-anything",
        "ybelkada/segment-anything",
        "assets/car.png",
        "model",
        "predicted IoU at (400, 650) and (220, 470)",
        (0.9105, 0.9825, 0.9675, 0.7646, 0.7943, 0.7774),
        _sam_scores(((400.0, 650.0), (220.0, 470.0)), ranked=False),
        0.01,
        _HOME.format("sam"),
    ),
    Published(
        "facebook/sam2.1-hiera-tiny",
        "truck.jpg of hf-internal-testing/sam2-fixtures",
        "hf-internal-testing/sam2-fixtures",
        "truck.jpg",
        "dataset",
        "predicted IoU at (500, 375), highest first",
        (0.9547, 0.4932, 0.0427),
        _sam_scores(((500.0, 375.0),), ranked=True),
        0.01,
        _HOME.format("sam2"),
    ),
)
"""The adapters resize on float pixels with their own filter; the allowed differences leave room for that alone."""
