"""A real server for tests: `patchword serve` in a process of its own, on a free port of this machine."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import patchword
import warm

SOURCE = Path(patchword.__file__).parents[1]


@dataclass
class Served:
    """A server that answers.

    Attributes:
        address: such as http://127.0.0.1:41234, without a slash at the end.
        process: its process; `kill` and `stop` end it.
    """

    address: str
    process: warm.Popen

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, *, seconds: float = 60) -> int:
        """Ask it to end, as the system does; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def served(*arguments: object, start: Callable[..., Any] = warm.Popen) -> Iterator[Served]:
    """A server of Toytown's miniatures, or of what the arguments of `patchword serve` name."""
    command = [sys.executable, "-m", "patchword", "serve", "--port", "0", *map(str, arguments)]
    with start(command, stderr=warm.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)}) as process:
        try:
            assert process.stderr is not None
            said = []
            for line in process.stderr:
                said.append(line)
                found = re.search(r"serving at (http://\S+)", line)
                if found:
                    break
            else:
                raise AssertionError(f"the server does not start: {''.join(said)}")
            yield Served(found[1], process)
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(30)
                except warm.TimeoutExpired:
                    process.kill()
