"""The alignment module: frozen patch features in, vectors in the text space out.

Every kind is a number of blocks, a layer norm, one linear map D -> d and unit length; the kinds differ in the blocks.
Parameters at D = 768, d = 512, MLP ratio 4:

| kind | blocks | parameters |
|---|---|---|
| `block` [paper] | one transformer block | 7.5 M |
| `linear` | none | 0.4 M |
| `mlp` | the block without its attention: each patch for itself | 5.1 M |
| `two-blocks` | two transformer blocks | 14.6 M |
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from patchword.config.align import ModuleKind
from patchword.errors import PatchwordError
from patchword.models.batching import is_out_of_memory


class ChosenPatches(NamedTuple):
    """The patches that are asked for, k of b images of n each, as positions, so that no device is asked how many.

    Attributes:
        places: (b, most) in each image, those of its chosen patches and then of others.
        packed: (k,) of the chosen in those b * most.
        spread: (k,) of the chosen in the b * n.
    """

    places: Tensor
    packed: Tensor
    spread: Tensor

    @classmethod
    def of(cls, kept: Tensor) -> ChosenPatches:
        """Those that are kept (b, h, w), bool on the host: image by image and row by row."""
        chosen = kept.flatten(1)
        counts = chosen.sum(dim=1)
        most = int(counts.max()) if len(counts) else 0
        places = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        filled = torch.arange(most) < counts[:, None]
        return cls(places, filled.flatten().nonzero()[:, 0], chosen.flatten().nonzero()[:, 0])


class AlignmentModule(nn.Module):
    """Maps the patches of an image, seen together, to the text space.

    The text is not an input, so the label set stays open (docs/method.md, stage 2 [paper]). Blocks are pre-norm
    [chosen], so that a block whose weights are small passes the frozen features on as they are. Weights start as those
    of vision transformers do, from a normal distribution of deviation 0.02 truncated at 2, biases at 0, norms at 1 and
    0 [chosen].

    Args:
        dim: channels D of the encoder's patch features.
        text_dim: channels d of the text space.
        kind: which blocks.
        head_size: channels of an attention head [chosen].
        mlp_ratio: width of the MLP in multiples of `dim` [chosen].
        seed: of the initial weights; the global random state is neither used nor changed.
    """

    def __init__(
        self,
        *,
        dim: int,
        text_dim: int,
        kind: ModuleKind = "block",
        head_size: int = 64,
        mlp_ratio: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.text_dim = text_dim
        self.kind = kind
        hidden = max(1, round(dim * mlp_ratio))
        with torch.random.fork_rng(devices=[]):  # the layers' own initialisation draws from the global state
            attentions = {"block": 1, "two-blocks": 2, "mlp": 0, "linear": 0}[kind]
            blocks = [Block(dim=dim, hidden=hidden, head_size=head_size) for _ in range(attentions)]
            self.blocks = nn.ModuleList([PatchwiseBlock(dim=dim, hidden=hidden)] if kind == "mlp" else blocks)
            self.final_norm = nn.LayerNorm(dim)
            self.projection = nn.Linear(dim, text_dim)
        self._initialise(seed)

    @property
    def parameter_count(self) -> int:
        """How many numbers the module learns."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, patches: Tensor, kept: ChosenPatches | None = None) -> Tensor:
        """Map patch features to unit vectors in the text space.

        Args:
            patches: (b, D, h, w).
            kept: the patches that are asked for; None for all. Every patch is attended to; what only the others need is
                not computed.

        Returns:
            (b, d, h, w), or (k, d) for the k patches asked for, image by image and row by row.
        """
        if patches.ndim != 4 or patches.shape[1] != self.dim:
            raise PatchwordError(
                f"patch features have shape {tuple(patches.shape)}; it must be (batch, {self.dim}, height, width)"
            )
        batch, _, height, width = patches.shape
        tokens = patches.flatten(2).transpose(1, 2)  # (b, h * w, D)
        for position, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, kept if position == len(self.blocks) else None)  # the last: (k, D)
        if kept is not None and not self.blocks:
            tokens = tokens.flatten(0, 1)[kept.spread]  # (k, D)
        # Unit length is computed in the type of the features, whatever type autocast chose for the rest.
        aligned = functional.normalize(self.projection(self.final_norm(tokens)).to(patches.dtype), dim=-1)
        return aligned if kept is not None else aligned.transpose(1, 2).reshape(batch, self.text_dim, height, width)

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02, generator=generator)
                nn.init.zeros_(layer.bias)


