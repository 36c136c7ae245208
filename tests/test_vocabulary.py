"""Class lists: what is read, what is refused and where, and that nothing is lost on the way to text and back."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from patchword.data.colours import class_colours, palette, with_one_more
from patchword.data.vocabulary import Vocabulary
from patchword.data.vocabulary_words import DEFAULT_TEMPLATES, VocabularyClass
from patchword.errors import PatchwordError

TEXT = """
# furniture
sofa; couch ;  settee   # three words
Über-Straße

@background: sky; wall
@template: a photo of a {}.
@template: a   drawing of a {}.
"dog, domestic"
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
        ("cat\n@kolour: c04080\n", r"list\.txt:2: '@kolour: c04080' is not understood; .*@background:.*@colour:"),
        ("cat\n  @colour: red\n", r"list\.txt:2: 'red' is not a colour; .* six hexadecimal digits"),
        ("cat\n@colour: #c04080\n", r"list\.txt:2: the colour is missing; .* without '#', which starts a comment"),
        ("cat\n@colour: c04\n", r"list\.txt:2: 'c04' is not a colour"),
        ("# my list\n@colour: c04080\ncat\n", r"list\.txt:2: a colour belongs to the class above it"),
        ("@own-template: a {}.\ncat\n", r"list\.txt:1: a template of its own belongs to the class above it"),
        ("cat\n@colour: c04080\n@colour: c04081\n", r"list\.txt:3: class 'cat' already has the colour c04080"),
        ("cat\n@colour: C04080\ndog\n@colour: c04080\n", r":4: colour c04080 is already given at list\.txt:2"),
        ("cat\n@colour: e0e0c0\n", r"list\.txt:2: colour e0e0c0 is too like e0e0c0, which shows pixels that are ign"),
        ("cat\n@colour: d4e4c8\n", r"list\.txt:2: colour d4e4c8 is too like e0e0c0"),
        ("cat\n@colour: 100a00\n", r"list\.txt:2: colour 100a00 is too like 000000, which shows pixels without a"),
        ("cat\n@own-template: a cat\n", r"list\.txt:2: template 'a cat' must have exactly one"),
        ("cat\n@own-template: a {}\n@own-template: a  {}\n", r"list\.txt:3: template 'a \{\}' is given twice"),
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
        (('"dog, domestic"; hound',), [("dog, domestic", "hound")]),
        ('"dog, domestic"; hound, cat,', [("dog, domestic", "hound"), ("cat",)]),
        ('24" monitor, "3. base", """stop"" sign"', [('24" monitor',), ("3. base",), ('"stop" sign',)]),
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
        (["cat, dog"], "entry 1: 'cat, dog' has a comma; pass one class an entry"),
        (["classes.txt"], "entry 1: 'classes.txt' looks like a file; pass its path alone"),
        ("classes.tx", "no such class list: classes.tx; pass a text file"),
        ("lists/classes.json", "no such class list: lists/classes.json"),
        ('["cat", "dog"]', "looks like JSON"),
        ('"cat, dog', "quote that is not closed"),
        (None, r"classes is None; pass names, such as \["),
        (7, "classes is 7; pass names"),
        ({0: "cat"}, "0 of type int"),
    ],
)
def test_of_refuses(classes: str | list[str], message: str) -> None:
    with pytest.raises(PatchwordError, match=message) as raised:
        Vocabulary.of(classes)
    assert "\n" not in str(raised.value)


def test_a_class_may_have_a_colour_and_templates_of_its_own() -> None:
    own = "  @colour: C04080 # pink\n@Own-Template: a {}  on a sofa.\n@background: wall\n@own-template: the {}\n"
    vocabulary = Vocabulary.parse(f"cat\n\n{own}dog")
    cat, dog = vocabulary.classes
    assert (cat.colour, cat.templates) == ((0xC0, 0x40, 0x80), ("a {} on a sofa.", "the {}"))
    assert (dog.colour, dog.templates) == (None, ())
    assert vocabulary.to_text().endswith(
        "\ncat\n  @colour: c04080\n  @own-template: a {} on a sofa.\n  @own-template: the {}\ndog\n"
    )
    assert Vocabulary.parse(vocabulary.to_text()) == vocabulary
    assert Vocabulary.of(vocabulary, templates=["one {}"]).classes == vocabulary.classes


