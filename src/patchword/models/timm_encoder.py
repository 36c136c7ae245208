"""Any timm model with feature maps as a patch encoder: `timm:NAME`, or `timm:FOLDER` in timm's own hub format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchword.errors import PatchwordError, first_line
from patchword.models.batching import is_out_of_memory
from patchword.models.checkpoint import fingerprint, import_library, read_json, weights_files
from patchword.models.pixels import antialiasing_on, normalise
from patchword.models.protocols import ModelRecord, check_images
from patchword.models.registry import CONFIG, IMAGENET_MEAN, IMAGENET_STD, TIMM, Kind


class TimmEncoder:
    """`PatchEncoder` around a timm model: the last of its feature maps, after its final norm where it has one for maps.

    Args:
        model: with `forward_intermediates` and `feature_info`, in evaluation mode.
        record: what is known of the checkpoint.
        device, dtype: of the weights.
        norm: whether the model can norm the map.
    """

    def __init__(
        self, model: Any, *, record: ModelRecord, device: torch.device, dtype: torch.dtype, norm: bool = True
    ) -> None:
        self.model = model
        self.record = record
        self.device = device
        self.dtype = dtype
        self._norm = norm

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode images to the model's last feature map.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the model's stride (`patch_size`).

        Returns:
            (b, D, h/patch, w/patch) float32, not normalised to unit length.
        """
        check_images(images, multiple_of=self.record.patch_size)
        pixels = normalise(images.float().to(self.device), mean=self.record.mean, std=self.record.std)
        height, width = images.shape[-2:]
        try:
            with antialiasing_on(self.device):
                features = last_map(self.model, pixels.to(self.dtype), norm=self._norm)
        except (AssertionError, RuntimeError, ValueError) as error:  # as each architecture checks its input
            if is_out_of_memory(error):
                raise
            raise PatchwordError(
                f"{self.record.name} cannot encode images of {height} x {width} pixels: {first_line(error)}; it was "
                f"trained on {self.record.input_size} x {self.record.input_size}"
            ) from error
        return features.float()


def load(
    name: str, *, folder: Path, revision: str | None, kind: Kind, device: torch.device, dtype: torch.dtype
) -> TimmEncoder:
    """Load a timm checkpoint.

    Args:
        name: as the user gave it, with its prefix.
        folder: with timm's config.json and model.safetensors.
        revision: hub commit; None for a local folder.
        kind: "patch", the only role.
        device, dtype: of the weights.
    """
    timm = import_library(TIMM, name=name)
    weights_files(folder)
    if "architecture" not in read_json(folder / CONFIG):
        raise PatchwordError(f"{folder / CONFIG} names no architecture; give a checkpoint in timm's hub format")
    model = _create(timm, folder, name=name).eval().requires_grad_(False)
    stated = dict(model.pretrained_cfg)
    if not (hasattr(model, "forward_intermediates") and getattr(model, "feature_info", None)):
        raise PatchwordError(f"{name} gives no feature maps; use timm models with `forward_intermediates`")
    last = model.feature_info[-1]
    record = ModelRecord(
        family="timm",
        name=name if revision else f"timm:{folder.resolve()}",
        revision=revision,
        fingerprint=fingerprint(folder),
        patch_size=int(last["reduction"]),
        dim=int(last["num_chs"]),
        mean=_three(stated.get("mean", IMAGENET_MEAN)),
        std=_three(stated.get("std", IMAGENET_STD)),
        input_size=int(stated.get("input_size", (3, 224, 224))[-1]),
        licence=str(stated.get("license") or ""),
    )
    norm = _try(model, record=record)
    return TimmEncoder(model.to(device=device, dtype=dtype), record=record, device=device, dtype=dtype, norm=norm)


def last_map(model: Any, pixels: Tensor, *, norm: bool) -> Tensor:
    """The last feature map (b, D, h, w) of a timm model."""
    maps = model.forward_intermediates(pixels, indices=1, norm=norm, output_fmt="NCHW", intermediates_only=True)
    last: Tensor = maps[-1]
    return last


def _create(timm: Any, folder: Path, *, name: str) -> Any:
    """The model with its weights; where its kind can, for images of any size."""
    try:
        try:
            return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, dynamic_img_size=True)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
            return timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    except Exception as error:  # each architecture and each damaged config fails in its own way
        raise PatchwordError(f"{name} cannot be loaded by timm: {first_line(error)}") from error


@torch.no_grad()
def _try(model: Any, *, record: ModelRecord) -> bool:
    """Whether the model norms its map, found by encoding one image of its own size; its sizes are checked, too."""
    pixels = torch.zeros(1, 3, record.input_size, record.input_size)
    try:
        norm, features = True, last_map(model, pixels, norm=True)
    except AssertionError:  # its way of saying that it has no norm for maps
        norm, features = False, last_map(model, pixels, norm=False)
    cells = record.input_size // record.patch_size
    if tuple(features.shape) != (1, record.dim, cells, cells):
        raise PatchwordError(
            f"{record.name} gives a map of shape {tuple(features.shape)} where {(1, record.dim, cells, cells)} is due; "
            "use timm models whose last map has the stride and channels that `feature_info` states"
        )
    return norm


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third
