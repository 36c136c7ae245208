"""T-SupCon against loops that are written exactly as the equations are."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.alignment import logsumexp
from patchword.alignment.logsumexp import weighted_logsumexp
from patchword.alignment.losses import (
    TERMS,
    Groups,
    LossTerms,
    balanced_sample,
    draw_sample,
    patch_anchor_loss,
    patch_mask_loss,
    patch_patch_loss,
    t_supcon,
    text_anchor_loss,
)
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.models.batching import Batches


def unit(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def naive_patch_patch(z: Tensor, labels: list[int], tau: float) -> float:
    anchors = []
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if not positives:
            continue
        below = sum(math.exp(float(z[i] @ z[a]) / tau) for a in range(len(z)) if a != i)
        terms = [math.log(math.exp(float(z[i] @ z[p]) / tau) / below) for p in positives]
        anchors.append(-sum(terms) / len(positives))
    return sum(anchors) / len(anchors) if anchors else 0.0


def naive_text_anchor(z: Tensor, labels: list[int], text: Tensor, tau: float) -> float:
    anchors = []
    for c in range(len(text)):
        positives = [p for p in range(len(z)) if labels[p] == c]
        if not positives:
            continue
        below = sum(math.exp(float(text[c] @ z[a]) / tau) for a in range(len(z)))
        terms = [math.log(math.exp(float(text[c] @ z[p]) / tau) / below) for p in positives]
        anchors.append(-sum(terms) / len(positives))
    return sum(anchors) / len(anchors) if anchors else 0.0


def naive_patch_anchor(z: Tensor, labels: list[int], text: Tensor, tau: float, smoothing: float = 0.0) -> float:
    losses = []
    for i in range(len(z)):
        below = sum(math.exp(float(z[i] @ t) / tau) for t in text)
        for c in range(len(text)):
            wanted = smoothing / len(text) + (1 - smoothing if c == labels[i] else 0)
            losses.append(-wanted * math.log(math.exp(float(z[i] @ text[c]) / tau) / below))
    return sum(losses) / len(z) if losses else 0.0


LABELLINGS = {
    "several classes": [0, 1, 2, 0, 1, 2, 0, 0, 3, 3],
    "one class": [2] * 10,
    "a class with a single patch": [0, 0, 0, 1, 2, 2, 2, 2, 2, 2],
    "no positives at all": [0, 1, 2, 3],
    "one patch": [3],
}


@pytest.mark.parametrize("bound", [1, 25, 10**6], ids=["a row", "a few rows", "all"])
@pytest.mark.parametrize("labels", LABELLINGS.values(), ids=LABELLINGS.keys())
class TestAgainstTheLoops:
    def test_patch_patch(self, labels: list[int], bound: int) -> None:
        z = unit(len(labels), 6)
        found = patch_patch_loss(z, torch.tensor(labels), temperature=0.1, bound=bound)
        assert float(found) == pytest.approx(naive_patch_patch(z, labels, 0.1), abs=1e-5)

    def test_text_anchor(self, labels: list[int], bound: int) -> None:
        z, text = unit(len(labels), 6), unit(5, 6, seed=1)
        found = text_anchor_loss(z, torch.tensor(labels), text, temperature=0.07, bound=bound)
        assert float(found) == pytest.approx(naive_text_anchor(z, labels, text, 0.07), abs=1e-5)

    def test_patch_anchor(self, labels: list[int], bound: int) -> None:
        z, text = unit(len(labels), 6), unit(5, 6, seed=1)
        found = patch_anchor_loss(z, torch.tensor(labels), text, temperature=0.07, bound=bound)
        assert float(found) == pytest.approx(naive_patch_anchor(z, labels, text, 0.07), abs=1e-5)

    def test_patch_anchor_with_smoothed_labels(self, labels: list[int], bound: int) -> None:
        z, text = unit(len(labels), 6), unit(5, 6, seed=1)
        found = patch_anchor_loss(z, torch.tensor(labels), text, temperature=0.07, bound=bound, smoothing=0.3)
        assert float(found) == pytest.approx(naive_patch_anchor(z, labels, text, 0.07, smoothing=0.3), abs=1e-5)

    def test_gradients_are_those_of_the_function(self, labels: list[int], bound: int) -> None:
        settings = AlignSettings(similarity_bound=bound)
        text, classes = unit(5, 5, seed=1), torch.tensor([*labels, -1])

        def total(raw: Tensor, temperature: Tensor) -> Tensor:
            z = functional.normalize(raw, dim=-1)
            return t_supcon(z, classes, text, temperature=temperature, settings=settings).total

        raw = unit(len(classes), 5, seed=2).requires_grad_()
        temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(total, (raw, temperature))


def test_float32_agrees_with_float64() -> None:
    z, text, labels = unit(60, 16), unit(4, 16, seed=1), torch.arange(60) % 4
    exact = t_supcon(z, labels, text, temperature=0.07, settings=AlignSettings())
    single = t_supcon(z.float(), labels, text.float(), temperature=0.07, settings=AlignSettings())
    for name in ("total", "patch_patch", "text_anchor", "patch_anchor"):
        torch.testing.assert_close(getattr(single, name), getattr(exact, name).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("loss", "reading", "expected"),
    [
        ("t-supcon", "both", ("patch_patch", "text_anchor", "patch_anchor")),
        ("t-supcon", "text-anchor", ("patch_patch", "text_anchor")),
        ("t-supcon", "patch-anchor", ("patch_patch", "patch_anchor")),
        ("patch-text", "both", ("text_anchor", "patch_anchor")),
        ("patch-text", "text-anchor", ("text_anchor",)),
        ("patch-patch", "both", ("patch_patch",)),
        ("cross-entropy", "text-anchor", ("patch_anchor",)),
    ],
)
def test_switches_choose_the_terms(loss: str, reading: str, expected: tuple[str, ...]) -> None:
    settings = AlignSettings(loss=loss, patch_text=reading)  # type: ignore[arg-type]
    z, text, labels = unit(12, 6), unit(3, 6, seed=1), torch.arange(12) % 3
    terms = t_supcon(z, labels, text, temperature=0.07, settings=settings)
    for name in TERMS:
        assert (float(getattr(terms, name)) > 0) == (name in expected)
    assert float(terms.total) == pytest.approx(sum(float(getattr(terms, name)) for name in expected), abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_is_torchs(smoothing: float) -> None:
    z, text, labels = unit(12, 6), unit(3, 6, seed=1), torch.arange(12) % 3
    settings = AlignSettings(loss="cross-entropy", label_smoothing=smoothing)
    terms = t_supcon(z, labels, text, temperature=0.07, settings=settings)
    expected = functional.cross_entropy(z @ text.T / 0.07, labels, label_smoothing=smoothing)
    torch.testing.assert_close(terms.total, expected)


def test_weights_scale_their_terms() -> None:
    z, text, labels = unit(12, 6), unit(3, 6, seed=1), torch.arange(12) % 3
    settings = AlignSettings(patch_text_weight=0.5, patch_patch_weight=3.0)
    terms = t_supcon(z, labels, text, temperature=0.07, settings=settings)
    expected = 0.5 * (terms.text_anchor + terms.patch_anchor) + 3.0 * terms.patch_patch
    torch.testing.assert_close(terms.total, expected)


def test_ignored_patches_take_no_part() -> None:
    z, text = unit(10, 6), unit(3, 6, seed=1)
    labels = torch.tensor([0, 1, -1, 2, 2, -1, 0, 1, -1, 0])
    kept = labels >= 0
    with_ignored = t_supcon(z, labels, text, temperature=0.07, settings=AlignSettings())
    without = t_supcon(z[kept], labels[kept], text, temperature=0.07, settings=AlignSettings())
    assert float(with_ignored.total) == pytest.approx(float(without.total), abs=1e-12)


@pytest.mark.parametrize("loss", ["t-supcon", "patch-text", "patch-patch", "cross-entropy"])
@pytest.mark.parametrize(
    ("labels", "off"),
    [
        ([], TERMS),
        ([-1, -1, -1, -1, -1], TERMS),
        ([-1, 2, -1, -1], ("patch_patch",)),  # one patch
        ([0, 1, 2], ("patch_patch",)),  # one patch a class
        ([1, 1, 1, -1], ()),  # one class, the others absent
    ],
)
def test_odd_batches_have_finite_losses_and_gradients(loss: str, labels: list[int], off: tuple[str, ...]) -> None:
    settings = AlignSettings(loss=loss)  # type: ignore[arg-type]
    z = unit(len(labels), 6).requires_grad_()
    temperature = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    classes = torch.tensor(labels, dtype=torch.int64)
    terms = t_supcon(z, classes, unit(3, 6, seed=1), temperature=temperature, settings=settings)
    terms.total.backward()  # type: ignore[no-untyped-call]
    assert z.grad is not None
    assert temperature.grad is not None
    assert torch.isfinite(terms.total)
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(temperature.grad)
    assert torch.equal(z.grad[classes == -1], torch.zeros_like(z.grad[classes == -1]))
    assert all(getattr(terms, name).item() == 0 for name in off)
    if off == TERMS:
        assert terms.total.item() == 0


def naive_patch_mask(z: Tensor, regions: Tensor, vectors: Tensor, *, temperature: float) -> float:
    """Every mask's patches one by one."""
    present = sorted(set(regions.tolist()))
    of_masks = []
    for mask in present:
        losses = []
        for patch in z[regions == mask]:
            logits = [float(patch @ vectors[other].to(z)) / temperature for other in present]
            losses.append(math.log(sum(map(math.exp, logits))) - logits[present.index(mask)])
        of_masks.append(sum(losses) / len(losses))
    return sum(of_masks) / len(of_masks)


