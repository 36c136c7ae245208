"""Augmented photographs carry their labels along, exactly."""

from __future__ import annotations

import hashlib
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_world import COLOURS, PATCH, RGB, SETTINGS, VOCABULARY, ColourPatches, ColourText, make_data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from patchword.alignment import photographs
from patchword.alignment.data import HashedItem
from patchword.alignment.online import (
    Augmentation,
    AugmentedFeatures,
    augment_photograph,
    draw_augmentation,
    move,
)
from patchword.alignment.photographs import content_hash
from patchword.alignment.run import align_labels
from patchword.alignment.schedule import seeded_generator
from patchword.config.align import AlignSettings
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError

ONLINE = SETTINGS.model_copy(update={"features": "online", "steps": None, "epochs": 3, "colour": 0.0})
AS_IT_IS = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}


def numbered(height: int, width: int) -> Tensor:
    """A picture whose every pixel is another, (1, 3, h, w) in [0, 1], and so its own label map."""
    values = torch.arange(height * width).reshape(1, 1, height, width) / (height * width)
    return values.expand(1, 3, -1, -1).double().float()


@pytest.mark.parametrize("flipped", [False, True])
def test_every_pixel_goes_where_its_label_goes(flipped: bool) -> None:
    picture = numbered(7, 9)
    indices = (picture[0, 0] * 63).round().long()
    augmentation = Augmentation(top=2, left=3, height=4, width=4, flipped=flipped, **AS_IT_IS)
    pixels = augment_photograph(picture, augmentation, side=4)  # the crop's own size: nothing is resampled
    labels = move(indices, augmentation)
    assert labels.shape == (4, 4)
    for row in range(4):
        for column in range(4):
            source = (2 + row, 3 + (3 - column if flipped else column))
            assert labels[row, column] == indices[source]
            assert (pixels[0, 0, row, column] * 63).round() == labels[row, column]


@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    scale=st.floats(0.01, 1),
    ratio=st.floats(1, 4),
    seed=st.integers(0, 1000),
)
def test_crops_lie_within_the_photograph_and_keep_their_share(
    size: tuple[int, int], scale: float, ratio: float, seed: int
) -> None:
    settings = AlignSettings(crop_scale=scale, crop_ratio=ratio)
    found = draw_augmentation(size, settings=settings, generator=torch.Generator().manual_seed(seed))
    assert 0 <= found.top <= size[0] - found.height < size[0]
    assert 0 <= found.left <= size[1] - found.width < size[1]
    if ratio == 1:
        assert (found.height + 0.5) * (found.width + 0.5) >= scale * size[0] * size[1] - 0.25


def test_settings_that_ask_for_nothing_do_nothing() -> None:
    settings = AlignSettings(crop_scale=1, crop_ratio=1, flip=0, colour=0)
    picture = numbered(6, 6)
    for seed in range(5):
        drawn = draw_augmentation((6, 6), settings=settings, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(augment_photograph(picture, drawn, side=6), picture)


def test_about_half_are_mirrored_and_crops_differ() -> None:
    drawn = [
        draw_augmentation((50, 80), settings=AlignSettings(), generator=torch.Generator().manual_seed(seed))
        for seed in range(200)
    ]
    assert 70 < sum(each.flipped for each in drawn) < 130
    shares = [each.height * each.width / 4000 for each in drawn]
    assert min(shares) < 0.56
    assert max(shares) > 0.94
    assert len({(each.top, each.left) for each in drawn}) > 60


GREY = 0.299 * 0.8 + 0.587 * 0.4 + 0.114 * 0.2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"brightness": 0.5}, (0.4, 0.2, 0.1)),
        ({"saturation": 0.0}, (GREY, GREY, GREY)),
        ({"contrast": 0.0}, ((GREY + 0.1) / 2,) * 3),  # the other half of the picture is a grey of 0.1
        ({"contrast": 0.5}, tuple((value + (GREY + 0.1) / 2) / 2 for value in (0.8, 0.4, 0.2))),
    ],
)
def test_colours(change: dict[str, float], expected: tuple[float, ...]) -> None:
    picture = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1).repeat(1, 1, 4, 4)
    picture[..., 2:] = 0.1
    augmentation = Augmentation(0, 0, 4, 4, flipped=False, **{**AS_IT_IS, **change})
    found = augment_photograph(picture, augmentation, side=4)
    torch.testing.assert_close(found[0, :, 0, 0], torch.tensor(expected))


def hashed(folder: Path) -> list[HashedItem]:
    return [
        HashedItem(item.image, item.label_map, content_hash(item.image), content_hash(item.label_map))
        for item in make_data(folder).items
    ]


def test_patch_labels_are_those_of_the_augmented_picture(tmp_path: Path) -> None:
    """An encoder that passes the pixels through shows each patch's colour, which must be its label's."""

    class Pixels(ColourPatches):
        def __call__(self, images: Tensor) -> Tensor:
            return torch.nn.functional.avg_pool2d(images, PATCH)

    settings = ONLINE.model_copy(update={"majority": 0.9})
    features = AugmentedFeatures(hashed(tmp_path), names=VOCABULARY.names, encoder=Pixels(), settings=settings)
    palette = torch.tensor([RGB[name] for name in COLOURS]) / 255
    checked = 0
    for epoch in range(6):
        pixels, labels = features.read_augmented(range(8), epoch=epoch)
        assert pixels.shape == (8, 3, 4, 4)
        assert labels.shape == (8, 4, 4)
        nearest = torch.cdist(pixels.permute(0, 2, 3, 1), palette).argmin(dim=-1)
        known = labels >= 0
        assert torch.equal(nearest[known], labels[known])
        checked += int(known.sum())
    assert checked > 400


