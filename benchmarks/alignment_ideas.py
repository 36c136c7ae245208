"""Ideas for the alignment that are not its default, on drawn scenes of seeds that no other table reports.

    for seed in 5 6 7; do patchword demo -o tune$seed --seed $seed --scenes 80; done
    OMP_NUM_THREADS=1 python benchmarks/alignment_ideas.py tune5 tune6 tune7

Each idea is trained on the labels of every demo with the demo's settings, and judged on its labelled scenes, its
unseen scenes by day, on the five classes that neither labels nor training named, and at dusk. Exact masks are opened
only to judge. An idea is a setting, or something that stands for a while in the place of a function of the package.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import patchword as pw
from patchword.alignment import losses, run
from patchword.alignment.data import label_items
from patchword.alignment.losses import IGNORED
from patchword.alignment.module import Block, ChosenPatches
from patchword.config.align import AlignSettings
from patchword.data.masks import Segment
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.evaluation.benchmarks.lists import templates
from patchword.labeling.dataset import LabelledDataset
from patchword.models.text_embeddings import encode_vocabulary
from patchword.segmentation import sliding_window
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN, UNSEEN
from patchword.toytown.demo import ALIGN_SETTINGS
from patchword.toytown.demo_scenes import ALL
from patchword.versions import versions

COLUMNS = ("labelled scenes", "unseen scenes", "unseen classes", "dusk")
_SMOOTHING = AlignSettings().label_smoothing
_CHANGED = {"class_prior": 1.0}  # so that scores pass `with_class_prior`, in whose place another function stands
_FROM = 50  # steps after which a training's own answers count

PatchLoss = Callable[[Tensor, Tensor, int], Tensor]
"""From the logits (n, c) of patches, their labels (n,) and the number of the step to a loss."""


@contextmanager
def replaced(place: Any, name: str, other: Callable[..., Any]) -> Iterator[None]:
    """Another function stands at a place of the package for a while."""
    usual = getattr(place, name)
    setattr(place, name, other)
    try:
        yield
    finally:
        setattr(place, name, usual)


def nothing(*_: Any) -> AbstractContextManager[None]:
    """Nothing is replaced."""
    return nullcontext()


@dataclass(frozen=True)
class Idea:
    """What a row changes.

    Attributes:
        name: what the table calls it.
        settings: of the alignment, over the demo's.
        training: what is replaced while it trains on a demo's labels.
        asked: settings of the segmentation.
        asking: what is replaced while a segmenter is asked for the classes on a demo's scenes.
        templates: of the words, in training and after it.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    training: Callable[[Path], AbstractContextManager[None]] = nothing
    asked: dict[str, Any] = field(default_factory=dict)
    asking: Callable[[pw.Segmenter, Path, Sequence[str]], AbstractContextManager[None]] = nothing
    templates: tuple[str, ...] = DEFAULT_TEMPLATES


def patch_anchor(make: Callable[[], PatchLoss]) -> Callable[[Path], AbstractContextManager[None]]:
    """Train with another patch-anchor reading, made anew for every training."""

    def training(_: Path) -> AbstractContextManager[None]:
        loss, steps = make(), count()

        def reading(z: Tensor, labels: Tensor, text: Tensor, *, temperature: Tensor | float, **_: Any) -> Tensor:
            return loss(z @ text.T / temperature, labels, next(steps)) if len(z) else z.sum() * 0.0

        return replaced(losses, "patch_anchor_loss", reading)

    return training


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    """The default's loss of each patch, (n,)."""
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=_SMOOTHING)


def by_class(power: float) -> PatchLoss:
    """Patches count by the number of their class's patches in the step, to a negative power."""

    def loss(logits: Tensor, labels: Tensor, _: int) -> Tensor:
        weights = torch.bincount(labels).to(logits.dtype)[labels] ** -power
        return weights @ smoothed(logits, labels) / weights.sum()

    return loss


