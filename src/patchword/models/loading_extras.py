"""Loading models of other libraries, named by a prefix."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from patchword.errors import PatchwordError
from patchword.models.extras import TIMM, Extra, import_extra
from patchword.models.hub import cached_folder, fetch_config, fetch_files, local_folder
from patchword.models.openclip import OpenClipEncoder, OpenClipPatches, check_native, load_open_clip
from patchword.models.protocols import ImageTextEncoder, PatchEncoder
from patchword.models.timm_encoder import load_timm


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
