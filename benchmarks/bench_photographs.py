"""Time and memory of label, align, segment and evaluate on photographs, with full-size models of random weights.

    python benchmarks/bench_photographs.py --photos IMAGES --masks MASKS --classes CLASSES --scratch FOLDER

The models are made first (see make_random_checkpoints.py), so that nothing is downloaded. Their masks and scores are
nonsense; the path, the files, the seconds and the memory are real. Each stage is the command a user would type, in a
process of its own; seconds include its start and the loading of models. Without --photos it says so and ends, since no
photographs come with the project.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from make_random_checkpoints import make_checkpoint


@dataclass(frozen=True)
class Stage:
    """One command: seconds in all, seconds a photograph, and the largest memory of its process in MiB."""

    name: str
    command: str
    seconds: float
    seconds_per_photograph: float
    peak_mib: int


def run(name: str, arguments: list[str], *, photographs: int) -> Stage:
    """Run one patchword command to its end and measure it."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "patchword", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{name} ended with exit code {os.waitstatus_to_exitcode(status)}")
    peak = usage.ru_maxrss // (1024 if sys.platform != "darwin" else 1024**2)
    shown = "patchword " + " ".join(Path(part).name if os.sep in part else part for part in arguments)
    return Stage(name, shown, round(seconds, 1), round(seconds / photographs, 2), peak)


def main() -> None:
    """Parse the command line, run the stages, print a table and, on request, JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photographs")
    parser.add_argument("--masks", type=Path, help="their masks; evaluation is left out without them")
    parser.add_argument("--classes", help="class list file or names")
    parser.add_argument("--zero-is", default="class", help="as for patchword evaluate")
    parser.add_argument("--scratch", type=Path, help="folder for models and results")
    parser.add_argument("--limit", type=int, default=4, help="photographs to take")
    parser.add_argument("--encoder", default="dinov2-base", help="checkpoint of make_random_checkpoints.py")
    parser.add_argument("--sam", default="sam-vit-base", help="checkpoint of make_random_checkpoints.py")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    if not (chosen.photos and chosen.classes and chosen.scratch):
        print("needs --photos, --classes and --scratch; see --help")
        return
    models, results = chosen.scratch / "models", chosen.scratch / "results"
    for name in ("clip-vit-base-patch16", chosen.encoder, chosen.sam):
        if not (models / name).exists():
            make_checkpoint(name, models / name, seed=0)
    common = ["--limit", str(chosen.limit), "--overwrite"]
    clip = str(models / "clip-vit-base-patch16")
    labels, model = str(results / "labels"), str(results / "model")
    # Random masks carry no confidence; without this every mask would be dropped and nothing would be left to train on.
    keep = ["--set", "pred_iou_thresh=0", "--set", "margin=0"]
    label = ["label", str(chosen.photos), "--classes", chosen.classes, "-o", labels, "--image-text", clip]
    align = [
        "align",
        labels,
        "-o",
        model,
        "--encoder",
        str(models / chosen.encoder),
        "--set",
        "epochs=2",
        "--set",
        "majority=0.1",
    ]
    segment = ["segment", str(chosen.photos), "--model", model, "--classes", chosen.classes, "-o", str(results / "out")]
    stages = [
        run("label", [*label, "--mask-generator", str(models / chosen.sam), *keep, *common], photographs=chosen.limit),
        run("align", [*align, "--overwrite"], photographs=chosen.limit),
        run("segment", [*segment, *common], photographs=chosen.limit),
    ]
    if chosen.masks:
        evaluate = [
            "evaluate",
            str(chosen.photos),
            "--masks",
            str(chosen.masks),
            "--classes",
            chosen.classes,
            "--model",
            model,
        ]
        report = ["--zero-is", chosen.zero_is, "-o", str(results / "evaluation")]
        stages.append(run("evaluate", [*evaluate, *report, *common], photographs=chosen.limit))
    machine = {
        "machine": platform.machine(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    record = {"machine": machine, "photographs": chosen.limit, "stages": [asdict(stage) for stage in stages]}
    if chosen.json:
        print(json.dumps(record, indent=2))
        return
    print(
        f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}, "
        f"{chosen.limit} photographs, random weights"
    )
    print("| stage | seconds | seconds a photograph | peak MiB |\n|---|---|---|---|")
    for stage in stages:
        print(f"| {stage.name} | {stage.seconds} | {stage.seconds_per_photograph} | {stage.peak_mib} |")


def processor() -> str:
    """Name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
