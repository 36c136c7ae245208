"""A segmenter as an ONNX file: it says what torch says, in patchword and in the lines of docs/deploy.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnx_world
import onnxruntime
import pytest
import torch
from onnx_world import CLASSES
from PIL import Image
from torch.nn import functional

from patchword import __version__
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError
from patchword.export.onnx import run as export_run
from patchword.export.onnx.facts import Agreement, open_session, parse_facts, run_patches
from patchword.export.onnx.head import parse_head
from patchword.export.onnx.run import OnnxSummary, agreement, export_onnx, quantise
from patchword.export.text_embeddings import export_text_embeddings
from patchword.models.text_embeddings import load_stored_text
from patchword.segmentation.dense import DenseSegmenter
from patchword.segmentation.onnx_segmenter import load_onnx_segmenter
from patchword.segmentation.opening import load, open_segmenter
from patchword.segmentation.result import SegmentationResult
from small_world import must, pixels, run

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"
PHOTOGRAPHS = [pixels(seed=3, height=50, width=37), pixels(seed=4, height=31, width=64)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_dinov2: Path, tiny_clip: Path) -> Path:
    return onnx_world.make_segmenter(tmp_path_factory.mktemp("m") / "model", encoder=tiny_dinov2, text=tiny_clip)


@pytest.fixture(scope="module")
def exported(model: Path) -> OnnxSummary:
    return export_onnx(model, out=model.parent / "model.onnx", settings={"values_at_once": 2000})


@pytest.fixture(scope="module")
def words(model: Path) -> Path:
    return export_text_embeddings(model, out=model.parent / "classes.npz").path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    for number, photograph in enumerate(PHOTOGRAPHS):
        Image.fromarray(photograph).save(folder / f"{number}.png")
    return folder


def check_same(found: SegmentationResult | PatchwordError, expected: SegmentationResult) -> None:
    """Equal label maps but for ties, equal confidence."""
    assert isinstance(found, SegmentationResult)
    assert found.label_map.names == expected.label_map.names
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    assert (found.label_map.indices != expected.label_map.indices).mean() < 1e-3


@pytest.mark.parametrize("classes", [None, "cat, dog", "cat\nlamp; light\ntable\n@background: wall"])
def test_segments_as_torch_does(model: Path, exported: OnnxSummary, classes: str | None) -> None:
    by_torch, by_onnx = load(model, device="cpu"), open_segmenter(exported.path)
    asked = CLASSES if classes is None else classes
    results = by_onnx.segment_batch(PHOTOGRAPHS, classes=asked)
    expected = by_torch.segment_batch(PHOTOGRAPHS, classes=asked)
    for result, torchs in zip(results, expected, strict=True):
        assert isinstance(torchs, SegmentationResult)
        assert len(np.unique(torchs.label_map.indices)) > 1  # a map of one class would say little
        check_same(result, torchs)


def test_windows_and_sizes_are_settings_of_an_onnx_file_too(model: Path, exported: OnnxSummary) -> None:
    settings = {"image_size": 64, "window": 32, "stride": 16, "join": "logits"}
    expected = load(model, device="cpu").segment(PHOTOGRAPHS[0], classes=CLASSES, settings=settings)
    check_same(open_segmenter(exported.path).segment(PHOTOGRAPHS[0], classes=CLASSES, settings=settings), expected)


def test_an_image_is_encoded_once_for_all_words(exported: OnnxSummary) -> None:
    segmenter = open_segmenter(exported.path)
    assert isinstance(segmenter, DenseSegmenter)
    encoded = segmenter.encode(PHOTOGRAPHS[0])
    for classes in (CLASSES, "cat, dog"):
        found, expected = (segmenter.segment(image, classes=classes) for image in (encoded, PHOTOGRAPHS[0]))
        assert found.label_map.indices.tobytes() == expected.label_map.indices.tobytes()
        assert found.confidence.tobytes() == expected.confidence.tobytes()


def test_describes_the_models_that_it_came_from(model: Path, exported: OnnxSummary) -> None:
    by_torch, by_onnx = load(model, device="cpu").describe(), open_segmenter(exported.path).describe()
    assert by_onnx.pop("kind") == "onnx"
    assert by_onnx.pop("precision") == "float32"
    assert by_onnx.pop("opset") == 20
    del by_torch["kind"]
    assert by_onnx == by_torch


def test_the_file_says_what_it_is_and_nothing_of_this_machine(model: Path, exported: OnnxSummary) -> None:
    data = exported.path.read_bytes()
    assert b"site-packages" not in data
    assert b"graph.py" not in data
    proto = onnx.load(exported.path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 20)]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    facts = parse_facts(metadata, place="here")
    config = load(model, device="cpu").config
    assert facts == exported.facts
    assert (facts.encoder, facts.text_encoder, facts.module) == (config.encoder, config.text_encoder, config.module)
    assert (facts.image_size, facts.patch_size, facts.temperature) == (40, 8, 0.07)
    assert facts.vocabulary_hash == config.parsed_vocabulary().hash
    assert facts.versions["patchword"] == __version__
    assert facts.largest_difference < 1e-5
    assert sorted(path.name for path in exported.path.parent.glob("*.onnx*")) == ["model.onnx"]


@pytest.mark.parametrize("opset", range(18, 24))
def test_the_words_side_against_all_scores_at_once(opset: int) -> None:
    runtime = pytest.importorskip("onnxruntime")
    head = parse_head(opset=opset, temperature=0.05, values_at_once=700)
    session = runtime.InferenceSession(head.SerializeToString())
    generator = torch.Generator().manual_seed(opset)
    for batch, grid, count, size in ((1, (5, 7), 6, (61, 83)), (3, (9, 4), 2, (100, 37)), (2, (3, 1), 1, (7, 5))):
        patches = functional.normalize(torch.randn(batch, 8, *grid, generator=generator), dim=1)
        vectors = functional.normalize(torch.randn(count + 2, 8, generator=generator), dim=1)
        class_of = torch.tensor([0, *range(count), count - 1])
        words = torch.einsum("nd,bdyx->bnyx", vectors, patches)
        scores = torch.stack([words[:, class_of == each].amax(dim=1) for each in range(count)], dim=1)
        full = functional.interpolate(scores, size, mode="bilinear")
        given = {"patches": patches, "vectors": vectors, "class_of": class_of, "size": torch.tensor(size)}
        classes, confidence, on_patches = session.run(None, {name: value.numpy() for name, value in given.items()})
        assert classes.dtype == np.int32
        assert (classes != full.argmax(dim=1).numpy()).mean() < 1e-3
        np.testing.assert_allclose(confidence, (full / 0.05).softmax(dim=1).amax(dim=1), atol=1e-5)
        np.testing.assert_allclose(on_patches, scores, atol=1e-6)


def test_the_page_without_torch(
    model: Path, exported: OnnxSummary, words: Path, photographs: Path, tmp_path: Path
) -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    absent = ["torch", "transformers", "patchword", "onnx", "safetensors", "pydantic"]
    (tmp_path / "page.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({absent}))\n{script}", encoding="utf-8"
    )
    arguments = [exported.path, words, photographs / "0.png", tmp_path / "mask.png"]
    command = [sys.executable, "page.py", *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    segmenter = load(model, device="cpu")
    expected = segmenter.segment(photographs / "0.png", classes=CLASSES, settings={"refine": "none"}).label_map
    mask = np.array(Image.open(tmp_path / "mask.png"))
    assert (mask == expected.indices).mean() > 0.99
    shares = dict(line.split(": ") for line in done.stdout.splitlines())
    assert shares == {
        expected.names[index]: f"{np.mean(mask == index):.1%}" for index in np.unique(mask)
    }  # the background among them, by its name


def test_by_the_commands(model: Path, exported: OnnxSummary, photographs: Path, tmp_path: Path) -> None:
    made = must(
        run("export", model, "--format", "text-vectors", "--classes", "cat, dog; puppy", "-o", tmp_path / "c.npz")
    )
    assert re.search(r"classes\s+2\n", made.out)
    assert re.search(r"words\s+3\n", made.out)
    must(
        run(
            *("segment", photographs, "--model", exported.path, "-o", tmp_path / "out", "--device", "cpu", "-q"),
            *("--text-encoder", tmp_path / "c.npz"),
        )
    )
    by_torch = load(model, device="cpu")
    for number in range(2):
        mask = LabelMap.load(tmp_path / "out" / "masks" / f"{number}.png.png", names=("cat", "dog"))
        expected = by_torch.segment(photographs / f"{number}.png", classes="cat, dog; puppy").label_map
        assert (mask.indices != expected.indices).mean() < 1e-3
    assert json.loads((tmp_path / "out" / "segment.json").read_text())["segmenter"]["kind"] == "onnx"
    judged = must(
        run(
            *("evaluate", photographs, "--masks", tmp_path / "out" / "masks", "--classes", "cat, dog; puppy", "--json"),
            *("--model", exported.path, "--text-encoder", tmp_path / "c.npz", "--device", "cpu", "-q"),
        )
    )
    assert json.loads(judged.out)["miou"] == 1


def test_export_says_what_it_wrote(
    model: Path, exported: OnnxSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def export(folder: Path, **options: Any) -> OnnxSummary:
        asked.update(options, model=folder)
        return exported

    monkeypatch.setattr(export_run, "export_onnx", export)
    command = ["export", model, "--format", "onnx", "-o", tmp_path / "m.onnx", "--opset", 19, "--int8"]
    said = must(run(*command, "--set", "values_at_once=9")).out
    assert asked["settings"] == {"opset": 19, "int8": True, "values_at_once": 9}
    assert "float32" in said
    assert str(exported.path) in said
    assert json.loads(must(run(*command, "--json")).out)["facts"]["opset"] == 20


class TestTextVectors:
    def test_the_file_is_plain_numpy(self, model: Path, words: Path) -> None:
        with np.load(words) as arrays:
            assert sorted(arrays) == ["about", "class_of", "names", "vectors", "words"]
            assert arrays["names"].tolist() == ["cat", "dog", "sofa", "background"]
            assert arrays["words"].tolist() == ["cat", "dog", "puppy", "sofa", "couch", "settee", "sky", "grass"]
            assert arrays["class_of"].tolist() == [0, 1, 1, 2, 2, 2, 3, 3]
            np.testing.assert_allclose(np.linalg.norm(arrays["vectors"], axis=1), 1, atol=1e-6)
        again = export_text_embeddings(model, out=words.with_name("again.npz")).path
        assert again.read_bytes() == words.read_bytes()

    def test_stands_in_for_the_text_tower(self, model: Path, words: Path) -> None:
        expected = load(model, device="cpu").segment(PHOTOGRAPHS[0], classes=CLASSES)
        check_same(load(model, text_encoder=words, device="cpu").segment(PHOTOGRAPHS[0], classes=CLASSES), expected)

    def test_other_words_are_refused_and_fewer_are_not(self, exported: OnnxSummary, words: Path) -> None:
        segmenter = open_segmenter(exported.path, text_encoder=words)
        assert segmenter.segment(PHOTOGRAPHS[0], classes="sofa, cat").label_map.names == ("sofa", "cat")
        with pytest.raises(PatchwordError, match=r"no vector for '.*lamp.*'; use the words .*: cat, dog, puppy"):
            segmenter.segment(PHOTOGRAPHS[0], classes="cat, lamp")
        with pytest.raises(PatchwordError, match="holds only text embeddings"):
            load_stored_text(words).encode_images(torch.zeros(1, 3, 8, 8))

    def test_of_another_text_tower(
        self, exported: OnnxSummary, tiny_siglip: Path, tiny_dinov2: Path, tmp_path: Path
    ) -> None:
        other = onnx_world.make_segmenter(tmp_path / "other", encoder=tiny_dinov2, text=tiny_siglip)
        vectors = export_text_embeddings(other, out=tmp_path / "other.npz").path
        with pytest.raises(PatchwordError, match=r"was trained with text encoder .*; use the same weights"):
            open_segmenter(exported.path, text_encoder=vectors)

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (b"", "not a file of text embeddings, or is damaged"),
            (b"PK\x03\x04 and no more", "not a file of text embeddings, or is damaged"),
            (None, "does not exist"),
        ],
    )
    def test_damaged(self, exported: OnnxSummary, tmp_path: Path, content: bytes | None, said: str) -> None:
        if content is not None:
            (tmp_path / "c.npz").write_bytes(content)
        with pytest.raises(PatchwordError, match=said) as refused:
            open_segmenter(exported.path, text_encoder=tmp_path / "c.npz")
        assert "\n" not in str(refused.value)

    def test_foreign(self, exported: OnnxSummary, words: Path, tmp_path: Path) -> None:
        with np.load(words) as arrays:
            held = dict(arrays)
        np.savez(tmp_path / "short.npz", **{**held, "vectors": held["vectors"][1:]})
        np.savez(tmp_path / "foreign.npz", vectors=held["vectors"], about=np.array('{"format": "other"}'))
        np.savez(tmp_path / "pickled.npz", vectors=held["vectors"], about=np.array([{}], dtype=object))
        for name in ("short", "foreign", "pickled"):
            with pytest.raises(PatchwordError, match=name):
                open_segmenter(exported.path, text_encoder=tmp_path / f"{name}.npz")


class TestRefusals:
    def test_a_foreign_file(self, tmp_path: Path) -> None:
        onnx.save(parse_head(opset=20, temperature=1.0, values_at_once=1), tmp_path / "foreign.onnx")
        with pytest.raises(PatchwordError, match=r"foreign.onnx is not a patchword segmenter"):
            open_segmenter(tmp_path / "foreign.onnx")

    def test_a_damaged_or_missing_file(self, exported: OnnxSummary, tmp_path: Path) -> None:
        (tmp_path / "half.onnx").write_bytes(exported.path.read_bytes()[:5000])
        with pytest.raises(PatchwordError, match=r"half.onnx cannot be loaded by onnxruntime: "):
            open_segmenter(tmp_path / "half.onnx")
        with pytest.raises(PatchwordError, match=r"none.onnx does not exist"):
            open_segmenter(tmp_path / "none.onnx")

    def test_what_an_onnx_file_does_not_take(self, exported: OnnxSummary) -> None:
        with pytest.raises(PatchwordError, match="holds its own vision encoder"):
            open_segmenter(exported.path, encoder="facebook/dinov2-base")
        with pytest.raises(PatchwordError, match="device is 'cuda'"):
            open_segmenter(exported.path, device="cuda")
        with pytest.raises(PatchwordError, match="dtype is 'float16'"):
            open_segmenter(exported.path, dtype="float16")

    @pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
    def test_a_missing_package(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
    ) -> None:
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(PatchwordError, match=rf'package {package}, .*; pip install "patchword\[onnx\]"'):
            export_onnx(model, out=tmp_path / "model.onnx")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--format", "onnx", "-o", "model.bin"], "must end in .onnx"),
            (["--format", "onnx", "-o", "m.onnx", "--opset", "17"], "--opset is '17'; it must be at least 18"),
            (["--format", "onnx", "-o", "m.onnx", "--classes", "cat"], "--classes is not for the format onnx"),
            (["--format", "text-embeddings", "-o", "m.npz", "--int8"], "--int8 is not for the format text-embeddings"),
            (["--format", "text-embeddings", "-o", "m.npz", "--set", "opset=20"], "--set is not for the format"),
            (["--format", "voc", "-o", "out", "--opset", "20"], "--opset is not for the format voc"),
            (["--format", "onnx", "-o", "m.onnx", "--photos", "x"], "--photos is not for the format onnx"),
        ],
    )
    def test_options_of_another_format(self, model: Path, arguments: list[str], said: str) -> None:
        refused = must(run("export", model, *arguments), code=2)
        assert said in refused.complaint

    def test_an_older_file_stays(
        self, model: Path, exported: OnnxSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "model.onnx"
        out.write_bytes(b"older")
        with pytest.raises(PatchwordError, match="is there already"):
            export_onnx(model, out=out)
        monkeypatch.setattr(export_run, "_whole_graph", lambda *_, **__: onnx_ir.load(exported.path))
        monkeypatch.setattr(export_run, "largest_difference", lambda *_: 0.5)
        with pytest.raises(
            PatchwordError, match=r"\(dinov2\) cannot be exported to ONNX: it differs from torch by 5.0e-01"
        ):
            export_onnx(model, out=out, overwrite=True)
        assert out.read_bytes() == b"older"
        assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_weights_that_do_not_fit_into_one_file(
    model: Path, exported: OnnxSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_run, "MOST_IN_ONE_FILE", 10_000)
    monkeypatch.setattr(export_run, "_whole_graph", lambda *_, **__: onnx_ir.load(exported.path))
    out = tmp_path / "model.onnx"
    summary = export_onnx(model, out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert out.stat().st_size < (tmp_path / "model.onnx.data").stat().st_size
    assert summary.megabytes == pytest.approx(sum(path.stat().st_size for path in tmp_path.iterdir()) / 1e6)
    (tmp_path / "elsewhere").mkdir()
    for path in list(tmp_path.glob("model.onnx*")):
        path.rename(tmp_path / "elsewhere" / path.name)
    images = np.random.default_rng(0).random((2, 3, 24, 40), dtype=np.float32)
    found = run_patches(open_session(tmp_path / "elsewhere" / "model.onnx", threads=1), images, dim=24)
    expected = run_patches(open_session(exported.path, threads=1), images, dim=24)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture(scope="module")
def small(model: Path, exported: OnnxSummary, tmp_path_factory: pytest.TempPathFactory) -> OnnxSummary:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_run, "_whole_graph", lambda *_, **__: onnx_ir.load(exported.path))
        return export_onnx(model, out=tmp_path_factory.mktemp("int8") / "small.onnx", settings={"int8": True})


def test_8_bits_are_smaller_and_nearly_the_same(small: OnnxSummary, exported: OnnxSummary) -> None:
    assert small.facts.precision == "int8"
    assert small.megabytes < exported.megabytes
    by_small, by_large = open_segmenter(small.path), open_segmenter(exported.path)
    one, other = (each.segment(PHOTOGRAPHS[0], classes=CLASSES) for each in (by_small, by_large))
    assert (one.label_map.indices == other.label_map.indices).mean() > 0.8
    assert not np.array_equal(one.confidence, other.confidence)


def test_8_bit_products_cannot_saturate_on_processors_without_vnni(small: OnnxSummary) -> None:
    # VPMADDUBSW multiplies unsigned bytes by signed ones and adds neighbours in 16 bits, with saturation.
    quantised = [entry for entry in onnx.load(small.path).graph.initializer if entry.data_type == onnx.TensorProto.INT8]
    weights = [onnx.numpy_helper.to_array(entry).astype(np.int64) for entry in quantised]
    weights = [each for each in weights if each.ndim == 2]
    assert len(weights) >= 4
    for each in weights:
        rows = each[: len(each) // 2 * 2]
        for sign in (1, -1):
            of_one_sign = np.where(np.sign(rows) == sign, rows, 0)  # the worst activations: 255 here, 0 elsewhere
            pairs = 255 * (of_one_sign[0::2] + of_one_sign[1::2])
            assert np.abs(pairs).max() <= 2**15 - 1


def test_what_8_bits_lose_is_measured_recorded_and_printed(
    small: OnnxSummary, exported: OnnxSummary, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, cosine = small.facts.int8_agreement, small.facts.int8_cosine
    assert share is not None
    assert cosine is not None
    assert 0.8 < share <= 1
    assert 0.9 < cosine < 1
    assert exported.facts.int8_agreement is None
    monkeypatch.setattr(export_run, "_whole_graph", lambda *_, **__: onnx_ir.load(exported.path))
    said = must(run("export", model, "--format", "onnx", "-o", tmp_path / "m.onnx", "--int8")).out
    assert f"the class of {share:.1%} of the patches of drawn pictures" in said
    assert f"a patch's vector by 1 - cosine = {1 - cosine:.1e} at most" in said


def test_8_bits_that_lose_much_are_refused_and_can_be_asked_for(
    exported: OnnxSummary, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_run, "_whole_graph", lambda *_, **__: onnx_ir.load(exported.path))
    monkeypatch.setattr(export_run, "agreement", lambda *_, **__: Agreement(0.62, 0.5))
    with pytest.raises(PatchwordError, match=r"62% of the patches .* --set int8_agreement=0 writes the file"):
        export_onnx(model, out=tmp_path / "m.onnx", settings={"int8": True})
    assert not list(tmp_path.iterdir())
    made = export_onnx(model, out=tmp_path / "m.onnx", settings={"int8": True, "int8_agreement": 0})
    assert made.facts.int8_agreement == 0.62


def test_agreement_counts_patches_that_keep_their_nearest_stand_in() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((4, 8, 12, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def session(values: np.ndarray[Any, Any]) -> SimpleNamespace:
        return SimpleNamespace(run=lambda *_: [values])

    assert agreement(session(vectors), session(vectors), patch_size=2, dim=8) == Agreement(1.0, pytest.approx(1.0))
    turned = vectors.copy()
    turned[:, :, :6] *= -1  # half of the patches point the other way
    found = agreement(session(turned), session(vectors), patch_size=2, dim=8)
    assert found.cosine == pytest.approx(-1)
    assert 0.5 <= found.share < 0.6


def test_execution_providers_are_chosen_by_name(exported: OnnxSummary) -> None:
    there = onnxruntime.get_available_providers()
    assert open_session(exported.path, providers=["CPUExecutionProvider"]).get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(PatchwordError, match=f"no NopeExecutionProvider on this machine .choose from {there[0]}"):
        load_onnx_segmenter(exported.path, providers=["NopeExecutionProvider"])
    assert open_session(exported.path, providers="CPUExecutionProvider").get_providers() == ["CPUExecutionProvider"]


def test_an_execution_provider_that_does_not_start_is_refused(
    exported: OnnxSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime itself logs a line and computes on the CPU."""
    asked = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = SimpleNamespace(get_providers=lambda: asked[1:])
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: asked)
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, *, providers: session)
    with pytest.raises(PatchwordError, match="has CUDAExecutionProvider, but cannot start it on this machine"):
        load_onnx_segmenter(exported.path, providers=asked)


def test_8_bits_refuse_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "none.onnx").write_bytes(b"nothing")
    with pytest.raises(PatchwordError, match=r"none.onnx cannot be kept in 8 bits: ") as refused:
        quantise(tmp_path / "none.onnx", out=tmp_path / "out.onnx")
    assert "\n" not in str(refused.value)
