"""The declaration of an ablation: what stays the same, what each row changes, and what all rows are judged on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from patchword.config.base import one_line
from patchword.errors import PatchwordError

ORACLE = "oracle: exact masks"
LABELS, SAME = "labels", "same photographs"
"""Columns beside the tests: what a row's own labels are worth, and its segmenter on the photographs that it saw."""


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Declared):
    """One variant of the training.

    Attributes:
        name: what the table calls it.
        settings: of the alignment, over the grid's.
        encoder: vision encoder in place of the grid's.
        images: train on so many photographs, drawn by the seed; all where it is none.
        label_noise: share in [0, 1] of the regions of one class in a photograph whose class is replaced by another.
        exact: train on the exact masks instead of the labels.
    """

    name: str = Field(min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    encoder: str | None = None
    images: int | None = Field(None, ge=1)
    label_noise: float = Field(0, ge=0, le=1)
    exact: bool = False


class Test(_Declared):
    """Photographs with exact masks that every row is judged on.

    Attributes:
        name: what the table calls it.
        photos, masks: folders.
        classes: the class list that the masks' values refer to; the labels' where it is none.
        score: names of the classes whose mean IoU counts; all where it is none.
    """

    __test__ = False  # no test of this project, whatever its name

    name: str = Field(min_length=1)
    photos: str
    masks: str
    classes: tuple[str, ...] | None = None
    score: tuple[str, ...] | None = None


class AblationGrid(_Declared):
    """What `patchword ablate` runs: every row with every seed.

    Attributes:
        labels: folder that `label` made.
        truth: folder of exact masks of the same photographs, over the same classes; for the oracle, which is always a
            row, and to say what the labels themselves are worth. It never reaches any other row's training.
        tests: what the trained segmenters are judged on.
        encoder: vision encoder; the balanced preset's where it is none.
        seeds: of the training, and of what is drawn for a row.
        settings: of the alignment, for all rows.
        rows: the variants, in the order of the table.
    """

    labels: str
    truth: str
    tests: tuple[Test, ...] = Field(min_length=1)
    encoder: str | None = None
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0, 1, 2), min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[Row, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what, names in (("row", [row.name for row in self.rows]), ("test", [test.name for test in self.tests])):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what}s have the same name; names must differ")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("a seed is listed twice; seeds must differ")
        return self

    @property
    def all_rows(self) -> tuple[Row, ...]:
        """The rows, and the oracle where none of them is it."""
        return self.rows if any(row.exact for row in self.rows) else (*self.rows, Row(name=ORACLE, exact=True))

    @property
    def columns(self) -> tuple[str, ...]:
        """What every row is measured by."""
        return (LABELS, SAME, *(test.name for test in self.tests))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a grid from JSON; its relative paths are taken from the file's folder."""
        path = Path(path)
        try:
            grid = cls.model_validate(json.loads(path.read_bytes()))
        except OSError as error:
            raise PatchwordError(f"cannot read grid {path}: {error.strerror}") from None
        except ValidationError as error:
            raise PatchwordError(f"{path}: {one_line(error, place='field')}") from None
        except ValueError as error:
            raise PatchwordError(f"{path} is not JSON: {error}") from None
        return grid.under(path.parent)

    def under(self, root: Path) -> Self:
        """The same grid with its relative folders taken from `root`; a name that is no folder there stays a name."""

        def placed(name: str) -> str:
            return str(root / name)

        def model(name: str | None) -> str | None:
            return str(root / name) if name is not None and (root / name).is_dir() else name

        tests = tuple(
            test.model_copy(update={"photos": placed(test.photos), "masks": placed(test.masks)}) for test in self.tests
        )
        rows = tuple(row.model_copy(update={"encoder": model(row.encoder)}) for row in self.rows)
        return self.model_copy(
            update={
                "labels": placed(self.labels),
                "truth": placed(self.truth),
                "tests": tests,
                "rows": rows,
                "encoder": model(self.encoder),
            }
        )
