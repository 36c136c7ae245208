"""What stands between a client and the application: token, origin, size, time, number of requests; and their counts."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from patchword.config.serve import ServerOptions, is_loopback
from patchword.errors import PatchwordError

_log = logging.getLogger(__name__)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; font-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}
"""Of every answer: scripts, styles and pictures come from this server alone, and none stand in the page."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SAFE = ("GET", "HEAD", "OPTIONS")
_BODIES = 8  # bodies of the largest size that are held at once; a matter of memory only
_DRAIN_SECONDS = 2.0


class RefusedError(PatchwordError):
    """A request that gets no result.

    Args:
        status: of the answer.
        reason: a plain sentence for a person.
        kind: a word for the metrics.
        headers: further ones of the answer.
    """

    def __init__(self, status: int, reason: str, *, kind: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.kind, self.headers = status, reason, kind, dict(headers or {})


def busy(reason: str, *, seconds: float = 1.0) -> RefusedError:
    """A refusal for now; the same request may be sent again after so many seconds."""
    return RefusedError(429, reason, kind="busy", headers={"Retry-After": str(max(1, round(seconds)))})


class Guard:
    """Lets requests through that keep to the limits; all others are answered here, with a reason.

    Bodies are read here, whole, before the application sees a request: it is never slowed down by a slow client.

    Args:
        guarded: what paths begin with that need the token.
    """

    def __init__(
        self, app: ASGIApp, *, config: ServerOptions, metrics: Metrics, guarded: tuple[str, ...] = ("/v1/", "/metrics")
    ) -> None:
        self.app = app
        self._limits = config.limits
        self._token = config.token
        self._guarded = guarded
        self._local = config.is_local
        self._metrics = metrics
        self._most = int(config.limits.megabytes * 1e6)
        self._active = 0
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, seconds=self._limits.upload_seconds)
        started, held = time.perf_counter(), [0]
        self._active += 1
        try:
            self._check(scope)
            body = await self._read(scope, receive, held)
            await self.app(scope, _again(body, receive), answer)
        except RefusedError as refusal:
            self._metrics.rejected.labels(refusal.kind).inc()
            await answer.refuse(refusal, receive=receive)
        except (_GoneError, TimeoutError):  # nobody reads an answer
            answer.code = answer.code or 499
        except Exception:
            if answer.code:
                raise
            _log.exception("%s %s failed", scope["method"], scope["path"])
            await answer.refuse(
                RefusedError(500, "the server failed; its log says why", kind="failed"), receive=receive
            )
        finally:
            self._active -= 1
            self._held -= held[0]
            path = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(path, str(answer.code or 499)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - started)

    def _check(self, scope: Scope) -> None:
        """Refuse what can be refused before a body is read."""
        headers = Headers(scope=scope)
        if self._active > self._limits.uploads:
            raise busy(f"{self._limits.uploads} requests are worked on; try again")
        host = _hostname(headers.get("host", ""))
        if self._local and not self._token and not is_loopback(host):
            # a page of another site may give its name this machine's address; its requests still carry that name
            raise RefusedError(403, f"this server answers for this machine alone, not for {host!r}", kind="host")
        if scope["method"] not in _SAFE and not _same_origin(headers):
            raise RefusedError(403, "requests from pages of other sites are refused", kind="origin")
        given = _secret(headers.get("authorization", ""))
        guarded = self._token and scope["path"].startswith(self._guarded)
        if guarded and not hmac.compare_digest(given, (self._token or "").encode()):
            reason = "this server wants its token: send the header Authorization: Bearer TOKEN"
            raise RefusedError(401, reason, kind="token", headers={"WWW-Authenticate": "Bearer"})
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            raise self._too_large()

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"the request is larger than {self._limits.megabytes:g} MB, the limit", kind="size")

    async def _read(self, scope: Scope, receive: Receive, held: list[int]) -> bytes:
        """The whole body, counted while it comes in."""
        if scope["method"] in _SAFE and "transfer-encoding" not in Headers(scope=scope):
            return b""
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.upload_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _GoneError
                    part = message.get("body", b"")
                    held[0] += len(part)
                    self._held += len(part)
                    if held[0] > self._most:
                        raise self._too_large()
                    if self._held > _BODIES * self._most and self._held > held[0]:
                        raise busy("too many large requests at once; try again")
                    body += part
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            seconds = f"{self._limits.upload_seconds:g}"
            raise RefusedError(408, f"the request did not arrive within {seconds} seconds", kind="slow") from None


class _GoneError(Exception):
    """The client has gone."""


class _Answer:
    """Sends an answer with the headers of all; a client that does not read it is given up after a while."""

    def __init__(self, send: Send, *, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self.code = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.code = message["status"]
            extra = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        async with asyncio.timeout(self._seconds):
            await self._send(message)

    async def refuse(self, refusal: RefusedError, *, receive: Receive) -> None:
        """Answer with a reason. What is still on its way is read for a moment: else the client may never see it."""
        body = error_body(refusal.reason)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
            **{name.lower(): value for name, value in refusal.headers.items()},
        }
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self({"type": "http.response.start", "status": refusal.status, "headers": lines})
        await self({"type": "http.response.body", "body": body, "more_body": True})
        if refusal.status in (408, 413):
            try:
                async with asyncio.timeout(_DRAIN_SECONDS):
                    for _ in range(512):
                        if not (await receive()).get("more_body", False):
                            break
            except TimeoutError:
                pass
        await self({"type": "http.response.body", "body": b"", "more_body": False})


def error_body(reason: str) -> bytes:
    """The body of every answer that is an error."""
    return json.dumps({"error": {"reason": reason}}, ensure_ascii=False).encode()


def _again(body: bytes, receive: Receive) -> Receive:
    """Gives a body that was read already, then waits for whatever comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _secret(authorization: str) -> bytes:
    """The token of a header: a bearer's, or the password of basic authentication, whoever the user is."""
    kind, _, given = authorization.partition(" ")
    secret = given.strip().encode("latin-1", "replace")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(secret, validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return secret if kind.lower() == "bearer" else b""


def _hostname(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _same_origin(headers: Headers) -> bool:
    """Whether a request comes from this server's own pages, or from a program, which names no origin."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


class Metrics:
    """What Prometheus is told of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: Any = {"registry": self.registry}
        self.forward_passes = Counter(
            "patchword_forward_passes", "Times that a model's image encoder ran, on a batch of one image or more", **of
        )
        self.images = Counter("patchword_images", "Images that a model's image encoder saw", **of)
        self.requests = Counter("patchword_requests", "Requests by route and status", ["path", "code"], **of)
        self.seconds = Histogram("patchword_request_seconds", "Seconds from a request to its answer", ["path"], **of)
        self.queue_depth = Gauge("patchword_queue_depth", "Requests that wait for the models or are in them", **of)
        self.rejected = Counter("patchword_rejected", "Requests that were refused", ["reason"], **of)
        self.remembered = Gauge("patchword_remembered_images", "Uploaded images that are remembered", **of)

    def page(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
