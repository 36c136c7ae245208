"""The API answers as the segmenter does, keeps what it has seen of an image, and says what it counts."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from starlette.testclient import TestClient

from patchword.segmentation.opening import open_segmenter
from patchword.toytown import miniatures

CLASSES = ["tree", "house; home", "road"]


def pixels_of(png: bytes) -> Any:
    return np.array(Image.open(io.BytesIO(png)))


def counted(client: TestClient, name: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


def remembered(client: TestClient, scene: bytes) -> str:
    answer = client.post("/v1/images", files={"file": ("../../etc/passwd", scene, "image/png")})
    assert answer.status_code == 201, answer.text
    assert (answer.json()["width"], answer.json()["height"]) == (64, 48)
    return str(answer.json()["image"])


@pytest.fixture(scope="module")
def expected(scene: bytes) -> Any:
    """What the segmenter itself finds."""
    segmenter = open_segmenter(
        miniatures.SEGMENTER, encoder=miniatures.DINO, text_encoder=miniatures.CLIP, device="cpu"
    )
    return segmenter.segment(pixels_of(scene), classes=CLASSES, background=["sky"])


def test_an_image_is_segmented_as_in_python(client: TestClient, scene: bytes, expected: Any) -> None:
    image = remembered(client, scene)
    found = client.post(f"/v1/images/{image}/segment", json={"classes": CLASSES, "background": ["sky"]}).json()
    labels, confidence = (pixels_of(base64.b64decode(found[name])) for name in ("labels", "confidence"))
    assert np.array_equal(labels, expected.mask)
    assert np.abs(confidence / 255 - expected.confidence).max() <= 0.5 / 255 + 1e-6
    assert [each["name"] for each in found["classes"]] == ["tree", "house", "road", "background"]
    assert found["classes"][1]["words"] == ["house", "home"]
    for each in found["classes"]:
        inside = expected.mask == each["index"]
        assert each["share"] == pytest.approx(inside.mean(), abs=1e-6)
        if inside.any():
            assert each["confidence"] == pytest.approx(expected.confidence[inside].mean(), abs=1e-5)


@pytest.mark.parametrize("kind", ["form", "json"])
def test_one_request_gives_a_png_or_run_lengths(client: TestClient, scene: bytes, expected: Any, kind: str) -> None:
    words: dict[str, Any] = {"classes": CLASSES, "background": ["sky"]}
    form: dict[str, Any] = {"files": {"file": ("a.png", scene, "image/png")}, "data": words}
    asked = form if kind == "form" else {"json": {**words, "image": base64.b64encode(scene).decode()}}
    picture = client.post("/v1/segment", headers={"Accept": "image/png"}, **asked)
    assert picture.headers["content-type"] == "image/png"
    assert np.array_equal(pixels_of(picture.content), expected.mask)
    found = client.post("/v1/segment", params={"format": "rle"}, **asked).json()
    assert found.get("labels") is None
    for mask in found["masks"]:
        rle = {"size": mask["size"], "counts": mask["counts"].encode()}
        assert np.array_equal(coco_mask.decode(rle).astype(bool), expected.mask == mask["index"])


def test_other_words_need_no_forward_pass_and_another_size_does(client: TestClient, scene: bytes) -> None:
    image = remembered(client, scene)
    address = f"/v1/images/{image}/segment"
    before = counted(client, "patchword_forward_passes_total")
    asked = [{}, {"classes": ["cow"]}, {"settings": {"threshold": 0.5}}, {"settings": {"image_size": 64}}]
    assert [client.post(address, json=each).json()["encoded"] for each in asked] == [True, False, False, True]
    assert counted(client, "patchword_forward_passes_total") - before == 2


def test_examples_are_pictures(client: TestClient) -> None:
    listed = client.get("/v1/models").json()
    assert listed["models"][0]["id"] == "default"
    assert {"name": "grass", "words": ["grass", "meadow"]}.items() <= listed["models"][0]["classes"][1].items()
    assert len(listed["examples"]) == 4
    picture = client.get(listed["examples"][0]["url"])
    assert pixels_of(picture.content).shape == (240, 320, 3)


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({"model": "none"}, 422, "model 'none' is unknown"),
        ({"classes": []}, 422, "classes is empty"),
        ({"classes": ["a", "a"]}, 422, "'a'"),
        ({"classes": ["/etc/passwd"], "background": ["a"] * 300}, 422, "250 is the limit"),
        ({"settings": {"jbu": {"radius": 99}}}, 422, "setting 'jbu' is unknown"),
        ({"settings": {"image_size": 5000}}, 422, "1024 is the limit"),
        ({"settings": {"window": 8, "stride": 8, "image_size": 1024}}, 422, "1024 and 4,194,304 are the limits"),
        ({"settings": {"threshold": "high"}}, 422, "'threshold' is 'high'"),
        ({"colour": 1}, 422, "colour"),
        ([], 422, "body"),
    ],
)
def test_mistakes_are_a_reason(client: TestClient, scene: bytes, asked: Any, status: int, told: str) -> None:
    answer = client.post(f"/v1/images/{remembered(client, scene)}/segment", json=asked)
    assert answer.status_code == status
    assert told in answer.json()["error"]["reason"]


def test_class_names_are_never_paths(client: TestClient, scene: bytes) -> None:
    address = f"/v1/images/{remembered(client, scene)}/segment"
    asked = ["/etc/passwd", "README.md"]  # both are there, the second in the folder that tests run in
    found = client.post(address, json={"classes": asked}).json()
    assert [each["name"] for each in found["classes"]] == asked


def test_forgotten_images_and_unknown_addresses_are_404(client: TestClient) -> None:
    for answer in (client.post("/v1/images/none/segment", json={}), client.get("/examples/none.png")):
        assert answer.status_code == 404
        assert answer.json()["error"]["reason"]
    assert client.get("/none").json() == {"error": {"reason": "Not Found"}}
