"""All ways to segment on the same unseen scenes: the training-free methods, the trained segmenter, its oracle."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from patchword.config.evaluate import DILATION
from patchword.config.segment import Refine
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, PatchwordWarning
from patchword.evaluation.counts import Gathered, ImageCounts, bootstrap_interval, count_image
from patchword.runs.progress import Progress
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.methods import METHODS
from patchword.segmentation.opening import open_segmenter
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import ALL, SIZE, Place
from patchword.toytown.demo_work import Workers, finish_all

# Self-attention that is to find a patch's like spreads over a grid that is larger than CLIP was trained with.
WINDOWS = {"image_size": SIZE, "window": 64, "stride": 32, "join": "logits"}
METHOD_SCENES = 40  # of each style; the demo has five minutes
EDGE_SCENES = 12  # of each style; snapping to SAM's masks takes most of a second a scene


@dataclass(frozen=True)
class Contender:
    """A way to segment.

    Attributes:
        title: for the reader of a table.
        method: of `segmentation.methods`, with the miniature CLIP and, where it takes one, the miniature DINOv2;
            "" for a trained model.
        model: folder of the trained model; None for a method.
        settings: of the segmentation, those that differ from the defaults.
    """

    title: str
    method: str = ""
    model: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> AnySegmenter:
        """The segmenter."""
        refiner = miniatures.SAM if self.settings.get("refine") == "sam" else None
        if self.model is not None:
            return open_segmenter(self.model, mask_generator=refiner, device="cpu")
        encoder = miniatures.DINO if METHODS[self.method].needs_encoder else None
        return open_segmenter(method=self.method, image_text=miniatures.CLIP, encoder=encoder, device="cpu")


@dataclass(frozen=True)
class Comparison:
    """Scores as `contend` gives them.

    Attributes:
        methods: title of a contender -> "day_seen", "day_unseen_classes", "dusk_seen", "dusk_unseen_classes" -> scores.
        refinement: name of a refinement of the trained model's edges -> "day_seen", "dusk_seen" -> scores.
        seconds: name of a refinement -> seconds a scene, both styles together, the model's own included.
    """

    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    refinement: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


def compare_all(workers: Workers, *, model: Path, oracle: Path, places: Mapping[str, Place], quiet: bool) -> Comparison:
    """Every way to segment, and every way to sharpen edges, on the same unseen scenes.

    Args:
        workers: who segments.
        model, oracle: folders of the trained models.
        places: scenes by style.
        quiet: whether to show no progress.
    """
    everyone = [*training_free(), Contender("aligned", model=model), Contender("oracle: exact masks", model=oracle)]
    refined = [Contender(name, model=model, settings={"refine": name}) for name in get_args(Refine)]
    begun = [
        (who.title, style, workers.start(contend, who, place)) for who in everyone for style, place in places.items()
    ]
    begun_edges = [
        (who.title, style, workers.start(contend_edges, who, place, scenes=EDGE_SCENES))
        for who in refined
        for style, place in places.items()
    ]
    started = [future for *_, future in (*begun, *begun_edges)]
    with Progress(len(started), "comparing", "tables", quiet=quiet) as progress:
        finish_all(started, progress=progress, done=lambda: sum(future.done() for future in started))
    found = Comparison()
    for title, style, future in begun:
        columns = {f"{style}_{kind}": scores for kind, scores in future.result().items()}
        found.methods.setdefault(title, {}).update(columns)
    for title, style, edges in begun_edges:
        scores = edges.result()
        found.seconds[title] = round(found.seconds.get(title, 0.0) + scores.pop("seconds") / len(places), 4)
        found.refinement.setdefault(title, {})[f"{style}_seen"] = scores
    return found


def training_free() -> list[Contender]:
    """All methods that need no training, in windows of the miniature CLIP's own size, where they are at their best."""
    return [Contender(name, method=name, settings=WINDOWS) for name in METHODS]


def contend(contender: Contender, place: Place) -> dict[str, dict[str, Any]]:
    """Segment the first scenes of a set and hold the result against exact masks.

    Returns:
        "seen": the classes of labelling and training, which alone are on offer; "unseen_classes": those that nobody was
        told of, every class being on offer. Each has `miou` in [0, 1] with the ends `low` and `high` of its 95 %
        interval over scenes.
    """
    segmenter = contender.load()
    seen: list[ImageCounts] = []
    every: list[ImageCounts] = []
    for path in sorted(place.photos.iterdir())[:METHOD_SCENES]:
        with warnings.catch_warnings():
            # Every pixel of a scene has one of the classes, so that none is missing for want of a background.
            warnings.simplefilter("ignore", PatchwordWarning)
            found = segmenter.segment(path, classes=ALL, settings=contender.settings)
        if found.scores is None:
            raise PatchwordError(f"{contender.title} gives no scores; use a segmenter that does")
        # A class's scores do not depend on the others, so that one look answers for both lists.
        rows = range(found.label_map.indices.shape[0])
        best = found.scores.rows(rows, maps=range(len(SEEN))).argmax(dim=0).cpu().numpy()
        seen.append(_count(best, place.seen / f"{path.name}.png", names=SEEN))
        every.append(_count(found.label_map.indices, place.every / f"{path.name}.png", names=ALL))
    unseen = [position for position, name in enumerate(ALL) if name not in SEEN]
    return {
        "seen": _scores(Gathered.of(seen, count=len(SEEN), boundary=False), scored=range(len(SEEN))),
        "unseen_classes": _scores(Gathered.of(every, count=len(ALL), boundary=False), scored=unseen),
    }


def contend_edges(contender: Contender, place: Place, *, scenes: int) -> dict[str, Any]:
    """Segment the first scenes of a set and hold the result's edges too against exact masks.

    Returns:
        `miou`, `low` and `high` as of `contend` for the classes of the training, `boundary_iou` in [0, 1] and `seconds`
        a scene.
    """
    segmenter = contender.load()
    counted: list[ImageCounts] = []
    spent = 0.0
    for path in sorted(place.photos.iterdir())[:scenes]:
        started = time.perf_counter()
        found = segmenter.segment(path, classes=SEEN, settings=contender.settings)
        spent += time.perf_counter() - started
        truth = place.seen / f"{path.name}.png"
        counted.append(_count(found.label_map.indices, truth, names=SEEN, dilation=DILATION))
    gathered = Gathered.of(counted, count=len(SEEN), boundary=True)
    return {
        **_scores(gathered, scored=range(len(SEEN))),
        "boundary_iou": _mean(gathered.whole.boundary_iou()),
        "seconds": spent / len(counted),
    }


def _count(
    found: NDArray[np.integer[Any]], truth: Path, *, names: Sequence[str], dilation: float | None = None
) -> ImageCounts:
    exact = LabelMap.load(truth, names=tuple(names))
    expected = np.where(exact.indices == exact.ignore, -1, exact.indices.astype(np.int64))
    return count_image(found.astype(np.int64), expected, count=len(names), dilation=dilation)


def _scores(gathered: Gathered, *, scored: Sequence[int]) -> dict[str, Any]:
    per_class = gathered.whole.matrix.per_class()
    interval = bootstrap_interval(gathered.sums[:, list(scored), :3])
    return {
        "miou": _mean([per_class[position].iou for position in scored]),
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
