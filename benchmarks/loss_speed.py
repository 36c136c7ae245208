"""Time and memory of the patch-patch term, ours against the one that holds all similarities at once.

    python benchmarks/loss_speed.py [--patches N ...] [--dim N] [--runs N] [--bounds N ...] [--json]

Each way and number of patches is measured in a process of its own: forward and backward, median of the runs after one
that is not counted, and the largest memory of the process beyond what it had before the first. Both ways take the same
vectors and labels; their losses must agree. Ratios are of the same run: above 1 means that ours is faster or smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

PATCHES = (512, 1024, 2048, 4096, 8192, 16384)
CLASSES, TEMPERATURE = 64, 0.1


@dataclass(frozen=True)
class Measured:
    """One way at one number of patches.

    Attributes:
        seconds: forward and backward by the clock, median.
        processor: the same in processor time, which other work on the machine changes less.
        megabytes: largest resident memory beyond the start, inputs not counted.
        loss: its value.
    """

    seconds: float
    processor: float
    megabytes: float
    loss: float


def measure(*, patches: int, dim: int, bound: int, runs: int) -> Measured:
    """Measure in this process; a bound of 0 is the plain way."""
    import torch
    from torch.nn import functional

    from patchword.alignment.losses import patch_patch_loss

    generator = torch.Generator().manual_seed(0)
    z = functional.normalize(torch.randn(patches, dim, generator=generator), dim=1).requires_grad_()
    labels = torch.randint(0, CLASSES, (patches,), generator=generator)
    small = z.detach()[:64].requires_grad_()
    _once(small, labels[:64], bound=bound, loss=patch_patch_loss)  # libraries and threads start before memory is read
    before, clock, processor, value = _peak(), [], [], 0.0
    for _ in range(runs + 1):
        started = time.perf_counter(), time.process_time()
        value = _once(z, labels, bound=bound, loss=patch_patch_loss)
        clock.append(time.perf_counter() - started[0])
        processor.append(time.process_time() - started[1])
        z.grad = None
    medians = statistics.median(clock[1:]), statistics.median(processor[1:])
    return Measured(*medians, megabytes=(_peak() - before) / 1e6, loss=value)


def plain(z, labels):  # type: ignore[no-untyped-def]
    """The term as one would write it down, with all similarities at once."""
    import torch

    similarity = z @ z.T / TEMPERATURE
    own = torch.eye(len(z), dtype=torch.bool)
    shares = similarity.masked_fill(own, -torch.inf).log_softmax(dim=1).masked_fill(own, 0.0)
    positives = (labels[:, None] == labels) & ~own
    counts = positives.sum(dim=1)
    means = -(shares * positives).sum(dim=1) / counts.clamp(min=1)
    return means[counts > 0].mean()


def _once(z, labels, *, bound, loss):  # type: ignore[no-untyped-def]
    value = loss(z, labels, temperature=TEMPERATURE, bound=bound) if bound else plain(z, labels)
    value.backward()
    return value.item()


def _peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_child(**arguments: int) -> Measured:
    """Measure in a new process."""
    command = [sys.executable, __file__, "--child", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"measuring {arguments} failed: {done.stderr.strip().splitlines()[-1]}")
    return Measured(**json.loads(done.stdout))


def machine() -> dict[str, str | int | None]:
    """What the numbers were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def main() -> None:
    """Measure and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=PATCHES)
    parser.add_argument("--dim", type=int, default=512, help="of the text space")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--bounds", type=int, nargs="+", help="similarities held at once; default: that of a CPU")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(asdict(measure(**json.loads(chosen.child)))))
        return
    bounds = chosen.bounds or [2**20]
    rows = []
    for patches in chosen.patches:
        common = {"patches": patches, "dim": chosen.dim, "runs": chosen.runs}
        whole = in_child(bound=0, **common)
        for bound in bounds:
            ours = in_child(bound=bound, **common)
            if abs(ours.loss - whole.loss) > 1e-4 * abs(whole.loss):
                raise SystemExit(f"losses differ at {patches} patches: {ours.loss} and {whole.loss}")
            rows.append({"patches": patches, "bound": bound, "ours": asdict(ours), "plain": asdict(whole)})
    if chosen.json:
        print(json.dumps({"machine": machine(), "dim": chosen.dim, "runs": chosen.runs, "rows": rows}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"{chosen.dim} channels, {CLASSES} classes, forward and backward, median of {chosen.runs} runs")
    print("| patches | held at once | plain s | ours s | times faster | by processor | plain MB | ours MB | smaller |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        ours, whole = row["ours"], row["plain"]
        faster = [whole[kind] / ours[kind] for kind in ("seconds", "processor")]
        print(
            f"| {row['patches']} | {row['bound']} | {whole['seconds']:.3f} | {ours['seconds']:.3f} "
            f"| {faster[0]:.2f} | {faster[1]:.2f} | {whole['megabytes']:.0f} | {ours['megabytes']:.0f} "
            f"| {whole['megabytes'] / max(ours['megabytes'], 0.1):.1f} |"
        )


if __name__ == "__main__":
    main()
