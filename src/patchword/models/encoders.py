"""What `patchword encoders` lists: everything that can serve as a vision encoder or as a text space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from patchword.models.extras import EXTRAS, TIMM, split_name
from patchword.models.registry import FAMILIES, Checkpoint, Family, Kind, family_of

ROLES: dict[Kind, str] = {"patch": "patches", "image-text": "text", "mask": "masks"}


@dataclass(frozen=True)
class EncoderFacts:
    """A checkpoint, or a library's whole range, as a person chooses by it.

    Attributes:
        name: hub name; with a prefix and NAME in capitals where any model of a library will do.
        family: registry name of its adapter.
        roles: what it can be: "patches" (vision encoder), "text" (text space), "masks" (mask generator).
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


HEADINGS = ("name", "family", "roles", "patch", "channels", "text", "M weights", "licence", "extra")


def list_encoders() -> tuple[EncoderFacts, ...]:
    """List the registry's checkpoints and the libraries that can be named by a prefix, without asking the hub."""
    known = tuple(_facts(family, checkpoint) for family in FAMILIES for checkpoint in family.checkpoints)
    ranges = tuple(
        EncoderFacts(
            name=f"{extra.prefix}:NAME",
            family=extra.prefix,
            roles=("patches",) if extra is TIMM else ("text", "patches"),
            patch=None,
            channels=None,
            text_channels=None,
            input_size=None,
            parameters=None,
            licence="",
            gated=False,
            extra=extra.prefix,
        )
        for extra in EXTRAS
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
    from patchword.models.hub import cached_folder, local_folder

    if split_name(name)[0] is not None:
        return None
    listed = {facts.name: facts for facts in list_encoders()}.get(name)
    if listed is not None and listed.patch is not None and listed.channels is not None:
        return listed.patch, listed.channels
    folder = local_folder(name, revision=revision) or cached_folder(name, revision=revision)
    return None if folder is None else _shape_of(folder, name=name)


def _shape_of(folder: Path, *, name: str) -> tuple[int, int] | None:
    from transformers import AutoConfig

    from patchword.models.adapters import WEIGHTS
    from patchword.models.folders import read_config

    family = family_of(read_config(folder)["model_type"], kind="patch", where=name)
    weights = WEIGHTS[family.name, "patch"]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        patch, channels, _ = weights.sizes(config.vision_config if weights.part else config)
    except (ValueError, TypeError, AttributeError, OSError):  # a damaged config, which loading will tell of
        return None
    return patch, channels


def _facts(family: Family, checkpoint: Checkpoint) -> EncoderFacts:
    patches_first = family.kind == "patch"
    return EncoderFacts(
        name=checkpoint.name,
        family=family.name,
        roles=tuple(ROLES[kind] for kind in family.kinds),
        patch=checkpoint.patch_size,
        channels=checkpoint.dim if patches_first else checkpoint.tower_dim or None,
        text_channels=checkpoint.dim if family.kind == "image-text" else None,
        input_size=checkpoint.input_size,
        parameters=checkpoint.parameters,
        licence=checkpoint.licence,
        gated=checkpoint.gated,
        extra="",
    )


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
