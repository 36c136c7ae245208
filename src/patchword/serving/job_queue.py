"""Jobs: child processes of `patchword COMMAND`, one at a time, whose state is on disk and outlives the server."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from patchword.data.folders import prepare_output, sole_use, write_json, write_text
from patchword.errors import PatchwordError
from patchword.runs.progress import FILE_VARIABLE
from patchword.runs.records import Record
from patchword.serving.job_options import config_text

FOLDER, MARKER = ".patchword-jobs", "jobs"
MOST_WAITING = 32
LOG_AT_ONCE = 1 << 16  # bytes
_ID = re.compile(r"[0-9a-f]{16}")
_GRACE = 20.0  # seconds from SIGTERM to SIGKILL
_LOOK = 0.3  # seconds between looks at a process

State = Literal["waiting", "running", "done", "failed", "cancelled", "interrupted"]
CAN_RESUME = ("failed", "cancelled", "interrupted")


class Job(Record):
    """One job, as `job.json` in its folder has it.

    Attributes:
        id: its folder's name.
        command, options: as they were asked for; paths are relative to the root.
        state: "interrupted" where its process ended without an answer, or with the server.
        created, started, ended: in UTC.
        tries: how often it was started.
        process, born: id of the last process, and when the system says that it was started.
        reason: why it is not done, for a person.
    """

    id: str
    command: str
    options: dict[str, Any]
    state: State = "waiting"
    created: str
    started: str | None = None
    ended: str | None = None
    tries: int = 0
    process: int | None = None
    born: str | None = None
    reason: str = ""
    resume: bool = Field(default=False)


class JobQueue:
    """The jobs of a root folder; one server at a time has them.

    Args:
        root: the only folder that jobs read and write in.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise PatchwordError(f"--root {root} is not a folder")
        self.folder = prepare_output(self.root / FOLDER, resume=True, marker=MARKER)
        self._held = ExitStack()
        self._held.enter_context(sole_use(self.folder))
        self._jobs = {job.id: job for job in map(self._load, self.folder.iterdir()) if job is not None}
        self._changed = threading.Condition()
        self._cancelled: set[str] = set()
        self._closing = False
        self._worker = threading.Thread(target=self._work, name="jobs", daemon=True)
        self._worker.start()

    def close(self) -> None:
        """Stop what runs, so that it can be resumed, and let go of the folder."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._worker.join()
        self._held.close()

    def jobs(self) -> list[Job]:
        """All, the newest first."""
        with self._changed:
            return sorted(self._jobs.values(), key=lambda job: (job.created, job.id), reverse=True)

    def job(self, key: str) -> Job:
        """One of them; KeyError for any other id."""
        with self._changed:
            return self._jobs[key]

    def add(self, command: str, options: Mapping[str, Any]) -> Job:
        """Check a job's options and put it behind those that wait."""
        config_text(command, options, root=self.root)
        with self._changed:
            if sum(job.state == "waiting" for job in self._jobs.values()) >= MOST_WAITING:
                raise QueueFullError(f"{MOST_WAITING} jobs wait already; try again when one has ended")
            key = secrets.token_hex(8)
            job = Job(id=key, command=command, options=dict(options), created=_now())
            self._keep(job)
            self._changed.notify_all()
        return job

    def cancel(self, key: str) -> Job:
        """End a job; what it has finished stays on disk."""
        with self._changed:
            job = self._jobs[key]
            if job.state == "waiting":
                return self._keep(job.model_copy(update={"state": "cancelled", "ended": _now()}))
            if job.state == "running":
                self._cancelled.add(key)
                self._changed.notify_all()
            return job

    def resume(self, key: str) -> Job:
        """Let a job that was cut off go on where it stopped."""
        with self._changed:
            job = self._jobs[key]
            if job.state not in CAN_RESUME:
                raise PatchwordError(f"the job is {job.state}; only one that was cut off can be resumed")
            config_text(job.command, job.options, root=self.root, resume=True)
            again = {"state": "waiting", "ended": None, "reason": "", "resume": job.tries > 0}
            job = self._keep(job.model_copy(update=again))
            self._changed.notify_all()
            return job

    def progress(self, key: str) -> dict[str, Any] | None:
        """What a job's process last said of itself."""
        return _read_json(self.folder / key / "progress.json")

    def result(self, key: str) -> dict[str, Any] | None:
        """What a job's command printed at its end."""
        return _read_json(self.folder / key / "result.json")

    def log(self, key: str, *, after: int) -> tuple[str, int]:
        """What a job has said from a byte on, and the byte to ask from next."""
        try:
            with (self.folder / key / "log.txt").open("rb") as file:
                file.seek(max(0, after))
                data = file.read(LOG_AT_ONCE)
        except OSError:
            return "", after
        return data.decode("utf-8", "replace"), after + len(data)

    def _load(self, folder: Path) -> Job | None:
        """A job that an earlier server has left."""
        if not _ID.fullmatch(folder.name):
            return None
        try:
            return Job.model_validate(_read_json(folder / "job.json"))
        except ValidationError:  # a server was killed before it was written
            return None

    def _keep(self, job: Job) -> Job:
        write_json(self.folder / job.id / "job.json", job.model_dump(mode="json"))
        self._jobs[job.id] = job
        return job

    def _work(self) -> None:
        """Do one job after the other, first those that still run from before."""
        while True:
            with self._changed:
                order = sorted(self._jobs.values(), key=lambda each: (each.state != "running", each.created, each.id))
                job = next((each for each in order if each.state in ("running", "waiting")), None)
                if self._closing:
                    return
                if job is None:
                    self._changed.wait()
                    continue
            process = None
            try:
                process = self._start(job) if job.state == "waiting" else None
                code = self._wait(job.id, process)
                ending = self._ending(job, code)
            except (PatchwordError, OSError) as error:
                ending = {"state": "failed", "reason": str(error)}
            with self._changed:
                self._keep(self._jobs[job.id].model_copy(update={**ending, "ended": _now()}))
                self._cancelled.discard(job.id)

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        folder = self.folder / job.id
        text = config_text(job.command, job.options, root=self.root, resume=job.resume)
        write_text(folder / "config.yaml", text)
        for name in ("progress.json", "result.json"):
            (folder / name).unlink(missing_ok=True)
        command = [sys.executable, "-m", "patchword", job.command, "--config", str(folder / "config.yaml"), "--json"]
        with (folder / "log.txt").open("ab") as log, (folder / "result.json").open("wb") as result:
            process = subprocess.Popen(
                command,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=log,
                env={**os.environ, FILE_VARIABLE: str(folder / "progress.json")},
                start_new_session=True,  # so that a Ctrl-C for the server lets it end its jobs in order
            )
        update = {
            "state": "running",
            "started": _now(),
            "tries": job.tries + 1,
            "process": process.pid,
            "born": _born(process.pid),
        }
        with self._changed:
            self._keep(job.model_copy(update=update))
        return process

    def _wait(self, key: str, process: subprocess.Popen[bytes] | None) -> int | None:
        """Wait for the end of a job's process; its exit code, or None where it is of an earlier server."""
        job, waited = self._jobs[key], 0.0
        while True:
            code = process.poll() if process is not None else None
            if code is not None or (process is None and not _runs(job)):
                return code
            with self._changed:
                stop = self._closing or key in self._cancelled
                if not stop or waited:
                    self._changed.wait(_LOOK)
            if stop:
                number = signal.SIGTERM if waited < _GRACE else signal.SIGKILL
                if not waited or number == signal.SIGKILL:
                    with suppress(OSError):
                        os.kill(job.process or 0, number)
                waited += _LOOK

    def _ending(self, job: Job, code: int | None) -> dict[str, Any]:
        """State and reason of a job whose process has ended."""
        answered = self.result(job.id) is not None
        said = _last_words(self.folder / job.id / "log.txt")
        if answered and code in (0, 1, None):
            return {"state": "done", "reason": said if code else ""}
        if job.id in self._cancelled:
            return {"state": "cancelled", "reason": "cancelled; what is finished is on disk"}
        if self._closing:
            return {"state": "interrupted", "reason": "the server was stopped; resume goes on where it was"}
        if code is None or code < 0:
            return {"state": "interrupted", "reason": "its process was killed; resume goes on where it was"}
        return {"state": "failed", "reason": said or f"its process ended with code {code}"}


class QueueFullError(PatchwordError):
    """As many jobs wait as may."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _born(process: int) -> str | None:
    """When the system says that a process was started; None where it is gone or the system does not tell."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _runs(job: Job) -> bool:
    """Whether the process of an earlier server's job still runs, and is not another one with its number."""
    if job.process is None or job.born is None or _born(job.process) != job.born:
        return False
    with suppress(OSError):
        state = Path(f"/proc/{job.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state != "Z"
    return False


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _last_words(log: Path) -> str:
    """The last line that a command has said of what went wrong."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_AT_ONCE))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    said = [line.removeprefix("patchword: ") for line in lines if line.startswith("patchword: ")]
    return said[-1] if said else next((line for line in reversed(lines) if line.strip()), "")
