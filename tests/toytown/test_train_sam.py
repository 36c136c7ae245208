"""The miniature SAM: prompts, losses, a few steps of training, and the saved folder read back."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from patchword.errors import PatchwordError
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene
from tools.miniatures.measure_sam import Probe, draw_probes, mask_scores, measure_model, measure_sam
from tools.miniatures.sam_model import SIDE, build_sam, load_sam, save_sam, start_patches, to_input
from tools.miniatures.sam_prompts import decode_all, gathering_loss, mask_losses, sample_prompts
from tools.miniatures.train_sam import SamRecipe, augment, train_sam

FEW = SamRecipe(images=1, single=2, several=1, warm=2, falling=0.1, check_scenes=1)


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(3)
    return build_sam().eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    out = tmp_path_factory.mktemp("sam") / "miniature"
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tools.miniatures.train_sam")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    threads = torch.get_num_threads()
    try:
        train_sam(out, steps=12, scenes=2, seed=1, log_every=3, check_every=12, recipe=FEW)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
        torch.set_num_threads(threads)
    found = [re.search(r"loss ([\d.]+)", line) for line in lines]
    return out, [float(match.group(1)) for match in found if match]


def test_a_handful_of_steps_reduces_the_loss(trained: tuple[Path, list[float]]) -> None:
    _, losses = trained
    assert len(losses) == 4
    assert losses[-1] < 0.95 * losses[0]


def test_saved_folder_is_in_the_hub_format_and_small(trained: tuple[Path, list[float]]) -> None:
    out, _ = trained
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "train.json",
    ]
    assert json.loads((out / "config.json").read_text())["model_type"] == "sam"
    preprocessor = json.loads((out / "preprocessor_config.json").read_text())
    assert preprocessor["size"] == {"longest_edge": SIDE}
    assert preprocessor["pad_size"] == {"height": SIDE, "width": SIDE}
    assert (out / "model.safetensors").stat().st_size < 5e6


def test_saved_weights_load_back_through_transformers(model: Any, tmp_path: Path) -> None:
    from transformers import SamModel

    save_sam(model, tmp_path)
    back = SamModel.from_pretrained(tmp_path, dtype=torch.float32)
    for (name, kept), (other, weights) in zip(back.named_parameters(), model.named_parameters(), strict=True):
        assert name == other
        torch.testing.assert_close(kept, weights, rtol=1e-3, atol=1e-6)


def test_measuring_a_folder_equals_measuring_its_model(trained: tuple[Path, list[float]]) -> None:
    out, _ = trained
    measured = measure_sam(out, scenes=2, style="dusk")
    again = measure_model(load_sam(out), draw_probes(scenes=2, style="dusk"))
    assert measured == again
    assert measured.count > 4
    assert 0 <= measured.all <= measured.best <= 1


def test_measurement_averages_over_things_and_stuff(model: Any) -> None:
    probes = draw_probes(scenes=2, style="day")
    measured = measure_model(model, probes)
    things, stuff = [], []
    for probe in probes:
        iou, predicted = mask_scores(model, probe)
        for number, row, scores in zip(probe.numbers, iou, predicted, strict=True):
            (stuff if number <= len(probe.scene.stuff) else things).append(float(row[int(scores.argmax())]))
    assert measured.things == pytest.approx(np.mean(things), abs=1e-5)
    assert measured.stuff == pytest.approx(np.mean(stuff), abs=1e-5)
    assert measured.all == pytest.approx(np.mean(things + stuff), abs=1e-5)


def test_a_perfect_answer_measures_as_one() -> None:
    probe = draw_probes(scenes=1, style="day")[0]

    class Perfect:
        def __call__(self, pixel_values: torch.Tensor, input_points: torch.Tensor) -> Any:
            truth = [probe.scene.instances == probe.scene.instances[int(y), int(x)] for x, y in input_points[0, :, 0]]
            masks = torch.from_numpy(np.stack(truth)).float()[None, :, None] * 2 - 1
            scores = torch.tensor([0.2, 0.9, 0.1]).expand(1, len(truth), 3)
            return type("Output", (), {"pred_masks": torch.cat([-masks, masks, -masks], 2), "iou_scores": scores})

    measured = measure_model(Perfect(), [probe])
    assert measured.all == measured.best == pytest.approx(1)
    assert measured.iou_error == pytest.approx(0.1)


def test_probes_lie_in_what_they_name_and_skip_the_tiny() -> None:
    probes: list[Probe] = draw_probes(scenes=3, style="dusk")
    for probe in probes:
        columns, rows = probe.points.astype(int).T
        assert (probe.scene.instances[rows, columns] == probe.numbers).all()
        areas = np.bincount(probe.scene.instances.ravel(), minlength=256)
        assert sorted(probe.numbers) == [number for number in range(1, 256) if areas[number] >= 40]


def test_decoding_all_masks_equals_the_model_itself(model: Any) -> None:
    scene = draw_scene(5, size=SIDE)
    pixels, points = to_input(scene.image[None]), torch.tensor([[[[20.0, 30.0]], [[100.0, 90.0]]]])
    with torch.no_grad():
        embeddings = model.vision_encoder(pixels).last_hidden_state
        logits, predicted = decode_all(model, embeddings, points)
        for multiple, kept in ((True, slice(1, None)), (False, slice(0, 1))):
            output = model(pixel_values=pixels, input_points=points, multimask_output=multiple)
            torch.testing.assert_close(logits[:, :, kept], output.pred_masks, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(predicted[:, :, kept], output.iou_scores, rtol=1e-4, atol=1e-4)


def test_fresh_model_answers_differently_to_different_points(model: Any) -> None:
    pixels, points = to_input(draw_scene(5, size=SIDE).image[None]), torch.tensor([[[[20.0, 30.0]], [[150.0, 160.0]]]])
    with torch.no_grad():
        masks = model(pixel_values=pixels, input_points=points).pred_masks[0]
    assert (masks[0] - masks[1]).std() > 0.5 * masks.std()


@pytest.mark.parametrize("points", [1, 3])
def test_prompts_lie_in_what_they_select(points: int) -> None:
    instances = np.stack([draw_scene(seed, size=SIDE).instances for seed in (1, 2)])
    generator = np.random.default_rng(0)
    prompts = sample_prompts(instances, generator=generator, prompts=20, points=points, joined=0.5)
    assert prompts.points.shape == (2, 20, points, 2)
    assert prompts.masks.shape == (2, 20, SIDE // 2, SIDE // 2)
    sizes = []
    for numbers, places, masks in zip(instances, prompts.points.int().numpy(), prompts.masks, strict=True):
        for place, mask in zip(places, masks, strict=True):
            owners = np.unique(numbers[place[:, 1], place[:, 0]])
            wanted = torch.from_numpy(np.isin(numbers, owners)).float().unflatten(0, (-1, 2)).unflatten(2, (-1, 2))
            torch.testing.assert_close(mask, wanted.mean((1, 3)))
            sizes.append(len(owners))
    assert set(sizes) == ({1} if points == 1 else {1, 2})


def test_small_things_are_asked_for_as_often_as_large_regions() -> None:
    instances = np.ones((1, SIDE, SIDE), np.uint8)
    instances[0, 10:16, 10:16] = 2
    instances[0, 40:44, 40:44] = 3  # 16 pixels: too little to be asked for
    prompts = sample_prompts(instances, generator=np.random.default_rng(0), prompts=400, points=1)
    owners = instances[0][prompts.points[0, :, 0, 1].int().numpy(), prompts.points[0, :, 0, 0].int().numpy()]
    assert 0.4 < (owners == 2).mean() < 0.6
    assert (owners != 3).all()


def test_mask_losses_know_right_from_wrong() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[0, 0, :4] = 1
    right, half = 20 * (2 * target - 1), torch.full_like(target, -20)
    half[0, 0, :2] = 20
    losses, iou = mask_losses(torch.stack([right, half, -right], 2), target)
    torch.testing.assert_close(iou, torch.tensor([[[1.0, 0.5, 0.0]]]))
    assert losses[0, 0, 0] < 1e-4
    # Half of it found: a quarter of the pixels 20 nats wrong, dice 1 - (2 * 16 + 1) / (48 + 1).
    assert float(losses[0, 0, 1]) == pytest.approx(5 + 1 - 33 / 49, rel=1e-4)


def test_gathering_loss_equals_its_definition() -> None:
    torch.manual_seed(0)
    embeddings, instances = torch.randn(2, 5, 3, 3), torch.randint(1, 4, (2, 12, 12))
    centres = instances[:, 2::4, 2::4].flatten(1)
    images = []
    for features, owners in zip(embeddings.flatten(2).transpose(1, 2), centres, strict=True):
        unit = features / features.norm(dim=1, keepdim=True)
        cosines = unit @ unit.T / 0.1
        for owner in owners.unique():
            losses = []
            for place in torch.nonzero(owners == owner)[:, 0]:
                logs = [cosines[place, other] - cosines[place].exp().sum().log() for other in range(9)]
                losses.append(-torch.stack([log for log, of in zip(logs, owners, strict=True) if of == owner]).mean())
            images.append(torch.stack(losses).mean())
    torch.testing.assert_close(gathering_loss(embeddings, instances), torch.stack(images).mean(), rtol=1e-4, atol=1e-4)


def test_first_filters_are_the_strongest_components_of_patches() -> None:
    torch.manual_seed(0)
    model = build_sam()
    images = np.stack([draw_scene(seed, size=SIDE).image for seed in range(6)])
    start_patches(model, images)
    projection = model.vision_encoder.patch_embed.projection
    with torch.no_grad():
        responses = projection(to_input(images))
    assert responses.mean((0, 2, 3)).abs().max() < 0.01
    assert float(responses.std()) == pytest.approx(1, abs=0.1)
    patches = torch.nn.functional.unfold(to_input(images), 8, stride=8).transpose(1, 2).flatten(0, 1)
    _, directions = torch.linalg.eigh(torch.cov(patches.T))
    filters = projection.weight.detach().flatten(1)
    left_out = filters @ directions[:, : 192 - len(filters)]
    assert left_out.norm() < 5e-3 * filters.norm()


def test_flipping_moves_picture_and_instances_together() -> None:
    scene = draw_scene(7, size=SIDE)
    seen = set()
    for seed in range(8):
        pixels, instances = augment([scene], generator=np.random.default_rng(seed))
        flipped = not (instances[0] == scene.instances).all()
        kept = scene.instances[:, ::-1] if flipped else scene.instances
        np.testing.assert_array_equal(instances[0], kept)
        plain = to_input(scene.image[None, :, ::-1] if flipped else scene.image[None])
        channel = torch.corrcoef(torch.stack([pixels[0, 0].flatten(), plain[0, 0].flatten()]))[0, 1]
        assert channel > 0.97
        seen.add(flipped)
    assert seen == {True, False}


def test_training_refuses_no_steps(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="steps 0; it must be at least 1"):
        train_sam(tmp_path, steps=0)


def test_measuring_refuses_an_empty_folder_and_no_scenes(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=re.escape(str(tmp_path))):
        measure_sam(tmp_path, scenes=1, style="day")
    with pytest.raises(PatchwordError, match="0 scenes"):
        draw_probes(scenes=0, style="day")


def test_training_goes_on_from_a_saved_folder(trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    out, _ = trained
    recipe = SamRecipe(images=1, single=1, several=1, rate=1e-9, decay=0, check_scenes=1)
    train_sam(tmp_path, steps=1, scenes=1, seed=5, start=out, recipe=recipe, threads=torch.get_num_threads())
    before, after = load_file(out / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weights in before.items():
        torch.testing.assert_close(after[name], weights, rtol=2e-3, atol=1e-6)


def test_training_goes_on_from_no_other_model(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"no training of the miniature SAM in .*; its train\.json does not state"):
        train_sam(tmp_path / "out", steps=1, scenes=1, start=miniatures.CLIP, threads=torch.get_num_threads())
    assert not (tmp_path / "out").exists()
