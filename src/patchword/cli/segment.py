"""`patchword segment`: photographs by any class names."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from patchword.cli.options import (
    AnyModel,
    AsJson,
    Assignments,
    Background,
    Device,
    Dtype,
    ImageText,
    Limit,
    Method,
    OutFolder,
    Overwrite,
    Part,
    Photos,
    Quiet,
    Resume,
    RetryFailed,
    Snapper,
    TextEncoder,
    VisionEncoder,
)
from patchword.cli.terminal import command_line, parse_names, parse_settings, parse_words, print_plan, report_segmented


def segment(
    photos: Photos,
    out: OutFolder,
    model: AnyModel = None,
    method: Method = None,
    image_text: ImageText = None,
    encoder: VisionEncoder = None,
    text_encoder: TextEncoder = None,
    mask_proposer: Snapper = None,
    classes: Annotated[
        str | None, typer.Option(help="Class list file or names; by default those of the training.")
    ] = None,
    background: Background = None,
    image_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Size that images are seen at; larger is finer and slower.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of sliding windows; by default images are seen whole.")
    ] = None,
    stride: Annotated[int | None, typer.Option(metavar="PIXELS", help="From window to window [default: half].")] = None,
    threshold: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Ignore pixels of lower confidence, 0 to 1 [default: 0]")
    ] = None,
    refine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Sharpen edges: none, jbu [default], pamr, or sam (with --mask-proposer)."),
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Try torch.compile: minutes once, then faster.")] = False,
    settings: Assignments = None,
    overlays: Annotated[bool, typer.Option(help="Write pictures with the classes painted over.")] = True,
    confidence: Annotated[bool, typer.Option("--confidence", help="Write confidence/: grey, 255 is sure.")] = False,
    confidence_bits: Annotated[
        int | None, typer.Option(metavar="N", help="8 or 16 (65535 is sure); implies --confidence. [default: 8]")
    ] = None,
    soft: Annotated[
        str | None, typer.Option(metavar="CLASSES", help='Write soft/: probabilities of "cat, dog", or of all.')
    ] = None,
    rle: Annotated[bool, typer.Option("--rle", help="COCO run lengths of each class in results.jsonl.")] = False,
    video: Annotated[bool, typer.Option("--video", help="Segment a folder's videos, too, frame by frame.")] = False,
    every: Annotated[int, typer.Option(metavar="N", help="Of videos, every N-th frame.")] = 1,
    overlay_video: Annotated[
        bool, typer.Option("--overlay-video", help="Overlays of a video as one video instead of pictures.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    limit: Limit = None,
    shard: Part = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    retry_failed: RetryFailed = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Counts, models, settings, time and disk from three images; keep nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Stage 3: segment photographs or videos by any class names."""
    from patchword import api
    from patchword.config.segment import FolderSettings

    shorthands = {
        "image_size": image_size,
        "window": window,
        "stride": stride,
        "threshold": threshold,
        "refine": refine,
        "compile": "true" if compile_ else None,
    }
    given = [f"{name}={value}" for name, value in shorthands.items() if value is not None]
    numbers = parse_settings([*(settings or []), *given])
    of_folder = {name: numbers.pop(name) for name in FolderSettings.model_fields if name in numbers}
    asked: dict[str, Any] = {
        "out": out,
        "model": model,
        "method": method,
        "image_text": image_text,
        "encoder": encoder,
        "text_encoder": text_encoder,
        "mask_proposer": mask_proposer,
        "classes": classes,
        "background": parse_words(background),
        "settings": numbers,
        "folder_settings": {
            "overlays": overlays,
            "confidence_bits": confidence_bits if confidence_bits is not None else 8 * confidence,
            "soft": parse_names(soft, option="--soft"),
            "rle": rle,
            "every": every,
            "overlay_video": overlay_video,
            **of_folder,
        },
        "video": video,
        "device": device,
        "dtype": dtype,
        "limit": limit,
        "shard": shard,
    }
    if dry_run:
        from patchword.segmentation.estimate import (
            plan_segment,  # imports torch: not before a model's name is looked at
        )

        print_plan(plan_segment(photos, **asked, resume=resume, overwrite=overwrite, quiet=quiet), as_json=as_json)
        return
    segmented = api.segment(
        photos,
        **asked,
        resume=resume,
        overwrite=overwrite,
        retry_failed=retry_failed,
        quiet=quiet,
        command=command_line(),
    )
    report_segmented(segmented, out=out, as_json=as_json)
