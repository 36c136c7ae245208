"""quality.jsonl and report.html of a data set: complete, the same bytes however they came about, and fit to be read."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_fakes import ColourClip, RegionSam, picture
from PIL import Image
from typer.testing import CliRunner

from patchword.cli.app import app
from patchword.config.label import LabelSettings
from patchword.data.image_files import find_images
from patchword.data.manifest import Manifest
from patchword.data.masks import LabelMap
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.image import LabelParts
from patchword.labeling.quality.report import ReportSettings, gather_quality, write_report
from patchword.labeling.run import label_folder

PICTURES = {
    "a <b> & 'c'.png": [["red", "red", "blue"]],
    "b.png": [["yellow"]],
    "sub/a.png": [["red"], ["blue"], ["blue"]],
    "twin.png": [["yellow"]],
    "white.png": [["white"]],
    "é ü.png": [["blue", "yellow"]],
}
LABELLED = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    for name, rows in PICTURES.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(rows, scale=16)).save(path)
    (folder / "photos" / "broken <i>.jpg").write_bytes(b"no picture")
    vocabulary = Vocabulary.of(["red", "blue", "sol; yellow"], background=["white"])
    parts = LabelParts.of(ColourClip(), mask_generator=RegionSam(), vocabulary=vocabulary)
    photos = find_images(folder / "photos")
    settings = LabelSettings(generator="both", sampling_clusters=4, stability_score_offset=0.5)
    label_folder(photos, root=folder / "photos", out=folder / "labels", parts=parts, settings=settings, quiet=True)
    return folder


@pytest.fixture
def labels(made: Path, tmp_path: Path) -> Path:
    for name in ("photos", "labels"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path / "labels"


def products(labels: Path) -> tuple[bytes, bytes]:
    return (labels / "quality.jsonl").read_bytes(), (labels / "report.html").read_bytes()


def lines(labels: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (labels / "quality.jsonl").read_text().splitlines()]


def test_the_run_leaves_a_line_a_photograph(labels: Path) -> None:
    assert [line["name"] for line in lines(labels)] == sorted(PICTURES)
    records = list(LabelledDataset.open(labels).quality())
    assert [record.model_dump(mode="json") for record in records] == lines(labels)
    both = records[0]
    assert both.score > 0.9
    assert both.parts.pixel_agreement == 1
    assert {mask.generator for mask in both.masks} == {"clip-prompts-sam", "sam-then-clip"}
    assert both.pixels == {"red": 512, "blue": 256}


def test_segments_and_masks_give_the_same_bytes_again(labels: Path) -> None:
    before = products(labels)
    for name in ("quality.jsonl", "report.html"):
        (labels / name).unlink()
    assert len(list(LabelledDataset.open(labels).quality())) == len(PICTURES)
    assert not (labels / "quality.jsonl").exists()
    write_report(labels)
    assert products(labels) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"{}\n[]\nnonsense\n" + data,
        lambda data: data.replace(b'"score"', b'"store"', 2),
        lambda data: data + b'{"name": "gone.png", "score": 1}\n',
        lambda data: b"".join(reversed(data.splitlines(keepends=True))) + data,
        lambda data: b'{"name": "b.png", "score": 7}\n' + data,
    ],
    ids=["cut off", "damaged", "of another version", "of a photograph that is gone", "twice", "older line"],
)
def test_whatever_became_of_the_file_it_ends_the_same(labels: Path, change: Any) -> None:
    before = products(labels)
    path = labels / "quality.jsonl"
    path.write_bytes(change(path.read_bytes()))
    write_report(labels)
    assert products(labels) == before


def test_lines_that_are_there_are_taken_as_they_are(labels: Path) -> None:
    """Else the test above would hold for a file that is never read."""
    path = labels / "quality.jsonl"
    path.write_text(path.read_text().replace('"score": 0.', '"score": 1.'))
    assert next(iter(LabelledDataset.open(labels).quality())).score >= 1


def test_lines_of_shards_come_together(labels: Path, tmp_path: Path) -> None:
    before = products(labels)
    data = before[0].splitlines(keepends=True)
    for number, part in enumerate((data[::2], data[1::2])):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "quality.jsonl").write_bytes(b"".join(part))
    gather_quality([tmp_path / "1", tmp_path / "nowhere", tmp_path / "0"], into=labels)
    write_report(labels)
    assert products(labels) == before


def test_a_manifest_goes_on_after_a_long_line_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    whole = b'{"name": "a", "text": "' + b"x" * 200_000 + b'"}\n'
    path.write_bytes(whole + whole[:150_000])
    with Manifest(path) as manifest:
        manifest.append({"name": "b"})
    assert path.read_bytes() == whole + b'{"name": "b"}\n'
    path.write_bytes(whole[:150_000])
    with Manifest(path) as manifest:
        manifest.append({"name": "b"})
    assert path.read_bytes() == b'{"name": "b"}\n'


class Reader(HTMLParser):
    """Collects what matters of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(labels: Path) -> Reader:
    return Reader((labels / "report.html").read_text(encoding="utf-8"))


