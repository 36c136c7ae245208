"""The alignment module: shapes, size, unit length, attention within an image only."""

from __future__ import annotations

import pytest
import torch

from patchword.align.module import AlignmentModule
from patchword.errors import PatchwordError


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_size_on_a_vit_base_is_the_papers() -> None:
    assert count(AlignmentModule(dim=768, text_dim=512)) == pytest.approx(7.5e6, rel=0.01)


@pytest.mark.parametrize(("dim", "heads"), [(768, 12), (64, 1), (100, 2), (32, 1)])
def test_any_number_of_channels(dim: int, heads: int) -> None:
    module = AlignmentModule(dim=dim, text_dim=24)
    assert module.heads == heads
    aligned = module(torch.randn(2, dim, 3, 5))
    assert aligned.shape == (2, 24, 3, 5)
    torch.testing.assert_close(aligned.norm(dim=1), torch.ones(2, 3, 5))


def test_patches_of_an_image_attend_to_each_other_and_to_no_other_image() -> None:
    torch.manual_seed(0)
    module = AlignmentModule(dim=16, text_dim=8).double()
    patches = torch.randn(2, 16, 3, 3, dtype=torch.float64)
    changed = patches.clone()
    changed[0, 0, 0, 0] += 5
    before, after = module(patches), module(changed)
    assert (before[0, :, 2, 2] - after[0, :, 2, 2]).abs().max() > 1e-8
    torch.testing.assert_close(before[1], after[1])


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


def test_every_parameter_learns() -> None:
    module = AlignmentModule(dim=16, text_dim=8)
    module(torch.randn(1, 16, 3, 3))[0, 0].sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        if "attention_input.bias" not in name:  # the keys' bias cancels in the softmax
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("shape", [(2, 15, 3, 3), (2, 16, 3), (2, 3, 3, 16)])
def test_other_features_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PatchwordError, match=r"\(batch, 16, height, width\)"):
        AlignmentModule(dim=16, text_dim=8)(torch.zeros(shape))
