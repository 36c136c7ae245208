"""The public functions of stage 3: names and folders become a segmenter, a segmenter and photographs a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import Classes, check_needs_resume, trained_classes
from patchword.data.folders import check_output
from patchword.segmentation.opening import load as load
from patchword.segmentation.opening import open_segmenter as open_segmenter
from patchword.segmentation.request import SegmentRequest

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskProposer, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.dense import AnySegmenter
    from patchword.segmentation.folder_settings import FolderSettings
    from patchword.segmentation.records import SegmentedFolder
    from patchword.segmentation.settings import SegmentSettings


def segment(
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
