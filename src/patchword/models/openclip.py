"""OpenCLIP: any of its models as text and image tower, and its own vision transformers as patch encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.errors import PatchwordError, first_line
from patchword.models.checkpoint import check_safetensors, fingerprint_of, import_library, read_json, side_of
from patchword.models.pixels import interpolate_positions, normalise, resize, to_map, unit
from patchword.models.protocols import ModelRecord, check_images
from patchword.models.registry import OPEN_CLIP, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, Filter, Kind
from patchword.models.text_embeddings import clean_prompt, count_tokens, encode_in_batches


class OpenClipEncoder:
    """`ImageTextEncoder` around an OpenCLIP model; prompts are always encoded in float32.

    Args:
        model: in evaluation mode.
        tokenizer: takes a list of strings to (n, context) token numbers.
        record: what is known of the checkpoint.
        device: of the weights.
        dtype: of the image tower; the text tower is in float32.
        resample: filter that resizes images to the model's input.
    """

    text_dtype = torch.float32

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        record: ModelRecord,
        device: torch.device,
        dtype: torch.dtype,
        resample: Filter = "bicubic",
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.record = record
        self.device = device
        self.dtype = dtype
        self.resample: Filter = resample

    @torch.no_grad()
    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Encode prompts, cut at the text context's length."""
        empty = torch.zeros(0, self.record.dim, device=self.device)
        return encode_in_batches(
            prompts, encode=lambda part: self.model.encode_text(self.tokenizer(part).to(self.device)), empty=empty
        )

    @torch.no_grad()
    def encode_images(self, images: Tensor) -> Tensor:
        """Encode images, each squashed to the model's square input."""
        check_images(images)
        size = (self.record.input_size, self.record.input_size)
        resized = resize(images.float().to(self.device), size=size, mode=self.resample)
        pixels = normalise(resized, mean=self.record.mean, std=self.record.std)
        return unit(self.model.encode_image(pixels.to(self.dtype)))

    @torch.no_grad()
    def encode_patches(self, images: Tensor) -> Tensor:
        """Encode every patch by the value path of the last block (MaskCLIP), as `ClipEncoder` with `value` does."""
        grid = self._grid(images)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        tower = self.model.visual
        hidden = run_blocks(tower, pixels.to(self.dtype), blocks=len(tower.transformer.resblocks) - 1)
        return self._values(hidden, grid=grid)

    @torch.no_grad()
    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode_images` and `encode_patches` give; the two part only at the last block."""
        size, tower = self.record.input_size, self.model.visual
        if images.shape[-2:] != (size, size) or getattr(tower, "pool_type", "") != "tok":
            return self.encode_images(images), self.encode_patches(images)
        grid = self._grid(images)
        pixels = normalise(images.float().to(self.device).clamp(0, 1), mean=self.record.mean, std=self.record.std)
        blocks = tower.transformer.resblocks
        hidden = run_blocks(tower, pixels.to(self.dtype), blocks=len(blocks) - 1)
        whole = one_block(tower, blocks[-1], hidden)
        return unit(tower.ln_post(whole[:, 0]) @ tower.proj), self._values(hidden, grid=grid)

    @property
    def context_length(self) -> int | None:
        """The most tokens of a prompt that the text tower takes; None where its tokenizer does not tell."""
        length = getattr(self.tokenizer, "context_length", None)
        return length if isinstance(length, int) else None

    def token_counts(self, prompts: Sequence[str]) -> list[int]:
        """How many tokens each prompt has, uncut, its start and end among them."""
        inner = getattr(self.tokenizer, "tokenizer", None)  # OpenCLIP wraps those of transformers
        if inner is not None:
            return count_tokens(prompts, tokenizer=inner)
        return [len(self.tokenizer.encode(clean_prompt(prompt))) + 2 for prompt in prompts]

    def _grid(self, images: Tensor) -> tuple[int, int]:
        check_native(self.model.visual, name=self.record.name, what="patches in the text space")
        check_images(images, multiple_of=self.record.patch_size)
        return images.shape[-2] // self.record.patch_size, images.shape[-1] // self.record.patch_size

    def _values(self, hidden: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """The value path of the last block on its input (b, 1 + n, c), in the text space."""
        tower = self.model.visual
        block = tower.transformer.resblocks[-1]
        width = hidden.shape[-1]
        values = torch.nn.functional.linear(
            block.ln_1(hidden), block.attn.in_proj_weight[2 * width :], block.attn.in_proj_bias[2 * width :]
        )
        values = block.ls_1(block.attn.out_proj(values))
        return to_map(unit(tower.ln_post(values[:, 1:]) @ tower.proj), grid=grid)


class OpenClipPatches:
    """`PatchEncoder` around OpenCLIP's own vision transformer.

    Args:
        model: the `VisionTransformer` in evaluation mode.
        record: what is known of the checkpoint.
        device, dtype: of the weights.
    """

    def __init__(self, model: Any, *, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> None:
        self.model = model
        self.record = record
        self.device = device
        self.dtype = dtype

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to the patch tokens of the last block, after the final layer norm.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the patch.

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.
        """
        check_images(images, multiple_of=self.record.patch_size)
        grid = (images.shape[-2] // self.record.patch_size, images.shape[-1] // self.record.patch_size)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        blocks = len(self.model.transformer.resblocks)
        hidden = run_blocks(self.model, pixels.to(self.dtype), blocks=blocks)
        return to_map(self.model.ln_post(hidden[:, 1:]), grid=grid)


def load(
    name: str, *, folder: Path, revision: str | None, kind: Kind, device: torch.device, dtype: torch.dtype
) -> OpenClipEncoder | OpenClipPatches:
    """Load an OpenCLIP checkpoint as text and image tower, or its image tower as patch encoder.

    Args:
        name: as the user gave it, with its prefix.
        folder: with open_clip_config.json, open_clip_model.safetensors and, where the model has one, a tokenizer.
        revision: hub commit; None for a local folder.
        kind: "image-text" or "patch".
        device: of the weights.
        dtype: of the image tower; text stays in float32.
    """
    open_clip = import_library(OPEN_CLIP, name=name)
    config, weights = folder / OPEN_CLIP_CONFIG, folder / OPEN_CLIP_WEIGHTS
    for file in (config, weights):
        if not file.is_file():
            raise PatchwordError(f"{folder} has no {file.name}; give a checkpoint in OpenCLIP's hub format")
    check_safetensors(weights)
    stated = read_json(config)
    try:
        model = open_clip.create_model(f"local-dir:{folder}", precision="fp32", device="cpu")
        tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        dim = int(stated["model_cfg"]["embed_dim"])
    except Exception as error:  # a config may be wrong in as many ways as there are fields
        raise PatchwordError(f"{name} cannot be loaded by open_clip: {first_line(error)}") from error
    tower, pixels = model.visual, model.visual.preprocess_cfg
    record = ModelRecord(
        family="open_clip",
        name=name if revision else f"open_clip:{folder.resolve()}",
        revision=revision,
        fingerprint=fingerprint_of((config, weights)),
        patch_size=side_of(getattr(tower, "patch_size", 1), what="patch_size"),
        dim=dim,
        mean=tuple(pixels["mean"]),
        std=tuple(pixels["std"]),
        input_size=side_of(tower.image_size, what="image_size"),
        licence="",
    )
    model.eval().requires_grad_(False)
    if kind == "patch":
        check_native(tower, name=name, what="patches")
        record = replace(record, dim=int(tower.conv1.out_channels))
        return OpenClipPatches(tower.to(device=device, dtype=dtype), record=record, device=device, dtype=dtype)
    model.to(device).visual.to(dtype)
    resample: Filter = "bilinear" if pixels.get("interpolation") == "bilinear" else "bicubic"
    return OpenClipEncoder(model, tokenizer=tokenizer, record=record, device=device, dtype=dtype, resample=resample)


def run_blocks(tower: Any, pixels: Tensor, *, blocks: int) -> Tensor:
    """Normalised pixels (b, 3, h, w) through the first blocks of a `VisionTransformer`, positions interpolated.

    Returns:
        (b, 1 + n, c), class token first.
    """
    patches = tower.conv1(pixels)  # (b, c, h, w)
    positions = tower.positional_embedding.to(patches.dtype)
    around = interpolate_positions(positions[1:], grid=(patches.shape[-2], patches.shape[-1]))
    tokens = patches.flatten(2).transpose(1, 2) + around  # (b, h * w, c)
    first = (tower.class_embedding.to(patches.dtype) + positions[0]).expand(pixels.shape[0], 1, -1)
    hidden: Tensor = tower.ln_pre(torch.cat([first, tokens], dim=1))  # (b, 1 + h * w, c)
    for block in tower.transformer.resblocks[:blocks]:
        hidden = one_block(tower, block, hidden)
    return hidden


def one_block(tower: Any, block: Any, hidden: Tensor) -> Tensor:
    """One block of a `VisionTransformer` on tokens (b, n, c), whichever dimension it wants first."""
    if getattr(tower.transformer, "batch_first", False):
        out: Tensor = block(hidden)
        return out
    turned: Tensor = block(hidden.transpose(0, 1))
    return turned.transpose(0, 1)


def check_native(tower: Any, *, name: str, what: str) -> None:
    """Refuse an image tower that is not OpenCLIP's own vision transformer with a class token."""
    blocks: Any = getattr(getattr(tower, "transformer", None), "resblocks", ())
    plain = len(blocks) > 0 and isinstance(getattr(blocks[-1], "attn", None), torch.nn.MultiheadAttention)
    if not plain or getattr(tower, "attn_pool", None) is not None or not hasattr(tower, "class_embedding"):
        raise PatchwordError(
            f"{name} has an image tower of class {type(tower).__name__}, which gives no {what}; use models "
            "with OpenCLIP's own vision transformer (for others, timm:NAME may give patches)"
        )
