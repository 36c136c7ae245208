"""Listing, checking and fetching, and how the hub's answers are told; the hub is a stand-in on this machine."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from patchword.errors import PatchwordError
from patchword.models import hub as hub_module
from patchword.models.catalog import check_model, fetch_models, list_models
from patchword.models.loading import load_image_text, load_mask_generator, load_patch_encoder

NAME = "openai/clip-vit-base-patch16"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub with the given repositories: for each name a folder by revision; `error` is raised by every question."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.repositories: dict[str, dict[str, Path]] = {}
        self.error: Exception | None = None
        self.questions: list[str] = []

    def folder(self, name: str, revision: str | None) -> Path:
        self.questions.append(name)
        if self.error is not None:
            raise self.error
        if name not in self.repositories:
            raise errors.RepositoryNotFoundError("404", response=answer(404))
        revisions = self.repositories[name]
        if (revision or "main") not in revisions:
            raise errors.RevisionNotFoundError("404", response=answer(404))
        return revisions[revision or "main"]

    def store(self, name: str, revision: str | None, patterns: list[str], to: Path | None = None) -> Path:
        """Copy matching files to the cache as the hub's client lays it out, or to a folder."""
        source = self.folder(name, revision)
        entry = self.cache / ("models--" + name.replace("/", "--"))
        commit = COMMIT[:-1] + str(len(revision or ""))
        target = to or entry / "snapshots" / commit
        target.mkdir(parents=True, exist_ok=True)
        for pattern in patterns:
            for path in source.glob(pattern):
                shutil.copy(path, target / path.name)
        if to is None:
            reference = entry / "refs" / (revision or "main")
            reference.parent.mkdir(parents=True, exist_ok=True)
            reference.write_text(commit)
        return target

    def get_hf_file_metadata(self, url: str, **options: Any) -> None:
        assert not options["retry_on_errors"]
        name, rest = url.removeprefix(constants.ENDPOINT + "/").split("/resolve/")
        self.folder(name, rest.rpartition("/")[0].replace("%2F", "/"))

    def hf_hub_download(self, name: str, file: str, *, revision: str | None, **_: Any) -> str:
        return str(self.store(name, revision, [file]) / file)

    def snapshot_download(
        self, name: str, *, revision: str | None, local_dir: Path | None, allow_patterns: list[str], **_: Any
    ) -> str:
        return str(self.store(name, revision, allow_patterns, local_dir))

    def file_exists(self, name: str, file: str, *, revision: str | None) -> bool:
        return (self.folder(name, revision) / file).exists()

    def get_repo_discussions(self, name: str, **options: str) -> list[Any]:
        assert options == {
            "author": "SFconvertbot",
            "discussion_type": "pull_request",
            "discussion_status": "open",
        }
        pulls = [revision for revision in self.repositories[name] if revision.startswith("refs/pr/")]
        title = "Adding `safetensors` variant of this model"
        return [SimpleNamespace(title="Typo", git_reference="refs/pr/0")] + [
            SimpleNamespace(title=title, git_reference=pull) for pull in pulls
        ]


