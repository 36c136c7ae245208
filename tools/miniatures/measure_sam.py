"""Measuring the miniature SAM: a random point in a thing or region of an unseen scene, the mask it trusts most."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from patchword.errors import PatchwordError
from patchword.toytown.world import Scene, draw_scene, scene_seed
from tools.miniatures.sam_model import SIDE, load_sam, to_input

_LEAST_AREA = 40


@dataclass(frozen=True)
class Probe:
    """One scene and a random point in everything large enough in it.

    Attributes:
        scene: the scene.
        numbers: (n,) instance numbers that the points lie in.
        points: (n, 2) x and y in pixels.
    """

    scene: Scene
    numbers: NDArray[np.int64]
    points: NDArray[np.float32]


@dataclass(frozen=True)
class SamMeasurement:
    """Mean true IoU, in [0, 1], of the mask with the highest predicted IoU, from one point each.

    Attributes:
        things: over things; what occlusion has cut in pieces is still one mask.
        stuff: over regions of stuff.
        all: over both.
        best: over both, had the best of the three masks been known.
        iou_error: mean absolute error of the predicted IoU of the masks taken.
        count: number of masks measured.
    """

    things: float
    stuff: float
    all: float
    best: float
    iou_error: float
    count: int

    def __str__(self) -> str:
        return (
            f"IoU of things {self.things:.4f}, of stuff {self.stuff:.4f}, of all {self.all:.4f} (best of three "
            f"{self.best:.4f}), error of the predicted IoU {self.iou_error:.4f}, {self.count} masks"
        )


def measure_sam(folder: Path, *, scenes: int, style: str) -> SamMeasurement:
    """Measure a saved miniature on unseen scenes.

    Args:
        folder: with config.json and model.safetensors.
        scenes: number of scenes of the purpose "validate", at least 1.
        style: "day" or "dusk".

    Returns:
        the means over all things and regions of at least 40 visible pixels, one point each.

    Raises:
        PatchwordError: on a folder without a model, fewer than 1 scenes, or an unknown style.
    """
    return measure_model(load_sam(folder), draw_probes(scenes=scenes, style=style))


def draw_probes(*, scenes: int, style: str) -> list[Probe]:
    """Draw the first so many unseen scenes and a point in every thing and region of at least 40 visible pixels."""
    if scenes < 1:
        raise PatchwordError(f"measuring the miniature SAM on {scenes} scenes; at least 1 is needed")
    return [
        _probe(draw_scene(scene_seed("validate", index=index), size=SIDE, style=style), seed=index)
        for index in range(scenes)
    ]


def measure_model(model: Any, probes: list[Probe]) -> SamMeasurement:
    """Measure a `SamModel` on probes."""
    taken, best, errors, is_thing = [], [], [], []
    for probe in probes:
        iou, predicted = mask_scores(model, probe)
        choice = predicted.argmax(1, keepdim=True)
        taken.append(iou.gather(1, choice)[:, 0])
        best.append(iou.amax(1))
        errors.append((predicted.gather(1, choice)[:, 0] - taken[-1]).abs())
        is_thing.append(torch.from_numpy(probe.numbers > len(probe.scene.stuff)))
    scores, things = torch.cat(taken), torch.cat(is_thing)
    return SamMeasurement(
        things=float(scores[things].mean()),
        stuff=float(scores[~things].mean()),
        all=float(scores.mean()),
        best=float(torch.cat(best).mean()),
        iou_error=float(torch.cat(errors).mean()),
        count=len(scores),
    )


@torch.no_grad()
def mask_scores(model: Any, probe: Probe) -> tuple[Tensor, Tensor]:
    """True and predicted IoU, (n, 3) each, of the three masks of every point, compared at full resolution."""
    points = torch.from_numpy(probe.points)[None, :, None]  # (1, n, 1, 2)
    output = model(pixel_values=to_input(probe.scene.image[None]), input_points=points)
    instances = torch.from_numpy(probe.scene.instances)
    inside = F.interpolate(output.pred_masks[0].float(), instances.shape, mode="bilinear") > 0  # (n, 3, h, w)
    truth = (instances[None] == torch.from_numpy(probe.numbers)[:, None, None])[:, None]  # (n, 1, h, w)
    both, either = (inside & truth).sum((2, 3)), (inside | truth).sum((2, 3))
    return both / either, output.iou_scores[0].float()


def _probe(scene: Scene, *, seed: int) -> Probe:
    generator = np.random.default_rng(seed)
    areas = np.bincount(scene.instances.ravel(), minlength=256)
    areas[0] = 0
    numbers = np.flatnonzero(areas >= _LEAST_AREA)
    places = [generator.choice(np.flatnonzero(scene.instances == number)) for number in numbers]
    rows, columns = np.divmod(np.array(places), scene.instances.shape[1])
    return Probe(scene, numbers, np.stack([columns, rows], 1).astype(np.float32))
