"""The application: pages, the API, and what it says of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from patchword import __version__
from patchword.config.serve import ServeConfig, ServerOptions
from patchword.errors import PatchwordError
from patchword.serving.api import PROBLEMS, segment_router, shorten
from patchword.serving.engine import Engine, Pictures
from patchword.serving.limits import CONTENT_TYPE, Guard, Metrics, RefusedError, error_body
from patchword.serving.models import open_models
from patchword.serving.review import work_routers

STATIC = Path(__file__).parent / "static"
PAGES = {"/": "playground.html", "/review": "review.html", "/jobs": "jobs.html"}


def create_app(config: ServeConfig) -> FastAPI:
    """The application, with its models loaded.

    Args:
        config: models, labels and limits; where it listens is the server's matter, not the application's.
    """
    limits, metrics = config.limits, Metrics()
    engine = Engine(open_models(config), limits=limits, metrics=metrics)
    pictures = Pictures(count=limits.sessions, megabytes=limits.session_megabytes, metrics=metrics)

    routers, end_work = work_routers(config)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()
        end_work()

    app = bare_app(engine, config=config, metrics=metrics, lifespan=lifespan)
    examples: Mapping[str, str] = {}
    if not (config.model or config.method):
        from patchword.toytown.playground import EXAMPLES

        examples = EXAMPLES
    for router in (segment_router(engine, pictures, limits=limits, examples=examples), *routers):
        app.include_router(router, responses=PROBLEMS)
    for path, file in PAGES.items():
        app.add_api_route(path, _page(file), include_in_schema=False, response_class=FileResponse)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


def bare_app(engine: Engine, *, config: ServerOptions, metrics: Metrics, lifespan: Any, **guard: Any) -> FastAPI:
    """An application that lets through what keeps to the limits, gives reasons, and says how it is.

    Args:
        guard: further arguments of `Guard`.
    """
    app = FastAPI(title="patchword", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Guard, config=config, metrics=metrics, **guard)
    for kind in (PatchwordError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused(metrics))

    @app.get("/healthz", tags=["server"])
    async def healthz() -> dict[str, str]:
        """Say that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["server"], responses={503: {"description": "Not now"}})
    async def readyz(response: Response) -> dict[str, str]:
        """Say whether requests would be answered."""
        response.status_code = 200 if engine.ready else 503
        return {"status": "ready" if engine.ready else "stopping"}

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def show_metrics() -> Response:
        """Counters, for Prometheus."""
        return Response(metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    return app


def _page(file: str) -> Callable[[], Awaitable[FileResponse]]:
    async def page() -> FileResponse:
        return FileResponse(STATIC / file, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})

    return page


def _refused(metrics: Metrics) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Answers every error with a reason, in one form."""

    async def answer(request: Request, error: Exception) -> Response:
        headers: dict[str, str] = {}
        if isinstance(error, RefusedError):
            status, reason, kind, headers = error.status, error.reason, error.kind, error.headers
        elif isinstance(error, RequestValidationError):
            status, kind = 422, "values"
            reason = "; ".join(
                f"{'.'.join(str(step) for step in each['loc'][1:]) or 'body'}: {each['msg']}"
                for each in error.errors()[:5]
            )
        elif isinstance(error, HTTPException):
            status, reason, kind, headers = error.status_code, str(error.detail), "unknown", dict(error.headers or {})
        else:
            status, reason, kind = 422, str(error), "values"
        metrics.rejected.labels(kind).inc()
        return Response(error_body(shorten(reason)), status, headers=headers, media_type="application/json")

    return answer
