"""The miniature SAM before training: its shape, weights to start from, and how it is saved."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from patchword.errors import PatchwordError

SIDE = 192
_PATCH = 8
_WIDTH = 128
_DECODER_WIDTH = 64
_PREPROCESSOR = {
    "image_processor_type": "SamImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"longest_edge": SIDE},
    "mask_size": {"longest_edge": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_pad": True,
    "pad_size": {"height": SIDE, "width": SIDE},
    "mask_pad_size": {"height": SIDE, "width": SIDE},
}


def to_input(images: NDArray[np.uint8]) -> Tensor:
    """Bring (b, h, w, 3) pictures to the miniature's input (b, 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def build_sam() -> Any:
    """Build the untrained miniature: a `SamModel` of 1.5 M parameters for 192-pixel images, masks of 96 pixels.

    Its weights come from torch's global random state.
    """
    from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=_WIDTH,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=SIDE,
        patch_size=_PATCH,
        window_size=8,
        global_attn_indexes=[2, 5],
        use_rel_pos=False,
        output_channels=_DECODER_WIDTH,
        num_pos_feats=_DECODER_WIDTH // 2,
        mlp_dim=4 * _WIDTH,
        initializer_range=0.08,
    )
    # The scale of the random Fourier features of places: the default grows with the width, too fine for a miniature.
    vision.scale = 2.0
    prompt = SamPromptEncoderConfig(
        hidden_size=_DECODER_WIDTH, image_size=SIDE, patch_size=_PATCH, mask_input_channels=16
    )
    decoder = SamMaskDecoderConfig(
        hidden_size=_DECODER_WIDTH,
        mlp_dim=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        iou_head_hidden_dim=128,
    )
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    _start_decoder(model)
    _start_encoder(model.vision_encoder)
    return model


@torch.no_grad()
def start_patches(model: Any, images: NDArray[np.uint8]) -> None:
    """Start the patch embedding as the principal components of patches, weak ones raised a little.

    With plain random filters the outlines within patches take long to appear; were all components made equally strong,
    the colour of a patch would drown in its grain.

    Args:
        model: a `SamModel`.
        images: (b, h, w, 3) pictures to take the patches from.
    """
    projection = model.vision_encoder.patch_embed.projection
    side = projection.kernel_size[0]
    patches = F.unfold(to_input(images), side, stride=side).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(0)
    variances, directions = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    keep = slice(-projection.out_channels, None)
    filters = (directions[:, keep] / (variances[keep] + 1e-3) ** 0.1).T
    # Turned at random, no channel of the residual stream is louder than another.
    turn, _ = torch.linalg.qr(torch.randn(len(filters), len(filters)))
    filters = turn @ filters
    filters = filters / (patches @ filters.T).std()
    projection.weight.copy_(filters.reshape(projection.weight.shape))
    projection.bias.copy_(-filters @ mean)


def load_sam(folder: Path) -> Any:
    """Read a saved miniature as a float32 `SamModel`.

    Raises:
        PatchwordError: on a folder without a model.
    """
    from transformers import SamModel

    if not (folder / "config.json").is_file():
        raise PatchwordError(f"no miniature SAM in {folder}; a folder with config.json and model.safetensors is needed")
    with _without_bars():
        return SamModel.from_pretrained(folder, dtype=torch.float32)


def save_sam(model: Any, out: Path) -> None:
    """Save a miniature in the hub's format, weights in float16.

    Args:
        model: a `SamModel`.
        out: folder, made if absent; config.json, model.safetensors and preprocessor_config.json there are replaced,
            each whole.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        with _without_bars():
            copy.deepcopy(model).half().save_pretrained(folder)
        preprocessor = Path(folder) / "preprocessor_config.json"
        preprocessor.write_text(json.dumps(_PREPROCESSOR, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for path in Path(folder).iterdir():
            path.replace(out / path.name)


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep transformers' progress bars, of a file that takes no time, out of the log."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            logging.enable_progress_bar()


@torch.no_grad()
def _start_decoder(model: Any) -> None:
    """Give prompts a say from the first step; the weights of a fresh `SamModel` leave all its masks alike."""
    for part in [*model.mask_decoder.modules(), *model.prompt_encoder.modules()]:
        if isinstance(part, nn.Embedding):
            # Quieter than the places, so that a token is first of all where its prompt points.
            part.weight.normal_(std=0.2)
    for part in model.mask_decoder.modules():
        if isinstance(part, nn.Linear):
            part.weight.normal_(std=part.in_features**-0.5)
            part.bias.zero_()
        elif isinstance(part, nn.ConvTranspose2d):
            part.weight.normal_(std=(2 / part.in_channels) ** 0.5)
            nn.init.zeros_(part.bias)  # type: ignore[arg-type]
    for name, part in model.mask_decoder.transformer.named_modules():
        if name.endswith(("token_to_image", "image_to_token", "self_attn")):
            _start_attention(part, gain=0.4 if name.endswith("self_attn") else 1.6)


def _start_attention(part: Any, *, gain: float) -> None:
    """Let like attend to like, and hand on what is there.

    A place and a point embed alike, as sines and cosines of the same frequencies: with equal projections a prompt
    attends to its own surroundings, and as values pass nearly unchanged it knows at once what it points at.
    """
    inner = part.internal_dim
    # Every head gets the sine and the cosine of its share of the frequencies.
    frequencies = torch.arange(inner // 2).view(part.num_attention_heads, -1)
    chosen = torch.cat([frequencies, frequencies + _DECODER_WIDTH // 2], 1).flatten()
    part.q_proj.weight.copy_(gain * torch.eye(_DECODER_WIDTH)[chosen])
    part.k_proj.weight.copy_(part.q_proj.weight)
    nn.init.orthogonal_(part.v_proj.weight)
    part.out_proj.weight.copy_(part.v_proj.weight.T)


@torch.no_grad()
def _start_encoder(encoder: Any) -> None:
    """Tell places apart from the start, and begin with layers that change little."""
    encoder.pos_embed.copy_(_waves(SIDE // _PATCH, _WIDTH))
    for layer in encoder.layers:
        layer.attn.proj.weight.mul_(0.3)
        layer.mlp.lin2.weight.mul_(0.3)
    # The neck hands on what it gets, a little blurred: places of one colour lie close together from the start.
    nn.init.orthogonal_(encoder.neck.conv1.weight.view(_DECODER_WIDTH, _WIDTH))
    blur = torch.tensor([[1.0, 2.0, 1.0], [2.0, 8.0, 2.0], [1.0, 2.0, 1.0]]) / 20
    encoder.neck.layer_norm2.weight.fill_(0.3)
    encoder.neck.conv2.weight.copy_(torch.eye(_DECODER_WIDTH)[:, :, None, None] * blur)


def _waves(side: int, width: int) -> Tensor:
    """Sines and cosines of both coordinates, (1, side, side, width)."""
    angles = torch.arange(side)[:, None] * torch.exp(torch.linspace(0, -4, width // 4))
    axis = 0.3 * torch.cat([angles.sin(), angles.cos()], 1)  # (side, width / 2)
    rows, columns = axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)
    return torch.cat([rows, columns], 2)[None]