def answer(status: int) -> Any:
    import httpx2

    return httpx2.Response(status, request=httpx2.Request("HEAD", "https://hub.invalid/x"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    cache = tmp_path / "cache"
    stand_in = Hub(cache)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for verb in (
        "get_hf_file_metadata",
        "hf_hub_download",
        "snapshot_download",
        "file_exists",
        "get_repo_discussions",
    ):
        monkeypatch.setattr(huggingface_hub, verb, getattr(stand_in, verb))
    return stand_in


@pytest.fixture
def published(hub: Hub, tiny_clip: Path, tmp_path: Path) -> Hub:
    """The hub with one model, and with files beside it that nobody needs."""
    folder = tmp_path / "published"
    shutil.copytree(tiny_clip, folder)
    for clutter in ("pytorch_model.bin", "tf_model.h5", "README.md"):
        (folder / clutter).write_bytes(b"x")
    hub.repositories[NAME] = {"main": folder}
    return hub


UNREACHABLE = (NAME, "models fetch " + NAME, "--to FOLDER", "instead of the name", "`patchword demo` needs none")


def test_a_model_of_the_hub_is_loaded_and_pinned(published: Hub) -> None:
    record = load_image_text(NAME, device="cpu").record
    assert record.name == NAME
    assert record.revision == COMMIT[:-1] + "0"
    assert record.licence == "MIT"


def test_a_cached_model_is_loaded_without_a_question(published: Hub) -> None:
    load_image_text(NAME, device="cpu")
    published.questions.clear()
    published.error = RuntimeError("the hub was asked")
    load_image_text(NAME, device="cpu")
    assert published.questions == []


def test_revision_is_asked_for(published: Hub, tiny_clip: Path) -> None:
    published.repositories[NAME]["v2"] = tiny_clip
    assert load_image_text(NAME, revision="v2", device="cpu").record.revision == COMMIT[:-1] + "2"
    with pytest.raises(PatchwordError, match="has no revision 'v3'; give a branch, tag or commit"):
        load_image_text(NAME, revision="v3", device="cpu")


def test_another_revision_in_the_cache_does_not_stand_in(published: Hub, tiny_clip: Path) -> None:
    published.repositories[NAME]["refs/pr/3"] = tiny_clip
    load_image_text(NAME, revision="refs/pr/3", device="cpu")
    assert load_image_text(NAME, device="cpu").record.revision == COMMIT[:-1] + "0"


def test_incomplete_cache_is_completed(published: Hub) -> None:
    published.store(NAME, None, ["config.json"])
    load_image_text(NAME, device="cpu")


def test_conversion_to_safetensors_is_found_and_found_again(published: Hub, tiny_clip: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_clip, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    published.repositories[NAME] = {"main": pickled}
    with pytest.raises(PatchwordError, match=r"has no model\.safetensors at its main branch; .* never pickled"):
        load_image_text(NAME, device="cpu")
    published.repositories[NAME]["refs/pr/8"] = tiny_clip
    assert load_image_text(NAME, device="cpu").record.revision == COMMIT[:-1] + str(len("refs/pr/8"))
    published.error = RuntimeError("the hub was asked")
    load_image_text(NAME, device="cpu")
    with pytest.raises(PatchwordError, match=r"RuntimeError"):  # a revision that is named is not replaced
        load_image_text(NAME, revision="v2", device="cpu")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError("[Errno -2] Name or service not known"), (*UNREACHABLE, "Name or service not known")),
        (TimeoutError(), (*UNREACHABLE, "TimeoutError")),
        (errors.LocalEntryNotFoundError("no connection"), (*UNREACHABLE, "the hub cannot be reached")),
        (errors.HfHubHTTPError("503 Busy\nmore", response=answer(503)), (*UNREACHABLE, "503 Busy")),
        (errors.RepositoryNotFoundError("404", response=answer(404)), ("the hub has no model " + NAME, "private")),
        (errors.GatedRepoError("403", response=answer(403)), (NAME + " is gated", "accept its terms", "hf auth login")),
        (errors.RemoteEntryNotFoundError("404", response=answer(404)), (NAME + " has no config.json on the hub",)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_every_no_of_the_hub_is_one_line(published: Hub, error: Exception, words: tuple[str, ...]) -> None:
    published.error = error
    for ask in (lambda: load_image_text(NAME, device="cpu"), lambda: fetch_models([NAME])):
        with pytest.raises(PatchwordError) as raised:
            ask()
        assert "\n" not in str(raised.value)
        for word in words:
            assert word in str(raised.value)
    assert len(published.questions) == 2  # one each: no retries


def test_a_hub_that_never_answers_is_given_up(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    forever = threading.Event()
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *_, **__: forever.wait())
    monkeypatch.setattr(hub_module, "_RESOLVING", 0.01)
    monkeypatch.setattr(hub_module, "_ANSWER_WITHIN", 0.04)
    with pytest.raises(PatchwordError, match=r"the hub gave no answer in 0\.05 seconds .HF_HUB_ETAG_TIMEOUT"):
        load_image_text(NAME, device="cpu")
    forever.set()


def test_the_user_says_how_long_to_wait(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def note(*_: Any, timeout: float, **__: Any) -> None:
        asked.append(timeout)
        raise TimeoutError

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", note)
    for text in (None, "42"):
        if text:
            monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", text)
        with pytest.raises(PatchwordError, match="cannot be fetched"):
            load_image_text(NAME, device="cpu")
    assert asked == [5.0, 42.0]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "2.5", "inf"])
def test_a_wrong_time_to_wait_is_refused(published: Hub, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", text)
    with pytest.raises(PatchwordError, match=f"HF_HUB_ETAG_TIMEOUT is '{text}'; it must be a whole number of seconds"):
        load_image_text(NAME, device="cpu")


def test_offline_is_respected(published: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PatchwordError, match="HF_HUB_OFFLINE is set"):
        load_image_text(NAME, device="cpu")
    assert published.questions == []


def test_known_name_of_another_kind_is_refused_without_a_question(published: Hub) -> None:
    with pytest.raises(PatchwordError, match="'clip' cannot be used as mask generator"):
        load_mask_generator(NAME, device="cpu")
    assert published.questions == []


def test_unknown_name_of_another_kind_is_refused_before_its_weights_are_fetched(published: Hub) -> None:
    published.repositories["some/clip"] = published.repositories[NAME]
    with pytest.raises(PatchwordError, match="'clip' cannot be used as mask generator"):
        load_mask_generator("some/clip", device="cpu")
    assert not list(published.cache.rglob("*.safetensors"))


def test_misspelt_name_is_answered_with_a_suggestion(hub: Hub) -> None:
    with pytest.raises(
        PatchwordError, match=r"the hub has no model openai/clip-vit-base-patch61 .*did you mean openai/clip"
    ):
        load_image_text("openai/clip-vit-base-patch61", device="cpu")


def test_fetch_takes_only_what_loading_needs(published: Hub, tmp_path: Path) -> None:
    (fetched,) = fetch_models([NAME], to=tmp_path / "new" / "clip")
    assert fetched.name == NAME
    assert fetched.kind == "image-text"
    assert fetched.folder == tmp_path / "new" / "clip"
    assert {path.name for path in fetched.folder.iterdir()} == {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert fetched.size == (fetched.folder / "model.safetensors").stat().st_size
    load_image_text(str(fetched.folder), device="cpu")


def test_fetch_to_the_cache_and_again(published: Hub) -> None:
    (first,) = fetch_models([NAME])
    published.error = RuntimeError("the hub was asked")
    (second,) = fetch_models([NAME])
    assert first == second


def test_fetch_of_several_makes_a_folder_each(published: Hub, tiny_dinov2: Path, tmp_path: Path) -> None:
    published.repositories["facebook/dinov2-small"] = {"main": tiny_dinov2}
    fetched = fetch_models([NAME, "facebook/dinov2-small"], to=tmp_path / "all")
    assert [model.folder for model in fetched] == [
        tmp_path / "all" / "clip-vit-base-patch16",
        tmp_path / "all" / "dinov2-small",
    ]
    assert [model.kind for model in fetched] == ["image-text", "patch"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([NAME, "facebook/dinov2-small"], {"revision": "v1"}, "a revision works with one model"),
        (["some/bert"], {}, r"model_type 'bert' cannot be used \(choose from clip, siglip, dinov2"),
    ],
)
def test_fetch_refuses(published: Hub, tmp_path: Path, names: list[str], options: dict[str, Any], message: str) -> None:
    bert = tmp_path / "bert"
    bert.mkdir()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    published.repositories["some/bert"] = {"main": bert}
    with pytest.raises(PatchwordError, match=message):
        fetch_models(names, **options)


def test_fetch_refuses_a_folder_as_name_and_a_full_folder_as_target(published: Hub, tiny_clip: Path) -> None:
    with pytest.raises(PatchwordError, match="is a folder on this machine; give a hub name"):
        fetch_models([str(tiny_clip)])
    with pytest.raises(PatchwordError, match="holds something else"):
        fetch_models([NAME], to=tiny_clip)


def test_fetch_goes_on_in_a_folder_that_it_began(published: Hub, tmp_path: Path) -> None:
    (tmp_path / "begun" / ".cache" / "huggingface").mkdir(parents=True)
    (tmp_path / "begun" / "config.json").write_text("{}")
    (fetched,) = fetch_models([NAME], to=tmp_path / "begun")
    load_image_text(str(fetched.folder), device="cpu")


def test_list_says_what_is_cached_and_what_presets_use(published: Hub) -> None:
    before = {model.checkpoint.name: model for model in list_models()}
    assert not any(model.cached for model in before.values())
    fetch_models([NAME])
    after = {model.checkpoint.name: model for model in list_models()}
    assert [name for name, model in after.items() if model.cached] == [NAME]
    assert after[NAME].presets == ("fast", "balanced", "paper")
    assert (after[NAME].family, after[NAME].kind) == ("clip", "image-text")


@pytest.mark.parametrize("fixture", ["tiny_clip", "tiny_siglip", "tiny_dinov2", "tiny_dinov3", "tiny_sam", "tiny_sam2"])
def test_check_of_a_folder_that_loads(fixture: str, request: pytest.FixtureRequest) -> None:
    checked = check_model(str(request.getfixturevalue(fixture)))
    assert checked.problem == ""
    assert checked.kind is not None
    assert checked.record is not None
    assert len(checked.record.fingerprint) == 64


def test_check_of_a_folder_that_does_not_load(tiny_clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_clip, folder)
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-10])
    checked = check_model(str(folder))
    assert checked.kind == "image-text"
    assert checked.record is None
    assert "is damaged" in checked.problem


def test_check_of_another_kind(tiny_clip: Path) -> None:
    assert "cannot be used as mask generator" in check_model(str(tiny_clip), kind="mask").problem


def test_check_asks_no_hub(published: Hub) -> None:
    checked = check_model(NAME)
    assert "only this machine was searched" in checked.problem
    assert published.questions == []
    fetch_models([NAME])
    assert check_model(NAME).problem == ""


@pytest.mark.parametrize(
    ("fixture", "name", "repo", "kind"),
    [
        ("tiny_timm", "timm:tiny_vit.test", "timm/tiny_vit.test", "patch"),
        ("tiny_open_clip", "open_clip:someone/tiny", "someone/tiny", "image-text"),
    ],
)
class TestOtherLibraries:
    """Models named by a prefix, from the hub: their own files, and never a pickle."""

    def publish(self, hub: Hub, repo: str, given: str, tmp_path: Path) -> None:
        folder = tmp_path / "published"
        shutil.copytree(given.partition(":")[2], folder)
        for clutter in ("pytorch_model.bin", "open_clip_pytorch_model.bin", "README.md"):
            (folder / clutter).write_bytes(b"x")
        hub.repositories[repo] = {"main": folder}

    def test_loaded_pinned_and_cached(
        self, hub: Hub, fixture: str, name: str, repo: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        self.publish(hub, repo, request.getfixturevalue(fixture), tmp_path)
        record = load_patch_encoder(name, device="cpu").record
        assert (record.name, record.revision) == (name, COMMIT[:-1] + "0")
        assert not list(hub.cache.rglob("*.bin"))
        hub.questions.clear()
        hub.error = RuntimeError("the hub was asked")
        assert load_patch_encoder(name, device="cpu").record == record
        assert hub.questions == []

    def test_fetched_to_a_folder_that_loads(
        self, hub: Hub, fixture: str, name: str, repo: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        self.publish(hub, repo, request.getfixturevalue(fixture), tmp_path)
        (fetched,) = fetch_models([name], to=tmp_path / "to")
        assert (fetched.name, fetched.kind, fetched.folder) == (name, kind, tmp_path / "to")
        assert fetched.size > 0
        prefix = name.partition(":")[0]
        assert load_patch_encoder(f"{prefix}:{tmp_path / 'to'}", device="cpu").record.revision is None

    def test_pickles_alone_are_refused(
        self, hub: Hub, fixture: str, name: str, repo: str, kind: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        self.publish(hub, repo, request.getfixturevalue(fixture), tmp_path)
        for weights in (tmp_path / "published").glob("*.safetensors"):
            weights.unlink()
        with pytest.raises(PatchwordError, match="weights must be safetensors, never pickled"):
            load_patch_encoder(name, device="cpu")

    def test_unknown_name_is_one_line(
        self, hub: Hub, fixture: str, name: str, repo: str, kind: str, request: pytest.FixtureRequest
    ) -> None:
        request.getfixturevalue(fixture)
        with pytest.raises(PatchwordError, match=f"the hub has no model {name}"):
            load_patch_encoder(name, device="cpu")
