"""The backend of Label Studio: its own SDK takes what it answers, and pictures come from where they may alone."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue
from PIL import Image
from starlette.testclient import TestClient

from conftest import HERE
from patchword.config.serve import LabelStudioConfig, ServeConfig
from patchword.data.coco_masks import filled
from patchword.data.images import to_tensor
from patchword.errors import PatchwordError
from patchword.models.loading import load_mask_generator
from patchword.serving.models import toytown_models
from patchword.serving.studio import create_studio_app
from patchword.serving.studio_images import StudioImages
from patchword.serving.studio_interface import read_interface
from patchword.toytown import miniatures
from patchword.toytown.playground import draw_example, vocabulary

KEY = "0123456789abcdef0123456789abcdef01234567"
NAMES = vocabulary().names[:5]
LABELS = "".join(f'<Label value="{name}"/>' for name in NAMES)
PICTURE = '<Image name="picture" value="$image"/>'
BRUSH = f'<View>{PICTURE}<BrushLabels name="mask" toName="picture">{LABELS}</BrushLabels></View>'
PERSONAL = "head.body.signature"
SCENE = draw_example("toytown-1")
DATA = "data:image/png;base64," + base64.b64encode(SCENE).decode()
SIZE = (240, 320)


class Host:
    """A stand-in for Label Studio: a picture behind a key, and ways that lead elsewhere; it notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.moved: dict[str, str] = {}
        self.passes = 0  # how often a personal token was exchanged; the last pass is good
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                good = self.path == "/api/token/refresh/" and sent == {"refresh": PERSONAL}
                self.send_response(200 if good else 401)
                self.end_headers()
                host.passes += good
                self.wfile.write(json.dumps({"access": f"pass {host.passes}"} if good else {}).encode())

            def do_GET(self) -> None:
                given = self.headers.get("Authorization")
                host.asked.append((self.path, given))
                allowed = given in (f"Token {KEY}", f"Bearer pass {host.passes}")
                moved = host.moved.get(self.path)
                self.send_response(302 if moved else 200 if allowed else 401)
                if moved:
                    self.send_header("Location", moved)
                self.send_header("Content-Type", "text/html" if self.path.endswith(".html") else "image/png")
                self.end_headers()
                if allowed and not moved:
                    self.wfile.write(SCENE)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    (folder / "photos").mkdir()
    (folder / "photos" / "a b.png").write_bytes(SCENE)
    (folder / "photos" / "notes.txt").write_text("secret")
    (folder / "secret.png").write_bytes(SCENE)
    (folder / "photos" / "link.png").symlink_to(folder / "secret.png")
    return folder / "photos"


@pytest.fixture(scope="module")
def client(host: Host, root: Path) -> Iterator[TestClient]:
    config = LabelStudioConfig(label_studio_url=host.url, label_studio_key=KEY, root=str(root))
    with TestClient(create_studio_app(config), base_url=HERE, raise_server_exceptions=False) as client:
        yield client


