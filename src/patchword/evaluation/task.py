"""What is scored: photographs with their masks, what the masks say, and how a person finds them again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.evaluation.masks import MaskRule, Truth
from patchword.evaluation.pairs import Pair, find_pairs
from patchword.runs.records import Record


class DataRecord(Record):
    """Where photographs and masks are from and how they are read; stands in every report.

    Attributes:
        photographs, masks: folders, as the user named them.
        benchmark, protocol: names of these; None for a folder of one's own.
        reading: how mask values become classes, by name of the option or rule.
        selection: which photographs were taken, where not all were.
        remarks: why the scores are not to be compared with others of the benchmark and protocol, a sentence each.
    """

    photographs: str
    masks: str
    benchmark: str | None = None
    protocol: str | None = None
    reading: dict[str, Any]
    selection: dict[str, Any]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class EvaluationTask:
    """Photographs with masks, and what is scored in them. A folder is one, a benchmark is one.

    Attributes:
        pairs: photographs with their masks, each with a name of its own.
        truth: what the masks say.
        data: where they are from.
    """

    pairs: tuple[Pair, ...]
    truth: Truth
    data: DataRecord


def folder_task(
    photos: Path,
    *,
    masks: Path,
    rule: MaskRule,
    suffix: str = "",
    names: Path | None = None,
    limit: int | None = None,
) -> EvaluationTask:
    """Any folder of photographs with one of masks.

    Args:
        photos, masks, suffix, names, limit: as for `find_pairs`.
        rule: what the masks' values mean.
    """
    pairs = find_pairs(photos, masks=masks, suffix=suffix, names=names, limit=limit)
    selection: Mapping[str, Any] = {"names": None if names is None else str(names), "limit": limit}
    reading: Mapping[str, Any] = {
        "zero_is": rule.zero_is,
        "ignore_index": rule.ignore_index,
        "mask_suffix": suffix or None,
    }
    data = DataRecord(photographs=str(photos), masks=str(masks), reading=_given(reading), selection=_given(selection))
    return EvaluationTask(tuple(pairs), rule, data)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
