"""The benchmarks' class lists and the eighty prompt templates, as they lie in the package."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from patchword.vocabulary import DEFAULT_TEMPLATES, Vocabulary

_FOLDER = Path(__file__).with_name("classes")


@cache
def class_list(name: str) -> Vocabulary:
    """The class list of a benchmark, with its background words where it has some.

    Args:
        name: "voc", "context", "coco_object", "coco_stuff", "ade20k" or "cityscapes".

    Source: the lists published with SCLIP (arXiv 2312.01597), ProxyCLIP (2408.04883) and NACLIP (2404.08181).
    """
    return Vocabulary.of(_FOLDER / f"{name}.txt")


def templates(count: int) -> tuple[str, ...]:
    """The 80 prompt templates of CLIP's ImageNet evaluation, or the 7 of them that do nearly as well.

    Args:
        count: 7 or 80.

    Source: Radford et al., 2021, notebook "Prompt Engineering for ImageNet".
    """
    return DEFAULT_TEMPLATES if count == len(DEFAULT_TEMPLATES) else _eighty()


@cache
def _eighty() -> tuple[str, ...]:
    return tuple((_FOLDER / "templates_80.txt").read_text(encoding="utf-8").splitlines())
