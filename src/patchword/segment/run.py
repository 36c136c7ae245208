"""Stage 3 as a run: photographs and videos in, a folder of masks out; stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from patchword.errors import PatchwordError, WriteError
from patchword.folders import Manifest, prepare_output, sole_use
from patchword.images import read_image
from patchword.progress import Progress
from patchword.runs.names import name_images, named_alike, why_unread
from patchword.runs.records import relative_root
from patchword.runs.sessions import Session
from patchword.runs.shards import Shard, chunks_of
from patchword.runs.stream import Photograph, Pixels, decoded
from patchword.runs.writer import Writer
from patchword.segment.dense import AnySegmenter
from patchword.segment.files import Segmented, soft_classes, write_result
from patchword.segment.folder_settings import FolderSettings
from patchword.segment.large.facts import LargeFacts
from patchword.segment.large.readers import wants_tiles
from patchword.segment.large.run import segment_large
from patchword.segment.records import (
    MARKER,
    RESULTS,
    STATUSES,
    Counts,
    ResultRecord,
    SegmentationRecord,
    SegmentedFolder,
    read_results,
)
from patchword.segment.result import SegmentationResult
from patchword.segment.resume import begin, keep_done
from patchword.segment.settings import SegmentSettings
from patchword.segment.words import Classes, mask_names
from patchword.vocabulary import Vocabulary

IN_TILES: Pixels = np.empty((0, 0, 3), dtype=np.uint8)  # stands for the pixels of an image that is read tile by tile


def segment_folder(
    images: Sequence[Path],
    *,
    root: Path,
    segmenter: AnySegmenter,
    classes: Classes,
    out: str | Path,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | Mapping[str, Any] | None = None,
    folder_settings: FolderSettings | Mapping[str, Any] | None = None,
    limit: int | None = None,
    shard: Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    command: str = "",
    options: Mapping[str, Any] | None = None,
    ahead: int = 2,
    threads: int = 2,
    quiet: bool = False,
) -> SegmentedFolder:
    """Segment photographs and write masks; decoding, models and writing work side by side.

    A photograph that cannot be read or segmented is written down in `results.jsonl`, with the reason, and the run goes
    on. A run that was stopped, in whatever way, goes on with `resume` where it stopped; what it leaves then, but for
    `runs.jsonl`, has the same bytes as after a run that was not stopped. Photographs go to the models in chunks of
    `settings.batch` by their place among all names; a chunk of which a part is missing is done anew as a whole.

    Args:
        images: all photographs, inside `root`; where `out` is inside `root` too, the masks in it are left out.
        root: folder that names are relative to.
        segmenter: `Segmenter`, `DenseSegmenter` or whatever else segments.
        classes, background, settings: as of `Segmenter.segment`.
        out: folder of the result.
        folder_settings: what is written, all as `FolderSettings`, or by name what differs from the defaults.
        limit: take the first so many photographs by name, at least 1; None for all.
        shard: take one of several parts of them.
        resume: go on in a folder that an earlier run left; classes, models and settings must be the same.
        overwrite: empty such a folder first.
        retry_failed: with resume, try again what failed; else it is kept as failed.
        command: what the user typed, for the record.
        options: what was chosen beside that changes no result, for the record.
        ahead: photographs that wait decoded, and results that wait to be written, 1 or more; costs memory, saves time.
        threads: photographs that are decoded at once, 1 or more.
        quiet: whether to show no progress.

    Raises:
        PatchwordError: for no photographs, one outside `root`, a folder that is refused or that another run is at work
            in, a resumed run that differs, a shard without photographs, a number out of range, or a file that cannot be
            written.
    """
    chosen, how = SegmentSettings.of(settings), FolderSettings.of(folder_settings)
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    soft_classes(how, names=mask_names(vocabulary, settings=chosen))
    named = name_images(images, root=root, out=Path(out), verb="segment")
    names = sorted(named)[:limit]
    large = frozenset(name for name in names if wants_tiles(named[name], settings=chosen))
    chunks = chunks_of(names, size=chosen.batch, shard=shard, alone=large)
    folder = prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    with sole_use(folder):
        record = SegmentationRecord(
            complete=False,
            photographs=relative_root(root, folder=folder),
            vocabulary=vocabulary.to_text(),
            vocabulary_hash=vocabulary.hash,
            names=mask_names(vocabulary, settings=chosen),
            segmenter=segmenter.describe(),
            settings=chosen,
            folder_settings=how,
            shard=None if shard is None else shard.record(names),
            counts=None,
        )
        record = begin(folder, record)
        manifest = Manifest(folder / RESULTS)
        kept = keep_done(folder, manifest=manifest, record=record, retry_failed=retry_failed)
        missing = [chunk for chunk in chunks if not kept.names.issuperset(chunk)]
        total, left = sum(map(len, chunks)), sum(map(len, missing))
        session = Session(
            folder,
            command=command,
            options={**(options or {}), "limit": limit, "ahead": ahead, "threads": threads},
            kept=total - left,
            failed_before=kept.failed,
            statuses=STATUSES,
        )
        progress = Progress(total, "segmenting", "images", already=total - left, quiet=quiet)
        with session:
            with progress, manifest:
                job = _Job(folder, segmenter, vocabulary, chosen, how, manifest, session, progress)
                job.segment(
                    [[(name, named[name]) for name in chunk] for chunk in missing], ahead=ahead, threads=threads
                )
            return finish(folder, record=record, manifest=manifest, wanted=names)


def finish(folder: Path, *, record: SegmentationRecord, manifest: Manifest, wanted: Iterable[str]) -> SegmentedFolder:
    """Sort the results, count them, and write down that the folder is complete. May be repeated.

    Args:
        folder: of the result.
        record: of the run so far.
        manifest: of the results, which is closed.
        wanted: names of the photographs that this run was asked for; the folder may hold others.

    Raises:
        PatchwordError: when a file cannot be written; the folder is then not complete.
    """
    manifest.finish()
    results = read_results(manifest)
    counts = Counts.of(results.values(), names=record.names)
    record.model_copy(update={"complete": True, "counts": counts}).save(folder)
    asked = set(wanted)
    mine = [result for name, result in results.items() if name in asked]
    return SegmentedFolder(
        folder,
        tuple(result.name for result in mine if result.status == "ok"),
        {result.name: result.reason or "" for result in mine if result.status == "failed"},
    )


@dataclass(frozen=True)
class _Job:
    """What it takes to segment photographs and to write down what came of them."""

    folder: Path
    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    how: FolderSettings
    manifest: Manifest
    session: Session
    progress: Progress

    def segment(self, chunks: Sequence[Sequence[tuple[str, Path]]], *, ahead: int, threads: int) -> None:
        """Decode photographs in threads ahead, segment a chunk here, write in a thread behind."""
        waiting = (photograph for chunk in chunks for photograph in chunk)
        decoding = max(ahead, *map(len, chunks)) if chunks else ahead  # a whole chunk waits while another is segmented
        with (
            closing(decoded(waiting, read=self._read, ahead=decoding, threads=threads)) as photographs,
            Writer(self._write, waiting=ahead) as writer,
        ):
            for chunk in chunks:
                for segmented in self._chunk(list(islice(photographs, len(chunk)))):
                    writer.put(segmented)

    def _read(self, path: Path) -> Pixels:
        """Decode a photograph, unless it is to be read tile by tile."""
        return IN_TILES if wants_tiles(path, settings=self.settings) else read_image(path)

    def _chunk(self, photographs: list[Photograph]) -> Iterator[Segmented]:
        """Segment what can be read of a chunk, in batches that fit into memory; the rest tells why it cannot be."""
        for group in batches_of(photographs, most=self.how.batch_megapixels * 1e6):
            readable = [each.pixels for each in group if not isinstance(each.pixels, PatchwordError)]
            found = iter(self._batch([pixels for pixels in readable if pixels is not IN_TILES]))
            for each in group:
                yield Segmented(each.name, self._found(each, found), content=each.content)

    def _found(
        self, photograph: Photograph, found: Iterator[SegmentationResult | PatchwordError]
    ) -> SegmentationResult | PatchwordError | LargeFacts:
        if isinstance(photograph.pixels, PatchwordError):
            return why_unread(photograph)
        return self._large(photograph) if photograph.pixels is IN_TILES else next(found)

    def _large(self, photograph: Photograph) -> PatchwordError | LargeFacts:
        """Segment an image tile by tile into its files."""
        try:
            return segment_large(
                photograph.path,
                segmenter=self.segmenter,
                classes=self.vocabulary,
                out=self.folder,
                name=photograph.name,
                settings=self.settings,
                overlays=self.how.overlays,
                confidence_bits=self.how.confidence_bits,
                note=self._tell,
            )
        except WriteError:
            raise
        except PatchwordError as error:
            return named_alike(error, path=photograph.path, name=photograph.name)
        finally:
            self._tell("")

    def _tell(self, note: str) -> None:
        self.progress.note = note

    def _batch(self, images: Sequence[Pixels]) -> list[SegmentationResult | PatchwordError]:
        found = self.segmenter.segment_batch(images, classes=self.vocabulary, settings=self.settings) if images else []
        return [each if isinstance(each, PatchwordError) else self._lightened(each) for each in found]

    def _lightened(self, result: SegmentationResult) -> SegmentationResult:
        """A result that waits to be written, without what nobody asks of it."""
        return result if self.how.soft else replace(result, scores=None, class_of=None)

    def _write(self, item: Segmented) -> None:
        """Write an image's files; the line of the results comes last, so that it vouches for them."""
        record = write_result(self.folder, item, settings=self.how)
        self._note(record)
        self.progress.advance()

    def _note(self, record: ResultRecord) -> None:
        self.manifest.append(record.line())
        self.session.count(record.status)


def batches_of(photographs: Sequence[Photograph], *, most: float) -> list[list[Photograph]]:
    """Cut a chunk where its photographs would have more than so many pixels together; a larger one stands alone."""
    groups: list[list[Photograph]] = []
    room = 0.0
    for each in photographs:
        pixels = 0 if isinstance(each.pixels, PatchwordError) else each.pixels.shape[0] * each.pixels.shape[1]
        if not groups or pixels > room:
            groups.append([])
            room = most
        groups[-1].append(each)
        room -= pixels
    return groups
