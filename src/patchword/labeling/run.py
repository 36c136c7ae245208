"""A folder of photographs in, a folder of pseudo labels out; a run that was stopped can be resumed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from patchword.config.label import LabelSettings
from patchword.data.folders import Manifest, prepare_output, sole_use, write_json, write_text
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import Detection, crop_side
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import ImageLabels, LabelParts, MaskCandidates, fuse_masks, generate_masks
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.records import DISAGREEMENT_FILE
from patchword.labeling.quality.report import QUALITY_FILE, write_report
from patchword.labeling.records import (
    CARD_FILE,
    MANIFEST_FILE,
    MARKER,
    Counts,
    DatasetRecord,
    ImageRecord,
    dataset_card,
    label_map_path,
    read_manifest,
    segments_path,
)
from patchword.labeling.resume import CORRECTIONS, begin, refuse_corrections
from patchword.runs.pipeline import Photograph, Writer, decoded, name_images, remove_files, why_unread, why_unwritten
from patchword.runs.progress import Progress, say
from patchword.runs.records import Session
from patchword.runs.shards import Shard, chunks_of


def label_folder(
    images: Sequence[Path],
    *,
    root: Path,
    out: Path,
    parts: LabelParts,
    settings: LabelSettings | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    preset: str | None = None,
    encoder: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overwrite_corrections: bool = False,
    forget_missing: bool = False,
    retry_failed: bool = False,
    command: str = "",
    ahead: int = 2,
    threads: int = 2,
    quiet: bool = False,
) -> LabelledDataset:
    """Label photographs and write a data set of pseudo masks; decoding, models and writing work side by side.

    A photograph that cannot be read or labelled is written down in the manifest, with the reason, and the run goes on.
    A run that was stopped, in whatever way, goes on with `resume` where it stopped. What it leaves then, but for
    `runs.jsonl`, has the same bytes as after a run that was not stopped. Photographs go to the models in chunks of
    `settings.image_batch` by their place among all names; a chunk of which a part is missing is done anew as a whole.

    Args:
        images: all photographs, inside `root`; where `out` is inside `root` too, the label maps in it are left out.
        root: folder that names are relative to.
        out: folder of the data set.
        parts: models and vocabulary.
        settings: numbers of stage 1; the defaults when none are given.
        limit: take the first so many photographs by name, at least 1; None for all.
        shard: take one of several parts of them.
        preset, encoder: the preset, and the vision encoder that was named, for a later `align` to go by.
        resume: go on in a folder that an earlier run left.
        overwrite: empty such a folder first, unless it holds labels that a person corrected.
        overwrite_corrections: empty it even then.
        forget_missing: with resume, drop the labels of photographs that no longer exist, which are an error else.
        retry_failed: with resume, try again what failed; else it is kept as failed.
        command: what the user typed, for the record.
        ahead: photographs that wait decoded, and that wait to be written, 1 or more; costs memory, saves time.
        threads: photographs that are decoded at once, 1 or more.
        quiet: whether to show no progress.

    Returns:
        the data set; `failed` in it lists what could not be labelled.
    """
    settings = settings or LabelSettings()
    named = name_images(images, root=root, out=out, verb="label")
    names = sorted(named)[:limit]
    chunks = chunks_of(names, size=settings.image_batch, shard=shard)
    _check_parts(parts, settings)
    if overwrite and not overwrite_corrections:
        refuse_corrections(out, instead=CORRECTIONS)
    overwrite = overwrite or overwrite_corrections
    folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    with sole_use(folder):
        part = None if shard is None else shard.record(names)
        manifest = Manifest(folder / MANIFEST_FILE)
        wanted = {name for chunk in chunks for name in chunk}
        begun = begin(
            folder,
            root=root,
            names=wanted,
            parts=parts,
            settings=settings,
            manifest=manifest,
            shard=part,
            forget_missing=forget_missing,
            retry_failed=retry_failed,
            preset=preset,
            encoder=encoder,
            quiet=quiet,
        )
        for note in begun.notes:
            say(note, quiet=quiet)
        begun.write(folder, manifest=manifest)
        kept = begun.kept
        missing = [chunk for chunk in chunks if not kept.names.issuperset(chunk)]
        already = len(wanted) - sum(map(len, missing))
        options = {"device": str(parts.mask_proposer.device), "limit": limit, "ahead": ahead, "threads": threads}
        session = Session(folder, command=command, options=options, kept=already, failed_before=kept.failed)
        progress = Progress(len(wanted), "labelling", "images", already=already, quiet=quiet)
        with session:
            with progress, manifest, Manifest(folder / QUALITY_FILE) as quality:
                job = _Job(folder, parts, settings, manifest, quality, session, progress)
                job.label([[(name, named[name]) for name in chunk] for chunk in missing], ahead=ahead, threads=threads)
            finish(folder, record=begun.record, manifest=manifest)
    return LabelledDataset.open(folder, photos=root)


@dataclass(frozen=True)
class _Generated:
    """A photograph that the models have seen, without its pixels."""

    name: str
    content: str | None
    candidates: MaskCandidates | PatchwordError


@dataclass(frozen=True)
class _Job:
    """What it takes to label photographs and to write down what came of them."""

    folder: Path
    parts: LabelParts
    settings: LabelSettings
    manifest: Manifest
    quality: Manifest
    session: Session
    progress: Progress

    def label(self, chunks: Sequence[Sequence[tuple[str, Path]]], *, ahead: int, threads: int) -> None:
        """Decode photographs in threads ahead, ask the models about a chunk here, write in a thread behind."""
        ahead = max(ahead, *map(len, chunks)) if chunks else ahead  # a whole chunk waits while another is asked
        waiting = (photograph for chunk in chunks for photograph in chunk)
        with (
            closing(decoded(waiting, ahead=ahead, threads=threads)) as photographs,
            Writer(self._write, waiting=ahead) as writer,
        ):
            for chunk in chunks:
                for generated in self._ask(list(islice(photographs, len(chunk)))):
                    writer.put(generated)

    def _ask(self, photographs: list[Photograph]) -> list[_Generated]:
        images = [to_tensor(each.pixels) for each in photographs if not isinstance(each.pixels, PatchwordError)]
        answers = iter(generate_masks(images, parts=self.parts, settings=self.settings))
        candidates = [
            why_unread(each) if isinstance(each.pixels, PatchwordError) else next(answers) for each in photographs
        ]
        return [_Generated(each.name, each.content, found) for each, found in zip(photographs, candidates, strict=True)]

    def _write(self, generated: _Generated) -> None:
        """Fuse and write the mask candidates; the manifest's line comes last, so that it vouches for the files."""
        found = self._fuse(generated.candidates)
        record = write_result(self.folder, generated.name, found, content=generated.content, settings=self.settings)
        if isinstance(found, ImageLabels) and record.status != "failed":
            quality = assess(found, name=generated.name, settings=self.settings)
            self.quality.append(quality.model_dump(mode="json"))
        self.manifest.append(record.model_dump(mode="json"))
        self.session.count(record.status)
        self.progress.advance()

    def _fuse(self, candidates: MaskCandidates | PatchwordError) -> ImageLabels | PatchwordError:
        if isinstance(candidates, PatchwordError):
            return candidates
        vocabulary = self.parts.vocabulary
        try:
            return fuse_masks(candidates, names=vocabulary.names, settings=self.settings, colours=vocabulary.colours)
        except PatchwordError as error:
            return error
        except MemoryError:
            return PatchwordError(f"not enough memory to label {candidates.size[0]} x {candidates.size[1]} pixels")


