"""Photographs as they are found on disks: every storage form, every kind of damage, every shape of folder."""

from __future__ import annotations

import os
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from patchword.data.image_files import find_images
from patchword.data.images import image_size, read_image, to_tensor
from patchword.errors import PatchwordError, PatchwordWarning

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def _names(root: Path, **options: bool) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_images(root, **options)]


def test_photographs_are_found_by_any_extension_and_sorted(tmp_path: Path) -> None:
    _touch(
        tmp_path, "b.JPG", "a/z.png", "a.jpeg", "a/b/c.Tiff", "a-b.webp", "notes.txt", "mask.pdf", "clip.mpg", "x.eps"
    )
    assert _names(tmp_path) == ["a-b.webp", "a.jpeg", "a/b/c.Tiff", "a/z.png", "b.JPG"]
    assert _names(tmp_path, recursive=False) == ["a-b.webp", "a.jpeg", "b.JPG"]


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg", "._a.jpg", ".thumbnails/a.jpg", "b/.hidden.png")
    assert _names(tmp_path) == ["a.jpg"]


def test_a_folder_named_like_a_photograph_is_searched_as_a_folder(tmp_path: Path) -> None:
    _touch(tmp_path, "album.jpg/one.png")
    assert _names(tmp_path) == ["album.jpg/one.png"]


def test_a_single_file_is_its_own_source(tmp_path: Path) -> None:
    _touch(tmp_path, "photograph")
    assert find_images(tmp_path / "photograph") == [tmp_path / "photograph"]
    assert find_images(str(tmp_path / "photograph")) == [tmp_path / "photograph"]


def test_loops_of_links_end(tmp_path: Path) -> None:
    _touch(tmp_path, "a/one.jpg")
    for name in ("up", "up again"):  # two, so that following them blindly does not end at the system's limit
        (tmp_path / "a" / name).symlink_to(tmp_path)
    (tmp_path / "itself").symlink_to(tmp_path / "itself")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
    assert _names(tmp_path) == ["a/one.jpg"]


def test_what_links_reach_counts_once_and_under_its_own_name(tmp_path: Path) -> None:
    photos, elsewhere = tmp_path / "photos", tmp_path / "elsewhere"
    _touch(photos, "z/one.jpg")
    _touch(elsewhere, "two.jpg", "deep/three.jpg")
    (photos / "a").symlink_to(photos / "z")
    (photos / "copy.jpg").symlink_to(photos / "z" / "one.jpg")
    (photos / "linked.jpg").symlink_to(elsewhere / "two.jpg")
    (photos / "more").symlink_to(elsewhere)
    assert _names(photos) == ["linked.jpg", "more/deep/three.jpg", "z/one.jpg"]
    assert _names(photos, follow_links=False) == ["z/one.jpg"]


def test_a_link_to_nothing_is_kept_for_the_reader_to_name(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "missing.jpg")
    assert _names(tmp_path) == ["gone.jpg"]
    with pytest.raises(PatchwordError, match=r"cannot read .*gone\.jpg: No such file"):
        read_image(tmp_path / "gone.jpg")


def test_sources_without_photographs_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "notes.txt")
    with pytest.raises(PatchwordError, match=r"no photographs in .*\.jpg"):
        find_images(tmp_path)
    with pytest.raises(PatchwordError, match=r"no such file or folder: .*missing"):
        find_images(tmp_path / "missing")
    with pytest.raises(PatchwordError, match=r"cannot search .*too long"):
        find_images("a" * 5000)


