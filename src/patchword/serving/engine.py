"""One thread that runs the models: it takes what waits, shows images together, and answers each request."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from patchword.config.segment import SegmentSettings
from patchword.config.serve import ServeSettings
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.serving.answers import Found
from patchword.serving.limits import Metrics, RefusedError, busy
from patchword.serving.models import SEEING, Model, Pixels

_log = logging.getLogger(__name__)

_VIEWS = 4  # of an image that are kept: models and sizes that it was seen with
_IMAGES_IN_FLIGHT = 8  # of the largest size that are decoded at once; a matter of memory only


@dataclass(eq=False)
class Picture:
    """An image of a client, and what models have seen of it.

    Attributes:
        pixels: (h, w, 3) uint8.
        views: by model and the settings that it was seen with; the newest last.
    """

    pixels: Pixels
    views: OrderedDict[tuple[Any, ...], Any] = field(default_factory=OrderedDict)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def nbytes(self) -> int:
        """Memory, about."""
        return self.pixels.nbytes + sum(getattr(view, "nbytes", 0) for view in list(self.views.values()))


@dataclass(frozen=True, eq=False)
class Ask:
    """A request, checked.

    Attributes:
        model: id of the model.
        picture: to segment.
        vocabulary: the classes.
        settings: of the model, with those of the request.
    """

    model: str
    picture: Picture
    vocabulary: Vocabulary
    settings: SegmentSettings

    @property
    def view(self) -> tuple[Any, ...]:
        """What features depend on, beside the picture."""
        return self.model, *(getattr(self.settings, name) for name in SEEING)


class Engine:
    """The models, and the requests that wait for them.

    Args:
        models: by id.
        limits: of the queue and of time.
        metrics: where is counted what happens.
    """

    def __init__(self, models: Mapping[str, Model], *, limits: ServeSettings, metrics: Metrics) -> None:
        self.models = models
        self._limits = limits
        self._metrics = metrics
        self._waiting: deque[tuple[Ask, Future[Found]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._admitted = 0
        self._pixels = 0
        self._seconds = 0.1  # of a request, lately

    @contextmanager
    def place(self) -> Iterator[Callable[[int], None]]:
        """A place in the queue, for as long as the block lasts; 429 where there is none.

        What it gives is to be told how many pixels were decoded for it, and raises where there are too many in all.
        """
        held = 0

        def hold(pixels: int) -> None:
            nonlocal held
            if self._pixels and self._pixels + pixels > _IMAGES_IN_FLIGHT * self._limits.megapixels * 1e6:
                raise self._busy()
            held += pixels
            self._pixels += pixels

        if self._admitted >= self._limits.queue:
            raise self._busy()
        self._admitted += 1
        self._metrics.queue_depth.set(self._admitted)
        try:
            yield hold
        finally:
            self._admitted -= 1
            self._pixels -= held
            self._metrics.queue_depth.set(self._admitted)

    def _busy(self) -> RefusedError:
        return busy("too many requests wait; try again", seconds=self._admitted * self._seconds)

    async def segment(self, ask: Ask) -> Found:
        """The answer to a request that has a place; 503 where it does not come in time."""
        future: Future[Found] = Future()
        with self._changed:
            if self._stopping:
                raise RefusedError(503, "the server is stopping", kind="stopping")
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="models", daemon=True)
                self._thread.start()
            self._waiting.append((ask, future))
            self._changed.notify()
        try:
            async with asyncio.timeout(self._limits.deadline):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            reason = f"no answer within {self._limits.deadline:g} seconds; try again, or a smaller image"
            raise RefusedError(503, reason, kind="deadline", headers={"Retry-After": "5"}) from None

    def start(self) -> None:
        """Take requests, again where it was stopped."""
        self._stopping = False

    def stop(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def ready(self) -> bool:
        """Whether requests would be answered."""
        return not self._stopping and (self._thread is None or self._thread.is_alive())

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), self._limits.batch))]
            self._answer([each for each in taken if each[1].set_running_or_notify_cancel()])

    def _answer(self, asked: Sequence[tuple[Ask, Future[Found]]]) -> None:
        """Answer some requests; images that were not seen before go through a model together."""
        views: dict[tuple[Any, ...], dict[int, Ask]] = {}
        for ask, _ in asked:
            if ask.view not in ask.picture.views:
                views.setdefault(ask.view, {})[id(ask.picture)] = ask
        share: dict[tuple[Any, ...], float] = {}
        errors: dict[tuple[int, tuple[Any, ...]], BaseException] = {}
        for view, asks in views.items():
            started = time.perf_counter()
            together = list(asks.values())
            seen = self._encode(together)
            for ask, one in zip(together, seen, strict=True):
                if isinstance(one, BaseException):
                    errors[id(ask.picture), view] = one
                    continue
                ask.picture.views[view] = one
                while len(ask.picture.views) > _VIEWS:
                    ask.picture.views.popitem(last=False)
            share[view] = (time.perf_counter() - started) / len(together)
        for ask, future in asked:
            started = time.perf_counter()
            encoded = id(ask.picture) in views.get(ask.view, {})
            try:
                if (id(ask.picture), ask.view) in errors:
                    raise errors[id(ask.picture), ask.view]
                if ask.view not in ask.picture.views:  # pushed out by another of the same batch
                    (one,) = self._encode([ask])
                    if isinstance(one, BaseException):
                        raise one
                    ask.picture.views[ask.view] = one
                label_map, confidence = self.models[ask.model].decide(
                    ask.picture.views[ask.view], ask.vocabulary, ask.settings
                )
            except Exception as error:
                future.set_exception(error)
                continue
            seconds = time.perf_counter() - started + (share[ask.view] if encoded else 0.0)
            self._seconds += 0.1 * (seconds - self._seconds)
            future.set_result(Found(label_map, confidence, ask.vocabulary, 1000 * seconds, encoded))

    def _encode(self, asks: Sequence[Ask]) -> list[Any]:
        """What a model sees of the pictures of requests with one view; an error in place of one that fails."""
        first = asks[0]
        self._metrics.forward_passes.inc()
        self._metrics.images.inc(len(asks))
        try:
            return self.models[first.model].encode([ask.picture.pixels for ask in asks], first.settings)
        except Exception as error:
            if not isinstance(error, PatchwordError):
                _log.exception("a forward pass failed")
            return [error] * len(asks)


class Pictures:
    """Uploaded images by a secret id; those that were used least recently are forgotten.

    Args:
        count: images, at most.
        megabytes: memory of images and what models saw of them, at most.
        metrics: where is counted how many there are.
    """

    def __init__(self, *, count: int, megabytes: float, metrics: Metrics) -> None:
        self._count = count
        self._bytes = megabytes * 1e6
        self._metrics = metrics
        self._held: OrderedDict[str, Picture] = OrderedDict()

    def add(self, picture: Picture) -> str:
        """Remember an image; its id."""
        name = secrets.token_urlsafe(18)
        self._held[name] = picture
        self.make_room()
        return name

    def find(self, name: str) -> Picture:
        """The image of an id; 404 where it was forgotten."""
        if name not in self._held:
            raise RefusedError(404, "this image is not remembered any more; send it again", kind="forgotten")
        self._held.move_to_end(name)
        return self._held[name]

    def make_room(self) -> None:
        """Forget images until the others fit; the newest stays."""
        total = sum(picture.nbytes() for picture in self._held.values())
        while len(self._held) > 1 and (len(self._held) > self._count or total > self._bytes):
            _, oldest = self._held.popitem(last=False)
            total -= oldest.nbytes()
        self._metrics.remembered.set(len(self._held))
