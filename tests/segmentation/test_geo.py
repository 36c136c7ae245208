"""GeoTIFFs: read at any depth, written with the georeference kept."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_segmenter import IGNORED, NAMES, LocalSegmenter, picture
from numpy.typing import NDArray
from PIL import Image

from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError, PatchwordWarning
from patchword.segmentation.heads import read_head, read_tiff_header
from patchword.segmentation.large.geo import GeoReader
from patchword.segmentation.large.run import open_reader, segment_large
from patchword.segmentation.large.tiles import ArrayReader, Box

rasterio = pytest.importorskip("rasterio")
Affine, ControlPoint = rasterio.Affine, rasterio.control.GroundControlPoint

UTM = "EPSG:32633"
NORTH_UP = Affine(0.5, 0, 400000, 0, -0.5, 5800000)
TURNED = Affine.translation(400000, 5800000) @ Affine.rotation(30) @ Affine.scale(2, -2)


def write(path: Path, values: NDArray[Any], *, tags: dict[str, str] | None = None, **options: Any) -> Path:
    """Write (h, w, bands) as GeoTIFF."""
    height, width, count = values.shape
    names, table = options.pop("names", None), options.pop("table", None)
    alike = {"driver": "GTiff", "height": height, "width": width, "count": count, "dtype": values.dtype.name}
    with rasterio.open(path, "w", **{"crs": UTM, "transform": NORTH_UP, **alike, **options}) as file:
        file.update_tags(**(tags or {}))
        if names is not None:
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in names]
        if table is not None:
            file.write_colormap(1, table)
        file.write(np.moveaxis(values, -1, 0))
    return path


def run(path: Path, *, segmenter: Any = None, classes: Any = NAMES, confidence_bits: Any = 0, **settings: Any) -> Any:
    return segment_large(
        path,
        segmenter=segmenter or LocalSegmenter(),
        classes=classes,
        out=path.parent / "out",
        name=path.name,
        settings=SegmentSettings(**{"tile": 32, "overlap": 8, **settings}),
        overlays=False,
        confidence_bits=confidence_bits,
    )


def read(path: Path, **settings: Any) -> NDArray[np.uint8]:
    reader = open_reader(path, settings=SegmentSettings(**settings))
    assert isinstance(reader, GeoReader)
    image = reader.read(Box(0, 0, *reader.size)).image
    reader.close()
    return image


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED])
@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", None])
def test_crs_transform_and_bounds_are_kept(tmp_path: Path, transform: Any, crs: str | None) -> None:
    path = write(tmp_path / "a.tif", picture(70, 95), crs=crs, transform=transform)
    facts = run(path, confidence_bits=8)
    expected = LocalSegmenter().segment(picture(70, 95), classes=NAMES)
    assert facts.mask == "masks/a.tif.tif"
    with rasterio.open(path) as before, rasterio.open(tmp_path / "out" / facts.mask) as after:
        assert after.crs == before.crs
        assert after.transform == before.transform
        assert after.bounds == before.bounds
        np.testing.assert_array_equal(after.read(1), expected.label_map.indices)
        assert (after.count, after.dtypes, after.nodata) == (1, ("uint8",), 255)
        assert (after.profile["tiled"], after.profile["compress"], after.block_shapes) == (
            True,
            "deflate",
            [(256, 256)],
        )
        assert json.loads(after.tags()["CLASSES"]) == list(NAMES)
        table = after.colormap(1)
        colours = expected.label_map.class_colours()
        assert [table[index][:3] for index in range(3)] == [tuple(colour) for colour in colours.tolist()]
    with rasterio.open(tmp_path / "out/confidence/a.tif.tif") as band:
        assert (band.transform, band.crs, band.nodata) == (transform, None if crs is None else crs, None)
        assert band.scales == (pytest.approx(1 / 255),)
        np.testing.assert_array_equal(band.read(1), np.rint(expected.confidence * 255))


def test_a_pixel_that_is_a_point_stays_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(40, 40), tags={"AREA_OR_POINT": "Point"})
    facts = run(path)
    with rasterio.open(path) as before, rasterio.open(tmp_path / "out" / facts.mask) as after:
        assert after.tags()["AREA_OR_POINT"] == "Point"
        assert after.transform == before.transform == NORTH_UP


def test_control_points_are_kept(tmp_path: Path) -> None:
    points = [ControlPoint(row, column, 400000 + column, 5800000 - row) for row, column in ((0, 0), (0, 40), (40, 0))]
    path = write(tmp_path / "a.tif", picture(40, 40), transform=None, gcps=points)
    facts = run(path)
    with rasterio.open(tmp_path / "out" / facts.mask) as after:
        found, crs = after.gcps
        assert crs == UTM
        assert [(each.row, each.col, each.x, each.y) for each in found] == [
            (each.row, each.col, each.x, each.y) for each in points
        ]
    assert facts.on_earth.pixel_square_metres is None


def test_a_world_file_counts(tmp_path: Path) -> None:
    Image.fromarray(picture(40, 40)).save(tmp_path / "a.tif")
    assert not read_head(tmp_path / "a.tif", settings=SegmentSettings()).in_tiles
    (tmp_path / "a.tfw").write_text("0.5\n0\n0\n-0.5\n400000.25\n5799999.75\n")
    assert read_head(tmp_path / "a.tif", settings=SegmentSettings()).in_tiles
    facts = run(tmp_path / "a.tif")
    assert facts.on_earth.crs is None
    with rasterio.open(tmp_path / "out" / facts.mask) as after:
        assert after.transform == NORTH_UP


@pytest.mark.parametrize(
    ("crs", "square_metres"), [(UTM, 0.25), ("EPSG:2263", 0.25 * (1200 / 3937) ** 2), ("EPSG:4326", None), (None, None)]
)
def test_areas(tmp_path: Path, crs: str | None, square_metres: float | None) -> None:
    facts = run(write(tmp_path / "a.tif", picture(40, 50), crs=crs))
    assert sum(facts.pixels.values()) + facts.ignored == 2000
    if square_metres is None:
        assert facts.on_earth.pixel_square_metres is None
        assert facts.square_metres is None
    else:
        assert facts.on_earth.pixel_square_metres == pytest.approx(square_metres, rel=1e-6)
        for name, pixels in facts.pixels.items():
            assert facts.square_metres[name] == pytest.approx(pixels * square_metres, abs=1e-3)
    sidecar = json.loads((tmp_path / "out/masks/a.tif.json").read_text())
    assert sidecar["pixels"] == facts.pixels
    assert sidecar["names"] == list(NAMES)
    assert sidecar["transform"] == list(NORTH_UP)[:6]


def test_overviews(tmp_path: Path) -> None:
    facts = run(write(tmp_path / "a.tif", picture(300, 600)), tile=256, overlap=16)
    with rasterio.open(tmp_path / "out" / facts.mask) as after:
        assert after.overviews(1) == [2, 4]
        assert set(np.unique(after.read(1, out_shape=(75, 150)))) <= {0, 1, 2}


def test_nodata_is_ignored_and_empty_tiles_are_not_segmented(tmp_path: Path) -> None:
    image = picture(70, 95) | 2
    image[:, 60:] = 0
    image[10:20, 5:9] = 0
    segmenter = LocalSegmenter()
    facts = run(write(tmp_path / "a.tif", image, nodata=0), segmenter=segmenter)
    with rasterio.open(tmp_path / "out" / facts.mask) as after:
        np.testing.assert_array_equal(after.read(1) == 255, image[:, :, 0] == 0)
        np.testing.assert_array_equal(after.dataset_mask() == 0, image[:, :, 0] == 0)
    assert facts.ignored == int((image[:, :, 0] == 0).sum())
    assert 0 < len(segmenter.seen) < 12


def test_an_image_of_nothing(tmp_path: Path) -> None:
    segmenter = LocalSegmenter()
    facts = run(write(tmp_path / "a.tif", np.zeros((40, 40, 3), dtype=np.uint8), nodata=0), segmenter=segmenter)
    assert (facts.pixels, facts.ignored, facts.mean_confidence) == ({}, 1600, None)
    assert segmenter.seen == []


def test_transparent_and_not_a_number_are_ignored(tmp_path: Path) -> None:
    image = np.dstack([picture(40, 40), np.full((40, 40), 255, dtype=np.uint8)])
    image[5:9, 3:30, 3] = 0
    facts = run(write(tmp_path / "a.tif", image, names=["red", "green", "blue", "alpha"]))
    assert facts.ignored == 4 * 27
    values = picture(40, 40).astype(np.float32)
    values[7, 8:11, 1] = np.nan
    assert run(write(tmp_path / "b.tif", values), value_range=(0, 255)).ignored == 3


def test_bands(tmp_path: Path) -> None:
    image = np.dstack([picture(20, 20), picture(20, 20, seed=1)[:, :, :2]])
    np.testing.assert_array_equal(read(write(tmp_path / "a.tif", image)), image[:, :, :3])
    np.testing.assert_array_equal(read(tmp_path / "a.tif", bands=(5, 1, 2)), image[:, :, [4, 0, 1]])
    np.testing.assert_array_equal(read(tmp_path / "a.tif", bands=(4,)), image[:, :, [3, 3, 3]])
    names = ["gray", "blue", "green", "red", "undefined"]
    named = write(tmp_path / "b.tif", image, names=names, photometric="minisblack")
    np.testing.assert_array_equal(read(named), image[:, :, [3, 2, 1]])
    np.testing.assert_array_equal(read(write(tmp_path / "c.tif", image[:, :, :1])), image[:, :, [0, 0, 0]])
    np.testing.assert_array_equal(read(write(tmp_path / "d.tif", image[:, :, :2])), image[:, :, [0, 0, 0]])
    with pytest.raises(PatchwordError, match=r"a.tif has no band 7; its bands are 1 to 5"):
        read(tmp_path / "a.tif", bands=(1, 2, 7))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_depths_are_scaled_alike_in_all_tiles_and_bands(tmp_path: Path, dtype: str) -> None:
    values = (picture(70, 95).astype(np.float64) * 12 + 100).astype(dtype)
    values[0, 0] = 30000
    path = write(tmp_path / "a.tif", values)
    low, high = np.percentile(values, (2, 98))
    expected = np.rint(((values.astype(np.float64) - low) / (high - low)).clip(0, 1) * 255)
    assert np.abs(read(path).astype(int) - expected).max() <= 1
    reader = GeoReader(path, settings=SegmentSettings())
    assert reader.value_range == pytest.approx((low, high))
    np.testing.assert_array_equal(reader.read(Box(10, 20, 40, 50)).image, read(path)[10:40, 20:50])
    reader.close()
    given = np.rint(((values.astype(np.float64) - 100) / 4000).clip(0, 1) * 255)
    assert np.abs(read(path, value_range=(100, 4100)).astype(int) - given).max() <= 1
    assert run(path).on_earth.value_range == pytest.approx((low, high))


def test_the_sample_of_the_range_is_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", np.arange(30 * 40, dtype=np.uint16).reshape(30, 40, 1))
    ranges = []
    for sample in (1, 1024):
        reader = open_reader(path, settings=SegmentSettings(value_sample=sample))
        assert isinstance(reader, GeoReader)
        assert reader.value_range is not None
        ranges.append(reader.value_range)
        reader.close()
    assert ranges[0][0] == ranges[0][1]  # of one pixel
    assert ranges[1] == pytest.approx(np.percentile(np.arange(30 * 40), (2, 98)))


def test_nodata_takes_no_part_in_the_range(tmp_path: Path) -> None:
    values = picture(40, 40).astype(np.int16)
    values[:30] = -9999
    reader = GeoReader(write(tmp_path / "a.tif", values, nodata=-9999), settings=SegmentSettings())
    assert reader.value_range == pytest.approx(np.percentile(values[30:], (2, 98)))
    reader.close()


def test_an_image_of_one_value(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.tif", np.full((9, 9, 3), 7, dtype=np.uint16))).max() == 0


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    table = {0: (0, 0, 0, 255), 1: (250, 10, 20, 255), 2: (30, 40, 50, 255)}
    indices = np.random.default_rng(0).integers(0, 3, (20, 20, 1), dtype=np.uint8)
    image = read(write(tmp_path / "a.tif", indices, table=table))
    np.testing.assert_array_equal(image, np.array([table[index][:3] for index in range(3)])[indices[:, :, 0]])


def test_complex_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match=r"a.tif has values of type complex64; they must be real numbers"):
        read(write(tmp_path / "a.tif", np.zeros((9, 9, 1), dtype=np.complex64)))


def test_many_classes(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(300)]
    image = picture(40, 40)
    image[3, 5, 0] = IGNORED
    facts = run(write(tmp_path / "a.tif", image), classes=names)
    with rasterio.open(tmp_path / "out" / facts.mask) as after:
        assert (after.dtypes, after.nodata) == (("uint16",), 65535)
        assert after.read(1)[3, 5] == 65535
        assert len(json.loads(after.tags()["CLASSES"])) == 300


def test_without_rasterio_a_georeference_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", picture(40, 40))
    Image.fromarray(picture(40, 40)).save(tmp_path / "plain.tif")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert read_head(path, settings=SegmentSettings()).in_tiles
    with pytest.raises(PatchwordError, match=r'needs the package rasterio: pip install "patchword\[geo\]"'):
        run(path)
    assert isinstance(open_reader(tmp_path / "plain.tif", settings=SegmentSettings()), ArrayReader)


def test_plain_tiffs_are_read_by_windows_unless_they_are_stored_otherwise(tmp_path: Path) -> None:
    upright, turned, print_colours = (tmp_path / name for name in ("a.tif", "b.tif", "c.tif"))
    Image.fromarray(picture(40, 50)).save(upright)
    Image.fromarray(picture(40, 50)).save(turned, tiffinfo={274: 6})
    Image.fromarray(picture(40, 50)).convert("CMYK").save(print_colours)
    assert isinstance(open_reader(upright, settings=SegmentSettings()), GeoReader)
    assert open_reader(turned, settings=SegmentSettings()).size == (50, 40)
    assert isinstance(open_reader(print_colours, settings=SegmentSettings()), ArrayReader)
    assert run(upright).mask == "masks/a.tif.png"


def test_a_damaged_geotiff_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", picture(200, 200), compress="deflate")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(PatchwordError, match=r"cannot read .*a\.tif: damaged") as raised:
        run(path)
    assert "previous exception" not in str(raised.value)
    assert not [each for each in (tmp_path / "out").rglob("*") if each.is_file()]


@pytest.mark.parametrize("big", ["YES", "NO"])
@pytest.mark.parametrize("order", ["LITTLE", "BIG"])
def test_heads_of_all_kinds(tmp_path: Path, big: str, order: str) -> None:
    path = write(tmp_path / "a.tif", picture(40, 50), BIGTIFF=big, ENDIANNESS=order)
    header = read_tiff_header(path)
    assert header is not None
    assert (header.size, header.georeferenced, header.upright, header.meaning) == ((40, 50), True, True, 2)


def with_hole(value: float, *, dtype: str, scale: float = 12.0) -> tuple[NDArray[Any], NDArray[Any]]:
    """A picture of that type, and the same with an empty left third."""
    full = (np.maximum(picture(48, 96), 1) * scale).astype(dtype)
    hole = full.copy()
    hole[:, :32] = value
    return full, hole


NOTHING = [("uint16", 0), ("uint8", 0), ("int16", -9999), ("int16", -32768), ("float32", -9999), ("float32", 7.5e9)]


@pytest.mark.parametrize(("dtype", "value"), [*NOTHING, ("float32", float(np.finfo(np.float32).min))])
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.filterwarnings("error::patchword.errors.PatchwordWarning")
def test_nodata_that_a_setting_names_is_as_nodata_that_the_file_declares(
    tmp_path: Path, dtype: str, value: float
) -> None:
    full, hole = with_hole(value, dtype=dtype, scale=1 if dtype == "uint8" else 12)
    named = write(tmp_path / "named.tif", hole)
    declared = write(tmp_path / "declared.tif", hole, nodata=value)
    rest = write(tmp_path / "rest.tif", full[:, 32:])
    facts = run(named, nodata=value)
    assert facts.on_earth.value_range == run(declared).on_earth.value_range == run(rest).on_earth.value_range
    masks = {}
    for name in ("named", "declared"):
        with rasterio.open(tmp_path / f"out/masks/{name}.tif.tif") as file:
            masks[name] = file.read(1)
    np.testing.assert_array_equal(masks["named"], masks["declared"])
    assert (masks["named"][:, :32] == 255).all()
    np.testing.assert_array_equal(read(named, nodata=value)[:, 32:], read(rest))


def test_a_value_that_fills_a_border_is_said_and_stays(tmp_path: Path) -> None:
    full, hole = with_hole(0, dtype="uint16")
    path = write(tmp_path / "a.tif", hole)
    with pytest.warns(PatchwordWarning, match=r"a\.tif: 33\.3% of its pixels are 0 in all bands.*--set nodata=0"):
        facts = run(path)
    assert facts.ignored < 48 * 32, "the empty third is not left out"
    quiet = [
        write(tmp_path / "full.tif", full),
        write(tmp_path / "declared.tif", hole, nodata=0),
        write(tmp_path / "plain.tif", hole.astype(np.uint8), crs=None, transform=Affine.identity()),
        write(tmp_path / "one.tif", np.zeros_like(full)),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error", PatchwordWarning)
        for path in quiet:
            read(path)


@pytest.mark.parametrize("value", [-9999, float(np.finfo(np.float32).min)])
def test_what_programs_write_for_nothing_is_taken_as_nodata_and_said(tmp_path: Path, value: float) -> None:
    _, hole = with_hole(value, dtype="float32", scale=1 / 255)
    declared = read(write(tmp_path / "declared.tif", hole, nodata=value))
    with pytest.warns(PatchwordWarning, match=r"33\.3% of its pixels are .* which is taken as nodata"):
        np.testing.assert_array_equal(read(write(tmp_path / "a.tif", hole)), declared)


def test_values_far_below_others_are_kept_where_they_are_of_the_scale(tmp_path: Path) -> None:
    depths = np.linspace(-9999, 0, 48 * 96, dtype=np.float32).reshape(48, 96, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PatchwordWarning)
        assert len(np.unique(read(write(tmp_path / "a.tif", depths)))) > 200