def test_the_page_stands_alone(labels: Path) -> None:
    page = (labels / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|url\(|<link|<iframe", page)
    found = read(labels)
    assert all(
        str(image["src"]).startswith(("data:image/jpeg;base64,", "data:image/png;base64,"))
        for image in found.all("img")
    )
    assert [script.keys() for script in found.all("script")] == [{}.keys()]


def test_the_page_can_be_read_by_everybody(labels: Path) -> None:
    found = read(labels)
    assert found.all("html") == [{"lang": "en"}]
    images = found.all("img")
    assert len(images) == 2 * LABELLED
    assert all(image["alt"] for image in images)
    assert any(image["alt"] == "labels of sub/a.png: blue 67 %, red 33 %" for image in images)
    assert {cell.get("scope") for cell in found.all("th")} == {"row", "col"}
    assert len(found.all("caption")) == len(found.all("table"))
    assert all(bars["aria-label"] for bars in found.all("ol"))


def test_the_page_says_everything(labels: Path) -> None:
    text = read(labels).text
    for words in (
        "a <b> & 'c'.png",
        "broken <i>.jpg",
        "could not be labelled: 1",
        "without any label: 1",
        "nothing detected",
        "content as another: 1",
        "colour-clip",
        "region-sam",
        "sampling_clusters",
        "; yellow",
        "it is not an accuracy",
    ):
        assert words in text, words


def test_the_filter_knows_the_classes_of_each_photograph(labels: Path) -> None:
    found = read(labels)
    rows = [attributes["data-classes"] for attributes in found.all("tr") if "data-classes" in attributes]
    assert sorted(str(row) for row in rows) == [" 0 1 ", " 0 1 ", " 1 2 ", " 2 ", " 2 "]
    assert [option["value"] for option in found.all("option")] == ["", "0", "1", "2"]


def test_the_page_is_bounded_and_says_what_is_left_out(labels: Path) -> None:
    write_report(labels, settings=ReportSettings(worst=2, best=1, rows=3))
    found = read(labels)
    assert len(found.all("img")) == 2 * (2 + 1)
    assert "2 of 5 photographs with labels" in found.text
    assert "The 3 with the lowest score; 2 more are in quality.jsonl" in found.text


def test_a_photograph_that_is_gone_is_left_out_of_the_pictures(labels: Path) -> None:
    (labels.parent / "photos" / "sub" / "a.png").write_bytes(b"no picture any more")
    Image.new("RGB", (3, 3)).save(labels.parent / "photos" / "b.png")
    write_report(labels)
    found = read(labels)
    assert len(found.all("img")) == 2 * (LABELLED - 2)
    assert found.text.count("No picture:") == 2
    assert "another size" in found.text


def test_large_photographs_become_small_pictures(labels: Path) -> None:
    red = picture([["red", "red", "blue"]], scale=100)
    Image.fromarray(red).save(labels.parent / "photos" / "b.png")
    LabelMap(np.zeros(red.shape[:2], dtype=np.uint8), ("red", "blue", "sol")).save(labels / "masks" / "b.png.png")
    write_report(labels, settings=ReportSettings(picture_side=64))
    files = (base64.b64decode(str(image["src"]).partition(",")[2]) for image in read(labels).all("img"))
    sizes = [Image.open(io.BytesIO(file)).size for file in files]
    assert sizes.count((64, 21)) == 2
    assert max(map(max, sizes)) == 64


def test_labels_from_elsewhere_have_no_quality(labels: Path) -> None:
    path = labels / "dataset.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": None, "source": "coco"}))
    with pytest.raises(PatchwordError, match="imported"):
        LabelledDataset.open(labels).quality()
    with pytest.raises(PatchwordError, match="imported"):
        write_report(labels)


def test_damaged_segments_are_named(labels: Path) -> None:
    (labels / "quality.jsonl").unlink()
    path = labels / "segments" / "b.png.json"
    good = json.loads(path.read_text())
    for bad in ("{", "[]", "{}", json.dumps(good | {"detected": []}), json.dumps(good | {"segments": [1]})):
        path.write_text(bad)
        with pytest.raises(PatchwordError, match=r"b\.png\.json is damaged"):
            write_report(labels)


def test_the_command_lists_the_worst(labels: Path) -> None:
    before = products(labels)
    for name in ("quality.jsonl", "report.html"):
        (labels / name).unlink()
    found = CliRunner().invoke(app, ["quality", str(labels), "--worst", "2"])
    assert found.exit_code == 0, found.output
    assert products(labels) == before
    printed = [line.split() for line in found.output.splitlines()]
    assert ["photographs", "with", "labels", "5"] in printed
    ranked = sorted(lines(labels), key=lambda line: (line["score"], line["name"]))
    worst = [line["name"] for line in ranked if line["pixels"]]
    assert sum(name in found.output for name in worst) == 2
    assert found.output.index(worst[0]) < found.output.index(worst[1])
    assert str(labels / "report.html") in found.output


def test_the_command_prints_json(labels: Path) -> None:
    found = CliRunner().invoke(app, ["quality", str(labels), "--worst", "1", "--json"])
    data = json.loads(found.output)
    assert (data["images"], data["ok"], data["empty"], data["failed"]) == (7, 5, 1, 1)
    assert {row["name"]: (row["images"], row["pixels"]) for row in data["classes"]} == {
        "red": (2, 768),
        "blue": (3, 1024),
        "sol": (3, 768),
    }
    assert {(pair["first"], pair["second"]): pair["images"] for pair in data["together"]} == {
        ("blue", "red"): 2,
        ("blue", "sol"): 1,
    }
    assert len(data["worst"]) == 1
    assert sum(data["score_histogram"]) == sum(data["coverage_histogram"]) == 5


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["quality", str(tmp_path / "nowhere")])
    assert found.exit_code == 2
    assert len(found.output.strip().splitlines()) == 1
    assert "no such folder" in found.output
