"""Disagreement of a model with its labels, against pixels counted one by one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from patchword.errors import PatchwordError
from patchword.evaluate.disagreement import doubts, find_disagreement
from patchword.label.quality.doubts import worst_masks
from patchword.maps import LabelMap, Segment
from patchword.segment.result import SegmentationResult
from patchword.vocabulary import Vocabulary

NAMES = ("cat", "dog", "sky")


def segment(mask: np.ndarray, index: int) -> Segment:
    return Segment.from_mask(
        mask,
        class_index=index,
        class_name=NAMES[index],
        score=0.5,
        predicted_iou=0.5,
        similarity=0.5,
        generator="test",
    )


def prediction(indices: np.ndarray, confidence: np.ndarray) -> SegmentationResult:
    image = np.zeros((*indices.shape, 3), dtype=np.uint8)
    return SegmentationResult(LabelMap(indices, NAMES), confidence.astype(np.float32), image)


def example(seed: int) -> tuple[LabelMap, list[Segment], SegmentationResult]:
    random = np.random.default_rng(seed)
    said = random.choice([0, 1, 2, 255], size=(9, 13)).astype(np.uint8)
    seen = random.integers(0, 3, size=said.shape).astype(np.uint8)
    masks = [segment(random.random(said.shape) < 0.3, int(random.integers(0, 3))) for _ in range(5)]
    return LabelMap(said, NAMES), masks, prediction(seen, random.uniform(0.3, 1, said.shape))


@pytest.mark.parametrize("seed", range(5))
def test_doubts_are_those_of_pixels_counted_one_by_one(seed: int) -> None:
    said, segments, predicted = example(seed)
    found = doubts(said, segments, predicted=predicted, name="a.png")
    by_position = {mask.position: mask for mask in found.masks}
    total, labelled = 0.0, 0
    for row, column in np.ndindex(said.indices.shape):
        if said.indices[row, column] != 255:
            labelled += 1
            if said.indices[row, column] != predicted.label_map.indices[row, column]:
                total += float(predicted.confidence[row, column])
    assert found.doubt == pytest.approx(total / labelled)
    for position, part in enumerate(segments):
        mask, pixels, against, votes = part.mask(), 0, 0.0, [0, 0, 0]
        for row, column in np.ndindex(mask.shape):
            if mask[row, column] and said.indices[row, column] == part.class_index:
                pixels += 1
                other = int(predicted.label_map.indices[row, column])
                votes[other] += 1
                against += float(predicted.confidence[row, column]) if other != part.class_index else 0.0
        if not pixels:
            assert position not in by_position
            continue
        assert by_position[position].pixels == pixels
        assert by_position[position].doubt == pytest.approx(against / pixels)
        assert votes[NAMES.index(by_position[position].instead)] == max(votes)
    assert [mask.doubt for mask in found.masks] == sorted((mask.doubt for mask in found.masks), reverse=True)


def test_a_map_without_labels_has_no_doubt() -> None:
    nothing = LabelMap(np.full((2, 2), 255, dtype=np.uint8), NAMES)
    found = doubts(nothing, [], predicted=prediction(np.zeros((2, 2), np.uint8), np.ones((2, 2))), name="a")
    assert found.doubt == 0
    assert found.masks == ()


def test_other_sizes_are_refused() -> None:
    labels = LabelMap(np.zeros((2, 2), dtype=np.uint8), NAMES)
    with pytest.raises(PatchwordError, match=r"label map of a has \(2, 2\) pixels, its prediction \(2, 3\)"):
        doubts(labels, [], predicted=prediction(np.zeros((2, 3), np.uint8), np.ones((2, 3))), name="a")


class Stub:
    """Says "dog" everywhere, surely for photographs whose name has an x; cannot read c."""

    def segment(self, image: Path, *, classes: Vocabulary, background: list[str]) -> SegmentationResult:
        assert classes.names == NAMES
        assert background == []
        if image.name == "c.png":
            raise PatchwordError("cannot read it")
        return prediction(np.ones((2, 2), np.uint8), np.full((2, 2), 0.9 if "x" in image.name else 0.4))


def test_a_data_set_is_looked_through_and_written_down(tmp_path: Path) -> None:
    items = []
    for name, index in (("a.png", 0), ("b.png", 1), ("c.png", 0), ("x.png", 2)):
        LabelMap(np.full((2, 2), index, dtype=np.uint8), NAMES).save(tmp_path / f"{name}.map")
        part = segment(np.ones((2, 2), dtype=bool), index)
        items.append(
            SimpleNamespace(
                record=SimpleNamespace(name=name),
                image=tmp_path / name,
                label_map=tmp_path / f"{name}.map",
                segments=lambda part=part: (part,),
            )
        )
    labels: Any = SimpleNamespace(items=tuple(items), vocabulary=Vocabulary.of(list(NAMES), background=["wall"]))
    stub: Any = Stub()
    found = find_disagreement(labels, segmenter=stub, out=tmp_path / "disagreement.jsonl", quiet=True)
    assert [record.name for record in found] == ["x.png", "a.png", "b.png", "c.png"]
    assert [record.doubt for record in found] == pytest.approx([0.9, 0.4, 0, 0])
    assert found[-1].reason == "cannot read it"
    lines = [json.loads(line) for line in (tmp_path / "disagreement.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a.png", "b.png", "c.png", "x.png"]
    assert [(name, mask.instead) for name, mask in worst_masks(found)] == [
        ("x.png", "dog"),
        ("a.png", "dog"),
        ("b.png", "dog"),
    ]
