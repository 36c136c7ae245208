"""The record of a suite and its table: our rows beside published ones of the same family, each marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError, computed_field

from patchword.config.base import one_line
from patchword.data.folders import write_json, write_text
from patchword.errors import PatchwordError
from patchword.evaluation.report import percent
from patchword.runs.records import Record
from patchword.visualization.pages import render_page

SUITE_FILE = "suite.json"
TABLE_FILE = "suite.md"
PAGE_FILE = "report.html"


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
    path = folder / SUITE_FILE
    try:
        values = json.loads(path.read_bytes())
        values.pop("average", None)  # follows from the rest
        return SuiteRecord.model_validate(values)
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        raise PatchwordError(f"{path} is damaged: {one_line(error, place='field')}") from None
    except (ValueError, AttributeError) as error:
        raise PatchwordError(f"{path} is damaged: {error}") from None


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


def published_table() -> str:
    """All rows as a Markdown table, as docs/benchmarks.md has it."""
    lines = ["| method | average | family |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.average:.1f} | {row.protocol or '-'} |" for row in PUBLISHED]
    return "\n".join(lines) + "\n"
