"""Processes that need not import what is slow to import: forked from one that has, and else as of `subprocess`.

For tests that are not about how an interpreter starts: torch and transformers take it seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import DEVNULL, PIPE, CompletedProcess, TimeoutExpired
from typing import IO, Any, Self

START = "forkserver" if hasattr(os, "fork") else "spawn"
_CONTEXT: Any = multiprocessing.get_context(START)
_FAMILIES = ("clip", "sam", "dinov2")
_CONTEXT.set_forkserver_preload(
    [f"transformers.models.{name}.modeling_{name}" for name in _FAMILIES]
    + [f"patchword.{name}" for name in ("cli.app", "labeling.run", "alignment.run", "segmentation.run")]
)


class Popen:
    """A Python command that runs, such as `[sys.executable, "-c", "print()"]`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        stdin: IO[Any] | int | None = None,
        stdout: IO[Any] | int | None = None,
        stderr: IO[Any] | int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        self.stderr: IO[str] | None = None
        if stderr == PIPE:
            said, stderr = os.pipe()
            self.stderr = os.fdopen(said)
        files = [_end(each, number) for number, each in enumerate((stdin, stdout, stderr))]
        place = (dict(env or os.environ), str(cwd or Path.cwd()), start_new_session)
        self._process = _CONTEXT.Process(target=_run, args=(list(command), files, *place), daemon=True)
        self._process.start()
        for file in files:
            file.close()
        if self.stderr is not None:
            os.close(stderr)  # type: ignore[arg-type]
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise TimeoutExpired("python", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ended a moment ago, of which the server that forked it tells later
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.stderr is not None:
            self.stderr.close()
        self.wait()


def run(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> CompletedProcess[str]:
    """Run a command to its end."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as said:
        code = Popen(command, stdin=DEVNULL, stdout=out, stderr=said, env=env, cwd=cwd).wait()
        for file in (out, said):
            file.seek(0)
        return CompletedProcess(command, code, out.read(), said.read())


def _end(file: IO[Any] | int | None, number: int) -> Connection[Any, Any]:
    """A file to be sent, which only connections can be."""
    if file == DEVNULL:
        return Connection(os.open(os.devnull, os.O_RDWR))
    return Connection(os.dup(number if file is None else file if isinstance(file, int) else file.fileno()))


def _run(
    command: list[str], files: list[Connection[Any, Any]], env: dict[str, str], cwd: str, new_session: bool
) -> None:
    if new_session:
        os.setsid()
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
        file.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(each, "w", buffering=1, encoding="utf-8", closefd=False) for each in (1, 2))
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    option, *arguments = [each for each in command[1:] if each != "-P"]
    sys.argv = arguments if option in ("-c", "-m") else [option, *arguments]
    if option == "-c":
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    elif option == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(option, run_name="__main__")
