"""From what a user calls a segmenter, the folder of a trained one or the name of a method, to the segmenter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.alignment.artifact import read_config
from patchword.errors import PatchwordError
from patchword.models.hub import segmenter_folder
from patchword.models.loading import Loader
from patchword.models.registry import ModelName

ONNX = ".onnx"

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.segmentation.dense import AnySegmenter, DenseSegmenter
    from patchword.segmentation.methods import Method
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
    mask_generator: str | Path | MaskGenerator | None = None,
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
        mask_generator: what snaps edges where the setting `refine` is "sam".
        device, dtype: as for `label`.
        as_published: of `method`, as for `load_method`.
    """
    check_parts(model, method=method, image_text=image_text, encoder=encoder, text_encoder=text_encoder)
    if model is not None and not isinstance(model, str | Path):
        if any(part is not None for part in (encoder, text_encoder, mask_generator)):
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
    if mask_generator is not None:
        segmenter.refiner = Loader(device=device, dtype=dtype).mask_generator(mask_generator)
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
    if (model is None) == (method is None):
        given = "neither a model nor a method is given" if model is None else "a model and a method are both given"
        raise PatchwordError(f"{given}; pass exactly one: --model or --method (model=, method= in Python)")
    if method is None:
        if image_text is not None:
            raise PatchwordError("image_text needs a method; with a model, pass text_encoder")
        if isinstance(model, str | Path) and Path(model).suffix != ONNX:
            folder = segmenter_folder(model)
            if folder is not None:
                read_config(folder)
        elif isinstance(model, str | Path) and not Path(model).is_file():
            raise PatchwordError(f"{model} does not exist; give a file that `patchword export` wrote")
        return
    if text_encoder is not None:
        raise PatchwordError("text_encoder needs a model; with a method, pass image_text")
    if image_text is None:
        raise PatchwordError(f"method {method} needs an image-text model; pass a CLIP by --image-text (image_text=)")
    find_method(method, encoder=encoder)


def load_method(
    name: str,
    *,
    image_text: str | Path | ImageTextEncoder,
    encoder: str | Path | PatchEncoder | None = None,
    device: str = "auto",
    dtype: str = "auto",
    as_published: bool = False,
) -> DenseSegmenter:
    """A segmenter by a training-free method.

    Args:
        name: one of `METHODS`.
        image_text: CLIP: hub name, `name@revision`, folder, or loaded.
        encoder: the vision encoder of "proxyclip", any that `load_patch_encoder` loads; none for the others.
        device: "auto" or a torch device; of models that are loaded here.
        dtype: "auto", "float32", "bfloat16" or "float16"; likewise.
        as_published: have DINO, or another encoder of the family "vit", as in its authors' code: positions resampled
            with an offset of 0.1 patches, 1e-6 in layer norms. transformers stretches positions exactly and has what
            the checkpoint's config says, 1e-12 for DINO.

    Returns:
        the segmenter, which sees images whole at CLIP's own size unless settings say otherwise.
    """
    from patchword.models.clip import ClipEncoder
    from patchword.models.encoders import TokenEncoder, as_dino
    from patchword.segmentation.dense import DenseSegmenter

    method = find_method(name, encoder=encoder)
    if isinstance(image_text, str | Path):
        _check_family(method, ModelName.parse(image_text))
    loader = Loader(device=device, dtype=dtype)
    clip = loader.image_text(image_text)
    if not isinstance(clip, ClipEncoder):
        raise _other_family(method, name=clip.record.name, family=clip.record.family)
    variant = clip.varied(dense=method.dense, position_offset=method.position_offset)
    facts: dict[str, Any] = {"kind": "dense", "method": method.name}
    if encoder is None:
        return DenseSegmenter(clip, encode=variant.encode_patches, facts=facts)
    from patchword.models.clip import ProxyClip

    vision = loader.patch_encoder(encoder)
    if as_published and isinstance(vision, TokenEncoder) and vision.record.family == "vit":
        vision = as_dino(vision)
    facts |= {"encoder": vision.record.identity(), **({"as_published": True} if as_published else {})}
    proxy = ProxyClip(variant, encoder=vision)
    return DenseSegmenter(clip, encode=proxy, patch_size=vision.record.patch_size, facts=facts)


def _check_family(method: Method, model: ModelName) -> None:
    """Refuse, before anything is fetched, a model whose name alone says that it is not CLIP."""
    from patchword.models.registry import known_family, split_name

    library, _ = split_name(model.name)
    if library is not None:
        raise _other_family(method, name=model.name, family=library.prefix)
    family = known_family(model.name)
    if family is not None and family.name != "clip":
        raise _other_family(method, name=model.name, family=family.name)


def _other_family(method: Method, *, name: str, family: str) -> PatchwordError:
    return PatchwordError(
        f"method {method.name} changes CLIP's last layer, and {name} is of the family {family}; it needs a CLIP in "
        "transformers' format"
    )


def find_method(name: str, *, encoder: object = None) -> Method:
    """The method of that name.

    Args:
        name: one of `METHODS`.
        encoder: what is given as its vision encoder, None for nothing.
    """
    from patchword.segmentation.methods import METHODS

    if name not in METHODS:
        raise PatchwordError(f"unknown method {name!r} (choose from {', '.join(METHODS)})")
    method = METHODS[name]
    if method.needs_encoder and encoder is None:
        raise PatchwordError(f"method {name} needs a vision encoder beside CLIP; pass --encoder (encoder=)")
    if encoder is not None and not method.needs_encoder:
        needing = ", ".join(method.name for method in METHODS.values() if method.needs_encoder)
        raise PatchwordError(f"method {name} uses no vision encoder; only {needing} does")
    return method
