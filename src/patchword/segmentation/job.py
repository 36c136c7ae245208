"""What it takes to segment photographs, frames and images in tiles, and to write down what came of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from patchword.data.folders import Manifest
from patchword.data.images import read_image
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.runs.pipeline import Photograph, Pixels, Writer, decoded, named_alike, why_unread
from patchword.runs.progress import Progress
from patchword.runs.records import Session
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.files import Segmented, write_result
from patchword.segmentation.folder_settings import FolderSettings
from patchword.segmentation.large.facts import LargeFacts
from patchword.segmentation.large.run import segment_large
from patchword.segmentation.records import ResultRecord
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.settings import SegmentSettings

IN_TILES: Pixels = np.empty((0, 0, 3), dtype=np.uint8)  # stands for the pixels of an image that is read tile by tile


@dataclass(frozen=True)
class Job:
    """A run at work.

    Attributes:
        folder: of the result.
        segmenter, vocabulary, settings, how: what is asked for.
        manifest, session, progress: told of everything that is done.
        large: images that are segmented tile by tile.
        ahead: photographs that wait decoded, and results that wait to be written, 1 or more.
        threads: photographs that are decoded at once, 1 or more.
    """

    folder: Path
    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    how: FolderSettings
    manifest: Manifest
    session: Session
    progress: Progress
    large: frozenset[Path]
    ahead: int
    threads: int

    def segment(self, chunks: Sequence[Sequence[tuple[str, Path]]]) -> None:
        """Decode photographs in threads ahead, segment a chunk here, write in a thread behind."""
        waiting = (photograph for chunk in chunks for photograph in chunk)
        ahead = max(self.ahead, *map(len, chunks)) if chunks else self.ahead  # a chunk waits while another is segmented
        with (
            closing(decoded(waiting, read=self._read, ahead=ahead, threads=self.threads)) as photographs,
            Writer(self.write, waiting=self.ahead) as writer,
        ):
            for chunk in chunks:
                for segmented in self.found(list(islice(photographs, len(chunk)))):
                    writer.put(segmented)

    def found(self, photographs: Sequence[Photograph]) -> Iterator[Segmented]:
        """Segment what can be read of a chunk, in batches that fit into memory; the rest tells why it cannot be."""
        for group in batches_of(photographs, most=self.how.batch_megapixels * 1e6):
            readable = [each.pixels for each in group if not isinstance(each.pixels, PatchwordError)]
            found = iter(self._batch([pixels for pixels in readable if pixels is not IN_TILES]))
            for each in group:
                yield Segmented(each.name, self._result(each, found), content=each.content)

    def write(self, item: Segmented) -> None:
        """Write an image's files; the line of the results comes last, so that it vouches for them."""
        settings = self.how if item.second is None else self.how.of_frames()
        self.note(write_result(self.folder, item, settings=settings))
        self.progress.advance()

    def note(self, record: ResultRecord) -> None:
        """Write a line of the results."""
        self.manifest.append(record.line())
        if record.is_counted:
            self.session.count(record.status)

    def tell(self, note: str) -> None:
        """Show beside the progress what is being done."""
        self.progress.tell(note)

    def _read(self, path: Path) -> Pixels:
        """Decode a photograph, unless it is to be read tile by tile."""
        return IN_TILES if path in self.large else read_image(path)

    def _result(
        self, photograph: Photograph, found: Iterator[SegmentationResult | PatchwordError]
    ) -> SegmentationResult | PatchwordError | LargeFacts:
        if isinstance(photograph.pixels, PatchwordError):
            return why_unread(photograph)
        return self._large(photograph) if photograph.pixels is IN_TILES else next(found)

    def _batch(self, images: Sequence[Pixels]) -> list[SegmentationResult | PatchwordError]:
        found = self.segmenter.segment_batch(images, classes=self.vocabulary, settings=self.settings) if images else []
        return [each if isinstance(each, PatchwordError) else self._lightened(each) for each in found]

    def _lightened(self, result: SegmentationResult) -> SegmentationResult:
        """A result that waits to be written, without what nobody asks of it."""
        return result if self.how.soft else replace(result, scores=None, class_of=None)

    def _large(self, photograph: Photograph) -> PatchwordError | LargeFacts:
        """Segment an image tile by tile into its files."""
        try:
            return segment_large(
                photograph.path,
                segmenter=self.segmenter,
                classes=self.vocabulary,
                out=self.folder,
                name=photograph.name,
                settings=self.settings,
                overlays=self.how.overlays,
                confidence_bits=self.how.confidence_bits,
                note=lambda note: self.tell(f"{photograph.name}: {note}"),
            )
        except WriteError:
            raise
        except PatchwordError as error:
            return named_alike(error, path=photograph.path, name=photograph.name)
        finally:
            self.tell("")


def batches_of(photographs: Sequence[Photograph], *, most: float) -> list[list[Photograph]]:
    """Cut a chunk where its photographs would have more than so many pixels together; a larger one stands alone."""
    groups: list[list[Photograph]] = []
    room = 0.0
    for each in photographs:
        pixels = 0 if isinstance(each.pixels, PatchwordError) else each.pixels.shape[0] * each.pixels.shape[1]
        if not groups or pixels > room:
            groups.append([])
            room = most
        groups[-1].append(each)
        room -= pixels
    return groups
