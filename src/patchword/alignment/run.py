"""Stage 2 as a run: a labelled data set in, a model folder out."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from patchword.alignment.artifact import (
    CONFIG,
    MARKER,
    Artifact,
    ArtifactConfig,
    ModuleShape,
    StepRecord,
    Tower,
    TrainingFacts,
    model_card,
    read_artifact,
    write_artifact,
)
from patchword.alignment.data import HashedItem, LabelledImages, hash_items, label_items, mask_targets
from patchword.alignment.distributed import Processes
from patchword.alignment.estimate import prepare_features
from patchword.alignment.losses import IGNORED
from patchword.alignment.online import AugmentedFeatures, OnlineFeatures
from patchword.alignment.schedule import MANY_IMAGES, kept_agreement
from patchword.alignment.trainer import (
    TrainingResult,
    TrainingSet,
    plan_training,
    require_tracker,
    start_tracker,
    train,
)
from patchword.config.align import EARLIER_VALUES, WITHOUT_EFFECT, AlignSettings
from patchword.data.folders import prepare_output, remove_leftovers, write_json
from patchword.errors import PatchwordError
from patchword.models.protocols import ImageTextEncoder, PatchEncoder
from patchword.models.text_embeddings import encode_vocabulary
from patchword.precision import choose_dtype
from patchword.runs.pipeline import Executor
from patchword.runs.progress import Progress, say
from patchword.runs.records import Numerics, unrecorded_numerics
from patchword.versions import versions

RUN, CHECKPOINT, FEATURES = "training.json", "checkpoint.safetensors", "features"
NUMERICS, REVIEWS = "numerics", "reviews"
_EARLIER_BATCH = 8  # images a step of the schedule for few photographs
_EARLIER_BOUND = 2**20  # the default on every device, written down as a number
CONTENTS = "contents.json"  # of a cache that is kept


@dataclass(frozen=True)
class AlignmentResult:
    """What a run has made.

    Attributes:
        folder: of the model.
        artifact: the module and its config.
        history: how the training went.
        skipped: path of a photograph -> why it could not be used.
    """

    folder: Path
    artifact: Artifact
    history: tuple[StepRecord, ...]
    skipped: dict[str, str]


def align_labels(
    dataset: LabelledImages,
    *,
    encoder: PatchEncoder,
    text_encoder: ImageTextEncoder,
    out: str | Path,
    settings: AlignSettings | None = None,
    cache: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    executor: Executor | None = None,
    quiet: bool = False,
) -> AlignmentResult:
    """Train an alignment module on a labelled data set and write it as a model folder.

    Of the text encoder only text embeddings are asked. Photographs that cannot be used are left out and listed in
    `training.json`, together with the history. While the run lasts the folder also holds a checkpoint. Under
    `accelerate launch` or `torchrun` the processes share the reading, the features and the training; the first writes.

    Args:
        dataset: photographs with label maps, pseudo labels or exact masks, and their vocabulary.
        encoder: the frozen vision encoder; the training runs on its device.
        text_encoder: the frozen text tower.
        out: folder of the model.
        settings: of stage 2; None for the defaults.
        cache: folder of features that is kept for later runs; None keeps them in `out` until the run ends. What does
            not fit is computed in every step instead (`plan_features`).
        resume: go on with a run that was stopped; its data, models and settings must be the same.
        overwrite: empty the folder first.
        executor: whoever computes the features that are kept; by default this process.
        quiet: whether to show no progress.

    Returns:
        The result; the same bytes on disk whether or not the run was stopped on its way (on a CPU).
    """
    settings = settings or AlignSettings()
    choose_dtype(settings.precision, device=encoder.device, training=True)  # refused before hours of encoding
    if settings.tracker != "off":
        require_tracker(settings.tracker)
    processes = Processes.current(encoder.device)
    if executor is not None and processes.count > 1:
        raise PatchwordError("an executor cannot be used under torchrun or accelerate, whose processes share the work")
    quiet = quiet or not processes.is_first
    if processes.is_first:
        prepare_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    out = Path(out)
    skipped: dict[str, str] = {}
    known = None if cache is None else Path(cache) / CONTENTS
    hashed = hash_items(dataset, skipped=skipped, quiet=quiet, processes=processes, known=known)
    hashed = _unchanged(hashed, dataset, skipped=skipped)
    identity = _identity(dataset, hashed, encoder=encoder, text_encoder=text_encoder, settings=settings)
    with processes.first_before_others():
        finished = _enter(out, identity, images=len(hashed), quiet=quiet)
        if finished is None and processes.is_first:
            remove_leftovers(out)
    if finished is not None:
        return finished
    _check_any(hashed, skipped=skipped)
    features, failed = prepare_features(
        [(item.key, item.image) for item in hashed],
        encoder=encoder,
        settings=settings,
        cache=Path(cache) if cache else out / FEATURES,
        begun=json.loads((out / RUN).read_bytes()).get("features"),  # of a run that is resumed
        quiet=quiet,
        processes=processes,
        executor=executor,
    )
    source = "online" if isinstance(features, OnlineFeatures) else "cached"
    if processes.is_first:
        write_json(out / RUN, {"identity": identity, "features": source})
    skipped |= {str(item.image): failed[item.key] for item in hashed if item.key in failed}
    hashed = [item for item in hashed if item.key not in failed]
    usable, labels = label_items(
        hashed, dataset, features=features, settings=settings, skipped=skipped, quiet=quiet, processes=processes
    )
    _check_any(usable, skipped=skipped)
    labelled = (labels != IGNORED).flatten(1).any(dim=1)
    text = encode_vocabulary(text_encoder, vocabulary=dataset.vocabulary).class_vectors().float()
    used = [item for item, keep in zip(usable, labelled.tolist(), strict=True) if keep]
    augmented = None
    if settings.augment and isinstance(features, OnlineFeatures):
        augmented = AugmentedFeatures(used, names=dataset.vocabulary.names, encoder=encoder, settings=settings)
    masks = None
    if settings.mask_weight > 0 and any(item.embeddings for item in used):
        reason = _why_no_masks(text_encoder, dataset, augmented=augmented is not None)
        if reason:
            say(f"the labels' mask embeddings are not used: {reason}", quiet=quiet)
        else:
            masks = mask_targets(
                used, grid=features.grid, text=text.cpu(), settings=settings, quiet=quiet, processes=processes
            )
    data = TrainingSet(features, tuple(item.key for item in used), labels[labelled], text, augmented, masks)
    schedule = plan_training(data, settings=settings)
    for line in (schedule.line(), *schedule.warnings()):
        say(line, quiet=quiet)
    trained = _train(data, settings=settings, steps=schedule.steps, device=encoder.device, out=out, quiet=quiet)
    artifact = _artifact(
        trained,
        data,
        dataset,
        encoder=encoder,
        text_encoder=text_encoder,
        side=features.side,
        fingerprint=identity["data"],
        unlabelled=len(usable) - len(used),
        skipped=len(skipped),
        settings=schedule.fill(settings),
    )
    result = AlignmentResult(out, artifact, trained.history, skipped)
    processes.wait()  # until nobody reads features or the checkpoint any more
    if processes.is_first:
        _write(result, run={"identity": identity, "features": source})
    processes.wait()
    return result


def _unchanged(hashed: Sequence[HashedItem], dataset: LabelledImages, *, skipped: dict[str, str]) -> list[HashedItem]:
    """The items whose photographs are those that were labelled, where the data set tells by their hashes."""
    labelled = {item.image: getattr(getattr(item, "record", None), "content", None) for item in dataset.items}
    same = []
    for item in hashed:
        if labelled[item.image] in (None, item.key):
            same.append(item)
        else:
            skipped[str(item.image)] = f"{item.image} has changed since it was labelled; label it again"
    return same


def _why_no_masks(text_encoder: ImageTextEncoder, dataset: LabelledImages, *, augmented: bool) -> str:
    """Why the embeddings of the labels' masks cannot be learned from; "" where they can."""
    if augmented:
        return "features are computed in every step, of crops that the masks do not follow"
    maker = getattr(dataset, "image_text", None)
    if maker is None or maker.fingerprint != text_encoder.record.fingerprint:
        return "they are of another image-text model"
    return ""


