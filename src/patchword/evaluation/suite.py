"""Several benchmarks by one protocol: what is on disk is measured, what is not is said, and all of it is one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import computed_field, model_validator

from patchword.config.evaluate import SuiteConfig
from patchword.data.folders import prepare_output, remove_leftovers, sole_use, write_json, write_text
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.layout import NotOnDiskError
from patchword.evaluation.benchmarks.record import BENCHMARKS, OpenBenchmark, find_benchmark
from patchword.evaluation.masks import read_lines
from patchword.evaluation.records import read_record
from patchword.evaluation.report import EvaluationReport, percent
from patchword.runs.records import Record
from patchword.versions import versions
from patchword.visualization.pages import render_page

MARKER = "suite"
SUITES: dict[str, tuple[str, ...]] = {"standard8": tuple(BENCHMARKS)}
SUITE_FILE = "suite.json"
TABLE_FILE = "suite.md"
PAGE_FILE = "report.html"

Score = Callable[[OpenBenchmark, Path], EvaluationReport]


@dataclass(frozen=True)
class SuitePlan:
    """What of a suite is on disk: the benchmarks that are there, in the suite's order, and why the others are not."""

    suite: str
    found: Mapping[str, OpenBenchmark]
    missing: Mapping[str, str]

    def with_predictions(self, folder: Path) -> SuitePlan:
        """The same where a benchmark counts as missing that has no folder of its name among predictions."""
        without = {name: f"there is no {folder / name}" for name in self.found if not (folder / name).is_dir()}
        found = {name: opened for name, opened in self.found.items() if name not in without}
        if not found:
            names = ", ".join(self.found)
            raise PatchwordError(f"{folder} has no predictions of any benchmark; put them in folders named {names}")
        return SuitePlan(self.suite, found, {**self.missing, **without})


def plan_suite(suite: str, *, data: Path) -> SuitePlan:
    """Find the benchmarks of a suite.

    `data` is a folder that holds them, or a text file with lines such as `voc21: data/VOCdevkit`, whose folders are
    relative to the file. A benchmark that the file does not name is missing; one that it names must be there.
    """
    if suite not in SUITES:
        raise PatchwordError(f"unknown suite {suite!r} (choose from {', '.join(SUITES)})")
    if not data.exists():
        raise PatchwordError(f"no such folder of benchmarks, or file that says where they are: {data}")
    folders = read_mapping(data) if data.is_file() else {}
    found: dict[str, OpenBenchmark] = {}
    missing: dict[str, str] = {}
    for name in SUITES[suite]:
        if data.is_file() and name not in folders:
            missing[name] = f"{data} does not name it"
            continue
        try:
            found[name] = BENCHMARKS[name].open(folders.get(name, data))
        except NotOnDiskError as error:
            if name in folders:
                raise
            missing[name] = str(error)
    if not found:
        raise PatchwordError(f"no benchmark of {suite} is in {data}; {next(iter(missing.values()))}")
    return SuitePlan(suite, found, missing)


