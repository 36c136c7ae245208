"""`patchword suggest`: a class list from the photographs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from patchword.cli.terminal import command_line, exit_with_failures, print_columns, print_json, say_next
from patchword.config.suggest import SuggestCommand
from patchword.runs.progress import photograph_count

if TYPE_CHECKING:
    from patchword.suggestion.result import Suggestion


def suggest(photos: list[str], config: SuggestCommand) -> None:
    """Propose, and say what was written."""
    import patchword

    suggestion = patchword.suggest(photos, config=config.changed(command=command_line()))
    if config.as_json:
        print_json(suggestion.to_json())
    else:
        _print(suggestion, config)
        model = [] if config.image_text is None else ["--image-text", config.image_text]
        say_next("label", *photos, "--classes", config.out, *model, "-o", "labels")
    exit_with_failures(len(suggestion.failed), done="looked at", where=Path(config.out), reasons=suggestion.failed)


def _print(suggestion: Suggestion, config: SuggestCommand) -> None:
    from patchword.suggestion.result import percent

    rows = [
        (each.name, each.photographs, percent(each.photographs, of=suggestion.photographs), each.crops)
        for each in suggestion.classes
    ]
    print_columns([("class", "photographs", "share", "crops"), *rows])
    count = f"{len(rows)} class{'' if len(rows) == 1 else 'es'}"
    looked = f"{suggestion.photographs:,} of {photograph_count(suggestion.found)}"
    typer.echo(f"{config.out}: {count} proposed from {looked}; edit it before you label")
    if config.page is not None:
        typer.echo(f"{config.page}: examples of every class")
