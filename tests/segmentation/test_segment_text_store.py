"""Text vectors across processes: encoded once, never out of date, made again where damaged."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from colour_world import ColourText

import warm
from patchword.data.vocabulary import Vocabulary
from patchword.models.loading import load_image_text
from patchword.models.protocols import ImageTextEncoder
from patchword.segmentation.words import ClassWords, TextStore, WordEncoder, text_identity
from patchword.versions import versions

CLASSES = "red; crimson, green, blue"


def words(text: ImageTextEncoder, folder: Path | None, classes: str = CLASSES, **options: object) -> ClassWords:
    return WordEncoder(text, templates=["a {}"], store=TextStore(folder))(classes, **options)  # type: ignore[arg-type]


def same(one: ClassWords, other: ClassWords) -> None:
    assert one.names == other.names
    assert one.vectors.count == other.vectors.count
    torch.testing.assert_close(one.vectors.words, other.vectors.words, rtol=0, atol=0)
    torch.testing.assert_close(one.vectors.classes, other.vectors.classes, rtol=0, atol=0)


def test_a_vocabulary_is_encoded_once(tmp_path: Path) -> None:
    first, second = ColourText(), ColourText()
    made = words(first, tmp_path, background=["sky"])
    kept = words(second, tmp_path, background=["sky"])
    same(made, kept)
    assert len(first.prompts) == 5
    assert second.prompts == []


@pytest.mark.parametrize("change", ["weights", "classes", "templates", "background"])
def test_anything_that_matters_makes_another_entry(tmp_path: Path, change: str) -> None:
    words(ColourText(), tmp_path)
    text = ColourText("u" * 64 if change == "weights" else "t" * 64)
    classes = "@template: the {}\nred" if change == "templates" else "red" if change == "classes" else CLASSES
    words(text, tmp_path, classes, background=["sky"] if change == "background" else None)
    assert text.prompts
    assert len(list(tmp_path.iterdir())) == 2


class Tokens:
    """A tokenizer as transformers has them, and as OpenCLIP wraps them."""

    def __init__(self, text: str) -> None:
        self.backend_tokenizer = SimpleNamespace(to_str=lambda: text)


@pytest.mark.parametrize("wrap", [lambda tokens: tokens, lambda tokens: SimpleNamespace(tokenizer=tokens)])
def test_another_tokenizer_is_another_entry(wrap: Callable[[Tokens], object]) -> None:
    encoders = [ColourText(), ColourText(), ColourText()]
    for encoder, text in zip(encoders, ("a", "b", "a"), strict=True):
        encoder.tokenizer = wrap(Tokens(text))  # type: ignore[attr-defined]
    first, other, again = (text_identity(encoder, Vocabulary.of(CLASSES)) for encoder in encoders)
    assert first == again != other


@pytest.mark.parametrize("package", ["patchword", "torch", "transformers", "open_clip_torch"])
def test_other_software_is_another_entry(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = text_identity(ColourText(), Vocabulary.of(CLASSES))
    monkeypatch.setattr("patchword.segmentation.words.versions", lambda: {**versions(), package: "another"})
    assert text_identity(ColourText(), Vocabulary.of(CLASSES)) != before


@pytest.mark.parametrize("damage", ["short", "empty", "flipped", "foreign"])
def test_damaged_entry_is_made_again(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    made = words(ColourText(), tmp_path)
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    bad = {"short": good[:-7], "empty": b"", "flipped": good[:-3] + bytes([good[-3] ^ 1]) + good[-2:]}
    if damage == "foreign":
        words(ColourText(), tmp_path / "other", "blue")
        (other,) = (tmp_path / "other").iterdir()
        bad["foreign"] = other.read_bytes()
    path.write_bytes(bad[damage])
    text = ColourText()
    same(words(text, tmp_path), made)
    assert text.prompts
    assert "damaged" in caplog.text
    assert path.read_bytes() == good


def test_nothing_is_kept_without_a_folder_or_a_fingerprint(tmp_path: Path) -> None:
    for text, folder in ((ColourText(), None), (ColourText(""), tmp_path)):
        words(text, folder)
        words(text, folder)
        assert len(text.prompts) == 8
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    same(words(ColourText(), tmp_path / "file"), words(ColourText(), None))


def test_what_was_used_least_recently_goes(tmp_path: Path) -> None:
    store = TextStore(tmp_path, most_bytes=2500)  # room for two or three
    for position, name in enumerate(("red", "green", "blue")):
        WordEncoder(ColourText(), store=store)(name)
        for path in tmp_path.iterdir():
            os.utime(path, (1000 + position, 1000 + position) if path.stat().st_mtime > 10**6 else None)
    size = max(path.stat().st_size for path in tmp_path.iterdir())
    bounded = TextStore(tmp_path, most_bytes=2 * size)
    newest = ColourText()
    WordEncoder(newest, store=bounded)("crimson")
    assert len(list(tmp_path.iterdir())) <= 2
    again = ColourText()
    WordEncoder(again, store=bounded)("crimson")
    assert again.prompts == []


def _write(folder: str, count: int) -> None:
    for number in range(count):
        WordEncoder(ColourText(), store=TextStore(Path(folder)))([f"thing {number}"])


def test_processes_may_write_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context(warm.START)
    writers = [context.Process(target=_write, args=(str(tmp_path), 12)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    text = ColourText()
    for number in range(12):
        WordEncoder(text, store=TextStore(tmp_path))([f"thing {number}"])
    assert text.prompts == []
    assert len(list(tmp_path.iterdir())) == 12


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path / "named"))
    WordEncoder(ColourText())("red")
    assert len(list((tmp_path / "named" / "text").iterdir())) == 1
    monkeypatch.setenv("PATCHWORD_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    WordEncoder(ColourText())("red")
    assert not (tmp_path / "home").exists()
    monkeypatch.delenv("PATCHWORD_CACHE")
    WordEncoder(ColourText())("red")
    assert len(list((tmp_path / "home" / ".cache" / "patchword" / "text").iterdir())) == 1


def test_real_text_tower_and_another_process(tiny_clip: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from patchword.models.loading import load_image_text;"
        "from patchword.segmentation.words import WordEncoder;"
        "WordEncoder(load_image_text(sys.argv[1], device='cpu'))('cat, lamp')"
    )
    environment = {**os.environ, "PATCHWORD_CACHE": str(tmp_path)}
    warm.run([sys.executable, "-c", code, str(tiny_clip)], env=environment).check_returncode()
    (path,) = (tmp_path / "text").iterdir()
    text = load_image_text(str(tiny_clip), device="cpu")
    store = TextStore(tmp_path / "text")
    same(WordEncoder(text, store=store)("cat, lamp"), WordEncoder(text, store=TextStore(None))("cat, lamp"))
    assert list((tmp_path / "text").iterdir()) == [path]
    identity = text_identity(text, Vocabulary.of("cat"))
    assert identity["computed_in"] == "torch.float32"
    assert len(identity["tokenizer"]) == 64
