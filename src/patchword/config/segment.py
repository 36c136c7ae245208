"""Every number that a segmentation depends on, beside the model and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from patchword.config.base import Option, Settings, Source
from patchword.config.refine import JbuSettings, PamrSettings, SnapSettings
from patchword.config.shared import (
    AsJson,
    Background,
    ClassesValue,
    DryRun,
    ModelSource,
    Out,
    RetryFailed,
    Run,
    split_words,
)
from patchword.data.vocabulary_words import read_words

if TYPE_CHECKING:
    SegmentValues: TypeAlias = "SegmentSettings | Mapping[str, Any] | None"
    FolderValues: TypeAlias = "FolderSettings | Mapping[str, Any] | None"
else:
    SegmentValues = FolderValues = Any

Join = Literal["features", "logits"]
SoftmaxOver = Literal["classes", "words"]
Resize = Literal["antialiased", "plain", "uint8"]
PartialPatches = Literal["resize", "stretch"]
Refine = Literal["none", "jbu", "pamr", "sam"]
_FORMER_JBU = "guided"  # what earlier versions called joint bilateral upsampling


class SegmentSettings(Settings):
    """How an image is seen, and how class scores become classes. Source: docs/method.md, stage 3."""

    @classmethod
    def current(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Settings` has it; an earlier version called joint bilateral upsampling "guided" and wrote so."""
        found = {name: value for name, value in values.items() if name != _FORMER_JBU}
        if found.get("refine") == _FORMER_JBU:
            found["refine"] = "jbu"
        if _FORMER_JBU in values:
            former, now = values[_FORMER_JBU], found.get("jbu", {})
            both = isinstance(former, Mapping) and isinstance(now, Mapping)
            found["jbu"] = {**former, **now} if both else former
        return super().current(found)

    image_size: int | None = Field(
        None,
        ge=1,
        description="Pixels, 1 and more: side of the square that has as many pixels as the image that the model sees, "
        "proportions kept; none is the model's own. Larger finds smaller things and is slower.",
    )
    shorter_side: int | None = Field(
        None,
        ge=1,
        description="Pixels, 1 and more: shorter side of the image that the model sees, as benchmark protocols have "
        "it, instead of image_size.",
    )
    longest_side: int | None = Field(
        None,
        ge=1,
        description="Pixels, 1 and more: where shorter_side would make the longer side longer than this, the longer "
        "side decides; none sets no bound.",
    )
    resize: Resize = Field(
        "antialiased",
        description="How an image is brought to the size that the model sees: antialiased (bicubic, as Pillow does), "
        "plain (bilinear without antialiasing, as the benchmark protocols have it) or uint8 (plain, rounded to whole "
        "numbers, bit for bit as OpenCV does).",
    )
    partial_patches: PartialPatches = Field(
        "resize",
        description="Sides that are no whole patches are brought to the nearest whole number of them (resize); or what "
        "is left over below and to the right is not seen, and the scores of the rest are stretched over it (stretch, "
        "as the code of SCLIP and NACLIP does; needs shorter_side and join=logits).",
    )
    window: int | None = Field(
        None,
        ge=1,
        description="Pixels of the image that the model sees, 1 and more: side of square sliding windows; none shows "
        "the image whole. Smaller windows see less around them and need less memory.",
    )
    stride: int | None = Field(
        None,
        ge=1,
        description="Pixels, 1 to window: from one window to the next; none is half a window. Smaller is smoother "
        "and slower.",
    )
    join: Join = Field(
        "features",
        description="How windows become one: features (patch features are averaged where windows overlap) or logits "
        "(upsampled class scores are, as the protocols do).",
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="Above 0: of the softmax that confidence is taken from; none is the model's own. Lower is surer.",
    )
    softmax_over: SoftmaxOver = Field(
        "classes",
        description="What the softmax is over: classes (each by its best word) or words, the best of which then speaks "
        "for its class.",
    )
    class_prior: float = Field(
        0.0,
        ge=-1,
        le=1,
        description="-1 to 1: how much the share of the image (or of a tile of a large one) that a class seems to fill "
        "counts in its scores. Above 0 favours classes that fill much, below 0 small ones; 0 counts scores alone.",
    )
    threshold: float = Field(
        0.0, ge=0, le=1, description="0 to 1: pixels of lower confidence are ignored; 0 ignores none."
    )
    background_threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="0 to 1: pixels of lower confidence become background; 0 makes none. Higher means more background.",
    )
    refine: Refine = Field(
        "jbu",
        description="What sharpens edges afterwards: none, jbu (joint bilateral upsampling, which follows the "
        "photograph), pamr, or sam (masks of a mask generator).",
    )
    jbu: JbuSettings = Field(JbuSettings(), description="Numbers of joint bilateral upsampling, where refine is jbu.")
    pamr: PamrSettings = Field(PamrSettings(), description="Numbers of PAMR, where refine is pamr.")
    sam: SnapSettings = Field(SnapSettings(), description="Numbers of snapping to masks, where refine is sam.")
    large_megapixels: float | None = Field(
        100.0,
        gt=0,
        description="Millions of pixels, above 0: larger images are segmented tile by tile, with memory that does not "
        "grow with them; none sets no bound. TIFFs with a georeference always are.",
    )
    tile: int = Field(
        1024,
        ge=1,
        description="Pixels of a large image, 1 and more: side of a square tile. image_size (or shorter_side) is what "
        "the model sees of one tile, so tile / image_size is the scale. Larger shows more around things and "
        "finds fewer small ones.",
    )
    overlap: int = Field(
        256,
        ge=0,
        description="Pixels of a large image, 0 to tile - 1: what neighbouring tiles share; each sees half of it "
        "around what is kept of it. Larger makes seams rarer and is slower.",
    )
    bands: tuple[int, ...] | None = Field(
        None,
        description="Bands of a TIFF that are red, green and blue (or one that is grey), counted from 1; none takes "
        "those that the file names so, else its first three, else its first.",
    )
    nodata: float | None = Field(
        None,
        description="Value of a TIFF that means that there is nothing, such as 0 or -9999; none takes what the file "
        "says. Pixels that have it in all bands become nodata, and it does not count in value_percentiles.",
    )
    value_range: tuple[float, float] | None = Field(
        None,
        description="Values of a TIFF that become 0 and 255, the lower first; none leaves 8 bits as they are and takes "
        "value_percentiles of others.",
    )
    value_percentiles: tuple[float, float] = Field(
        (2.0, 98.0),
        description="Per cent, 0 to 100, the lower first: which values of a TIFF of more than 8 bits become 0 and 255; "
        "the same in all its tiles and bands. Closer together means more contrast.",
    )
    value_sample: int = Field(
        1024,
        ge=1,
        description="Pixels, 1 and more: longer side, at most, of the sample of a TIFF that value_percentiles are of. "
        "More is nearer to all its values, and slower to begin.",
    )
    overview_side: int = Field(
        2048,
        ge=1,
        description="Pixels, 1 and more: longer side of the overlay of a large image, at most. Changes no mask.",
    )
    compile: bool = Field(
        False,
        description="Whether to try torch.compile on the models: minutes at the beginning for less time an image. "
        "Where it does not work, things go on without it.",
    )
    batch: int = Field(
        8,
        ge=1,
        description="Windows (or images of one size) in a batch, 1 and more; halves itself where memory runs out.",
    )

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.image_size is not None and self.shorter_side is not None:
            raise ValueError(
                f"image_size is {self.image_size} and shorter_side is {self.shorter_side}; set only one of them"
            )
        if self.longest_side is not None and self.shorter_side is None:
            raise ValueError(f"longest_side is {self.longest_side}; it requires shorter_side")
        if self.stride is not None and (self.window is None or self.stride > self.window):
            needed = (
                "it requires window" if self.window is None else f"it must be 1 to the window's side, {self.window}"
            )
            raise ValueError(f"stride is {self.stride}; {needed}")
        if self.partial_patches == "stretch" and (self.shorter_side is None or self.join != "logits"):
            raise ValueError("partial_patches=stretch requires shorter_side and join=logits")
        self._check_large()
        return self

    def _check_large(self) -> None:
        if self.overlap >= self.tile:
            raise ValueError(f"overlap is {self.overlap}; it must be less than the tile's side, {self.tile}")
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise ValueError(f"bands is {list(self.bands)}; it must be one or three numbers, each at least 1")
        if self.value_range is not None and self.value_range[0] >= self.value_range[1]:
            raise ValueError(f"value_range is {list(self.value_range)}; it must be two numbers, the lower first")
        low, high = self.value_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(
                f"value_percentiles is {[low, high]}; it must be two numbers from 0 to 100, the lower first"
            )


