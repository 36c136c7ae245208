"""What the miniatures learn from: whitened starts, spectra, contrasts, hidden blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tools.miniatures.dino_targets import (
    SPECTRUM,
    SURROUNDINGS,
    contrast,
    local_spectrum,
    random_masks,
    region_contrast,
    surroundings,
)
from tools.miniatures.start import start_from_patches
from tools.miniatures.train_clip import contrastive_loss, same_content


def started(*, scale: float = 1.0, bias: bool = True) -> tuple[nn.Conv2d, nn.Linear, nn.Linear, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(48, 48, generator=generator)
    patches = torch.randn(4000, 48, generator=generator) @ mixing + 3
    # Every picture is ten by ten patches of four pixels.
    images = functional.fold(patches.view(40, 100, 48).transpose(1, 2), 40, 4, stride=4)
    projection, hidden = nn.Conv2d(3, 24, 4, stride=4, bias=bias), nn.Linear(24, 96)
    output = nn.Linear(24, 24)
    start_from_patches(projection, hidden=hidden, attention_output=output, images=images, scale=scale)
    return projection, hidden, output, images


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_embedding_starts_as_a_whitening(scale: float) -> None:
    projection, _, _, images = started(scale=scale)
    tokens = projection(images).flatten(2).transpose(1, 2).flatten(0, 1).detach()  # (4000, 24)
    torch.testing.assert_close(torch.cov(tokens.T) / scale**2, torch.eye(24), atol=0.02, rtol=0)
    torch.testing.assert_close(tokens.mean(0), torch.zeros(24), atol=1e-2 * scale, rtol=0)


def test_the_strongest_directions_are_the_ones_kept() -> None:
    projection, _, _, images = started()
    patches = functional.unfold(images, 4, stride=4).transpose(1, 2).flatten(0, 1)
    rows = projection.weight.detach().flatten(1)
    variance = ((patches - patches.mean(0)) @ functional.normalize(rows, dim=1).T).var(0)
    expected = torch.linalg.eigvalsh(torch.cov(patches.T)).flip(0)[:24]
    torch.testing.assert_close(variance, expected, rtol=1e-3, atol=1e-3)


def test_hidden_units_start_in_rectifying_pairs_and_attention_silent() -> None:
    _, hidden, output, _ = started()
    token = torch.randn(5, 24, generator=torch.Generator().manual_seed(1))
    answer = hidden(token).relu().detach()
    torch.testing.assert_close(answer[:, :24] + answer[:, 24:48], 2 * token.abs())
    assert not output.weight.any()


def test_an_embedding_without_bias_stays_without() -> None:
    projection, _, _, _ = started(bias=False)
    assert projection.bias is None


def wave(*, period: float, phase: float = 0.0, angle: float = 0.0, contrast: float = 0.3) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    along = columns * math.cos(angle) + rows * math.sin(angle)
    grey = 0.5 + contrast * torch.sin(2 * math.pi * along / period + phase)
    return grey.expand(1, 3, 64, 64)


def inner(spectrum: Tensor) -> Tensor:
    """The patches whose window the picture's border does not reach: (b, 36, 41)."""
    return spectrum.view(len(spectrum), 8, 8, SPECTRUM)[:, 1:-1, 1:-1].flatten(1, 2)


def test_a_spectrum_for_every_patch() -> None:
    images = torch.rand(2, 3, 40, 72, generator=torch.Generator().manual_seed(0))
    found = local_spectrum(images)
    assert found.shape == (2, 5 * 9, SPECTRUM)
    assert found.isfinite().all()
    assert local_spectrum(torch.full((1, 3, 16, 16), 0.4)).isfinite().all()


