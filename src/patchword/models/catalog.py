"""What `patchword models` and `patchword encoders` do: list the known checkpoints, check that one loads, fetch some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.errors import PatchwordError
from patchword.models.checkpoint import has_weights, read_model_type, weights_files
from patchword.models.hub import (
    cached_folder,
    fetch_config,
    fetch_files,
    found_folder,
    local_folder,
    missing_weights,
)
from patchword.models.loading import adapter_of, load_image_text, load_mask_generator, load_patch_encoder
from patchword.models.registry import (
    FAMILIES,
    LIBRARIES,
    PRESETS,
    Checkpoint,
    Family,
    Kind,
    ModelName,
    Named,
    checkpoint_of,
    family_of,
    name_of,
    split_name,
)

if TYPE_CHECKING:
    from patchword.models.protocols import ModelRecord

ROLES: dict[Kind, str] = {"patch": "patches", "image-text": "text", "mask": "masks"}
HEADINGS = ("name", "family", "roles", "patch", "channels", "text", "M weights", "licence", "extra")


@dataclass(frozen=True)
class ListedModel:
    """A checkpoint of the registry.

    Attributes:
        checkpoint: its published facts.
        family: registry name of its adapter.
        kind: which protocol the adapter keeps.
        presets: names of the presets that use it.
        cached: whether its config and weights are in the hub's cache on this machine.
    """

    checkpoint: Checkpoint
    family: str
    kind: Kind
    presets: tuple[str, ...]
    cached: bool


@dataclass(frozen=True)
class CheckedModel:
    """Whether a checkpoint loads.

    Attributes:
        name: hub name or folder.
        kind: which protocol its adapter keeps; None where that could not be found out.
        record: what is known of it after loading; None where it does not load.
        problem: one line; "" where it loads.
    """

    name: str
    kind: Kind | None
    record: ModelRecord | None
    problem: str


@dataclass(frozen=True)
class FetchedModel:
    """A checkpoint that is now on this machine.

    Attributes:
        name: hub name.
        kind: which protocol its adapter keeps.
        folder: where its files are.
        size: bytes of config and weights.
    """

    name: str
    kind: Kind
    folder: Path
    size: int


def list_models() -> tuple[ListedModel, ...]:
    """List the registry's checkpoints, without asking the hub."""
    return tuple(
        ListedModel(
            checkpoint=checkpoint,
            family=family.name,
            kind=family.kinds[0],
            presets=tuple(name for name, preset in PRESETS.items() if checkpoint.name in preset.names),
            cached=cached_folder(checkpoint.name, revision=None) is not None,
        )
        for family in FAMILIES
        for checkpoint in family.checkpoints
    )


def check_model(name: str, *, revision: str | None = None, kind: Kind | None = None) -> CheckedModel:
    """Load a checkpoint that is on this machine, on the CPU, and say what is wrong if it does not load.

    Args:
        name: hub name (looked for in the cache only), or local folder.
        revision: branch, tag or commit of a hub name.
        kind: kind that it has to be of; None for any.

    Returns:
        the result; a checkpoint that does not load is a result, no error.
    """
    found: Kind | None = None
    try:
        folder = found_folder(name, revision=revision)
        if folder is None:
            raise PatchwordError(missing_weights(name, why="only this machine was searched"))
        found = _kind_of(folder, name=name, kind=kind)
        return CheckedModel(name, found, _load_record(name, revision=revision, kind=found), "")
    except PatchwordError as error:
        return CheckedModel(name, found, None, str(error))


def fetch_models(names: Sequence[str], *, revision: str | None = None, to: Path | None = None) -> list[FetchedModel]:
    """Fetch checkpoints from the hub, only the files that loading needs; what the cache has is not asked for again.

    Args:
        names: hub names.
        revision: branch, tag or commit, for a single name only.
        to: folder to fetch to instead of the hub's cache: the folder itself for a single name, and for several one
            folder each in it, called by the last part of the name. An interrupted fetch goes on where it stopped.
    """
    if revision is not None and len(names) > 1:
        raise PatchwordError(
            f"revision {revision!r} is given for {len(names)} models; a revision works with one model at a time"
        )
    targets = {name: to / name.rsplit("/", maxsplit=1)[-1] if to and len(names) > 1 else to for name in names}
    for name, target in targets.items():
        if local_folder(name, revision=revision) is not None:
            raise PatchwordError(f"{name} is a folder on this machine; give a hub name")
        _check_target(target)
    return [_fetch(name, revision=revision, to=target) for name, target in targets.items()]


def _fetch(name: str, *, revision: str | None, to: Path | None) -> FetchedModel:
    folder = None if to else cached_folder(name, revision=revision)
    if folder is None:
        config = fetch_config(name, revision=revision)
        _kind_of(config.parent, name=name)  # before gigabytes of weights are fetched
        folder = fetch_files(name, revision=revision, to=to)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return FetchedModel(name, _kind_of(folder, name=name), folder, size)


def _kind_of(folder: Path, *, name: str, kind: Kind | None = None) -> Kind:
    """The first role of a checkpoint, which must be able to serve in `kind` where one is given."""
    library, _ = split_name(name)
    if library is not None:
        return library.kinds[0]
    return family_of(read_model_type(folder), kind=kind, where=name).kinds[0]


