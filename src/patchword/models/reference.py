"""Whether an adapter gives what transformers' own code gives for the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.checkpoint import quiet_transformers, read_json
from patchword.models.loading import (
    Source,
    adapter_of,
    find_source,
    load_image_text,
    load_mask_generator,
    load_patch_encoder,
)
from patchword.models.registry import PREPROCESSOR, Kind
from patchword.versions import versions

_ALLOWED = {torch.float32: 5e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}  # 1 - cosine, without any resizing
_LEAST_FOR_MASKS = 1e-3  # scores and pixels at a threshold are less steady than cosines
_LEVELS = 8.0  # Pillow rounds after each of its two passes, and bicubic overshoots; another filter differs by 20
_PROMPTS = ("a photo of a cat", "a photo of a dog", "sky")


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
    """
    source = find_source(name, revision=revision, kind=kind)
    compare = _REFERENCES.get((source.family.name, kind))
    if compare is None:
        known = ", ".join(sorted({family for family, _ in _REFERENCES}))
        raise PatchwordError(f"{name}: no reference for the family {source.family.name} (there is one for {known})")
    adapter = LOADERS[kind](name, revision=revision, device=device, dtype=dtype)
    model = _reference_model(source)
    allowed = _ALLOWED[adapter.encoder_dtype if kind == "mask" else adapter.dtype]
    return compare(adapter, model, source.folder, allowed)


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


LOADERS: dict[Kind, Callable[..., Any]] = {
    "image-text": load_image_text,
    "patch": load_patch_encoder,
    "mask": load_mask_generator,
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
