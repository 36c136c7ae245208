"""Three steps of training of the miniature CLIP and DINOv2: saved, loaded back, and the same bytes a second time."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from patchword.errors import PatchwordError
from patchword.models.loading import load_image_text, load_patch_encoder
from patchword.toytown import miniatures
from tools.miniatures import train, train_clip, train_dino, train_sam
from tools.miniatures.train_clip import ClipRecipe
from tools.miniatures.train_dino import DinoRecipe

CLIP = ClipRecipe(
    steps=3,
    scenes=6,
    batch=12,
    image_size=32,
    hidden=32,
    layers=2,
    heads=2,
    text_hidden=32,
    text_layers=1,
    text_heads=2,
    tokens=600,
    dim=16,
    warmup=1,
)
# Two steps of small views, one of larger ones.
DINO = DinoRecipe(
    steps=3, scenes=6, batch=8, view=32, final_view=64, final_share=0.3, hidden=32, layers=2, contrasted=64, warmup=1
)
Files = dict[str, bytes]


@pytest.fixture(scope="module", autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def contents(folder: Path) -> Files:
    """Every file of a checkpoint, without the seconds that its training took."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    record = json.loads(files["train.json"])
    assert record.pop("seconds") >= 0
    files["train.json"] = json.dumps(record).encode()
    return files


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("miniatures") / "clip"
    train_clip.train_clip(out, recipe=CLIP)
    return out


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("miniatures") / "dino"
    train_dino.train_dino(out, recipe=DINO)
    return out


def test_clip_loads_back(clip: Path) -> None:
    encoder = load_image_text(str(clip), device="cpu")
    assert encoder.record.family == "clip"
    assert (encoder.record.patch_size, encoder.record.input_size, encoder.record.dim) == (8, 32, 16)
    assert encoder.record.mean == pytest.approx(train_clip.MEAN)
    assert encoder.record.std == pytest.approx(train_clip.STD)
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    words = encoder.encode_text(["a car", "a photo of grass.", "犬"])
    assert words.shape == (3, 16)
    assert encoder.encode_images(images).shape == (2, 16)
    assert encoder.encode_patches(images).shape == (2, 16, 6, 8)
    torch.testing.assert_close(words.norm(dim=-1), torch.ones(3))