@pytest.mark.parametrize("colour", [(1, 2), (300, 0, 0), (-1, 99, 99), (0.5, 99, 99), "abc"])
def test_a_class_with_a_colour_that_is_none_is_refused(colour: tuple[int, int, int]) -> None:
    with pytest.raises(PatchwordError, match=r"class 2: colour .* whole numbers from 0 to 255"):
        Vocabulary((VocabularyClass("cat"), VocabularyClass("dog", colour=colour)))


def test_colours_are_the_palette_with_the_given_ones_put_in() -> None:
    plain = Vocabulary.parse("cat\ndog\nowl\n")
    np.testing.assert_array_equal(plain.colours, palette(3))
    one = Vocabulary.parse("cat\ndog\n@colour: c04080\nowl\n").colours
    assert one.dtype == np.uint8
    assert one.tolist() == [palette(3)[0].tolist(), [0xC0, 0x40, 0x80], palette(3)[2].tolist()]


def test_a_class_without_a_colour_makes_way_for_a_given_one() -> None:
    first, second = palette(2).astype(int)
    near = np.clip(first + np.where(first > 128, -9, 9), 0, 255)
    text = f"cat\ndog\n@colour: {bytes(near.tolist()).hex()}\nowl\n@colour: {bytes(second.tolist()).hex()}\n"
    colours = Vocabulary.parse(text).colours
    assert colours[1:].tolist() == [near.tolist(), second.tolist()]
    assert colours[0].tolist() == palette(4)[3].tolist()


@given(st.lists(st.none() | st.integers(0, 300), min_size=1, max_size=300))
@settings(max_examples=30, deadline=None)
def test_no_two_colours_are_equal(positions: list[int | None]) -> None:
    known = [tuple(colour) for colour in palette(301).tolist()]
    seen: set[int] = set()
    given_colours = [
        None if position is None or position in seen or seen.add(position) else known[position]
        for position in positions
    ]
    colours = class_colours(given_colours)
    assert len({tuple(colour) for colour in with_one_more(colours).tolist()}) == len(positions) + 1
    for colour, wanted in zip(colours.tolist(), given_colours, strict=True):
        assert wanted is None or tuple(colour) == wanted


def test_lists_without_colours_keep_their_text_and_hash() -> None:
    text = "# list\nsofa; couch\nÜber-Straße\n@background: sky; wall\n@shared: bed\nbed\nbunk; bed\n"
    vocabulary = Vocabulary.parse(text + "@template: a photo of a {}.\n")
    assert vocabulary.to_text() == (
        "@background: sky; wall\n@shared: bed\n@template: a photo of a {}.\nsofa; couch\nÜber-Straße\nbed\nbunk; bed\n"
    )
    assert vocabulary.hash == "a7a275ef67e4c5537fbe781df3e4faf20f187fe8e189ab9cafbe84d77a1d3127"
    assert Vocabulary.of("cat, dog; hound").hash == "1fc68b5cc771b95a90db7781b2cd522777857588ed108f0543c08847f8d1185e"


def test_of_replaces_background_and_templates_when_given() -> None:
    text = "cat\n@background: sky\n@template: the {}\n"
    kept = Vocabulary.of(text)
    assert (kept.background, kept.templates) == (("sky",), ("the {}",))
    replaced = Vocabulary.of(kept, background=["wall"], templates=["one {}"])
    assert (replaced.background, replaced.templates) == (("wall",), ("one {}",))
    with pytest.raises(PatchwordError, match="'cat' is already named at class 1"):
        Vocabulary.of(kept, background=["cat"])
    with pytest.raises(PatchwordError, match="background must be a list of strings, not the string 'sky'"):
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


