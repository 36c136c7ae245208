"""Objects of a photograph: connected pieces of the label map, told apart by the segments that it was fused from.

A label map says what each pixel is; segments overlap and say which pixels belong together. An object is made of both:
the segments of a class, best first, share out the pixels that the map gives to that class, and what hangs together of
a share is one object. So objects never overlap and together they are the label map, to the pixel, but for slivers:
pieces below a least area join an object of their class that they touch, or are no objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from patchword.data.components import NOTHING, Components, connected_components
from patchword.data.masks import LabelMap, Segment
from patchword.data.run_lengths import RunLengths
from patchword.errors import PatchwordError


def object_numbers(size: tuple[int, int], pieces: tuple[Piece, ...]) -> NDArray[np.int32]:
    """(h, w), each object's position from 1, and 0 where there is none."""
    numbers = np.zeros(size, dtype=np.int32)
    for number, piece in enumerate(pieces, start=1):
        x, y, width, height = piece.box
        numbers[y : y + height, x : x + width][piece.inside] = number
    return numbers


@dataclass(frozen=True, eq=False)
class Piece:
    """One object, of a size (height, width) and box (x, y, width, height) in pixels.

    Attributes:
        inside: (box height, box width) bool, the object's pixels within the box.
        score: of the segment that it is of; none where no segment has its pixels.
    """

    class_index: int
    size: tuple[int, int]
    box: tuple[int, int, int, int]
    inside: NDArray[np.bool_]
    area: int
    score: float | None

    def mask(self) -> NDArray[np.bool_]:
        x, y, width, height = self.box
        mask = np.zeros(self.size, dtype=bool)
        mask[y : y + height, x : x + width] = self.inside
        return mask

    def run_lengths(self) -> RunLengths:
        """The object in COCO's compressed run lengths, made of its columns alone."""
        (rows, columns), (x, y, width, height) = self.size, self.box
        strip = np.zeros((width, rows), dtype=bool)  # COCO counts down the columns
        strip[:, y : y + height] = self.inside.T
        flat = np.concatenate([[False], strip.ravel(), [False]])
        edges = np.flatnonzero(flat[1:] != flat[:-1]) + x * rows
        counts = np.diff(edges, prepend=0, append=rows * columns).tolist()
        counts = counts if counts[-1] else counts[:-1]
        encoded = coco_mask.frPyObjects({"size": [rows, columns], "counts": counts}, rows, columns)
        return {"size": [rows, columns], "counts": encoded["counts"].decode("ascii")}


@dataclass(frozen=True, eq=False)
class Pieces:
    """What a photograph comes apart into, in the order of first pixels, and how many pixels have a class.

    Slivers are pieces below the least area that touch no object of their class.
    """

    objects: tuple[Piece, ...]
    slivers: tuple[Piece, ...]
    labelled: int


def pieces_of(
    label_map: LabelMap, segments: Sequence[Segment], *, own_share: float = 0.5, least_area: float = 0
) -> Pieces:
    """The objects of a photograph.

    Args:
        own_share: a segment of which less than this share, in [0, 1], is left by better segments is not an object of
            its own; its pixels go to the object that they touch most.
        least_area: in pixels; a smaller piece goes to the object of its class that it touches most, or is a sliver.
    """
    indices = label_map.indices.astype(np.int64)
    indices[label_map.indices == label_map.ignore] = NOTHING
    owners = _share_out(indices, segments, own_share)
    _give_rest_away(indices, owners)
    whole = _components(indices, owners)
    small = whole.areas < least_area
    if small.any():
        owners[np.concatenate([[False], small])[whole.labels]] = 0
        _give_rest_away(indices, owners)
        whole = _components(indices, owners)
    pieces = tuple(_pieces(whole, indices, owners, segments))
    return Pieces(
        objects=tuple(piece for piece in pieces if piece.area >= least_area),
        slivers=tuple(piece for piece in pieces if piece.area < least_area),
        labelled=int(whole.areas.sum()),
    )


def _components(indices: NDArray[np.int64], owners: NDArray[np.int64]) -> Components:
    """What hangs together of one class and one owner."""
    return connected_components(np.where(indices == NOTHING, NOTHING, indices * (int(owners.max()) + 1) + owners))


def _pieces(
    whole: Components, indices: NDArray[np.int64], owners: NDArray[np.int64], segments: Sequence[Segment]
) -> Iterator[Piece]:
    size = (indices.shape[0], indices.shape[1])
    found = zip(whole.boxes.tolist(), whole.areas.tolist(), strict=True)
    for number, ((x, y, width, height), area) in enumerate(found, start=1):
        inside = whole.labels[y : y + height, x : x + width] == number
        column = x + int(inside[0].argmax())
        owner = int(owners[y, column])
        score = segments[owner - 1].score if owner else None
        yield Piece(int(indices[y, column]), size, (x, y, width, height), inside, area, score)


def _share_out(indices: NDArray[np.int64], segments: Sequence[Segment], own_share: float) -> NDArray[np.int64]:
    """Which segment has each pixel, counted from 1; 0 = none."""
    owners = np.zeros(indices.shape, dtype=np.int64)
    for position in sorted(range(len(segments)), key=lambda each: -segments[each].score):
        segment = segments[position]
        mask = segment.mask()
        if mask.shape != indices.shape:
            raise PatchwordError(
                f"segment of {segment.class_name!r} is of {mask.shape} pixels, its label map of {indices.shape}"
            )
        x, y, width, height = segment.box
        within = (slice(y, y + height), slice(x, x + width))
        own = mask[within] & (indices[within] == segment.class_index)
        free = own & (owners[within] == 0)
        if free.any() and np.count_nonzero(free) >= own_share * np.count_nonzero(own):
            owners[within][free] = position + 1
    return owners


def _give_rest_away(indices: NDArray[np.int64], owners: NDArray[np.int64]) -> None:
    """Give each connected rest without an owner to the owner of its class that it touches most, if there is one."""
    free = (indices != NOTHING) & (owners == 0)
    if not free.any() or not owners.any():
        return
    rests = connected_components(np.where(free, indices, NOTHING)).labels
    contacts = np.concatenate([_contacts(rests, owners, indices, shift) for shift in ((0, 1), (1, 0), (1, 1), (1, -1))])
    if not len(contacts):
        return
    pairs, counts = np.unique(contacts, axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))  # most contacts first, then the lower number
    chosen, first = np.unique(pairs[order, 0], return_index=True)
    taker = np.zeros(int(rests.max()) + 1, dtype=np.int64)
    taker[chosen] = pairs[order, 1][first]
    owners[free] = taker[rests[free]]


def _contacts(
    rests: NDArray[np.int32], owners: NDArray[np.int64], indices: NDArray[np.int64], shift: tuple[int, int]
) -> NDArray[np.int64]:
    """(rest, owner) of each pair of neighbours of one class, `shift` rows and columns apart, where one is of each."""
    down, right = shift
    height, width = indices.shape
    here = (slice(0, height - down), slice(max(0, -right), width - max(0, right)))
    there = (slice(down, height), slice(max(0, right), width + min(0, right)))
    same = indices[here] == indices[there]
    found = []
    for one, other in ((here, there), (there, here)):
        touching = same & (rests[one] > 0) & (owners[other] > 0)
        found.append(np.stack([rests[one][touching], owners[other][touching]], axis=1))
    return np.concatenate(found).astype(np.int64)
