"""GeoTIFF in and out, with the georeference kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patchword.config.segment import SegmentSettings
from patchword.data.folders import replacing_path
from patchword.data.image_extras import customary_nodata, is_nodata
from patchword.errors import PatchwordError, WriteError, warn_of_file
from patchword.segmentation.large.tiles import Box, Pixels

BLOCK = 256  # side in pixels of the blocks of files that are written
_CACHE_MEGABYTES = 256  # of decoded blocks of files that are read; bounds memory, changes no result
_FILLED = 0.2  # share of the border pixels from which on one value fills the border
_LEAST_OVERVIEW = 256  # pixels of the longer side below which no further overview is made


@dataclass(frozen=True)
class GeoReference:
    """Where an image lies on earth.

    Attributes:
        crs: the coordinate reference system as rasterio has it; None where the file names none.
        transform: from pixels to its coordinates (an affine matrix), rotated ones too.
        gcps: ground control points and their system, which some files have instead of a transform; () for none.
        point: whether coordinates are of the middle of a pixel (`AREA_OR_POINT`).
    """

    crs: Any
    transform: Any
    gcps: tuple[Any, ...]
    gcp_crs: Any
    point: bool

    def square_metres(self) -> float | None:
        """The area of a pixel on the map plane; None where the system is unknown, or in degrees."""
        if self.crs is None or not self.crs.is_projected or self.gcps:
            return None
        return float(abs(self.transform.determinant) * self.crs.linear_units_factor[1] ** 2)

    @property
    def crs_name(self) -> str | None:
        """Such as "EPSG:32633", or the system's text where it has no name; None for no system."""
        return None if self.crs is None else str(self.crs.to_string() or self.crs.to_wkt())


@dataclass(frozen=True)
class BandMeaning:
    """What the values of a band are.

    Attributes:
        description: of the band.
        nodata: the value that means nothing; None for none.
        colours: (n, 3) uint8, of the values 0 to n - 1, as the file's colour table; None for none.
        tags: of the file.
        scale: what a value is to be multiplied with to be what it means.
    """

    description: str
    nodata: int | None = None
    colours: NDArray[np.uint8] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0


