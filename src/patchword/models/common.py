"""What the adapters share: prompts in batches, unit length, position embeddings, maps, sides read from a config."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import ftfy
import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError

_TOKENIZING = Lock()  # tokenizers keep their padding and truncation in themselves, and refuse two threads at a time
TEXT_BATCH = 256  # prompts a forward pass; bounds memory, changes no result


def clean_prompt(prompt: str) -> str:
    """A prompt as OpenAI's CLIP, OpenCLIP and SigLIP clean it before they tokenize.

    Typographic quotes, ligatures and full-width letters become plain ones, broken encodings and HTML entities are
    undone, and white space is single. Letters are not lowered here: that is the tokenizer's.

    Source: `basic_clean` and `whitespace_clean` of OpenAI's CLIP.
    """
    return " ".join(html.unescape(html.unescape(ftfy.fix_text(prompt))).split())


def encode_in_batches(prompts: Sequence[str], *, encode: Callable[[list[str]], Tensor], empty: Tensor) -> Tensor:
    """Clean prompts (`clean_prompt`) and encode them some at a time, so that thousands of them fit.

    Args:
        prompts: n strings.
        encode: takes a list of cleaned strings to (len, d).
        empty: (0, d), what no prompts give.

    Returns:
        (n, d) float32, unit length.
    """
    if isinstance(prompts, str):
        raise PatchwordError(f"prompts must be a list of strings, not the string {prompts!r}")
    for position, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise PatchwordError(f"prompt {position} must be a string, not {prompt!r}")
    cleaned = list(map(clean_prompt, prompts))
    with _TOKENIZING:
        chunks = [encode(cleaned[start : start + TEXT_BATCH]) for start in range(0, len(cleaned), TEXT_BATCH)]
    return unit(torch.cat([empty, *chunks]))


def count_tokens(
    prompts: Sequence[str], *, tokenizer: Callable[..., Any], prepare: Callable[[str], str] = str
) -> list[int]:
    """How many tokens each prompt has, cleaned, prepared and uncut, by a tokenizer of transformers."""
    prepared = [prepare(clean_prompt(prompt)) for prompt in prompts]
    with _TOKENIZING:
        return [len(ids) for ids in tokenizer(prepared, truncation=False, verbose=False)["input_ids"]]


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


def side(value: Any, *, what: str) -> int:
    """Read a square's side from a config, where it may be one number or two equal ones."""
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise PatchwordError(f"{what} is {value} in the checkpoint's config; it must be a square")
    return int(sides.pop())
