"""Token, origin, a full queue, deadlines, memory of images; the client; a model without torch; a clean stop."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from served import Served, served
from starlette.testclient import TestClient

import patchword as pw
import warm
from conftest import HERE
from patchword.config.serve import ServeConfig
from patchword.errors import PatchwordError
from patchword.segmentation.opening import open_segmenter
from patchword.serving import models as serving_models
from patchword.serving.app import create_app
from patchword.serving.models import Model
from patchword.serving.server import say_where
from patchword.toytown import miniatures
from small_world import must, run


class Slow:
    """A model that answers when it is allowed to, and notes how many images it was shown at once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.allowed = threading.Event()
        self.entered = threading.Event()
        self.batches: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def encode(self, images: Sequence[Any], settings: Any) -> list[Any]:
        self.entered.set()
        assert self.allowed.wait(60)
        self.batches.append(len(images))
        return self.model.encode(images, settings)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[FastAPI, Slow]]]:
    """Makes an application of a slow model with some limits."""
    made: list[Slow] = []

    def make(**limits: Any) -> tuple[FastAPI, Slow]:
        config = ServeConfig(settings=limits)
        found = serving_models.open_models(config)
        made.append(Slow(found["default"]))
        monkeypatch.setattr("patchword.serving.app.open_models", lambda config: {"default": made[-1]})
        return create_app(config), made[-1]

    yield make
    for each in made:
        each.allowed.set()


def ask(app: FastAPI, scene: bytes) -> Any:
    """A client of an application, and requests of it that run beside each other."""
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HERE, timeout=60)
    form = {"files": {"file": ("a.png", scene, "image/png")}, "data": {"classes": ["tree", "road"]}}
    return client, lambda: asyncio.create_task(client.post("/v1/segment", **form))


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


def test_waiting_requests_share_a_pass_and_a_full_queue_refuses(scene: bytes, slow: Any) -> None:
    app, model = slow(queue=4, batch=8)

    async def play() -> None:
        client, post = ask(app, scene)
        first = post()
        await until(model.entered.is_set)
        others = [post() for _ in range(3)]
        depth = "patchword_queue_depth 4.0"
        async with asyncio.timeout(60):
            while depth not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
        refused = await post()
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        await asyncio.sleep(0.5)  # decoded and waiting, all three
        model.allowed.set()
        answers = await asyncio.gather(first, *others)
        assert [each.status_code for each in answers] == [200] * 4
        assert len({each.json()["labels"] for each in answers}) == 1
        assert sum(model.batches) == 4
        assert max(model.batches) > 1

    asyncio.run(play())


def test_what_does_not_come_in_time_is_503_and_the_next_is_served(scene: bytes, slow: Any) -> None:
    app, model = slow(deadline=0.2)

    async def play() -> None:
        _, post = ask(app, scene)
        first = post()
        await until(model.entered.is_set)
        late = await asyncio.gather(first, post())
        assert [each.status_code for each in late] == [503, 503]
        assert "0.2 seconds" in late[0].json()["error"]["reason"]
        model.allowed.set()

    asyncio.run(play())
    app, model = slow()
    model.allowed.set()

    async def again() -> None:
        _, post = ask(app, scene)
        assert (await post()).status_code == 200

    asyncio.run(again())


def test_images_beyond_the_limit_are_forgotten_the_oldest_first(scene: bytes) -> None:
    app = create_app(ServeConfig(settings={"sessions": 2}))
    client = TestClient(app, base_url=HERE)
    ids = [client.post("/v1/images", files={"file": ("a", scene)}).json()["image"] for _ in range(3)]
    statuses = [client.post(f"/v1/images/{each}/segment", json={"classes": ["a"]}).status_code for each in ids]
    assert statuses == [404, 200, 200]


@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer", "Basic secret", "Bearer sécret"])
def test_a_wrong_token_opens_nothing(given: str | None, guarded: TestClient) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for path in ("/v1/models", "/v1/images/none/segment", "/metrics", "/v1/review", "/v1/jobs"):
        answer = guarded.request("GET" if "segment" not in path else "POST", path, headers=headers)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"] == "Bearer"
    assert guarded.get("/").status_code == guarded.get("/healthz").status_code == 200


def test_the_token_opens_everything(guarded: TestClient) -> None:
    headers = {"Authorization": "Bearer secret"}
    assert guarded.get("/v1/models", headers=headers).status_code == 200
    assert "patchword_rejected_total" in guarded.get("/metrics", headers=headers).text


