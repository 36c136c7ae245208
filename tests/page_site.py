"""Every kind of page from tiny inputs: no model runs. Names, reasons and class lists are long, as users' are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from label_fakes import ColourClip, RegionSam, picture
from numpy.typing import NDArray
from PIL import Image

import patchword as pw
from patchword.config.label import LabelSettings
from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.config.suggest import SuggestSettings
from patchword.data.image_files import find_images
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.evaluation.report import EvaluationReport
from patchword.evaluation.suite import SuiteEntry, SuiteRecord, published_beside, write_suite
from patchword.labeling.image import LabelParts
from patchword.labeling.quality.records import DISAGREEMENT_FILE
from patchword.labeling.quality.report import write_report
from patchword.labeling.run import label_folder
from patchword.segmentation.methods import METHODS
from patchword.segmentation.page import write_page
from patchword.segmentation.records import ResultRecord, SegmentationRecord
from patchword.segmentation.result import class_areas, mask_path
from patchword.suggestion.result import Example, Proposed, Suggestion
from patchword.suggestion.result import render as render_suggestion
from patchword.toytown.demo_report import render as render_demo
from patchword.versions import versions
from patchword.visualization.pages import encoded

NAMES = ("red", "blue", "a class whose name is rather long and-has-no-good-place-to-break; yellow")
LONG = "a_photograph_whose_name_is_much_too_long_for_the_screen_of_any_phone.png"
FAR = "/a/long/way/" * 20


def make_site(root: Path) -> dict[str, Path]:
    """All pages, as the folders of a demo lie, by kind."""
    photos = root / "photos"
    photos.mkdir()
    for name, rows in {
        "a.png": [["red", "red", "blue"]],
        "b.png": [["yellow"], ["blue"]],
        LONG: [["blue", "yellow"], ["white", "red"]],
        "twin.png": [["red", "red", "blue"]],
        "white.png": [["white"]],
    }.items():
        Image.fromarray(picture(rows, scale=32)).save(photos / name)
    (photos / "broken.png").write_bytes(b"no picture")
    for name in ("labels", "labels-dusk", "quality"):
        _label(photos, root / name, both=name == "labels")
    _doubt(root / "quality")
    write_report(root / "quality")
    _segment(photos, root / "masks")
    report = _evaluate(root / "labels", root, out=root / "evaluation")
    _evaluate(root / "labels", root, out=root / "suite" / "voc")
    (root / "report.html").write_text(_demo(report), encoding="utf-8")
    (root / "suggest.html").write_text(render_suggestion(_suggestion(), command="patchword suggest photos"), "utf-8")
    _suite(root / "suite")
    folders = ("labels", "quality", "masks", "evaluation", "suite")
    places = {name: root / name / "report.html" for name in folders}
    return {"demo": root / "report.html", "suggest": root / "suggest.html", **places}


def _label(photos: Path, out: Path, *, both: bool) -> None:
    parts = LabelParts.of(
        ColourClip(), mask_generator=RegionSam(), vocabulary=Vocabulary.of(list(NAMES), background=["white"])
    )
    if both:
        settings = LabelSettings(generator="both", sampling_clusters=4, stability_score_offset=0.5)
    else:
        settings = LabelSettings(peaks=2)
    label_folder(find_images(photos), root=photos, out=out, parts=parts, settings=settings, quiet=True)


def _doubt(labels: Path) -> None:
    mask = {"position": 0, "class_name": "red", "doubt": 0.75, "pixels": 1234, "instead": NAMES[2].split(";")[0]}
    line = {"name": LONG, "doubt": 0.5, "masks": [mask, mask | {"position": 1, "doubt": 0.25}]}
    (labels / DISAGREEMENT_FILE).write_text(json.dumps(line) + "\n", encoding="utf-8")


def _indices(seed: int) -> NDArray[np.int64]:
    found: NDArray[np.int64] = np.random.default_rng(seed).integers(0, 3, (4, 6)).repeat(20, axis=0).repeat(20, axis=1)
    return found


def _segment(photos: Path, folder: Path) -> None:
    vocabulary = Vocabulary.of(list(NAMES))
    results = {"broken.png": ResultRecord(name="broken.png", status="failed", reason="cannot read it " * 9)}
    for number, name in enumerate(("a.png", "b.png", LONG)):
        with Image.open(photos / name) as photograph:
            width, height = photograph.size
        labels = LabelMap(np.resize(_indices(number), (height, width)), vocabulary.names)
        labels.save(mask_path(folder, name))
        results[name] = ResultRecord(
            name=name,
            status="ok",
            size=(height, width),
            classes=class_areas(labels, with_runs=False),
            ignored=0,
            mean_confidence=(0.5, 0.25, 0.75)[number],
        )
    record = SegmentationRecord(
        complete=True,
        photographs="../photos",
        vocabulary=vocabulary.to_text(),
        vocabulary_hash=vocabulary.hash,
        names=vocabulary.names,
        segmenter={"kind": "none", "folder": FAR},
        settings=SegmentSettings(),
        folder_settings=FolderSettings(),
        shard=None,
        counts=None,
    )
    write_page(folder, record=record, results=results)


def _evaluate(labels: Path, root: Path, *, out: Path) -> EvaluationReport:
    """The labels' own masks, some pixels of them changed, are the truth."""
    truth, photos = root / "truth", root / "scored"
    for path in () if truth.is_dir() else sorted((labels / "masks").glob("*.png")):
        mask = np.array(Image.open(path))
        mask[: len(mask) // 3] = 1
        for folder, pixels in ((truth, mask), (photos, np.array(Image.open(root / "photos" / path.stem)))):
            folder.mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / (path.name if folder is truth else path.stem))
    return pw.evaluate(
        photos, masks=truth, classes=list(NAMES), predictions=labels / "masks", predictions_are="positions", out=out
    )


