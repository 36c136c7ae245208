"""The options that several commands have, each worded once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from patchword.config.base import Config, Option, Source
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import split_commas
from patchword.errors import PatchwordError
from patchword.precision import MatmulPrecision, float32_matmul

if TYPE_CHECKING:
    from patchword.models.protocols import ImageTextEncoder, MaskGenerator, PatchEncoder
    from patchword.runs.shards import Shard
    from patchword.segmentation.dense import AnySegmenter

    PhotosValue: TypeAlias = str | Path | Sequence[str | Path]
    ClassesValue: TypeAlias = str | Path | Sequence[str] | Vocabulary
    TextModel: TypeAlias = str | Path | ImageTextEncoder
    VisionModel: TypeAlias = str | Path | PatchEncoder
    MaskModel: TypeAlias = str | Path | MaskGenerator
    AnyModel: TypeAlias = str | Path | AnySegmenter
    ShardValue: TypeAlias = str | Shard
else:  # loaded models and other objects pass; what they must be is checked where they are used, without torch here
    PhotosValue = ClassesValue = TextModel = VisionModel = MaskModel = AnyModel = ShardValue = Any


def split_words(text: str) -> list[str]:
    """Words separated by commas or semicolons, quotes left as they are."""
    return [word.strip() for word in split_commas(text.replace(";", ",")) if word.strip()]


def read_vocabulary(classes: ClassesValue, *, background: Sequence[str] | None) -> Vocabulary:
    """A class list with its own background words (None), with those given, or (an empty list) with none."""
    vocabulary = Vocabulary.of(classes, background=background or ())
    return vocabulary if background is None or background else replace(vocabulary, background=())


def check_executor(executor: str) -> None:
    """Refuse whoever does not exist."""
    kind, _, count = executor.partition(":")
    ray = _RAY.fullmatch(executor)
    processes = kind == "processes" and count.isdecimal() and 1 <= int(count) <= _MOST_PROCESSES
    if not (executor == "local" or processes or ray):
        raise PatchwordError(
            f"executor {executor!r} is unknown; use local, processes:N with N from 1 to {_MOST_PROCESSES}, or "
            "ray[:ADDRESS][,gpus_per_worker=NUMBER]"
        )
    if ray and ray["gpus"] is not None:
        _check_gpus(ray["gpus"])
    if ray and find_spec("ray") is None:  # said before models are loaded
        raise PatchwordError("executor ray needs Ray: pip install 'patchword[ray]'")


def _check_gpus(number: str) -> None:
    try:
        right = 0.01 <= float(number) <= 1
    except ValueError:
        right = False
    if not right:
        raise PatchwordError(
            f"gpus_per_worker is {number!r}; it must be 0.01 to 1, such as 0.25 for four workers on each GPU"
        )


_MOST_PROCESSES = 256
_RAY = re.compile(r"ray(:[^,]+)?(,gpus_per_worker=(?P<gpus>.*))?")

PHOTOS = Source(
    "photos",
    "PHOTOS...",
    "Folders of photographs, searched recursively, single photographs, tar files in the layout of WebDataset, patterns "
    "such as 'photos/*.jpg', or URLs of these such as s3://bucket/photos.",
    many=True,
)
LABELS = Source("labels", "LABELS", "Folder that `patchword label` or `patchword import` wrote.")

Classes = Annotated[ClassesValue, Option('Class names, "cat, dog", or a class list file.', "CLASSES")]
Out = Annotated[str | Path, Option("Folder of the result.", "FOLDER", short="-o")]
Background = Annotated[
    Sequence[str] | None,
    BeforeValidator(lambda value: split_words(value) if isinstance(value, str) else value),
    Option(
        'Background words, "sky, wall": they take part in the vote and become no label. By default those of the '
        "class list.",
        "WORDS",
    ),
]
PresetName = Literal["fast", "balanced", "thorough", "paper"]
Preset = Annotated[PresetName, Option("The models that are used where none is named.")]
Photos = Annotated[
    str | Path | None,
    Option("Where the photographs are now; by default where they were.", "FOLDER"),
]
Reviews = Annotated[bool, Option("Take the labels as people left them in the review, where they reviewed any.")]
Overwrite = Annotated[bool, Option("Empty the folder first if it holds an earlier result.")]
OverwriteCorrections = Annotated[bool, Option("As --overwrite, even if labels corrected by a person are lost.")]
Resume = Annotated[bool, Option("Go on where an earlier run stopped.")]
RetryFailed = Annotated[bool, Option("With --resume, try photographs that failed again.")]
Limit = Annotated[int | None, Field(ge=1), Option("Take only the first N photographs.", "N")]
ShardOption = Annotated[
    ShardValue | None, Option("Take part I of N; `patchword merge` puts the parts together.", "I/N")
]
ExecutorOption = Annotated[
    str,
    Option(
        "Who does the work: local; processes:N, N processes of this machine with models of their own; or "
        "ray[:ADDRESS][,gpus_per_worker=0.25], a Ray cluster.",
        "EXECUTOR",
    ),
]
Device = Annotated[str, Option("auto, cpu, cuda, cuda:1 or mps.", "DEVICE")]
DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
Dtype = Annotated[DtypeName, Option("Number type of the models.")]
MatmulPrecisionOption = Annotated[
    MatmulPrecision | None,
    Option(
        "Precision of float32 matrix products, as torch has it: highest, high (TF32) or medium (bfloat16). By default "
        "as torch is set."
    ),
]
Quiet = Annotated[bool, Option("Show no progress.", short="-q", kept=False)]
CommandLine = Annotated[str, Option("What was typed, for the record.", cli=False, kept=False)]
AsJson = Annotated[bool, Option("Print the result as JSON.", flag="--json", kept=False)]
DryRun = Annotated[
    bool,
    Option("Print counts, models, settings, time and disk; write nothing.", kept=False),
]


class Devices(Config):
    """Where models compute, and in what."""

    device: Device = "auto"
    dtype: Dtype = "auto"
    float32_matmul_precision: MatmulPrecisionOption = None

    def applied(self) -> AbstractContextManager[None]:
        return float32_matmul(self.float32_matmul_precision)


class Run(Config):
    """A run over a folder that can be stopped, resumed and split."""

    limit: Limit = None
    shard: ShardOption = None
    executor: ExecutorOption = "local"
    resume: Resume = False
    overwrite: Overwrite = False
    quiet: Quiet = False
    command: CommandLine = ""

    def check(self) -> None:
        """Refuse values that do not go together."""
        from patchword.runs.shards import Shard

        check_executor(self.executor)
        if isinstance(self.shard, str):
            Shard.parse(self.shard)
        for name in ("retry_failed", "forget_missing"):
            if getattr(self, name, False) and not self.resume:
                raise PatchwordError(f"{name} requires resume.")
        if self.resume and self.overwrite:
            raise PatchwordError("use either resume or overwrite, not both")

    @property
    def part(self) -> Shard | None:
        """Which part of the photographs is wanted; None for all."""
        from patchword.runs.shards import Shard

        return Shard.parse(self.shard) if isinstance(self.shard, str) else self.shard


class ModelSource(Devices):
    """What segments: a model of `align`, its ONNX file, or a training-free method."""

    FORMER: ClassVar[Mapping[str, str]] = {"mask_proposer": "mask_generator"}

    model: Annotated[AnyModel | None, Option("Segmenter that `patchword align` made, or its .onnx file.", "PATH")] = (
        None
    )
    method: Annotated[
        str | None,
        Option(
            "Instead of a model, without training: maskclip, sclip, clearclip, naclip or proxyclip; needs image_text.",
            "NAME",
        ),
    ] = None
    image_text: Annotated[TextModel | None, Option("CLIP of --method: hub name, name@revision or folder.", "NAME")] = (
        None
    )
    encoder: Annotated[
        VisionModel | None,
        Option("Vision encoder of proxyclip; for a model, where its own is now.", "NAME"),
    ] = None
    text_encoder: Annotated[
        TextModel | None,
        Option("Where the text encoder of a model is now, or a file of text embeddings (.npz).", "NAME"),
    ] = None
    mask_generator: Annotated[
        MaskModel | None, Option("SAM whose masks edges follow; needs the setting refine=sam.", "NAME")
    ] = None

    @property
    def roles(self) -> dict[str, Any]:
        """What was named, by option."""
        names = ("model", "method", "image_text", "encoder", "text_encoder", "mask_generator")
        return {name: getattr(self, name) for name in names}
