"""The nouns that compete: a list that comes with the package, or the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError

BUILT_IN = Path(__file__).with_name("nouns.txt")


def read_nouns(nouns: str | Path | Sequence[str] | Vocabulary | None) -> Vocabulary:
    """The candidates for a class list.

    Args:
        nouns: anything that `Vocabulary.of` takes; None for the list of everyday nouns that comes with the package.
    """
    vocabulary = Vocabulary.of(BUILT_IN if nouns is None else nouns)
    if len(vocabulary) + len(vocabulary.background) < 2:
        raise PatchwordError(f"there is one noun, {vocabulary.names[0]!r}; at least two are needed for a vote")
    return vocabulary


def plainer_names(names: Sequence[str]) -> dict[int, frozenset[int]]:
    """For each name those that are a word of it: "toy car" has "car", "car" has none.

    Returns:
        position -> positions; names without any are left out.
    """
    position_of = {name.casefold(): position for position, name in enumerate(names)}
    found = {}
    for position, name in enumerate(names):
        inner = {position_of[word] for word in name.casefold().split() if word in position_of} - {position}
        if inner:
            found[position] = frozenset(inner)
    return found
