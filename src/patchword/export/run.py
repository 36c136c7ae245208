"""Writes a data set of labels in a format that other tools read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from patchword.config.command import command
from patchword.config.exchange import ExportConfig, ExportSettings, LabelFormat
from patchword.config.inputs import tell
from patchword.data.folders import prepare_output, write_json
from patchword.errors import PatchwordError
from patchword.export.coco import write_coco, write_coco_panoptic
from patchword.export.files import refuse_inside
from patchword.export.formats import write_cityscapes, write_fiftyone, write_hugging_face, write_yolo
from patchword.export.job import Job, Slivers, categories_of
from patchword.export.label_studio import write_label_studio
from patchword.export.outlines import PolygonLoss
from patchword.export.shards import write_webdataset
from patchword.export.voc import write_cvat, write_voc
from patchword.labeling.dataset import LabelledDataset, why_unusable
from patchword.runs.progress import Progress
from patchword.runs.records import Record


class ExportSummary(Record):
    """What was written.

    Attributes:
        format: name of the format.
        path: the file or folder.
        vocabulary_hash: of the classes.
        images: photographs in it.
        left_out: photographs that labelling had failed on.
        segments: objects; none for formats that hold classes of pixels alone.
        slivers: what is no object for being too small; none where nothing is.
        polygon_loss: none where the format holds masks.
        notes: what a review changed, and what the format could not hold, one sentence each.
    """

    format: str
    path: str
    vocabulary_hash: str
    images: int
    left_out: int
    segments: int | None
    slivers: Slivers | None
    polygon_loss: PolygonLoss | None
    notes: tuple[str, ...]


SUMMARY_FILE = "export.json"


@dataclass(frozen=True)
class Format:
    """A format that labels can be exported to.

    Attributes:
        file: suffix of the single file that it is; none for a folder.
        archive: suffix of the archive that it may be in place of a folder.
        photographs: what happens to them unless the settings say.
        objects: whether it tells objects of one class apart.
    """

    write: Callable[[Job, Path], None]
    description: str
    file: str | None = None
    archive: str | None = None
    photographs: Literal["leave", "copy"] = "leave"
    objects: bool = True


FORMATS: dict[LabelFormat, Format] = {
    "coco": Format(write_coco, "COCO instances, one JSON file with run lengths or polygons", file=".json"),
    "coco-panoptic": Format(write_coco_panoptic, "COCO panoptic, a JSON file and PNGs of object numbers"),
    "voc": Format(write_voc, "PASCAL VOC, indexed PNGs of classes and objects"),
    "yolo-seg": Format(write_yolo, "YOLO segmentation, one polygon a line"),
    "cvat": Format(write_cvat, "CVAT's Segmentation mask 1.1, a folder or a .zip", archive=".zip"),
    "label-studio": Format(write_label_studio, "Label Studio tasks with brush or polygon predictions"),
    "fiftyone": Format(write_fiftyone, "FiftyOne's ImageSegmentationDirectory", objects=False),
    "cityscapes": Format(write_cityscapes, "train ids in the manner of Cityscapes", objects=False),
    "webdataset": Format(write_webdataset, "tar shards for webdataset", photographs="copy", objects=False),
    "hf": Format(write_hugging_face, "an imagefolder for the library datasets", photographs="copy", objects=False),
}


@command(ExportConfig)
def export_labels(labels: str | Path | LabelledDataset, config: ExportConfig) -> ExportSummary:
    """Write labels in another format.

    Names, ids and colours of the classes are the same in all formats (`categories_of`). The label map is the truth:
    formats of masks hold it as it is, formats of objects hold connected pieces of it, told apart by the segments
    (`pieces_of`). The same labels give the same bytes. One photograph is in memory at a time.

    Returns:
        what was written and what was lost. A folder has it too, in `export.json`, written last.
    """
    chosen, out = FORMATS[config.format], Path(config.out)
    settings = ExportSettings.of(config.settings)
    if isinstance(labels, str | Path):
        labels = LabelledDataset.open(labels, photos=config.photos)
    elif config.photos is not None:
        raise PatchwordError("photos are given beside a data set that has its own; pass its folder with them")
    refuse_inside(out, labels.folder, labels.root)
    unusable = labels.unusable(quiet=config.quiet)
    if unusable:
        raise PatchwordError(
            f"{why_unusable(unusable)}; nothing is exported: label again with `patchword label ... --resume` (and "
            "--forget-missing for what is gone), or import again"
        )
    labels = labels.reviewed() if config.reviews else labels
    said = labels.review.spoken() if labels.review else ""
    tell(said, quiet=config.quiet)
    is_file = _prepare(out, chosen, name=config.format, overwrite=config.overwrite)
    settings = settings.model_copy(update={"photographs": settings.photographs or chosen.photographs})
    with Progress(len(labels), f"exporting to {config.format}", "images", quiet=config.quiet) as progress:
        job = Job(labels, categories_of(labels.vocabulary), settings, progress)
        chosen.write(job, out)
    summary = ExportSummary(
        format=config.format,
        path=str(out),
        vocabulary_hash=labels.vocabulary.hash,
        images=len(labels),
        left_out=len(labels.failed),
        segments=job.segments if chosen.objects else None,
        slivers=job.slivers(),
        polygon_loss=job.loss.summary(),
        notes=(*([said] if said else []), *job.notes),
    )
    if not is_file:
        write_json(out / SUMMARY_FILE, summary.model_dump(mode="json", exclude={"path"}))
    return summary


def _prepare(out: Path, chosen: Format, *, name: str, overwrite: bool) -> bool:
    """Make the place ready."""
    suffix = out.suffix.casefold()
    if chosen.file is not None and suffix != chosen.file:
        raise PatchwordError(f"output {out} must be a file that ends in {chosen.file} for format {name}")
    if chosen.file is None and suffix != chosen.archive:
        prepare_output(out, overwrite=overwrite, marker=f"export of {name}")
        return False
    if out.is_dir():
        raise PatchwordError(f"output {out} is a folder; format {name} needs a file")
    if out.exists() and not overwrite:
        raise PatchwordError(f"output {out} exists; choose another, or --overwrite it")
    return True
