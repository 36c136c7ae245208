"""Runs a grid: trains every row with every seed, judges it, and writes one table."""

from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import patchword
from patchword.ablation.grid import LABELS, SAME, AblationGrid, Row, Test
from patchword.alignment.api import encoder_for
from patchword.alignment.data import AlignmentData, AlignmentItem
from patchword.config.align import WITHOUT_EFFECT, AlignSettings
from patchword.config.evaluate import ScoredRun
from patchword.config.shared import DtypeName
from patchword.data.folders import prepare_output, remove_leftovers, write_json, write_text
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, find_mask
from patchword.errors import PatchwordError
from patchword.evaluation.masks import DataRecord, EvaluationTask, MaskRule, Pair
from patchword.evaluation.predictors import FolderPredictor, Predictor, SegmenterPredictor
from patchword.evaluation.report import EvaluationReport
from patchword.evaluation.run import evaluate_task
from patchword.labeling.dataset import LabelledDataset
from patchword.models.loading import Loader
from patchword.models.protocols import ImageTextEncoder, PatchEncoder
from patchword.models.registry import ModelName
from patchword.runs.progress import say
from patchword.runs.records import Numerics
from patchword.segmentation.segmenter import Segmenter
from patchword.versions import versions

MARKER = "ablation"
RESULTS, TABLE, RECORD = "results.jsonl", "table.md", "ablation.json"


@dataclass(frozen=True)
class Score:
    """One cell of the table: mean and standard deviation over the seeds, mIoU in [0, 1]; none where nothing counts."""

    mean: float | None
    deviation: float | None


@dataclass(frozen=True)
class AblationTable:
    """The outcome: for each row's name, a score a column."""

    columns: tuple[str, ...]
    rows: dict[str, tuple[Score, ...]]
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls,
        found: Mapping[str, Sequence[Mapping[str, float | None]]],
        *,
        columns: tuple[str, ...],
        seeds: tuple[int, ...],
    ) -> AblationTable:
        """The table of scores: row -> for each seed its scores by column."""
        rows = {
            name: tuple(_score([scores[column] for scores in of_seeds]) for column in columns)
            for name, of_seeds in found.items()
        }
        return cls(columns, rows, seeds)

    def markdown(self) -> str:
        """The table as text, in per cent."""
        lines = [
            f"| mIoU, per cent, mean ± deviation over {len(self.seeds)} seeds | {' | '.join(self.columns)} |",
            f"|{'---|' * (len(self.columns) + 1)}",
            *(f"| {name} | {' | '.join(_cell(score) for score in scores)} |" for name, scores in self.rows.items()),
        ]
        return "\n".join(lines) + "\n"


