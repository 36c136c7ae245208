"""What `segment.json` and `results.jsonl` hold, as typed records.

A folder is the same to the byte for the same photographs, classes, models and settings, however often its run was
stopped and resumed, and whether it was made whole or in shards; `runs.jsonl` alone tells when, where, how fast and by
which commands.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.folders import check_version, write_json
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError
from patchword.runs.records import LineRecord, Record, RunRecord, ShardRecord, check_counted

MARKER = "segmentation"
RESULTS, SETTINGS, MASKS = "results.jsonl", "segment.json", "masks"
FORMAT: Literal["patchword-segmentation"] = "patchword-segmentation"
VERSION: Literal[2] = 2
STATUSES = ("ok", "failed")


class RunLengthsRecord(Record):
    """A mask as COCO's compressed run lengths; `pycocotools.mask.decode` takes the record as it is in the file."""

    size: tuple[int, int]
    counts: str


class ClassArea(Record):
    """How much of a photograph is of a class.

    Attributes:
        pixels: how many.
        share: of all pixels of the photograph, ignored ones too, in (0, 1].
        rle: their COCO run lengths; none where they were not asked for, and for images that were segmented in tiles.
        square_metres: on the ground; none for photographs.
    """

    pixels: int
    share: float
    rle: RunLengthsRecord | None = None
    square_metres: float | None = None


class TilesRecord(Record):
    """Of an image that was segmented tile by tile.

    Attributes:
        tiles: how many.
        mask: path of the mask in the folder; a GeoTIFF where the image has a georeference.
        crs, transform: that georeference.
        pixel_square_metres: area of a pixel, where the system is in a unit of length.
        value_range: values of the image that became 0 and 255.
    """

    tiles: int
    mask: str
    crs: str | None = None
    transform: tuple[float, ...] | None = None
    pixel_square_metres: float | None = None
    value_range: tuple[float, float] | None = None


