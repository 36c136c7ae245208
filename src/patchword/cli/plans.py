"""What a run would do and take, and how it would look, before it begins: `--dry-run` and `--preview`."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import align_settings, encoder_for, open_labels, tell_classes
from patchword.data.folders import Manifest, holds_anything
from patchword.errors import PatchwordError
from patchword.labeling.request import LabelRequest
from patchword.models.sources import Loader, ModelName, is_here, name_of, whereabouts
from patchword.runs.progress import byte_count, duration, rate

if TYPE_CHECKING:
    from patchword.alignment.data import LabelledImages
    from patchword.labeling.preview import Preview
    from patchword.runs.estimate import Estimate

NOTHING_WRITTEN = "nothing was written"
_COMMON_TEXT_DIM = 512  # of CLIP's base models


@dataclass(frozen=True)
class Cost:
    """What a run would take.

    Attributes:
        sample: photographs that were labelled to see.
        images_a_second: while the run lasts, models loaded before.
        seconds: how long it would last.
        done: when it would be done, begun now, in local time.
        model_share: share of the time in which the models work, in [0, 1].
        disk_bytes, free_bytes: of the disk of the output, needed and there.
    """

    sample: tuple[str, ...]
    images_a_second: float
    seconds: float
    done: str
    model_share: float
    disk_bytes: int
    free_bytes: int

    def rows(self) -> list[tuple[str, object]]:
        """For a person: name and value."""
        room = "of" if self.disk_bytes <= self.free_bytes else "but there are only"
        return [
            ("speed", rate(self.images_a_second)),
            ("time", f"{duration(self.seconds)}, done at {self.done} if begun now"),
            ("models at work", f"{self.model_share:.0%} of the time"),
            ("disk", f"{byte_count(self.disk_bytes)}, {room} {byte_count(self.free_bytes)} free"),
        ]


@dataclass(frozen=True)
class Plan:
    """A run that has not begun.

    Attributes:
        counts: what goes in, by name.
        models: role -> name, where its weights are and how large.
        output: the folder and what would become of what is in it.
        settings: every number of the stage.
        estimate: what it would take; none where nobody has measured it.
        remark: how the estimate was made, or why there is none; empty where none is made for the stage.
    """

    counts: dict[str, int]
    models: dict[str, str]
    output: str
    settings: dict[str, Any]
    estimate: Cost | None = None
    remark: str = ""

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        return asdict(self)

    def rows(self) -> list[tuple[str, object]]:
        """The same for a person: name and value."""
        estimate = [] if self.estimate is None else self.estimate.rows()
        if self.remark:
            estimate.append(("estimate", self.remark))
        settings = [(f"setting {name}", value) for name, value in self.settings.items()]
        return [*self.counts.items(), *self.models.items(), ("output", self.output), *estimate, *settings]


def plan_label(
    photos: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    overwrite_corrections: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quiet: bool = False,
    **asked: Any,
) -> Plan:
    """What `label` would do with the same arguments; see there.

    Where all models are on this machine they are loaded, and three photographs are labelled to see how long it takes
    and how much disk; what they leave is removed.

    Args:
        asked: everything else that `LabelRequest.read` takes.
    """
    from patchword.labeling.folder import CORRECTIONS, refuse_corrections

    if overwrite and not overwrite_corrections:
        refuse_corrections(out, instead=CORRECTIONS)
    overwrite = overwrite or overwrite_corrections
    request = LabelRequest.read(photos, out=out, **asked)
    tell_classes(request.vocabulary, quiet=quiet)
    portion = request.portion()
    output = describe_output(out, resume, overwrite)
    counts = {
        "photographs": len(portion),
        "classes": len(request.vocabulary),
        "background words": len(request.vocabulary.background),
    }
    if resume:
        done = _done(Path(out))
        portion = [(name, path) for name, path in portion if name not in done]
        counts["labelled already"] = counts["photographs"] - len(portion)
    models = request.models()
    estimate, remark = _estimate(request, portion, names=models.values(), out=Path(out), device=device, dtype=dtype)
    described = describe_models(models)
    return Plan(counts, described, output, request.settings.model_dump(mode="json"), estimate, remark)


def preview_label(
    photos: str | Path,
    *,
    out: str | Path,
    count: int,
    device: str = "auto",
    dtype: str = "auto",
    command: str = "",
    quiet: bool = False,
    **asked: Any,
) -> Preview:
    """One HTML page of what `label` would make of `count` photographs spread over the folder, with all the settings.

    Args:
        photos: as for `label`.
        out: the page, where it ends in `.html`; else the folder that `label` would write, and the page goes beside it.
        count: photographs to show, 1 to 1000.
        device, dtype, command, quiet: as for `label`.
        asked: everything else that `LabelRequest.read` takes.
    """
    from patchword.labeling.preview import check_count, page_for, preview_labels

    check_count(count)
    page = page_for(out)
    request = LabelRequest.read(photos, out=out, **asked)
    tell_classes(request.vocabulary, quiet=quiet)
    return preview_labels(
        [path for _, path in request.portion()],
        root=request.root,
        page=page,
        parts=request.load(device=device, dtype=dtype),
        settings=request.settings,
        count=count,
        command=command,
        quiet=quiet,
    )


def _estimate(
    request: LabelRequest,
    portion: Sequence[tuple[str, Path]],
    *,
    names: Iterable[ModelName],
    out: Path,
    device: str,
    dtype: str,
) -> tuple[Cost | None, str]:
    """What the run would take, and how that is known, or nothing and why not."""
    from patchword.labeling.preview import estimate_labelling

    absent = [str(model) for model in names if not is_here(model)]
    if absent:
        return None, f"none, for it needs {', '.join(absent)} on this machine; {NOTHING_WRITTEN}"
    if not portion:
        return None, f"none, for nothing is left to label; {NOTHING_WRITTEN}"
    parts = request.load(device=device, dtype=dtype)
    try:
        found = estimate_labelling(portion, parts=parts, settings=request.settings)
    except PatchwordError as error:
        return None, f"none: {error}; {NOTHING_WRITTEN}"
    return cost_of(found, out=out), from_sample(found, done="labelled")


def cost_of(found: Estimate, *, out: Path) -> Cost:
    """What a run would take, as a plan tells it."""
    return Cost(
        sample=found.sample,
        images_a_second=float(f"{1 / found.seconds_a_photograph:.3g}"),
        seconds=round(found.seconds, 1),
        done=found.end(datetime.now().astimezone()).isoformat(sep=" ", timespec="minutes"),
        model_share=round(found.model_share, 3),
        disk_bytes=found.disk,
        free_bytes=_free(out),
    )


def from_sample(found: Estimate, *, done: str) -> str:
    """How an estimate was made."""
    seen = "photograph" if len(found.sample) == 1 else "photographs"
    return f"from {len(found.sample)} {seen} {done} one at a time, models loaded; {NOTHING_WRITTEN}"


def _done(out: Path) -> frozenset[str]:
    from patchword.labeling.records import MANIFEST_FILE

    return frozenset(Manifest(out / MANIFEST_FILE).read())


def _free(path: Path) -> int:
    """Bytes that are free where a folder would be made."""
    existing = next(parent for parent in (path.resolve(), *path.resolve().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def plan_align(
    labels: str | Path,
    *,
    out: str | Path,
    preset: str | None = None,
    encoder: str | Path | None = None,
    text_encoder: str | Path | None = None,
    photos: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> Plan:
    """What `align` would do with the same arguments; see there.

    Where the vision encoder is on this machine it is loaded and timed, to tell how long its features will take.
    """
    from patchword.alignment.estimate import estimate_run
    from patchword.alignment.run import FEATURES
    from patchword.alignment.schedule import schedule_for

    dataset, labelled_by = open_labels(labels, photos=photos)
    chosen = align_settings(settings)
    counts = {
        "photographs": len(dataset.items),
        "classes": len(dataset.vocabulary),
        "steps at most": schedule_for(len(dataset.items), settings=chosen).steps,
    }
    models = {
        "vision encoder": name_of(encoder_for(dataset, encoder=encoder, preset=preset)),
        "text encoder": text_encoder or labelled_by or "",
    }
    output = describe_output(out, resume, overwrite)
    remark = estimate_run(
        name_of(models["vision encoder"]),
        images=len(dataset.items),
        classes=len(dataset.vocabulary),
        text_dim=_text_dim(dataset),
        settings=chosen,
        cache=Path(cache) if cache else Path(out) / FEATURES,
        loader=Loader(device, dtype),
    )
    return Plan(counts, describe_models(models), output, chosen.model_dump(mode="json"), remark=remark)


def _text_dim(dataset: LabelledImages) -> int:
    """Length of a text vector of the model that labelled; where that is not told, the most common one."""
    from patchword.labeling.dataset import LabelledDataset

    labeller = dataset.image_text if isinstance(dataset, LabelledDataset) else None
    return labeller.dim if labeller is not None else _COMMON_TEXT_DIM


def describe_models(models: Mapping[str, str | Path | ModelName]) -> dict[str, str]:
    """Role -> name, where the weights are and how large."""
    named = {role: part if isinstance(part, ModelName) else ModelName.parse(part) for role, part in models.items()}
    return {role: f"{model} ({whereabouts(model)})" for role, model in named.items()}


def describe_output(out: str | Path, resume: bool, overwrite: bool) -> str:
    """The output folder and what would become of what is in it."""
    folder = Path(out)
    if resume and overwrite:
        raise PatchwordError("use either resume or overwrite, not both")
    if folder.exists() and not folder.is_dir():
        raise PatchwordError(f"{folder} is a file; the output must be a folder")
    if not folder.exists() or not holds_anything(folder):
        return f"{folder} (new)"
    if resume:
        return f"{folder} (gone on with)"
    return f"{folder} (emptied first)" if overwrite else f"{folder} (in use: pass --resume or --overwrite)"
