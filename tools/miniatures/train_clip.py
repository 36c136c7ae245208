"""Train the miniature CLIP contrastively on Toytown scenes, pieces of them and their captions.

CLIP's own objective (arXiv 2103.00020) with two deviations. Captions that say the same apart from their opening
and articles count as positives of each other, because a small world repeats itself within every batch and a repeated
caption is no counterexample. And the image tower starts from its pictures' own patches (`start.py`), not at random.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from patchword.toytown.world import Scene
from tools.miniatures.captions import caption, describe
from tools.miniatures.checkpoints import check_counts, earlier_run, save_checkpoint
from tools.miniatures.pool import draw_pool
from tools.miniatures.start import start_from_patches
from tools.miniatures.tokenizer import train_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

_log = logging.getLogger(__name__)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
Window = tuple[int, int, int, int]
_SIZES = ("image_size", "patch", "hidden", "layers", "text_hidden", "text_layers", "context", "dim")


@dataclass(frozen=True)
class ClipRecipe:
    """The numbers of the training run that were chosen by trial.

    Attributes:
        steps: optimiser steps.
        scenes: scenes drawn for the pool.
        batch: pairs of a picture and a caption a step.
        image_size, patch: of the image tower, in pixels.
        hidden, layers, heads: of the image tower.
        text_hidden, text_layers, text_heads: of the text tower.
        context: longest prompt in tokens.
        tokens: most tokens of the tokenizer.
        dim: of the common space.
        rate: peak learning rate of AdamW; it falls along a cosine to a hundredth.
        warmup: steps of rising learning rate.
        weight_decay: of AdamW.
        seed: of the weights and of every choice.
    """

    steps: int = 2200
    scenes: int = 6000
    batch: int = 256
    image_size: int = 64
    patch: int = 8
    hidden: int = 128
    layers: int = 6
    heads: int = 4
    text_hidden: int = 128
    text_layers: int = 3
    text_heads: int = 4
    context: int = 32
    tokens: int = 900
    dim: int = 128
    rate: float = 1.2e-3
    warmup: int = 150
    weight_decay: float = 0.1
    seed: int = 0


def clip_config(recipe: ClipRecipe, *, tokenizer: CLIPTokenizer) -> CLIPConfig:
    """The miniature's architecture: CLIP with small numbers."""
    from transformers import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_hidden,
        intermediate_size=4 * recipe.text_hidden,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.text_heads,
        max_position_embeddings=recipe.context,
        projection_dim=recipe.dim,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=recipe.hidden,
        intermediate_size=4 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        image_size=recipe.image_size,
        patch_size=recipe.patch,
        projection_dim=recipe.dim,
    )
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=recipe.dim)


def pick_window(scene: Scene, *, generator: np.random.Generator) -> tuple[Window, int]:
    """Choose a piece of a scene and how much of it a caption may mention.

    Pieces about one thing, pieces of a quarter to a half of the scene's side, and nearly whole scenes, 2 : 2 : 1.

    Returns:
        left, top, width, height in pixels, and the largest number of phrases.
    """
    height, width = scene.classes.shape
    side = min(height, width)
    kind = generator.random()
    x, y = generator.uniform(0, width), generator.uniform(0, height)
    if kind < 0.4 and scene.things:
        thing = scene.things[int(generator.integers(len(scene.things)))]
        left, top, wide, tall = thing.box
        length = max(wide, tall) * generator.uniform(0.8, 1.7)
        x = left + wide / 2 + length * generator.uniform(-0.2, 0.2)
        y = top + tall / 2 + length * generator.uniform(-0.2, 0.2)
        most = 1 if generator.random() < 0.7 else 2
    elif kind < 0.8:
        length, most = side * generator.uniform(0.22, 0.6), 1 if generator.random() < 0.5 else 2
    else:
        length, most = side * generator.uniform(0.7, 1.0), 4
    extent = int(np.clip(length, 20, side))
    left, top = int(np.clip(x - extent / 2, 0, width - extent)), int(np.clip(y - extent / 2, 0, height - extent))
    return (left, top, extent, extent), most


