"""Stage 3 as a run: photographs and videos in, a folder of masks out; stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.folders import Manifest, prepare_output, remove_leftovers, sole_use
from patchword.errors import PatchwordError
from patchword.runs.pipeline import name_images
from patchword.runs.progress import Progress, say
from patchword.runs.records import Session, relative_root
from patchword.runs.shards import Shard
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.files import soft_classes
from patchword.segmentation.job import Job, VideoJob, paint_videos, plan_chunks
from patchword.segmentation.records import (
    MARKER,
    RESULTS,
    STATUSES,
    Counts,
    SegmentationRecord,
    SegmentedFolder,
    read_results,
)
from patchword.segmentation.resume import begin
from patchword.segmentation.video import check_extra, is_video
from patchword.segmentation.words import Classes, mask_names


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
    """Segment photographs and videos and write masks; decoding, models and writing work side by side.

    A photograph that cannot be read or segmented is written down in `results.jsonl`, with the reason, and the run goes
    on. A run that was stopped, in whatever way, goes on with `resume` where it stopped; what it leaves then, but for
    `runs.jsonl`, has the same bytes as after a run that was not stopped. Photographs go to the models in chunks of
    `settings.batch` by their place among all names; a chunk of which a part is missing is done anew as a whole.

    Args:
        images: photographs and videos, inside `root`; where `out` is inside `root` too, the masks in it are left out.
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
    """
    chosen, how = SegmentSettings.of(settings), FolderSettings.of(folder_settings)
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    soft_classes(how, names=mask_names(vocabulary, settings=chosen))
    named = name_images(images, root=root, out=Path(out), verb="segment")
    names = sorted(named)[:limit]
    videos = [name for name in names if is_video(named[name])]
    _check_videos(videos, how=how, shard=shard)
    photographs = [name for name in names if not is_video(named[name])]
    paths = {name: named[name] for name in photographs}
    plan = plan_chunks(paths, settings=chosen, how=how, shard=shard, or_none=bool(videos))
    chunks = plan.chunks
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
        manifest = Manifest(folder / RESULTS)
        begun = begin(folder, record, root=root, manifest=manifest, retry_failed=retry_failed, quiet=quiet)
        for note in begun.notes:
            say(note, quiet=quiet)
        record, kept = begun.record, begun.kept
        remove_leftovers(folder)
        record.save(folder)
        missing = [chunk for chunk in chunks if not kept.names.issuperset(chunk)]
        jobs = [VideoJob(name, named[name], how.every, chosen.batch, shard, kept) for name in videos]
        likely = [video_job.likely() for video_job in jobs]
        total = sum(map(len, chunks)) + sum(frames for frames, _ in likely)
        already = sum(map(len, chunks)) - sum(map(len, missing)) + sum(done for _, done in likely)
        session = Session(
            folder,
            command=command,
            options={**(options or {}), "limit": limit, "ahead": ahead, "threads": threads},
            kept=already,
            failed_before=kept.failed,
            statuses=STATUSES,
        )
        progress = Progress(total, "segmenting", "images", already=already, quiet=quiet)
        with session:
            with progress, manifest:
                job = Job(
                    folder=folder,
                    segmenter=segmenter,
                    vocabulary=vocabulary,
                    settings=chosen,
                    how=how,
                    manifest=manifest,
                    session=session,
                    progress=progress,
                    large=plan.in_tiles,
                    ahead=ahead,
                    threads=threads,
                )
                job.segment([[(name, named[name]) for name in chunk] for chunk in missing])
                for video_job in jobs:
                    video_job.run(job)
                if how.overlays and how.overlay_video:
                    paint_videos(job, videos=jobs, names=record.names)
            return finish(folder, record=record, manifest=manifest, wanted=names)


def _check_videos(videos: Sequence[str], *, how: FolderSettings, shard: Shard | None) -> None:
    if not videos:
        return
    check_extra()
    if how.overlay_video and shard is not None:
        raise PatchwordError(f"an overlay video of {videos[0]} needs all its frames; do not combine it with shards")


def finish(folder: Path, *, record: SegmentationRecord, manifest: Manifest, wanted: Iterable[str]) -> SegmentedFolder:
    """Sort the results, count them, and write down that the folder is complete. May be repeated.

    Args:
        folder: of the result.
        record: of the run so far.
        manifest: of the results, which is closed.
        wanted: names of the photographs and videos that this run was asked for; the folder may hold others.
    """
    manifest.finish()
    results = read_results(manifest)
    counts = Counts.of(results.values(), names=record.names)
    record.model_copy(update={"complete": True, "counts": counts}).save(folder)
    asked = set(wanted)
    mine = [result for result in results.values() if result.source in asked]
    return SegmentedFolder(
        folder,
        tuple(result.name for result in mine if result.status == "ok" and result.is_counted),
        {result.name: result.reason or "" for result in mine if result.status == "failed"},
    )
