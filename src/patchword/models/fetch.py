"""What `patchword models` does: list the known checkpoints, check that one loads, fetch some ahead of time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchword.errors import PatchwordError
from patchword.models.extras import TIMM, split_name
from patchword.models.folders import read_config
from patchword.models.hub import cached_folder, fetch_config, fetch_files, local_folder, missing_weights
from patchword.models.protocols import ModelRecord
from patchword.models.registry import FAMILIES, PRESETS, Checkpoint, Kind, family_of


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
            kind=family.kind,
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
        folder = local_folder(name, revision=revision) or cached_folder(name, revision=revision)
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

    Returns:
        one record a name.
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
    extra, _ = split_name(name)
    if extra is not None:
        return "patch" if extra is TIMM else "image-text"
    return family_of(read_config(folder)["model_type"], kind=kind, where=name).kind


def _check_target(folder: Path | None) -> None:
    if folder is None or not folder.exists():
        return
    begun = (folder / ".cache" / "huggingface").is_dir()  # where the hub's client keeps account of a fetch
    if not folder.is_dir() or (any(folder.iterdir()) and not begun):
        raise PatchwordError(
            f"{folder} holds something else; give a new or empty folder, or one of an unfinished fetch"
        )


def _load_record(name: str, *, revision: str | None, kind: Kind) -> ModelRecord:
    from patchword.models import loading  # here, so that listing models needs no transformers

    if kind == "image-text":
        return loading.load_image_text(name, revision=revision, device="cpu").record
    if kind == "patch":
        return loading.load_patch_encoder(name, revision=revision, device="cpu").record
    return loading.load_mask_proposer(name, revision=revision, device="cpu").record
