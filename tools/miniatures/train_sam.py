"""Training the miniature SAM: nameless masks of drawn scenes, point prompts, predicted IoU."""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from patchword.data.folders import write_json
from patchword.toytown.world import Scene
from tools.miniatures.checkpoints import check_counts, earlier_run, make_optimiser
from tools.miniatures.measure_sam import draw_probes, measure_model
from tools.miniatures.pool import draw_pool
from tools.miniatures.sam_model import SIDE, build_sam, load_sam, save_sam, start_patches, to_input
from tools.miniatures.sam_prompts import PromptTerms, gathering_loss, prompt_terms, sample_prompts

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamRecipe:
    """The numbers of a training that were tried and kept.

    Attributes:
        images: scenes a step.
        single: prompts of one point an image.
        several: prompts of two to four points an image.
        joined: chance that the points of such a prompt lie in two instances and select both.
        trust: weight of the error of the predicted IoU.
        rest: share of the mean loss of a prompt's masks beside that of the best.
        gathering: weight of the contrast on the image embedding.
        rate: highest learning rate.
        warm: steps of rising learning rate.
        falling: share of the steps, at the end, of falling learning rate.
        decay: weight decay.
        clip: largest norm of the gradient.
        check_scenes: unseen scenes for the measurement on the way.
    """

    images: int = 4
    single: int = 7
    several: int = 2
    joined: float = 0.35
    trust: float = 4.0
    rest: float = 0.0
    gathering: float = 0.4
    rate: float = 1e-3
    warm: int = 60
    falling: float = 0.5
    decay: float = 0.02
    clip: float = 1.0
    check_scenes: int = 40


FRESH = SamRecipe()
"""For new weights."""
ONWARD = SamRecipe(rest=0.4, gathering=0.1, rate=7e-4, falling=0.9)
"""For trained weights: a lower rate, less help for the image embedding, and every mask of a prompt learns."""


def train_sam(
    out: Path,
    *,
    steps: int,
    scenes: int = 5000,
    seed: int = 0,
    threads: int = 1,
    log_every: int = 50,
    check_every: int = 500,
    start: Path | None = None,
    recipe: SamRecipe | None = None,
) -> None:
    """Train the miniature and save it; no class name is looked at.

    Args:
        out: folder for config.json, model.safetensors (float16) and preprocessor_config.json, replaced at every check.
        steps: optimisation steps, at least 1.
        scenes: scenes of the purpose "train-sam" to draw ahead, at least 1; every fourth at dusk.
        seed: of the weights and of every choice, at least 0; no two seeds share a scene.
        threads: of torch; more of them may change the last digits.
        log_every: steps between two lines on the loss in the log.
        check_every: steps between two measurements on unseen scenes, each followed by a save.
        start: folder of a miniature to go on from, with a fresh optimiser; new weights without it.
        recipe: everything else; `FRESH`, or `ONWARD` with start, when not given.

    Raises:
        PatchwordError: on a count below 1, or a folder without a model.
    """
    counts = {"steps": steps, "scenes": scenes, "threads": threads, "log_every": log_every, "check_every": check_every}
    check_counts("training the miniature SAM", **counts)
    recipe = recipe or (FRESH if start is None else ONWARD)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    before = None if start is None else earlier_run(start, what="miniature SAM", sizes=("images",))
    model = build_sam() if start is None else load_sam(start)
    pool = draw_pool("train-sam", count=scenes, size=SIDE, first=seed * scenes)
    if start is None:
        start_patches(model, np.stack([scene.image for scene in pool[:200]]))
    probes = draw_probes(scenes=recipe.check_scenes, style="day")
    optimizer = make_optimiser(model, rate=recipe.rate, weight_decay=recipe.decay, fused=True)
    began, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps=steps, recipe=recipe)
        chosen = [pool[int(index)] for index in generator.integers(0, len(pool), recipe.images)]
        recent.append(_step(model, optimizer, scenes=chosen, generator=generator, recipe=recipe))
        if step % log_every == 0 or step == steps:
            loss, iou = np.mean(recent, axis=0)
            recent.clear()
            seconds = time.monotonic() - began
            _log.info("step %d of %d: loss %.4f, IoU %.3f, %.0f s", step, steps, loss, iou, seconds)
        if step % check_every == 0 or step == steps:
            _log.info("step %d of %d: %s", step, steps, measure_model(model, probes))
            save_sam(model, out)
            numbers = {**asdict(recipe), "steps": steps, "scenes": scenes, "seed": seed}
            if before is not None:
                numbers["before"] = before
            write_json(
                out / "train.json", {"recipe": numbers, "step": step, "seconds": round(time.monotonic() - began)}
            )


def _step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    scenes: list[Scene],
    generator: np.random.Generator,
    recipe: SamRecipe,
) -> tuple[float, float]:
    """Descend once; returns the loss and the mean IoU of the prompts' better masks."""
    pixels, instances = augment(scenes, generator=generator)
    points = int(generator.integers(2, 5))
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = model.vision_encoder(pixels).last_hidden_state
    # Half precision makes the large products of the encoder faster and the small ones of the decoder slower.
    embeddings = embeddings.float()
    one = sample_prompts(instances, generator=generator, prompts=recipe.single, points=1)
    more = sample_prompts(instances, generator=generator, prompts=recipe.several, points=points, joined=recipe.joined)
    first, second = (
        prompt_terms(model, embeddings, part, trust=recipe.trust, rest=recipe.rest) for part in (one, more)
    )
    total = _mean(first, second, recipe=recipe)
    loss = total.loss + recipe.gathering * gathering_loss(embeddings, torch.from_numpy(instances))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
    optimizer.step()
    return loss.item(), total.iou


def _mean(single: PromptTerms, several: PromptTerms, *, recipe: SamRecipe) -> PromptTerms:
    share = recipe.single / (recipe.single + recipe.several)
    return PromptTerms(share * single.loss + (1 - share) * several.loss, share * single.iou + (1 - share) * several.iou)


def augment(scenes: list[Scene], *, generator: np.random.Generator) -> tuple[Tensor, NDArray[np.uint8]]:
    """Flip scenes left to right at random and change each one's light.

    Returns:
        input (b, 3, h, w) in [-1, 1] and instance numbers (b, h, w).
    """
    flips = [slice(None, None, -1 if flip else None) for flip in generator.random(len(scenes)) < 0.5]
    images = np.stack([scene.image[:, flip] for scene, flip in zip(scenes, flips, strict=True)])
    instances = np.stack([scene.instances[:, flip] for scene, flip in zip(scenes, flips, strict=True)])
    size = (len(scenes), 3, 1, 1)
    gains = torch.from_numpy(generator.uniform(0.8, 1.2, size).astype(np.float32))
    offsets = torch.from_numpy(generator.uniform(-0.15, 0.15, size).astype(np.float32))
    return (to_input(images) * gains + offsets).clamp(-1, 1), instances


def _rate(step: int, *, steps: int, recipe: SamRecipe) -> float:
    """Learning rate of a step from 1 on: rising, level, and at the end falling to nearly nothing."""
    left = (steps - step + 1) / (steps * recipe.falling)
    return recipe.rate * min(step / recipe.warm, 1.0, left)
