"""`patchword serve`: the pages and the API, until it is told to stop."""

from __future__ import annotations

import os

from patchword.config.serve import ServeConfig


def serve(_: None, config: ServeConfig) -> None:
    """Serve until a signal comes."""
    from patchword.serving.server import serve as run

    token = config.token or os.environ.get("PATCHWORD_TOKEN") or None
    run(config.changed(token=token))
