"""The public functions of stage 3: names and folders become a segmenter, a segmenter and photographs a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.errors import PatchwordError
from patchword.inputs import Classes, choose_images, claim_output, root_of, trained_classes
from patchword.parts import Loader

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskProposer, PatchEncoder
    from patchword.segment.baseline import DenseSegmenter
    from patchword.segment.dense import AnySegmenter
    from patchword.segment.run import SegmentedFolder
    from patchword.segment.segmenter import Segmenter
    from patchword.segment.settings import SegmentSettings


def segment(
    photos: str | Path,
    *,
    model: str | Path | Segmenter | DenseSegmenter,
    out: str | Path,
    classes: Classes | None = None,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | Mapping[str, Any] | None = None,
    overlays: bool = True,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> SegmentedFolder:
    """Stage 3: segment photographs by any class names into a folder; for one image in memory see `Segmenter.segment`.

    Args:
        photos: a folder of photographs, searched recursively, or one photograph.
        model: a segmenter or its folder.
        out: folder of the result; must be new or empty unless `resume` or `overwrite` is set.
        classes: as for `label`; None for the classes of the training.
        background: words for what is none of the classes, which becomes a class "background", the last; None takes
            those of the class list, an empty list none.
        settings: how images are seen and classes are decided, all as `SegmentSettings`, or by name those that differ
            from the defaults.
        overlays: whether to write overlays.
        device, dtype, limit, resume, overwrite, quiet, command: as for `label`.

    Returns:
        the folder, the names of the photographs, and which of them could not be segmented.

    Raises:
        PatchwordError: for anything above that is not as described.
    """
    from patchword.segment.run import MARKER, segment_folder
    from patchword.segment.settings import SegmentSettings

    chosen = SegmentSettings.of(settings)
    images = choose_images(photos, out=out, limit=limit)
    claim_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    segmenter = load(model, device=device, dtype=dtype) if isinstance(model, str | Path) else model
    return segment_folder(
        images,
        root=root_of(photos),
        segmenter=segmenter,
        classes=trained_classes(segmenter) if classes is None else classes,
        out=out,
        background=background,
        settings=chosen,
        overlays=overlays,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
        command=command,
    )


def load(
    model: str | Path,
    *,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Segmenter:
    """Load a segmenter that `align` made.

    Args:
        model: its folder.
        encoder: where its vision encoder is now: name, folder or loaded; by default where it was in training.
        text_encoder: likewise for the image-text model whose text tower it uses.
        device, dtype: as for `label`.

    Returns:
        the segmenter.

    Raises:
        PatchwordError: when the folder is no model, is damaged, or a frozen model is missing or has other weights than
            the segmenter was trained with.
    """
    from patchword.segment.segmenter import Segmenter

    loader = Loader(device=device, dtype=dtype)
    return Segmenter.from_pretrained(
        model,
        encoder=None if encoder is None else loader.patch_encoder(encoder),
        text_encoder=None if text_encoder is None else loader.image_text(text_encoder),
        device=device,
        dtype=dtype,
    )


def open_segmenter(
    model: str | Path | None = None,
    *,
    method: str | None = None,
    image_text: str | Path | ImageTextEncoder | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    mask_proposer: str | Path | MaskProposer | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> AnySegmenter:
    """Load whatever segments: what `align` made, or a training-free method.

    Args:
        model: folder of a segmenter that `align` made. Exactly one of `model` and `method` is needed.
        method: name of a training-free method, such as "proxyclip".
        image_text: the image-text model of `method`: hub name, `name@revision`, folder, or loaded.
        encoder: the vision encoder: of `model`, where it is now; of `method`, the one that it takes features from.
        text_encoder: where the image-text model of `model` is now.
        mask_proposer: what snaps edges where the setting `refine` is "sam".
        device, dtype: as for `label`.

    Raises:
        PatchwordError: for neither or both of `model` and `method`, parts that do not belong to them, and as `load`.
    """
    from patchword.segment.baselines import load_method

    if (model is None) == (method is None):
        given = "neither is" if model is None else "both are"
        raise PatchwordError(f"{given} given of a model and a method; allowed is exactly one: model= or method=")
    if mask_proposer is not None:
        raise PatchwordError("a mask proposer is given, but edges cannot be snapped yet")
    if model is not None:
        if image_text is not None:
            raise PatchwordError("image_text is given beside a model; allowed is text_encoder, or a method")
        return load(model, encoder=encoder, text_encoder=text_encoder, device=device, dtype=dtype)
    if text_encoder is not None:
        raise PatchwordError("text_encoder is given beside a method; allowed is image_text, whose text tower it uses")
    if image_text is None:
        raise PatchwordError(f"method {method} needs an image-text model; pass image_text, such as a CLIP")
    return load_method(str(method), image_text=image_text, encoder=encoder, device=device, dtype=dtype)
