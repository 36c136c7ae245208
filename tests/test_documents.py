"""README and docs are true where a program can tell: links, commands, settings, Python, fields of files."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import Any, Literal

import pytest
import typer
from pydantic import BaseModel, Field

import patchword
from patchword.alignment.artifact import ArtifactConfig, ModuleShape, StepRecord, Tower, TrainingFacts
from patchword.cli.app import app
from patchword.cli.terminal import parse_settings
from patchword.config.align import AlignSettings
from patchword.config.base import Settings
from patchword.config.exchange import ExportSettings, ImportSettings, OnnxSettings
from patchword.config.label import LabelSettings
from patchword.config.segment import FolderSettings, SegmentSettings
from patchword.data.masks import Segment
from patchword.evaluation.benchmarks.record import BENCHMARKS
from patchword.evaluation.masks import DataRecord
from patchword.evaluation.protocols import PROTOCOLS
from patchword.evaluation.records import ImageScore, SetupRecord
from patchword.evaluation.report import ClassReport, EvaluationReport
from patchword.evaluation.suite import SUITES, SuiteEntry, SuiteRecord
from patchword.export.job import Slivers
from patchword.export.outlines import PolygonLoss
from patchword.export.run import ExportSummary
from patchword.labeling.quality.records import (
    ImageUncertainty,
    MaskQuality,
    MaskUncertainty,
    QualityParts,
    QualityRecord,
)
from patchword.labeling.records import Counts, DatasetRecord, ImageRecord
from patchword.models.protocols import ModelRecord
from patchword.models.registry import PRESETS
from patchword.runs.records import Numerics, SessionRecord, ShardRecord, VocabularyRecord
from patchword.segmentation.methods import METHODS
from patchword.segmentation.records import ClassArea, ResultRecord, SegmentationRecord, TilesRecord
from patchword.segmentation.records import Counts as SegmentationCounts
from patchword.segmentation.result import SegmentationResult
from tools.docs_settings import settings_table

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SETTINGS: dict[str, tuple[type[Settings], ...]] = {
    "label": (LabelSettings,),
    "align": (AlignSettings,),
    "segment": (SegmentSettings, FolderSettings),
    "evaluate": (SegmentSettings,),
    "export": (ExportSettings, OnnxSettings),
    "import": (ImportSettings,),
}
NAMES: dict[str, Any] = {
    "benchmark": BENCHMARKS,
    "suite": SUITES,
    "protocol": PROTOCOLS,
    "preset": PRESETS,
    "method": METHODS,
}
ON_DISK: dict[str, list[Any]] = {
    "labels/": [
        DatasetRecord,
        VocabularyRecord,
        ShardRecord,
        Counts,
        Numerics,
        ImageRecord,
        Segment,
        QualityRecord,
        QualityParts,
        MaskQuality,
        ImageUncertainty,
        MaskUncertainty,
    ],
    "model/": [ArtifactConfig, Tower, ModuleShape, TrainingFacts, StepRecord],
    "out/ (segment)": [ResultRecord, ClassArea, TilesRecord, SegmentationRecord, SegmentationCounts],
    "evaluation/": [EvaluationReport, ClassReport, DataRecord, SetupRecord, ImageScore, SuiteRecord, SuiteEntry],
    "Other folders": [ExportSummary, Slivers, PolygonLoss],
    "Models in records": [ModelRecord],
    "runs.jsonl": [SessionRecord],
}


def commands(page: Path) -> list[list[str]]:
    """The `patchword` commands of a page's blocks of code, without what a shell does with their output."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```|((?:^    .*\n)+)", text, re.MULTILINE | re.DOTALL)
    joined = "\n".join(fenced or indented for fenced, indented in blocks).replace("\\\n", " ")
    lines = [line.strip().partition(" > ")[0] for line in joined.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("patchword ")]


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that is meant, and its parameters by name; a usage error where they are not understood."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("patchword", list(words), resilient_parsing=True)
    name = words[0]
    while hasattr(command, "commands"):
        name, words = words[0], words[1:]
        command = command.commands[name]
    return name, command.make_context(name, list(words), parent=context).params


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links, by the rule of the renderers: lower case, words joined by dashes."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in [link for link in links if "://" not in link]:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_path_of_the_repository_exists() -> None:
    folders = r"(?:src|tests|tools|benchmarks|docs|\.ci)"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        paths = re.findall(rf"`({folders}/[\w./-]+)`", text) + re.findall(r"python (benchmarks/\w+\.py)", text)
        assert not [path for path in paths if not (ROOT / path).exists()], page.name


def test_benchmarks_import_what_there_is() -> None:
    for path in (ROOT / "benchmarks").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "patchword":
                exec(ast.unparse(node), {})


