"""Several benchmarks by one protocol: what is on disk is measured, what is not is said, and all of it is one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchword.config.evaluate import SuiteConfig
from patchword.data.folders import prepare_output, remove_leftovers, sole_use
from patchword.errors import PatchwordError
from patchword.evaluation.benchmarks.layout import NotOnDiskError
from patchword.evaluation.benchmarks.record import BENCHMARKS, OpenBenchmark, find_benchmark
from patchword.evaluation.report import EvaluationReport
from patchword.evaluation.suite_report import SUITE_FILE, PublishedRow, SuiteEntry, SuiteRecord, read_suite, write_suite
from patchword.versions import versions

MARKER = "suite"
SUITES: dict[str, tuple[str, ...]] = {"standard8": tuple(BENCHMARKS)}

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
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PatchwordError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    folders: dict[str, Path] = {}
    for number, line in enumerate(lines, start=1):
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
        row: what the table calls what is measured.
        score: measures one benchmark into a folder of its own, and goes on there where a run was stopped.
        published: rows of others that may stand beside.
        changed: settings that are not as the protocol has them.
    """
    folder = prepare_output(config.out, resume=config.resume, overwrite=config.overwrite, marker=MARKER)
    if (folder / SUITE_FILE).is_file():
        before = read_suite(folder)
        if (before.suite, before.protocol) != (plan.suite, protocol):
            raise PatchwordError(
                f"{folder} holds {before.suite} by {before.protocol}, not {plan.suite} by {protocol}; choose another"
            )
    entries = {name: _not_yet(plan, name) for name in SUITES[plan.suite]}
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


def _not_yet(plan: SuitePlan, name: str) -> SuiteEntry:
    reason = plan.missing.get(name)
    return SuiteEntry(
        benchmark=name, status="missing" if reason else "waiting", of=BENCHMARKS[name].images, reason=reason
    )


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
