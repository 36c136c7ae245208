"""Small records that several files of this room pass to each other."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class StepRecord(BaseModel):
    """One line of a training's history: the means over the steps since the line before.

    Attributes:
        step: how many steps were done.
        learning_rate: of the last of them.
        temperature: of the patch-text term, after it.
        total, patch_patch, text_anchor, patch_anchor: the loss and its terms before their weights; 0 for a term that is
            off.
        held_out: agreement with the labels that are held out, in [0, 1]; None when it was not measured there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    learning_rate: float
    temperature: float
    total: float
    patch_patch: float
    text_anchor: float
    patch_anchor: float
    held_out: float | None = None
