"""What segmenting costs beside one bare pass of the encoder, and beside ProxyCLIP's windows, in the same run.

    python benchmarks/segment_speed.py --scratch FOLDER [--encoders NAME ...] [--sizes N ...] [--classes N ...]
        [--rounds N] [--image HEIGHT WIDTH] [--without-proxyclip] [--json]

Encoders are full-size DINOv2 with random weights (see make_random_checkpoints.py), and so is the alignment module: what
they find is nonsense, how long they take is real. One image of random colours, decoded already, is segmented whole in
each round, after one bare pass of the encoder on the resized image, one thing after the other, so that what else the
machine does falls on all alike. Ratios are taken within a round; the medians of all rounds are told.

- bare: the encoder alone, on the image as it sees it;
- module: the alignment module alone, on what the encoder gave;
- N classes: everything after decoding, that is resizing, encoding, the module, cosines with N classes, bilinear
  upsampling (`refine=none`), classes, confidences;
- N classes, jbu: the same as it is by default, upsampled along the photograph's edges (`refine=jbu`);
- N classes, encoded: the same again on an image that `Segmenter.encode` has seen, and its part of "N classes, jbu";
- proxyclip: the same with ProxyCLIP's published windows of 336 pixels, 112 apart, shorter side 336, 171 classes; its
  CLIP is ViT-B/16 with random weights.

Processor time says more than the clock on a machine with other work. Text vectors are made before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from make_random_checkpoints import make_checkpoint
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

    from patchword.models.protocols import PatchEncoder
    from patchword.segmentation.segmenter import Segmenter

CLIP, TEXT_DIM, MOST_CLASSES = "clip-vit-base-patch16", 512, 171
PROXY = {"shorter_side": 336, "longest_side": 2048, "window": 336, "stride": 112, "join": "logits", "refine": "none"}


@dataclass(frozen=True)
class Cost:
    """One way, medians over rounds: seconds by the clock and of processor time, and their ratios to the bare pass."""

    way: str
    clock: float
    processor: float
    clock_ratio: float
    processor_ratio: float


@dataclass(frozen=True)
class Result:
    """One encoder at one size: (height, width) that it sees, and every way."""

    encoder: str
    size: int
    seen: tuple[int, int]
    costs: list[Cost]


class RandomText:
    """Stands for a text tower: random unit vectors, and a record that belongs to nothing."""

    def __init__(self) -> None:
        import torch

        from patchword.models.protocols import ModelRecord

        self.device = torch.device("cpu")
        self.record = ModelRecord("none", "random", None, "", 16, TEXT_DIM, (0.0,) * 3, (1.0,) * 3, 224, "none")

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        """Random unit vectors."""
        import torch

        random = torch.Generator().manual_seed(0)
        return torch.nn.functional.normalize(torch.randn(len(prompts), TEXT_DIM, generator=random), dim=1)


def random_segmenter(encoder: PatchEncoder) -> Segmenter:
    """A segmenter around an encoder, of the default shape, its module with random weights."""
    from patchword.alignment.artifact import ArtifactConfig, ModuleShape, Tower, TrainingFacts
    from patchword.alignment.state import StepRecord
    from patchword.config.align import AlignSettings
    from patchword.segmentation.segmenter import Segmenter

    settings, text = AlignSettings(), RandomText()
    shape = ModuleShape(
        kind=settings.module,
        dim=encoder.record.dim,
        text_dim=TEXT_DIM,
        head_size=settings.head_size,
        mlp_ratio=settings.mlp_ratio,
    )
    last = StepRecord(step=1, learning_rate=0, temperature=0.07, total=0, patch_patch=0, text_anchor=0, patch_anchor=0)
    config = ArtifactConfig(
        encoder=Tower.of(encoder.record),
        text_encoder=Tower.of(text.record),
        module=shape,
        image_size=settings.image_size,
        temperature=0.07,
        vocabulary="nothing\n",
        settings=settings,
        training=TrainingFacts(
            data_fingerprint="0" * 64,
            images=1,
            images_without_labels=0,
            images_skipped=0,
            labelled_share=1.0,
            classes_without_patches=(),
            steps=1,
            last=last,
        ),
    )
    return Segmenter(encoder=encoder, module=shape.build(), text=text, config=config)  # type: ignore[arg-type]


def ways_of(
    encoder: PatchEncoder, image: NDArray[np.uint8], *, size: int, classes: Sequence[int], clip: Path | None
) -> tuple[tuple[int, int], dict[str, Callable[[], object]]]:
    """The size that the encoder sees the image at, and what is timed by name, the bare pass first."""
    import torch

    from patchword.data.images import to_tensor
    from patchword.models.pixels import model_size, resize
    from patchword.segmentation.opening import load_method

    seen = model_size((image.shape[0], image.shape[1]), image_size=size, patch_size=encoder.record.patch_size)
    resized = resize(to_tensor(image), size=seen).to(encoder.device)
    segmenter = random_segmenter(encoder)
    with torch.no_grad():
        features = encoder(resized)

    def aligned() -> None:
        with torch.no_grad():
            segmenter.module(features)

    def segmented(count: int, refine: str, given: Any = image) -> Callable[[], object]:
        names = [f"class {number}" for number in range(count)]
        return lambda: segmenter.segment(given, classes=names, settings={"image_size": size, "refine": refine})

    ways: dict[str, Callable[[], object]] = {"bare": lambda: encoder(resized), "module": aligned}
    for refine, suffix in (("none", ""), ("jbu", ", jbu")):
        ways |= {f"{count} classes{suffix}": segmented(count, refine) for count in classes}
    encoded = segmenter.encode(image, settings={"image_size": size})
    for count in classes:
        ways[f"{count} classes, encoded"] = segmented(count, "jbu", encoded)
    if clip is not None:
        proxy = load_method("proxyclip", image_text=clip, encoder=encoder, device="cpu")
        names = [f"class {number}" for number in range(MOST_CLASSES)]
        ways["proxyclip"] = lambda: proxy.segment(image, classes=names, settings=PROXY)
    return seen, ways


def measure(ways: dict[str, Callable[[], object]], *, rounds: int) -> list[Cost]:
    """Time every way in turn, `rounds` times over, after one round that does not count."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter(), time.process_time()
            way()
            if turn:
                times[name].append((time.perf_counter() - started[0], time.process_time() - started[1]))
    costs = []
    for name, found in times.items():
        clock, processor = (statistics.median(column) for column in zip(*found, strict=True))
        ratios = (
            statistics.median(one[kind] / bare[kind] for one, bare in zip(found, times["bare"], strict=True))
            for kind in (0, 1)
        )
        costs.append(Cost(name, clock, processor, *ratios))
    return costs


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "all"),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers")},
    }


