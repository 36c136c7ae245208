"""Every number that a segmentation depends on, beside the model and the classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from patchword.config.base import Settings


class JbuSettings(Settings):
    """Of joint bilateral upsampling. Source: Kopf et al. 2007; docs/refinement.md."""

    radius: int = Field(
        2,
        ge=1,
        le=8,
        description="Patches, 1 to 8: the patches that speak for a pixel are those at most this many rows and columns "
        "from its own. Larger follows the photograph farther and is slower.",
    )
    distance: float = Field(
        1.0,
        gt=0,
        le=8,
        description="Patches, above 0 to 8: standard deviation of the Gaussian over distance. Larger lets colour "
        "decide more, and blurs where colours are alike.",
    )
    colour: float = Field(
        0.1,
        ge=0.01,
        le=10,
        description="Distance of colours in RGB from 0 to 1, 0.01 to 10: standard deviation of the Gaussian over "
        "colour. Smaller follows fainter edges, also those of shadow and texture; 10 follows none.",
    )


class PamrSettings(Settings):
    """Of pixel-adaptive mask refinement. Source: Araslanov and Roth, arXiv 2005.08104; docs/refinement.md."""

    iterations: int = Field(
        10,
        ge=1,
        le=200,
        description="Rounds of averaging, 1 to 200. More carry a class farther over pixels that look alike; the time "
        "grows with them.",
    )
    dilations: tuple[Annotated[int, Field(ge=1, le=256)], ...] = Field(
        (1, 2, 4, 8, 12, 24),
        min_length=1,
        max_length=16,
        description="Pixels, each 1 to 256: how far away the rings of eight neighbours lie. Larger reach farther; time "
        "and memory grow with their number.",
    )
    contrast: float = Field(
        0.1,
        gt=0,
        le=10,
        description="Share of the local standard deviation of colour, above 0 to 10, over which a neighbour's weight "
        "falls by a factor e. Smaller stops at fainter edges.",
    )
    spreads: Literal["probabilities", "cosines"] = Field(
        "probabilities",
        description="What is averaged: the probabilities of the classes that are the best somewhere, or the cosines of "
        "every class or word, from which probabilities follow afterwards (as the code of SCLIP and NACLIP does).",
    )
    guide: Literal["photograph", "seen"] = Field(
        "photograph",
        description="Whose colours are followed: the photograph's, or those of the resized image that the model sees, "
        "brought back to the photograph's size (as the code of SCLIP and NACLIP does).",
    )
    pixels: int = Field(
        500_000,
        ge=1_024,
        le=4_000_000,
        description="Pixels, 1024 to 4 million: larger images are refined at this many, proportions kept, and the "
        "result is upsampled. More is finer, and slower; memory is about 300 bytes a pixel.",
    )


class SnapSettings(Settings):
    """Of snapping regions to the masks of a mask proposer. Source: docs/refinement.md [chosen]."""

    FORMER: ClassVar[Mapping[str, str]] = {
        "minimum_predicted_iou": "pred_iou_thresh",
        "overlap": "box_nms_thresh",
        "prompt_batch": "points_per_batch",
    }

    cells: int = Field(
        128,
        ge=16,
        le=512,
        description="Cells, 16 to 512: longer side of the map on which regions are found and masks are compared with "
        "them. Finer finds smaller regions and is slower.",
    )
    points: int = Field(
        1,
        ge=1,
        le=16,
        description="Points, 1 to 16: prompts in each connected region, each a query of its own. More find more of a "
        "region of several things; the time grows with them.",
    )
    depth: float = Field(
        0.5,
        ge=0,
        le=1,
        description="0 to 1: how far inside points lie, by the region's greatest depth; 0 allows the border.",
    )
    minimum_area: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Share of the image, 0 to 1: smaller regions are not asked for, and smaller masks not taken.",
    )
    maximum_prompts: int = Field(
        256,
        ge=1,
        le=4096,
        description="Prompts an image, 1 to 4096; the largest regions come first.",
    )
    pred_iou_thresh: float = Field(
        0.7,
        ge=0,
        le=1,
        description="0 to 1: masks that the mask proposer itself expects to be worse are not taken.",
    )
    agreement: float = Field(
        0.3,
        ge=0,
        le=1,
        description="0 to 1: share of the probability inside a mask that one class must have to take the mask. "
        "Higher changes less, and only what is sure.",
    )
    box_nms_thresh: float = Field(
        0.9,
        ge=0,
        le=1,
        description="0 to 1: of two masks whose boxes have a higher IoU than this, only the surer is taken.",
    )
    points_per_batch: int = Field(
        64,
        ge=1,
        description="Prompts in a batch, 1 and more; halves itself where memory runs out. Changes no result.",
    )


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
        "photograph), pamr, or sam (masks of a mask proposer).",
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

    @classmethod
    def of(cls, settings: SegmentSettings | Mapping[str, Any] | None) -> SegmentSettings:
        """Settings from what a caller may pass: all of them, those that differ from the defaults by name, or none."""
        return settings if isinstance(settings, SegmentSettings) else cls(**(settings or {}))

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


class FolderSettings(Settings):
    """The choices of a run over a folder that are not of the segmentation itself."""

    overlays: bool = Field(True, description="Whether to write pictures with the classes painted over the photograph.")
    confidence_bits: Literal[0, 8, 16] = Field(
        0, description="Bits of the grey pictures of confidence: 8, 16 (finer steps, larger files), or 0 for none."
    )
    soft: tuple[str, ...] = Field(
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

    @classmethod
    def of(cls, settings: FolderSettings | Mapping[str, Any] | None) -> FolderSettings:
        """Settings from what a caller may pass: all of them, those that differ from the defaults by name, or none."""
        return settings if isinstance(settings, FolderSettings) else cls(**(settings or {}))

    def of_frames(self) -> FolderSettings:
        """What is written of each frame of a video."""
        return self.model_copy(update={"overlays": self.overlays and not self.overlay_video})
