"""Stand-ins for the models are those of the labelling's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "labeling"))
