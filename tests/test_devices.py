"""Every command on a device that has no float64, no unequal pools and no NumPy: what MPS and CUDA refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from fake_device import DEVICE, Traffic, fake_device, traffic
from patchword.alignment import trainer
from patchword.alignment.losses import MaskTargets
from patchword.alignment.trainer import TrainingSet, train
from patchword.config.align import AlignSettings
from patchword.config.label import LabelSettings
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.export.onnx.run import export_onnx
from patchword.export.text_embeddings import export_text_embeddings
from patchword.labeling.generators import SAM_THEN_CLIP
from patchword.labeling.image import LabelParts, MaskCandidates
from patchword.labeling.point_sampling import DecodedMasks
from patchword.labeling.run import LabelWork
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder
from patchword.runs.pipeline import Chunk, Photograph
from patchword.segmentation.opening import load_method
from patchword.segmentation.segmenter import Segmenter
from small_world import (
    LABEL_SETTINGS,
    Models,
    align_command,
    files_in,
    label_command,
    make_photos,
    must,
    run,
    settings_options,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def labels(photos: Path, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("labels") / "labels"
    must(run(*label_command(photos, out=out, models=models), "--device", "cpu"))
    return out


@pytest.fixture(scope="module")
def segmenter(labels: Path, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model") / "model"
    must(run(*align_command(labels, out=out, models=models), "--device", "cpu"))
    return out


def on_both(tmp_path: Path, *command: object, into: str = "masks") -> Path:
    """Run a command on the CPU and on the fake device; both must write the same files, of which the second's folder."""
    on_cpu, there = tmp_path / "cpu", tmp_path / "mps"
    must(run(*command, "-o", on_cpu, "--device", "cpu"))
    with fake_device():
        must(run(*command, "-o", there, "--device", "mps"))
    expected = files_in(on_cpu / into)
    assert expected
    assert files_in(there / into) == expected
    return there


def test_the_fake_device_refuses_what_devices_refuse() -> None:
    with fake_device() as device:
        values = torch.ones(1, 6, 6, device=device)
        assert values.device == DEVICE
        assert (values + 1).sum(dim=2)[0].device == DEVICE
        assert values.cpu().device.type == "cpu"
        assert torch.zeros_like(values).device == torch.ones(2).to(values).device == DEVICE
        assert torch.ones(2).to("mps").to("cpu").numpy().tolist() == [1, 1]
        for refused in (
            values.double,
            lambda: torch.zeros(1, dtype=torch.float64, device=device),
            lambda: torch.zeros(1, dtype=torch.float64).to(device),
            lambda: torch.arange(3, device=values.device, dtype=torch.float64),
            values.numpy,
            lambda: np.asarray(values),
        ):
            with pytest.raises(TypeError):
                refused()
        for refused in (
            lambda: functional.adaptive_avg_pool2d(values, 4),
            lambda: functional.adaptive_max_pool2d(values, (6, 4)),
            lambda: values + torch.ones(6),
            lambda: torch.cat([values, torch.ones(1, 6, 6)]),
            lambda: torch.rand(2, device=device, generator=torch.Generator()),
        ):
            with pytest.raises(RuntimeError):
                refused()
        assert functional.adaptive_avg_pool2d(values, 3).shape == (1, 3, 3)
        assert (values * torch.tensor(2.0)).device == DEVICE  # numbers may come from the CPU


@pytest.mark.parametrize("seeds", ["embedding", "grid"])
def test_label(photos: Path, models: Models, tmp_path: Path, seeds: str) -> None:
    command = [part for part in label_command(photos, out=tmp_path, models=models) if part not in ("-o", tmp_path)]
    settings = {
        "point_sampling": seeds,
        "points_per_side": 4,
        "stability_score_thresh": 0.1,
        "proposal_grids": [1, 2],
        "image_batch": 2,
    }
    on_both(tmp_path, *command, *settings_options({**settings, "proposal_enlargement": 16}))


@pytest.mark.parametrize(
    "settings",
    [
        {"features": "cached", "held_out": 0.5, "patience": 1, "average_decay": 0.5},
        {"features": "online", "augment": True, "held_out": 0.5, "patch_sample": 4, "text_sample": 5},
        {"features": "online", "augment": False, "accumulation": 2, "precision": "bf16"},
    ],
)
def test_align(labels: Path, models: Models, tmp_path: Path, settings: dict[str, object]) -> None:
    command = [part for part in align_command(labels, out=tmp_path, models=models) if part not in ("-o", tmp_path)]
    with fake_device():
        must(run(*command, "-o", tmp_path / "model", "--device", "mps", *settings_options(settings)))
    assert (tmp_path / "model" / "model.safetensors").is_file()