def test_dino_loads_back(dino: Path) -> None:
    encoder = load_patch_encoder(str(dino), device="cpu")
    assert encoder.record.family == "dinov2"
    assert (encoder.record.patch_size, encoder.record.dim) == (8, 32)
    assert encoder.record.mean == pytest.approx(train_dino.MEAN)
    features = encoder(torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (2, 32, 6, 8)
    assert features.isfinite().all()
    assert features.std() > 0


def test_clip_again_is_the_same_and_another_seed_is_not(clip: Path, tmp_path: Path) -> None:
    train_clip.train_clip(tmp_path / "again", recipe=CLIP)
    again = contents(tmp_path / "again")
    assert again == contents(clip)
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= again.keys()
    train_clip.train_clip(tmp_path / "other", recipe=replace(CLIP, seed=1))
    assert contents(tmp_path / "other")["model.safetensors"] != again["model.safetensors"]


def test_dino_again_is_the_same_and_another_seed_is_not(dino: Path, tmp_path: Path) -> None:
    train_dino.train_dino(tmp_path / "again", recipe=DINO)
    again = contents(tmp_path / "again")
    assert again == contents(dino)
    assert again.keys() == {"config.json", "model.safetensors", "preprocessor_config.json", "train.json"}
    train_dino.train_dino(tmp_path / "other", recipe=replace(DINO, seed=1))
    assert contents(tmp_path / "other")["model.safetensors"] != again["model.safetensors"]


def test_snapshots_do_not_change_the_outcome(dino: Path, clip: Path, tmp_path: Path) -> None:
    train_dino.train_dino(tmp_path / "dino", recipe=DINO, save_every=1)
    assert contents(tmp_path / "dino") == contents(dino)
    train_clip.train_clip(tmp_path / "clip", recipe=CLIP, save_every=1)
    assert contents(tmp_path / "clip") == contents(clip)


def test_the_weights_are_in_half_precision_and_moved(clip: Path, dino: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train_clip.train_clip(tmp_path / "clip", recipe=replace(CLIP, rate=0.0))
    train_dino.train_dino(tmp_path / "dino", recipe=replace(DINO, rate=0.0))
    for trained, still in ((clip, tmp_path / "clip"), (dino, tmp_path / "dino")):
        weights, started = (load_file(folder / "model.safetensors") for folder in (trained, still))
        floating = {name: value for name, value in weights.items() if value.is_floating_point()}
        assert {value.dtype for value in floating.values()} == {torch.float16}
        # Gains near 1 move by less than half precision can tell in three steps.
        stood = [name for name, value in floating.items() if value.ndim > 1 and torch.equal(value, started[name])]
        assert stood == []


def test_clip_goes_on_from_an_earlier_run(clip: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    still = replace(CLIP, rate=0.0, steps=1)
    train_clip.train_clip(tmp_path / "still", recipe=still, start=clip)
    first, same = (load_file(folder / "model.safetensors") for folder in (clip, tmp_path / "still"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert (tmp_path / "still" / "tokenizer.json").read_bytes() == (clip / "tokenizer.json").read_bytes()
    onto_itself = tmp_path / "still"
    train_clip.train_clip(onto_itself, recipe=CLIP, start=onto_itself, save_every=1)
    moved = load_file(onto_itself / "model.safetensors")
    assert not torch.equal(first["visual_projection.weight"], moved["visual_projection.weight"])
    before = json.loads((onto_itself / "train.json").read_text())["recipe"]["before"]
    assert before["step"] == 1
    assert before["recipe"]["before"]["step"] == 3
    assert "before" not in before["recipe"]["before"]["recipe"]


def test_dino_goes_on_from_an_earlier_run(dino: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    train_dino.train_dino(tmp_path / "still", recipe=replace(DINO, rate=0.0, steps=1), start=dino)
    first, same = (load_file(folder / "model.safetensors") for folder in (dino, tmp_path / "still"))
    assert all(torch.equal(first[name], same[name]) for name in first)
    train_dino.train_dino(tmp_path / "on", recipe=DINO, start=tmp_path / "still")
    moved = load_file(tmp_path / "on" / "model.safetensors")
    assert not torch.equal(first["encoder.layer.0.mlp.fc1.weight"], moved["encoder.layer.0.mlp.fc1.weight"])
    before = json.loads((tmp_path / "on" / "train.json").read_text())["recipe"]["before"]
    assert (before["step"], before["recipe"]["before"]["step"]) == (1, 3)


def test_dino_goes_on_from_nothing_else(dino: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"a folder with train\.json is needed"):
        train_dino.train_dino(tmp_path / "out", recipe=DINO, start=tmp_path)
    with pytest.raises(PatchwordError, match=r"has layers \d; the recipe says 5"):
        train_dino.train_dino(tmp_path / "out", recipe=replace(DINO, layers=5), start=dino)
    assert not (tmp_path / "out").exists()


def test_clip_goes_on_from_nothing_else(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"a folder with train\.json is needed"):
        train_clip.train_clip(tmp_path / "out", recipe=CLIP, start=tmp_path)
    with pytest.raises(PatchwordError, match="has dim 16; the recipe says 24"):
        train_clip.train_clip(tmp_path / "out", recipe=replace(CLIP, dim=24), start=clip)
    assert not (tmp_path / "out").exists()


def test_the_recipe_is_kept(clip: Path, dino: Path) -> None:
    for folder, recipe in ((clip, CLIP), (dino, DINO)):
        record = json.loads((folder / "train.json").read_text())
        assert type(recipe)(**record["recipe"]) == recipe
        assert record["step"] == 3


def test_progress_goes_to_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        train_dino.train_dino(tmp_path / "dino", recipe=replace(DINO, steps=2), log_every=1)
        train_clip.train_clip(tmp_path / "clip", recipe=replace(CLIP, steps=2), log_every=1)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("tools.miniatures")]
    assert [line.split(" [")[0] for line in lines if line.startswith("step")] == ["step 0", "step 1"] * 2
    assert [word for line in lines for word in ("6 places drawn", "6 scenes drawn") if word in line] == [
        "6 places drawn",
        "6 scenes drawn",
    ]


@pytest.mark.parametrize(
    ("run", "recipe", "more", "named"),
    [
        (train_clip.train_clip, replace(CLIP, steps=0), {}, "steps 0"),
        (train_clip.train_clip, replace(CLIP, batch=-1), {}, "batch -1"),
        (train_clip.train_clip, replace(CLIP, tokens=100), {}, "100 tokens"),
        (train_dino.train_dino, replace(DINO, scenes=0), {}, "scenes 0"),
        (train_dino.train_dino, DINO, {"save_every": 0}, "save_every 0"),
    ],
)
def test_impossible_numbers_are_refused(
    run: Callable[..., None], recipe: Any, more: dict[str, int], named: str, tmp_path: Path
) -> None:
    with pytest.raises(PatchwordError, match=f"{named}; it "):
        run(tmp_path / "out", recipe=recipe, **more)
    assert not list(tmp_path.glob("out/*"))


def test_the_command_passes_its_numbers_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Path, dict[str, Any]]] = []
    monkeypatch.setattr(train_clip, "train_clip", lambda out, **named: seen.append((out, named)))
    monkeypatch.setattr(train_dino, "train_dino", lambda out, **named: seen.append((out, named)))
    monkeypatch.setattr(train_sam, "train_sam", lambda out, **named: seen.append((out, named)))
    common = ["--out", str(tmp_path), "--steps", "7", "--scenes", "9", "--seed", "2", "--threads", "3"]
    train.main(["clip", *common, "--rate", "0.5", "--start", str(tmp_path / "old")])
    train.main(["dino", "--out", str(tmp_path)])
    train.main(["sam", *common])
    train.main(["sam", *common, "--rate", "0.25", "--start", str(tmp_path / "old")])
    clip = {"recipe": ClipRecipe(steps=7, scenes=9, rate=0.5, seed=2), "start": tmp_path / "old", "threads": 3}
    sam = {"steps": 7, "scenes": 9, "recipe": train_sam.FRESH, "start": None, "seed": 2, "threads": 3}
    onward = {**sam, "recipe": replace(train_sam.ONWARD, rate=0.25), "start": tmp_path / "old"}
    assert seen == [
        (tmp_path, clip),
        (tmp_path, {"recipe": DinoRecipe(), "start": None, "threads": 1}),
        (tmp_path, sam),
        (tmp_path, onward),
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "0"], "steps 0; it must be at least 1"),
        (["--seed", "-1"], "--seed -1; it must be at least 0"),
        (["--start", "old"], "no training of the miniature DINOv2 in old"),
        (["--start", str(miniatures.SAM)], "its train.json does not state hidden"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        train.main(["dino", "--out", str(tmp_path / "out"), *arguments])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_and_the_world_import_nothing_heavy() -> None:
    script = (
        "import sys, tools.miniatures.train, patchword.toytown.world; assert 'torch' not in sys.modules;"
        "import tools.miniatures.train_clip, tools.miniatures.train_dino; assert 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(train.__file__).parents[2])
