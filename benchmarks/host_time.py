"""What label and segment cost on the host, outside forward passes, for one photograph of 12 megapixels, stage by stage.

    python benchmarks/host_time.py [--image HEIGHT WIDTH] [--runs N] [--classes N ...] [--set name=value ...]
        [--image-text NAME] [--mask-generator NAME] [--encoder NAME] [--json]

The photograph is a scene of Toytown, enlarged, with some noise, as a JPEG file. It goes through what a run does with
each photograph: read, process, write. Models are the miniatures; time in which a torch module is in its forward pass
does not count. Processor time of the thread is counted, so that other work on the machine changes the numbers little;
run it with `OMP_NUM_THREADS=1`. Medians of the runs, after one that does not count. "models' thread" is what the thread
that feeds the models spends; reading and writing are done in threads beside it.

"beside a device" is what would be left on the host beside a GPU: the same with models on the fake device of the tests,
without the time of every call that computes on it or copies to or from it. "operations" are these calls, outside of
forward passes; what they cost on the host, some 10 us each where it does not wait, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from segment_speed import machine, random_segmenter
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from patchword.cli.terminal import parse_settings
from patchword.config.label import LabelSettings
from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.vocabulary import Vocabulary
from patchword.labeling.image import LabelParts
from patchword.labeling.run import LabelWork
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.runs.pipeline import Chunk, Work, read_photograph
from patchword.segmentation.work import SegmentWork
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.world import draw_scene

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fake_device import fake_device, is_there

FORWARD, DEVICE, REST, OPERATIONS = "(forward passes)", "(device)", "everything else", "(operations)"
KIND = "cuda"
# What counts for a stage, by the module that calls it; an inner stage is not counted for the outer one.
LABEL = {
    "hash of the file": ["runs.pipeline:content_of"],
    "decoding": ["labeling.run:read_image"],
    "to tensor": ["labeling.run:upload", "labeling.run:to_floats"],
    "crops of CLIP": ["labeling.clip_crops:take_crops"],
    "resizing for SAM": ["models.sam:resize"],
    "filters of masks": ["labeling.mask_generator:_measure"],
    "masks to pixels": ["models.mask_pixels:enlarged_mask"],
    "runs of masks": ["data.run_lengths:Runs.within", "data.run_lengths:Runs.between"],
    "run lengths": ["data.run_lengths:Runs.run_lengths"],
    "points": ["labeling.mask_generator:sample_points"],
    "masks decoded": ["data.run_lengths:Runs.part"],
    "crops of masks": ["labeling.generators:masked_crop", "labeling.generators:plain_crop"],
    "cells of masks": ["labeling.generators:run_shares", "labeling.generators:cell_shares"],
    "fusion": ["labeling.run:fuse_masks"],
    "files": ["labeling.run:write_result"],
    "quality": ["labeling.run:assess"],
}
SEGMENT = {
    "hash of the file": ["runs.pipeline:content_of"],
    "decoding": ["segmentation.work:read_image"],
    "resizing": ["segmentation.dense:resize_photograph"],
    "upsampling, classes": ["segmentation.dense:assign_pixels"],
    "upsampling, its set-up": ["segmentation.dense:JbuScores"],
    "thresholds": ["segmentation.dense:apply_thresholds"],
    "overlay": ["segmentation.result:overlay"],
    "overlay as JPEG": ["segmentation.result:encoded"],
    "mask as PNG": ["data.masks:LabelMap.png"],
    "files": ["segmentation.result:write_files"],
}


class Stages:
    """Processor time of this thread by stage, each without the stages within it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open = [REST]
        self._since = time.thread_time()

    def enter(self, name: str) -> None:
        """Count for a stage from here on."""
        self._count()
        self._open.append(name)

    def leave(self) -> None:
        """Count for the stage around it again."""
        self._count()
        self._open.pop()

    @property
    def stage(self) -> str:
        """What counts now."""
        return self._open[-1]

    def _count(self) -> None:
        now = time.thread_time()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def wrapped(self, work: Callable[..., Any], name: str) -> Callable[..., Any]:
        """A function that counts for a stage."""

        def counted(*arguments: Any, **options: Any) -> Any:
            self.enter(name)
            try:
                return work(*arguments, **options)
            finally:
                self.leave()

        return counted

    @contextmanager
    def counting(self, places: dict[str, list[str]]) -> Iterator[None]:
        """While it lasts, functions count for their stages, and modules for forward passes."""
        with ExitStack() as stack:
            for name, functions in places.items():
                for place in functions:
                    module, _, path = place.partition(":")
                    owner: Any = import_module(f"patchword.{module}")
                    *outer, last = path.split(".")
                    for part in outer:
                        owner = getattr(owner, part)
                    stack.enter_context(patch.object(owner, last, self.wrapped(getattr(owner, last), name)))
            before = register_module_forward_pre_hook(lambda *_: self.enter(FORWARD))
            after = register_module_forward_hook(lambda *_: self.leave(), always_call=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
            yield
            self._count()


class Outer(TorchFunctionMode):
    """Sees what is asked of torch first: from there on time counts for the device, unless `Inner` says otherwise."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self.stages, self.around, self.there = stages, REST, False
        self._kept: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.around = self.stages.stage
        self.stages.enter(DEVICE)
        try:
            self.there = any(map(_is_of_device, tree_leaves((args, kwargs))))
            result = func(*args, **kwargs or {})
            made = {id(each): each for each in tree_leaves(result) if is_there(each)}
            if self.around != FORWARD and "__get__" not in str(func):
                self.stages.seconds[OPERATIONS] += bool(made)
            # What nobody else holds is let go of here, since that takes long on the host, and so counts for the device.
            self._kept = {key: each for key, each in self._kept.items() if sys.getrefcount(each) > 3} | made
            del made
            return result
        finally:
            self.stages.leave()


class Inner(TorchFunctionMode):
    """Sees it last, without what the fake device adds: what is not for the device counts for the stage again."""

    outer: Outer | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.outer is None or self.outer.there:
            return func(*args, **kwargs or {})
        self.outer.stages.enter(self.outer.around)
        try:
            return func(*args, **kwargs or {})
        finally:
            self.outer.stages.leave()


def _is_of_device(leaf: object) -> bool:
    return is_there(leaf) or (isinstance(leaf, str | torch.device) and str(leaf).startswith(KIND))


@contextmanager
def on_device(stages: Stages) -> Iterator[None]:
    """The fake device, whose time is taken apart."""
    with Inner() as inner, fake_device(KIND), Outer(stages) as outer:
        inner.outer = outer
        try:
            yield
        finally:
            inner.outer = None


def photograph(folder: Path, size: Sequence[int]) -> Path:
    """A scene as a JPEG file of (height, width) pixels."""
    height, width = size
    enlarged = Image.fromarray(draw_scene(7, size=192, style="day").image).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = np.random.default_rng(0).integers(-6, 7, (height, width, 1), dtype=np.int16)
    pixels = (np.asarray(enlarged).astype(np.int16) + noise).clip(0, 255).astype(np.uint8)
    path = folder / "photograph.jpg"
    Image.fromarray(pixels).save(path, quality=92)
    return path


def measure(
    work: Work[Any], path: Path, *, places: dict[str, list[str]], runs: int, there: bool = False
) -> dict[str, float]:
    """Milliseconds by stage, and by read, process and write; medians. `there` says whether models are on the device."""
    found: dict[str, list[float]] = defaultdict(list)
    for turn in range(runs + 1):
        stages, ends = Stages(), []
        with on_device(stages) if there else nullcontext(), stages.counting(places):
            photographs = [read_photograph(path.name, path, read=work.read)]
            ends.append(_host(stages))
            chunk = Chunk(((path.name, path),), lines=1)
            made = list(work.process(photographs, chunk=chunk))
            ends.append(_host(stages))
            for one in made:
                work.write(one)
            ends.append(_host(stages))
        if turn:
            for name in (*places, REST, FORWARD):
                found[name].append(stages.seconds[name])
            found[OPERATIONS].append(stages.seconds[OPERATIONS] / 1000)  # a number, which stays itself below
            parts = zip(("reading", "models' thread", "writing"), np.diff([0.0, *ends]).tolist(), strict=True)
            for name, seconds in parts:
                found[name].append(seconds)
            found["all of the host"].append(ends[-1])
    return {name: 1000 * statistics.median(values) for name, values in found.items()}


def _host(stages: Stages) -> float:
    stages._count()
    return sum(seconds for name, seconds in stages.seconds.items() if name not in (FORWARD, DEVICE, OPERATIONS))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=int, nargs=2, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--classes", type=int, nargs="*", default=[21], help="of segment; none to leave it out")
    parser.add_argument("--set", action="append", default=[], help="a setting of the labelling, name=value")
    parser.add_argument("--image-text", default=str(miniatures.CLIP), help="hub name or folder")
    parser.add_argument("--mask-generator", default=str(miniatures.SAM), help="hub name or folder")
    parser.add_argument("--encoder", default=str(miniatures.DINO), help="hub name or folder")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    os.environ["PATCHWORD_CACHE"] = ""  # nothing is left behind
    torch.set_num_threads(1)
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        path, out = photograph(Path(scratch), chosen.image), Path(scratch) / "out"
        for device in ("cpu", KIND):
            with nullcontext() if device == "cpu" else fake_device(KIND):
                parts = LabelParts.of(
                    load_image_text(chosen.image_text, device=device, dtype="float32"),
                    mask_generator=load_mask_generator(chosen.mask_generator, device=device, dtype="float32"),
                    vocabulary=Vocabulary.of(list(SEEN)),
                )
            label = LabelWork(out, parts, LabelSettings(**parse_settings(chosen.set)))
            name = "label" if device == "cpu" else "label, beside a device"
            results[name] = measure(label, path, places=LABEL, runs=chosen.runs, there=device == KIND)
        segmenter = random_segmenter(load_patch_encoder(chosen.encoder, device="cpu"))
        for count in chosen.classes:
            vocabulary = Vocabulary.of([f"class {number}" for number in range(count)])
            work = SegmentWork(out, segmenter, vocabulary, SegmentSettings(), FolderSettings())
            results[f"segment, {count} classes"] = measure(work, path, places=SEGMENT, runs=chosen.runs)
    record = {"machine": machine(), "image": chosen.image, "runs": chosen.runs, "milliseconds": results}
    if chosen.json:
        print(json.dumps(record, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in record["machine"].items()))
    for name, stages in results.items():
        print(f"\n| {name} | ms |\n|---|---|")
        for stage, milliseconds in stages.items():
            print(f"| {stage} | {milliseconds:.1f} |")


if __name__ == "__main__":
    main()