def same_content(contents: list[str]) -> Tensor:
    """Which of n descriptions say the same, articles aside: (n, n) float, each row spread evenly and summing to 1."""
    keys = [re.sub(r"\b(a|the) ", "", content) for content in contents]
    numbers = torch.tensor([sorted(set(keys)).index(key) for key in keys])
    same = (numbers[:, None] == numbers[None, :]).float()
    return same / same.sum(1, keepdim=True)


def _batch(
    scenes: list[Scene], recipe: ClipRecipe, generator: np.random.Generator
) -> tuple[Tensor, list[str], list[str]]:
    """Pictures (batch, 3, size, size) in [0, 1], what is said of each, and the sentence that says it."""
    images: list[Tensor] = []
    contents: list[str] = []
    while len(images) < recipe.batch:
        scene = scenes[int(generator.integers(len(scenes)))]
        (left, top, width, height), most = pick_window(scene, generator=generator)
        content = describe(scene, generator=generator, window=(left, top, width, height), most=most)
        if not content:
            continue
        pixels = torch.from_numpy(scene.image[top : top + height, left : left + width])
        piece = pixels.permute(2, 0, 1)[None].float() / 255
        size = (recipe.image_size, recipe.image_size)
        piece = functional.interpolate(piece, size, mode="bicubic", antialias=True).clamp(0, 1)
        images.append(piece.flip(-1) if generator.random() < 0.5 else piece)
        contents.append(content)
    light = torch.from_numpy(generator.uniform(0.85, 1.15, (recipe.batch, 1, 1, 1)).astype(np.float32))
    sentences = [caption(content, generator=generator) for content in contents]
    return (torch.cat(images) * light).clamp(0, 1), contents, sentences


def contrastive_loss(images: Tensor, texts: Tensor, *, scale: Tensor, same: Tensor) -> Tensor:
    """Cross entropy of pictures against captions and of captions against pictures, halved (CLIP, figure 3).

    Args:
        images, texts: (n, d), unit length; row by row they belong together.
        scale: factor of the cosines, the inverse of a temperature.
        same: (n, n) from `same_content`; spreads each target over the captions that say the same.

    Returns:
        the mean over the batch, a scalar.
    """
    logits = scale * images @ texts.T
    return -((same * logits.log_softmax(1)).sum(1).mean() + (same.T * logits.log_softmax(0)).sum(0).mean()) / 2


def train_clip(
    out: Path,
    *,
    recipe: ClipRecipe,
    start: Path | None = None,
    threads: int = 1,
    log_every: int = 50,
    save_every: int = 200,
) -> None:
    """Train and save the miniature CLIP with its tokenizer in the hub's format; the same recipe gives the same weights.

    Args:
        out: folder for config.json, model.safetensors (half precision), preprocessor_config.json, tokenizer.json,
            tokenizer_config.json and train.json, which says how far the weights were trained.
        recipe: the numbers of the run.
        start: folder of an earlier run to go on from, with its tokenizer and sizes; None to begin anew.
        threads: processor threads; more of them may change the last digits.
        log_every, save_every: steps between lines of progress and between snapshots.

    Raises:
        PatchwordError: on a count below 1, a tokenizer too small for single bytes, or a start that is no earlier run of
            the recipe's sizes.
    """
    counts = {"steps": recipe.steps, "scenes": recipe.scenes, "batch": recipe.batch, "threads": threads}
    check_counts("training the miniature CLIP", **counts, log_every=log_every, save_every=save_every)
    before = None
    if start is not None:
        before = earlier_run(start, what="miniature CLIP", recipe=asdict(recipe), sizes=_SIZES)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    generator = np.random.default_rng(recipe.seed)
    started = time.monotonic()
    scenes = draw_pool("train-clip", count=recipe.scenes)
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = _begin(out, scenes, recipe) if start is None else _go_on(out, start)
    if start is None:
        sample, _, _ = _batch(scenes, recipe, generator)
        block = model.vision_model.encoder.layers[0]
        start_from_patches(
            model.vision_model.embeddings.patch_embedding,
            hidden=block.mlp.fc1,
            attention_output=block.self_attn.out_proj,
            images=_normalise(sample),
        )
    betas, decay = (0.9, 0.98), recipe.weight_decay
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=betas, weight_decay=decay)
    _log.info("%d scenes drawn in %.0f s", len(scenes), time.monotonic() - started)
    for step in range(recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = _rate(step, recipe=recipe)
        images, contents, texts = _batch(scenes, recipe, generator)
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=recipe.context, return_tensors="pt")
        loss, hits, scale = _loss(model, _normalise(images), tokens, same=same_content(contents))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % log_every == 0:
            numbers = (step, time.monotonic() - started, loss.item(), hits.item(), scale.item())
            _log.info("step %d [%.0f s] loss %.3f own caption first %.2f scale %.1f", *numbers)
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            save_clip(out, model, recipe=recipe, before=before, step=step + 1, seconds=time.monotonic() - started)


