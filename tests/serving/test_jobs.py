"""Jobs: what they may be asked for, how they end, and that neither a kill of theirs nor of the server loses them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import warm
from patchword.errors import PatchwordError
from patchword.serving import job_queue
from patchword.serving.job_queue import JobQueue
from patchword.serving.jobs import jobs_router
from small_world import LABEL_SETTINGS, Models, make_photos


@pytest.fixture
def root(tmp_path: Path, models: Models) -> Path:
    """A root folder with photographs, models, a link out of it and one that stays inside; beside it a secret."""
    folder = tmp_path / "root"
    make_photos(folder / "photos")
    make_photos(tmp_path / "outside")
    for name in ("clip", "sam"):
        (folder / name).mkdir()
        for file in getattr(models, name).iterdir():
            (folder / name / file.name).write_bytes(file.read_bytes())
    (folder / "out-link").symlink_to(tmp_path / "outside")
    (folder / "inner-link").symlink_to("photos")
    (folder / "loop").symlink_to("loop")
    (folder / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "secret.txt").write_text("cat\n")
    return folder


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of this process need not import everything."""
    monkeypatch.setattr(job_queue, "subprocess", warm)


@pytest.fixture
def queue(root: Path) -> Iterator[JobQueue]:
    jobs = JobQueue(root)
    yield jobs
    jobs.close()


@pytest.fixture
def client(queue: JobQueue) -> TestClient:
    app = FastAPI()
    app.include_router(jobs_router(queue))
    return TestClient(app)


def label_options(**values: Any) -> dict[str, Any]:
    return {
        "photos": "photos",
        "classes": ["cat", "dog", "sofa"],
        "out": "labels",
        "image_text": "clip",
        "mask_generator": "sam",
        "settings": LABEL_SETTINGS,
        "device": "cpu",
        **values,
    }


SERVER = """
import json, sys, time
from patchword.serving.job_queue import JobQueue
queue = JobQueue(sys.argv[1])
queue.add("label", json.loads(sys.argv[2]))
time.sleep(1000)
"""


def until(found: Callable[[], Any]) -> Any:
    """Wait for what takes as long as it takes; the test's own limit ends it."""
    while not (value := found()):
        time.sleep(0.05)
    return value