def _check_any(items: Sequence[HashedItem], *, skipped: dict[str, str]) -> None:
    """Refuse a data set of which nothing is left, naming why its first image was skipped."""
    if not items:
        first = "".join(f"; {reason}" for reason in list(skipped.values())[:1])
        raise PatchwordError(f"no image of the data set can be trained on, {len(skipped)} are skipped{first}")


def _write(result: AlignmentResult, *, run: dict[str, Any]) -> None:
    """Write the model folder and remove what only the run needed."""
    out, artifact = result.folder, result.artifact
    history = [record.model_dump() for record in result.history]
    write_json(out / RUN, {**run, "history": history, "skipped": result.skipped})
    write_artifact(out, artifact=artifact, card=model_card(artifact.config))
    (out / CHECKPOINT).unlink(missing_ok=True)
    shutil.rmtree(out / FEATURES, ignore_errors=True)


def _train(
    data: TrainingSet, *, settings: AlignSettings, steps: int, device: torch.device, out: Path, quiet: bool
) -> TrainingResult:
    """Train with a checkpoint in `out`, a display and a tracker where one is set."""
    tracker = None
    if settings.tracker != "off" and Processes.current(device).is_first:
        tracker = start_tracker(settings.tracker, folder=out, settings=settings.model_dump(mode="json"))
    try:
        with Progress(steps, "training", "steps", quiet=quiet) as progress:
            return train(
                data, settings=settings, device=device, checkpoint=out / CHECKPOINT, progress=progress, tracker=tracker
            )
    finally:
        if tracker is not None:
            tracker.finish()


