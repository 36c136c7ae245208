"""Pixels into a model and patch tokens out of it: resizing, normalising, padding, positions, points, maps.

Interpolation is antialiased, so that it agrees with Pillow's filters, but where a caller wants it otherwise; it always
runs in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from patchword.models.registry import Filter


def resize(images: Tensor, *, size: tuple[int, int], mode: Filter = "bicubic", antialias: bool = True) -> Tensor:
    """Resize images, values kept in [0, 1].

    Args:
        images: (b, 3, h, w), values in [0, 1].
        size: (height, width) in pixels of the result.
        mode: filter; agrees with Pillow's of the same name to one level of 255, and to a few where bicubic overshoots.
        antialias: without it, the filter agrees with OpenCV's of the same name.

    Returns:
        (b, 3, height, width) float32.
    """
    images = images.float()
    if tuple(images.shape[-2:]) == tuple(size):
        return images.clamp(0, 1)
    source = images.cpu() if images.device.type == "mps" else images  # MPS has no antialiased filters in every torch
    resized = functional.interpolate(source, size=size, mode=mode, antialias=antialias, align_corners=False)
    return resized.clamp(0, 1).to(images.device)  # bicubic overshoots at edges


_BAND = 64  # rows of a photograph, so that what is made of them stays in a processor's cache; changes no result


def resizing_device(device: torch.device) -> torch.device:
    """Where photographs for a model on a device are resized: there, but MPS has no antialiasing in every torch."""
    return torch.device("cpu") if device.type == "mps" else device


def upload(pixels: NDArray[np.uint8], *, device: torch.device) -> Tensor:
    """A photograph (h, w, 3) as (3, h, w) uint8 on a device: one copy of its bytes, which CUDA need not wait for."""
    host = torch.from_numpy(np.ascontiguousarray(pixels))
    if device.type == "cuda":
        host = host.pin_memory()
    return host.to(device, non_blocking=device.type == "cuda").permute(2, 0, 1)


def to_floats(photograph: Tensor) -> Tensor:
    """A photograph (3, h, w) uint8 as (1, 3, h, w) float32 in [0, 1]."""
    return photograph[None].float().div_(255)


def resize_photograph(
    photograph: Tensor, *, size: tuple[int, int], mode: Filter = "bicubic", antialias: bool = True
) -> Tensor:
    """What `resize` makes of `to_floats`, without all of the photograph as floats in memory where the CPU does it.

    Antialiased filters mix columns before rows, and leave rows as they are where their number does not change: so rows
    are brought to the width some at a time.

    Args:
        photograph: (3, h, w) uint8.
        size, mode, antialias: as of `resize`.

    Returns:
        (1, 3, height, width) float32, the same bytes.
    """
    if not antialias or photograph.device.type != "cpu":
        return resize(to_floats(photograph), size=size, mode=mode, antialias=antialias)
    sides = (photograph.shape[1], photograph.shape[2])
    return resize_bands(lambda rows: to_floats(photograph[:, rows]), sides=sides, size=size, mode=mode)


def resize_bands(
    band: Callable[[slice], Tensor], *, sides: tuple[int, int], size: tuple[int, int], mode: Filter = "bicubic"
) -> Tensor:
    """What `resize` makes of an image that is made some rows at a time, in floats.

    Args:
        band: rows -> (1, 3, rows, w) float32 in [0, 1], on the CPU.
        sides: (height, width) in pixels of the image.
        size, mode: as of `resize`.
    """
    high, wide = sides
    if high <= _BAND or wide == size[1]:
        return resize(band(slice(0, high)), size=size, mode=mode)
    bands = (band(slice(top, min(top + _BAND, high))) for top in range(0, high, _BAND))
    widths = [
        functional.interpolate(part, size=(part.shape[2], size[1]), mode=mode, antialias=True, align_corners=False)
        for part in bands
    ]
    whole = torch.cat(widths, dim=2)  # not in [0, 1] yet where bicubic overshoots
    if high != size[0]:
        whole = functional.interpolate(whole, size=size, mode=mode, antialias=True, align_corners=False)
    return whole.clamp(0, 1)


def resize_uint8(pixels: NDArray[np.uint8], *, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Resize an image in whole numbers, bilinearly without antialiasing, bit for bit as OpenCV resizes 8-bit images.

    Weights are rounded to 2048ths, rows are mixed before columns, and four bits are dropped in between.

    Args:
        pixels: (h, w, c).
        size: (height, width) in pixels of the result.

    Returns:
        (height, width, c).

    Source: what `resize` of OpenCV 4 gives for INTER_LINEAR, with which the toolboxes of the benchmarks resize.
    """
    if pixels.shape[:2] == tuple(size):
        return pixels
    left, right, at_left, at_right = _eleven_bits(cells=pixels.shape[1], pixels=size[1], one_sided=True)
    wide = pixels[:, left] * at_left[:, None] + pixels[:, right] * at_right[:, None]  # (h, width, c), below 2 ** 19
    wide >>= 4
    above, below, at_above, at_below = _eleven_bits(cells=pixels.shape[0], pixels=size[0], one_sided=False)
    mixed = (wide[above] * at_above[:, None, None] >> 16) + (wide[below] * at_below[:, None, None] >> 16)
    return ((mixed + 2) >> 2).clip(0, 255).astype(np.uint8)


