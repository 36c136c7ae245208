"""Videos in a folder run: their frames, each like a photograph, and at the end a line of the video's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from patchword.data.colours import with_one_more
from patchword.errors import PatchwordError
from patchword.runs.pipeline import Photograph, Writer, content_of, made_ahead, named_alike, remove_files
from patchword.runs.shards import Shard
from patchword.segmentation.files import Segmented, mask_path, overlay_video_path
from patchword.segmentation.job import Job
from patchword.segmentation.overlay_video import write_overlay_video
from patchword.segmentation.records import ResultRecord, read_results
from patchword.segmentation.resume import Kept
from patchword.segmentation.video import FrameCount, VideoFrame, frames_told, read_frames


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


def paint_videos(job: Job, *, films: Sequence[VideoJob], names: tuple[str, ...]) -> None:
    """Write the overlay videos that are missing, of the masks that are there.

    Args:
        job: whose manifest holds all frames.
        films: the videos.
        names: of the masks' values.
    """
    results = read_results(job.manifest)
    colours = job.vocabulary.colours
    colours = colours if len(names) == len(colours) else with_one_more(colours)
    for film in films:
        path = overlay_video_path(job.folder, film.name)
        line = results[film.name]
        painted = {
            place * film.every: mask_path(job.folder, name)
            for place in range(line.frames or 0)
            if results[name := frame_name(film.name, place * film.every)].status == "ok"
        }
        if painted and not path.is_file():
            job.tell(f"painting {film.name}")
            write_overlay_video(path, video=film.path, masks=painted, names=names, colours=colours)
