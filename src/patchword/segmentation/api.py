"""The public functions of stage 3: names and folders become a segmenter, a segmenter and photographs a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import (
    Classes,
    check_limit,
    check_needs_resume,
    choose_images,
    read_vocabulary,
    root_of,
    tell_classes,
    trained_classes,
)
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.models.registry import ModelName, name_of
from patchword.segmentation.opening import ONNX, check_parts
from patchword.segmentation.opening import load as load
from patchword.segmentation.opening import open_segmenter as open_segmenter

if TYPE_CHECKING:
    from patchword.alignment.artifact import Tower
    from patchword.config.segment import FolderSettings, SegmentSettings
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.dense import AnySegmenter
    from patchword.segmentation.records import SegmentedFolder


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
    mask_proposer: str | Path | MaskGenerator | None
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
        mask_proposer: str | Path | MaskGenerator | None = None,
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

        from patchword.config.segment import FolderSettings, SegmentSettings
        from patchword.runs.shards import Shard  # after what can be refused without torch
        from patchword.segmentation.result import soft_classes
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
        from patchword.segmentation.video import frames_told, is_video
        from patchword.segmentation.work import frame_name, plan_chunks

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
            "mask generator": self.mask_proposer,
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
            "refine=sam needs a mask generator, such as a SAM; name one by --mask-proposer (mask_proposer=)"
        )
    if refine != "sam" and mask_proposer is not None:
        raise PatchwordError(f"a mask generator needs refine=sam, but refine is {refine!r}")


def _name_of_tower(tower: Tower) -> ModelName:
    """Where a trained segmenter's frozen model was in training."""
    return ModelName(tower.name, None if Path(tower.name).is_absolute() else tower.revision)


def segment(
    photos: str | Path,
    *,
    out: str | Path,
    model: str | Path | AnySegmenter | None = None,
    method: str | None = None,
    image_text: str | Path | ImageTextEncoder | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    mask_proposer: str | Path | MaskGenerator | None = None,
    classes: Classes | None = None,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | Mapping[str, Any] | None = None,
    folder_settings: FolderSettings | Mapping[str, Any] | None = None,
    video: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    shard: str | Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    retry_failed: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SegmentedFolder:
    """Stage 3: segment photographs by any class names into a folder; for one image in memory see `Segmenter.segment`.

    Args:
        photos: a folder of photographs, searched recursively, one photograph, or one video.
        out: folder of the result; must be new or empty unless `resume` or `overwrite` is set.
        model: a segmenter, or the folder of one.
        method, image_text, encoder, text_encoder, mask_proposer: as for `open_segmenter`, which opens what is no
            segmenter yet.
        classes: as for `label`; None for the classes of the training.
        background: words for what is none of the classes, which becomes a class "background", the last; None takes
            those of the class list, an empty list none.
        settings: how images are seen and classes are decided, all as `SegmentSettings`, or by name those that differ
            from the defaults.
        folder_settings: what is written, all as `FolderSettings`, or by name what differs from the defaults.
        video: whether the videos of a folder are segmented, too, frame by frame; one that is named always is.
        device, dtype, limit, shard, resume, overwrite, retry_failed, quiet, command: as for `label`.

    Returns:
        the folder, the names of the photographs, and which of them could not be segmented.

    Raises:
        PatchwordError: for anything above that is not as described, before a model is loaded where that is possible.
    """
    check_needs_resume(resume, retry_failed=retry_failed)
    request = SegmentRequest.read(
        photos,
        out=out,
        model=model,
        method=method,
        image_text=image_text,
        encoder=encoder,
        text_encoder=text_encoder,
        mask_proposer=mask_proposer,
        classes=classes,
        background=background,
        settings=settings,
        folder_settings=folder_settings,
        video=video,
        limit=limit,
        shard=shard,
    )
    from patchword.segmentation.records import MARKER  # after what can be refused without torch
    from patchword.segmentation.run import segment_folder

    check_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    request.tell_classes(quiet=quiet)
    segmenter = request.open(device=device, dtype=dtype)
    if request.classes is None:
        request.tell_classes(trained_classes(segmenter), quiet=quiet)
    return segment_folder(
        request.images,
        root=request.root,
        segmenter=segmenter,
        classes=request.classes_for(segmenter),
        out=out,
        background=background,
        settings=request.settings,
        folder_settings=request.folder_settings,
        limit=request.limit,
        shard=request.shard,
        resume=resume,
        overwrite=overwrite,
        retry_failed=retry_failed,
        command=command,
        options=request.facts(device=device, dtype=dtype),
        quiet=quiet,
    )
