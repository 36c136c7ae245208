"""The commands on a GPU, where there is one, against the same on the CPU: `pytest -m gpu`."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import patchword
from patchword.data.masks import LabelMap
from patchword.toytown import miniatures
from patchword.toytown.classes import SEEN
from patchword.toytown.demo_scenes import SIZE, draw

DEVICES = [
    *(["cuda"] if torch.cuda.is_available() else []),
    *(["mps"] if torch.backends.mps.is_available() else []),
]
DTYPES = ("float32", "bfloat16", "float16")
SCENES = 4
LEAST = {"float32": 0.995, "bfloat16": 0.97, "float16": 0.97}
"""Share of pixels with the same value as on the CPU in float32."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not DEVICES, reason="no GPU"),
    pytest.mark.parametrize("device", DEVICES or ["none"]),
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    return draw(folder, "scenes", purpose="evaluate-seen", count=SCENES, first=0, style="day").photos


@pytest.fixture(scope="module")
def labels(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> patchword.LabelledDataset:
    return label(photos, tmp_path_factory.mktemp("labels") / "cpu", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def model(labels: patchword.LabelledDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "cpu"
    align(labels, folder, device="cpu", precision="fp32")
    return folder


def label(photos: Path, out: Path, *, device: str, dtype: str) -> patchword.LabelledDataset:
    models = {"image_text": miniatures.CLIP, "mask_generator": miniatures.SAM}
    return patchword.label(photos, classes=SEEN, out=out, device=device, dtype=dtype, quiet=True, **models)


def align(labels: patchword.LabelledDataset, out: Path, *, device: str, precision: str, compiled: bool = False) -> None:
    settings = {"image_size": SIZE, "steps": 20, "patch_sample": 512, "precision": precision, "compile": compiled}
    patchword.align(labels, out=out, encoder=miniatures.DINO, settings=settings, device=device, quiet=True)


def agreement(one: list[LabelMap], other: list[LabelMap]) -> float:
    return float(np.mean([(a.indices == b.indices).mean() for a, b in zip(one, other, strict=True)]))


def masks(model: Path, photos: Path, *, device: str, dtype: str = "float32", compiled: bool = False) -> list[LabelMap]:
    segmenter = patchword.Segmenter.from_pretrained(model, device=device, dtype=dtype)
    settings = {"compile": compiled}
    return [segmenter.segment(path, classes=SEEN, settings=settings).label_map for path in sorted(photos.iterdir())]


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_are_those_of_the_cpu(
    device: str, dtype: str, photos: Path, labels: patchword.LabelledDataset, tmp_path: Path
) -> None:
    found = label(photos, tmp_path / "labels", device=device, dtype=dtype)
    assert agreement([item.labels() for item in found], [item.labels() for item in labels]) >= LEAST[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compiled", [False, True])
def test_masks_are_those_of_the_cpu(device: str, dtype: str, compiled: bool, photos: Path, model: Path) -> None:
    found = masks(model, photos, device=device, dtype=dtype, compiled=compiled)
    assert agreement(found, masks(model, photos, device="cpu")) >= LEAST[dtype]


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_faster_products_of_float32_change_few_pixels(
    device: str, precision: str, photos: Path, model: Path, tmp_path: Path
) -> None:
    patchword.segment(
        photos,
        model=model,
        classes=SEEN,
        out=tmp_path / "masks",
        device=device,
        float32_matmul_precision=precision,
        quiet=True,
    )
    found = [
        LabelMap.load(tmp_path / "masks" / "masks" / f"{path.name}.png", names=SEEN)
        for path in sorted(photos.iterdir())
    ]
    assert agreement(found, masks(model, photos, device="cpu")) >= LEAST["bfloat16"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_learns_what_it_learns_on_the_cpu(
    device: str,
    precision: str,
    compiled: bool,
    photos: Path,
    labels: patchword.LabelledDataset,
    model: Path,
    tmp_path: Path,
) -> None:
    align(labels, tmp_path / "model", device=device, precision=precision, compiled=compiled)
    weights = patchword.Segmenter.from_pretrained(tmp_path / "model", device="cpu").module.state_dict()
    assert all(math.isfinite(value.abs().sum().item()) for value in weights.values())
    found = masks(tmp_path / "model", photos, device="cpu")
    assert agreement(found, masks(model, photos, device="cpu")) >= 0.9
