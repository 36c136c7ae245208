"""Going on with a segmentation: what is refused, what is done again, and that a refusal changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from colour_world import COLOURS, draw
from PIL import Image

from patchword.config.refine import JbuSettings
from patchword.config.segment import SegmentSettings
from patchword.data.image_files import find_images
from patchword.errors import PatchwordError
from patchword.evaluation.predictors import find_predictions
from patchword.runs.shards import Shard
from patchword.segmentation.folder import merge_segmentations
from patchword.segmentation.records import SegmentedFolder
from patchword.segmentation.run import segment_folder
from patchword.segmentation.segmenter import Segmenter
from small_world import files_in, state_of


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "b.png", "c.png")):
        paint(tmp_path / "photos" / name, number)
    return tmp_path / "photos"


def paint(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(draw(seed, height=20, width=30)[0]).save(path)


def run(photos: Path, segmenter: Any, **options: Any) -> SegmentedFolder:
    arguments: dict[str, Any] = {"classes": list(COLOURS), "out": photos.parent / "out", "quiet": True, **options}
    return segment_folder(find_images(photos), root=photos, segmenter=segmenter, **arguments)


def test_a_refusal_changes_nothing(photos: Path, segmenter: Segmenter) -> None:
    folder = run(photos, segmenter).folder
    (folder / "masks" / ".patchword-0123456789abcdef.tmp").write_bytes(b"left by a run that was killed")
    before = state_of(folder)
    with pytest.raises(PatchwordError, match="the class list was"):
        run(photos, segmenter, classes=["red"], resume=True)
    segmenter.device = torch.device("cuda:0")
    with pytest.raises(PatchwordError, match="the segmenter's device was cpu, now cuda"):
        run(photos, segmenter, resume=True)
    assert state_of(folder) == before
    (folder / "results.jsonl").write_text("{}\n")
    before = state_of(folder)
    segmenter.device = torch.device("cpu")
    with pytest.raises(PatchwordError, match="not a JSON object with a name"):
        run(photos, segmenter, resume=True)
    assert state_of(folder) == before


def test_a_folder_of_an_earlier_version_goes_on(photos: Path, segmenter: Segmenter) -> None:
    folder = run(photos, segmenter, limit=1).folder
    record = json.loads((folder / "segment.json").read_text())
    del record["segmenter"]["computed_on"]
    (folder / "segment.json").write_text(json.dumps(record))
    assert len(run(photos, segmenter, resume=True).names) == 3


def test_a_changed_photograph_is_segmented_again_and_said(
    photos: Path, segmenter: Segmenter, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(photos, segmenter).folder
    paint(photos / "b.png", 7)
    run(photos, segmenter, resume=True, quiet=False)
    assert "1 photograph changed since it was segmented: b.png; segmented again" in capsys.readouterr().err
    fresh = files_in(run(photos, segmenter, out=photos.parent / "fresh").folder)
    left = files_in(folder)
    assert {name for name in left | fresh if left.get(name) != fresh.get(name)} == {"runs.jsonl"}


def test_cut_results_are_refused_by_whoever_reads_them(photos: Path, segmenter: Segmenter, tmp_path: Path) -> None:
    shards = [run(photos, segmenter, out=tmp_path / f"{n}", shard=Shard(n, 2), settings={"batch": 1}) for n in (1, 2)]
    results = shards[0].folder / "results.jsonl"
    results.write_bytes(results.read_bytes().splitlines(keepends=True)[0])
    told = r"results\.jsonl lists 1 image, but segment\.json counts 2"
    with pytest.raises(PatchwordError, match=told):
        merge_segmentations([shard.folder for shard in shards], out=tmp_path / "merged")
    with pytest.raises(PatchwordError, match=told):
        find_predictions(shards[0].folder, pairs=[], truth=None)  # type: ignore[arg-type]


def test_former_names_of_settings_are_read() -> None:
    now = SegmentSettings(refine="jbu", jbu=JbuSettings(radius=3))
    dumped = now.model_dump(mode="json")
    former = {**{name: value for name, value in dumped.items() if name != "jbu"}, "refine": "guided"}
    former["guided"] = dumped["jbu"]
    assert SegmentSettings.model_validate(former) == now == SegmentSettings.of(former)
    former["sam"] = {"minimum_predicted_iou": 0.7, "overlap": 0.9, "prompt_batch": 64}
    assert SegmentSettings.of(former) == now
    assert former["sam"].items() <= now.recorded()["sam"].items()  # written as earlier versions read it
