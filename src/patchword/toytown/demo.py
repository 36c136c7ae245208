"""The whole way on Toytown, offline: draw, label, align, segment, evaluate, report."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import patchword
from patchword.config.align import AlignSettings
from patchword.config.label import LabelSettings
from patchword.data.folders import prepare_output, write_json, write_text
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, PatchwordWarning
from patchword.evaluation.report import EvaluationReport
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.generators import CLIP_PROMPTS_SAM, SAM_THEN_CLIP
from patchword.runs.progress import Progress
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN, UNSEEN
from patchword.toytown.demo_compare import Comparison, compare_all
from patchword.toytown.demo_report import Panel, Pictures, render
from patchword.toytown.demo_scenes import ALL, SIZE, Place
from patchword.toytown.demo_work import (
    Workers,
    dense_segmenter,
    draw_places,
    finish_all,
    label_places,
    measure,
    measure_alone,
    segment_some,
    train,
    train_oracle,
)
from patchword.toytown.quality_check import FEWEST_IMAGES, check_quality
from patchword.versions import versions

MARKER = "demo"
GENERATORS = (CLIP_PROMPTS_SAM, SAM_THEN_CLIP)
_STRIDE = 100_000
# All else is the default. In scenes of 192 pixels things are small: finer crops find more of them, two crops are enough
# to show one, and the miniature SAM expects too little of thin masks. Training looks at a quarter of the pairs of
# patches, so that a demo lasts five minutes.
LABEL_SETTINGS = LabelSettings(grids=(1, 2, 3, 4), minimum_share=0.02, proposal_pred_iou_thresh=0.5)
ALIGN_SETTINGS = AlignSettings(image_size=SIZE, patch_sample=1024)


@dataclass
class _Clock:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - started, 1)


def run_demo(
    out: str | Path,
    *,
    seed: int = 0,
    scenes: int = 260,
    evaluated: int = 60,
    overwrite: bool = False,
    quiet: bool = False,
) -> Path:
    """Run every stage on freshly drawn scenes and write a report.

    Args:
        out: folder for scenes, labels, models, masks, an evaluation, `report.html` and `report.json`; new or empty
            unless `overwrite` is set.
        seed: which scenes are drawn, and the seed of the training; 0 to 99.
        scenes: scenes to label and to learn from, 2 to 50,000.
        evaluated: unseen scenes of each style that the segmenters are judged on, 1 to 50,000.
        overwrite: empty the folder first, if it is an earlier demo's.
        quiet: whether to show no progress on standard error.

    Returns:
        the path of `report.html`.
    """
    if not 0 <= seed < 100:
        raise PatchwordError(f"seed of the demo is {seed}; choose 0 to 99")
    if not 2 <= scenes <= 50_000:
        raise PatchwordError(f"the demo with {scenes} scenes; choose 2 to 50000")
    if not 1 <= evaluated <= 50_000:
        raise PatchwordError(f"the demo evaluated on {evaluated} scenes; choose 1 to 50000")
    for folder in (miniatures.CLIP, miniatures.DINO, miniatures.SAM):
        if not (folder / "model.safetensors").is_file():
            raise PatchwordError(f"the miniature model {folder} is missing; install patchword again")
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    clock = _Clock()
    sets = [
        ("scenes", "label", scenes, "day"),
        ("day", "evaluate-seen", evaluated, "day"),
        ("dusk", "evaluate-style", evaluated, "dusk"),
    ]
    with warnings.catch_warnings(), Workers() as workers:
        warnings.simplefilter("ignore", PatchwordWarning)  # every pixel of a scene has one of the classes
        with clock.stage("draw"):
            labelled, day, dusk = draw_places(workers, folder, sets, first=seed * _STRIDE)
        run = _Run(folder, labelled, day, dusk, ALIGN_SETTINGS.model_copy(update={"seed": seed}), clock, quiet)
        scores, pictures = run.stages(workers), run.pictures()
    record = {
        **scores,
        "seconds": {**clock.seconds, "total": round(sum(clock.seconds.values()), 1)},
        "seconds_a_scene": run.comparison.seconds,
        "versions": versions(),
        "settings": {
            "seed": seed,
            "scenes": scenes,
            "evaluated_scenes": evaluated,
            "size": SIZE,
            "seen_classes": list(SEEN),
            "unseen_classes": list(UNSEEN),
            "label": LABEL_SETTINGS.model_dump(mode="json"),
            "align": run.settings.model_dump(mode="json"),
            "command": f"patchword demo -o DIR --seed {seed} --scenes {scenes}",
        },
    }
    write_json(folder / "report.json", record)
    write_text(folder / "report.html", render(record, pictures=pictures, per_class=run.per_class))
    return folder / "report.html"


@dataclass
class _Run:
    """The stages after drawing, which hand each other folders just as a user's own commands would."""

    folder: Path
    labelled: Place
    day: Place
    dusk: Place
    settings: AlignSettings
    clock: _Clock
    quiet: bool
    per_class: dict[str, EvaluationReport] = field(default_factory=dict)
    comparison: Comparison = field(default_factory=Comparison)

    def stages(self, workers: Workers) -> dict[str, Any]:
        """Label, align, train the oracle, evaluate; returns the scores."""
        with self.clock.stage("label"):  # dusk to be measured only; nothing is trained on it
            places = [(self.dusk, self.folder / "labels-dusk"), (self.labelled, self.folder / "labels")]
            self.dusk_labels, self.labels = label_places(workers, places, settings=LABEL_SETTINGS, quiet=self.quiet)
        with self.clock.stage("align, and the oracle beside it"):
            aligned = workers.start(
                train, self.labels.folder, out=self.folder / "model", settings=self.settings, quiet=self.quiet
            )
            oracle = workers.start(train_oracle, self.labelled, out=self.folder / "oracle", settings=self.settings)
            aligned.result()
            oracle.result()
        with self.clock.stage("evaluate"):
            self._measure_all(workers)
        with self.clock.stage("compare"):
            self.comparison = compare_all(
                workers,
                model=self.folder / "model",
                oracle=self.folder / "oracle",
                places={"day": self.day, "dusk": self.dusk},
                quiet=self.quiet,
            )
        return self._scores()

    def _measure_all(self, workers: Workers) -> None:
        model, oracle = self.folder / "model", self.folder / "oracle"
        started = {}
        for labels, place, name in (
            (self.labels, self.labelled, "pseudo labels"),
            (self.dusk_labels, self.dusk, "pseudo labels, dusk"),
        ):
            started[name] = workers.start(measure, place, predictions=labels.folder / "masks")
            for generator in GENERATORS:
                started[f"{name}, {generator} alone"] = workers.start(
                    measure_alone,
                    labels.folder,
                    place,
                    generator=generator,
                    margin=LABEL_SETTINGS.margin,
                    out=self.folder / "alone" / labels.folder.name / generator,
                )
        wanted: dict[str, tuple[Place, dict[str, Any]]] = {
            "aligned, same scenes": (self.labelled, {"model": model}),
            "aligned": (self.day, {"model": model, "out": self.folder / "evaluation"}),
            "aligned, dusk": (self.dusk, {"model": model}),
            "oracle": (self.day, {"model": oracle}),
            "dense CLIP": (self.day, {}),
            "aligned, all names": (self.day, {"model": model, "classes": ALL}),
            "oracle, all names": (self.day, {"model": oracle, "classes": ALL}),
            "dense CLIP, all names": (self.day, {"classes": ALL}),
        }
        started |= {name: workers.start(measure, place, **options) for name, (place, options) in wanted.items()}
        segmented = workers.start(segment_some, self.day, model=model, out=self.folder / "masks")
        with Progress(len(started), "evaluating", "reports", quiet=self.quiet) as progress:
            futures = list(started.values())
            reports = finish_all(futures, progress=progress, done=lambda: sum(future.done() for future in futures))
        segmented.result()
        self.per_class = dict(zip(started, reports, strict=True))

    def _scores(self) -> dict[str, Any]:
        miou = {name: report.miou for name, report in self.per_class.items()}
        unseen = {
            name: _unseen_miou(self.per_class[f"{name}, all names"]) for name in ("aligned", "oracle", "dense CLIP")
        }
        return {
            "pseudo_labels": self._pseudo("pseudo labels"),
            "pseudo_labels_other_style": self._pseudo("pseudo labels, dusk"),
            "quality_score": {
                "day": _quality(self.labels, self.labelled),
                "dusk": _quality(self.dusk_labels, self.dusk),
            },
            "aligned": {
                "miou_same_scenes": miou["aligned, same scenes"],
                "miou_seen": miou["aligned"],
                "miou_unseen_classes": unseen["aligned"],
                "miou_other_style": miou["aligned, dusk"],
            },
            "oracle": {"miou_seen": miou["oracle"], "miou_unseen_classes": unseen["oracle"]},
            "baseline_dense_clip": {"miou_seen": miou["dense CLIP"], "miou_unseen_classes": unseen["dense CLIP"]},
            "methods": self.comparison.methods,
            "refinement": self.comparison.refinement,
            "ratio_to_oracle": (miou["aligned"] or 0) / (miou["oracle"] or 1),
            "chance_among_all_classes": 1 / len(ALL),
        }

    def _pseudo(self, name: str) -> dict[str, Any]:
        """Scores of label maps as they are and as they would be, had only one generator spoken."""
        alone = {generator: _pseudo_scores(self.per_class[f"{name}, {generator} alone"]) for generator in GENERATORS}
        return {**_pseudo_scores(self.per_class[name]), "by_generator": alone}

    def pictures(self, *, count: int = 4) -> Pictures:
        """Collect what the report shows: the first scenes of each set with what each stage made of them."""

        def truth(place: Place, path: Path) -> LabelMap:
            return LabelMap.load(place.every / f"{path.name}.png", names=ALL)

        labelled = sorted(self.labelled.photos.iterdir())[:count]
        names = SEEN
        dense = dense_segmenter()
        aligned, oracle = (patchword.load(self.folder / name, device="cpu") for name in ("model", "oracle"))
        rows: dict[str, list[list[Panel]]] = {"labelling": [], "day": [], "dusk": []}
        for path in labelled:
            image = Image.open(path)
            made = LabelMap.load(self.folder / "labels" / "masks" / f"{path.name}.png", names=names)
            again = aligned.segment(path, classes=names).label_map
            rows["labelling"].append(
                [
                    ("scene", image, None),
                    ("pseudo labels", image, made),
                    ("aligned model", image, again),
                    ("exact", image, truth(self.labelled, path)),
                ]
            )
        for key, place in (("day", self.day), ("dusk", self.dusk)):
            for path in sorted(place.photos.iterdir())[:count]:
                image = Image.open(path)
                found = [
                    (title, image, model.segment(path, classes=ALL).label_map)
                    for title, model in (("dense CLIP", dense), ("aligned", aligned), ("oracle", oracle))
                ]
                rows[key].append([("scene", image, None), *found, ("exact", image, truth(place, path))])
        return rows


def _quality(labels: LabelledDataset, place: Place) -> dict[str, float | None] | None:
    """How well the score without ground truth ranks the scenes; None for fewer than have fifths."""
    if len(labels.items) < FEWEST_IMAGES:
        return None
    check = check_quality(labels, masks=place.seen)
    return {
        "images": check.images,
        "spearman": check.score.spearman,
        "low": check.interval[0],
        "high": check.interval[1],
        "worst_fifth": check.score.worst_fifth,
        "all": check.miou,
        "best_fifth": check.score.best_fifth,
    }


def _pseudo_scores(report: EvaluationReport) -> dict[str, float | None]:
    return {
        "miou": report.miou,
        "coverage": report.coverage,
        "pixel_accuracy": report.pixel_accuracy,
        "pixel_accuracy_where_labelled": (report.pixel_accuracy or 0) / (report.coverage or 1),
    }


def _unseen_miou(report: EvaluationReport) -> float | None:
    """Mean IoU of the classes that labelling and training never heard of, all being on offer; None without any."""
    found = [row.iou for row in report.classes if row.name in UNSEEN and row.iou is not None]
    return float(np.mean(found)) if found else None
