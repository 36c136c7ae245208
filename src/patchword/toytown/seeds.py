"""Which scenes belong to which use: every purpose owns a range of seeds that no other purpose can reach."""

from __future__ import annotations

from patchword.errors import PatchwordError

RANGE = 10_000_000
PURPOSES = (
    "train-clip",
    "train-dino",
    "train-sam",
    "validate",
    "probe",
    "label",
    "evaluate-seen",
    "evaluate-style",
    "test",
)


def scene_seed(purpose: str, *, index: int) -> int:
    """Give the seed of the index-th scene of a purpose.

    Args:
        purpose: one of `PURPOSES`.
        index: 0 <= index < `RANGE`; beyond that the ranges would overlap.

    Returns:
        the seed; two purposes never share one.
    """
    if purpose not in PURPOSES:
        raise PatchwordError(f"Toytown has no scenes for {purpose!r} (choose from {', '.join(PURPOSES)})")
    if not 0 <= index < RANGE:
        raise PatchwordError(f"scene index {index} of {purpose!r}; choose 0 to {RANGE - 1}")
    return PURPOSES.index(purpose) * RANGE + index
