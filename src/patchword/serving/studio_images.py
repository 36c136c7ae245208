"""Pictures of Label Studio's tasks: from its host alone, from one folder, or as data in the task itself."""

from __future__ import annotations

import json
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import numpy as np
from numpy.typing import NDArray

from patchword.config.serve import LabelStudioConfig, is_loopback
from patchword.errors import PatchwordError, first_line
from patchword.export.label_studio import readings
from patchword.serving.job_options import inside
from patchword.serving.limits import RefusedError
from patchword.serving.uploads import decode_upload, media_allowed, of_base64

_REDIRECTS = 3
_SILENCE = 20.0  # seconds without a byte after which a host is given up
_SAFE = "/:?#[]@!$&'()*+,;=%~"
_PORTS = {"http": 80, "https": 443}
_LOCAL_FILES = "/data/local-files"


class _StayHandler(HTTPRedirectHandler):
    """Follows nothing by itself."""

    def redirect_request(self, *_: Any) -> None:
        return None


class StudioImages:
    """Reads the pictures that tasks name.

    Args:
        config: Label Studio's address and key, the folder of local files, and limits.
    """

    def __init__(self, config: LabelStudioConfig) -> None:
        self._limits = config.limits
        self._most = int(config.limits.megabytes * 1e6)
        self._url = (config.label_studio_url or "").rstrip("/")
        self._key = (config.label_studio_key or "").strip()
        if not _sendable(self._key):
            raise PatchwordError("option 'label_studio_key' has characters that a key cannot have")
        self._root: Path | None = None
        if config.root is not None:
            self._root = Path(config.root).resolve()
            if not self._root.is_dir():
                raise PatchwordError(f"option 'root' is {config.root}, which is not a folder")
        self._access: str | None = None
        own = is_loopback(urlsplit(self._url).hostname or "")
        self._open = build_opener(_StayHandler, *([ProxyHandler({})] if own else [])).open

    def read(self, address: str) -> NDArray[np.uint8]:
        """The pixels (h, w, 3) of the picture at an address."""
        return decode_upload(self._data(address), limits=self._limits)

    def _data(self, address: str) -> bytes:
        if address[:5].lower() == "data:":
            return of_base64(address)
        try:
            parts = urlsplit(address)
        except ValueError:
            raise PatchwordError("the picture's address cannot be read") from None
        if parts.scheme or parts.netloc:
            return self._fetch(address)
        if self._root is not None and (not address.startswith("/") or parts.path.startswith(_LOCAL_FILES)):
            return self._read_file(address, self._root)
        if not address.startswith("/"):
            raise PatchwordError("the picture is named by a path; start the backend with --root FOLDER")
        if not self._url:
            raise PatchwordError("the picture is on Label Studio; start the backend with --label-studio-url URL")
        prefix = urlsplit(self._url).path
        return self._fetch(self._url + (address[len(prefix) :] if address.startswith(f"{prefix}/") else address))

    def _read_file(self, address: str, root: Path) -> bytes:
        """A file of the folder, by any of the ways in which its address can be read."""
        told: PatchwordError | None = None
        for name in readings(address):
            try:
                path = inside(name, root=root, option="picture", there=True)
            except PatchwordError as error:
                told = told or error
                continue
            if not path.is_file():
                raise PatchwordError(f"picture {name!r} is not a file")
            try:
                with path.open("rb") as file:
                    return bytes(self._within(file.read(self._most + 1)))
            except OSError as error:
                raise PatchwordError(f"picture {name!r} cannot be read: {error.strerror}") from None
        raise told or PatchwordError("the picture's address is empty")

    def _within(self, data: bytes | bytearray) -> bytes | bytearray:
        if len(data) > self._most:
            reason = f"the picture is larger than {self._limits.megabytes:g} MB, the limit"
            raise RefusedError(413, reason, kind="size")
        return data

    def _fetch(self, address: str) -> bytes:
        """A file of Label Studio; its key is sent to its own address alone, redirects included."""
        fresh = False
        for _ in range(_REDIRECTS + 1):
            if not self._url or _origin(address) != _origin(self._url):
                own = self._url or "no host, for --label-studio-url was not given"
                raise PatchwordError(f"the picture is on {_spoken(address)}; pictures are fetched from {own}")
            try:
                return self._answer(Request(quote(address, safe=_SAFE), headers=self._authorization()))
            except HTTPError as error:
                with error:
                    moved = error.headers.get("Location") if error.code in (301, 302, 303, 307, 308) else None
                if error.code == 401 and self._access and not fresh:  # it was good for some minutes
                    self._access, fresh = None, True
                    continue
                if moved is None:
                    why = "; check --label-studio-key" if error.code in (401, 403) else ""
                    raise PatchwordError(f"Label Studio answers {error.code} for the picture{why}") from None
                address = urljoin(address, moved)
        raise PatchwordError("Label Studio sends from one address to the next for the picture")

    def _authorization(self) -> dict[str, str]:
        """Label Studio's older keys are sent as they are; its personal access tokens are exchanged for one to send."""
        if not self._key:
            return {}
        if self._key.count(".") != 2:
            return {"Authorization": f"Token {self._key}"}
        if self._access is None:
            body = json.dumps({"refresh": self._key}).encode()
            address = f"{self._url}/api/token/refresh/"
            try:
                answer = self._answer(Request(address, body, {"Content-Type": "application/json"}), media=False)
                self._access = json.loads(answer)["access"]
                if not isinstance(self._access, str) or not _sendable(self._access):
                    raise TypeError("access")
            except HTTPError as error:
                error.close()
                raise PatchwordError(
                    f"Label Studio answers {error.code} for the key; check --label-studio-key"
                ) from None
            except (ValueError, KeyError, TypeError):
                self._access = None
                raise PatchwordError("Label Studio does not take the key; check --label-studio-key") from None
        return {"Authorization": f"Bearer {self._access}"}

    def _answer(self, request: Request, *, media: bool = True) -> bytes:
        """The body of an answer, read within limits of size and time; HTTPError for one that is not good."""
        until = time.monotonic() + self._limits.upload_seconds
        try:
            with self._open(request, timeout=_SILENCE) as answer:
                if media:
                    media_allowed(answer.headers.get("Content-Type"))
                data = bytearray()
                while part := answer.read1(2**16):
                    data += part
                    self._within(data)
                    if time.monotonic() > until:
                        raise PatchwordError("Label Studio sends the picture too slowly")
                return bytes(data)
        except (HTTPError, PatchwordError):
            raise
        except (URLError, OSError, HTTPException, ValueError) as error:
            why = first_line(error.reason if isinstance(error, URLError) else error)  # type: ignore[arg-type]
            raise PatchwordError(f"the picture cannot be fetched from {self._url}: {why}") from None


def _sendable(key: str) -> bool:
    """Whether a header can hold it; an error would quote it otherwise."""
    return key.isascii() and key.isprintable()


def _origin(address: str) -> tuple[str, str, int | None] | None:
    """Scheme, host and port; none for what is no address that is fetched."""
    try:
        parts = urlsplit(address)
        if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
            return None
        return parts.scheme, parts.hostname, _port(parts)
    except ValueError:
        return None


def _port(parts: SplitResult) -> int:
    return _PORTS[parts.scheme] if parts.port is None else parts.port


def _spoken(address: str) -> str:
    """The host of an address, without what may be secret in the rest."""
    origin = _origin(address)
    return f"{origin[0]}://{origin[1]}:{origin[2]}" if origin else "an address that is not fetched"
