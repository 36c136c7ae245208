"""Folders to and from the hub; the hub's client is a stand-in on this machine."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from patchword.errors import PatchwordError
from patchword.export import publish
from patchword.export.publish import find_artifact, push_folder
from small_world import must, run


class StandIn:
    """Keeps repositories as folders and answers as the hub's client does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[tuple[str, str, bool]] = []
        self.branches: list[str] = []
        self.error: Exception | None = None

    def __call__(self) -> StandIn:
        return self

    def create_repo(self, name: str, *, repo_type: str, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        if self.error is not None:
            raise self.error
        if name.count("/") != 1:
            raise errors.HFValidationError(name)
        self.made.append((name, repo_type, private))

    def create_branch(self, name: str, *, branch: str, repo_type: str, exist_ok: bool) -> None:
        assert exist_ok
        self.branches.append(branch)

    def upload_folder(
        self,
        *,
        repo_id: str,
        repo_type: str,
        folder_path: Path,
        revision: str | None,
        commit_message: str,
        allow_patterns: list[str],
    ) -> SimpleNamespace:
        target = self.root / repo_type / repo_id / (revision or "main")
        for path in sorted(folder_path.rglob("*")):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target / name)
        return SimpleNamespace(commit_url=f"commit of {repo_id}: {commit_message}")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    stand_in = StandIn(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", stand_in)
    return stand_in


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "model", "model", ["config.json", "model.safetensors", "README.md", "training.json"])


def make_folder(folder: Path, marker: str, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / ".patchword").write_text(marker + "\n")
    (folder / "features").mkdir()
    (folder / "features" / "left.safetensors").write_text("over")
    return folder


def uploaded(hub: StandIn, kind: str, name: str, branch: str = "main") -> list[str]:
    target = hub.root / kind / name / branch
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())


def test_a_model_goes_up_without_what_a_run_leaves_for_itself(hub: StandIn, model: Path) -> None:
    url = push_folder(model, name="someone/scenes", private=True, message="first")
    assert url == "commit of someone/scenes: first"
    assert hub.made == [("someone/scenes", "model", True)]
    assert uploaded(hub, "model", "someone/scenes") == [
        "README.md",
        "config.json",
        "model.safetensors",
        "training.json",
    ]
    push_folder(model, name="someone/scenes", revision="trial")
    assert hub.branches == ["trial"]
    assert "config.json" in uploaded(hub, "model", "someone/scenes", "trial")


def test_labels_go_up_as_a_data_set(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ["README.md", "dataset.json", "manifest.jsonl", "masks/a/b.png.png", "segments/a/b.png.json", "a.jpg"]
    labels = make_folder(tmp_path / "labels", "labels", files)
    complete = {"is": True}
    record = SimpleNamespace(load=lambda folder: SimpleNamespace(complete=complete["is"], counts=None, source="models"))
    monkeypatch.setattr(publish, "DatasetRecord", record)
    push_folder(labels, name="someone/labels")
    assert hub.made == [("someone/labels", "dataset", False)]
    assert uploaded(hub, "dataset", "someone/labels") == files[:-1]
    complete["is"] = False
    with pytest.raises(PatchwordError, match="did not finish"):
        push_folder(labels, name="someone/labels")


def test_other_folders_are_refused(hub: StandIn, model: Path, tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="neither a model nor labels"):
        push_folder(tmp_path, name="someone/scenes")
    (model / "config.json").unlink()
    with pytest.raises(PatchwordError, match="did not finish"):
        push_folder(model, name="someone/scenes")
    assert not hub.made


def refused(status: int) -> Callable[[], Exception]:
    answer: Any = SimpleNamespace(status_code=status, headers={}, request=None)
    return lambda: errors.HfHubHTTPError("no\nand why", response=answer)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (lambda: errors.LocalTokenNotFoundError("none"), "nobody is logged in; run `hf auth login`"),
        (refused(401), "the hub refuses; run `hf auth login` as its owner"),
        (refused(403), "the hub refuses"),
        (refused(500), "HfHubHTTPError: no"),
        (lambda: ConnectionError("no route\nto host"), r"the hub cannot be reached \(ConnectionError: no route\)"),
    ],
)
def test_refusals_are_one_line(hub: StandIn, model: Path, error: Callable[[], Exception], message: str) -> None:
    hub.error = error()
    with pytest.raises(PatchwordError, match=message) as caught:
        push_folder(model, name="someone/scenes")
    assert "\n" not in str(caught.value)


def test_a_wrong_name_is_refused(hub: StandIn, model: Path) -> None:
    with pytest.raises(PatchwordError, match="'scenes' is not a repository name; write user/name"):
        push_folder(model, name="scenes")


def test_a_model_is_found_in_its_folder_in_the_cache_or_fetched(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_artifact(model) == model
    with pytest.raises(PatchwordError, match=r"no model folder \./nowhere"):
        find_artifact("./nowhere")
    asked: list[Any] = []
    cached: dict[str, Path | None] = {"at": None}
    monkeypatch.setattr(publish, "cached_folder", lambda name, revision: cached["at"])
    monkeypatch.setattr(publish, "fetch_config", lambda name, revision: asked.append((name, revision)))
    monkeypatch.setattr(publish, "fetch_files", lambda name, revision: model)
    assert find_artifact("someone/scenes@v1") == model
    assert asked == [("someone/scenes", "v1")]
    cached["at"] = tmp_path
    assert find_artifact("someone/scenes") == tmp_path
    assert len(asked) == 1


def test_the_command_prints_where_it_went(hub: StandIn, model: Path) -> None:
    printed = must(run("push", model, "someone/scenes", "--private", "--message", "by hand")).out
    assert printed == "commit of someone/scenes: by hand\n"
    assert hub.made == [("someone/scenes", "model", True)]
    assert "neither a model nor labels" in must(run("push", model.parent, "someone/scenes"), code=2).complaint
