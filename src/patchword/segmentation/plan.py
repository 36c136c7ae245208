"""`patchword segment --dry-run`: what a run would do and take, before it begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from patchword.cli.plans import NOTHING_WRITTEN, Plan, cost_of, describe_models, describe_output, from_sample
from patchword.config.inputs import read_vocabulary
from patchword.data.folders import Manifest
from patchword.errors import PatchwordError
from patchword.models.sources import is_here
from patchword.segmentation.estimate import estimate_segmentation
from patchword.segmentation.records import RESULTS
from patchword.segmentation.request import SegmentRequest


def plan_segment(
    photos: str | Path,
    *,
    out: str | Path,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    quiet: bool = False,
    **asked: Any,
) -> Plan:
    """What `segment` would do with the same arguments; see there.

    Where all models are on this machine they are loaded, and three images are segmented to see how long it takes and
    how much disk; what they leave is removed.

    Args:
        asked: everything else that `SegmentRequest.read` takes.
    """
    request = SegmentRequest.read(photos, out=out, **asked)
    request.tell_classes(quiet=quiet)
    portion = request.portion()
    counts = {"images": len(portion)}
    if request.classes is not None:
        vocabulary = read_vocabulary(request.classes, background=request.background)
        counts |= {"classes": len(vocabulary), "background words": len(vocabulary.background)}
    if request.left_out:
        counts["videos left out"] = request.left_out
    if resume:
        done = Manifest(Path(out) / RESULTS).read()
        portion = [(name, path) for name, path in portion if name not in done]
        counts["segmented already"] = counts["images"] - len(portion)
    models = request.models()
    segmenter = {"method": request.method} if request.method else {"segmenter": str(request.model)}
    cost, remark = None, f"none, for nothing is left to segment; {NOTHING_WRITTEN}"
    absent = [str(model) for model in models.values() if not is_here(model)]
    if absent:
        remark = f"none, for it needs {', '.join(absent)} on this machine; {NOTHING_WRITTEN}"
    elif portion:
        try:
            found = estimate_segmentation(portion, request=request, device=device, dtype=dtype)
            cost, remark = cost_of(found, out=Path(out)), from_sample(found, done="segmented")
        except PatchwordError as error:
            remark = f"none: {error}; {NOTHING_WRITTEN}"
    settings = {
        **request.settings.model_dump(mode="json"),
        **request.folder_settings.model_dump(mode="json"),
    }
    described = {**segmenter, **describe_models(models)}
    return Plan(counts, described, describe_output(out, resume, overwrite), settings, cost, remark)
