"""What the alignment learns from: photographs with label maps, and the vocabulary that the maps' indices refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from patchword.data.images import find_images
from patchword.data.masks import find_mask
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError


class LabelledImage(Protocol):
    """A photograph and its label map on disk."""

    @property
    def image(self) -> Path: ...

    @property
    def label_map(self) -> Path: ...


class LabelledImages(Protocol):
    """Any labelled data set: the result of `label`, or photographs with masks from elsewhere."""

    @property
    def items(self) -> Sequence[LabelledImage]: ...

    @property
    def vocabulary(self) -> Vocabulary: ...


@dataclass(frozen=True)
class AlignmentItem:
    """One photograph and its label map (indexed or 16-bit PNG)."""

    image: Path
    label_map: Path


@dataclass(frozen=True)
class AlignmentData:
    """Photographs with label maps whose index i means class i of the vocabulary; wherever the maps came from.

    Exact masks in place of pseudo labels give the oracle of docs/method.md.
    """

    items: tuple[AlignmentItem, ...]
    vocabulary: Vocabulary

    @classmethod
    def from_folders(cls, images: Path, *, masks: Path, vocabulary: Vocabulary) -> AlignmentData:
        """Pair each photograph with the mask of its name.

        Args:
            images: folder of photographs, searched recursively.
            masks: folder of label maps; for a/b.jpg it holds a/b.jpg.png or a/b.png.
            vocabulary: of the maps' indices.

        Returns:
            The pairs, in the order of the photographs; photographs without a mask are left out.
        """
        pairs = ((path, find_mask(masks, name=path.relative_to(images).as_posix())) for path in find_images(images))
        items = tuple(AlignmentItem(path, mask) for path, mask in pairs if mask is not None)
        if not items:
            raise PatchwordError(
                f"no photograph of {images} has a mask in {masks}; the mask of a/b.jpg is named a/b.jpg.png or a/b.png"
            )
        return cls(items, vocabulary)