def predict(
    client: TestClient, *addresses: object, config: str = BRUSH, context: object = None
) -> list[dict[str, Any]]:
    """The answers to tasks of pictures at these addresses."""
    tasks = [{"id": number, "data": {"image": address}} for number, address in enumerate(addresses)]
    asked = json.dumps({"tasks": tasks, "label_config": config, "params": {"context": context}})
    answer = client.post("/predict", content=asked, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    assert len(found) == len(tasks)
    return found


def painted(region: dict[str, Any]) -> np.ndarray:  # type: ignore[type-arg]
    """The mask of a brush region as Label Studio's own converter reads it."""
    assert (region["original_height"], region["original_width"]) == SIZE
    pixels = np.reshape(decode_rle(region["value"]["rle"]), (*SIZE, 4))
    mask: np.ndarray = pixels[..., 3] > 0  # type: ignore[type-arg]
    return mask


def test_health_and_setup_answer_as_label_studio_expects(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "UP"
    asked = {"project": "1.1700000000", "schema": BRUSH, "hostname": "http://elsewhere", "access_token": "x"}
    answer = client.post("/setup", json=asked).json()
    assert answer["model_version"].startswith("patchword ")
    assert "note" not in answer
    assert "no BrushLabels" in client.post("/setup", json={"project": "1.1", "schema": "<View/>"}).json()["note"]
    assert client.post("/webhook", json={"action": "START_TRAINING", "project": {}}).json()["status"] == "ignored"


def test_masks_are_the_label_map_and_label_studio_takes_them(client: TestClient) -> None:
    (found,) = predict(client, DATA)
    assert LabelInterface(BRUSH).validate_prediction(found, return_errors=True) == []
    assert PredictionValue(**found).model_version == client.post("/setup", json={}).json()["model_version"]
    masks = {region["value"]["brushlabels"][0]: painted(region) for region in found["result"]}
    assert set(masks) <= set(NAMES)
    assert len(masks) > 1
    assert (np.sum(list(masks.values()), axis=0) == 1).all()  # every pixel has one class, as there is no threshold
    assert len({region["id"] for region in found["result"]}) == len(found["result"])


def test_trained_words_bring_synonyms_and_a_threshold_leaves_pixels_out(client: TestClient, host: Host) -> None:
    sure = LabelStudioConfig(threshold=0.5, background=["a wall of a cave"], host="0.0.0.0", token="secret")
    answer = {"tasks": [{"data": {"image": DATA}}], "label_config": BRUSH}
    with TestClient(create_studio_app(sure), base_url=HERE) as other:
        for path in ("/setup", "/predict", "/webhook", "/metrics"):
            assert other.post(path, json=answer).status_code == 401
        assert other.get("/health").status_code == 200
        with pytest.raises(AssertionError, match="401"):
            predict(other, DATA)
        for authorization in ({"auth": ("anyone", "secret")}, {"headers": {"Authorization": "Bearer secret"}}):
            found = other.post("/predict", json=answer, **authorization).json()["results"][0]
            assert 0 < sum(painted(region).sum() for region in found["result"]) < SIZE[0] * SIZE[1]
        assert other.post("/predict", json=answer, auth=("secret", "wrong")).status_code == 401
    assert found["model_version"] != client.post("/setup", json={}).json()["model_version"]


def test_pictures_come_from_label_studio_with_its_key(client: TestClient, host: Host) -> None:
    host.asked.clear()
    host.moved["/data/upload/1/moved.png"] = "/data/upload/1/a.png"
    found = predict(client, "/data/upload/1/a.png", f"{host.url}/data/upload/1/ä b.png", "/data/upload/1/moved.png")
    assert all(len(each["result"]) > 1 for each in found)
    assert {key for _, key in host.asked} == {f"Token {KEY}"}
    assert "/data/upload/1/%C3%A4%20b.png" in [path for path, _ in host.asked]


def test_local_files_come_from_the_root(client: TestClient, host: Host) -> None:
    host.asked.clear()
    found = predict(client, "a b.png", "/data/local-files/?d=a%20b.png")
    assert all(each["result"] for each in found)
    assert host.asked == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("http://example.com/a.png", "is on http://example.com:80; pictures are fetched from http://127.0.0.1:"),
        ("http://127.0.0.1:1/a.png", "is on http://127.0.0.1:1; pictures"),
        ("//example.com/a.png", "an address that is not fetched"),
        ("file:///etc/hostname", "an address that is not fetched"),
        ("s3://bucket/a.png", "an address that is not fetched"),
        ("{host}@example.com/a.png", "not fetched|fetched from"),
        ("/away", "is on http://example.com:80; pictures are fetched from"),
        ("/round", "from one address to the next"),
        ("/page.html", "declared as 'text/html'"),
        ("../secret.png", "without '..'"),
        ("/data/local-files/?d=../secret.png", "without '..'"),
        ("/data/local-files/?d=/etc/passwd", "is not in the root folder"),
        ("link.png", "leads out of the root folder"),
        ("notes.txt", "its content is none of these"),
        (".", "must be|leads out"),
        ("data:text/html;base64,AAAA", "declared as 'text/html'"),
        ("data:image/png;base64,###", "not base64"),
        ("http://[", "cannot be read"),
        ("\ud800", "not in the root|cannot be"),
        ("a\0.png", "inside the root folder|cannot be"),
        ("", "no address of a picture as 'image'"),
        (7, "no address of a picture as 'image'"),
    ],
)  # fmt: skip
def test_other_pictures_get_a_reason_and_the_next_task_its_masks(
    client: TestClient, host: Host, address: object, told: str
) -> None:
    host.asked.clear()
    host.moved |= {"/away": "http://example.com/a.png", "/round": "/round"}
    where = address.format(host=host.url) if isinstance(address, str) and "{" in address else address
    bad, good = predict(client, where, "a b.png")
    assert "result" not in bad  # which Label Studio would keep as an answer
    assert re.search(told, bad["error"]), bad
    assert KEY not in json.dumps(bad)
    assert good["result"]


