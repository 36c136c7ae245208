import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from benchmark_folders import every_value, make_split, make_voc, write_list

from patchword.config.evaluate import EvaluatedModel, SuiteConfig
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS, OpenBenchmark
from patchword.evaluation.suite import (
    SuiteEntry,
    SuiteRecord,
    plan_suite,
    published_beside,
    read_mapping,
    read_suite,
    run_suite,
)


def make_some(root: Path) -> Path:
    """A folder with VOC and ADE20K, and nothing else."""
    make_voc(root / "VOCdevkit" / "VOC2012")
    ade = root / "ade" / "ADEChallengeData2016"
    make_split(ade / "images/validation", ade / "annotations/validation", {"ADE_val_00000001": every_value(0, 150)})
    return root


def whole(opened: OpenBenchmark, miou: float) -> Any:
    return SimpleNamespace(miou=miou, images=opened.benchmark.images, chance=None)


def run(root: Path, out: Path, score: Any, **options: Any) -> SuiteRecord:
    plan = plan_suite("standard8", data=root)
    beside = published_beside("sclip336")
    config = SuiteConfig(data=root, judged=EvaluatedModel(), out=out, **options)
    return run_suite(plan, config, protocol="sclip336", row="model/", published=beside, score=score)


def test_what_is_there_is_planned_and_what_is_not_is_said(tmp_path: Path):
    plan = plan_suite("standard8", data=make_some(tmp_path))
    assert list(plan.found) == ["voc21", "voc20", "ade20k"]
    assert list(plan.missing) == ["context60", "coco-object", "context59", "coco-stuff", "cityscapes"]
    assert "leftImg8bit/val" in plan.missing["cityscapes"]


def test_a_benchmark_without_predictions_is_missing(tmp_path: Path):
    plan = plan_suite("standard8", data=make_some(tmp_path / "data"))
    (tmp_path / "predictions" / "ade20k").mkdir(parents=True)
    narrowed = plan.with_predictions(tmp_path / "predictions")
    assert list(narrowed.found) == ["ade20k"]
    assert narrowed.missing["voc21"] == f"there is no {tmp_path / 'predictions' / 'voc21'}"
    with pytest.raises(PatchwordError, match="no predictions of any benchmark; put them in folders named voc21, voc"):
        plan.with_predictions(tmp_path / "data")


def test_all_eight_are_found_in_one_data_folder_of_a_toolbox(tmp_path: Path):
    """The tree that mmsegmentation asks for, the masks of COCO-Object beside those of COCO-Stuff."""
    make_voc(tmp_path / "VOCdevkit" / "VOC2012")
    context, coco = tmp_path / "VOCdevkit" / "VOC2010", tmp_path / "coco_stuff164k"
    ade, cities = tmp_path / "ade" / "ADEChallengeData2016", tmp_path / "cityscapes"
    make_split(context / "JPEGImages", context / "SegmentationClassContext", {"2008_000002": [[0, 59]]})
    write_list(context / "ImageSets" / "SegmentationContext" / "val.txt", ["2008_000002"])
    for suffix in ("", "_labelTrainIds", "_instanceTrainIds"):
        masks = {"000000000139": [[0, 1]]}
        make_split(coco / "images/val2017", coco / "annotations/val2017", masks, suffix=f"{suffix}.png")
    make_split(ade / "images/validation", ade / "annotations/validation", {"ADE_val_00000001": [[0, 1]]})
    for suffix in ("labelIds", "labelTrainIds"):
        make_split(
            cities / "leftImg8bit/val/munster",
            cities / "gtFine/val/munster",
            {"munster_000000_000019": [[7, 7]]},
            photo_suffix="_leftImg8bit.png",
            suffix=f"_gtFine_{suffix}.png",
        )
    plan = plan_suite("standard8", data=tmp_path)
    assert list(plan.found) == list(BENCHMARKS)
    assert {name: opened.layout for name, opened in plan.found.items() if "voc" not in name} == {
        "context60": "converted masks SegmentationClassContext",
        "coco-object": "converted masks _instanceTrainIds.png",
        "context59": "converted masks SegmentationClassContext",
        "coco-stuff": "converted masks _labelTrainIds.png",
        "cityscapes": "gtFine with labelTrainIds",
        "ade20k": "ADEChallengeData2016",
    }
    for opened in plan.found.values():
        for pair in opened.pairs:
            assert opened.truth.read_truth(pair).max() < len(opened.truth.names)


