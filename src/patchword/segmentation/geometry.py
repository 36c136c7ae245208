"""The image that a caller passes, in whatever form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from patchword.data.images import read_image
from patchword.errors import PatchwordError

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
            raise PatchwordError(f"image is {image.dtype} of shape {image.shape}; allowed is uint8 (height, width, 3)")
        return image if image.flags.writeable else image.copy()  # torch takes no array that cannot be written
    kind = type(image).__name__
    raise PatchwordError(f"image is a {kind}; allowed are a path, a Pillow image, an array and a tensor")


def _from_pillow(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F" or image.mode.startswith("I"):
        raise PatchwordError(f"Pillow image has mode {image.mode}; allowed are 8-bit modes, or the path of its file")
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:  # over white, as photographs from files are
        transparent = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), transparent)
    return np.array(upright.convert("RGB"))


def _from_tensor(image: Tensor) -> NDArray[np.uint8]:
    pixels = image[0] if image.ndim == 4 and len(image) == 1 else image
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.numel() == 0:
        raise PatchwordError(
            f"image has shape {tuple(image.shape)}; allowed is (3, height, width), or that with a 1 before"
        )
    if pixels.is_floating_point():
        if not (float(pixels.min()) >= 0 and float(pixels.max()) <= 1):
            raise PatchwordError("image has values outside [0, 1]; allowed are floats in [0, 1], or uint8")
        pixels = (pixels.detach().float() * 255).round().to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise PatchwordError(f"image is {pixels.dtype}; allowed are floats in [0, 1], or uint8")
    return pixels.permute(1, 2, 0).cpu().numpy()