def run_ablation(
    grid: AblationGrid,
    *,
    out: str | Path,
    encoder: PatchEncoder | None = None,
    text_encoder: ImageTextEncoder | None = None,
    device: str = "auto",
    dtype: DtypeName = "auto",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> AblationTable:
    """Train and judge every row with every seed; the oracle is always among them.

    Features are computed once an encoder and kept in `out` for all rows. A run that was stopped goes on with `resume`.

    Args:
        grid: what to run.
        out: folder of the results.
        encoder: a loaded vision encoder in place of the grid's.
        text_encoder: a loaded image-text model in place of the one that labelled.
        device, dtype: of the models, as for `align`.
        resume: go on where an earlier run stopped; rows that were made with other settings, tests or another encoder
            are made again.
        overwrite: empty the folder first, if it is an earlier ablation's.
        quiet: whether to show no progress.

    Returns:
        the table; it is in `out` as `table.md` and `ablation.json` too.
    """
    labels = LabelledDataset.open(grid.labels).reviewed()
    truth = Path(grid.truth)
    for item in labels.items:  # before hours of training, not after
        exact_mask(truth, item.record.name)
    folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    loader = Loader(device=device, dtype=dtype)
    vision = encoder or loader.patch_encoder(encoder_for(labels, encoder=grid.encoder, preset=None))
    text = text_encoder or _labeller(labels, loader)
    runs = _Runs(grid, labels, truth, folder, vision, text, device, dtype, quiet)
    numerics = Numerics.of({"vision encoder": vision, "text encoder": text})
    with Manifest(folder / RESULTS) as manifest:
        done = manifest.read()
        _check_numerics(done.values(), numerics, folder=folder)
        remove_leftovers(folder)
        for seed in grid.seeds:
            for row in grid.all_rows:
                key = f"{row.name} | {seed}"
                asked = runs.asked(row, seed=seed)
                if key in done and any(done[key].get(name) != value for name, value in asked.items()):
                    said = "had other settings or tests, or another encoder; it is trained again"
                    say(f"row {row.name!r}, seed {seed}, {said}", quiet=quiet)
                elif key in done:
                    continue
                scores = runs.train_and_judge(row, seed=seed)
                manifest.append({"name": key, **asked, "numerics": numerics.model_dump(), "scores": scores})
    records = manifest.finish()
    found = {row.name: [records[f"{row.name} | {seed}"]["scores"] for seed in grid.seeds] for row in grid.all_rows}
    table = AblationTable.of(found, columns=grid.columns, seeds=grid.seeds)
    write_text(folder / TABLE, table.markdown())
    write_json(folder / RECORD, {"grid": grid.model_dump(mode="json"), "scores": found, "versions": versions()})
    return table


def _check_numerics(rows: Iterable[Mapping[str, Any]], now: Numerics, *, folder: Path) -> None:
    """Refuse a table of which some rows were computed in another type or on another device."""
    for earlier in (Numerics.model_validate(row["numerics"]) for row in rows if "numerics" in row):
        for what, before, after in earlier.differences(now):
            raise PatchwordError(
                f"cannot resume {folder}: {what} was {before}, now {after}; {earlier.advice()}, or choose another "
                "folder"
            )


@dataclass(frozen=True)
class _Runs:
    grid: AblationGrid
    labels: LabelledDataset
    truth: Path
    folder: Path
    encoder: PatchEncoder
    text_encoder: ImageTextEncoder
    device: str
    dtype: DtypeName
    quiet: bool

    def asked(self, row: Row, *, seed: int) -> dict[str, Any]:
        """What decides the scores of a row, but for the files: with anything else it is another row."""
        settings = AlignSettings.of({**self.grid.settings, **row.settings, "seed": seed})
        return {
            "row": row.model_dump(mode="json"),
            "seed": seed,
            "settings": settings.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
            "tests": [test.model_dump(mode="json", exclude={"photos", "masks"}) for test in self.grid.tests],
            "encoder": self.encoder.record.fingerprint,
        }

    def train_and_judge(self, row: Row, *, seed: int) -> dict[str, float | None]:
        """mIoU by column."""
        work = self.folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        data = training_data(self.labels, row=row, seed=seed, truth=self.truth, noisy=work / "noisy")
        segmenter = patchword.align(
            data,
            out=work / "model",
            encoder=row.encoder or self.encoder,
            text_encoder=self.text_encoder,
            settings={**self.grid.settings, **row.settings, "seed": seed},
            cache=self.folder / "features",
            device=self.device,
            dtype=self.dtype,
            quiet=self.quiet,
        )
        scores = {LABELS: self._labels_alone(data), SAME: self._same(segmenter, data)}
        scores |= {test.name: self._test(segmenter, test) for test in self.grid.tests}
        shutil.rmtree(work, ignore_errors=True)
        return scores

    def _labels_alone(self, data: AlignmentData) -> float | None:
        names = {item.image: item.record.name for item in self.labels.items}
        maps = {names[item.image]: item.label_map for item in data.items}
        vocabulary = self.labels.vocabulary
        return self._miou(data, FolderPredictor(self.labels.folder, maps, MaskRule(vocabulary), vocabulary.names))

    def _same(self, segmenter: Segmenter, data: AlignmentData) -> float | None:
        return self._miou(data, SegmenterPredictor.of(segmenter, truth=MaskRule(self.labels.vocabulary)))

    def _miou(self, data: AlignmentData, predictor: Predictor) -> float | None:
        place = DataRecord(photographs=str(self.labels.folder), masks=str(self.truth), reading={}, selection={})
        task = EvaluationTask(tuple(self._pairs(data)), MaskRule(self.labels.vocabulary), place)
        run = ScoredRun(scoring={"boundary": False, "resamples": 0}, quiet=self.quiet)
        return evaluate_task(task, predictor=predictor, run=run).miou

    def _pairs(self, data: AlignmentData) -> list[Pair]:
        names = {item.image: item.record.name for item in self.labels.items}
        return [Pair(names[item.image], item.image, exact_mask(self.truth, names[item.image])) for item in data.items]

    def _test(self, segmenter: Segmenter, test: Test) -> float | None:
        classes = self.labels.vocabulary if test.classes is None else list(test.classes)
        report = patchword.evaluate(
            test.photos,
            masks=test.masks,
            classes=classes,
            model=segmenter,
            quiet=self.quiet,
        )
        return report.miou if test.score is None else _mean_of(report, test.score)


def _labeller(labels: LabelledDataset, loader: Loader) -> ImageTextEncoder:
    if labels.image_text is None:
        raise PatchwordError(f"{labels.folder} does not say which image-text model it was made with")
    return loader.image_text(ModelName.of(labels.image_text))


def _mean_of(report: EvaluationReport, names: Sequence[str]) -> float | None:
    found = [entry.iou for entry in report.classes if entry.name in names and entry.iou is not None]
    return float(np.mean(found)) if found else None


def _score(values: Sequence[float | None]) -> Score:
    known = [value for value in values if value is not None]
    if not known:
        return Score(None, None)
    return Score(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


def _cell(score: Score) -> str:
    if score.mean is None:
        return "–"
    deviation = "" if score.deviation is None else f" ± {100 * score.deviation:.1f}"
    return f"{100 * score.mean:.1f}{deviation}"


def training_data(labels: LabelledDataset, *, row: Row, seed: int, truth: Path, noisy: Path) -> AlignmentData:
    """The photographs, label maps and mask embeddings that a row is trained on; exact masks have no embeddings."""
    items = [
        (item.record.name, AlignmentItem(item.image, item.label_map, item.embeddings_file)) for item in labels.items
    ]
    if row.images is not None:
        items = _drawn(items, count=row.images, seed=seed)
    if row.exact:
        return AlignmentData(
            tuple(AlignmentItem(item.image, exact_mask(truth, name)) for name, item in items), labels.vocabulary
        )
    if row.label_noise == 0:
        return AlignmentData(tuple(item for _, item in items), labels.vocabulary, labels.image_text)
    made = []
    for name, item in items:
        label_map = LabelMap.load(item.label_map, names=labels.vocabulary.names)
        path = noisy / f"{name}.png"
        wrong_names(label_map, share=row.label_noise, seed=_seed_of(seed, name)).save(path)
        made.append(replace(item, label_map=path))
    return AlignmentData(tuple(made), labels.vocabulary, labels.image_text)


def exact_mask(truth: Path, name: str) -> Path:
    """The exact mask of a photograph."""
    found = find_mask(truth, name=name)
    if found is None:
        raise PatchwordError(
            f"{name} has no exact mask in {truth}; the mask of a/b.jpg is named a/b.jpg.png or a/b.png"
        )
    return found


def wrong_names(label_map: LabelMap, *, share: float, seed: int) -> LabelMap:
    """Give regions another name: all pixels of a class in the image together, as a labeller that errs would.

    Args:
        label_map: (h, w).
        share: probability in [0, 1] with which each class of the image gets another name, drawn evenly among the
            others.

    Returns:
        (h, w); the same pixels have a label.
    """
    random = np.random.default_rng(seed)
    count = len(label_map.names)
    names: NDArray[np.int64] = np.arange(label_map.ignore + 1)
    for index in range(count):  # one draw a class, whether it is there or not, so that maps do not shift each other's
        other = int(random.integers(count - 1)) if count > 1 else index
        if random.random() < share and count > 1:
            names[index] = other + (other >= index)
    return LabelMap(names[label_map.indices], label_map.names)


def _drawn(items: Sequence[tuple[str, AlignmentItem]], *, count: int, seed: int) -> list[tuple[str, AlignmentItem]]:
    if count > len(items):
        raise PatchwordError(f"a row wants {count} photographs; the labels have {len(items)}")
    chosen = np.random.default_rng(seed).permutation(len(items))[:count]
    return [items[position] for position in sorted(chosen.tolist())]


def _seed_of(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()[:8], "big")
