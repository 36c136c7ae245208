"""The segmenter: what it finds, by any words, at any size; how it is saved, loaded and refused."""

from __future__ import annotations

import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from colour_world import COLOURS, VOCABULARY, ColourPatches, ColourText, draw
from PIL import Image

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.text_embeddings import StoredText, encode_in_batches
from patchword.segmentation import words
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.result import SegmentationResult
from patchword.segmentation.segmenter import Segmenter


def square(colour: tuple[int, int, int], *, height: int = 16, width: int = 16) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


class TestSegment:
    @pytest.mark.parametrize("seed", [100, 101, 102])
    def test_unseen_pictures_are_segmented(self, segmenter: Segmenter, seed: int) -> None:
        picture, truth = draw(seed, height=32, width=48)
        result = segmenter.segment(picture, classes=list(COLOURS), settings={"image_size": 39})  # seen at its own size
        assert (result.label_map.indices == truth).mean() > 0.97
        assert result.label_map.names == COLOURS
        assert result.confidence.shape == (32, 48)
        assert result.confidence.dtype == np.float32
        np.testing.assert_array_equal(result.image, picture)

    def test_the_order_and_choice_of_classes_is_the_callers(self, segmenter: Segmenter) -> None:
        picture, truth = draw(100)
        forwards = segmenter.segment(picture, classes="red, green, blue").label_map
        backwards = segmenter.segment(picture, classes="blue, green, red").label_map
        np.testing.assert_array_equal(2 - backwards.indices, forwards.indices)
        one = segmenter.segment(picture, classes=[COLOURS[truth[0, 0]]])
        assert set(np.unique(one.label_map.indices)) == {0}
        np.testing.assert_allclose(one.confidence, 1)

    def test_synonyms_count_as_their_class(self, segmenter: Segmenter) -> None:
        result = segmenter.segment(square((220, 30, 30)), classes=["green", "thing; crimson", "blue"])
        assert set(np.unique(result.label_map.indices)) == {1}

    def test_background_words_make_a_last_class(self, segmenter: Segmenter) -> None:
        picture, truth = draw(100)
        words = [COLOURS[truth[0, 0]]], [COLOURS[truth[0, -1]]]
        result = segmenter.segment(picture, classes=words[0], background=words[1])
        assert result.label_map.names == (*words[0], "background")
        assert (result.label_map.indices == (truth != truth[0, 0])).mean() > 0.9
        named = Vocabulary.of(words[0], background=words[1], templates=VOCABULARY.templates)
        np.testing.assert_array_equal(
            segmenter.segment(picture, classes=named).label_map.indices, result.label_map.indices
        )
        without = segmenter.segment(picture, classes=named, background=[])
        assert without.label_map.names == tuple(words[0])

    def test_background_words_beside_a_class_of_that_name_are_refused(self, segmenter: Segmenter) -> None:
        with pytest.raises(PatchwordError, match="class 'background' and there are background words"):
            segmenter.segment(square((0, 0, 0)), classes=["red", "background"], background=["blue"])

    def test_threshold_turns_doubt_into_ignore(self, segmenter: Segmenter) -> None:
        picture, _ = draw(100, height=64, width=64)
        free = segmenter.segment(picture, classes=list(COLOURS))
        level = float(np.median(free.confidence))
        held = segmenter.segment(picture, classes=list(COLOURS), settings={"threshold": level})
        np.testing.assert_array_equal(held.label_map.indices == 255, free.confidence < np.float32(level))

    @pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 900), (37, 11)])
    def test_any_shape_is_answered_at_its_own_size(self, segmenter: Segmenter, size: tuple[int, int]) -> None:
        result = segmenter.segment(square((30, 30, 220), height=size[0], width=size[1]), classes=list(COLOURS))
        assert result.label_map.indices.shape == size
        assert set(np.unique(result.label_map.indices)) == {2}

    def test_size_that_the_encoder_sees_can_be_chosen(self, segmenter: Segmenter) -> None:
        seen = []
        encode = segmenter.encoder.__call__

        class Watching(ColourPatches):
            def __call__(self, images: torch.Tensor) -> torch.Tensor:
                seen.append(tuple(images.shape[-2:]))
                return encode(images)

        watched = Segmenter(encoder=Watching(), module=segmenter.module, text=segmenter.text, config=segmenter.config)
        watched.segment(square((0, 0, 0), height=10, width=20), classes="red", settings={"image_size": 32})
        watched.segment(square((0, 0, 0)), classes="red")
        assert seen == [(24, 44), (16, 16)]

    def test_text_is_encoded_once_for_a_list_of_classes(self, segmenter: Segmenter) -> None:
        assert isinstance(segmenter.text, ColourText)
        for _ in range(2):
            segmenter.segment(square((0, 0, 0)), classes=["red", "green"])
        assert segmenter.text.prompts == ["a red patch", "a green patch"]  # the training's template
        segmenter.segment(square((0, 0, 0)), classes=["green"])
        assert len(segmenter.text.prompts) == 3

    def test_own_templates_are_kept(self, segmenter: Segmenter) -> None:
        assert isinstance(segmenter.text, ColourText)
        segmenter.segment(square((0, 0, 0)), classes="@template: some {}.\nred")
        assert segmenter.text.prompts == ["some red."]

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"settings": {"threshold": 1.5}}, "'threshold' is 1.5"),
            ({"settings": {"threshold": float("nan")}}, "'threshold' is nan"),
            ({"settings": {"image_size": 0}}, "'image_size' is 0"),
            ({"settings": {"size": 8}}, "'size' is unknown"),
            ({"classes": []}, "no classes"),
        ],
    )
    def test_wrong_arguments_are_named(self, segmenter: Segmenter, options: dict, message: str) -> None:
        with pytest.raises(PatchwordError, match=message):
            segmenter.segment(square((0, 0, 0)), **{"classes": "red", **options})

    def test_result_has_no_gradient_and_repeats(self, segmenter: Segmenter) -> None:
        picture, _ = draw(7)
        first, again = (segmenter.segment(picture, classes="red, blue").confidence for _ in range(2))
        np.testing.assert_array_equal(first, again)


