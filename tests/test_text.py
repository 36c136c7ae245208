"""Text vectors: which prompts are encoded, how they are averaged, how words become classes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.protocols import ModelRecord
from patchword.models.text_embeddings import TextVectors, encode_vocabulary

DIM = 8


class CountingEncoder:
    """A text tower that gives every prompt its own random unit vector and remembers what it was asked."""

    def __init__(self) -> None:
        self.record = ModelRecord("fake", "fake", None, "", 4, DIM, (0.5,) * 3, (0.5,) * 3, 8, "")
        self.device = torch.device("cpu")
        self.calls: list[list[str]] = []

    def encode_text(self, prompts: Sequence[str]) -> Tensor:
        self.calls.append(list(prompts))
        return torch.stack([_vector(prompt) for prompt in prompts])

    def encode_images(self, images: Tensor) -> Tensor:
        raise AssertionError("text needs no images")

    encode_patches = encode_images

    def encode_both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_images(images), self.encode_patches(images)


def _vector(prompt: str) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(prompt.encode()))
    return torch.nn.functional.normalize(torch.randn(DIM, generator=generator), dim=0)


def _expected(word: str, templates: Sequence[str]) -> Tensor:
    mean = sum(_vector(template.format(word)) for template in templates) / len(templates)
    return mean / mean.norm()


VOCABULARY = Vocabulary.parse("sofa; couch\ncat\nlamp; light; torch\n@background: sky; wall\n")


@pytest.mark.parametrize("batch_size", [1, 8, 20, 256])
@pytest.mark.parametrize("background", [False, True])
def test_every_word_is_averaged_over_the_templates(batch_size: int, background: bool) -> None:
    vectors = encode_vocabulary(CountingEncoder(), vocabulary=VOCABULARY, background=background, batch_size=batch_size)
    words = ["sofa", "couch", "cat", "lamp", "light", "torch", *(["sky", "wall"] if background else [])]
    classes = [0, 0, 1, 2, 2, 2, *([-1, -1] if background else [])]
    torch.testing.assert_close(vectors.words, torch.stack([_expected(word, VOCABULARY.templates) for word in words]))
    assert vectors.classes.tolist() == classes
    assert vectors.classes.dtype == torch.int64
    assert vectors.count == 3


@pytest.mark.parametrize("batch_size", [1, 3, 5, 256])
def test_a_class_with_templates_of_its_own_is_averaged_over_those_alone(batch_size: int) -> None:
    text = "sofa; couch\n@own-template: a {} in a room.\n@own-template: the {}\ncat\nlamp\n@own-template: one {}\n"
    vocabulary = Vocabulary.parse(text + "@background: sky\n@template: a {}.\n@template: {}!\n@template: my {}.\n")
    encoder = CountingEncoder()
    told: list[int] = []
    vectors = encode_vocabulary(
        encoder, vocabulary=vocabulary, background=True, batch_size=batch_size, done=told.append
    )
    own = {"sofa": ["a {} in a room.", "the {}"], "couch": ["a {} in a room.", "the {}"], "lamp": ["one {}"]}
    words = ["sofa", "couch", "cat", "lamp", "sky"]
    expected = [_expected(word, own.get(word, ["a {}.", "{}!", "my {}."])) for word in words]
    torch.testing.assert_close(vectors.words, torch.stack(expected))
    assert vectors.classes.tolist() == [0, 0, 1, 2, -1]
    assert max(map(len, encoder.calls)) <= max(batch_size, 3)
    assert sum(map(len, encoder.calls)) == 2 * 2 + 3 + 1 + 3
    assert sum(told) == len(words)


def test_prompts_come_in_batches() -> None:
    encoder = CountingEncoder()
    encode_vocabulary(encoder, vocabulary=Vocabulary.of([f"class {number}" for number in range(100)]))
    assert [len(call) for call in encoder.calls] == [252, 252, 196]
    assert "a photo of the large class 99." in encoder.calls[-1]


def test_a_batch_of_no_prompts_is_refused() -> None:
    with pytest.raises(PatchwordError, match="batch size must be at least 1, not 0"):
        encode_vocabulary(CountingEncoder(), vocabulary=VOCABULARY, batch_size=0)


def test_braces_in_a_template_are_taken_as_they_are() -> None:
    encoder = CountingEncoder()
    encode_vocabulary(encoder, vocabulary=Vocabulary.of("cat", templates=["{x} {} }"]))
    assert encoder.calls == [["{x} cat }"]]


def test_class_vectors_are_the_unit_mean_over_words() -> None:
    vectors = encode_vocabulary(CountingEncoder(), vocabulary=VOCABULARY, background=True)
    for position, entry in enumerate(VOCABULARY.classes):
        mean = sum(_expected(word, VOCABULARY.templates) for word in entry.words) / len(entry.words)
        torch.testing.assert_close(vectors.class_vectors()[position], mean / mean.norm())
    assert vectors.class_vectors().shape == (3, DIM)


@pytest.mark.parametrize("classes", [[0, 0, 1, 2, 2, -1], [0, 1, 2], [2, 0, 1], [0, 1, 2, -1], [-1, 1, 0, 2, 0]])
@pytest.mark.parametrize("dim", [-1, 0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_class_scores_are_the_maximum_over_words(classes: list[int], dim: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = TextVectors(torch.randn(len(classes), DIM), torch.tensor(classes), 3)
    similarity = torch.randn(4, 5, len(classes), generator=generator).to(dtype).movedim(-1, dim)
    scores = vectors.class_scores(similarity, dim=dim)
    for position in range(3):
        members = [row for row, owner in enumerate(classes) if owner == position]
        best = torch.stack([similarity.select(dim, row) for row in members]).amax(dim=0)
        assert torch.equal(scores.select(dim, position), best)
    assert scores.shape[dim] == 3
    assert scores.dtype == dtype


def test_class_scores_refuse_another_number_of_words() -> None:
    vectors = TextVectors(torch.randn(2, DIM), torch.tensor([0, 1]), 2)
    with pytest.raises(PatchwordError, match="has 3 entries along dimension -1; it needs one a word, 2"):
        vectors.class_scores(torch.zeros(4, 3))


@pytest.mark.parametrize(("words", "classes", "count"), [((2, 4), [0], 1), ((2, 4), [0, 2], 3), ((2, 4), [0, 1], 1)])
def test_parts_that_do_not_fit_are_refused(words: tuple[int, int], classes: list[int], count: int) -> None:
    with pytest.raises(PatchwordError, match="words"):
        TextVectors(torch.zeros(words), torch.tensor(classes), count)
