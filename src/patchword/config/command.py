"""From a config to the keyword arguments of a Python function, and to a file and back."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from patchword.config.base import Config, Settings, option_of, options_of, unknown_name
from patchword.errors import PatchwordError

P = ParamSpec("P")
AnyConfig = TypeVar("AnyConfig", bound=Config)
S = TypeVar("S")
R = TypeVar("R")
C_contra = TypeVar("C_contra", bound=Config, contravariant=True)
S_contra = TypeVar("S_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class Command(Protocol[S_contra, C_contra, P, R_co]):
    """A public function: its options are keyword arguments, or come as one config."""

    @overload
    def __call__(self, source: S_contra, /, *args: P.args, **options: P.kwargs) -> R_co: ...
    @overload
    def __call__(self, source: S_contra, /, *, config: C_contra) -> R_co: ...


def command(kind: Callable[P, AnyConfig]) -> Decorator[AnyConfig, P]:
    """Make `function(source, config)` a function whose keyword arguments are the fields of the config."""
    return cast("Decorator[AnyConfig, P]", lambda function: _public(function, cast("type[Config]", kind)))


class Decorator(Protocol[AnyConfig, P]):
    """What `command` gives."""

    def __call__(self, function: Callable[[S, AnyConfig], R], /) -> Command[S, AnyConfig, P, R]: ...


def _public(function: Callable[[Any, Any], Any], kind: type[Config]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not args and kind.SOURCE.name in options:
            args = (options.pop(kind.SOURCE.name),)
        if len(args) != 1:
            raise TypeError(f"{function.__name__}() takes {kind.SOURCE.name} and keyword arguments")
        if args[0] == "":
            raise PatchwordError(f"{kind.SOURCE.name} is empty; pass a path")
        config = options.pop("config", None)
        if config is not None and (options or not isinstance(config, kind)):
            raise PatchwordError(f"config must be a {kind.__name__}, without other options beside it")
        config = kind(**options) if config is None else config
        with config.applied():
            return function(args[0], config)

    first = inspect.Parameter(
        kind.SOURCE.name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        annotation=function.__annotations__.get(next(iter(inspect.signature(function).parameters))),
    )
    rest = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else field.default,
            annotation=kind.type_of(name),
        )
        for name, field in options_of(kind)
    ]
    result = function.__annotations__.get("return")
    call.__signature__ = inspect.Signature([first, *rest], return_annotation=result)  # type: ignore[attr-defined]
    call.__doc__ = docstring(function.__doc__ or "", kind)
    return call


def docstring(text: str, kind: type[Config]) -> str:
    """A function's docstring with its arguments, as the config describes them, before what it returns."""
    before, returns, after = inspect.cleandoc(text).partition("\nReturns:")
    lines = [f"    {kind.SOURCE.name}: {kind.SOURCE.help}"]
    lines += [f"    {name}: {option_of(field).help}" for name, field in options_of(kind)]
    arguments = "\n".join(["Args:", *lines])
    return f"{before.rstrip()}\n\n{arguments}\n" + (f"\n{returns.strip()}{after}\n" if returns else "")


def to_yaml(config: Config, *, source: object) -> str:
    """A config as a file that `read_file` reads: the source, and all options that have a value."""
    import yaml

    (source,) = source if isinstance(source, list) and len(source) == 1 else (source,)
    values: dict[str, Any] = {config.SOURCE.name: _plain(source)} if source not in (None, [], ()) else {}
    for name, field in options_of(type(config)):
        value = getattr(config, name)
        if not option_of(field).kept or (value is None and name not in config.PARTS):
            continue
        values[name] = _plain(config.written(name) if name in config.PARTS else value, name)
    head = f"# patchword {config.COMMAND} --config FILE\n"
    dumper: Any = type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda self, data: True})
    dumper.add_representer(list, lambda self, data: self.represent_sequence("tag:yaml.org,2002:seq", data, True))
    text: str = yaml.dump(
        values, Dumper=dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120
    )
    return head + text


def _plain(value: object, name: str = "") -> Any:
    if isinstance(value, Settings):
        return value.model_dump(mode="json")
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, name) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise PatchwordError(f"{name} is an object in memory, which a file cannot hold; pass a name or a path")


def read_file(path: Path, kind: type[Config]) -> dict[str, Any]:
    """The options that a YAML (or JSON) file holds, under the names of the config; the source is among them."""
    import yaml

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except FileNotFoundError:
        raise PatchwordError(f"--config {path} does not exist") from None
    except OSError as error:
        raise PatchwordError(f"cannot read --config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        place = f"{path}, line {where.line + 1}" if where else str(path)
        raise PatchwordError(f"{place}: this is not YAML ({getattr(error, 'problem', None) or error})") from None
    if not isinstance(values, dict):
        raise PatchwordError(f"{path} must hold options, a line each, such as `out: labels/`")
    source = [kind.SOURCE.name] if kind.SOURCE.name else []
    allowed = [*source, *(name for name, field in options_of(kind) if option_of(field).kept)]
    unknown = next((name for name in values if name not in (*allowed, *kind.FORMER)), None)
    if unknown is not None:
        raise PatchwordError(f"{path}: {unknown_name('option', str(unknown), allowed=allowed)}")
    return values


def _loader() -> Any:
    """YAML 1.2's plain values: `off`, `no` and dates are text, 1e-4 is a number."""
    import yaml

    loader: Any = type("Loader", (yaml.SafeLoader,), {"yaml_implicit_resolvers": {}})
    for tag, pattern, first in (
        ("bool", r"(true|True|false|False)", "tTfF"),
        ("null", r"(null|Null|~|)", "nN~\0"),
        ("int", r"[-+]?[0-9]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ):
        letters = ["" if letter == "\0" else letter for letter in first]
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), letters)
    return loader
