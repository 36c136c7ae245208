"""Self-distillation of the miniature DINOv2: features of the whole image learn from those of small windows.

The model of `train_dino.py` has better features in small windows than in a whole image: averaged where windows of 48
pixels overlap, they tell classes apart far better than one forward pass over all 192 pixels. A hundred windows cost
six times that pass, so the model is distilled from itself. The teachers are earlier trainings of it, frozen, each on
windows of one size of the clean image by day. The student starts from an earlier training, gets the whole image by day
or at dusk, recoloured, and predicts what all teachers say by a linear head that is not kept; at dusk, too, what they
say by day. No class and no caption takes part. Denoising Vision Transformers (arXiv 2401.02957) learn from many shifted
crops of an image, too, but by a neural field for each image and an added block.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from patchword.errors import PatchwordError
from tools.miniatures.checkpoints import check_counts, earlier_run, earlier_runs, make_optimiser, set_rate
from tools.miniatures.dino_targets import PATCH
from tools.miniatures.places import draw_day_and_dusk
from tools.miniatures.train_dino import SCENE, SIZES, normalise, save_dino
from tools.miniatures.views import recolour

_log = logging.getLogger(__name__)
USUAL_WINDOW = 48
"""Side in pixels of the windows that the start is its own teacher on, if no teacher is given."""
_OVERLAP = 3  # windows over a patch, along either side


@dataclass(frozen=True)
class DistillRecipe:
    """The numbers of the training run.

    Attributes:
        steps: optimiser steps.
        scenes: places drawn for the pool, of which the visits by day are taken, each by day and at dusk.
        batch: pictures a step.
        rate: peak learning rate of AdamW; it falls along a cosine to a fiftieth.
        warmup: steps of rising learning rate.
        weight_decay: of AdamW, on matrices.
        momentum: of the moving average that is kept, at the start; it rises to 0.9995.
        seed: of every choice.
    """

    steps: int = 1800
    scenes: int = 2000
    batch: int = 16
    rate: float = 1e-3
    warmup: int = 60
    weight_decay: float = 0.04
    momentum: float = 0.98
    seed: int = 0


def train_distill(
    out: Path,
    *,
    recipe: DistillRecipe,
    start: Path | None,
    teachers: Sequence[tuple[Path, int]] = (),
    threads: int = 1,
    log_every: int = 50,
    save_every: int = 200,
) -> None:
    """Distil an earlier model's features of windows into one pass over the image, and save it in the hub's format.

    Args:
        out: folder for config.json, model.safetensors (half precision), preprocessor_config.json and train.json, which
            says how far the weights were trained.
        recipe: the numbers of the run.
        start: folder of the earlier training.
        teachers: folder and side of the windows in pixels, of each; the start on windows of 48 without any.
        threads: processor threads; another number may change the last digits.
        log_every, save_every: steps between lines of progress and between snapshots.

    Raises:
        PatchwordError: on a count below 1, without an earlier training of a DINOv2, or on windows that do not cover a
            picture.
    """
    from transformers import Dinov2Model

    counts = {"steps": recipe.steps, "scenes": recipe.scenes, "batch": recipe.batch, "threads": threads}
    check_counts("distilling the miniature DINOv2", **counts, log_every=log_every, save_every=save_every)
    if start is None:
        raise PatchwordError("distilling needs --start, the folder of a miniature DINOv2 that was trained")
    before = earlier_run(start, what="miniature DINOv2", sizes=SIZES)
    teachers = list(teachers) or [(start, USUAL_WINDOW)]
    taught = []
    for folder, window in teachers:
        window_starts(SCENE, window=window)
        runs = earlier_runs(earlier_run(folder, what="miniature DINOv2", sizes=SIZES))
        taught.append({"steps": sum(run["step"] for run in runs), "window": window})
    sizes = {name: before["recipe"][name] for name in SIZES}
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    started = time.monotonic()
    pictures = draw_day_and_dusk("train-dino", count=recipe.scenes)
    targets = torch.from_numpy(teacher_features(pictures[:, 0], teachers=teachers))
    pool = torch.from_numpy(pictures).flatten(0, 1)  # (2n, h, h, 3)
    _log.info("%d places drawn, and features of windows computed, in %.0f s", recipe.scenes, time.monotonic() - started)
    sample = targets[:150].float().flatten(0, 2)
    mean, deviation = sample.mean(0), sample.std(0)
    student = nn.ModuleDict(
        {
            "backbone": Dinov2Model.from_pretrained(start, dtype=torch.float32),
            "head": nn.Linear(sizes["hidden"], targets.shape[-1]),
        }
    )
    kept = Dinov2Model.from_pretrained(start, dtype=torch.float32).requires_grad_(False)
    optimiser = make_optimiser(student, rate=recipe.rate, weight_decay=recipe.weight_decay)
    for step in range(recipe.steps):
        falling = set_rate(optimiser, step, steps=recipe.steps, rate=recipe.rate, warmup=recipe.warmup)
        chosen = torch.randint(len(pool), (recipe.batch,), generator=generator)
        images = normalise(recolour(pool[chosen].permute(0, 3, 1, 2).float() / 255, generator=generator))
        wanted = (targets[chosen // 2].float() - mean) / deviation  # (b, h/8, w/8, teachers * d)
        flipped = (torch.rand(recipe.batch, generator=generator) < 0.5)[:, None, None, None]
        images = torch.where(flipped, images.flip(-1), images)
        wanted = torch.where(flipped, wanted.flip(2), wanted)
        said = student["head"](student["backbone"](pixel_values=images).last_hidden_state[:, 1:])
        loss = functional.mse_loss(said, wanted.flatten(1, 2))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimiser.step()
        momentum = 0.9995 - (0.9995 - recipe.momentum) * falling
        with torch.no_grad():
            for average, weight in zip(kept.parameters(), student["backbone"].parameters(), strict=True):
                average.lerp_(weight, 1 - momentum)
        seconds = time.monotonic() - started
        if step % log_every == 0:
            _log.info("step %d [%.0f s] loss %.4f", step, seconds, loss.item())
        if (step + 1) % save_every == 0 or step + 1 == recipe.steps:
            record = {**asdict(recipe), **sizes, "teachers": taught}
            save_dino(out, kept, recipe=record, step=step + 1, seconds=seconds, before=before)


def teacher_features(pictures: NDArray[np.uint8], *, teachers: Sequence[tuple[Path, int]]) -> NDArray[np.float16]:
    """What teachers say of pictures (n, h, h, 3), one behind the other: (n, h/8, h/8, teachers * d)."""
    from transformers import Dinov2Model

    models = [(Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval(), window) for folder, window in teachers]
    found = []
    for picture in pictures:
        images = normalise(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255)
        said = [window_features(model, images, window=window) for model, window in models]
        found.append(torch.cat(said, dim=-1).half().numpy())
    return np.concatenate(found)


def window_starts(height: int, *, window: int) -> range:
    """Where windows begin along a side of an image, every third of a window; all numbers in pixels.

    Raises:
        PatchwordError: on windows that leave a patch out, or whose third is not of whole patches.
    """

    def covers(side: int) -> bool:
        return (height - side) % (side // _OVERLAP) == 0

    sides = [side for side in range(_OVERLAP * PATCH, height + 1, _OVERLAP * PATCH) if covers(side)]
    if window not in sides:
        allowed = ", ".join(map(str, sides)) or "another image"
        raise PatchwordError(f"windows of {window} pixels do not cover {height} pixels; choose from {allowed}")
    return range(0, height - window + 1, window // _OVERLAP)


@torch.inference_mode()
def window_features(model: nn.Module, images: Tensor, *, window: int) -> Tensor:
    """A model's patch features of square windows, averaged where these overlap, a window's middle counting most.

    Args:
        model: a DINOv2.
        images: (b, 3, h, h) normalised, its side a multiple of the patch.
        window: side of the windows in pixels; see `window_starts`.

    Returns:
        (b, h/8, h/8, d).

    Raises:
        PatchwordError: on windows that do not cover the images.
    """
    height, side = images.shape[-1], window // PATCH
    starts = window_starts(height, window=window)
    places = [(top, left) for top in starts for left in starts]
    views = torch.cat([images[:, :, top : top + window, left : left + window] for top, left in places])
    with torch.autocast("cpu", torch.bfloat16):
        features = model(pixel_values=views).last_hidden_state[:, 1:].float()
    maps = features.transpose(1, 2).unflatten(2, (side, side)).unflatten(0, (-1, len(images)))  # (windows, b, d, k, k)
    fade = torch.hann_window(side + 2, periodic=False)[1:-1]
    weight = fade[:, None] * fade + 0.01
    total = torch.zeros(len(images), maps.shape[2], height // PATCH, height // PATCH)
    weights = torch.zeros(height // PATCH, height // PATCH)
    for (top, left), each in zip(places, maps, strict=True):
        rows, columns = (slice(start // PATCH, start // PATCH + side) for start in (top, left))
        total[..., rows, columns] += each * weight
        weights[rows, columns] += weight
    return (total / weights).permute(0, 2, 3, 1)
