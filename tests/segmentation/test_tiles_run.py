"""Large images, tile by tile: the same as the whole, and files as of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_segmenter import IGNORED, NAMES, LocalSegmenter, picture
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.segmentation.heads import read_head
from patchword.segmentation.large import unfinished
from patchword.segmentation.large.run import LargeFacts, segment_large
from patchword.segmentation.large.tiles import ArrayReader, Box
from patchword.segmentation.large.unfinished import Unfinished

TILES = 12  # of 70 x 95 pixels, in tiles of 32 that share 8


def large(
    image: NDArray[np.uint8], folder: Path, *, segmenter: Any = None, classes: Any = NAMES, **settings: Any
) -> LargeFacts:
    path = folder / "big.png"
    if not path.exists():
        Image.fromarray(image).save(path)
    options = {"confidence_bits": settings.pop("confidence_bits", 0), "overlays": settings.pop("overlays", False)}
    return segment_large(
        path,
        segmenter=segmenter or LocalSegmenter(),
        classes=classes,
        out=folder / "out",
        name="a/big.png",
        settings=SegmentSettings(**{"tile": 32, "overlap": 8, "batch": 2, **settings}),
        **options,
    )


def mask_of(folder: Path, names: Any = NAMES) -> LabelMap:
    return LabelMap.load(folder / "out/masks/a/big.png.png", names=names)


@pytest.mark.parametrize(
    ("size", "tile", "overlap", "radius"),
    [
        ((70, 95), 32, 8, 4),
        ((70, 95), 32, 9, 4),
        ((33, 129), 32, 4, 2),
        ((5, 90), 20, 6, 3),
        ((31, 31), 32, 8, 4),
        ((64, 64), 16, 0, 0),
    ],
)
def test_what_depends_on_less_than_the_context_is_the_same_as_of_the_whole(
    tmp_path: Path, size: tuple[int, int], tile: int, overlap: int, radius: int
) -> None:
    image, segmenter = picture(*size), LocalSegmenter(radius=radius)
    image[size[0] // 2, ::3, 0] = IGNORED
    facts = large(image, tmp_path, segmenter=segmenter, tile=tile, overlap=overlap, confidence_bits=8)
    whole = segmenter.segment(image, classes=NAMES)
    np.testing.assert_array_equal(mask_of(tmp_path).indices, whole.label_map.indices)
    confidence = np.asarray(Image.open(tmp_path / "out/confidence/a/big.png.png"))
    np.testing.assert_array_equal(confidence, np.rint(whole.confidence * 255))
    assert facts.pixels == whole.areas()
    assert facts.ignored == size[0] * size[1] - sum(whole.areas().values())
    assert facts.mean_confidence == pytest.approx(whole.confidence.mean(), abs=1e-5)
    assert facts.size == size


def test_what_reaches_beyond_the_context_has_seams(tmp_path: Path) -> None:
    image, segmenter = picture(70, 95), LocalSegmenter(radius=8)
    large(image, tmp_path, segmenter=segmenter)
    whole = segmenter.segment(image, classes=NAMES).label_map.indices
    assert (mask_of(tmp_path).indices != whole).any()  # so that the test above can fail


def test_confidences_of_16_bits(tmp_path: Path) -> None:
    image, segmenter = picture(40, 50), LocalSegmenter()
    large(image, tmp_path, segmenter=segmenter, confidence_bits=16)
    with Image.open(tmp_path / "out/confidence/a/big.png.png") as found:
        expected = np.rint(segmenter.segment(image, classes=NAMES).confidence * np.float32(65535))
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_constant_world_gives_one_class(tmp_path: Path) -> None:
    facts = large(np.full((50, 81, 3), 255, dtype=np.uint8), tmp_path, segmenter=LocalSegmenter(radius=0))
    assert facts.pixels == {"light": 50 * 81}
    assert facts.mean_confidence == 1.0


def test_every_pixel_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = np.zeros((70, 95), dtype=np.int64)
    write = unfinished.PixelStore.write

    def count(self: unfinished.PixelStore, box: Box, values: NDArray[Any]) -> None:
        written[box.top : box.bottom, box.left : box.right] += 1
        write(self, box, values)

    monkeypatch.setattr(unfinished.PixelStore, "write", count)
    large(picture(70, 95), tmp_path)
    assert (written == 1).all()


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    image = picture(70, 95)
    (tmp_path / "through").mkdir()
    whole = large(image, tmp_path / "through", confidence_bits=8, overlays=True)
    segmenter = LocalSegmenter()
    segmenter.fail_after = 5
    with pytest.raises(KeyboardInterrupt):
        large(image, tmp_path, segmenter=segmenter, confidence_bits=8, overlays=True)
    assert (tmp_path / "out/unfinished/a/big.png").is_dir()
    assert not (tmp_path / "out/masks").exists()
    rest = LocalSegmenter()
    assert large(image, tmp_path, segmenter=rest, confidence_bits=8, overlays=True) == whole
    assert len(rest.seen) == TILES - 4  # the batch that was under way is done again
    assert not (tmp_path / "out/unfinished").exists()
    for name in ("masks/a/big.png.png", "confidence/a/big.png.png", "overlays/a/big.png.jpg"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "through/out" / name).read_bytes()


def test_tiles_keep_their_company_when_a_batch_was_stopped_half_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sociable(LocalSegmenter):
        """One whose answers depend on what else is in the batch, as sums in the last digits do."""

        def segment_batch(self, images: Any, **options: Any) -> Any:
            mean = np.mean([image.mean() for image in images])
            return [self.segment(np.where(image > mean, image, 0), classes=NAMES) for image in images]

    image = picture(70, 95)
    (tmp_path / "through").mkdir()
    large(image, tmp_path / "through", segmenter=Sociable(), batch=3)
    add, added = Unfinished.add, [0]

    def stop(self: Unfinished, tile: Any, **values: Any) -> None:
        added[0] += 1
        if added[0] == 5:
            raise KeyboardInterrupt
        add(self, tile, **values)

    with monkeypatch.context() as patched:
        patched.setattr(Unfinished, "add", stop)
        with pytest.raises(KeyboardInterrupt):
            large(image, tmp_path, segmenter=Sociable(), batch=3)
    large(image, tmp_path, segmenter=Sociable(), batch=3)
    np.testing.assert_array_equal(mask_of(tmp_path).indices, mask_of(tmp_path / "through").indices)


@pytest.mark.parametrize("change", [{"overlap": 10}, {"threshold": 0.5}, {"classes": ("black", "grey", "white")}])
def test_a_run_of_other_settings_starts_again(tmp_path: Path, change: dict[str, Any]) -> None:
    segmenter = LocalSegmenter()
    segmenter.fail_after = 5
    with pytest.raises(KeyboardInterrupt):
        large(picture(70, 95), tmp_path, segmenter=segmenter)
    rest = LocalSegmenter()
    large(picture(70, 95), tmp_path, segmenter=rest, **change)
    assert len(rest.seen) == TILES


def test_a_tile_that_fails_fails_the_image(tmp_path: Path) -> None:
    class Failing(LocalSegmenter):
        def segment_batch(self, images: Any, **options: Any) -> Any:
            return [PatchwordError("too hard") for _ in images]

    with pytest.raises(PatchwordError, match="too hard"):
        large(picture(70, 95), tmp_path, segmenter=Failing())
    assert not (tmp_path / "out/masks").exists()


def test_the_scale_is_that_of_a_tile_whatever_the_image(tmp_path: Path) -> None:
    segmenter = LocalSegmenter()
    large(picture(8, 90), tmp_path, segmenter=segmenter, image_size=64)
    assert set(segmenter.seen) == {(8, 32)}
    assert {settings.image_size for settings in segmenter.settings} == {32}  # 64 pixels for 32, so 2 for each


def test_many_classes_are_16_bit_grey(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(300))
    image = picture(40, 40)
    image[3, 5, 0] = IGNORED
    facts = large(image, tmp_path, classes=names)
    mask = mask_of(tmp_path, names)
    assert mask.indices[3, 5] == mask.ignore == 65535
    assert facts.ignored == int((mask.indices == 65535).sum()) > 0


def test_254_classes_are_8_bit_though_one_more_would_not_be(tmp_path: Path) -> None:
    names = tuple(f"class {number}" for number in range(254))
    image = picture(40, 40)
    image[3, 5, 0] = IGNORED
    large(image, tmp_path, classes=names)
    mask = mask_of(tmp_path, names)
    assert mask.indices.dtype == np.uint8
    assert mask.indices[3, 5] == mask.ignore == 255


def test_overlays_are_small(tmp_path: Path) -> None:
    large(picture(300, 400), tmp_path, overlays=True, overview_side=200, tile=128)
    with Image.open(tmp_path / "out/overlays/a/big.png.jpg") as overlay:
        assert overlay.width == 200


def test_the_png_has_the_colours_of_the_classes(tmp_path: Path) -> None:
    image = picture(40, 40)
    large(image, tmp_path)
    LocalSegmenter().segment(image, classes=NAMES).label_map.save(tmp_path / "expected.png")
    with Image.open(tmp_path / "out/masks/a/big.png.png") as found, Image.open(tmp_path / "expected.png") as expected:
        assert found.getpalette() == expected.getpalette()


@pytest.mark.parametrize(("most", "expected"), [(0.001, True), (0.01, False), (None, False)])
def test_images_above_so_many_pixels_want_tiles(tmp_path: Path, most: float | None, expected: bool) -> None:
    for name in ("a.png", "a.jpg", "a.tif"):
        Image.fromarray(picture(40, 40)).save(tmp_path / name)
        assert read_head(tmp_path / name, settings=SegmentSettings(large_megapixels=most)).in_tiles is expected


@pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0+", b"nothing"])
def test_damaged_files_want_no_tiles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    assert not read_head(tmp_path / "a.tif", settings=SegmentSettings()).in_tiles
    assert not read_head(tmp_path / "missing.tif", settings=SegmentSettings()).in_tiles


def test_an_array_is_read_in_parts() -> None:
    image = picture(20, 30)
    reader = ArrayReader(image)
    np.testing.assert_array_equal(reader.read(Box(3, 4, 9, 30)).image, image[3:9, 4:30])
    np.testing.assert_array_equal(reader.preview((10, 10)), image[1::2, 1::3])
