"""Images as a model sees them, and how what it finds in their windows becomes one again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from patchword.segmentation.scores import GridScores, PixelScores, WindowScores
from patchword.segmentation.windows import WindowPlan


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image (h, w, 3) uint8, and the size and the windows that it is seen at."""

    pixels: NDArray[np.uint8]
    plan: WindowPlan

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


def share_batches(seen: Mapping[int, SeenImage], *, most: int) -> Iterator[list[int]]:
    """Which images go through the model together: those whose windows have one size, until a batch is full.

    Args:
        seen: images by number.
        most: windows in a batch.

    Returns:
        numbers of images; more windows than `most` are there only where one image has more.
    """
    waiting: dict[tuple[int, int], list[int]] = {}
    for number, image in seen.items():
        together = waiting.setdefault(image.plan.window, [])
        if together and sum(len(seen[other].plan) for other in together) + len(image.plan) > most:
            yield together
            together = waiting[image.plan.window] = []
        together.append(number)
    yield from waiting.values()


class FeatureJoin:
    """Features of windows, averaged where windows overlap and brought back to unit length.

    Args:
        plan: windows that begin at whole patches.
        score: unit patch vectors (d, h, w) -> scores (n, h, w).
        patch_size: side of a patch in pixels.
    """

    def __init__(self, plan: WindowPlan, *, score: Callable[[Tensor], Tensor], patch_size: int) -> None:
        self._plan = plan
        self._score = score
        self._patch_size = patch_size
        self._features: Tensor | None = None

    def add(self, place: int, patches: Tensor) -> None:
        """Take in the features (d, h, w) of the window at a place of the plan."""
        if len(self._plan) == 1:
            self._features = patches
            return
        if self._features is None:
            grid = (side // self._patch_size for side in self._plan.size)
            self._features = torch.zeros((len(patches), *grid), dtype=torch.float32, device=patches.device)
        top, left = (start // self._patch_size for start in self._plan.start(place))
        self._features[:, top : top + patches.shape[1], left : left + patches.shape[2]] += patches

    def scores(self, size: tuple[int, int]) -> PixelScores:
        """The scores of the whole, at any pixel of an image of that size, once every window is in."""
        if self._features is None:
            raise ValueError("no window has been added")
        whole = self._features
        if len(self._plan) > 1:
            whole = functional.normalize(whole, dim=0)  # a mean and a sum of vectors have one direction
        return GridScores(self._score(whole), size)


class LogitJoin:
    """Scores of windows, averaged at every pixel, as the benchmark protocols do; see `WindowScores`.

    Args:
        plan: the windows.
        score: unit patch vectors (d, h, w) -> scores (n, h, w).
    """

    def __init__(self, plan: WindowPlan, *, score: Callable[[Tensor], Tensor]) -> None:
        self._plan = plan
        self._score = score
        self._scores: dict[int, Tensor] = {}

    def add(self, place: int, patches: Tensor) -> None:
        """Take in the features (d, h, w) of the window at a place of the plan."""
        self._scores[place] = self._score(patches)

    def scores(self, size: tuple[int, int]) -> PixelScores:
        """The scores of the whole, at any pixel of an image of that size, once every window is in."""
        windows = torch.stack([self._scores[place] for place in range(len(self._plan))])  # (windows, n, h, w)
        return WindowScores(windows, plan=self._plan, size=size)