def test_file_names_that_are_not_utf8_are_found_and_read(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/caf\xe9.png"
    Image.new("RGB", (2, 2), RED).save(tmp_path / "plain.png")
    os.rename(os.fsencode(tmp_path / "plain.png"), name)  # noqa: PTH104 - a name in bytes
    (found,) = find_images(tmp_path)
    assert tuple(read_image(found)[0, 0]) == RED


def _gradient(height: int = 24, width: int = 40) -> NDArray[np.uint8]:
    across, down = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([across, down, 255 - across], axis=2).astype(np.uint8)


def _read_back(image: Image.Image, path: Path, **options: object) -> NDArray[np.uint8]:
    image.save(path, **options)  # type: ignore[arg-type]
    read = read_image(path)
    assert read.dtype == np.uint8
    assert read.ndim == 3
    assert read.shape[2] == 3
    assert read.flags.writeable
    return read


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp", ".tga"])
def test_lossless_colour_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    read = _read_back(Image.fromarray(_gradient()), tmp_path / f"a{suffix}", **options)
    np.testing.assert_array_equal(read, _gradient())


def test_jpeg_and_cmyk_jpeg(tmp_path: Path) -> None:
    plain = _read_back(Image.fromarray(_gradient()), tmp_path / "a.jpg", quality=98)
    assert np.abs(plain.astype(int) - _gradient()).mean() < 3
    cmyk = _read_back(Image.fromarray(_gradient()).convert("CMYK"), tmp_path / "cmyk.jpg", quality=98)
    assert np.abs(cmyk.astype(int) - _gradient()).mean() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    upright = _gradient()
    # How a camera stores a scene that the orientation tag turns upright again (EXIF 2.3, tag 274).
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    np.testing.assert_array_equal(_read_back(image, tmp_path / f"a{suffix}", exif=exif, **options), upright)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize(
    "tail", [b"II*\x00\xff\xff\xff\x7fnonsense", b"II*\x00\x08\x00\x00\x00\xff\xff\x12\x01", b"", b"\xff" * 9]
)
def test_damaged_exif_does_not_lose_the_picture(tmp_path: Path, suffix: str, tail: bytes) -> None:
    image = Image.fromarray(_gradient())
    options = {"lossless": True} if suffix == ".webp" else {}
    read = _read_back(image, tmp_path / f"a{suffix}", exif=b"Exif\x00\x00" + tail, **options)
    assert np.abs(read.astype(int) - _gradient()).mean() < (3 if suffix == ".jpg" else 0.01)
    assert image_size(tmp_path / f"a{suffix}") == (24, 40)


def test_grey_and_two_levels(tmp_path: Path) -> None:
    grey = _gradient()[:, :, 0]
    read = _read_back(Image.fromarray(grey), tmp_path / "grey.png")
    np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=2))
    two = _read_back(Image.fromarray(grey > 127), tmp_path / "two.png")
    np.testing.assert_array_equal(two[:, :, 0], np.where(grey > 127, 255, 0))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_by_its_full_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257], [32768, 65406, 65407, 65535]], dtype=np.uint16)
    read = _read_back(Image.fromarray(values), tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read[:, :, 1], np.rint(values / 257))
    assert read[0, 3, 0] == 1
    dark = _read_back(Image.fromarray(np.full((2, 2), 2570, np.uint16)), tmp_path / f"dark{suffix}")
    assert (dark == 10).all()


def test_16_bit_grey_stored_the_other_way_round(tmp_path: Path) -> None:
    Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 2570, 65535)).save(tmp_path / "big.tif")
    assert read_image(tmp_path / "big.tif")[0, :, 0].tolist() == [10, 255]


def _write_png(path: Path, width: int, height: int, depth: int, kind: int, rows: bytes) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_16_bit_colour_png(tmp_path: Path) -> None:
    _write_png(tmp_path / "deep.png", 1, 1, 16, 2, b"\x00" + struct.pack(">HHH", 0x10FF, 0x8000, 0xFFFF))
    assert np.abs(read_image(tmp_path / "deep.png")[0, 0].astype(int) - (16, 128, 255)).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 2570], [65535, 257]], [[0, 10], [255, 1]]),
        ([[-100, 0], [100, 0]], [[0, 128], [255, 128]]),
        ([[0, 131070], [65535, 0]], [[0, 255], [128, 0]]),
        ([[70000, 70000]], [[0, 0]]),
    ],
)
def test_32_bit_integers(tmp_path: Path, values: list[list[int]], expected: list[list[int]]) -> None:
    read = _read_back(Image.fromarray(np.array(values, dtype=np.int32)), tmp_path / "a.tif")
    assert read[:, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 0.5, 1]], [[0, 128, 255]]),
        ([[0, 100, 255]], [[0, 100, 255]]),
        ([[-1, 0, 1]], [[0, 128, 255]]),
        ([[0, 1000, 500]], [[0, 255, 128]]),
        ([[float("nan"), float("inf"), 1]], [[0, 0, 255]]),
    ],
)
def test_float_tiff(tmp_path: Path, values: list[list[float]], expected: list[list[int]]) -> None:
    read = _read_back(Image.fromarray(np.array(values, dtype=np.float32)), tmp_path / "a.tif")
    assert read[:, :, 2].tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "nothing"), [("float32", -9999), ("int16", -32768), ("float32", -3.4028234663852886e38)]
)
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 3)])
def test_nodata_of_a_tiff_is_no_part_of_its_scale(
    dtype: str, nothing: float, declared: bool, shape: tuple[int, ...], tmp_path: Path
) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.linspace(-20, 300, int(np.prod(shape)), dtype=np.float64).reshape(shape).astype(dtype)
    holed = values.copy()
    holed[:, :3] = nothing
    tags = [(42113, 2, 0, f"{nothing:.17g}", True)] if declared else []
    kind = "rgb" if len(shape) == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "a.tif", holed, photometric=kind, extratags=tags)
    tifffile.imwrite(tmp_path / "rest.tif", np.ascontiguousarray(values[:, 3:]), photometric=kind)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        read = read_image(tmp_path / "a.tif")
    told = [str(each.message) for each in said if issubclass(each.category, (PatchwordWarning, RuntimeWarning))]
    assert len(told) == (0 if declared else 1)
    if not declared:
        assert "a.tif: 33.3% of its values are" in told[0]
        assert "taken as nodata" in told[0]
    np.testing.assert_array_equal(read[:, 3:], read_image(tmp_path / "rest.tif"))
    assert not read[:, :3].any()