def _suggestion() -> Suggestion:
    jpeg = encoded(Image.new("RGB", (40, 30), "teal"), "JPEG")
    found = Proposed("cat", photographs=3, crops=12, near=("dog", "x" * 40), examples=(Example(LONG, 0.1, jpeg),) * 4)
    return Suggestion(
        vocabulary=Vocabulary.of(["cat; kitten; pussycat", "sofa"], background=["wall"]),
        classes=(found, Proposed("sofa", photographs=1, crops=1)),
        background=(Proposed("wall", photographs=4, crops=20),),
        missed=(Proposed("lamp", photographs=1, crops=2), Proposed("rug", photographs=1, crops=3)),
        photographs=4,
        found=5,
        crops=80,
        failed={LONG: "cannot read it " * 9},
        model=FAR,
        settings=SuggestSettings(),
    )


def _demo(report: EvaluationReport) -> str:
    score = {"miou": 0.25, "low": 0.2, "high": 0.3, "boundary_iou": 0.125}
    columns = dict.fromkeys(("day_seen", "day_unseen_classes", "dusk_seen", "dusk_unseen_classes"), score)
    parts = {"miou": 0.5, "pixel_accuracy": 0.75, "coverage": 1.0, "pixel_accuracy_where_labelled": 0.75}
    generators = {"clip-prompts-sam": parts, "sam-then-clip": parts}
    aligned = {"miou_same_scenes": 0.5, "miou_seen": 0.4, "miou_unseen_classes": 0.05, "miou_other_style": 0.3}
    quality = {"images": 9, "spearman": 0.5, "low": 0.25, "high": 0.75, "worst_fifth": 0.25, "all": 0.5}
    refinements = ("none", "jbu", "pamr", "sam")
    record: dict[str, Any] = {
        "pseudo_labels": {**parts, "by_generator": generators},
        "pseudo_labels_other_style": {**parts, "by_generator": generators},
        "quality_score": {"day": quality | {"best_fifth": 0.75}, "dusk": None},
        "aligned": aligned,
        "oracle": aligned,
        "baseline_dense_clip": {"miou_seen": 0.2, "miou_unseen_classes": 0.05},
        "methods": dict.fromkeys((*METHODS, "aligned", "oracle: exact masks"), columns),
        "refinement": dict.fromkeys(refinements, columns),
        "ratio_to_oracle": 0.8,
        "chance_among_all_classes": 0.025,
        "seconds": {"draw": 1.0, "align, and the oracle beside it": 100.0, "total": 101.0},
        "seconds_a_scene": dict.fromkeys(refinements, 0.5),
        "versions": versions(),
        "settings": {"command": "patchword demo -o DIR --seed 0 --scenes 260", "scenes": 260, "seen_classes": NAMES},
    }
    image = Image.fromarray(picture([["red", "blue"]], scale=48))
    mask = LabelMap(np.eye(96, dtype=np.uint8)[:48], ("red", "blue"))
    row = [("scene", image, None), *((title, image, mask) for title in ("dense CLIP", "aligned", "oracle", "exact"))]
    wanted = ("pseudo labels", "pseudo labels, clip-prompts-sam alone", "aligned, all names", "dense CLIP, all names")
    return render_demo(
        record,
        pictures={"labelling": [row[:4], row[:4]], "day": [row], "dusk": [row]},
        per_class=dict.fromkeys(wanted, report),
    )


def _suite(folder: Path) -> None:
    entries = (
        SuiteEntry(benchmark="voc", status="measured", miou=0.5, images=9, of=9, folder="voc"),
        SuiteEntry(benchmark="context", status="partial", miou=0.001, images=2, of=900, folder="voc", at_chance=True),
        SuiteEntry(benchmark="ade20k", status="missing", of=2000, reason=f"not in {FAR}"),
    )
    record = SuiteRecord(
        suite="standard",
        protocol="tcl448",
        row=FAR,
        changed={"window": [224, 224]},
        entries=entries,
        published=published_beside("tcl448"),
        command=f"patchword benchmark --suite standard --model {FAR}",
        versions=versions(),
    )
    write_suite(record, folder)
