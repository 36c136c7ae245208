"""Segments one large image, tile by tile, into files; goes on where an earlier run was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from patchword.config.segment import SegmentSettings
from patchword.data.masks import LabelMap, ignore_index
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError, WriteError
from patchword.segmentation.dense import AnySegmenter
from patchword.segmentation.files import LargeFacts
from patchword.segmentation.large.files import LargeFiles
from patchword.segmentation.large.readers import Pixels, WindowReader, open_reader
from patchword.segmentation.large.tiles import Tile, plan_tiles, settings_of_tile
from patchword.segmentation.large.unfinished import Shown, Unfinished, nothing
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.words import Classes, mask_names

UNFINISHED = "unfinished"


def segment_large(
    path: str | Path,
    *,
    segmenter: AnySegmenter,
    classes: Classes,
    out: str | Path,
    name: str,
    background: Sequence[str] | None = None,
    settings: SegmentSettings | None = None,
    overlays: bool = True,
    confidence_bits: Literal[0, 8, 16] = 0,
    note: Callable[[str], None] | None = None,
) -> LargeFacts:
    """Segment an image tile by tile and write its files; memory depends on the tile, not on the image.

    Every tile is shown with context around it, of which only the middle is kept (`tiles.plan_tiles`). What is done is
    on disk after every tile, in `out/unfinished/<name>`, so that a run that was stopped goes on with the next.

    Args:
        path: of the image.
        segmenter: whatever segments.
        classes, background: as of `Segmenter.segment`.
        out: folder of the result. The mask is `masks/<name>.png`, or for an image with a georeference
            `masks/<name>.tif` with `masks/<name>.json` beside it; likewise `confidence/<name>` on request.
        name: of the image, relative, with forward slashes.
        settings: `tile`, `overlap`, `bands`, `overview_side` and those named `value_...` are of large images.
        overlays: whether to write `overlays/<name>.jpg`, at most `settings.overview_side` pixels a side.
        confidence_bits: of the confidences that are written, 0 to 255 (8) or to 65535 (16); 0 writes none.
        note: told how far it is.

    Returns:
        What a line of the results says of the image.

    Raises:
        WriteError: when a file cannot be written.
        PatchwordError: when the image cannot be read or segmented.
    """
    path, out, chosen = Path(path), Path(out), settings or SegmentSettings()
    vocabulary = segmenter.vocabulary_of(classes, background=background)
    try:
        with (
            closing(open_reader(path, settings=chosen)) as reader,
            Unfinished(
                out / UNFINISHED / name,
                what=_identity(path, segmenter, vocabulary, chosen, confidence_bits),
                size=reader.size,
                classes=len(vocabulary) + 1,
                confidence_bits=confidence_bits,
            ) as unfinished,
        ):
            try:
                tiles = _segment_tiles(_Work(segmenter, vocabulary, chosen, reader), unfinished, note or _silent)
            except PatchwordError:  # what a damaged image has filled would stay beside the results for good
                unfinished.remove(below=out / UNFINISHED)
                raise
            shown = unfinished.shown or _asked_for(vocabulary, settings=chosen)
            files = LargeFiles(out, name, reader, unfinished, tiles, shown)
            facts = files.write(overview_side=chosen.overview_side if overlays else None)
            unfinished.remove(below=out / UNFINISHED)
    except OSError as error:
        raise WriteError(f"cannot write the result of {name}: {error.strerror or error}") from None
    return facts


@dataclass(frozen=True)
class _Work:
    """Who segments what."""

    segmenter: AnySegmenter
    vocabulary: Vocabulary
    settings: SegmentSettings
    reader: WindowReader


def _identity(
    path: Path, segmenter: AnySegmenter, vocabulary: Vocabulary, settings: SegmentSettings, confidence_bits: int
) -> dict[str, Any]:
    """All that the tiles of an image depend on."""
    file = path.stat()
    return {
        "bytes": file.st_size,
        "modified": file.st_mtime_ns,
        "vocabulary": vocabulary.to_text(),
        "segmenter": segmenter.describe(),
        "settings": settings.recorded(),
        "confidence_bits": confidence_bits,
    }


def _segment_tiles(work: _Work, unfinished: Unfinished, note: Callable[[str], None]) -> int:
    """Segment what is not done yet; how many tiles there are.

    Tiles that share a batch do so by their place in the image, and a batch of which a part is missing is done anew as
    a whole: results differ in the last digits with the company.
    """
    tiles = plan_tiles(work.reader.size, tile=work.settings.tile, overlap=work.settings.overlap)
    own_size = work.segmenter.describe().get("image_size")
    settings = settings_of_tile(work.settings, seen=tiles[0].seen, own_size=own_size)
    for start in range(0, len(tiles), settings.batch):
        chunk = tiles[start : start + settings.batch]
        if not all(map(unfinished.has, chunk)):
            _segment_chunk(chunk, work=work, settings=settings, unfinished=unfinished)
        note(f"tile {start + len(chunk)} of {len(tiles)}")
    return len(tiles)


def _segment_chunk(chunk: Sequence[Tile], *, work: _Work, settings: SegmentSettings, unfinished: Unfinished) -> None:
    """Read tiles, and segment those in which there is anything."""
    batch: list[tuple[Tile, Pixels]] = []
    for tile in chunk:
        pixels = work.reader.read(tile.seen)
        if _is_empty(tile, pixels):
            indices, confidence, valid = nothing(tile.kept)
            unfinished.add(tile, indices=indices, confidence=confidence, valid=valid)
        else:
            batch.append((tile, pixels))
    if batch:
        _segment_batch(batch, work=work, settings=settings, unfinished=unfinished)


def _segment_batch(
    batch: Sequence[tuple[Tile, Pixels]], *, work: _Work, settings: SegmentSettings, unfinished: Unfinished
) -> None:
    images = [pixels.image for _, pixels in batch]
    results = work.segmenter.segment_batch(images, classes=work.vocabulary, settings=settings)
    for (tile, pixels), result in zip(batch, results, strict=True):
        if isinstance(result, PatchwordError):
            raise result
        if unfinished.shown is None:
            unfinished.show(result.label_map)
        _add(tile, pixels, result, unfinished)


def _add(tile: Tile, pixels: Pixels, result: SegmentationResult, unfinished: Unfinished) -> None:
    kept = tile.kept.within(tile.seen)
    found = result.label_map.indices[kept].astype(np.int64)
    indices = np.where(found == result.label_map.ignore, unfinished.ignore, found)
    valid = np.ones(found.shape, dtype=np.bool_) if pixels.valid is None else pixels.valid[kept]
    unfinished.add(tile, indices=indices, confidence=result.confidence[kept], valid=valid)


def _is_empty(tile: Tile, pixels: Pixels) -> bool:
    return pixels.valid is not None and not pixels.valid[tile.kept.within(tile.seen)].any()


def _asked_for(vocabulary: Vocabulary, *, settings: SegmentSettings) -> Shown:
    """The classes of an image without a single valid pixel."""
    names = mask_names(vocabulary, settings=settings)
    label_map = LabelMap(np.full((1, 1), ignore_index(len(names))), names)
    return Shown(names, label_map.class_colours())


def _silent(note: str) -> None:
    """Tell nobody."""
