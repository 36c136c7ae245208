"""Configs of the commands that have few options: merge, quality, ablate and demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from patchword.config.base import Config, Option, Source
from patchword.config.shared import (
    LABELS,
    AsJson,
    CommandLine,
    Devices,
    Out,
    Overwrite,
    Photos,
    Quiet,
    Resume,
)


class MergeConfig(Config):
    """Shards of `label`, `segment` or `evaluate` as the folder of one run."""

    COMMAND: ClassVar[str] = "merge"
    SOURCE: ClassVar[Source] = Source("shards", "SHARD...", "Folders made with --shard I/N, all of them.", many=True)
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword merge labels-1/ labels-2/ -o labels/",
        "patchword merge shard-*/ -o labels/ --photos photos/",
    )

    out: Out
    photos: Photos = None
    overwrite: Overwrite = False
    quiet: Quiet = False
    command: CommandLine = ""
    as_json: AsJson = False


class QualityConfig(Devices):
    """What labels are worth: the worst first, and a report to look at."""

    COMMAND: ClassVar[str] = "quality"
    SOURCE: ClassVar[Source] = LABELS
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword quality labels/",
        "patchword quality labels/ --model model/ --worst 30",
    )

    worst: Annotated[int, Field(ge=0), Option("List the N photographs of lowest score.", "N")] = 10
    photos: Photos = None
    model: Annotated[
        str | Path | None, Option("Segmenter trained on the labels; it lists the masks that it contradicts.", "FOLDER")
    ] = None
    quiet: Quiet = False
    as_json: AsJson = False


class AblateConfig(Devices):
    """Train and judge variants of stage 2 over seeds."""

    COMMAND: ClassVar[str] = "ablate"
    SOURCE: ClassVar[Source] = Source("grid", "GRID", "JSON file that declares the rows; see docs/ablation.md.")
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword ablate grid.json -o ablation/",
        "patchword ablate grid.json -o ablation/ --resume",
    )

    out: Out
    resume: Resume = False
    overwrite: Overwrite = False
    quiet: Quiet = False
    as_json: AsJson = False


class DemoConfig(Config):
    """Run the whole pipeline on drawn scenes, offline, in minutes."""

    COMMAND: ClassVar[str] = "demo"
    SOURCE: ClassVar[Source] = Source("", "", "", required=False)
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword demo -o demo/", "patchword demo -o demo/ --scenes 100 --seed 1")

    out: Out
    seed: Annotated[int, Field(ge=0, lt=100), Option("Seed of the scenes and of the training, 0 to 99.", "N")] = 0
    scenes: Annotated[int, Field(ge=2, le=50_000), Option("Scenes to label and to learn from, 2 to 50,000.", "N")] = 260
    overwrite: Overwrite = False
    quiet: Quiet = False
