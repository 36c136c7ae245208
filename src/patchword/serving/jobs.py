"""The routes of jobs."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, HTTPException, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from patchword.errors import PatchwordError
from patchword.serving.job_options import KINDS
from patchword.serving.job_queue import CAN_RESUME, Job, JobQueue, QueueFullError


class NewJob(BaseModel):
    """What a job is made of."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"command": "align", "options": {"labels": "labels", "out": "model"}}]},
    )

    command: Literal["label", "align", "evaluate"]
    options: dict[str, Any] = Field(description="As in the command's config file; paths are relative to the root.")


def jobs_router(queue: JobQueue | None) -> APIRouter:
    """The routes.

    Args:
        queue: whose jobs; none where the server was started without a root folder.
    """
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    def there() -> JobQueue:
        if queue is None:
            raise HTTPException(404, "this server runs no jobs; start it with --root FOLDER")
        return queue

    def told(key: str) -> dict[str, Any]:
        try:
            return _told(there(), there().job(key))
        except KeyError:
            raise HTTPException(404, "there is no such job") from None

    @router.get("")
    def list_jobs() -> dict[str, Any]:
        """All jobs, the newest first, and what may be asked for."""
        allowed = {command: list(kind.allowed) for command, kind in KINDS.items()}
        if queue is None:
            return {"root": None, "jobs": [], "commands": allowed}
        return {
            "root": queue.root.name,
            "jobs": [_told(queue, job) for job in queue.jobs()],
            "commands": allowed,
        }

    @router.post("", status_code=201)
    def add_job(new: NewJob) -> JSONResponse:
        """Start a job, or put it behind those that wait."""
        try:
            job = there().add(new.command, new.options)
        except QueueFullError as error:
            return JSONResponse({"error": {"reason": str(error)}}, 429, {"Retry-After": "60"})
        except PatchwordError as error:
            raise HTTPException(422, str(error)) from None
        return JSONResponse(_told(there(), job), 201)

    @router.get("/{key}")
    def show_job(key: str) -> dict[str, Any]:
        """State, progress and result of a job."""
        return told(key)

    @router.get("/{key}/log")
    def show_log(key: str, after: int = Query(0, ge=0, le=2**53)) -> dict[str, Any]:
        """What a job has said from a byte on."""
        told(key)
        text, following = there().log(key, after=after)
        return {"text": text, "next": following}

    @router.post("/{key}/cancel")
    def cancel_job(key: str) -> dict[str, Any]:
        """End a job; what it has finished stays."""
        told(key)
        there().cancel(key)
        return told(key)

    @router.post("/{key}/resume")
    def resume_job(key: str) -> dict[str, Any]:
        """Let a job that was cut off go on."""
        told(key)
        try:
            there().resume(key)
        except PatchwordError as error:
            raise HTTPException(409, str(error)) from None
        return told(key)

    return router


def _told(queue: JobQueue, job: Job) -> dict[str, Any]:
    shown = job.model_dump(mode="json", exclude={"process", "born", "resume"})
    return {
        **shown,
        "progress": queue.progress(job.id) if job.state != "waiting" else None,
        "result": queue.result(job.id) if job.state == "done" else None,
        "can_resume": job.state in CAN_RESUME,
    }
