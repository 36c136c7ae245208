"""Annotation files in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError


def read_json(path: Path, *, needs: Sequence[str]) -> dict[str, Any]:
    """Read an annotation file.

    Args:
        path: the file.
        needs: the lists that it must have.
    """
    try:
        record = json.loads(path.read_bytes())
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise PatchwordError(f"{path} is no JSON: {error}") from None
    missing = [name for name in needs if not isinstance(record, dict) or not isinstance(record.get(name), list)]
    if missing:
        raise PatchwordError(f"{path} has no list {missing[0]!r}; it needs {', '.join(needs)}")
    return dict(record)
