"""Chunks done by actors of a Ray cluster, each with models of its own."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from patchword.errors import PatchwordError, first_line
from patchword.runs.pipeline import Chunk, Work, Written
from patchword.runs.station import Setup, Station, check_sendable
from patchword.runs.workers import Death, HandOut, News, Worker
from patchword.versions import versions

_STORE = 80_000_000  # bytes of shared memory of a cluster that is started here; only small messages pass
_ANSWER = 5.0  # seconds that a cluster's head is waited for
_END = 10.0  # seconds that an actor is waited for after it was ended
_QUIET = {  # Ray reads these when it is imported; what has happened is said here, in a line each
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
}


@dataclass(frozen=True)
class OnRay:
    """Does chunks in actors: one or more a GPU where the models compute on CUDA, else one a CPU, with one thread each.

    Photographs and results are on storage that all nodes see under the same paths.

    Attributes:
        address: of the cluster's head; None for the one that RAY_ADDRESS names, or else for this machine alone.
        device: where the models compute, as typed.
        loaded, load: as of `executor_of`.
        gpus_per_worker: part of a GPU that each has where the models compute on CUDA, in (0, 1].
    """

    address: str | None
    device: str
    loaded: object
    load: Callable[[], object]
    gpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
        _ray()
        if self.device.startswith("cuda:"):
            raise PatchwordError(f"device {self.device} is a card of one machine; with executor ray use cuda")
        if self.gpus_per_worker != 1 and not _on_cuda(self.device):
            raise PatchwordError(f"gpus_per_worker is {self.gpus_per_worker:g}, but the models do not compute on CUDA")
        _check_reachable(self.address or "")
        check_sendable(self.load, executor="ray")

    def run(self, chunks: Sequence[Chunk], *, work: Work[Any], done: Callable[[Written], None]) -> None:
        """Do chunks in any order; no actor is left when this returns or raises."""
        if not chunks:
            return
        with _connected(self.address) as ray:
            cuda = _on_cuda(self.device)
            kind = "GPU" if cuda else "CPU"
            at_once = int(1 / self.gpus_per_worker + 1e-6) if cuda else 1  # on one GPU; none is shared out over two
            count = min(len(chunks), int(ray.cluster_resources().get(kind, 0)) * at_once)
            if not count:
                raise PatchwordError(f"the Ray cluster has no {kind}; give it some, or choose another device")
            setup = Setup.of(work, loaded=self.loaded, load=self.load, count=1)  # Ray divides machines, not we
            told = ray.put((setup, _Surroundings.here(chunks, work, cuda=cuda)))
            options = {"num_gpus": self.gpus_per_worker, "num_cpus": 0} if cuda else {"num_gpus": 0, "num_cpus": 1}
            actor = ray.remote(_Actor).options(**options, max_concurrency=4, scheduling_strategy="SPREAD")
            start = lambda place, news: _Hand(place, count, actor.remote(place, told), news)  # noqa: E731
            HandOut(chunks, start=start, count=count, done=done, noun="workers", own_disks=True).run()


def _check_reachable(address: str) -> None:
    """Refuse a cluster that does not answer, for which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_ANSWER).close()
        except (OSError, OverflowError) as error:
            raise PatchwordError(f"no Ray cluster at {address} ({first_line(error)})") from None


def _on_cuda(device: str) -> bool:
    import torch

    return device == "cuda" or (device == "auto" and torch.cuda.is_available())


def _ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    return ray


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster; as it was before when the block is left."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _STORE} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # of many kinds
        raise PatchwordError(f"no Ray cluster at {address} ({first_line(error)})") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class _Surroundings:
    """What a worker must find as it is here: working directory, folders, versions, and whether models use a card."""

    directory: Path
    folders: tuple[Path, ...]
    versions: dict[str, str]
    cuda: bool

    @classmethod
    def here(cls, chunks: Sequence[Chunk], work: Work[Any], *, cuda: bool) -> _Surroundings:
        folders = {getattr(work, "folder", None), chunks[0].photographs[0][1].parent}
        seen = sorted(each.absolute() for each in folders if isinstance(each, Path) and each.is_dir())
        return cls(Path.cwd(), tuple(seen), versions(), cuda)

    def check(self) -> None:
        """Refuse a node on which the run would come out differently; enter the working directory."""
        node = socket.gethostname()
        for folder in (self.directory, *self.folders):
            if not folder.is_dir():
                raise PatchwordError(
                    f"node {node} does not see {folder}; photographs, results and the folder that the "
                    "run is started in must be on storage that all nodes see"
                )
        os.chdir(self.directory)  # paths may be relative
        found = versions()
        for name, version in self.versions.items():
            if found.get(name) != version:
                raise PatchwordError(
                    f"node {node} has {name} {found.get(name, 'missing')}, the driver {version}; "
                    "install the same everywhere"
                )


class _Actor:
    """A worker's own side, in a process of Ray."""

    def __init__(self, place: int, told: tuple[Setup, _Surroundings]) -> None:
        setup, surroundings = told
        # It sees the card that Ray has given it and no other, also where Ray is told to leave that to others; where
        # models compute on the CPU it sees none, for they must not find one by themselves.
        cards = _ray().get_gpu_ids() if surroundings.cuda else []
        os.environ.update(CUDA_VISIBLE_DEVICES=",".join(map(str, cards)), LOCAL_RANK="0")
        self._answers: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._station = Station(lambda kind, what: self._answers.put((kind, what)))
        threading.Thread(
            target=lambda: self._station.run(setup, place=place, check=surroundings.check), daemon=True
        ).start()

    def take(self, number: int, chunk: Chunk) -> None:
        self._station.take(number, chunk)

    def listen(self) -> list[tuple[str, Any]]:
        """Wait for something to tell; all that there is."""
        answers = [self._answers.get()]
        try:
            while True:
                answers.append(self._answers.get_nowait())
        except Empty:
            return answers


class _Hand(Worker):
    """An actor as the driver sees it."""

    def __init__(self, place: int, count: int, actor: Any, news: News) -> None:
        super().__init__(f"worker {place + 1} of {count}", place, news)
        self._ray, self._actor = _ray(), actor
        self.listen()

    def send(self, number: int, chunk: Chunk) -> bool:
        self._actor.take.remote(number, chunk)
        return True  # one that is dead will be told

    def receive(self) -> Sequence[tuple[str, Any]]:
        heard: list[tuple[str, Any]] = self._ray.get(self._actor.listen.remote())
        return heard

    def end(self) -> Death:
        death = self._death()
        self._ray.kill(self._actor)
        self._listener.join(_END)
        return death

    def _death(self) -> Death:
        """What Ray says of an actor that was lost."""
        if self.lost is None:
            return Death("ended")
        errors = self._ray.exceptions
        error = self.lost
        if isinstance(error, errors.ActorUnavailableError):  # said first of one that has died, too
            try:
                self._ray.get(self._actor.listen.remote(), timeout=_END)
            except errors.RayError as later:
                error = later
        said = str(error)
        if "node has died" in said or "node is dead" in said:
            return Death("its node is lost", alone=False)
        if isinstance(error, errors.OutOfMemoryError) or "low on memory" in said:
            return Death("out of memory")
        if isinstance(error, errors.ActorDiedError):
            return Death("killed, as when memory runs out")
        return Death("not reachable, as when its machine is lost", alone=False)