SAM = {"refine": "sam", "sam.pred_iou_thresh": 0, "sam.agreement": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"refine": "none"},
        {"refine": "jbu"},
        {"refine": "pamr"},
        SAM,
        {"window": 16, "join": "logits", "softmax_over": "words", "background_threshold": 0.4},
        {"window": 16, "shorter_side": 32, "resize": "plain"},
        {"large_megapixels": 0.0003, "tile": 16, "overlap": 8},
    ],
    ids=str,
)
def test_segment(segmenter: Path, photos: Path, models: Models, tmp_path: Path, settings: dict[str, object]) -> None:
    extra = ["--mask-generator", models.sam] if settings is SAM else []
    command = ["segment", photos, "--model", segmenter, "--classes", "cat; kitten, dog"]
    if "background_threshold" not in settings:
        extra += ["--background", "sky"]
    if "tile" not in settings:
        extra += ["--soft", "all"]
    on_both(tmp_path, *command, *settings_options(settings), *extra)


@pytest.mark.parametrize("method", ["maskclip", "sclip", "clearclip", "naclip", "proxyclip"])
def test_segment_without_training(photos: Path, models: Models, tmp_path: Path, method: str) -> None:
    extra = ["--encoder", models.dinov2] if method == "proxyclip" else []
    command = ["segment", photos, "--method", method, "--image-text", models.clip, "--classes", "cat, dog", *extra]
    on_both(tmp_path, *command)


def test_evaluate(segmenter: Path, labels: Path, photos: Path, tmp_path: Path) -> None:
    command = ["evaluate", photos, "--masks", labels / "masks", "--classes", "cat, dog, sofa", "--model", segmenter]
    expected, found = tmp_path / "cpu", tmp_path / "mps"
    must(run(*command, "-o", expected, "--device", "cpu"))
    with fake_device():
        must(run(*command, "-o", found, "--device", "mps"))
    assert json.loads((expected / "evaluation.json").read_text())["images"] == 2
    assert (found / "images.jsonl").read_bytes() == (expected / "images.jsonl").read_bytes()


def test_suggest(photos: Path, models: Models, tmp_path: Path) -> None:
    command = ["suggest", photos, "--image-text", models.clip, "--minimum-share", 0, "--page", tmp_path / "page.html"]
    must(run(*command, "-o", tmp_path / "cpu.txt", "--device", "cpu"))
    with fake_device():
        must(run(*command, "-o", tmp_path / "mps.txt", "--device", "mps", "--overwrite"))
    assert (tmp_path / "mps.txt").read_bytes() == (tmp_path / "cpu.txt").read_bytes()


def test_quality(segmenter: Path, labels: Path) -> None:
    printed = [must(run("quality", labels, "--model", segmenter, "--json", "--device", "cpu")).out]
    with fake_device():
        printed.append(must(run("quality", labels, "--model", segmenter, "--json", "--device", "mps")).out)
    assert printed[0] == printed[1]


def test_text_vectors_of_a_loaded_encoder(segmenter: Path, models: Models, tmp_path: Path) -> None:
    on_cpu = load_image_text(str(models.clip), device="cpu")
    export_text_embeddings(segmenter, out=tmp_path / "cpu.npz", text_encoder=on_cpu)
    with fake_device():
        there = load_image_text(str(models.clip), device="mps")
        export_text_embeddings(segmenter, out=tmp_path / "mps.npz", text_encoder=there)
        opened = Segmenter.from_pretrained(segmenter, text_encoder=tmp_path / "mps.npz", device="mps")
        assert opened.segment(np.zeros((16, 16, 3), np.uint8), classes="cat, dog").label_map.indices.shape == (16, 16)
    assert (tmp_path / "mps.npz").read_bytes() == (tmp_path / "cpu.npz").read_bytes()


