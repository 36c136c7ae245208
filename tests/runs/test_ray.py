"""Chunks on a Ray cluster of three nodes: the bytes of a local run, whoever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from executor_world import MODULES, World, load_to_die
from fateful import Fateful, Meeting, die

import interruptions
from patchword.config import shared
from patchword.errors import PatchwordError
from patchword.runs import ray_executor, workers
from patchword.runs.pipeline import Chunk, Written
from patchword.runs.processes import executor_of
from patchword.runs.ray_executor import OnRay
from patchword.runs.records import read_sessions
from s3_store import Store, without_place
from small_world import Models, files_in, label_command, make_photos, must, run

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="as Ray's own clusters for tests")


@dataclass
class Nodes:
    """A cluster of three nodes with one CPU each, of which those but the first may be lost."""

    cluster: Any

    def fill(self) -> None:
        while len(self.cluster.list_all_nodes()) < 3:
            self.cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
        self.cluster.wait_for_nodes()

    def lose(self) -> None:
        self.cluster.remove_node(self.cluster.list_all_nodes()[-1], allow_graceful=False)


@pytest.fixture(scope="module")
def nodes(store: Store) -> Iterator[Nodes]:
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the nodes' processes
    os.environ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"] = "1"  # the harder case: workers see all cards
    os.environ["LOCAL_RANK"] = "1"  # as where Ray was started by torchrun
    settings = {"num_cpus": 1, "num_gpus": 2, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=settings)
    nodes = Nodes(cluster)
    try:
        nodes.fill()
        ray.init(address=cluster.address, log_to_driver=False)
        yield nodes
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def world(tiny_clip: Path, tiny_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("ray")
    interruptions.make_photos(folder / "photos")
    world = World("label", folder, {"image_text": str(tiny_clip), "mask_generator": str(tiny_sam)})
    world.run("here")
    return world


class Counting(OnRay):
    """Acts after so many results."""

    def acting(self, after: int, act: Callable[[], None]) -> Counting:
        object.__setattr__(self, "left", [after])
        object.__setattr__(self, "act", act)
        return self

    def run(self, chunks: Any, *, work: Any, done: Callable[[Written], None]) -> None:
        left, act = vars(self)["left"], vars(self)["act"]

        def count(written: Written) -> None:
            done(written)
            left[0] -= 1
            if not left[0]:
                act()

        super().run(chunks, work=work, done=count)


def drive(told: str) -> None:
    """In a process of its own: run, and be killed after some results."""
    command, folder, models, after = json.loads(told)
    MODULES[command].executor_of = lambda executor, *, device, loaded, load: Counting(
        None, device, loaded, load
    ).acting(after, die)
    World(command, Path(folder), models).run("killed")


def _done(folder: Path, *names: str) -> list[str]:
    found: list[str] = []
    chunks = [Chunk(((name, Path(name)),), lines=1) for name in names]
    OnRay(None, "cpu", None, int).run(
        chunks, work=Fateful(folder=folder), done=lambda written: found.append(written.record.name)
    )
    return sorted(found)


def test_a_slow_worker_and_one_without_room_cost_nothing_but_time(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers, "_PATIENCE", 0.2)
    assert _done(tmp_path, "a", "slow", "cramped", "b", "c") == ["a", "b", "c", "cramped", "slow"]
    said = sorted(record.getMessage().partition(" of 3 ")[2] for record in caplog.records)
    assert said[0].startswith("has no room to write (the disk is full); the others go on")
    assert any(each.startswith("is slow; slow is given to worker") for each in said)
    with pytest.raises(PatchwordError, match=r"^the disk is full$"):  # for all
        _done(tmp_path, "full", "b")


def test_workers_share_cards_of_which_each_sees_its_own(nodes: Nodes, tmp_path: Path) -> None:
    found: list[list[str]] = []
    chunks = [Chunk(((name, Path(name)),), lines=1) for name in "abcd"]
    executor = OnRay(None, "cuda", None, int, 0.5)
    executor.run(chunks, work=Meeting(tmp_path, 4), done=lambda written: found.append(written.result))
    assert sorted(found) == [["0", "0"], ["0", "0"], ["1", "0"], ["1", "0"]]


def test_photographs_and_labels_by_url_have_the_bytes_of_local_ones(
    nodes: Nodes, store: Store, models: Models, tmp_path: Path
) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    run(*label_command(photos, out=tmp_path / "here", models=models), "--set=image_batch=1")
    url, out = store.put(photos, "photos"), "s3://bucket/labels"
    must(run(*label_command(url, out=out, models=models), "--set=image_batch=1", "--executor", "ray"))
    local = without_place(files_in(tmp_path / "here"), "dataset.json")
    assert without_place(store.files(out), "dataset.json") == local


def test_a_node_on_which_the_run_would_come_out_differently_is_refused(
    nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ray_executor.versions()
    monkeypatch.setattr(ray_executor, "versions", lambda: here | {"torch": "1.0"})
    with pytest.raises(PatchwordError, match=r"^node \S+ has torch \S+, the driver 1\.0; install the same"):
        _done(tmp_path, "a")
    monkeypatch.setattr(ray_executor, "versions", lambda: here)
    monkeypatch.setattr(
        ray_executor._Surroundings, "here", lambda *_, cuda: ray_executor._Surroundings(tmp_path / "x", (), {}, cuda)
    )
    with pytest.raises(PatchwordError, match=r"^node \S+ does not see .*x; photographs, results and"):
        _done(tmp_path, "a")


def test_a_driver_a_worker_and_a_node_that_are_killed_cost_nothing_but_time(
    nodes: Nodes, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # every instant is a number of results or of writes
    instants = random.Random(seed)
    told = json.dumps([world.command, str(world.folder), world.models, instants.randrange(1, 6)])
    code = "import sys, test_ray; test_ray.drive(sys.argv[1])"
    environment = os.environ | {"RAY_ADDRESS": nodes.cluster.address}
    ran = subprocess.run([sys.executable, "-c", code, told], env=environment, check=False, capture_output=True)
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, b""), ran.stderr.decode()[-2000:]

    (tmp_path / "0").write_text(str(instants.randrange(1, 6)))
    lose_after = instants.randrange(1, 6)

    def deadly(executor: str, *, device: str, loaded: object, load: Callable[[], object]) -> OnRay:
        return Counting(None, device, loaded, partial(load_to_die, load, tmp_path)).acting(lose_after, nodes.lose)

    monkeypatch.setattr(MODULES["label"], "executor_of", deadly)
    world.run("killed", resume=True)
    world.check("killed")
    sessions = read_sessions(world.folder / "killed")
    assert [session.ended for session in sessions] == [None, "finished"]
    deaths = [record.getMessage() for record in caplog.records]  # of those who were at work and not only loading
    assert all(" of 3 died (" in death for death in deaths), deaths


def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PatchwordError, match=r"^device cuda:1 is a card of one machine; with executor ray use cuda"):
        OnRay(None, "cuda:1", None, int)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        OnRay(f"127.0.0.1:{port}", "cpu", None, int)  # somebody listens
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(PatchwordError, match=rf"^no Ray cluster at {address} \(.*refused"):
            OnRay(address, "cpu", None, int)
    with pytest.raises(PatchwordError, match=r"^gpus_per_worker is 0.5, but the models do not compute on CUDA$"):
        executor_of("ray,gpus_per_worker=0.5", device="cpu", loaded=None, load=int)
    for wrong in ("0", "1.5", "nan", "", "half"):
        with pytest.raises(PatchwordError, match=rf"^gpus_per_worker is '{wrong}'; it must be 0.01 to 1, such as"):
            shared.check_executor(f"ray:head:6379,gpus_per_worker={wrong}")
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    with pytest.raises(PatchwordError, match=r"^executor ray needs Ray: pip install 'patchword\[ray\]'$"):
        shared.check_executor("ray:head:6379")
