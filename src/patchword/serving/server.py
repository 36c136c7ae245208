"""Running the application: the socket, what is said at start, and a clean stop."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from patchword.config.serve import ServeConfig
from patchword.errors import PatchwordError


def serve(config: ServeConfig) -> None:
    """Serve until SIGTERM or SIGINT comes; requests in flight finish."""
    try:
        import uvicorn

        from patchword.serving.app import create_app
    except ImportError as error:
        raise PatchwordError(f"the server needs {error.name}: pip install 'patchword[serve]'") from None
    listening = listen(config.host, port=config.port)
    host, port = listening.getsockname()[:2]
    say_where(config, address=f"http://{f'[{host}]' if ':' in host else host}:{port}")
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(config),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=config.limits.stop_seconds,
            timeout_keep_alive=15,
        )
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped cleanly
        server.run(sockets=[listening])


def listen(host: str, *, port: int) -> socket.socket:
    """A socket that listens there."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise PatchwordError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from None


def say_where(config: ServeConfig, *, address: str) -> None:
    """Say where the pages are, and loudly when the network reaches them."""
    if not config.is_local:
        open_to = "who has the token" if config.token else "EVERYONE, without a token"
        print(f"patchword: WARNING: {address} is open to the network, to {open_to}", file=sys.stderr, flush=True)
    if not config.quiet:
        print(f"patchword: serving at {address}", file=sys.stderr, flush=True)