def test_every_command_is_understood() -> None:
    found = [(page.name, words) for page in PAGES for words in commands(page)]
    assert {name for name, _ in found} >= {"README.md", "guide.md", "reproduce.md", "large.md", "deploy.md"}
    for page, words in found:
        where = f"{page}: patchword {' '.join(words)}"
        try:
            name, parameters = parse(words)
        except Exception as error:
            raise AssertionError(f"{where}: {error}") from error
        for option, known in NAMES.items():
            value = parameters.get(option)
            several = value if isinstance(value, list | tuple) else () if value is None else (value,)
            assert all(each in known for each in several), where
        numbers = parse_settings(parameters.get("settings") or [])
        kinds = SETTINGS.get(name, ())
        for kind in kinds:
            kind(**{key: value for key, value in numbers.items() if key.partition(".")[0] in kind.model_fields})
        known_settings = {key for kind in kinds for key in kind.model_fields}
        assert not kinds or all(key.partition(".")[0] in known_settings for key in numbers), where


def test_a_command_that_is_not_understood_is_found() -> None:
    with pytest.raises(Exception, match=r"No such option.*--nothing"):
        parse(["label", "photos", "--classes", "a", "-o", "b", "--nothing"])


def test_the_python_of_the_readme_calls_functions_with_their_parameters() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    owners: dict[str, Any] = {"pw": patchword, "model": patchword.Segmenter, "result": SegmentationResult}
    called = []
    calls = [node for node in ast.walk(ast.parse(example)) if isinstance(node, ast.Call)]
    for call in calls:
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            owner = owners[call.func.value.id]
            itself = [None] if inspect.isclass(owner) else []
            keywords: Any = {keyword.arg: None for keyword in call.keywords}
            inspect.signature(getattr(owner, call.func.attr)).bind(*itself, *call.args, **keywords)
            called.append(call.func.attr)
    assert {"label", "align", "segment", "evaluate"} <= set(called)


@pytest.mark.parametrize("section", ON_DISK)
def test_every_field_on_disk_is_described(section: str) -> None:
    text = (ROOT / "docs" / "on-disk.md").read_text(encoding="utf-8")
    (described,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    for record in ON_DISK[section]:
        fields = record.model_fields if issubclass(record, BaseModel) else inspect.signature(record).parameters
        names = ["rle" if record is Segment and name == "encoded" else name for name in fields]
        missing = [name for name in names if f"`{name}`" not in described]
        if record is ExportSummary:
            missing.remove("path")  # not in the file
        assert not missing, f"{record.__name__}: {missing}"


def described_objects() -> list[str]:
    """Dotted names that the pages of the reference describe."""
    pages = sorted((ROOT / "docs" / "reference").glob("*.md"))
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(r"^(?:::: |settings: )([\w.]+)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", described_objects())
def test_the_reference_describes_what_there_is(name: str) -> None:
    home, _, attribute = name.rpartition(".")
    described = getattr(importlib.import_module(home), attribute)
    text = inspect.getdoc(described) or ""
    assert text
    if inspect.isfunction(described):
        for arguments in re.findall(r"^Args:\n((?:(?:    .*)?\n)+)", text, re.MULTILINE):
            named = ", ".join(re.findall(r"^    (\w+(?:, \w+)*):", arguments, re.MULTILINE)).split(", ")
            assert sorted(named) == sorted(inspect.signature(described).parameters)


def test_settings_are_shown_with_their_choices_and_limits() -> None:
    class Example(Settings):
        kind: Literal["a", "b"] | None = Field(None, description="Which | one")
        share: float = Field(0.5, gt=0, le=1, description="How much")
        inner: ImportSettings = ImportSettings()

    assert settings_table(Example).splitlines()[2:] == [
        "| `kind` | none | `a`, `b` | Which \\| one |",
        "| `share` | `0.5` | above 0, at most 1 | How much |",
    ]


def test_imports_across_the_layers_are_on_the_page() -> None:
    low = {"runs", "models", "data", "visualization", "config"}
    stages = {"labeling", "alignment", "segmentation", "evaluation", "suggestion", "export", "ablation", "serving"}
    allowed = dict.fromkeys(stages, low) | {
        "runs": {"models", "data"},
        **{name: {"data"} for name in ("models", "visualization", "config")},
        "data": set(),
        "cli": low | stages | {"toytown"},
        "toytown": low | stages,
        "segmentation": low | {"alignment"},
        "evaluation": low | {"segmentation"},
        "export": low | {"labeling"},
        "ablation": low | stages,
        "serving": low | stages | {"toytown"},
    }
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    said = {
        (importer, imported)
        for importer, others in re.findall(r"^\| `(\w+)` -> ([^|]*) \|", page, re.MULTILINE)
        for imported in re.findall(r"`(\w+)`", others)
    }
    source = ROOT / "src" / "patchword"
    found = {
        (path.relative_to(source).with_suffix("").parts[0], imported)
        for path in source.rglob("*.py")
        for imported in re.findall(r"^\s*from patchword\.(\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    across = {
        (importer, imported)
        for importer, imported in found
        if importer in allowed and imported in allowed and imported not in allowed[importer] | {importer}
    }
    assert across - said == set()
