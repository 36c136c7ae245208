"""The containers of a result: label maps and segments, and their files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patchword.data.colours import IGNORE_COLOUR, palette
from patchword.data.folders import write_bytes
from patchword.data.image_extras import SILENCE
from patchword.data.run_lengths import RunLengths, Runs, run_lengths
from patchword.data.storage import as_path, opened
from patchword.errors import PatchwordError

_MOST_NAMES = 65535
_COUNTED_AT_ONCE = 1 << 18


def ignore_index(count: int) -> int:
    """The index that means "nobody says what this is" beside `count` names: 255 for fewer than 255, else 65535."""
    return 255 if count < 255 else 65535


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One class index a pixel.

    Attributes:
        indices: (h, w), each below len(names) or equal to `ignore`; any integer type is taken and kept as uint8 while
            there are fewer than 255 names, else as uint16.
        names: the classes' names, by index; at most 65,535.
        colours: (n, 3) uint8, the classes' colours, such as `Vocabulary.colours`; none for those of `palette`.
    """

    indices: NDArray[np.integer[Any]]
    names: tuple[str, ...]
    colours: NDArray[np.uint8] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) > _MOST_NAMES:
            raise PatchwordError(f"label map has {len(self.names)} names; at most {_MOST_NAMES} fit")
        _check_indices(self.indices, len(self.names), "label map")
        if self.colours is not None and self.colours.shape != (len(self.names), 3):
            raise PatchwordError(
                f"label map has colours {self.colours.shape}; they must have shape {(len(self.names), 3)}"
            )
        kind = np.uint8 if len(self.names) < 255 else np.uint16
        object.__setattr__(self, "indices", np.ascontiguousarray(self.indices, dtype=kind))

    @property
    def ignore(self) -> int:
        """The index of pixels without a class: 255 while there are fewer than 255 names, else 65535."""
        return ignore_index(len(self.names))

    def class_colours(self) -> NDArray[np.uint8]:
        """The colours (n, 3) that the classes are shown in."""
        return palette(len(self.names)) if self.colours is None else self.colours

    def counts(self) -> NDArray[np.int64]:
        """Pixels of each index, (ignore + 1,)."""
        if self.indices.dtype == np.uint8:
            return np.array(Image.fromarray(self.indices).histogram())
        flat = self.indices.reshape(-1)
        found = np.zeros(self.ignore + 1, dtype=np.int64)
        for start in range(0, len(flat), _COUNTED_AT_ONCE):  # counting widens every pixel to eight bytes
            found += np.bincount(flat[start : start + _COUNTED_AT_ONCE], minlength=len(found))
        return found

    def save(self, path: str | Path) -> None:
        """Write as PNG; see `png`."""
        write_bytes(path, self.png())

    def png(self) -> bytes:
        """8-bit indexed with its colours below 255 names, else 16-bit grey; the same bytes every time."""
        image = Image.fromarray(self.indices)
        if self.indices.dtype == np.uint8:
            image.putpalette(png_palette(self.class_colours()))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return buffer.getvalue()

    @classmethod
    def load(cls, path: str | Path, *, names: Sequence[str]) -> Self:
        """Read what `save` wrote, or any indexed or greyscale image whose values are class indices.

        Args:
            path: the image.
            names: the classes' names, by index.
        """
        return cls.of_values(read_indices(path), names=names, source=str(path))

    @classmethod
    def of_values(cls, indices: NDArray[np.integer[Any]], *, names: Sequence[str], source: str) -> Self:
        """Take the values (h, w) of an indexed or greyscale image as class indices.

        Args:
            indices: as `read_indices` gives them.
            names: the classes' names, by index.
            source: the image, for errors.
        """
        if len(names) >= 255 and indices.dtype == np.uint8:
            raise PatchwordError(f"{source} is an 8-bit label map; {len(names)} names need a 16-bit one")
        _check_indices(indices, len(names), source)
        return cls(indices, tuple(names))


