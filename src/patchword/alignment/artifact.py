"""The result of an alignment on disk: `model.safetensors`, `config.json` and `README.md` in one folder.

The weights are those of the alignment module only. The frozen models are named with the fingerprint of their weights; a
name that is a local folder is written as an absolute path, and whoever loads the artifact may say where the folder is
now.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from patchword.config.align import EARLIER_VALUES, AlignSettings, ModuleKind
from patchword.config.base import one_line
from patchword.data.folders import check_version, expand_home, write_bytes, write_json, write_text
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.protocols import ModelRecord
from patchword.models.registry import ModelName

if TYPE_CHECKING:
    from patchword.alignment.module import AlignmentModule

MARKER = "model"
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


FORMAT: Literal["patchword-segmenter"] = "patchword-segmenter"
VERSION: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tower(_Record):
    """A frozen model: where its weights came from, and which they are."""

    family: str
    name: str
    revision: str | None
    fingerprint: str
    dim: int = Field(ge=1)
    patch_size: int = Field(ge=1)
    licence: str

    @classmethod
    def of(cls, record: ModelRecord) -> Self:
        """Describe a loaded model; a local folder becomes an absolute path."""
        name = str(expand_home(record.name).resolve()) if expand_home(record.name).is_dir() else record.name
        return cls(
            family=record.family,
            name=name,
            revision=record.revision,
            fingerprint=record.fingerprint,
            dim=record.dim,
            patch_size=record.patch_size,
            licence=record.licence,
        )

    def trained_name(self) -> ModelName:
        """Where it was in training; a local folder has no revision."""
        return ModelName(self.name, None if Path(self.name).is_absolute() else self.revision)

    def missing(self, error: PatchwordError, *, option: str, place: str | Path) -> PatchwordError:
        """The error of a segmenter in `place` that does not find this model, with the option that says where it is."""
        told = f"--{option.replace('_', '-')} ({option}=)"
        return PatchwordError(f"{place} needs {self.name}: {error}; if it is elsewhere now, pass {told}")

    def identity(self) -> dict[str, str | None]:
        """Which weights these are, as JSON can hold it."""
        return {"name": self.name, "revision": self.revision, "fingerprint": self.fingerprint}

    def check(self, record: ModelRecord, *, role: str, place: str) -> None:
        """Refuse a model that is not this one."""
        if record.fingerprint != self.fingerprint:
            raise PatchwordError(
                f"{place} was trained with {role} {self.name} (fingerprint {self.fingerprint[:12]}), "
                f"but {record.name} has fingerprint {record.fingerprint[:12]}; use the same weights"
            )


class ModuleShape(_Record):
    """What it takes to build the alignment module before its weights are loaded."""

    kind: ModuleKind
    dim: int = Field(ge=1, le=2**16)
    text_dim: int = Field(ge=1, le=2**16)
    head_size: int = Field(ge=1, le=2**16)
    mlp_ratio: float = Field(gt=0, le=64)

    def build(self, *, seed: int = 0) -> AlignmentModule:
        """A module of this shape with fresh weights."""
        from patchword.alignment.module import AlignmentModule

        return AlignmentModule(
            dim=self.dim,
            text_dim=self.text_dim,
            kind=self.kind,
            head_size=self.head_size,
            mlp_ratio=self.mlp_ratio,
            seed=seed,
        )


class StepRecord(_Record):
    """One line of a training's history: the means over the steps since the line before.

    Attributes:
        step: how many steps were done.
        learning_rate: of the last of them.
        temperature: of the patch-text term, after it.
        total, patch_patch, text_anchor, patch_anchor, patch_mask: the loss and its terms before their weights; 0 for a
            term that is off.
        held_out: agreement with the labels that are held out, in [0, 1]; None when it was not measured there.
    """

    step: int
    learning_rate: float
    temperature: float
    total: float
    patch_patch: float
    text_anchor: float
    patch_anchor: float
    patch_mask: float = 0.0
    held_out: float | None = None


class TrainingFacts(_Record):
    """What the module learned from.

    Attributes:
        data_fingerprint: SHA-256 over the contents of all photographs and label maps.
        images: photographs with at least one labelled patch.
        images_without_labels: photographs whose every patch is ignored.
        images_skipped: photographs that could not be used.
        labelled_share: share of the used images' patches that have a label.
        classes_without_patches: names that no patch carries.
        steps: of the optimizer.
        last: the last line of the history.
        held_out: agreement of these weights with the labels that were held out; None when there were none.
    """

    data_fingerprint: str
    images: int
    images_without_labels: int
    images_skipped: int
    labelled_share: float
    classes_without_patches: tuple[str, ...]
    steps: int
    last: StepRecord
    held_out: float | None = None


class ArtifactConfig(_Record):
    """Everything of `config.json`.

    Attributes:
        image_size: side in pixels of the square that training resized images to, a multiple of the patch.
        temperature: of the patch-text term at the end of training; the confidence of a segmentation uses it.
        vocabulary: of the training, in the text format.
        vocabulary_hash: its hash.
        versions: of Python and the packages that matter, at training.
        scores: measurements by name; none were made where it is empty.
    """

    format: Literal["patchword-segmenter"] = FORMAT
    version: Literal[1] = VERSION
    encoder: Tower
    text_encoder: Tower
    module: ModuleShape
    image_size: int = Field(ge=1)
    temperature: float = Field(gt=0, le=10)
    vocabulary: str
    vocabulary_hash: str = ""
    settings: AlignSettings
    training: TrainingFacts
    versions: dict[str, str] = Field(default_factory=dict)
    scores: dict[str, float] = Field(default_factory=dict)

    @field_validator("settings", mode="before")
    @classmethod
    def _of_earlier_versions(cls, value: Any) -> Any:
        return EARLIER_VALUES | value if isinstance(value, dict) else value

    def parsed_vocabulary(self) -> Vocabulary:
        """The training's vocabulary."""
        return Vocabulary.recorded(self.vocabulary, source=CONFIG)


