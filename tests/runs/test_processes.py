"""Chunks in processes of their own: the bytes of a run without them, however many there are and whoever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from executor_world import MODULES, World, load_to_die
from fateful import Fateful, die
from PIL import Image

import patchword
import warm
from interruptions import contents, make_photos
from patchword.errors import PatchwordError
from patchword.runs import processes, workers
from patchword.runs.pipeline import Chunk, Written
from patchword.runs.processes import Processes
from patchword.runs.records import read_sessions

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are watched by /proc")


@pytest.fixture(params=MODULES, scope="module")
def world(
    request: pytest.FixtureRequest, tiny_clip: Path, tiny_sam: Path, tmp_path_factory: pytest.TempPathFactory
) -> World:
    folder = tmp_path_factory.mktemp(request.param)
    make_photos(folder / "photos")
    more = {"mask_generator": str(tiny_sam)} if request.param == "label" else {"method": "maskclip"}
    world = World(request.param, folder, {"image_text": str(tiny_clip), **more})
    world.run("here")
    return world


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that need not import everything; those of the driver that is killed start from nothing."""
    monkeypatch.setattr(processes, "subprocess", warm)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("world", "count"), [("label", 1), ("segment", 2)], indirect=["world"])
def test_the_bytes_are_those_of_a_local_run(world: World, count: int) -> None:
    world.run(f"in {count}", executor=f"processes:{count}")
    world.check(f"in {count}")


@pytest.mark.usefixtures("quick")
def test_the_scores_are_those_of_a_local_run(tiny_clip: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("photos/a.png", "photos/b.png", "photos/c.png"):
        for path, most, shape in ((name, 256, (3, 4, 3)), (name.replace("photos", "masks"), 3, (3, 4))):
            (tmp_path / path).parent.mkdir(exist_ok=True)
            blocks = generator.integers(0, most, shape, dtype=np.uint8)
            Image.fromarray(blocks.repeat(16, axis=0).repeat(16, axis=1)).save(tmp_path / path)
    for executor in ("local", "processes:2"):
        patchword.evaluate(
            tmp_path / "photos",
            masks=tmp_path / "masks",
            classes="cat, dog, sofa",
            method="maskclip",
            image_text=str(tiny_clip),
            settings={"batch": 1},
            scoring={"worst": 1, "resamples": 10},  # pictures of the worst of each process, of which one is left
            out=tmp_path / executor,
            device="cpu",
            executor=executor,
            quiet=True,
        )
    assert contents(tmp_path / "processes:2") == contents(tmp_path / "local")


@pytest.mark.usefixtures("quick")
def test_processes_that_are_killed_cost_nothing_but_time(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    instants = random.Random(world.command)

    def deadly(executor: str, *, device: str, loaded: object, load: Callable[[], object]) -> Processes:
        for number in range(2):
            (tmp_path / str(number)).write_text(str(instants.randrange(1, 6)))  # of 11 or more
        return Processes(2, loaded, partial(load_to_die, load, tmp_path))

    monkeypatch.setattr(MODULES[world.command], "executor_of", deadly)
    world.run("killed")
    world.check("killed")
    deaths = [record.getMessage() for record in caplog.records]
    assert deaths  # two, unless the other process was done with everything before its instant came
    assert all("of 2 died (SIGKILL)" in death for death in deaths)
    assert sum(read_sessions(world.folder / "killed")[-1].done.values()) == 12


@pytest.mark.parametrize("world", ["label"], indirect=True)
def test_a_killed_driver_leaves_nobody_at_work_and_a_resumed_one_goes_on(world: World) -> None:
    told = json.dumps([world.command, str(world.folder), world.models])
    code = "import sys, test_processes; test_processes.drive(sys.argv[1])"
    ran = warm.run([sys.executable, "-c", code, told])
    assert ran.returncode == -signal.SIGKILL, ran.stderr[-2000:]
    workers = json.loads((world.folder / "workers.json").read_text())
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(map(_is_at_work, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert (world.folder / "stopped" / "manifest.jsonl").read_bytes().count(b"\n") == 4
    world.run("stopped", executor="processes:2", resume=True)
    world.check("stopped")


def drive(told: str) -> None:
    """In a process of its own: run, and be killed after some results."""
    command, folder, models = json.loads(told)
    world, left = World(command, Path(folder), models), [4]

    class Watched(Processes):
        def run(self, chunks: Any, *, work: Any, done: Callable[[Written], None]) -> None:
            def count(written: Written) -> None:
                done(written)
                left[0] -= 1
                if not left[0]:
                    (world.folder / "workers.json").write_text(json.dumps(_children()))
                    die()

            super().run(chunks, work=work, done=count)

    MODULES[command].executor_of = lambda executor, *, device, loaded, load: Watched(2, loaded, load)
    world.run("stopped")


def _children() -> list[int]:
    me = os.getpid()
    found = Path(f"/proc/{me}/task/{me}/children").read_text(encoding="utf-8")
    return [int(child) for child in found.split() if b"serve()" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _is_at_work(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _done(*names: str, load: Callable[[], object] | None = None) -> list[str]:
    found: list[str] = []
    chunks = [Chunk(((name, Path(name)),), lines=1) for name in names]
    models = load and object()
    Processes(2, models, load or int).run(
        chunks, work=Fateful(models), done=lambda written: found.append(written.record.name)
    )
    return sorted(found)


def test_errors_of_processes_end_the_run_in_one_line() -> None:
    assert _done("a", "b", "c") == ["a", "b", "c"]
    with pytest.raises(PatchwordError, match=r"^the disk is full$"):
        _done("a", "full", "b")
    with pytest.raises(ZeroDivisionError, match="at the photograph") as caught:
        _done("wrong")
    assert "in a worker process" in caught.value.__notes__[0]
    with pytest.raises(PatchwordError, match=r"^3 processes died of deadly \(SIGKILL\); take it out"):
        _done("a", "deadly")
    with pytest.raises(PatchwordError, match=r"^3 processes died while they loaded the models \(SIGKILL\)"):
        _done("a", load=die)


def test_what_a_slow_process_has_is_given_to_another_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 0.1)
    monkeypatch.chdir(tmp_path)
    assert _done("slow", "a", "b", "c") == ["a", "b", "c", "slow"]
    assert any("is slow; slow is given to process" in record.getMessage() for record in caplog.records)


def test_an_interruption_ends_all_processes() -> None:
    def interrupt(written: Written) -> None:
        assert _children()
        raise KeyboardInterrupt

    chunks = [Chunk(((name, Path(name)),), lines=1) for name in "abcd"]
    with pytest.raises(KeyboardInterrupt):
        Processes(2, None, int).run(chunks, work=Fateful(), done=interrupt)
    assert not _children()


def test_what_cannot_be_is_refused_before_anything_is_written(world: World) -> None:
    for wrong in (
        "ray:",
        "processes",
        "processes:0",
        "processes:-1",
        "processes:x",
        "threads:2",
        "ray:a,b",
        "local,gpus_per_worker=1",
    ):
        with pytest.raises(PatchwordError, match=r"executor '.*' is unknown; use local, processes:N with N from 1"):
            world.run("refused", executor=wrong)
    with pytest.raises(PatchwordError, match=r"executor processes:2 needs models that .*; pass names or folders"):
        Processes(2, None, lambda: None)
    assert not (world.folder / "refused").exists()