def read_indices(path: str | Path) -> NDArray[np.integer[Any]]:
    """Read the values of an indexed or greyscale image as they are, whatever they mean; of 1 bit they are 0 and 1.

    Returns:
        (h, w) uint8, uint16 or (32-bit greyscale) int32.
    """
    try:
        with SILENCE, Image.open(opened(as_path(path))) as image:
            if image.mode in ("LA", "PA") and "16" not in str(image.tile):  # of 16 bits only the upper 8 would be read
                return _opaque_values(image, path=path)
            if image.mode == "1":
                return np.array(image).astype(np.uint8)
            if image.mode not in ("P", "L", "I;16", "I;16B", "I"):
                raise PatchwordError(f"{path} is {_why_no_values(image, path=Path(path))}")
            return np.array(image)
    except PatchwordError:
        raise
    except OSError as error:
        raise PatchwordError(f"cannot read label map {path}: {error.strerror or error}") from None
    except Exception as error:  # damaged files raise anything from SyntaxError to struct.error, by format
        raise PatchwordError(f"cannot read label map {path}: {error}") from None


def _opaque_values(image: Image.Image, *, path: str | Path) -> NDArray[np.uint8]:
    """The values of a grey or indexed image with an alpha channel that hides nothing."""
    alpha = np.array(image.getchannel("A"))
    if (alpha < 255).any():
        hidden = int(np.count_nonzero(alpha < 255))
        raise PatchwordError(
            f"{path} has an alpha channel that hides {hidden:,} pixels; write their values, and no alpha channel"
        )
    return np.array(image.getchannel(0))


def _why_no_values(image: Image.Image, *, path: Path) -> str:
    """What an image is that has no value a pixel, and the way out."""
    kind = f"a picture of mode {image.mode}; a label map is indexed or greyscale"
    if image.mode not in ("RGB", "RGBA"):
        return kind
    pixels = np.array(image.convert("RGB"))
    red, green, blue = np.moveaxis(pixels, -1, 0)
    if (red == green).all() and (green == blue).all():
        return f"{kind}: all its channels are equal, so save it as greyscale"
    if path.name.endswith("_seg.png") or (red.any() and not (red % 10).any() and int(red.max()) <= 140):
        return (
            f"{kind}: it looks like a full annotation of ADE20K (class R / 10 * 256 + G of thousands); take the masks "
            "of its 150 classes (annotations/ of ADEChallengeData2016), with --zero-is ignore"
        )
    colours = image.convert("RGB").getcolors(256)
    if colours is None:
        return f"{kind}: it has more colours than classes"
    _, most = max(colours)
    return f"{kind}: it has {len(colours)} colours, most often {most}; write each colour as the number of its class"


