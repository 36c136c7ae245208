"""From a name or a folder to a model: where it runs, in which type, and the three loaders. Needs no torch before."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from patchword.errors import PatchwordError, first_line
from patchword.models.checkpoint import (
    Adapter,
    Loaded,
    fingerprint,
    import_library,
    quiet_transformers,
    read_model_type,
    read_preprocessing,
    weights_files,
)
from patchword.models.hub import find_or_fetch, local_folder
from patchword.models.registry import (
    Dense,
    Family,
    Kind,
    Library,
    Named,
    checkpoint_of,
    family_of,
    known_family,
    name_of,
    split_name,
)
from patchword.precision import choose_dtype

if TYPE_CHECKING:
    import torch

    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder

_log = logging.getLogger(__name__)

TEXT_EMBEDDINGS = ".npz"


@dataclass(frozen=True)
class Source:
    """A checkpoint found and checked, its weights not read yet, and the role that it is wanted for."""

    name: str
    revision: str | None
    folder: Path
    family: Family
    kind: Kind


@dataclass(frozen=True)
class Loader:
    """Loads models onto one device in one type; what is loaded already passes through.

    Attributes:
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
    """

    device: str = "auto"
    dtype: str = "auto"

    def spoken(self) -> str:
        """Where models compute and in what, for a person: "device: cpu, in float32"."""
        device = choose_device(self.device)
        return f"device: {device}, in {str(choose_dtype(self.dtype, device=device)).removeprefix('torch.')}"

    def image_text(self, part: Named | ImageTextEncoder, *, dense: str = "value") -> ImageTextEncoder:
        """An image-text encoder, with that path to its patch features."""
        return load_image_text(**self._arguments(part), dense=dense) if isinstance(part, Named) else part

    def patch_encoder(self, part: Named | PatchEncoder) -> PatchEncoder:
        """A vision encoder."""
        return load_patch_encoder(**self._arguments(part)) if isinstance(part, Named) else part

    def mask_generator(self, part: Named | MaskGenerator) -> MaskGenerator:
        """A mask generator."""
        return load_mask_generator(**self._arguments(part)) if isinstance(part, Named) else part

    def _arguments(self, part: Named) -> dict[str, Any]:
        model = name_of(part)
        return {"name": model.name, "revision": model.revision, "device": self.device, "dtype": self.dtype}


def load_image_text(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto", dense: str = "value"
) -> ImageTextEncoder:
    """Load CLIP, SigLIP, SigLIP 2 or, by the prefix `open_clip:`, any OpenCLIP model.

    Args:
        name: hub name, or local folder in the hub's format; a file of text embeddings (.npz) stands in for a text tower
            where only its own words are asked for.
        revision: branch, tag or commit of a hub name; None for the main branch.
        device: "auto" (CUDA, then Apple's MPS, then CPU) or a torch device such as "cuda:1"; see `choose_device`.
        dtype: of the image side; text is always encoded in float32. "auto" (see `choose_dtype`), "float32",
            "bfloat16" or "float16".
        dense: variant of CLIP's last layer for `encode_patches`: "value", "maskclip", "sclip", "clearclip" or "naclip"
            (see `models.clip`); of these, SigLIP and OpenCLIP have "value".

    Returns:
        the encoder, in evaluation mode, its weights frozen.
    """
    variant = next((each for each in get_args(Dense) if each == dense), None)
    if variant is None:
        raise PatchwordError(f"dense {dense!r} is unknown (choose from {', '.join(get_args(Dense))})")
    if name.endswith(TEXT_EMBEDDINGS):
        from patchword.models.text_embeddings import load_stored_text

        return load_stored_text(name)
    model: ImageTextEncoder = _load(name, "image-text", revision, device, dtype, variant)
    return model


def load_patch_encoder(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> PatchEncoder:
    """Load a frozen vision encoder: any of the registry's, the image tower of CLIP, SigLIP, SAM or SAM 2, or, by the
    prefixes `timm:` and `open_clip:`, one of those libraries.

    Arguments and returns as for `load_image_text`. What the features of each family are: docs/encoders.md.
    """
    model: PatchEncoder = _load(name, "patch", revision, device, dtype)
    return model


def load_mask_generator(
    name: str, *, revision: str | None = None, device: str = "auto", dtype: str = "auto"
) -> MaskGenerator:
    """Load SAM, SAM 2 or SAM 2.1. Arguments and returns as for `load_image_text`.

    The dtype is that of the image encoder; prompts and masks are always computed in float32.
    """
    model: MaskGenerator = _load(name, "mask", revision, device, dtype)
    return model


def _load(name: str, kind: Kind, revision: str | None, device: str, dtype: str, dense: Dense = "value") -> Any:
    import torch

    from patchword.models.protocols import ModelRecord

    where = choose_device(device)  # before gigabytes are fetched for a device that is not there
    loads_as = choose_dtype(dtype, device=where)
    library, _ = split_name(name)
    if library is not None:
        _check_library(library, name=name, kind=kind, dense=dense)
        import_library(library, name=name)
        folder, commit = find_or_fetch(name, revision=revision)
        module = import_module(f"patchword.models.{library.module}")
        return module.load(name, folder=folder, revision=commit, kind=kind, device=where, dtype=loads_as)
    source = find_source(name, revision=revision, kind=kind)
    if dense != "value" and source.family.name != "clip":
        raise _only_clip(name, dense)
    adapter = adapter_of(source.family, kind)
    weights_files(source.folder)  # refuses missing and damaged files with a line that names them
    preprocessing = read_preprocessing(source.folder, family=source.family)
    model = _read_weights(source, adapter, dtype=loads_as if kind == "patch" else torch.float32)
    patch_size, dim, input_size = adapter.sizes(model.config)
    known = checkpoint_of(name)
    record = ModelRecord(
        family=source.family.name,
        name=name,
        revision=source.revision,
        fingerprint=fingerprint(source.folder),
        patch_size=patch_size,
        dim=dim,
        mean=preprocessing.mean,
        std=preprocessing.std,
        input_size=input_size,
        licence=known.licence if known else "",
    )
    model = model.to(where).eval().requires_grad_(False)
    return adapter.build(Loaded(model, record, preprocessing, source.folder, loads_as, dense))


def find_source(name: str, *, revision: str | None, kind: Kind) -> Source:
    """Find a checkpoint's folder, fetching it when it is a hub name that is not in the cache.

    Whether the model can serve in that role is checked before its weights are fetched.
    """

    def check(folder: Path) -> Family:
        return family_of(read_model_type(folder), kind=kind, where=name)

    known = known_family(name) if local_folder(name, revision=revision) is None else None
    if known is not None:
        family_of(known.model_types[0], kind=kind, where=name)
    folder, commit = find_or_fetch(name, revision=revision, check=check)
    return Source(name, commit, folder, check(folder), kind)


def adapter_of(family: Family, kind: Kind) -> Adapter:
    """How a family serves in a role; its module is imported now."""
    adapter: Adapter = import_module(f"patchword.models.{family.modules[kind]}").ADAPTERS[family.name, kind]
    return adapter


def _read_weights(source: Source, adapter: Adapter, *, dtype: torch.dtype) -> Any:
    """The part of the checkpoint's model that the role needs; the rest is let go."""
    import transformers

    name = adapter.class_name
    try:
        with quiet_transformers():
            model, report = getattr(transformers, name).from_pretrained(
                source.folder,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **adapter.options,
            )
    except Exception as error:  # a config may be wrong in as many ways as there are fields
        raise PatchwordError(f"{source.folder} cannot be loaded as {name}: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise PatchwordError(f"{source.folder} lacks {len(missing)} of {name}'s tensors, such as {missing[0]}")
    return getattr(model, adapter.part) if adapter.part else model


def _check_library(library: Library, *, name: str, kind: Kind, dense: Dense) -> None:
    if kind == "mask":
        raise PatchwordError(f"{name} is not a mask generator; use SAM, SAM 2 or SAM 2.1 in transformers' format")
    if kind not in library.kinds:
        raise PatchwordError(f"{name} has no text encoder; use CLIP, SigLIP or, by open_clip:NAME, OpenCLIP models")
    if dense != "value":
        raise _only_clip(name, dense)


def _only_clip(name: str, dense: Dense) -> PatchwordError:
    return PatchwordError(f"dense is {dense!r}, but {name} is not a CLIP in transformers' format; only value works")


def choose_device(device: str) -> torch.device:
    """The torch device of that name, or the best there is for "auto" (CUDA, then Apple's MPS, then CPU).

    A CUDA device without a number is that of this process: `torchrun` and `accelerate launch` give each of theirs the
    number in LOCAL_RANK, and a process alone has number 0.

    Args:
        device: "auto" or a torch device such as "cpu", "cuda", "cuda:1" or "mps".

    Returns:
        the device, with its number unless it is the CPU.
    """
    import torch

    name = device
    if device == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    named = f"{name}:{_local_rank()}" if name == "cuda" else name
    try:
        found = torch.zeros(1, device=torch.device(named)).device
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        source = f"device {named!r}, by LOCAL_RANK," if named != name and _local_rank() else f"device {named!r}"
        cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
        mps = ["mps"] if torch.backends.mps.is_available() else []
        here = ", ".join(["cpu", *(f"cuda:{card}" for card in range(cards)), *mps])
        raise PatchwordError(f"{source} is not available on this machine (choose from {here})") from error
    if device == "auto" and found.type == "mps":
        _tell_that_mps_is_untested()
    return found


def _local_rank() -> int:
    stated = os.environ.get("LOCAL_RANK") or "0"
    if not stated.isdecimal():
        raise PatchwordError(f"the environment variable LOCAL_RANK is {stated!r}; it must be a whole number from 0 on")
    return int(stated)


@cache  # once a process
def _tell_that_mps_is_untested() -> None:
    _log.warning("running on Apple's GPU (mps), which nobody has tested patchword on yet; --device cpu is tested")
