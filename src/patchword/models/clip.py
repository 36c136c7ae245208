"""CLIP: images and words in one space, and patches brought there by a changed last layer or through ProxyCLIP.

CLIP learns only its class token; in the last layer every patch attends to the same few places and forgets where it is.
Each variant below replaces that layer for the patch tokens and leaves all layers before it as they are. With x the
layer's input, y = layer_norm1(x), and q, k, v the layer's projections of y split in heads of size e:

| variant | attention | residual and MLP | source |
|---|---|---|---|
| value | identity | none | patchword's own reading of MaskCLIP |
| maskclip | identity | both kept | MaskCLIP (Zhou et al., arXiv 2112.01071) |
| sclip | softmax(q q^T / sqrt e) + softmax(k k^T / sqrt e) | both kept | SCLIP (Wang et al., arXiv 2312.01597) |
| clearclip | softmax(q q^T / sqrt e) | none | ClearCLIP (Lan et al., arXiv 2407.12442) |
| naclip | softmax(k k^T / sqrt e + neighbourhood) | none | NACLIP (Hajimiri et al., arXiv 2404.08181) |
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.checkpoint import Adapter, Loaded, load_tokenizer, side_of
from patchword.models.image_text import DualEncoder
from patchword.models.pixels import interpolate_positions, nearest_multiple, normalise, resize, to_map, unit
from patchword.models.protocols import ModelRecord, PatchEncoder, check_images
from patchword.models.registry import Dense, Filter

MOST_VALUES = 2**24  # similarities in memory at once; bounds memory, changes no result


class ClipEncoder(DualEncoder):
    """`ImageTextEncoder` around a transformers `CLIPModel`.

    Args:
        model: a `CLIPModel` in evaluation mode on its device, its text side in float32, its image side in any type.
        tokenizer: its tokenizer.
        record: what is known of the checkpoint.
        resample: filter that resizes images to the model's input.
        dense: variant of the last layer that `encode_patches` uses, see above.
        spread: standard deviation in patches of NACLIP's neighbourhood, above 0.
        position_offset: how `encode_patches` resamples position embeddings where the grid is not that of the training;
            see `interpolate_positions`. 0 stretches them exactly; the published methods' own code has 0.1.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any,
        record: ModelRecord,
        resample: Filter = "bicubic",
        dense: Dense = "value",
        spread: float = 5.0,
        position_offset: float = 0.0,
    ) -> None:
        super().__init__(model, tokenizer=tokenizer, record=record, resample=resample)
        self.dense: Dense = dense
        self.spread = spread
        self.position_offset = position_offset
        normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        self._lowers = normalizer is not None and normalizer.normalize_str("A") == "a"

    def varied(self, *, dense: Dense, position_offset: float) -> ClipEncoder:
        """The same model, its weights shared, with another path to patch features."""
        return ClipEncoder(
            self.model,
            tokenizer=self.tokenizer,
            record=self.record,
            resample=self.resample,
            dense=dense,
            spread=self.spread,
            position_offset=position_offset,
        )

    def _lowered(self, prompt: str) -> str:
        """In Python's lower case, as OpenAI's tokenizer has it: the fast tokenizer's has no final sigma."""
        return prompt.lower() if self._lowers else prompt

    def _encode_batch(self, prompts: list[str]) -> Tensor:
        tokens = self.tokenizer(
            list(map(self._lowered, prompts)),
            padding=True,
            truncation=True,
            max_length=self.context_length,
            return_tensors="pt",
        )
        output = self.model.get_text_features(
            input_ids=tokens["input_ids"].to(self.device), attention_mask=tokens["attention_mask"].to(self.device)
        )
        features: Tensor = output.pooler_output
        return features

    def image_tokens(self, images: Tensor) -> Tensor:
        """Images (b, 3, h, w) in [0, 1], sides multiples of the patch, to the input (b, 1 + n, c) of the last layer."""
        tower = self.model.vision_model
        pixels = normalise(images, mean=self.record.mean, std=self.record.std).to(self.dtype)
        patches = tower.embeddings.patch_embedding(pixels)  # (b, c, h, w)
        positions = tower.embeddings.position_embedding.weight
        grid = (patches.shape[-2], patches.shape[-1])
        around = interpolate_positions(positions[1:], grid=grid, offset=self.position_offset)
        tokens = patches.flatten(2).transpose(1, 2) + around  # (b, h * w, c)
        first = (tower.embeddings.class_embedding + positions[0]).expand(len(images), 1, -1)
        hidden: Tensor = tower.pre_layrnorm(torch.cat([first, tokens], dim=1))  # (b, 1 + h * w, c)
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        return hidden

    def _image_vectors(self, tokens: Tensor) -> Tensor:
        """Input (b, 1 + n, c) of the last layer to (b, d), by the class token."""
        hidden = self.model.vision_model.encoder.layers[-1](tokens, None)
        return unit(self.to_text_space(hidden[:, 0]))

    def _patch_vectors(self, tokens: Tensor, *, grid: tuple[int, int]) -> Tensor:
        """Input (b, 1 + h * w, c) of the last layer to (b, d, h, w), by the changed layer."""
        last = self.model.vision_model.encoder.layers[-1]
        hidden = dense_last_layer(last, tokens, dense=self.dense, grid=grid, spread=self.spread)
        return to_map(unit(self.to_text_space(hidden[:, 1:])), grid=grid)

    def to_text_space(self, tokens: Tensor) -> Tensor:
        """Tokens (..., c) that the last layer put out to (..., d): final layer norm and projection, no unit length."""
        projected: Tensor = self.model.visual_projection(self.model.vision_model.post_layernorm(tokens))
        return projected


