"""What an ONNX file says of itself: one JSON text in its metadata, under the key "patchword"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patchword.alignment.artifact import ArtifactConfig, ModuleShape, Tower
from patchword.config.base import one_line
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError

KEY = "patchword"
FORMAT: Literal["patchword-onnx"] = "patchword-onnx"
VERSION: Literal[1] = 1
IMAGES, VECTORS, CLASS_OF, SIZE = "images", "vectors", "class_of", "size"
CLASSES, CONFIDENCE, SCORES, PATCHES = "classes", "confidence", "scores", "patches"
INPUTS, OUTPUTS = (IMAGES, VECTORS, CLASS_OF, SIZE), (CLASSES, CONFIDENCE, SCORES, PATCHES)


@dataclass(frozen=True)
class Agreement:
    """How much of a float32 file an int8 file keeps, on drawn pictures.

    Attributes:
        share: of patches that keep their class, in [0, 1].
        cosine: least cosine of a patch vector with the float32 file's.
    """

    share: float
    cosine: float


class OnnxFacts(BaseModel):
    """Everything that whoever runs the file may want to know.

    Attributes:
        opset: operator set of the file.
        precision: of its matrix products.
        encoder, text_encoder: the frozen models, with fingerprints and licences; the text encoder is not in the file.
        module: shape of the alignment module.
        patch_size: sides of images are multiples of it, in pixels.
        image_size: images are seen with as many pixels as a square of that side, in pixels.
        temperature: of the softmax that the confidence is taken from.
        vocabulary: of the training, in the text format; any other will do.
        vocabulary_hash: its hash.
        data_fingerprint: of what the module learned from.
        largest_difference: from torch, of any channel of a unit patch vector, as found when the file was made; of the
            float32 model also where the file is int8.
        int8_agreement: share of patches of drawn pictures that keep the float32 file's class; None in float32 files,
            and in int8 files of earlier versions.
        int8_cosine: least cosine of a patch vector of those pictures with the float32 file's; None likewise.
        versions: of the software that made the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["patchword-onnx"] = FORMAT
    version: Literal[1] = VERSION
    opset: int
    precision: Literal["float32", "int8"]
    encoder: Tower
    text_encoder: Tower
    module: ModuleShape
    patch_size: int = Field(ge=1)
    image_size: int = Field(ge=1)
    temperature: float = Field(gt=0)
    vocabulary: str
    vocabulary_hash: str
    data_fingerprint: str
    largest_difference: float
    int8_agreement: float | None = None
    int8_cosine: float | None = None
    versions: dict[str, str]

    @classmethod
    def of(
        cls,
        config: ArtifactConfig,
        *,
        opset: int,
        int8: Agreement | None,
        largest_difference: float,
        versions: dict[str, str],
    ) -> OnnxFacts:
        """The facts of a segmenter's export."""
        return cls(
            opset=opset,
            precision="float32" if int8 is None else "int8",
            encoder=config.encoder,
            text_encoder=config.text_encoder,
            module=config.module,
            patch_size=config.encoder.patch_size,
            image_size=config.image_size,
            temperature=config.temperature,
            vocabulary=config.vocabulary,
            vocabulary_hash=config.vocabulary_hash or config.parsed_vocabulary().hash,
            data_fingerprint=config.training.data_fingerprint,
            largest_difference=largest_difference,
            int8_agreement=None if int8 is None else int8.share,
            int8_cosine=None if int8 is None else int8.cosine,
            versions=versions,
        )

    def parsed_vocabulary(self) -> Vocabulary:
        """The training's vocabulary."""
        return Vocabulary.recorded(self.vocabulary, source="the model's metadata")


def parse_facts(metadata: Mapping[str, str], *, place: str) -> OnnxFacts:
    """Read the facts from an ONNX file's metadata.

    Args:
        metadata: its keys and values.
        place: of the file, for the message.
    """
    if KEY not in metadata:
        raise PatchwordError(
            f'{place} is not a patchword segmenter (it has no metadata "{KEY}"); give a file that '
            "`patchword export MODEL --format onnx` writes"
        )
    try:
        facts = OnnxFacts.model_validate_json(metadata[KEY])
    except ValidationError as error:
        raise PatchwordError(
            f"{place}: its metadata {KEY!r} cannot be read: {one_line(error, place='field')}"
        ) from None
    facts.parsed_vocabulary()
    return facts
