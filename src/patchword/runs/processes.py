"""Chunks done by several processes of this machine, each with models of its own, some of which may die."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from queue import Queue
from typing import Any, cast

from patchword.errors import PatchwordError, first_line
from patchword.runs.pipeline import Chunk, Executor, Photograph, Work, Writer, Written, read_photograph

_log = logging.getLogger(__name__)


class _Slot(Enum):
    """Stands for the models in a work that is sent."""

    MODELS = "models"


_TRIES = 3  # of a chunk that a process died of, and of loading the models


def executor_of(count: int | None, *, loaded: object, load: Callable[[], object]) -> Executor | None:
    """So many `Processes`; without a number None, which is the usual way, in threads here."""
    return None if count is None else Processes(count, loaded, load)


@dataclass(frozen=True)
class Processes:
    """Does chunks in processes, each of which loads the models once and takes a chunk whenever it has room for one.

    A chunk of a process that dies is given to another; what is told of it twice counts once. When this process dies,
    the others notice that nobody is left to listen, and end.

    Attributes:
        count: how many, 1 or more.
        loaded: the models that the work holds, which are not sent.
        load: makes them anew in each process; is sent, with whatever it holds.
    """

    count: int
    loaded: object
    load: Callable[[], object]

    def __post_init__(self) -> None:
        if sys.platform == "win32":
            raise PatchwordError(f"executor processes:{self.count} is not available on Windows; use shards")
        try:
            ForkingPickler.dumps(self.load)
        except Exception as error:  # objects of other people fail in ways of their own
            raise PatchwordError(
                f"executor processes:{self.count} needs models that each process can load; pass names or folders "
                f"instead of objects ({first_line(error)})"
            ) from None

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        """Do chunks in any order; no process is left when this returns or raises."""
        if chunks:
            without = work if self.loaded is None else exchanged(work, self.loaded, _Slot.MODELS)
            setup = (None if self.loaded is None else self.load, without)
            driver = _Driver(chunks, min(self.count, len(chunks)), setup, done)
            try:
                driver.run()
            finally:
                driver.end()


class _Worker:
    """A process as the driver sees it: what it was given, and a thread that listens to it."""

    def __init__(self, place: int, first: Any, news: Queue[tuple[_Worker, str, Any]]) -> None:
        self.place = place
        self.chunks: list[int] = []
        self.ready = False
        self._pipe, theirs = Pipe()
        path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from patchword.runs.processes import serve; serve()"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the driver alone, which ends all
        )
        theirs.close()
        self.send(first)
        threading.Thread(target=self._listen, args=(news,), name="patchword-listen", daemon=True).start()

    def send(self, message: Any) -> bool:
        """Tell it something; false where it is dead."""
        try:
            self._pipe.send(message)
        except OSError:
            return False
        return True

    def end(self) -> str:
        """End it at once; what it died of, where it was dead."""
        self.process.kill()
        code = self.process.wait()
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name

    def _listen(self, news: Queue[tuple[_Worker, str, Any]]) -> None:
        try:
            while True:
                news.put((self, *self._pipe.recv()))
        except Exception:  # the end, also in the middle of a message
            self._pipe.close()
            news.put((self, "gone", None))


class _Driver:
    """Hands out chunks and takes in what was written, all in one thread."""

    def __init__(
        self, chunks: Sequence[Chunk], count: int, setup: tuple[object, object], done: Callable[[Written], None]
    ) -> None:
        self._chunks, self._count, self._setup, self._done = chunks, count, setup, done
        self._waiting = deque(range(len(chunks)))
        self._told: dict[int, set[str]] = {}  # names of what is written, of chunks that are not done
        self._deaths: dict[int, int] = {}  # of processes that had the chunk
        self._failed_starts = 0
        self._news: Queue[tuple[_Worker, str, Any]] = Queue()
        self._workers: list[_Worker] = []

    def run(self) -> None:
        for place in range(self._count):
            self._start(place)
        left = len(self._chunks)
        while left:
            worker, kind, what = self._news.get()
            if kind == "written":
                number, written = what
                names = self._told.setdefault(number, set())
                if written.record.name not in names:
                    names.add(written.record.name)
                    self._done(written)
                continue
            if kind == "error":
                raise what
            if kind == "gone":
                self._replace(worker)
            elif kind == "ready":
                worker.ready, self._failed_starts = True, 0
            else:
                worker.chunks.remove(what)
                self._told.pop(what, None)
                left -= 1
            for each in self._workers:
                self._give(each)

    def end(self) -> None:
        for worker in self._workers:
            worker.end()

    def _start(self, place: int) -> None:
        self._workers.append(_Worker(place, (place, self._count, *self._setup), self._news))

    def _give(self, worker: _Worker) -> None:
        """Give a process what it has room for: a chunk, and one to decode ahead unless others would wait for it."""
        while worker.ready and self._waiting:
            number = self._waiting[0]
            alone = any(each in self._deaths for each in (number, *worker.chunks))  # to find out which one kills
            if len(worker.chunks) > 1 or (worker.chunks and (alone or len(self._waiting) < self._count)):
                return
            chunk = self._chunks[number]
            if number in self._told:
                chunk = replace(chunk, done=chunk.done | self._told[number])
            if not worker.send((number, chunk)):
                return  # it is dead, as will be told
            worker.chunks.append(self._waiting.popleft())

    def _replace(self, worker: _Worker) -> None:
        """Start another process for one that died, and put its chunks first in the queue."""
        cause = worker.end()
        self._workers.remove(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts == _TRIES:
                raise PatchwordError(
                    f"{_TRIES} processes died while they loaded the models ({cause}); is there memory for "
                    f"{self._count} of them? fewer need less"
                )
        for number in reversed(worker.chunks):
            self._deaths[number] = self._deaths.get(number, 0) + 1
            self._waiting.appendleft(number)
            if self._deaths[number] == _TRIES:
                names = ", ".join(name for name, _ in self._chunks[number].photographs)
                raise PatchwordError(
                    f"{_TRIES} processes died of {names} ({cause}); take it out of the photographs, or use fewer "
                    "processes, which need less memory"
                )
        again = "; what it had is done again" if worker.chunks else ""
        _log.warning("process %d of %d died (%s)%s", worker.place + 1, self._count, cause, again)
        self._start(worker.place)


def exchanged(record: Any, part: object, other: object) -> Any:
    """A dataclass with one of its parts, or of their parts, exchanged for another."""
    if record is part:
        return other
    if not is_dataclass(record):
        return record
    before = {each.name: getattr(record, each.name) for each in fields(record) if each.init}
    after = {name: exchanged(value, part, other) for name, value in before.items()}
    changed = {name: value for name, value in after.items() if value is not before[name]}
    return replace(cast(Any, record), **changed) if changed else record


def serve() -> None:
    """Do chunks in a process of its own until nobody asks any more; standard input and output are the driver's."""
    driver: Connection[Any, Any] = Connection(os.dup(0))
    os.dup2(2, 1)  # whatever is printed must not get in between
    place, count, load, work = driver.recv()
    lock = threading.Lock()

    def answer(kind: str, what: Any) -> None:
        with lock:
            driver.send((kind, what))

    chunks: Queue[tuple[int, Chunk, list[Future[Photograph]]]] = Queue()
    try:
        _share_machine(place, count)
        work = work if load is None else exchanged(work, _Slot.MODELS, load())
    except Exception as error:
        answer("error", _sendable(error))
        return
    readers = ThreadPoolExecutor(2, thread_name_prefix="patchword-decode")

    def receive() -> None:
        try:
            while True:
                number, chunk = driver.recv()
                photographs = [
                    readers.submit(read_photograph, name, path, read=work.read) for name, path in chunk.photographs
                ]
                chunks.put((number, chunk, photographs))
        finally:  # the driver has ended, however it did
            os._exit(0)

    def write(item: tuple[str, int, Any]) -> None:
        kind, number, made = item
        try:
            if kind == "made":
                answer("written", (number, work.write(made)))
            else:
                answer(kind, made)
        except Exception as error:
            answer("error", _sendable(error))

    threading.Thread(target=receive, name="patchword-receive", daemon=True).start()
    answer("ready", None)
    with Writer[tuple[str, int, Any]](write) as writer:
        while True:
            number, chunk, photographs = chunks.get()
            try:
                for made in work.process([each.result() for each in photographs], chunk=chunk):
                    writer.put(("made", number, made))
                writer.put(("done", number, number))
            except Exception as error:
                writer.put(("error", number, _sendable(error)))


def _share_machine(place: int, count: int) -> None:
    """Take one of the cards, in turn, and this process's part of the cores."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores // count)))
    if torch.cuda.device_count() > 1:
        os.environ.setdefault("LOCAL_RANK", str(place % torch.cuda.device_count()))


def _sendable(error: Exception) -> Exception:
    """An error that can be raised by the driver, with where it was in this process."""
    if not isinstance(error, PatchwordError):
        error.add_note(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        return cast(Exception, ForkingPickler.loads(ForkingPickler.dumps(error)))
    except Exception:  # some take more than a message
        return (PatchwordError if isinstance(error, PatchwordError) else RuntimeError)(str(error))
