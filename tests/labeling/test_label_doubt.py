"""How sure names are: the lead of a class and the entropy of all words, against plain arithmetic."""

from __future__ import annotations

import math

import pytest
import torch

from patchword.labeling.clip_crops import Uncertainty, entropies, uncertainties


def plain_entropy(cosines: list[float], temperature: float) -> float:
    weights = [math.exp(cosine / temperature) for cosine in cosines]
    shares = [weight / sum(weights) for weight in weights]
    return -sum(share * math.log(share) for share in shares if share) / math.log(len(cosines))


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_entropy_is_that_of_the_softmax(temperature: float) -> None:
    cosines = [[0.2, 0.21, 0.25], [0.3, 0.1, 0.0], [0.2, 0.2, 0.2]]
    expected = [plain_entropy(row, temperature) for row in cosines]
    found = entropies(torch.tensor(cosines), temperature=temperature)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found[2] == pytest.approx(1.0)


def test_one_word_leaves_no_doubt() -> None:
    assert entropies(torch.tensor([[0.3]]), temperature=0.01).tolist() == [0.0]
    assert uncertainties(torch.tensor([[0.3]]), positions=torch.tensor([0]), temperature=0.01) == [
        Uncertainty(None, None)
    ]


def test_margin_is_the_lead_over_the_best_other_word() -> None:
    cosines = torch.tensor([[0.3, 0.25, 0.1], [0.3, 0.25, 0.4]])
    found = uncertainties(cosines, positions=torch.tensor([0, 1]), temperature=0.01)
    assert [uncertainty.margin for uncertainty in found] == pytest.approx([0.05, -0.15])
    assert found[1].entropy == pytest.approx(plain_entropy([0.3, 0.25, 0.4], 0.01), abs=1e-5)
