"""Ideas for the alignment that are not its default, on drawn scenes of seeds that no other table reports.

    for seed in 5 6 7; do patchword demo -o tune$seed --seed $seed --scenes 80; done
    python benchmarks/alignment_ideas.py tune5 tune6 tune7

Each idea is trained on the labels of every demo with the demo's settings, and judged on its labelled scenes, its
unseen scenes by day, on the five classes that neither labels nor training named, and at dusk. Exact masks are opened
only to judge. An idea is a setting of the alignment, or another form of the patch-anchor reading of the patch-text
term, whose mean over patches is weighted or whose classes get a handicap.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import patchword as pw
from patchword.alignment import losses
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN, UNSEEN
from patchword.toytown.demo import ALIGN_SETTINGS
from patchword.toytown.demo_scenes import ALL
from patchword.versions import versions

COLUMNS = ("labelled scenes", "unseen scenes", "unseen classes", "dusk")
_DOUBT_FROM = 50  # steps

PatchLoss = Callable[[Tensor, Tensor], Tensor]
"""From the logits (n, c) of patches and their labels (n,) to a loss."""


@dataclass(frozen=True)
class Idea:
    """What a row changes.

    Attributes:
        name: what the table calls it.
        settings: of the alignment, over the demo's.
        patch_loss: makes the patch-anchor reading of a training; the package's own where it is none.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    patch_loss: Callable[[], PatchLoss] | None = None


def by_class(power: float) -> PatchLoss:
    """Patches count by the number of their class's patches in the step, to a negative power."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        counts = torch.bincount(labels, minlength=logits.shape[1]).to(logits.dtype)
        weights = counts[labels] ** -power
        return weights @ functional.cross_entropy(logits, labels, reduction="none") / weights.sum()

    return loss


def doubted(power: float) -> PatchLoss:
    """After 50 steps, patches count by the probability that the module gives to their label, to a power."""
    seen = 0

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        each = functional.cross_entropy(logits, labels, reduction="none")
        weights = (-each.detach() * (power if seen > _DOUBT_FROM else 0.0)).exp()
        return weights @ each / weights.sum()

    return loss


def adjusted() -> PatchLoss:
    """Logits are adjusted by how many patches each class had so far (arXiv 2007.07314)."""
    total: Tensor | None = None

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal total
        counts = torch.bincount(labels, minlength=logits.shape[1]).to(logits.dtype)
        total = counts + (1.0 if total is None else total)
        return functional.cross_entropy(logits + (total / total.sum()).log(), labels)

    return loss


def generalised(q: float) -> PatchLoss:
    """(1 - p^q) / q of the label's probability p, which forgives wrong labels (arXiv 1805.07836)."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        each = functional.cross_entropy(logits, labels, reduction="none")
        return ((1 - (-q * each).exp()) / q).mean()

    return loss


def smoothed(share: float) -> PatchLoss:
    """A share of every label is spread over all classes."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=share)

    return loss


IDEAS = (
    Idea("as it is"),
    Idea("patches that the module doubts count less (weight p^0.3, from step 50)", patch_loss=lambda: doubted(0.3)),
    Idea("generalised cross entropy, q = 0.5", patch_loss=lambda: generalised(0.5)),
    Idea("labels smoothed by 0.1", patch_loss=lambda: smoothed(0.1)),
    Idea("labels smoothed by 0.2", patch_loss=lambda: smoothed(0.2)),
    Idea("labels smoothed by 0.3", patch_loss=lambda: smoothed(0.3)),
    Idea("every class counts the same in the patch-anchor reading", patch_loss=lambda: by_class(1.0)),
    Idea("the same, by the square root of its patches", patch_loss=lambda: by_class(0.5)),
    Idea("logits adjusted by the class's patches in training", patch_loss=adjusted),
    Idea("moving average of the weights, 0.98 a step", {"average_decay": 0.98}),
    Idea("patch-mask term at twice its weight", {"mask_weight": 2.0}),
)


@contextmanager
def patch_anchor(make: Callable[[], PatchLoss] | None) -> Iterator[None]:
    """Train with another patch-anchor reading."""
    usual = losses.patch_anchor_loss
    if make is not None:
        chosen = make()

        def reading(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float, bound: int) -> Tensor:
            return chosen(z @ text.T / temperature, labels) if len(z) else z.sum() * 0.0

        losses.patch_anchor_loss = reading
    try:
        yield
    finally:
        losses.patch_anchor_loss = usual


def measure(segmenter: pw.Segmenter, demo: Path) -> list[float]:
    """mIoU by column, in per cent."""

    def judge(photos: str, masks: str, classes: Sequence[str], scored: Sequence[str]) -> float:
        report = pw.evaluate(
            demo / photos,
            masks=demo / "truth" / masks,
            classes=list(classes),
            model=segmenter,
            scoring={"boundary": False, "resamples": 0},
            device="cpu",
            quiet=True,
        )
        return 100 * statistics.fmean(c.iou for c in report.classes if c.name in scored and c.iou is not None)

    return [
        judge("scenes", "scenes/seen", SEEN, SEEN),
        judge("day", "day/seen", SEEN, SEEN),
        judge("day", "day/all", ALL, UNSEEN),
        judge("dusk", "dusk/seen", SEEN, SEEN),
    ]


def try_ideas(demo: Path, ideas: Sequence[Idea]) -> dict[str, list[float]]:
    """Train and judge every idea on the labels of a demo; its own seed is the seed of the trainings."""
    seed = int(json.loads((demo / "report.json").read_bytes())["settings"]["seed"])
    found = {}
    with tempfile.TemporaryDirectory() as work:
        for idea in ideas:
            with patch_anchor(idea.patch_loss):
                segmenter = pw.align(
                    demo / "labels",
                    out=Path(work) / "model",
                    encoder=miniatures.DINO,
                    settings={**ALIGN_SETTINGS.model_dump(), **idea.settings, "seed": seed},
                    cache=Path(work) / "features",
                    device="cpu",
                    overwrite=True,
                    quiet=True,
                )
            found[idea.name] = measure(segmenter, demo)
            print(f"{demo}  {idea.name}: {'  '.join(f'{score:.1f}' for score in found[idea.name])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", help="folders that `patchword demo` made, each of another seed")
    demos: list[Path] = parser.parse_args().demos
    found = [try_ideas(demo, IDEAS) for demo in demos]
    print(f"\n| mIoU, per cent, mean ± deviation | {' | '.join(COLUMNS)} |\n{'|---' * (len(COLUMNS) + 1)}|")
    for idea in IDEAS:
        scores = zip(*(each[idea.name] for each in found), strict=True)
        cells = (
            f"{statistics.fmean(column):.1f}" + (f" ± {statistics.stdev(column):.1f}" if len(column) > 1 else "")
            for column in scores
        )
        print(f"| {idea.name} | {' | '.join(cells)} |")
    print(json.dumps(versions(), sort_keys=True))


if __name__ == "__main__":
    main()
