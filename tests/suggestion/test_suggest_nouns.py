"""The nouns that come with the package."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files

import pytest

from patchword.data.vocabulary_words import DEFAULT_TEMPLATES
from patchword.errors import PatchwordError
from patchword.suggestion.api import BUILT_IN, read_nouns
from patchword.suggestion.run import plainer_names
from patchword.toytown.classes import CLASSES


def test_the_list_is_long_grouped_and_says_nothing_twice() -> None:
    nouns = read_nouns(None)
    assert 600 <= len(nouns) <= 900
    words = [word for entry in nouns.classes for word in entry.words] + list(nouns.background)
    assert [word for word, count in Counter(word.casefold() for word in words).items() if count > 1] == []
    assert nouns.shared == ()
    assert nouns.templates == DEFAULT_TEMPLATES
    text = BUILT_IN.read_text(encoding="utf-8")
    assert text.count("\n# ") >= 20
    assert "toytown" not in text.casefold()


def test_ordinary_things_are_on_it_and_synonyms_do_not_split_the_vote() -> None:
    nouns = read_nouns(None)
    assert set(CLASSES) <= set(nouns.names)
    for one, other in (("sofa", "couch"), ("car", "automobile"), ("bicycle", "bike"), ("mobile phone", "smartphone")):
        assert nouns.index(one) == nouns.index(other)


def test_the_list_comes_with_the_package() -> None:
    assert files("patchword").joinpath("suggestion/nouns.txt").is_file()


def test_a_list_of_ones_own_is_taken_and_a_single_noun_refused() -> None:
    assert read_nouns("cat, dog").names == ("cat", "dog")
    with pytest.raises(PatchwordError, match="there is one noun, 'cat'; at least two"):
        read_nouns(["cat"])


def test_a_plainer_name_is_a_word_of_the_other() -> None:
    names = ("car", "Toy Car", "carpet", "toy", "car seat cover", "seat")
    assert plainer_names(names) == {1: frozenset({0, 3}), 4: frozenset({0, 5})}
