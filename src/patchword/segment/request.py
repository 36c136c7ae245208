"""What `segment` and its dry run share: what a user may pass, read and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import PatchwordError
from patchword.inputs import Classes, check_limit, choose_images, read_vocabulary, root_of, trained_classes
from patchword.segment.opening import check_parts, open_segmenter

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskProposer, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segment.dense import AnySegmenter
    from patchword.segment.folder_settings import FolderSettings
    from patchword.segment.settings import SegmentSettings


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
        """Read the arguments of `patchword.segment`; see there.

        Raises:
            PatchwordError: for all that can be refused before a model is loaded.
        """
        from patchword.runs.shards import Shard
        from patchword.segment.folder_settings import FolderSettings
        from patchword.segment.settings import SegmentSettings

        check_limit(limit)
        check_parts(model, method=method, image_text=image_text, encoder=encoder, text_encoder=text_encoder)
        part = Shard.parse(shard) if isinstance(shard, str) else shard
        chosen, how = SegmentSettings.of(settings), FolderSettings.of(folder_settings)
        images, left_out = _choose(photos, out=out, video=video)
        if classes is not None:
            read_vocabulary(classes, background=background)
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
            settings=chosen,
            folder_settings=how,
            limit=limit,
            shard=part,
        )

    def open(self, *, device: str = "auto", dtype: str = "auto") -> AnySegmenter:
        """Load the segmenter.

        Raises:
            PatchwordError: when a model cannot be had or used.
        """
        if self.model is not None and not isinstance(self.model, str | Path):
            return self.model
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

    def classes_for(self, segmenter: AnySegmenter) -> Classes:
        """The classes that were asked for, or those that the segmenter was trained on.

        Raises:
            PatchwordError: when there are neither.
        """
        return trained_classes(segmenter) if self.classes is None else self.classes


def _choose(photos: str | Path, *, out: str | Path, video: bool) -> tuple[tuple[Path, ...], int]:
    """What is to be segmented, and how many videos are not: those of a folder have to be asked for."""
    from patchword.segment.video import VIDEO_SUFFIXES, check_extra, is_video

    found = choose_images(photos, out=out, also=VIDEO_SUFFIXES)
    videos = [path for path in found if is_video(path)]
    if video or not Path(photos).is_dir():
        if videos:
            check_extra()
        return tuple(found), 0
    images = tuple(path for path in found if not is_video(path))
    if not images:
        raise PatchwordError(f"no photographs in {photos}, but {len(videos)} videos; pass --video for their frames")
    return images, len(videos)
