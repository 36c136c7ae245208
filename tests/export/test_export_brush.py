"""Label Studio's brush run lengths against a decoder written from the description of the format, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from patchword.errors import PatchwordError
from patchword.export.brush import decode_brush, encode_brush

masks = arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=20))


def naive_decode(packed: list[int]) -> list[int]:
    """The words, read off a string of zeros and ones."""
    bits = "".join(f"{byte:08b}" for byte in packed)

    def read(count: int) -> int:
        nonlocal bits
        taken, bits = bits[:count], bits[count:]
        assert len(taken) == count
        return int(taken, 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    words: list[int] = []
    while len(words) < total:
        repeated = read(1)
        count = read(sizes[read(2)]) + 1
        words += [read(word)] * count if repeated else [read(word) for _ in range(count)]
    assert len(words) == total
    assert len(bits) < 8
    assert "1" not in bits
    return words


def naive_encode(words: list[int], *, sizes: tuple[int, ...], word: int, literal: int) -> list[int]:
    """Another packer of the same format: `literal` words as they are, then the rest repeated one by one."""
    bits = f"{len(words):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    head, tail = words[:literal], words[literal:]
    if head:
        bits += "0" + "11" + f"{len(head) - 1:0{sizes[3]}b}" + "".join(f"{value:0{word}b}" for value in head)
    for value in tail:
        bits += "1" + "00" + f"{0:0{sizes[0]}b}" + f"{value:0{word}b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def size_of(mask: np.ndarray) -> tuple[int, int]:
    return mask.shape[0], mask.shape[1]


@given(masks)
def test_a_decoder_by_the_book_reads_what_is_written(mask: np.ndarray) -> None:
    pixels = np.array(naive_decode(encode_brush(mask))).reshape(*mask.shape, 4)
    np.testing.assert_array_equal(pixels, np.repeat(np.where(mask, 255, 0)[..., None], 4, axis=2))


@given(masks)
def test_back_and_forth(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(decode_brush(encode_brush(mask), size=size_of(mask), place=""), mask)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (1, 4), (1, 64), (1, 65), (128, 128), (128, 129), (300, 500)])
@pytest.mark.parametrize("inside", [False, True])
def test_runs_of_every_size_of_count(shape: tuple[int, int], inside: bool) -> None:
    mask = np.full(shape, inside)
    packed = encode_brush(mask)
    assert naive_decode(packed) == [255 * inside] * (mask.size * 4)
    np.testing.assert_array_equal(decode_brush(packed, size=shape, place=""), mask)


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(4))),
    st.integers(0, 60),
    st.sampled_from([(3, 4, 8, 16), (1, 2, 3, 7)]),
)
def test_what_other_packers_write_is_read(picture: np.ndarray, literal: int, sizes: tuple[int, ...]) -> None:
    packed = naive_encode(picture.ravel().tolist(), sizes=sizes, word=8, literal=literal)
    np.testing.assert_array_equal(decode_brush(packed, size=size_of(picture), place=""), picture[..., 3] >= 128)


@given(masks)
def test_label_studios_own_converter_reads_it(mask: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_converter.brush")
    pixels = np.reshape(brush.decode_rle(encode_brush(mask)), (*mask.shape, 4))
    np.testing.assert_array_equal(pixels[..., 3] > 0, mask)
    theirs = brush.encode_rle(np.repeat(np.where(mask, 255, 0).ravel(), 4).astype(np.uint8))
    np.testing.assert_array_equal(decode_brush(theirs, size=size_of(mask), place=""), mask)


@pytest.mark.parametrize(
    ("packed", "message"),
    [
        ([], "ends too early"),
        ([0, 0, 0, 16], "ends too early"),
        (encode_brush(np.ones((3, 3), dtype=bool)), "holds 36 bytes; 2 x 2"),
        (encode_brush(np.eye(2, dtype=bool))[:-2], "ends too early"),
        ([300], "damaged"),
        (["x"], "damaged"),
        ([*encode_brush(np.zeros((2, 2), dtype=bool))[:6], 0xFF, 0xFF, 0xFF, 0xFF], "more than its 16 bytes"),
    ],
)
def test_damage_is_told(packed: list[int], message: str) -> None:
    with pytest.raises(PatchwordError, match=message):
        decode_brush(packed, size=(2, 2), place="task 1")
