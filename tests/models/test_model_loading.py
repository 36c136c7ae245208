"""Loading: every way in which a name, a folder, its files or an argument can be wrong ends in one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import patchword
from patchword.errors import PatchwordError
from patchword.models import checkpoint as folders
from patchword.models import hub
from patchword.models.checkpoint import fingerprint
from patchword.models.hub import segmenter_folder
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder

Breaker = Callable[[Path], None]


def assert_one_line(error: pytest.ExceptionInfo[PatchwordError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.fixture
def copy(tiny_clip: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_clip, folder)
    return folder


def edit_config(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def drop_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


BREAKERS: list[tuple[str, Breaker, tuple[str, ...]]] = [
    ("no config", lambda f: (f / "config.json").unlink(), ("has no config.json", "give a folder in the hub's format")),
    ("config no JSON", lambda f: (f / "config.json").write_text("{"), ("config.json cannot be read as JSON",)),
    (
        "config no object",
        lambda f: (f / "config.json").write_text("[]"),
        ("must hold a JSON object, not list",),
    ),
    ("config binary", lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), ("config.json cannot be read",)),
    ("no model_type", lambda f: edit_config(f, lambda c: c.pop("model_type")), ("has no model_type",)),
    (
        "unknown model_type",
        lambda f: edit_config(f, lambda c: c.update(model_type="bert")),
        ("model_type 'bert' cannot be used as image-text encoder", "(choose from clip, siglip"),
    ),
    (
        "impossible config",
        lambda f: edit_config(f, lambda c: c["vision_config"].update(num_attention_heads=5)),
        ("cannot be loaded as CLIPModel",),
    ),
    (
        "config of another size",
        lambda f: edit_config(f, lambda c: c.update(projection_dim=48)),
        ("cannot be loaded as CLIPModel",),
    ),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), ("has no model.safetensors", "never pickled")),
    ("cut weights", lambda f: cut(f / "model.safetensors", 0.7), ("model.safetensors is damaged", "again")),
    ("cut header", lambda f: cut(f / "model.safetensors", 0.01), ("model.safetensors is damaged",)),
    ("empty weights", lambda f: cut(f / "model.safetensors", 0), ("model.safetensors is damaged",)),
    ("a tensor missing", drop_tensor, ("lacks 1 of CLIPModel's tensors", "visual_projection.weight")),
    (
        "no tokenizer",
        lambda f: [path.unlink() for path in f.glob("tokenizer*")],  # type: ignore[return-value, func-returns-value]
        ("has no usable tokenizer", "it needs one of tokenizer.json, vocab.json"),
    ),
    ("tokenizer no JSON", lambda f: (f / "tokenizer.json").write_text("{"), ("has no usable tokenizer",)),
    (
        "preprocessor no JSON",
        lambda f: (f / "preprocessor_config.json").write_text("x"),
        ("preprocessor_config.json cannot be read as JSON",),
    ),
    (
        "two means",
        lambda f: (f / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2]}'),
        ("image_mean is [0.1, 0.2]", "must be three numbers"),
    ),
    (
        "std of zero",
        lambda f: (f / "preprocessor_config.json").write_text('{"image_std": [0.1, 0, 0.2]}'),
        ("image_std is [0.1, 0.0, 0.2]", "must be above 0"),
    ),
]


@pytest.mark.parametrize(("breaker", "words"), [b[1:] for b in BREAKERS], ids=[b[0] for b in BREAKERS])
def test_damaged_folder_is_one_line(copy: Path, breaker: Breaker, words: tuple[str, ...]) -> None:
    breaker(copy)
    with pytest.raises(PatchwordError) as error:
        load_image_text(str(copy), device="cpu")
    assert_one_line(error, str(copy), *words)


def test_tokenizer_of_another_model_is_refused(copy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(copy)
    tokens = len(tokenizer)
    tokenizer.add_tokens(["patchword"])
    tokenizer.save_pretrained(copy)
    with pytest.raises(PatchwordError, match=f"has {tokens + 1} tokens; the model allows {tokens}"):
        load_image_text(str(copy), device="cpu")


@pytest.mark.parametrize(("pooled", "looks_for"), [(7, 7), (2, "the highest")])
def test_end_token_that_the_text_tower_does_not_pool_is_refused(copy: Path, pooled: int, looks_for: int | str) -> None:
    """A vector would be taken from the first token, the same for every prompt, and nobody would be told."""
    from transformers import AutoTokenizer

    if looks_for == "the highest":
        looks_for = len(AutoTokenizer.from_pretrained(copy)) - 1
    edit_config(copy, lambda config: config["text_config"].update(eos_token_id=pooled))
    with pytest.raises(PatchwordError, match=f"prompts end in token 1 and the text tower looks for token {looks_for}"):
        load_image_text(str(copy), device="cpu")


def test_pickled_weights_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(PatchwordError, match=r"has no model\.safetensors; weights must be safetensors"):
        load_image_text(str(copy), device="cpu")


@pytest.mark.parametrize(
    ("load", "fixture", "words"),
    [
        (load_image_text, "tiny_sam", ("'sam' cannot be used as image-text encoder", "clip, siglip")),
        (load_mask_generator, "tiny_clip", ("'clip' cannot be used as mask generator", "(choose from sam, sam2")),
        (load_image_text, "tiny_mae", ("'vit_mae' cannot be used as image-text encoder", "(choose from clip, siglip")),
        (load_mask_generator, "tiny_dinov2", ("'dinov2' cannot be used as mask generator", "sam, sam2")),
    ],
)
def test_model_of_another_kind_is_refused(
    load: Callable[..., Any], fixture: str, words: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    with pytest.raises(PatchwordError) as error:
        load(str(request.getfixturevalue(fixture)), device="cpu")
    assert_one_line(error, *words)


@pytest.mark.parametrize("load", [load_image_text, load_patch_encoder])
def test_naflex_siglip2_is_refused_by_name(load: Callable[..., Any], tiny_siglip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "naflex"
    shutil.copytree(tiny_siglip, folder)
    edit_config(folder, lambda config: config.update(model_type="siglip2"))
    with pytest.raises(PatchwordError, match=r"NaFlex SigLIP 2.*use one of fixed resolution, such as google/"):
        load(str(folder), device="cpu")


@pytest.mark.parametrize("fixture", ["tiny_clip", "tiny_siglip", "tiny_sam", "tiny_sam2"])
def test_one_checkpoint_serves_in_two_roles(fixture: str, request: pytest.FixtureRequest) -> None:
    """The role decides, not the name: the same folder, the same fingerprint, and only the image tower is kept."""
    folder = str(request.getfixturevalue(fixture))
    first: Any = (load_mask_generator if "sam" in fixture else load_image_text)(folder, device="cpu")
    tower: Any = load_patch_encoder(folder, device="cpu")
    assert tower.record.fingerprint == first.record.fingerprint
    assert tower.record.family == first.record.family
    count = [sum(weight.numel() for weight in part.model.parameters()) for part in (tower, first)]
    assert count[0] < count[1]


def test_siglip_without_pooling_head_still_has_patches(tiny_siglip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(tiny_siglip, folder)
    edit_config(folder, lambda config: config["vision_config"].update(vision_use_head=False))
    images = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    expected = load_patch_encoder(str(tiny_siglip), device="cpu")(images)
    torch.testing.assert_close(load_patch_encoder(str(folder), device="cpu")(images), expected)


def test_siglip_has_one_dense_variant(tiny_siglip: Path) -> None:
    with pytest.raises(PatchwordError, match=r"dense is 'naclip', but .*not a CLIP.*only value works"):
        load_image_text(str(tiny_siglip), device="cpu", dense="naclip")


def test_siglip_without_pooling_head_is_refused(tiny_siglip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "headless"
    shutil.copytree(tiny_siglip, folder)
    edit_config(folder, lambda config: config["vision_config"].update(vision_use_head=False))
    with pytest.raises(PatchwordError, match="vision_use_head is false"):
        load_image_text(str(folder), device="cpu")


@pytest.mark.parametrize("name", ["./no/folder", "/no/folder", "no/such/folder", "~/no-folder-there", "folder/"])
def test_path_that_is_not_there(name: str) -> None:
    with pytest.raises(PatchwordError, match=r"no model folder .*; give a folder in the hub's format or a hub name"):
        load_image_text(name, device="cpu")


class TestMisspeltFolder:
    """A folder beside has nearly the name: whoever wrote it meant that one, and no hub is asked."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("model", "runs/my-dinov2", "runs/photos"):
            (tmp_path / name).mkdir(parents=True)
        for name in ("model", "runs/my-dinov2"):
            (tmp_path / name / "config.json").write_text("{}")
        monkeypatch.setattr(hub, "fetch_config", lambda *_, **__: pytest.fail("the hub was asked"))

    @pytest.mark.parametrize(
        ("name", "meant"), [("modle", "model"), ("runs/my-dinvo2", str(Path("runs/my-dinov2"))), ("runs/model", None)]
    )
    def test_of_a_frozen_model(self, name: str, meant: str | None) -> None:
        if meant is None:
            assert hub.local_folder(name, revision=None) is None
            return
        with pytest.raises(PatchwordError, match=f"no model folder {name}; did you mean ") as error:
            load_patch_encoder(name, device="cpu")
        assert_one_line(error, f"did you mean {meant}?", f"{name}@main")
        assert hub.local_folder(name, revision="main") is None  # the way to the hub's

    def test_known_and_cached_names_are_the_hubs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "facebook" / "dinov2-bass").mkdir(parents=True)
        (tmp_path / "facebook" / "dinov2-bass" / "config.json").write_text("{}")
        assert hub.local_folder("facebook/dinov2-base", revision=None) is None
        monkeypatch.setattr(hub, "cached_folder", lambda name, *, revision: tmp_path)
        assert hub.local_folder("runs/my-dinov", revision=None) is None

    @pytest.mark.parametrize("name", ["nope/", "nope", "modle/", "runs/nope/", "./nope"])
    def test_of_a_segmenter(self, name: str) -> None:
        with pytest.raises(PatchwordError, match=f"no model folder {name}; ") as error:
            segmenter_folder(name)
        assert_one_line(error, "did you mean model?" if name == "modle/" else "`patchword align` has written")

    def test_of_a_segmenter_on_the_hub_or_here(self) -> None:
        assert segmenter_folder("you/name") is None
        assert segmenter_folder("you/name@v1") is None
        assert segmenter_folder("model/") == Path("model")

    def test_segment_says_so_before_it_imports_torch(self, tmp_path: Path) -> None:
        Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
        arguments = ["segment", ".", "--model", "nope/", "--classes", "cat", "-o", "out"]
        code = "import sys\nfrom patchword.cli.app import main\ntry:\n    main()\nfinally:\n    "
        code += "print([name for name in ('torch', 'transformers', 'huggingface_hub') if name in sys.modules])"
        environment = {**os.environ, "PYTHONPATH": str(Path(patchword.__file__).parents[1])}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 2
        assert done.stderr == "patchword: no model folder nope/; pass a folder that `patchword align` has written\n"
        assert done.stdout.strip() == "[]"