@pytest.mark.parametrize("bound", [1, 7, 10_000])
def test_patch_mask_agrees_with_patches_one_by_one(bound: int) -> None:
    z, vectors, regions = unit(11, 6), unit(8, 6, seed=1), torch.tensor([5, 0, 5, 5, 2, 2, 7, 5, 0, 7, 7])
    masks = Groups.of(regions)
    found = patch_mask_loss(z, masks, vectors[masks.present], temperature=0.2, bound=bound)
    assert float(found) == pytest.approx(naive_patch_mask(z, regions, vectors, temperature=0.2))
    assert float(patch_mask_loss(z[:0], Groups.of(regions[:0]), vectors[:0], temperature=0.2, bound=bound)) == 0


def test_blocks_are_halved_where_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    z, labels = unit(40, 6).requires_grad_(), torch.arange(40) % 3
    whole = patch_patch_loss(z, labels, temperature=0.1, bound=10_000)
    (gradient,) = torch.autograd.grad(whole, z)
    tried, original = [], Tensor.logsumexp

    def scarce(self: Tensor, dim: int) -> Tensor:
        tried.append(len(self))
        if len(self) > 12:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, dim)

    monkeypatch.setattr(Tensor, "logsumexp", scarce)
    monkeypatch.setattr(logsumexp, "_BLOCKS", Batches())
    found = patch_patch_loss(z, labels, temperature=0.1, bound=10_000)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(torch.autograd.grad(found, z)[0], gradient)
    assert tried == [40, 20, 10, 10, 10, 10]
    patch_patch_loss(z, labels, temperature=0.1, bound=10_000)
    assert max(tried[6:]) == 10  # and it stays there


