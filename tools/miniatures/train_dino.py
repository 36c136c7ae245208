"""Train the miniature DINOv2 on Toytown scenes: pictures and which pixels belong together; no class and no caption.

Of DINO and iBOT (arXiv 2104.14294, 2111.07832) are the teacher, a moving average of the student; two views of every
picture, of which the student sees some patches hidden and the teacher all; and that the student has to say what the
teacher says of every patch, across the two views and of what was hidden from it. The model that is kept is the teacher.

What deviates from DINOv2's own recipe, because the budget is thousands of steps and not hundreds of thousands:

- a patch answers to the teacher's patch at the same place of the *other* view, under that view's colours and scale,
  where DINO compares one class token a view; nothing is asked of the class token, and there are no small local views;
- "the same" is told from "another" by contrast among patches (InfoNCE, arXiv 1807.03748) and not by prototypes, whose
  assignments carry no information until the features do; so there is no centring, Sinkhorn or KoLeo either;
- patches also predict the teacher's mean features over the 3 x 3 and 5 x 5 patches around them, so that each says
  what it is a part of: contrast alone leaves that to whoever reads the features;
- patches also predict the local spectrum of the grey picture around them, in the place of the gradient histograms of
  MaskFeat (arXiv 2112.09133);
- a patch answers to the region of the other view that it lies in, as in DetCon (arXiv 2103.10957): a thing or a
  stretch of ground, whose outline is the drawn one. Which class a region has is never told;
- in every other step the other view is of another visit to the same place (`places.py`): its things stand elsewhere,
  painted anew and perhaps at dusk, so that it is mostly their shape that says which is which;
- the first layer starts from the pictures' own patches (`start.py`) and not from random weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.miniatures.checkpoints import check_counts, earlier_run, make_optimiser, save_checkpoint, set_rate
from tools.miniatures.dino_steps import DinoStep, draw_step
from tools.miniatures.dino_targets import (
    PATCH,
    SPECTRUM,
    SURROUNDINGS,
    contrast,
    local_spectrum,
    matched,
    region_contrast,
    surroundings,
)
from tools.miniatures.places import draw_visit_pool
from tools.miniatures.start import start_from_patches
from tools.miniatures.views import recolour

if TYPE_CHECKING:
    from transformers import Dinov2Config, Dinov2Model

_log = logging.getLogger(__name__)
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
SCENE = 192
"""Side in pixels of what the model is shown."""
SIZES = ("hidden", "layers", "heads", "view")
"""Numbers of the recipe that a training that goes on from another has in common with it."""


@dataclass(frozen=True)
class DinoRecipe:
    """The numbers of the training run that were chosen by trial.

    Attributes:
        steps: optimiser steps.
        scenes: places drawn for the pool, two pictures of each.
        batch: places a step, each of which gives two views; a quarter of it at `final_view`.
        view: side of a view in pixels, a multiple of the patch; the scene is 192.
        final_view: side of a view in the last steps.
        final_share: which share of the steps those are.
        hidden, layers, heads: size of the transformer.
        rate: peak learning rate of AdamW; it falls along a cosine to a fiftieth.
        warmup: steps of rising learning rate.
        weight_decay: of AdamW, on matrices.
        masked: mean share of patches hidden from the student where any are; half of the views are left whole.
        temperature: of the contrast among patches.
        contrasted: patches sampled a step for each contrast.
        momentum: of the teacher at the start; it rises to 0.9999.
        seed: of the weights and of every choice.
    """

    steps: int = 5200
    scenes: int = 8000
    batch: int = 16
    view: int = 96
    final_view: int = 192
    final_share: float = 0.08
    hidden: int = 128
    layers: int = 6
    heads: int = 2
    rate: float = 1.2e-3
    warmup: int = 60
    weight_decay: float = 0.04
    masked: float = 0.35
    temperature: float = 0.15
    contrasted: int = 1536
    momentum: float = 0.98
    seed: int = 0


class _Head(nn.Module):
    """Projects tokens to unit vectors, standardised over the batch lest a fresh network's tokens all point one way."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Linear(256, 64))
        self.standardise = nn.BatchNorm1d(64, affine=False, track_running_stats=False)

    def forward(self, tokens: Tensor) -> Tensor:
        spread = self.standardise(self.mlp(tokens).float().flatten(0, -2)).view(*tokens.shape[:-1], -1)
        return functional.normalize(spread, dim=-1)


