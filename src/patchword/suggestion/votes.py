"""Which nouns are there: crops vote, the weakest noun drops out, and its crops vote for the next that is near."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from patchword.config.suggest import SuggestSettings

_NOBODY = -1
_MOST_CHOICES = 16  # nouns in the ranking of a crop; bounds the memory, and hardly any crop has as many that near


@dataclass(frozen=True)
class SelectedClass:
    """A candidate that is proposed.

    Attributes:
        candidate: its position among the candidates.
        photographs: in which it won enough crops to be seen.
        crops: that it won, in all photographs.
        near: candidates that lost crops to it when they dropped out, most crops first; only those seen somewhere.
    """

    candidate: int
    photographs: int
    crops: int
    near: tuple[int, ...]


@dataclass
class ClassRankings:
    """What every crop of every photograph would vote for, best first.

    Attributes:
        candidates: how many there are.
        near_margin: candidates this close in cosine to a crop's best are in its ranking.
    """

    candidates: int
    near_margin: float
    _choices: list[NDArray[np.int32]] = field(default_factory=list)
    _needed: list[int] = field(default_factory=list)

    def add(self, cosines: NDArray[np.float32], *, needed: int) -> None:
        """Add a photograph.

        Args:
            cosines: (crops, candidates).
            needed: crops that a candidate has to win to be seen in the photograph.
        """
        count = min(_MOST_CHOICES, self.candidates)
        order = np.argsort(-cosines, axis=1, kind="stable")[:, :count]  # (crops, count)
        ranked = np.take_along_axis(cosines, order, axis=1)
        order[ranked < ranked[:, :1] - self.near_margin] = _NOBODY
        choices = np.full((len(cosines), _MOST_CHOICES), _NOBODY, dtype=np.int32)
        choices[:, :count] = order
        self._choices.append(choices)
        self._needed.append(needed)

    @property
    def photographs(self) -> int:
        """How many voted."""
        return len(self._needed)

    @property
    def crops(self) -> int:
        """How many voted."""
        return sum(map(len, self._choices))

    def table(self) -> VoteTable:
        """Count the votes of all."""
        choices = np.concatenate([np.zeros((0, _MOST_CHOICES), dtype=np.int32), *self._choices])
        photograph = np.repeat(np.arange(self.photographs), [len(each) for each in self._choices])
        return VoteTable(choices, photograph=photograph, needed=np.array(self._needed), candidates=self.candidates)


class VoteTable:
    """A count that goes on as candidates drop out.

    Args:
        choices: (crops, choices) candidates that each crop ranks, best first, -1 behind the last.
        photograph: (crops,) which photograph each crop is of, from 0.
        needed: (photographs,) crops that make a candidate seen.
        candidates: how many there are.

    Attributes:
        winners: (crops,) whom each crop votes for, -1 for nobody.
        alive: (candidates,) who is still there; at first all that anybody votes for.
        seen: (candidates,) in how many photographs each is seen.
        crops: (candidates,) how many each has won.
    """

    def __init__(
        self, choices: NDArray[np.int32], *, photograph: NDArray[np.int64], needed: NDArray[np.int64], candidates: int
    ) -> None:
        self.choices = choices
        self.winners = choices[:, 0].copy()
        self._photograph, self._needed = photograph, needed
        self._table = np.zeros((len(needed), candidates), dtype=np.int32)
        np.add.at(self._table, (photograph, self.winners), 1)
        self.alive: NDArray[np.bool_] = self._table.sum(axis=0) > 0
        self._sum()

    def drop(self, candidate: int) -> None:
        """Let a candidate's crops vote for the next in their rankings that is still there, or else for nobody."""
        self.alive[candidate] = False
        moving = np.flatnonzero(self.winners == candidate)
        standing = self.standing(moving)
        first = standing.argmax(axis=1)
        self.winners[moving] = np.where(standing.any(axis=1), self.choices[moving, first], _NOBODY)
        self._table[:, candidate] = 0
        landed = moving[self.winners[moving] != _NOBODY]
        np.add.at(self._table, (self._photograph[landed], self.winners[landed]), 1)
        self._sum()

    def standing(self, crops: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each choice of these crops is still there, (crops, choices)."""
        still: NDArray[np.bool_] = np.append(self.alive, False)[self.choices[crops]]  # -1, nobody, is the last
        return still

    def order(self) -> list[int]:
        """Candidates that are there, the most frequent first; of equal ones the first named comes first."""
        return [int(each) for each in np.lexsort((-self.crops, -self.seen)) if self.alive[each]]

    def _sum(self) -> None:
        enough = (self._table >= self._needed[:, None]) & (self._table > 0)
        self.seen, self.crops = enough.sum(axis=0), self._table.sum(axis=0)


def select_classes(
    rankings: ClassRankings,
    *,
    is_class: Sequence[bool],
    settings: SuggestSettings,
    plainer: Mapping[int, frozenset[int]] | None = None,
) -> Selection:
    """Find the candidates that are there, by votes that pass on.

    The candidate seen in the fewest photographs drops out, and its crops vote for the next in their rankings, until all
    that are left are seen in `minimum_share` of the photographs. Then a candidate goes into a plainer or else a more
    frequent one that is in the rankings of `fold_share` of its crops; and then the least frequent drop out until the
    limit is met.
    Source: instant-runoff voting, by photographs; thresholds chosen by us.

    Args:
        rankings: of all photographs.
        is_class: one entry a candidate: whether it counts for `limit_classes` (a class), or not (a background word).
        plainer: candidate -> those that are plainer words for it, as "car" is for "toy car".
    """
    classes = np.array(is_class, dtype=bool)
    needed = max(1, int(np.ceil(settings.minimum_share * rankings.photographs - 1e-9)))
    table = rankings.table()
    first = _First(table.seen.copy(), table.crops.copy(), table.winners.copy())
    while True:
        order = table.order()
        rare = [candidate for candidate in order if table.seen[candidate] < needed]
        if rare:
            table.drop(rare[-1])
            continue
        folded = _to_fold(table, order, classes=classes, share=settings.fold_share, plainer=plainer or {})
        if folded is not None:
            table.drop(folded)
            continue
        sitting = [candidate for candidate in order if classes[candidate]]
        if len(sitting) <= settings.limit_classes:
            break
        table.drop(sitting[-1])
    chosen = [
        SelectedClass(
            each, int(table.seen[each]), int(table.crops[each]), _taken_over(each, first=first, last=table.winners)
        )
        for each in order
    ]
    missed = [each for each in np.lexsort((-first.crops, -first.seen)) if first.seen[each] and not table.alive[each]]
    return Selection(
        tuple(chosen),
        tuple(SelectedClass(int(each), int(first.seen[each]), int(first.crops[each]), ()) for each in missed),
    )


@dataclass(frozen=True)
class Selection:
    """Who is there, and who was seen at first and dropped out; the most frequent first."""

    chosen: tuple[SelectedClass, ...]
    missed: tuple[SelectedClass, ...]


@dataclass(frozen=True)
class _First:
    """The first count: (candidates,) photographs and crops, and (crops,) winners."""

    seen: NDArray[np.int64]
    crops: NDArray[np.int64]
    winners: NDArray[np.int32]


def _to_fold(
    table: VoteTable,
    order: list[int],
    *,
    classes: NDArray[np.bool_],
    share: float,
    plainer: Mapping[int, frozenset[int]],
) -> int | None:
    """The least frequent candidate that is always near to a plainer one, or to a more frequent one that is as plain."""
    nothing: frozenset[int] = frozenset()
    for rank in range(len(order) - 1, -1, -1):
        candidate = order[rank]
        own = np.flatnonzero(table.winners == candidate)
        near = np.bincount(table.choices[own][table.standing(own)], minlength=len(table.alive))
        for place, other in enumerate(order):
            if place == rank or classes[other] != classes[candidate] or near[other] < share * len(own):
                continue
            is_plainer = other in plainer.get(candidate, nothing)
            if is_plainer or (place < rank and candidate not in plainer.get(other, nothing)):
                return candidate
    return None


def _taken_over(candidate: int, *, first: _First, last: NDArray[np.int32]) -> tuple[int, ...]:
    """Who was seen in a photograph at first and lost crops to a candidate, most crops first."""
    before = first.winners[(last == candidate) & (first.winners != candidate)]
    crops = np.bincount(before, minlength=len(first.crops))
    found = np.flatnonzero((crops > 0) & (first.seen > 0))
    return tuple(int(each) for each in found[np.argsort(-crops[found], kind="stable")])
