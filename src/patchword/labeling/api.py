"""`label`, its dry run and its preview, from a config: photographs are chosen and models loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.command import command
from patchword.config.inputs import Photographs, choose_images, spoken_models, tell
from patchword.config.label import LabelConfig
from patchword.config.shared import PhotosValue
from patchword.data.folders import check_output
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import CORRECTIONS, refuse_corrections
from patchword.labeling.records import MANIFEST_FILE, MARKER
from patchword.models.catalog import describe_models
from patchword.models.hub import check_part, is_here
from patchword.models.loading import Loader
from patchword.models.registry import find_preset, name_of
from patchword.runs.plan import NOTHING_WRITTEN, Cost, Plan, cost_of, describe_output, from_sample
from patchword.runs.processes import executor_of
from patchword.runs.shards import chunks_of
from patchword.visualization.pages import is_page

if TYPE_CHECKING:
    from patchword.labeling.image import LabelParts
    from patchword.labeling.preview import Preview

_MOST_SHOWN = 1000  # photographs on a preview's page


@command(LabelConfig)
def label(photos: PhotosValue, config: LabelConfig) -> LabelledDataset:
    """Stage 1: make a data set of pseudo masks from photographs and class names.

    Returns:
        the data set; photographs that could not be labelled are listed in its `failed`.
    """
    overwrite = _may_overwrite(config)
    found = choose_images(photos, out=config.out)
    models = models_of(config)
    check_output(config.out, resume=config.resume, overwrite=overwrite, marker=MARKER)
    tell(
        config.vocabulary.spoken(),
        found.spoken(config.limit),
        spoken_models(_described(models), of=f"preset {config.preset}"),
        f"output: {describe_output(config.out, config.resume, overwrite)}",
        quiet=config.quiet,
    )
    from patchword.labeling.run import label_folder  # after what can be refused without torch

    tell(Loader(config.device, config.dtype).spoken(), quiet=config.quiet)
    parts = load_parts(models, config)
    return label_folder(
        found.images,
        root=found.root,
        out=as_path(config.out),
        parts=parts,
        settings=config.numbers,
        limit=config.limit,
        shard=config.part,
        preset=config.preset,
        encoder=None if config.encoder is None else str(name_of(config.encoder)),
        resume=config.resume,
        overwrite=overwrite,
        overwrite_corrections=config.overwrite_corrections,
        forget_missing=config.forget_missing,
        retry_failed=config.retry_failed,
        command=config.command,
        executor=executor_of(
            config.executor, device=config.device, loaded=parts, load=partial(load_parts, models, config)
        ),
        quiet=config.quiet,
    )


def plan_label(photos: PhotosValue, config: LabelConfig) -> Plan:
    """What `label` would do.

    Where all models are on this machine they are loaded, and three photographs are labelled to see how long it takes
    and how much disk; what they leave is removed.
    """
    overwrite = _may_overwrite(config)
    found = choose_images(photos, out=config.out)
    portion = portion_of(found, config)
    models = models_of(config)
    tell(config.vocabulary.spoken(), found.spoken(config.limit), quiet=config.quiet)
    output = describe_output(config.out, config.resume, overwrite)
    background = config.vocabulary.background
    counts = {
        "photographs": len(portion),
        "classes": len(config.vocabulary),
        "background words": len(background),
    }
    if config.resume:
        done = Manifest(as_path(config.out) / MANIFEST_FILE).read()
        portion = [(name, path) for name, path in portion if name not in done]
        counts["labelled already"] = counts["photographs"] - len(portion)
    cost, remark = _estimate(portion, models=models, config=config)
    return Plan(counts, _described(models), output, config.numbers.model_dump(mode="json"), cost, remark)


def preview_label(photos: PhotosValue, config: LabelConfig, *, count: int) -> Preview:
    """One HTML page of what `label` would make of `count` photographs spread over the folder, 1 to 1000.

    The page is `out`, where that ends in `.html`; else it goes beside the folder that `label` would write.
    """
    if not 1 <= count <= _MOST_SHOWN:
        raise PatchwordError(f"a preview of {count} photographs; choose 1 to {_MOST_SHOWN}")
    page = page_for(config.out)
    found = choose_images(photos, out=config.out)
    portion = portion_of(found, config)
    models = models_of(config)
    tell(
        config.vocabulary.spoken(),
        found.spoken(config.limit),
        spoken_models(_described(models), of=f"preset {config.preset}"),
        quiet=config.quiet,
    )
    from patchword.labeling.preview import preview_labels

    return preview_labels(
        [path for _, path in portion],
        root=found.root,
        page=page,
        parts=load_parts(models, config),
        settings=config.numbers,
        count=count,
        command=config.command,
        quiet=config.quiet,
    )


def page_for(out: str | Path) -> Path:
    """Where the page of a preview goes: `out` itself where it ends in `.html`, else beside it."""
    out = Path(out)
    page = out if out.suffix.lower() == ".html" else out.with_name(f"{out.resolve().name}-preview.html")
    if page.is_dir() or (page.exists() and not is_page(page)):
        raise PatchwordError(f"{page} was not written by patchword and is not replaced; choose another name")
    return page


def portion_of(found: Photographs, config: LabelConfig) -> list[tuple[str, Path]]:
    """Name and path of the photographs that are wanted, sorted by name."""
    named = {path.relative_to(found.root).as_posix(): path for path in found.images}
    chunks = chunks_of(sorted(named)[: config.limit], size=config.numbers.image_batch, shard=config.part)
    return [(name, named[name]) for chunk in chunks for name in chunk]


def models_of(config: LabelConfig) -> dict[str, Any]:
    """Role -> name, folder or loaded model of all that take part."""
    preset = find_preset(config.preset)
    check_part(config.image_text, kind="image-text")
    check_part(config.mask_generator, kind="mask")
    check_part(config.encoder, kind="patch")
    models: dict[str, Any] = {
        "image-text": config.image_text or preset.image_text,
        "mask generator": config.mask_generator or preset.mask_generator,
    }
    if config.numbers.needs_encoder:
        models["vision encoder"] = config.encoder or preset.patch_encoder
    return models


def _described(models: Mapping[str, Any]) -> dict[str, str]:
    return describe_models({role: name_of(part) for role, part in models.items()})


def load_parts(models: dict[str, Any], config: LabelConfig) -> LabelParts:
    """Load the models and encode the vocabulary."""
    from patchword.labeling.image import LabelParts

    loader = Loader(device=config.device, dtype=config.dtype)
    encoder = models.get("vision encoder")
    return LabelParts.of(
        loader.image_text(models["image-text"], dense=config.numbers.dense),
        mask_generator=loader.mask_generator(models["mask generator"]),
        vocabulary=config.vocabulary,
        patch_encoder=None if encoder is None else loader.patch_encoder(encoder),
    )


def _may_overwrite(config: LabelConfig) -> bool:
    if config.overwrite and not config.overwrite_corrections:
        refuse_corrections(config.out, instead=CORRECTIONS)
    return config.overwrite or config.overwrite_corrections


def _estimate(
    portion: Sequence[tuple[str, Path]], *, models: dict[str, Any], config: LabelConfig
) -> tuple[Cost | None, str]:
    """What the run would take, and how that is known, or nothing and why not."""
    absent = [str(model) for model in map(name_of, models.values()) if not is_here(model)]
    if absent:
        return None, f"none, for it needs {', '.join(absent)} on this machine; {NOTHING_WRITTEN}"
    if not portion:
        return None, f"none, for nothing is left to label; {NOTHING_WRITTEN}"
    from patchword.labeling.preview import estimate_labelling

    parts = load_parts(models, config)
    try:
        found = estimate_labelling(portion, parts=parts, settings=config.numbers)
    except PatchwordError as error:
        return None, f"none: {error}; {NOTHING_WRITTEN}"
    return cost_of(found, out=Path(config.out)), from_sample(found, done="labelled")