def test_a_wrong_key_is_told(host: Host) -> None:
    images = StudioImages(LabelStudioConfig(label_studio_url=host.url, label_studio_key="wrong"))
    with pytest.raises(PatchwordError, match="answers 401 for the picture; check --label-studio-key"):
        images.read("/data/upload/1/a.png")
    with pytest.raises(PatchwordError, match="start the backend with --root"):
        images.read("a.png")
    with pytest.raises(PatchwordError, match="characters that a key cannot have") as told:
        StudioImages(LabelStudioConfig(label_studio_url=host.url, label_studio_key="sec\nret"))
    assert "sec" not in str(told.value).removeprefix("option")
    small = LabelStudioConfig(label_studio_url=host.url, label_studio_key=KEY, settings={"megabytes": 0.001})
    with pytest.raises(PatchwordError, match=r"larger than 0\.001 MB"):
        StudioImages(small).read("/a.png")
    with pytest.raises(PatchwordError, match="start the backend with --label-studio-url"):
        StudioImages(LabelStudioConfig()).read("/data/upload/1/a.png")


def test_a_personal_token_is_exchanged_and_again_when_its_pass_has_expired(host: Host) -> None:
    images = StudioImages(LabelStudioConfig(label_studio_url=host.url, label_studio_key=PERSONAL))
    host.asked.clear()
    host.passes = 0
    for _ in range(2):
        assert images.read("/a.png").shape == (*SIZE, 3)
    assert [given for _, given in host.asked] == ["Bearer pass 1"] * 2
    host.passes = 5
    assert images.read("/a.png").shape == (*SIZE, 3)
    assert [given for _, given in host.asked[2:]] == ["Bearer pass 1", "Bearer pass 6"]
    wrong = StudioImages(LabelStudioConfig(label_studio_url=host.url, label_studio_key="a.b.c"))
    with pytest.raises(PatchwordError, match="answers 401 for the key; check --label-studio-key"):
        wrong.read("/a.png")


