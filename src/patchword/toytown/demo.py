"""The whole way on Toytown, offline: draw, label, align, segment, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchword import api
from patchword.align.data import AlignmentData
from patchword.align.settings import AlignSettings
from patchword.errors import PatchwordError
from patchword.evaluate.report import EvaluationReport
from patchword.folders import prepare_output, write_json, write_text
from patchword.label.dataset import LabelledDataset
from patchword.label.fuse import fuse
from patchword.label.image import CLIP_PROMPTS_SAM, SAM_THEN_CLIP
from patchword.label.settings import LabelSettings
from patchword.maps import LabelMap
from patchword.models import load_image_text
from patchword.segment.baseline import DenseSegmenter
from patchword.segment.segmenter import Segmenter
from patchword.toytown import miniatures
from patchword.toytown.demo_report import Pictures, render
from patchword.toytown.demo_scenes import ALL, SIZE, Place, draw
from patchword.toytown.quality_check import FEWEST_IMAGES, check_quality
from patchword.toytown.world import SEEN, UNSEEN
from patchword.versions import versions
from patchword.vocabulary import Vocabulary

MARKER = "demo"
_STRIDE = 100_000
# Things are small in scenes of 192 pixels: finer crops find more of them, and more of those have to agree. Scenes have
# fewer things than photographs, so that half the points do.
LABEL_SETTINGS = LabelSettings(
    generator="both", grids=(1, 2, 3, 4), minimum_share=0.03, peaks=2, seed_budget=64, seed_clusters=32, seed_rest=16
)
# The photographs' defaults suit thousands of large pictures; a few hundred small scenes want more and larger steps.
ALIGN_SETTINGS = AlignSettings(image_size=SIZE, epochs=14, batch_size=8, learning_rate=2e-3, patch_sample=1024)


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
        out: folder for the scenes, the labels, the models, `report.html` and `report.json`; new or empty unless
            `overwrite` is set.
        seed: which scenes are drawn, and the seed of the training; 0 to 99.
        scenes: scenes to label and to learn from, 2 to 50,000.
        evaluated: unseen scenes of each style that the segmenters are judged on, 1 to 50,000.
        overwrite: empty the folder first, if it is an earlier demo's.
        quiet: whether to show no progress on standard error.

    Returns:
        the path of `report.html`.

    Raises:
        PatchwordError: on a number out of range, a folder in use, or a package without its miniature models.
    """
    if not 0 <= seed < 100:
        raise PatchwordError(f"seed of the demo is {seed}; allowed is 0 to 99")
    if not 2 <= scenes <= 50_000:
        raise PatchwordError(f"the demo with {scenes} scenes; allowed is 2 to 50000")
    if not 1 <= evaluated <= 50_000:
        raise PatchwordError(f"the demo judged on {evaluated} scenes; allowed is 1 to 50000")
    for folder in (miniatures.CLIP, miniatures.DINO, miniatures.SAM):
        if not (folder / "model.safetensors").is_file():
            raise PatchwordError(f"the miniature model {folder} is missing; install patchword again")
    folder = prepare_output(out, overwrite=overwrite, marker=MARKER)
    clock = _Clock()
    with clock.stage("draw"):
        labelled = draw(folder, "scenes", purpose="label", count=scenes, first=seed * _STRIDE, style="day")
        day = draw(folder, "day", purpose="evaluate-seen", count=evaluated, first=seed * _STRIDE, style="day")
        dusk = draw(folder, "dusk", purpose="evaluate-style", count=evaluated, first=seed * _STRIDE, style="dusk")
    run = _Run(folder, labelled, day, dusk, ALIGN_SETTINGS.model_copy(update={"seed": seed}), clock, quiet)
    scores = run.stages()
    record = {
        **scores,
        "seconds": {**clock.seconds, "total": round(sum(clock.seconds.values()), 1)},
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
    write_text(folder / "report.html", render(record, pictures=run.pictures(), per_class=run.per_class))
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

    def stages(self) -> dict[str, Any]:
        """Label, align, train the oracle, evaluate; returns the scores."""
        with self.clock.stage("label"):
            self.labels = self._label(self.labelled, "labels")
        with self.clock.stage("label dusk"):  # to be measured only; nothing is trained on these
            self.dusk_labels = self._label(self.dusk, "labels-dusk")
        with self.clock.stage("align"):
            self.model = api.align(self.labels, out=self.folder / "model", encoder=miniatures.DINO, **self._training())
        with self.clock.stage("oracle"):
            exact = AlignmentData.from_folders(
                self.labelled.photos, masks=self.labelled.seen, vocabulary=Vocabulary.of(SEEN)
            )
            self.oracle = api.align(
                exact,
                out=self.folder / "oracle",
                encoder=miniatures.DINO,
                text_encoder=miniatures.CLIP,
                **self._training(),
            )
        self.dense = DenseSegmenter(load_image_text(str(miniatures.CLIP), device="cpu"), image_size=SIZE)
        with self.clock.stage("evaluate"):
            return self._scores()

    def _label(self, place: Place, name: str) -> LabelledDataset:
        return api.label(
            place.photos,
            classes=SEEN,
            out=self.folder / name,
            image_text=miniatures.CLIP,
            mask_proposer=miniatures.SAM,
            settings=LABEL_SETTINGS,
            device="cpu",
            quiet=self.quiet,
        )

    def _training(self) -> dict[str, Any]:
        return {"settings": self.settings, "device": "cpu", "quiet": self.quiet}

    def _scores(self) -> dict[str, Any]:
        pseudo = self._pseudo(self.labels, self.labelled, "pseudo labels")
        pseudo_dusk = self._pseudo(self.dusk_labels, self.dusk, "pseudo labels, dusk")
        same = self._measure("aligned, same scenes", self.labelled, model=self.model)
        aligned = self._measure("aligned", self.day, model=self.model)
        dusk = self._measure("aligned, dusk", self.dusk, model=self.model)
        oracle = self._measure("oracle", self.day, model=self.oracle)
        dense = self._measure("dense CLIP", self.day, model=self.dense)
        unseen = self._measure("aligned, all names", self.day, model=self.model, classes=ALL)
        oracle_unseen = self._measure("oracle, all names", self.day, model=self.oracle, classes=ALL)
        dense_unseen = self._measure("dense CLIP, all names", self.day, model=self.dense, classes=ALL)
        return {
            "pseudo_labels": pseudo,
            "pseudo_labels_other_style": pseudo_dusk,
            "quality_score": {
                "day": _quality(self.labels, self.labelled),
                "dusk": _quality(self.dusk_labels, self.dusk),
            },
            "aligned": {
                "miou_same_scenes": same.miou,
                "miou_seen": aligned.miou,
                "miou_unseen_classes": _unseen_miou(unseen),
                "miou_other_style": dusk.miou,
            },
            "oracle": {"miou_seen": oracle.miou, "miou_unseen_classes": _unseen_miou(oracle_unseen)},
            "baseline_dense_clip": {"miou_seen": dense.miou, "miou_unseen_classes": _unseen_miou(dense_unseen)},
            "ratio_to_oracle": (aligned.miou or 0) / (oracle.miou or 1),
            "chance_among_all_classes": 1 / len(ALL),
        }

    def _pseudo(self, labels: LabelledDataset, place: Place, name: str) -> dict[str, Any]:
        """Scores of label maps as they are and as they would be, had only one generator spoken."""
        masks = {
            generator: _fused_alone(labels, generator, folder=self.folder / "alone" / labels.folder.name / generator)
            for generator in (CLIP_PROMPTS_SAM, SAM_THEN_CLIP)
        }
        alone = {
            generator: _pseudo_scores(self._measure(f"{name}, {generator} alone", place, predictions=folder))
            for generator, folder in masks.items()
        }
        fused = self._measure(name, place, predictions=labels.folder / "masks")
        return {**_pseudo_scores(fused), "by_generator": alone}

    def _measure(
        self,
        name: str,
        place: Place,
        *,
        model: Segmenter | DenseSegmenter | None = None,
        predictions: Path | None = None,
        classes: tuple[str, ...] = SEEN,
    ) -> EvaluationReport:
        masks = place.seen if classes == SEEN else place.every
        report = api.evaluate(
            place.photos,
            masks=masks,
            classes=classes,
            model=model,
            predictions=predictions,
            device="cpu",
            quiet=self.quiet,
        )
        self.per_class[name] = report
        return report

    def pictures(self, *, count: int = 6) -> Pictures:
        """Collect what the report shows: the first scenes of each set with what each stage made of them."""

        def truth(place: Place, path: Path) -> LabelMap:
            return LabelMap.load(place.every / f"{path.name}.png", names=ALL)

        labelled = sorted(self.labelled.photos.iterdir())[:count]
        names = SEEN
        rows = {"labelling": [], "day": [], "dusk": []}  # type: dict[str, list[list[tuple[str, Image.Image, LabelMap | None]]]]
        for path in labelled:
            image = Image.open(path)
            made = LabelMap.load(self.folder / "labels" / "masks" / f"{path.name}.png", names=names)
            again = self.model.segment(path, classes=names).label_map
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
                    for title, model in (("dense CLIP", self.dense), ("aligned", self.model), ("oracle", self.oracle))
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


def _fused_alone(labels: LabelledDataset, generator: str, *, folder: Path) -> Path:
    for item in labels.items:
        size = item.record.size
        if size is not None:
            segments = [segment for segment in item.segments() if segment.generator == generator]
            made = fuse(segments, size=size, names=SEEN, margin=LABEL_SETTINGS.margin)
            made.save(folder / f"{item.record.name}.png")
    return folder


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