def _check_parts(parts: LabelParts, settings: LabelSettings) -> None:
    """Find out before the first photograph what would fail on every one."""
    encoder = parts.image_text
    crop_side(settings, input_size=encoder.record.input_size, patch_size=encoder.record.patch_size)
    if settings.needs_encoder and parts.patch_encoder is None:
        raise PatchwordError("setting 'point_sampling' is 'encoder', but there is no vision encoder; name one")
    dense = getattr(encoder, "dense", settings.dense)
    if dense != settings.dense:
        raise PatchwordError(f"setting `dense` is {settings.dense!r}, but the encoder was loaded with {dense!r}")


def write_result(
    folder: Path, name: str, found: ImageLabels | PatchwordError, *, content: str | None, settings: LabelSettings
) -> ImageRecord:
    """Write a photograph's files, or remove those of an earlier run where it failed.

    Args:
        folder: the data set's.
        name: the photograph's.
        found: its labels, or why there are none.
        content: see `ImageRecord`.
        settings: what it was labelled with.

    Returns:
        its record; to be written after the files, so that it vouches for them.
    """
    if isinstance(found, ImageLabels):
        try:
            found.label_map.save(label_map_path(folder, name))
            write_json(segments_path(folder, name), _segments_record(name, found))
        except PatchwordError as error:
            found = why_unwritten(error, folder=folder)
    if isinstance(found, ImageLabels):
        return _labelled(name, found, content=content, settings=settings)
    remove_files([label_map_path(folder, name), segments_path(folder, name)])
    return ImageRecord(
        name=name, status="failed", size=None, classes=(), segments=0, coverage=0, reason=str(found), content=content
    )