OTHER_FORMATS = {
    "cat\ncat, dog, sofa\n": "2: 'cat, dog, sofa' has a comma; write one class a line, and synonyms after ';'",
    "cat, dog; owl": "1: 'cat, dog' has a comma",
    "cat\n@background: sky, wall\n": "2: 'sky, wall' has a comma; ';' stands between words",
    "cat\n@shared: sky, wall\n": "2: 'sky, wall' has a comma",
    "0: cat\n1: dog": "1: '0: cat' starts with a number; write the name alone: cat",
    "1. horse": "1: '1. horse' starts with a number; write the name alone: horse",
    "2) horse": "1: '2\\) horse' starts with a number; write the name alone: horse",
    "1\tcat\n2\tdog": r"1: '1\\tcat' starts with a number; write the name alone: cat",
    "cat\tdog": "1: .* has a tab",
    "Idx\tRatio\tName": "1: .* has a tab",
    "cat\n- dog": "2: '- dog' starts as a list item; write the name alone: dog",
    "* dog": "1: '\\* dog' starts as a list item; write the name alone: dog",
    '["cat", "dog"]': "1: .* looks like JSON",
    "{": "1: '{' looks like JSON",
    "<label>cat</label>": "1: .* looks like JSON or XML",
    "path: ../coco\nnames:\n  0: cat": "1: 'path: ../coco' looks like YAML",
    "names:\n  0: cat\n": "1: 'names:' looks like YAML",
    "---\n": "1: '---' looks like YAML",
    "'cat'\n": "1: .* is in quotes; write the name alone: cat",
    "“cat”\n": "1: .* is in quotes; write the name alone: cat",
    "background:0,0,0::\ncat:128,0,0::": "1: .* looks like a line of labelmap.txt; write the name alone: background",
    "id,name\n0,cat": "1: 'id,name' has a comma",
    '"cat","dog"': "1: .* has a comma; write one class a line",
    '"cat': "1: .* has a quote that is not closed",
    "cat | dog": "1: 'cat | dog' has a bar; write one class a line",
    "0 cat\n1 dog\n": "1: '0 cat' starts with a number, as all lines; write the names alone: cat",
    "salt &amp; pepper": "1: '&amp;' is an HTML entity",
    "cat\nmore.txt": "2: 'more.txt' looks like a file",
}


@pytest.mark.parametrize(("text", "message"), OTHER_FORMATS.items())
def test_other_formats_are_refused_with_file_line_and_the_right_form(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PatchwordError, match=f"{path}:{message}") as raised:
        Vocabulary.of(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["data.yaml", "classes.json", "labels.csv"])
def test_an_existing_file_of_another_format_is_read_and_refused(name: str, tmp_path: Path) -> None:
    texts = {"data.yaml": "names: [cat, dog]\n", "classes.json": '[\n"cat"]\n', "labels.csv": "id,name\n"}
    (tmp_path / name).write_text(texts[name])
    with pytest.raises(PatchwordError, match=f"{name}:1: "):
        Vocabulary.of(str(tmp_path / name))


def test_a_mistyped_file_and_a_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    (tmp_path / "cats").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PatchwordError, match=r"no such class list: classes\.tx; did you mean classes\.txt\?"):
        Vocabulary.of("classes.tx")
    with pytest.raises(PatchwordError, match="classes: cats is a folder"):
        Vocabulary.of("cats")
    assert Vocabulary.of("cats,").names == ("cats",)


@pytest.mark.parametrize(
    "name",
    ["St. Bernard", "3.5 inch disk", "4x4", "AT&T", "10:15 train", "rock'n'roll", "'s-Hertogenbosch", "x-ray", "-"],
)
def test_odd_names_are_names(name: str) -> None:
    assert Vocabulary.parse(name).names == Vocabulary.of([name]).names == Vocabulary.of(name).names == (name,)


def test_background_words_with_commas_are_refused_in_python() -> None:
    with pytest.raises(PatchwordError, match="background words: 'sky, wall' has a comma; pass one word an entry"):
        Vocabulary.of("cat", background=["sky, wall"])
    assert Vocabulary.of("cat", background=['"sky, blue"']).background == ("sky, blue",)


def test_what_earlier_versions_wrote_still_opens_with_its_hash() -> None:
    """They quoted nothing; the text and its hash are of the commit before quotes."""
    text = '@background: sky, blue\n@template: a {}.\nscreen, crt screen; monitor\n0: cat\n"dog"\n'
    old = Vocabulary.recorded(text, source="dataset.json")
    assert old.names == ("screen, crt screen", "0: cat", '"dog"')
    assert old.background == ("sky, blue",)
    assert old.hash == hashlib.sha256(text.encode()).hexdigest()
    assert Vocabulary.recorded(old.to_text(), source="x") == Vocabulary.parse(old.to_text()) == old
    assert '"screen, crt screen"; monitor' in old.to_text()


@pytest.mark.parametrize(
    ("classes", "background", "spoken"),
    [
        ("cat, dog, sofa", ["sky", "wall"], "3 classes: cat, dog, sofa (+2 background words)"),
        ("cat", (), "1 class: cat"),
        ("cat dog", (), "1 class: cat dog; commas separate classes"),
        (
            "cat;dog;sofa",
            ["sky"],
            "1 class: cat (or dog, sofa) (+1 background word); commas separate classes",
        ),
        (",".join(map(str, range(14))), (), "14 classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"),
    ],
)
def test_a_list_is_told_in_one_line(classes: str, background: list[str], spoken: str) -> None:
    assert Vocabulary.of(classes, background=background).spoken() == spoken