def test_it_is_another_in_every_epoch_and_the_same_when_read_again(tmp_path: Path) -> None:
    features = AugmentedFeatures(hashed(tmp_path), names=VOCABULARY.names, encoder=ColourPatches(), settings=ONLINE)
    (first, labels), (other, _) = (features.read_augmented([3, 1], epoch=epoch) for epoch in (0, 1))
    again, again_labels = features.read_augmented([3, 1], epoch=0)
    alone, _ = features.read_augmented([1], epoch=0)
    assert torch.equal(first, again)
    assert torch.equal(labels, again_labels)
    assert not torch.equal(first, other)
    torch.testing.assert_close(first[1:], alone)


def test_a_file_that_has_changed_is_an_error(tmp_path: Path) -> None:
    items = hashed(tmp_path)
    features = AugmentedFeatures(items, names=VOCABULARY.names, encoder=ColourPatches(), settings=ONLINE)
    LabelMap(np.zeros((16, 16), np.uint8), COLOURS).save(items[2].label_map)
    with pytest.raises(PatchwordError, match=r"2.png.png has changed since the run began"):
        features.read_augmented([2], epoch=0)
    Image.new("RGB", (16, 16)).save(items[3].image)
    with pytest.raises(PatchwordError, match=r"3.png has changed since the run began"):
        features.read_augmented([3], epoch=0)


@pytest.mark.parametrize(
    ("augment", "features", "images"), [(True, "online", True), (False, "online", False), (True, "cached", False)]
)
def test_a_run_augments_only_what_it_computes_in_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augment: bool, features: str, images: bool
) -> None:
    calls = []
    read = AugmentedFeatures.read_augmented

    def watched(self: AugmentedFeatures, positions: list[int], /, *, epoch: int) -> tuple[Tensor, Tensor]:
        calls.append(epoch)
        return read(self, positions, epoch=epoch)

    monkeypatch.setattr(AugmentedFeatures, "read_augmented", watched)
    settings = ONLINE.model_copy(update={"augment": augment, "features": features})
    result = align_labels(
        make_data(tmp_path),
        encoder=ColourPatches(),
        text_encoder=ColourText(),
        out=tmp_path / "model",
        settings=settings,
        quiet=True,
    )
    assert calls == ([0, 0, 1, 1, 2, 2] if images else [])
    assert result.history[-1].step == 6


def test_an_augmented_run_that_was_stopped_ends_with_the_same_bytes(tmp_path: Path) -> None:
    class Stops(ColourPatches):
        def __call__(self, images: Tensor) -> Tensor:
            if self.images >= 20:
                raise KeyboardInterrupt
            return super().__call__(images)

    data = make_data(tmp_path)

    def run(out: str, encoder: ColourPatches, *, resume: bool = False) -> dict[str, bytes]:
        align_labels(
            data,
            encoder=encoder,
            text_encoder=ColourText(),
            out=tmp_path / out,
            settings=ONLINE,
            resume=resume,
            quiet=True,
        )
        return {path.name: path.read_bytes() for path in (tmp_path / out).rglob("*") if path.is_file()}

    whole = run("whole", ColourPatches())
    with pytest.raises(KeyboardInterrupt):
        run("stopped", Stops())
    assert (tmp_path / "stopped" / "checkpoint.safetensors").exists()
    assert run("stopped", ColourPatches(), resume=True) == whole


def test_held_out_photographs_are_measured_as_they_are(tmp_path: Path) -> None:
    result = align_labels(
        make_data(tmp_path),
        encoder=ColourPatches(),
        text_encoder=ColourText(),
        out=tmp_path / "model",
        settings=ONLINE.model_copy(update={"held_out": 0.25, "epochs": 40, "learning_rate": 0.01}),
        quiet=True,
    )
    values = [record.held_out for record in result.history if record.held_out is not None]
    assert len(values) == 40
    assert values[-1] > 0.9


def test_generators_differ_by_every_argument() -> None:
    draws = {
        float(torch.rand(1, generator=seeded_generator(seed, purpose, *place)))
        for seed, purpose, place in [(0, "a", (1,)), (1, "a", (1,)), (0, "b", (1,)), (0, "a", (2,)), (0, "a", (1, "k"))]
    }
    assert len(draws) == 5


@pytest.mark.parametrize("features", ["online", "cached"])
def test_a_run_hashes_every_file_once(tmp_path: Path, features: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make_data(tmp_path)
    for item in data.items:
        for path in (item.image, item.label_map):
            os.utime(path, (1e9, 1e9))
    digest, read = hashlib.file_digest, []
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: read.append(Path(file.name)) or digest(file, name))
    align = partial(
        align_labels,
        data,
        encoder=ColourPatches(),
        text_encoder=ColourText(),
        settings=ONLINE.model_copy(update={"features": features, "held_out": 0.25}),
        cache=tmp_path / "cache",
        quiet=True,
    )
    align(out=tmp_path / "model")
    assert sorted(path for path in read if tmp_path in path.parents) == sorted(
        path for item in data.items for path in (item.image, item.label_map)
    )
    read.clear()
    photographs._known.clear()  # as in another process
    os.utime(data.items[0].label_map, (2e9, 1e9))
    align(out=tmp_path / "again")
    assert read == [data.items[0].label_map]  # which is another file by its times
    image = data.items[0].image
    for damaged in ("", "[1]", json.dumps({str(image): {"stamp": 3}}), json.dumps({str(image): [1]})):
        (tmp_path / "cache" / "contents.json").write_text(damaged)
        photographs._known.clear()
        photographs.read_contents(tmp_path / "cache" / "contents.json", [image])
        assert photographs._known == {}
