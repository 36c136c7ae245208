"""Disagreement of a model with its labels, against pixels counted one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from patchword.data.masks import LabelMap, Segment
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.disagreement import compare_labels, find_disagreement
from patchword.labeling.quality.records import ImageUncertainty, worst_masks
from patchword.runs.pipeline import Chunk, Work, Written, do_chunk
from patchword.segmentation.result import SegmentationResult

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
    found = compare_labels(said, segments, predicted=predicted, name="a.png")
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
    found = compare_labels(nothing, [], predicted=prediction(np.zeros((2, 2), np.uint8), np.ones((2, 2))), name="a")
    assert found.doubt == 0
    assert found.masks == ()


def test_other_sizes_are_refused() -> None:
    labels = LabelMap(np.zeros((2, 2), dtype=np.uint8), NAMES)
    with pytest.raises(PatchwordError, match=r"label map of a has \(2, 2\) pixels, its prediction \(2, 3\)"):
        compare_labels(labels, [], predicted=prediction(np.zeros((2, 3), np.uint8), np.ones((2, 3))), name="a")


class Stub:
    """Says "dog" everywhere, surely for photographs that are not black; is stopped at one of them."""

    def __init__(self, *, stop_at: int | None = None, temperature: float = 0.1) -> None:
        self.looked = 0
        self.stop_at = stop_at
        self.temperature = temperature

    def describe(self) -> dict[str, Any]:
        return {"kind": "stub", "temperature": self.temperature}

    def segment_batch(
        self, images: list[np.ndarray], *, classes: Vocabulary, background: list[str]
    ) -> list[SegmentationResult]:
        assert classes.names == NAMES
        assert background == []
        return [self._segment(image) for image in images]

    def _segment(self, image: np.ndarray) -> SegmentationResult:
        self.looked += 1
        if self.looked == self.stop_at:
            raise KeyboardInterrupt
        return prediction(np.ones((2, 2), np.uint8), np.full((2, 2), 0.9 if image.any() else 0.4))


LABELLED = (("a.png", 0), ("b.png", 1), ("c.png", 0), ("x.png", 2))


def labelled(folder: Path) -> Any:
    """Four photographs of which c cannot be read, with their labels."""
    items = []
    for name, index in LABELLED:
        Image.new("RGB", (2, 2), "white" if name == "x.png" else "black").save(folder / name)
        if name == "c.png":
            (folder / name).write_bytes(b"no picture")
        LabelMap(np.full((2, 2), index, dtype=np.uint8), NAMES).save(folder / f"{name}.map")
        (folder / f"{name}.json").write_text(name)
        part = segment(np.ones((2, 2), dtype=bool), index)
        items.append(
            SimpleNamespace(
                record=SimpleNamespace(name=name, content=hashlib.sha256((folder / name).read_bytes()).hexdigest()),
                image=folder / name,
                label_map=folder / f"{name}.map",
                segments_file=folder / f"{name}.json",
                segments=lambda part=part: (part,),
            )
        )
    return SimpleNamespace(items=tuple(items), vocabulary=Vocabulary.of(list(NAMES), background=["wall"]))


def compare(labels: Any, stub: Stub, **options: Any) -> tuple[ImageUncertainty, ...]:
    out = labels.items[0].image.parent / "disagreement.jsonl"
    return find_disagreement(labels, segmenter=stub, out=out, quiet=True, **options)  # type: ignore[arg-type]


class Backwards:
    """An executor that does the last chunk first, each on its own."""

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        for chunk in reversed(chunks):
            for written in do_chunk(chunk, work=work):
                done(written)


def test_whoever_compares_the_doubts_are_the_same(tmp_path: Path) -> None:
    labels = labelled(tmp_path)
    here = compare(labels, Stub())
    (tmp_path / "disagreement.jsonl").unlink()
    assert compare(labels, Stub(), executor=Backwards()) == here


def test_a_data_set_is_looked_through_and_written_down(tmp_path: Path) -> None:
    found = compare(labelled(tmp_path), Stub())
    assert [record.name for record in found] == ["x.png", "a.png", "b.png", "c.png"]
    assert [record.doubt for record in found] == pytest.approx([0.9, 0.4, 0, 0])
    assert "c.png: not an image" in (found[-1].reason or "")
    lines = [json.loads(line) for line in (tmp_path / "disagreement.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == ["a.png", "b.png", "c.png", "x.png"]
    assert [(name, mask.instead) for name, mask in worst_masks(found)] == [
        ("x.png", "dog"),
        ("a.png", "dog"),
        ("b.png", "dog"),
    ]


def test_a_comparison_that_was_stopped_goes_on(tmp_path: Path) -> None:
    labels = labelled(tmp_path)
    whole = compare(labels, Stub())
    written = (tmp_path / "disagreement.jsonl").read_bytes()
    (tmp_path / "disagreement.jsonl").unlink()
    with pytest.raises(KeyboardInterrupt):
        compare(labels, Stub(stop_at=3))
    again = Stub()
    assert compare(labels, again) == whole
    assert again.looked == 1  # x; c is read anew and fails anew
    assert (tmp_path / "disagreement.jsonl").read_bytes() == written


def test_what_was_compared_with_something_else_is_compared_again(tmp_path: Path) -> None:
    labels = labelled(tmp_path)
    compare(labels, Stub())
    LabelMap(np.full((2, 2), 2, dtype=np.uint8), NAMES).save(labels.items[1].label_map)
    stub = Stub()
    assert {record.name: record.doubt for record in compare(labels, stub)}["b.png"] == pytest.approx(0.4)
    assert stub.looked == 1
    other = Stub(temperature=0.2)
    compare(labels, other)
    assert other.looked == 3
    stub = Stub()
    compare(labels, stub, unusable={"a.png": "it is gone"})
    assert stub.looked == 2


def test_lines_of_an_earlier_version_are_made_again(tmp_path: Path) -> None:
    labels = labelled(tmp_path)
    (tmp_path / "disagreement.jsonl").write_text('{"name": "a.png", "doubt": 1, "masks": []}\n{"name": "z"}\n')
    assert [record.doubt for record in compare(labels, Stub())] == pytest.approx([0.9, 0.4, 0, 0])
