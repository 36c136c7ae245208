"""Configs of the commands that have few options."""

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
    ExecutorOption,
    Out,
    Overwrite,
    Photos,
    PresetName,
    Quiet,
    Resume,
    check_executor,
)
from patchword.errors import PatchwordError

NOTHING = Source("", "", "", required=False)
NAMES = Source("names", "[NAME]...", "Hub names, name@revision or folders.", required=False, many=True)


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
    executor: ExecutorOption = "local"
    quiet: Quiet = False
    as_json: AsJson = False

    def check(self) -> None:
        check_executor(self.executor)
        if self.executor != "local" and self.model is None:
            raise PatchwordError(f"executor {self.executor} needs a model, which is what it asks")


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
    SOURCE: ClassVar[Source] = NOTHING
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword demo -o demo/", "patchword demo -o demo/ --scenes 100 --seed 1")

    out: Out
    seed: Annotated[int, Field(ge=0, lt=100), Option("Seed of the scenes and of the training, 0 to 99.", "N")] = 0
    scenes: Annotated[int, Field(ge=2, le=50_000), Option("Scenes to label and to learn from, 2 to 50,000.", "N")] = 260
    overwrite: Overwrite = False
    quiet: Quiet = False


class PushConfig(Config):
    """A model or labels up to the hub, without photographs."""

    COMMAND: ClassVar[str] = "push"
    SOURCE: ClassVar[Source] = Source("folder", "FOLDER", "Model of `align`, or labels of `label`.")
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword push model/ user/name",
        "patchword push labels/ user/name --private",
    )

    name: Annotated[str, Option("Repository on the hub, made when it is not there.", "USER/NAME", argument=True)]
    private: Annotated[bool, Option("Make the repository private.")] = False
    revision: Annotated[str | None, Option("Branch; by default the main one.", "BRANCH")] = None
    message: Annotated[str, Option("Message of the commit.", "TEXT")] = "Made by patchword"


class BenchmarksConfig(Config):
    """The standard benchmarks: classes, photographs, files, protocols."""

    COMMAND: ClassVar[str] = "benchmarks"
    SOURCE: ClassVar[Source] = Source("name", "[NAME]", "One of them, in full.", required=False)
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword benchmarks voc21", "patchword benchmarks voc21 --class-list")

    class_list: Annotated[bool, Option("Print its class list, as --classes takes it.")] = False
    as_json: AsJson = False


class MethodsConfig(Config):
    """Training-free methods to compare with."""

    COMMAND: ClassVar[str] = "methods"
    SOURCE: ClassVar[Source] = NOTHING
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword methods",)

    as_json: AsJson = False


class EncodersConfig(Config):
    """Vision encoders and text spaces to choose from."""

    COMMAND: ClassVar[str] = "encoders"
    SOURCE: ClassVar[Source] = NOTHING
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword encoders",)

    as_json: AsJson = False


class ListConfig(Config):
    """Known checkpoints, their licences, and which are here."""

    COMMAND: ClassVar[str] = "models list"
    SOURCE: ClassVar[Source] = NOTHING
    EXAMPLES: ClassVar[tuple[str, ...]] = ("patchword models list",)

    as_json: AsJson = False


class CheckConfig(Devices):
    """Load what is on this machine and say what is wrong."""

    COMMAND: ClassVar[str] = "models check"
    SOURCE: ClassVar[Source] = NAMES
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword models check --preset fast",
        "patchword models check facebook/dinov2-base --reference",
    )

    preset: Annotated[PresetName | None, Option("The models of a preset.")] = None
    reference: Annotated[bool, Option("Compare with transformers' own code, and with published numbers.")] = False
    picture: Annotated[
        str | Path | None,
        Option("The public picture that published numbers belong to; else it is fetched.", "FILE"),
    ] = None
    as_json: AsJson = False

    def check(self) -> None:
        if self.picture is not None and not self.reference:
            raise PatchwordError("--picture requires --reference")
        if self.picture is not None and not Path(self.picture).is_file():
            raise PatchwordError(f"--picture {self.picture} is not a file")


class FetchConfig(Config):
    """Fetch checkpoints ahead of time, for a machine without network."""

    COMMAND: ClassVar[str] = "models fetch"
    SOURCE: ClassVar[Source] = NAMES
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword models fetch --preset fast",
        "patchword models fetch facebook/dinov2-base --to weights/",
    )

    preset: Annotated[PresetName | None, Option("The models of a preset.")] = None
    to: Annotated[str | Path | None, Option("Fetch to this folder instead of the hub's cache.", "FOLDER")] = None
    as_json: AsJson = False