def test_transparent_pixels_are_laid_over_white(tmp_path: Path) -> None:
    pixels = np.array([[(*RED, 255), (*RED, 0), (*RED, 128)]], dtype=np.uint8)
    read = _read_back(Image.fromarray(pixels), tmp_path / "a.png")
    assert read[0].tolist() == [[255, 0, 0], [255, 255, 255], [255, 127, 127]]
    grey = _read_back(Image.fromarray(np.array([[(0, 255), (0, 0)]], np.uint8)), tmp_path / "la.png")
    assert grey[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    indexed = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    indexed.putpalette([*RED, *GREEN, *BLUE])
    assert _read_back(indexed, tmp_path / "a.png")[0].tolist() == [[*RED], [*GREEN], [*BLUE]]
    assert _read_back(indexed, tmp_path / "a.gif")[0].tolist() == [[*RED], [*GREEN], [*BLUE]]
    keyed = _read_back(indexed, tmp_path / "key.png", transparency=1)
    assert keyed[0].tolist() == [[*RED], [*WHITE], [*BLUE]]
    graded = _read_back(indexed, tmp_path / "graded.png", transparency=bytes([255, 255, 0]))
    assert graded[0].tolist() == [[*RED], [*GREEN], [*WHITE]]


def test_a_transparent_colour_key(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[RED, GREEN]], dtype=np.uint8))
    assert _read_back(image, tmp_path / "a.png", transparency=GREEN)[0].tolist() == [[*RED], [*WHITE]]


def test_the_first_frame_of_several_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in (RED, BLUE)]
    read = _read_back(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (read == RED).all()


@pytest.mark.parametrize(("width", "height"), [(1, 1), (8000, 200), (1, 3000)])
def test_extreme_shapes(tmp_path: Path, width: int, height: int) -> None:
    assert _read_back(Image.new("RGB", (width, height), BLUE), tmp_path / "a.png").shape == (height, width, 3)


SHORT, LONG = 3, 4  # types of TIFF's fields
GREY, PLANES = np.array([[0, 1], [2, 255]]), np.array([[[0, 1, 2], [255, 4, 5]]])  # (h, w) and (h, w, 3), as 8 bits


def _write_tiff(path: Path, values: NDArray[np.generic], *, meaning: int = 1, planes: int = 1, sign: int = 1) -> None:
    """An uncompressed little-endian TIFF (TIFF 6.0); `values` are (h, w) or (h, w, channels), `sign` is tag 339."""
    channels = values.shape[2] if values.ndim == 3 else 1
    stored = np.moveaxis(values, -1, 0) if planes == 2 and channels > 1 else values
    parts = [each.tobytes() for each in stored] if planes == 2 and channels > 1 else [stored.tobytes()]
    after = 8 + 2 + 12 * 12 + 4  # behind the header and twelve fields
    tail = b""

    def field(tag: int, kind: int, numbers: list[int]) -> bytes:
        nonlocal tail
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == SHORT else 'L'}", *numbers)
        if len(packed) > 4:
            place, tail = struct.pack("<L", after + len(tail)), tail + packed
            return struct.pack("<HHL", tag, kind, len(numbers)) + place
        return struct.pack("<HHL", tag, kind, len(numbers)) + packed.ljust(4, b"\0")

    lengths = [len(part) for part in parts]
    at = after + 40  # room for what does not fit into a field
    places = [at + sum(lengths[:number]) for number in range(len(parts))]
    fields = [
        field(256, LONG, [values.shape[1]]),
        field(257, LONG, [values.shape[0]]),
        field(258, SHORT, [8 * values.dtype.itemsize] * channels),
        field(259, SHORT, [1]),
        field(262, SHORT, [meaning]),
        field(273, LONG, places),
        field(274, SHORT, [1]),
        field(277, SHORT, [channels]),
        field(278, LONG, [values.shape[0]]),
        field(279, LONG, lengths),
        field(284, SHORT, [planes]),
        field(339, SHORT, [sign] * channels),
    ]
    head = b"II*\0" + struct.pack("<LH", 8, len(fields)) + b"".join(fields) + b"\0\0\0\0"
    path.write_bytes((head + tail).ljust(at, b"\0") + b"".join(parts))