def doubted(power: float) -> PatchLoss:
    """From some step on, patches count by the probability that the module gives to their label, to a power."""

    def loss(logits: Tensor, labels: Tensor, step: int) -> Tensor:
        doubt = functional.cross_entropy(logits.detach(), labels, reduction="none")
        weights = (-doubt * (power if step >= _FROM else 0.0)).exp()
        return weights @ smoothed(logits, labels) / weights.sum()

    return loss


def without_the_worst(share: float) -> PatchLoss:
    """From some step on, the share of the patches whose label fits least is left out."""

    def loss(logits: Tensor, labels: Tensor, step: int) -> Tensor:
        each = smoothed(logits, labels)
        kept = each.detach() <= each.detach().quantile(1 - share if step >= _FROM else 1.0)
        return each[kept].mean()

    return loss


def bootstrapped(share: float) -> PatchLoss:
    """From some step on, a share of each label is what the module itself says (arXiv 1412.6596)."""

    def loss(logits: Tensor, labels: Tensor, step: int) -> Tensor:
        own = -(logits.detach().softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1)
        return torch.lerp(smoothed(logits, labels), own, share if step >= _FROM else 0.0).mean()

    return loss


def adjusted() -> PatchLoss:
    """Logits are adjusted by how many patches each class had so far (arXiv 2007.07314)."""
    total = torch.ones(len(SEEN))

    def loss(logits: Tensor, labels: Tensor, _: int) -> Tensor:
        total.add_(torch.bincount(labels, minlength=len(SEEN)))
        return smoothed(logits + (total / total.sum()).log(), labels).mean()

    return loss


def generalised(logits: Tensor, labels: Tensor, _: int) -> Tensor:
    """(1 - p^q) / q of the label's probability p, q = 0.5, which forgives wrong labels (arXiv 1805.07836)."""
    each = functional.cross_entropy(logits, labels, reduction="none")
    return (2 - 2 * (-each / 2).exp()).mean()


class DrawnLabels(Tensor):
    """Labels (n, h, w) that change whenever a batch is read, by their votes (n, h, w, c); what is computed is plain."""

    votes: Tensor
    change: Callable[[Tensor, Tensor], Tensor]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def of(cls, labels: Tensor, votes: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> DrawnLabels:
        drawn = labels.as_subclass(cls)
        drawn.votes, drawn.change = votes, change
        return drawn

    def __getitem__(self, index: Any) -> Tensor:
        some, votes = self.as_subclass(Tensor)[index], self.votes[index]
        if not isinstance(index, list):  # those that are used
            return DrawnLabels.of(some, votes, self.change)
        return torch.where(some == IGNORED, some, self.change(some, votes).to(some.dtype))


def by_votes(change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Path], AbstractContextManager[None]]:
    """Train on labels that follow from the votes of the masks.

    Args:
        change: from labels (n, h, w) and the votes for each class (n, h, w, c) to labels. A vote is the sum over the
            two generators of the highest score of a mask there, in [0, 2]. What was ignored stays so.
    """

    def training(demo: Path) -> AbstractContextManager[None]:
        found = {item.image: item for item in LabelledDataset.open(demo / "labels").items}

        def drawn(*given: Any, features: Any, **options: Any) -> tuple[Any, Tensor]:
            items, labels = label_items(*given, features=features, **options)
            pixels = (votes_of(found[item.image].segments(), size=features.size_of(item.key)) for item in items)
            votes = torch.stack([functional.adaptive_avg_pool2d(each, features.grid) for each in pixels])
            return items, DrawnLabels.of(labels, votes.movedim(1, -1), change)

        return replaced(run, "label_items", drawn)

    return training


def votes_of(segments: Sequence[Segment], *, size: tuple[int, int]) -> Tensor:
    """The sum over generators of the highest score that a mask gives a class at a pixel, (c, h, w)."""
    votes = torch.zeros(len(SEEN), *size)
    for generator in sorted({segment.generator for segment in segments}):
        highest = torch.zeros_like(votes)
        for segment in segments:
            if segment.generator == generator:
                claim = torch.from_numpy(segment.mask()) * segment.score
                highest[segment.class_index] = torch.maximum(highest[segment.class_index], claim)
        votes += highest
    return votes


