"""The miniature DINOv2 is distilled: features of the whole image learn from those of small windows."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from patchword.errors import PatchwordError
from patchword.models.loading import load_patch_encoder
from patchword.toytown import miniatures
from tools.miniatures import cards, train
from tools.miniatures import train_distill as train_distill_module
from tools.miniatures.checkpoints import earlier_runs
from tools.miniatures.train_dino import DinoRecipe, normalise, train_dino
from tools.miniatures.train_distill import (
    DistillRecipe,
    teacher_features,
    train_distill,
    window_features,
    window_starts,
)

DINO = DinoRecipe(
    steps=2, scenes=4, batch=4, view=32, final_view=32, hidden=32, layers=1, contrasted=32, warmup=1, rate=1e-3
)
DISTILL = DistillRecipe(steps=3, scenes=2, batch=2, warmup=1)
WINDOW = 96  # the fewest windows


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distill") / "dino"
    train_dino(out, recipe=DINO)
    return out


@pytest.fixture(scope="module")
def distilled(dino: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("distill") / "distilled"
    train_distill(out, recipe=DISTILL, start=dino, teachers=[(dino, WINDOW)])
    return out


class Placed(nn.Module):
    """Says of every patch its mean brightness, and which patch of what it is shown it is."""

    def forward(self, pixel_values: Tensor) -> SimpleNamespace:
        brightness = functional.avg_pool2d(pixel_values.mean(1), 8).flatten(1)  # (b, n)
        number = torch.arange(brightness.shape[1]).float().expand_as(brightness)
        tokens = torch.stack([brightness, number], dim=-1)
        return SimpleNamespace(last_hidden_state=torch.cat([torch.full_like(tokens[:, :1], 99.0), tokens], dim=1))


def test_a_patch_is_the_mean_over_the_windows_that_show_it() -> None:
    images = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    found = window_features(Placed(), images, window=24)  # windows begin at patches 0, 1 and 2
    assert found.shape == (2, 5, 5, 2)
    fade = [0.5, 1.0, 0.5]
    for image in range(2):
        for row in range(5):
            for column in range(5):
                patch = images[image, :, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
                said, weights = [], []
                for top in range(3):
                    for left in range(3):
                        down, across = row - top, column - left
                        if 0 <= down < 3 and 0 <= across < 3:
                            said.append(down * 3 + across)
                            weights.append(fade[down] * fade[across] + 0.01)
                mean = sum(w * s for w, s in zip(weights, said, strict=True)) / sum(weights)
                assert found[image, row, column, 1].item() == pytest.approx(mean, rel=1e-4)
                assert found[image, row, column, 0].item() == pytest.approx(patch.mean().item(), abs=5e-3)


@pytest.mark.parametrize("window", [0, 8, 20, 40, 72, 96, 120])
def test_windows_that_leave_something_out_are_refused(window: int) -> None:
    with pytest.raises(PatchwordError, match=f"windows of {window} pixels do not cover 112 pixels; choose from 24, 48"):
        window_features(Placed(), torch.zeros(1, 3, 112, 112), window=window)


def test_windows_end_where_the_image_ends() -> None:
    assert list(window_starts(96, window=48)) == [0, 16, 32, 48]
    assert list(window_starts(192, window=96)) == [0, 32, 64, 96]
    assert list(window_starts(192, window=192)) == [0]


def test_the_same_recipe_gives_the_same_weights(dino: Path, distilled: Path, tmp_path: Path) -> None:
    train_distill(tmp_path / "again", recipe=DISTILL, start=dino, teachers=[(dino, WINDOW)], save_every=1)
    weights = (distilled / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights
    train_distill(tmp_path / "other", recipe=replace(DISTILL, seed=1), start=dino, teachers=[(dino, WINDOW)])
    assert (tmp_path / "other" / "model.safetensors").read_bytes() != weights


def test_without_a_rate_nothing_moves(dino: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train_distill(tmp_path / "still", recipe=replace(DISTILL, rate=0.0), start=dino, teachers=[(dino, WINDOW)])
    first, same = (load_file(folder / "model.safetensors") for folder in (dino, tmp_path / "still"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    for name in ("config.json", "preprocessor_config.json"):
        assert json.loads((tmp_path / "still" / name).read_text()) == json.loads((dino / name).read_text())


def test_the_whole_image_comes_nearer_to_the_windows(
    dino: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = replace(DISTILL, steps=60, rate=3e-3, warmup=10)
    with caplog.at_level(logging.INFO):
        train_distill(tmp_path / "nearer", recipe=recipe, start=dino, teachers=[(dino, WINDOW)], log_every=1)
    losses = [float(line.split("loss ")[1]) for line in caplog.messages if "loss" in line]
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_teachers_are_heard_in_their_order_each_on_its_own_windows(dino: Path, distilled: Path) -> None:
    from transformers import Dinov2Model

    pictures = np.random.default_rng(0).integers(0, 256, (2, 192, 192, 3), dtype=np.uint8)
    found = teacher_features(pictures, teachers=[(dino, 96), (distilled, 72)])
    assert found.shape == (2, 24, 24, 64)
    images = normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    heard = [(dino, 96), (distilled, 72)]
    for part, (folder, window) in zip(np.split(found, 2, axis=-1), heard, strict=True):
        model = Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
        alone = window_features(model, images, window=window)
        assert np.allclose(part, alone.numpy(), atol=1e-2)


def test_both_lights_of_a_picture_are_to_say_what_is_said_of_it_by_day(
    dino: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Dark pictures are to say 1 and bright ones -1, which only a student that is told the right picture learns."""
    levels = np.array([[20, 0], [200, 180], [230, 210], [50, 30]], np.uint8)
    pictures = np.broadcast_to(levels[:, :, None, None, None], (4, 2, 192, 192, 3)).copy()
    said = np.where(levels[:, :1, None, None] < 100, 1.0, -1.0)

    def teach(shown: NDArray[np.uint8], *, teachers: object) -> NDArray[np.float16]:
        assert np.array_equal(shown, pictures[:, 0])
        return np.broadcast_to(said, (4, 24, 24, 1)).astype(np.float16)

    monkeypatch.setattr(train_distill_module, "draw_day_and_dusk", lambda purpose, count: pictures)
    monkeypatch.setattr(train_distill_module, "teacher_features", teach)
    with caplog.at_level(logging.INFO):
        recipe = replace(DISTILL, steps=60, rate=1e-2, warmup=5)
        train_distill(tmp_path / "told", recipe=recipe, start=dino, log_every=1)
    losses = [float(line.split("loss ")[1]) for line in caplog.messages if "loss" in line]
    assert max(losses[-5:]) < 0.3


