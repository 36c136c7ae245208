"""Config files: what is printed is read again, and mistakes in one are one line."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typer

import patchword as pw
from patchword.cli.app import app
from patchword.cli.build import parameters_of
from patchword.config.align import AlignCommand
from patchword.config.base import Config
from patchword.config.evaluate import EvaluateCommand
from patchword.config.exchange import ExportCommand, ImportCommand
from patchword.config.label import LabelCommand, LabelConfig
from patchword.config.others import (
    AblateConfig,
    BenchmarksConfig,
    CheckConfig,
    DemoConfig,
    EncodersConfig,
    FetchConfig,
    ListConfig,
    MergeConfig,
    MethodsConfig,
    PushConfig,
    QualityConfig,
)
from patchword.config.segment import SegmentCommand
from patchword.config.serve import LabelStudioConfig, ServeConfig
from patchword.config.suggest import SuggestCommand
from patchword.errors import PatchwordError
from small_world import must, run
from tools.docs_settings import on_page_markdown

TYPED: dict[type[Config], tuple[str, ...]] = {
    LabelCommand: ("photos", "--classes", 'cat, "a, b"', "-o", "out", "--mask-proposer", "sam", "--set", "seeds=grid"),
    AlignCommand: ("labels", "-o", "out", "--seed", "3", "--set", "tracker=off", "--set", "learning_rate=1e-5"),
    SegmentCommand: ("p", "--model", "m", "-o", "out", "--refine", "none", "--soft", "cat", "--set", "jbu.radius=3"),
    EvaluateCommand: ("p", "--benchmark", "b", "--reduce-zero-label", "--worst", "3", "--set", "window=9"),
    SuggestCommand: ("p", "-o", "out", "--sample", "3", "--set", "crops.grids=[1, 2]"),
    ExportCommand: ("m", "--format", "onnx", "-o", "m.onnx", "--opset", "18", "--set", "tolerance=1e-3"),
    ImportCommand: ("f", "--format", "coco", "--photos", "p", "--classes", "cat", "-o", "out"),
    MergeConfig: ("a", "b", "-o", "out"),
    QualityConfig: ("labels", "--worst", "3"),
    AblateConfig: ("grid.json", "-o", "out", "--dtype", "float16"),
    PushConfig: ("model", "user/name", "--private"),
    BenchmarksConfig: ("voc21", "--class-list"),
    CheckConfig: ("a", "b", "--reference", "--dtype", "float32"),
    FetchConfig: ("a", "--to", "weights"),
    ListConfig: (),
    EncodersConfig: (),
    MethodsConfig: (),
    DemoConfig: ("-o", "out", "--scenes", "12"),
    LabelStudioConfig: ("--label-studio-url", "http://a", "--background", "sky", "--set", "queue=3"),
    ServeConfig: ("--model", "a", "--model", "b.onnx", "--port", "9000", "--set", "queue=3"),
}


@pytest.mark.parametrize("kind", TYPED, ids=lambda kind: kind.COMMAND)
def test_what_is_printed_is_read_again(kind: type[Config], tmp_path: Path) -> None:
    command = kind.COMMAND.split()
    first = must(run(*command, *TYPED[kind], "--print-config")).out
    file = tmp_path / "run.yaml"
    file.write_text(first)
    assert must(run(*command, "--config", file, "--print-config")).out == first
    file.write_text(first.replace("{}", "") + "nothing: 1\n")
    complaint = must(run(*command, "--config", file), code=2).complaint
    assert f"{file}: option 'nothing' is unknown" in complaint


def test_one_source_in_a_file_is_one_where_several_may_be(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("shards: labels\nout: out\n")
    assert "\nshards: labels\n" in must(run("merge", "--config", tmp_path / "run.yaml", "--print-config")).out


def test_a_flag_of_another_library_stands_for_a_value() -> None:
    assert "\nzero_is: ignore\n" in must(run("evaluate", "p", "--reduce-zero-label", "--print-config")).out
    assert "--reduce-zero-label" not in must(run("evaluate", "--help")).out


def test_what_is_typed_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(
        '{"photos": "a", "classes": ["cat"], "out": "b", "limit": 3, "settings": {"peaks": 2, "margin": 0.5}}'
    )
    said = must(run("label", "--config", file, "--limit", 5, "--set", "margin=0.25", "--print-config")).out
    for line in ("photos: a", "limit: 5", "  margin: 0.25", "  peaks: 2"):
        assert f"\n{line}\n" in said, line


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("out: [", "this is not YAML"),
        ("just words", "must hold options, a line each"),
        ("out: x\nclasses: cat\ndtype: half", "--dtype is 'half'; choose from auto, float32, bfloat16, float16"),
        ("classes: cat", "label needs --out"),
    ],
)
def test_mistakes_in_a_file_are_one_line(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    assert told in must(run("label", "photos", "--config", file), code=2).complaint


def test_plain_words_of_yaml_stay_words(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("labels: no\nout: 2026-01-01\nsettings: {tracker: off, learning_rate: 1e-5}\n")
    said = must(run("align", "--config", file, "--print-config")).out
    assert "tracker: 'off'" in said
    assert "learning_rate: 1.0e-05" in said


@pytest.mark.parametrize("kind", TYPED, ids=lambda kind: kind.COMMAND)
def test_help_names_every_option_once(kind: type[Config]) -> None:
    names = [name for name, _ in parameters_of(kind)]
    assert len(names) == len(set(names))
    said = must(run(*kind.COMMAND.split(), "--help")).out
    assert kind.EXAMPLES
    assert all(example.split(" --")[0] in said for example in kind.EXAMPLES)


def test_python_functions_show_their_options() -> None:
    parameters = inspect.signature(pw.label).parameters
    assert list(parameters)[:3] == ["photos", "classes", "out"]
    assert parameters["dtype"].default == "auto"
    assert "    shard: Take part I of N" in (pw.label.__doc__ or "")
    for wrong, told in (({"limit": 0}, "'limit' is 0"), ({"sharp": 1}, "'sharp' is unknown; did you mean 'shard'")):
        with pytest.raises(PatchwordError, match=told):
            pw.label("photos", classes="cat", out="out", **wrong)  # type: ignore[call-overload]
    with pytest.raises(PatchwordError, match="absent"):
        pw.label("absent", config=LabelConfig(classes="cat", out="out"))


def test_every_command_is_made_from_a_config() -> None:
    groups = {"": typer.main.get_command(app)}
    groups |= {f"{name} ": each for name, each in groups[""].commands.items() if hasattr(each, "commands")}  # type: ignore[attr-defined]
    names = {group + name for group, each in groups.items() for name in each.commands}  # type: ignore[attr-defined]
    assert names - {group.strip() for group in groups} == {kind.COMMAND for kind in TYPED}


@pytest.mark.parametrize("kind", TYPED, ids=lambda kind: kind.COMMAND)
def test_the_reference_has_every_option_once(kind: type[Config]) -> None:
    pages = [page.read_text() for page in (Path(__file__).parents[1] / "docs" / "reference").glob("*.md")]
    line = f"options: {kind.__module__}.{kind.__name__}\n"
    assert [page.count(line) for page in pages if line in page] == [1]
    table = on_page_markdown(line)
    asked = [typed.__metadata__[0] for name, typed in parameters_of(kind)]
    flags = {flag.split("/")[0] for each in asked if not each.hidden for flag in each.param_decls or ()}
    for flag in flags - {"--set", "--config", "--print-config"}:
        assert table.count(f"`{flag}`") == (len(flag) > 2), flag