class PatchwiseBlock(nn.Module):
    """The half of a transformer block that sees each patch for itself: a residual MLP of width `hidden`."""

    def __init__(self, *, dim: int, hidden: int) -> None:
        super().__init__()
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp_input = nn.Linear(dim, hidden)
        self.mlp_output = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor, chosen: ChosenPatches | None = None) -> Tensor:
        """Map tokens (b, n, D) to (b, n, D), or to (k, D) for those that are chosen."""
        tokens = tokens if chosen is None else tokens.flatten(0, 1)[chosen.spread]
        return tokens + self.mlp_output(functional.gelu(self.mlp_input(self.mlp_norm(tokens))))  # type: ignore[no-any-return]


class Block(PatchwiseBlock):
    """A pre-norm transformer block: self-attention among the tokens of an image, then the MLP.

    Heads have a fixed size: features whose channels are not a multiple of it are projected to the next multiple inside
    the attention only.
    """

    def __init__(self, *, dim: int, hidden: int, head_size: int) -> None:
        super().__init__(dim=dim, hidden=hidden)
        self.heads = math.ceil(dim / head_size)
        inner = self.heads * head_size
        self.attention_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, inner)
        self.key_value = nn.Linear(dim, 2 * inner)
        self.attention_output = nn.Linear(inner, dim)

    def forward(self, tokens: Tensor, chosen: ChosenPatches | None = None) -> Tensor:
        """Map tokens (b, n, D) to (b, n, D), or to (k, D) for those that are chosen."""
        normed = self.attention_norm(tokens)
        if chosen is None:
            return super().forward(tokens + self.attention_output(self._attend(normed, normed)))
        queries = normed.gather(1, chosen.places[..., None].expand(-1, -1, normed.shape[-1]))  # (b, most, D)
        attended = self._attend(queries, normed).flatten(0, 1)[chosen.packed]  # (k, inner)
        return super().forward(tokens.flatten(0, 1)[chosen.spread] + self.attention_output(attended))

    def _attend(self, asking: Tensor, tokens: Tensor) -> Tensor:
        """What each of the asking tokens (b, m, D) takes from the tokens (b, n, D) of its image, (b, m, inner)."""
        query = self.query(asking).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (b, heads, m, head size)
        joined = self.key_value(tokens).unflatten(-1, (2, self.heads, -1))  # (b, n, 2, heads, head size)
        key, value = joined.permute(2, 0, 3, 1, 4)  # each (b, heads, n, head size)
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)


_log = logging.getLogger(__name__)


class Compiled:
    """A function as torch.compile makes it, or the function itself from the first failure on, with a note on the log.

    The first call of a module compiles the way back too, so that it does not fail in a step that is half done.

    Args:
        function: a module, or anything that takes tensors to a tensor.
        goes_on: what goes on without the compiler, for the note.
    """

    def __init__(self, function: Callable[..., Tensor], *, goes_on: str = "training") -> None:
        self._function = function
        self._goes_on = goes_on
        self._compiled: Callable[..., Tensor] | None = None
        self._tried = False

    def __call__(self, *arguments: Any) -> Tensor:
        """What the function gives for these arguments."""
        try:
            if not self._tried:
                self._tried = True
                self._compiled = torch.compile(self._function)
                self._go_back(self._compiled(*arguments))
            if self._compiled is not None:
                return self._compiled(*arguments)
        except PatchwordError:
            raise
        except Exception as error:  # compilers fail in ways of their own; a mistake in the function shows again below
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _log.warning("torch.compile does not work here, %s goes on without it: %s", self._goes_on, reason[0])
            self._compiled = None
        return self._function(*arguments)

    def _go_back(self, result: Tensor) -> None:
        if result.requires_grad and isinstance(self._function, nn.Module):
            torch.autograd.grad(result.sum(), list(self._function.parameters()), allow_unused=True)
