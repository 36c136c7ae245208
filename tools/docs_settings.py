"""A hook of mkdocs: a line `settings: module.Class` in a page becomes the table of that class's settings, and
`options: module.Class` that of a command's options."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from patchword.config.base import SHORTER, Config, Settings, option_of, options_of

_LINE = re.compile(r"^(settings|options): ([\w.]+)\.(\w+)$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables; mkdocs calls this for every page."""
    tables = {"settings": settings_table, "options": options_table}
    return _LINE.sub(lambda line: tables[line[1]](getattr(import_module(line[2]), line[3])), markdown)


def options_table(kind: type[Config]) -> str:
    """A Markdown table of a command's options: as Python and config files name them, and as they are typed."""
    lines = ["| option | command line | default | allowed | meaning |", "|---|---|---|---|---|"]
    source, above = kind.SOURCE, kind.__mro__[1]
    if source.name:
        needed = "required" if source.required else "none"
        lines.append(f"| `{source.name}` | `{source.metavar}` | {needed} | | {source.help} |")
    of_python = getattr(above, "model_fields", {}) if getattr(above, "COMMAND", "") == kind.COMMAND else {}
    for name, field in options_of(kind):
        option = option_of(field)
        named = f"`{name}`" if option.kept or name in of_python else ""
        typed = _typed(kind, name)
        default = "required" if field.is_required() else _shown(field.default)
        if named or typed:
            meaning = option.help.replace("|", "\\|")
            lines.append(f"| {named} | {typed} | {default} | {_allowed(field)} | {meaning} |")
    return "\n".join(lines)


def _typed(kind: type[Config], name: str) -> str:
    """How an option is typed; of one that holds settings those that have a flag of their own, too."""
    option = option_of(kind.model_fields[name])
    if option.argument or not option.cli:
        return f"`{option.metavar}`" if option.argument else ""
    flags = [option.flag or name]
    if name in kind.PARTS:
        typed = kind.SHORT_CUTS.get(name, {})
        flags = ["--set NAME=VALUE", *(flag for each in typed for flag in (each, *SHORTER.get(each, ())))]
    return ", ".join(f"`{flag if flag[0] == '-' else '--' + flag.replace('_', '-')}`" for flag in flags)


def settings_table(kind: type[Settings]) -> str:
    """A Markdown table of a class's settings; those that are settings themselves have a table of their own."""
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if not isinstance(default, Settings):
            meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
            lines.append(f"| `{name}` | {_shown(default)} | {_allowed(field)} | {meaning} |")
    return "\n".join(lines)


def _shown(value: object) -> str:
    return "none" if value in (None, "") else f"`{list(value) if isinstance(value, tuple) else value}`"


def _allowed(field: FieldInfo) -> str:
    """The choices, or the limits, that pydantic checks."""
    choices = [choice for part in (field.annotation, *get_args(field.annotation)) for choice in _choices(part)]
    limits = [
        f"{words} {getattr(limit, name)}"
        for limit in field.metadata
        for name, words in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if hasattr(limit, name)
    ]
    return ", ".join([*(f"`{choice}`" for choice in choices), *limits])


def _choices(annotation: object) -> tuple[object, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()
