"""`align` and its dry run, from a config: labels are opened and models loaded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.alignment.artifact import MARKER
from patchword.config.align import AlignConfig, AlignSettings
from patchword.config.command import command
from patchword.config.inputs import spoken_models, tell
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.models.catalog import describe_models
from patchword.models.hub import check_part
from patchword.models.loading import Loader
from patchword.models.registry import ModelName, find_preset, name_of
from patchword.runs.plan import Plan, describe_output
from patchword.runs.processes import executor_of
from patchword.runs.progress import photograph_count

if TYPE_CHECKING:
    from patchword.alignment.data import LabelledImages
    from patchword.models.protocols import PatchEncoder
    from patchword.segmentation.segmenter import Segmenter

_COMMON_TEXT_DIM = 512  # of CLIP's base models


@command(AlignConfig)
def align(labels: str | Path | LabelledImages, config: AlignConfig) -> Segmenter:
    """Stage 2: train a segmenter on a data set of pseudo masks, or of exact masks.

    Returns:
        the segmenter; it is in `out` as well.
    """
    dataset, labelled_by = open_labels(labels, photos=config.photos, reviews=config.reviews)
    named_text = config.text_encoder or labelled_by
    if named_text is None:
        raise PatchwordError("the labels do not say which image-text model they were made with; pass text_encoder")
    encoder = encoder_for(dataset, encoder=config.encoder, preset=config.preset)
    check_part(encoder, kind="patch")
    check_part(named_text, kind="image-text")
    check_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    named = {"vision encoder": name_of(encoder), "text encoder": name_of(named_text)}
    tell(
        dataset.vocabulary.spoken(),
        f"{photograph_count(len(dataset.items))} with labels{_place(labels)}",
        dataset.review.spoken() if isinstance(dataset, LabelledDataset) and dataset.review else "",
        spoken_models(describe_models(named)),
        f"output: {describe_output(config.out, config.resume, config.overwrite)}",
        quiet=config.quiet,
    )
    from patchword.alignment.run import align_labels  # after what can be refused without torch
    from patchword.segmentation.segmenter import Segmenter

    loader = Loader(device=config.device, dtype=config.dtype)
    tell(loader.spoken(), quiet=config.quiet)
    vision, text = loader.patch_encoder(encoder), loader.image_text(named_text)
    align_labels(
        dataset,
        encoder=vision,
        text_encoder=text,
        out=config.out,
        settings=_numbers(config, dataset),
        cache=config.cache,
        resume=config.resume,
        overwrite=config.overwrite,
        executor=executor_of(
            config.executor, device=config.device, loaded=vision, load=partial(loader.patch_encoder, encoder)
        ),
        quiet=config.quiet,
    )
    return Segmenter.from_pretrained(config.out, encoder=vision, text_encoder=text)


def _place(labels: object) -> str:
    return f" in {labels}" if isinstance(labels, str | Path) else ""


def plan_align(labels: str | Path, config: AlignConfig) -> Plan:
    """What `align` would do. Where the vision encoder is on this machine it is loaded and timed."""
    dataset, labelled_by = open_labels(labels, photos=config.photos, reviews=config.reviews)
    from patchword.alignment.estimate import estimate_run
    from patchword.alignment.run import FEATURES
    from patchword.alignment.schedule import schedule_for

    settings = _numbers(config, dataset)
    counts = {
        "photographs": len(dataset.items),
        "classes": len(dataset.vocabulary),
        "steps at most": schedule_for(len(dataset.items), settings=settings).steps,
    }
    vision = name_of(encoder_for(dataset, encoder=config.encoder, preset=config.preset))
    text = config.text_encoder or labelled_by or ""
    models = {"vision encoder": vision, "text encoder": name_of(text) if text else ""}
    output = describe_output(config.out, config.resume, config.overwrite)
    labeller = dataset.image_text if isinstance(dataset, LabelledDataset) else None
    remark = estimate_run(
        vision,
        images=len(dataset.items),
        classes=len(dataset.vocabulary),
        text_dim=labeller.dim if labeller is not None else _COMMON_TEXT_DIM,
        settings=settings,
        cache=Path(config.cache) if config.cache else Path(config.out) / FEATURES,
        loader=Loader(config.device, config.dtype),
    )
    return Plan(counts, describe_models(models), output, settings.model_dump(mode="json"), remark=remark)


def _numbers(config: AlignConfig, labels: LabelledImages) -> AlignSettings:
    """The settings of the preset that was named, or that the labels were made with."""
    carried = labels.preset if isinstance(labels, LabelledDataset) else None
    return config.numbers_for(config.preset or carried)


def open_labels(
    labels: str | Path | LabelledImages, *, photos: str | Path | None, reviews: bool = True
) -> tuple[LabelledImages, ModelName | None]:
    """A labelled data set and, where it tells, the image-text model that labelled it; some photographs may be gone."""
    if not isinstance(labels, str | Path) and not hasattr(labels, "items"):
        raise PatchwordError(f"labels is {labels!r}; pass a folder that `label` wrote, or a data set")
    if isinstance(labels, str | Path):
        dataset: LabelledImages = LabelledDataset.open(labels, photos=photos, allow_missing=True)
    else:
        dataset = labels
    if reviews and isinstance(dataset, LabelledDataset):
        dataset = dataset.reviewed()
    labeller = dataset.image_text if isinstance(dataset, LabelledDataset) else None
    return dataset, ModelName.of(labeller) if labeller is not None else None


def encoder_for(
    labels: LabelledImages, *, encoder: str | Path | PatchEncoder | None, preset: str | None
) -> str | Path | ModelName | PatchEncoder:
    """The vision encoder that a training takes: as it is told, else the one that goes with the labels.

    Args:
        labels: which may say what they were made with.
        encoder: the one that was named.
        preset: the preset that was named.
    """
    if encoder is not None:
        return encoder
    carried = labels if preset is None and isinstance(labels, LabelledDataset) else None
    if carried is not None and carried.encoder is not None:
        return ModelName.parse(carried.encoder)
    return find_preset(preset or (carried.preset if carried else None) or "balanced").patch_encoder
