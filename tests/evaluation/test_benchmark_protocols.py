import json
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from patchword.cli.app import app
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.record import BENCHMARKS
from patchword.evaluation.protocols import PROTOCOLS, ROWS, ProtocolName, ProtocolRow, protocol_row
from patchword.evaluation.suite import PUBLISHED, published_beside
from patchword.models.pixels import resize
from patchword.segmentation.methods import METHODS, Method

DOCS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
THRESHOLDS = {"voc21": 0.2, "context60": 0.15, "coco-object": 0.25}


@pytest.mark.parametrize("protocol", ["tcl448", "sclip336", "native"])
def test_every_protocol_has_a_row_for_every_benchmark(protocol: str):
    assert list(PROTOCOLS[protocol]) == list(BENCHMARKS)
    for name, row in PROTOCOLS[protocol].items():
        assert (row.protocol, row.benchmark) == (protocol, name)
        assert (row.background == "none") == (not BENCHMARKS[name].scores_background)
        assert (row.threshold > 0) == ("threshold" in row.background)
        assert bool(row.vocabulary().background) == ("words" in row.background)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_tcl448(name: str):
    settings = PROTOCOLS["tcl448"][name].settings()
    assert (settings.shorter_side, settings.longest_side, settings.window, settings.stride) == (448, 2048, 448, 224)
    assert settings.join == "logits"
    assert settings.temperature is None
    assert settings.image_size is None


@pytest.mark.parametrize("name", BENCHMARKS)
def test_sclip336(name: str):
    row = PROTOCOLS["sclip336"][name]
    settings = row.settings()
    larger = name in ("ade20k", "cityscapes")
    assert (settings.shorter_side, settings.longest_side) == (448 if larger else 336, 2048)
    assert (settings.window, settings.stride) == (224 if name == "cityscapes" else 336, 112)
    assert settings.temperature == pytest.approx(1 / 40)
    assert settings.softmax_over == "words"
    assert settings.join == "logits"
    assert settings.background_threshold == THRESHOLDS.get(name, 0.0)
    assert len(row.vocabulary().templates) == 80


def test_native_is_whole():
    for row in PROTOCOLS["native"].values():
        settings = row.settings()
        assert (settings.shorter_side, settings.window, settings.background_threshold) == (None, None, 0.0)
        assert len(row.vocabulary().templates) == 7


def test_templates_can_be_chosen_and_change_the_hash():
    row = PROTOCOLS["tcl448"]["voc20"]
    assert len(row.vocabulary(count=7).templates) == 7
    assert row.vocabulary(count=7).hash != row.vocabulary().hash
    with pytest.raises(PatchwordError, match=r"templates is 8 \(choose from 7, 80"):
        row.vocabulary(count=8)


def test_an_unknown_protocol_names_the_known_ones():
    with pytest.raises(
        PatchwordError, match=r"unknown protocol 'tcl' \(choose from tcl448, sclip336, native, published"
    ):
        protocol_row("tcl", benchmark=BENCHMARKS["voc20"])


METHODS_WITH_SETTINGS = [each for each in METHODS.values() if each.published]


@pytest.mark.parametrize("method", METHODS_WITH_SETTINGS, ids=lambda method: method.name)
@pytest.mark.parametrize("name", BENCHMARKS)
def test_published_is_what_the_methods_authors_set(method: Method, name: str):
    row = protocol_row("published", benchmark=BENCHMARKS[name], method=method.name)
    settings, theirs = row.settings().model_dump(), method.published[name].model_dump()
    assert settings.pop("temperature") == pytest.approx(theirs.pop("temperature"))
    assert settings == theirs
    assert bool(row.vocabulary().background) == BENCHMARKS[name].scores_background
    assert len(row.vocabulary().templates) == 80
    assert json.loads(json.dumps(dict(row.more))) == row.more, "a report holds it"


@pytest.mark.parametrize(
    ("method", "name", "words", "background"),
    [
        ("sclip", "voc21", 30, 26),
        ("sclip", "voc20", 30, 0),
        ("sclip", "coco-object", 87, 26),
        ("naclip", "voc21", 30, 26),
        ("naclip", "coco-object", 87, 26),
        ("clearclip", "voc21", 20, 1),
        ("clearclip", "coco-object", 80, 1),
        ("proxyclip", "voc21", 20, 26),
        ("proxyclip", "coco-object", 80, 17),
        ("clearclip", "context60", 59, 1),
    ],
)
def test_published_asks_in_the_authors_words(method: str, name: str, words: int, background: int):
    vocabulary = protocol_row("published", benchmark=BENCHMARKS[name], method=method).vocabulary()
    assert sum(len(entry.words) for entry in vocabulary.classes) == words
    assert len(vocabulary.background) == background


def test_sizes_that_the_authors_set_for_one_benchmark():
    def seen(method: str, name: str):
        row = protocol_row("published", benchmark=BENCHMARKS[name], method=method)
        return row.shorter_side, row.window, row.stride

    assert seen("sclip", "coco-stuff") == (448, 224, 112)
    assert seen("sclip", "ade20k") == (336, 224, 112)
    assert seen("naclip", "coco-stuff") == (336, 224, 112)
    assert seen("naclip", "voc21") == seen("naclip", "voc20") == (336, None, None)
    assert seen("naclip", "context60") == (336, 224, 112)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_naclip_is_refined_as_its_authors_do(name: str):
    settings = protocol_row("published", benchmark=BENCHMARKS[name], method="naclip").settings()
    assert (settings.refine, settings.partial_patches, settings.join) == ("pamr", "stretch", "logits")
    assert settings.pamr.dilations == (8, 16)
    assert (settings.pamr.iterations, settings.pamr.spreads, settings.pamr.guide) == (10, "cosines", "seen")


