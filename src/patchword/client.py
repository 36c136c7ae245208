"""A client of `patchword serve`, with nothing but the standard library on the way."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, first_line

if TYPE_CHECKING:
    from PIL import Image

    from patchword.config.segment import SegmentSettings

    AnyPicture: TypeAlias = str | Path | bytes | Image.Image | NDArray[np.uint8]
    SettingValues: TypeAlias = SegmentSettings | Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ServedResult:
    """What a server found in an image; `result["cat"]` is the mask (h, w) of a class, boolean.

    Attributes:
        label_map: indices of the classes.
        confidence: (h, w) float32 in [0, 1], in steps of 1/255.
        milliseconds: that the model took, without waiting.
        encoded: whether a forward pass was needed.
    """

    label_map: LabelMap
    confidence: NDArray[np.float32]
    milliseconds: float
    encoded: bool

    @property
    def mask(self) -> NDArray[np.integer[Any]]:
        """The classes' indices (h, w) in `label_map.names`; `label_map.ignore` where there is none."""
        return self.label_map.indices

    def __getitem__(self, name: str) -> NDArray[np.bool_]:
        names = self.label_map.names
        if name not in names:
            raise PatchwordError(f"unknown class {name!r} (choose from {', '.join(names)})")
        found: NDArray[np.bool_] = self.label_map.indices == names.index(name)
        return found


class Client:
    """Talks to a server that `patchword serve` started.

    Args:
        address: of the server.
        token: its secret, where it has one.
        timeout: seconds that a call may take, waiting for a busy server included.
    """

    def __init__(
        self, address: str = "http://127.0.0.1:8000", *, token: str | None = None, timeout: float = 60
    ) -> None:
        if urlsplit(address).scheme not in ("http", "https"):
            raise PatchwordError(f"address is {address!r}; it must begin with http:// or https://")
        self._address = address.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout = timeout
        host = urlsplit(address).hostname
        own = host in ("localhost", "127.0.0.1", "::1")
        self._open = build_opener(*([ProxyHandler({})] if own else [])).open

    def models(self) -> dict[str, Any]:
        """The server's models with their classes, its pictures to begin with, and its limits."""
        return self._call("/v1/models")

    def remember(self, image: AnyPicture) -> RemoteImage:
        """Send an image once, to segment it by several lists of words.

        Args:
            image: path of a photograph, bytes of its file, Pillow image, or array (h, w, 3) uint8.

        Returns:
            the image on the server, which forgets it when others come.
        """
        answer = self._call("/v1/images", *_form(_file_of(image)))
        return RemoteImage(self, answer["image"], answer["width"], answer["height"])

    def segment(
        self,
        image: AnyPicture,
        *,
        classes: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        settings: SettingValues | None = None,
        model: str = "default",
    ) -> ServedResult:
        """Give every pixel of an image one of the classes.

        Args:
            image: path of a photograph, bytes of its file, Pillow image, or array (h, w, 3) uint8.
            classes: names, synonyms after ";"; None for those of the model.
            background: words for what is none of the classes.
            settings: of `SegmentSettings`, those that differ from the model's.
            model: id of one of the server's models.
        """
        asked = _asked(classes, background, settings, model)
        body = {**asked, "image": base64.b64encode(_file_of(image)).decode("ascii")}
        return _result(self._call("/v1/segment", json.dumps(body).encode(), "application/json"))

    def _call(self, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        """The JSON that a server answers; a busy one is asked again when it says so."""
        headers = {**self._headers, "Accept": "application/json", **({"Content-Type": kind} if kind else {})}
        until = time.monotonic() + self._timeout
        while True:
            request = Request(self._address + path, body, headers)
            try:
                with self._open(request, timeout=max(0.1, until - time.monotonic())) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except HTTPError as error:
                pause = _seconds(error.headers.get("Retry-After"))
                if error.code != 429 or time.monotonic() + pause > until:
                    raise PatchwordError(f"{self._address}{path}: {_reason(error)}") from None
                time.sleep(pause)
            except (URLError, OSError, ValueError) as error:
                why = first_line(error.reason if isinstance(error, URLError) else error)  # type: ignore[arg-type]
                raise PatchwordError(f"{self._address} does not answer: {why}") from None


@dataclass(frozen=True)
class RemoteImage:
    """An image on a server, which has seen it already."""

    client: Client
    image: str
    width: int
    height: int

    def segment(
        self,
        classes: Sequence[str] | None = None,
        *,
        background: Sequence[str] | None = None,
        settings: SettingValues | None = None,
        model: str = "default",
    ) -> ServedResult:
        """As `Client.segment`; of the same image, other words cost the server no forward pass."""
        body = json.dumps(_asked(classes, background, settings, model)).encode()
        return _result(self.client._call(f"/v1/images/{self.image}/segment", body, "application/json"))


def _asked(
    classes: Sequence[str] | None, background: Sequence[str] | None, settings: SettingValues | None, model: str
) -> dict[str, Any]:
    if isinstance(classes, str) or isinstance(background, str):
        raise PatchwordError('classes and background are lists of names, such as ["cat", "dog; puppy"]')
    values = settings if settings is None or isinstance(settings, Mapping) else settings.model_dump(exclude_unset=True)
    words = {"classes": classes and list(classes), "background": None if background is None else list(background)}
    return {"model": model, "settings": dict(values or {}), **words}


def _file_of(image: AnyPicture) -> bytes:
    """The bytes of an image file."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | Path):
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise PatchwordError(f"cannot read {image}: {error.strerror}") from None
    from PIL import Image

    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _form(data: bytes) -> tuple[bytes, str]:
    """A form with one file, and its type."""
    edge = "patchword-" + base64.b32encode(data[:10].ljust(10, b"=")).decode("ascii")
    while edge.encode() in data:
        edge += "-"
    start = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="image"\r\n\r\n'
    return start.encode() + data + f"\r\n--{edge}--\r\n".encode(), f"multipart/form-data; boundary={edge}"


def _result(answer: Mapping[str, Any]) -> ServedResult:
    from PIL import Image

    def picture(name: str) -> NDArray[Any]:
        return np.array(Image.open(io.BytesIO(base64.b64decode(answer[name]))))

    names = tuple(each["name"] for each in answer["classes"])
    colours = np.array([list(bytes.fromhex(each["colour"][1:])) for each in answer["classes"]], dtype=np.uint8)
    confidence = picture("confidence").astype(np.float32) / np.float32(255)
    label_map = LabelMap(picture("labels"), names, colours)
    return ServedResult(label_map, confidence, answer["milliseconds"], answer["encoded"])


def _reason(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"]["reason"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"status {error.code}"


def _seconds(text: str | None) -> float:
    return float(text) if text and text.isdecimal() else 1.0