def test_masks_change_no_other_sample() -> None:
    settings, labels = AlignSettings(patch_sample=6, text_sample=5), torch.arange(40) % 4 - 1
    regions = torch.arange(40) % 3 - 1
    without = draw_sample(labels, settings=settings, generator=torch.Generator().manual_seed(3))
    found = draw_sample(labels, settings=settings, generator=torch.Generator().manual_seed(3), regions=regions)
    for name in ("text", "pairs"):
        assert found.kept[getattr(found, name)].tolist() == without.kept[getattr(without, name)].tolist()
    masks = found.kept[found.masks]
    assert len(masks) == len(set(masks.tolist())) == 5
    assert (regions[masks] >= 0).all()


def test_scale_does_not_depend_on_the_batch_for_the_patch_anchor() -> None:
    z, text, labels = unit(9, 6), unit(3, 6, seed=1), torch.arange(9) % 3
    once = patch_anchor_loss(z, labels, text, temperature=0.07, bound=100)
    thrice = patch_anchor_loss(z.repeat(3, 1), labels.repeat(3), text, temperature=0.07, bound=100)
    torch.testing.assert_close(once, thrice)


def test_without_gradients_none_is_computed_and_the_value_is_the_same() -> None:
    z, text, labels = unit(12, 6), unit(3, 6, seed=1), torch.arange(12) % 3

    def terms(vectors: Tensor) -> LossTerms:
        return t_supcon(vectors, labels, text, temperature=0.07, settings=AlignSettings())

    with torch.no_grad():
        without = terms(z.clone().requires_grad_())
    assert not without.total.requires_grad
    torch.testing.assert_close(without.total, terms(z.clone().requires_grad_()).total.detach())


def test_no_more_similarities_are_held_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    logsumexp = Tensor.logsumexp

    def watched(similarity: Tensor, dim: int) -> Tensor:
        held.append(similarity.numel())
        return logsumexp(similarity, dim=dim)

    monkeypatch.setattr(Tensor, "logsumexp", watched)
    z = unit(50, 6)
    weighted_logsumexp(z, z, torch.ones(50, dtype=torch.float64), temperature=1.0, bound=220, own=False)
    assert held == [200] * 12 + [100]


