"""What the text tower is given of a name: OpenAI's cleaning and lower case, and how many tokens of it."""

from __future__ import annotations

import html
import json
import re
import warnings
from pathlib import Path
from typing import Any

import ftfy
import pytest
import torch

import patchword.models.text_embeddings as common
import patchword.segmentation.words as text_store
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordWarning
from patchword.models.loading import load_image_text
from patchword.models.text_embeddings import clean_prompt
from patchword.segmentation.words import WordEncoder
from patchword.toytown.miniatures import CLIP

# A written name, and the plain one that the models were trained to read.
PLAIN = {
    "king’s crown": "king's crown",
    "“stop” sign": '"stop" sign',
    "‘no entry’": "'no entry'",
    "ﬁre engine": "fire engine",
    "ﬂower": "flower",
    "oﬃce": "office",
    "ｃａｒ": "car",
    "ＴＲＥＥ　ＴＯＰ": "tree top",
    "salt &amp; pepper": "salt & pepper",
    "salt &amp;amp; pepper": "salt & pepper",
    "a &lt;b&gt; sign": "a <b> sign",
    "caf\u00c3\u00a9": "caf\u00e9",
    "cre\u0300me": "cr\u00e8me",
    "\u00e2\u20ac\u0153quoted\u00e2\u20ac\u009d": '"quoted"',
    "ΟΔΟΣ": "οδος",
    "ΣΚΥΛΟΣ ΣΤΟ ΠΑΡΚΟ": "σκυλος στο παρκο",
    "  two   spaces ": "two spaces",
    "no\u00a0break": "no break",
    "tab\tbed": "tab bed",
    "soft\r\nline": "soft line",
}
NAMES = [
    *PLAIN,
    *["cat", "dog's", "dogs'", "don't", "we've", "I'll", "you're", "I'm", "he'd", "CAT", "Fire-Truck", "4x4", "no.7"],
    *["A4", "20%", "C++", "x_y", "dining_table"],
    *["Straße", "STRASSE", "İstanbul", "naïve", "Ångström", "Ærø", "犬", "ねこ", "собака", "ΣΟΦΑΣ", "σοφάς", "कुत्ता"],
    *[
        "كلب",
        "🚗",
        "car 🚗!",
        "traffic light",
        "screen, crt screen",
        "24\u2033 monitor",
        "½ pint",
        "№ 5",
        "ß",
        "…and so on",
    ],
]


