"""A standard benchmark: what it is called, what it scores, how it lies on disk, and what was found there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from patchword.config.evaluate import Unlabelled
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.datasets import ADE20K, CITYSCAPES, COCO_OBJECT, COCO_STUFF, CONTEXT, VOC
from patchword.evaluation.benchmarks.layout import UNLABELLED, BenchmarkTruth, Layout, find_layout
from patchword.evaluation.benchmarks.lists import Words, class_list
from patchword.evaluation.masks import Pair


@dataclass(frozen=True)
class OpenBenchmark:
    """A benchmark that was found on disk; `split` says how it was decided which photographs belong to it."""

    benchmark: Benchmark
    root: Path
    layout: str
    split: str
    pairs: tuple[Pair, ...]
    truth: BenchmarkTruth

    def asked_for(self, vocabulary: Vocabulary) -> OpenBenchmark:
        """The same with other templates, background words or words for its classes, which keep their order."""
        return replace(self, truth=replace(self.truth, vocabulary=vocabulary))

    def with_unlabelled(self, unlabelled: Unlabelled | None) -> OpenBenchmark:
        """The same where unlabelled pixels are background or ignored; None for what they are in published numbers."""
        if unlabelled is None:
            return self
        if unlabelled == "ignored" and UNLABELLED not in self.truth.meaning.values():
            raise PatchwordError(
                f"unlabelled is 'ignored', but the masks in {self.root} ({self.layout}) have made background of "
                "unlabelled pixels; leave it out, or use COCO-Stuff's pixel maps"
            )
        return replace(self, truth=replace(self.truth, unlabelled_is_background=unlabelled == "background"))


@dataclass(frozen=True)
class Benchmark:
    """A data set, its class list and its rule for background.

    Attributes:
        images: photographs in the official validation split.
        scores_background: whether background is a class of its own, the first; else its pixels do not count.
        layouts: how it may lie on disk, the form that published numbers come from first.
        unlabelled: what pixels that nobody labelled (255) are in the published numbers.
    """

    name: str
    title: str
    images: int
    classes: str
    scores_background: bool
    layouts: tuple[Layout, ...]
    unlabelled: Unlabelled = "ignored"

    @property
    def class_count(self) -> int:
        return len(class_list(self.classes)) + self.scores_background

    def vocabulary(
        self, *, templates: tuple[str, ...] | None = None, background: bool = True, words: Words = "proxyclip"
    ) -> Vocabulary:
        """The class list that a model is asked for; templates of None are the usual seven.

        Background without words can only come from a threshold.
        """
        vocabulary = class_list(self.classes, words=words)
        if not (self.scores_background and background):
            vocabulary = replace(vocabulary, background=(), shared=())
        return vocabulary if templates is None else replace(vocabulary, templates=templates)

    def check_unlabelled(self, unlabelled: Unlabelled | None) -> None:
        """Refuse a rule for unlabelled pixels that this benchmark gives no choice of."""
        if unlabelled is not None and self.unlabelled == "ignored":
            raise PatchwordError(
                f"unlabelled is given for {self.name}, where unlabelled pixels never count; only coco-object has the "
                "choice"
            )

    def open(self, data: str | Path) -> OpenBenchmark:
        """Find the benchmark in its folder, in one above it, or in one of its own folders."""
        hit = find_layout(self.name, self.layouts, Path(data))
        content = hit.layout.read(hit.found)
        truth = BenchmarkTruth(
            self.vocabulary(),
            zero_is="background" if self.scores_background else "class",
            values=content.values,
            meaning=content.meaning,
            unlabelled_is_background=self.unlabelled == "background",
        )
        return OpenBenchmark(self, hit.root, hit.layout.name, content.split, content.pairs, truth)


BENCHMARKS: dict[str, Benchmark] = {
    each.name: each
    for each in (
        Benchmark("voc21", "PASCAL VOC 2012 with background", 1449, "voc", True, VOC),
        Benchmark("context60", "PASCAL Context with background", 5105, "context", True, CONTEXT),
        Benchmark("coco-object", "COCO-Object", 5000, "coco_object", True, COCO_OBJECT, "background"),
        Benchmark("voc20", "PASCAL VOC 2012", 1449, "voc", False, VOC),
        Benchmark("context59", "PASCAL Context", 5105, "context", False, CONTEXT),
        Benchmark("coco-stuff", "COCO-Stuff 164k", 5000, "coco_stuff", False, COCO_STUFF),
        Benchmark("cityscapes", "Cityscapes", 500, "cityscapes", False, CITYSCAPES),
        Benchmark("ade20k", "ADE20K (SceneParse150)", 2000, "ade20k", False, ADE20K),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; underscores and letter case do not count."""
    key = name.strip().casefold().replace("_", "-")
    if key not in BENCHMARKS:
        raise PatchwordError(f"unknown benchmark {name!r} (choose from {', '.join(BENCHMARKS)})")
    return BENCHMARKS[key]
