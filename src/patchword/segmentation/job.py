"""What it takes to segment photographs, frames and images in tiles, and to write down what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.colours import with_one_more
from patchword.data.folders import Manifest
from patchword.data.images import read_image
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.runs.pipeline import (
    Photograph,
    Pixels,
    Writer,
    content_of,
    decoded,
    made_ahead,
    named_alike,
    remove_files,
    why_unread,
)
from patchword.runs.progress import Progress
from patchword.runs.records import Session
from patchword.runs.shards import Shard, chunks_of
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.files import LargeFacts, Segmented, mask_path, overlay_video_path, write_result
from patchword.segmentation.large.readers import read_head
from patchword.segmentation.large.run import segment_large
from patchword.segmentation.records import ResultRecord, read_results
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.resume import Kept
from patchword.segmentation.video import FrameCount, VideoFrame, frames_told, read_frames, write_overlay_video

IN_TILES: Pixels = np.empty((0, 0, 3), dtype=np.uint8)  # stands for the pixels of an image that is read tile by tile


@dataclass(frozen=True)
class Job:
    """A run at work.

    Attributes:
        folder: of the result.
        segmenter, vocabulary, settings, how: what is asked for.
        manifest, session, progress: told of everything that is done.
        large: images that are segmented tile by tile.
        ahead: photographs that wait decoded, and results that wait to be written, 1 or more.
        threads: photographs that are decoded at once, 1 or more.
    """

    folder: Path
    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    how: FolderSettings
    manifest: Manifest
    session: Session
    progress: Progress
    large: frozenset[Path]
    ahead: int
    threads: int

    def segment(self, chunks: Sequence[Sequence[tuple[str, Path]]]) -> None:
        """Decode photographs in threads ahead, segment a chunk here, write in a thread behind."""
        waiting = (photograph for chunk in chunks for photograph in chunk)
        ahead = max(self.ahead, *map(len, chunks)) if chunks else self.ahead  # a chunk waits while another is segmented
        with (
            closing(decoded(waiting, read=self._read, ahead=ahead, threads=self.threads)) as photographs,
            Writer(self.write, waiting=self.ahead) as writer,
        ):
            for chunk in chunks:
                for segmented in self.found(list(islice(photographs, len(chunk)))):
                    writer.put(segmented)

    def found(self, photographs: Sequence[Photograph]) -> Iterator[Segmented]:
        """Segment what can be read of a chunk, in batches that fit into memory; the rest tells why it cannot be."""
        for group in batches_of(photographs, most=self.how.batch_megapixels * 1e6):
            readable = [each.pixels for each in group if not isinstance(each.pixels, PatchwordError)]
            found = iter(self._batch([pixels for pixels in readable if pixels is not IN_TILES]))
            for each in group:
                yield Segmented(each.name, self._result(each, found), content=each.content)

    def write(self, item: Segmented) -> None:
        """Write an image's files; the line of the results comes last, so that it vouches for them."""
        settings = self.how if item.second is None else self.how.of_frames()
        self.note(write_result(self.folder, item, settings=settings))
        self.progress.advance()

    def note(self, record: ResultRecord) -> None:
        """Write a line of the results."""
        self.manifest.append(record.line())
        if record.is_counted:
            self.session.count(record.status)

    def tell(self, note: str) -> None:
        """Show beside the progress what is being done."""
        self.progress.tell(note)

    def _read(self, path: Path) -> Pixels:
        """Decode a photograph, unless it is to be read tile by tile."""
        return IN_TILES if path in self.large else read_image(path)

    def _result(
        self, photograph: Photograph, found: Iterator[SegmentationResult | PatchwordError]
    ) -> SegmentationResult | PatchwordError | LargeFacts:
        if isinstance(photograph.pixels, PatchwordError):
            return why_unread(photograph)
        return self._large(photograph) if photograph.pixels is IN_TILES else next(found)

    def _batch(self, images: Sequence[Pixels]) -> list[SegmentationResult | PatchwordError]:
        found = self.segmenter.segment_batch(images, classes=self.vocabulary, settings=self.settings) if images else []
        return [each if isinstance(each, PatchwordError) else self._lightened(each) for each in found]

    def _lightened(self, result: SegmentationResult) -> SegmentationResult:
        """A result that waits to be written, without what nobody asks of it."""
        return result if self.how.soft else replace(result, scores=None, class_of=None)

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
                note=lambda note: self.tell(f"{photograph.name}: {note}"),
            )
        except WriteError:
            raise
        except PatchwordError as error:
            return named_alike(error, path=photograph.path, name=photograph.name)
        finally:
            self.tell("")


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


_HEADS = 8  # files that are opened at once, which takes no memory


@dataclass(frozen=True)
class ChunkPlan:
    """What goes to the models together.

    Attributes:
        chunks: names of photographs.
        in_tiles: images that are segmented tile by tile; each is a chunk of its own.
    """

    chunks: list[tuple[str, ...]]
    in_tiles: frozenset[Path]


