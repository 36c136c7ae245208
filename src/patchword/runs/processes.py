"""Chunks done by several processes of this machine, each with models of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from patchword.errors import PatchwordError
from patchword.runs.pipeline import Chunk, Executor, Work, Written
from patchword.runs.station import Setup, Station, check_sendable
from patchword.runs.workers import Death, HandOut, News, Worker


def executor_of(executor: str, *, device: str, loaded: object, load: Callable[[], object]) -> Executor | None:
    """Whoever `--executor` names; None for local, which is the usual way, in threads here.

    Args:
        executor: as typed.
        device: as typed.
        loaded: the models that the work holds, which are not sent.
        load: makes them anew in each worker; is sent, with whatever it holds.
    """
    name, _, gpus = executor.partition(",gpus_per_worker=")
    kind, _, detail = name.partition(":")
    if kind == "local":
        return None
    if kind == "processes":
        return Processes(int(detail), loaded, load)
    from patchword.runs.ray_executor import OnRay

    return OnRay(detail or None, device, loaded, load, float(gpus or 1))


@dataclass(frozen=True)
class Processes:
    """Does chunks in processes, each of which loads the models once and takes a chunk whenever it has room for one.

    When this process dies, the others notice that nobody is left to listen, and end.

    Attributes:
        count: how many, 1 or more.
        loaded, load: as of `executor_of`.
    """

    count: int
    loaded: object
    load: Callable[[], object]

    def __post_init__(self) -> None:
        if sys.platform == "win32":
            raise PatchwordError(f"executor processes:{self.count} is not available on Windows; use shards")
        check_sendable(self.load, executor=f"processes:{self.count}")

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        """Do chunks in any order; no process is left when this returns or raises."""
        if not chunks:
            return
        count = min(self.count, len(chunks))
        setup = Setup.of(work, loaded=self.loaded, load=self.load, count=count)
        start = lambda place, news: _Process(place, setup, news)  # noqa: E731
        HandOut(chunks, start=start, count=count, done=done, noun="processes").run()


class _Process(Worker):
    """A process, and the pipe to it."""

    def __init__(self, place: int, setup: Setup, news: News) -> None:
        super().__init__(f"process {place + 1} of {setup.count}", place, news)
        self._pipe, theirs = Pipe()
        path = os.pathsep.join(each or str(Path.cwd()) for each in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from patchword.runs.processes import serve; serve()"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the driver alone, which ends all
        )
        theirs.close()
        self._tell((place, setup))
        self.listen()

    def send(self, number: int, chunk: Chunk) -> bool:
        return self._tell((number, chunk))

    def receive(self) -> Sequence[tuple[str, Any]]:
        try:
            return [self._pipe.recv()]
        except BaseException:
            self._pipe.close()
            raise

    def end(self) -> Death:
        self._process.kill()
        code = self._process.wait()
        return Death(f"exit code {code}" if code >= 0 else signal.Signals(-code).name)

    def _tell(self, message: Any) -> bool:
        try:
            self._pipe.send(message)
        except OSError:
            return False
        return True


def serve() -> None:
    """Do chunks in a process of its own until nobody asks any more; standard input and output are the driver's."""
    driver: Connection[Any, Any] = Connection(os.dup(0))
    os.dup2(2, 1)  # whatever is printed must not get in between
    place, setup = driver.recv()
    station = Station(lambda kind, what: driver.send((kind, what)))

    def receive() -> None:
        try:
            while True:
                station.take(*driver.recv())
        finally:  # the driver has ended, however it did
            os._exit(0)

    threading.Thread(target=receive, name="patchword-receive", daemon=True).start()
    station.run(setup, place=place)
