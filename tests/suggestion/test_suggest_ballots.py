"""The election: against one written with loops and dictionaries, and cases that a reader can follow."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from patchword.config.suggest import SuggestSettings
from patchword.suggestion.votes import ClassRankings, select_classes

Votes = list[tuple[int, np.ndarray]]  # a photograph: crops needed, cosines (crops, candidates)


def ballots_of(votes: Votes, *, near_margin: float) -> ClassRankings:
    rankings = ClassRankings(votes[0][1].shape[1], near_margin=near_margin)
    for needed, cosines in votes:
        rankings.add(cosines, needed=needed)
    return rankings


def naive_count(
    votes: Votes, alive: set[int], near_margin: float
) -> tuple[Counter[int], Counter[int], list[list[int]]]:
    """Photographs and crops by candidate, and for every crop what is left of its ballot."""
    seen: Counter[int] = Counter()
    crops: Counter[int] = Counter()
    left = []
    for needed, cosines in votes:
        won: Counter[int] = Counter()
        for row in cosines:
            ballot = sorted(range(len(row)), key=lambda each, row=row: (-row[each], each))
            near = [each for each in ballot if row[each] >= max(row) - np.float32(near_margin) and each in alive]
            left.append(near)
            if near:
                won[near[0]] += 1
        crops += won
        seen.update(each for each, count in won.items() if count >= needed)
    return seen, crops, left


def naive_election(
    votes: Votes, *, is_class: list[bool], settings: SuggestSettings, plainer: dict[int, frozenset[int]]
) -> list[tuple[int, int, int]]:
    margin = settings.near_margin
    needed = max(1, math.ceil(settings.minimum_share * len(votes)))
    alive = {each for each, _ in naive_count(votes, set(range(len(is_class))), margin)[1].items()}
    while True:
        seen, crops, left = naive_count(votes, alive, margin)
        order = sorted(alive, key=lambda each: (-seen[each], -crops[each], each))
        rare = [each for each in order if seen[each] < needed]
        folding = []
        for rank, each in enumerate(order):
            own = [ballot for ballot in left if ballot and ballot[0] == each]
            for other in order:
                near = sum(other in ballot for ballot in own) >= settings.fold_share * len(own)
                stronger = other in order[:rank] and each not in plainer.get(other, ())
                goes = near and (stronger or other in plainer.get(each, ()))
                if goes and other != each and is_class[other] == is_class[each]:
                    folding.append(each)
                    break
        classes = [each for each in order if is_class[each]]
        if rare:
            alive.remove(rare[-1])
        elif folding:
            alive.remove(folding[-1])
        elif len(classes) > settings.limit_classes:
            alive.remove(classes[-1])
        else:
            return [(each, seen[each], crops[each]) for each in order]


@pytest.mark.parametrize("seed", range(30))
def test_an_election_equals_one_with_loops(seed: int) -> None:
    generator = np.random.default_rng(seed)
    liked = generator.normal(0, 0.03, 14)
    votes = [
        (int(generator.integers(1, 3)), (liked + generator.normal(0, 0.03, (9, 14))).astype(np.float32))
        for _ in range(12)
    ]
    settings = SuggestSettings(
        minimum_share=float(generator.choice([0.0, 0.1, 0.3])),
        near_margin=float(generator.choice([0.0, 0.02, 0.1])),
        fold_share=float(generator.choice([0.5, 0.8, 1.0])),
        limit_classes=int(generator.choice([2, 5, 60])),
    )
    is_class = [True] * 11 + [False] * 3
    plainer = {0: frozenset({1, 2}), 3: frozenset({4}), 5: frozenset({13}), 13: frozenset({12})}
    rankings = ballots_of(votes, near_margin=settings.near_margin)
    selection = select_classes(rankings, is_class=is_class, settings=settings, plainer=plainer)
    found = [(selected.candidate, selected.photographs, selected.crops) for selected in selection.chosen]
    assert found == naive_election(votes, is_class=is_class, settings=settings, plainer=plainer)


def photographs(rows: list[list[float]], times: int) -> Votes:
    return [(2, np.array(rows, dtype=np.float32))] * times


def chosen(votes: Votes, **numbers: float) -> list[tuple[int, int, int, tuple[int, ...]]]:
    settings = SuggestSettings(**{"near_margin": 0.02, "minimum_share": 0.2, **numbers})
    is_class = [True] * votes[0][1].shape[1]
    selection = select_classes(
        ballots_of(votes, near_margin=settings.near_margin), is_class=is_class, settings=settings
    )
    return [(selected.candidate, selected.photographs, selected.crops, selected.near) for selected in selection.chosen]


DOG = [0.30, 0.29, 0.10]
PUPPY = [0.29, 0.30, 0.10]
TREE = [0.10, 0.10, 0.30]


def test_votes_for_a_rare_noun_pass_on_to_the_one_that_is_near() -> None:
    votes = photographs([DOG, DOG], 9) + photographs([PUPPY, PUPPY], 1)
    assert chosen(votes) == [(0, 10, 20, (1,))]


def test_a_vote_passes_on_to_nobody_where_none_is_near() -> None:
    votes = photographs([DOG, DOG], 9) + photographs([TREE, TREE], 1)
    assert chosen(votes) == [(0, 9, 18, ())]


def test_a_frequent_noun_goes_into_a_more_frequent_one_that_is_always_near() -> None:
    votes = photographs([DOG, DOG], 6) + photographs([PUPPY, PUPPY], 4)
    assert chosen(votes) == [(0, 10, 20, (1,))]
    assert [selected[0] for selected in chosen(votes, near_margin=0.005)] == [0, 1]


def test_a_plainer_noun_stays_where_the_two_are_always_near() -> None:
    votes = photographs([DOG, DOG], 6) + photographs([PUPPY, PUPPY], 4)
    settings = SuggestSettings(near_margin=0.02)
    for plainer, stays in (({}, 0), ({1: frozenset({0})}, 0), ({0: frozenset({1})}, 1)):
        selection = select_classes(
            ballots_of(votes, near_margin=0.02), is_class=[True] * 3, settings=settings, plainer=plainer
        )
        assert [(selected.candidate, selected.photographs) for selected in selection.chosen] == [(stays, 10)]


def test_split_votes_come_together() -> None:
    """Neither noun wins two crops of a photograph before the other drops out."""
    assert chosen(photographs([DOG, PUPPY], 5)) == [(0, 5, 10, ())]


def test_the_least_frequent_give_way_to_the_limit() -> None:
    votes = photographs([DOG, DOG, TREE, TREE], 3) + photographs([TREE, TREE], 3)
    assert [selected[0] for selected in chosen(votes, limit_classes=1)] == [2]


def test_background_words_take_part_and_count_for_no_limit() -> None:
    settings = SuggestSettings(near_margin=0, limit_classes=1)
    rankings = ballots_of(photographs([DOG, DOG, TREE, TREE], 3), near_margin=0)
    selection = select_classes(rankings, is_class=[True, True, False], settings=settings)
    assert [selected.candidate for selected in selection.chosen] == [0, 2]


def test_what_was_seen_and_dropped_out_is_told() -> None:
    votes = photographs([DOG, DOG], 9) + photographs([TREE, TREE], 1)
    selection = select_classes(
        ballots_of(votes, near_margin=0), is_class=[True] * 3, settings=SuggestSettings(minimum_share=0.2)
    )
    assert [(selected.candidate, selected.photographs, selected.crops) for selected in selection.missed] == [(2, 1, 2)]