def test_index_knows_names_and_synonyms() -> None:
    vocabulary = Vocabulary.of("cat; kitten, sofa; couch")
    assert [vocabulary.index(word) for word in ("cat", "Kitten", " sofa ", "COUCH")] == [0, 0, 1, 1]
    with pytest.raises(PatchwordError, match=r"'coach' is not in the class list; did you mean 'couch'"):
        vocabulary.index("coach")


def test_hash_sees_content_and_nothing_else() -> None:
    plain = Vocabulary.parse("sofa; couch\ndog\n")
    assert plain.hash == Vocabulary.parse("# list\n\nsofa ;couch # soft\n  dog").hash
    assert plain.hash == Vocabulary.of("sofa; couch, dog").hash
    others = ["sofa\ndog", "dog\nsofa; couch", "sofa; couch\ndog\n@background: sky", "sofa; couch\ndog\n@template: {}"]
    own = ["@colour: c04080\ndog", "dog\n@colour: c04080", "@own-template: {}\ndog"]
    others += [f"sofa; couch\n{text}" for text in own]
    assert len({plain.hash, *(Vocabulary.parse(text).hash for text in others)}) == 8
    assert len(plain.hash) == 64


_characters = st.characters(blacklist_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), blacklist_characters="#;@{}\ufeff")
_words = st.text(_characters, min_size=1, max_size=6).filter(lambda word: unicodedata.normalize("NFC", word).strip())

_prefixes = _words.filter(lambda word: word.isascii())
_colours = st.tuples(st.integers(20, 210), st.integers(0, 255), st.integers(0, 255)).filter(lambda rgb: rgb[0] < 200)


@st.composite
def _vocabularies(draw: st.DrawFn) -> Vocabulary:
    def same(word: str) -> str:
        return unicodedata.normalize("NFC", unicodedata.normalize("NFC", word).casefold())

    words = draw(st.lists(_words, min_size=1, max_size=12, unique_by=same))
    background = draw(st.integers(0, len(words) - 1))
    rest = words[background:]
    cuts = sorted({0, *draw(st.lists(st.integers(0, len(rest) - 1), max_size=4))})
    groups = [rest[start:end] for start, end in zip(cuts, [*cuts[1:], len(rest)], strict=True)]
    colours = draw(st.lists(st.none() | _colours, min_size=len(groups), max_size=len(groups)))
    given = [colour for colour in colours if colour]
    assume(len(set(given)) == len(given))
    own = draw(st.lists(st.lists(_prefixes, max_size=2, unique=True), min_size=len(groups), max_size=len(groups)))
    prefixes = draw(st.lists(_prefixes, min_size=1, max_size=3, unique=True))
    return Vocabulary(
        tuple(
            VocabularyClass(group[0], tuple(group[1:]), tuple(f"{prefix} {{}}" for prefix in prefixes), colour)
            for group, prefixes, colour in zip(groups, own, colours, strict=True)
        ),
        background=tuple(words[:background]),
        templates=tuple(f"{prefix} {{}}" for prefix in prefixes),
    )


@given(_vocabularies())
def test_text_round_trip(vocabulary: Vocabulary) -> None:
    again = Vocabulary.parse(vocabulary.to_text())
    assert again == vocabulary
    assert Vocabulary.recorded(vocabulary.to_text(), source="record") == vocabulary
    assert again.hash == vocabulary.hash
    assert again.to_text() == vocabulary.to_text()


def test_the_page_on_the_format_is_true() -> None:
    page = (Path(__file__).parents[1] / "docs" / "vocabulary.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```text\n(.*?)```", page, flags=re.DOTALL)
    vocabulary = Vocabulary.parse(example, source="docs/vocabulary.md")
    assert vocabulary.names == ("sofa", "cat", "bank", "lamp", "river")
    sofa, cat, bank, lamp, river = vocabulary.classes
    assert sofa.synonyms == ("couch", "settee")
    assert (cat.colour, cat.templates) == ((0xF0, 0x80, 0x30), ("a photo of a {} indoors.", "a close-up of a {}."))
    assert (lamp.colour, lamp.templates, bank.synonyms, river.synonyms) == (None, (), (), ("bank",))
    assert vocabulary.background == ("wall", "floor")
    assert vocabulary.templates == ("a photo of a {}.", "a drawing of a {}.")
    assert vocabulary.shared == ("bank",)
