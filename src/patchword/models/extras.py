"""Models of other libraries, by prefix: `timm:NAME` and `open_clip:NAME`, each of an optional package."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from patchword.errors import PatchwordError
from patchword.models.folders import CONFIG, PREPROCESSOR, PROCESSOR, VOCABULARIES, WEIGHTS, WEIGHTS_INDEX

_TOKENIZER = (*VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


@dataclass(frozen=True)
class Layout:
    """Which files of a repository or a folder make a checkpoint.

    Attributes:
        config: the file that describes the model.
        weights: files of which one must be there.
        needed: all that loading may read, with wildcards.
    """

    config: str
    weights: tuple[str, ...]
    needed: tuple[str, ...]


@dataclass(frozen=True)
class Extra:
    """A library whose checkpoints can be named by a prefix.

    Attributes:
        prefix: before the colon; also the name of the Python package and of patchword's extra.
        owner: put before a hub name that has none; "" where names are whole.
        layout: its checkpoints' files.
    """

    prefix: str
    owner: str
    layout: Layout


TRANSFORMERS = Layout(
    CONFIG,
    (WEIGHTS, WEIGHTS_INDEX),
    (CONFIG, PREPROCESSOR, PROCESSOR, WEIGHTS, WEIGHTS_INDEX, "model-*-of-*.safetensors", *_TOKENIZER),
)
OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TIMM = Extra("timm", "timm/", Layout(CONFIG, (WEIGHTS,), (CONFIG, WEIGHTS)))
OPEN_CLIP = Extra(
    "open_clip",
    "",
    Layout(OPEN_CLIP_CONFIG, (OPEN_CLIP_WEIGHTS,), (OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, *_TOKENIZER)),
)
EXTRAS = (TIMM, OPEN_CLIP)


def split_name(name: str) -> tuple[Extra | None, str]:
    """The library that a model's name asks for, None for transformers, and the name without its prefix."""
    for extra in EXTRAS:
        if name.startswith(extra.prefix + ":"):
            return extra, name.removeprefix(extra.prefix + ":")
    return None, name


def repository(name: str) -> tuple[str, Layout]:
    """The hub's name for a model's name, and the files of its checkpoint."""
    extra, rest = split_name(name)
    if extra is None:
        return rest, TRANSFORMERS
    return (rest if "/" in rest else extra.owner + rest), extra.layout


def import_extra(extra: Extra, *, name: str) -> Any:
    """Import an optional package."""
    try:
        return import_module(extra.prefix)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == extra.prefix
        why = "is not installed" if missing else f"cannot be imported ({str(error).splitlines()[0]})"
        raise PatchwordError(
            f"{name} needs the package {extra.prefix}, which {why}; install patchword[{extra.prefix}]"
        ) from None