def test_a_spectrum_is_blind_to_colour() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for order in ([1, 2, 0], [2, 1, 0]):
        torch.testing.assert_close(local_spectrum(images[:, order]), local_spectrum(images), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(local_spectrum(1 - images), local_spectrum(images), atol=1e-3, rtol=1e-3)


def test_a_spectrum_is_blind_to_where_a_wave_begins_and_tells_frequencies_apart() -> None:
    still = inner(local_spectrum(wave(period=5)))
    for phase in (0.7, 1.6, 3.1):
        shifted = inner(local_spectrum(wave(period=5, phase=phase)))
        longer = inner(local_spectrum(wave(period=8, phase=phase)))
        turned = inner(local_spectrum(wave(period=5, phase=phase, angle=math.pi / 2)))
        moved = (shifted - still).abs().mean()
        assert (longer - still).abs().mean() > 6 * moved
        assert (turned - still).abs().mean() > 6 * moved
    bands = [inner(local_spectrum(wave(period=period)))[..., :40].argmax(-1).unique() for period in (2.3, 3.5, 6)]
    assert [len(band) for band in bands] == [1, 1, 1]
    assert len({int(band) for band in bands}) == 3


def test_contrast_shows_in_the_energy_and_not_in_the_shares() -> None:
    weak, strong = (inner(local_spectrum(wave(period=5, contrast=value))) for value in (0.2, 0.4))
    energy = strong[..., -1] - weak[..., -1]
    torch.testing.assert_close(energy, torch.full_like(energy, math.log(4)), atol=0.05, rtol=0)
    torch.testing.assert_close(strong[..., :-1], weak[..., :-1], atol=0.1, rtol=0)


def unit(*shape: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def naive_info_nce(anchors: Tensor, others: Tensor, *, temperature: float) -> float:
    total = 0.0
    for i in range(len(anchors)):
        scores = [math.exp(float(anchors[i] @ others[j]) / temperature) for j in range(len(others))]
        total -= math.log(scores[i] / sum(scores))
    return total / len(anchors)


def test_contrast_is_info_nce() -> None:
    students, teachers = unit(9, 5, seed=0), unit(9, 5, seed=1)
    found = contrast(students, teachers, temperature=0.15)
    assert float(found) == pytest.approx(naive_info_nce(students, teachers, temperature=0.15), rel=1e-5)
    assert float(contrast(students, students, temperature=0.01)) < float(found)


def test_a_patch_answers_to_its_own_region_of_the_other_view() -> None:
    generator = torch.Generator().manual_seed(0)
    students, teachers = (functional.normalize(torch.randn(2, 6, 4, generator=generator), dim=-1) for _ in range(2))
    here = torch.tensor([[3, 3, 7, 7, 9, 9], [260, 260, 260, 261, 261, 261]])
    there = torch.tensor([[7, 3, 3, 3, 7, 7], [261, 260, 260, 261, 299, 299]])  # 9 is not in the other view
    found = region_contrast(students, teachers, regions=(here, there), temperature=0.5, count=100, generator=generator)

    means = {
        region: functional.normalize(teachers.flatten(0, 1)[there.flatten() == region].mean(0), dim=0)
        for region in (3, 7, 260, 261, 299)
    }
    expected = []
    for patch, region in zip(students.flatten(0, 1), here.flatten().tolist(), strict=True):
        if region in means:
            every = torch.stack([patch @ mean / 0.5 for mean in means.values()])
            expected.append(every.logsumexp(0) - patch @ means[region] / 0.5)
    torch.testing.assert_close(found, torch.stack(expected).mean())


def naive_contrastive(images: Tensor, texts: Tensor, *, scale: float, contents: list[str]) -> float:
    count, total = len(images), 0.0
    for i in range(count):
        positives = [j for j in range(count) if contents[j] == contents[i]]
        by_image = [math.exp(scale * float(images[i] @ texts[j])) for j in range(count)]
        by_text = [math.exp(scale * float(images[j] @ texts[i])) for j in range(count)]
        for scores in (by_image, by_text):
            total -= sum(math.log(scores[j] / sum(scores)) for j in positives) / len(positives)
    return total / count / 2


@pytest.mark.parametrize("contents", [list("abcdef"), list("aabcbb"), list("aaaaaa")])
def test_contrastive_loss_follows_its_definition(contents: list[str]) -> None:
    images, texts = unit(6, 4, seed=2), unit(6, 4, seed=3)
    found = contrastive_loss(images, texts, scale=torch.tensor(7.0), same=same_content(contents))
    assert float(found) == pytest.approx(naive_contrastive(images, texts, scale=7.0, contents=contents), rel=1e-5)


def test_without_repetitions_it_is_clips_own_loss() -> None:
    images, texts = unit(6, 4, seed=2), unit(6, 4, seed=3)
    found = contrastive_loss(images, texts, scale=torch.tensor(7.0), same=torch.eye(6))
    both = [naive_info_nce(one, other, temperature=1 / 7) for one, other in ((images, texts), (texts, images))]
    assert float(found) == pytest.approx(sum(both) / 2, rel=1e-5)


def test_hidden_patches_are_blocks_in_every_other_view() -> None:
    side = 12
    masks = random_masks(400, side=side, share=0.35, generator=torch.Generator().manual_seed(0))
    assert masks.shape == (400, side * side)
    shares = masks.float().mean(1)
    assert not shares[1::2].any()
    assert shares[::2].min() > 0
    assert 0.3 < float(shares[::2].mean()) < 0.5
    assert float(shares[::2].std()) > 0.1
    grid = masks[::2].view(-1, side, side)
    alike = (grid[:, :, 1:] == grid[:, :, :-1]).float().mean()
    scattered = torch.rand(grid.shape, generator=torch.Generator().manual_seed(1)) < grid.float().mean()
    assert alike > 0.8 > (scattered[:, :, 1:] == scattered[:, :, :-1]).float().mean()


def test_surroundings_are_standardised_means_of_the_squares_about_a_patch() -> None:
    features = torch.randn(2, 24, 3, generator=torch.Generator().manual_seed(3))[:, :16]
    found = surroundings(features, side=4)
    maps = features.view(2, 4, 4, 3)
    expected = torch.zeros(2, 4, 4, len(SURROUNDINGS), 3)
    for image in range(2):
        for row in range(4):
            for column in range(4):
                for number, length in enumerate(SURROUNDINGS):
                    reach = length // 2
                    square = maps[
                        image, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1
                    ]
                    expected[image, row, column, number] = square.mean((0, 1))
    rows = expected.flatten(3).flatten(0, 2)
    rows = (rows - rows.mean(0)) / rows.std(0)
    torch.testing.assert_close(found.flatten(0, 1), rows, atol=1e-5, rtol=1e-5)


def test_surroundings_of_equal_patches_are_finite() -> None:
    assert torch.isfinite(surroundings(torch.ones(1, 9, 2), side=3)).all()
