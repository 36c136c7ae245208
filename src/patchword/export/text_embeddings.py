"""`patchword export MODEL --format text-embeddings`: the embeddings of a class list, in place of a text tower."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from patchword.alignment.artifact import read_artifact
from patchword.data.folders import write_bytes
from patchword.export.files import check_file_target
from patchword.export.publish import find_artifact
from patchword.models.loading import load_image_text
from patchword.models.protocols import ImageTextEncoder
from patchword.models.text_embeddings import BACKGROUND, SUFFIX, TextVectorFacts, pack_text_vectors
from patchword.segmentation.segmenter import load_tower
from patchword.segmentation.words import Classes, WordEncoder
from patchword.versions import versions


@dataclass(frozen=True)
class TextEmbeddingSummary:
    """What was written: the file, its classes' names and how many words they have."""

    path: Path
    names: tuple[str, ...]
    words: int


def export_text_embeddings(
    model: str | Path,
    *,
    out: str | Path,
    classes: Classes | None = None,
    text_encoder: str | Path | ImageTextEncoder | None = None,
    overwrite: bool = False,
) -> TextEmbeddingSummary:
    """Write the text embeddings of a class list for a segmenter; docs/deploy.md describes the file.

    Args:
        model: folder of a segmenter that `align` made, or its hub name.
        out: a path that ends in .npz.
        classes: names, a class list file or a `Vocabulary`; None for those of the training. Lists that state no
            templates use those of the training, as in `segment`.
        text_encoder: the image-text model, loaded, or where it is now; None looks where it was in training.
        overwrite: whether a file of that name may be replaced.
    """
    out = Path(out)
    check_file_target(out, suffix=SUFFIX, overwrite=overwrite)
    config = read_artifact(find_artifact(model)).config
    text = load_tower(
        text_encoder,
        config.text_encoder,
        load_image_text,
        option="text_encoder",
        place=model,
        device="cpu",
        dtype="float32",
    )
    config.text_encoder.check(text.record, role="text encoder", place=str(model))
    trained = config.parsed_vocabulary()
    encode = WordEncoder(text, templates=trained.templates)
    vocabulary = encode.vocabulary_of(trained if classes is None else classes)
    words = encode(vocabulary)
    class_of = words.vectors.classes.cpu().numpy().astype(np.int64)
    class_of[class_of == BACKGROUND] = len(vocabulary)
    facts = TextVectorFacts(
        text_encoder=text.record, vocabulary=vocabulary.to_text(), vocabulary_hash=vocabulary.hash, versions=versions()
    )
    data = pack_text_vectors(
        words.vectors.words.cpu().float().numpy(),
        class_of=class_of,
        names=words.names,
        facts=facts,
        vocabulary=vocabulary,
    )
    write_bytes(out, data)
    return TextEmbeddingSummary(out, words.names, len(class_of))
