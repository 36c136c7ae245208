"""`patchword methods`: the training-free methods to compare with."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from patchword.cli.terminal import print_columns, print_json, say

if TYPE_CHECKING:
    from patchword.segmentation.methods import Method


def methods(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Training-free methods to compare with."""
    from patchword.segmentation.methods import METHODS

    if as_json:
        print_json([_as_json(method) for method in METHODS.values()])
        return
    rows = [
        (method.name, "CLIP and a vision encoder" if method.needs_encoder else "CLIP", method.paper, method.description)
        for method in METHODS.values()
    ]
    print_columns([("name", "needs", "paper", "what it does"), *rows])
    say("run one: patchword segment photos/ --method NAME --image-text CLIP --classes ... -o out/; docs/baselines.md")


def _as_json(method: Method) -> dict[str, Any]:
    published = {name: settings.model_dump(exclude_defaults=True) for name, settings in method.published.items()}
    return {**asdict(method), "published": published}
