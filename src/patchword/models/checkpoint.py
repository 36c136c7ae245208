"""A checkpoint's folder in the hub's format: whether its files are whole, what they say, and what is read from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from time import time_ns
from typing import TYPE_CHECKING, Any

from patchword.data.folders import cache_folder, write_text
from patchword.errors import PatchwordError, first_line
from patchword.models.registry import (
    CONFIG,
    PREPROCESSOR,
    PROCESSOR,
    VOCABULARIES,
    WEIGHTS,
    WEIGHTS_INDEX,
    Dense,
    Family,
    Filter,
    Library,
    Preprocessing,
)

if TYPE_CHECKING:
    import torch

    from patchword.models.protocols import ModelRecord

_PILLOW_FILTERS: dict[int, Filter] = {2: "bilinear", 3: "bicubic"}
_CLOCK_TICK = 2 * 10**9  # nanoseconds in which a file may change twice and show one time (FAT's clock is the slowest)
_HASH_BLOCK = 1 << 22  # bytes read at a time


@dataclass(frozen=True)
class Loaded:
    """A checkpoint's model on its device, with what its adapter needs besides.

    Attributes:
        model: in evaluation mode, its weights frozen; for text and masks in float32.
        record: what is known of the checkpoint.
        preprocessing: of its pixels.
        folder: that it was read from.
        dtype: type of the image encoder.
        dense: variant of CLIP's last layer.
    """

    model: Any
    record: ModelRecord
    preprocessing: Preprocessing
    folder: Path
    dtype: torch.dtype
    dense: Dense = "value"


@dataclass(frozen=True)
class Adapter:
    """How a checkpoint of a family serves in one role.

    Attributes:
        class_name: transformers class whose weights the checkpoint has.
        sizes: takes the config to (patch size, channels, input size), each in pixels or channels.
        build: puts the adapter around the loaded model.
        part: attribute of the model that the role needs, such as one tower; "" for the whole. `sizes` gets its config.
        options: of `from_pretrained`, besides those of every model.
    """

    class_name: str
    sizes: Callable[[Any], tuple[int, int, int]]
    build: Callable[[Loaded], Any]
    part: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise PatchwordError(f"{path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise PatchwordError(f"{path} must hold a JSON object, not {type(content).__name__}")
    return content


def read_model_type(folder: Path) -> str:
    """What config.json of a checkpoint says which architecture it is."""
    path = folder / CONFIG
    if not path.is_file():
        raise PatchwordError(f"{folder} has no {CONFIG}; give a folder in the hub's format ({CONFIG}, {WEIGHTS})")
    model_type = read_json(path).get("model_type")
    if not isinstance(model_type, str):
        raise PatchwordError(f"{path} has no model_type; save_pretrained writes one")
    return model_type


def weights_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or the shards of its index, each checked to be whole."""
    files = _named_weights(folder)
    for path in files:
        check_safetensors(path)
    return files


def has_weights(folder: Path) -> bool:
    """Whether the folder has all its safetensors files, whole or not."""
    try:
        return bool(_named_weights(folder))
    except PatchwordError:
        return False


def check_safetensors(path: Path) -> None:
    """Refuse a file whose safetensors header is damaged or does not cover the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        message = f"{path} is damaged or no safetensors file ({first_line(error)}); fetch or copy it again"
        raise PatchwordError(message) from error


def read_preprocessing(folder: Path, *, family: Family) -> Preprocessing:
    """What the checkpoint says of its pixels, with the family's values where it says nothing."""
    usual = family.preprocessing
    stated: dict[str, Any] = {}
    if (folder / PREPROCESSOR).is_file():
        stated = read_json(folder / PREPROCESSOR)
    elif (folder / PROCESSOR).is_file():
        nested = read_json(folder / PROCESSOR).get("image_processor")
        stated = nested if isinstance(nested, dict) else {}
    std = _three(stated.get("image_std", usual.std), what="image_std", folder=folder)
    if min(std) <= 0:
        raise PatchwordError(f"image_std is {list(std)} in {folder}; the numbers must be above 0")
    return Preprocessing(
        mean=_three(stated.get("image_mean", usual.mean), what="image_mean", folder=folder),
        std=std,
        resample=_PILLOW_FILTERS.get(stated.get("resample", -1), usual.resample),
    )


