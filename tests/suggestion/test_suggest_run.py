"""From photographs of known colours to a class list, its page, and what is said of photographs that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from label_fakes import ColourClip, picture
from PIL import Image
from torch import Tensor

import patchword
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.suggestion.result import Suggestion, render
from patchword.suggestion.run import spread, suggest_classes, thumbnail

NOUNS = Vocabulary.parse("yellow\nred; crimson red\n  @colour: c04080\nblue\ngreen\n@background: black; white\n")


def make_photos(folder: Path, pictures: dict[str, list[str]]) -> Path:
    for name, row in pictures.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture([row], scale=16)).save(path)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    pictures = {f"{number}.png": ["blue", "blue", "red"] for number in range(6)}
    pictures |= {f"deep/er/{number}.png": ["blue", "blue", "black"] for number in range(3)}
    return make_photos(tmp_path / "photos", pictures | {"odd <b>.png": ["green", "green"]})


def propose(photos: Path, **numbers: object) -> Suggestion:
    settings = {"minimum_share": 0.2, **numbers}
    return patchword.suggest(photos, nouns=NOUNS, image_text=ColourClip(), settings=settings, quiet=True)


def test_the_nouns_that_are_there_are_proposed_the_most_frequent_first(photos: Path) -> None:
    suggestion = propose(photos)
    assert suggestion.vocabulary.names == ("blue", "red")
    assert [(each.name, each.photographs) for each in suggestion.classes] == [("blue", 9), ("red", 6)]
    assert [(each.name, each.photographs) for each in suggestion.background] == [("black", 3)]
    assert [(each.name, each.photographs) for each in suggestion.missed] == [("green", 1)]
    assert (suggestion.photographs, suggestion.found, suggestion.failed) == (10, 10, {})
    assert [each.name for each in propose(photos, minimum_share=0.1).classes] == ["blue", "red", "green"]


def test_the_text_reads_back_as_the_list_and_says_what_was_counted(photos: Path) -> None:
    suggestion = propose(photos)
    text = suggestion.to_text()
    assert Vocabulary.parse(text) == suggestion.vocabulary
    assert suggestion.vocabulary.classes[1] == NOUNS.classes[1]  # synonyms and colour come along
    assert re.search(r"^blue +# 9 photographs \(90%\), \d+ crops$", text, flags=re.MULTILINE)
    assert "@background: black\n" in text
    assert "@template" not in text
    own = patchword.suggest(
        photos,
        nouns=Vocabulary.of(NOUNS, templates=["a {} thing"]),
        image_text=ColourClip(),
        settings={"minimum_share": 0.2},
        quiet=True,
    )
    assert "@template: a {} thing\n" in own.to_text()
    assert Vocabulary.parse(own.to_text()) == own.vocabulary


def test_files_are_written_and_the_page_holds_the_surest_crops(photos: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "classes.txt", tmp_path / "new" / "page.html"
    suggestion = patchword.suggest(
        photos,
        out=out,
        page=page,
        nouns=NOUNS,
        image_text=ColourClip(),
        settings={"examples": 2, "minimum_share": 0.1},
        quiet=True,
    )
    assert Vocabulary.of(out) == suggestion.vocabulary
    text = page.read_text(encoding="utf-8")
    pictures = sum(len(each.examples) for each in (*suggestion.classes, *suggestion.background))
    assert pictures == 2 + 2 + 1 + 2
    assert text.count('src="data:image/jpeg;base64,') == pictures
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert "odd &lt;b&gt;.png" in text
    assert "odd <b>" not in text
    surest = suggestion.classes[0].examples
    assert surest[0].lead >= surest[1].lead > 0
    assert surest[0].photograph != surest[1].photograph


def test_a_thumbnail_is_the_crop(tmp_path: Path) -> None:
    pixels = picture([["red", "blue"], ["green", "yellow"]], scale=100)
    path = tmp_path / "crop.jpg"
    path.write_bytes(thumbnail(pixels, np.array([0.5, 0.0, 1.0, 0.5]), size=40))
    with Image.open(path) as image:
        assert image.size == (40, 40)
        np.testing.assert_allclose(np.asarray(image)[20, 20], (0, 0, 255), atol=4)
    assert thumbnail(np.zeros((1, 1, 3), dtype=np.uint8), np.array([0.0, 0.0, 1.0, 1.0]), size=40)


def test_photographs_that_cannot_be_read_are_told_and_left_out(photos: Path) -> None:
    (photos / "broken #1.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    suggestion = propose(photos)
    assert list(suggestion.failed) == ["broken #1.jpg"]
    assert (suggestion.photographs, suggestion.found) == (10, 11)
    assert "1 photograph could not be looked at" in suggestion.to_text()
    assert Vocabulary.parse(suggestion.to_text()) == suggestion.vocabulary
    assert "broken #1.jpg" in render(suggestion)


def test_only_a_sample_is_looked_at(photos: Path) -> None:
    suggestion = propose(photos, sample=4)
    assert (suggestion.photographs, suggestion.found) == (4, 10)


@pytest.mark.parametrize(("total", "count"), [(10, 3), (10, 10), (10, 50), (1000, 7), (1, 1)])
def test_a_sample_is_spread_over_the_folder(total: int, count: int) -> None:
    numbers = [int(path.name) for path in spread([Path(str(number)) for number in range(total)], count=count)]
    assert len(set(numbers)) == min(total, count)
    assert numbers == sorted(numbers)
    gaps = np.diff([-1, *numbers, total])
    assert gaps.max() <= -(-total // min(total, count)) + 1


def test_nothing_to_propose_is_said(tmp_path: Path) -> None:
    make_photos(tmp_path / "dark", {"1.png": ["black", "black"]})
    with pytest.raises(PatchwordError, match=r"no noun is seen in 20\.0% of 1 photograph; lower minimum_share"):
        propose(tmp_path / "dark")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "1.png").write_bytes(b"\x89PNG")
    with pytest.raises(PatchwordError, match=r"none of 1 photograph could be looked at; 1\.png: "):
        propose(tmp_path / "broken")


def test_an_encoder_that_returns_no_numbers_is_named(photos: Path) -> None:
    encoder = ColourClip()
    encoder.encode_images = lambda images: ColourClip.encode_images(encoder, images) * float("nan")  # type: ignore[method-assign]
    with pytest.raises(PatchwordError, match="colour-clip returned values that are not finite"):
        suggest_classes(sorted(photos.glob("*.png")), root=photos, encoder=encoder, nouns=NOUNS, quiet=True)


def test_memory_that_runs_out_shrinks_batches_or_is_told(photos: Path) -> None:
    class Small(ColourClip):
        def __init__(self, most: int) -> None:
            super().__init__()
            self.most = most

        def encode_images(self, images: Tensor) -> Tensor:
            if len(images) > self.most:
                raise MemoryError
            return super().encode_images(images)

    images = sorted(photos.glob("*.png"))
    few = suggest_classes(images, root=photos, encoder=Small(3), nouns=NOUNS, quiet=True)
    many = suggest_classes(images, root=photos, encoder=ColourClip(), nouns=NOUNS, quiet=True)
    assert few.to_json() == many.to_json()
    with pytest.raises(PatchwordError, match="0\\.png: not enough memory to look at 16 x 48 pixels"):
        suggest_classes(images, root=photos, encoder=Small(0), nouns=NOUNS, quiet=True)
