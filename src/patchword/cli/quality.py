"""`patchword quality`: what labels are worth, told without ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchword.cli.terminal import FAILED, complain, print_columns, print_json, say_where
from patchword.config.others import QualityConfig
from patchword.data.storage import as_path
from patchword.errors import WriteError

if TYPE_CHECKING:
    from patchword.labeling.dataset import LabelledDataset
    from patchword.labeling.quality.records import MaskUncertainty, QualitySummary


def quality(labels: str, config: QualityConfig) -> None:
    """Print scores, the worst first, and write the report."""
    from patchword.labeling.dataset import LabelledDataset

    photos = None if config.photos is None else as_path(config.photos)
    dataset = LabelledDataset.open(labels, photos=photos, allow_missing=True)
    from patchword.data.manifest import Manifest
    from patchword.labeling.quality.records import summarise
    from patchword.labeling.quality.report import REPORT_FILE, write_report  # after what can be refused without torch
    from patchword.labeling.records import MANIFEST_FILE, read_manifest

    unusable = dataset.unusable(quiet=config.quiet)
    say_where(dataset, photos=photos, unusable=unusable, quiet=config.quiet)
    doubted = _ask(config, dataset, unusable=unusable)[: config.worst] if config.model is not None else []
    unwritten = ""
    try:
        summary = write_report(Path(labels), photos=dataset.root, quiet=config.quiet)
    except WriteError as error:  # as in a folder that may only be read: what it holds can be told all the same
        unwritten = str(error)
        images = read_manifest(Manifest(dataset.folder / MANIFEST_FILE))
        summary = summarise(dataset.quality(), images=images, names=dataset.vocabulary.names, worst=config.worst)
    summary = summary.model_copy(update={"worst": summary.worst[: config.worst], "best": ()})
    if config.as_json:
        masks = [{"name": name, **mask.model_dump(mode="json")} for name, mask in doubted]
        counts = summary.model_dump(mode="json") | {"unusable_photographs": unusable}
        print_json(counts | ({} if config.model is None else {"doubted_masks": masks}))
        _exit_with_failures(unusable, unwritten=unwritten)
        return
    print_columns(_totals(summary))
    if summary.worst:
        typer.echo("")
        print_columns(_list(summary))
    if doubted:
        typer.echo("")
        rows = [(name, mask.class_name, mask.instead, _number(mask.doubt), mask.pixels) for name, mask in doubted]
        print_columns([("most doubted masks", "labelled as", "the model says", "doubt", "pixels"), *rows])
    if not unwritten:
        typer.echo(f"\n{Path(labels) / REPORT_FILE}")
    _exit_with_failures(unusable, unwritten=unwritten)


def _exit_with_failures(unusable: Mapping[str, str], *, unwritten: str) -> None:
    """Leave with exit code 1 when photographs are gone or changed, or the report could not be written."""
    from patchword.labeling.dataset import why_unusable

    if unusable:
        complain(f"{why_unusable(unusable)}; their labels are counted above; `patchword label ... --resume` mends them")
    if unwritten:
        complain(f"{unwritten}; there is no report, only what is printed")
    if unusable or unwritten:
        raise typer.Exit(FAILED)


def _ask(
    config: QualityConfig, dataset: LabelledDataset, *, unusable: Mapping[str, str]
) -> list[tuple[str, MaskUncertainty]]:
    """The masks that a segmenter contradicts, most doubtful first; written down beside the labels."""
    import patchword
    from patchword.evaluation.disagreement import find_disagreement
    from patchword.labeling.quality.records import DISAGREEMENT_FILE, worst_masks
    from patchword.runs.processes import executor_of

    load = partial(patchword.load, config.model or "", device=config.device, dtype=config.dtype)
    segmenter = load()
    found = find_disagreement(
        dataset,
        segmenter=segmenter,
        out=dataset.folder / DISAGREEMENT_FILE,
        unusable=unusable,
        executor=executor_of(config.executor, device=config.device, loaded=segmenter, load=load),
        quiet=config.quiet,
    )
    return worst_masks(found)


def _totals(summary: QualitySummary) -> list[tuple[str, object]]:
    parts = {f"mean {_title(name)}": value for name, value in summary.mean_parts.items()}
    return [
        ("photographs with labels", summary.ok),
        ("without any", summary.empty),
        ("failed", summary.failed),
        ("mean score", _number(summary.mean_score)),
        *((name, _number(value)) for name, value in parts.items()),
    ]


def _list(summary: QualitySummary) -> list[list[object]]:
    parts = list(summary.mean_parts)
    rows: list[list[object]] = [["worst first", "score", *map(_title, parts), "classes"]]
    for record in summary.worst:
        values = record.parts.model_dump()
        shares = [_number(values[part]) for part in parts]
        rows.append([record.name, _number(record.score), *shares, ", ".join(record.pixels)])
    return rows


def _title(part: str) -> str:
    return part.replace("_", " ")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
