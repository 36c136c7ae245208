"""What `export` and `import` take, and every choice of them that a person may want to change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from patchword.config.base import Config, Option, Settings, Source
from patchword.config.shared import (
    LABELS,
    AsJson,
    Classes,
    ClassesValue,
    CommandLine,
    Out,
    Overwrite,
    OverwriteCorrections,
    Photos,
    Quiet,
    Reviews,
    TextModel,
    VisionModel,
)
from patchword.errors import PatchwordError

if TYPE_CHECKING:
    ExportValues: TypeAlias = "ExportSettings | Mapping[str, Any] | None"
    ImportValues: TypeAlias = "ImportSettings | Mapping[str, Any] | None"
else:
    ExportValues = ImportValues = Any

LabelFormat = Literal[
    "coco", "coco-panoptic", "voc", "yolo-seg", "cvat", "label-studio", "fiftyone", "cityscapes", "webdataset", "hf"
]
ImportFormat = Literal["coco", "voc", "label-studio"]
ONNX: Literal["onnx"] = "onnx"
TEXT_EMBEDDINGS: Literal["text-embeddings"] = "text-embeddings"


class ExportSettings(Settings):
    """Settings of an export; a format takes the ones that it has a place for."""

    shapes: Literal["masks", "polygons"] = Field(
        "masks",
        description="How coco and label-studio hold an object: run lengths, exact, or the outline as a polygon",
    )
    tolerance: float = Field(
        0.0,
        ge=0,
        le=100,
        description="How far in pixels a polygon may stray from the outline to save corners, 0 to 100; 0 = exact",
    )
    own_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A segment is an object of its own when at least this share of it is in no better segment of its "
        "class, 0 to 1; higher = fewer objects",
    )
    least_share: float = Field(
        0.0005,
        ge=0,
        le=1,
        description="Least area of an object as a share of the photograph, 0 to 1; a smaller piece joins the object of "
        "its class that it touches, or is no object; higher = fewer objects; 0 = every piece is one",
    )
    least_pixels: int = Field(
        16,
        ge=0,
        description="Least area of an object in pixels, 0 or more; the larger of the two least areas holds",
    )
    photographs: Literal["leave", "copy", "link"] | None = Field(
        None,
        description="Whether photographs stay where they are, are copied, or are linked into the folder; none = what "
        "the format needs: copy for hf and webdataset, else leave",
    )
    split: str = Field(
        "train",
        pattern=r"^[A-Za-z0-9_-]+$",
        description="Name of the list or folder that the photographs go to: letters, digits, - and _",
    )
    shard_images: int = Field(
        1000, ge=1, description="Of webdataset: photographs that a tar file holds at most, 1 or more"
    )
    shard_megabytes: float = Field(
        1000,
        gt=0,
        description="Of webdataset: size of a tar file at most, in megabytes, above 0; one photograph may be larger",
    )
    image_prefix: str = Field(
        "/data/local-files/?d=",
        description="What stands before a photograph's name in label-studio's tasks, such as the address of a server",
    )

    def least_area(self, size: tuple[int, int]) -> float:
        """Least area in pixels of an object in a photograph of this (height, width)."""
        return max(self.least_pixels, self.least_share * size[0] * size[1])


class ImportSettings(Settings):
    """Settings of an import; each is for one format."""

    image_field: str | None = Field(
        None,
        description="Of label-studio: the field of a task that names the photograph; none = `name` or `image`, else "
        "the only one whose value is the path of a photograph",
    )
    values: Literal["labelmap", "positions"] = Field(
        "labelmap",
        description="Of voc: what the masks' values are: what labelmap.txt says, or, where there is none, 0 = no class "
        "and v = the v-th class of the list",
    )


class OnnxSettings(Settings):
    """How a segmenter becomes an ONNX file. Every default is [chosen]."""

    opset: int = Field(
        20,
        ge=18,
        le=23,
        description="Operator set, 18 to 23. Older ones are read by older runtimes; 18 is the first with all operators "
        "that are needed.",
    )
    int8: bool = Field(
        False,
        description="Whether the weights of matrix products are kept as 8-bit integers and activations rounded to such "
        "while running: a quarter of the size, often faster, a little less exact.",
    )
    tolerance: float = Field(
        1e-4,
        gt=0,
        description="Above 0: largest difference of a patch vector's channel from torch's that a file may have, in "
        "units of the vector's length. A file with a larger one is not written.",
    )
    int8_agreement: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Least share of patches, 0 to 1, that an int8 file must give the class that the float32 file gives "
        "them, on drawn pictures. A file that agrees less is not written; 0 writes every file.",
    )
    values_at_once: int = Field(
        2**22,
        ge=1,
        description="Class scores of pixels in memory at once inside the model, 1 and more (at least a row's are): "
        "fewer need less memory, with the same result.",
    )


class ExportConfig(Config):
    """Labels in the format of another tool."""

    COMMAND: ClassVar[str] = "export"
    SOURCE: ClassVar[Source] = LABELS
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword export labels/ --format coco -o labels.json",
        "patchword export model/ --format onnx -o model.onnx",
    )
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": ExportSettings}

    format: Annotated[LabelFormat, Option("Format of the other tool.")]
    out: Annotated[str | Path, Option("Folder, or the file that the format is.", "PATH", short="-o")]
    photos: Photos = None
    reviews: Reviews = True
    settings: Annotated[ExportValues, Option("Choices of the format.")] = None
    overwrite: Annotated[bool, Option("Replace what an earlier export left there.")] = False
    quiet: Quiet = False

    def check(self) -> None:
        _ = self.numbers_of("settings")


class ExportCommand(ExportConfig):
    """Labels in the format of another tool, or a segmenter as a file that needs no torch."""

    SOURCE: ClassVar[Source] = Source(
        "labels", "FOLDER", "Labels that `patchword label` made, or a segmenter of `align`."
    )

    format: Annotated[  # type: ignore[assignment]
        Literal[LabelFormat, "onnx", "text-embeddings"],
        BeforeValidator(lambda value: TEXT_EMBEDDINGS if value == "text-vectors" else value),
        Option("Format: of a segmenter onnx or text-embeddings, of labels the others."),
    ]
    opset: Annotated[
        int | None, Field(ge=18, le=23), Option("Of onnx: operator set, 18 to 23; by default 20.", "N")
    ] = None
    int8: Annotated[bool, Option("Of onnx: 8-bit weights, which are smaller and a little less exact.")] = False
    classes: Annotated[
        ClassesValue | None,
        Option("Of text-embeddings: class names or a class list file; by default those of the training.", "CLASSES"),
    ] = None
    encoder: Annotated[VisionModel | None, Option("Of onnx: where the vision encoder is now.", "NAME")] = None
    text_encoder: Annotated[TextModel | None, Option("Of text-embeddings: where the text encoder is now.", "NAME")] = (
        None
    )
    as_json: AsJson = False

    def check(self) -> None:
        of_formats: dict[str, tuple[str, ...]] = {
            ONNX: ("--opset", "--int8", "--encoder", "--set"),
            TEXT_EMBEDDINGS: ("--classes", "--text-encoder"),
        }
        allowed = of_formats.get(self.format, ("--photos", "--set", "--no-reviews"))
        given = {
            "--photos": self.photos,
            "--no-reviews": not self.reviews,
            "--opset": self.opset,
            "--int8": self.int8,
            "--classes": self.classes,
            "--encoder": self.encoder,
            "--text-encoder": self.text_encoder,
            "--set": self.settings,
        }
        wrong = next((flag for flag, value in given.items() if value and flag not in allowed), None)
        if wrong:
            raise PatchwordError(f"{wrong} is not for the format {self.format} (choose from {', '.join(allowed)})")
        super().check()

    def numbers_of(self, part: str) -> Settings:
        kinds: dict[str, type[Settings]] = {ONNX: OnnxSettings, TEXT_EMBEDDINGS: Settings}
        return kinds.get(self.format, ExportSettings).of(self.settings)


def _importable(value: object) -> object:
    if isinstance(value, str) and value.casefold() == "cvat":
        raise ValueError(
            "format 'cvat' cannot be imported; CVAT's export 'Segmentation mask 1.1' is read by voc, its 'COCO 1.0' "
            "by coco"
        )
    return value


class ImportConfig(Config):
    """Labels that a person corrected in another tool, for `align`.

    Exit code 1 when something could not be used and was left out.
    """

    COMMAND: ClassVar[str] = "import"
    SOURCE: ClassVar[Source] = Source("source", "SOURCE", "File or folder of the other tool; of voc also a .zip.")
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "patchword import labels.json --format coco --photos photos/ --classes classes.txt -o corrected/",
    )
    FORMER: ClassVar[Mapping[str, str]] = {"vocabulary": "classes"}
    PARTS: ClassVar[Mapping[str, type[Settings]]] = {"settings": ImportSettings}

    format: Annotated[
        ImportFormat, BeforeValidator(_importable), Option("Format of the files; what CVAT exports is voc or coco.")
    ]
    photos: Annotated[str | Path, Option("Folder of the photographs.", "FOLDER")]
    classes: Classes
    out: Out
    settings: Annotated[ImportValues, Option("Choices of the format.")] = None
    overwrite: Overwrite = False
    overwrite_corrections: OverwriteCorrections = False
    quiet: Quiet = False
    command: CommandLine = ""

    def check(self) -> None:
        numbers = self.numbers_of("settings")
        for name, owner in (("image_field", "label-studio"), ("values", "voc")):
            if owner != self.format and getattr(numbers, name) != ImportSettings.model_fields[name].default:
                raise PatchwordError(f"setting {name!r} is for the format {owner}, not for {self.format}")


class ImportCommand(ImportConfig):
    """Labels that a person corrected in another tool, for `align`.

    Exit code 1 when something could not be used and was left out.
    """

    as_json: AsJson = False