@pytest.mark.parametrize("wrong", [-2, 3])
def test_labels_out_of_range_are_refused(wrong: int) -> None:
    with pytest.raises(PatchwordError, match=r"must be in \[-1, 2\]"):
        t_supcon(unit(2, 4), torch.tensor([0, wrong]), unit(3, 4), temperature=0.1, settings=AlignSettings())


class TestBalancedSample:
    def test_is_even_while_the_classes_last(self) -> None:
        labels = torch.tensor([0] * 1000 + [1] * 30 + [4] * 5)
        chosen = balanced_sample(labels, most=65, generator=torch.Generator().manual_seed(0))
        assert labels[chosen].bincount().tolist() == [30, 30, 0, 0, 5]
        assert len(chosen.unique()) == 65

    def test_partial_round_prefers_no_class(self) -> None:
        labels = torch.arange(3).repeat(10)
        generator = torch.Generator().manual_seed(0)
        last = [labels[balanced_sample(labels, most=1, generator=generator)].item() for _ in range(60)]
        assert set(last) == {0, 1, 2}

    def test_takes_everything_when_there_is_little(self) -> None:
        assert balanced_sample(torch.tensor([1, 1, 0]), most=4).tolist() == [0, 1, 2]

    def test_draws_anew_and_repeats_with_the_seed(self) -> None:
        labels = torch.zeros(200, dtype=torch.int64)
        generator = torch.Generator().manual_seed(3)
        first, second = (balanced_sample(labels, most=50, generator=generator) for _ in range(2))
        again = balanced_sample(labels, most=50, generator=torch.Generator().manual_seed(3))
        assert first.tolist() != second.tolist()
        assert first.tolist() == again.tolist()

    def test_bounds_the_patch_patch_term(self) -> None:
        z, text, labels = unit(40, 6), unit(2, 6, seed=1), torch.arange(40) % 2
        settings = AlignSettings(patch_sample=10)
        generator = torch.Generator().manual_seed(5)
        terms = t_supcon(z, labels, text, temperature=0.07, settings=settings, generator=generator)
        chosen = balanced_sample(labels, most=10, generator=torch.Generator().manual_seed(5))
        expected = naive_patch_patch(z[chosen], labels[chosen].tolist(), 0.1)
        assert float(terms.patch_patch) == pytest.approx(expected, abs=1e-5)


class TestDrawSample:
    LABELS = torch.tensor([0] * 40 + [-1] * 20 + [1] * 40)

    def test_all_that_is_labelled_when_there_is_little(self) -> None:
        sample = draw_sample(self.LABELS, settings=AlignSettings())
        assert sample.kept.tolist() == (self.LABELS >= 0).nonzero()[:, 0].tolist()
        assert sample.text.tolist() == list(range(80))
        assert sorted(sample.pairs.tolist()) == list(range(80))

    def test_sizes_are_bounded_and_positions_are_into_kept(self) -> None:
        settings = AlignSettings(patch_sample=10, text_sample=30)
        generator = torch.Generator().manual_seed(0)
        sample = draw_sample(self.LABELS, settings=settings, generator=generator)
        assert (len(sample.text), len(sample.pairs)) == (30, 10)
        assert 30 <= len(sample.kept) <= 40
        assert sample.kept.tolist() == sorted(set(sample.kept.tolist()))
        assert set(sample.text.tolist()) | set(sample.pairs.tolist()) == set(range(len(sample.kept)))
        assert (self.LABELS[sample.kept] >= 0).all()
        assert self.LABELS[sample.kept][sample.pairs].bincount().tolist() == [5, 5]

    def test_the_text_sample_is_even_over_patches_not_classes(self) -> None:
        labels = torch.tensor([0] * 900 + [1] * 100)
        settings = AlignSettings(loss="patch-text", text_sample=200)
        sample = draw_sample(labels, settings=settings, generator=torch.Generator().manual_seed(0))
        assert len(sample.kept) == 200
        assert 8 <= int((labels[sample.kept] == 1).sum()) <= 34  # 20 expected, 3 deviations of 4.2 and a little

    @pytest.mark.parametrize(("loss", "off"), [("patch-patch", "text"), ("cross-entropy", "pairs")])
    def test_a_term_that_is_off_draws_nothing(self, loss: str, off: str) -> None:
        settings = AlignSettings(loss=loss, patch_sample=10, text_sample=10)  # type: ignore[arg-type]
        sample = draw_sample(self.LABELS, settings=settings)
        assert len(getattr(sample, off)) == 0
        assert len(sample.kept) == 10
