"""Every command of docs/reproduce.md and docs/large.md is one that the command line understands, settings included."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from patchword.alignment.settings import AlignSettings
from patchword.cli.app import app
from patchword.cli.terminal import parse_settings
from patchword.config.base import Settings
from patchword.evaluation.benchmarks.registry import BENCHMARKS
from patchword.evaluation.protocols import PROTOCOLS
from patchword.evaluation.suite import SUITES
from patchword.labeling.settings import LabelSettings
from patchword.models.presets import PRESETS
from patchword.segmentation.settings import SegmentSettings

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ("reproduce.md", "large.md")
SETTINGS: dict[str, type[Settings]] = {
    "label": LabelSettings,
    "align": AlignSettings,
    "segment": SegmentSettings,
    "evaluate": SegmentSettings,
}
NAMES = {
    "benchmark": BENCHMARKS,
    "suite": SUITES,
    "protocol": PROTOCOLS,
    "preset": PRESETS,
    "method": ("sclip", "proxyclip"),
}


def commands(page: str) -> list[list[str]]:
    """The `patchword` commands of a page's blocks of code, without what a shell does with their output."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ")
    lines = [line.strip() for line in joined.splitlines()]
    typed = [shlex.split(line.partition(" > ")[0], comments=True) for line in lines if line.startswith("patchword ")]
    return [words[1:] for words in typed]


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that is meant, and its parameters by name; a usage error where they are not understood."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("patchword", list(words), resilient_parsing=True)
    name = words[0]
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        command = command.commands[name]
    return name, command.make_context(name, list(words), parent=context).params


@pytest.mark.parametrize(("page", "least"), [("reproduce.md", 15), ("large.md", 1)])
def test_every_command_is_understood(page: str, least: int) -> None:
    found = commands(page)
    assert len(found) >= least
    for words in found:
        name, parameters = parse(words)
        for option, known in NAMES.items():
            value = parameters.get(option)
            assert value is None or value in known, words
        numbers = parse_settings(parameters.get("settings") or [])
        if numbers:
            SETTINGS[name](**numbers)


def test_a_command_that_is_not_understood_is_found() -> None:
    with pytest.raises(Exception, match=r"No such option.*--nothing"):
        parse(["label", "photos", "--classes", "a", "-o", "b", "--nothing"])
