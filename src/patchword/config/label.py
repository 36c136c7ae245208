"""Settings of pseudo labelling, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from patchword.config.base import Option, Settings, Source
from patchword.config.shared import (
    PHOTOS,
    AsJson,
    Background,
    Classes,
    Devices,
    DryRun,
    MaskModel,
    Out,
    OverwriteCorrections,
    Preset,
    RetryFailed,
    Run,
    TextModel,
    VisionModel,
    read_vocabulary,
)
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.registry import find_preset

if TYPE_CHECKING:
    LabelValues: TypeAlias = "LabelSettings | Mapping[str, Any] | None"
else:
    LabelValues = Any

Generator = Literal["clip-prompts-sam", "sam-then-clip", "both"]
Grid = Annotated[int, Field(ge=1, le=16)]


class LabelSettings(Settings):
    """Settings of the labelling; every default is a [chosen] value of docs/method.md, stage 1."""

    FORMER: ClassVar[Mapping[str, str]] = {
        "minimum_predicted_iou": "pred_iou_thresh",
        "minimum_stability": "stability_score_thresh",
        "stability_offset": "stability_score_offset",
        "box_overlap": "box_nms_thresh",
        "grid_side": "points_per_side",
        "prompt_batch": "points_per_batch",
        "seeds": "point_sampling",
        "seed_scale": "sampling_scale",
        "seed_budget": "sampling_budget",
        "seed_clusters": "sampling_clusters",
        "seed_rest": "sampling_uncovered",
        "seed_place": "sampling_position",
        "seed_joint": "reprompt_points",
        "seed_depth": "reprompt_depth",
    }

    generator: Generator = Field(
        "both",
        description="What makes masks: SAM asked where CLIP sees a class, CLIP naming SAM's masks of everything, or "
        "both fused; both label more pixels and better ones, and cost the sum of the two",
    )

    # Crops
    grids: tuple[Grid, ...] = Field(
        (1, 2, 3),
        min_length=1,
        description="CLIP sees crops of 1/g of the image's sides for each g of these, 1 to 16; finer ones show smaller "
        "things and cost about 4 g x g passes of CLIP",
    )
    overlap: float = Field(
        0.5,
        ge=0,
        le=0.9,
        description="Share of a crop's side that it has in common with the next crop of its grid, 0 to 0.9; more makes "
        "more crops and smoother evidence",
    )
    crop_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Side in pixels that crops are resized to, whole patches, up to 4096; none = the model's own",
    )
    crop_batch: int = Field(
        16,
        ge=1,
        description="Crops that the image-text encoder sees at once, 1 or more; halves itself where memory runs out",
    )
    dense: Literal["value", "maskclip", "sclip", "clearclip", "naclip"] = Field(
        "value", description="Path of the image-text encoder that its patch features come from"
    )
    image_batch: int = Field(
        1,
        ge=1,
        description="Images that go through the models together, 1 or more; more fills a large accelerator and needs "
        "more memory; between two values, results may differ in the last bits",
    )

    # Detection
    minimum_crops: int = Field(
        2,
        ge=1,
        description="Crops that a class has to win to be kept, 1 or more; more keeps fewer classes, and surer ones",
    )
    minimum_share: float = Field(
        0.04,
        ge=0,
        le=1,
        description="Share of all crops that a class has to win if that is more than `minimum_crops`, 0 to 1; more "
        "drops small things and wrong classes alike",
    )

    # Prompts
    peaks: int = Field(
        4,
        ge=1,
        le=64,
        description="Patches of highest evidence that become point prompts of a class, 1 to 64; more find more things "
        "of a class, cost a decode each, and sooner lie beside it",
    )
    peak_distance: float = Field(
        1.0,
        ge=0,
        description="A peak rules out patches up to this far from it along both axes, in patches of the finest crop, 0 "
        "or more; more spreads the prompts",
    )
    pred_iou_thresh: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Masks of a lower predicted IoU are dropped, 0 to 1; more labels fewer pixels, better outlined",
    )

    # Masks of everything
    point_sampling: Literal["embedding", "encoder", "grid"] = Field(
        "embedding",
        description="Points that masks of everything are asked at: one a cluster of the mask generator's own image "
        "embedding or of a vision encoder's patch features, or a grid, which needs many more",
    )
    points_per_side: int = Field(
        32, ge=1, le=256, description="Points along each side of the grid, 1 to 256; time grows with the square"
    )
    sampling_scale: float = Field(
        1.0,
        gt=0,
        le=4,
        description="Side at which a vision encoder sees a view, in sides of its own input, up to 4; more is finer",
    )
    sampling_budget: int = Field(
        128,
        ge=1,
        le=4096,
        description="Decodes a view that points from features may cost at most, 1 to 4096; more find a little more",
    )
    sampling_clusters: int = Field(
        64,
        ge=1,
        le=1024,
        description="Clusters of features, a decode each, 1 to 1024; more find smaller things, fewer leave decodes",
    )
    sampling_uncovered: int = Field(
        32,
        ge=0,
        le=1024,
        description="Clusters, a decode each, of the patches that no mask covers by then, 0 to 1024; 0 = not asked",
    )
    reprompt_points: int = Field(
        3,
        ge=0,
        le=16,
        description="Points in a refused mask at which it is asked for again, together, 0 to 16; 0 = not again",
    )
    reprompt_depth: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How deep in a refused mask those points lie, as a share of its greatest depth, 0 to 1",
    )
    sampling_position: float = Field(
        1.0,
        ge=0,
        description="Weight of distance in the image beside that of features in the clusters; more makes them rounder",
    )
    proposal_grids: tuple[Grid, ...] = Field(
        (1,),
        min_length=1,
        description="Masks of everything are asked for on g x g overlapping parts of the photograph for each g of "
        "these, 1 to 16; finer ones find smaller things and cost g x g passes of the mask generator",
    )
    proposal_overlap: float = Field(
        0.34, ge=0, le=0.9, description="Share of such a part's side that it has in common with the next, 0 to 0.9"
    )
    proposal_enlargement: float = Field(
        2.0,
        ge=1,
        description="A grid is left out where its parts would be enlarged more than this to fill the mask generator's "
        "input, 1 or more; more asks on blurred parts, too",
    )
    proposal_pred_iou_thresh: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Masks of everything of a lower predicted IoU are dropped, 0 to 1; less keeps more thin and small "
        "things and gives CLIP more masks to name; none = `pred_iou_thresh`",
    )
    stability_score_thresh: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Masks of everything whose IoU between a higher and a lower cut is below this are dropped, 0 to 1; "
        "more keeps fewer, with sharper outlines",
    )
    stability_score_offset: float = Field(
        1.0, ge=0, description="How far from 0 the two cuts are, in logits, 0 or more; more is stricter"
    )
    box_nms_thresh: float = Field(
        0.7,
        ge=0,
        le=1,
        description="Masks of everything whose boxes' IoU with a surer one's is above this are repetitions and "
        "dropped, 0 to 1; more keeps more masks to be named",
    )
    points_per_batch: int = Field(
        64,
        ge=1,
        description="Prompts that the mask generator decodes at once, 1 or more; halves itself where memory runs out",
    )

    # Names of masks
    name_margin: float = Field(
        0.02,
        ge=0,
        le=2,
        description="A mask gets a name that leads the second by this in cosine, 0 to 2; more names fewer masks",
    )
    token_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the masked crop's class token beside the mask's mean patch in the cosine, 0 to 1; more "
        "trusts the thing on its own, less its surroundings; 0 saves a pass of the encoder a mask",
    )
    crop_weight: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the plain crop beside the masked one in that token, 0 to 1; 0 saves a pass a mask",
    )
    mask_embeddings: bool = Field(
        True,
        description="Keep what CLIP sees in each mask of SAM, named or not; `align` learns more then (1.5 kB a mask)",
    )

    # Uncertainty
    entropy_temperature: float = Field(
        0.01,
        gt=0,
        description="Temperature of the softmax whose entropy is written down, above 0; CLIP's is 0.01; moves no label",
    )

    # Fusion
    score_temperature: float | None = Field(
        0.03,
        gt=0,
        description="A mask counts by how surely its class leads the next word: 1 / (1 + exp(-lead / this)), above 0; "
        "none = by the mean evidence for the class inside it",
    )
    fusion: Literal["highest", "sum"] = Field(
        "sum",
        description="How the generators' scores for a class count at a pixel: the highest alone, or their sum, by "
        "which two that agree outweigh one that is surer",
    )
    margin: float = Field(
        0.02, ge=0, le=1, description="A pixel is ignored where scores of two classes differ by less than this, 0 to 1"
    )

    @property
    def needs_encoder(self) -> bool:
        """Whether a vision encoder takes part in the labelling."""
        return self.point_sampling == "encoder" and self.generator != "clip-prompts-sam"

    @property
    def proposal_threshold(self) -> float:
        """The predicted IoU that masks of everything need."""
        return self.pred_iou_thresh if self.proposal_pred_iou_thresh is None else self.proposal_pred_iou_thresh

    @model_validator(mode="after")
    def _check_grids(self) -> Self:
        for grids in (self.grids, self.proposal_grids):
            if len(set(grids)) != len(grids):
                raise ValueError("a grid is named twice; give each grid once")
        crops = sum(self.crops_a_side(grid) ** 2 for grid in self.grids)
        if crops < self.minimum_crops:
            raise ValueError(
                f"minimum_crops is {self.minimum_crops}, but the grids give {crops} crops; it must be at most {crops}"
            )
        return self

    def crops_a_side(self, grid: int) -> int:
        """How many crops of 1/grid of a side cover the side with the overlap."""
        steps = (grid - 1) / (1 - self.overlap)
        return 1 + int(-((1e-9 - steps) // 1))


LABEL_PRESETS: dict[str, LabelSettings] = {
    "fast": LabelSettings(generator="clip-prompts-sam", grids=(1, 2), mask_embeddings=False),
    "balanced": LabelSettings(),
    # Small things in large photographs: 84 crops, twice the points, and masks of everything on parts as well.
    "thorough": LabelSettings(
        grids=(1, 2, 3, 4),
        proposal_grids=(1, 2),
        peaks=6,
        sampling_budget=256,
        sampling_clusters=128,
        sampling_uncovered=64,
    ),
    # The paper's where it says how, with Segment Anything's own grid of points.
    "paper": LabelSettings(
        fusion="highest", point_sampling="grid", crop_weight=0, score_temperature=None, mask_embeddings=False
    ),
}


class LabelConfig(Run, Devices):
    """Stage 1: pseudo masks from photographs and class names."""

    COMMAND: ClassVar[str] = "label"
    SOURCE: ClassVar[Source] = PHOTOS
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        'patchword label photos/ --classes "cat, dog, sofa; couch" -o labels/',
        "patchword label photos/ --classes classes.txt -o labels/ --preset fast --dry-run",
    )
    FORMER: ClassVar[Mapping[str, str]] = {"mask_proposer": "mask_generator"}
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": LabelSettings}

    classes: Classes
    out: Out
    preset: Preset = "balanced"
    image_text: Annotated[TextModel | None, Option("CLIP: hub name, name@revision or folder.", "NAME")] = None
    mask_generator: Annotated[MaskModel | None, Option("SAM: hub name, name@revision or folder.", "NAME")] = None
    encoder: Annotated[
        VisionModel | None,
        Option(
            "Vision encoder that `align` will take; used here only with the setting point_sampling=encoder.", "NAME"
        ),
    ] = None
    background: Background = None
    generator: Annotated[Generator | None, Option("What makes masks; by default the preset's.")] = None
    settings: Annotated[LabelValues, Option("Numbers of stage 1; by default the preset's.")] = None
    overwrite_corrections: OverwriteCorrections = False
    retry_failed: RetryFailed = False
    forget_missing: Annotated[bool, Option("With --resume, drop the labels of photographs that are gone.")] = False

    def check(self) -> None:
        super().check()
        _ = self.numbers

    def numbers_of(self, part: str) -> LabelSettings:
        return self.numbers

    @cached_property
    def numbers(self) -> LabelSettings:
        """The preset's numbers with those that were given in their place."""
        return label_settings(self.settings, preset=self.preset, generator=self.generator)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The class list that was given."""
        return read_vocabulary(self.classes, background=self.background)


class LabelCommand(LabelConfig):
    """Stage 1: pseudo masks from photographs and class names."""

    preview: Annotated[
        int | None,
        Option("Label N photographs spread over the folder and write one page, OUT-preview.html.", "N", kept=False),
    ] = None
    dry_run: DryRun = False
    as_json: AsJson = False

    def check(self) -> None:
        super().check()
        if self.dry_run and self.preview is not None:
            raise PatchwordError("use either --dry-run or --preview, not both")


def label_settings(
    settings: LabelSettings | Mapping[str, Any] | None, *, preset: str = "balanced", generator: str | None = None
) -> LabelSettings:
    """The settings of a preset with those that a user gave in their place; all of them replace the preset's."""
    if not isinstance(settings, LabelSettings):
        find_preset(preset)
        settings = LABEL_PRESETS[preset].model_dump() | LabelSettings.current(settings or {})
    return LabelSettings(**dict(settings) | ({} if generator is None else {"generator": generator}))
