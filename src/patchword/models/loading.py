"""From a name or a folder to an adapter: the three loaders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from patchword.errors import PatchwordError
from patchword.models.adapters import WEIGHTS, build_patch_encoder
from patchword.models.clip import ClipEncoder, check_pooled_token
from patchword.models.dense import check_dense
from patchword.models.devices import choose_device, choose_dtype
from patchword.models.extras import TIMM, Extra, import_extra, split_name
from patchword.models.folders import (
    Preprocessing,
    check_tokenizer_files,
    fingerprint,
    read_config,
    read_preprocessing,
    weights_files,
)
from patchword.models.hub import cached_folder, fetch_config, fetch_files, local_folder
from patchword.models.openclip import OpenClipEncoder, OpenClipPatches, check_native, load_open_clip
from patchword.models.protocols import ImageTextEncoder, MaskGenerator, ModelRecord, PatchEncoder
from patchword.models.registry import Family, Kind, checkpoint_of, family_of, known_family
from patchword.models.sam import SamMaskGenerator
from patchword.models.siglip import SiglipEncoder
from patchword.models.stored_text import SUFFIX as STORED_TEXT
from patchword.models.stored_text import load_stored_text
from patchword.models.timm_encoder import load_timm

_IMAGE_SIDE = {"clip": ("vision_model", "visual_projection"), "siglip": ("vision_model",)}


@dataclass(frozen=True)
class Source:
    """A checkpoint found and checked, its weights not read yet, and the role that it is wanted for."""

    name: str
    revision: str | None
    folder: Path
    family: Family
    kind: Kind


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's model on its device, with what its adapter needs besides."""

    model: Any
    record: ModelRecord
    preprocessing: Preprocessing


def load_image_text(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto", dense: str = "value"
) -> ImageTextEncoder:
    """Load CLIP, SigLIP, SigLIP 2 or, by the prefix `open_clip:`, any OpenCLIP model.

    Args:
        name: hub name, or local folder in the hub's format; a file of text vectors (.npz) stands in for a text tower
            where only its own words are asked for.
        revision: branch, tag or commit of a hub name; None for the main branch.
        device: "auto" (CUDA, then Apple's MPS, then CPU) or a torch device such as "cuda:1"; see
            `devices.choose_device`.
        dtype: of the image side; text is always encoded in float32. "auto" (see `devices.fast_dtype`), "float32",
            "bfloat16" or "float16".
        dense: variant of CLIP's last layer for `encode_patches`: "value", "maskclip", "sclip", "clearclip" or "naclip"
            (see `models.dense`); of these, SigLIP and OpenCLIP have "value".

    Returns:
        the encoder, in evaluation mode, its weights frozen.

    Raises:
        PatchwordError: one line for every way in which name, folder, weights or an argument can be wrong.
    """
    variant = check_dense(dense)
    if name.endswith(STORED_TEXT):
        return load_stored_text(name)
    where = choose_device(device)  # before gigabytes are fetched for a device that is not there
    loads_as = choose_dtype(dtype, device=where)
    extra, _ = split_name(name)
    if extra is not None:
        return load_extra_image_text(extra, name, revision=revision, device=where, dtype=loads_as, dense=variant)
    source = find_source(name, revision=revision, kind="image-text")
    if source.family.name == "siglip" and variant != "value":
        raise PatchwordError(f"dense is {dense!r} for {name}, a SigLIP model; only value works")
    loaded = _load(source, device=where, dtype=torch.float32)  # which the text tower stays in
    for part in _IMAGE_SIDE[source.family.name]:
        getattr(loaded.model, part).to(loads_as)
    text_config = loaded.model.config.text_config
    tokenizer = _load_tokenizer(source.folder, vocabulary=text_config.vocab_size)
    resample = loaded.preprocessing.resample
    if source.family.name == "siglip":
        return SiglipEncoder(loaded.model, tokenizer=tokenizer, record=loaded.record, resample=resample)
    check_pooled_token(tokenizer, pooled=text_config.eos_token_id, where=name)
    return ClipEncoder(loaded.model, tokenizer=tokenizer, record=loaded.record, resample=resample, dense=variant)