class GeoReader:
    """Reads parts of a TIFF, any depth, as 8-bit RGB.

    Values: `settings.value_range` becomes 0 to 255 where it is given; else 8 bits stay as they are, and of other types
    the percentiles `settings.value_percentiles` of a sample over the whole image and all its bands become 0 and 255, so
    that all tiles and bands are scaled alike. A palette is looked up. What the file calls nodata, transparent or
    masked, what is not a number, and pixels whose bands all have the value `settings.nodata` are not valid. Where
    neither says anything, a value that programs write for nothing (`customary_nodata`) is taken so; that, and another
    value that fills the border, is said.
    """

    def __init__(self, path: Path, *, settings: SegmentSettings) -> None:
        self.path = path
        self._settings = settings
        rasterio = _rasterio()
        with _told(path):
            self._file = rasterio.open(path, driver="GTiff")
        self.size = (self._file.height, self._file.width)
        self.bands = _chosen_bands(self._file, path=path, bands=settings.bands)
        self._table = _palette(self._file, bands=self.bands)
        sample, valid = self._sample()
        self._nodata = self._nodata_of(sample, valid)
        self.value_range = None if self._table is not None else self._range(sample, valid)

    @property
    def reference(self) -> GeoReference:
        """Where the image lies; a file without a georeference has no system and the identity as its transform."""
        gcps, crs = self._file.gcps
        point = self._file.tags().get("AREA_OR_POINT") == "Point"
        return GeoReference(self._file.crs, self._file.transform, tuple(gcps), crs, point)

    @property
    def georeferenced(self) -> bool:
        """Whether the file says where it lies."""
        reference = self.reference
        return reference.crs is not None or bool(reference.gcps) or not reference.transform.is_identity

    def read(self, box: Box) -> Pixels:
        """A part of the image."""
        window = ((box.top, box.bottom), (box.left, box.right))
        with _told(self.path):
            values = self._file.read(self.bands, window=window)  # (1 or 3, h, w)
            valid = self._file.dataset_mask(window=window) > 0
        if values.dtype.kind == "f":
            valid &= np.isfinite(values).all(axis=0)
        valid &= ~is_nodata(values, self._nodata).all(axis=0)
        return Pixels(self._as_rgb(values), None if valid.all() else valid)

    def preview(self, size: tuple[int, int]) -> NDArray[np.uint8]:
        """The whole image at a smaller size, averaged."""
        from rasterio.enums import Resampling

        apart = self._table is not None or self._nodata is not None  # values that have no mean with others
        how = Resampling.nearest if apart else Resampling.average
        with _told(self.path):
            values = self._file.read(self.bands, out_shape=(len(self.bands), *size), resampling=how)
        return self._as_rgb(values)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _as_rgb(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        if self._table is not None:
            looked_up: NDArray[np.uint8] = self._table[values[0]]
            return looked_up
        if self.value_range is not None:
            values = _scaled(values, self.value_range)
        return np.ascontiguousarray(np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0), dtype=np.uint8)

    def _sample(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values (bands, h, w) over the whole image, and where the file says that there is something, (h, w)."""
        scale = min(1.0, self._settings.value_sample / max(self.size))
        size = tuple(max(1, round(side * scale)) for side in self.size)
        with _told(self.path):
            values = self._file.read(self.bands, out_shape=(len(self.bands), *size))
            valid = self._file.dataset_mask(out_shape=size) > 0
        return values, valid

    def _nodata_of(self, sample: NDArray[Any], valid: NDArray[np.bool_]) -> float | None:
        """The value that means nothing, beside what the file itself says; a guess is said."""
        if self._settings.nodata is not None:
            return self._settings.nodata
        if self._table is not None or not valid.all() or any(each is not None for each in self._file.nodatavals):
            return None
        customary = customary_nodata(sample)
        filling = customary if customary is not None else _border_value(sample)
        if filling is None:
            return None
        share = is_nodata(sample, filling).all(axis=0).mean()
        told = f"{self.path}: {share:.1%} of its pixels are {filling:g} in all bands"
        if customary is not None:
            warn_of_file(f"{told}, which is taken as nodata", path=self.path)
        elif self.georeferenced:  # photographs may well have a black or white border
            hint = f"if that means nodata, pass --set nodata={filling:g}"
            warn_of_file(f"{told} and fill its border; {hint}", path=self.path)
        return customary

    def _range(self, sample: NDArray[Any], valid: NDArray[np.bool_]) -> tuple[float, float] | None:
        if self._settings.value_range is not None:
            return self._settings.value_range
        if self._file.dtypes[self.bands[0] - 1] == "uint8":
            return None
        known = sample[:, valid & ~is_nodata(sample, self._nodata).all(axis=0)].astype(np.float64)
        known = known[np.isfinite(known)]
        if not known.size:
            return (0.0, 1.0)
        low, high = np.percentile(known, self._settings.value_percentiles)
        return float(low), float(high)


def _border_value(sample: NDArray[Any]) -> float | None:
    """The least or greatest value, where all bands of a fifth of the border have it and not all pixels do."""
    finite = sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample
    if not finite.size:
        return None
    ring = np.concatenate([sample[:, 0], sample[:, -1], sample[:, :, 0], sample[:, :, -1]], axis=1)
    for extreme in (finite.min(), finite.max()):
        if (ring == extreme).all(axis=0).mean() >= _FILLED and not (sample == extreme).all():
            return float(extreme)
    return None


def write_geotiff(
    path: Path,
    *,
    size: tuple[int, int],
    strips: Iterable[NDArray[Any]],
    dtype: str,
    reference: GeoReference,
    meaning: BandMeaning,
) -> None:
    """Write one band as a tiled, compressed GeoTIFF with overviews, whole or not at all.

    Args:
        path: of the file; its folder is made.
        size: (height, width) in pixels.
        strips: the values (`BLOCK` rows, width) from top to bottom, the last perhaps fewer.
        dtype: "uint8" or "uint16".
        reference: where it lies.
        meaning: what the values are.
    """
    rasterio = _rasterio()
    profile = {
        "driver": "GTiff",
        "height": size[0],
        "width": size[1],
        "count": 1,
        "dtype": dtype,
        "nodata": meaning.nodata,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
        "compress": "deflate",
        "BIGTIFF": "IF_SAFER",
    }
    if reference.gcps:
        profile |= {"gcps": list(reference.gcps), "crs": reference.gcp_crs}
    else:
        profile |= {"crs": reference.crs, "transform": reference.transform}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet(), replacing_path(path) as temporary:
            with rasterio.open(temporary, "w", **profile) as file:
                if reference.point:
                    file.update_tags(AREA_OR_POINT="Point")
                file.update_tags(**meaning.tags)
                if meaning.colours is not None:
                    table = {value: tuple(map(int, colour)) for value, colour in enumerate(meaning.colours)}
                    file.write_colormap(1, table)
                file.set_band_description(1, meaning.description)
                file.scales = (meaning.scale,)
                _write_strips(file, strips)
            _add_overviews(temporary, size=size)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from None


def _write_strips(file: Any, strips: Iterable[NDArray[Any]]) -> None:
    top = 0
    for strip in strips:
        file.write(strip, 1, window=((top, top + len(strip)), (0, strip.shape[1])))
        top += len(strip)


def _add_overviews(path: Path, *, size: tuple[int, int]) -> None:
    """Smaller versions inside the file, each half as large; nearest neighbours, since indices have no mean."""
    from rasterio.enums import Resampling

    count = max(0, math.ceil(math.log2(max(size) / _LEAST_OVERVIEW)))
    if not count:
        return
    with _rasterio().open(path, "r+", driver="GTiff") as file:
        file.build_overviews([2**step for step in range(1, count + 1)], Resampling.nearest)


def _scaled(values: NDArray[Any], value_range: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = value_range
    numbers = np.nan_to_num(values.astype(np.float32), nan=low, posinf=high, neginf=low).clip(low, high)
    width = high - low if high > low else 1.0  # an image of one value
    rounded: NDArray[np.float32] = np.rint(((numbers - low) / width).clip(0, 1) * 255)
    return rounded.astype(np.uint8)


def _chosen_bands(file: Any, *, path: Path, bands: tuple[int, ...] | None) -> list[int]:
    """The bands that are red, green and blue, or the one that is grey."""
    if bands is not None:
        missing = [band for band in bands if band > file.count]
        if missing:
            raise PatchwordError(f"{path} has no band {missing[0]}; its bands are 1 to {file.count}")
        chosen = list(bands)
    else:
        chosen = _bands_by_name(file)
    kinds = {file.dtypes[band - 1] for band in chosen}
    if any(np.dtype(kind).kind not in "uif" for kind in kinds):
        raise PatchwordError(f"{path} has values of type {', '.join(sorted(kinds))}; they must be real numbers")
    return chosen


def _bands_by_name(file: Any) -> list[int]:
    names = [colour.name for colour in file.colorinterp]
    if all(name in names for name in ("red", "green", "blue")):
        return [names.index(name) + 1 for name in ("red", "green", "blue")]
    coloured = [band for band, name in enumerate(names, start=1) if name != "alpha"]
    return coloured[:3] if len(coloured) >= 3 else coloured[:1] or [1]


def _palette(file: Any, *, bands: list[int]) -> NDArray[np.uint8] | None:
    """The colours of a file whose values are places in a palette, (values, 3)."""
    if len(bands) != 1 or file.colorinterp[bands[0] - 1].name != "palette":
        return None
    values = 256 if file.dtypes[bands[0] - 1] == "uint8" else 65536
    table = np.zeros((values, 3), dtype=np.uint8)
    for value, colour in file.colormap(bands[0]).items():
        table[value] = colour[:3]
    return table


def _rasterio() -> Any:
    try:
        import rasterio
    except ImportError:
        raise PatchwordError(
            'a TIFF with a georeference needs the package rasterio: pip install "patchword[geo]"'
        ) from None
    return rasterio


@contextmanager
def _quiet() -> Iterator[None]:
    """Bound what GDAL keeps of files; leave out its remark that a file has no georeference, and files beside files."""
    from rasterio.errors import NotGeoreferencedWarning

    settings = {"GDAL_CACHEMAX": _CACHE_MEGABYTES}
    with warnings.catch_warnings(), _rasterio().Env(**settings):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What GDAL says of a file that it cannot read, in one line."""
    from rasterio.errors import RasterioError

    try:
        with _quiet():
            yield
    except (OSError, MemoryError, RasterioError) as error:
        reason = " ".join(str(error.__cause__ or error).split())  # GDAL's own words; rasterio's only point to them
        raise PatchwordError(f"cannot read {path}: damaged ({reason})") from None
