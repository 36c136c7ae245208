"""`patchword push`: a finished folder up to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Model of `align`, or labels of `label`.")],
    name: Annotated[str, typer.Argument(metavar="USER/NAME", help="Repository on the hub, made when it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    revision: Annotated[str | None, typer.Option(metavar="BRANCH", help="Branch; by default the main one.")] = None,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Of the commit.")] = "Made by patchword",
) -> None:
    """A model or labels up to the hub, without photographs."""
    from patchword.export.publish import push_folder

    typer.echo(push_folder(folder, name=name, private=private, revision=revision, message=message))
