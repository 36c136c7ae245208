"""The demo's report: one page with pictures of every stage beside the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from patchword.data.colours import palette
from patchword.data.masks import LabelMap
from patchword.evaluation.report import EvaluationReport
from patchword.segmentation.methods import METHODS
from patchword.toytown.classes import UNSEEN
from patchword.toytown.demo_compare import EDGE_SCENES, METHOD_SCENES
from patchword.toytown.demo_scenes import ALL
from patchword.visualization.overlays import overlay
from patchword.visualization.pages import encoded, hex_colour, render_page

Panel = tuple[str, Image.Image, LabelMap | None]
Pictures = Mapping[str, Sequence[Sequence[Panel]]]


@dataclass(frozen=True)
class Shown:
    """A picture with its caption; the data are a PNG file."""

    caption: str
    data: bytes


@dataclass(frozen=True)
class Aim:
    """What the demo is to reach, and whether it did."""

    text: str
    met: bool


def render(record: Mapping[str, Any], *, pictures: Pictures, per_class: Mapping[str, EvaluationReport]) -> str:
    """Write the report as one HTML page with every picture embedded.

    Args:
        record: what `report.json` holds.
        pictures: for "labelling", "day" and "dusk" rows of (caption, picture, label map to lay over it or None).
        per_class: evaluations by name; their classes become the columns of the table.
    """
    names = [row.name for row in max((report.classes for report in per_class.values()), key=len)]
    columns = [{row.name: row.iou for row in report.classes} for report in per_class.values()]
    classes = [(name, [column.get(name) for column in columns]) for name in names]
    return render_page(
        "demo",
        record=record,
        summary=summary(record),
        aims=_aims(record),
        legend=[(name, hex_colour(colour), "") for name, colour in zip(ALL, palette(len(ALL)).tolist(), strict=True)],
        pictures={key: [[_shown(panel) for panel in row] for row in rows] for key, rows in pictures.items()},
        per_class=tuple(per_class),
        classes=[*classes, ("mean", [report.miou for report in per_class.values()])],
        unseen=UNSEEN,
        method_scenes=METHOD_SCENES,
        edge_scenes=EDGE_SCENES,
    )


def summary(record: Mapping[str, Any]) -> list[tuple[str, float | None, float | None, float | None, float | None]]:
    """Rows of mIoU: labelled scenes, unseen scenes, unseen classes, other style."""
    aligned, oracle, dense = (record[key] for key in ("aligned", "oracle", "baseline_dense_clip"))
    return [
        ("pseudo labels", record["pseudo_labels"]["miou"], None, None, record["pseudo_labels_other_style"]["miou"]),
        (
            "aligned segmenter",
            aligned["miou_same_scenes"],
            aligned["miou_seen"],
            aligned["miou_unseen_classes"],
            aligned["miou_other_style"],
        ),
        ("dense CLIP, no training", None, dense["miou_seen"], dense["miou_unseen_classes"], None),
        ("oracle: exact masks", None, oracle["miou_seen"], oracle["miou_unseen_classes"], None),
    ]


def _aims(record: Mapping[str, Any]) -> list[Aim]:
    aligned = record["aligned"]
    free = {name: record["methods"][name]["day_seen"]["miou"] for name in METHODS}
    same = record["methods"]["aligned"]["day_seen"]["miou"]  # of the same scenes
    best = max(free, key=lambda name: free[name] or 0)
    labels = record["pseudo_labels"]["miou"]
    gain = aligned["miou_same_scenes"] - labels
    chance, unseen = record["chance_among_all_classes"], aligned["miou_unseen_classes"] or 0
    free_unseen = {name: record["methods"][name]["day_unseen_classes"]["miou"] or 0 for name in METHODS}
    rival = max(free_unseen, key=lambda name: free_unseen[name])
    same_unseen = record["methods"]["aligned"]["day_unseen_classes"]["miou"] or 0
    ratio, lead = record["ratio_to_oracle"], same - free[best]
    dusk = (aligned["miou_other_style"] or 0) / (aligned["miou_seen"] or 1)
    side = "below" if gain < 0 else "above"
    return [
        Aim(f"labels made from class names alone have {100 * labels:.1f} mIoU (aim: 65)", labels >= 0.65),
        Aim(
            f"on the same scenes the segmenter is {abs(100 * gain):.1f} points {side} the labels that it learned from "
            "(aim: 3 above)",
            gain >= 0.03,
        ),
        Aim(
            f"on new scenes it is {100 * lead:.1f} points above the best method without training, {best} (aim: 15)",
            lead >= 0.15,
        ),
        Aim(f"it reaches {ratio:.2f} of a segmenter trained on exact masks (aim: 0.90)", ratio >= 0.9),
        Aim(
            f"classes that it was never given reach {100 * unseen:.1f} (aim: three times the chance of one in "
            f"{round(1 / chance)}, {300 * chance:.1f})",
            unseen >= 3 * chance,
        ),
        Aim(
            f"with such classes it has {100 * same_unseen:.1f} where the best method without training, {rival}, has "
            f"{100 * free_unseen[rival]:.1f} (aim: not below)",
            same_unseen >= free_unseen[rival],
        ),
        Aim(f"at dusk, of which it had no labels, it keeps {dusk:.2f} of its day (aim: 0.75)", dusk >= 0.75),
    ]


def _shown(panel: Panel) -> Shown:
    caption, picture, label_map = panel
    if label_map is not None:
        picture = overlay(np.asarray(picture.convert("RGB")), label_map, opacity=0.8, legend=False)
    return Shown(caption, encoded(picture, "PNG", compress_level=4))