def test_onnx_export(segmenter: Path, models: Models, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with fake_device():
        there = load_patch_encoder(str(models.dinov2), device="mps")
        with pytest.raises(PatchwordError, match="an export needs float32 on the CPU"):
            export_onnx(segmenter, out=tmp_path / "model.onnx", encoder=there)


def trained(images: int, *, masked: bool, **values: object) -> Traffic:
    """What a training of one image a step costs, which writes one line of history."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 3, (images, 4, 4), generator=generator)
    vectors = functional.normalize(torch.randn(images + 1, 8, generator=generator), dim=1)
    regions = torch.randint(-1, images, (images, 4, 4), generator=generator)
    data = TrainingSet(
        InMemory(torch.randn(images, 12, 4, 4, generator=generator).half()),
        tuple(str(number) for number in range(images)),
        labels,
        functional.normalize(torch.randn(3, 8, generator=generator), dim=1),
        masks=MaskTargets(regions, vectors) if masked else None,
    )
    settings = AlignSettings(batch_size=1, epochs=1, patch_sample=6, text_sample=9, **values)
    with fake_device("cuda") as device, traffic() as counted:
        train(data, settings=settings, device=device)
    return counted


class InMemory:
    def __init__(self, features: torch.Tensor) -> None:
        self._features = features

    def read(self, keys: Sequence[str], /) -> torch.Tensor:
        return self._features[[int(key) for key in keys]]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"precision": "fp32"},
        {"precision": "fp16", "average_decay": 0.9},
        {"precision": "fp32", "module": "two-blocks"},
        {"precision": "fp32", "module": "linear", "loss": "cross-entropy"},
    ],
    ids=str,
)
def test_a_training_step_never_waits_for_the_gpu(
    values: dict[str, object], masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied in a step: the features, all whole numbers of the sample together, and what the masks are drawn to."""
    monkeypatch.setattr(trainer, "_RECORDS", 1)
    few, many = (trained(images, masked=masked, **values) for images in (3, 9))
    assert len(many.copies) - len(few.copies) == 6 * (3 if masked else 2)
    assert many.waits == few.waits  # those of the one record, and of the end


def test_masks_on_a_coarser_map_are_those_of_pooling() -> None:
    generator = torch.Generator().manual_seed(0)
    for height, width in ((256, 171), (65, 64), (20, 100)):
        logits = torch.randn(2, 3, height, width, generator=generator) - 2
        known = torch.zeros(2, 3)
        expected = functional.adaptive_max_pool2d(logits, (min(height, 64), min(width, 64))) > 0
        with fake_device() as device:
            found = DecodedMasks.of(logits.to(device), predicted_iou=known.to(device), accepted=known.bool().to(device))
        assert 0 < expected.float().mean() < 1
        assert torch.equal(found.masks, expected)


PHOTOGRAPH = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("settings", "copies", "waits"),
    [({"refine": "none"}, 6, 6), ({"refine": "jbu"}, 12, 6), ({"window": 32, "shorter_side": 64}, 15, 7)],
    ids=str,
)
def test_segment_keeps_a_gpu_busy(models: Models, settings: dict[str, object], copies: int, waits: int) -> None:
    """A photograph is copied once, as bytes; the rest is small, and does not grow with rows or classes."""
    with fake_device("cuda"):
        segmenter = load_method("maskclip", image_text=models.clip, device="cuda", dtype="float32")
        for classes in ("cat, dog", "cat, dog, sofa, sky, car, tree"):
            segmenter.words(classes)  # text vectors are made once
            for image in (PHOTOGRAPH, segmenter.encode(PHOTOGRAPH, settings=settings)):
                with traffic() as counted:
                    segmenter.segment(image, classes=classes, settings=settings)
                assert counted.large(PHOTOGRAPH.size // 2) == (image is PHOTOGRAPH or settings.get("refine") != "none")
                assert len(counted.copies) <= copies, counted
                assert counted.waits.total() <= waits, counted
                assert counted.waits["cpu"] == 2  # classes and confidences, of all pixels together


def test_label_keeps_a_gpu_busy(models: Models) -> None:
    """A photograph is copied once, as bytes; of masks only the ends of runs go either way."""
    settings = LabelSettings(
        **LABEL_SETTINGS, point_sampling="embedding", stability_score_thresh=0, box_nms_thresh=1, name_margin=0
    )
    photograph = Photograph("a.jpg", Path("a.jpg"), PHOTOGRAPH, None)
    chunk = Chunk((("a.jpg", Path("a.jpg")),), 1)
    found = []
    for device in ("cpu", "cuda"):
        with nullcontext() if device == "cpu" else fake_device("cuda"):
            parts = LabelParts.of(
                load_image_text(str(models.clip), device=device, dtype="float32"),
                mask_generator=load_mask_generator(str(models.sam), device=device, dtype="float32"),
                vocabulary=Vocabulary.of("cat, dog, sky"),
            )
            with traffic() as counted:
                found += LabelWork(Path(), parts, settings).process([photograph], chunk=chunk)
    here, there = (each.found for each in found)
    assert isinstance(here, MaskCandidates)
    assert isinstance(there, MaskCandidates)
    assert here.segments == there.segments
    assert sum(segment.generator == SAM_THEN_CLIP for segment in here.segments) > 60  # noise, of as many runs as can be
    assert counted.large(PHOTOGRAPH.size // 8) == 1
    assert len(counted.copies) <= 140
    assert counted.waits.total() <= 75
