"""A step of training against the loss of everything at once, written down plainly."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from cluster_world import FEATURE_DIM, SETTINGS, TEXT_DIM, training_set
from torch import Tensor
from torch.nn import functional

from patchword.alignment.distributed import Processes
from patchword.alignment.losses import TERMS, Groups, LossTerms, MaskTargets, patch_mask_loss, t_supcon
from patchword.alignment.module import ChosenPatches
from patchword.alignment.state import TrainingState, start_state
from patchword.alignment.step import draw_batch, training_step
from patchword.config.align import AlignSettings, ModuleKind

CPU = torch.device("cpu")
RATE = 0.1


def with_(**values: Any) -> AlignSettings:
    return AlignSettings(**{**SETTINGS.model_dump(), "gradient_clip": 1e9, **values})


def fresh(settings: AlignSettings) -> TrainingState:
    """A state whose optimizer is plain gradient descent, so that a step shows the gradient itself."""
    state = start_state(dim=FEATURE_DIM, text_dim=TEXT_DIM, settings=settings, device=CPU)
    state.optimizer = torch.optim.SGD(list(state.named_parameters().values()), lr=RATE)  # type: ignore[assignment]
    return state


def step(
    state: TrainingState, settings: AlignSettings, *, forward: Any = None, masks: MaskTargets | None = None
) -> LossTerms:
    data = training_set()
    batch = draw_batch(
        data.features.read(data.keys[:4]),
        data.labels[:4],
        images=[range(4)],
        index=0,
        classes=len(data.text),
        generator=torch.Generator().manual_seed(5),
        settings=settings,
        device=CPU,
        masks=masks,
    )
    forward = forward or state.module
    return training_step(state, batch, data.text, forward=forward, processes=Processes(), rate=RATE, settings=settings)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_masks_pull_by_the_gradient_of_their_term(accumulation: int) -> None:
    settings = with_(accumulation=accumulation, mask_weight=0.7, mask_temperature=0.3)
    plain, stepped, data = fresh(settings), fresh(settings), training_set()
    labels = data.labels[:4].flatten().long()
    regions = torch.randint(-1, 5, (4, *data.labels.shape[1:]), generator=torch.Generator().manual_seed(1))
    vectors = functional.normalize(torch.randn((5, TEXT_DIM), generator=torch.Generator().manual_seed(2)), dim=1)
    z = plain.module(data.features.read(data.keys[:4]).float()).permute(0, 2, 3, 1).flatten(0, 2)
    inside = regions.flatten() >= 0
    masks = Groups.of(regions.flatten()[inside])
    pull = patch_mask_loss(z[inside], masks, vectors[masks.present], temperature=0.3, bound=10**6)
    temperature = plain.log_temperature.exp()
    words = t_supcon(z, labels, data.text, temperature=temperature, settings=settings)
    (words.total + 0.7 * pull).backward()
    found = step(stepped, settings, masks=MaskTargets(regions, vectors))
    torch.testing.assert_close(found.patch_mask, pull.detach(), rtol=1e-5, atol=1e-6)
    for (name, parameter), moved in zip(
        plain.named_parameters().items(), stepped.named_parameters().values(), strict=True
    ):
        assert parameter.grad is not None
        torch.testing.assert_close(
            moved.detach(), parameter.detach() - RATE * parameter.grad, rtol=1e-4, atol=1e-6, msg=name
        )


@pytest.mark.parametrize("kind", get_args(ModuleKind))
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"accumulation": 3},
        {"patch_sample": 6, "text_sample": 9},
        {"loss": "patch-patch", "patch_sample": 6},
        {"loss": "cross-entropy", "text_sample": 5, "accumulation": 2},
        {"patch_text": "text-anchor", "learn_temperature": False},
    ],
    ids=str,
)
def test_weights_move_by_the_gradient_of_the_whole_loss(kind: ModuleKind, values: dict[str, Any]) -> None:
    settings = with_(module=kind, **values)
    plain, stepped, data = fresh(settings), fresh(settings), training_set()
    terms = t_supcon(
        plain.module(data.features.read(data.keys[:4]).float()).permute(0, 2, 3, 1).flatten(0, 2),
        data.labels[:4].flatten().long(),
        data.text,
        temperature=plain.log_temperature.exp(),
        settings=settings,
        generator=torch.Generator().manual_seed(5),
    )
    terms.total.backward()  # type: ignore[no-untyped-call]
    found = step(stepped, settings)
    for name in ("total", *TERMS):
        torch.testing.assert_close(getattr(found, name), getattr(terms, name).detach(), rtol=1e-5, atol=1e-6)
    for (name, parameter), moved in zip(
        plain.named_parameters().items(), stepped.named_parameters().values(), strict=True
    ):
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(moved.detach(), parameter.detach() - RATE * gradient, rtol=1e-4, atol=1e-6, msg=name)
    assert stepped.step == 1


def test_no_patch_is_aligned_that_no_term_looks_at() -> None:
    settings = with_(patch_sample=6, text_sample=9)
    state, aligned = fresh(settings), []

    def watched(features: Tensor, kept: ChosenPatches) -> Tensor:
        rows = state.module(features, kept)
        aligned.append(len(rows))
        return rows  # type: ignore[no-any-return]

    step(state, settings, forward=watched)
    assert len(aligned) == 1
    assert 9 <= aligned[0] <= 15 < int((training_set().labels[:4] >= 0).sum())


@pytest.mark.parametrize("where", ["forward", "way back", "part"])
def test_images_that_do_not_fit_are_halved_and_the_step_stays_the_same(where: str) -> None:
    settings = with_(accumulation=2 if where == "part" else 1, mask_weight=0.7)
    expected, state, failures, seen = fresh(settings), fresh(settings), [1], []
    step(expected, settings)

    def fail_once(*_: object) -> None:
        if failures and failures.pop():
            raise torch.OutOfMemoryError("too large")

    def forward(features: Tensor, kept: ChosenPatches) -> Tensor:
        seen.append(len(features))
        if where == "forward":
            fail_once()
        return state.module(features, kept)  # type: ignore[no-any-return]

    if where != "forward":  # after other parameters have their gradients
        state.module.blocks[0].attention_norm.weight.register_hook(fail_once)  # type: ignore[union-attr, operator]
    found = step(state, settings, forward=forward)
    sizes = {"forward": [4, 2, 2, 2, 2], "way back": [4, 2, 2], "part": [2, 2, 2, 1, 1, 1, 1]}
    assert seen == sizes[where]
    torch.testing.assert_close(found.total, step(fresh(settings), settings).total, rtol=0, atol=1e-6)
    for mine, theirs in zip(state.module.parameters(), expected.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)
    seen.clear()
    step(state, settings, forward=forward)
    assert set(seen) == {min(sizes[where])}  # and stays there


def test_one_image_that_does_not_fit_is_an_error() -> None:
    settings = with_()
    state = fresh(settings)

    def forward(features: Tensor, kept: ChosenPatches) -> Tensor:
        raise torch.OutOfMemoryError("too large")

    with pytest.raises(torch.OutOfMemoryError):
        step(state, settings, forward=forward)
    assert state.step == 0
