"""Reads what labelling has left: photographs, their label maps and segments, and how they were made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.config.label import LabelSettings
from patchword.data.images import read_image
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap, Segment
from patchword.data.storage import as_path
from patchword.data.tar_shards import absent, photograph_at
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.records import (
    DATASET_FILE,
    MANIFEST_FILE,
    Counts,
    DatasetRecord,
    ImageRecord,
    embeddings_path,
    label_map_path,
    read_manifest,
    segments_path,
)
from patchword.models.protocols import ModelRecord
from patchword.runs.folder_run import files_below
from patchword.runs.pipeline import contents_of, told
from patchword.runs.progress import photograph_count
from patchword.runs.records import check_counted, recorded_root

if TYPE_CHECKING:
    from patchword.labeling.quality.records import QualityRecord
    from patchword.labeling.reviewed import ReviewSummary

_SHOWN = 6  # photographs in a notebook
GONE = "the photograph is gone"
CHANGED = "the photograph has changed since it was labelled"


@dataclass(frozen=True)
class LabelledItem:
    """One photograph that was labelled. A notebook shows it with its labels.

    Attributes:
        image: the photograph.
        label_map: its label map, an indexed PNG of the same size.
        segments_file: its segments, JSON.
        record: its line of the manifest.
        vocabulary: the classes of the label map.
        embeddings_file: what CLIP sees in each of its masks; none where that was not kept.
    """

    image: Path
    label_map: Path
    segments_file: Path
    record: ImageRecord
    vocabulary: Vocabulary
    embeddings_file: Path | None = None

    def labels(self) -> LabelMap:
        """Read the label map."""
        found = LabelMap.load(self.label_map, names=self.vocabulary.names)
        return replace(found, colours=self.vocabulary.colours)

    def __repr__(self) -> str:
        return f"LabelledItem({self.record.name!r}: {', '.join(self.record.classes) or 'no labels'})"

    def _repr_png_(self) -> bytes:
        return self.picture()

    def picture(self, *, side: int = 720, legend: bool = True) -> bytes:
        """PNG of the labels over the photograph, `side` pixels at most."""
        from patchword.visualization.notebook import notebook_picture

        return notebook_picture(read_image(self.image), self.labels(), side=side, legend=legend)

    def segments(self) -> tuple[Segment, ...]:
        """Read the segments."""
        try:
            data = json.loads(self.segments_file.read_bytes())
            return tuple(Segment.from_json(segment) for segment in data["segments"])
        except OSError as error:
            raise PatchwordError(f"cannot read {self.segments_file}: {error.strerror}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise PatchwordError(f"{self.segments_file} is damaged: {error}") from None


@dataclass(frozen=True)
class LabelledDataset:
    """A folder of pseudo labels, and a path to it. `len`, iteration, `labels[0]` and `labels["a.jpg"]` go by its items.

    Attributes:
        folder: where it is.
        root: folder of the photographs.
        items: photographs with labels, by name; also those whose map is all ignore (status "empty").
        failed: records of the photographs that could not be labelled.
        vocabulary: the maps' indices refer to its classes.
        settings: how labelling was done; none for imported labels.
        image_text, mask_generator: the models that it was done with; none for imported labels.
        counts: totals.
        preset: the preset that labelled; none where that is not recorded.
        encoder: the vision encoder that was named when labelling; none where none was.
        review: what people changed, of labels that `reviewed` gives; none for the labels as they were made.
    """

    folder: Path
    root: Path
    items: tuple[LabelledItem, ...]
    failed: tuple[ImageRecord, ...]
    vocabulary: Vocabulary
    settings: LabelSettings | None
    image_text: ModelRecord | None
    mask_generator: ModelRecord | None
    counts: Counts
    preset: str | None = None
    encoder: str | None = None
    review: ReviewSummary | None = None

    @classmethod
    def open(
        cls, folder: str | Path, *, photos: str | Path | None = None, allow_missing: bool = False
    ) -> LabelledDataset:
        """Open and check a folder that `label` wrote.

        Args:
            folder: the data set.
            photos: where the photographs are now; by default where they were, relative to the data set.
            allow_missing: whether some photographs, not all, may be gone; their items stay, and whoever reads them
                finds out. `unusable` names them.
        """
        folder = as_path(folder)
        if not folder.is_dir():
            raise PatchwordError(f"no such folder: {folder}; give a folder that `patchword label` wrote")
        dataset = DatasetRecord.load(folder)
        if dataset.counts is None or not dataset.complete:
            raise PatchwordError(
                f"{folder} is of a run that did not finish; finish it with `patchword label ... --resume`"
            )
        root = recorded_root(folder, dataset.photographs) if photos is None else as_path(photos)
        records = read_manifest(Manifest(folder / MANIFEST_FILE))
        check_manifest(folder, dataset, found=len(records))
        labelled = [record for record in records.values() if record.status != "failed"]
        vocabulary = Vocabulary.recorded(dataset.vocabulary.text, source=f"vocabulary of {folder}")
        embedded = dataset.settings is not None and dataset.settings.mask_embeddings
        items = tuple(
            LabelledItem(
                photograph_at(root, record.name),
                label_map_path(folder, record.name),
                segments_path(folder, record.name),
                record,
                vocabulary,
                embeddings_path(folder, record.name) if embedded else None,
            )
            for record in labelled
        )
        _check_files(items, folder=folder, root=root, allow_missing=allow_missing)
        return cls(
            folder=folder,
            root=root,
            items=items,
            failed=tuple(record for record in records.values() if record.status == "failed"),
            vocabulary=vocabulary,
            settings=dataset.settings,
            image_text=dataset.image_text,
            mask_generator=dataset.mask_proposer,
            counts=dataset.counts,
            preset=dataset.preset,
            encoder=dataset.encoder,
        )

    def __fspath__(self) -> str:
        return str(self.folder)

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[LabelledItem]:
        return iter(self.items)

    def __getitem__(self, key: int | str) -> LabelledItem:
        if isinstance(key, str):
            found = next((item for item in self.items if item.record.name == key), None)
            if found is None:
                raise PatchwordError(f"{self.folder} has no labels of {key!r}{_example(self.items)}")
            return found
        return self.items[key]

    def __repr__(self) -> str:
        failed = f", {len(self.failed)} failed" if self.failed else ""
        return (
            f"LabelledDataset({str(self.folder)!r}: {photograph_count(len(self))}{failed}; {self.vocabulary.spoken()})"
        )

    def _repr_html_(self) -> str:
        from patchword.visualization.notebook import notebook_html
        from patchword.visualization.pages import colours_by_name

        counts = self.counts
        having = sorted(counts.images_with_class.items(), key=lambda entry: -entry[1])
        return notebook_html(
            f"Labels in {self.folder}",
            facts=[
                (name, f"{value:,}")
                for name, value in (
                    ("photographs", counts.images),
                    ("without any label", counts.empty),
                    ("failed", counts.failed),
                    ("masks", counts.segments),
                )
            ],
            pictures=self._pictures(),
            columns=("class", "photographs"),
            rows=[(name, f"{count:,}") for name, count in having],
            colours=colours_by_name(self.vocabulary),
        )

    def _pictures(self) -> list[tuple[str, bytes]]:
        """The first photographs that are there, small, for a notebook."""
        found: list[tuple[str, bytes]] = []
        for item in self.items[: 4 * _SHOWN]:
            if len(found) < _SHOWN and item.record.status == "ok":
                with suppress(PatchwordError):
                    found.append((item.record.name, item.picture(side=180, legend=False)))
        return found

    def unusable(self, *, quiet: bool = True) -> dict[str, str]:
        """Which photographs are gone or are no longer those that were labelled, by the hash of their content.

        Args:
            quiet: whether to show no progress; every photograph is read.

        Returns:
            name -> reason, by name. Labels that were imported without hashes are only looked for.
        """
        found = contents_of((item.image for item in self.items if item.record.content is not None), quiet=quiet)
        reasons = {}
        for item in sorted(self.items, key=lambda each: each.record.name):
            recorded, now = item.record.content, found.get(item.image)
            if (recorded is not None and now is None) or (recorded is None and not item.image.is_file()):
                reasons[item.record.name] = GONE
            elif now != recorded:
                reasons[item.record.name] = CHANGED
        return reasons

    def reviewed(self) -> LabelledDataset:
        """The labels with what people decided in the review; these labels themselves where nobody did."""
        from patchword.labeling.reviewed import apply_reviews

        return apply_reviews(self)

    def quality(self) -> Iterator[QualityRecord]:
        """What the labels of each photograph are worth, by name, one in memory at a time.

        Read from `quality.jsonl`; what is missing there is assessed anew from segments and masks, and not written.
        """
        from patchword.labeling.quality.report import assessors, read_quality  # they read this module's files

        images = [item.record.name for item in self.items]
        names = self.vocabulary.names
        wanted = assessors(self.folder, images=images, names=names, settings=self.settings)
        return read_quality(self.folder, wanted=wanted)


def why_unusable(reasons: Mapping[str, str]) -> str:
    """What `LabelledDataset.unusable` found, in a line, which has the counts and a name of each."""
    gone = [name for name, reason in reasons.items() if reason == GONE]
    changed = [name for name, reason in reasons.items() if reason == CHANGED]
    parts = [told(gone, "is gone", more="are gone")] if gone else []
    if changed:
        parts.append(told(changed, "changed since it was labelled", more="changed since they were labelled"))
    return "; ".join(parts)


def check_manifest(folder: Path, dataset: DatasetRecord, *, found: int) -> None:
    """Refuse the manifest of a finished data set that has lost lines.

    Args:
        folder: the data set's.
        dataset: its record.
        found: photographs in its manifest.
    """
    again = "`patchword label ... --resume`" if dataset.source == "models" else "`patchword import` again"
    if dataset.counts is not None:
        check_counted(
            folder / MANIFEST_FILE,
            found=found,
            counted=dataset.counts.images,
            by=DATASET_FILE,
            mend=f"make what is lost with {again}",
        )


def _example(items: Sequence[LabelledItem]) -> str:
    return f"; its photographs have names such as {items[0].record.name!r}" if items else ""


def _check_files(items: tuple[LabelledItem, ...], *, folder: Path, root: Path, allow_missing: bool) -> None:
    lacking = absent(root, [item.record.name for item in items])
    gone = [item for item in items if item.record.name in lacking]
    if not root.is_dir() or (gone and len(gone) == len(items)):
        example = f"; {len(gone)} of {len(items)} are gone, such as {gone[0].record.name}" if gone else ""
        raise PatchwordError(
            f"the photographs of {folder} are not in {root}{example}; pass --photos (photos=) their folder"
        )
    if gone and not allow_missing:
        raise PatchwordError(
            f"{len(gone)} of {len(items)} photographs of {folder} are gone from {root}, such as {gone[0].record.name}; "
            "put them back, pass --photos (photos=) where they are now, or drop their labels with `patchword label "
            "... --resume --forget-missing`"
        )
    is_there = files_below(folder)
    lost = [item.label_map for item in items if not is_there(item.label_map)]
    if lost:
        raise PatchwordError(
            f"{folder} has lost {len(lost)} of its label maps, such as {lost[0]}; make them with --resume"
        )
