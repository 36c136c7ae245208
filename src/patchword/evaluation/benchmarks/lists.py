"""The benchmarks' class lists and the eighty prompt templates, as they lie in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES

Words = Literal["proxyclip", "sclip", "clearclip", "naclip"]

_FOLDER = Path(__file__).with_name("classes")
_OWN = {  # lists that differ from ProxyCLIP's; NACLIP's are SCLIP's, word for word
    ("voc", "sclip"): "voc_sclip",
    ("voc", "naclip"): "voc_sclip",
    ("voc", "clearclip"): "voc_clearclip",
    ("coco_object", "sclip"): "coco_object_sclip",
    ("coco_object", "naclip"): "coco_object_sclip",
    ("coco_object", "clearclip"): "coco_object_clearclip",
}


@cache
def class_list(name: str, *, words: Words = "proxyclip") -> Vocabulary:
    """The class list of a benchmark, with its background words where it has some.

    The authors differ in VOC and COCO-Object, by synonyms and background words. The classes and their order are the
    same in all.

    Source: the lists published with SCLIP (arXiv 2312.01597), ClearCLIP (2407.12442), NACLIP (2404.08181) and ProxyCLIP
    (2408.04883).
    """
    return Vocabulary.of(_FOLDER / f"{_OWN.get((name, words), name)}.txt")


def templates(count: int) -> tuple[str, ...]:
    """The 80 prompt templates of CLIP's ImageNet evaluation, or the 7 of them that do nearly as well.

    Source: Radford et al., 2021, notebook "Prompt Engineering for ImageNet".
    """
    return DEFAULT_TEMPLATES if count == len(DEFAULT_TEMPLATES) else _eighty()


@cache
def _eighty() -> tuple[str, ...]:
    return tuple((_FOLDER / "templates_80.txt").read_text(encoding="utf-8").splitlines())
