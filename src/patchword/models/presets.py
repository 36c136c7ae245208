"""Named choices of the three foundation models."""

from __future__ import annotations

from dataclasses import dataclass

from patchword.errors import PatchwordError


@dataclass(frozen=True)
class Preset:
    """Hub names of the three models of a run."""

    image_text: str
    mask_proposer: str
    patch_encoder: str

    @property
    def names(self) -> tuple[str, str, str]:
        """The three hub names, in the order in which a run needs them."""
        return self.image_text, self.mask_proposer, self.patch_encoder


PRESETS: dict[str, Preset] = {
    "fast": Preset(
        image_text="openai/clip-vit-base-patch16",
        mask_proposer="facebook/sam2.1-hiera-tiny",
        patch_encoder="facebook/dinov2-small",
    ),
    "balanced": Preset(
        image_text="openai/clip-vit-base-patch16",
        mask_proposer="facebook/sam2.1-hiera-base-plus",
        patch_encoder="facebook/dinov2-with-registers-base",
    ),
    "thorough": Preset(
        image_text="openai/clip-vit-large-patch14-336",
        mask_proposer="facebook/sam-vit-huge",
        patch_encoder="facebook/dinov2-with-registers-large",
    ),
}


def find_preset(name: str) -> Preset:
    """The preset of that name."""
    if name not in PRESETS:
        raise PatchwordError(f"preset {name!r} is unknown (choose from {', '.join(PRESETS)})")
    return PRESETS[name]
