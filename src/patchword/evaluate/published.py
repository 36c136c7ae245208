"""Numbers that others have published, to stand beside our own and never among them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedRow:
    """A method's published mIoU, averaged over the eight standard benchmarks.

    Attributes:
        method: its name, with the size of the model where there are several.
        average: in per cent.
        protocol: the family of protocols that the number comes from; none where it is not known here.
    """

    method: str
    average: float
    protocol: str | None


# As their authors report them; a family only where it is known.
PUBLISHED = (
    PublishedRow("CLIP-DINOiser", 40.2, "tcl448"),
    PublishedRow("FreeDA", 41.0, "tcl448"),
    PublishedRow("Talk2DINO-B", 43.8, "tcl448"),
    PublishedRow("Talk2DINO-B with PAMR", 46.3, "tcl448"),
    PublishedRow("SCLIP", 38.2, "sclip336"),
    PublishedRow("NACLIP", 39.4, "sclip336"),
    PublishedRow("ProxyCLIP", 42.3, "sclip336"),
    PublishedRow("CorrCLIP-B", 51.0, "sclip336"),
    PublishedRow("CorrCLIP-L", 53.6, "sclip336"),
    PublishedRow("MaskCLIP", 30.3, None),
    PublishedRow("Trident-B", 45.8, None),
    PublishedRow("Trident-H", 48.6, None),
    PublishedRow("SAM 3", 57.5, None),
    PublishedRow("CorrCLIPv2-L", 59.5, None),
)


def published_beside(protocol: str) -> tuple[PublishedRow, ...]:
    """The rows of a protocol's own family, the lowest first."""
    return tuple(sorted((row for row in PUBLISHED if row.protocol == protocol), key=lambda row: row.average))


def published_table() -> str:
    """All rows as a Markdown table, as docs/benchmarks.md has it."""
    lines = ["| method | average | family |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.average:.1f} | {row.protocol or '-'} |" for row in PUBLISHED]
    return "\n".join(lines) + "\n"
