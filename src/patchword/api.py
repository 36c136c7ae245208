"""The public functions: they turn names and folders into parts and call the rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import (
    Classes,
    align_settings,
    check_needs_resume,
    encoder_for,
    open_labels,
    tell_classes,
)
from patchword.data.folders import check_output
from patchword.errors import PatchwordError
from patchword.evaluation.api import evaluate as evaluate
from patchword.evaluation.benchmark_api import evaluate_benchmark as evaluate_benchmark
from patchword.evaluation.benchmark_api import evaluate_suite as evaluate_suite
from patchword.labeling.request import LabelRequest
from patchword.models.sources import Loader, check_part
from patchword.segmentation.api import load as load
from patchword.segmentation.api import segment as segment
from patchword.suggestion.api import suggest as suggest

if TYPE_CHECKING:
    from patchword.alignment.data import LabelledImages
    from patchword.config.align import AlignSettings
    from patchword.config.label import LabelSettings
    from patchword.labeling.dataset import LabelledDataset
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.segmenter import Segmenter


def label(
    photos: str | Path,
    *,
    classes: Classes,
    out: str | Path,
    preset: str = "balanced",
    image_text: str | Path | ImageTextEncoder | None = None,
    mask_proposer: str | Path | MaskGenerator | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    background: Sequence[str] | None = None,
    generator: str | None = None,
    settings: LabelSettings | Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    shard: str | Shard | None = None,
    resume: bool = False,
    overwrite: bool = False,
    overwrite_corrections: bool = False,
    forget_missing: bool = False,
    retry_failed: bool = False,
    quiet: bool = False,
    command: str = "",
) -> LabelledDataset:
    """Stage 1: make a data set of pseudo masks from photographs and class names.

    Args:
        photos: a folder of photographs, searched recursively, or one photograph.
        classes: names, `"cat, dog"`, a class list file, or a `Vocabulary`; synonyms follow a name after `;`.
        out: folder of the data set; must be new or empty unless `resume` or `overwrite` is set.
        preset: "fast", "balanced" or "thorough": which models are used where none is named, and the settings where
            none is given.
        image_text: instead of the preset's: hub name, `name@revision`, local folder, or a loaded encoder.
        mask_proposer: likewise.
        encoder: likewise, the vision encoder; used here only where the setting `point_sampling` is "encoder", and by
            `align`, which takes the one that the labels name.
        background: words that take part in the vote on classes and never become a label; None takes those of the class
            list, an empty list none.
        generator: "clip-prompts-sam", "sam-then-clip" or "both", instead of that of the settings and of the preset.
        settings: the numbers of stage 1, all as `LabelSettings`, or by name those that differ from the preset's.
        device: "auto" or a torch device such as "cuda:1".
        dtype: "auto", "float32", "bfloat16" or "float16".
        limit: take the first so many photographs, at least 1; None for all.
        shard: take the part "i/n" of them, for `merge_labels` to put together again; None for all.
        resume: go on where an earlier run with the same models, classes and settings stopped.
        overwrite: empty the folder first, if it is an earlier run's; not where it holds labels that a person corrected.
        overwrite_corrections: empty it even then.
        forget_missing: with `resume`, drop the labels of photographs that no longer exist, which are an error else.
        retry_failed: with `resume`, try photographs again that failed; else they are kept as failed.
        quiet: whether to show no progress on standard error.
        command: what the user typed, for the record.

    Returns:
        the data set; photographs that could not be labelled are listed in its `failed`.

    Raises:
        PatchwordError: for anything above that is not as described, before a model is loaded where that is possible.
    """
    from patchword.labeling.folder import CORRECTIONS, refuse_corrections
    from patchword.labeling.records import MARKER
    from patchword.labeling.run import label_folder

    check_needs_resume(resume, retry_failed=retry_failed, forget_missing=forget_missing)
    if overwrite and not overwrite_corrections:
        refuse_corrections(out, instead=CORRECTIONS)
    overwrite = overwrite or overwrite_corrections
    request = LabelRequest.read(
        photos,
        classes=classes,
        out=out,
        preset=preset,
        image_text=image_text,
        mask_proposer=mask_proposer,
        encoder=encoder,
        background=background,
        generator=generator,
        settings=settings,
        limit=limit,
        shard=shard,
    )
    check_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    tell_classes(request.vocabulary, quiet=quiet)
    return label_folder(
        request.images,
        root=request.root,
        out=Path(out),
        parts=request.load(device=device, dtype=dtype),
        settings=request.settings,
        limit=request.limit,
        shard=request.shard,
        preset=request.preset,
        encoder=request.named_encoder,
        resume=resume,
        overwrite=overwrite,
        overwrite_corrections=overwrite_corrections,
        forget_missing=forget_missing,
        retry_failed=retry_failed,
        command=command,
        quiet=quiet,
    )


def align(
    labels: str | Path | LabelledImages,
    *,
    out: str | Path,
    preset: str | None = None,
    encoder: str | Path | PatchEncoder | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    photos: str | Path | None = None,
    settings: AlignSettings | Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
) -> Segmenter:
    """Stage 2: train a segmenter on a data set of pseudo masks.

    Args:
        labels: a folder that `label` wrote, or any labelled data set; exact masks give the oracle.
        out: folder of the model; must be new or empty unless `resume` or `overwrite` is set.
        preset: whose vision encoder is used where none is named; by default the encoder that `label` was told of, or
            that of its preset.
        encoder: the frozen vision encoder: hub name, `name@revision`, local folder, or a loaded one.
        text_encoder: the image-text model whose text tower is used; by default the one that labelled.
        photos: where the photographs of `labels` are now; by default where they were, relative to it.
        settings: the numbers of stage 2, as `AlignSettings` or by name; defaults where none is given. How many steps
            there are and how large then follows from the number of photographs.
        cache: folder of frozen features that is kept for later runs; by default they are removed at the end.
        device, dtype, resume, overwrite, quiet: as for `label`.

    Returns:
        the segmenter; it is in `out` as well.

    Raises:
        PatchwordError: for anything above that is not as described, and when no photograph can be trained on.
    """
    from patchword.alignment.artifact import MARKER
    from patchword.alignment.run import align_labels
    from patchword.segmentation.segmenter import Segmenter

    dataset, labelled_by = open_labels(labels, photos=photos)
    chosen = align_settings(settings)
    named_text = text_encoder or labelled_by
    if named_text is None:
        raise PatchwordError("the labels do not say which image-text model they were made with; pass text_encoder")
    chosen_encoder = encoder_for(dataset, encoder=encoder, preset=preset)
    check_part(chosen_encoder, kind="patch")
    check_part(named_text, kind="image-text")
    check_output(out, resume=resume, overwrite=overwrite, marker=MARKER)
    loader = Loader(device=device, dtype=dtype)
    vision = loader.patch_encoder(chosen_encoder)
    text = loader.image_text(named_text)
    align_labels(
        dataset,
        encoder=vision,
        text_encoder=text,
        out=out,
        settings=chosen,
        cache=cache,
        resume=resume,
        overwrite=overwrite,
        quiet=quiet,
    )
    return Segmenter.from_pretrained(out, encoder=vision, text_encoder=text)
