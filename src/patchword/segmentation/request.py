"""What `segment` and its dry run share: what a user may pass, read and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import (
    Classes,
    check_limit,
    choose_images,
    read_vocabulary,
    root_of,
    tell_classes,
    trained_classes,
)
from patchword.errors import PatchwordError
from patchword.models.sources import ModelName, name_of
from patchword.segmentation.opening import ONNX, check_parts, open_segmenter

if TYPE_CHECKING:
    from patchword.alignment.artifact import Tower
    from patchword.models.protocols import ImageTextEncoder, MaskProposer, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.dense import AnySegmenter
    from patchword.segmentation.folder_settings import FolderSettings
    from patchword.segmentation.settings import SegmentSettings


@dataclass(frozen=True)
class SegmentRequest:
    """A segmentation of a folder that was asked for.

    Attributes:
        images: all photographs and videos, sorted by name.
        left_out: videos of the folder that were not asked for.
        root: folder that their names are relative to.
        model: a segmenter, or the folder of one; none where a method is named.
        method: the name of a training-free method; none where there is a model.
        image_text, encoder, text_encoder, mask_proposer: names, folders or loaded models, or none.
        classes: none for those of the training.
        background: words, or none for those of the class list.
        settings, folder_settings: all numbers.
        limit: how many of the photographs are wanted; all by default.
        shard: which part of those; all by default.
    """

    images: tuple[Path, ...]
    left_out: int
    root: Path
    model: str | Path | AnySegmenter | None
    method: str | None
    image_text: str | Path | ImageTextEncoder | None
    encoder: str | Path | PatchEncoder | None
    text_encoder: str | Path | ImageTextEncoder | None
    mask_proposer: str | Path | MaskProposer | None
    classes: Classes | None
    background: Sequence[str] | None
    settings: SegmentSettings
    folder_settings: FolderSettings
    limit: int | None
    shard: Shard | None

    @classmethod
    def read(
        cls,
        photos: str | Path,
        *,
        out: str | Path,
        model: str | Path | AnySegmenter | None = None,
        method: str | None = None,
        image_text: str | Path | ImageTextEncoder | None = None,
        encoder: str | Path | PatchEncoder | None = None,
        text_encoder: str | Path | ImageTextEncoder | None = None,
        mask_proposer: str | Path | MaskProposer | None = None,
        classes: Classes | None = None,
        background: Sequence[str] | None = None,
        settings: SegmentSettings | Mapping[str, Any] | None = None,
        folder_settings: FolderSettings | Mapping[str, Any] | None = None,
        video: bool = False,
        limit: int | None = None,
        shard: str | Shard | None = None,
    ) -> SegmentRequest:
        """Read the arguments of `patchword.segment`; see there."""
        check_limit(limit)
        check_parts(model, method=method, image_text=image_text, encoder=encoder, text_encoder=text_encoder)

        from patchword.runs.shards import Shard  # after what can be refused without torch
        from patchword.segmentation.files import soft_classes
        from patchword.segmentation.folder_settings import FolderSettings
        from patchword.segmentation.settings import SegmentSettings
        from patchword.segmentation.words import mask_names

        part = Shard.parse(shard) if isinstance(shard, str) else shard
        chosen, how = SegmentSettings.of(settings), FolderSettings.of(folder_settings)
        if model is None or isinstance(model, str | Path):
            check_refining(chosen.refine, mask_proposer=mask_proposer)
        images, left_out = _choose(photos, out=out, video=video)
        if classes is not None:
            vocabulary = read_vocabulary(classes, background=background)
            soft_classes(how, names=mask_names(vocabulary, settings=chosen))
        return cls(
            images=images,
            left_out=left_out,
            root=root_of(photos),
            model=model,
            method=method,
            image_text=image_text,
            encoder=encoder,
            text_encoder=text_encoder,
            mask_proposer=mask_proposer,
            classes=classes,
            background=background,
            settings=chosen,
            folder_settings=how,
            limit=limit,
            shard=part,
        )

    def facts(self, *, device: str, dtype: str) -> dict[str, Any]:
        """What a session writes down beside what the result depends on: how the models were named, and the like."""
        named = {
            "model": self.model,
            "method": self.method,
            "image_text": self.image_text,
            "encoder": self.encoder,
            "text_encoder": self.text_encoder,
            "mask_proposer": self.mask_proposer,
        }
        typed = {role: str(part) for role, part in named.items() if isinstance(part, str | Path)}
        left_out = {"videos_left_out": self.left_out} if self.left_out else {}
        return {**typed, **left_out, "device": device, "dtype": dtype}

    def portion(self) -> list[tuple[str, Path]]:
        """Name and path of all images that are wanted, with the frames of videos as far as their heads tell."""
        from patchword.segmentation.chunks import plan_chunks
        from patchword.segmentation.video import frames_told, is_video
        from patchword.segmentation.video_job import frame_name

        named = {path.relative_to(self.root).as_posix(): path for path in self.images}
        names = sorted(named)[: self.limit]
        photographs = {name: named[name] for name in names if not is_video(named[name])}
        plan = plan_chunks(
            photographs,
            settings=self.settings,
            how=self.folder_settings,
            shard=self.shard,
            or_none=len(photographs) < len(names),
        )
        frames = [
            (frame_name(name, number), named[name])
            for name in names
            if is_video(named[name])
            for number in range(0, frames_told(named[name]), self.folder_settings.every)
        ]
        if self.shard is not None:
            frames = frames[:: self.shard.count]
        return [(name, named[name]) for chunk in plan.chunks for name in chunk] + frames

    def models(self) -> dict[str, ModelName]:
        """The names of the frozen models that take part, by role."""
        from patchword.alignment.artifact import read_artifact
        from patchword.export.publish import find_artifact

        parts: dict[str, Any] = {
            "image-text": self.image_text,
            "vision encoder": self.encoder,
            "text encoder": self.text_encoder,
            "mask proposer": self.mask_proposer,
        }
        if isinstance(self.model, str | Path) and Path(self.model).suffix != ONNX:
            config = read_artifact(find_artifact(self.model)).config
            parts["vision encoder"] = self.encoder or _name_of_tower(config.encoder)
            parts["text encoder"] = self.text_encoder or _name_of_tower(config.text_encoder)
        return {role: name_of(part) for role, part in parts.items() if part is not None}

    def open(self, *, device: str = "auto", dtype: str = "auto") -> AnySegmenter:
        """Load the segmenter."""
        return open_segmenter(
            self.model,
            method=self.method,
            image_text=self.image_text,
            encoder=self.encoder,
            text_encoder=self.text_encoder,
            mask_proposer=self.mask_proposer,
            device=device,
            dtype=dtype,
        )

    def tell_classes(self, classes: Classes | None = None, *, quiet: bool) -> None:
        """Say what the classes were understood as, and where there is no background.

        Args:
            classes: those that are meant; None for those that were asked for, if any were.
            quiet: whether to say nothing but a warning.
        """
        from patchword.segmentation.words import check_background

        asked = self.classes if classes is None else classes
        if asked is None:
            return
        vocabulary = read_vocabulary(asked, background=self.background)
        remark = check_background(vocabulary, settings=self.settings, level=3)
        tell_classes(vocabulary, quiet=quiet, also=f"; {remark}" if remark else "")

    def classes_for(self, segmenter: AnySegmenter) -> Classes:
        """The classes that were asked for, or those that the segmenter was trained on."""
        return trained_classes(segmenter) if self.classes is None else self.classes


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


def check_refining(refine: str, *, mask_proposer: object) -> None:
    """Refuse, before anything is loaded, snapping to masks without what draws them, and one without the other."""
    if refine == "sam" and mask_proposer is None:
        raise PatchwordError(
            "setting 'refine' is 'sam', but there is no mask proposer; name one, such as a SAM, by --mask-proposer "
            "(mask_proposer=)"
        )
    if refine != "sam" and mask_proposer is not None:
        raise PatchwordError(f"a mask proposer is given, but setting 'refine' is {refine!r}; allowed with it is sam")


def _name_of_tower(tower: Tower) -> ModelName:
    """Where a trained segmenter's frozen model was in training."""
    return ModelName(tower.name, None if Path(tower.name).is_absolute() else tower.revision)
