"""Every number of stage 2 that a person may want to change."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from patchword.config.base import Option, Settings, Source
from patchword.config.shared import (
    LABELS,
    AsJson,
    Devices,
    DryRun,
    ExecutorOption,
    Out,
    Overwrite,
    Photos,
    Preset,
    Quiet,
    Resume,
    Reviews,
    TextModel,
    VisionModel,
    check_executor,
)

if TYPE_CHECKING:
    AlignValues: TypeAlias = "AlignSettings | Mapping[str, Any] | None"
else:
    AlignValues = Any

ModuleKind = Literal["block", "linear", "mlp", "two-blocks"]

WITHOUT_EFFECT = ("tracker", "checkpoint_minutes", "decode_threads", "shard_megabytes", "cache_gigabytes")
"""Settings that change no result of a run that has begun, so that it may go on with others."""


EARLIER_VALUES = {"mask_weight": 0.0, "label_smoothing": 0.0}
"""What trainings did that were recorded before these settings existed."""


class AlignSettings(Settings):
    """Settings of the alignment; every default is a [chosen] value of docs/method.md unless its description differs."""

    # Features and labels
    image_size: int = Field(
        518,
        ge=1,
        description="Side in pixels of the square that images are resized to; rounded to whole patches",
    )
    feature_dtype: Literal["float16", "bfloat16", "float32"] = Field(
        "float16", description="How the cache keeps features"
    )
    feature_batch: int = Field(
        8, ge=1, description="Images that the frozen encoder sees at once; halves itself where memory runs out"
    )
    decode_threads: int = Field(4, ge=1, description="Threads that decode photographs while the encoder works")
    shard_megabytes: float = Field(
        128, gt=0, description="Size of one file of the feature cache, in megabytes; held in memory while it grows"
    )
    features: Literal["auto", "cached", "online"] = Field(
        "auto",
        description="Keep features on disk (cached), compute them in every step (online), or as there is room (auto)",
    )
    cache_gigabytes: float = Field(
        100,
        gt=0,
        description="Most that the feature cache may hold, in gigabytes (1e9 bytes); above it, what was used least "
        "recently goes, and a run that needs more computes features in every step",
    )
    augment: bool = Field(
        True,
        description="Whether training sees other crops, mirror images and colours in every epoch, where features are "
        "computed in every step; never from the cache",
    )
    crop_scale: float = Field(
        0.5, gt=0, le=1, description="Least share of a photograph's area that a random crop keeps; 1 keeps all"
    )
    crop_ratio: float = Field(
        4 / 3, ge=1, le=4, description="Most that a crop is wider or narrower than the photograph, as a factor"
    )
    flip: float = Field(0.5, ge=0, le=1, description="Probability of a mirror image")
    colour: float = Field(
        0.2, ge=0, lt=1, description="Most that brightness, contrast and saturation change, as a share; 0 for none"
    )
    majority: float = Field(
        0.6, gt=0, le=1, description="Share of a patch's pixels that its label needs; patches below it are ignored"
    )

    # Module
    module: ModuleKind = Field(
        "block",
        description="One transformer block [paper], a linear map alone, an MLP that sees each patch for itself, or two "
        "blocks",
    )
    head_size: int = Field(64, ge=1, description="Channels of an attention head")
    mlp_ratio: float = Field(4.0, gt=0, description="Width of the block's MLP in multiples of the features' channels")

    # Loss
    loss: Literal["t-supcon", "patch-text", "patch-patch", "cross-entropy"] = Field(
        "t-supcon",
        description="Both terms [paper], one of them alone, or cross entropy against the text vectors; "
        "patch-patch alone learns no text",
    )
    patch_text: Literal["both", "text-anchor", "patch-anchor"] = Field(
        "both", description="Reading of the patch-text term: the sum of both, or one of them"
    )
    patch_text_weight: float = Field(1.0, gt=0, description="Weight of the patch-text term")
    patch_patch_weight: float = Field(1.0, gt=0, description="Weight of the patch-patch term")
    patch_temperature: float = Field(0.1, gt=0, le=10, description="Temperature of the patch-patch term [paper]")
    text_temperature: float = Field(0.07, gt=0, le=10, description="Temperature at which the patch-text term starts")
    learn_temperature: bool = Field(True, description="Whether the text temperature is learned")
    minimum_temperature: float = Field(
        0.01, gt=0, le=10, description="The learned text temperature never goes below this"
    )
    patch_sample: int = Field(
        4096, ge=2, description="Most patches a step in the patch-patch term, balanced over classes"
    )
    text_sample: int = Field(
        8192,
        ge=1,
        description="Most patches a step in the patch-text term, drawn evenly; more cost time and steady the gradient",
    )
    label_smoothing: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="Share of a label that is spread evenly over all classes in the patch-anchor reading, since labels "
        "are sometimes wrong; 0 for none [paper]",
    )
    mask_weight: float = Field(
        1.0,
        ge=0,
        description="Weight of the patch-mask term, which draws patches to what CLIP sees in their mask, where the "
        "labels hold mask embeddings; 0 for none [paper]",
    )
    mask_temperature: float = Field(0.07, gt=0, le=10, description="Temperature of the patch-mask term")
    similarity_bound: int | None = Field(
        None,
        ge=1,
        description="Most similarities held at once, 4 bytes each; changes memory and speed, and results by rounding. "
        "none = 2^20 on a CPU, 2^28 on a GPU; halves itself where memory runs out",
    )

    # Training
    schedule: Literal["auto", "paper"] = Field(
        "auto",
        description="Where `batch_size`, `epochs` and `learning_rate` come from if they are not set: chosen for the "
        "number of photographs (auto), or 32 images a step, 5 epochs and 1e-4 however few there are (paper)",
    )
    batch_size: int | None = Field(None, ge=1, description="Images a step; none = the schedule's")
    epochs: int | None = Field(None, ge=1, description="Passes over the data; none = the schedule's")
    steps: int | None = Field(None, ge=1, description="Steps of the whole training; overrides `epochs`")
    learning_rate: float | None = Field(None, gt=0, description="Highest learning rate of AdamW; none = the schedule's")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's weight decay, on matrices only")
    warmup_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the steps over which the learning rate rises linearly"
    )
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of a step's gradient")
    accumulation: int = Field(
        1,
        ge=1,
        description="Parts that a process's images of a step are aligned in; more take less memory and more time, the "
        "loss stays that of the whole batch",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="Type in which the module computes; the loss and the weights stay in fp32. auto is bf16 on a GPU "
        "that has it, fp16 on a V100 or T4, else fp32, as of the models",
    )
    average_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay a step of a moving average of the weights, which is then what the training ends with; 0 for "
        "none, 0.999 remembers about 1,000 steps",
    )
    held_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the photographs not trained on; agreement with their labels is measured after each epoch",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Epochs without a better held-out agreement after which training stops; the best weights are kept. "
        "Needs `held_out`; none never stops",
    )
    compile: bool = Field(False, description="Whether to try torch.compile on the module")
    tracker: Literal["off", "tensorboard", "wandb"] = Field(
        "off", description="Where the history also goes while training runs; each needs its extra"
    )
    checkpoint_minutes: float = Field(
        10, gt=0, description="Minutes after which a checkpoint is written within an epoch too"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the weights, the order of images and the sampled patches")

    @model_validator(mode="after")
    def _patience_needs_held_out(self) -> Self:
        if self.patience is not None and self.held_out == 0:
            raise ValueError(f"setting 'patience' is {self.patience}, which needs a 'held_out' above 0")
        return self


ALIGN_PRESETS: dict[str, dict[str, Any]] = {"paper": {"schedule": "paper", "mask_weight": 0.0, "label_smoothing": 0.0}}
"""Settings of a preset that differ from the defaults."""


class AlignConfig(Devices):
    """Stage 2: train a segmenter on pseudo masks."""

    COMMAND: ClassVar[str] = "align"
    SOURCE: ClassVar[Source] = LABELS
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword align labels/ -o model/",
        "patchword align labels/ -o model/ --encoder facebook/dinov2-base --epochs 20 --lr 0.0005",
    )
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": AlignSettings}
    SHORT_CUTS: ClassVar[Mapping[str, Mapping[str, str | None]]] = {
        "settings": {"epochs": "N", "batch_size": "N", "learning_rate": "RATE", "image_size": "PIXELS", "seed": "N"}
    }

    out: Out
    preset: Annotated[
        Preset | None, Option("Whose vision encoder is used where none is named; by default as the labels were made.")
    ] = None
    encoder: Annotated[
        VisionModel | None, Option("The frozen vision encoder: hub name, name@revision or folder.", "NAME")
    ] = None
    text_encoder: Annotated[
        TextModel | None, Option("The image-text model; by default the one that labelled.", "NAME")
    ] = None
    photos: Photos = None
    reviews: Reviews = True
    settings: Annotated[AlignValues, Option("Numbers of stage 2.")] = None
    cache: Annotated[
        str | Path | None, Option("Keep the frozen features here; by default they go at the end.", "FOLDER")
    ] = None
    executor: ExecutorOption = "local"
    resume: Resume = False
    overwrite: Overwrite = False
    quiet: Quiet = False

    def check(self) -> None:
        check_executor(self.executor)
        _ = self.numbers

    @cached_property
    def numbers(self) -> AlignSettings:
        """All numbers, where the labels' preset does not matter."""
        return self.numbers_for(self.preset)

    def numbers_for(self, preset: str | None) -> AlignSettings:
        """The numbers of a preset, with those that were given in their place."""
        if isinstance(self.settings, AlignSettings):
            return self.settings
        return AlignSettings.of({**ALIGN_PRESETS.get(preset or "", {}), **(self.settings or {})})


class AlignCommand(AlignConfig):
    """Stage 2: train a segmenter on pseudo masks."""

    dry_run: DryRun = False
    as_json: AsJson = False