@pytest.mark.parametrize("values", [GREY.astype(np.uint8), PLANES.astype(np.uint8), PLANES.astype(np.uint16) * 257])
def test_tiffs_that_pillow_reads(tmp_path: Path, values: NDArray[np.generic], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tifffile", None)  # is not needed
    _write_tiff(tmp_path / "a.tif", values, meaning=2 if values.ndim == 3 else 1)
    expected = PLANES if values.ndim == 3 else np.stack([GREY] * 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


RARE_TIFFS: dict[str, tuple[NDArray[np.generic], dict[str, int], NDArray[np.integer]]] = {
    "of 16-bit planes": (PLANES.astype(np.uint16) * 257, {"meaning": 2, "planes": 2}, PLANES),
    "of 16 bits where 0 is white": (GREY.astype(np.uint16) * 257, {"meaning": 0}, 255 - GREY),
    "of 8-bit values with a sign": (np.array([[-127, 0], [1, 128 - 256 + 255]], np.int8), {"sign": 2}, np.array([])),
    "of 32-bit values without a sign": (np.array([[0, 4294967295]], np.uint32), {}, np.array([[0, 255]])),
    "or a kind of TIFF that": ((PLANES / 255).astype(np.float32), {"meaning": 2, "sign": 3}, PLANES),
}


@pytest.mark.parametrize("kind", RARE_TIFFS)
def test_rare_tiffs_name_the_extra_that_reads_them(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values, options, _ = RARE_TIFFS[kind]
    _write_tiff(tmp_path / "a.tif", values, **options)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(PatchwordError, match=rf"{kind} needs the package tifffile; install patchword\[tiff\]"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", RARE_TIFFS)
def test_rare_tiffs_are_read_with_the_extra(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("tifffile")
    values, options, expected = RARE_TIFFS[kind]
    _write_tiff(tmp_path / "a.tif", values, **options)
    read = read_image(tmp_path / "a.tif")
    assert image_size(tmp_path / "a.tif") == read.shape[:2] == values.shape[:2]
    if not expected.size:  # stretched
        expected = np.rint((values.astype(float) + 127) / 254 * 255).astype(np.int64)
    np.testing.assert_array_equal(read, expected if expected.ndim == 3 else np.stack([expected] * 3, axis=2))


def test_the_first_page_of_a_tiff_is_taken_and_orientation_with_the_extra_too(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pages = np.stack([_gradient(), 255 - _gradient()])
    tifffile.imwrite(tmp_path / "pages.tif", pages, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "pages.tif"), _gradient())
    turned = [(274, "H", 1, 6, True)]
    values = np.ascontiguousarray(np.moveaxis(np.rot90(_gradient(), 1), -1, 0)).astype(np.uint16) * 257
    tifffile.imwrite(
        tmp_path / "turned.tif", values, photometric="rgb", planarconfig="separate", extratags=turned, metadata=None
    )
    np.testing.assert_array_equal(read_image(tmp_path / "turned.tif"), _gradient())
    assert image_size(tmp_path / "turned.tif") == (24, 40)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"tile": (16, 16)}])
def test_compressed_and_tiled_tiffs(tmp_path: Path, options: dict[str, Any]) -> None:
    Image.fromarray(_gradient()).save(tmp_path / "a.tif", **options)
    read = read_image(tmp_path / "a.tif").astype(int)
    assert np.abs(read - _gradient()).mean() < (4 if "jpeg" in options.values() else 0.01)


def _write_heif(path: Path, *, orientation: int = 1) -> None:
    heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[274] = orientation
    heif.from_pillow(Image.fromarray(_gradient(64, 96))).save(path, quality=95, exif=exif.tobytes())


def test_heif_is_found_and_read_with_its_extra(tmp_path: Path) -> None:
    _write_heif(tmp_path / "a.HEIC")
    (found,) = find_images(tmp_path)
    assert image_size(found) == (64, 96)
    assert np.abs(read_image(found).astype(int) - _gradient(64, 96)).mean() < 6
    (tmp_path / "a.HEIC").rename(tmp_path / "a.jpg")  # what it is counts, and not what it is called
    assert read_image(tmp_path / "a.jpg").shape == (64, 96, 3)
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(PatchwordError, match=r"cannot read .*a\.jpg: .+"):
        read_image(tmp_path / "a.jpg")


def test_heif_without_its_extra_is_found_and_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beginning = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    (tmp_path / "a.heic").write_bytes(beginning + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (found,) = find_images(tmp_path)
    for read in (read_image, image_size):
        with pytest.raises(PatchwordError, match=r"HEIF needs the package pillow-heif; install patchword\[heif\]$"):
            read(found)


@pytest.mark.parametrize(
    ("name", "orientation"), [("a.jpg", 1), ("a.jpg", 6), ("a.png", 8), ("a.tif", 3), ("a.tif", 6)]
)
def test_the_size_is_that_of_the_upright_photograph(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(_gradient()).save(tmp_path / name, exif=exif)
    assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]
    (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(PatchwordError, match=f"cannot read .*{name}: not an image"):
        image_size(tmp_path / name)


def test_reasons_are_one_printable_line_however_the_file_is_called(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines \x1b[31m.png"
    path.write_bytes(b"no picture")
    with pytest.raises(PatchwordError) as raised:
        read_image(path)
    assert str(raised.value) == rf"cannot read {tmp_path}/two\nlines \x1b[31m.png: not an image that can be read"


def test_nothing_is_said_on_the_screen_while_several_threads_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Damage that Pillow warns of, and damage that the library for TIFFs writes to the screen past Python."""
    Image.fromarray(_gradient()).save(tmp_path / "bad.tif", compression="tiff_lzw")
    data = (tmp_path / "bad.tif").read_bytes()
    (tmp_path / "bad.tif").write_bytes(data[:8] + bytes(len(data[8:200])) + data[200:])
    image = Image.new("P", (4, 4))
    image.save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fnonsense")

    def read(name: str) -> None:
        with suppress(PatchwordError):
            read_image(tmp_path / name)

    before = list(warnings.filters)
    warnings.simplefilter("error")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, ["odd.png", "bad.tif"] * 50))
    assert warnings.filters[1:] == before
    assert capfd.readouterr() == ("", "")


def _cut(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_bytes(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(255 - value for value in data[200:400])
    path.write_bytes(data)


def _bomb(path: Path) -> None:
    _write_png(path, 60000, 60000, 8, 2, b"")


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("a.jpg", lambda path: path.write_bytes(b""), "the file is empty"),
        ("a.jpg", lambda path: path.write_text("hello"), "not an image"),
        ("a.jpg", _cut, "truncated"),
        ("a.png", _cut, "truncated|damaged"),
        ("a.tif", _cut, ""),
        ("a.gif", _cut, ""),
        ("a.webp", _cut, ""),
        ("a.bmp", _cut, ""),
        ("a.png", _flip_bytes, ""),
        ("a.png", _bomb, r"too large \(the limit is 178,956,970 pixels\): make it smaller, or segment it as a TIFF"),
        ("a.png", lambda path: path.mkdir(), "not a file"),
        *([("a.png", os.mkfifo, "not a file")] if hasattr(os, "mkfifo") else []),
        ("a.png", lambda path: None, "No such file"),
        ("a.jpg", lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, make: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(PatchwordError, match=f"cannot read .*{name}: .*({reason})") as raised:
        read_image(path)
    assert "\n" not in str(raised.value)


def test_every_way_of_cutting_a_file_is_an_error_or_a_picture(tmp_path: Path) -> None:
    whole = tmp_path / "whole.jpg"
    Image.fromarray(_gradient()).save(whole)
    data = whole.read_bytes()
    for length in range(0, len(data), 37):
        (tmp_path / "cut.jpg").write_bytes(data[:length])
        with pytest.raises(PatchwordError, match="cannot read"):
            read_image(tmp_path / "cut.jpg")


def test_to_tensor_keeps_every_value() -> None:
    image = _gradient()
    tensor = to_tensor(image[:, ::-1])
    assert tensor.shape == (1, 3, 24, 40)
    assert tensor.dtype == torch.float32
    expected = torch.tensor(np.ascontiguousarray(image[:, ::-1])).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(tensor, expected, rtol=0, atol=0)
    assert image.max() == 255


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_to_tensor_refuses_what_is_no_photograph(image: NDArray[np.uint8]) -> None:
    with pytest.raises(PatchwordError, match="must be uint8"):
        to_tensor(image)


def test_a_large_photograph_is_read_without_the_decoder_s_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (12, 12)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # of which Pillow warns, and refuses twice as many
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(tmp_path / "large.png").shape == (12, 12, 3)