def _identity(
    dataset: LabelledImages,
    hashed: Sequence[HashedItem],
    *,
    encoder: PatchEncoder,
    text_encoder: ImageTextEncoder,
    settings: AlignSettings,
) -> dict[str, Any]:
    """What two runs must have in common for one to go on where the other stopped."""
    numerics = Numerics.of({"vision encoder": encoder, "text encoder": text_encoder})
    trained_in = str(choose_dtype(settings.precision, device=encoder.device)).removeprefix("torch.")
    review = getattr(dataset, "review", None)
    contents = "\n".join(f"{item.key} {item.label_key} {item.embeddings_key}".rstrip() for item in hashed)
    return {
        **({REVIEWS: review.fingerprint} if review is not None and review.fingerprint else {}),
        "data": hashlib.sha256(contents.encode()).hexdigest(),
        "vocabulary": dataset.vocabulary.hash,
        "encoder": encoder.record.fingerprint,
        "text_encoder": text_encoder.record.fingerprint,
        "settings": settings.model_dump(mode="json", exclude=set(WITHOUT_EFFECT)),
        NUMERICS: numerics.model_copy(update={"dtypes": {**numerics.dtypes, "training": trained_in}}).model_dump(),
    }


def _enter(out: Path, identity: dict[str, Any], *, images: int, quiet: bool) -> AlignmentResult | None:
    """Compare with the run that the folder holds; the result, when it is finished, wherever that was."""
    path = out / RUN
    if not path.exists():
        write_json(path, {"identity": identity})
        return None
    try:
        run = json.loads(path.read_bytes())
        before = run["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        raise PatchwordError(f"{path} is damaged; pass --overwrite to start again") from None
    if before.get(REVIEWS) != identity.get(REVIEWS):
        raise PatchwordError(
            f"cannot resume in {out}: the decisions of the review are not those that the run there began with; pass "
            "--overwrite to start again"
        )
    for name, value in identity.items():
        was = before.get(name)
        if name == "settings" and isinstance(was, dict):
            was = _as_recorded_now(was, value, images=images)
        if name == NUMERICS or was == value:
            continue
        difference = f"the {name.replace('_', ' ')} of the run there is another"
        if name == "settings" and isinstance(was, dict):
            changed = [key for key in value if was.get(key) != value[key]]
            difference = ", ".join(f"setting {key!r} was {was.get(key)!r} and is {value[key]!r}" for key in changed)
        raise PatchwordError(f"cannot resume in {out}: {difference}; pass --overwrite to start again")
    if not (out / CONFIG).exists():
        _check_numerics(before.get(NUMERICS), identity[NUMERICS], out=out, quiet=quiet)
        return None
    history = tuple(StepRecord(**record) for record in run["history"])
    return AlignmentResult(out, read_artifact(out), history, run["skipped"])


def _as_recorded_now(was: dict[str, Any], now: dict[str, Any], *, images: int) -> dict[str, Any]:
    """What a run's settings are called now, which may have been recorded by an earlier version."""
    if (
        "label_smoothing" not in was
        and was.get("schedule") == "auto"
        and not was["batch_size"]
        and images < MANY_IMAGES
    ):
        was = was | {"batch_size": _EARLIER_BATCH}
    if was.get("similarity_bound") == _EARLIER_BOUND and now["similarity_bound"] is None:
        was = was | {"similarity_bound": None}
    # Labels had no masks then, so that what is set of them does not matter.
    return EARLIER_VALUES | {key: now[key] for key in ("mask_weight", "mask_temperature")} | was


def _check_numerics(before: object, now: dict[str, Any], *, out: Path, quiet: bool) -> None:
    """Refuse to go on with a training in another type, on another kind of device or by other software."""
    if before is None:
        say(unrecorded_numerics(out), quiet=quiet)
        return
    try:
        earlier = Numerics.model_validate(before)
    except ValidationError:
        raise PatchwordError(f"{out / RUN} is damaged; pass --overwrite to start again") from None
    current = Numerics.model_validate(now)
    for what, was, becomes in earlier.differences(current):
        raise PatchwordError(
            f"cannot resume in {out}: {what} was {was}, now {becomes}; {earlier.advice()}, or pass --overwrite to "
            "start again"
        )
    for remark in earlier.remarks([current]):
        say(remark, quiet=quiet)


def read_skipped(folder: Path) -> dict[str, str]:
    """Name of a photograph -> why the finished run in a folder could not use it."""
    skipped = json.loads((folder / RUN).read_bytes())["skipped"]
    return {Path(path).name: reason for path, reason in skipped.items()}


def _artifact(
    trained: TrainingResult,
    data: TrainingSet,
    dataset: LabelledImages,
    *,
    encoder: PatchEncoder,
    text_encoder: ImageTextEncoder,
    side: int,
    fingerprint: str,
    unlabelled: int,
    skipped: int,
    settings: AlignSettings,
) -> Artifact:
    labelled = data.labels[data.labels != IGNORED]
    present = set(torch.unique(labelled).tolist())
    names = dataset.vocabulary.names
    facts = TrainingFacts(
        data_fingerprint=fingerprint,
        images=len(data.keys),
        images_without_labels=unlabelled,
        images_skipped=skipped,
        labelled_share=labelled.numel() / data.labels.numel(),
        classes_without_patches=tuple(name for index, name in enumerate(names) if index not in present),
        steps=trained.history[-1].step,
        last=trained.history[-1],
        held_out=kept_agreement(trained.history, patience=settings.patience),
    )
    shape = ModuleShape(
        kind=settings.module,
        dim=trained.module.dim,
        text_dim=trained.module.text_dim,
        head_size=settings.head_size,
        mlp_ratio=settings.mlp_ratio,
    )
    config = ArtifactConfig(
        encoder=Tower.of(encoder.record),
        text_encoder=Tower.of(text_encoder.record),
        module=shape,
        image_size=side,
        temperature=trained.temperature,
        vocabulary=dataset.vocabulary.to_text(),
        vocabulary_hash=dataset.vocabulary.hash,
        settings=settings,
        training=facts,
        versions=versions(),
    )
    return Artifact(trained.module, config)
