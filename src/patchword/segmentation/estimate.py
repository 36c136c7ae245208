"""What segmenting a folder will take: three images segmented, the rest worked out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from patchword.config.segment import SegmentConfig
from patchword.config.shared import PhotosValue, read_vocabulary
from patchword.data.folders import json_text
from patchword.data.images import read_image
from patchword.data.manifest import Manifest
from patchword.data.storage import as_path
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.catalog import describe_models
from patchword.models.hub import is_here
from patchword.runs.estimate import Estimate, Trial, estimate_run, on_disk
from patchword.runs.pipeline import Pixels
from patchword.runs.plan import NOTHING_WRITTEN, Plan, cost_of, describe_output, from_sample
from patchword.segmentation.api import SegmentRequest, open_source
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.heads import read_head
from patchword.segmentation.records import RESULTS
from patchword.segmentation.result import Segmented, files_of, write_result
from patchword.segmentation.video import FrameCount, is_video, read_frames


def estimate_segmentation(
    images: Sequence[tuple[str, Path]],
    *,
    request: SegmentRequest,
    sample: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Segment a few images, spread over the folder, and work out what all of them will take (`estimate_run`).

    Each is segmented alone, whatever `batch` is; of a video, its first frame. Images that are read tile by tile are
    none of the sample.

    Args:
        images: name and path of all that are to be segmented, as `SegmentRequest.portion` gives them.
        request: what is asked for.
        sample: how many are segmented, 1 or more.
        clock: seconds from some fixed moment.
    """
    segmenter = open_source(request.config)
    vocabulary = segmenter.vocabulary_of(request.classes_for(segmenter), background=request.config.background)
    trials = _Trials(request, segmenter, vocabulary, clock)
    return estimate_run(images, work=trials.segment, verb="segmented", sample=sample)


@dataclass(frozen=True)
class _Trials:
    request: SegmentRequest
    segmenter: AnySegmenter
    vocabulary: Vocabulary
    clock: Callable[[], float]

    def segment(self, name: str, path: Path, folder: Path) -> Trial:
        """Segment one image into a folder."""
        settings, how = self.request.config.numbers, self.request.config.how
        started = self.clock()
        pixels = self._read(path)
        read = self.clock()
        (found,) = self.segmenter.segment_batch([pixels], classes=self.vocabulary, settings=settings)
        if isinstance(found, PatchwordError):
            raise found
        segmented = self.clock()
        record = write_result(folder, Segmented(name, found), settings=how)
        written = self.clock()
        line = json_text(record.model_dump(mode="json", exclude_none=True))
        size = on_disk(files_of(folder, name, settings=how)) + len(line)
        return Trial(decoding=read - started, models=segmented - read, writing=written - segmented, size=size)

    def _read(self, path: Path) -> Pixels:
        if not is_video(path):
            if read_head(path, settings=self.request.config.numbers).in_tiles:
                raise PatchwordError(f"{path} is read tile by tile, for which there is no estimate")
            return read_image(path)
        with closing(read_frames(path, wanted=lambda number: number == 0, count=FrameCount())) as frames:
            frame = next(frames, None)
        if frame is None or isinstance(frame.pixels, PatchwordError):
            raise PatchwordError(f"{path} begins with a frame that cannot be decoded")
        return frame.pixels


def plan_segment(photos: PhotosValue, config: SegmentConfig) -> Plan:
    """What `segment` would do.

    Where all models are on this machine they are loaded, and three images are segmented to see how long it takes and
    how much disk; what they leave is removed.
    """
    request = SegmentRequest.read(photos, config)
    request.tell(output=False)
    portion = request.portion()
    counts = {"images": len(portion)}
    if config.classes is not None:
        vocabulary = read_vocabulary(config.classes, background=config.background)
        counts |= {"classes": len(vocabulary), "background words": len(vocabulary.background)}
    if request.left_out:
        counts["videos left out"] = request.left_out
    if config.resume:
        done = Manifest(as_path(config.out) / RESULTS).read()
        portion = [(name, path) for name, path in portion if name not in done]
        counts["segmented already"] = counts["images"] - len(portion)
    models = request.models()
    segmenter = {"method": config.method} if config.method else {"segmenter": str(config.model)}
    cost, remark = None, f"none, for nothing is left to segment; {NOTHING_WRITTEN}"
    absent = [str(model) for model in models.values() if not is_here(model)]
    if absent:
        remark = f"none, for it needs {', '.join(absent)} on this machine; {NOTHING_WRITTEN}"
    elif portion:
        try:
            found = estimate_segmentation(portion, request=request)
            cost, remark = cost_of(found, out=Path(config.out)), from_sample(found, done="segmented")
        except PatchwordError as error:
            remark = f"none: {error}; {NOTHING_WRITTEN}"
    settings = {**config.numbers.model_dump(mode="json"), **config.how.model_dump(mode="json")}
    described = {**segmenter, **describe_models(models)}
    output = describe_output(config.out, config.resume, config.overwrite)
    return Plan(counts, described, output, settings, cost, remark)
