"""What segmenting a folder will take: three images segmented, the rest worked out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from patchword.data.folders import json_text
from patchword.data.images import read_image
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.runs.estimate import Estimate, Trial, estimate_run, on_disk
from patchword.runs.pipeline import Pixels
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.files import Segmented, files_of, write_result
from patchword.segmentation.large.readers import wants_tiles
from patchword.segmentation.request import SegmentRequest
from patchword.segmentation.video import FrameCount, is_video, read_frames


def estimate_segmentation(
    images: Sequence[tuple[str, Path]],
    *,
    request: SegmentRequest,
    device: str = "auto",
    dtype: str = "auto",
    sample: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate:
    """Segment a few images, spread over the folder, and work out what all of them will take (`estimate_run`).

    Each is segmented alone, whatever `batch` is; of a video, its first frame. Images that are read tile by tile are
    none of the sample.

    Args:
        images: name and path of all that are to be segmented, as `SegmentRequest.portion` gives them.
        request: what is asked for.
        device, dtype: as of `SegmentRequest.open`.
        sample: how many are segmented, 1 or more.
        clock: seconds from some fixed moment.
    """
    segmenter = request.open(device=device, dtype=dtype)
    vocabulary = segmenter.vocabulary_of(request.classes_for(segmenter), background=request.background)
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
        settings, how = self.request.settings, self.request.folder_settings
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
            if wants_tiles(path, settings=self.request.settings):
                raise PatchwordError(f"{path} is read tile by tile, for which there is no estimate")
            return read_image(path)
        with closing(read_frames(path, wanted=lambda number: number == 0, count=FrameCount())) as frames:
            frame = next(frames, None)
        if frame is None or isinstance(frame.pixels, PatchwordError):
            raise PatchwordError(f"{path} begins with a frame that cannot be decoded")
        return frame.pixels