def test_a_partial_split_is_marked_and_makes_no_average(tmp_path: Path):
    record = run(
        make_some(tmp_path / "data"),
        tmp_path / "out",
        lambda *_: SimpleNamespace(miou=0.5, images=2, chance=SimpleNamespace(at_chance=True)),
    )
    assert {entry.benchmark: entry.status for entry in record.entries}["voc21"] == "partial"
    assert record.average is None
    page = (tmp_path / "out" / "suite.md").read_text()
    assert "| 50.0%* |" in page
    assert "voc21 is over 2 photographs, its split has 1,449" in page
    assert "cityscapes is missing" in page
    assert "no average" in page
    assert "at the level of chance: voc21, voc20, ade20k" in page


def test_the_table_is_of_one_family_and_marks_every_row(tmp_path: Path):
    record = run(make_some(tmp_path / "data"), tmp_path / "out", lambda opened, _: whole(opened, 0.4))
    head, ours, *others = record.rows()
    assert head == ["mIoU", *BENCHMARKS, "average", ""]
    assert ours[0] == "model/"
    assert ours[-1] == "measured"
    assert [row[0] for row in others] == [
        "SCLIP",
        "NACLIP",
        "ProxyCLIP",
        "NACLIP with PAMR",
        "CorrCLIP-B",
        "CorrCLIP-L",
    ]
    assert all(row[-1] == "published" and len(row) == len(head) for row in others)
    assert dict(zip(head, others[0], strict=True))["average"] == "38.2%"


def test_more_photographs_than_the_split_has_make_no_average_either(tmp_path: Path):
    more = SimpleNamespace(miou=0.5, images=2913, chance=None)
    record = run(make_some(tmp_path / "data"), tmp_path / "out", lambda *_: more)
    assert record.entries[0].status == "partial"
    assert "voc21 is over 2,913 photographs, its split has 1,449" in record.remarks()[0]


def entries(**other: Any) -> tuple[SuiteEntry, ...]:
    """All eight measured whole, 0, 10, 20 % and so on, but for those given."""
    found = {
        name: SuiteEntry(benchmark=name, status="measured", miou=position / 10, images=each.images, of=each.images)
        for position, (name, each) in enumerate(BENCHMARKS.items())
    }
    return tuple({**found, **other}.values())


def record_of(
    *values: SuiteEntry, protocol: str | None = "tcl448", changed: dict[str, Any] | None = None
) -> SuiteRecord:
    return SuiteRecord(
        suite="standard8",
        protocol=protocol,
        row="ours",
        changed=changed or {},
        entries=values,
        published=published_beside(protocol) if protocol else (),
        command=None,
        versions={},
    )


def test_the_average_is_over_all_eight():
    record = record_of(*entries())
    assert record.average == pytest.approx(0.35)
    assert record.remarks() == []
    assert "| 35.0% | measured |" in record.markdown()


@pytest.mark.parametrize("status", ["partial", "missing", "waiting"])
def test_there_is_no_average_where_one_is_not_whole(status: Any):
    one = SuiteEntry(benchmark="voc20", status=status, miou=0.9, images=3, of=1449)
    record = record_of(*entries(voc20=one))
    assert record.average is None
    assert any("no average" in line for line in record.remarks())


def test_a_benchmark_without_a_score_makes_no_average():
    one = SuiteEntry(benchmark="voc20", status="measured", miou=None, images=1449, of=1449)
    assert record_of(*entries(voc20=one)).average is None


def test_native_has_nothing_published_beside_it():
    record = record_of(*entries(), protocol="native")
    assert len(record.rows()) == 2
    assert record.remarks() == ["no published numbers have the protocol native"]


def test_settings_that_are_not_the_protocols_are_said():
    record = record_of(*entries(), changed={"window": 224})
    assert record.rows()[1][-1] == "measured, protocol changed"
    assert record.remarks() == ["not as the protocol tcl448 has it: window=224"]


def test_predictions_have_nothing_published_beside_them():
    record = record_of(*entries(), protocol=None)
    assert len(record.rows()) == 2
    assert "unknown protocol" in record.remarks()[0]