def main() -> None:
    """Measure and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, required=True, help="folder with models, made when they are not there")
    parser.add_argument("--encoders", nargs="+", default=["dinov2-small", "dinov2-base"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[448, 518], help="image_size of each run")
    parser.add_argument("--classes", type=int, nargs="+", default=[21, MOST_CLASSES])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--image", type=int, nargs=2, default=[480, 640], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--without-proxyclip", action="store_true")
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    os.environ["PATCHWORD_CACHE"] = ""  # nothing is left behind
    from patchword.models.loading import load_patch_encoder

    wanted = [*chosen.encoders, *([] if chosen.without_proxyclip else [CLIP])]
    for name in wanted:
        if not (chosen.scratch / name).exists():
            make_checkpoint(name, chosen.scratch / name, seed=0)
    image = np.random.default_rng(0).integers(0, 256, (*chosen.image, 3), dtype=np.uint8)
    clip = None if chosen.without_proxyclip else chosen.scratch / CLIP
    results = []
    for name in chosen.encoders:
        encoder = load_patch_encoder(str(chosen.scratch / name), device="cpu")
        for size in chosen.sizes:
            seen, ways = ways_of(encoder, image, size=size, classes=chosen.classes, clip=clip)
            results.append(Result(name, size, seen, measure(ways, rounds=chosen.rounds)))
            sys.stderr.write(f"{name} at {size}: done\n")
    record = {"machine": machine(), "image": chosen.image, "rounds": chosen.rounds}
    if chosen.json:
        print(json.dumps({**record, "results": [asdict(result) for result in results]}, indent=2))
        return
    print(", ".join(f"{name} {value}" for name, value in record["machine"].items()))
    print(f"image {chosen.image[1]} x {chosen.image[0]}, medians of {chosen.rounds} rounds; baseline: bare pass\n")
    columns = ("encoder", "size", "way", "clock s", "processor s", "clock ratio", "processor ratio")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for result in results:
        for cost in result.costs:
            print(
                f"| {result.encoder} | {result.size} | {cost.way} | {cost.clock:.3f} | {cost.processor:.3f} | "
                f"{cost.clock_ratio:.3f} | {cost.processor_ratio:.3f} |"
            )


if __name__ == "__main__":
    main()