def _reference_clean(text: str) -> str:
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def _reference_tokens(text: str, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> list[int]:
    """Byte pairs as Sennrich et al. have them, one merge after the other, on OpenAI's cleaned, lowered text."""
    import regex

    letters = _byte_letters()
    pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    ids = [vocabulary["<|startoftext|>"]]
    for word in regex.findall(pattern, _reference_clean(text).lower(), regex.IGNORECASE):
        parts = [letters[byte] for byte in word.encode()]
        parts[-1] += "</w>"
        for first, second in merges:
            place = 0
            while place < len(parts) - 1:
                if (parts[place], parts[place + 1]) == (first, second):
                    parts[place : place + 2] = [first + second]
                place += 1
        ids += [vocabulary[part] for part in parts]
    return [*ids, vocabulary["<|endoftext|>"]]


def _byte_letters() -> dict[int, str]:
    """The letter that stands for each byte in byte-level vocabularies: itself where it prints, else one from 256 on."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in prints]
    return {byte: chr(byte) for byte in prints} | {byte: chr(256 + place) for place, byte in enumerate(others)}


@pytest.fixture(scope="module")
def clip() -> Any:
    return load_image_text(str(CLIP), device="cpu")


def test_sixty_names_are_tokenized_as_openai_does(clip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(NAMES) >= 60
    content = json.loads((CLIP / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [tuple(each) if isinstance(each, list) else tuple(each.split()) for each in content["model"]["merges"]]
    seen: list[list[int]] = []
    forward = clip.model.get_text_features

    def watch(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        seen.extend(row[mask.bool()].tolist() for row, mask in zip(input_ids, attention_mask, strict=True))
        return forward(input_ids=input_ids, attention_mask=attention_mask)

    monkeypatch.setattr(clip.model, "get_text_features", watch)
    clip.encode_text([f"a {name}" for name in NAMES])
    expected = [_reference_tokens(f"a {name}", content["model"]["vocab"], merges) for name in NAMES]  # type: ignore[arg-type]
    limit = clip.context_length
    assert [ids[: limit - 1] for ids in seen] == [
        ids[:-1][: limit - 1] + ids[-1:] * (len(ids) < limit) for ids in expected
    ]
    assert clip.token_counts([f"a {name}" for name in NAMES]) == [len(ids) for ids in expected]


@pytest.mark.parametrize(("written", "plain"), PLAIN.items())
@pytest.mark.parametrize("family", ["tiny_clip", "tiny_siglip"])
def test_a_written_name_has_the_vector_of_the_plain_one(
    written: str, plain: str, family: str, request: pytest.FixtureRequest
) -> None:
    encoder = load_image_text(str(request.getfixturevalue(family)), device="cpu")
    torch.testing.assert_close(encoder.encode_text([f"a {written}"]), encoder.encode_text([f"a {plain}"]))


def test_names_and_hashes_stay_as_they_were_written() -> None:
    vocabulary = Vocabulary.of(["king’s crown", "ｃａｒ"])
    assert vocabulary.names == ("king’s crown", "ｃａｒ")
    assert vocabulary.hash != Vocabulary.of(["king's crown", "car"]).hash


def test_vectors_that_were_cached_without_cleaning_are_made_again(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path))
    encoder = load_image_text(str(tiny_clip), device="cpu")
    classes = Vocabulary.of(["ｃａｒ", "dog"], templates=["a {}"])
    with monkeypatch.context() as earlier:
        earlier.setattr(text_store, "_FORMAT", "patchword-text-cache-1")
        earlier.setattr(common, "clean_prompt", str)
        before = WordEncoder(encoder)(classes).vectors.words
    now = WordEncoder(encoder)(classes).vectors.words
    assert not torch.allclose(before[0], now[0])
    torch.testing.assert_close(before[1], now[1])


@pytest.mark.parametrize(("family", "limit"), [("tiny_clip", 40), ("tiny_siglip", 40)])
def test_a_name_that_is_cut_is_said_with_its_tokens(family: str, limit: int, request: pytest.FixtureRequest) -> None:
    encoder: Any = load_image_text(str(request.getfixturevalue(family)), device="cpu")
    name = "x" * 3 * limit
    tokens = len(encoder.tokenizer(f"a {name}.")["input_ids"])
    vocabulary = Vocabulary.of(["cat", name], templates=["a {}.", "{}"])
    with pytest.warns(
        PatchwordWarning, match=rf"takes {limit} tokens and cuts the rest: '{name[:40]}.*' has {tokens} in"
    ):
        WordEncoder(encoder)(vocabulary)


def test_a_name_that_fits_is_not_said(tiny_clip: Path) -> None:
    encoder = load_image_text(str(tiny_clip), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PatchwordWarning)
        WordEncoder(encoder)(Vocabulary.of(["cat", "dog"], templates=["a {}."]))


def test_words_that_the_tower_cannot_tell_apart_are_said(tiny_clip: Path) -> None:
    encoder = load_image_text(str(tiny_clip), device="cpu")
    vocabulary = Vocabulary.of(["king’s", "ｃａｒ; cａr", "king's"], background=["car"], templates=["a {} b"])
    with pytest.warns(PatchwordWarning) as said:
        WordEncoder(encoder)(vocabulary)
    (message,) = [str(each.message) for each in said]
    assert """'king’s' and "king's" (cosine 1.00000)""" in message
    assert "'ｃａｒ' and 'car'" in message
    assert "'ｃａｒ' and 'cａr'" not in message, "they are one class"


def test_a_shared_word_is_meant_to_be_the_same(tiny_clip: Path) -> None:
    encoder = load_image_text(str(tiny_clip), device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", PatchwordWarning)
        WordEncoder(encoder)(Vocabulary.parse("@shared: bank\n@template: a {}\ncat; bank\nboat; bank\n"))


def test_clean_prompt_keeps_what_is_plain() -> None:
    assert clean_prompt("a photo of the large cat.") == "a photo of the large cat."