def test_file_is_no_folder(copy: Path) -> None:
    with pytest.raises(PatchwordError, match="no model folder"):
        load_image_text(str(copy / "config.json"), device="cpu")


@pytest.mark.parametrize("name", ["", "two words", "a--b", "x" * 200])
def test_name_that_no_hub_could_have(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PatchwordError) as error:
        load_image_text(name, device="cpu")
    assert_one_line(error, "model", "no")


def test_revision_of_a_folder_is_refused(tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match="revision 'v1' cannot be used with the local folder"):
        load_image_text(str(tiny_clip), revision="v1", device="cpu")


@pytest.mark.parametrize("device", ["tpu0", "cuda:97", "meta!", ""])
def test_unknown_device(tiny_clip: Path, device: str) -> None:
    with pytest.raises(PatchwordError, match=rf"^device '{device}' is not available on this machine \(choose from cpu"):
        load_image_text(str(tiny_clip), device=device)


def test_unknown_dtype(tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match=r"dtype 'int8' is unknown \(choose from auto, float32, bfloat16, float16"):
        load_image_text(str(tiny_clip), device="cpu", dtype="int8")


@pytest.mark.parametrize("fixture", ["tiny_clip", "tiny_siglip", "tiny_open_clip"])
def test_requested_dtype_is_that_of_the_image_side(fixture: str, request: pytest.FixtureRequest) -> None:
    encoder: Any = load_image_text(str(request.getfixturevalue(fixture)), device="cpu", dtype="float16")
    types = {name: parameter.dtype for name, parameter in encoder.model.named_parameters()}
    images = {name for name in types if name.startswith("vis")}
    assert {types[name] for name in images} == {encoder.dtype} == {torch.float16}
    assert {types[name] for name in types.keys() - images} == {encoder.text_dtype} == {torch.float32}


