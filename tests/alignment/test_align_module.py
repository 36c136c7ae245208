"""The alignment module: shapes, size, unit length, attention within an image only."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from patchword.alignment.module import AlignmentModule, ChosenPatches
from patchword.config.align import ModuleKind
from patchword.errors import PatchwordError

KINDS = get_args(ModuleKind)


@pytest.mark.parametrize(
    ("kind", "millions"), [("block", 7.48), ("linear", 0.40), ("mlp", 5.12), ("two-blocks", 14.57)]
)
def test_sizes_on_a_vit_base_are_as_documented(kind: ModuleKind, millions: float) -> None:
    found = AlignmentModule(dim=768, text_dim=512, kind=kind).parameter_count
    assert found == pytest.approx(millions * 1e6, abs=5e3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [64, 100, 32])
def test_any_number_of_channels(dim: int, kind: ModuleKind) -> None:
    aligned = AlignmentModule(dim=dim, text_dim=24, kind=kind)(torch.randn(2, dim, 3, 5))
    assert aligned.shape == (2, 24, 3, 5)
    torch.testing.assert_close(aligned.norm(dim=1), torch.ones(2, 3, 5))


@pytest.mark.parametrize("kind", KINDS)
def test_only_blocks_let_patches_see_each_other_and_never_another_image(kind: ModuleKind) -> None:
    torch.manual_seed(0)
    module = AlignmentModule(dim=16, text_dim=8, kind=kind).double()
    patches = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    changed = patches.clone()
    changed[0, 0, 0, 0] += 5
    before, after = module(patches), module(changed)
    seen = (before[0, :, 2, 2] - after[0, :, 2, 2]).abs().max() > 1e-8
    assert seen == (kind in ("block", "two-blocks"))
    torch.testing.assert_close(before[1], after[1])


@pytest.mark.parametrize("kind", KINDS)
def test_patches_that_are_asked_for_are_what_they_are_among_all(kind: ModuleKind) -> None:
    generator = torch.Generator().manual_seed(0)
    module = AlignmentModule(dim=16, text_dim=8, kind=kind).double()
    patches = torch.randn(4, 16, 3, 5, dtype=torch.float64, generator=generator)
    kept = torch.rand(4, 3, 5, generator=generator) < 0.4
    kept[2] = False  # an image of which nothing is asked
    chosen = ChosenPatches.of
    torch.testing.assert_close(module(patches, chosen(kept)), module(patches).permute(0, 2, 3, 1)[kept])
    assert module(patches, chosen(torch.zeros_like(kept))).shape == (0, 8)
    assert module(patches[:0], chosen(kept[:0])).shape == (0, 8)


def test_a_permutation_of_patches_permutes_the_output() -> None:
    module = AlignmentModule(dim=16, text_dim=8).double()
    patches = torch.randn(1, 16, 1, 6, dtype=torch.float64)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(module(patches)[..., order], module(patches[..., order]))


def test_weights_come_from_the_seed_alone() -> None:
    first, again, other = (AlignmentModule(dim=16, text_dim=8, seed=seed).projection.weight for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_random_state_is_left_as_the_caller_has_it() -> None:
    state = torch.get_rng_state()
    AlignmentModule(dim=16, text_dim=8)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_learns(kind: ModuleKind) -> None:
    module = AlignmentModule(dim=16, text_dim=8, kind=kind)
    module(torch.randn(1, 16, 3, 3))[0, 0].sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(2, 15, 3, 3), (2, 16, 3), (2, 3, 3, 16)])
def test_other_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PatchwordError, match=r"\(batch, 16, height, width\)"):
        AlignmentModule(dim=16, text_dim=8)(torch.zeros(shape))
