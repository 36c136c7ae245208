"""Masks where somebody points: the mask generator, and what it saw of the last photographs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from patchword.models.loading import Loader

if TYPE_CHECKING:
    from patchword.models.sam import SamMaskGenerator

_EMBEDDINGS = 4  # photographs whose embeddings are kept for further clicks


class Clicks:
    """Answers clicks; any number of threads may ask. The mask generator is loaded when the first one does.

    Args:
        mask_generator: its name, or itself.
        device, dtype: where it computes.
    """

    def __init__(self, mask_generator: Any, *, device: str = "auto", dtype: str = "auto") -> None:
        self._named = mask_generator
        self._loader = Loader(device, dtype)
        self._generator: SamMaskGenerator | None = None
        self._embeddings: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def mask_at(
        self,
        key: str,
        pixels: Callable[[], NDArray[np.uint8]],
        *,
        at: Callable[[tuple[int, int]], Mapping[str, Any]],
    ) -> tuple[NDArray[np.bool_], float]:
        """The mask (h, w) of the thing that is pointed at, and its predicted IoU.

        Args:
            key: of the photograph; one that was asked about lately is not encoded again.
            pixels: reads it, (h, w, 3), where it has to be encoded.
            at: gives points, labels and box, as `SamMaskGenerator.mask_at` takes them, for its (height, width).
        """
        with self._lock:
            if self._generator is None:
                self._generator = cast("SamMaskGenerator", self._loader.mask_generator(self._named))
            if key not in self._embeddings:
                from patchword.data.images import to_tensor

                (self._embeddings[key],) = self._generator.embed([to_tensor(pixels())])
                while len(self._embeddings) > _EMBEDDINGS:
                    self._embeddings.popitem(last=False)
            self._embeddings.move_to_end(key)
            embedding = self._embeddings[key]
            return self._generator.mask_at(embedding, **at(embedding.image_size))
