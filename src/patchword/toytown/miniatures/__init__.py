"""Where the miniature models that come with the package are."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent
CLIP = FOLDER / "clip"
DINO = FOLDER / "dino"
SAM = FOLDER / "sam"
SEGMENTER = FOLDER / "segmenter"
