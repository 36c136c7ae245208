"""Model folders that are damaged, foreign or do not fit are refused in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from colour_world import SETTINGS, VOCABULARY, record
from safetensors.torch import load_file, save_file

from patchword.alignment.artifact import (
    Artifact,
    ArtifactConfig,
    ModuleShape,
    StepRecord,
    Tower,
    TrainingFacts,
    model_card,
    read_artifact,
    write_artifact,
)
from patchword.config.align import ModuleKind
from patchword.errors import PatchwordError

LAST = StepRecord(
    step=3, learning_rate=1e-4, temperature=0.07, total=1.0, patch_patch=0.5, text_anchor=0.25, patch_anchor=0.25
)


def make_artifact(kind: ModuleKind = "block") -> Artifact:
    shape = ModuleShape(kind=kind, dim=12, text_dim=8, head_size=64, mlp_ratio=4.0)
    config = ArtifactConfig(
        encoder=Tower.of(record("patches", dim=12)),
        text_encoder=Tower.of(record("text", dim=8)),
        module=shape,
        image_size=16,
        temperature=0.1 + 0.2,  # a number whose decimal form is long
        vocabulary=VOCABULARY.to_text(),
        settings=SETTINGS,
        training=TrainingFacts(
            data_fingerprint="d" * 64,
            images=3,
            images_without_labels=0,
            images_skipped=0,
            labelled_share=0.5,
            classes_without_patches=(),
            steps=3,
            last=LAST,
        ),
    )
    return Artifact(shape.build(seed=3), config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    artifact = make_artifact()
    write_artifact(tmp_path, artifact=artifact, card=model_card(artifact.config))
    return tmp_path


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    values = json.loads((folder / "config.json").read_text())
    change(values)
    (folder / "config.json").write_text(json.dumps(values))


def test_a_model_of_an_earlier_version_says_that_it_was_trained_without_what_came_later(folder: Path) -> None:
    later = ("mask_weight", "label_smoothing")

    def without(values: dict[str, Any]) -> None:
        for name in later:
            del values["settings"][name]

    edit_config(folder, without)
    config = read_artifact(folder).config
    assert [getattr(config.settings, name) for name in later] == [0, 0]
    assert "| label_smoothing | 0.0 |" in model_card(config)


@pytest.mark.parametrize("kind", get_args(ModuleKind))
def test_round_trip_is_exact(tmp_path: Path, kind: ModuleKind) -> None:
    written = make_artifact(kind)
    write_artifact(tmp_path, artifact=written, card=model_card(written.config))
    read = read_artifact(tmp_path)
    assert read.module.kind == kind
    assert f"holds the module alone ({kind}, 0.0" in (tmp_path / "README.md").read_text()
    assert read.config == written.config
    patches = torch.randn(1, 12, 3, 4)
    assert torch.equal(read.module(patches), written.module(patches))
    assert not read.module.training


def test_local_folders_become_absolute_and_hub_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Tower.of(record("encoder", dim=3)).name == str(tmp_path / "encoder")
    assert Tower.of(record("facebook/dinov2-base", dim=3)).name == "facebook/dinov2-base"


def test_missing_folder_and_files(folder: Path) -> None:
    with pytest.raises(PatchwordError, match="no model folder"):
        read_artifact(folder / "nowhere")
    (folder / "model.safetensors").rename(folder / "weights")
    with pytest.raises(PatchwordError, match=r"no weights .*model.safetensors; the model folder is not complete"):
        read_artifact(folder)
    (folder / "config.json").unlink()
    with pytest.raises(PatchwordError, match=r"holds no config.json; pass a folder that `patchword align` has written"):
        read_artifact(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_config_that_is_not_json(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(PatchwordError, match=r"config.json is damaged: not JSON"):
        read_artifact(folder)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model_type": "clip"}'])
def test_config_of_something_else(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(PatchwordError, match=r"config.json is not of a patchword model"):
        read_artifact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda values: values.update(version=2),
            r"was made by a newer patchword \(format 2, this one reads 1\): upgrade",
        ),
        (lambda values: values.pop("temperature"), r"field 'temperature' is missing"),
        (lambda values: values.update(temperature=-1), r"field 'temperature' is -1"),
        (lambda values: values["module"].update(kind="linear"), r"tensor 'blocks.0.*' is .*, expected none"),
        (lambda values: values["module"].update(kind="tree"), r"field 'module.kind' is 'tree'"),
        (lambda values: values.update(colour="red"), r"field 'colour' is unknown"),
        (lambda values: values["settings"].update(majority=7), r"majority"),
        (lambda values: values.update(vocabulary="cat\ncat"), r"config.json:2: 'cat'"),
        (lambda values: values["module"].update(dim=16), r"does not fit config.json: tensor '.*' is .*, expected"),
        (lambda values: values["module"].update(text_dim=9), r"tensor 'projection.bias' is \(8,\), expected \(9,\)"),
    ],
)
def test_config_that_was_changed(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit_config(folder, change)
    with pytest.raises(PatchwordError, match=message) as error:
        read_artifact(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 4, 100, 3000])
def test_truncated_weights(folder: Path, kept: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(PatchwordError, match=r"model.safetensors is damaged or truncated"):
        read_artifact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("projection.bias"), r"tensor 'projection.bias' is missing, expected \(8,\)"),
        (lambda weights: weights.update(extra=torch.zeros(2)), r"tensor 'extra' is \(2,\), expected none"),
        (lambda weights: weights["projection.bias"].fill_(torch.nan), r"weights that are not finite"),
    ],
)
def test_foreign_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any], message: str) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(PatchwordError, match=message):
        read_artifact(folder)


def test_card_says_what_it_is(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for part in ("red, green, blue", "ffffffffffffffff", "dddddddddddddddd", "| majority | 0.6 |", "## Limits"):
        assert part in card
    scored = model_card(make_artifact().config.model_copy(update={"scores": {"mIoU": 0.51234}}))
    assert "| mIoU | 0.5123 |" in scored
    assert "None was measured" not in scored
