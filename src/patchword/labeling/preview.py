"""What labelling a folder would give and take: a page of a few photographs, and an estimate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from patchword.config.label import LabelSettings
from patchword.data.folders import json_text
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.labeling.image import LabelParts, fuse_masks, generate_masks
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.report import ReportSettings, write_report
from patchword.labeling.records import Counts, embeddings_path, label_map_path, segments_path
from patchword.labeling.run import label_folder, write_result
from patchword.runs.estimate import Estimate, Trial, estimate_run, on_disk, spread
from patchword.runs.pipeline import decoded
from patchword.runs.progress import duration, rate
from patchword.runs.records import read_sessions


@dataclass(frozen=True)
class Preview:
    """A page that was written.

    Attributes:
        page: where it is.
        counts: of the photographs on it.
        of: how many photographs the run itself would take.
        seconds: how long labelling those of the preview took, models loaded before.
    """

    page: Path
    counts: Counts
    of: int
    seconds: float

    @property
    def images_a_second(self) -> float:
        """Speed of the labelling."""
        return self.counts.images / max(self.seconds, 1e-3)


def preview_labels(
    images: Sequence[Path],
    *,
    root: Path,
    page: Path,
    parts: LabelParts,
    settings: LabelSettings,
    count: int,
    command: str = "",
    quiet: bool = False,
) -> Preview:
    """Label some photographs, spread over the folder, in a temporary place, and show them on one page.

    Args:
        images: all that a run would take, sorted, inside `root`.
        root: folder that names are relative to.
        page: the HTML file; needs no other file and no network.
        parts: models and vocabulary.
        settings: of the labelling; the page lists all of them.
        count: photographs to show, 1 or more.
        command: what the user typed; the page shows it.
        quiet: whether to show no progress.
    """
    with tempfile.TemporaryDirectory(prefix="patchword-") as temporary:
        dataset = label_folder(
            spread(images, count),
            root=root,
            out=Path(temporary) / "labels",
            parts=parts,
            settings=settings,
            command=command,
            quiet=quiet,
        )
        seconds = read_sessions(dataset.folder)[-1].seconds or 0.0
        preview = Preview(page, dataset.counts, len(images), seconds)
        shown = ReportSettings(worst=count, best=0, rows=count)
        write_report(
            dataset.folder, photos=root, settings=shown, page=page, note=_note(preview, root=root, command=command)
        )
    return preview


def _note(preview: Preview, *, root: Path, command: str) -> tuple[str, ...]:
    shown, per_second = preview.counts.images, preview.images_a_second
    return (
        f"Preview: {shown:,} of {preview.of:,} photographs, spread over {root.resolve()}. They took "
        f"{duration(preview.seconds)}, {rate(per_second)}; at that speed all take {duration(preview.of / per_second)}. "
        "Nothing was kept but this page.",
        *([f"Made by: {command}"] if command else []),
    )


def estimate_labelling(
    photographs: Sequence[tuple[str, Path]],
    *,
    parts: LabelParts,
    settings: LabelSettings,
    sample: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Label a few photographs, spread over the folder, and work out what all of them will take (`estimate_run`).

    Each is labelled alone, whatever `image_batch` is.

    Args:
        photographs: name and path of all that are to be labelled, sorted by name.
        parts: models and vocabulary.
        settings: of the labelling.
        sample: how many are labelled, 1 or more.
        clock: seconds from some fixed moment.
    """
    single = settings.model_copy(update={"image_batch": 1})
    work = partial(_label, parts=parts, settings=single, clock=clock)
    return estimate_run(photographs, work=work, verb="labelled", sample=sample)


def _label(
    name: str, path: Path, folder: Path, *, parts: LabelParts, settings: LabelSettings, clock: Callable[[], float]
) -> Trial:
    started = clock()
    (photograph,) = decoded([(name, path)])
    if isinstance(photograph.pixels, PatchwordError):
        raise photograph.pixels
    read = clock()
    (candidates,) = generate_masks([to_tensor(photograph.pixels)], parts=parts, settings=settings)
    if isinstance(candidates, PatchwordError):
        raise candidates
    asked = clock()
    vocabulary = parts.vocabulary
    found = fuse_masks(candidates, names=vocabulary.names, settings=settings, colours=vocabulary.colours)
    record = write_result(folder, name, found, content=photograph.content, settings=settings)
    quality = assess(found, name=name, settings=settings)
    written = clock()
    lines = sum(len(json_text(each.model_dump(mode="json"))) + 1 for each in (record, quality))
    paths = [label_map_path(folder, name), segments_path(folder, name)]
    files = on_disk([*paths, embeddings_path(folder, name)] if settings.mask_embeddings else paths)
    return Trial(decoding=read - started, models=asked - read, writing=written - asked, size=files + lines)