@pytest.fixture(scope="module")
def guarded() -> TestClient:
    return TestClient(create_app(ServeConfig(token="secret")), base_url="http://elsewhere.example")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": HERE}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 201),
        ({"Origin": HERE}, 201),
        ({"Host": "localhost:8000"}, 201),
    ],
)
def test_other_sites_pages_get_nothing(client: TestClient, scene: bytes, headers: dict[str, str], status: int) -> None:
    answer = client.post("/v1/images", files={"file": ("a.png", scene, "image/png")}, headers=headers)
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_loud_line_where_the_network_reaches_it(capsys: pytest.CaptureFixture[str]) -> None:
    for config, told in (
        (ServeConfig(host="0.0.0.0"), "WARNING: A is open to the network, to EVERYONE, without a token"),
        (ServeConfig(host="::", token="a"), "WARNING: A is open to the network, to who has the token"),
    ):
        say_where(config, address="A")
        assert told in capsys.readouterr().err
    for host in ("127.0.0.1", "localhost", "::1"):
        say_where(ServeConfig(host=host), address="A")
        assert "WARNING" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("--token", "secret") as found:
        yield found


def test_the_client_finds_what_the_segmenter_finds(server: Served, scene: bytes, tmp_path: Path) -> None:
    pixels = np.array(Image.open(io.BytesIO(scene)))
    (tmp_path / "scene.png").write_bytes(scene)
    client = pw.Client(server.address, token="secret")
    assert client.models()["models"][0]["id"] == "default"
    asked: dict[str, Any] = {"classes": ["tree", "road; street"], "background": ["sky"]}
    segmenter = open_segmenter(
        miniatures.SEGMENTER, encoder=miniatures.DINO, text_encoder=miniatures.CLIP, device="cpu"
    )
    expected = segmenter.segment(pixels, settings={"threshold": 0.6}, **asked)
    remembered = client.remember(pixels)
    for found in (
        client.segment(tmp_path / "scene.png", settings={"threshold": 0.6}, **asked),
        client.segment(scene, settings={"threshold": 0.6}, **asked),
        remembered.segment(settings={"threshold": 0.6}, **asked),
    ):
        assert np.array_equal(found.mask, expected.mask)
        assert np.array_equal(found["road"], expected["road"])
        assert np.abs(found.confidence - expected.confidence).max() <= 0.5 / 255 + 1e-6
        assert found.label_map.names == ("tree", "road", "background")
    assert not remembered.segment(["cow"]).encoded


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda client, scene: client.segment(scene, classes=["a", "a"]), "'a'"),
        (lambda client, scene: client.segment(b"nothing"), "not an image that is taken"),
        (lambda client, scene: client.segment("absent.png"), "cannot read absent.png"),
        (lambda client, scene: client.segment(scene, classes="a, b"), "lists of names"),
        (lambda client, scene: pw.Client("http://127.0.0.1:9").models(), "does not answer"),
        (lambda client, scene: pw.Client("ftp://a"), "must begin with http"),
    ],
)
def test_the_clients_mistakes_are_one_line(server: Served, scene: bytes, call: Any, told: str) -> None:
    with pytest.raises(PatchwordError, match=told) as caught:
        call(pw.Client(server.address, token="secret"), scene)
    assert "\n" not in str(caught.value)
    with pytest.raises(PatchwordError, match="token"):
        pw.Client(server.address, token="wrong").models()


# A server whose model touches one file when it is asked, and answers when there is the other.
WAITING = """
import sys, time
from pathlib import Path
from patchword.cli.app import main
from patchword.serving.models import TorchModel
encode = TorchModel.encode
def waiting(self, images, settings):
    Path("asked").touch()
    while not Path("allowed").exists():
        time.sleep(0.01)
    return encode(self, images, settings)
TorchModel.encode = waiting
main()
"""


def test_a_request_in_flight_is_answered_when_the_server_stops(scene: bytes, tmp_path: Path) -> None:
    form = {"files": {"file": ("a.png", scene, "image/png")}, "data": {"classes": ["tree"]}}
    start = lambda command, **more: warm.Popen([command[0], "-c", WAITING, *command[3:]], cwd=tmp_path, **more)  # noqa: E731
    with served(start=start) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.post, f"{server.address}/v1/segment", **form, timeout=120)
        while not (tmp_path / "asked").exists():
            time.sleep(0.01)
        server.process.terminate()
        with suppress(httpx.TransportError):
            while httpx.get(f"{server.address}/healthz"):  # until nobody new is let in
                pass
        (tmp_path / "allowed").touch()
        assert answer.result().status_code == 200
        assert server.process.wait(60) == 0


def test_one_line_where_a_model_is_not_there() -> None:
    assert "absent" in must(run("serve", "--port", 0, "--model", "absent"), code=2).complaint
