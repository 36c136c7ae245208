"""The measurements of the miniatures, against models whose every answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.toytown.classes import CLASSES
from patchword.toytown.things import THINGS
from patchword.toytown.world import Scene, draw_scene
from tools.miniatures import measure_clip, measure_dino
from tools.miniatures.measure_clip import single_object_crops
from tools.miniatures.measure_dino import fit_probe, mean_class_accuracy, patch_classes, raw_pixels
from tools.miniatures.pool import draw_pool


def naive_patch_classes(classes: Any, *, majority: float) -> list[int]:
    found = []
    for top in range(0, classes.shape[0], 8):
        for left in range(0, classes.shape[1], 8):
            patch = classes[top : top + 8, left : left + 8].ravel().tolist()
            best = max(sorted(set(patch)), key=patch.count)
            found.append(best if patch.count(best) >= majority * 64 else -1)
    return found


@pytest.mark.parametrize("majority", [0.3, 0.6, 1.0])
def test_a_patch_has_the_class_of_its_majority(majority: float) -> None:
    for seed in range(4):
        scene = draw_scene(seed, size=(48, 80))
        found = patch_classes(scene, majority=majority)
        # A tie may go either way, and is below any majority of more than a half.
        expected = naive_patch_classes(scene.classes, majority=majority)
        if majority > 0.5:
            assert found.tolist() == expected
        assert len(found) == 60
        assert (found >= 0).sum() == sum(value >= 0 for value in expected)
    assert -1 in naive_patch_classes(draw_scene(0, size=48).classes, majority=1.0)


def test_raw_pixels_are_the_pixels_of_each_patch() -> None:
    images = torch.rand(2, 3, 24, 16, generator=torch.Generator().manual_seed(0))
    found = raw_pixels(images)
    assert found.shape == (2, 192, 3, 2)
    for row in range(3):
        for column in range(2):
            patch = images[1, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            torch.testing.assert_close(found[1, :, row, column], patch.flatten(), rtol=0, atol=0)


def test_a_probe_learns_what_a_line_can_tell_even_of_the_rare() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([3] * 2000 + [7] * 300 + [20] * 15)
    centres = 4 * torch.eye(len(CLASSES))[:, :8]
    centres[20] = torch.tensor([-4.0] * 8)
    features = 50 + 10 * (centres[labels] + torch.randn(len(labels), 8, generator=generator))
    probe = fit_probe(features, labels, steps=80, rate=0.05)
    with torch.no_grad():
        accuracy, each = mean_class_accuracy(probe(features), labels)
    assert accuracy > 0.95
    assert each.keys() == {CLASSES[number] for number in (3, 7, 20)}
    shuffled = features[torch.randperm(len(features), generator=generator)]
    misled = fit_probe(shuffled, labels, steps=80, rate=0.05)
    with torch.no_grad():
        assert mean_class_accuracy(misled(shuffled), labels)[0] < 0.75


def test_a_probe_weighs_every_class_alike_where_they_overlap() -> None:
    labels = torch.tensor([3] * 3000 + [7] * 90)
    centres = torch.zeros(len(CLASSES), 1)
    centres[7] = 1.5
    features = centres[labels] + torch.randn(len(labels), 1, generator=torch.Generator().manual_seed(0))
    probe = fit_probe(features, labels, steps=80, rate=0.05)
    with torch.no_grad():
        _, each = mean_class_accuracy(probe(features), labels)
    # The fair border, half way, leaves each 0.77; were patches counted alike, the rare would keep a twentieth.
    assert min(each[CLASSES[3]], each[CLASSES[7]]) > 0.6


def test_a_probe_is_the_same_every_time() -> None:
    features = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0).long()
    answers = [fit_probe(features, labels, steps=5)(features) for _ in range(2)]
    assert torch.equal(*answers)


def test_the_mean_over_classes_counts_the_rare_as_much_as_the_frequent() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    predicted = torch.tensor([0] * 8 + [0, 1])
    accuracy, each = mean_class_accuracy(predicted, labels)
    assert accuracy == pytest.approx(0.75)
    assert each == {CLASSES[0]: 1.0, CLASSES[1]: 0.5}


def test_crops_show_one_thing_whole_and_free() -> None:
    count = 0
    for scene in draw_pool("validate", count=40):
        crops = list(single_object_crops(scene))
        count += len(crops)
        assert len(crops) <= len(scene.things)
        for crop, name in crops:
            assert crop.shape[0] == 1
            assert 0 <= crop.min() <= crop.max() <= 1
            place = find(scene, crop)
            inside = scene.classes[place]
            things = inside[inside >= len(CLASSES) - len(THINGS)]
            assert (things == CLASSES.index(name)).sum() >= 0.8 * len(things) > 0
    assert count > 25


def find(scene: Scene, crop: Tensor) -> tuple[slice, slice]:
    """Where in a scene a crop was cut."""
    wanted = (crop[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    side = wanted.shape[:2]
    starts = np.argwhere((scene.image == wanted[0, 0]).all(2))
    for row, column in starts:
        place = (slice(row, row + side[0]), slice(column, column + side[1]))
        if np.array_equal(scene.image[place], wanted):
            return place
    raise AssertionError("the crop is not in the scene")


def test_a_thing_cut_by_the_border_or_too_small_is_no_crop() -> None:
    scene = draw_pool("validate", count=1)[0]
    strict = list(single_object_crops(scene, smallest=1000))
    assert strict == []
    for scene in draw_pool("validate", count=20):
        whole = [
            thing.name
            for thing in scene.things
            if min(thing.box[:2]) >= 0
            and thing.box[0] + thing.box[2] <= 192
            and thing.box[1] + thing.box[3] <= 192
            and min(thing.box[2:]) >= 20
        ]
        assert [name for _, name in single_object_crops(scene, visible=0)] == whole


class KnowingEncoder:
    """Names crops by looking them up, as far as it is `right` to."""

    def __init__(self, scenes: list[Scene], right: Callable[[str], bool]) -> None:
        self.names = [thing.name for thing in THINGS]
        self.answers = {
            crop.numpy().tobytes(): name if right(name) else self.names[self.names.index(name) - 1]
            for scene in scenes
            for crop, name in single_object_crops(scene)
        }

    def encode_text(self, prompts: list[str]) -> Tensor:
        rows = [[float(f" {name}" in prompt) for name in self.names] for prompt in prompts]
        return functional.normalize(torch.tensor(rows), dim=-1)

    def encode_images(self, images: Tensor) -> Tensor:
        return torch.eye(len(self.names))[[self.names.index(self.answers[images.numpy().tobytes()])]]


@pytest.mark.parametrize("style", ["day", "dusk"])
def test_naming_is_averaged_over_classes(style: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = draw_pool("validate", count=25, dusk_every=int(style == "dusk"))
    names = [name for scene in scenes for _, name in single_object_crops(scene)]
    commonest = max(sorted(set(names)), key=names.count)
    for right, expected in ((lambda _: True, 1.0), (lambda name: name != commonest, 1 - 1 / len(set(names)))):
        encoder = KnowingEncoder(scenes, right)
        monkeypatch.setattr(measure_clip, "load_image_text", lambda *_, found=encoder, **__: found)
        measured = measure_clip.measure_clip(tmp_path, scenes=25, style=style)
        assert measured.accuracy == pytest.approx(expected)
        assert measured.crops == len(names)
        assert measured.per_class.keys() == set(names)


def test_naming_refuses_what_it_cannot_measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="'noon'"):
        measure_clip.measure_clip(tmp_path, style="noon")
    monkeypatch.setattr(measure_clip, "load_image_text", lambda *_, **__: KnowingEncoder([], bool))
    with pytest.raises(PatchwordError, match="no thing stands free in 0 scenes"):
        measure_clip.measure_clip(tmp_path, scenes=0)


def knowing_patches(scenes: list[Scene], *, patch: int = 8) -> Any:
    """A patch encoder that knows the class of every patch of some scenes."""
    answers = {
        (torch.from_numpy(scene.image).permute(2, 0, 1)[None].float() / 255).numpy().tobytes(): scene
        for scene in scenes
    }

    def encode(image: Tensor) -> Tensor:
        kinds = patch_classes(answers[image.numpy().tobytes()], majority=0.0)
        return functional.one_hot(kinds, len(CLASSES)).float().T.reshape(1, len(CLASSES), 24, 24)

    encoder = SimpleNamespace(record=SimpleNamespace(patch_size=patch))
    return type("Encoder", (), {"__call__": lambda self, image: encode(image), "record": encoder.record})()


def test_probing_a_knowing_encoder_beats_raw_pixels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scenes = draw_pool("probe", count=12) + draw_pool("validate", count=4)
    monkeypatch.setattr(measure_dino, "load_patch_encoder", lambda *_, **__: knowing_patches(scenes))
    monkeypatch.setattr(
        measure_dino, "fit_probe", lambda features, labels: fit_probe(features, labels, steps=40, rate=0.2)
    )
    measured = measure_dino.measure_dino(tmp_path, train=12, test=4)
    known = {CLASSES[number] for scene in scenes[:12] for number in patch_classes(scene).tolist() if number >= 0}
    assert measured.per_class.keys() <= set(CLASSES)
    for name in measured.per_class.keys() & known:
        assert measured.per_class[name] > 0.99, name
    assert measured.pixels < measured.features - 0.2


def test_probing_refuses_other_patches_and_no_scenes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure_dino, "load_patch_encoder", lambda *_, **__: knowing_patches([], patch=14))
    with pytest.raises(PatchwordError, match="patches of 14 pixels; they must have 8"):
        measure_dino.measure_dino(tmp_path)
    with pytest.raises(PatchwordError, match="with test 0; it must be at least 1"):
        measure_dino.measure_dino(tmp_path, test=0)