def _eleven_bits(
    *, cells: int, pixels: int, one_sided: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
    """The cell before and the cell after each pixel, and the weights of both in 2048ths."""
    position = ((np.arange(pixels) + 0.5) * (1 / (pixels / cells)) - 0.5).astype(np.float32)
    before = np.floor(position).astype(np.int64)
    share = position - before.astype(np.float32)  # single precision, on which the rounding below depends
    if one_sided:
        share[(before < 0) | (before >= cells - 1)] = 0
    weights = [np.rint(part * np.float32(2048)).astype(np.int32) for part in (np.float32(1) - share, share)]
    return before.clip(0, cells - 1), (before + 1).clip(0, cells - 1), weights[0], weights[1]


class AntialiasedInterpolation(TorchFunctionMode):
    """While it lasts, antialiased interpolation of this thread is computed by another function.

    Args:
        instead: takes all that `torch.nn.functional.interpolate` takes.
    """

    def __init__(self, instead: Callable[..., Tensor]) -> None:
        super().__init__()
        self._instead = instead

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.interpolate and kwargs.get("antialias"):
            return self._instead(*args, **kwargs)
        return func(*args, **kwargs)


def antialiasing_on(device: torch.device) -> AbstractContextManager[object]:
    """A block in which other libraries' models may interpolate with antialiasing: on MPS the CPU does it."""
    return AntialiasedInterpolation(_interpolate_on_cpu) if device.type == "mps" else nullcontext()


def _interpolate_on_cpu(values: Tensor, *rest: Any, **named: Any) -> Tensor:
    return functional.interpolate(values.cpu(), *rest, **named).to(values.device)


def nearest_multiple(length: float, *, of: int) -> int:
    """Round a length in pixels to the nearest positive whole multiple of the patch, halves up."""
    return max(1, int(length / of + 0.5)) * of


def model_size(size: tuple[int, int], *, image_size: int, patch_size: int) -> tuple[int, int]:
    """The size at which a model sees an image: as many pixels as a square of `image_size`, proportions kept.

    So a model sees about as many patches as in training, whatever the image's shape, and its cost is bounded. Each side
    is rounded to the nearest whole number of patches, and none has more patches than the whole square.

    Args:
        size: (height, width) in pixels of the image.
        image_size: side in pixels of the square.
        patch_size: side of a patch in pixels.

    Returns:
        (height, width) in pixels, positive multiples of the patch.
    """
    scale = image_size / math.sqrt(size[0] * size[1])
    longest = nearest_multiple(image_size, of=patch_size) ** 2 // patch_size
    height, width = (min(nearest_multiple(side * scale, of=patch_size), longest) for side in size)
    return height, width


def normalise(images: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract the mean and divide by the standard deviation, channel by channel.

    Args:
        images: (b, c, h, w), values in [0, 1].
        mean, std: one number a channel, in the same scale.

    Returns:
        (b, c, h, w).
    """
    shape = (1, len(mean), 1, 1)
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)


def pad_bottom_right(images: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Pad with zeros below and to the right.

    Args:
        images: (b, c, h, w) with h and w at most those of `size`.
        size: (height, width) in pixels of the result.

    Returns:
        (b, c, height, width).
    """
    height, width = images.shape[-2:]
    return functional.pad(images, (0, size[1] - width, 0, size[0] - height))


def longest_side_size(size: tuple[int, int], *, target: int) -> tuple[int, int]:
    """Scale (height, width) so that the longer side is `target` pixels, rounding half up, no side below 1.

    Source: ResizeLongestSide of Segment Anything, which rounds in the same way.
    """
    scale = target / max(size)
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def map_points(points: Tensor, *, image_size: tuple[int, int], input_size: tuple[int, int]) -> Tensor:
    """Carry points from pixels of the image to pixels of the resized input.

    Args:
        points: (..., 2) as x, y in pixels of the image.
        image_size, input_size: (height, width) in pixels before and after resizing.

    Returns:
        (..., 2) float32, x and y each scaled by its own ratio, as Segment Anything does.
    """
    scale = (input_size[1] / image_size[1], input_size[0] / image_size[0])
    return points.float() * points.new_tensor(scale, dtype=torch.float32)


def crop_logits(logits: Tensor, *, valid: tuple[float, float]) -> Tensor:
    """Keep the part of low-resolution logits that covers the unpadded input.

    The valid size is a fraction of a cell where the resized image does not end at a cell's border. Then the valid part
    is resampled bilinearly to the next whole number of cells, so that the result covers exactly the valid part.

    Args:
        logits: (n, m, h, w).
        valid: (height, width) in cells, each in (0, h] and (0, w].

    Returns:
        (n, m, ceil(height), ceil(width)).
    """
    return _crop_axis(_crop_axis(logits, valid=valid[0], dim=-2), valid=valid[1], dim=-1)


@dataclass(frozen=True)
class MaskFrame:
    """Where an image lies in the square that SAM's low-resolution masks cover.

    Attributes:
        side: of the square, the model's padded input, in pixels.
        input_size: (height, width) in pixels of the resized image in its top left corner.
    """

    side: int
    input_size: tuple[int, int]


def full_logits(logits: Tensor, *, size: tuple[int, int], frame: MaskFrame | None = None) -> Tensor:
    """Bring low-resolution mask logits to the pixels of an image, bilinearly.

    Args:
        logits: (n, h', w') over the image, or over the whole square of a frame.
        size: (height, width) in pixels of the result.
        frame: enlarge to its square first, leave out the padding, and bring the rest to the size, as Segment Anything
            does; so that what the padding says shows in the last pixels before it.

    Returns:
        (n, height, width) float32.
    """
    full = logits[:, None].float()
    if not len(full):
        return full.new_zeros(0, *size)
    if frame is not None:
        full = _bilinear(full, size=(frame.side, frame.side))[..., : frame.input_size[0], : frame.input_size[1]]
    return _bilinear(full, size=size)[:, 0]


def _bilinear(maps: Tensor, *, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size, mode="bilinear", align_corners=False)


def _crop_axis(logits: Tensor, *, valid: float, dim: int) -> Tensor:
    count = math.ceil(valid)
    if count == valid:
        return logits.narrow(dim, 0, count)
    cells = torch.arange(count, device=logits.device, dtype=torch.float32)
    position = ((cells + 0.5) * (valid / count) - 0.5).clamp(min=0)
    lower = position.floor().long()
    upper = (lower + 1).clamp(max=logits.shape[dim] - 1)
    weight = (position - lower).to(logits.dtype)
    weight = weight[:, None] if dim == -2 else weight
    return torch.lerp(logits.index_select(dim, lower), logits.index_select(dim, upper), weight)


def unit(vectors: Tensor, *, dim: int = -1) -> Tensor:
    """Scale vectors to unit length along a dimension, in float32."""
    return functional.normalize(vectors.float(), dim=dim)


def compute_type(adapter: object) -> torch.dtype:
    """The type that an adapter's model computes in; float32 where it does not tell."""
    told = getattr(adapter, "dtype", getattr(getattr(adapter, "model", None), "dtype", None))
    return told if isinstance(told, torch.dtype) else torch.float32


def to_map(tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
    """Lay patch tokens (b, h * w, c), in reading order, out as a map (b, c, h, w) in float32."""
    batch, _, channels = tokens.shape
    return tokens.float().transpose(1, 2).reshape(batch, channels, *grid)  # (b, c, h, w)


def interpolate_positions(positions: Tensor, *, grid: tuple[int, int], offset: float = 0.0) -> Tensor:
    """Resample learned position embeddings to another grid, bicubically, without antialiasing, in float32.

    transformers does the same in the weights' own type, where bfloat16 shifts the embeddings.

    Args:
        positions: (n, c) of a square grid in reading order.
        grid: (h, w) in patches.
        offset: patches that are added to each side of the grid before the scale is taken from it, 0 or more. With 0 the
            table is stretched over the grid exactly. DINO's code adds 0.1 against a rounding error, which makes the
            scale (h + 0.1) / sqrt(n) where h / sqrt(n) is meant, and much code has it from there; it moves the sampling
            points by up to a hundredth of a patch.

    Returns:
        (h * w, c) in the type of the positions.
    """
    count, channels = positions.shape
    trained = round(count**0.5)
    if grid == (trained, trained):
        return positions
    table = positions.float().T.reshape(1, channels, trained, trained)
    if offset == 0:
        resampled = functional.interpolate(table, size=grid, mode="bicubic", align_corners=False)
    else:
        scale = ((grid[0] + offset) / trained, (grid[1] + offset) / trained)
        resampled = functional.interpolate(
            table, scale_factor=scale, mode="bicubic", align_corners=False, recompute_scale_factor=False
        )
    return resampled[0].flatten(1).T.to(positions.dtype)
