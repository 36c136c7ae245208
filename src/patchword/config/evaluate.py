"""What `evaluate` takes: what is measured, on which masks or benchmark, and which scores."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from patchword.config.base import Option, Settings, Source, option_of
from patchword.config.segment import SegmentConfig, SegmentSettings, SegmentValues
from patchword.config.shared import AsJson, Background, Classes, ClassesValue, ModelSource, Out, Run
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    ScoringValues: TypeAlias = "ScoringSettings | Mapping[str, Any] | None"
else:
    ScoringValues = Any

ZeroIs = Literal["class", "background", "ignore"]
PredictionsAre = Literal["auto", "masks", "positions"]
Unlabelled = Literal["background", "ignored"]
DILATION = 0.02


class ScoringSettings(Settings):
    """What is measured beside IoU, how sure the numbers are, and what the report shows."""

    boundary: bool = Field(True, description="Whether Boundary IoU is measured; without it counting is faster.")
    boundary_dilation: float = Field(
        DILATION,
        gt=0,
        le=1,
        description="Share of the image's diagonal, above 0 to 1: how far from a contour a boundary reaches. Larger "
        "forgives more.",
    )
    resamples: int = Field(
        1000,
        ge=0,
        description="Resamples of the bootstrap over images, 0 and more; 0 gives no intervals. More makes the "
        "intervals themselves steadier.",
    )
    level: float = Field(
        0.95, gt=0, lt=1, description="Share of the resamples that an interval holds, between 0 and 1; higher is wider."
    )
    seed: int = Field(0, ge=0, description="Of the resamples, 0 and more; the same seed gives the same intervals.")
    most_failures: int = Field(
        20,
        ge=1,
        description="Images that cannot be scored before a run ends early, 1 and more: what is wrong with so many is "
        "as a rule wrong with all.",
    )
    worst: int = Field(
        30, ge=0, le=500, description="Images of lowest score that the report shows as pictures, 0 to 500."
    )
    picture_side: int = Field(
        420,
        ge=64,
        le=2048,
        description="Pixels, 64 to 2048: longer side of such a picture; larger makes larger reports.",
    )
    picture_quality: int = Field(
        75, ge=1, le=95, description="Of its JPEG compression, 1 to 95; more is sharper and larger."
    )


class EvaluatedModel(ModelSource):
    """What is evaluated: exactly one of a model, a training-free method, and predictions on disk."""

    predictions: Annotated[
        str | PathLike[str] | None, Option("Instead of a model: label maps that any program made.", "FOLDER")
    ] = None
    predictions_are: Annotated[
        PredictionsAre,
        Option(
            "Values of the predictions: masks (coded as the masks are), positions (in the class list, from 0; 255 is "
            "no prediction), or auto: positions in a folder that `label` or `segment` made, else masks."
        ),
    ] = "auto"
    settings: Annotated[SegmentValues, Option("How images are seen, and classes decided.")] = None

    def check(self) -> None:
        super().check()
        _ = self.numbers

    @property
    def numbers(self) -> SegmentSettings:
        """How images are seen, and classes decided; those that differ from the defaults, or a protocol's, are set."""
        return SegmentSettings.of(self.settings)


class ScoredRun(Run):
    """A run that measures, and what it measures."""

    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"scoring": ScoringSettings}

    out: Annotated[
        str | Path | None,
        Option("Folder of the report; by default none is written.", "FOLDER", short="-o"),
    ] = None
    scoring: Annotated[ScoringValues, Option("What is measured and shown.")] = None

    def check(self) -> None:
        super().check()
        _ = ScoringSettings.of(self.scoring)
        if self.out is None and (self.shard is not None or self.resume):
            asked = "a shard" if self.shard is not None else "resume"
            raise PatchwordError(f"{asked} is asked for without an output folder; pass out")


