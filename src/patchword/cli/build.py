"""Commands made from their configs: options, help, config files, and errors that name what was typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from patchword.cli.terminal import parse_settings
from patchword.config.base import MAY_BE_EMPTY, SHORTER, Config, Settings, option_of, options_of
from patchword.config.command import read_file, to_yaml
from patchword.errors import PatchwordError

C = TypeVar("C", bound=Config)

_SET, _FILE, _PRINT = "set_", "config_file", "print_config"


def add_command(app: typer.Typer, kind: type[C], run: Callable[[Any, C], None]) -> None:
    """Add a command that reads its options, makes a config of them and hands over what it works on and that.

    Args:
        app: the group.
        kind: the config; its docstring is the help, its fields are the options.
        run: does the work and prints; its first argument is a path, or a list of them.
    """

    def command(**typed: Any) -> None:
        source, config = read_typed(kind, typed)
        if typed[_PRINT]:
            typer.echo(to_yaml(config, source=source), nl=False)
        else:
            with config.applied():
                run(source, config)

    parameters = list(parameters_of(kind))
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=a) for name, a in parameters]
    )
    command.__annotations__ = dict(parameters)
    examples = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in kind.EXAMPLES)
    app.command(kind.COMMAND.split()[-1], help=inspect.cleandoc(kind.__doc__ or ""), epilog=examples)(command)


def parameters_of(kind: type[Config]) -> Sequence[tuple[str, Any]]:
    """Name and annotation of everything that may be typed."""
    found: list[tuple[str, Any]] = []
    source = kind.SOURCE
    if source.name:
        text = list[str] | None if source.many else str | None
        found.append((source.name, Annotated[text, typer.Argument(metavar=source.metavar, help=source.help)]))
    for name, field in options_of(kind):
        option = option_of(field)
        if name in kind.PARTS:
            found += [each for each in _short_cuts(kind, name) if each[0] not in kind.model_fields]
        elif option.argument:
            found.append((name, Annotated[str | None, typer.Argument(metavar=option.metavar, help=option.help)]))
        elif option.cli:
            flags = [option.flag or _flag(name), *([option.short] if option.short else [])]
            typed = _parameter(field, *flags, metavar=option.metavar, help=_help(field), many=option.many)
            found.append((name, typed))
    for former, name in kind.FORMER.items():
        field = kind.model_fields[name]
        found.append((former, _parameter(field, _flag(former), metavar="NAME", help="", hidden=True)))
    found += [(name, Annotated[bool | None, typer.Option(_flag(name), hidden=True)]) for name in kind.FLAGS]
    if kind.PARTS:
        help_ = "A setting, such as margin=0.05; may be given several times."
        found.append((_SET, Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=help_)]))
    help_ = "Read options from a YAML file; those that are typed win."
    found.append((_FILE, Annotated[str | None, typer.Option("--config", metavar="FILE", help=help_)]))
    help_ = "Print the options as such a file, and stop."
    found.append((_PRINT, Annotated[bool | None, typer.Option("--print-config", help=help_)]))
    return found


def _short_cuts(kind: type[Config], part: str) -> Sequence[tuple[str, Any]]:
    found = []
    for name, metavar in kind.SHORT_CUTS.get(part, {}).items():
        field = kind.PARTS[part].model_fields[name]
        flags = (_flag(name), *SHORTER.get(name, ()))
        found.append((name, _parameter(field, *flags, metavar=metavar, help=_help(field))))
    return found


def _parameter(
    field: FieldInfo, *flags: str, metavar: str | None, help: str, hidden: bool = False, many: bool = False
) -> Any:
    """A flag, or an option of plain text: what it may be is checked by the config alone, and told in one line."""
    if field.annotation is bool:
        both = f"{flags[0]}/--no-{flags[0][2:]}" if field.default is True else flags[0]
        return Annotated[bool | None, typer.Option(both, *flags[1:], help=help, hidden=hidden)]
    choices = choices_of(field)
    shown = metavar or (f"[{'|'.join(choices)}]" if choices else "TEXT")
    completing = (lambda: list(choices)) if choices else None
    typed = list[str] | None if many else str | None
    return Annotated[typed, typer.Option(*flags, metavar=shown, help=help, hidden=hidden, autocompletion=completing)]


def choices_of(field: FieldInfo) -> list[str]:
    """The values of an option that has only some."""
    kinds = [field.annotation, *get_args(field.annotation)]
    return [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def _help(field: FieldInfo) -> str:
    option = next((each for each in field.metadata if hasattr(each, "help")), None)
    text = option.help if option else f"{(field.description or '').rstrip('.')}."
    if field.is_required():
        return f"{text} [required]"
    default = field.get_default(call_default_factory=True)
    return text if default in (None, False, True, "", ()) else f"{text} [default: {default}]"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def read_typed(kind: type[C], typed: Mapping[str, Any]) -> tuple[Any, C]:
    """What was typed, on top of what the file holds that was named: the source, and the config."""
    for name, value in typed.items():
        if (value == "" or (isinstance(value, list) and "" in value)) and name not in MAY_BE_EMPTY:
            raise PatchwordError(f"{_option(kind, name)} is empty; is a variable of the shell not set?")
    path = typed.get(_FILE)
    values = kind.current(read_file(Path(path), kind)) if path else {}
    source = values.pop(kind.SOURCE.name, None)
    source = typed.get(kind.SOURCE.name) or ([source] if kind.SOURCE.many and isinstance(source, str) else source)
    given = {name: value for name, value in typed.items() if value not in (None, []) and name in kind.model_fields}
    for former, name in kind.FORMER.items():
        if typed.get(former) is not None:
            given.setdefault(name, typed[former])
    for flag, (name, value) in kind.FLAGS.items():
        if typed.get(flag):
            given.setdefault(name, value)
    numbers = _numbers(kind, typed)
    values |= given
    for part, settings in numbers.items():
        values[part] = _merged(kind.PARTS[part], values.get(part) or {}, settings)
    if kind.SOURCE.required and not source:
        raise PatchwordError(
            f"{kind.COMMAND} needs {kind.SOURCE.metavar}: {kind.SOURCE.help[:1].lower()}{kind.SOURCE.help[1:]}"
        )
    lacking = [name for name, field in options_of(kind) if field.is_required() and name not in values]
    if lacking:
        raise PatchwordError(f"{kind.COMMAND} needs {' and '.join(_option(kind, name) for name in lacking)}")
    try:
        config = kind(**values)
    except PatchwordError as error:
        raise PatchwordError(_as_typed(str(error), kind)) from None
    return source, config


def _numbers(kind: type[Config], typed: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that were typed, by `--set` or as options of their own."""
    found: dict[str, dict[str, Any]] = {part: {} for part in kind.PARTS}
    if not found:
        return {}
    first = next(iter(found))
    for name, value in parse_settings(typed.get(_SET) or []).items():
        owner = next((part for part, settings in kind.PARTS.items() if name in settings.model_fields), first)
        found[owner][name] = value
    for part, names in kind.SHORT_CUTS.items():
        for name in names:
            value = typed.get(name)
            if value is None:
                continue
            if name in found[part]:
                raise PatchwordError(f"{_flag(name)} and --set {name}=... are both given; use one of them")
            texts = isinstance(value, str) and "str" in str(kind.PARTS[part].model_fields[name].annotation)
            found[part][name] = value if texts or not isinstance(value, str) else parse_settings([f"a={value}"])["a"]
    return {part: settings for part, settings in found.items() if settings}


def _merged(kind: type[Settings], before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    before, now = kind.current(before), kind.current(now)
    both = {
        name: {**before[name], **value} for name, value in now.items() if isinstance(value, dict) and name in before
    }
    return {**before, **now, **both}


def _option(kind: type[Config], name: str) -> str:
    if name == kind.SOURCE.name:
        return kind.SOURCE.metavar.strip("[].")
    if name not in kind.model_fields:
        return _flag(name)
    option = option_of(kind.model_fields[name])
    return str(option.metavar) if option.argument else option.flag or _flag(name)


def _as_typed(message: str, kind: type[Config]) -> str:
    """The message with options named as they are typed."""
    for name in sorted(kind.model_fields, key=len, reverse=True):
        message = message.replace(f"option {name!r}", _option(kind, name))
    return re.sub(r"^(\w+) is empty;", lambda found: f"{_option(kind, found[1])} is empty;", message)
