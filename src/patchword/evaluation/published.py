"""Numbers that others have published, to stand beside our own and never among them."""

from __future__ import annotations

from patchword.runs.records import Record


class PublishedRow(Record):
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
    """The rows that may stand beside what is measured by a protocol, the lowest first.

    Args:
        protocol: its name; the rows are those of its family.
        method: the training-free method that is measured; with the protocol "published" the rows are its own alone.
    """
    if protocol == "published":
        return tuple(row for row in PUBLISHED if row.method.casefold().removesuffix(" with pamr") == method)
    return tuple(sorted((row for row in PUBLISHED if row.protocol == protocol), key=lambda row: row.average))


def published_table() -> str:
    """All rows as a Markdown table, as docs/benchmarks.md has it."""
    lines = ["| method | average | family |", "|---|---|---|"]
    lines += [f"| {row.method} | {row.average:.1f} | {row.protocol or '-'} |" for row in PUBLISHED]
    return "\n".join(lines) + "\n"