class EvaluateConfig(EvaluatedModel, ScoredRun):
    """Measure a segmenter, or label maps on disk, against masks."""

    COMMAND: ClassVar[str] = "evaluate"
    SOURCE: ClassVar[Source] = Source("photos", "PHOTOS", "Folder of photographs, or one photograph.")
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword evaluate photos/ --masks truth/ --classes classes.txt --model model/ -o report/",
        "patchword evaluate --benchmark voc21 --data VOCdevkit/ --model model/ -o voc21/",
    )
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": SegmentSettings, "scoring": ScoringSettings}
    SHORT_CUTS: ClassVar[Mapping[str, Mapping[str, str | None]]] = {
        "settings": SegmentConfig.SHORT_CUTS["settings"],
        "scoring": {"boundary": None, "resamples": "N", "worst": "N"},
    }

    masks: Annotated[
        str | Path,
        Option("Folder of masks, indexed, grey or 16-bit PNG; for a/b.jpg it holds a/b.png or a/b.jpg.png.", "FOLDER"),
    ]
    classes: Classes
    background: Background = None
    zero_is: Annotated[
        ZeroIs,
        Option(
            "What value 0 of a mask means: class (the first class), background, or ignore (it does not count, and the "
            "classes begin at 1: reduce_zero_label of mmsegmentation)."
        ),
    ] = "class"
    ignore_index: Annotated[
        int | None, Option("Mask value that does not count; by default 255, in 16-bit masks 65535.", "N")
    ] = None
    mask_suffix: Annotated[
        str, Option("What stands before .png in the names of masks, such as _labelTrainIds.", "TEXT")
    ] = ""
    names: Annotated[
        str | Path | None, Option("Text file of the photographs to take, one name a line; by default all.", "FILE")
    ] = None

    def written(self, part: str) -> object:
        """Of the settings those that were given: a benchmark's protocol has the others, and predictions none."""
        return self.numbers.model_dump(mode="json", exclude_unset=True) if part == "settings" else super().written(part)


class BenchmarkConfig(ScoredRun):
    """Measure on a standard benchmark, as it lies on disk and as a protocol has it."""

    COMMAND: ClassVar[str] = "evaluate_benchmark"
    SOURCE: ClassVar[Source] = Source("benchmark", "NAME", "Name of the benchmark; `patchword benchmarks` lists them.")

    data: Annotated[
        str | Path,
        Option("Where the benchmark or suite is; of a suite also a file of lines such as voc21: FOLDER.", "PATH"),
    ]
    judged: Annotated[
        EvaluatedModel, Option("What is measured; its settings are those that differ from the protocol's.", cli=False)
    ]
    protocol: Annotated[
        str | None,
        Option(
            "Of a benchmark: tcl448, sclip336, native, or published (as the authors of the method ran it); by default "
            "native.",
            "NAME",
        ),
    ] = None
    templates: Annotated[int | None, Option("Prompt templates instead of the protocol's, 7 or 80.", "N")] = None
    unlabelled: Annotated[
        Unlabelled | None,
        Option(
            "Pixels of coco-object that nobody labelled: background, as in published numbers, or ignored; by default "
            "background."
        ),
    ] = None


class SuiteConfig(BenchmarkConfig):
    """Measure on all benchmarks of a suite that are on disk, each into a folder of its name."""

    COMMAND: ClassVar[str] = "evaluate_suite"
    SOURCE: ClassVar[Source] = Source("suite", "NAME", "Name of the suite: standard8.")

    out: Out

    def check(self) -> None:
        super().check()
        if self.shard is not None:
            raise PatchwordError("shard cannot be used with a suite; evaluate one benchmark at a time")
        if self.executor != "local":
            raise PatchwordError(f"executor {self.executor} cannot be used with a suite; evaluate one at a time")


class EvaluateCommand(EvaluateConfig):
    """Measure a segmenter, or label maps on disk, against masks."""

    FLAGS: ClassVar[Mapping[str, tuple[str, str]]] = {"reduce_zero_label": ("zero_is", "ignore")}
    SOURCE: ClassVar[Source] = Source(
        "photos", "PHOTOS", "Folder of photographs, or one photograph, with --masks and --classes.", required=False
    )

    masks: Annotated[str | Path | None, option_of(EvaluateConfig.model_fields["masks"])] = None  # type: ignore[assignment]
    classes: Annotated[ClassesValue | None, option_of(EvaluateConfig.model_fields["classes"])] = None  # type: ignore[assignment]
    benchmark: Annotated[
        str | None, Option("Instead of photographs, with --data: one of `patchword benchmarks`.", "NAME")
    ] = None
    suite: Annotated[
        str | None, Option("Instead, with --data: standard8, all benchmarks of it that are there.", "NAME")
    ] = None
    data: Annotated[str | Path | None, option_of(BenchmarkConfig.model_fields["data"])] = None
    protocol: Annotated[str | None, option_of(BenchmarkConfig.model_fields["protocol"])] = None
    templates: Annotated[int | None, option_of(BenchmarkConfig.model_fields["templates"])] = None
    unlabelled: Annotated[Unlabelled | None, option_of(BenchmarkConfig.model_fields["unlabelled"])] = None
    as_json: AsJson = False
