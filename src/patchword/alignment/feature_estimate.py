"""What the features of a run will take, told before the run: `--dry-run`."""

from __future__ import annotations

from pathlib import Path

from patchword.alignment.estimate import FeatureEstimate, feature_line, image_bytes, plan_features
from patchword.alignment.features import FeatureCache
from patchword.alignment.settings import AlignSettings
from patchword.models.encoders import patch_shape
from patchword.models.pixels import nearest_multiple
from patchword.models.sources import Loader, ModelName, is_here


def foresee_features(encoder: ModelName, *, images: int, settings: AlignSettings, cache: Path, loader: Loader) -> str:
    """Say in one line what features would take and where they would come from; nothing is written.

    What a cache holds already is not counted: photographs are not read.

    Args:
        encoder: loaded and timed where it is on this machine, else judged by what is known of it.
        images: photographs of the data set.
        settings: of stage 2.
        cache: folder of the cache; need not exist.
        loader: loads the encoder.
    """
    seconds = None
    if is_here(encoder):
        model = loader.patch_encoder(encoder)
        shape: tuple[int, int] | None = (model.record.patch_size, model.record.dim)
        seconds = images * FeatureCache(cache, encoder=model, settings=settings).seconds_an_image()
    else:
        shape = patch_shape(encoder.name, revision=encoder.revision)
    if shape is None:
        return f"what features take can be told when {encoder} is on this machine"
    patch, dim = shape
    cells = nearest_multiple(settings.image_size, of=patch) // patch
    estimate = FeatureEstimate(
        images=images,
        missing=images,
        image_bytes=image_bytes(dim=dim, grid=(cells, cells), feature_dtype=settings.feature_dtype),
        held_bytes=0,
        seconds=seconds,
        feature_dtype=settings.feature_dtype,
    )
    return feature_line(estimate, plan_features(estimate, cache=cache, settings=settings))
