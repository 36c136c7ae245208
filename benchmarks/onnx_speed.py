"""A segmenter as an ONNX file against torch, on the CPU: time of an image, and size of the file.

    python benchmarks/onnx_speed.py [--sizes small base] [--sides 448 518] [--classes N] [--runs N] [--threads N]
                                    [--json]

DINOv2 encoders of full size with random weights (time depends on their shape alone) and a module of one block. Timed
is the way from an image of the size that the model sees to a class and a confidence for each of its pixels: encoder,
module, cosines with the classes' vectors, bilinear upsampling, the best class. torch and onnxruntime, float32 and int8,
take turns on the same image; a first turn is not counted. Medians; ratios above 1 mean that onnxruntime is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from patchword.versions import versions

CHANNELS = {"small": 384, "base": 768, "large": 1024}
HEADS = {"small": 6, "base": 12, "large": 16}
LAYERS = {"small": 12, "base": 12, "large": 24}
TEXT_DIM, TEMPERATURE = 512, 0.07


@dataclass(frozen=True)
class Measured:
    """One way of running one model at one size.

    Attributes:
        size: of the model.
        side: of the square image in pixels.
        way: "torch", "onnxruntime" or "onnxruntime int8".
        seconds, processor: of an image, by the clock and in processor time of all threads, medians.
        faster: torch's processor time over this one's.
        megabytes: of the file; None for torch.
        differs: share of pixels with another class than torch says.
    """

    size: str
    side: int
    way: str
    seconds: float
    processor: float
    faster: float
    megabytes: float | None
    differs: float


def make_model(folder: Path, *, size: str) -> tuple[Path, Any]:
    """A segmenter's folder around a DINOv2 of random weights, and its encoder, loaded."""
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from patchword.alignment.artifact import Artifact, ArtifactConfig, ModuleShape, Tower, TrainingFacts, write_artifact
    from patchword.alignment.state import StepRecord
    from patchword.config.align import AlignSettings
    from patchword.data.vocabulary import Vocabulary
    from patchword.models.loading import load_patch_encoder

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=CHANNELS[size],
        num_hidden_layers=LAYERS[size],
        num_attention_heads=HEADS[size],
        image_size=518,
        patch_size=14,
    )
    Dinov2Model(config).save_pretrained(folder / "encoder")
    normalisation = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3}
    (folder / "encoder" / "preprocessor_config.json").write_text(json.dumps(normalisation), encoding="utf-8")
    encoder = load_patch_encoder(str(folder / "encoder"), device="cpu", dtype="float32")
    tower = Tower.of(encoder.record)
    shape = ModuleShape(kind="block", dim=CHANNELS[size], text_dim=TEXT_DIM, head_size=64, mlp_ratio=4.0)
    nothing = StepRecord(
        step=1, learning_rate=0, temperature=TEMPERATURE, total=0, patch_patch=0, text_anchor=0, patch_anchor=0
    )
    artifact = ArtifactConfig(
        encoder=tower,
        text_encoder=tower.model_copy(update={"family": "clip", "name": "none", "dim": TEXT_DIM}),
        module=shape,
        image_size=518,
        temperature=TEMPERATURE,
        vocabulary=Vocabulary.of("thing").to_text(),
        settings=AlignSettings(),
        training=TrainingFacts(
            data_fingerprint="",
            images=1,
            images_without_labels=0,
            images_skipped=0,
            labelled_share=1,
            classes_without_patches=(),
            steps=1,
            last=nothing,
        ),
    )
    (folder / "model").mkdir()
    write_artifact(folder / "model", artifact=Artifact(shape.build(), artifact), card="")
    return folder / "model", encoder


