"""Images as a model sees them: their size, their windows, and how what is found in windows becomes one again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional

from patchword.config.segment import SegmentSettings
from patchword.data.images import read_image
from patchword.errors import PatchwordError
from patchword.models.pixels import model_size, nearest_multiple, upload
from patchword.segmentation.scores import GridScores, PixelScores, WindowScores

AnyImage = str | Path | Image.Image | NDArray[np.uint8] | Tensor


def as_rgb(image: AnyImage) -> NDArray[np.uint8]:
    """Bring an image in any form to 8-bit RGB.

    Args:
        image: path of a photograph; Pillow image; array (h, w, 3) uint8; tensor (3, h, w) or (1, 3, h, w), uint8 or
            floating with values in [0, 1].

    Returns:
        (h, w, 3) uint8.
    """
    if isinstance(image, str | Path):
        return read_image(image)
    if isinstance(image, Image.Image):
        return _from_pillow(image)
    if isinstance(image, Tensor):
        return _from_tensor(image)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
            raise PatchwordError(
                f"image is {image.dtype} of shape {image.shape}; it must be uint8 of shape (height, width, 3)"
            )
        return image if image.flags.writeable else image.copy()  # torch takes no array that cannot be written
    kind = type(image).__name__
    raise PatchwordError(f"image is a {kind}; it must be a path, a Pillow image, an array or a tensor")


def _from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F" or image.mode.startswith("I"):
        raise PatchwordError(f"Pillow image has mode {image.mode}; use an 8-bit mode, or pass the path of its file")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:  # over white, as photographs from files are
        transparent = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), transparent)
    return np.array(upright.convert("RGB"))


def _from_tensor(image: Tensor) -> NDArray[np.uint8]:
    pixels = image[0] if image.ndim == 4 and len(image) == 1 else image
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.numel() == 0:
        raise PatchwordError(
            f"image has shape {tuple(image.shape)}; it must be (3, height, width) or (1, 3, height, width)"
        )
    if pixels.is_floating_point():
        if not (float(pixels.min()) >= 0 and float(pixels.max()) <= 1):
            raise PatchwordError("image has values outside [0, 1]; use floats in [0, 1], or uint8")
        pixels = (pixels.detach().float() * 255).round().to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise PatchwordError(f"image is {pixels.dtype}; use floats in [0, 1], or uint8")
    return pixels.permute(1, 2, 0).cpu().numpy()


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
    would see. Only where windows are merged by their logits, and the side is no shorter than a window, does it stay
    as it is, as the protocols have it: windows are whole patches then, and may begin at any pixel. Where windows are
    merged by their features, they lie on one grid of patches, and the stride is rounded down to whole patches (at least
    one). With `partial_patches` "stretch" every side of a patch or more stays as it is, and windows need not be whole
    patches.

    Args:
        size: (height, width) in pixels of the image.
        settings: sizes, window, stride, and whether features or logits are merged.
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
    """The (height, width) at which a model sees an image; see `inference_windows`."""
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


@dataclass(frozen=True, eq=False)
class SeenImage:
    """An image (h, w, 3) uint8, and the size and the windows that it is seen at."""

    pixels: NDArray[np.uint8]
    plan: WindowPlan
    _uploaded: dict[torch.device, Tensor] = field(default_factory=dict, kw_only=True, repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def on(self, device: torch.device) -> Tensor:
        """The image (3, h, w) uint8 on a device, copied there once."""
        if device not in self._uploaded:
            self._uploaded[device] = upload(self.pixels, device=device)
        return self._uploaded[device]


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


def _as_it_is(maps: Tensor) -> Tensor:
    return maps


class FeatureMerge:
    """Features of windows, averaged where windows overlap and brought back to unit length.

    Args:
        plan: windows that begin at whole patches.
        patch_size: side of a patch in pixels.
        keep: unit patch vectors (d, h, w) of the whole -> what is kept of them, such as scores (n, h, w).
    """

    def __init__(self, plan: WindowPlan, *, patch_size: int, keep: Callable[[Tensor], Tensor] = _as_it_is) -> None:
        self._plan = plan
        self._patch_size = patch_size
        self._keep = keep
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

    def kept(self) -> tuple[Tensor, ...]:
        """What is kept of the whole, once every window is in."""
        if self._features is None:
            raise ValueError("no window has been added")
        # a mean and a sum of vectors have one direction
        whole = functional.normalize(self._features, dim=0) if len(self._plan) > 1 else self._features
        return (self._keep(whole),)


_LEAST_SHARE = 1e-4  # what a class that is nowhere counts as


class WindowMerge:
    """Features of windows, each for itself, so that their scores can be averaged at every pixel; see `WindowScores`.

    Args:
        plan: the windows.
        keep: unit patch vectors (d, h, w) of a window -> what is kept of them, such as scores (n, h, w).
    """

    def __init__(self, plan: WindowPlan, *, keep: Callable[[Tensor], Tensor] = _as_it_is) -> None:
        self._plan = plan
        self._keep = keep
        self._kept: dict[int, Tensor] = {}

    def add(self, place: int, patches: Tensor) -> None:
        """Take in the features (d, h, w) of the window at a place of the plan."""
        self._kept[place] = self._keep(patches)

    def kept(self) -> tuple[Tensor, ...]:
        """What is kept of each window in the order of the plan, once every window is in."""
        return tuple(self._kept[place] for place in range(len(self._plan)))


def joins_windows_by_logits(settings: SegmentSettings) -> bool:
    """Whether windows are joined by their scores at pixels, as the benchmark protocols do, not by their features."""
    return settings.join == "logits" and (settings.window is not None or settings.partial_patches == "stretch")


def pixel_scores(
    scores: Sequence[Tensor], *, image: SeenImage, settings: SegmentSettings, temperature: float
) -> PixelScores:
    """Scores at any pixel of an image, from those (n, h, w) on the patches of the whole or of each window."""
    if settings.class_prior:
        scores = with_class_prior(scores, weight=settings.class_prior, temperature=temperature)
    if joins_windows_by_logits(settings):
        return WindowScores(torch.stack(list(scores)), plan=image.plan, size=image.size)  # (windows, n, h, w)
    (whole,) = scores
    return GridScores(whole, image.size)


def with_class_prior(scores: Sequence[Tensor], *, weight: float, temperature: float) -> list[Tensor]:
    """Add weight x temperature x log share to every map, its share being the mean over the patches of all windows of
    the softmax over maps. Source: logit adjustment (arXiv 2007.07314), with the image's own shares and either sign.

    Args:
        scores: (n, h, w) of each window.
        weight: 0 leaves them as they are.
        temperature: of the softmax.
    """
    shares = torch.cat([(window / temperature).softmax(dim=0).flatten(1) for window in scores], dim=1).mean(dim=1)
    added = weight * temperature * shares.clamp(min=_LEAST_SHARE).log()  # (n,)
    return [window + added[:, None, None] for window in scores]