def load_patch_encoder(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> PatchEncoder:
    """Load a frozen vision encoder: any of the registry's, the image tower of CLIP, SigLIP, SAM or SAM 2, or, by the
    prefixes `timm:` and `open_clip:`, one of those libraries.

    Arguments, returns and errors as for `load_image_text`. What the features of each family are: docs/encoders.md.
    """
    where = choose_device(device)
    loads_as = choose_dtype(dtype, device=where)
    extra, _ = split_name(name)
    if extra is not None:
        return load_extra_patches(extra, name, revision=revision, device=where, dtype=loads_as)
    source = find_source(name, revision=revision, kind="patch")
    loaded = _load(source, device=where, dtype=loads_as)
    return build_patch_encoder(source.family.name, loaded.model, record=loaded.record)


def load_mask_proposer(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> MaskGenerator:
    """Load SAM, SAM 2 or SAM 2.1. Arguments, returns and errors as for `load_image_text`.

    The dtype is that of the image encoder; prompts and masks are always computed in float32.
    """
    where = choose_device(device)
    encoder_dtype = choose_dtype(dtype, device=where)
    extra, _ = split_name(name)
    if extra is not None:
        raise PatchwordError(f"{name} is not a mask generator; use SAM, SAM 2 or SAM 2.1 in transformers' format")
    source = find_source(name, revision=revision, kind="mask")
    loaded = _load(source, device=where, dtype=torch.float32)
    return SamMaskGenerator(
        loaded.model, record=loaded.record, resample=loaded.preprocessing.resample, encoder_dtype=encoder_dtype
    )


def find_source(name: str, *, revision: str | None, kind: Kind) -> Source:
    """Find a checkpoint's folder, fetching it when it is a hub name that is not in the cache.

    Whether the model can serve in that role is checked before its weights are fetched.
    """
    folder = local_folder(name, revision=revision)
    if folder is not None:
        family = family_of(read_config(folder)["model_type"], kind=kind, where=name)
        return Source(name, None, folder, family, kind)
    known = known_family(name)
    if known is not None:
        family_of(known.model_types[0], kind=kind, where=name)
    folder = cached_folder(name, revision=revision)
    if folder is None:
        config = fetch_config(name, revision=revision)
        family_of(read_config(config.parent)["model_type"], kind=kind, where=name)
        folder = fetch_files(name, revision=revision)
    family = family_of(read_config(folder)["model_type"], kind=kind, where=name)
    return Source(name, folder.name, folder, family, kind)  # the cache names a snapshot's folder by its commit


def model_sizes(family: Family, config: Any, *, kind: Kind) -> tuple[int, int, int]:
    """Patch size, channels and input size of a checkpoint in a role, from the config of the part that serves in it."""
    return WEIGHTS[family.name, kind].sizes(config)


def _load(source: Source, *, device: torch.device, dtype: torch.dtype) -> Loaded:
    weights_files(source.folder)  # refuses missing and damaged files with a line that names them
    preprocessing = read_preprocessing(source.folder, family=source.family)
    model = _load_weights(source, dtype=dtype)
    patch_size, dim, input_size = model_sizes(source.family, model.config, kind=source.kind)
    known = checkpoint_of(source.name)
    record = ModelRecord(
        family=source.family.name,
        name=source.name,
        revision=source.revision,
        fingerprint=fingerprint(source.folder),
        patch_size=patch_size,
        dim=dim,
        mean=preprocessing.mean,
        std=preprocessing.std,
        input_size=input_size,
        licence=known.licence if known else "",
    )
    return Loaded(model.to(device).eval().requires_grad_(False), record, preprocessing)


def _load_weights(source: Source, *, dtype: torch.dtype) -> Any:
    """The part of the checkpoint's model that the role needs; the rest is let go."""
    import transformers

    weights = WEIGHTS[source.family.name, source.kind]
    name = weights.class_name
    try:
        with quiet_transformers():
            model, report = getattr(transformers, name).from_pretrained(
                source.folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **weights.options,
            )
    except Exception as error:  # a config may be wrong in as many ways as there are fields
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise PatchwordError(f"{source.folder} cannot be loaded as {name}: {reason}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise PatchwordError(f"{source.folder} lacks {len(missing)} of {name}'s tensors, such as {missing[0]}")
    return getattr(model, weights.part) if weights.part else model


def _load_tokenizer(folder: Path, *, vocabulary: int) -> Any:
    from transformers import AutoTokenizer

    check_tokenizer_files(folder)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise all sorts of things
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise PatchwordError(f"{folder} has no usable tokenizer: {reason}") from error
    if len(tokenizer) > vocabulary:
        raise PatchwordError(f"the tokenizer in {folder} has {len(tokenizer)} tokens; the model allows {vocabulary}")
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal while loading; what matters of them is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def find_extra(name: str, *, revision: str | None) -> tuple[Path, str | None]:
    """The folder of a checkpoint of another library, fetched when it must be, and its commit (None for a folder)."""
    folder = local_folder(name, revision=revision)
    if folder is not None:
        return folder, None
    folder = cached_folder(name, revision=revision)
    if folder is None:
        fetch_config(name, revision=revision)
        folder = fetch_files(name, revision=revision)
    return folder, folder.name


def load_extra_patches(
    extra: Extra, name: str, *, revision: str | None, device: torch.device, dtype: torch.dtype
) -> PatchEncoder:
    """Load a patch encoder of timm or OpenCLIP; `load_patch_encoder` says what the arguments are."""
    import_extra(extra, name=name)  # before anything is fetched
    folder, commit = find_extra(name, revision=revision)
    if extra is TIMM:
        return load_timm(name, folder=folder, revision=commit, device=device, dtype=dtype)
    parts = load_open_clip(name, folder=folder, revision=commit)
    tower = parts.model.visual
    check_native(tower, name=name, what="patches")
    record = replace(parts.record, dim=int(tower.conv1.out_channels))
    return OpenClipPatches(tower.to(device=device, dtype=dtype), record=record, device=device, dtype=dtype)


def load_extra_image_text(
    extra: Extra, name: str, *, revision: str | None, device: torch.device, dtype: torch.dtype, dense: str
) -> ImageTextEncoder:
    """Load an OpenCLIP model as text and image tower; `load_image_text` says what the arguments are."""
    if extra is TIMM:
        raise PatchwordError(f"{name} has no text encoder; use CLIP, SigLIP or, by open_clip:NAME, OpenCLIP models")
    if dense != "value":
        raise PatchwordError(f"dense is {dense!r} for {name}, an OpenCLIP model; only value works")
    import_extra(extra, name=name)
    folder, commit = find_extra(name, revision=revision)
    parts = load_open_clip(name, folder=folder, revision=commit)
    parts.model.to(device).visual.to(dtype)  # text stays in float32
    return OpenClipEncoder(
        parts.model,
        tokenizer=parts.tokenizer,
        record=parts.record,
        device=device,
        dtype=dtype,
        resample=parts.resample,
    )
