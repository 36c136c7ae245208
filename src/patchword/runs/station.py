"""The worker's own side of a run that is shared out: what it is told, and how it does what it is given."""

from __future__ import annotations

import errno
import os
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from multiprocessing.reduction import ForkingPickler
from queue import Queue
from typing import Any, cast

from patchword.errors import PatchwordError, first_line
from patchword.precision import MatmulPrecision, matmul_precision
from patchword.runs.pipeline import Chunk, Photograph, Work, Writer, read_photograph

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


class _Slot(Enum):
    """Stands for the models in a work that is sent."""

    MODELS = "models"


@dataclass(frozen=True)
class Setup:
    """What a worker is told before its first chunk.

    Attributes:
        work: what is done with chunks, without the models.
        load: makes the models anew; None where there are none.
        count: how many workers there are.
        matmul: how precise products of float32 matrices are.
    """

    work: Work[Any]
    load: Callable[[], object] | None
    count: int
    matmul: MatmulPrecision = field(default_factory=matmul_precision)

    @classmethod
    def of(cls, work: Work[Any], *, loaded: object, load: Callable[[], object], count: int) -> Setup:
        """Of a work that holds the loaded models, which are not sent."""
        if loaded is None:
            return cls(work, None, count)
        return cls(exchanged(work, loaded, _Slot.MODELS), load, count)

    def open(self) -> Work[Any]:
        """The work, with models."""
        return self.work if self.load is None else cast(Work[Any], exchanged(self.work, _Slot.MODELS, self.load()))


def check_sendable(load: Callable[[], object], *, executor: str) -> None:
    """Refuse models that cannot be loaded elsewhere."""
    try:
        ForkingPickler.dumps(load)
    except Exception as error:  # objects of other people fail in ways of their own
        raise PatchwordError(
            f"executor {executor} needs models that each process can load; pass names or folders instead of objects "
            f"({first_line(error)})"
        ) from None


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


class Station:
    """The worker's own side: does what it is given until it is ended.

    Args:
        tell: takes each thing that the driver is to hear, by one thread at a time.
    """

    def __init__(self, tell: Callable[[str, Any], None]) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="patchword-decode")
        self._chunks: Queue[tuple[int, Chunk]] = Queue()
        self._decoded: Queue[tuple[int, Chunk, list[Future[Photograph]]]] = Queue()

    def take(self, number: int, chunk: Chunk) -> None:
        """Take a chunk into the queue."""
        self._chunks.put((number, chunk))

    def run(self, setup: Setup, *, place: int, check: Callable[[], None] = lambda: None) -> None:
        """Load the models, once what may be wrong with this worker is checked, and do chunks for ever."""
        try:
            check()
            if setup.load is not None:
                _share_machine(place, setup)
            work = setup.open()
        except Exception as error:
            self._answer("error", sendable(error))
            return
        threading.Thread(target=self._read, args=(work,), name="patchword-read", daemon=True).start()
        self._answer("ready", None)
        with Writer[tuple[str, int, Any]](lambda item: self._write(item, work)) as writer:
            while True:
                number, chunk, photographs = self._decoded.get()
                try:
                    for made in work.process([each.result() for each in photographs], chunk=chunk):
                        writer.put(("made", number, made))
                    writer.put(("done", number, number))
                except Exception as error:
                    writer.put((_kind_of(error), number, sendable(error)))

    def _read(self, work: Work[Any]) -> None:
        while True:
            number, chunk = self._chunks.get()
            read = [self._readers.submit(read_photograph, *each, read=work.read) for each in chunk.photographs]
            self._decoded.put((number, chunk, read))

    def _write(self, item: tuple[str, int, Any], work: Work[Any]) -> None:
        kind, number, made = item
        try:
            if kind == "made":
                self._answer("written", (number, work.write(made)))
            else:
                self._answer(kind, made)
        except Exception as error:
            self._answer(_kind_of(error), sendable(error))

    def _answer(self, kind: str, what: Any) -> None:
        with self._lock:
            self._tell(kind, what)


def _share_machine(place: int, setup: Setup) -> None:
    """Take one of the cards, in turn, and this worker's part of the cores; compute as precisely as the driver."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), max(1, cores // setup.count)))
    torch.set_float32_matmul_precision(setup.matmul)
    if torch.cuda.device_count() > 1:
        os.environ.setdefault("LOCAL_RANK", str(place % torch.cuda.device_count()))


def _kind_of(error: BaseException) -> str:
    """ "full" where the disk was, however that was told; else "error"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return "full"
        cause = cause.__cause__ or cause.__context__
    return "error"


def sendable(error: Exception) -> Exception:
    """An error that can be raised by the driver, with where it was in this process."""
    if not isinstance(error, PatchwordError):
        error.add_note(f"in a worker process:\n{''.join(traceback.format_exception(error))}")
    try:
        return cast(Exception, ForkingPickler.loads(ForkingPickler.dumps(error)))
    except Exception:  # some take more than a message
        return (PatchwordError if isinstance(error, PatchwordError) else RuntimeError)(str(error))