ALL_CLASSES = "all"


def _names(value: object) -> object:
    """Names of classes, out of their quotes, where they are one text."""
    if not isinstance(value, str):
        return value
    words = split_words(value)
    return tuple(name for word in words for name in read_words(word, place="soft", separated="write names"))


class FolderSettings(Settings):
    """The choices of a run over a folder that are not of the segmentation itself."""

    overlays: bool = Field(True, description="Whether to write pictures with the classes painted over the photograph.")
    confidence_bits: Literal[0, 8, 16] = Field(
        0, description="Bits of the grey pictures of confidence: 8, 16 (finer steps, larger files), or 0 for none."
    )
    soft: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        (),
        description="Names of the classes whose probabilities are written, or all; none by default. Each takes two "
        "bytes a pixel.",
    )
    rle: bool = Field(False, description="Whether results.jsonl has the run lengths of each class that is there.")
    every: int = Field(1, ge=1, description="Frames, 1 and more: of videos every such frame is segmented; 1 takes all.")
    overlay_video: bool = Field(
        False, description="Whether overlays of a video become one video instead of a picture a frame."
    )
    batch_megapixels: float = Field(
        24.0,
        gt=0,
        description="Megapixels, above 0: of photographs that are segmented together, as they are stored; a larger one "
        "is segmented alone. Bounds the memory that results take before they are written.",
    )

    def of_frames(self) -> FolderSettings:
        """What is written of each frame of a video."""
        return self.model_copy(update={"overlays": self.overlays and not self.overlay_video})