def test_without_a_teacher_the_start_teaches_on_windows_of_48_pixels(dino: Path, tmp_path: Path) -> None:
    recipe = replace(DISTILL, steps=1, scenes=1)
    train_distill(tmp_path / "alone", recipe=recipe, start=dino)
    train_distill(tmp_path / "said", recipe=recipe, start=dino, teachers=[(dino, 48)])
    first, same = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("alone", "said"))
    assert first == same


def test_the_card_says_which_teachers_took_part(dino: Path, distilled: Path, tmp_path: Path) -> None:
    out = tmp_path / "taught"
    teachers = ["--teacher", str(dino), "96", "--teacher", str(distilled), "72"]
    train.main(["distill", "--out", str(out), "--start", str(distilled), "--steps", "1", "--scenes", "1", *teachers])
    record = json.loads((out / "train.json").read_text())
    assert record["recipe"]["teachers"] == [{"steps": 2, "window": 96}, {"steps": 5, "window": 72}]
    command = cards._command("dino", record)
    assert "train distill " in command
    assert command.endswith("--teacher FOLDER-OF-2-STEPS 96 --teacher FOLDER-OF-5-STEPS 72`")


def test_it_loads_back_and_training_goes_on_from_it(dino: Path, distilled: Path, tmp_path: Path) -> None:
    assert load_patch_encoder(str(distilled), device="cpu").record.dim == 32
    record = json.loads((distilled / "train.json").read_text())
    assert record["recipe"]["before"]["step"] == 2
    train_dino(tmp_path / "on", recipe=DINO, start=distilled)
    runs = earlier_runs(json.loads((tmp_path / "on" / "train.json").read_text()))
    assert [cards._command("dino", run).split(" --out")[0].split()[-1] for run in runs] == ["dino", "distill", "dino"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "distilling needs --start"),
        (["--start", "old"], "no training of the miniature DINOv2 in old"),
        (["--start", str(miniatures.CLIP)], "its train.json does not state view"),
        (["--start", str(miniatures.SAM)], "its train.json does not state hidden"),
        (["--start", str(miniatures.DINO), "--teacher", "old", "48"], "no training of the miniature DINOv2 in old"),
        (["--start", str(miniatures.DINO), "--teacher", str(miniatures.SAM), "48"], "does not state hidden"),
        (["--start", str(miniatures.DINO), "--teacher", "old", "much"], "windows of 'much'; choose a number of pixels"),
        (["--start", str(miniatures.DINO), "--teacher", "old", "0"], "windows of 0 pixels do not cover 192"),
        (
            ["--start", str(miniatures.DINO), "--teacher", "old", "40"],
            "do not cover 192 pixels; choose from 24, 48, 72, 96, 144, 192",
        ),
        (["--steps", "0", "--start", "old"], "steps 0; it must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["distill", "--out", str(tmp_path / "out"), *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