@pytest.mark.parametrize("fixture", ["tiny_sam", "tiny_sam2"])
def test_only_the_image_encoder_of_a_mask_generator_is_cast(fixture: str, request: pytest.FixtureRequest) -> None:
    proposer: Any = load_mask_generator(str(request.getfixturevalue(fixture)), device="cpu", dtype="bfloat16")
    assert {p.dtype for p in proposer.model.vision_encoder.parameters()} == {torch.bfloat16}
    for part in (proposer.model.prompt_encoder, proposer.model.mask_decoder, proposer.model.shared_image_embedding):
        assert {p.dtype for p in [*part.parameters(), *part.buffers()]} == {torch.float32}


def test_sharded_weights_load_alike(tiny_clip: Path, copy: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = {key: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, key in enumerate(sorted(weights))}
    for name in set(names.values()):
        part = {key: weights[key] for key in weights if names[key] == name}
        save_file(part, copy / name, metadata={"format": "pt"})
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    whole, sharded = (load_image_text(str(folder), device="cpu") for folder in (tiny_clip, copy))
    torch.testing.assert_close(whole.encode_text(["a cat"]), sharded.encode_text(["a cat"]))

    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(PatchwordError, match=r"model-00002-of-00002\.safetensors is missing"):
        load_image_text(str(copy), device="cpu")


def test_fingerprint_is_of_the_content(tiny_clip: Path, copy: Path) -> None:
    assert fingerprint(copy) == fingerprint(tiny_clip)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    changed = fingerprint(copy)
    assert changed != fingerprint(tiny_clip)
    edit_config(copy, lambda config: config.update(logit_scale_init_value=1.0))
    assert fingerprint(copy) not in (changed, fingerprint(tiny_clip))


class TestKeptFingerprints:
    """They are read from disk where all files are as they were, and never where one is not."""

    @pytest.fixture(autouse=True)
    def reads(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setenv("PATCHWORD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(folders, "_CLOCK_TICK", -1)  # the files of a test are never old
        read: list[str] = []
        read_all = folders._hash

        def counting(files: Sequence[Path]) -> str:
            read.extend(path.name for path in files)
            return read_all(files)

        monkeypatch.setattr(folders, "_hash", counting)
        return read

    def test_they_are_what_they_always_were(self, copy: Path, reads: list[str]) -> None:
        """As in every model's config.json: name, size and bytes of each file, in this order."""
        expected = hashlib.sha256()
        for name in ("config.json", "model.safetensors"):
            content = (copy / name).read_bytes()
            expected.update(name.encode() + b"\0" + str(len(content)).encode() + b"\0" + content)
        for _ in range(3):
            assert fingerprint(copy) == expected.hexdigest()
        assert reads == ["config.json", "model.safetensors"]

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_a_changed_file_of_the_same_size_and_time_is_read_again(
        self, copy: Path, name: str, reads: list[str]
    ) -> None:
        before = fingerprint(copy)
        status = (copy / name).stat()
        content = bytearray((copy / name).read_bytes())
        content[-2] ^= 1
        time.sleep(0.05)  # the disk's clock has to tick
        (copy / name).write_bytes(content)
        os.utime(copy / name, ns=(status.st_atime_ns, status.st_mtime_ns))  # as if it had never been touched
        assert (copy / name).stat().st_mtime_ns == status.st_mtime_ns
        after = fingerprint(copy)
        assert after != before
        assert len(reads) == 4
        content[-2] ^= 1
        time.sleep(0.05)
        (copy / name).write_bytes(content)
        assert fingerprint(copy) == before

    def test_another_folder_with_the_same_names_has_its_own(self, copy: Path, tiny_siglip: Path) -> None:
        assert fingerprint(copy) != fingerprint(tiny_siglip)
        assert fingerprint(copy) != fingerprint(tiny_siglip)

    def test_files_of_the_hubs_cache_are_known_by_their_hash(
        self, copy: Path, tmp_path: Path, reads: list[str]
    ) -> None:
        found = []
        for place in ("one", "another"):  # the same files in two caches: the second is not read
            snapshot = tmp_path / place / "snapshots" / "1"
            (tmp_path / place / "blobs").mkdir(parents=True)
            snapshot.mkdir(parents=True)
            for path in copy.iterdir():
                blob = tmp_path / place / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
                shutil.copyfile(path, blob)
                (snapshot / path.name).symlink_to(blob)
            found.append(fingerprint(snapshot))
        assert len(reads) == 2
        assert found == [fingerprint(copy)] * 2

    def test_another_file_behind_a_link_is_read(self, copy: Path, tmp_path: Path) -> None:
        first, linked = copy / "model.safetensors", tmp_path / "linked"
        linked.mkdir()
        shutil.copyfile(copy / "config.json", linked / "config.json")
        (linked / "model.safetensors").symlink_to(first)
        before = fingerprint(linked)
        (tmp_path / "other").write_bytes(first.read_bytes()[:-1] + b"?")
        (linked / "model.safetensors").unlink()
        (linked / "model.safetensors").symlink_to(tmp_path / "other")
        assert fingerprint(linked) != before

    def test_files_written_a_moment_ago_are_not_kept(self, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They may be written again within the resolution of the disk's clock."""
        monkeypatch.setattr(folders, "_CLOCK_TICK", 3600 * 10**9)
        fingerprint(copy)
        assert not list(Path(os.environ["PATCHWORD_CACHE"]).rglob("fingerprints/*"))

    @pytest.mark.parametrize("content", [b"", b"damaged", b"0" * 63, b"\xff" * 64])
    def test_a_damaged_entry_is_made_again(self, copy: Path, content: bytes, reads: list[str]) -> None:
        expected = fingerprint(copy)
        (entry,) = Path(os.environ["PATCHWORD_CACHE"]).rglob("fingerprints/*")
        entry.write_bytes(content)
        assert fingerprint(copy) == expected
        assert fingerprint(copy) == expected
        assert len(reads) == 4

    @pytest.mark.parametrize("cache", ["", "a file"])
    def test_no_cache_no_matter(
        self, copy: Path, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[str]
    ) -> None:
        (tmp_path / "a file").write_bytes(b"")
        monkeypatch.setenv("PATCHWORD_CACHE", cache and str(tmp_path / cache))
        assert fingerprint(copy) == fingerprint(copy)
        assert len(reads) == 4


def test_processor_config_of_newer_checkpoints_is_read(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    (copy / "processor_config.json").write_text(json.dumps({"image_processor": {"image_mean": [0.1, 0.2, 0.3]}}))
    assert load_image_text(str(copy), device="cpu").record.mean == (0.1, 0.2, 0.3)


def test_loading_says_nothing(tiny_sam2_video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither progress bars nor warnings, such as the one that a video model's config is read as an image model's."""
    load_mask_generator(str(tiny_sam2_video), device="cpu")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, patchword.models.catalog; patchword.models.catalog.list_encoders(); "
    code += "print([m for m in ('torch', 'transformers', "
    code += "'huggingface_hub', 'numpy') if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": str(Path(patchword.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
