"""Stage 3 as a run: photographs in, a folder of label maps and overlays out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.folders import Manifest, prepare_output, write_json
from patchword.progress import Progress
from patchword.segment.dense import AnySegmenter
from patchword.segment.result import MASKS, SegmentationResult
from patchword.segment.settings import SegmentSettings
from patchword.segment.words import Classes
from patchword.vocabulary import Vocabulary

_log = logging.getLogger(__name__)

MARKER = "segmentation"
RESULTS, SETTINGS = "results.jsonl", "segment.json"
FORMAT, VERSION = "patchword-segmentation", 1


@dataclass(frozen=True)
class SegmentedFolder:
    """What a run has made.

    Attributes:
        folder: with `masks/<name>.png`, `overlays/<name>.jpg`, `results.jsonl` and `segment.json`; <name> is the
            photograph's path relative to the root, suffix kept.
        names: of the photographs that were segmented.
        failed: name of a photograph -> why it was not.
    """

    folder: Path
    names: tuple[str, ...]
    failed: dict[str, str]


def segment_folder(
    images: Sequence[Path],
    *,
    root: Path,
    segmenter: AnySegmenter,
    classes: Classes,
    out: str | Path,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | Mapping[str, Any] | None = None,
    overlays: bool = True,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SegmentedFolder:
    """Segment photographs one by one; a broken one is recorded and ends nothing.

    `results.jsonl` has one line a photograph: name, status ("ok" or "failed"), and then size, the pixels of each class
    that is there, the pixels that are ignored, the mean confidence and the seconds it took, or the reason.
    `segment.json` has the classes, the models and every setting.

    Args:
        images: photographs, all below `root`.
        root: folder that their names are relative to.
        segmenter: `Segmenter` or `DenseSegmenter`.
        classes, background, settings: as of `Segmenter.segment`.
        out: folder of the result.
        overlays: whether to write overlays.
        resume: go on with a run that was stopped; classes, models and settings must be the same. What failed is tried
            again.
        overwrite: empty the folder first.
        quiet: whether to show no progress.
        command: what the user typed, for the record.

    Raises:
        PatchwordError: when the folder is refused, a resumed run differs, or a number is out of range.
    """
    chosen = SegmentSettings.of(settings)
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    names = {_name(path, root): path for path in images}
    out = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    identity = {
        "vocabulary": vocabulary.to_text(),
        "segmenter": segmenter.describe(),
        "settings": {**chosen.model_dump(mode="json"), "overlays": overlays},
    }
    _enter(out, identity, known={"vocabulary_hash": vocabulary.hash}, command=command)
    with Manifest(out / RESULTS) as results, Progress(len(names), "segmenting", quiet=quiet) as progress:
        done = results.read()
        for name, path in names.items():
            if not _is_done(done.get(name), out=out, name=name):
                results.append(_segment_one(path, name, segmenter, vocabulary, out, chosen, overlays))
            progress.advance()
        records = results.finish()
    asked = {name: records[name] for name in names}
    failed = {name: record["reason"] for name, record in asked.items() if record["status"] == "failed"}
    counts = {"ok": len(asked) - len(failed), "failed": len(failed)}
    write_json(out / SETTINGS, {**_header(command), **identity, "counts": counts})
    return SegmentedFolder(out, tuple(name for name in asked if name not in failed), failed)


def _segment_one(
    path: Path,
    name: str,
    segmenter: AnySegmenter,
    vocabulary: Vocabulary,
    out: Path,
    settings: SegmentSettings,
    overlays: bool,
) -> dict[str, Any]:
    """Segment and write one photograph; its line of the results."""
    started = time.perf_counter()
    try:
        result = segmenter.segment(path, classes=vocabulary, settings=settings)
    except PatchwordError as error:
        _log.warning("skipped: %s", error)
        return {"name": name, "status": "failed", "reason": str(error)}
    result.save(out, name=name, with_overlay=overlays)
    return {"name": name, "status": "ok", **_facts(result), "seconds": round(time.perf_counter() - started, 3)}


def _facts(result: SegmentationResult) -> dict[str, Any]:
    height, width = result.label_map.indices.shape
    areas = result.areas()
    return {
        "width": width,
        "height": height,
        "classes": areas,
        "ignored": height * width - sum(areas.values()),
        "mean_confidence": round(float(result.confidence.mean(dtype="float64")), 6),
    }


def _name(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        raise PatchwordError(f"photograph {path} is not below the folder {root}") from None


def _is_done(record: dict[str, Any] | None, *, out: Path, name: str) -> bool:
    return record is not None and record.get("status") == "ok" and (out / MASKS / f"{name}.png").is_file()


def _header(command: str) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "command": command}


def _enter(out: Path, identity: dict[str, Any], *, known: dict[str, Any], command: str) -> None:
    """Record what the run does and what is `known` of it, or compare with the run that the folder holds.

    Raises:
        PatchwordError: when that run was another.
    """
    path = out / SETTINGS
    if not path.exists():
        write_json(path, {**_header(command), **identity, **known})
        return
    try:
        before = json.loads(path.read_bytes())
        differs = [name for name, value in identity.items() if before.get(name) != value]
    except (OSError, ValueError, AttributeError):
        raise PatchwordError(f"{path} is damaged; pass --overwrite to start again") from None
    if differs:
        what = " and the ".join(differs)
        raise PatchwordError(
            f"cannot resume in {out}: the {what} of the run there differ; pass --overwrite to start again"
        )
