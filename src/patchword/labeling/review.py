"""What people decide about generated labels: a log beside them that only grows, and the masks that follow from it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from patchword.data.folders import json_text, locked, write_bytes
from patchword.data.masks import Segment
from patchword.data.run_lengths import RunLengths
from patchword.errors import PatchwordError, WriteError
from patchword.labeling.records import segments_path
from patchword.runs.records import Record

REVIEW_FILE = "reviews.jsonl"
BY_HAND = "review"  # the generator of masks that a person drew
Action = Literal["accept", "reject", "rename", "remove", "add", "replace", "done", "undo"]
OF_A_MASK = ("accept", "reject", "rename", "remove", "replace")
Status = Literal["generated", "accepted", "rejected", "removed"]


class Decision(Record):
    """One line of `reviews.jsonl`.

    Attributes:
        number: from 1, in the order of the log.
        time: when, in UTC.
        image: name of the photograph.
        of: SHA-256 of the segments that the person saw; once the photograph is labelled anew, the decision is stale.
        action: "accept": class and outline are right; "reject": nobody should learn from these pixels; "remove": as if
            the mask had not been generated; "rename"; "replace": another outline; "add"; "done": nothing is left to
            do; "undo": takes back another decision, also an undo.
        mask: position of a generated mask, or "+N" for the one that decision N added.
        class_name: of "rename" and "add".
        rle: the mask of "add" and "replace", COCO compressed.
        undoes: the number that "undo" takes back.
        reviewer: whoever decided, where they say.
    """

    number: int = Field(ge=1)
    time: str
    image: str
    of: str
    action: Action
    mask: str | None = None
    class_name: str | None = None
    rle: dict[str, Any] | None = None
    undoes: int | None = None
    reviewer: str = ""

    def line(self) -> bytes:
        """As it stands in the log."""
        return (json_text(self.model_dump(mode="json", exclude_none=True)) + "\n").encode("utf-8")


class ReviewLog:
    """The decisions on a folder of labels. Any number of processes may append at once; nothing is ever changed."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / REVIEW_FILE
        self._read: list[Decision] = []
        self._by_image: dict[str, list[Decision]] = {}
        self._file: tuple[int, int] | None = None  # which file was read
        self._end = 0  # how far, in bytes: the end of its last whole line

    def decisions(self, image: str | None = None) -> tuple[Decision, ...]:
        """All decisions so far, or those on one photograph, in order; a last line that was cut off is left out."""
        try:
            with self.path.open("rb") as file:
                self._catch_up(file)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise PatchwordError(f"cannot read {self.path}: {error.strerror}") from None
        return tuple(self._read if image is None else self._by_image.get(image, ()))

    def append(self, action: Action, *, image: str, of: str, reviewer: str = "", **values: Any) -> Decision:
        """Add a decision; when this returns it is on disk.

        Args:
            action, image, of, reviewer, values: as of `Decision`.
        """
        try:
            with self.path.open("ab+") as file, locked(file):
                self._catch_up(file)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                number = self._read[-1].number + 1 if self._read else 1
                decision = Decision(
                    number=number, time=now, image=image, of=of, action=action, reviewer=reviewer, **values
                )
                file.truncate(self._end)  # a line that a killed process left half written would swallow this one
                file.write(decision.line())
                file.flush()
                os.fsync(file.fileno())
                self._catch_up(file)
        except ValidationError as error:
            raise PatchwordError(f"decision is damaged: {error.errors()[0]['msg']}") from None
        except OSError as error:
            raise WriteError(f"cannot write {self.path}: {error.strerror}") from None
        return decision

    def _catch_up(self, file: Any) -> None:
        """Read what was appended since the last time."""
        status = os.fstat(file.fileno())
        if self._file != (status.st_dev, status.st_ino) or status.st_size < self._end:
            self._forget()
            self._file = (status.st_dev, status.st_ino)
        file.seek(self._end)
        data: bytes = file.read()
        for line in data.split(b"\n")[:-1]:
            try:
                decision = Decision.model_validate(json.loads(line))
            except ValueError:
                raise PatchwordError(
                    f"{self.path}: line {len(self._read) + 1} is damaged; delete it to go on"
                ) from None
            self._read.append(decision)
            self._by_image.setdefault(decision.image, []).append(decision)
            self._end += len(line) + 1

    def _forget(self) -> None:
        self._read, self._by_image, self._file, self._end = [], {}, None, 0