class ResultRecord(LineRecord):
    """One line of `results.jsonl`: a photograph, a frame of a video, or a video.

    Attributes:
        name: of a photograph, its path relative to the photographs' folder, with forward slashes; of a video likewise;
            of a frame, the video's and the frame's number from 0, as in `clip.mp4/000250`.
        status: "ok" or "failed".
        reason: why it failed.
        content: sha256 of a photograph's or a video's file; none where it could not be read, and of frames.
        size: [height, width] in pixels.
        classes: those that are there.
        ignored: pixels of no class.
        mean_confidence: over all pixels, in [0, 1].
        second: of a frame, when it is shown, from the beginning of the video.
        frames: of a video, how many were to be segmented.
        large: of an image that was segmented tile by tile; none for others.
    """

    name: str
    status: Literal["ok", "failed"]
    reason: str | None = None
    content: str | None = None
    size: tuple[int, int] | None = None
    classes: dict[str, ClassArea] | None = None
    ignored: int | None = None
    mean_confidence: float | None = None
    second: float | None = None
    frames: int | None = None
    large: TilesRecord | None = None

    @property
    def is_video(self) -> bool:
        """Whether this is a video as a whole."""
        return self.frames is not None

    @property
    def is_counted(self) -> bool:
        """Whether this is an image, or a video that failed; of others the frames count."""
        return not self.is_video or self.status == "failed"

    @property
    def source(self) -> str:
        """The photograph or the video that this is, or is a frame of."""
        return self.name if self.second is None else self.name.rpartition("/")[0]

    def line(self) -> dict[str, Any]:
        """For the file: what is none is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class Counts(Record):
    """What a finished run amounts to.

    Attributes:
        images: photographs and frames taken up.
        ok, failed: how many have each status; videos that failed as a whole count among the failed, too.
        pixels: of each class, in all images together.
    """

    images: int
    ok: int
    failed: int
    pixels: dict[str, int]

    @classmethod
    def of(cls, records: Iterable[ResultRecord], *, names: tuple[str, ...]) -> Self:
        """Count the records of all photographs, frames and videos."""
        pixels: Counter[str] = Counter()
        status: Counter[str] = Counter()
        for record in records:
            if record.is_counted:
                status[record.status] += 1
            pixels.update({name: area.pixels for name, area in (record.classes or {}).items()})
        return cls(
            images=status.total(),
            ok=status["ok"],
            failed=status["failed"],
            pixels={name: pixels[name] for name in names},
        )


class SegmentationRecord(RunRecord):
    """The whole of `segment.json`: what it takes to make the folder again.

    Attributes:
        format, version: what kind of folder this is.
        complete: false until a run has come to its end.
        photographs: their folder, relative to this one where there is such a path.
        vocabulary: the class list, as a file of it would be.
        vocabulary_hash: of that.
        names: of the masks' values, from 0; "background" is the last where words or a threshold make it.
        segmenter: models and numbers, as the segmenter describes itself.
        settings: of the segmentation.
        folder_settings: of the run.
        shard: which part of the photographs this is; none for all of them.
        counts: none until the run is complete.
    """

    format: Literal["patchword-segmentation"] = FORMAT
    version: Literal[2] = VERSION
    complete: bool
    photographs: str
    vocabulary: str
    vocabulary_hash: str
    names: tuple[str, ...]
    segmenter: dict[str, Any]
    settings: SegmentSettings
    folder_settings: FolderSettings
    shard: ShardRecord | None
    counts: Counts | None

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder's `segment.json`."""
        path = folder / SETTINGS
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise PatchwordError(
                f"no {SETTINGS} in {folder}; it must be a folder that `patchword segment` wrote"
            ) from None
        except (OSError, ValueError):
            raise PatchwordError(f"{path} is damaged; pass --overwrite to start again") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PatchwordError(f"{path} is damaged; pass --overwrite to start again")
        check_version(path, data.get("version"), reads=VERSION, again="segment again")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise PatchwordError(f"{path} is damaged at `{place}`: {error.errors()[0]['msg']}") from None
        except PatchwordError as error:
            raise PatchwordError(f"{path}: {error}") from None

    def save(self, folder: Path) -> None:
        """Write `segment.json`; the same record gives the same bytes."""
        write_json(folder / SETTINGS, self.model_dump(mode="json") | {"settings": self.settings.recorded()})


@dataclass(frozen=True)
class SegmentedFolder:
    """What a run has made, and a path to it.

    Attributes:
        folder: see docs/on-disk.md for what is in it.
        names: of the photographs and frames that were segmented.
        failed: name of a photograph, frame or video -> why it was not.
    """

    folder: Path
    names: tuple[str, ...]
    failed: dict[str, str]

    def __fspath__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        count = "1 image" if len(self.names) == 1 else f"{len(self.names):,} images"
        return f"SegmentedFolder({str(self.folder)!r}: {count}{failed})"

    def _repr_html_(self) -> str:
        from patchword.visualization.notebook import notebook_html

        return notebook_html(
            f"Masks in {self.folder}",
            facts=[("images", f"{len(self.names):,}"), ("failed", f"{len(self.failed):,}"), ("page", "report.html")],
            columns=("failed", "reason"),
            rows=list(self.failed.items()),
        )


def check_results(folder: Path, record: SegmentationRecord, results: Mapping[str, ResultRecord]) -> None:
    """Refuse the results of a finished folder that have lost lines."""
    if record.complete and record.counts is not None:
        check_counted(
            folder / RESULTS,
            found=sum(result.is_counted for result in results.values()),
            counted=record.counts.images,
            by=SETTINGS,
            mend="make what is lost with `patchword segment ... --resume`",
        )


def read_results(manifest: Manifest) -> dict[str, ResultRecord]:
    """A folder's results, by name."""
    records = {}
    for name, line in manifest.read().items():
        try:
            records[name] = ResultRecord.model_validate(line)
        except ValidationError as error:
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise PatchwordError(
                f"{manifest.path}: record of {name!r} is damaged at `{place}`: {error.errors()[0]['msg']}"
            ) from None
    return records
