"""ProxyCLIP: CLIP's patch values, gathered by how similar the patches look to another vision encoder."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.clip import ClipEncoder
from patchword.models.common import to_map, unit
from patchword.models.pixels import nearest_multiple, resize
from patchword.models.protocols import PatchEncoder, check_images

MOST_VALUES = 2**24  # similarities in memory at once; bounds memory, changes no result


class ProxyClip:
    """Images to ProxyCLIP's patch vectors in CLIP's text space, on the grid of a vision encoder.

    Of CLIP's last layer only the values are taken, v = v_proj(layer_norm1(x)) without the class token; they are resized
    bilinearly (corners not aligned) from CLIP's grid to the vision encoder's and attend by its features:
    out_proj(softmax(B) v) with B of `proxy_attention`, the same for all heads. No residual, no MLP; final layer norm,
    projection and unit length follow.

    Args:
        clip: the image-text model.
        encoder: gives the features; those of DINO and DINOv2 are the last layer's patch tokens after the final layer
            norm, as ProxyCLIP takes them.
        beta: how far above the mean similarity two patches must be to see each other, 0 and more; higher is stricter.
        gamma: factor of the logits, above 0; higher gathers from the most similar patches only.
    """

    def __init__(self, clip: ClipEncoder, *, encoder: PatchEncoder, beta: float = 1.2, gamma: float = 3.0) -> None:
        if not (beta >= 0 and gamma > 0):
            raise PatchwordError(f"beta must be at least 0 and gamma above 0, not {beta} and {gamma}")
        self.clip = clip
        self.encoder = encoder
        self.beta = beta
        self.gamma = gamma

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Encode every patch of the vision encoder's grid.

        The vision encoder sees the images as they are, CLIP sees them resized (bilinear, antialiased) to the nearest
        whole number of its own patches.

        Args:
            images: (b, 3, h, w), RGB in [0, 1], sides multiples of the vision encoder's patch.

        Returns:
            (b, d, h/patch, w/patch) float32, unit length along d.
        """
        check_images(images, multiple_of=self.encoder.record.patch_size)
        features = self.encoder(images).to(self.clip.device)  # (b, D, h, w)
        grid = (features.shape[-2], features.shape[-1])
        mixed = proxy_attention(features, self._values(images, grid=grid), beta=self.beta, gamma=self.gamma)
        attention = self.clip.model.vision_model.encoder.layers[-1].self_attn
        tokens = attention.out_proj(mixed.to(self.clip.dtype))
        return to_map(unit(self.clip.to_text_space(tokens)), grid=grid)

    def _values(self, images: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """CLIP's values (b, h * w, c) float32 on the vision encoder's grid."""
        patch = self.clip.record.patch_size
        height, width = (nearest_multiple(side, of=patch) for side in images.shape[-2:])
        pixels = resize(images.to(self.clip.device), size=(height, width), mode="bilinear")
        hidden = self.clip.before_last_layer(pixels)
        last = self.clip.model.vision_model.encoder.layers[-1]
        values = to_map(
            last.self_attn.v_proj(last.layer_norm1(hidden[:, 1:])), grid=(height // patch, width // patch)
        )  # (b, c, rows, columns)
        return functional.interpolate(values, size=grid, mode="bilinear", align_corners=False).flatten(2).mT


def proxy_attention(
    features: Tensor, values: Tensor, *, beta: float, gamma: float, most_values: int = MOST_VALUES
) -> Tensor:
    """ProxyCLIP's attention, softmax(B) v.

    With A the cosine similarity between all patches of an image and m its mean over all n * n pairs, B is
    gamma (A - beta m) where that is not negative and minus infinity elsewhere; the softmax is over the second patch.
    A patch always sees itself: where even its similarity with itself is below beta m, so that it would see nothing, it
    keeps its own value.

    The mean is the squared length of the mean unit feature, so that the matrix is never needed whole: it is made, used
    and let go some rows at a time, and once for all heads.

    Args:
        features: (b, D, h, w) of the vision encoder, any length.
        values: (b, h * w, c) float32.
        beta, gamma: as of `ProxyClip`.
        most_values: similarities in memory at once; at least one row is.

    Returns:
        (b, h * w, c) float32.
    """
    images, count = len(values), values.shape[1]
    vectors = unit(features.flatten(2).mT)  # (b, n, D)
    floor = beta * vectors.mean(dim=1).square().sum(dim=-1)[:, None, None]  # (b, 1, 1)
    rows = max(1, most_values // (images * count))
    mixed = torch.empty_like(values)
    for top in range(0, count, rows):
        part = vectors[:, top : top + rows]
        logits = (part @ vectors.mT - floor) * gamma  # (b, rows, n)
        logits.masked_fill_(logits < 0, -torch.inf)
        own = torch.arange(part.shape[1], device=logits.device)
        itself = logits[:, own, top + own]
        logits[:, own, top + own] = itself.masked_fill(itself == -torch.inf, 0.0)
        mixed[:, top : top + rows] = logits.softmax(dim=-1) @ values
    return mixed