@dataclass(frozen=True)
class Artifact:
    """A trained module with everything that is known of it."""

    module: AlignmentModule
    config: ArtifactConfig


def write_artifact(folder: Path, *, artifact: Artifact, card: str) -> None:
    """Write the three files; `config.json` comes last, so that a folder that has it is complete."""
    from safetensors.torch import save

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in artifact.module.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    write_text(folder / CARD, card)
    write_json(folder / CONFIG, artifact.config.model_dump(mode="json"))


def read_artifact(folder: str | Path) -> Artifact:
    """Read what `write_artifact` wrote."""
    folder = Path(folder)
    config = read_config(folder)
    config.parsed_vocabulary()
    return Artifact(_read_module(folder / WEIGHTS, config.module), config)


def read_config(folder: Path) -> ArtifactConfig:
    """What a model folder says of itself; read without torch."""
    path = folder / CONFIG
    if not folder.is_dir():
        raise PatchwordError(f"no model folder {folder}; pass a folder that `patchword align` has written")
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PatchwordError(f"{folder} holds no {CONFIG}; pass a folder that `patchword align` has written") from None
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise PatchwordError(f"{path} is damaged: not JSON in UTF-8") from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise PatchwordError(f"{path} is not of a patchword model; pass a folder that `patchword align` has written")
    check_version(path, values.get("version"), reads=VERSION, again="train again with `patchword align`")
    try:
        return ArtifactConfig.model_validate(values)
    except ValidationError as error:
        raise PatchwordError(f"{path} is damaged: {one_line(error, place='field')}") from None


def _read_module(path: Path, shape: ModuleShape) -> AlignmentModule:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights = load(path.read_bytes())
    except FileNotFoundError:
        raise PatchwordError(f"no weights {path}; the model folder is not complete") from None
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except (SafetensorError, ValueError):
        raise PatchwordError(f"{path} is damaged or truncated; fetch or train the model again") from None
    module = shape.build()
    expected = module.state_dict()
    for name in sorted(expected.keys() | weights.keys()):
        found, wanted = (tuple(tensors[name].shape) if name in tensors else None for tensors in (weights, expected))
        if found != wanted:
            raise PatchwordError(
                f"{path} does not fit {CONFIG}: tensor {name!r} is {found or 'missing'}, expected {wanted or 'none'}"
            )
    if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
        raise PatchwordError(f"{path} is damaged: it holds weights that are not finite")
    module.load_state_dict(weights)
    return module.eval()


