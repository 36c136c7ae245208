"""`segment` from a config: images are chosen, a segmenter is opened, a folder is segmented."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.command import command
from patchword.config.inputs import choose_images, root_of, tell_classes
from patchword.config.segment import SegmentConfig
from patchword.config.shared import ClassesValue, ModelSource, read_vocabulary
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.models.registry import ModelName, name_of
from patchword.segmentation.opening import ONNX, check_parts, open_segmenter

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
        left_out: how many videos of the folder were not asked for.
        root: folder that their names are relative to.
    """

    config: SegmentConfig
    images: tuple[Path, ...]
    left_out: int
    root: Path

    @classmethod
    def read(cls, photos: str | Path, config: SegmentConfig) -> SegmentRequest:
        """Check what can be refused before a model is loaded, and choose the images."""
        check_source(config, refine=config.numbers.refine)

        images, left_out = _choose(photos, out=config.out, video=config.video)
        if config.classes is not None:
            vocabulary = read_vocabulary(config.classes, background=config.background)
            from patchword.segmentation.result import soft_classes  # after what can be refused without torch
            from patchword.segmentation.words import mask_names

            soft_classes(config.how, names=mask_names(vocabulary, settings=config.numbers))
        return cls(config, images, left_out, root_of(photos))

    def facts(self) -> dict[str, Any]:
        """What a session writes down beside what the result depends on: how the models were named, and the like."""
        typed = {role: str(part) for role, part in self.config.roles.items() if isinstance(part, str | Path)}
        left_out = {"videos_left_out": self.left_out} if self.left_out else {}
        return {**typed, **left_out, "device": self.config.device, "dtype": self.config.dtype}

    def portion(self) -> list[tuple[str, Path]]:
        """Name and path of all images that are wanted, with the frames of videos as far as their heads tell."""
        from patchword.segmentation.video import frames_told, is_video
        from patchword.segmentation.work import frame_name, plan_chunks

        config, shard = self.config, self.config.part
        named = {path.relative_to(self.root).as_posix(): path for path in self.images}
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
        from patchword.alignment.artifact import read_artifact
        from patchword.export.publish import find_artifact

        config = self.config
        parts: dict[str, Any] = {
            "image-text": config.image_text,
            "vision encoder": config.encoder,
            "text encoder": config.text_encoder,
            "mask generator": config.mask_generator,
        }
        if isinstance(config.model, str | Path) and Path(config.model).suffix != ONNX:
            artifact = read_artifact(find_artifact(config.model)).config
            parts["vision encoder"] = config.encoder or _name_of_tower(artifact.encoder)
            parts["text encoder"] = config.text_encoder or _name_of_tower(artifact.text_encoder)
        return {role: name_of(part) for role, part in parts.items() if part is not None}

    def tell_classes(self, classes: ClassesValue | None = None, *, quiet: bool) -> None:
        """Say what the classes were understood as, and where there is no background.

        Args:
            classes: those that are meant; None for those that were asked for, if any were.
            quiet: whether to say nothing but a warning.
        """
        from patchword.segmentation.words import check_background

        asked = self.config.classes if classes is None else classes
        if asked is None:
            return
        vocabulary = read_vocabulary(asked, background=self.config.background)
        remark = check_background(vocabulary, settings=self.config.numbers, level=3)
        tell_classes(vocabulary, quiet=quiet, also=f"; {remark}" if remark else "")

    def classes_for(self, segmenter: AnySegmenter) -> ClassesValue:
        """The classes that were asked for, or those that the segmenter was trained on."""
        return segmenter.vocabulary_of() if self.config.classes is None else self.config.classes


@command(SegmentConfig)
def segment(photos: str | Path, config: SegmentConfig) -> SegmentedFolder:
    """Stage 3: segment photographs by any class names into a folder; for one image in memory see `Segmenter.segment`.

    Returns:
        the folder, the names of the photographs, and which of them could not be segmented.
    """
    request = SegmentRequest.read(photos, config)
    from patchword.segmentation.records import MARKER  # after what can be refused without torch
    from patchword.segmentation.run import segment_folder

    check_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    request.tell_classes(quiet=config.quiet)
    segmenter = open_source(config)
    classes = request.classes_for(segmenter)
    if config.classes is None:
        request.tell_classes(classes, quiet=config.quiet)
    return segment_folder(
        request.images,
        root=request.root,
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
        quiet=config.quiet,
    )


def check_source(source: ModelSource, *, refine: str) -> None:
    """Refuse, before anything is loaded, parts that make no segmenter together."""
    check_parts(
        source.model,
        method=source.method,
        image_text=source.image_text,
        encoder=source.encoder,
        text_encoder=source.text_encoder,
    )
    if source.model is None or isinstance(source.model, str | Path):
        check_refining(refine, mask_generator=source.mask_generator)


def open_source(source: ModelSource, *, as_published: bool = False) -> AnySegmenter:
    """Load the segmenter."""
    return open_segmenter(
        source.model,
        method=source.method,
        image_text=source.image_text,
        encoder=source.encoder,
        text_encoder=source.text_encoder,
        mask_generator=source.mask_generator,
        device=source.device,
        dtype=source.dtype,
        as_published=as_published,
    )


def check_refining(refine: str, *, mask_generator: object) -> None:
    """Refuse snapping to masks without what draws them, and one without the other."""
    if refine == "sam" and mask_generator is None:
        raise PatchwordError("refine=sam needs a mask generator, such as a SAM; name one by --mask-generator")
    if refine != "sam" and mask_generator is not None:
        raise PatchwordError(f"a mask generator needs refine=sam, but refine is {refine!r}")


def _choose(photos: str | Path, *, out: str | Path, video: bool) -> tuple[tuple[Path, ...], int]:
    """What is to be segmented, and how many videos are not: those of a folder have to be asked for."""
    from patchword.segmentation.video import VIDEO_SUFFIXES, check_extra, is_video

    found = choose_images(photos, out=out, also=VIDEO_SUFFIXES)
    videos = [path for path in found if is_video(path)]
    if video or not Path(photos).is_dir():
        if videos:
            check_extra()
        return tuple(found), 0
    images = tuple(path for path in found if not is_video(path))
    if not images:
        there = "a video" if len(videos) == 1 else f"{len(videos)} videos"
        raise PatchwordError(f"there are no photographs in {photos}, but {there}; pass --video for their frames")
    return images, len(videos)


def _name_of_tower(tower: Tower) -> ModelName:
    """Where a trained segmenter's frozen model was in training."""
    return ModelName(tower.name, None if Path(tower.name).is_absolute() else tower.revision)