@dataclass(frozen=True, eq=False)
class Segment:
    """One mask with its name and where it came from.

    Attributes:
        encoded: the mask as it came, as runs or COCO compressed; `runs` and `rle` give either, made when first asked
            for.
        class_index, class_name: what it shows.
        score: predicted IoU x how surely the mask has its class, in [0, 1] (setting `score_temperature`).
        predicted_iou: the mask generator's own estimate, nominally in [0, 1].
        similarity: mean evidence for the class inside the mask, in [0, 1].
        generator: which part of labelling made it.
        points: prompt points (x, y) in pixels of the image.
        area: pixels inside.
        box: (x, y, width, height) in pixels; all 0 for an empty mask.
        stability: IoU of the mask cut at a higher and at a lower logit, in [0, 1]; none where nobody measured it.
        margin: by how much its class leads the second, background words included, in cosine averaged over the mask;
            negative where another leads; none where nobody measured it.
        entropy: of the kept classes and background words given those cosines, 0 (sure) to 1 (all alike); none where
            nobody measured it.
    """

    encoded: Runs | RunLengths
    class_index: int
    class_name: str
    score: float
    predicted_iou: float
    similarity: float
    generator: str
    points: tuple[tuple[float, float], ...]
    area: int
    box: tuple[int, int, int, int]
    stability: float | None = None
    margin: float | None = None
    entropy: float | None = None

    @classmethod
    def from_mask(
        cls,
        mask: NDArray[np.bool_] | Runs | RunLengths,
        *,
        class_index: int,
        class_name: str,
        score: float,
        predicted_iou: float,
        similarity: float,
        generator: str,
        points: Sequence[tuple[float, float]] = (),
        stability: float | None = None,
        margin: float | None = None,
        entropy: float | None = None,
    ) -> Self:
        """Make a segment of a boolean mask (h, w), or of its runs in either form; area and box are computed."""
        if isinstance(mask, np.ndarray) and (mask.ndim != 2 or mask.size == 0):
            raise PatchwordError(f"mask has shape {mask.shape}; it must be (height, width), both at least 1")
        encoded = run_lengths(mask) if isinstance(mask, np.ndarray) else mask
        runs = encoded if isinstance(encoded, Runs) else Runs.of(encoded)
        return cls(
            encoded=encoded,
            class_index=int(class_index),
            class_name=class_name,
            score=float(score),
            predicted_iou=float(predicted_iou),
            similarity=float(similarity),
            generator=generator,
            points=tuple((float(x), float(y)) for x, y in points),
            area=runs.area,
            box=runs.box,
            stability=stability,
            margin=margin,
            entropy=entropy,
        )

    @cached_property
    def runs(self) -> Runs:
        """The mask as runs."""
        if isinstance(self.encoded, Runs):
            return self.encoded
        try:
            return Runs.of(self.encoded)
        except PatchwordError as error:
            raise PatchwordError(f"segment of {self.class_name!r} has a damaged mask: {error}") from None

    @cached_property
    def rle(self) -> RunLengths:
        """The mask, COCO compressed, size as [height, width]."""
        return self.encoded.run_lengths() if isinstance(self.encoded, Runs) else self.encoded

    def mask(self) -> NDArray[np.bool_]:
        """The mask, (h, w)."""
        return self.runs.whole()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Segment) and self.to_json() == other.to_json()

    def to_json(self) -> dict[str, Any]:
        """A record that JSON can hold."""
        known = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "encoded"}
        record = {"rle": dict(self.rle), **known}
        record["points"] = [list(point) for point in self.points]
        record["box"] = list(self.box)
        return record

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave."""
        try:
            return cls(
                encoded={"size": [int(side) for side in record["rle"]["size"]], "counts": str(record["rle"]["counts"])},
                class_index=int(record["class_index"]),
                class_name=str(record["class_name"]),
                score=float(record["score"]),
                predicted_iou=float(record["predicted_iou"]),
                similarity=float(record["similarity"]),
                generator=str(record["generator"]),
                points=tuple((float(x), float(y)) for x, y in record["points"]),
                area=int(record["area"]),
                box=_four(record["box"]),
                stability=_number(record, "stability"),
                margin=_number(record, "margin"),
                entropy=_number(record, "entropy"),
            )
        except KeyError as error:
            raise PatchwordError(f"segment has no field {error.args[0]!r}") from None
        except (TypeError, ValueError) as error:
            raise PatchwordError(f"segment cannot be read: {error}") from None


def _check_indices(indices: NDArray[Any], count: int, place: str) -> None:
    if indices.ndim != 2 or indices.size == 0 or indices.dtype.kind not in "ui":
        raise PatchwordError(
            f"{place} must hold integers (height, width), not {indices.dtype} of shape {indices.shape}"
        )
    ignore = ignore_index(count)
    wrong = indices >= count
    if indices.dtype.kind == "i":
        wrong |= indices < 0
    wrong &= indices != ignore
    if wrong.any():
        value = int(indices[wrong][0])
        raise PatchwordError(f"{place} has index {value}; it must be 0 to {count - 1}, or {ignore} for ignore")


def png_palette(colours: NDArray[np.uint8]) -> bytes:
    """The palette of an indexed PNG: the classes' colours (n, 3), below 255 of them, and ignore's at 255; 768 bytes."""
    table = np.zeros((256, 3), dtype=np.uint8)
    table[: len(colours)] = colours
    table[255] = IGNORE_COLOUR
    return table.tobytes()


def _number(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return None if value is None else float(value)


def _four(values: Sequence[float]) -> tuple[int, int, int, int]:
    x, y, width, height = (int(value) for value in values)
    return x, y, width, height


def find_mask(folder: Path, *, name: str, suffix: str = "") -> Path | None:
    """The indexed picture of a photograph in a folder of masks or predictions; None when there is none.

    Args:
        folder: where to look.
        name: the photograph's path relative to its folder, with forward slashes.
        suffix: what stands between the name and `.png`.
    """
    candidates = (folder / f"{name}{suffix}.png", folder / f"{Path(name).with_suffix('').as_posix()}{suffix}.png")
    return next((candidate for candidate in candidates if _is_file(candidate)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for any file
        return False
