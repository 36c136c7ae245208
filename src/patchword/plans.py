"""What a run would do, found out without loading a model or writing a file: `--dry-run`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.inputs import Classes, align_settings, choose_images, label_settings, open_labels, read_vocabulary
from patchword.models.presets import find_preset
from patchword.parts import ModelName, whereabouts


@dataclass(frozen=True)
class Plan:
    """A run that has not begun.

    Attributes:
        counts: what goes in, by name.
        models: role -> name and where its weights are.
        output: the folder and what would become of what is in it.
        settings: every number of the stage.
    """

    counts: dict[str, int]
    models: dict[str, str]
    output: str
    settings: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        return {"counts": self.counts, "models": self.models, "output": self.output, "settings": self.settings}

    def rows(self) -> list[tuple[str, object]]:
        """The same for a person: name and value."""
        settings = [(f"setting {name}", value) for name, value in self.settings.items()]
        return [*self.counts.items(), *self.models.items(), ("output", self.output), *settings]


def plan_label(
    photos: str | Path,
    *,
    classes: Classes,
    out: str | Path,
    preset: str = "balanced",
    image_text: str | Path | None = None,
    mask_proposer: str | Path | None = None,
    encoder: str | Path | None = None,
    background: Sequence[str] | None = None,
    generator: str | None = None,
    settings: Mapping[str, Any] | None = None,
    limit: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """What `label` would do with the same arguments; see there.

    Raises:
        PatchwordError: for all that `label` would refuse before it loads a model.
    """
    images = choose_images(photos, out=out, limit=limit)
    vocabulary = read_vocabulary(classes, background=background)
    names = find_preset(preset)
    chosen = label_settings(settings, preset=preset, generator=generator)
    counts = {"photographs": len(images), "classes": len(vocabulary), "background words": len(vocabulary.background)}
    models = {"image-text": image_text or names.image_text, "mask proposer": mask_proposer or names.mask_proposer}
    if chosen.needs_encoder:
        models["vision encoder"] = encoder or names.patch_encoder
    return Plan(counts, _describe(models), _output(out, resume, overwrite), chosen.model_dump(mode="json"))


def plan_align(
    labels: str | Path,
    *,
    out: str | Path,
    preset: str = "balanced",
    encoder: str | Path | None = None,
    text_encoder: str | Path | None = None,
    photos: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """What `align` would do with the same arguments; see there.

    Raises:
        PatchwordError: for all that `align` would refuse before it loads a model.
    """
    from patchword.align.schedule import total_steps

    dataset, labelled_by = open_labels(labels, photos=photos)
    chosen = align_settings(settings)
    counts = {
        "photographs": len(dataset.items),
        "classes": len(dataset.vocabulary),
        "steps at most": total_steps(len(dataset.items), settings=chosen),
    }
    models = {
        "vision encoder": encoder or find_preset(preset).patch_encoder,
        "text encoder": text_encoder or labelled_by or "",
    }
    return Plan(counts, _describe(models), _output(out, resume, overwrite), chosen.model_dump(mode="json"))


def _describe(models: Mapping[str, str | Path | ModelName]) -> dict[str, str]:
    named = {role: part if isinstance(part, ModelName) else ModelName.parse(part) for role, part in models.items()}
    return {role: f"{model} ({whereabouts(model)})" for role, model in named.items()}


def _output(out: str | Path, resume: bool, overwrite: bool) -> str:
    folder = Path(out)
    if resume and overwrite:
        raise PatchwordError("both resume and overwrite are set; allowed is one of them")
    if folder.exists() and not folder.is_dir():
        raise PatchwordError(f"{folder} is a file; the output must be a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return f"{folder} (new)"
    if resume:
        return f"{folder} (gone on with)"
    return f"{folder} (emptied first)" if overwrite else f"{folder} (in use: pass --resume or --overwrite)"
