"""A labelling interface of Label Studio: its XML is read without entities, and what of it takes masks is kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NoReturn
from xml.parsers import expat

from patchword.errors import PatchwordError
from patchword.serving.limits import RefusedError

_MOST_BYTES = 2**18
_CONTROLS = ("brushlabels", "polygonlabels")
"""Controls that take masks; the first that an interface has gets what a model finds."""


@dataclass(frozen=True)
class Control:
    """A control whose regions are masks.

    Attributes:
        kind: "brushlabels" or "polygonlabels".
        name: of the control.
        image: name of the picture that it is for.
        labels: its classes, in their order.
    """

    kind: str
    name: str
    image: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interface:
    """What masks can be drawn with.

    Attributes:
        fields: picture -> the field of a task's data that has its address.
        controls: brushes first.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[Control, ...] = ()

    def first(self) -> Control:
        """The control that what a model finds is for."""
        if not self.controls:
            raise PatchwordError(
                "the labelling interface has no BrushLabels or PolygonLabels, with labels, for an Image"
            )
        return self.controls[0]

    def having(self, label: str, *, image: str | None) -> Control:
        """The control that has a label, for that picture or for any."""
        for control in self.controls:
            if label in control.labels and image in (None, control.image):
                return control
        raise PatchwordError(f"no BrushLabels or PolygonLabels of the labelling interface has the label {label!r}")

    def address(self, data: object, control: Control) -> str:
        """Where a task's picture is."""
        name = self.fields[control.image]
        found = data.get(name) if isinstance(data, Mapping) else None
        if not isinstance(found, str) or not found:
            raise PatchwordError(f"the task's data has no address of a picture as {name!r}")
        return found


def read_interface(text: str) -> Interface:
    """Read an interface; document types, entities and documents of more than 256 KB are refused."""
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise PatchwordError("the labelling interface is not text") from None
    if len(data) > _MOST_BYTES:
        reason = f"the labelling interface has {len(data):,} bytes; {_MOST_BYTES:,} is the limit"
        raise RefusedError(413, reason, kind="size")
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        raise PatchwordError(f"the labelling interface is not XML: {error}") from None
    controls = [
        control
        for control in reader.controls
        if control.labels and control.image in reader.fields and control.name and control.kind in _CONTROLS
    ]
    return Interface(reader.fields, tuple(sorted(controls, key=lambda each: _CONTROLS.index(each.kind))))


class _Reader:
    """Keeps pictures and controls while the document is read; tags are known in any case, as Label Studio's are."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.controls: list[Control] = []
        self._open: list[bool] = []  # of each open tag, whether it is the last control
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = lambda _: self._open.pop()
        self.parser.StartDoctypeDeclHandler = _refuse
        self.parser.EntityDeclHandler = _refuse

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        kind, name = tag.lower(), attributes.get("name", "")
        value = attributes.get("value", "")
        if kind == "image" and name and value.startswith("$"):
            self.fields[name] = value[1:]
        elif kind in _CONTROLS:
            self.controls.append(Control(kind, name, attributes.get("toName", "")))
        elif kind == "label" and value and any(self._open):
            last = self.controls[-1]
            self.controls[-1] = replace(last, labels=(*last.labels, value))
        self._open.append(kind in _CONTROLS)


def _refuse(*_: object) -> NoReturn:
    raise PatchwordError("the labelling interface declares a document type or entities, which are refused")
