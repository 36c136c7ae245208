"""Results on the hub: folders of models and of labels up, models down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from patchword.alignment.artifact import CONFIG, WEIGHTS
from patchword.alignment.artifact import MARKER as MODEL
from patchword.config.command import command
from patchword.config.others import PushConfig
from patchword.data.folders import MARKER_FILE
from patchword.data.manifest import Manifest
from patchword.errors import PatchwordError, first_line
from patchword.labeling.dataset import check_manifest
from patchword.labeling.records import DATASET_FILE, MANIFEST_FILE, DatasetRecord
from patchword.labeling.records import MARKER as LABELS
from patchword.models.hub import cached_folder, fetch_config, fetch_files, segmenter_folder
from patchword.models.registry import ModelName

# What is uploaded of each kind of folder: never photographs, nor what a run leaves for itself.
_MODEL_FILES = ["README.md", CONFIG, WEIGHTS, "training.json"]
_LABEL_FILES = ["README.md", DATASET_FILE, MANIFEST_FILE, "quality.jsonl", "reviews.jsonl", "masks/**", "segments/**"]
T = TypeVar("T")


@command(PushConfig)
def push_folder(folder: str | Path, config: PushConfig) -> str:
    """Upload a finished folder of `align` (as a model) or of `label` (as a data set, without the photographs).

    Who you are is what `hf auth login` has stored.

    Returns:
        the address of the commit.
    """
    from huggingface_hub import HfApi

    path, name, revision = Path(folder), config.name, config.revision
    kind, patterns = _contents(path)
    api = HfApi()
    _asking(lambda: api.create_repo(name, repo_type=kind, private=config.private, exist_ok=True), name=name)
    if revision is not None:
        _asking(lambda: api.create_branch(name, branch=revision, repo_type=kind, exist_ok=True), name=name)
    commit = _asking(
        lambda: api.upload_folder(
            repo_id=name,
            repo_type=kind,
            folder_path=path,
            revision=revision,
            commit_message=config.message,
            allow_patterns=patterns,
        ),
        name=name,
    )
    return str(commit.commit_url)


def find_artifact(name: str | Path) -> Path:
    """The folder of a segmenter: a local one, or that of a hub name, fetched where it is not in the cache."""
    model = ModelName.parse(name)
    here = segmenter_folder(name) or cached_folder(model.name, revision=model.revision)
    if here is not None:
        return here
    fetch_config(model.name, revision=model.revision)
    return fetch_files(model.name, revision=model.revision)


def _contents(folder: Path) -> tuple[Literal["model", "dataset"], list[str]]:
    """What kind of repository a finished folder becomes, and which of its files."""
    try:
        marker = (folder / MARKER_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        marker = ""
    if marker == MODEL and (folder / CONFIG).is_file():
        return "model", _MODEL_FILES
    if marker == LABELS and (record := DatasetRecord.load(folder)).complete:
        check_manifest(folder, record, found=len(Manifest(folder / MANIFEST_FILE).read()))
        return "dataset", _LABEL_FILES
    if marker in (MODEL, LABELS):
        raise PatchwordError(f"{folder} is of a run that did not finish; finish it with --resume")
    raise PatchwordError(f"{folder} is neither a model nor labels; pass a folder of `patchword align` or `label`")


def _asking(ask: Callable[[], T], *, name: str) -> T:
    """Turn every way in which the hub refuses an upload into one line."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    try:
        return ask()
    except HFValidationError as error:
        raise PatchwordError(f"{name!r} is not a repository name; write user/name") from error
    except LocalTokenNotFoundError as error:
        raise PatchwordError(f"cannot upload {name}: nobody is logged in; run `hf auth login`") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise PatchwordError(f"cannot upload {name}: the hub refuses; run `hf auth login` as its owner") from error
        raise PatchwordError(f"cannot upload {name}: {_type_and_reason(error)}") from error
    except Exception as error:  # any failure of network, proxy, certificate or disk, each of its own type
        raise PatchwordError(f"cannot upload {name}: the hub cannot be reached ({_type_and_reason(error)})") from error


def _type_and_reason(error: Exception) -> str:
    kind, reason = type(error).__name__, first_line(error)
    return kind if reason == kind else f"{kind}: {reason}"
