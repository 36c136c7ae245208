"""`segment` from a config: images are chosen, a segmenter is opened, a folder is segmented."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.command import command
from patchword.config.inputs import Photographs, choose_images, spoken_models, tell
from patchword.config.segment import SegmentConfig
from patchword.config.shared import ClassesValue, ModelSource, PhotosValue, read_vocabulary
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.models.catalog import describe_models
from patchword.models.hub import local_folder
from patchword.models.loading import TEXT_EMBEDDINGS, Loader
from patchword.models.registry import ModelName, name_of
from patchword.runs.plan import describe_output
from patchword.runs.processes import executor_of
from patchword.segmentation.opening import ONNX, check_parts, open_segmenter
from patchword.segmentation.video import VIDEO_SUFFIXES, check_extra, is_video

if TYPE_CHECKING:
    from patchword.alignment.artifact import Tower
    from patchword.segmentation.dense import AnySegmenter
    from patchword.segmentation.records import SegmentedFolder


@dataclass(frozen=True)
class SegmentRequest:
    """A segmentation of a folder that was asked for.

    Attributes:
        config: all options.
        images: all photographs and videos, sorted by name.
        left_out: how many videos of the folders were not asked for.
        found: where they are, and what else was there.
    """

    config: SegmentConfig
    images: tuple[Path, ...]
    left_out: int
    found: Photographs

    @classmethod
    def read(cls, photos: PhotosValue, config: SegmentConfig) -> SegmentRequest:
        """Check what can be refused before a model is loaded, and choose the images."""
        check_source(config, refine=config.numbers.refine)
        found = choose_images(photos, out=config.out, also=VIDEO_SUFFIXES)
        images, left_out = _choose(found, video=config.video)
        if config.classes is not None:
            vocabulary = read_vocabulary(config.classes, background=config.background)
            from patchword.segmentation.result import soft_classes  # after what can be refused without torch
            from patchword.segmentation.words import mask_names

            soft_classes(config.how, names=mask_names(vocabulary, settings=config.numbers))
        return cls(config, images, left_out, found)

    def facts(self) -> dict[str, Any]:
        """What a session writes down beside what the result depends on: how the models were named, and the like."""
        typed = {role: str(part) for role, part in self.config.roles.items() if isinstance(part, str | Path)}
        left_out = {"videos_left_out": self.left_out} if self.left_out else {}
        return {**typed, **left_out, "device": self.config.device, "dtype": self.config.dtype}

    def portion(self) -> list[tuple[str, Path]]:
        """Name and path of all images that are wanted, with the frames of videos as far as their heads tell."""
        from patchword.segmentation.video import frames_told
        from patchword.segmentation.work import frame_name, plan_chunks

        config, shard = self.config, self.config.part
        named = {path.relative_to(self.found.root).as_posix(): path for path in self.images}
        names = sorted(named)[: config.limit]
        photographs = {name: named[name] for name in names if not is_video(named[name])}
        plan = plan_chunks(
            photographs,
            settings=config.numbers,
            how=config.how,
            shard=shard,
            or_none=len(photographs) < len(names),
        )
        frames = [
            (frame_name(name, number), named[name])
            for name in names
            if is_video(named[name])
            for number in range(0, frames_told(named[name]), config.how.every)
        ]
        if shard is not None:
            frames = frames[:: shard.count]
        return [(name, named[name]) for chunk in plan.chunks for name in chunk] + frames

    def models(self) -> dict[str, ModelName]:
        """The names of the frozen models that take part, by role."""
        from patchword.alignment.artifact import read_config
        from patchword.export.publish import find_artifact

        config = self.config
        parts: dict[str, Any] = {
            "image-text": config.image_text,
            "vision encoder": config.encoder,
            "text encoder": config.text_encoder,
            "mask generator": config.mask_generator,
        }
        if isinstance(config.model, str | Path) and Path(config.model).suffix != ONNX:
            artifact = read_config(find_artifact(config.model))
            found = partial(_found_tower, place=config.model)
            parts["vision encoder"] = config.encoder or found(artifact.encoder, option="encoder")
            parts["text encoder"] = config.text_encoder or found(artifact.text_encoder, option="text_encoder")
        if str(parts["text encoder"]).endswith(TEXT_EMBEDDINGS):
            del parts["text encoder"]  # a file of embeddings, and no model
        return {role: name_of(part) for role, part in parts.items() if part is not None}

    def tell(self, *, output: bool) -> None:
        """Say what was understood; of the classes, where they were asked for.

        Args:
            output: whether something will be written.
        """
        config = self.config
        self.tell_classes(config.classes)
        source = f"method {config.method}" if config.model is None else f"model {config.model}"
        found = replace(self.found, images=self.images)
        if self.left_out:
            kind = "video" if self.left_out == 1 else "videos"
            found = replace(found, skipped={f"{kind} (--video takes them)": self.left_out, **found.skipped})
        tell(
            found.spoken(config.limit),
            spoken_models(describe_models(self.models()), of=source),
            f"output: {describe_output(config.out, config.resume, config.overwrite)}" if output else "",
            quiet=config.quiet,
        )

    def tell_classes(self, classes: ClassesValue | None) -> None:
        """Say what the classes were understood as, and where there is no background."""
        from patchword.segmentation.words import check_background

        if classes is not None:
            vocabulary = read_vocabulary(classes, background=self.config.background)
            remark = check_background(vocabulary, settings=self.config.numbers, level=3)
            tell(vocabulary.spoken() + (f"; {remark}" if remark else ""), quiet=self.config.quiet)

    def classes_for(self, segmenter: AnySegmenter) -> ClassesValue:
        """The classes that were asked for, or those that the segmenter was trained on."""
        return segmenter.vocabulary_of() if self.config.classes is None else self.config.classes


@command(SegmentConfig)
def segment(photos: PhotosValue, config: SegmentConfig) -> SegmentedFolder:
    """Stage 3: segment photographs by any class names into a folder; for one image in memory see `Segmenter.segment`.

    Returns:
        the folder, the names of the photographs, and which of them could not be segmented.
    """
    request = SegmentRequest.read(photos, config)
    from patchword.segmentation.records import MARKER  # after what can be refused without torch
    from patchword.segmentation.run import segment_folder

    check_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    request.tell(output=True)
    tell(Loader(config.device, config.dtype).spoken(), quiet=config.quiet)
    segmenter = open_source(config)
    classes = request.classes_for(segmenter)
    if config.classes is None:
        request.tell_classes(classes)
    return segment_folder(
        request.images,
        root=request.found.root,
        segmenter=segmenter,
        classes=classes,
        out=config.out,
        background=config.background,
        settings=config.numbers,
        folder_settings=config.how,
        limit=config.limit,
        shard=config.part,
        resume=config.resume,
        overwrite=config.overwrite,
        retry_failed=config.retry_failed,
        command=config.command,
        options=request.facts(),
        executor=executor_of(
            config.executor, device=config.device, loaded=segmenter, load=partial(open_source, config)
        ),
        quiet=config.quiet,
    )


def check_source(source: ModelSource, *, refine: str) -> None:
    """Refuse, before anything is loaded, parts that make no segmenter together."""
    parts = source.roles
    generator = parts.pop("mask_generator")
    if source.model is None or isinstance(source.model, str | Path):
        if refine == "sam" and generator is None:
            raise PatchwordError("refine=sam needs a mask generator, such as a SAM; name one by --mask-generator")
        if refine != "sam" and generator is not None:
            raise PatchwordError(f"a mask generator needs refine=sam, but refine is {refine!r}")
    check_parts(**parts)


def open_source(source: ModelSource, *, as_published: bool = False) -> AnySegmenter:
    """Load the segmenter."""
    return open_segmenter(**source.roles, device=source.device, dtype=source.dtype, as_published=as_published)


def _choose(found: Photographs, *, video: bool) -> tuple[tuple[Path, ...], int]:
    """What is to be segmented, and how many videos are not: those of a folder have to be asked for."""
    videos = [path for path in found.images if is_video(path)]
    left_out = [] if video else [path for path in videos if path not in found.named]
    if len(left_out) < len(videos):
        check_extra()
    images = tuple(path for path in found.images if path not in left_out)
    if not images:
        there = "a video" if len(videos) == 1 else f"{len(videos)} videos"
        raise PatchwordError(f"there are no photographs in {found.root}, but {there}; pass --video for their frames")
    return images, len(left_out)


def _found_tower(tower: Tower, *, option: str, place: str | Path) -> ModelName:
    """Where a trained segmenter's frozen model was in training; an error where that was a folder that is not there."""
    name = tower.trained_name()
    try:
        local_folder(name.name, revision=name.revision)
    except PatchwordError as error:
        raise tower.missing(error, option=option, place=place) from None
    return name
