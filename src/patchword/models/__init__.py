"""The frozen foundation models behind three protocols; importing this package loads none of them, nor torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from patchword.models.registry import PRESETS, Preset

if TYPE_CHECKING:
    from patchword.models.loading import load_image_text, load_mask_proposer, load_patch_encoder
    from patchword.models.protocols import (
        ImageEmbedding,
        ImageTextEncoder,
        MaskGenerator,
        MaskProposals,
        ModelRecord,
        PatchEncoder,
    )

__all__ = [
    "PRESETS",
    "ImageEmbedding",
    "ImageTextEncoder",
    "MaskGenerator",
    "MaskProposals",
    "ModelRecord",
    "PatchEncoder",
    "Preset",
    "load_image_text",
    "load_mask_proposer",
    "load_patch_encoder",
]


def __getattr__(name: str) -> Any:
    """Import on first use: the loaders and the protocols need torch, which takes seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "patchword.models.loading" if name.startswith("load_") else "patchword.models.protocols"
    return getattr(import_module(home), name)