_NAMES_SHOWN = 200
_CARD = """\
---
library_name: patchword
pipeline_tag: image-segmentation
tags: [open-vocabulary, semantic-segmentation, annotation-free]
---

# An open-vocabulary segmenter

An alignment module made by patchword. It maps the patch features of a frozen vision encoder into the text space of a \
frozen image-text model, so that an image can be segmented by any class names. The label set is open: names that were \
never trained may be asked for.

```python
from patchword import Segmenter

segmenter = Segmenter.from_pretrained("this folder, or its name on the hub")
segmenter.segment("photo.jpg", classes=["cat", "lamp"]).overlay().save("photo.png")
```

This folder holds the module alone ({kind}, {millions:.2f} million parameters). The frozen models are loaded from \
where `config.json` names them, and only the very same weights are accepted.

## Parts

| part | weights | fingerprint | licence |
|---|---|---|---|
{parts}

The licences of the frozen models are stated as their publishers state them and bind whoever uses them.

## Training

{training}

| setting | value |
|---|---|
{settings}

## Scores

{scores}

## Limits

- It learned from label maps as they were: where they are wrong in the same way everywhere, so is it.
- Its map has the resolution of patches; thin and small things are lost or blurred, and edges are off by part of \
a patch.
- Every pixel takes one of the names asked for, however badly it fits, unless background words or a least confidence \
are given. The confidence is relative to the names asked for.
- It inherits the biases of the frozen models and of their training data. It has not been tested for any use in which \
a mistake harms people.
"""


def model_card(config: ArtifactConfig) -> str:
    """The `README.md` of an alignment: what it is, what it learned from, what it is worth."""
    towers = (("vision encoder", config.encoder), ("text encoder", config.text_encoder))
    scores = [f"| {name} | {value:.4f} |" for name, value in config.scores.items()]
    return _CARD.format(
        kind=config.module.kind,
        millions=config.module.build().parameter_count / 1e6,
        parts="\n".join(
            f"| {role} | {tower.name}{f' at {tower.revision}' if tower.revision else ''} | "
            f"`{tower.fingerprint[:16]}` | {tower.licence or 'not stated'} |"
            for role, tower in towers
        ),
        training="\n".join(f"- {line}" for line in _training_lines(config)),
        settings="\n".join(
            f"| {name} | {value} |" for name, value in sorted(config.settings.model_dump(mode="json").items())
        ),
        scores="\n".join(["| measurement | value |", "|---|---|", *scores])
        if scores
        else "None was measured when this card was written.",
    )


def _training_lines(config: ArtifactConfig) -> list[str]:
    facts, last, names = config.training, config.training.last, config.parsed_vocabulary().names
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    lines = [
        f"{facts.images} photographs with label maps (data fingerprint `{facts.data_fingerprint[:16]}`); "
        f"{facts.images_without_labels} more had no labelled patch, {facts.images_skipped} could not be used",
        f"{100 * facts.labelled_share:.1f} % of the patches had a label; the others took no part",
        f"{len(names)} classes: {', '.join(names[:_NAMES_SHOWN])}{more}",
        f"{facts.steps} steps of AdamW, images as squares of {config.image_size} pixels, seed {config.settings.seed}",
        f"loss of the last steps {last.total:.4f} (patch-patch {last.patch_patch:.4f}, text anchor "
        f"{last.text_anchor:.4f}, patch anchor {last.patch_anchor:.4f}); text temperature {config.temperature:.4f}",
    ]
    if facts.held_out is not None:
        lines.append(
            f"{100 * config.settings.held_out:g} % of the photographs were held out; their patches got the class of "
            f"their label in {100 * facts.held_out:.1f} %, mean over classes"
        )
    if facts.classes_without_patches:
        lines.append(f"no patch was labelled as: {', '.join(facts.classes_without_patches)}")
    if config.versions:
        lines.append(f"made with {', '.join(f'{name} {value}' for name, value in sorted(config.versions.items()))}")
    return lines