def measure(folder: Path, *, size: str, sides: list[int], classes: int, runs: int, threads: int) -> list[Measured]:
    """Export one model and time it at several sizes."""
    import numpy as np
    import torch
    from torch.nn import functional

    from patchword.alignment.artifact import read_artifact
    from patchword.export.onnx.facts import open_session
    from patchword.export.onnx.run import export_onnx, quantise
    from patchword.segmentation.pixels import PostprocessConfig, assign_pixels
    from patchword.segmentation.scores import GridScores

    model, encoder = make_model(folder, size=size)
    module = read_artifact(model).module
    vectors = functional.normalize(torch.randn(classes, TEXT_DIM, generator=torch.Generator().manual_seed(1)), dim=1)
    started = time.process_time()
    plain = export_onnx(model, out=folder / "model.onnx", encoder=encoder).path
    print(f"# {size}: exported in {time.process_time() - started:.0f} s of processor time", flush=True)
    small = folder / "int8.onnx"  # as `export_onnx` does it, without tracing again
    quantise(plain, out=small)
    files = {"onnxruntime": plain, "onnxruntime int8": small}
    sessions = {way: open_session(file, threads=threads) for way, file in files.items()}

    decision = PostprocessConfig(class_of=np.arange(classes), count=classes, temperature=TEMPERATURE)

    def by_torch(images: torch.Tensor) -> Any:
        with torch.no_grad():
            patches = module(encoder(images))
            scores = torch.einsum("nd,dyx->nyx", vectors, patches[0])
            found = assign_pixels(GridScores(scores, tuple(images.shape[-2:])), decision=decision)
        return found.indices

    def by_onnx(way: str) -> Callable[[torch.Tensor], Any]:
        def run(images: torch.Tensor) -> Any:
            given = {
                "images": images.numpy(),
                "vectors": vectors.numpy(),
                "class_of": np.arange(classes),
                "size": np.array(images.shape[-2:]),
            }
            return sessions[way].run(["classes", "confidence"], given)[0][0]

        return run

    ways = {"torch": by_torch, **{way: by_onnx(way) for way in files}}
    results = []
    for side in sides:
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))
        timed: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
        said = {}
        for turn in range(runs + 1):
            for way, run in ways.items():
                started = time.perf_counter(), time.process_time()
                said[way] = run(images)
                if turn:
                    timed[way].append((time.perf_counter() - started[0], time.process_time() - started[1]))
        medians = {
            way: tuple(statistics.median(column) for column in zip(*each, strict=True)) for way, each in timed.items()
        }
        results += [
            Measured(
                size=size,
                side=side,
                way=way,
                seconds=medians[way][0],
                processor=medians[way][1],
                faster=medians["torch"][1] / medians[way][1],
                megabytes=files[way].stat().st_size / 1e6 if way in files else None,
                differs=float((said[way] != said["torch"]).mean()),
            )
            for way in ways
        ]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=list(CHANNELS), default=["small", "base"])
    parser.add_argument("--sides", nargs="+", type=int, default=[448, 518], help="multiples of 14")
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()

    import onnxruntime
    import torch

    torch.set_num_threads(options.threads)
    results = []
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            results += measure(
                Path(folder),
                size=size,
                sides=options.sides,
                classes=options.classes,
                runs=options.runs,
                threads=options.threads,
            )
    software = {**versions(), "onnxruntime": onnxruntime.__version__, "machine": platform.machine()}
    if options.json:
        print(json.dumps({"versions": software, "results": [asdict(result) for result in results]}, indent=2))
        return
    print(f"{options.threads} thread(s), {options.classes} classes, {options.runs} runs; {software}")
    print("| DINOv2 | pixels | way | s | processor s | faster than torch | MB | other class |")
    print("|---|---|---|---|---|---|---|---|")
    for each in results:
        megabytes = "" if each.megabytes is None else f"{each.megabytes:,.1f}"
        print(
            f"| {each.size} | {each.side} | {each.way} | {each.seconds:.3f} | {each.processor:.3f} | {each.faster:.2f} "
            f"| {megabytes} | {each.differs:.2%} |"
        )


if __name__ == "__main__":
    main()
