"""Kills workers, nodes and drivers of a run on a Ray cluster of three nodes, and compares the bytes with a local run.

    python benchmarks/kill_runs.py --scratch DIR [--kills N] [--seed N] [--scenes N]

The cluster is made on this machine (`ray.cluster_utils.Cluster`, one CPU a node). Every run over the scenes is hit by a
worker that gets SIGKILL, a node that is lost and a driver that gets SIGKILL, in an order and after numbers of results
that follow from the seed, and is resumed until it comes to its end.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import patchword
from patchword.config.label import LabelSettings
from patchword.labeling import api
from patchword.runs.pipeline import Chunk, Work, Written
from patchword.runs.ray_executor import OnRay
from patchword.toytown import miniatures
from patchword.toytown.world import draw_scene, scene_seed

KINDS = ("worker", "node", "driver")
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
STORE = "runs.jsonl"


def main() -> None:
    """Kill, resume, compare; one line a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder for scenes and results")
    parser.add_argument("--kills", type=int, default=20, help="how many at least")
    parser.add_argument("--seed", type=int, default=0, help="of the order and the instants")
    parser.add_argument("--scenes", type=int, default=24, help="photographs")
    parser.add_argument("--drive", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        drive(options.scratch, options.drive)
        return
    from ray.cluster_utils import Cluster  # not in drivers, which import Ray as a user's do

    torch.set_num_threads(1)  # as actors have; with others the last digits differ
    draw(options.scratch / "photos", options.scenes)
    label(options.scratch, "local")
    whole = contents(options.scratch / "local")
    instants = random.Random(options.seed)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    os.environ["PYTHONPATH"] = environment["PYTHONPATH"]  # for the nodes
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    kills: Counter[str] = Counter()
    rounds = same = 0
    try:
        while kills.total() < options.kills:
            while len(cluster.list_all_nodes()) < 3:
                cluster.add_node(**NODE)
            cluster.wait_for_nodes()
            plan = plan_kills(instants, options.scenes)
            rounds, started = rounds + 1, time.monotonic()
            said = hit(cluster, options.scratch, f"run {rounds}", plan, environment, kills)
            alike = contents(options.scratch / f"run {rounds}") == whole
            same += alike
            told = ", ".join(f"{kind} after {after}" for after, kind in plan)
            print(f"run {rounds}: {told}: {'same' if alike else 'OTHER'} bytes, {time.monotonic() - started:.0f} s")
            for line in said:
                print(f"    {line}")
            sys.stdout.flush()
    finally:
        cluster.shutdown()
    print(f"{dict(kills)} of seed {options.seed}; {same} of {rounds} runs have the bytes of the local one")


def plan_kills(instants: random.Random, scenes: int) -> list[tuple[int, str]]:
    """After how many results which is killed, in order."""
    after = sorted(instants.sample(range(1, scenes - 2), len(KINDS)))
    return list(zip(after, instants.sample(KINDS, len(KINDS)), strict=True))


def hit(
    cluster: Any,
    scratch: Path,
    out: str,
    plan: list[tuple[int, str]],
    environment: dict[str, str],
    kills: dict[str, int],
) -> list[str]:
    """Run until the end; what the drivers complained of."""
    command = [sys.executable, __file__, "--scratch", str(scratch), "--drive", out]
    environment = environment | {"RAY_ADDRESS": cluster.address}
    waiting, results, said = list(plan), 0, []
    while True:
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as driver:
            assert driver.stdin
            assert driver.stdout
            assert driver.stderr
            for line in driver.stdout:
                if line != "result\n":
                    said.append(f"stdout: {line.rstrip()}")
                    continue
                results += 1
                while waiting and results >= waiting[0][0]:
                    kind = waiting.pop(0)[1]
                    kills[kind] += 1
                    kill(kind, cluster, driver)
                if driver.poll() is None:
                    try:
                        driver.stdin.write("\n")
                        driver.stdin.flush()
                    except BrokenPipeError:
                        break
            said += [
                f"stderr: {line}" for line in driver.stderr.read().splitlines() if "died" in line or "slow" in line
            ]
            code = driver.wait()
        if code == 0:
            return said
        if code != -signal.SIGKILL:
            raise SystemExit(f"the driver ended with {code}: {said}")


def kill(kind: str, cluster: Any, driver: subprocess.Popen[str]) -> None:
    """Kill one of them, at once."""
    if kind == "driver":
        driver.kill()
        driver.wait()
    elif kind == "node":
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    else:
        actors = [int(each.name) for each in Path("/proc").glob("[0-9]*") if is_actor(each)]
        os.kill(min(actors), signal.SIGKILL)


def is_actor(process: Path) -> bool:
    """Whether it is a worker of the executor."""
    try:
        return process.joinpath("cmdline").read_bytes().startswith(b"ray::_Actor")
    except OSError:
        return False


def drive(scratch: Path, out: str) -> None:
    """In a process of its own: label on the cluster; after every result wait for leave to go on."""

    class Told(OnRay):
        def run(self, chunks: list[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:  # type: ignore[override]
            def tell(written: Written) -> None:
                done(written)
                print("result", flush=True)
                sys.stdin.readline()

            super().run(chunks, work=work, done=tell)

    api.executor_of = lambda executor, *, device, loaded, load: Told(None, device, loaded, load)
    label(scratch, out)


def label(scratch: Path, out: str) -> None:
    """Label the scenes."""
    patchword.label(
        scratch / "photos",
        classes="house, tree, car, sky, grass",
        out=scratch / out,
        image_text=miniatures.CLIP,
        mask_generator=miniatures.SAM,
        settings=LabelSettings(image_batch=1),
        device="cpu",
        resume=(scratch / out).exists(),
        quiet=True,
    )


def draw(folder: Path, count: int) -> None:
    """Scenes of the drawn world."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(draw_scene(scene_seed("test", index=index), size=96).image).save(folder / f"{index:03d}.png")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but the log of the runs."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != STORE}


if __name__ == "__main__":
    main()