class _Network(nn.Module):
    """The backbone that is kept, and heads that are not: of the contrast, of the spectrum and of the surroundings."""

    def __init__(self, recipe: DinoRecipe) -> None:
        from transformers import Dinov2Model

        super().__init__()
        # On a CPU plain attention is a third faster to train than the fused kernel at this length.
        self.backbone = Dinov2Model._from_config(dino_config(recipe), attn_implementation="eager")
        self.head = _Head(recipe.hidden)
        self.regions = _Head(recipe.hidden)
        self.texture = nn.Linear(recipe.hidden, SPECTRUM)
        self.context = nn.Linear(recipe.hidden, len(SURROUNDINGS) * recipe.hidden)

    def forward(self, views: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Patch features (b, n, hidden), and unit vectors (b, n, 64) of the heads of patches and of regions."""
        patches = self.backbone(pixel_values=views, bool_masked_pos=masked).last_hidden_state[:, 1:].float()
        return patches, self.head(patches), self.regions(patches)


def dino_config(recipe: DinoRecipe) -> Dinov2Config:
    """The miniature's architecture: DINOv2 with small numbers."""
    from transformers import Dinov2Config

    return Dinov2Config(
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        mlp_ratio=4,
        image_size=recipe.view,
        patch_size=PATCH,
        layerscale_value=1.0,
        drop_path_rate=0.0,
        # The usual 0.02 suits wide models; at this width it would leave every layer almost linear.
        initializer_range=recipe.hidden**-0.5,
    )


def _losses(
    student: _Network,
    teacher: _Network,
    step: DinoStep,
    *,
    recipe: DinoRecipe,
    scaling: tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Contrast across views of one picture, contrast on hidden patches, regions, surroundings, spectrum."""
    side, count = step.coloured.shape[-1] // PATCH, len(step.coloured) // 2
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            known, targets, wholes = teacher(step.coloured)
        patches, said, belongs = student(step.coloured, step.masks)
        spectrum, context = student.texture(patches).float(), student.context(patches).float()

    def sampled(students: Tensor, teachers: Tensor) -> Tensor:
        rows = torch.randperm(len(students), generator=generator)[: recipe.contrasted]
        return contrast(students[rows], functional.normalize(teachers[rows], dim=-1), temperature=recipe.temperature)

    across = torch.zeros(())
    if step.boxes is not None:
        one, other = step.boxes
        first, inside_first = matched(targets[count:], here=one, there=other, side=side)
        second, inside_second = matched(targets[:count], here=other, there=one, side=side)
        inside = torch.cat([inside_first, inside_second])
        across = sampled(said[inside], torch.cat([first, second])[inside])
    hidden = sampled(said[step.masks], targets[step.masks])
    here, there = step.regions
    belonging = [
        region_contrast(
            students,
            teachers,
            regions=places,
            temperature=recipe.temperature,
            count=recipe.contrasted,
            generator=generator,
        )
        for students, teachers, places in (
            (belongs[:count], wholes[count:], (here, there)),
            (belongs[count:], wholes[:count], (there, here)),
        )
    ]
    mean, deviation = scaling
    texture = functional.mse_loss(spectrum, (local_spectrum(step.clean) - mean) / deviation)
    around = functional.mse_loss(context, surroundings(known, side=side))
    return across, hidden, torch.stack(belonging).mean(), around, texture


def _steps(pool: Tensor, regions: Tensor, recipe: DinoRecipe, generator: torch.Generator) -> Iterator[DinoStep]:
    for step in range(recipe.steps):
        late = step >= recipe.steps * (1 - recipe.final_share)
        yield draw_step(
            pool,
            regions,
            batch=max(recipe.batch // 4, 2) if late else recipe.batch,
            size=recipe.final_view if late else recipe.view,
            masked=recipe.masked,
            again=step % 2 == 1,
            generator=generator,
        )


def normalise(images: Tensor) -> Tensor:
    """Standardise the channels of images (b, 3, h, w) in [0, 1] as the model expects."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std


def train_dino(
    out: Path,
    *,
    recipe: DinoRecipe,
    start: Path | None = None,
    threads: int = 1,
    log_every: int = 50,
    save_every: int = 250,
) -> None:
    """Train and save the miniature DINOv2 in the hub's format; the same recipe gives the same weights.

    Args:
        out: folder for config.json, model.safetensors (half precision), preprocessor_config.json and train.json, which
            says how far the weights were trained.
        recipe: the numbers of the run.
        start: folder of an earlier run of the same sizes to go on from, with new heads; None to begin anew.
        threads: processor threads; more of them may change the last digits.
        log_every, save_every: steps between lines of progress and between snapshots.

    Raises:
        PatchwordError: on a count below 1, or a start that is no earlier run of the recipe's sizes.
    """
    counts = {"steps": recipe.steps, "scenes": recipe.scenes, "batch": recipe.batch, "threads": threads}
    check_counts("training the miniature DINOv2", **counts, log_every=log_every, save_every=save_every)
    before = None
    if start is not None:
        before = earlier_run(start, what="miniature DINOv2", recipe=asdict(recipe), sizes=SIZES)
    torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    started = time.monotonic()
    pictures, places = draw_visit_pool("train-dino", count=recipe.scenes)
    pool, regions = torch.from_numpy(pictures), torch.from_numpy(places)
    sample = pool[:300, 0].permute(0, 3, 1, 2).float() / 255
    spectra = local_spectrum(sample).flatten(0, 1)
    scaling = (spectra.mean(0), spectra.std(0))
    student, teacher = _pair(recipe, images=normalise(recolour(sample, generator=generator)), start=start)
    optimiser = make_optimiser(student, rate=recipe.rate, weight_decay=recipe.weight_decay)
    _log.info("%d places drawn in %.0f s", len(pool), time.monotonic() - started)
    for number, step in enumerate(_steps(pool, regions, recipe, generator)):
        falling = set_rate(optimiser, number, steps=recipe.steps, rate=recipe.rate, warmup=recipe.warmup)
        step = replace(step, coloured=normalise(step.coloured))
        losses = _losses(student, teacher, step, recipe=recipe, scaling=scaling, generator=generator)
        across, hidden, belonging, around, texture = losses
        optimiser.zero_grad(set_to_none=True)
        (0.5 * across + 0.25 * hidden + 2 * belonging + around + texture).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 3.0)
        optimiser.step()
        momentum = 0.9999 - (0.9999 - recipe.momentum) * falling
        with torch.no_grad():
            for target, source in zip(teacher.parameters(), student.parameters(), strict=True):
                target.lerp_(source, 1 - momentum)
        if number % log_every == 0:
            numbers = (number, time.monotonic() - started, *(loss.item() for loss in losses))
            _log.info("step %d [%.0f s] across %.3f hidden %.3f regions %.3f around %.3f texture %.3f", *numbers)
        if (number + 1) % save_every == 0 or number + 1 == recipe.steps:
            seconds = time.monotonic() - started
            save_dino(out, teacher.backbone, recipe=asdict(recipe), step=number + 1, seconds=seconds, before=before)


def _pair(recipe: DinoRecipe, *, images: Tensor, start: Path | None) -> tuple[_Network, _Network]:
    """Student and teacher with the same weights, from an earlier run or from pictures (n, 3, h, w), normalised."""
    from transformers import Dinov2Model

    student, teacher = _Network(recipe), _Network(recipe)
    if start is None:
        block = student.backbone.encoder.layer[0]
        start_from_patches(
            student.backbone.embeddings.patch_embeddings.projection,
            hidden=block.mlp.fc1,
            attention_output=block.attention.o_proj,
            images=images,
        )
    else:
        earlier = Dinov2Model.from_pretrained(start, dtype=torch.float32)
        student.backbone.load_state_dict(earlier.state_dict())
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    return student, teacher


def save_dino(
    out: Path,
    backbone: Dinov2Model,
    *,
    recipe: dict[str, Any],
    step: int,
    seconds: float,
    before: dict[str, Any] | None = None,
) -> None:
    """Save the teacher's backbone in the hub's format, in half precision, and how far it was trained.

    Args:
        out: folder; made where it is missing.
        backbone: of the teacher.
        recipe: the numbers of the run, kept in train.json.
        step: optimiser steps so far.
        seconds: since the start, drawing included.
        before: train.json of the earlier run that this one went on from.
    """
    from transformers import Dinov2Model

    model = Dinov2Model(backbone.config)
    model.load_state_dict(backbone.state_dict())
    preprocessing = {
        "image_processor_type": "BitImageProcessor",
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "image_mean": list(MEAN),
        "image_std": list(STD),
        "size": {"shortest_edge": SCENE},
        "crop_size": {"height": SCENE, "width": SCENE},
    }
    save_checkpoint(
        model, out=out, preprocessing=preprocessing, recipe=recipe, step=step, seconds=seconds, before=before
    )
