"""What the folder engine costs without models and files: time of empty chunks, memory of the driver by names.

    python benchmarks/engine_overhead.py SCRATCH [--chunks 100000] [--names 1000000]

Every measurement is a process of its own; memory is the peak of what is resident above the process before the run.
Photographs are names alone, chunks hold one, and a chunk is done by writing its line.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.config.label import LabelSettings
from patchword.data.manifest import Manifest
from patchword.labeling.folder import LABELS
from patchword.labeling.records import FORMAT, FORMAT_VERSION, DatasetRecord, ImageRecord
from patchword.runs.folder_run import FolderRun
from patchword.runs.pipeline import Chunk, Work, Written, name_images
from patchword.runs.records import VocabularyRecord
from patchword.runs.shards import chunks_of


def peak() -> int:
    """MiB of this process at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@dataclass(frozen=True)
class Nothing:
    """Does a chunk by telling a line for each of its photographs."""

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        for chunk in chunks:
            for name, _ in chunk.photographs:
                done(Written(_line(name)))


def _line(name: str) -> ImageRecord:
    fields = {"status": "failed", "size": None, "classes": (), "segments": 0, "coverage": 0.0, "reason": "empty chunk"}
    return ImageRecord(name=name, content=None, **fields)  # type: ignore[arg-type]


def measure(out: Path, *, names: int, lines: bool) -> dict[str, float]:
    """Plan a run of so many photographs, and do it where `lines` are wanted."""
    before = peak()
    root = Path("/photographs")
    images = [root / f"{at // 1000:04}/{at:08}.jpg" for at in range(names)]
    named = name_images(images, root=root, out=out, verb="label")
    chunks = chunks_of(sorted(named), size=1)
    wanted = frozenset(name for chunk in chunks for name in chunk)
    record = DatasetRecord(
        format=FORMAT,
        format_version=FORMAT_VERSION,
        complete=False,
        photographs=str(root),
        vocabulary=VocabularyRecord(text="cat", hash="", names=("cat",)),
        settings=LabelSettings(),
        image_text=None,
        mask_proposer=None,
        patch_encoder=None,
        shard=None,
        counts=None,
    )
    run = FolderRun(kind=LABELS, out=out, record=record, wanted=wanted, contents=lambda line: [], quiet=True)
    begun = time.perf_counter()
    found: dict[str, float] = {}

    def finish(_: DatasetRecord, manifest: Manifest) -> None:
        found["seconds"] = time.perf_counter() - begun
        found["peak before the end, MiB"] = peak() - before
        if lines:
            manifest.finish()

    run.run(
        lambda begun: begun.chunks(chunks, paths=named)[: None if lines else 0],
        work=None,  # type: ignore[arg-type]
        executor=Nothing(),
        finish=finish,
    )
    found["peak, MiB"] = peak() - before
    found["ms a chunk"] = 1000 * found["seconds"] / names
    return found


def main() -> None:
    """Measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("COUNT", "LINES"))
    chosen = parser.parse_args()
    out = chosen.scratch / "out"
    if chosen.one:
        print(json.dumps(measure(out, names=int(chosen.one[0]), lines=chosen.one[1] == "lines")))
        return
    for count, lines in ((chosen.chunks, "lines"), (chosen.names, "names"), (chosen.names, "lines")):
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, __file__, str(chosen.scratch), "--one", str(count), lines]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        told = ", ".join(f"{name} {value:.3g}" for name, value in json.loads(ran.stdout).items())
        print(f"{count:,} {lines}: {told}", flush=True)


if __name__ == "__main__":
    main()
