"""The page of `report.html`: plain HTML that needs no network, with a few lines of script to sort and to filter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from patchword.config.label import LabelSettings
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.quality.records import MaskDoubt, QualityParts, QualityRecord, QualitySummary
from patchword.labeling.records import MANIFEST_FILE, DatasetRecord, ImageRecord
from patchword.models.protocols import ModelRecord
from patchword.runs.records import RUNS_FILE
from patchword.visualization.html import (
    FILTER,
    SORT,
    STYLE,
    bars,
    cell,
    embed,
    head,
    number,
    percent,
    swatch,
    table,
    text,
    words,
)

_MEANINGS = {
    "class_agreement": "how far the two generators agree on each class, over all classes that the vote lets expect",
    "pixel_agreement": "share of the pixels that both generators give to the same class",
    "coverage": "share of the pixels that have a label",
    "detection": "classes kept, of those that the vote lets expect",
}
_PLACES = {
    "worst": "worst",
    "photographs": "photographs",
    "classes": "classes",
    "problems": "problems",
    "settings": "settings and models",
}


@dataclass(frozen=True)
class Picture:
    """One photograph to show.

    Attributes:
        record: what its labels are worth.
        photograph, labels: JPEG files; none when they could not be made.
        missing: why not; empty otherwise.
    """

    record: QualityRecord
    photograph: bytes | None
    labels: bytes | None
    missing: str


@dataclass(frozen=True)
class Page:
    """All that the page shows.

    Attributes:
        dataset: how the labels were made.
        vocabulary: its classes and their colours.
        summary: what they are worth.
        failed, empty, duplicates: photographs that could not be labelled, that got no label, and that have the same
            content as another.
        worst, best: photographs to show.
        doubts: photograph and mask, most doubtful first; empty where no model was asked.
        rows: most rows of a table of photographs.
        note: what stands above all, a paragraph each, instead of where the photographs are.
    """

    dataset: DatasetRecord
    vocabulary: Vocabulary
    summary: QualitySummary
    failed: Sequence[ImageRecord]
    empty: Sequence[ImageRecord]
    duplicates: Sequence[ImageRecord]
    worst: Sequence[Picture]
    best: Sequence[Picture]
    doubts: Sequence[tuple[str, MaskDoubt]]
    rows: int
    note: Sequence[str] = ()


GENERATOR = "<meta name='generator' content='patchword'>"


def render(page: Page) -> str:
    """Write the page; the same content gives the same text."""
    colours = {
        name: f"#{red:02x}{green:02x}{blue:02x}"
        for name, (red, green, blue) in zip(page.vocabulary.names, page.vocabulary.colours.tolist(), strict=True)
    }
    sections = [
        _head(page),
        _distributions(page.summary),
        _filter(page.summary),
        _gallery("worst", "The worst first", page.worst, colours=colours, of=page.summary.ok),
        _gallery("best", "The best, to compare", page.best, colours=colours, of=page.summary.ok),
        _doubts(page),
        _photographs(page),
        _classes(page.summary, colours),
        _together(page.summary),
        _problems(page),
        _made_with(page.dataset),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"{GENERATOR}\n<title>Quality of labels</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<script>{SORT}{FILTER}</script>\n</body>\n</html>\n"
    )


def _head(page: Page) -> str:
    summary = page.summary
    facts = {
        "photographs": f"{summary.images:,}",
        "with labels": f"{summary.ok:,}",
        "without any": f"{summary.empty:,}",
        "failed": f"{summary.failed:,}",
        "masks": f"{summary.masks:,}",
        "mean score": number(summary.mean_score),
        **{f"mean {_title(name)}": number(value) for name, value in summary.mean_parts.items() if value is not None},
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    links = "".join(f"<a href='#{place}'>{title}</a>" for place, title in _PLACES.items())
    parts = "".join(f"<li><b>{_title(name)}</b>: {meaning}</li>" for name, meaning in _MEANINGS.items())
    alone = summary.ok > 0 and summary.mean_parts["pixel_agreement"] is None
    where = "".join(f"<p class='where'>{text(line)}</p>" for line in page.note or (page.dataset.photographs,))
    return (
        f"<header><h1>Quality of labels</h1>{where}"
        f"<nav>{links}</nav></header><dl class='facts'>{cells}</dl>"
        "<p>The score is made without ground truth. It says which labels to look at first; it is no accuracy. It is a "
        f"mean of these parts, each between 0 and 1 and high for labels to be trusted:</p><ul>{parts}</ul>"
        + ("<p>One generator ran, so that nothing is known of agreement.</p>" if alone else "")
    )


def _distributions(summary: QualitySummary) -> str:
    if not summary.ok:
        return ""
    both = bars("score", summary.score_histogram) + bars("coverage", summary.coverage_histogram)
    return f"<h2>Distributions</h2><div class='pair'>{both}</div>"


def _filter(summary: QualitySummary) -> str:
    options = "".join(
        f"<option value='{index}'>{text(row.name)} ({row.images:,})</option>"
        for index, row in enumerate(summary.classes)
        if row.images
    )
    return (
        "<p class='filter' hidden><label>Show only photographs with <select id='class'><option value=''>any class"
        f"</option>{options}</select></label> <output id='found' for='class'></output></p>"
    )


def _gallery(place: str, title: str, pictures: Sequence[Picture], *, colours: dict[str, str], of: int) -> str:
    if not pictures:
        return ""
    shown = f"{len(pictures):,} of {of:,} photographs with labels. " if of > len(pictures) else ""
    cards = "".join(_card(picture, colours) for picture in pictures)
    return (
        f"<h2 id='{place}'>{title}</h2><p>{shown}Beside each photograph its labels; hatched pixels have none.</p>"
        f"<div class='cards'>{cards}</div>"
    )


def _card(picture: Picture, colours: dict[str, str]) -> str:
    record, shares = picture.record, _shares(picture.record)
    if picture.photograph is None or picture.labels is None:
        images = f"<p class='none'>No picture: {text(picture.missing)}</p>"
    else:
        told = f"labels of {record.name}: {', '.join(f'{name} {share}' for name, share in shares.items())}"
        photograph = embed(picture.photograph, description=f"photograph {record.name}")
        images = f"<div class='two'>{photograph}{embed(picture.labels, description=told)}</div>"
    legend = "".join(f"<li>{swatch(colours[name])}{text(name)} {share}</li>" for name, share in shares.items())
    if record.parts.coverage < 1:
        legend += f"<li><i class='ignore'></i>no label {percent(1 - record.parts.coverage)}</li>"
    parts = ", ".join(f"{_title(name)} {number(value)}" for name, value in record.parts if value is not None)
    return (
        f"<figure class='card' data-classes='{_positions(record, colours)}'>{images}<figcaption>"
        f"<span class='score'>score {number(record.score)}</span><b>{text(record.name)}</b><small>{parts}</small>"
        f"<ul class='legend'>{legend}</ul></figcaption></figure>"
    )


def _photographs(page: Page) -> str:
    summary, names = page.summary, page.dataset.vocabulary.names
    if not summary.worst:
        return ""
    left_out = summary.ok - len(summary.worst)
    note = f"The {len(summary.worst):,} of lowest score; {left_out:,} more are" if left_out else "Every mask is"
    measures = ("contested", "margin", "stability", "entropy", "detection_entropy")
    rows = (
        f"<tr data-classes='{_positions(record, names)}'>{head(record.name)}{cell(number(record.score))}"
        + "".join(cell(number(value)) for _, value in record.parts)
        + "".join(cell(number(getattr(record, measure))) for measure in measures)
        + f"{words(', '.join(record.pixels))}</tr>"
        for record in summary.worst
    )
    header = ("photograph", "score", *map(_title, (*QualityParts.model_fields, *measures)), "classes")
    return (
        f"<h2 id='photographs'>Photographs</h2><p>{note} in quality.jsonl. Contested: share of the claimed "
        "pixels that no class got. Margin, stability, entropy: means over masks. Detection entropy: of the vote.</p>"
        + table("Photographs by score", header, rows, texts=["classes"])
    )


def _classes(summary: QualitySummary, colours: dict[str, str]) -> str:
    rows = (
        head(row.name, before=swatch(colours[row.name]))
        + cell(f"{row.images:,}")
        + cell(f"{row.masks:,}")
        + cell(f"{row.pixels:,}")
        + cell(percent(row.share))
        + cell(number(row.score))
        for row in summary.classes
    )
    header = ("class", "photographs", "masks", "pixels", "share of labels", "mean score of its photographs")
    return "<h2 id='classes'>Classes</h2>" + table("Classes of the vocabulary", header, rows)


def _together(summary: QualitySummary) -> str:
    if not summary.together:
        return ""
    images = {row.name: row.images for row in summary.classes}
    rows = (
        head(pair.first)
        + head(pair.second)
        + cell(f"{pair.images:,}")
        + cell(percent(pair.images / images[pair.first]))
        + cell(percent(pair.images / images[pair.second]))
        for pair in summary.together
    )
    header = ("class", "and class", "photographs with both", "of those with the first", "of those with the second")
    listed = table("Classes seen together", header, rows, texts=["and class"])
    return (
        f"<details><summary>Classes seen together: the {len(summary.together)} commonest pairs</summary>{listed}"
        "</details>"
    )


def _doubts(page: Page) -> str:
    if not page.doubts:
        return ""
    title = "Masks that the trained model contradicts"
    shown = page.doubts[: page.rows]
    left_out = f" These are {len(shown):,} of {len(page.doubts):,}." if len(shown) < len(page.doubts) else ""
    rows = (
        head(name) + words(mask.class_name) + words(mask.instead) + cell(number(mask.doubt)) + cell(mask.pixels)
        for name, mask in shown
    )
    header = ("photograph", "labelled as", "the model says", "doubt", "pixels")
    return (
        f"<h2 id='doubts'>{title}</h2><p>A model that learned from all labels is confident that these masks are "
        f"something else: they are the most likely to be wrong.{left_out}</p>"
        + table(title, header, rows, texts=["labelled as", "the model says"])
    )


def _problems(page: Page) -> str:
    lists = (
        ("Photographs that could not be labelled", "reason", page.failed),
        ("Photographs without any label", "reason", page.empty),
        ("Photographs with the content of another", "the other", page.duplicates),
    )
    return "<h2 id='problems'>Problems</h2>" + "".join(
        _problem(title, column, records, page.rows) for title, column, records in lists
    )


def _problem(title: str, column: str, records: Sequence[ImageRecord], most: int) -> str:
    if not records:
        return f"<h3>{title}: none</h3>"
    left_out = f", of which these are {most:,}; all are in {MANIFEST_FILE}" if len(records) > most else ""
    rows = (
        head(record.name) + words(record.duplicate_of if column == "the other" else record.reason)
        for record in records[:most]
    )
    return f"<h3>{title}: {len(records):,}{left_out}</h3>" + table(title, ("photograph", column), rows, texts=[column])


def _made_with(dataset: DatasetRecord) -> str:
    models = {
        "Image-text model": dataset.image_text,
        "Mask generator": dataset.mask_proposer,
        "Vision encoder": dataset.patch_encoder,
    }
    sections = [
        "<h2 id='settings'>Settings and models</h2>",
        *(_model(role, record) for role, record in models.items() if record is not None),
        _settings(dataset.settings) if dataset.settings else "",
        f"<h3>Class list</h3><pre>{text(dataset.vocabulary.text)}</pre>",
        f"<p>SHA-256 <code>{dataset.vocabulary.hash}</code></p>",
        f"<p>Who ran what when, with which software, is in {RUNS_FILE}.</p>",
    ]
    return "".join(sections)


def _model(role: str, record: ModelRecord) -> str:
    return f"<h3>{role}</h3>" + _fields(role, asdict(record).items())


def _settings(settings: LabelSettings) -> str:
    fields = type(settings).model_fields
    rows = (
        head(name) + words(value) + words(fields[name].description)
        for name, value in settings.model_dump(mode="json").items()
    )
    return "<h3>Settings of the labelling</h3>" + table(
        "Settings", ("setting", "value", "meaning"), rows, texts=["value", "meaning"]
    )


def _fields(caption: str, fields: Iterable[tuple[str, object]]) -> str:
    rows = (head(name) + words("" if value is None else value) for name, value in fields)
    return table(caption, ("field", "value"), rows, texts=["value"])


def _title(field: str) -> str:
    return field.replace("_", " ")


def _shares(record: QualityRecord) -> dict[str, str]:
    """Shares of the pixels of an image by class, largest first."""
    total = record.size[0] * record.size[1]
    ranked = sorted(record.pixels.items(), key=lambda entry: (-entry[1], entry[0]))
    return {name: percent(pixels / total) for name, pixels in ranked}


def _positions(record: QualityRecord, names: Iterable[str]) -> str:
    """Positions in the vocabulary of the classes in a label map, between blanks."""
    return " ".join(["", *(str(index) for index, name in enumerate(names) if name in record.pixels), ""])
