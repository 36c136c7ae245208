"""What a job may be asked for: the options of its command, whose paths lie inside the root folder and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from patchword.config.align import AlignConfig
from patchword.config.base import Config
from patchword.config.command import to_yaml
from patchword.config.evaluate import EvaluateConfig
from patchword.config.label import LabelConfig
from patchword.data.vocabulary_words import split_commas
from patchword.errors import PatchwordError
from patchword.models.registry import checkpoint_of


@dataclass(frozen=True)
class JobKind:
    """A command that jobs run.

    Attributes:
        config: of its options.
        read: options that name a file or folder that is there.
        models: options that name a published checkpoint, or a folder that is there.
        plain: options that name no path.
    """

    config: type[Config]
    read: tuple[str, ...]
    models: tuple[str, ...]
    plain: tuple[str, ...]

    @property
    def allowed(self) -> tuple[str, ...]:
        return (*self.read, "out", *self.models, *self.plain)


KINDS: dict[str, JobKind] = {
    "label": JobKind(
        LabelConfig,
        read=("photos",),
        models=("image_text", "mask_generator", "encoder"),
        plain=("classes", "background", "preset", "generator", "limit", "device", "dtype", "settings"),
    ),
    "align": JobKind(
        AlignConfig,
        read=("labels", "photos"),
        models=("encoder", "text_encoder"),
        plain=("preset", "reviews", "device", "dtype", "settings"),
    ),
    "evaluate": JobKind(
        EvaluateConfig,
        read=("photos", "masks", "model", "predictions"),
        models=("image_text", "encoder", "text_encoder", "mask_generator"),
        plain=(
            *("classes", "background", "method", "predictions_are", "zero_is", "ignore_index", "mask_suffix", "limit"),
            *("device", "dtype", "settings", "scoring"),
        ),
    ),
}


def config_text(command: str, options: Mapping[str, Any], *, root: Path, resume: bool = False) -> str:
    """The file that `patchword COMMAND --config` reads, after every option was checked.

    Args:
        command: one of `KINDS`.
        options: as a client gave them; paths are relative to the root.
        root: the only folder that is read and written in.
        resume: go on with what an earlier try has left.
    """
    kind = KINDS.get(command)
    if kind is None:
        raise PatchwordError(f"there are no jobs of {command!r}; choose from {', '.join(KINDS)}")
    unknown = next((name for name in options if name not in kind.allowed), None)
    if unknown is not None:
        raise PatchwordError(f"option {unknown!r} is not for {command} jobs (choose from {', '.join(kind.allowed)})")
    lacking = next((name for name in (kind.config.SOURCE.name, "out") if not options.get(name)), None)
    if lacking is not None:
        raise PatchwordError(f"a job of {command} needs {lacking}")
    values = {name: value for name, value in options.items() if value is not None}
    for name in kind.read:
        if name in values:
            values[name] = str(inside(values[name], root=root, option=name, there=True))
    for name in kind.models:
        if name in values:
            values[name] = _model(values[name], root=root, option=name)
    values["out"] = str(inside(values["out"], root=root, option="out"))
    if "classes" in values:
        values["classes"] = _classes(values["classes"], root=root)
    if command == "align" and (values.get("settings") or {}).get("tracker", "off") != "off":
        raise PatchwordError("setting 'tracker' is not for jobs; their progress is shown here")
    source = values.pop(kind.config.SOURCE.name)
    values["resume"] = resume
    return to_yaml(kind.config(**values), source=source)


def inside(value: object, *, root: Path, option: str, there: bool = False) -> Path:
    """A path below the root, links followed; every way out of it is refused.

    Args:
        value: relative to the root, with forward slashes.
        root: a folder without links on its way.
        option: what names it, for errors.
        there: whether it has to be there.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise PatchwordError(f"{option} must be the name of a file or folder inside the root folder")
    parts = PurePosixPath(value).parts
    if PurePosixPath(value).is_absolute() or PureWindowsPath(value).anchor or ".." in parts or value.startswith("~"):
        raise PatchwordError(f"{option} {value!r} must be relative to the root folder, without '..'")
    if set(value) & set("*?["):
        raise PatchwordError(f"{option} {value!r} is a pattern; name a file or folder")
    if any(part.startswith(".patchword") for part in parts):
        raise PatchwordError(f"{option} {value!r} belongs to patchword itself")
    try:
        path = (root / value).resolve()
    except (OSError, RuntimeError, UnicodeError):
        raise PatchwordError(f"{option} {value!r} cannot be followed") from None
    if not path.is_relative_to(root) or path == root:
        raise PatchwordError(f"{option} {value!r} leads out of the root folder")
    if there and not path.exists():
        raise PatchwordError(f"{option} {value!r} is not in the root folder")
    return path


def _model(value: object, *, root: Path, option: str) -> str:
    if isinstance(value, str) and checkpoint_of(value) is not None and not (root / value).exists():
        return value
    try:
        return str(inside(value, root=root, option=option, there=True))
    except PatchwordError as error:
        raise PatchwordError(f"{error}; or name a checkpoint that `patchword models list` lists") from None


def _classes(value: object, *, root: Path) -> str | list[str]:
    """Names, never a path that is opened: a string is a file of the root, or names between commas."""
    if isinstance(value, str):
        try:
            return str(inside(value, root=root, option="classes", there=True))
        except PatchwordError:
            value = [name.strip() for line in value.splitlines() for name in split_commas(line) if name.strip()]
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise PatchwordError("classes must be names, or the name of a class list inside the root folder")
    return value
