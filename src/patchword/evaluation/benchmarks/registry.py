"""The benchmarks by name."""

from __future__ import annotations

from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks import ade20k, cityscapes, coco, context, voc
from patchword.evaluation.benchmarks.record import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    each.name: each
    for each in (
        Benchmark("voc21", "PASCAL VOC 2012 with background", 1449, "voc", True, voc.LAYOUTS),
        Benchmark("context60", "PASCAL Context with background", 5105, "context", True, context.LAYOUTS),
        Benchmark("coco-object", "COCO-Object", 5000, "coco_object", True, coco.OBJECT_LAYOUTS, "background"),
        Benchmark("voc20", "PASCAL VOC 2012", 1449, "voc", False, voc.LAYOUTS),
        Benchmark("context59", "PASCAL Context", 5105, "context", False, context.LAYOUTS),
        Benchmark("coco-stuff", "COCO-Stuff 164k", 5000, "coco_stuff", False, coco.STUFF_LAYOUTS),
        Benchmark("cityscapes", "Cityscapes", 500, "cityscapes", False, cityscapes.LAYOUTS),
        Benchmark("ade20k", "ADE20K (SceneParse150)", 2000, "ade20k", False, ade20k.LAYOUTS),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; underscores and letter case do not count."""
    key = name.strip().casefold().replace("_", "-")
    if key not in BENCHMARKS:
        raise PatchwordError(f"benchmark {name!r} is unknown; allowed are {', '.join(BENCHMARKS)}")
    return BENCHMARKS[key]
