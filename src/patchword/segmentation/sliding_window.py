"""Images as a model sees them, and how what it finds in their windows becomes one again."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError
from patchword.models.pixels import model_size, nearest_multiple


@dataclass(frozen=True)
class WindowPlan:
    """Windows of one size at the crossings of some rows and columns; together they cover the image.

    Attributes:
        size: (height, width) in pixels of the image as it is seen.
        window: (height, width) in pixels of every window.
        rows, columns: the first row of pixels of each row of windows, and likewise of columns.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def start(self, place: int) -> tuple[int, int]:
        """(top, left) of the window at a place in reading order."""
        return self.rows[place // len(self.columns)], self.columns[place % len(self.columns)]

    def crop(self, images: Tensor, place: int, *, patch_size: int = 1) -> Tensor:
        """The window at a place in reading order, of images (b, c, h, w) of the plan's size.

        Args:
            patch_size: side of a patch in pixels; what is no whole patch below and to the right is left out.
        """
        top, left = self.start(place)
        height, width = (side // patch_size * patch_size for side in self.window)
        return images[..., top : top + height, left : left + width]

    def __len__(self) -> int:
        """How many windows."""
        return len(self.rows) * len(self.columns)


def plan_windows(size: tuple[int, int], *, window: int, stride: int) -> WindowPlan:
    """Lay square windows over an image, `stride` apart; the last ones are moved back inside.

    Args:
        size: (height, width) in pixels of the image as it is seen.
        window: side of a window in pixels; where the image is smaller, windows are as small.
        stride: pixels from one window to the next, 1 to `window`.

    Returns:
        Windows of one size that cover every pixel.
    """
    if not 1 <= stride <= window:
        raise PatchwordError(f"stride is {stride}; it must be 1 to the window's side ({window})")
    rows, columns = (_starts(side, window=window, stride=stride) for side in size)
    return WindowPlan(size, (min(window, size[0]), min(window, size[1])), rows, columns)


def _starts(length: int, *, window: int, stride: int) -> tuple[int, ...]:
    steps = -(-max(length - window, 0) // stride)
    return tuple(max(min(step * stride, length - window), 0) for step in range(steps + 1))


def inference_windows(
    size: tuple[int, int], *, settings: SegmentSettings, image_size: int, patch_size: int
) -> WindowPlan:
    """The size at which a model sees an image, and the windows that it sees it through; whole is one window.

    With `image_size`, the image has about as many pixels as that square (`models.pixels.model_size`). With
    `shorter_side`, it is resized as mmsegmentation does with proportions kept: the shorter side becomes so many pixels,
    unless the longer one would pass `longest_side`, which then decides; both are rounded half up to whole pixels.

    Then sides become whole patches, by resizing to the nearest multiple of the patch and not by padding, which a model
    would see. Only where windows are joined by their logits, and the side is no shorter than a window, does it stay
    as it is, as the protocols have it: windows are whole patches then, and may begin at any pixel. Where windows are
    joined by their features, they lie on one grid of patches, and the stride is rounded down to whole patches (at least
    one). With `partial_patches` "stretch" every side of a patch or more stays as it is, and windows need not be whole
    patches.

    Args:
        size: (height, width) in pixels of the image.
        settings: sizes, window, stride and join.
        image_size: used where the settings have neither `image_size` nor `shorter_side`.
        patch_size: side of a patch in pixels.
    """
    seen = inference_size(size, settings=settings, image_size=image_size, patch_size=patch_size)
    if settings.window is None:
        return WindowPlan(seen, seen, (0,), (0,))
    stride = settings.stride or max(1, settings.window // 2)
    if settings.join == "features":
        stride = max(1, stride // patch_size) * patch_size
    return plan_windows(seen, window=settings.window, stride=stride)


def inference_size(
    size: tuple[int, int], *, settings: SegmentSettings, image_size: int, patch_size: int
) -> tuple[int, int]:
    if settings.shorter_side is None:
        return model_size(size, image_size=settings.image_size or image_size, patch_size=patch_size)
    scale = settings.shorter_side / min(size)
    if settings.longest_side is not None:
        scale = min(scale, settings.longest_side / max(size))
    exact = (max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5)))
    kept = settings.window if settings.window is not None and settings.join == "logits" else None
    if settings.partial_patches == "stretch":
        kept = patch_size
    height, width = (
        side if kept is not None and side >= kept else nearest_multiple(side, of=patch_size) for side in exact
    )
    return height, width


def check_window(settings: SegmentSettings, *, patch_size: int) -> None:
    """Refuse a window that is not whole patches."""
    window = settings.window
    if window is not None and window % patch_size:
        below = window // patch_size * patch_size
        near = f"{below} and {below + patch_size}" if below else f"{patch_size}"
        raise PatchwordError(
            f"window is {window}; it must be a multiple of the patch size ({patch_size}), such as {near}"
        )
