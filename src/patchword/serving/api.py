"""The routes of the API: models, images, segmentation."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from patchword.config.base import one_line, unknown_name
from patchword.config.segment import SegmentSettings
from patchword.config.serve import ServeSettings
from patchword.data.vocabulary import Vocabulary
from patchword.serving.answers import Found, as_json, class_list
from patchword.serving.engine import Ask, Engine, Picture, Pictures
from patchword.serving.limits import RefusedError
from patchword.serving.models import DECIDING, SEEING, Model, Pixels
from patchword.serving.records import Models, OneShot, Problem, Remembered, SegmentAsk, Segmented
from patchword.serving.uploads import decode_upload, media_allowed, of_base64

_CODERS = 2  # threads that decode and encode images
_FIELDS = 16  # of a form, beside its words
_MASK = "image/png"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "The token is missing or wrong"},
    400: {"model": Problem, "description": "The body is not what its type says"},
    404: {"model": Problem, "description": "There is no such thing, or it is forgotten"},
    403: {"model": Problem, "description": "The request comes from another site's page"},
    408: {"model": Problem, "description": "The request arrived too slowly"},
    413: {"model": Problem, "description": "The request or the image is too large"},
    415: {"model": Problem, "description": "The content is not of a type that is taken"},
    422: {"model": Problem, "description": "Values are not understood"},
    429: {"model": Problem, "description": "Too many requests wait; the header Retry-After says when to try again"},
    503: {"model": Problem, "description": "There was no answer in time"},
}


def segment_router(
    engine: Engine, pictures: Pictures, *, limits: ServeSettings, examples: Mapping[str, str]
) -> APIRouter:
    """The routes under /v1 that segment.

    Args:
        engine: the models.
        pictures: uploaded images.
        limits: of requests.
        examples: Toytown's scenes to begin with, id -> title.
    """
    router = APIRouter()
    coders = CapacityLimiter(_CODERS)

    async def decode(data: bytes) -> Pixels:
        return await to_thread.run_sync(partial(decode_upload, data, limits=limits), limiter=coders)

    @router.get("/v1/models", tags=["segment"])
    async def models() -> Models:
        """Models, pictures to begin with, and limits."""
        return Models.model_validate(
            {
                "models": [
                    {
                        "id": name,
                        "name": model.name,
                        "kind": model.kind,
                        "method": model.method,
                        "classes": class_list(model.trained) if model.trained else [],
                        "image_size": model.defaults.get("image_size", model.image_size),
                    }
                    for name, model in engine.models.items()
                ],
                "examples": [
                    {"id": name, "url": f"/examples/{name}.png", "title": title} for name, title in examples.items()
                ],
                "limits": {
                    "bytes": int(limits.megabytes * 1e6),
                    "pixels": int(limits.megapixels * 1e6),
                    "side": limits.longest_side,
                    "classes": limits.classes,
                },
            }
        )

    @router.get("/examples/{name}.png", tags=["segment"], response_class=Response)
    async def example(name: str) -> Response:
        """A picture to begin with."""
        if name not in examples:
            raise RefusedError(404, "there is no such picture", kind="unknown")
        from patchword.toytown.playground import draw_example

        data = await to_thread.run_sync(draw_example, name, limiter=coders)
        return Response(data, media_type=_MASK, headers={"Cache-Control": "max-age=86400"})

    @router.post("/v1/images", status_code=201, tags=["segment"], openapi_extra=_body(_FORM_IMAGE))
    async def remember(request: Request) -> Remembered:
        """Remember an image for a while, so that asking for other words costs no forward pass."""
        with engine.place() as hold:
            form = await _form(request, limits=limits)
            pixels = await decode(form.data())
            hold(pixels.shape[0] * pixels.shape[1])
            name = pictures.add(Picture(pixels))
        return Remembered(image=name, width=pixels.shape[1], height=pixels.shape[0])

    @router.post("/v1/images/{image}/segment", tags=["segment"], response_model=Segmented)
    async def segment_again(image: str, body: SegmentAsk) -> Response:
        """Segment an image that is remembered."""
        picture = pictures.find(image)
        ask = checked(body, picture=picture)
        with engine.place():
            found = await engine.segment(ask)
            pictures.make_room()
            return await answer(found, form="json")

    @router.post("/v1/segment", tags=["segment"], responses=_ONE_SHOT_ANSWERS, openapi_extra=_body(_FORM, OneShot))
    async def segment(request: Request, format: Literal["png", "json", "rle"] | None = None) -> Response:
        """Segment an image, once. The answer is JSON, or a PNG where the header Accept or format asks for it."""
        with engine.place() as hold:
            body, data = await _one_shot(request, limits=limits)
            model_of(body.model)
            pixels = await decode(data)
            hold(pixels.shape[0] * pixels.shape[1])
            found = await engine.segment(checked(body, picture=Picture(pixels)))
            wants_png = format is None and _MASK in request.headers.get("accept", "")
            return await answer(found, form="png" if wants_png else format or "json")

    def model_of(name: str) -> Any:
        if name not in engine.models:
            raise RefusedError(422, unknown_name("model", name[:100], allowed=tuple(engine.models)), kind="values")
        return engine.models[name]

    def checked(body: SegmentAsk, *, picture: Picture) -> Ask:
        model = model_of(body.model)
        vocabulary = asked_vocabulary(model, body.classes, body.background, limits=limits)
        settings = _settings({**model.defaults, **body.settings}, limits=limits, own=model.image_size)
        model.check(picture.size, settings)
        return Ask(body.model, picture, vocabulary, settings)

    async def answer(found: Found, *, form: str) -> Response:
        if form == "png":
            data = await to_thread.run_sync(found.label_map.png, limiter=coders)
            return Response(data, media_type=_MASK, headers={"X-Milliseconds": f"{found.milliseconds:.2f}"})
        values = await to_thread.run_sync(partial(as_json, found, rle=form == "rle"), limiter=coders)
        return JSONResponse(values)

    return router


def asked_vocabulary(
    model: Model, classes: Sequence[str] | None, background: Sequence[str] | None, *, limits: ServeSettings
) -> Vocabulary:
    """The classes of a request; words are names, never paths."""
    words = sum(text.count(";") + 1 for text in (*(classes or ()), *(background or ())))
    if words > limits.classes:
        raise RefusedError(422, f"there are {words} words; {limits.classes} is the limit", kind="values")
    if classes is not None and not classes:
        raise RefusedError(422, "classes is empty; name some, or leave it out", kind="values")
    return model.vocabulary(classes, background)


def _settings(values: Mapping[str, Any], *, limits: ServeSettings, own: int) -> SegmentSettings:
    allowed = (*SEEING, *DECIDING)
    unknown = next((name for name in values if name not in allowed), None)
    if unknown is not None:
        raise RefusedError(422, unknown_name("setting", unknown[:100], allowed=allowed), kind="values")
    settings = SegmentSettings.of(values)
    most = max(limits.largest_image_size, own)
    if settings.image_size is not None and settings.image_size > most:
        raise RefusedError(422, f"image_size is {settings.image_size}; {most} is the limit", kind="values")
    return settings


class _Form:
    """A form: its fields' texts by name, and its one file."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str]] = {}
        self.file: bytes | None = None

    def data(self) -> bytes:
        """The file, which there must be."""
        if self.file is None:
            raise RefusedError(422, "the form has no file named 'file'", kind="values")
        return self.file

    def one(self, name: str) -> str | None:
        """A field that there may be once."""
        found = self.texts.get(name, [])
        if len(found) > 1:
            raise RefusedError(422, f"the form has {name} {len(found)} times", kind="values")
        return found[0] if found else None


