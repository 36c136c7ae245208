"""A folder of photographs in, a folder of pseudo labels out; a run that was stopped can be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.config.label import LabelSettings
from patchword.data.folders import write_json
from patchword.data.images import read_image
from patchword.data.tar_shards import photograph_at
from patchword.errors import PatchwordError
from patchword.labeling.clip_crops import Detection, crop_side
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import CORRECTIONS, LABELS, finish, refuse_corrections
from patchword.labeling.image import ImageLabels, LabelParts, MaskCandidates, fuse_masks, generate_masks
from patchword.labeling.quality.assess import assess
from patchword.labeling.quality.report import QUALITY_FILE
from patchword.labeling.records import (
    FORMAT,
    FORMAT_VERSION,
    DatasetRecord,
    ImageRecord,
    embeddings_path,
    label_map_path,
    segments_path,
)
from patchword.models.pixels import resizing_device, to_floats, upload
from patchword.runs.folder_run import FolderRun
from patchword.runs.pipeline import (
    Chunk,
    Executor,
    InThreads,
    Photograph,
    Pixels,
    Written,
    name_images,
    remove_files,
    why_unread,
    why_unwritten,
)
from patchword.runs.records import Numerics, ShardRecord, VocabularyRecord, relative_root
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
    executor: Executor | None = None,
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
        executor: whoever does the chunks; by default they are done here, by `ahead` and `threads`.
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
    wanted = frozenset(name for chunk in chunks for name in chunk)
    part = None if shard is None else shard.record(names)
    record = _record(parts, settings, photographs=relative_root(root, folder=out), shard=part)
    run = FolderRun(
        kind=LABELS,
        out=out,
        record=record.model_copy(update={"preset": preset, "encoder": encoder}),
        wanted=wanted,
        contents=lambda line: [(photograph_at(root, line.name), line.content)],
        root=root,
        resume=resume,
        overwrite=overwrite or overwrite_corrections,
        retry_failed=retry_failed,
        forget_missing=forget_missing,
        command=command,
        options={"device": str(parts.mask_generator.device), "limit": limit, "ahead": ahead, "threads": threads},
        quiet=quiet,
    )
    run.run(
        lambda begun: begun.chunks(chunks, paths=named),
        work=LabelWork(out, parts, settings),
        executor=executor or InThreads(ahead, threads),
        finish=lambda record, manifest: finish(out, record=record, manifest=manifest),
    )
    return LabelledDataset.open(out, photos=root)


def _record(
    parts: LabelParts, settings: LabelSettings, *, photographs: str, shard: ShardRecord | None
) -> DatasetRecord:
    vocabulary = parts.vocabulary
    models = {
        "image-text model": parts.image_text,
        "mask proposer": parts.mask_generator,
        "vision encoder": parts.patch_encoder,
    }
    return DatasetRecord(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        complete=False,
        photographs=photographs,
        vocabulary=VocabularyRecord(text=vocabulary.to_text(), hash=vocabulary.hash, names=vocabulary.names),
        settings=settings,
        image_text=parts.image_text.record,
        mask_proposer=parts.mask_generator.record,
        patch_encoder=parts.patch_encoder.record if parts.patch_encoder else None,
        shard=shard,
        counts=None,
        numerics=Numerics.of(models),
    )


@dataclass(frozen=True)
class Candidates:
    """A photograph that the models have seen, without its pixels; or why they have not."""

    name: str
    content: str | None
    found: MaskCandidates | PatchwordError


@dataclass(frozen=True)
class LabelWork:
    """What is done with the photographs of a run; the `Work` of the folder engine."""

    folder: Path
    parts: LabelParts
    settings: LabelSettings

    def read(self, path: Path) -> Pixels:
        """Decode a photograph."""
        return read_image(path)

    def process(self, photographs: list[Photograph], *, chunk: Chunk) -> list[Candidates]:
        """Ask the models about those that can be read, together."""
        where = resizing_device(self.parts.image_text.device)
        images = [
            to_floats(upload(each.pixels, device=where))
            for each in photographs
            if not isinstance(each.pixels, PatchwordError)
        ]
        answers = iter(generate_masks(images, parts=self.parts, settings=self.settings))
        found = [why_unread(each) if isinstance(each.pixels, PatchwordError) else next(answers) for each in photographs]
        return [Candidates(each.name, each.content, what) for each, what in zip(photographs, found, strict=True)]

    def write(self, made: Candidates) -> Written:
        """Fuse the mask candidates and write the files."""
        found = self._fuse(made.found)
        record = write_result(self.folder, made.name, found, content=made.content, settings=self.settings)
        if isinstance(found, PatchwordError) or record.status == "failed":
            return Written(record)
        quality = assess(found, name=made.name, settings=self.settings)
        return Written(record, beside={QUALITY_FILE: quality.model_dump(mode="json")})

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
            if found.embeddings is not None:
                found.embeddings.save(embeddings_path(folder, name))
        except PatchwordError as error:
            found = why_unwritten(error, folder=folder)
    if isinstance(found, ImageLabels):
        return _labelled(name, found, content=content, settings=settings)
    remove_files([label_map_path(folder, name), segments_path(folder, name), embeddings_path(folder, name)])
    return ImageRecord(
        name=name, status="failed", size=None, classes=(), segments=0, coverage=0, reason=str(found), content=content
    )


def _labelled(name: str, found: ImageLabels, *, content: str | None, settings: LabelSettings) -> ImageRecord:
    indices, label_map = found.label_map.indices, found.label_map
    counted = label_map.counts()
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
        needed = {"clip-prompts-sam": settings.pred_iou_thresh, "sam-then-clip": settings.proposal_threshold}
        least = needed.get(settings.generator, min(needed.values()))
        return f"no mask reached a predicted IoU of {least}"
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