def _check_target(folder: Path | None) -> None:
    if folder is None or not folder.exists():
        return
    begun = (folder / ".cache" / "huggingface").is_dir()  # where the hub's client keeps account of a fetch
    if not folder.is_dir() or (any(folder.iterdir()) and not begun):
        raise PatchwordError(
            f"{folder} holds something else; give a new or empty folder, or one of an unfinished fetch"
        )


def _load_record(name: str, *, revision: str | None, kind: Kind) -> ModelRecord:
    if kind == "image-text":
        return load_image_text(name, revision=revision, device="cpu").record
    if kind == "patch":
        return load_patch_encoder(name, revision=revision, device="cpu").record
    return load_mask_generator(name, revision=revision, device="cpu").record


def describe_models(models: Mapping[str, Named]) -> dict[str, str]:
    """Role -> name, where the weights are and how large."""
    named = {role: name_of(part) for role, part in models.items()}
    return {role: f"{model} ({whereabouts(model)})" for role, model in named.items()}


def whereabouts(model: ModelName) -> str:
    """Where a model's weights are and how large, in words, without asking the hub."""
    place, folder = "local folder", local_folder(model.name, revision=model.revision)
    if folder is None:
        place, folder = "in the hub's cache", cached_folder(model.name, revision=model.revision)
    if folder is not None:
        size = sum(path.stat().st_size for path in weights_files(folder)) if has_weights(folder) else 0
        return f"{place}, {size / 1e6:,.1f} MB" if size else place
    known = checkpoint_of(model.name)
    return "to be fetched" + (f", about {known.parameters * 4:,.0f} MB" if known else "")


@dataclass(frozen=True)
class EncoderFacts:
    """A checkpoint, or a library's whole range, as a person chooses by it.

    Attributes:
        name: hub name; with a prefix and NAME in capitals where any model of a library will do.
        family: registry name of its adapter.
        roles: what it can be: "patches" (vision encoder), "text" (text space), "masks" (mask proposer).
        patch: side of a patch in pixels; None where it depends on the model.
        channels: of a patch feature; None likewise, or where it gives no patches.
        text_channels: of its text space; None where it has no text, or depends on the model.
        input_size: side in pixels of what it was trained on; others are taken, too.
        parameters: millions of weights, of all that is loaded for its first role.
        licence: of the weights, as their publisher states it; "" where it depends on the model.
        gated: whether terms must be accepted before a download.
        extra: extra of patchword to install; "" where none is needed.
    """

    name: str
    family: str
    roles: tuple[str, ...]
    patch: int | None
    channels: int | None
    text_channels: int | None
    input_size: int | None
    parameters: float | None
    licence: str
    gated: bool
    extra: str


def list_encoders() -> tuple[EncoderFacts, ...]:
    """List the registry's checkpoints and the libraries that can be named by a prefix, without asking the hub."""
    known = tuple(_facts(family, checkpoint) for family in FAMILIES for checkpoint in family.checkpoints)
    ranges = tuple(
        EncoderFacts(
            name=f"{library.prefix}:NAME",
            family=library.prefix,
            roles=tuple(ROLES[kind] for kind in library.kinds),
            patch=None,
            channels=None,
            text_channels=None,
            input_size=None,
            parameters=None,
            licence="",
            gated=False,
            extra=library.prefix,
        )
        for library in LIBRARIES
    )
    return (*known, *ranges)


def encoder_row(facts: EncoderFacts) -> tuple[str, ...]:
    """The facts under `HEADINGS`, for a person."""
    return (
        facts.name,
        facts.family,
        ", ".join(facts.roles),
        _number(facts.patch),
        _number(facts.channels),
        _number(facts.text_channels),
        "" if facts.parameters is None else f"{facts.parameters:,.1f}",
        f"{facts.licence} (gated)" if facts.gated else facts.licence or "the model's own",
        facts.extra,
    )


def patch_shape(name: str, *, revision: str | None = None) -> tuple[int, int] | None:
    """Patch size in pixels and channels of a vision encoder, from the registry or its config, no weight read.

    Returns:
        None where that cannot be known before the model is loaded or fetched.
    """
    if split_name(name)[0] is not None:
        return None
    listed = {facts.name: facts for facts in list_encoders()}.get(name)
    if listed is not None and listed.patch is not None and listed.channels is not None:
        return listed.patch, listed.channels
    folder = found_folder(name, revision=revision)
    return None if folder is None else _shape_of(folder, name=name)


def _shape_of(folder: Path, *, name: str) -> tuple[int, int] | None:
    from transformers import AutoConfig

    adapter = adapter_of(family_of(read_model_type(folder), kind="patch", where=name), "patch")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        patch, channels, _ = adapter.sizes(config.vision_config if adapter.part else config)
    except (ValueError, TypeError, AttributeError, OSError):  # a damaged config, which loading will tell of
        return None
    return patch, channels


def _facts(family: Family, checkpoint: Checkpoint) -> EncoderFacts:
    patches_first = family.kinds[0] == "patch"
    return EncoderFacts(
        name=checkpoint.name,
        family=family.name,
        roles=tuple(ROLES[kind] for kind in family.kinds),
        patch=checkpoint.patch_size,
        channels=checkpoint.dim if patches_first else checkpoint.tower_dim or None,
        text_channels=checkpoint.dim if family.kinds[0] == "image-text" else None,
        input_size=checkpoint.input_size,
        parameters=checkpoint.parameters,
        licence=checkpoint.licence,
        gated=checkpoint.gated,
        extra="",
    )


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