def test_the_record_reads_back(tmp_path: Path):
    out = tmp_path / "out"
    record = run(make_some(tmp_path / "data"), out, lambda opened, _: whole(opened, 0.4), command="patchword evaluate")
    assert read_suite(out) == record
    assert json.loads((out / "suite.json").read_text())["average"] is None


def test_what_was_measured_before_an_interruption_is_on_disk(tmp_path: Path):
    seen: list[str] = []

    def score(opened: OpenBenchmark, folder: Path) -> Any:
        seen.append(opened.benchmark.name)
        if opened.benchmark.name == "voc20" and len(seen) == 2:
            raise KeyboardInterrupt
        return whole(opened, 0.4)

    root, out = make_some(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(root, out, score)
    statuses = {entry.benchmark: entry.status for entry in read_suite(out).entries}
    assert (statuses["voc21"], statuses["voc20"], statuses["context59"]) == ("measured", "waiting", "missing")
    with pytest.raises(PatchwordError, match="not empty"):
        run(root, out, score)
    run(root, out, score, resume=True)
    assert {entry.status for entry in read_suite(out).entries} == {"measured", "missing"}


def test_every_benchmark_gets_a_folder_of_its_own(tmp_path: Path):
    folders: list[Path] = []

    def score(opened: OpenBenchmark, folder: Path) -> Any:
        folders.append(folder)
        return whole(opened, 0.1)

    run(make_some(tmp_path / "data"), tmp_path / "out", score)
    assert folders == [tmp_path / "out" / name for name in ("voc21", "voc20", "ade20k")]


def test_a_suite_is_not_gone_on_with_by_another_protocol(tmp_path: Path):
    root, out = make_some(tmp_path / "data"), tmp_path / "out"
    run(root, out, lambda opened, _: whole(opened, 0.4))
    plan = plan_suite("standard8", data=root)
    config = SuiteConfig(data=root, judged=EvaluatedModel(), out=out, resume=True)
    with pytest.raises(PatchwordError, match="holds standard8 by sclip336, not standard8 by tcl448"):
        run_suite(plan, config, protocol="tcl448", row="x", score=cast(Any, None))


def test_a_file_says_where_each_is(tmp_path: Path):
    make_voc(tmp_path / "here" / "VOC2012")
    listed = tmp_path / "where.txt"
    listed.write_text("# benchmarks\n\nvoc21: here  # the devkit\nVOC20: here/VOC2012\n")
    assert read_mapping(listed) == {"voc21": tmp_path / "here", "voc20": tmp_path / "here" / "VOC2012"}
    plan = plan_suite("standard8", data=listed)
    assert list(plan.found) == ["voc21", "voc20"]
    assert "does not name it" in plan.missing["ade20k"]


def test_a_benchmark_that_the_file_names_must_be_there(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    listed = tmp_path / "where.txt"
    listed.write_text("cityscapes: empty\n")
    with pytest.raises(PatchwordError, match=r"cityscapes is not in .*empty"):
        plan_suite("standard8", data=listed)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("voc21 data\n", "where.txt:1: cannot read 'voc21 data'"),
        ("voc21: a\nvoc21: b\n", "where.txt:2: voc21 is named twice"),
        ("kitti: a\n", "unknown benchmark 'kitti'"),
    ],
)
def test_a_file_that_is_not_understood(tmp_path: Path, text: str, said: str):
    listed = tmp_path / "where.txt"
    listed.write_text(text)
    with pytest.raises(PatchwordError, match=said):
        read_mapping(listed)


def test_no_benchmark_at_all(tmp_path: Path):
    with pytest.raises(PatchwordError, match="no benchmark of standard8 is in"):
        plan_suite("standard8", data=tmp_path)


def test_an_unknown_suite(tmp_path: Path):
    with pytest.raises(PatchwordError, match=r"unknown suite 'standard9' \(choose from standard8"):
        plan_suite("standard9", data=tmp_path)


def test_a_damaged_record_is_named(tmp_path: Path):
    (tmp_path / "suite.json").write_text("{}")
    with pytest.raises(PatchwordError, match=r"suite.json is damaged: field 'suite' is missing"):
        read_suite(tmp_path)
