"""From what a user calls a segmenter, the folder of a trained one or the name of a method, to the segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from patchword.errors import PatchwordError
from patchword.models.sources import Loader

ONNX = ".onnx"

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.segmentation.baseline import DenseSegmenter
    from patchword.segmentation.dense import AnySegmenter
    from patchword.segmentation.segmenter import Segmenter


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
    from patchword.segmentation.segmenter import Segmenter

    loader = Loader(device=device, dtype=dtype)
    return Segmenter.from_pretrained(
        model,
        encoder=None if encoder is None else loader.patch_encoder(encoder),
        text_encoder=None if text_encoder is None else loader.image_text(text_encoder),
        device=device,
        dtype=dtype,
    )


def open_segmenter(
    model: str | Path | AnySegmenter | None = None,
    *,
    method: str | None = None,
    image_text: str | Path | ImageTextEncoder | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    mask_proposer: str | Path | MaskGenerator | None = None,
    device: str = "auto",
    dtype: str = "auto",
    as_published: bool = False,
) -> AnySegmenter:
    """Load whatever segments: what `align` made, its export to ONNX, or a training-free method.

    Args:
        model: folder of a segmenter that `align` made, an .onnx file of it, or a segmenter, which is given back as it
            is and takes no other part. Exactly one of `model` and `method` is needed.
        method: name of a training-free method, such as "proxyclip".
        image_text: the image-text model of `method`: hub name, `name@revision`, folder, or loaded.
        encoder: the vision encoder: of `model`, where it is now; of `method`, the one that it takes features from.
        text_encoder: where the image-text model of `model` is now, or a file of text vectors (.npz) in its place.
        mask_proposer: what snaps edges where the setting `refine` is "sam".
        device, dtype: as for `label`.
        as_published: of `method`, as for `load_method`.
    """
    from patchword.config.inputs import refuse_empty
    from patchword.segmentation.baseline import load_method

    refuse_empty(model=model)
    check_parts(model, method=method, image_text=image_text, encoder=encoder, text_encoder=text_encoder)
    if model is not None and not isinstance(model, str | Path):
        if any(part is not None for part in (encoder, text_encoder, mask_proposer)):
            raise PatchwordError("a loaded segmenter has its own encoders; pass other encoders when you load it")
        return model
    segmenter: Segmenter | DenseSegmenter
    if model is not None and Path(model).suffix == ONNX:
        segmenter = _load_onnx(model, encoder=encoder, text_encoder=text_encoder, device=device, dtype=dtype)
    elif model is not None:
        segmenter = load(model, encoder=encoder, text_encoder=text_encoder, device=device, dtype=dtype)
    else:
        segmenter = load_method(
            method or "",
            image_text=image_text or "",
            encoder=encoder,
            device=device,
            dtype=dtype,
            as_published=as_published,
        )
    if mask_proposer is not None:
        segmenter.refiner = Loader(device=device, dtype=dtype).mask_proposer(mask_proposer)
    return segmenter


def _load_onnx(
    path: str | Path,
    *,
    encoder: object,
    text_encoder: str | Path | ImageTextEncoder | None,
    device: str,
    dtype: str,
) -> DenseSegmenter:
    from patchword.segmentation.onnx_segmenter import load_onnx_segmenter

    if encoder is not None:
        raise PatchwordError(f"{path} holds its own vision encoder; do not pass an encoder")
    text = None if text_encoder is None else Loader(device="cpu", dtype="float32").image_text(text_encoder)
    return load_onnx_segmenter(path, text_encoder=text, device=device, dtype=dtype)


def check_parts(
    model: object, *, method: str | None, image_text: object, encoder: object, text_encoder: object
) -> None:
    """Refuse, before anything is loaded, what does not make a segmenter together; arguments as of `open_segmenter`."""
    from patchword.models.sources import segmenter_folder
    from patchword.segmentation.methods import find_method

    if (model is None) == (method is None):
        given = "neither a model nor a method is given" if model is None else "a model and a method are both given"
        raise PatchwordError(f"{given}; pass exactly one: --model or --method (model=, method= in Python)")
    if method is None:
        if image_text is not None:
            raise PatchwordError("image_text needs a method; with a model, pass text_encoder")
        if isinstance(model, str | Path) and Path(model).suffix != ONNX:
            segmenter_folder(model)
        elif isinstance(model, str | Path) and not Path(model).is_file():
            raise PatchwordError(f"{model} does not exist; give a file that `patchword export` wrote")
        return
    if text_encoder is not None:
        raise PatchwordError("text_encoder needs a model; with a method, pass image_text")
    if image_text is None:
        raise PatchwordError(f"method {method} needs an image-text model; pass a CLIP by --image-text (image_text=)")
    find_method(method, encoder=encoder)
