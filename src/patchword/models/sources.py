"""From what a user calls a model, a name or a folder, to the loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.data.folders import expand_home
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, ModelRecord, PatchEncoder
    from patchword.models.registry import Kind


@dataclass(frozen=True)
class ModelName:
    """A model that is not loaded: hub name or folder, and the revision that was asked for."""

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str | Path) -> ModelName:
        """Read `name`, `name@revision` or a folder."""
        from patchword.models.extras import split_name

        given = str(text)
        _, place = split_name(given)
        if "@" not in given or expand_home(place).exists():
            name, revision = given, None
        else:
            name, _, revision = given.rpartition("@")
        if not name.strip() or revision == "":
            raise PatchwordError(f"model {given!r} must be a name, name@revision or a folder")
        return cls(name, revision)

    @classmethod
    def of(cls, record: ModelRecord) -> ModelName:
        """The name under which a loaded model can be loaded again."""
        return cls(record.name, record.revision)

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


Named = str | Path | ModelName


@dataclass(frozen=True)
class Loader:
    """Loads models onto one device in one type; what is loaded already passes through.

    Attributes:
        device: "auto" or a torch device.
        dtype: "auto", "float32", "bfloat16" or "float16".
    """

    device: str = "auto"
    dtype: str = "auto"

    def image_text(self, part: Named | ImageTextEncoder, *, dense: str = "value") -> ImageTextEncoder:
        """An image-text encoder, with that path to its patch features."""
        from patchword.models import load_image_text

        if not isinstance(part, Named):
            return part
        model = _named(part)
        return load_image_text(model.name, revision=model.revision, device=self.device, dtype=self.dtype, dense=dense)

    def patch_encoder(self, part: Named | PatchEncoder) -> PatchEncoder:
        """A vision encoder."""
        from patchword.models import load_patch_encoder

        if not isinstance(part, Named):
            return part
        model = _named(part)
        return load_patch_encoder(model.name, revision=model.revision, device=self.device, dtype=self.dtype)

    def mask_proposer(self, part: Named | MaskGenerator) -> MaskGenerator:
        """A mask generator."""
        from patchword.models import load_mask_proposer

        if not isinstance(part, Named):
            return part
        model = _named(part)
        return load_mask_proposer(model.name, revision=model.revision, device=self.device, dtype=self.dtype)


def name_of(part: Named | ImageTextEncoder | MaskGenerator | PatchEncoder) -> ModelName:
    """The name of a model, or that of a loaded one, under which it can be loaded again."""
    if isinstance(part, Named):
        return _named(part)
    return ModelName.of(part.record)


def segmenter_folder(name: str | Path) -> Path | None:
    """The local folder that a segmenter's name means, or None when it is a hub name, `user/name`. Needs no torch.

    Args:
        name: folder, hub name, or `name@revision`.
    """
    from patchword.models.hub import local_folder, misspelt_folder

    path = expand_home(name)
    if path.is_dir():
        return path
    model = ModelName.parse(name)
    meant = misspelt_folder(path) if model.revision is None else None
    right = f"did you mean {meant}?" if meant else "pass a folder that `patchword align` has written"
    message = f"no model folder {name}; {right}"
    if "/" not in model.name:  # whatever is uploaded has an owner
        raise PatchwordError(message)
    try:
        return local_folder(model.name, revision=model.revision)
    except PatchwordError:  # it can only have been a folder
        raise PatchwordError(message) from None


def whereabouts(model: ModelName) -> str:
    """Where a model's weights are and how large, in words, without asking the hub."""
    from patchword.models.hub import cached_folder, local_folder
    from patchword.models.registry import checkpoint_of

    local = local_folder(model.name, revision=model.revision)
    if local is not None:
        return f"local folder{_size(local)}"
    cached = cached_folder(model.name, revision=model.revision)
    if cached is not None:
        return f"in the hub's cache{_size(cached)}"
    known = checkpoint_of(model.name)
    size = f", about {known.parameters * 4:,.0f} MB" if known else ""
    return f"to be fetched{size}"


def describe_models(models: Mapping[str, str | Path | ModelName]) -> dict[str, str]:
    """Role -> name, where the weights are and how large."""
    named = {role: part if isinstance(part, ModelName) else ModelName.parse(part) for role, part in models.items()}
    return {role: f"{model} ({whereabouts(model)})" for role, model in named.items()}


def is_here(model: ModelName) -> bool:
    """Whether a model's weights are on this machine."""
    from patchword.models.hub import cached_folder, local_folder

    return any(find(model.name, revision=model.revision) is not None for find in (local_folder, cached_folder))


def check_part(part: Named | ImageTextEncoder | MaskGenerator | PatchEncoder | None, *, kind: Kind) -> None:
    """Refuse, before anything is loaded, a folder that is not there and a model on this machine of another kind.

    Args:
        part: None, and what is loaded already, pass.
        kind: what it has to serve as.
    """
    from patchword.models.extras import split_name
    from patchword.models.folders import read_config
    from patchword.models.hub import cached_folder, local_folder
    from patchword.models.registry import family_of

    if part is None or not isinstance(part, Named):
        return
    model = _named(part)
    folder = local_folder(model.name, revision=model.revision) or cached_folder(model.name, revision=model.revision)
    if folder is not None and split_name(model.name)[0] is None:
        family_of(read_config(folder)["model_type"], kind=kind, where=model.name)


def _size(folder: Path) -> str:
    from patchword.models.folders import has_weights, weights_files

    if not has_weights(folder):
        return ""
    return f", {sum(path.stat().st_size for path in weights_files(folder)) / 1e6:,.1f} MB"


def _named(part: Named) -> ModelName:
    return part if isinstance(part, ModelName) else ModelName.parse(part)