def _begin(out: Path, scenes: list[Scene], recipe: ClipRecipe) -> tuple[CLIPModel, CLIPTokenizer]:
    from transformers import CLIPModel

    tokenizer = train_tokenizer(scenes[:2000], out=out, size=recipe.tokens, context=recipe.context, seed=recipe.seed)
    return CLIPModel._from_config(clip_config(recipe, tokenizer=tokenizer), attn_implementation="eager"), tokenizer


def _go_on(out: Path, start: Path) -> tuple[CLIPModel, CLIPTokenizer]:
    from transformers import CLIPModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(start)
    tokenizer.save_pretrained(out)
    return CLIPModel.from_pretrained(start, dtype=torch.float32, attn_implementation="eager"), tokenizer


def _normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def _loss(model: CLIPModel, images: Tensor, tokens: Mapping[str, Tensor], *, same: Tensor) -> tuple[Tensor, ...]:
    """Loss, share of pictures whose own caption is the nearest, and scale of the cosines; scalars all three."""
    with torch.autocast("cpu", torch.bfloat16):
        seen = model.get_image_features(pixel_values=images).pooler_output
        said = model.get_text_features(**tokens).pooler_output
    scale = model.logit_scale.clamp(max=math.log(100)).exp()
    seen, said = functional.normalize(seen.float(), dim=-1), functional.normalize(said.float(), dim=-1)  # (n, d)
    hits = (seen @ said.T).argmax(1).eq(torch.arange(len(seen))).float().mean()
    return contrastive_loss(seen, said, scale=scale, same=same), hits, scale


def _rate(step: int, *, recipe: ClipRecipe) -> float:
    falling = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    return recipe.rate * min(1.0, (step + 1) / recipe.warmup) * falling


def save_clip(
    out: Path, model: CLIPModel, *, recipe: ClipRecipe, step: int, seconds: float, before: dict[str, Any] | None = None
) -> None:
    """Save the model in the hub's format, in half precision, and how far it was trained; the tokenizer is there.

    Args:
        out: folder, made already.
        model: as trained.
        recipe: the numbers of the run, kept in train.json.
        step: optimiser steps so far.
        seconds: since the start, drawing included.
        before: train.json of the earlier run that this one went on from.
    """
    from transformers import CLIPModel

    saved = CLIPModel(model.config)
    saved.load_state_dict(model.state_dict())
    side = {"height": recipe.image_size, "width": recipe.image_size}
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "rescale_factor": 1 / 255,
        "resample": 3,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "size": {"shortest_edge": recipe.image_size},
        "crop_size": side,
    }
    save_checkpoint(
        saved, out=out, preprocessing=preprocessing, recipe=asdict(recipe), step=step, seconds=seconds, before=before
    )
