"""How many scenes of Toytown one core draws in a second.

    python benchmarks/toytown_scenes.py [--scenes N] [--runs N] [--size N] [--json]

Textures are drawn once a process and not counted. The processor time of this process is counted, so that other work on
the machine changes the number little; the time on the clock is given beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from patchword.toytown.classes import STYLES
from patchword.toytown.world import draw_scene

PACKAGES = ("numpy", "pillow")


@dataclass(frozen=True)
class Result:
    """Scenes a second in one style, median of the runs.

    Attributes:
        style: "day" or "dusk".
        per_second: by processor time.
        per_second_on_the_clock: by elapsed time.
        runs: every run's number by processor time.
    """

    style: str
    per_second: float
    per_second_on_the_clock: float
    runs: list[float]


def measure(style: str, *, scenes: int, runs: int, size: int) -> Result:
    """Draw the same scenes `runs` times over."""
    for seed in range(scenes):
        draw_scene(seed, size=size, style=style)
    busy, clock = [], []
    for _ in range(runs):
        started = time.process_time(), time.perf_counter()
        for seed in range(scenes):
            draw_scene(seed, size=size, style=style)
        busy.append(scenes / (time.process_time() - started[0]))
        clock.append(scenes / (time.perf_counter() - started[1]))
    return Result(style, statistics.median(busy), statistics.median(clock), busy)


def machine() -> dict[str, str | int | None]:
    """What the number was measured on."""
    return {
        "processor": platform.processor() or _processor_name() or platform.machine(),
        "cpu_count": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def _processor_name() -> str | None:
    """The processor's name where Linux tells it; `platform.processor` says nothing there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def main() -> None:
    """Measure both styles and print the result."""
    parser = argparse.ArgumentParser(description="Scenes of Toytown a second on one core.")
    parser.add_argument("--scenes", type=int, default=200, help="scenes a run")
    parser.add_argument("--runs", type=int, default=5, help="runs, of which the median counts")
    parser.add_argument("--size", type=int, default=192, help="side of a scene in pixels")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if min(chosen.scenes, chosen.runs) < 1 or chosen.size < 16:
        parser.error("allowed are 1 scene, 1 run and 16 pixels, and more")
    named = {"scenes": chosen.scenes, "runs": chosen.runs, "size": chosen.size}
    results = [measure(style, **named) for style in STYLES]
    if chosen.json:
        print(json.dumps({"machine": machine(), "settings": named, "results": list(map(asdict, results))}, indent=2))
        return
    for name, value in machine().items():
        print(f"{name}: {value}")
    print(f"scenes of {chosen.size} pixels a second on one core, median of {chosen.runs} runs of {chosen.scenes}:")
    for result in results:
        runs = ", ".join(f"{run:.0f}" for run in result.runs)
        clock = f"{result.per_second_on_the_clock:.0f} by the clock"
        print(f"  {result.style}: {result.per_second:.0f} by processor time ({runs}), {clock}")


if __name__ == "__main__":
    main()
