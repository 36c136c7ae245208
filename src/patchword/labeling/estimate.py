"""What a night of labelling will take: three photographs labelled, the rest worked out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from patchword.data.folders import json_text
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.labeling.dataset import label_map_path, segments_path
from patchword.labeling.files import write_result
from patchword.labeling.image import LabelParts, claim_images, settle
from patchword.labeling.quality.assess import assess
from patchword.labeling.settings import LabelSettings
from patchword.runs.estimate import Estimate, Trial, estimate_run, on_disk
from patchword.runs.stream import decoded


def estimate_labelling(
    photographs: Sequence[tuple[str, Path]],
    *,
    parts: LabelParts,
    settings: LabelSettings,
    sample: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Label a few photographs, spread over the folder, and work out what all of them will take (`estimate_run`).

    Each is labelled alone, whatever `image_batch` is.

    Args:
        photographs: name and path of all that are to be labelled, sorted by name.
        parts: models and vocabulary.
        settings: of the labelling.
        sample: how many are labelled, 1 or more.
        clock: seconds from some fixed moment.
    """
    single = settings.model_copy(update={"image_batch": 1})
    work = partial(_label, parts=parts, settings=single, clock=clock)
    return estimate_run(photographs, work=work, verb="labelled", sample=sample)


def _label(
    name: str, path: Path, folder: Path, *, parts: LabelParts, settings: LabelSettings, clock: Callable[[], float]
) -> Trial:
    started = clock()
    (photograph,) = decoded([(name, path)])
    if isinstance(photograph.pixels, PatchwordError):
        raise photograph.pixels
    read = clock()
    (claims,) = claim_images([to_tensor(photograph.pixels)], parts=parts, settings=settings)
    if isinstance(claims, PatchwordError):
        raise claims
    asked = clock()
    vocabulary = parts.vocabulary
    found = settle(claims, names=vocabulary.names, settings=settings, colours=vocabulary.colours)
    record = write_result(folder, name, found, content=photograph.content, settings=settings)
    quality = assess(found, name=name, settings=settings)
    written = clock()
    lines = sum(len(json_text(each.model_dump(mode="json"))) + 1 for each in (record, quality))
    files = on_disk([label_map_path(folder, name), segments_path(folder, name)])
    return Trial(decoding=read - started, models=asked - read, writing=written - asked, size=files + lines)
