"""The backend that Label Studio asks: a model's masks for tasks, and a mask where somebody clicks.

Reference: the protocol of label-studio-ml-backend (/health, /setup, /predict, /webhook).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from patchword import __version__
from patchword.config.segment import SegmentSettings
from patchword.config.serve import LabelStudioConfig
from patchword.data.components import NOTHING, connected_components
from patchword.errors import PatchwordError
from patchword.export.label_studio import brush_value, polygon_value, region_of
from patchword.export.outlines import outline_of
from patchword.models.checkpoint import fingerprint_of
from patchword.serving.answers import Found
from patchword.serving.api import PROBLEMS, asked_vocabulary, shorten
from patchword.serving.app import bare_app
from patchword.serving.clicks import Clicks
from patchword.serving.engine import Ask, Engine, Picture
from patchword.serving.limits import Metrics
from patchword.serving.models import Model, open_model, toytown_models
from patchword.serving.studio_clicks import read_context
from patchword.serving.studio_images import StudioImages
from patchword.serving.studio_interface import Control, Interface, read_interface

_log = logging.getLogger(__name__)

_GUARDED = ("/setup", "/predict", "/webhook", "/metrics")
_SECONDS = 90.0  # for all tasks of a request; Label Studio itself waits 100
_LEAST_SHARE = 1e-4  # of a picture's pixels; smaller polygons are left out
_MOST_POLYGONS = 300  # of a picture, the largest
_TOLERANCE = 1.0  # pixels that a polygon may stray, to save corners


class SetupAsk(BaseModel):
    """A project that is connected. What else comes (an address, a key) is not looked at."""

    label_config: str = Field("", alias="schema", description="The labelling interface, as XML")


class PredictAsk(BaseModel):
    """Tasks to find masks for; with a context, what somebody pointed at in the first."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tasks": [], "label_config": "<View/>"}]})

    tasks: list[dict[str, Any]]
    label_config: str = ""
    params: dict[str, Any] | None = None


class WebhookAsk(BaseModel):
    """Something that happened in Label Studio."""

    action: str


def create_studio_app(config: LabelStudioConfig) -> FastAPI:
    """The application, with its model loaded."""
    images = StudioImages(config)
    model = (
        open_model(config, model=config.model, method=config.method)
        if config.model or config.method
        else next(iter(toytown_models(config)))
    )
    metrics = Metrics()
    engine = Engine({"default": model}, limits=config.limits, metrics=metrics)
    backend = StudioBackend(config, model=model, engine=engine, images=images)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = bare_app(engine, config=config, metrics=metrics, lifespan=lifespan, guarded=_GUARDED)
    app.include_router(studio_router(backend), responses=PROBLEMS)
    return app


def studio_router(backend: StudioBackend) -> APIRouter:
    """The routes."""
    router = APIRouter(tags=["label studio"])

    @router.get("/health")
    async def health() -> dict[str, str]:
        """Say that the backend answers."""
        return {"status": "UP", "model_class": "patchword"}

    @router.post("/setup")
    async def setup(ask: SetupAsk) -> dict[str, str]:
        """Say which model answers, and what a project's interface lacks."""
        interface = read_interface(ask.label_config) if ask.label_config else Interface()
        answer = {"model_version": backend.version}
        try:
            interface.first()
        except PatchwordError as error:
            answer["note"] = str(error)
        return answer

    @router.post("/predict")
    async def predict(ask: PredictAsk) -> dict[str, Any]:
        """The model's masks for each task, or a mask where somebody pointed; a task without one has a reason."""
        return {"results": await backend.predict(ask), "model_version": backend.version}

    @router.post("/webhook")
    async def webhook(_: WebhookAsk) -> dict[str, str]:
        """Take note of nothing: the model learns by `patchword import` and `patchword align`."""
        return {"status": "ignored", "reason": "the backend does not train; see patchword import and patchword align"}

    return router


