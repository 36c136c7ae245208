"""Chunks handed out to workers, each with models of its own, some of which die, are slow, or have no room to write.

Who the workers are and how they are talked to is the business of `processes.py` and `ray_executor.py`.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, Queue
from typing import Any

from patchword.errors import PatchwordError, first_line
from patchword.runs.pipeline import Chunk, Written

_log = logging.getLogger(__name__)
_TRIES = 3  # of a chunk that a worker died of, and of loading the models
_SLOW = 3.0  # times as long as the slowest chunk before, line by line
_PATIENCE = 10.0  # seconds that a chunk may take in any case
_START = 120.0  # seconds without any worker until that is said


@dataclass(frozen=True)
class Death:
    """What a worker died of, in a few words; whether it was alone in that."""

    cause: str
    alone: bool = True


class Worker(ABC):
    """A worker as the driver sees it: what it was given and since when, and a thread that listens to it.

    Args:
        name: what a person calls it, such as "process 1 of 2".
        place: its number among all, from 0.
        news: where the thread puts what it hears.
    """

    def __init__(self, name: str, place: int, news: Queue[tuple[Worker, str, Any]]) -> None:
        self.name, self.place = name, place
        self.chunks: dict[int, float] = {}
        self.ready = False
        self.lost: Exception | None = None  # why it is not heard any more
        self._news = news
        self._listener = threading.Thread(target=self._listen, name="patchword-listen", daemon=True)

    @abstractmethod
    def send(self, number: int, chunk: Chunk) -> bool:
        """Give it a chunk; false where it is dead."""

    @abstractmethod
    def receive(self) -> Sequence[tuple[str, Any]]:
        """Wait for what it has to say; raises whatever it likes when it is dead."""

    @abstractmethod
    def end(self) -> Death:
        """End it at once; what it died of, where it was dead."""

    def listen(self) -> None:
        """Begin to listen."""
        self._listener.start()

    def _listen(self) -> None:
        try:
            while True:
                for kind, what in self.receive():
                    self._news.put((self, kind, what))
        except Exception as error:  # the end, also in the middle of a message
            self.lost = error
            self._news.put((self, "gone", None))


News = Queue[tuple[Worker, str, Any]]


class HandOut:
    """Hands out chunks to whoever is free and takes in what was written, all in one thread.

    A chunk of a worker that dies is given to another. Once none is left to give and one that is out takes much longer
    than any before, it is given to an idle worker too; the first to be done with it counts. What is told twice counts
    once.

    Args:
        chunks: to be done.
        start: starts the worker of a place and makes it tell its news.
        count: how many workers.
        done: told of every result once.
        noun: what workers are called, "processes" or "workers".
        own_disks: whether another worker may have room where one has none.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        *,
        start: Callable[[int, News], Worker],
        count: int,
        done: Callable[[Written], None],
        noun: str,
        own_disks: bool = False,
    ) -> None:
        self._chunks, self._start, self._count, self._done = chunks, start, count, done
        self._noun, self._own_disks = noun, own_disks
        self._waiting = deque(range(len(chunks)))
        self._finished = bytearray(len(chunks))
        self._left = len(chunks)
        self._told: dict[int, dict[str, str]] = {}  # status by name of what is written, of chunks that are out
        self._deaths: dict[int, int] = {}  # of workers that had the chunk
        self._failed_starts = 0
        self._slowest = 0.0  # seconds a line
        self._news: News = Queue()
        self._workers: list[Worker] = []

    def run(self) -> None:
        """Do all chunks; no worker is left when this returns or raises."""
        try:
            for place in range(self._count):
                self._workers.append(self._start(place, self._news))
            while self._left:
                until = self._until_slow()
                try:
                    self._take(*self._news.get(timeout=until if any(each.ready for each in self._workers) else _START))
                except Empty:
                    if until is None:
                        _log.warning("no worker is ready yet; models are loading, or the cluster has no room for one")
                    else:
                        self._give_again()
        finally:
            for worker in self._workers:
                worker.end()

    def _take(self, worker: Worker, kind: str, what: Any) -> None:
        """Take in what a worker says."""
        if worker not in self._workers:  # it was retired, and its last words are late
            return
        if kind == "written":
            self._keep(*what)
            return
        if kind == "error":
            raise what
        if kind == "full" and not self._retire(worker, what):
            raise what
        if kind == "gone":
            self._replace(worker)
        elif kind == "ready":
            worker.ready, self._failed_starts = True, 0
        elif kind == "done":
            self._finish(worker, what)
        for each in self._workers:
            self._give(each)

    def _keep(self, number: int, written: Written) -> None:
        if self._finished[number] and number not in self._told:
            return
        record, told = written.record, self._told.setdefault(number, {})
        before = told.get(record.name)
        if before is None:
            told[record.name] = record.status
            self._done(written)
        elif before != record.status:
            raise PatchwordError(
                f"{record.name} was {before} and is {record.status} now that it was done again; resume the run with "
                "retry_failed to settle it"
            )

    def _finish(self, worker: Worker, number: int) -> None:
        took = time.monotonic() - worker.chunks.pop(number)
        self._slowest = max(self._slowest, took / max(1, self._chunks[number].lines))
        if not self._finished[number]:
            self._finished[number] = 1
            self._left -= 1
        if not self._holders(number):
            self._told.pop(number, None)

    def _holders(self, number: int) -> list[Worker]:
        return [worker for worker in self._workers if number in worker.chunks]

    def _give(self, worker: Worker) -> None:
        """Give a worker what it has room for: a chunk, and one to decode ahead unless others would wait for it."""
        while worker.ready and self._waiting:
            number = self._waiting[0]
            alone = any(each in self._deaths for each in (number, *worker.chunks))  # to find out which one kills
            if len(worker.chunks) > 1 or (worker.chunks and (alone or len(self._waiting) < self._count)):
                return
            if not self._send(worker, number):
                return  # it is dead, as will be told
            self._waiting.popleft()

    def _send(self, worker: Worker, number: int) -> bool:
        chunk = self._chunks[number]
        if number in self._told:
            chunk = replace(chunk, done=chunk.done | self._told[number].keys())
        sent = worker.send(number, chunk)
        if sent:
            worker.chunks[number] = time.monotonic()
        return sent

    def _slow(self) -> list[tuple[float, int, Worker]]:
        """Chunks that one worker has and another could have too: when that is due, which, and who has it."""
        if self._waiting or not self._slowest or not self._idle():
            return []
        return [
            (since + max(_PATIENCE, _SLOW * self._slowest * self._chunks[number].lines), number, worker)
            for worker in self._workers
            for number, since in worker.chunks.items()
            if not self._finished[number] and len(self._holders(number)) == 1
        ]

    def _idle(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready and not worker.chunks]

    def _until_slow(self) -> float | None:
        """Seconds until a chunk is to be given a second time; None where there is nothing to be done but wait."""
        due = [moment for moment, *_ in self._slow()]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _give_again(self) -> None:
        _, number, slow = min(self._slow(), key=lambda each: each[:2])
        idle = self._idle()[0]
        if self._send(idle, number):
            first = self._chunks[number].photographs[0][0]
            _log.warning("%s is slow; %s is given to %s as well", slow.name, first, idle.name)

    def _retire(self, worker: Worker, why: Exception) -> bool:
        """Go on without a worker that has no room to write, unless the others have none either."""
        if not self._own_disks or len(self._workers) == 1:
            return False
        worker.end()
        self._workers.remove(worker)
        self._count -= 1
        self._take_back(worker)
        _log.warning("%s has no room to write (%s); the others go on without it", worker.name, first_line(why))
        return True

    def _take_back(self, worker: Worker) -> list[int]:
        """Put what nobody else has first in the queue."""
        back = [number for number in worker.chunks if not self._finished[number] and not self._holders(number)]
        self._waiting.extendleft(reversed(back))
        return back

    def _replace(self, worker: Worker) -> None:
        """Start another worker for one that died."""
        death = worker.end()
        self._workers.remove(worker)
        if not worker.ready and death.alone:
            self._failed_starts += 1
            if self._failed_starts == _TRIES:
                raise PatchwordError(
                    f"{_TRIES} {self._noun} died while they loaded the models ({death.cause}); is there memory for "
                    f"{self._count} of them? fewer need less"
                )
        back = self._take_back(worker)
        for number in back:
            self._deaths[number] = self._deaths.get(number, 0) + 1
            if self._deaths[number] == _TRIES:
                names = ", ".join(name for name, _ in self._chunks[number].photographs)
                raise PatchwordError(
                    f"{_TRIES} {self._noun} died of {names} ({death.cause}); take it out of the photographs, or use "
                    f"fewer {self._noun}, which need less memory"
                )
        again = "; what it had is done again" if back else ""
        _log.warning("%s died (%s)%s", worker.name, death.cause, again)
        self._workers.append(self._start(worker.place, self._news))