def _labelled(name: str, found: ImageLabels, *, content: str | None, settings: LabelSettings) -> ImageRecord:
    indices, label_map = found.label_map.indices, found.label_map
    counted = np.bincount(indices.ravel(), minlength=label_map.ignore + 1)
    present = tuple(class_name for index, class_name in enumerate(label_map.names) if counted[index])
    return ImageRecord(
        name=name,
        status="ok" if present else "empty",
        size=(indices.shape[0], indices.shape[1]),
        classes=present,
        segments=len(found.segments),
        coverage=1 - int(counted[label_map.ignore]) / indices.size,
        reason=None if present else _reason_of_emptiness(found, settings),
        content=content,
    )


def _reason_of_emptiness(found: ImageLabels, settings: LabelSettings) -> str:
    detected = found.detected
    if not detected.kept:
        return f"nothing detected: no class won {detected.needed} of {detected.crops} crops"
    if not found.segments:
        return f"no mask reached a predicted IoU of {settings.pred_iou_thresh}"
    return "every claim is contested by another class"


def _segments_record(name: str, found: ImageLabels) -> dict[str, object]:
    indices = found.label_map.indices
    return {
        "name": name,
        "size": list(indices.shape),
        "detected": _detection_record(found.detected, found.label_map.names),
        "segments": [segment.to_json() for segment in found.segments],
    }


def _detection_record(detected: Detection, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "crops": detected.crops,
        "needed": detected.needed,
        "background_votes": detected.background_votes,
        "entropy": detected.entropy,
        "votes": {name: votes for name, votes in zip(names, detected.votes, strict=True) if votes},
        "kept": [names[index] for index in detected.kept],
    }


def finish(
    folder: Path, *, record: DatasetRecord, manifest: Manifest, left_out: Mapping[str, int] | None = None
) -> DatasetRecord:
    """Note duplicates, sort the manifest, count, report, write the card, and write down that the data set is complete.

    What a model said against the labels is removed: they may be others now. May be repeated.

    Args:
        folder: the data set's.
        record: its record so far.
        manifest: its manifest, which is closed.
        left_out: what an import left out that belongs to no photograph: kind of trouble -> how many.

    Returns:
        the record of the complete data set.
    """
    (folder / DISAGREEMENT_FILE).unlink(missing_ok=True)  # of labels that may have been others
    _note_duplicates(manifest)
    if record.settings is not None:  # labels that were imported have no quality
        write_report(folder)
    counts = Counts.of(read_manifest(manifest).values(), names=record.vocabulary.names, left_out=left_out)
    complete = record.model_copy(update={"complete": True, "counts": counts})
    write_text(folder / CARD_FILE, dataset_card(complete))
    complete.save(folder)
    return complete


def _note_duplicates(manifest: Manifest) -> None:
    """Write the manifest anew with its duplicates; its records are let go of before anything else is read."""
    with manifest:
        for changed in mark_duplicates(read_manifest(manifest).values()):
            manifest.append(changed.model_dump(mode="json"))
    manifest.finish()


def mark_duplicates(records: Iterable[ImageRecord]) -> Iterator[ImageRecord]:
    """Find the photographs whose content another of an earlier name has.

    Yields:
        the records that have to change, by name: duplicates that were not known, and those that are none any more.
    """
    first: dict[str, str] = {}
    for record in sorted(records, key=lambda each: each.name):
        original = record.name if record.content is None else first.setdefault(record.content, record.name)
        duplicate_of = None if original == record.name else original
        if duplicate_of != record.duplicate_of:
            yield record.model_copy(update={"duplicate_of": duplicate_of})
