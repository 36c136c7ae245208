"""The tokenizer of the miniature CLIP: words whole, any text, the same bytes every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchword.errors import PatchwordError
from patchword.toytown.classes import CLASSES, COLOURS
from patchword.toytown.world import Scene
from tools.miniatures.pool import draw_pool
from tools.miniatures.tokenizer import END, START, train_tokenizer

SIZE, CONTEXT = 900, 24


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return draw_pool("train-clip", count=300, size=48)


@pytest.fixture(scope="module")
def folder(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(scenes, out=out, size=SIZE, context=CONTEXT)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def ids(tokenizer: Any, text: str) -> list[int]:
    """Tokens between the two that every prompt has."""
    start, *between, end = tokenizer(text)["input_ids"]
    assert (start, end) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return list(between)


def test_saved_and_loaded_it_is_the_same(scenes: list[Scene], tokenizer: Any, tmp_path: Path) -> None:
    fresh = train_tokenizer(scenes, out=tmp_path, size=SIZE, context=CONTEXT)
    for text in ("a photo of the red car, grass and a bird.", "Ein Häuschen am See"):
        assert fresh(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert tokenizer.model_max_length == CONTEXT
    assert (tokenizer.bos_token, tokenizer.eos_token) == (START, END)


def test_training_again_gives_the_same_bytes(folder: Path, scenes: list[Scene], tmp_path: Path) -> None:
    for number in range(3):
        out = tmp_path / str(number)
        train_tokenizer(scenes, out=out, size=SIZE, context=CONTEXT)
        assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in folder.iterdir())
        for path in folder.iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("word", [*CLASSES, *COLOURS])
def test_every_name_is_a_token_of_its_own(tokenizer: Any, word: str) -> None:
    assert len(ids(tokenizer, word)) == 1
    assert ids(tokenizer, f"a {word}.")[1:-1] == ids(tokenizer, word)


def test_it_is_no_larger_than_asked_and_counts_every_token(tokenizer: Any) -> None:
    assert 512 < len(tokenizer) <= SIZE
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(tokenizer)))


def test_a_smaller_one_has_fewer_merges(scenes: list[Scene], tmp_path: Path) -> None:
    small = train_tokenizer(scenes[:50], out=tmp_path, size=530, context=CONTEXT)
    assert len(small) == 530
    assert len(ids(small, "mushroom")) > 1


def test_too_small_a_one_is_refused(scenes: list[Scene], tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="513 tokens; it needs at least 514"):
        train_tokenizer(scenes[:2], out=tmp_path / "none", size=513, context=CONTEXT)
    assert not (tmp_path / "none").exists()


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["C"], max_codepoint=0xFFFF), max_size=20))
def test_no_text_is_unknown(tokenizer: Any, text: str) -> None:
    assert tokenizer.unk_token_id not in ids(tokenizer, text.replace("<|", "<"))


@pytest.mark.parametrize(
    "text",
    [
        "a photo of the red car, grass and a bird.",
        "a quick zebra crosses 12 streets",
        "café, naïve, crème brûlée",
        "犬と猫",
        "дерево и дом",
        "emoji 🙂 too",
    ],
)
def test_text_comes_back(tokenizer: Any, text: str) -> None:
    back = tokenizer.decode(ids(tokenizer, text))
    assert back.replace(" ", "") == text.replace(" ", "")


def test_case_makes_no_difference(tokenizer: Any) -> None:
    assert ids(tokenizer, "A Photo of a CAR") == ids(tokenizer, "a photo of a car")


def test_long_prompts_are_cut_and_short_ones_filled_up(tokenizer: Any) -> None:
    both = tokenizer(["car " * 50, "car"], padding=True, truncation=True, max_length=CONTEXT)
    assert [len(row) for row in both["input_ids"]] == [CONTEXT, CONTEXT]
    assert both["input_ids"][0][-1] == tokenizer.eos_token_id
    assert [sum(row) for row in both["attention_mask"]] == [CONTEXT, 3]