class TestSaved:
    def test_round_trip_gives_the_same_masks(self, segmenter: Segmenter, tmp_path: Path) -> None:
        segmenter.save_pretrained(tmp_path / "copy", scores={"mIoU": 0.5})
        loaded = Segmenter.from_pretrained(tmp_path / "copy", encoder=ColourPatches(), text_encoder=ColourText())
        picture, _ = draw(55, height=31, width=23)
        one, other = (part.segment(picture, classes=list(COLOURS)) for part in (segmenter, loaded))
        np.testing.assert_array_equal(one.label_map.indices, other.label_map.indices)
        np.testing.assert_array_equal(one.confidence, other.confidence)
        assert "| mIoU | 0.5000 |" in (tmp_path / "copy" / "README.md").read_text()

    def test_full_folder_is_refused_unless_overwritten(self, segmenter: Segmenter, tmp_path: Path) -> None:
        segmenter.save_pretrained(tmp_path / "copy")
        with pytest.raises(PatchwordError, match="not empty"):
            segmenter.save_pretrained(tmp_path / "copy")
        segmenter.save_pretrained(tmp_path / "copy", overwrite=True)

    def test_other_text_encoder_is_refused(self, model_folder: Path) -> None:
        with pytest.raises(
            PatchwordError, match=r"was trained with text encoder colour-text \(fingerprint tttttttttttt\)"
        ):
            Segmenter.from_pretrained(model_folder, encoder=ColourPatches(), text_encoder=ColourText("u" * 64))

    def test_other_encoder_is_refused(self, model_folder: Path) -> None:
        with pytest.raises(
            PatchwordError, match=r"vision encoder colour-patches .* but colour-patches has .* qqqqqqqqqqqq"
        ):
            Segmenter.from_pretrained(model_folder, encoder=ColourPatches("q" * 64), text_encoder=ColourText())

    def test_frozen_model_that_is_gone_can_be_named_anew(self, model_folder: Path) -> None:
        with pytest.raises(PatchwordError, match=r"needs colour-patches: .*; if it is elsewhere now, pass --encoder"):
            Segmenter.from_pretrained(model_folder, text_encoder=ColourText())
        with pytest.raises(PatchwordError, match=r"needs colour-text: .*; if it is elsewhere now, pass --text-encoder"):
            Segmenter.from_pretrained(model_folder, encoder=ColourPatches())

    @pytest.mark.parametrize(
        ("wrong", "told"), [({"device": "toaster"}, "device 'toaster'"), ({"dtype": "x"}, "dtype 'x' is unknown")]
    )
    def test_wrong_device_is_no_matter_of_the_frozen_model(
        self, model_folder: Path, wrong: dict[str, str], told: str
    ) -> None:
        with pytest.raises(PatchwordError, match=f"^{told}"):
            Segmenter.from_pretrained(model_folder, text_encoder=ColourText(), **wrong)

    def test_classes_are_those_of_stored_text_vectors(self, model_folder: Path) -> None:
        segmenter = Segmenter.from_pretrained(model_folder, encoder=ColourPatches(), text_encoder=ColourText())
        assert segmenter.vocabulary_of() == segmenter.config.parsed_vocabulary()
        words = Vocabulary.parse("mauve", source="test")
        stored = StoredText(
            torch.eye(1, segmenter.text.record.dim), record=segmenter.text.record, vocabulary=words, place="c.npz"
        )
        parts = {"encoder": segmenter.encoder, "module": segmenter.module, "config": segmenter.config}
        assert Segmenter(**parts, text=stored).vocabulary_of() == words