def ended(client: TestClient, key: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/v1/jobs/{key}").json()
        return job if job["state"] not in ("waiting", "running") else None

    found: dict[str, Any] = until(look)
    return found


ESCAPES: list[tuple[dict[str, Any], str]] = [
    ({"photos": "../outside"}, "must be relative"),
    ({"photos": "photos/../../outside"}, "must be relative"),
    ({"photos": "/etc"}, "must be relative"),
    ({"photos": "\\\\server\\share"}, "must be relative"),
    ({"photos": "C:\\photos"}, "must be relative"),
    ({"photos": "~"}, "must be relative"),
    ({"photos": "out-link"}, "leads out of the root"),
    ({"photos": "out-link/0.png"}, "leads out of the root"),
    ({"photos": "loop"}, ""),
    ({"photos": "."}, "leads out of the root"),
    ({"photos": "photos/*.png"}, "is a pattern"),
    ({"photos": "nothing"}, "is not in the root folder"),
    ({"photos": "photos\0"}, "must be the name"),
    ({"photos": ["photos"]}, "must be the name"),
    ({"photos": ".patchword-jobs"}, "belongs to patchword"),
    ({"out": "../labels"}, "must be relative"),
    ({"out": "out-link/labels"}, "leads out of the root"),
    ({"out": "."}, "leads out of the root"),
    ({"out": ""}, "needs out"),
    ({"image_text": "../models/clip"}, "must be relative"),
    ({"image_text": "some/repository"}, "is not in the root folder"),
    ({"mask_generator": "out-link"}, "leads out of the root"),
    ({"overwrite": True}, "is not for label jobs"),
    ({"executor": "processes:200"}, "is not for label jobs"),
    ({"config": "/etc/passwd"}, "is not for label jobs"),
    ({"settings": {"margin": "x"}}, "margin"),
    ({"classes": 3}, "classes must be"),
]


@pytest.mark.parametrize(("change", "reason"), ESCAPES)
def test_whatever_leads_out_of_the_root_is_refused(
    client: TestClient, root: Path, change: dict[str, Any], reason: str
) -> None:
    answer = client.post("/v1/jobs", json={"command": "label", "options": label_options(**change)})
    assert answer.status_code == 422
    assert reason in answer.text
    assert client.get("/v1/jobs").json()["jobs"] == []
    assert not (root.parent / "labels").exists()


@pytest.mark.parametrize("text", ["../secret.txt", "/etc/passwd"])
def test_class_names_are_never_a_path_that_is_opened(root: Path, text: str) -> None:
    from patchword.serving.job_options import config_text

    assert f"classes: [{text}]" in config_text("label", label_options(classes=text), root=root)
    assert f"classes: {root}/classes.txt" in config_text("label", label_options(classes="classes.txt"), root=root)
    assert f"photos: {root}/photos" in config_text("label", label_options(photos="inner-link"), root=root)


@pytest.mark.parametrize("key", ["0" * 16, "..%2f..", "%2e%2e", "a" * 400])
def test_an_id_is_no_path(client: TestClient, key: str) -> None:
    for path in (f"/v1/jobs/{key}", f"/v1/jobs/{key}/log"):
        assert client.get(path).status_code == 404
    assert client.post(f"/v1/jobs/{key}/cancel").status_code == 404


def test_a_job_is_killed_resumed_and_done_while_another_waits_and_is_cancelled(
    client: TestClient, queue: JobQueue, root: Path
) -> None:
    first = client.post("/v1/jobs", json={"command": "label", "options": label_options()}).json()["id"]
    process = until(lambda: queue.job(first).process)
    os.kill(process, signal.SIGSTOP)  # so that the next one has to wait
    align = {"command": "align", "options": {"labels": "photos", "out": "model"}}
    second = client.post("/v1/jobs", json=align).json()
    assert second["state"] == "waiting"
    assert client.post(f"/v1/jobs/{second['id']}/cancel").json()["state"] == "cancelled"
    os.kill(process, signal.SIGKILL)
    job = ended(client, first)
    assert (job["state"], job["can_resume"]) == ("interrupted", True)

    assert client.post(f"/v1/jobs/{first}/resume").json()["state"] == "waiting"
    job = ended(client, first)
    assert (job["state"], job["reason"], job["tries"]) == ("done", "", 2)
    assert job["result"]["images"] == 2
    assert (job["progress"]["done"], job["progress"]["total"]) == (2, 2)
    assert (root / "labels" / "dataset.json").is_file()
    log = client.get(f"/v1/jobs/{first}/log").json()
    assert "2 photographs in" in log["text"]
    assert client.get(f"/v1/jobs/{first}/log", params={"after": log["next"]}).json() == {
        "text": "",
        "next": log["next"],
    }
    assert client.post(f"/v1/jobs/{first}/resume").status_code == 409
    assert client.get("/v1/jobs").json()["jobs"][0]["id"] == second["id"]

    failing = {"command": "align", "options": {"labels": "photos", "out": "model"}}
    job = ended(client, client.post("/v1/jobs", json=failing).json()["id"])
    assert job["state"] == "failed"
    assert "is not a label folder" in job["reason"]


def test_a_running_job_is_cancelled_and_what_stops_with_the_server_can_be_resumed(root: Path) -> None:
    queue = JobQueue(root)
    try:
        first, second = (queue.add("label", label_options(out=out)).id for out in ("one", "two"))
        until(lambda: queue.job(first).process)
        queue.cancel(first)
        until(lambda: queue.job(first).state == "cancelled")
        until(lambda: queue.job(second).state == "running")
    finally:
        queue.close()
    again = JobQueue(root)
    try:
        assert (again.job(first).state, again.job(second).state) == ("cancelled", "interrupted")
        assert [job.id for job in again.jobs()] == [second, first]
    finally:
        again.close()


def test_a_job_outlives_a_server_that_is_killed(root: Path) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(root), json.dumps(label_options())])
    files = root / ".patchword-jobs"
    process = until(lambda: [json.loads(file.read_bytes()).get("process") for file in files.glob("*/job.json")])[0]
    while process is None:
        time.sleep(0.05)
        (process,) = [json.loads(file.read_bytes()).get("process") for file in files.glob("*/job.json")]
    os.kill(process, signal.SIGSTOP)  # so that it still runs when the next server comes
    with pytest.raises(PatchwordError, match="another run is at work"):
        JobQueue(root)
    server.kill()
    server.wait()
    queue = JobQueue(root)
    try:
        (job,) = queue.jobs()
        assert (job.state, job.process) == ("running", process)
        os.kill(process, signal.SIGCONT)
        until(lambda: queue.job(job.id).state == "done")
        assert queue.result(job.id)["images"] == 2  # type: ignore[index]
        assert queue.job(job.id).tries == 1
    finally:
        queue.close()