def load_tokenizer(folder: Path, *, vocabulary: int) -> Any:
    """The tokenizer of a checkpoint whose text tower knows so many tokens."""
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in VOCABULARIES):  # transformers would make up an empty tokenizer
        raise PatchwordError(f"{folder} has no usable tokenizer: it needs one of {', '.join(VOCABULARIES)}")
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # damaged files raise all sorts of things
        raise PatchwordError(f"{folder} has no usable tokenizer: {first_line(error)}") from error
    if len(tokenizer) > vocabulary:
        raise PatchwordError(f"the tokenizer in {folder} has {len(tokenizer)} tokens; the model allows {vocabulary}")
    return tokenizer


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal while loading; what matters of them is checked here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def import_library(library: Library, *, name: str) -> Any:
    """Import the optional package that a model's name asks for."""
    try:
        return import_module(library.prefix)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == library.prefix
        why = "is not installed" if missing else f"cannot be imported ({first_line(error)})"
        raise PatchwordError(
            f"{name} needs the package {library.prefix}, which {why}; install patchword[{library.prefix}]"
        ) from None


def side_of(value: Any, *, what: str) -> int:
    """Read a square's side from a config, where it may be one number or two equal ones."""
    sides = set(value) if isinstance(value, (list, tuple)) else {value}
    if len(sides) != 1:
        raise PatchwordError(f"{what} is {value} in the checkpoint's config; it must be a square")
    return int(sides.pop())


def fingerprint(folder: Path) -> str:
    """SHA-256 over config.json and the weights files: for each, in this order, its name, its size and its bytes.

    Returns:
        64 hexadecimal digits.
    """
    return fingerprint_of((folder / CONFIG, *_named_weights(folder)))


def fingerprint_of(files: Sequence[Path]) -> str:
    """The same over any files.

    Where patchword has a cache folder, the result is kept under what the files are: the hub's own hash of their content
    where they lie in its cache, else their place, size, number on the disk and times of change.
    """
    cache = cache_folder()
    if cache is None:
        return _hash(files)
    found = [_identity(path) for path in files]
    entry = cache / "fingerprints" / hashlib.sha256(json.dumps(found).encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        text = entry.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", text):
            return text
    made = _hash(files)
    newest = max((max(times) for *_, times in found), default=0)
    if time_ns() - newest > _CLOCK_TICK and found == [_identity(path) for path in files]:
        with suppress(OSError, PatchwordError):  # a cache that cannot be written is none
            write_text(entry, made)
    return made


def _identity(path: Path) -> tuple[str, int, str, int, tuple[int, ...]]:
    """What tells a file's content without reading it: its name, size, place, number, and when it changed.

    A program can set the time of modification back, but not that of the change of the file's entry (`st_ctime`).
    """
    status, place = path.stat(), path.resolve()
    if place.parent.name == "blobs" and re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", place.name):
        return path.name, status.st_size, place.name, 0, (0,)  # the hub's cache: links to files named by their hash
    return path.name, status.st_size, str(place), status.st_ino, (status.st_mtime_ns, status.st_ctime_ns)


def _hash(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_HASH_BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _named_weights(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        raise PatchwordError(f"{folder} has no {WEIGHTS}; weights must be safetensors, never pickled")
    shards = read_json(folder / WEIGHTS_INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise PatchwordError(f"{folder / WEIGHTS_INDEX} has no weight_map; fetch or copy it again")
    files = [folder / Path(str(name)).name for name in sorted(set(shards.values()))]
    for path in files:
        if not path.is_file():
            raise PatchwordError(f"{path} is missing, though {WEIGHTS_INDEX} names it; fetch or copy it again")
    return files


def _three(value: Any, *, what: str, folder: Path) -> tuple[float, float, float]:
    numbers = tuple(value) if isinstance(value, (list, tuple)) else ()
    if len(numbers) != 3 or not all(isinstance(number, (int, float)) for number in numbers):
        raise PatchwordError(f"{what} is {value!r} in {folder}; it must be three numbers")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
