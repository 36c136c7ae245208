"""What is done with photographs, frames and images in tiles when a folder is segmented."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, repeat, takewhile
from pathlib import Path
from typing import Any

import numpy as np

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.images import read_image
from patchword.data.storage import is_stored
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.runs.pipeline import (
    Chunk,
    Photograph,
    Pixels,
    Written,
    named_alike,
    read_ahead,
    remove_files,
    why_unread,
)
from patchword.runs.shards import Shard, chunks_of
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.heads import read_heads
from patchword.segmentation.records import ResultRecord
from patchword.segmentation.result import SegmentationResult, Segmented, overlay_video_path, write_result
from patchword.segmentation.video import FrameCount, VideoFrame, frames_told, is_video, read_frames

# Stands for the pixels of images that are read tile by tile, and of videos, which are read frame by frame.
NOT_READ: Pixels = np.empty((0, 0, 3), dtype=np.uint8)


@dataclass(frozen=True)
class VideoEnd:
    """A video of which all frames are segmented: its line, and how many frames there were beyond what its head told."""

    record: ResultRecord
    unexpected: int


def _nobody(note: str) -> None:
    pass


@dataclass(frozen=True)
class SegmentWork:
    """What is done with the photographs and videos of a run; the `Work` of the folder engine.

    Attributes:
        folder: of the result.
        segmenter, vocabulary, settings, how: what is asked for.
        large: images that are segmented tile by tile.
        shard: which frames of videos are taken; None for all.
        tell: told what is being done, where one image takes long.
    """

    folder: Path
    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    how: FolderSettings
    large: frozenset[Path] = frozenset()
    shard: Shard | None = None
    tell: Callable[[str], None] = _nobody

    def __getstate__(self) -> dict[str, Any]:
        """For a process of its own, which has nobody to tell."""
        return {**self.__dict__, "tell": _nobody}

    def read(self, path: Path) -> Pixels:
        """Decode a photograph, unless it is read part by part."""
        return NOT_READ if path in self.large or is_video(path) else read_image(path)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> Iterator[Segmented | VideoEnd]:
        """Segment what can be read of a chunk, in batches that fit into memory; a video is a chunk of its own."""
        if is_video(photographs[0].path):
            return self._video(photographs[0], chunk=chunk)
        return self._images(photographs)

    def write(self, made: Segmented | VideoEnd) -> Written:
        """Write an image's files."""
        if isinstance(made, VideoEnd):
            failed = made.record.status == "failed"
            return Written(made.record, counted=failed, unexpected=made.unexpected + failed)
        settings = self.how if made.second is None else self.how.of_frames()
        return Written(write_result(self.folder, made, settings=settings))

    def _images(self, photographs: Sequence[Photograph]) -> Iterator[Segmented]:
        for group in batches_of(photographs, most=self.how.batch_megapixels * 1e6):
            readable = [each.pixels for each in group if not isinstance(each.pixels, PatchwordError)]
            images = [pixels for pixels in readable if pixels is not NOT_READ]
            segment = partial(self.segmenter.segment_batch, classes=self.vocabulary, settings=self.settings)
            found = iter(segment(images) if images else ())
            for each in group:
                yield Segmented(each.name, self._result(each, found), content=each.content)

    def _result(
        self, photograph: Photograph, found: Iterator[SegmentationResult | PatchwordError]
    ) -> SegmentationResult | PatchwordError | ResultRecord:
        if isinstance(photograph.pixels, PatchwordError):
            return why_unread(photograph)
        if photograph.pixels is NOT_READ:
            return self._in_tiles(photograph)
        result = next(found)
        if isinstance(result, PatchwordError) or self.how.soft:
            return result
        return replace(result, scores=None, class_of=None)

    def _in_tiles(self, photograph: Photograph) -> PatchwordError | ResultRecord:
        """Segment an image tile by tile into its files."""
        if is_stored(photograph.path) or is_stored(self.folder):
            return PatchwordError("an image in tiles, and its results, must be on a disk of this machine")
        from patchword.segmentation.large.run import segment_large

        try:
            facts = segment_large(
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
            return facts.record(photograph.name, content=photograph.content)
        except WriteError:
            raise
        except PatchwordError as error:
            return named_alike(error, path=photograph.path, name=photograph.name)
        finally:
            self.tell("")

    def _video(self, video: Photograph, *, chunk: Chunk) -> Iterator[Segmented | VideoEnd]:
        """Segment the frames that are not done, decoded in a thread ahead."""
        remove_files([overlay_video_path(self.folder, video.name)])  # of frames that are about to change
        plan = FramePlan(video.name, self.how.every, self.settings.batch, self.shard)
        count = FrameCount()
        wanted = partial(plan.is_wanted, done=chunk.done)
        with closing(read_frames(video.path, wanted=wanted, count=count)) as frames:
            decoded = read_ahead(repeat(partial(next, frames, None)), ahead=max(2, plan.batch))
            with closing(decoded):
                for _, group in groupby(_whole(decoded, video, count), key=plan.batch_of):
                    batch = {frame_name(video.name, frame.number): frame for frame in group}
                    if chunk.done.issuperset(batch):
                        continue  # the last one, of which nobody knew that it is the last
                    images = [Photograph(name, video.path, frame.pixels, None) for name, frame in batch.items()]
                    for segmented in self._images(images):
                        yield replace(segmented, second=batch[segmented.name].second)
        places = -(-count.frames // plan.every)
        record = ResultRecord(
            name=video.name,
            status="failed" if count.cut_off else "ok",
            reason=count.cut_off,
            content=video.content,
            frames=places,
        )
        yield VideoEnd(record, sum(map(plan.is_mine, range(places))) - chunk.lines)


def _whole(frames: Iterator[VideoFrame | None], video: Photograph, count: FrameCount) -> Iterator[VideoFrame]:
    """Frames to the end of a video, or to where it cannot be read."""
    try:
        yield from (frame for frame in takewhile(lambda each: each is not None, frames) if frame is not None)
    except PatchwordError as error:
        count.cut_off = str(named_alike(error, path=video.path, name=video.name))


@dataclass(frozen=True)
class FramePlan:
    """Which frames of a video a run takes.

    Frames go to the models in batches by their place among those that are segmented, whatever part of them a run takes;
    shards take whole batches, in turn. Every shard decodes the whole video.

    Attributes:
        video: its name.
        every: frames of which one is segmented.
        batch: frames that go to the models together.
        shard: which batches are taken; None for all.
    """

    video: str
    every: int
    batch: int
    shard: Shard | None

    def chunk(self, path: Path, *, frames: int | None, done: frozenset[str]) -> Chunk:
        """The video as a chunk.

        Args:
            path: where it is.
            frames: how many are to be segmented, of all shards; None where nobody has been through it yet.
            done: names of those that are.
        """
        likely = -(-frames_told(path) // self.every) if frames is None else frames
        mine = [self.name(place) for place in range(likely) if self.is_mine(place)]
        if frames is None or not done.issuperset(mine):
            return Chunk(((self.video, path),), lines=max(len(mine), len(done) + 1), done=done)
        return Chunk(((self.video, path),), lines=len(mine), done=frozenset(mine))

    def name(self, place: int) -> str:
        """Of the frame at a place among those that are segmented."""
        return frame_name(self.video, place * self.every)

    def batch_of(self, frame: VideoFrame) -> int:
        """The batch that a frame is in."""
        return frame.number // self.every // self.batch

    def is_mine(self, place: int) -> bool:
        """Whether the frame at a place is of the shard."""
        return self.shard is None or place // self.batch % self.shard.count == self.shard.index - 1

    def is_wanted(self, number: int, *, done: frozenset[str]) -> bool:
        """Whether a frame is to be decoded; where the video ends nobody knows, so that a batch may lack its end."""
        place, rest = divmod(number, self.every)
        start = place // self.batch * self.batch
        batch = range(start, start + self.batch)
        return not rest and self.is_mine(place) and not all(self.name(each) in done for each in batch)


def frame_name(video: str, number: int) -> str:
    """What a frame is called in the results."""
    return f"{video}/{number:06d}"


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


@dataclass(frozen=True)
class ChunkPlan:
    """What goes to the models together.

    Attributes:
        chunks: names of photographs.
        in_tiles: images that are segmented tile by tile; each is a chunk of its own.
        paths: of all photographs.
    """

    chunks: list[tuple[str, ...]]
    in_tiles: frozenset[Path]
    paths: Mapping[str, Path]


def plan_chunks(
    photographs: Mapping[str, Path],
    *,
    settings: SegmentSettings,
    how: FolderSettings,
    shard: Shard | None,
    or_none: bool = False,
    keep: bool = False,
) -> ChunkPlan:
    """Cut a folder's photographs into chunks of at most `batch` photographs and `batch_megapixels`.

    Args:
        photographs: name and path of all, sorted by name.
        settings, how: of the run.
        shard: the part that is wanted; None for all.
        or_none: whether a shard may have no photographs, as where there are videos.
        keep: whether stored photographs are kept, as far as they are few, instead of being fetched again.
    """
    if not photographs:
        return ChunkPlan([], frozenset(), {})
    paths, heads = {}, {}
    read = read_heads([*photographs.values()], settings=settings, keep=keep)
    for name, (path, head) in zip(photographs, read, strict=True):
        paths[name], heads[name] = path, head
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
    return ChunkPlan(chunks, frozenset(photographs[name] for name in large), paths)