BOMB = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "lol"}">' for n in range(10))
HOSTILE = {
    "document type": (f"<!DOCTYPE View>{BRUSH}", 422, "document type or entities"),
    "billion laughs": (f"<!DOCTYPE View [{BOMB}]><View>&a9;</View>", 422, "document type or entities"),
    "outer entity": ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>', 422, "document type"),
    "10 MB": (f"<View>{' ' * 10**7}</View>", 413, "10,000,013 bytes; 262,144 is the limit"),
    "not XML": ("<View>", 422, "not XML"),
    "other encoding": ('<?xml version="1.0" encoding="utf-16"?><View/>', 200, ""),
    "deep": ("<View>" * 20_000 + "</View>" * 20_000, 200, ""),
    "no text": ("\ud800", 422, "not text"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_interfaces_get_a_reason(client: TestClient, kind: str) -> None:
    config, status, told = HOSTILE[kind]
    for path, body in (("/setup", {"schema": config}), ("/predict", {"tasks": [], "label_config": config})):
        answer = client.post(path, content=json.dumps(body), headers={"Content-Type": "application/json"})
        assert answer.status_code == status, answer.text[:300]
        assert told in answer.text


def test_an_interface_is_read_as_label_studio_reads_it() -> None:
    config = f"""<View><Header value="hello"/>{PICTURE}<Image name="other" value="$more.image"/>
      <polygonlabels name="outline" toName="picture"><View><Label value="a &amp; b"/></View></polygonlabels>
      <BrushLabels name="mask" toName="other"><Label value="c"/><Label/></BrushLabels><Label value="lost"/>
      <BrushLabels name="empty" toName="picture"/>
      <BrushLabels name="nowhere" toName="text"><Label value="d"/></BrushLabels>
    </View>"""
    found = read_interface(config)
    assert [(each.name, each.image, each.labels) for each in found.controls] == [
        ("mask", "other", ("c",)),
        ("outline", "picture", ("a & b",)),
    ]
    assert found.fields == {"picture": "image", "other": "more.image"}
    theirs = LabelInterface(config)
    for control in found.controls:
        assert set(theirs.get_control(control.name).labels) == set(control.labels)


def test_polygons_are_drawn_where_an_interface_has_no_brush(client: TestClient) -> None:
    config = BRUSH.replace("BrushLabels", "PolygonLabels")
    (found,), (brushed,) = predict(client, DATA, config=config), predict(client, DATA)
    assert LabelInterface(config).validate_prediction(found, return_errors=True) == []
    masks = {region["value"]["brushlabels"][0]: painted(region) for region in brushed["result"]}
    drawn = {name: np.zeros(SIZE, dtype=bool) for name in masks}
    for region in found["result"]:
        points = np.array(region["value"]["points"]) * (SIZE[1] / 100, SIZE[0] / 100)
        drawn[region["value"]["polygonlabels"][0]] |= filled(points, size=SIZE)
    union = sum(np.count_nonzero(masks[name] | drawn[name]) for name in masks)
    assert sum(np.count_nonzero(masks[name] & drawn[name]) for name in masks) > 0.9 * union


SMART = BRUSH.replace(
    "</View>",
    f"""<KeyPointLabels name="point" toName="picture" smart="true">{LABELS}</KeyPointLabels>
    <RectangleLabels name="box" toName="picture" smart="true">{LABELS}</RectangleLabels></View>""",
)


def point(x: float, y: float, *, positive: bool = True, label: str = NAMES[1]) -> dict[str, Any]:
    """A click at pixels x, y as Label Studio sends it."""
    value = {"x": x / SIZE[1] * 100, "y": y / SIZE[0] * 100, "width": 0.3, "keypointlabels": [label]}
    return {"type": "keypointlabels", "to_name": "picture", "is_positive": positive, "value": value}


def box(left: float, top: float, right: float, bottom: float, *, label: str = NAMES[1]) -> dict[str, Any]:
    """A rectangle in percent."""
    value = {"x": left, "y": top, "width": right - left, "height": bottom - top, "rectanglelabels": [label]}
    return {"type": "rectanglelabels", "to_name": "picture", "value": value}


def test_clicks_and_boxes_are_answered_by_the_mask_generator(client: TestClient) -> None:
    generator = load_mask_generator(str(miniatures.SAM), device="cpu")
    pixels = np.array(Image.open(io.BytesIO(SCENE)).convert("RGB"))
    (embedding,) = generator.embed([to_tensor(pixels)])
    place: tuple[float, float, float, float] = (32.0, 24.0, 160.0, 120.0)
    for pointed, points, inside, area in (
        ([point(100, 120)], [(100, 120)], [True], None),
        ([point(100, 120), point(200, 60, positive=False)], [(100, 120), (200, 60)], [True, False], None),
        ([box(10, 10, 50, 50)], [], [], place),
        ([box(10, 10, 50, 50), point(100, 120)], [(100, 120)], [True], place),
    ):
        (found,) = predict(client, DATA, config=SMART, context={"result": pointed})
        mask, sure = generator.mask_at(embedding, points, labels=inside, box=area)
        (region,) = found["result"]
        np.testing.assert_array_equal(painted(region), mask)
        assert region["value"]["brushlabels"] == [NAMES[1]]
        assert found["score"] == round(sure, 4)
        assert LabelInterface(SMART).validate_prediction(found, return_errors=True) == []


def test_a_picture_is_fetched_and_encoded_once_for_several_clicks(client: TestClient, host: Host) -> None:
    host.asked.clear()
    for x in (40, 80, 120):
        (found,) = predict(client, "/data/upload/1/clicked.png", config=SMART, context={"result": [point(x, 100)]})
        assert found["result"]
    assert len(host.asked) == 1


@pytest.mark.parametrize(
    ("pointed", "told"),
    [
        ([point(9, 9, label="unknown")], "has the label 'unknown'"),
        ([{"type": "brushlabels", "value": {"x": 1, "y": 1}}], "'brushlabels'; points and rectangles"),
        ([{"type": "keypointlabels", "value": {"x": float("nan"), "y": 1}}], "finite"),
        ([{"type": "keypointlabels", "value": {"x": 1e300, "y": 1}}], "at most 100"),
        ([{"type": "keypoint", "value": {"x": 1, "y": 1}}], "without a label"),
        ([point(9, 9) | {"to_name": "other"}], "has the label"),
        ([3], "result.0"),
        ({"a": 1}, "list"),
        ([point(9, 9)] * 65, "64"),
    ],
)
def test_clicks_that_are_not_understood_get_a_reason(client: TestClient, pointed: object, told: str) -> None:
    (found,) = predict(client, DATA, config=SMART, context={"result": pointed})
    assert found["result"] == []
    assert told in found["error"]


def test_without_a_mask_generator_clicks_say_so(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchword.serving.studio.open_model", lambda *_, **__: next(toytown_models(ServeConfig())))
    with TestClient(create_studio_app(LabelStudioConfig(method="naclip")), base_url=HERE) as other:
        (found,) = predict(other, DATA, config=SMART, context={"result": [point(9, 9)]})
    assert "start the backend with --mask-generator" in found["error"]


@pytest.mark.parametrize("body", [b"{", b"[" * 100_000, b'{"tasks": {}}', b'{"tasks": [1]}', b"null", b'{"action": 1}'])
def test_broken_requests_are_refused(client: TestClient, body: bytes) -> None:
    for path in ("/predict", "/setup", "/webhook"):
        answer = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500 or (path == "/setup" and answer.status_code == 200), answer.text
    assert predict(client) == []