def test_published_resizes_in_whole_numbers_and_the_families_do_not():
    for method in METHODS_WITH_SETTINGS:
        assert {settings.resize for settings in method.published.values()} == {"uint8"}
    assert {row.resize for name in ("tcl448", "sclip336") for row in PROTOCOLS[name].values()} == {"plain"}


@pytest.mark.parametrize("method", [None, "maskclip"])
def test_published_is_refused_where_nothing_is_known(method: str | None):
    with pytest.raises(PatchwordError, match=r"is not known for .* \(choose from the methods sclip, clearclip"):
        protocol_row("published", benchmark=BENCHMARKS["voc21"], method=method)


def test_beside_a_method_as_published_stands_its_own_row_alone():
    assert [row.average for row in published_beside("published", method="sclip")] == [38.2]
    assert [row.average for row in published_beside("published", method="naclip")] == [39.4, 42.5]
    assert published_beside("published", method="clearclip") == ()


def test_the_documents_tables_are_the_codes():
    text = DOCS.read_text(encoding="utf-8")
    assert protocol_table() in text
    assert published_table() in text


def test_published_rows_are_those_of_their_family():
    assert [row.method for row in published_beside("sclip336")] == [
        "SCLIP",
        "NACLIP",
        "ProxyCLIP",
        "NACLIP with PAMR",
        "CorrCLIP-B",
        "CorrCLIP-L",
    ]
    assert {row.protocol for row in published_beside("tcl448")} == {"tcl448"}
    assert published_beside("native") == ()
    assert len({row.method for row in PUBLISHED}) == len(PUBLISHED)


def test_the_command_lists_all_of_them():
    ran = CliRunner().invoke(app, ["benchmarks"])
    assert ran.exit_code == 0
    for name, benchmark in BENCHMARKS.items():
        line = next(line for line in ran.stdout.splitlines() if line.startswith(f"{name} "))
        assert re.search(rf" {benchmark.class_count} +{benchmark.images:,} ", line)


def test_the_command_shows_one_in_full():
    ran = CliRunner().invoke(app, ["benchmarks", "voc21"])
    assert "ImageSets/Segmentation/val.txt (list), if it is there" in ran.stdout
    assert "sclip336: shorter side 336, windows 336 every 112, 80 templates, cosines x 40" in ran.stdout


def test_the_command_prints_json():
    ran = CliRunner().invoke(app, ["benchmarks", "--json"])
    found = {each["name"]: each for each in json.loads(ran.stdout)}
    assert list(found) == list(BENCHMARKS)
    assert found["coco-object"]["classes"] == 81
    assert found["cityscapes"]["protocols"]["sclip336"]["window"] == 224


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_the_command_prints_a_class_list_that_is_read_back(name: str) -> None:
    ran = CliRunner().invoke(app, ["benchmarks", name, "--class-list"])
    assert Vocabulary.parse(ran.stdout).hash == BENCHMARKS[name].vocabulary().hash


def test_a_class_list_is_of_one_benchmark() -> None:
    ran = CliRunner().invoke(app, ["benchmarks", "--class-list"])
    assert ran.exit_code == 2
    assert "--class-list needs a benchmark's name (choose from voc21" in ran.stderr


def test_plain_resizing_is_bilinear_without_antialiasing():
    images = torch.rand((1, 3, 9, 14), generator=torch.Generator().manual_seed(0))
    plain = resize(images, size=(5, 7), mode="bilinear", antialias=False)
    row, column = 3, 2
    y, x = (row + 0.5) * 9 / 5 - 0.5, (column + 0.5) * 14 / 7 - 0.5
    top, left = int(y), int(x)
    down, right = y - top, x - left
    corners = images[0, :, top : top + 2, left : left + 2]
    weights = torch.tensor([[(1 - down) * (1 - right), (1 - down) * right], [down * (1 - right), down * right]])
    torch.testing.assert_close(plain[0, :, row, column], (corners * weights).sum(dim=(1, 2)), atol=1e-5, rtol=0)
    assert not torch.allclose(plain, resize(images, size=(5, 7), mode="bilinear"), atol=1e-3)


@pytest.mark.parametrize(
    ("protocol", "expected"), [("tcl448", "plain"), ("sclip336", "plain"), ("native", "antialiased")]
)
def test_protocols_say_how_photographs_are_resized(protocol: ProtocolName, expected: str):
    assert {row.settings().resize for row in PROTOCOLS[protocol].values()} == {expected}


def protocol_table() -> str:
    """All rows as a Markdown table, as docs/benchmarks.md has it; their words are ProxyCLIP's."""
    names = [each.name for each in fields(ProtocolRow) if each.name not in ("words", "more")]
    lines = ["| " + " | ".join(name.replace("_", " ") for name in names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |" for row in ROWS]
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def published_table() -> str:
    """All rows as a Markdown table, as docs/benchmarks.md has it."""
    lines = ["| method | average | family |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.average:.1f} | {row.protocol or '-'} |" for row in PUBLISHED]
    return "\n".join(lines) + "\n"
