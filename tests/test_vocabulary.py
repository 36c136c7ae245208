"""Class lists: what is read, what is refused and where, and that nothing is lost on the way to text and back."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchword.errors import PatchwordError
from patchword.vocabulary import DEFAULT_TEMPLATES, Vocabulary, VocabularyClass

TEXT = """
# furniture
sofa; couch ;  settee   # three words
Über-Straße

@background: sky; wall
@template: a photo of a {}.
@template: a   drawing of a {}.
dog, domestic
"""


def test_parse_reads_every_kind_of_line() -> None:
    vocabulary = Vocabulary.parse(TEXT)
    assert vocabulary.names == ("sofa", "Über-Straße", "dog, domestic")
    assert vocabulary.classes[0] == VocabularyClass("sofa", ("couch", "settee"))
    assert vocabulary.classes[0].words == ("sofa", "couch", "settee")
    assert vocabulary.background == ("sky", "wall")
    assert vocabulary.templates == ("a photo of a {}.", "a drawing of a {}.")
    assert len(vocabulary) == 3


def test_letters_are_composed_and_spaces_single() -> None:
    decomposed = Vocabulary.of("cafe\u0301\u00a0 noir")
    assert decomposed.names == ("caf\u00e9 noir",)
    assert decomposed.hash == Vocabulary.of("caf\u00e9 noir").hash


def test_templates_default_to_the_seven_of_clip() -> None:
    assert Vocabulary.of("cat").templates == DEFAULT_TEMPLATES
    assert len(DEFAULT_TEMPLATES) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"list\.txt: no classes"),
        ("# only a comment\n\n", r"list\.txt: no classes"),
        ("cat\n\ncat\n", r"list\.txt:3: 'cat' is already named at list\.txt:1"),
        ("sofa; couch\ndog\nCouch\n", r"list\.txt:3: 'Couch' is already named at list\.txt:1"),
        ("sofa; couch\nchair; COUCH\n", r"list\.txt:2: 'COUCH' is already named at list\.txt:1"),
        ("straße\nSTRASSE\n", r"list\.txt:2: 'STRASSE' is already named"),
        ("cafe\u0301\ncaf\u00e9\n", r"list\.txt:2: 'café' is already named at list\.txt:1"),
        ("arm  chair\narm chair\n", r"list\.txt:2: 'arm chair' is already named"),
        ("cat; cat\n", r"list\.txt:1: 'cat' stands twice in one class"),
        ("cat\n@background: sky; Cat\n", r"'Cat' is already named at|'cat' is already named at"),
        ("cat; ; kitten\n", r"list\.txt:1: empty name"),
        ("dog\ncat;\n", r"list\.txt:2: empty name"),
        ("@background: ;\ncat\n", r"list\.txt:1: empty name"),
        ("cat\n@template: a photo\n", r"list\.txt:2: template 'a photo' must have exactly one \{\}"),
        ("cat\n@template: {} and {}\n", r"list\.txt:2: template .* exactly one \{\}"),
        ("cat\n@template: a {}.\n@template: a {}.\n", r"list\.txt:3: template 'a \{\}\.' is given twice"),
        ("cat\n@colour: red\n", r"list\.txt:2: '@colour: red' is not understood; .*@background:"),
        ("cat\n@background sky\n", r"list\.txt:2: .* is not understood"),
        ("c\x00at\n", r"list\.txt:1: .* cannot hold"),
    ],
)
def test_parse_refuses_with_the_line(text: str, message: str) -> None:
    with pytest.raises(PatchwordError, match=message) as raised:
        Vocabulary.parse(text, source="list.txt")
    assert "\n" not in str(raised.value)


def test_shared_words_may_stand_in_several_classes_when_declared() -> None:
    vocabulary = Vocabulary.parse("sky; bed\n@shared: bed\nbed\n")
    assert [entry.words for entry in vocabulary.classes] == [("sky", "bed"), ("bed",)]
    assert Vocabulary.parse("sky; bed\nbed\n", shared=["Bed"]).names == ("sky", "bed")
    assert vocabulary.index("bed") == 1
    with pytest.raises(PatchwordError, match="already the name of a class"):
        Vocabulary.parse("@shared: bed\nbed\nbed\n")


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ("cat, dog", [("cat",), ("dog",)]),
        ("cat", [("cat",)]),
        ("sofa; couch, lamp", [("sofa", "couch"), ("lamp",)]),
        (["cat", "sofa; couch"], [("cat",), ("sofa", "couch")]),
        (("dog, domestic",), [("dog, domestic",)]),
        ("cat\ndog # comment\n", [("cat",), ("dog",)]),
        (Vocabulary.parse("cat; kitten"), [("cat", "kitten")]),
    ],
)
def test_of_takes_anything_a_user_may_pass(classes: str | list[str] | Vocabulary, words: list[tuple[str, ...]]) -> None:
    assert [entry.words for entry in Vocabulary.of(classes).classes] == words


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("", "no classes"),
        ([], "no classes"),
        ("cat, , dog", "entry 2: empty name"),
        (["cat", "Cat"], "entry 2: 'Cat' is already named at class list, entry 1"),
        ("missing.txt", "no such class list: missing.txt"),
        ("lists/furniture", "no such class list: lists/furniture"),
        (Path("missing"), "no such class list: missing"),
        (["cat", 3], "3 of type int"),
        (["#cat"], "'#'"),
        (["@cat"], "starts with '@'"),
        (["two\nlines; a\x07b"], "cannot hold"),
        (["half\ud800"], "cannot hold"),
    ],
)
def test_of_refuses(classes: str | list[str], message: str) -> None:
    with pytest.raises(PatchwordError, match=message) as raised:
        Vocabulary.of(classes)
    assert "\n" not in str(raised.value)


def test_of_replaces_background_and_templates_when_given() -> None:
    text = "cat\n@background: sky\n@template: the {}\n"
    kept = Vocabulary.of(text)
    assert (kept.background, kept.templates) == (("sky",), ("the {}",))
    replaced = Vocabulary.of(kept, background=["wall"], templates=["one {}"])
    assert (replaced.background, replaced.templates) == (("wall",), ("one {}",))
    with pytest.raises(PatchwordError, match="'cat' is already named at class 1"):
        Vocabulary.of(kept, background=["cat"])
    with pytest.raises(PatchwordError, match="background is the string 'sky'"):
        Vocabulary.of(kept, background="sky")
    with pytest.raises(PatchwordError, match="no templates"):
        Vocabulary.of(kept, templates=[])


def test_files_with_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeff猫; кот\r\n\r\nköter\r\n".encode())
    for passed in (path, str(path)):
        assert [entry.words for entry in Vocabulary.of(passed).classes] == [("猫", "кот"), ("köter",)]


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("cat\nköter\n".encode("latin-1"))
    with pytest.raises(PatchwordError, match=r"classes\.txt:2: not UTF-8"):
        Vocabulary.of(path)


def test_errors_of_a_file_name_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("cat\ncat\n")
    with pytest.raises(PatchwordError, match=rf"{path}:2: 'cat' is already named at {path}:1"):
        Vocabulary.of(str(path))
    with pytest.raises(PatchwordError, match=f"cannot read class list {tmp_path}"):
        Vocabulary.of(tmp_path)


def test_hundreds_of_names_from_many_alphabets() -> None:
    names = [f"{stem} {number}" for stem in ("猫", "дом", "café", "بيت", "🐟") for number in range(150)]
    vocabulary = Vocabulary.of(names)
    assert vocabulary.names == tuple(names)
    assert Vocabulary.parse(vocabulary.to_text()) == vocabulary


def test_index_knows_names_and_synonyms() -> None:
    vocabulary = Vocabulary.of("cat; kitten, sofa; couch")
    assert [vocabulary.index(word) for word in ("cat", "Kitten", " sofa ", "COUCH")] == [0, 0, 1, 1]
    with pytest.raises(PatchwordError, match=r"'coach' is no class .*did you mean 'couch'"):
        vocabulary.index("coach")


def test_hash_sees_content_and_nothing_else() -> None:
    plain = Vocabulary.parse("sofa; couch\ndog\n")
    assert plain.hash == Vocabulary.parse("# list\n\nsofa ;couch # soft\n  dog").hash
    assert plain.hash == Vocabulary.of("sofa; couch, dog").hash
    others = ["sofa\ndog", "dog\nsofa; couch", "sofa; couch\ndog\n@background: sky", "sofa; couch\ndog\n@template: {}"]
    assert len({plain.hash, *(Vocabulary.parse(text).hash for text in others)}) == 5
    assert len(plain.hash) == 64


_characters = st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), blacklist_characters="#;@{}\ufeff")
_words = st.text(_characters, min_size=1, max_size=6).filter(lambda word: unicodedata.normalize("NFC", word).strip())


@st.composite
def _vocabularies(draw: st.DrawFn) -> Vocabulary:
    def same(word: str) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold())

    words = draw(st.lists(_words, min_size=1, max_size=12, unique_by=same))
    background = draw(st.integers(0, len(words) - 1))
    rest = words[background:]
    cuts = sorted({0, *draw(st.lists(st.integers(0, len(rest) - 1), max_size=4))})
    groups = [rest[start:end] for start, end in zip(cuts, [*cuts[1:], len(rest)], strict=True)]
    prefixes = draw(st.lists(_words.filter(lambda word: word.isascii()), min_size=1, max_size=3, unique=True))
    return Vocabulary(
        tuple(VocabularyClass(group[0], tuple(group[1:])) for group in groups),
        background=tuple(words[:background]),
        templates=tuple(f"{prefix} {{}}" for prefix in prefixes),
    )


@given(_vocabularies())
def test_text_round_trip(vocabulary: Vocabulary) -> None:
    again = Vocabulary.parse(vocabulary.to_text())
    assert again == vocabulary
    assert again.hash == vocabulary.hash
    assert again.to_text() == vocabulary.to_text()