class SegmentConfig(ModelSource, Run):
    """Stage 3: segment photographs or videos by any class names."""

    COMMAND: ClassVar[str] = "segment"
    SOURCE: ClassVar[Source] = Source(
        "photos", "PHOTOS...", "Folders of photographs, single photographs or videos, or patterns.", many=True
    )
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        'patchword segment photos/ --model model/ --classes "cat, lamp" -o segmented/',
        'patchword segment photos/ --method sclip --image-text CLIP --classes "cat, lamp" -o segmented/',
    )
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": SegmentSettings, "folder_settings": FolderSettings}
    SHORT_CUTS: ClassVar[Mapping[str, Mapping[str, str | None]]] = {
        "settings": {
            "image_size": "PIXELS",
            "window": "PIXELS",
            "stride": "PIXELS",
            "threshold": "SHARE",
            "refine": None,
            "compile": None,
        },
        "folder_settings": {
            "overlays": None,
            "confidence_bits": None,
            "soft": "CLASSES",
            "rle": None,
            "every": "N",
            "overlay_video": None,
        },
    }

    out: Out
    classes: Annotated[
        ClassesValue | None, Option("Class names or a class list file; by default those of the training.", "CLASSES")
    ] = None
    background: Background = None
    settings: Annotated[SegmentValues, Option("How images are seen, and classes decided.")] = None
    folder_settings: Annotated[FolderValues, Option("What is written.")] = None
    video: Annotated[bool, Option("Segment the videos of a folder too, frame by frame.")] = False
    retry_failed: RetryFailed = False

    def check(self) -> None:
        super().check()
        _ = self.numbers, self.how

    @cached_property
    def numbers(self) -> SegmentSettings:
        """How images are seen, and classes decided."""
        return SegmentSettings.of(self.settings)

    @cached_property
    def how(self) -> FolderSettings:
        """What is written."""
        return FolderSettings.of(self.folder_settings)


class SegmentCommand(SegmentConfig):
    """Stage 3: segment photographs or videos by any class names."""

    confidence: Annotated[
        bool, Option("Write confidence/, grey pictures; the same as --confidence-bits 8.", kept=False)
    ] = False
    dry_run: DryRun = False
    as_json: AsJson = False

    @cached_property
    def how(self) -> FolderSettings:
        how = FolderSettings.of(self.folder_settings)
        return how.model_copy(update={"confidence_bits": how.confidence_bits or 8}) if self.confidence else how

    def numbers_of(self, part: str) -> Settings:
        return self.how if part == "folder_settings" else self.numbers
