"""Scenes of one use are never those of another, by construction and as the code draws them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import patchword.toytown
from patchword.errors import PatchwordError
from patchword.toytown import demo, demo_scenes
from patchword.toytown.world import PURPOSES, RANGE, Scene, draw_scene, scene_seed
from tools import miniatures
from tools.miniatures import (
    measure_clip,
    measure_dino,
    measure_sam,
    places,
    pool,
    train_clip,
    train_dino,
    train_distill,
    train_sam,
)

purposes = st.sampled_from(PURPOSES)
indices = st.integers(0, RANGE - 1)
SOURCES = sorted(
    source for package in (patchword.toytown, miniatures) for source in Path(str(package.__file__)).parent.glob("*.py")
)


@given(first=st.tuples(purposes, indices), second=st.tuples(purposes, indices))
def test_no_two_uses_share_a_seed(first: tuple[str, int], second: tuple[str, int]) -> None:
    seeds = [scene_seed(purpose, index=index) for purpose, index in (first, second)]
    assert (seeds[0] == seeds[1]) == (first == second)


def test_ranges_end_before_the_next_begins() -> None:
    ranges = sorted((scene_seed(name, index=0), scene_seed(name, index=RANGE - 1)) for name in PURPOSES)
    for (_, last), (first, _) in pairwise(ranges):
        assert last < first


@pytest.mark.parametrize("index", [-1, RANGE])
def test_an_index_outside_the_range_is_refused(index: int) -> None:
    with pytest.raises(PatchwordError, match=f"scene index {index} of 'label'; choose 0 to {RANGE - 1}"):
        scene_seed("label", index=index)


def test_an_unknown_purpose_is_refused() -> None:
    with pytest.raises(PatchwordError, match=r"'fun' \(choose from train-clip"):
        scene_seed("fun", index=0)


class DrawnError(Exception):
    """Ends a function once it has drawn what it draws."""


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The purposes of the scenes drawn; each is replaced by the same small scene."""
    recorded: set[str] = set()
    scene = draw_scene(0, size=192)

    def record(purpose: str, *, index: int) -> int:
        recorded.add(purpose)
        return scene_seed(purpose, index=index)

    def draw(seed: int, *, size: int, style: str = "day") -> Scene:
        return scene

    for module in (pool, measure_sam, demo_scenes):
        monkeypatch.setattr(module, "scene_seed", record)
        monkeypatch.setattr(module, "draw_scene", draw)
    monkeypatch.setattr(places, "scene_seed", record)
    return recorded


def stop(*arguments: Any, **named: Any) -> Any:
    raise DrawnError


class Nothing:
    """A model of which nothing is asked."""

    class record:  # noqa: N801
        patch_size = 8

    def class_vectors(self) -> None: ...


def _train_clip(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(train_clip, "train_tokenizer", stop)
    train_clip.train_clip(folder, recipe=train_clip.ClipRecipe(scenes=3))


def _train_dino(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(train_dino, "local_spectrum", stop)
    train_dino.train_dino(folder, recipe=train_dino.DinoRecipe(scenes=3))


def _train_distill(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    sizes = dict.fromkeys(train_dino.SIZES, 1)
    (folder / "train.json").write_text(json.dumps({"recipe": sizes, "step": 1}))
    monkeypatch.setattr(train_distill, "teacher_features", stop)
    train_distill.train_distill(folder, recipe=train_distill.DistillRecipe(scenes=2), start=folder)


def _train_sam(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def probe(**named: Any) -> Any:
        measure_sam.draw_probes(**named)
        raise DrawnError

    monkeypatch.setattr(train_sam, "draw_probes", probe)
    train_sam.train_sam(folder, steps=1, scenes=2)


def _measure_clip(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(measure_clip, "load_image_text", lambda *_, **__: Nothing())
    monkeypatch.setattr(measure_clip, "encode_vocabulary", lambda *_, **__: Nothing())
    monkeypatch.setattr(measure_clip, "single_object_crops", stop)
    measure_clip.measure_clip(folder, scenes=2)


def _measure_dino(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(measure_dino, "load_patch_encoder", lambda *_, **__: Nothing())
    monkeypatch.setattr(measure_dino, "_extract", stop)
    measure_dino.measure_dino(folder, train=2, test=2)


def _measure_sam(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(measure_sam, "load_sam", stop)
    assert measure_sam.draw_probes(scenes=2, style="dusk")
    measure_sam.measure_sam(folder, scenes=2, style="day")


class Here(nullcontext[Any]):
    """Workers that work at once, in this process."""

    def __enter__(self) -> Any:
        return self

    def start(self, work: Callable[..., Any], *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(work(*arguments, **named))
        return future


def _demo(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("CLIP", "DINO", "SAM"):
        (folder / name).mkdir()
        (folder / name / "model.safetensors").touch()
        monkeypatch.setattr(demo.miniatures, name, folder / name)
    monkeypatch.setattr(demo, "Workers", Here)
    monkeypatch.setattr(demo, "_Run", stop)
    demo.run_demo(folder / "demo", scenes=2, quiet=True)


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (_train_clip, {"train-clip"}),
        (_train_dino, {"train-dino"}),
        (_train_distill, {"train-dino"}),
        (_train_sam, {"train-sam", "validate"}),
        (_measure_clip, {"validate"}),
        (_measure_dino, {"probe", "validate"}),
        (_measure_sam, {"validate"}),
        (_demo, {"label", "evaluate-seen", "evaluate-style"}),
    ],
)
def test_every_use_draws_scenes_of_its_own(
    use: Callable[[pytest.MonkeyPatch, Path], None],
    expected: set[str],
    drawn: set[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    threads = torch.get_num_threads()
    try:
        with pytest.raises(DrawnError):
            use(monkeypatch, tmp_path)
    finally:
        torch.set_num_threads(threads)
    assert drawn == expected


def calls(name: str) -> list[tuple[str, ast.Call]]:
    """Every call of a function in Toytown, with the name of the file."""
    return [
        (path.name, node)
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name
    ]


def test_every_scene_is_drawn_from_the_seed_of_a_purpose() -> None:
    found = calls("draw_scene") + calls("draw_visits")
    assert {file for file, _ in found} >= {"pool.py", "demo_scenes.py", "measure_sam.py", "places.py"}
    for file, call in found:
        seed = call.args[0]
        assert isinstance(seed, ast.Call), file
        assert isinstance(seed.func, ast.Name), file
        assert seed.func.id == "scene_seed", file


def test_no_training_file_names_another_use() -> None:
    allowed = {
        "train_clip.py": {"train-clip"},
        "train_dino.py": {"train-dino"},
        "train_distill.py": {"train-dino"},
        "train_sam.py": {"train-sam"},
    }
    named: dict[str, set[str]] = {}
    for file, call in calls("draw_pool") + calls("draw_visit_pool") + calls("draw_day_and_dusk"):
        assert isinstance(call.args[0], ast.Constant), file
        named.setdefault(file, set()).add(call.args[0].value)
    assert {file: names for file, names in named.items() if file.startswith("train_")} == allowed
    others = {name for file, names in named.items() if not file.startswith("train_") for name in names}
    assert others
    assert not {name for name in others if name.startswith("train-")}