def plan_chunks(
    photographs: Mapping[str, Path],
    *,
    settings: SegmentSettings,
    how: FolderSettings,
    shard: Shard | None,
    or_none: bool = False,
) -> ChunkPlan:
    """Cut a folder's photographs into chunks of at most `batch` photographs and `batch_megapixels`.

    Args:
        photographs: name and path of all, sorted by name.
        settings, how: of the run.
        shard: the part that is wanted; None for all.
        or_none: whether a shard may have no photographs, as where there are videos.
    """
    if not photographs:
        return ChunkPlan([], frozenset())
    with ThreadPoolExecutor(_HEADS, thread_name_prefix="patchword-head") as pool:
        read = pool.map(partial(read_head, settings=settings), photographs.values())
        heads = dict(zip(photographs, read, strict=True))
    large = {name for name, head in heads.items() if head.in_tiles}
    chunks = chunks_of(
        list(photographs),
        size=settings.batch,
        shard=None if or_none else shard,
        alone=large,
        pixels={name: head.pixels for name, head in heads.items()},
        most=how.batch_megapixels * 1e6,
    )
    if or_none and shard is not None:
        chunks = chunks[shard.index - 1 :: shard.count]
    return ChunkPlan(chunks, frozenset(photographs[name] for name in large))


def frame_name(video: str, number: int) -> str:
    """What a frame is called in the results."""
    return f"{video}/{number:06d}"


@dataclass(frozen=True)
class VideoJob:
    """One video.

    Frames go to the models in chunks by their place in the video, whatever part of them a run takes; shards take whole
    chunks, in turn. Every shard decodes the whole video.

    Attributes:
        name: path relative to the photographs' folder, with forward slashes.
        path: where it is.
        every: frames of which one is segmented.
        batch: frames a chunk.
        shard: which chunks are taken; None for all.
        kept: what an earlier run has done.
    """

    name: str
    path: Path
    every: int
    batch: int
    shard: Shard | None
    kept: Kept

    @property
    def is_done(self) -> bool:
        """Whether an earlier run has been through it, and nothing of it is lost."""
        frames = self.kept.frames.get(self.name)
        return frames is not None and not any(self._lacks(chunk, below=frames) for chunk in range(self._chunks(frames)))

    def likely(self) -> tuple[int, int]:
        """Frames that this run is to segment, as the file's head tells, and how many of them are done."""
        frames = self.kept.frames.get(self.name) or -(-frames_told(self.path) // self.every)
        return self._share_of(frames), sum(self._name(place) in self.kept.names for place in range(frames))

    def run(self, job: Job) -> None:
        """Decode in a thread ahead, segment a chunk here, write in a thread behind; nothing where all is done."""
        if self.is_done:
            return
        count = FrameCount()
        remove_files([overlay_video_path(job.folder, self.name)])  # of frames that are about to change
        with (
            Writer(job.write, waiting=job.ahead) as writer,
            closing(made_ahead(self._frames(count), count=max(job.ahead, self.batch))) as frames,
        ):
            for _, group in groupby(frames, key=lambda frame: frame.number // self.every // self.batch):
                for segmented in self._segmented(list(group), job=job):
                    writer.put(segmented)
        record = self._record(count)
        job.progress.total += self._share_of(record.frames or 0) - self.likely()[0]
        job.note(record)

    def _frames(self, count: FrameCount) -> Iterator[VideoFrame]:
        try:
            yield from read_frames(self.path, wanted=self._is_wanted, count=count)
        except PatchwordError as error:
            count.cut_off = str(named_alike(error, path=self.path, name=self.name))

    def _segmented(self, frames: list[VideoFrame], *, job: Job) -> Iterator[Segmented]:
        if all(self._name(frame.number // self.every) in self.kept.names for frame in frames):
            return  # the last chunk, of which nobody knew that it is the last
        seconds = {frame_name(self.name, frame.number): frame.second for frame in frames}
        chunk = [Photograph(frame_name(self.name, each.number), self.path, each.pixels, None) for each in frames]
        for segmented in job.found(chunk):
            yield replace(segmented, second=seconds[segmented.name])

    def _record(self, count: FrameCount) -> ResultRecord:
        return ResultRecord(
            name=self.name,
            status="failed" if count.cut_off else "ok",
            reason=count.cut_off,
            content=content_of(self.path),
            frames=-(-count.frames // self.every),
        )

    def _share_of(self, frames: int) -> int:
        return sum(self._is_mine(place // self.batch) for place in range(frames))

    def _is_wanted(self, number: int) -> bool:
        place, rest = divmod(number, self.every)
        return not rest and self._is_mine(place // self.batch) and self._lacks(place // self.batch, below=None)

    def _is_mine(self, chunk: int) -> bool:
        return self.shard is None or chunk % self.shard.count == self.shard.index - 1

    def _lacks(self, chunk: int, *, below: int | None) -> bool:
        """Whether any frame of a chunk is not done; without the number of frames, chunks that end early lack some."""
        places = range(chunk * self.batch, (chunk + 1) * self.batch)
        if not self._is_mine(chunk):
            return False
        return any(self._name(place) not in self.kept.names for place in places if below is None or place < below)

    def _chunks(self, frames: int) -> int:
        return -(-frames // self.batch)

    def _name(self, place: int) -> str:
        return frame_name(self.name, place * self.every)


def paint_videos(job: Job, *, videos: Sequence[VideoJob], names: tuple[str, ...]) -> None:
    """Write the overlay videos that are missing, of the masks that are there.

    Args:
        job: whose manifest holds all frames.
        videos: to paint over.
        names: of the masks' values.
    """
    results = read_results(job.manifest)
    colours = job.vocabulary.colours
    colours = colours if len(names) == len(colours) else with_one_more(colours)
    for video in videos:
        path = overlay_video_path(job.folder, video.name)
        line = results[video.name]
        painted = {
            place * video.every: mask_path(job.folder, name)
            for place in range(line.frames or 0)
            if results[name := frame_name(video.name, place * video.every)].status == "ok"
        }
        if painted and not path.is_file():
            job.tell(f"painting {video.name}")
            write_overlay_video(path, video=video.path, masks=painted, names=names, colours=colours)
