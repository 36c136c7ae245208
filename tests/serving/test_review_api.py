"""The review's API: what it lists, what it writes down, what it refuses, and masks where somebody clicks."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from export_data import make_labels, scene
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from patchword.data.coco_masks import decode_segmentation
from patchword.data.folders import json_text
from patchword.data.run_lengths import run_lengths
from patchword.labeling.dataset import LabelledDataset
from patchword.labeling.quality.records import QualityParts, QualityRecord
from patchword.labeling.review import ReviewLog
from patchword.serving.review import review_router
from patchword.serving.review_desk import ReviewDesk
from small_world import Models, files_in

NAME = "Füße im Schnee.jpg"


def client_of(folder: Path, **values: Any) -> TestClient:
    app = FastAPI()
    app.include_router(review_router(ReviewDesk(folder, **values), None))
    return TestClient(app)


@pytest.fixture
def labels(tmp_path: Path) -> LabelledDataset:
    return make_labels(tmp_path)


@pytest.fixture
def client(labels: LabelledDataset, models: Models) -> TestClient:
    return client_of(labels.folder, mask_generator=models.sam, device="cpu")


def decide(client: TestClient, action: str, **values: Any) -> dict[str, Any]:
    answer = client.post("/v1/review/decisions", json={"image": NAME, "action": action, **values})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_server_without_labels_says_so() -> None:
    app = FastAPI()
    app.include_router(review_router(None, None))
    assert TestClient(app).get("/v1/review").json() == {"labels": None}
    assert TestClient(app).get("/v1/review/images").status_code == 404


def test_photographs_come_worst_first_and_by_filters(tmp_path: Path) -> None:
    labels = make_labels(tmp_path)
    parts = QualityParts(class_agreement=None, pixel_agreement=None, coverage=0.5, detection=0.5)
    unknown = dict.fromkeys(("margin", "stability", "entropy"))
    lines = [
        QualityRecord(
            name=item.record.name,
            score=score,
            parts=parts,
            contested=0,
            detection_entropy=0,
            size=(1, 1),
            pixels={},
            masks=(),
            **unknown,
        )
        for item, score in zip(labels, (0.9, 0.2, 0.5, 0.7, 0.1, 0.3), strict=True)
    ]
    (labels.folder / "quality.jsonl").write_text(
        "".join(json_text(line.model_dump(mode="json")) + "\n" for line in lines)
    )
    order = [name for _, name in sorted((line.score, line.name) for line in lines)]
    client = client_of(labels.folder)

    def names(**query: Any) -> list[str]:
        answer = client.get("/v1/review/images", params=query).json()
        return [each["name"] for each in answer["images"]]

    assert names() == order
    assert names(order="name") == sorted(order)
    assert names(below=0.25) == [line.name for line in sorted(lines, key=lambda each: each.score) if line.score <= 0.25]
    assert names(limit=2, offset=1) == order[1:3]
    client.post("/v1/review/decisions", json={"image": NAME, "action": "done"})
    client.post("/v1/review/decisions", json={"image": "a/x.jpg", "action": "accept", "mask": "0"})
    assert names(state="done") == [NAME]
    assert names(state="started") == ["a/x.jpg"]
    assert set(names(**{"class": "Bäume"})) == {item.record.name for item in labels if "Bäume" in item.record.classes}
    assert client.get("/v1/review").json()["progress"] == {"photographs": 6, "open": 4, "started": 1, "done": 1}


def test_every_decision_is_on_disk_when_the_answer_comes(client: TestClient, labels: LabelledDataset) -> None:
    before = files_in(labels.folder)
    size = labels[NAME].record.size
    assert size is not None
    square = np.zeros(size, dtype=bool)
    square[2:9, 3:11] = True
    done = [
        decide(client, "accept", mask="0"),
        decide(client, "rename", mask="1", class_name="Bäume"),
        decide(client, "replace", mask="2", rle={"size": list(size), "counts": [0, size[0] * size[1]]}),
        decide(client, "remove", mask="3"),
        decide(client, "reject", mask="4"),
        decide(client, "add", class_name="cat", rle=dict(run_lengths(square)), reviewer="Ann"),
    ]
    assert [each["number"] for each in done] == [1, 2, 3, 4, 5, 6]
    masks = {each["key"]: each for each in done[-1]["image"]["masks"]}
    changes = ["accepted", "renamed", "redrawn", "removed", "rejected", "added"]
    assert [masks[key]["change"] for key in ("0", "1", "2", "3", "4", "+6")] == changes
    assert masks["2"]["area"] == size[0] * size[1]
    assert masks["+6"]["decision"]["reviewer"] == "Ann"
    undone = decide(client, "undo", undoes=4)
    assert {each["key"]: each["change"] for each in undone["image"]["masks"]}["3"] == ""
    assert [each.action for each in ReviewLog(labels.folder).decisions()][-1] == "undo"
    assert {name: data for name, data in files_in(labels.folder).items() if name != "reviews.jsonl"} == before

    result = Image.open(io.BytesIO(client.get(f"/v1/review/results/{NAME}").content))
    reviewed = LabelledDataset.open(labels.folder).reviewed()[NAME].labels()
    colours = np.zeros((*size, 4), dtype=np.uint8)
    seen = reviewed.indices != 255
    colours[seen, :3] = reviewed.class_colours()[reviewed.indices[seen]]
    colours[seen, 3] = 255
    np.testing.assert_array_equal(np.array(result), colours)


def test_names_that_are_not_utf8_are_reviewed_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"na\xefve.png")
    labels = make_labels(tmp_path, {name: scene(0)})
    client = client_of(labels.folder)
    (listed,) = client.get("/v1/review/images").json()["images"]
    assert client.get(f"/v1/review/pictures/{quote(listed['name'])}").status_code == 200
    answer = client.post("/v1/review/decisions", json={"image": listed["name"], "action": "accept", "mask": "0"})
    assert answer.status_code == 201
    assert [each.image for each in ReviewLog(labels.folder).decisions()] == [name]
    reviewed = LabelledDataset.open(labels.folder).reviewed()
    assert reviewed.review is not None
    assert reviewed.review.changes == {"accepted": 1}


def test_the_second_person_is_told_of_a_conflict(client: TestClient) -> None:
    seen = client.get(f"/v1/review/images/{NAME}").json()["seen"]
    decide(client, "remove", mask="0", seen=seen, reviewer="Ann")
    second = decide(client, "rename", mask="0", class_name="sofa", seen=seen, reviewer="Bob")
    assert [(each["action"], each["reviewer"]) for each in second["conflicts"]] == [("remove", "Ann")]
    assert second["image"]["masks"][0]["change"] == "renamed"
    assert decide(client, "accept", mask="1", seen=seen)["conflicts"] == []


EMPTY = {"size": [37, 53], "counts": [37 * 53]}


@pytest.mark.parametrize(
    ("values", "status", "reason"),
    [
        ({"action": "accept", "mask": "17"}, 409, "no mask"),
        ({"action": "accept"}, 409, "no mask"),
        ({"action": "rename", "mask": "0", "class_name": "dragon"}, 422, "no class"),
        ({"action": "add", "class_name": "cat"}, 422, "cannot be read"),
        ({"action": "add", "class_name": "cat", "rle": EMPTY}, 422, "is empty"),
        (
            {"action": "add", "class_name": "cat", "rle": {"size": [1, 1], "counts": [0, 1]}},
            422,
            "the photograph is 53 x 37",
        ),
        ({"action": "add", "class_name": "cat", "rle": {"size": [37, 53], "counts": "\x00"}}, 422, "damaged"),
        ({"action": "add", "class_name": "cat", "rle": {"size": [37, 53], "counts": [1e30]}}, 422, ""),
        ({"action": "undo", "undoes": 5}, 409, "is not there"),
        ({"action": "fly"}, 422, ""),
        ({"action": "done", "image": "../labels/dataset.json"}, 404, "no photograph"),
        ({"action": "done", "path": "/etc"}, 422, ""),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_trace(
    client: TestClient, labels: LabelledDataset, values: dict[str, Any], status: int, reason: str
) -> None:
    answer = client.post("/v1/review/decisions", json={"image": NAME, **values})
    assert (answer.status_code, reason in answer.text) == (status, True), answer.text
    assert ReviewLog(labels.folder).decisions() == ()


ESCAPES = ["../photos/a/x.jpg", "..%2Fphotos%2Fa%2Fx.jpg", "/etc/passwd", "%2Fetc%2Fpasswd", "x" * 5000]


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_that_the_labels_do_not_have_opens_nothing(client: TestClient, name: str) -> None:
    for place in ("images", "pictures", "results"):
        assert client.get(f"/v1/review/{place}/{name}").status_code == 404


def test_pictures_are_the_photographs(client: TestClient, labels: LabelledDataset) -> None:
    answer = client.get("/v1/review/pictures/a/x.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == Image.open(labels["a/x.jpg"].image).size
    Image.new("RGB", (9, 9)).save(labels["b/x.jpg"].image)
    assert client.get("/v1/review/pictures/b/x.jpg").status_code == 409
    labels["b/x.jpg"].image.unlink()
    assert client.get("/v1/review/pictures/b/x.jpg").status_code == 422


def test_clicks_and_boxes_are_answered_with_masks(client: TestClient) -> None:
    asked = {"image": NAME, "points": [{"x": 20, "y": 12}, {"x": 3, "y": 3, "inside": False}]}
    answer = client.post("/v1/review/masks", json=asked).json()
    mask, _ = decode_segmentation(answer["rle"], size=(37, 53))
    assert mask.shape == (37, 53)
    assert client.post("/v1/review/masks", json={"image": NAME, "box": [1, 2, 30, 20]}).status_code == 200
    for wrong in ({}, {"points": [{"x": 54, "y": 3}]}, {"box": [0, 0, 99, 9]}, {"points": [{"x": "nan", "y": 1}]}):
        assert client.post("/v1/review/masks", json={"image": NAME, **wrong}).status_code == 422
    assert client.post("/v1/review/masks", json={"image": "nobody.jpg"}).status_code == 404
