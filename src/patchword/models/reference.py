"""Whether an adapter gives what transformers' own code gives for the same weights, and what was published for them."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from patchword.data.images import read_image, to_tensor
from patchword.errors import PatchwordError, first_line
from patchword.models.checkpoint import quiet_transformers, read_json
from patchword.models.hub import answer_within, fetch_file
from patchword.models.loading import (
    Source,
    adapter_of,
    find_source,
    load_image_text,
    load_mask_proposer,
    load_patch_encoder,
)
from patchword.models.registry import PREPROCESSOR, Kind
from patchword.versions import versions

_ALLOWED = {torch.float32: 5e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # 1 - cosine, without any resizing
_LEAST_FOR_MASKS = 1e-3  # scores and pixels at a threshold are less steady than cosines
_LEVELS = 8.0  # Pillow rounds after each of its two passes, and bicubic overshoots; another filter differs by 20
_PROMPTS = ("a photo of a cat", "a photo of a dog", "sky")
_HOME = "transformers, tests/models/{0}/test_modeling_{0}.py"


@dataclass(frozen=True)
class Comparison:
    """One quantity, ours against a reference.

    Attributes:
        what: the quantity.
        difference: between the two: 1 - cosine, or a share, or an absolute difference, as `what` says.
        allowed: the largest difference that passes.
        against: where the reference comes from.
    """

    what: str
    difference: float
    allowed: float
    against: str

    @property
    def passes(self) -> bool:
        """Whether the difference is small enough; one that is not a number is not."""
        return self.difference <= self.allowed


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


def drawn_picture(side: int) -> Image.Image:
    """A fixed square picture: a slope of colours, a disc, a box and stripes."""
    rows, columns = np.mgrid[0:side, 0:side] / side
    slope = np.stack([255 * rows, 255 * columns, 200 - 150 * rows], axis=-1)
    picture = Image.fromarray(slope.astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([side * 0.1, side * 0.15, side * 0.5, side * 0.55], fill=(230, 60, 40))
    draw.rectangle([side * 0.55, side * 0.5, side * 0.9, side * 0.85], fill=(40, 90, 200))
    for left in np.arange(0.1, 0.5, 0.08):
        draw.rectangle([side * left, side * 0.7, side * (left + 0.04), side * 0.95], fill=(250, 240, 90))
    return picture


@torch.no_grad()
def compare_with_reference(
    name: str, *, kind: Kind, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> list[Comparison]:
    """Run a checkpoint through our adapter and through transformers' own classes in float32 on the CPU.

    Args:
        name, revision, device, dtype: as for `load_image_text`; the adapter runs with these.
        kind: the role that is compared.

    Returns:
        one comparison a quantity, on a picture drawn here.
    """
    source = find_source(name, revision=revision, kind=kind)
    compare = _REFERENCES.get((source.family.name, kind))
    if compare is None:
        known = ", ".join(sorted({family for family, _ in _REFERENCES}))
        raise PatchwordError(f"{name}: no reference for the family {source.family.name} (there is one for {known})")
    adapter = _LOADERS[kind](name, revision=revision, device=device, dtype=dtype)
    model = _reference_model(source)
    allowed = _ALLOWED[adapter.encoder_dtype if kind == "mask" else adapter.dtype]
    return compare(adapter, model, source.folder, allowed)


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
        adapter = _LOADERS[kind](name, revision=revision, device=device, dtype=dtype)
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


def _reference_model(source: Source) -> Any:
    import transformers

    adapter = adapter_of(source.family, source.kind)
    with quiet_transformers():
        loaded = getattr(transformers, adapter.class_name).from_pretrained(
            source.folder, dtype=torch.float32, local_files_only=True, **adapter.options
        )
    return loaded.eval()


def _against(model: Any) -> str:
    return f"{type(model).__name__} of transformers {versions()['transformers']}, float32 on the CPU"


def _far(ours: Tensor, theirs: Tensor) -> float:
    """Largest 1 - cosine between rows."""
    return float((1 - functional.cosine_similarity(ours.float().cpu(), theirs.float().cpu(), dim=-1)).max())


def _pixels_seen(model: Any, run: Callable[[], Any]) -> Tensor:
    """What the first convolution of an image encoder gets: the picture resized, padded and normalised."""
    seen: list[Tensor] = []

    def note(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not seen and given[0].ndim == 4 and given[0].shape[1] == 3:
            seen.append(given[0].float().cpu())

    hooks = [module.register_forward_pre_hook(note) for module in model.modules() if isinstance(module, nn.Conv2d)]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0]


def _compare_pixels(seen: Tensor, expected: Tensor, processor: Any) -> Comparison:
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    difference = 255 * ((seen - expected).abs() * std).max() if seen.shape == expected.shape else torch.inf
    library = f"{type(processor).__name__} of transformers {versions()['transformers']}"
    return Comparison("pixels after resizing, levels of 255", float(difference), _LEVELS, library)


def _compare_image_text(adapter: Any, model: Any, folder: Path, allowed: float) -> list[Comparison]:
    import transformers

    length = adapter.record.input_size
    side = {"height": length, "width": length}
    if adapter.record.family == "siglip":
        processor = transformers.SiglipImageProcessorPil.from_pretrained(folder, local_files_only=True, size=side)
    else:
        processor = transformers.CLIPImageProcessorPil.from_pretrained(
            folder, local_files_only=True, size={"shortest_edge": length}, crop_size=side
        )
    larger, picture = drawn_picture(length * 3 // 2), drawn_picture(length)  # the second needs no resizing
    seen = _pixels_seen(adapter.model, lambda: adapter.encode_images(to_tensor(np.array(larger))))
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    image = model.get_image_features(pixel_values=pixels).pooler_output
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    context = model.config.text_config.max_position_embeddings
    tokens = tokenizer(list(_PROMPTS), padding="max_length", truncation=True, max_length=context, return_tensors="pt")
    asked = {"input_ids": tokens["input_ids"]}
    if adapter.record.family != "siglip":
        asked["attention_mask"] = tokens["attention_mask"]
    text = model.get_text_features(**asked).pooler_output
    ours = adapter.encode_images(to_tensor(np.array(picture)))
    return [
        _compare_pixels(seen, processor(larger, return_tensors="pt")["pixel_values"], processor),
        Comparison("image vector, 1 - cosine", _far(ours, image), allowed, _against(model)),
        Comparison("text vectors, 1 - cosine", _far(adapter.encode_text(list(_PROMPTS)), text), 1e-4, _against(model)),
    ]


def _compare_patches(adapter: Any, model: Any, folder: Path, allowed: float) -> list[Comparison]:
    from transformers import BitImageProcessorPil

    record, family = adapter.record, adapter.record.family
    # at the input size, where a model does not interpolate its positions unless it is told to
    picture = drawn_picture(record.input_size if family in ("vit", "mae") else record.patch_size * 8)
    processor = BitImageProcessorPil.from_pretrained(folder, local_files_only=True)
    pixels = processor(picture, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    options = {}
    if family == "mae":
        model.config.mask_ratio = 0.0
        options["noise"] = torch.arange((picture.width // record.patch_size) ** 2)[None].float()  # keeps the order
    first = 1 + int(getattr(model.config, "num_register_tokens", 0))
    theirs = model(pixels, **options).last_hidden_state[:, first:]
    return _compare_features(adapter, picture, theirs, allowed=allowed, model=model)


def _compare_towers(adapter: Any, model: Any, folder: Path, allowed: float) -> list[Comparison]:
    """Image encoders of models that were published for another role, at their input size."""
    from transformers import BitImageProcessorPil

    picture = drawn_picture(adapter.record.input_size)
    processor = BitImageProcessorPil.from_pretrained(folder, local_files_only=True)
    pixels = processor(picture, do_resize=False, do_center_crop=False, return_tensors="pt")["pixel_values"]
    if adapter.record.family in ("sam", "sam2"):
        output = model.vision_encoder(pixels)
        maps = output.last_hidden_state if adapter.record.family == "sam" else output.fpn_hidden_states[-1]
        theirs = maps.flatten(2).transpose(1, 2)
    else:
        theirs = model.vision_model(pixel_values=pixels).last_hidden_state
        if adapter.record.family == "clip":  # its own final norm is for the class token alone
            theirs = model.vision_model.post_layernorm(theirs)[:, 1:]
    return _compare_features(adapter, picture, theirs, allowed=allowed, model=model)


def _compare_features(
    adapter: Any, picture: Image.Image, theirs: Tensor, *, allowed: float, model: Any
) -> list[Comparison]:
    ours = adapter(to_tensor(np.array(picture))).flatten(2).transpose(1, 2)
    return [Comparison("patch features, 1 - cosine", _far(ours, theirs), allowed, _against(model))]


def _compare_masks(adapter: Any, model: Any, folder: Path, allowed: float) -> list[Comparison]:
    side = adapter.record.input_size
    picture = drawn_picture(side)
    stated = read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    mean = torch.tensor(stated.get("image_mean", (0.485, 0.456, 0.406))).view(3, 1, 1)
    std = torch.tensor(stated.get("image_std", (0.229, 0.224, 0.225))).view(3, 1, 1)
    pixels = (torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255 - mean) / std
    points = torch.tensor([[[0.3, 0.35]], [[0.7, 0.7]], [[0.05, 0.05]]]) * side  # (n, 1, 2)
    output = model(pixel_values=pixels, input_points=points[None], multimask_output=True)
    (embedding,) = adapter.embed([to_tensor(np.array(picture))])
    (found,) = adapter.masks_at([embedding], [points])
    scores = (found.predicted_iou.cpu() - output.iou_scores[0]).abs().max()
    other = ((found.logits.cpu() > 0) != (output.pred_masks[0] > 0)).float().mean()
    resized = _compare_longest_side(adapter, folder) if adapter.record.family == "sam" else []
    allowed = max(allowed, _LEAST_FOR_MASKS)
    return [
        *resized,
        Comparison("predicted IoU, absolute", float(scores), allowed, _against(model)),
        Comparison("mask pixels, share that differ", float(other), allowed, _against(model)),
    ]


def _compare_longest_side(adapter: Any, folder: Path) -> list[Comparison]:
    """SAM's resizing and padding, on a picture that is wider than high; SAM 2's processor needs torchvision."""
    from transformers import SamImageProcessorPil

    side = adapter.record.input_size
    processor = SamImageProcessorPil.from_pretrained(
        folder, local_files_only=True, size={"longest_edge": side}, pad_size={"height": side, "width": side}
    )
    wide = drawn_picture(2 * side).crop((0, 0, 2 * side, 3 * side // 2))
    seen = _pixels_seen(adapter.model, lambda: adapter.embed([to_tensor(np.array(wide))]))
    return [_compare_pixels(seen, processor(wide, return_tensors="pt")["pixel_values"], processor)]


_LOADERS: dict[Kind, Callable[..., Any]] = {
    "image-text": load_image_text,
    "patch": load_patch_encoder,
    "mask": load_mask_proposer,
}
_REFERENCES: dict[tuple[str, Kind], Callable[[Any, Any, Path, float], list[Comparison]]] = {
    ("clip", "image-text"): _compare_image_text,
    ("siglip", "image-text"): _compare_image_text,
    ("dinov2", "patch"): _compare_patches,
    ("dinov2-with-registers", "patch"): _compare_patches,
    ("dinov3", "patch"): _compare_patches,
    ("dinov3-convnext", "patch"): _compare_patches,
    ("vit", "patch"): _compare_patches,
    ("mae", "patch"): _compare_patches,
    ("clip", "patch"): _compare_towers,
    ("siglip", "patch"): _compare_towers,
    ("sam", "patch"): _compare_towers,
    ("sam2", "patch"): _compare_towers,
    ("sam", "mask"): _compare_masks,
    ("sam2", "mask"): _compare_masks,
}


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
