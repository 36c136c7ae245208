"""The public functions from Python."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import patchword as pw
from patchword.alignment.api import plan_align
from patchword.alignment.data import AlignmentData
from patchword.config.align import AlignConfig, AlignSettings
from patchword.config.shared import read_vocabulary
from patchword.errors import PatchwordError, PatchwordWarning
from patchword.labeling.quality.report import write_report
from patchword.models.loading import Loader
from patchword.models.registry import ModelName
from small_world import ALIGN_SETTINGS, LABEL_SETTINGS, Models, files_in, make_photos, pixels


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def labels(photos: Path, models: Models, tmp_path_factory: pytest.TempPathFactory) -> pw.LabelledDataset:
    return pw.label(
        photos,
        classes=["cat", "dog", "sofa; couch"],
        background=["sky"],
        out=tmp_path_factory.mktemp("labels") / "labels",
        image_text=models.clip,
        mask_generator=models.sam,
        settings=LABEL_SETTINGS,
        quiet=True,
    )


@pytest.fixture(scope="module")
def segmenter(labels: pw.LabelledDataset, models: Models, tmp_path_factory: pytest.TempPathFactory) -> pw.Segmenter:
    out = tmp_path_factory.mktemp("model") / "model"
    return pw.align(labels, out=out, encoder=models.dinov2, settings=ALIGN_SETTINGS, cache=out.parent / "cache")


def test_the_way_of_the_readme(
    labels: pw.LabelledDataset, segmenter: pw.Segmenter, photos: Path, tmp_path: Path
) -> None:
    assert labels.vocabulary.background == ("sky",)
    assert labels.settings.grids == (1, 2)
    result = segmenter.segment(photos / "0.png", classes=["cat", "lamp"])
    result.overlay().save(tmp_path / "overlay.png")
    assert result.label_map.indices.shape == (24, 32)
    report = pw.evaluate(photos, masks=labels.folder / "masks", classes=labels.vocabulary, model=segmenter)
    assert report.images == 2
    assert report.miou is not None


def test_a_model_loads_again_and_says_the_same(
    segmenter: pw.Segmenter, photos: Path, labels: pw.LabelledDataset, tmp_path: Path
) -> None:
    folder = segmenter.save_pretrained(tmp_path / "model")
    again = pw.load(folder)
    first, second = (model.segment(photos / "1.png", classes="cat, lamp") for model in (segmenter, again))
    np.testing.assert_array_equal(first.label_map.indices, second.label_map.indices)
    np.testing.assert_array_equal(first.confidence, second.confidence)


def test_segment_writes_a_folder_for_the_classes_of_the_training(
    segmenter: pw.Segmenter, photos: Path, tmp_path: Path
) -> None:
    done = pw.segment(photos, model=segmenter, out=tmp_path / "out", background=[], limit=1, quiet=True)
    assert done.names == ("0.png",)
    assert done.failed == {}
    label_map = pw.LabelMap.load(tmp_path / "out/masks/0.png.png", names=("cat", "dog", "sofa"))
    assert label_map.indices.shape == (24, 32)


def test_loaded_models_are_taken_as_they_are(
    photos: Path, models: Models, labels: pw.LabelledDataset, tmp_path: Path
) -> None:
    clip, sam = pw.load_image_text(str(models.clip)), pw.load_mask_generator(str(models.sam))
    again = pw.label(
        photos,
        classes=labels.vocabulary,
        out=tmp_path / "labels",
        image_text=clip,
        mask_generator=sam,
        settings=labels.settings,
        quiet=True,
    )
    first, second = (
        {n: d for n, d in files_in(one.folder).items() if n.startswith("masks")} for one in (labels, again)
    )
    assert first == second
    assert Loader().image_text(clip) is clip


def test_results_inside_the_photographs_folder_are_no_photographs(segmenter: pw.Segmenter, tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    for _ in range(2):
        done = pw.segment(photos, model=segmenter, out=photos / "out", overwrite=True, quiet=True)
        assert done.names == ("0.png", "1.png")


def test_exact_masks_train_as_well_once_a_text_encoder_is_named(photos: Path, models: Models, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("0.png", "1.png"):
        Image.fromarray(pixels(seed=3)[:, :, 0] % 2).save(tmp_path / "masks" / name)
    exact = AlignmentData.from_folders(photos, masks=tmp_path / "masks", vocabulary=pw.Vocabulary.of("cat, dog"))
    options = {"out": tmp_path / "model", "encoder": models.dinov2, "settings": ALIGN_SETTINGS, "quiet": True}
    with pytest.raises(PatchwordError, match="pass text_encoder"):
        pw.align(exact, **options)
    segmenter = pw.align(exact, **options, text_encoder=models.clip)
    assert segmenter.config.training.images == 2


def test_evaluation_with_background(
    segmenter: pw.Segmenter, labels: pw.LabelledDataset, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    for name in ("0.png", "1.png"):
        Image.fromarray(np.zeros((24, 32), dtype=np.uint8)).save(tmp_path / "masks" / name)
    common = {"masks": tmp_path / "masks", "zero_is": "background", "quiet": True}
    with pytest.raises(PatchwordError, match="neither words for it nor a threshold"):
        pw.evaluate(photos, **common, classes="cat, dog", model=segmenter)
    report = pw.evaluate(photos, **common, classes="cat, dog", background=["sky", "wall"], model=segmenter)
    assert [entry.name for entry in report.classes] == ["background", "cat", "dog"]
    assert report.pixels == report.classes[0].truth_pixels == 2 * 24 * 32
    assert report.coverage == 1.0
    done = pw.segment(
        photos, model=segmenter, classes="cat, dog", background=["sky", "wall"], out=tmp_path / "out", quiet=True
    )
    again = pw.evaluate(photos, **common, classes="cat, dog", predictions=done.folder)
    assert again.classes == report.classes


def test_evaluation_needs_one_thing_to_evaluate(
    photos: Path, labels: pw.LabelledDataset, segmenter: pw.Segmenter
) -> None:
    masks = labels.folder / "masks"
    with pytest.raises(PatchwordError, match="one of them"):
        pw.evaluate(photos, masks=masks, classes="cat")
    with pytest.raises(PatchwordError, match="one of them"):
        pw.evaluate(photos, masks=masks, classes="cat", model=segmenter, predictions=labels.folder)


def test_a_dense_segmenter_needs_classes(models: Models, photos: Path, tmp_path: Path) -> None:
    dense = pw.DenseSegmenter(pw.load_image_text(str(models.clip)))
    with pytest.raises(PatchwordError, match="classes are needed"):
        pw.segment(photos, model=dense, out=tmp_path / "out")
    done = pw.segment(photos, model=dense, out=tmp_path / "out", classes="cat, dog", quiet=True)
    assert done.failed == {}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a/b", ModelName("a/b")),
        ("a/b@main", ModelName("a/b", "main")),
        (Path("folder"), ModelName("folder")),
    ],
)
def test_model_names(given: str | Path, expected: ModelName) -> None:
    assert ModelName.parse(given) == expected
    assert str(expected) == str(given)


def test_a_folder_with_an_at_sign_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model@home"
    folder.mkdir()
    assert ModelName.parse(folder) == ModelName(str(folder))


@pytest.mark.parametrize("given", ["", "@main", "a/b@"])
def test_model_names_that_are_none(given: str) -> None:
    with pytest.raises(PatchwordError, match="must be a name"):
        ModelName.parse(given)


def test_background_words_given_or_not(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n@background: sky\n")
    read = {
        given: read_vocabulary(tmp_path / "classes.txt", background=None if given is None else list(given)).background
        for given in (None, (), ("wall",))
    }
    assert read == {None: ("sky",), (): (), ("wall",): ("wall",)}


@pytest.mark.parametrize("kind", ["path", "string", "object"])
def test_labels_are_exported_from_a_folder_or_an_object(kind: str, labels: pw.LabelledDataset, tmp_path: Path) -> None:
    given = {"path": labels.folder, "string": f"{labels.folder}/", "object": labels}[kind]
    summary = pw.export_labels(
        given, format="coco", out=tmp_path / "labels.json", settings={"shapes": "polygons"}, quiet=True
    )
    assert summary.images == 2
    assert summary.polygon_loss is not None, "the setting was taken"


@pytest.mark.parametrize("kind", ["list", "text", "file", "object"])
def test_labels_are_imported_with_classes_of_any_kind(kind: str, labels: pw.LabelledDataset, tmp_path: Path) -> None:
    pw.export_labels(labels, format="coco", out=tmp_path / "labels.json", quiet=True)
    (tmp_path / "classes.txt").write_text("cat\ndog\nsofa\n")
    kinds: dict[str, Any] = {
        "list": ["cat", "dog", "sofa"],
        "text": "cat, dog, sofa",
        "file": tmp_path / "classes.txt",
        "object": pw.Vocabulary.of("cat, dog, sofa"),
    }
    where: dict[str, Any] = {"format": "coco", "photos": labels.root, "quiet": True}
    back = pw.import_labels(str(tmp_path / "labels.json"), **where, classes=kinds[kind], out=tmp_path / "back")
    assert back.vocabulary.names == ("cat", "dog", "sofa")
    older = pw.import_labels(tmp_path / "labels.json", **where, vocabulary=kinds[kind], out=tmp_path / "older")
    assert older.vocabulary == back.vocabulary
    with pytest.raises(PatchwordError, match="import needs classes"):
        pw.import_labels(tmp_path / "labels.json", **where, out=tmp_path / "none")


def test_no_classes_are_those_of_the_training(segmenter: pw.Segmenter, photos: Path) -> None:
    photo = photos / "0.png"
    expected = segmenter.segment(photo, classes=segmenter.config.parsed_vocabulary())
    for found in (
        segmenter.segment(photo),
        segmenter.segment(photo, classes=None),
        segmenter.segment_batch([photo])[0],
    ):
        assert isinstance(found, type(expected))
        assert found.label_map.names == ("cat", "dog", "sofa", "background")
        np.testing.assert_array_equal(found.label_map.indices, expected.label_map.indices)
    assert segmenter.segment(photo, background=[]).label_map.names == ("cat", "dog", "sofa")
    with pytest.raises(PatchwordError, match="this segmenter was trained on none; name some"):
        pw.DenseSegmenter(segmenter.text).segment(photo)


def test_results_show_themselves(
    labels: pw.LabelledDataset, segmenter: pw.Segmenter, photos: Path, tmp_path: Path
) -> None:
    result = segmenter.segment(photos / "0.png")
    assert result.mask.shape == (24, 32)
    assert result["background"].dtype == bool
    with pytest.raises(PatchwordError, match=r"^unknown class 'dgo' \(choose from cat, dog, sofa, background\)$"):
        result["dgo"]
    report = pw.evaluate(photos, masks=labels.folder / "masks", classes=labels.vocabulary, model=segmenter, quiet=True)
    folder = pw.segment(photos, model=segmenter, out=tmp_path / "masks", quiet=True)
    shown: dict[str, Any] = {
        "SegmentationResult(32 x 24 pixels: ": result,
        f"LabelledDataset('{labels.folder}': 2 photographs; 3 classes: cat, dog, sofa": labels,
        "LabelledItem('0.png': ": labels["0.png"],
        "EvaluationReport(2 images: mIoU ": report,
        "QualitySummary(2 photographs, 2 with labels: mean score 0.": write_report(labels.folder),
        f"SegmentedFolder('{tmp_path / 'masks'}': 2 images)": folder,
    }
    for text, value in shown.items():
        assert repr(value).startswith(text)
        assert len(repr(value)) < 300
        html = value._repr_html_() if hasattr(value, "_repr_html_") else "<div></div>"
        assert html.count("<div") == html.count("</div")
        assert "http" not in html


def test_results_are_taken_as_paths(labels: pw.LabelledDataset, segmenter: pw.Segmenter, tmp_path: Path) -> None:
    folder = pw.segment(labels.root, model=segmenter, background=[], out=tmp_path / "masks", quiet=True)
    for found, path in ((labels, labels.folder), (folder, tmp_path / "masks")):
        scores = [
            pw.evaluate(labels.root, masks=labels.folder / "masks", classes=labels.vocabulary, predictions=each).miou
            for each in (found, path, str(path))
        ]
        assert scores[0] == scores[1] == scores[2] is not None


def test_a_data_set_is_gone_through(labels: pw.LabelledDataset) -> None:
    assert [item.record.name for item in labels] == ["0.png", "1.png"]
    assert labels[-1] is labels["1.png"]
    assert labels[0].labels().names == ("cat", "dog", "sofa")
    assert Image.open(io.BytesIO(labels[0]._repr_png_())).width >= 32
    with pytest.raises(PatchwordError, match=r"has no labels of '2\.png'; its photographs have names such as '0\.png'"):
        labels["2.png"]


@pytest.mark.parametrize("classes", [None, 3, [3], {0: "cat"}])
def test_classes_that_are_none_are_told(classes: Any, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="classes "):
        pw.label(photos, classes=classes, out=tmp_path / "labels")
    with pytest.raises(PatchwordError, match="classes "):
        pw.evaluate(photos, masks=photos, classes=classes, predictions=photos)


def test_every_pixel_with_a_class_is_said(segmenter: pw.Segmenter, photos: Path) -> None:
    photo = photos / "0.png"
    with pytest.warns(PatchwordWarning, match="every pixel becomes 'cat'") as one:
        segmenter.segment(photo, classes=["cat"])
    assert one[0].filename == __file__, "the caller's line is shown"
    with pytest.warns(PatchwordWarning, match="2 classes: cat, lamp: every pixel gets one of them"):
        segmenter.segment(photo, classes=["cat", "lamp"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", PatchwordWarning)
        segmenter.segment(photo)
        segmenter.segment(photo, background=[])
        segmenter.segment(photo, classes=["cat", "background"], background=[])
        segmenter.segment(photo, classes=["cat"], background=["sky"])
        segmenter.segment(photo, classes=["cat"], settings={"background_threshold": 0.3})
        segmenter.segment(photo, classes=["cat"], settings={"threshold": 0.3})


def test_empty_paths_are_refused(segmenter: pw.Segmenter, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    calls: dict[str, Any] = {
        "photos": lambda: pw.label("", classes="cat", out=out),
        "out": lambda: pw.label(photos, classes="cat", out=""),
        "labels": lambda: pw.align("", out=out),
        "model": lambda: pw.segment(photos, model="", out=out),
        "masks": lambda: pw.evaluate(photos, masks="", classes="cat", model=segmenter),
    }
    for name, call in calls.items():
        with pytest.raises(PatchwordError, match=f"{name} is empty"):
            call()
    with pytest.raises(PatchwordError, match="labels is empty"):
        pw.export_labels("", format="voc", out=out)


class TestWhatLabelsCarry:
    @staticmethod
    def label(out: Path, photos: Path, models: Models, **asked: object) -> pw.LabelledDataset:
        asked = {"image_text": models.clip, "mask_generator": models.sam, **asked}
        return pw.label(photos, classes="cat", out=out, settings=LABEL_SETTINGS, quiet=True, **asked)

    @staticmethod
    def vision_encoder(labels: Path, **asked: object) -> str:
        return plan_align(labels, AlignConfig(out=labels / "model", **asked)).models["vision encoder"].split(" ")[0]

    def test_align_takes_the_encoder_of_their_preset(self, photos: Path, models: Models, tmp_path: Path) -> None:
        labels = self.label(tmp_path / "labels", photos, models, preset="fast").folder
        assert self.vision_encoder(labels) == "facebook/dinov2-small"
        assert self.vision_encoder(labels, preset="balanced") == "facebook/dinov2-with-registers-base"
        assert self.vision_encoder(labels, encoder="facebook/dinov2-giant") == "facebook/dinov2-giant"
        self.label(labels, photos, models, preset="fast", resume=True)
        assert self.vision_encoder(labels) == "facebook/dinov2-small"

    def test_align_takes_the_encoder_that_they_name(self, photos: Path, models: Models, tmp_path: Path) -> None:
        labels = self.label(tmp_path / "labels", photos, models, encoder=models.dinov2)
        assert self.vision_encoder(labels.folder) == str(models.dinov2)
        assert self.vision_encoder(labels.folder, preset="fast") == "facebook/dinov2-small"
        made = pw.align(labels, out=tmp_path / "model", settings=ALIGN_SETTINGS, device="cpu", quiet=True)
        assert made.config.encoder.name == str(models.dinov2)

    def test_align_takes_the_settings_of_the_paper(self, photos: Path, models: Models, tmp_path: Path) -> None:
        def settings(**asked: object) -> dict[str, object]:
            return plan_align(labels, AlignConfig(out=tmp_path / "model", encoder=models.dinov2, **asked)).settings

        labels = self.label(tmp_path / "labels", photos, models, preset="paper").folder
        paper = AlignSettings(schedule="paper", mask_weight=0, label_smoothing=0).model_dump(mode="json")
        assert settings() == paper
        assert settings(preset="balanced") == AlignSettings().model_dump(mode="json")
        assert settings(settings={"mask_weight": 2.0}) == {**paper, "mask_weight": 2.0}

    def test_labels_of_an_earlier_version_open(self, photos: Path, models: Models, tmp_path: Path) -> None:
        labels = self.label(tmp_path / "labels", photos, models, preset="fast").folder
        record = json.loads((labels / "dataset.json").read_text())
        assert (record.pop("preset"), record.pop("encoder")) == ("fast", None)
        (labels / "dataset.json").write_text(json.dumps(record))
        assert self.vision_encoder(labels) == "facebook/dinov2-with-registers-base"
        self.label(labels, photos, models, preset="fast", resume=True)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"encoder": "/no/such"}, "no model folder /no/such"),
            ({"mask_generator": "./absent"}, "no model folder ./absent"),
            ({"mask_generator": "clip"}, "clip"),
        ],
    )
    def test_a_model_that_cannot_be_is_refused_before_anything_is_loaded(
        self,
        wrong: dict[str, str],
        message: str,
        photos: Path,
        models: Models,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def load(*arguments: object, **keywords: object) -> None:
            raise AssertionError("nothing is to be loaded")

        monkeypatch.setattr(Loader, "image_text", load)
        wrong = {name: str(models.clip) if value == "clip" else value for name, value in wrong.items()}
        with pytest.raises(PatchwordError, match=re.escape(message)):
            self.label(tmp_path / "labels", photos, models, **wrong)
        assert not (tmp_path / "labels").exists()