async def _form(request: Request, *, limits: ServeSettings) -> _Form:
    """Read a form whose file stays in memory; its name is not looked at."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise RefusedError(415, "send a form (multipart/form-data) with the image as 'file'", kind="type")
    body = await request.body()

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(
            request.headers, stream(), max_files=1, max_fields=limits.classes + _FIELDS, max_part_size=2**16
        )
        parser.spool_max_size = len(body) + 1  # never to disk
        parts = await parser.parse()
    except (MultiPartException, ValueError, KeyError) as error:
        raise RefusedError(422, f"the form cannot be read: {getattr(error, 'message', error)}", kind="values") from None
    form = _Form()
    for name, value in parts.multi_items():
        if isinstance(value, UploadFile):
            if name != "file":
                raise RefusedError(422, f"the form's file is named {name[:100]!r}; name it 'file'", kind="values")
            media_allowed(value.content_type)
            form.file = await value.read()
        else:
            form.texts.setdefault(name, []).append(value)
    return form


async def _one_shot(request: Request, *, limits: ServeSettings) -> tuple[SegmentAsk, bytes]:
    """What is asked, and the image file, of a form or of JSON."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        body = _read(OneShot, await request.body())
        return body, of_base64(body.image)
    if kind != "multipart/form-data":
        raise RefusedError(415, "send a form (multipart/form-data) or JSON (application/json)", kind="type")
    form = await _form(request, limits=limits)
    known = ("classes", "background", "settings", "model")
    unknown = next((name for name in form.texts if name not in known), None)
    if unknown is not None:
        raise RefusedError(422, unknown_name("field", unknown[:100], allowed=("file", *known)), kind="values")
    try:
        settings = json.loads(form.one("settings") or "{}")
    except (ValueError, RecursionError):
        raise RefusedError(422, "settings is not JSON", kind="values") from None
    values = {"settings": settings, "model": form.one("model") or "default"}
    words = {name: form.texts[name] for name in ("classes", "background") if name in form.texts}
    return _read(SegmentAsk, values | words), form.data()


def _read(record: type[Any], values: Any) -> Any:
    try:
        return record.model_validate_json(values) if isinstance(values, bytes) else record.model_validate(values)
    except ValidationError as error:
        allowed = tuple(record.model_fields)
        raise RefusedError(422, shorten(one_line(error, place="field", allowed=allowed)), kind="values") from None


def shorten(reason: str) -> str:
    """A reason without a client's own long values."""
    return reason if len(reason) <= 500 else f"{reason[:500]}..."


_FILE = {"type": "string", "format": "binary", "description": "JPEG, PNG, WebP, GIF or BMP"}
_FORM_IMAGE = {"type": "object", "required": ["file"], "properties": {"file": _FILE}}
_FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": _FILE,
        "classes": {"type": "array", "items": {"type": "string"}, "example": ["car", "boat; ship"]},
        "background": {"type": "array", "items": {"type": "string"}},
        "model": {"type": "string", "default": "default"},
        "settings": {"type": "string", "description": "JSON", "example": '{"threshold": 0.3}'},
    },
}
_ONE_SHOT_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Segmented, "content": {_MASK: {"schema": {"type": "string", "format": "binary"}}}}
}


def _body(form: dict[str, Any], record: type[SegmentAsk] | None = None) -> dict[str, Any]:
    """The description of a request's body, which is read here and not by the framework."""
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    if record is not None:
        content["application/json"] = {"schema": record.model_json_schema()}
    return {"requestBody": {"required": True, "content": content}}