class StudioBackend:
    """Finds masks for tasks.

    Args:
        config: background words and threshold.
        model: the segmenter.
        engine: has it, as "default".
        images: of tasks.
    """

    def __init__(self, config: LabelStudioConfig, *, model: Model, engine: Engine, images: StudioImages) -> None:
        generator: Any = config.mask_generator
        if generator is None and not (config.model or config.method):
            from patchword.toytown import miniatures

            generator = miniatures.SAM
        self._clicks = Clicks(generator, device=config.device, dtype=config.dtype) if generator is not None else None
        self._limits = config.limits
        self._background = config.background
        self._model, self._engine, self._images = model, engine, images
        threshold = {"threshold": config.threshold} if config.threshold else {}
        self._settings = SegmentSettings.of({**model.defaults, **threshold})
        self.version = _version(config, model)

    async def predict(self, ask: PredictAsk) -> list[dict[str, Any]]:
        """An answer to each task, in their order."""
        interface = await to_thread.run_sync(read_interface, ask.label_config)
        until = time.monotonic() + _SECONDS
        context = (ask.params or {}).get("context")
        context = context if isinstance(context, Mapping) and context.get("result") else None
        answers: list[dict[str, Any]] = []
        for start in range(0, len(ask.tasks), self._limits.batch):
            together = ask.tasks[start : start + self._limits.batch]
            answers += await asyncio.gather(*(self._answer(task, interface, context, until) for task in together))
        return answers

    async def _answer(
        self, task: Mapping[str, Any], interface: Interface, context: object, until: float
    ) -> dict[str, Any]:
        """A prediction, or why there is none.

        Label Studio keeps every `result`, also one without regions, and does not ask again; so there is none where a
        task failed. The answer to a click always has one, because the editor looks for it.
        """
        failed: dict[str, Any] = {"result": []} if context is not None else {}
        try:
            if time.monotonic() > until:
                raise PatchwordError("there was no time left for this task; ask again")
            found = await (self._found(task, interface) if context is None else self._pointed(task, interface, context))
        except PatchwordError as error:
            found = {**failed, "error": shorten(str(error)).encode("utf-8", "backslashreplace").decode()}
        except Exception:
            _log.exception("a task failed")
            found = {**failed, "error": "the backend failed; its log says why"}
        return {**found, "model_version": self.version}

    async def _pointed(self, task: Mapping[str, Any], interface: Interface, context: object) -> dict[str, Any]:
        """The mask of the thing that somebody points at."""
        pointed = read_context(context)
        control = interface.having(pointed.label, image=pointed.image)
        address = interface.address(task.get("data"), control)
        if self._clicks is None:
            raise PatchwordError("clicks need a mask generator; start the backend with --mask-generator NAME")
        read = partial(self._images.read, address)
        key = hashlib.sha256(address.encode("utf-8", "backslashreplace")).hexdigest()
        with self._engine.place():
            mask, sure = await to_thread.run_sync(partial(self._clicks.mask_at, key, read, at=pointed.in_pixels))
            make = partial(mask_regions, mask, control, label=pointed.label, score=sure)
            regions = await to_thread.run_sync(make) if mask.any() else []
        return {"result": regions, "score": round(sure, 4)}

    async def _found(self, task: Mapping[str, Any], interface: Interface) -> dict[str, Any]:
        """What the model finds in a task's picture."""
        control = interface.first()
        vocabulary = asked_vocabulary(self._model, self._words(control), self._background, limits=self._limits)
        address = interface.address(task.get("data"), control)
        with self._engine.place() as hold:
            pixels = await to_thread.run_sync(self._images.read, address)
            hold(pixels.shape[0] * pixels.shape[1])
            picture = Picture(pixels)
            self._model.check(picture.size, self._settings)
            found = await self._engine.segment(Ask("default", picture, vocabulary, self._settings))
        regions = await to_thread.run_sync(partial(_regions, found, control))
        score = float(found.confidence.mean())
        return {"result": regions, "score": round(score, 4)}

    def _words(self, control: Control) -> list[str]:
        """The labels as class names; those that the model was trained on bring their synonyms along."""
        trained = self._model.trained.classes if self._model.trained is not None else ()
        known = {entry.name.casefold(): "; ".join(entry.words) for entry in trained}
        return [known.get(label.casefold(), label) for label in control.labels]


def _version(config: LabelStudioConfig, model: Model) -> str:
    """The name of the model, and what changes when it answers otherwise: Label Studio asks for masks anew then."""
    path = Path(config.model or "")
    files = [path] if path.is_file() else sorted(each for each in path.glob("*") if config.model and each.is_file())
    facts = [fingerprint_of(files) if files else model.name, config.background, config.threshold, model.defaults]
    return f"patchword {__version__} {model.name} {hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"


def _regions(found: Found, control: Control) -> list[dict[str, Any]]:
    """A region for each label that has pixels; for polygons, one for each connected piece."""
    indices = found.label_map.indices
    regions: list[dict[str, Any]] = []
    for index, label in enumerate(control.labels):
        mask = indices == index
        if mask.any():
            regions += mask_regions(mask, control, label=label, score=float(found.confidence[mask].mean()))
    return regions


def mask_regions(mask: NDArray[np.bool_], control: Control, *, label: str, score: float) -> list[dict[str, Any]]:
    """A mask (h, w) as a control has it: one brush region, or a polygon for each of its pieces."""
    size = (mask.shape[0], mask.shape[1])
    shapes = [brush_value(mask)] if control.kind == "brushlabels" else _polygons(mask, size)
    return [
        region_of(
            shape,
            label=label,
            key=uuid.uuid4().hex[:10],
            tags=(control.name, control.image),
            size=size,
            score=round(score, 4),
        )
        for shape in shapes
    ]


def _polygons(mask: NDArray[np.bool_], size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Its largest pieces."""
    pieces = connected_components(np.where(mask, 0, NOTHING))
    for number in np.argsort(-pieces.areas, kind="stable")[:_MOST_POLYGONS].tolist():
        if pieces.areas[number] < max(_LEAST_SHARE * mask.size, 1):
            return
        x, y, width, height = pieces.boxes[number].tolist()
        inside = pieces.labels[y : y + height, x : x + width] == number + 1
        yield polygon_value(outline_of(inside, tolerance=_TOLERANCE).points + np.array([x, y]), size=size)
