"""What settings, and the configs of commands, have in common: they never change, and a wrong value is one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from patchword.errors import PatchwordError


class Settings(BaseModel):
    """Numbers of a stage that a person may want to change."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    FORMER: ClassVar[Mapping[str, str]] = {}
    """Names of earlier versions -> names. Files keep the former ones, so that earlier versions still read them."""

    if not TYPE_CHECKING:  # type checkers know each setting's own type, which this signature would hide

        def __init__(self, **values: Any) -> None:
            values = self.current(values)
            for name, part in _parts(type(self)).items():  # each by itself, so that a complaint says of which
                if isinstance(values.get(name), Mapping):
                    values[name] = _read_part(part, values[name], name=name)
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise PatchwordError(one_line(error, place="setting", allowed=tuple(type(self).model_fields))) from None

    @classmethod
    def of(cls, settings: Self | Mapping[str, Any] | None) -> Self:
        """Settings from what a caller may pass: all of them, those that differ from the defaults by name, or none."""
        return settings if isinstance(settings, cls) else cls(**cast("Mapping[str, Any]", settings or {}))

    @classmethod
    def current(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by the names that they have now; files of earlier versions, and habits, have others."""
        found = dict(values)
        for former, name in cls.FORMER.items():
            if former in found:
                if name in found:
                    raise PatchwordError(f"setting {former!r} is now called {name!r}; use only one of them")
                found[name] = found.pop(former)
        for name, part in _parts(cls).items():
            if isinstance(found.get(name), Mapping):
                found[name] = part.current(found[name])
        return found

    def recorded(self) -> dict[str, Any]:
        """As files hold them: plain values under the names that earlier versions know."""
        former = {name: former for former, name in self.FORMER.items()}
        parts = {name: getattr(self, name).recorded() for name in _parts(type(self))}
        values = self.model_dump(mode="json") | parts
        return {former.get(name, name): value for name, value in values.items()}


SHORTER = {"batch_size": ("--batch",), "learning_rate": ("--lr",)}
"""Settings -> further flags, as other libraries call them."""


@dataclass(frozen=True)
class Option:
    """What a person reads of an option, and how it is typed.

    Attributes:
        help: one or two sentences.
        metavar: what stands for the value; by default the choices, or TEXT.
        flag: on the command line, where it is not the name of the field.
        short: one letter more for it.
        argument: whether it is typed without a flag, after the source.
        cli: whether the command line has it.
        kept: whether a config file has it.
        many: whether it may be typed several times.
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    short: str | None = None
    argument: bool = False
    cli: bool = True
    kept: bool = True
    many: bool = False


@dataclass(frozen=True)
class Source:
    """The first argument of a command: what it works on."""

    name: str
    metavar: str
    help: str
    required: bool = True
    many: bool = False


class Config(Settings):
    """All options of a command. The command line, the Python function and the reference are made from it."""

    COMMAND: ClassVar[str]
    SOURCE: ClassVar[Source]
    EXAMPLES: ClassVar[tuple[str, ...]] = ()
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {}
    """Options that hold numbers by name -> their settings; `--set` reaches all of them."""
    SHORT_CUTS: ClassVar[Mapping[str, Mapping[str, str | None]]] = {}
    """Of those options, the settings that are options of the command line too, with their metavar."""
    FLAGS: ClassVar[Mapping[str, tuple[str, str]]] = {}
    """Hidden flags by the names that other libraries have -> the option and the value that they stand for."""

    if not TYPE_CHECKING:

        def __init__(self, **values: Any) -> None:
            values = self.current(values)
            unknown = next((name for name in values if name not in type(self).model_fields), None)
            if unknown is not None:
                raise PatchwordError(unknown_name("option", unknown, allowed=tuple(dict(options_of(type(self))))))
            lacking = [name for name, field in options_of(type(self)) if field.is_required() and name not in values]
            if lacking:
                raise PatchwordError(f"{self.COMMAND} needs {' and '.join(lacking)}")
            empty = next((name for name, value in values.items() if value == "" and name not in MAY_BE_EMPTY), None)
            if empty is not None:
                raise PatchwordError(f"{empty} is empty; pass a value, or leave it out")
            try:
                BaseModel.__init__(self, **values)
            except ValidationError as error:
                raise PatchwordError(one_line(error, place="option")) from None
            self.check()

    def applied(self) -> AbstractContextManager[None]:
        """What holds in the whole process while the command runs."""
        return nullcontext()

    def check(self) -> None:
        """Refuse values that do not go together."""

    def numbers_of(self, part: str) -> Settings:
        """The settings that an option holds, read and checked."""
        return self.PARTS[part].of(getattr(self, part))

    def written(self, part: str) -> object:
        """What a config file holds of such an option: all numbers, as they would be."""
        return self.numbers_of(part)

    @classmethod
    def type_of(cls, name: str) -> str:
        """The type of an option as it is written in the source; objects that pass are named there only."""
        written = next(found[name] for each in cls.__mro__ if name in (found := get_annotations(each)))
        whole = re.match(r"Annotated\[(.*?), (?:Field|Option|BeforeValidator)\(", str(written))
        return whole[1] if whole else str(written)

    def changed(self, **values: Any) -> Self:
        """The same with other values."""
        return self.model_copy(update=values)


MAY_BE_EMPTY = ("background", "mask_suffix", "command", "message")  # no words; no suffix


def options_of(kind: type[Config]) -> Iterator[tuple[str, FieldInfo]]:
    """The options of a command in the order of its help: its own first, then those that it shares."""
    named = (name for each in kind.__mro__ for name in get_annotations(each))
    fields = {name: kind.model_fields[name] for name in named if name in kind.model_fields}
    yield from sorted(fields.items(), key=lambda each: not option_of(each[1]).kept)  # last what is of one run alone


def option_of(field: FieldInfo) -> Option:
    """What a person reads of a field."""
    return next(each for each in field.metadata if isinstance(each, Option))


def _parts(kind: type[Settings]) -> dict[str, type[Settings]]:
    """The settings that are settings themselves."""
    annotations = {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: part for name, part in annotations.items() if isinstance(part, type) and issubclass(part, Settings)}


def _read_part(part: type[Settings], values: Mapping[str, Any], *, name: str) -> Settings:
    try:
        return part(**values)
    except PatchwordError as error:
        raise PatchwordError(f"{name}: {error}") from None


def one_line(error: ValidationError, *, place: str, allowed: tuple[str, ...] = ()) -> str:
    """Say in one line which values a record does not take, and what is allowed.

    Args:
        error: of the record's validation.
        place: what the values are, such as "setting" or "field".
        allowed: the names that there are, told when one is unknown.
    """
    parts = []
    for detail in error.errors():
        name = ".".join(str(step) for step in detail["loc"])
        if detail["type"] == "extra_forbidden":
            parts.append(unknown_name(place, name, allowed=allowed))
        elif detail["type"] == "missing":
            parts.append(f"{place} {name!r} is missing")
        elif detail["type"] == "value_error":
            parts.append(str(detail["ctx"]["error"]))
        else:
            parts.append(f"{place} {name!r} is {detail['input']!r}; {_wanted(detail['type'], detail)}")
    return "; ".join(parts)


def unknown_name(place: str, name: str, *, allowed: Sequence[str]) -> str:
    """Say in one line that there is no such name, which one is like it, and which there are."""
    alike = difflib.get_close_matches(name, allowed, n=1)
    meant = f"; did you mean {alike[0]!r}?" if alike else ""
    return f"{place} {name!r} is unknown{meant}" + (f" (choose from {', '.join(allowed)})" if allowed else "")


_WANTED = {
    "greater_than_equal": "it must be at least {ge}",
    "greater_than": "it must be above {gt}",
    "less_than_equal": "it must be at most {le}",
    "less_than": "it must be below {lt}",
    "finite_number": "it must be a finite number",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "it must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "it must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "it must be true or false"),
    "string_type": "it must be text",
    **dict.fromkeys(("tuple_type", "list_type"), "it must be a list, such as [1, 2]"),
}


def _wanted(kind: str, detail: Mapping[str, Any]) -> str:
    """What a value should have been, by the type of its error; pydantic's own words for rare ones."""
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
        if choices:
            return f"choose from {', '.join(choices)}"
    if kind in _WANTED:
        return _WANTED[kind].format(**detail.get("ctx", {}))
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}"