def active(decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions that hold: none that was taken back, and no undo. An undo that was undone has no effect."""
    undone: set[int] = set()
    held = []
    for decision in reversed(decisions):
        if decision.number in undone:
            continue
        if decision.action == "undo":
            undone.add(decision.undoes or 0)
        else:
            held.append(decision)
    return held[::-1]


def conflicts(decision: Decision, decisions: Iterable[Decision], *, seen: int) -> list[Decision]:
    """What somebody else decided on the same mask, or photograph, while this decision was made.

    Args:
        decisions: on the same photograph.
        seen: the last number that the person knew of.
    """
    between = [each for each in decisions if seen < each.number < decision.number and each.action != "undo"]
    return [each for each in between if each.mask == decision.mask and decision.action not in ("add", "undo")]


@dataclass(frozen=True)
class ReviewedMask:
    """A mask as it stands after the review.

    Attributes:
        key: position of a generated mask, "+N" of one that decision N added.
        segment: with the class and outline that hold now.
        status: "accepted" where a person vouches for it, also by renaming or drawing.
        renamed, redrawn: whether its class or outline is another than was generated.
    """

    key: str
    segment: Segment
    status: Status = "generated"
    renamed: bool = False
    redrawn: bool = False

    @property
    def added(self) -> bool:
        return self.key.startswith("+")


def reviewed_masks(
    segments: Sequence[Segment], decisions: Sequence[Decision], *, names: tuple[str, ...]
) -> list[ReviewedMask]:
    """The masks of a photograph after the decisions that hold; of two on one mask the later counts.

    Args:
        segments: as they were generated.
        decisions: of `active`, made on these segments.
        names: the classes, in order. A decision that names no class or mask that is there has no effect.
    """
    masks = {str(position): ReviewedMask(str(position), segment) for position, segment in enumerate(segments)}
    for decision in decisions:
        index = names.index(decision.class_name) if decision.class_name in names else None
        if decision.action == "add" and decision.rle is not None and index is not None:
            key = f"+{decision.number}"
            masks[key] = ReviewedMask(key, drawn(decision.rle, index, names[index]), "accepted")
        mask = masks.get(decision.mask or "")
        if mask is None:
            continue
        if decision.action == "rename" and index is not None:
            segment = replace(mask.segment, class_index=index, class_name=names[index], score=1.0)
            renamed = not mask.added and index != segments[int(mask.key)].class_index
            masks[mask.key] = replace(mask, segment=segment, status="accepted", renamed=renamed)
        elif decision.action == "replace" and decision.rle is not None:
            segment = drawn(decision.rle, mask.segment.class_index, mask.segment.class_name)
            masks[mask.key] = replace(mask, segment=segment, status="accepted", redrawn=not mask.added)
        elif decision.action == "accept":
            masks[mask.key] = replace(mask, segment=replace(mask.segment, score=1.0), status="accepted")
        elif decision.action == "reject":
            masks[mask.key] = replace(mask, status="rejected")
        elif decision.action == "remove":
            masks[mask.key] = replace(mask, status="removed")
    return list(masks.values())


def drawn(rle: Mapping[str, Any], index: int, name: str) -> Segment:
    """A mask that a person drew, as a segment that nothing outweighs."""
    mask: RunLengths = {"size": [int(side) for side in rle["size"]], "counts": str(rle["counts"])}
    return Segment.from_mask(
        mask, class_index=index, class_name=name, score=1.0, predicted_iou=1.0, similarity=1.0, generator=BY_HAND
    )


def segments_key(folder: Path, name: str) -> str:
    """SHA-256 of a photograph's segments as they were generated: what decisions on it refer to."""
    path = segments_path(folder, name)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise PatchwordError(f"cannot read {path}: {error.strerror}") from None


def gather_reviews(folders: Iterable[Path], *, into: Path) -> None:
    """Put the logs of several folders of labels together, numbered anew; a folder without one adds nothing."""
    lines: list[bytes] = []
    for folder in folders:
        decisions = ReviewLog(folder).decisions()
        number_of = {each.number: number for number, each in enumerate(decisions, start=len(lines) + 1)}
        for decision in decisions:
            changed: dict[str, Any] = {"number": number_of[decision.number]}
            if decision.undoes is not None:
                changed["undoes"] = number_of.get(decision.undoes)
            if decision.mask is not None and decision.mask.startswith("+"):
                changed["mask"] = f"+{number_of.get(int(decision.mask[1:]), 0)}"
            lines.append(decision.model_copy(update=changed).line())
    if lines:
        write_bytes(into / REVIEW_FILE, b"".join(lines))
