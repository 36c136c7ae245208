"""Running the application: the socket, what is said at start, and a clean stop."""

from __future__ import annotations

import logging
import socket
import sys
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from patchword.config.serve import LabelStudioConfig, ServeConfig, ServerOptions
from patchword.errors import PatchwordError, PatchwordWarning

if TYPE_CHECKING:
    import uvicorn


_CONNECTIONS = 2  # for each request that may be worked on
_KEEP_ALIVE = 15  # seconds without a request after which a connection is closed


def serve(config: ServeConfig | LabelStudioConfig) -> None:
    """Serve until SIGTERM or SIGINT comes; requests in flight finish."""
    try:
        import python_multipart  # noqa: F401  (the framework looks for it when the first form comes)

        from patchword.serving.app import create_app
        from patchword.serving.studio import create_studio_app
    except ImportError as error:
        raise PatchwordError(f"the server needs {error.name}: pip install 'patchword[serve]'") from None
    app = create_studio_app(config) if isinstance(config, LabelStudioConfig) else create_app(config)
    server = make_server(app, config=config)
    listening = listen(config.host, port=config.port)
    host, port = listening.getsockname()[:2]
    say_where(config, address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    warnings.simplefilter("ignore", PatchwordWarning)  # said of words, which each request brings anew
    logging.basicConfig(format="patchword: %(levelname)s: %(message)s", stream=sys.stderr, level=logging.WARNING)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped cleanly
        server.run(sockets=[listening])


def make_server(app: Any, *, config: ServerOptions) -> uvicorn.Server:
    """A server of an application, not started."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    seconds = config.limits.upload_seconds

    class Impatient(H11Protocol):
        """Closes a connection whose first request does not come."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.loop.call_later(seconds, self._close_if_unused)

        def _close_if_unused(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                self.transport.close()

    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=Impatient,
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_CONNECTIONS * config.limits.uploads,
            h11_max_incomplete_event_size=2**16,
            timeout_graceful_shutdown=config.limits.stop_seconds,
            timeout_keep_alive=_KEEP_ALIVE,
        )
    )


def listen(host: str, *, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise PatchwordError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None


def say_where(config: ServerOptions, *, address: str) -> None:
    """Say where the pages are, and loudly when the network reaches them."""
    if not config.is_local:
        open_to = "who has the token" if config.token else "EVERYONE, without a token"
        print(f"patchword: WARNING: {address} is open to the network, to {open_to}", file=sys.stderr, flush=True)
    if not config.quiet:
        print(f"patchword: serving at {address}", file=sys.stderr, flush=True)
