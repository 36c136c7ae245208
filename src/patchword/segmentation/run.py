"""Stage 3 as a run: photographs and videos in, a folder of masks out; stops anywhere and goes on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.colours import with_one_more
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.data.tar_shards import photograph_at
from patchword.errors import PatchwordError
from patchword.runs.folder_run import Beginning, FolderRun
from patchword.runs.pipeline import Chunk, Executor, InThreads, name_images
from patchword.runs.progress import Progress
from patchword.runs.records import relative_root
from patchword.runs.shards import Shard
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.folder import SEGMENTED, finish
from patchword.segmentation.records import RESULTS, ResultRecord, SegmentationRecord, SegmentedFolder, read_results
from patchword.segmentation.result import mask_path, overlay_video_path, soft_classes
from patchword.segmentation.video import check_extra, is_video, write_overlay_video
from patchword.segmentation.words import Classes, mask_names
from patchword.segmentation.work import FramePlan, SegmentWork, plan_chunks


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
    executor: Executor | None = None,
    quiet: bool = False,
) -> SegmentedFolder:
    """Segment photographs and videos and write masks; decoding, models and writing work side by side.

    A photograph that cannot be read or segmented is written down in `results.jsonl`, with the reason, and the run goes
    on. A run that was stopped, in whatever way, goes on with `resume` where it stopped; what it leaves then, but for
    `runs.jsonl`, has the same bytes as after a run that was not stopped. Photographs go to the models in chunks of
    `settings.batch` by their place among all names; a chunk of which a part is missing is done anew as a whole.

    `ahead` photographs wait decoded, and as many results wait to be written, by `threads` threads; an `executor` does
    the chunks elsewhere. `command` and `options` go into the record and change no result.
    """
    chosen, how, folder = SegmentSettings.of(settings), FolderSettings.of(folder_settings), as_path(out)
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    soft_classes(how, names=mask_names(vocabulary, settings=chosen))
    named = name_images(images, root=root, out=folder, verb="segment")
    names = sorted(named)[:limit]
    videos = [name for name in names if is_video(named[name])]
    _check_videos(videos, how=how, shard=shard)
    photographs = {name: named[name] for name in names if not is_video(named[name])}
    plan = plan_chunks(photographs, settings=chosen, how=how, shard=shard, or_none=bool(videos), keep=True)
    frames = [FramePlan(name, how.every, chosen.batch, shard) for name in videos]
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
    run = FolderRun(
        kind=SEGMENTED,
        out=folder,
        record=record,
        wanted=frozenset(names),
        contents=lambda line: [(photograph_at(root, line.name), line.content)],
        resume=resume,
        overwrite=overwrite,
        retry_failed=retry_failed,
        command=command,
        options={**(options or {}), "limit": limit, "ahead": ahead, "threads": threads},
        quiet=quiet,
    )

    def chunks(begun: Beginning[SegmentationRecord, ResultRecord]) -> list[Chunk]:
        told = {
            name: line.frames
            for name, line in begun.lines.items()
            if line.is_video and not (retry_failed and line.status == "failed")
        }
        done = defaultdict[str, set[str]](set)
        for name in begun.done:
            done[begun.lines[name].source].add(name)
        return begun.chunks(plan.chunks, paths=plan.paths) + [
            each.chunk(named[each.video], frames=told.get(each.video), done=frozenset(done[each.video] - {each.video}))
            for each in frames
        ]

    def end(record: SegmentationRecord, manifest: Manifest) -> SegmentedFolder:
        if how.overlays and how.overlay_video:
            colours = vocabulary.colours
            colours = colours if len(record.names) == len(colours) else with_one_more(colours)
            _paint_videos(folder, frames, paths=named, names=record.names, colours=colours, quiet=quiet)
        return finish(folder, record=record, manifest=manifest, wanted=names)

    return run.run(
        chunks,
        work=SegmentWork(folder, segmenter, vocabulary, chosen, how, plan.in_tiles, shard, run.tell),
        executor=executor or InThreads(ahead, threads),
        finish=end,
    )


def _check_videos(videos: Sequence[str], *, how: FolderSettings, shard: Shard | None) -> None:
    if not videos:
        return
    check_extra()
    if how.overlay_video and shard is not None:
        raise PatchwordError(f"an overlay video of {videos[0]} needs all its frames; do not combine it with shards")


def _paint_videos(
    folder: Path,
    videos: Sequence[FramePlan],
    *,
    paths: Mapping[str, Path],
    names: tuple[str, ...],
    colours: NDArray[np.uint8],
    quiet: bool,
) -> None:
    """Write the overlay videos that are missing, of the masks that are there."""
    results = read_results(Manifest(folder / RESULTS))
    with Progress(len(videos), "painting", "videos", quiet=quiet) as progress:
        for each in videos:
            path = overlay_video_path(folder, each.video)
            frames = {place * each.every: each.name(place) for place in range(results[each.video].frames or 0)}
            masks = {number: mask_path(folder, name) for number, name in frames.items() if results[name].status == "ok"}
            if masks and not path.is_file():
                write_overlay_video(path, video=paths[each.video], masks=masks, names=names, colours=colours)
            progress.advance()
