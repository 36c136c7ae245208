"""The demo's report: one page that works from a file, with pictures of every stage beside the numbers."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from patchword.data.colours import palette
from patchword.data.masks import LabelMap
from patchword.evaluation.report import EvaluationReport
from patchword.segmentation.methods import METHODS
from patchword.toytown.demo_compare import EDGE_SCENES, METHOD_SCENES
from patchword.toytown.world import UNSEEN
from patchword.visualization.overlays import overlay

Panel = tuple[str, Image.Image, LabelMap | None]
Pictures = Mapping[str, Sequence[Sequence[Panel]]]

_STYLE = """
:root { color-scheme: light; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; background: #fff; line-height: 1.5; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: 1rem 0; } td, th { padding: .25rem .8rem; text-align: right; }
td { white-space: nowrap; } th { background: #f2f2f2; } td:first-child, th:first-child { text-align: left; }
tr:nth-child(even) td { background: #fafafa; }
.row { display: flex; gap: .5rem; margin: .5rem 0; flex-wrap: wrap; } figure { margin: 0; }
figcaption { font-size: .8rem; color: #555; } img { display: block; width: 192px; image-rendering: pixelated; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .85rem; }
.legend span { white-space: nowrap; }
.legend i { display: inline-block; width: 1em; height: 1em; margin-right: .3em; vertical-align: -.1em; }
.aim { color: #666; font-size: .9rem; } .hit { color: #176f2c; } .miss { color: #a4260f; }
"""


def render(record: Mapping[str, Any], *, pictures: Pictures, per_class: Mapping[str, EvaluationReport]) -> str:
    """Write the report as one HTML page with everything embedded.

    Args:
        record: what `report.json` holds.
        pictures: for "labelling", "day" and "dusk" rows of (caption, picture, label map to lay over it or None).
        per_class: evaluations by name; their classes become the columns of the table.

    Returns:
        the page.
    """
    names = pictures["day"][0][-1][2].names if pictures["day"] and pictures["day"][0][-1][2] else ()
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>patchword demo</title>",
        f"<style>{_STYLE}</style></head><body><h1>patchword demo</h1>",
        "<p>Toytown is a drawn world. The scenes below were labelled from class names alone by miniature models, ",
        "a segmenter was trained on those labels, and only the evaluation and the oracle ever saw exact masks. The ",
        "numbers describe this world; they say nothing about photographs.</p>",
        _summary(record),
        _legend(names),
        "<h2>1. Label, then align</h2><p>Hatched pixels carry no label.</p>",
        _generators(record),
        _quality(record),
        _rows(pictures["labelling"]),
        "<h2>2. Segment unseen scenes</h2><p>All class names are on offer, ",
        f"also the {len(UNSEEN)} that neither labelling nor training heard of: {', '.join(UNSEEN)}.</p>",
        _rows(pictures["day"]),
        "<h2>3. The other style</h2><p>Labels and training came from day scenes only.</p>",
        _rows(pictures["dusk"]),
        "<h2>4. The same scenes by every method</h2>",
        f"<p>The first {METHOD_SCENES} unseen scenes of each style. Training-free methods take the same miniature ",
        "CLIP (and ProxyCLIP the same miniature DINOv2) in windows of its own size; brackets are 95 % intervals over ",
        "scenes.</p>",
        _methods(record["methods"]),
        "<h2>5. Edges</h2><p>The aligned segmenter, its edges left as they are or sharpened afterwards, on the ",
        f"first {EDGE_SCENES} scenes of each style.</p>",
        _refinement(record["refinement"], seconds=record["seconds_a_scene"]),
        "<h2>Every class</h2><p>IoU in per cent; the columns with all names are scored among all classes.</p>",
        _classes(per_class),
        "<h2>Time</h2>",
        _table(("stage", "seconds"), [(stage, f"{seconds:.1f}") for stage, seconds in record["seconds"].items()]),
        "<h2>Made with</h2>",
        _table(("software", "version"), list(record["versions"].items())),
        f"<p>Again with <code>{html.escape(record['settings']['command'])}</code>; settings are in report.json.</p>",
        "</body></html>\n",
    ]
    return "".join(parts)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _summary(record: Mapping[str, Any]) -> str:
    pseudo, pseudo_dusk, aligned, oracle, dense = (
        record[key]
        for key in ("pseudo_labels", "pseudo_labels_other_style", "aligned", "oracle", "baseline_dense_clip")
    )
    scores = _table(
        ("mIoU, per cent", "labelled scenes", "unseen scenes", "unseen classes", "other style"),
        [
            ("pseudo labels", _percent(pseudo["miou"]), "–", "–", _percent(pseudo_dusk["miou"])),
            (
                "aligned segmenter",
                _percent(aligned["miou_same_scenes"]),
                _percent(aligned["miou_seen"]),
                _percent(aligned["miou_unseen_classes"]),
                _percent(aligned["miou_other_style"]),
            ),
            ("dense CLIP, no training", "–", _percent(dense["miou_seen"]), _percent(dense["miou_unseen_classes"]), "–"),
            ("oracle: exact masks", "–", _percent(oracle["miou_seen"]), _percent(oracle["miou_unseen_classes"]), "–"),
        ],
    )
    free = {name: record["methods"][name]["day_seen"]["miou"] for name in METHODS}
    same = record["methods"]["aligned"]["day_seen"]["miou"]  # of the same scenes
    best = max(free, key=lambda name: free[name] or 0)
    gain = aligned["miou_same_scenes"] - pseudo["miou"]
    chance = record["chance_among_all_classes"]
    aims = [
        (f"aligned above its own pseudo labels by {_percent(gain)} points (aim: 3)", gain > 0.03),
        (f"ratio to the oracle {record['ratio_to_oracle']:.2f} (aim: 0.90)", record["ratio_to_oracle"] >= 0.9),
        (
            f"unseen classes {_percent(aligned['miou_unseen_classes'])} (aim: three times the chance of one in "
            f"{round(1 / chance)}, {_percent(3 * chance)})",
            (aligned["miou_unseen_classes"] or 0) >= 3 * chance,
        ),
        (
            f"aligned above the best training-free method, {best}, by {_percent(same - free[best])} points (aim: 10)",
            same >= free[best] + 0.1,
        ),
    ]
    listed = "".join(
        f"<li class='{'hit' if met else 'miss'}'>{'met' if met else 'missed'}: {html.escape(text)}</li>"
        for text, met in aims
    )
    return scores + f"<ul>{listed}</ul>"


def _generators(record: Mapping[str, Any]) -> str:
    """What each generator of labels is worth alone and together, in both styles."""
    rows = []
    for style, key in (("day", "pseudo_labels"), ("dusk", "pseudo_labels_other_style")):
        fused = record[key]
        made_by = {**fused["by_generator"], "both, fused": fused}
        rows += [
            (
                f"{style}: {name}",
                _percent(scores["miou"]),
                _percent(scores["pixel_accuracy"]),
                _percent(scores["coverage"]),
                _percent(scores["pixel_accuracy_where_labelled"]),
            )
            for name, scores in made_by.items()
        ]
    header = ("pseudo labels, per cent", "mIoU", "pixel accuracy", "coverage", "right where labelled")
    return _table(header, rows)


def _quality(record: Mapping[str, Any]) -> str:
    """How well the score that needs no exact masks ranks the labelled scenes."""
    rows = [
        (
            style,
            f"{found['spearman'] or 0:.2f} ({found['low']:.2f} to {found['high']:.2f})",
            *(_percent(found[part]) for part in ("worst_fifth", "all", "best_fifth")),
        )
        for style, found in record["quality_score"].items()
        if found is not None
    ]
    header = ("score of the labels without exact masks", "rank correlation with mIoU (95 %)", "mIoU of the worst fifth")
    return _table((*header, "of all", "of the best fifth"), rows) if rows else ""


def _methods(methods: Mapping[str, Any]) -> str:
    """Every way to segment, on unseen scenes of both styles."""
    columns = ("day_seen", "day_unseen_classes", "dusk_seen", "dusk_unseen_classes")
    rows = [(title, *(_with_interval(scores[column]) for column in columns)) for title, scores in methods.items()]
    header = ("mIoU, per cent", "day", "day, classes never named before", "dusk", "dusk, classes never named before")
    return _table(header, rows)


def _refinement(refinement: Mapping[str, Any], *, seconds: Mapping[str, float]) -> str:
    """What sharpening edges gains and costs."""
    rows = [
        (
            title,
            *(
                cell
                for style in ("day_seen", "dusk_seen")
                for cell in (_with_interval(scores[style]), _percent(scores[style]["boundary_iou"]))
            ),
            f"{1000 * seconds[title]:.0f}",
        )
        for title, scores in refinement.items()
    ]
    header = ("per cent", "mIoU, day", "boundary IoU, day", "mIoU, dusk", "boundary IoU, dusk", "milliseconds a scene")
    return _table(header, rows)


def _with_interval(scores: Mapping[str, Any]) -> str:
    if scores["low"] is None:
        return _percent(scores["miou"])
    return f"{_percent(scores['miou'])} ({_percent(scores['low'])} to {_percent(scores['high'])})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _classes(per_class: Mapping[str, EvaluationReport]) -> str:
    names = max((report.classes for report in per_class.values()), key=len)
    columns = [{row.name: row.iou for row in report.classes} for report in per_class.values()]
    rows = [(row.name, *(_percent(column.get(row.name)) for column in columns)) for row in names]
    rows.append(("mean", *(_percent(report.miou) for report in per_class.values())))
    return _table(("class", *per_class), rows)


def _legend(names: Sequence[str]) -> str:
    colours = palette(len(names))
    entries = (
        f"<span><i style='background:rgb({red},{green},{blue})'></i>{html.escape(name)}</span>"
        for name, (red, green, blue) in zip(names, colours.tolist(), strict=True)
    )
    return f"<p class='legend'>{''.join(entries)}</p>"


def _rows(rows: Sequence[Sequence[Panel]]) -> str:
    return "".join("<div class='row'>" + "".join(_figure(panel) for panel in row) + "</div>" for row in rows)


def _figure(panel: Panel) -> str:
    caption, picture, label_map = panel
    if label_map is not None:
        picture = overlay(np.asarray(picture.convert("RGB")), label_map, opacity=0.8, legend=False)
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    text = html.escape(caption)
    image = f"<img alt='{text}' src='data:image/png;base64,{data}'>"
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"