def read_mapping(path: Path) -> dict[str, Path]:
    """Read lines such as `voc21: data/VOCdevkit`; `#` starts a comment."""
    folders: dict[str, Path] = {}
    for number, line in enumerate(read_lines(path), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        name, colon, folder = content.partition(":")
        if not colon or not folder.strip():
            raise PatchwordError(f"{path}:{number}: cannot read {line!r}; write a line such as 'voc21: data/VOCdevkit'")
        benchmark = find_benchmark(name)
        if benchmark.name in folders:
            raise PatchwordError(f"{path}:{number}: {benchmark.name} is named twice; name it once")
        folders[benchmark.name] = path.parent / folder.strip()
    return folders


def run_suite(
    plan: SuitePlan,
    config: SuiteConfig,
    *,
    protocol: str | None,
    row: str,
    score: Score,
    published: Sequence[PublishedRow] = (),
    changed: Mapping[str, Any] | None = None,
) -> SuiteRecord:
    """Measure every benchmark that is there; after each of them `suite.json` and `suite.md` say what is known.

    Args:
        protocol: its name; none for predictions, which nobody here knows the protocol of.
        score: measures one benchmark into a folder of its own, and goes on there where a run was stopped.
        changed: settings that are not as the protocol has them.
    """
    folder = prepare_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    if (folder / SUITE_FILE).is_file():
        before = read_suite(folder)
        if (before.suite, before.protocol) != (plan.suite, protocol):
            raise PatchwordError(
                f"{folder} holds {before.suite} by {before.protocol}, not {plan.suite} by {protocol}; choose another"
            )
    entries = {
        name: SuiteEntry(
            benchmark=name,
            status="missing" if name in plan.missing else "waiting",
            of=BENCHMARKS[name].images,
            reason=plan.missing.get(name),
        )
        for name in SUITES[plan.suite]
    }
    record = SuiteRecord(
        suite=plan.suite,
        protocol=protocol,
        row=row,
        changed=dict(changed or {}),
        entries=tuple(entries.values()),
        published=tuple(published),
        command=config.command or None,
        versions=versions(),
    )
    with sole_use(folder):
        remove_leftovers(folder)
        for name, opened in plan.found.items():
            entries[name] = _entry(opened, score(opened, folder / name))
            record = record.model_copy(update={"entries": tuple(entries.values())})
            write_suite(record, folder)
    return record


def _entry(opened: OpenBenchmark, report: EvaluationReport) -> SuiteEntry:
    benchmark = opened.benchmark
    return SuiteEntry(
        benchmark=benchmark.name,
        status="measured" if report.images == benchmark.images else "partial",
        miou=report.miou,
        images=report.images,
        of=benchmark.images,
        layout=opened.layout,
        folder=benchmark.name,
        at_chance=report.chance is not None and report.chance.at_chance,
    )


class SuiteEntry(Record):
    """One benchmark of a suite; docs/on-disk.md has its fields."""

    benchmark: str
    status: Literal["measured", "partial", "missing", "waiting"]
    miou: float | None = None
    images: int = 0
    of: int
    layout: str | None = None
    folder: str | None = None
    reason: str | None = None
    at_chance: bool = False


class SuiteRecord(Record):
    """The whole of `suite.json`.

    Attributes:
        format, format_version: what kind of file this is.
        suite, protocol: what was measured and how; no protocol for predictions that were there already.
        row: what the table calls what was measured.
        changed: settings that are not as the protocol has them, by name.
        entries: one a benchmark, in the suite's order.
        published: rows of others that may stand beside.
        command: the command line, where there was one.
        versions: software by name.
    """

    format: Literal["patchword-suite"] = "patchword-suite"
    format_version: Literal[1] = 1
    suite: str
    protocol: str | None
    row: str
    changed: dict[str, Any]
    entries: tuple[SuiteEntry, ...]
    published: tuple[PublishedRow, ...] = ()
    command: str | None
    versions: dict[str, str]

    @model_validator(mode="before")
    @classmethod
    def _without_average(cls, values: Any) -> Any:
        """It follows from the rest."""
        return (
            {name: value for name, value in values.items() if name != "average"} if isinstance(values, dict) else values
        )

    @computed_field  # type: ignore[prop-decorator]
    @property
    def average(self) -> float | None:
        """Mean of the benchmarks' mIoU, in [0, 1]; none unless all of them were measured over their whole split."""
        known = [entry.miou for entry in self.entries if entry.status == "measured" and entry.miou is not None]
        return sum(known) / len(known) if len(known) == len(self.entries) else None

    def rows(self) -> list[list[str]]:
        """The table: a head, our row, and the published rows of the protocol's own family."""
        names = [entry.benchmark for entry in self.entries]
        mark = "measured, protocol changed" if self.changed else "measured"
        ours = [self.row, *map(_cell, self.entries), percent(self.average), mark]
        others = [[row.method, *["-"] * len(names), f"{row.average:.1f}%", "published"] for row in self.published]
        return [["mIoU", *names, "average", ""], ours, *others]

    def remarks(self) -> list[str]:
        """What a reader of the table must know, a line each."""
        lines = [remark for entry in self.entries if (remark := _remark(entry))]
        guessed = [entry.benchmark for entry in self.entries if entry.at_chance]
        if guessed:
            lines.append(f"at the level of chance: {', '.join(guessed)}")
        if self.average is None:
            lines.append(f"no average: it takes all {len(self.entries)} benchmarks, each over its whole split")
        if self.changed:
            settings = ", ".join(f"{name}={value}" for name, value in self.changed.items())
            lines.append(f"not as the protocol {self.protocol} has it: {settings}")
        if self.protocol is None:
            lines.append("predictions of an unknown protocol: no published numbers stand beside them")
        elif not self.published:
            lines.append(f"no published numbers have the protocol {self.protocol}")
        return lines

    def markdown(self) -> str:
        """The table and its remarks as a page."""
        head, *rows = self.rows()
        how = "predictions" if self.protocol is None else f"protocol {self.protocol}"
        lines = [f"# {self.suite}, {how}", "", _line(head), "|" + "---|" * len(head)]
        lines += [*map(_line, rows), "", *(f"- {remark}" for remark in self.remarks())]
        return "\n".join(lines).rstrip() + "\n"


def write_suite(record: SuiteRecord, folder: Path) -> None:
    """Write `suite.json`, `suite.md` and the page with links to the benchmarks' own."""
    write_json(folder / SUITE_FILE, record.model_dump(mode="json"))
    write_text(folder / TABLE_FILE, record.markdown())
    write_text(folder / PAGE_FILE, render_page("suite", record=record))


def read_suite(folder: Path) -> SuiteRecord:
    return read_record(folder / SUITE_FILE, SuiteRecord)


def _cell(entry: SuiteEntry) -> str:
    if entry.status in ("missing", "waiting"):
        return entry.status
    return percent(entry.miou) + ("*" if entry.status == "partial" else "")


def _remark(entry: SuiteEntry) -> str | None:
    name = entry.benchmark
    if entry.status == "partial":
        return f"{name} is over {entry.images:,} photographs, its split has {entry.of:,} (*): not to be compared"
    if entry.status == "missing":
        return (
            f"{name} is missing; `patchword benchmarks {name}` says what it needs, {SUITE_FILE} where it was looked for"
        )
    return f"{name} is not measured yet" if entry.status == "waiting" else None


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


class PublishedRow(Record):
    """A method's published mIoU in per cent, averaged over the eight standard benchmarks.

    `protocol` is the family of protocols that the number comes from; none where it is not known here.
    """

    method: str
    average: float
    protocol: str | None


# As their authors report them; a family only where it is known.
PUBLISHED = (
    PublishedRow(method="CLIP-DINOiser", average=40.2, protocol="tcl448"),
    PublishedRow(method="FreeDA", average=41.0, protocol="tcl448"),
    PublishedRow(method="Talk2DINO-B", average=43.8, protocol="tcl448"),
    PublishedRow(method="Talk2DINO-B with PAMR", average=46.3, protocol="tcl448"),
    PublishedRow(method="SCLIP", average=38.2, protocol="sclip336"),
    PublishedRow(method="NACLIP", average=39.4, protocol="sclip336"),
    PublishedRow(method="NACLIP with PAMR", average=42.5, protocol="sclip336"),
    PublishedRow(method="ProxyCLIP", average=42.3, protocol="sclip336"),
    PublishedRow(method="CorrCLIP-B", average=51.0, protocol="sclip336"),
    PublishedRow(method="CorrCLIP-L", average=53.6, protocol="sclip336"),
    PublishedRow(method="MaskCLIP", average=30.3, protocol=None),
    PublishedRow(method="Trident-B", average=45.8, protocol=None),
    PublishedRow(method="Trident-H", average=48.6, protocol=None),
    PublishedRow(method="SAM 3", average=57.5, protocol=None),
    PublishedRow(method="CorrCLIPv2-L", average=59.5, protocol=None),
)


def published_beside(protocol: str, *, method: str | None = None) -> tuple[PublishedRow, ...]:
    """The rows that may stand beside what is measured by a protocol: those of its family, the lowest first.

    With the protocol "published" they are those of the training-free method that is measured alone.
    """
    if protocol == "published":
        return tuple(row for row in PUBLISHED if row.method.casefold().removesuffix(" with pamr") == method)
    return tuple(sorted((row for row in PUBLISHED if row.protocol == protocol), key=lambda row: row.average))
