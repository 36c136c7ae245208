"""What all settings have in common: they never change, and a wrong value is one clear line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

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
            parts.append(f"{place} {name!r} is unknown" + (f" (choose from {', '.join(allowed)})" if allowed else ""))
        elif detail["type"] == "missing":
            parts.append(f"{place} {name!r} is missing")
        elif detail["type"] == "value_error":
            parts.append(str(detail["ctx"]["error"]))
        else:
            parts.append(f"{place} {name!r} is {detail['input']!r}; {detail['msg'][:1].lower()}{detail['msg'][1:]}")
    return "; ".join(parts)
