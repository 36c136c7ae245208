"""The page of `report.html`: plain HTML that needs no network, with a few lines of script to sort and to enlarge."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from patchword.evaluation.counts import Interval
from patchword.evaluation.failure_cases import MISSED, PANELS, WRONG, FailureCase
from patchword.evaluation.records import ImageScore, colours_of
from patchword.evaluation.report import SCORES, EvaluationReport, percent
from patchword.visualization.html import SORT, STYLE, bars, cell, embed, head, number, swatch, table, text, words

PAGE_FILE = "report.html"
_BINS = 20
_PLACES = {"scores": "scores", "classes": "classes", "confusion": "confusion", "images": "images", "made": "made with"}
_MEANINGS = {
    "miou": "intersection over union of each class over all images, averaged over classes",
    "frequency_weighted_iou": "the same, each class weighted by its pixels in the masks",
    "boundary_iou": "the same of the pixels near contours alone",
    "pixel_accuracy": "share of the masks' pixels that are predicted rightly",
    "mean_accuracy": "the same for each class, averaged over classes",
    "coverage": "share of the masks' pixels that have any prediction",
}
_LARGE = """
td { white-space: nowrap; } td.words { white-space: normal; }
.strip img, .matrix img { max-width: 100%; height: auto; display: block; cursor: zoom-in; }
.panels { display: grid; grid-template-columns: repeat(4, 1fr); text-align: center; font-size: .85rem; color: #444; }
dialog { width: 100%; height: 100%; max-width: 100%; max-height: 100%; border: 0; padding: 0; background: #222d; }
dialog img { display: block; margin: auto; min-width: 100%; cursor: zoom-out; }
.notice { background: #fff4ce; border-left: .3rem solid #b7791f; padding: .5rem .8rem; }
"""
_ENLARGE = """
const large = document.createElement('dialog');
document.body.append(large);
large.onclick = () => large.close();
for (const image of document.querySelectorAll('.strip img, .matrix img')) image.onclick = () => {
  large.replaceChildren(image.cloneNode());
  large.showModal();
};
"""


def render_page(
    report: EvaluationReport,
    *,
    images: Sequence[ImageScore],
    worst: Sequence[FailureCase],
    confusion: bytes,
) -> str:
    """Write the page; the same content gives the same text.

    Args:
        report: the scores.
        images: every image.
        worst: those of lowest score, the lowest first.
        confusion: PNG file of the confusion matrix.
    """
    sections = [
        _head(report),
        _scores(report),
        _classes(report),
        "<h2 id='confusion'>Confusion</h2><p>Blue is right, red is wrong; the scale shows small shares too. "
        "Click to enlarge.</p>"
        f"<div class='matrix'>{embed(confusion, kind='png', description='confusion matrix of the classes')}</div>",
        _images(report, images, worst),
        _made_with(report),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        "<meta name='generator' content='patchword'>\n"
        f"<title>Evaluation</title>\n<style>{STYLE}{_LARGE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SORT}{_ENLARGE}</script>\n</body>\n</html>\n"
    )


def chance_line(report: EvaluationReport) -> str:
    """What no looking at the images would score, in a sentence; empty where nothing was scored."""
    chance = report.chance
    if chance is None:
        return ""
    told = (
        f"Chance: {percent(chance.constant_miou)} mIoU for saying {chance.constant_class} everywhere, "
        f"{percent(chance.random_miou)} for dealing the predicted classes out at random."
    )
    return f"{told} This score is at the level of chance." if chance.at_chance else told


def _head(report: EvaluationReport) -> str:
    facts = {
        "images": f"{report.images:,}",
        "pixels that count": f"{report.pixels:,}",
        "classes that occur": f"{sum(entry.iou is not None for entry in report.classes):,}",
        **{name: _share(value) for name, value in report.scores().items()},
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    links = "".join(f"<a href='#{place}'>{title}</a>" for place, title in _PLACES.items())
    data = report.data
    named = " under ".join(part for part in (data.benchmark, data.protocol and f"protocol {data.protocol}") if part)
    lines = [*([named] if named else []), f"photographs {data.photographs}", f"masks {data.masks}"]
    where = "".join(f"<p class='where'>{text(line)}</p>" for line in lines)
    chance = chance_line(report)
    noticed = " class='notice'" if report.chance is not None and report.chance.at_chance else ""
    told = f"<p{noticed}>{text(chance)}</p>" if chance else ""
    remarks = "".join(f"<p class='notice'>{text(remark)}</p>" for remark in report.remarks())
    return f"<header><h1>Evaluation</h1>{where}<nav>{links}</nav></header><dl class='facts'>{cells}</dl>{remarks}{told}"


def _scores(report: EvaluationReport) -> str:
    rows = (
        head(SCORES[field])
        + cell(_share(getattr(report, field)))
        + cell(_between(report.intervals.get(field)))
        + words(_MEANINGS[field])
        for field in SCORES
        if getattr(report, field) is not None
    )
    scoring = report.scoring
    sure = (
        f"<p>Between: what {scoring.level:.0%} of {scoring.resamples:,} resamples of the images give. It says how much "
        "the choice of images matters, and nothing of other photographs than such.</p>"
        if report.intervals
        else ""
    )
    listed = table("Scores over all classes", ("score", "value", "between", "meaning"), rows, texts=["meaning"])
    return f"<h2 id='scores'>Scores</h2>{sure}{listed}<p>Rule: {text(report.rule)}.</p>"


def _classes(report: EvaluationReport) -> str:
    colours = _hex_colours(report)
    measured = report.boundary_iou is not None
    rows = (
        head(entry.name, before=swatch(colours[entry.name]))
        + cell(_share(entry.iou))
        + cell(_between(entry.iou_interval))
        + (cell(_share(entry.boundary_iou)) if measured else "")
        + cell(_share(entry.accuracy))
        + cell(f"{entry.truth_pixels:,}")
        + cell(f"{entry.predicted_pixels:,}")
        + cell(f"{entry.images:,}")
        + words(entry.confused_with or "")
        for entry in report.classes
        if entry.iou is not None
    )
    header = ("class", "IoU", "between", *(["boundary IoU"] if measured else []), "accuracy")
    header = (*header, "pixels in masks", "pixels predicted", "images", "most confused with")
    absent = [entry.name for entry in report.classes if entry.iou is None]
    note = f"<p>In neither masks nor predictions, and in no mean: {text(', '.join(absent))}.</p>" if absent else ""
    return "<h2 id='classes'>Classes</h2>" + table("Classes", header, rows, texts=["most confused with"]) + note


def _images(report: EvaluationReport, images: Sequence[ImageScore], worst: Sequence[FailureCase]) -> str:
    scores = [image.score for image in images if image.score is not None]
    if not scores:
        return ""
    counts, _ = np.histogram(scores, bins=_BINS, range=(0, 1))
    told = (
        "<p>An image's score is the mean IoU over the classes in its own mask. It ranks images; the scores above are "
        "no means of it.</p>"
    )
    histogram = bars("score", counts.tolist())
    gallery = _gallery(report, worst, of=len(scores)) if worst else ""
    return f"<h2 id='images'>Images</h2>{told}{histogram}{gallery}"


def _gallery(report: EvaluationReport, worst: Sequence[FailureCase], *, of: int) -> str:
    colours = _hex_colours(report)
    legend = (
        f"<p>The {len(worst):,} lowest of {of:,}. Errors: {swatch(_hex(WRONG))}wrong class "
        f"{swatch(_hex(MISSED))}no prediction; hatched pixels of a mask do not count. Click to enlarge.</p>"
    )
    names = [entry.name for entry in report.classes]
    return f"<h3>The worst first</h3>{legend}" + "".join(_strip(entry, names, colours) for entry in worst)


def _strip(entry: FailureCase, names: Sequence[str], colours: dict[str, str]) -> str:
    record = entry.record
    if entry.picture is None:
        shown = "<p class='none'>No picture: its file is gone.</p>"
    else:
        panels = "".join(f"<span>{panel}</span>" for panel in PANELS)
        described = f"{', '.join(PANELS)} of {record.name}"
        shown = (
            f"<div class='strip'>{embed(entry.picture, description=described)}</div><div class='panels'>{panels}</div>"
        )
    listed = "".join(f"<li>{swatch(colours[name])}{text(name)}</li>" for name in _present(record, names))
    parts = {"pixel accuracy": record.pixel_accuracy, "boundary IoU": record.boundary_iou}
    told = ", ".join(f"{name} {number(value)}" for name, value in parts.items() if value is not None)
    return (
        f"<figure class='card'>{shown}<figcaption><span class='score'>score {number(record.score)}</span>"
        f"<b>{text(record.name)}</b><small>{told}</small><ul class='legend'>{listed}</ul></figcaption></figure>"
    )


def _present(record: ImageScore, names: Sequence[str]) -> list[str]:
    """Classes of an image's mask and prediction, those with most pixels first."""
    pixels: dict[int, int] = {}
    for truth, prediction, count in record.pairs:
        for index in {truth, prediction} - {-1}:
            pixels[index] = pixels.get(index, 0) + count
    return [names[index] for index, _ in sorted(pixels.items(), key=lambda entry: (-entry[1], entry[0]))]


def _made_with(report: EvaluationReport) -> str:
    facts = {
        "benchmark": report.data.benchmark,
        "protocol": report.data.protocol,
        **{f"masks: {name}": value for name, value in report.data.reading.items()},
        **{f"images: {name}": value for name, value in report.data.selection.items()},
        **{f"predicted by: {name}": value for name, value in report.predicted_by.items()},
        **{f"scoring: {name}": value for name, value in report.scoring.model_dump(mode="json").items()},
        **{f"version of {name}": value for name, value in report.versions.items()},
    }
    rows = (head(name.replace("_", " ")) + words(_plain(value)) for name, value in facts.items() if value is not None)
    command = f"<h3>Made again by</h3><pre>{text(report.command)}</pre>" if report.command else ""
    return (
        f"<h2 id='made'>Made with</h2>{command}"
        + table("What the scores depend on", ("what", "value"), rows, texts=["value"])
        + f"<h3>Class list</h3><pre>{text(report.vocabulary)}</pre>"
        f"<p>SHA-256 <code>{report.vocabulary_hash}</code></p>"
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value).replace("%", " %")


def _between(interval: Interval | None) -> str:
    return "–" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"


def _hex_colours(report: EvaluationReport) -> dict[str, str]:
    names = [entry.name for entry in report.classes]
    colours = colours_of(names, vocabulary=report.vocabulary)
    return {name: _hex(colour) for name, colour in zip(names, colours.tolist(), strict=True)}


def _hex(colour: Sequence[int]) -> str:
    red, green, blue = colour
    return f"#{red:02x}{green:02x}{blue:02x}"
