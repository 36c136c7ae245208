"""The log of a review and the labels that follow from it: nothing is lost, and a slow reference agrees."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_data import make_labels, segment
from hypothesis import given
from hypothesis import strategies as st

from patchword.config.label import LabelSettings
from patchword.data.masks import LabelMap
from patchword.data.run_lengths import run_lengths
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.folder import refuse_corrections
from patchword.labeling.image import fuse
from patchword.labeling.review import (
    REVIEW_FILE,
    Decision,
    ReviewLog,
    active,
    conflicts,
    gather_reviews,
    reviewed_masks,
    segments_key,
)
from patchword.labeling.reviewed import reviewed_map
from small_world import Models, align_command, files_in, label_command, make_photos, must, run

NAMES = ("cat", "sofa", "tree")
SIZE = (6, 8)
WRITER = """
import os, signal, sys
from patchword.labeling.review import Decision, ReviewLog
log = ReviewLog(sys.argv[1])
if sys.argv[2] == "die":
    whole = Decision.line
    Decision.line = lambda self: whole(self)[:40]
    os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)
else:
    os.fsync = lambda file: None
for number in range(int(sys.argv[3])):
    log.append("accept", image=sys.argv[2], of="x", mask=str(number))
"""


def decision(number: int, action: str, **values: Any) -> Decision:
    return Decision(number=number, time="", image="a.png", of="x", action=action, **values)  # type: ignore[arg-type]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def writer(folder: Path, who: str, count: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder), who, str(count)])


def test_two_processes_lose_none_of_two_hundred_decisions_each(tmp_path: Path) -> None:
    both = [writer(tmp_path, who, 200) for who in ("ann", "bob")]
    assert [each.wait() for each in both] == [0, 0]
    found = ReviewLog(tmp_path).decisions()
    assert [each.number for each in found] == list(range(1, 401))
    for who in ("ann", "bob"):
        assert [each.mask for each in found if each.image == who] == [str(number) for number in range(200)]


def test_a_process_that_is_killed_in_the_middle_of_a_line_harms_nobody(tmp_path: Path) -> None:
    log = ReviewLog(tmp_path)
    log.append("accept", image="a.png", of="x", mask="0")
    before = log.path.read_bytes()
    assert writer(tmp_path, "die", 1).wait() == -signal.SIGKILL
    assert log.path.read_bytes() == before + log.path.read_bytes()[len(before) :][:40] != before
    assert [each.number for each in ReviewLog(tmp_path).decisions()] == [1]
    assert log.append("done", image="a.png", of="x").number == 2
    assert [each.action for each in ReviewLog(tmp_path).decisions()] == ["accept", "done"]


def test_a_line_may_be_cut_off_anywhere(tmp_path: Path) -> None:
    whole = ReviewLog(tmp_path)
    whole.append("rename", image="ä.png", of="x", mask="0", class_name="cat", reviewer="Ann")
    line = whole.path.read_bytes()
    for cut in range(len(line)):
        whole.path.write_bytes(line + line[:cut])
        log = ReviewLog(tmp_path)
        assert [each.number for each in log.decisions()] == [1]
        assert log.append("done", image="ä.png", of="x").number == 2
        assert log.path.read_bytes().startswith(line)
        assert len(log.decisions()) == len(ReviewLog(tmp_path).decisions()) == 2


def test_a_damaged_line_is_named_and_not_passed_over(tmp_path: Path) -> None:
    log = ReviewLog(tmp_path)
    log.append("accept", image="a.png", of="x", mask="0")
    log.path.write_bytes(log.path.read_bytes() + b"{}\n")
    with pytest.raises(PatchwordError, match="line 2 is damaged"):
        ReviewLog(tmp_path).decisions()


@given(st.lists(st.integers(0, 12), max_size=12))
def test_undo_takes_back_an_undo_too(targets: list[int]) -> None:
    """The reference looks for each decision whether anything later and active takes it back."""
    log = [
        decision(number, "undo", undoes=target) if 0 < target < number else decision(number, "accept", mask="0")
        for number, target in enumerate(targets, start=1)
    ]

    def holds(each: Decision) -> bool:
        return not any(other.undoes == each.number and holds(other) for other in log)

    assert active(log) == [each for each in log if holds(each) and each.action != "undo"]


def test_the_later_of_two_decisions_counts_and_the_second_person_is_told() -> None:
    log = [decision(1, "accept", mask="1"), decision(2, "remove", mask="0"), decision(3, "done")]
    late = decision(4, "rename", mask="0", class_name="tree")
    assert conflicts(late, log, seen=0) == [log[1]]
    assert conflicts(late, log, seen=2) == []
    assert conflicts(decision(4, "done"), log, seen=0) == [log[2]]
    (mask,) = reviewed_masks([segment(box(0, 0, 2, 2), 0, 0.5, names=NAMES)], [log[1], late], names=NAMES)
    assert (mask.status, mask.segment.class_name, mask.renamed) == ("accepted", "tree", True)


ACTIONS = ("accept", "reject", "remove", "rename", "replace", "add")


@given(
    st.integers(0, 2**32), st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 5)), max_size=6), st.booleans()
)
def test_the_reviewed_map_is_that_of_a_slow_reference(
    seed: int, decided: list[tuple[str, int]], imported: bool
) -> None:
    rng = np.random.default_rng(seed)

    def random_box() -> np.ndarray:
        (top, bottom), (left, right) = (
            np.sort(rng.choice(7, 2, replace=False)),
            np.sort(rng.choice(9, 2, replace=False)),
        )
        return box(top, left, bottom, right)

    segments = [segment(random_box(), int(rng.integers(3)), 0.2 + 0.1 * at, names=NAMES) for at in range(4)]
    settings = None if imported else LabelSettings(margin=0.15)
    generated = fuse(segments, size=SIZE, names=NAMES, margin=0.0 if imported else 0.15)
    log = []
    for number, (action, target) in enumerate(decided, start=1):
        values: dict[str, Any] = {} if action == "add" else {"mask": str(target % 4)}
        if action in ("rename", "add"):
            values["class_name"] = NAMES[target % 3]
        if action in ("replace", "add"):
            values["rle"] = dict(run_lengths(random_box()))
        log.append(decision(number, action, **values))
    masks = reviewed_masks(segments, log, names=NAMES)
    found = reviewed_map(generated, masks, before=segments, settings=settings)

    expected = np.full(SIZE, 255)
    for y, x in np.ndindex(*SIZE):
        touched = {each.mask for each in log}
        was = {str(at) for at, each in enumerate(segments) if each.mask()[y, x]}
        left = [segments[int(key)] for key in was - touched]
        best: dict[int, float] = {}
        for each in left:
            best[each.class_index] = max(best.get(each.class_index, 0), each.score)
        ranked = sorted(best, key=lambda index: -best[index])
        value = generated.indices[y, x]
        class_from = {key for key in was if segments[int(key)].class_index == value}
        if (class_from and class_from <= touched) if imported else was & touched:
            value = ranked[0] if ranked else 255
            if not imported and len(ranked) > 1 and best[ranked[0]] - best[ranked[1]] < 0.15:
                value = 255
        on_top = [mask for mask in masks if mask.status == "accepted" and mask.segment.mask()[y, x]]
        if on_top:
            smallest = min(mask.segment.area for mask in on_top)
            value = [mask for mask in on_top if mask.segment.area == smallest][-1].segment.class_index
        elif any(mask.status == "rejected" and mask.segment.mask()[y, x] for mask in masks):
            value = 255
        expected[y, x] = value
    np.testing.assert_array_equal(found.indices, expected)


def test_a_reviewed_folder_keeps_what_was_generated_and_says_what_changed(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    before = files_in(labels.folder)
    assert labels.reviewed() is labels
    log, name = ReviewLog(labels.folder), "a/x.jpg"
    of = segments_key(labels.folder, name)
    log.append("remove", image=name, of=of, mask="0")
    log.append("rename", image=name, of=of, mask="1", class_name="sofa")
    added = log.append("add", image=name, of=of, class_name="cat", rle=dict(run_lengths(np.eye(37, 53, dtype=bool))))
    log.append("done", image=name, of=of)
    log.append("done", image="b/x.jpg", of=segments_key(labels.folder, "b/x.jpg"))
    log.append("remove", image="b/x.png", of="another", mask="0")
    reviewed = labels.reviewed()
    assert reviewed.review is not None
    line = reviewed.review.spoken()
    assert line == (
        "reviewed: 2 of 6 photographs, 2 done: 1 mask removed, 1 renamed, 1 added; 1 decisions on labels that were "
        "made anew since are left out; --no-reviews ignores them"
    )
    assert {key: value for key, value in files_in(labels.folder).items() if key in before} == before
    item = reviewed[name]
    assert len(item.segments()) == 5
    assert {"cat", "sofa"} <= set(item.record.classes)
    assert (item.labels().indices[np.eye(37, 53, dtype=bool)] == 0).all()
    assert reviewed["b/x.jpg"] == labels["b/x.jpg"]
    written = files_in(labels.folder)
    assert LabelledDataset.open(labels.folder).reviewed().review == reviewed.review
    assert files_in(labels.folder) == written
    log.append("undo", image=name, of=of, undoes=added.number)
    again = LabelledDataset.open(labels.folder).reviewed()
    assert again.review is not None
    assert again.review.fingerprint != reviewed.review.fingerprint
    assert len(again[name].segments()) == 4


def test_overwriting_refuses_what_was_reviewed(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    refuse_corrections(labels.folder, instead="choose another")
    ReviewLog(labels.folder).append("done", image="a/x.jpg", of="x")
    with pytest.raises(PatchwordError, match="holds decisions of a review on 1 photograph"):
        refuse_corrections(labels.folder, instead="choose another")


def test_logs_of_shards_are_put_together_and_numbered_anew(tmp_path: Path) -> None:
    for shard in ("1", "2"):
        (tmp_path / shard).mkdir()
        log = ReviewLog(tmp_path / shard)
        added = log.append("add", image=shard, of="x", class_name="cat", rle=dict(run_lengths(box(0, 0, 2, 2))))
        log.append("rename", image=shard, of="x", mask=f"+{added.number}", class_name="tree")
        log.append("undo", image=shard, of="x", undoes=2)
    gather_reviews([tmp_path / "1", tmp_path / "2"], into=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / REVIEW_FILE).read_text().splitlines()]
    assert [(each["number"], each.get("mask"), each.get("undoes")) for each in lines] == [
        (1, None, None),
        (2, "+1", None),
        (3, None, 2),
        (4, None, None),
        (5, "+4", None),
        (6, None, 5),
    ]


def test_a_map_of_many_classes_keeps_its_type() -> None:
    names = tuple(f"class {number}" for number in range(300))
    one = segment(box(0, 0, 3, 3), 299, 0.5, names=names)
    generated = LabelMap(np.full(SIZE, 65535, dtype=np.uint16), names)
    masks = reviewed_masks([one], [decision(1, "accept", mask="0")], names=names)
    found = reviewed_map(generated, masks, before=[one], settings=LabelSettings())
    assert found.indices.dtype == np.uint16
    assert (found.indices[:3, :3] == 299).all()


def test_align_and_export_take_the_reviewed_masks_and_say_so(tmp_path: Path, models: Models) -> None:
    labels, out = tmp_path / "labels", tmp_path / "coco.json"
    must(run(*label_command(make_photos(tmp_path / "photos"), out=labels, models=models)))
    before = LabelledDataset.open(labels)["0.png"]
    of, whole = segments_key(labels, "0.png"), np.ones(before.labels().indices.shape, dtype=bool)
    log = ReviewLog(labels)
    for position in range(before.record.segments):
        log.append("remove", image="0.png", of=of, mask=str(position))
    log.append("add", image="0.png", of=of, class_name="sofa", rle=dict(run_lengths(whole)))
    line = (
        f"reviewed: 1 of 2 photographs, 0 done: {before.record.segments} masks removed, 1 added; --no-reviews ignores"
    )

    said = must(run("export", labels, "--format", "coco", "-o", out))
    assert line in said.err
    assert line in said.out
    objects = json.loads(out.read_text())
    first = next(each["id"] for each in objects["images"] if each["file_name"] == "0.png")
    areas = [each["area"] for each in objects["annotations"] if each["image_id"] == first]
    assert areas == [whole.sum()]
    assert line not in must(run("export", labels, "--format", "coco", "-o", out, "--overwrite", "--no-reviews")).err

    model = tmp_path / "model"
    assert line in must(run(*align_command(labels, out=model, models=models))).err
    must(run(*align_command(labels, out=model, models=models), "--resume"))
    log.append("rename", image="0.png", of=of, mask="+" + str(before.record.segments + 1), class_name="cat")
    refused = run(*align_command(labels, out=model, models=models), "--resume")
    assert refused.code == 2
    assert "the decisions of the review are not those that the run there began with" in refused.err
    must(run(*align_command(labels, out=model, models=models), "--resume", "--no-reviews"), code=2)