class TestDense:
    def test_baseline_speaks_the_same_way(self) -> None:
        picture, truth = draw(100, height=32, width=48)
        result = DenseSegmenter(ColourText()).segment(picture, classes=list(COLOURS))
        assert (result.label_map.indices == truth).mean() > 0.9
        assert result.label_map.names == COLOURS

    def test_baseline_refuses_numbers_out_of_range(self) -> None:
        with pytest.raises(PatchwordError, match="temperature is 0"):
            DenseSegmenter(ColourText(), temperature=0)


class TestWithRealAdapters:
    """Tiny random checkpoints of the real families: nonsense maps, the real path."""

    def test_align_save_move_and_segment(self, tiny_clip: Path, tiny_dinov2: Path, tmp_path: Path) -> None:
        from colour_world import SETTINGS, make_data

        from patchword.alignment.run import align_labels
        from patchword.models.loading import load_image_text, load_patch_encoder

        encoder_folder = shutil.copytree(tiny_dinov2, tmp_path / "encoder")
        text = load_image_text(str(tiny_clip), device="cpu")
        encoder = load_patch_encoder(str(encoder_folder), device="cpu")
        side = 3 * encoder.record.patch_size
        settings = SETTINGS.model_copy(update={"steps": 2, "image_size": side})
        align_labels(
            make_data(tmp_path),
            encoder=encoder,
            text_encoder=text,
            out=tmp_path / "model",
            settings=settings,
            quiet=True,
        )
        picture = Image.fromarray(draw(3, height=20, width=33)[0])
        first = Segmenter.from_pretrained(tmp_path / "model", device="cpu").segment(picture, classes="red, lamp")
        moved = Path(shutil.move(encoder_folder, tmp_path / "moved"))
        with pytest.raises(PatchwordError, match=r"pass --encoder"):
            Segmenter.from_pretrained(tmp_path / "model", device="cpu")
        again = Segmenter.from_pretrained(tmp_path / "model", encoder=moved, device="cpu")
        second = again.segment(picture, classes="red, lamp")
        np.testing.assert_array_equal(first.label_map.indices, second.label_map.indices)
        dense = DenseSegmenter(text).segment(picture, classes="red, lamp")
        assert dense.label_map.indices.shape == (20, 33)


class TestThreads:
    def test_one_segmenter_in_several_threads(self, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other words, other pictures and other ways to refine at the same time, and hardly any words kept."""
        monkeypatch.setattr(words, "_KEPT", 1)
        segmenter = Segmenter.from_pretrained(model_folder, encoder=ColourPatches(), text_encoder=ColourText())
        asked = [
            (draw(number, height=20, width=24)[0], f"red, green, thing {number % 7}", {"refine": refine})
            for number, refine in enumerate(["none", "jbu", "pamr"] * 10)
        ]

        def segment(picture: np.ndarray, classes: str, settings: dict[str, str]) -> SegmentationResult:
            return segmenter.segment(picture, classes=classes, settings=settings)

        expected = [segment(*each) for each in asked]
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(8) as pool:
                found = list(pool.map(lambda each: segment(*each), asked * 4))
        finally:
            sys.setswitchinterval(interval)
        for one, other in zip(found, expected * 4, strict=True):
            np.testing.assert_array_equal(one.label_map.indices, other.label_map.indices)
            np.testing.assert_array_equal(one.confidence, other.confidence)
            assert one.label_map.names == other.label_map.names

    def test_text_towers_encode_for_one_thread_at_a_time(self) -> None:
        """Tokenizers keep how they pad in themselves, and refuse to be changed while another thread has them."""
        inside: list[int] = []
        most: list[int] = []

        def encode(prompts: list[str]) -> torch.Tensor:
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()
            return torch.ones(len(prompts), 4)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: encode_in_batches(["cat"], encode=encode, empty=torch.zeros(0, 4)), range(4)))
        assert max(most) == 1


def test_a_class_prior_moves_scores_and_zero_does_not(segmenter: Segmenter) -> None:
    picture, _ = draw(100)
    plain = segmenter.segment(picture, classes=list(COLOURS))
    for weight in (-1.0, 1.0):
        settings = {"class_prior": weight}
        moved = segmenter.segment(picture, classes=list(COLOURS), settings=settings)
        again = segmenter.segment(segmenter.encode(picture), classes=list(COLOURS), settings=settings)
        assert not np.array_equal(moved.confidence, plain.confidence)
        np.testing.assert_array_equal(again.confidence, moved.confidence)