def drawn_from_votes(labels: Tensor, votes: Tensor) -> Tensor:
    """A class by its share of the votes, anew in every epoch: soft labels on average."""
    return torch.multinomial(votes.flatten(0, 2) + 1e-9, 1).view(labels.shape)


def surely_voted(least: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Labels that have at least a share of the votes."""

    def change(labels: Tensor, votes: Tensor) -> Tensor:
        return torch.where(votes.amax(dim=-1) >= least * votes.sum(dim=-1), labels, IGNORED)

    return change


def as_often_as_scored(labels: Tensor, votes: Tensor) -> Tensor:
    """Labels are seen as often as the mean score of their masks says."""
    return torch.where(torch.rand(labels.shape) < votes.amax(dim=-1) / 2, labels, IGNORED)


def drop_path(rate: float) -> Callable[[Path], AbstractContextManager[None]]:
    """The block is skipped in a share of the steps (arXiv 1603.09382)."""
    usual = Block.forward

    def forward(block: Block, tokens: Tensor, chosen: ChosenPatches | None = None) -> Tensor:
        found = usual(block, tokens, chosen)
        if not block.training:
            return found
        before = tokens if chosen is None else tokens.flatten(0, 1)[chosen.spread]
        return before if torch.rand(()) < rate else before + (found - before) / (1 - rate)

    return lambda _: replaced(Block, "forward", forward)


def by_mean_scores(change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., AbstractContextManager[None]]:
    """Scores of words are changed by their mean and deviation over the patches of the labelled scenes.

    Args:
        change: from scores (words, h, w), means and deviations (words, 1, 1).
    """

    def asking(segmenter: pw.Segmenter, demo: Path, classes: Sequence[str]) -> AbstractContextManager[None]:
        seen: list[Tensor] = []

        def keep(scores: Sequence[Tensor], **_: Any) -> list[Tensor]:
            seen.extend(each.flatten(1) for each in scores)
            return list(scores)

        with replaced(sliding_window, "with_class_prior", keep):
            for scene in sorted((demo / "scenes").iterdir()):
                segmenter.segment(scene, classes=list(classes), settings=_CHANGED)
        deviation, mean = torch.std_mean(torch.cat(seen, dim=1)[..., None], dim=1, keepdim=True)

        def other(scores: Sequence[Tensor], **_: Any) -> list[Tensor]:
            return [change(each, mean, deviation) for each in scores]

        return replaced(sliding_window, "with_class_prior", other)

    return asking


IDEAS = (
    Idea("as it is: labels smoothed by 0.2"),
    Idea("labels not smoothed", {"label_smoothing": 0.0}),
    Idea("labels smoothed by 0.1", {"label_smoothing": 0.1}),
    Idea("labels smoothed by 0.3", {"label_smoothing": 0.3}),
    Idea("patches count by the root of their class's patches", training=patch_anchor(lambda: by_class(0.5))),
    Idea("every class counts the same", training=patch_anchor(lambda: by_class(1.0))),
    Idea("logits adjusted by the class's patches in training", training=patch_anchor(adjusted)),
    Idea("generalised cross entropy, q = 0.5", training=patch_anchor(lambda: generalised)),
    Idea("patches that the module doubts count less, p^0.5", training=patch_anchor(lambda: doubted(0.5))),
    Idea("the tenth of the patches that fits least is left out", training=patch_anchor(lambda: without_the_worst(0.1))),
    Idea("bootstrapping, 0.3", training=patch_anchor(lambda: bootstrapped(0.3))),
    Idea("soft labels: drawn from the votes in every epoch", training=by_votes(drawn_from_votes)),
    Idea("labels below 0.6 of the votes ignored", training=by_votes(surely_voted(0.6))),
    Idea("patches seen as often as their masks' mean score says", training=by_votes(as_often_as_scored)),
    Idea("drop path, 0.1", training=drop_path(0.1)),
    Idea("weight decay 0.2 in place of 0.05", {"weight_decay": 0.2}),
    Idea("moving average of the weights, 0.98 a step", {"average_decay": 0.98}),
    Idea("30 epochs in place of 14", {"epochs": 30}),
    Idea("8 images a step in place of 4", {"batch_size": 8}),
    Idea("patch-mask term at twice its weight", {"mask_weight": 2.0}),
    Idea("without the patch-patch term", {"loss": "patch-text"}),
    Idea("one template, the word alone", templates=("{}",)),
    Idea("80 templates in place of 7", templates=templates(80)),
    Idea("patch vectors less half their mean", asked=_CHANGED, asking=by_mean_scores(lambda s, mean, _: s - mean / 2)),
    Idea("a temperature a word", asked=_CHANGED, asking=by_mean_scores(lambda s, _, dev: s / dev * dev.mean())),
    *(Idea(f"the same model, seen at {side} pixels", asked={"image_size": side}) for side in (224, 256, 288)),
)


def measure(segmenter: pw.Segmenter, demo: Path, idea: Idea) -> list[float]:
    """mIoU by column, in per cent."""

    def judge(photos: str, masks: str, classes: Sequence[str], scored: Sequence[str]) -> float:
        with idea.asking(segmenter, demo, classes):
            report = pw.evaluate(
                demo / photos,
                masks=demo / "truth" / masks,
                classes=Vocabulary.of(classes, templates=idea.templates),
                model=segmenter,
                settings=idea.asked,
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


def try_idea(idea: Idea, demo: Path) -> list[float]:
    """Train and judge an idea on the labels of a demo, whose seed is the seed of the training."""
    seed = int(json.loads((demo / "report.json").read_bytes())["settings"]["seed"])
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as work, words_in(idea.templates), idea.training(demo):
        segmenter = pw.align(
            demo / "labels",
            out=Path(work) / "model",
            encoder=miniatures.DINO,
            settings={**ALIGN_SETTINGS.model_dump(), **idea.settings, "seed": seed},
            cache=Path(work) / "features",
            device="cpu",
            quiet=True,
        )
    return measure(segmenter, demo, idea)


def words_in(chosen: tuple[str, ...]) -> AbstractContextManager[None]:
    """The words of the labels are trained with in other templates."""

    def encode(encoder: Any, *, vocabulary: Vocabulary) -> Any:
        return encode_vocabulary(encoder, vocabulary=replace(vocabulary, templates=chosen))

    return replaced(run, "encode_vocabulary", encode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demos", type=Path, nargs="+", help="folders that `patchword demo` made, each of another seed")
    demos: list[Path] = parser.parse_args().demos
    rows: list[tuple[Idea, list[list[float]]]] = []
    for idea in IDEAS:
        found = []
        for demo in demos:
            found.append(try_idea(idea, demo))
            print(f"{demo}  {idea.name}: {'  '.join(f'{score:.1f}' for score in found[-1])}", flush=True)
        rows.append((idea, found))
    print(table(rows))
    print(json.dumps(versions(), sort_keys=True))


def table(rows: Sequence[tuple[Idea, list[list[float]]]]) -> str:
    """A line an idea: mean and deviation of each column, and by how much each demo is above the first idea's."""
    lines = [f"| mIoU, per cent | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 1) + "|"]
    first = rows[0][1]
    for idea, found in rows:
        cells = []
        for column, before in zip(zip(*found, strict=True), zip(*first, strict=True), strict=True):
            spread = f" ± {statistics.stdev(column):.1f}" if len(column) > 1 else ""
            above = ", ".join(f"{now - then:+.1f}" for now, then in zip(column, before, strict=True))
            cells.append(f"{statistics.fmean(column):.1f}{spread} ({above})")
        lines.append(f"| {idea.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
