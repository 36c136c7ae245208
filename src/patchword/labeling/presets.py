"""Named choices of the numbers of stage 1, under the names of the choices of models (models/presets.py)."""

from __future__ import annotations

from patchword.labeling.settings import LabelSettings
from patchword.models.presets import find_preset

LABEL_PRESETS: dict[str, LabelSettings] = {
    # A first look, or more photographs than time: 10 crops instead of 35, and no masks of everything.
    "fast": LabelSettings(generator="clip-prompts-sam", grids=(1, 2)),
    # The method as it is described.
    "balanced": LabelSettings(),
    # Small things in large photographs: 84 crops, twice the points, and masks of everything on parts as well.
    "thorough": LabelSettings(
        grids=(1, 2, 3, 4), peaks=6, seed_budget=256, seed_clusters=128, seed_rest=64, proposal_grids=(1, 2)
    ),
}


def label_preset(name: str) -> LabelSettings:
    """The settings of the preset of that name."""
    find_preset(name)
    return LABEL_PRESETS[name]