def check_pooled_token(tokenizer: Any, *, pooled: int, where: str) -> None:
    """Refuse a tokenizer whose end token is not the one that CLIP's text tower takes the prompt's vector from.

    With 2, as the oldest configs have it, the tower takes the highest token number of the prompt instead.
    """
    expected = len(tokenizer) - 1 if pooled == 2 else pooled
    if tokenizer.eos_token_id != expected:
        ends = f"prompts end in token {tokenizer.eos_token_id} and the text tower looks for token {expected}"
        raise PatchwordError(f"{where}: {ends}; the tokenizer and config.json must agree")


def clip_sizes(config: Any) -> tuple[int, int, int]:
    """Patch size, channels of the text space and input size, from a `CLIPConfig`."""
    vision = config.vision_config
    patch = side_of(vision.patch_size, what="patch_size")
    return patch, int(config.projection_dim), side_of(vision.image_size, what="image_size")


def _build(loaded: Loaded) -> ClipEncoder:
    model, text_config = loaded.model, loaded.model.config.text_config
    for part in (model.vision_model, model.visual_projection):  # the text tower stays in float32
        part.to(loaded.dtype)
    tokenizer = load_tokenizer(loaded.folder, vocabulary=text_config.vocab_size)
    check_pooled_token(tokenizer, pooled=text_config.eos_token_id, where=loaded.record.name)
    resample = loaded.preprocessing.resample
    return ClipEncoder(model, tokenizer=tokenizer, record=loaded.record, resample=resample, dense=loaded.dense)


ADAPTERS = {("clip", "image-text"): Adapter("CLIPModel", clip_sizes, _build)}


def dense_last_layer(layer: Any, hidden: Tensor, *, dense: Dense, grid: tuple[int, int], spread: float) -> Tensor:
    """The last `CLIPEncoderLayer` in one of the dense variants of the table above.

    MaskCLIP's equation is for CLIP's ResNet, whose pooling has neither residual nor MLP. "maskclip" is what its
    authors' own code does with a vision transformer; "value" carries the equation over to the attention alone, as
    ClearCLIP found residual and MLP to be noise. In neither does a token see another. SCLIP's sum of two attentions is
    not halved. NACLIP's neighbourhood is added to the logits after their scaling; its own spread is 5 patches.

    Args:
        layer: the model's last layer.
        hidden: its input (b, 1 + h * w, c), class token first, which takes part as query and as key.
        dense: the variant.
        grid: (h, w).
        spread: standard deviation in patches of NACLIP's neighbourhood, above 0.

    Returns:
        (b, 1 + h * w, c).
    """
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    projections = {"sclip": (attention.q_proj, attention.k_proj), "clearclip": (attention.q_proj,)}
    mixed = attention.v_proj(normed)
    if dense not in ("value", "maskclip"):
        prior = neighbourhood(grid, spread=spread).to(normed) if dense == "naclip" else None
        shape = (*normed.shape[:-1], -1, attention.head_dim)
        values, parts = mixed.view(shape).transpose(1, 2), []  # (b, heads, n, e)
        for projection in projections.get(dense, (attention.k_proj,)):
            vectors = projection(normed).view(shape).transpose(1, 2)
            parts.append(functional.scaled_dot_product_attention(vectors, vectors, values, attn_mask=prior))
        mixed = sum(parts[1:], parts[0]).transpose(1, 2).flatten(2)
    out: Tensor = attention.out_proj(mixed)
    if dense in ("maskclip", "sclip"):
        hidden = hidden + out
        out = hidden + layer.mlp(layer.layer_norm2(hidden))
    return out


def neighbourhood(grid: tuple[int, int], *, spread: float) -> Tensor:
    """NACLIP's spatial prior of all tokens, (1 + h * w, 1 + h * w) float32; row and column 0 (class token) 0."""
    rows, columns = (_gaussian(count, spread=spread) for count in grid)
    prior = torch.kron(rows, columns)  # (h * w, h * w): a Gaussian of a squared distance is a product over the axes
    return functional.pad(prior, (1, 0, 1, 0))


def _gaussian(count: int, *, spread: float) -> Tensor:
    places = torch.arange(count, dtype=torch.float32)
    return torch.exp(-(places[:, None] - places[None]).square() / (2 * spread**2))  # (count, count)


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
        hidden = self.clip.image_tokens(pixels)
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
