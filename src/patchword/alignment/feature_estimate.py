"""What a run will take, told before the run: `--dry-run`."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch.nn import functional

from patchword.alignment.distributed import ALONE
from patchword.alignment.estimate import FeatureEstimate, feature_line, image_bytes, plan_features
from patchword.alignment.features import FeatureCache
from patchword.alignment.schedule import Schedule, schedule_for, seeded_generator
from patchword.alignment.state import start_state
from patchword.alignment.step import training_step
from patchword.config.align import AlignSettings
from patchword.models.devices import choose_device
from patchword.models.encoders import patch_shape
from patchword.models.pixels import nearest_multiple
from patchword.models.sources import Loader, ModelName, is_here
from patchword.runs.progress import duration


def foresee_run(
    encoder: ModelName,
    *,
    images: int,
    classes: int,
    text_dim: int,
    settings: AlignSettings,
    cache: Path,
    loader: Loader,
) -> str:
    """Say in one line what features and training would take; nothing is written.

    What a cache holds already is not counted: photographs are not read.

    Args:
        encoder: loaded and timed where it is on this machine, else judged by what is known of it.
        images: photographs of the data set.
        classes: of the data set.
        text_dim: length of a text vector.
        settings: of stage 2.
        cache: folder of the cache; need not exist.
        loader: loads the encoder, and tells the device.
    """
    image_seconds = None
    if is_here(encoder):
        model = loader.patch_encoder(encoder)
        shape: tuple[int, int] | None = (model.record.patch_size, model.record.dim)
        image_seconds = FeatureCache(cache, encoder=model, settings=settings).seconds_an_image()
    else:
        shape = patch_shape(encoder.name, revision=encoder.revision)
    if shape is None:
        return f"what features and training take can be told when {encoder} is on this machine"
    patch, dim = shape
    cells = nearest_multiple(settings.image_size, of=patch) // patch
    estimate = FeatureEstimate(
        images=images,
        missing=images,
        image_bytes=image_bytes(dim=dim, grid=(cells, cells), feature_dtype=settings.feature_dtype),
        held_bytes=0,
        seconds=None if image_seconds is None else images * image_seconds,
        feature_dtype=settings.feature_dtype,
    )
    plan = plan_features(estimate, cache=cache, settings=settings)
    schedule = schedule_for(images, settings=settings)
    device = choose_device(loader.device)
    seconds = schedule.steps * seconds_a_step(
        schedule, dim=dim, text_dim=text_dim, classes=classes, cells=cells, settings=settings, device=device
    )
    if plan.source == "online" and image_seconds is not None:  # once more in every epoch
        seconds += schedule.steps / schedule.epoch_steps * images * image_seconds
    encoding = ", its features left out" if plan.source == "online" and image_seconds is None else ""
    training = f"training on {schedule.line()}: about {duration(seconds)}{encoding}"
    return f"{feature_line(estimate, plan)}; {training}"


def seconds_a_step(
    schedule: Schedule,
    *,
    dim: int,
    text_dim: int,
    classes: int,
    cells: int,
    settings: AlignSettings,
    device: torch.device,
) -> float:
    """Time of a step of the training on random features, after one to warm up.

    Args:
        schedule: how many images a step has.
        dim, text_dim: channels of features and of text vectors.
        classes: of the labels.
        cells: patches along each side of an image.
        settings: of the module and the loss.
        device: that trains.
    """
    count = min(schedule.batch_size, schedule.images)
    generator = seeded_generator(settings.seed, "step to time")
    features = torch.randn((count, dim, cells, cells), generator=generator).to(device)
    labels = torch.randint(classes, (count, cells, cells), generator=generator).to(device)
    text = functional.normalize(torch.randn((classes, text_dim), generator=generator), dim=1).to(device)
    state = start_state(dim=dim, text_dim=text_dim, settings=settings, device=device)
    taken = 0.0
    for _ in range(2):  # the first warms up
        started = time.perf_counter()
        terms = training_step(
            state,
            features,
            labels,
            text,
            forward=state.module,
            images=[range(count)],
            processes=ALONE,
            rate=schedule.learning_rate,
            generator=generator,
            settings=settings,
        )
        terms.total.item()  # until the device is done
        taken = time.perf_counter() - started
    return taken
