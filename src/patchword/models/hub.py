"""Where a model's folder comes from: a local folder, the hub's cache, or the hub, asked once and briefly."""

from __future__ import annotations

import difflib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from patchword.data.folders import expand_home, write_text
from patchword.errors import PatchwordError
from patchword.models.checkpoint import has_weights, read_model_type
from patchword.models.registry import (
    CONFIG,
    FAMILIES,
    TRANSFORMERS,
    Kind,
    Layout,
    ModelName,
    Named,
    checkpoint_of,
    family_of,
    name_of,
    repository,
    split_name,
)

_ANSWER_WITHIN = 5.0  # seconds for the hub's answer to one request, where HF_HUB_ETAG_TIMEOUT says nothing
_TIMEOUTS = ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
_RESOLVING = 1.0  # seconds more for resolving the name, which obeys no limit of the request

_CONVERTER = "SFconvertbot"  # the hub's robot that proposes safetensors for repositories that have only pickles
_CONVERSION = "patchword-safetensors"  # under this name the cache keeps the commit of a conversion that was chosen

T = TypeVar("T")


def local_folder(name: str, *, revision: str | None) -> Path | None:
    """The local folder that a name means, or None when it is a hub name."""
    answer_within()  # a wrong one stops the hub's client, which transformers imports, with a traceback
    _, place = split_name(name)
    path = expand_home(place)
    if path.is_dir():
        if revision is not None:
            raise PatchwordError(f"revision {revision!r} cannot be used with the local folder {name}")
        return path
    looks_like_path = place.startswith((".", "/", "~")) or place.endswith("/") or "\\" in place or place.count("/") > 1
    if looks_like_path or path.is_file():
        raise PatchwordError(f"no model folder {name}; give a folder in the hub's format or a hub name")
    if revision is None and place == name and checkpoint_of(name) is None:
        meant = misspelt_folder(path)
        if meant is not None and cached_folder(name, revision=None) is None:
            raise PatchwordError(f"no model folder {name}; did you mean {meant}? (for the hub's, write {name}@main)")
    return None


def misspelt_folder(path: Path) -> Path | None:
    """A model's folder beside a path that has nearly its name, or None."""
    try:
        beside = [folder.name for folder in path.parent.iterdir() if (folder / CONFIG).is_file()]
    except OSError:
        return None
    close = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.75)
    return path.parent / close[0] if close else None


def cached_folder(name: str, *, revision: str | None) -> Path | None:
    """The folder of a hub name in the local cache, or None where its config or its weights are not there.

    Without a revision, the main branch comes first, then a conversion that `fetch_files` chose.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repo, layout = repository(name)
    try:
        revisions = [revision] if revision else ["main", _CONVERSION]
        found = [try_to_load_from_cache(repo, layout.config, revision=candidate) for candidate in revisions]
    except HFValidationError as error:
        raise PatchwordError(f"model {name!r} is neither a hub name nor a folder{_suggestion(name)}") from error
    folders = [Path(path).parent for path in found if isinstance(path, str)]
    return next((folder for folder in folders if _has_weights(folder, layout)), None)


def found_folder(name: str, *, revision: str | None) -> Path | None:
    """The folder of a model on this machine, local or in the hub's cache; None where it is not here."""
    return local_folder(name, revision=revision) or cached_folder(name, revision=revision)


def find_or_fetch(
    name: str, *, revision: str | None, check: Callable[[Path], object] | None = None
) -> tuple[Path, str | None]:
    """The folder of a model, fetched where it must be, and its commit; None for a local folder.

    Args:
        name, revision: as a user gives them.
        check: of the folder with the config, before gigabytes of weights are fetched.
    """
    folder = local_folder(name, revision=revision)
    if folder is not None:
        return folder, None
    folder = cached_folder(name, revision=revision)
    if folder is None:
        config = fetch_config(name, revision=revision)
        if check is not None:
            check(config.parent)
        folder = fetch_files(name, revision=revision)
    return folder, folder.name  # the cache names a snapshot's folder by its commit


def is_here(model: ModelName) -> bool:
    """Whether a model's weights are on this machine."""
    return found_folder(model.name, revision=model.revision) is not None


def check_part(part: object, *, kind: Kind) -> None:
    """Refuse, before anything is loaded, a folder that is not there and a model on this machine of another kind.

    Args:
        part: a model's name or folder; None, and what is loaded already, pass.
        kind: what it has to serve as.
    """
    if not isinstance(part, Named):
        return
    model = name_of(part)
    folder = found_folder(model.name, revision=model.revision)
    if folder is not None and split_name(model.name)[0] is None:
        family_of(read_model_type(folder), kind=kind, where=model.name)


def segmenter_folder(name: str | Path) -> Path | None:
    """The local folder that a segmenter's name means, or None when it is a hub name, `user/name`.

    Args:
        name: folder, hub name, or `name@revision`.
    """
    path = expand_home(name)
    if path.is_dir():
        return path
    model = ModelName.parse(name)
    meant = misspelt_folder(path) if model.revision is None else None
    right = f"did you mean {meant}?" if meant else "pass a folder that `patchword align` has written"
    message = f"no model folder {name}; {right}"
    if "/" not in model.name:  # whatever is uploaded has an owner
        raise PatchwordError(message)
    try:
        return local_folder(model.name, revision=model.revision)
    except PatchwordError:  # it can only have been a folder
        raise PatchwordError(message) from None


def fetch_config(name: str, *, revision: str | None) -> Path:
    """Fetch the config of a hub name, after one brief question whether the hub answers at all."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        raise PatchwordError(missing_weights(name, why="HF_HUB_OFFLINE is set"))
    repo, layout = repository(name)
    url = hf_hub_url(repo, layout.config, revision=revision)
    limit = answer_within()
    # without retries: hf_hub_download alone would repeat the question for minutes
    _within(
        limit + _RESOLVING,
        lambda: get_hf_file_metadata(url, timeout=limit, retry_on_errors=False),
        name=name,
        revision=revision,
    )
    path = _asking(
        lambda: hf_hub_download(repo, layout.config, revision=revision, etag_timeout=limit),
        name=name,
        revision=revision,
    )
    return Path(path)


def fetch_files(name: str, *, revision: str | None, to: Path | None = None) -> Path:
    """Fetch what loading needs of a hub name, and nothing else; files already there are not fetched again.

    Args:
        name: hub name that `fetch_config` has answered for.
        revision: branch, tag or commit; None for the main branch, or, where that has only pickled weights, for the
            conversion to safetensors that the hub's own robot proposes for it.
        to: folder to put the files in; None for the hub's cache.
    """
    from huggingface_hub import snapshot_download

    repo, layout = repository(name)
    chosen = _asking(lambda: _safetensors_revision(name, revision=revision), name=name, revision=revision)
    folder = _asking(
        lambda: snapshot_download(
            repo, revision=chosen, local_dir=to, allow_patterns=list(layout.needed), etag_timeout=answer_within()
        ),
        name=name,
        revision=chosen,
    )
    if chosen != revision and to is None:
        _remember_conversion(Path(folder))
    return Path(folder)


def fetch_file(repository: str, file: str, *, kind: str, offline: bool) -> Path:
    """A single file of the hub, from its cache or fetched after one brief question; raises whatever the client does.

    Args:
        repository: its hub name.
        file: path within it.
        kind: "model" or "dataset".
        offline: whether the cache alone may be asked.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, file, repo_type=kind)
    if isinstance(cached, str):
        return Path(cached)
    if offline:
        raise PatchwordError(f"{file} of {repository} is not in the cache, and HF_HUB_OFFLINE is set")
    limit = answer_within()
    get_hf_file_metadata(hf_hub_url(repository, file, repo_type=kind), timeout=limit, retry_on_errors=False)
    return Path(hf_hub_download(repository, file, repo_type=kind, etag_timeout=limit))


def answer_within() -> float:
    """Seconds that the hub has for one answer: HF_HUB_ETAG_TIMEOUT, or five.

    Downloads obey HF_HUB_DOWNLOAD_TIMEOUT, HF_ENDPOINT and the proxies of the environment through the hub's client.
    """
    for variable in _TIMEOUTS:
        text = os.environ.get(variable)
        if text and (not text.isdecimal() or int(text) == 0):
            raise PatchwordError(f"{variable} is {text!r}; it must be a whole number of seconds, 1 or more")
    return float(os.environ.get(_TIMEOUTS[0]) or _ANSWER_WITHIN)


def missing_weights(name: str, *, why: str) -> str:
    """The one line for weights that are not here: which, why, how to get them elsewhere, what needs none."""
    known = checkpoint_of(name) is not None or split_name(name)[0] is not None
    unknown = "" if known else f" (no folder, and no checkpoint of the registry{_suggestion(name)})"
    return (
        f"the weights of {name}{unknown} are not on this machine and cannot be fetched: {why}; on a connected machine "
        f"run `patchword models fetch {name} --to FOLDER`, copy FOLDER here and give its path instead of the name "
        "(or copy the hub's cache folder); `patchword demo` needs none"
    )


def _safetensors_revision(name: str, *, revision: str | None) -> str | None:
    from huggingface_hub import file_exists, get_repo_discussions

    repo, layout = repository(name)
    if any(file_exists(repo, weights, revision=revision) for weights in layout.weights):
        return revision
    if revision is None and layout is TRANSFORMERS:
        for proposal in get_repo_discussions(
            repo, author=_CONVERTER, discussion_type="pull_request", discussion_status="open"
        ):
            if "safetensors" in proposal.title and proposal.git_reference:
                return proposal.git_reference
    at = f"revision {revision!r}" if revision else "its main branch"
    raise PatchwordError(f"{name} has no {layout.weights[0]} at {at}; weights must be safetensors, never pickled")


def _remember_conversion(folder: Path) -> None:
    """Note the commit of a conversion beside the cache's branches, so that it is found again without a question."""
    references = folder.parents[1] / "refs"  # as the cache is laid out: MODEL/snapshots/COMMIT and MODEL/refs/BRANCH
    references.mkdir(parents=True, exist_ok=True)
    write_text(references / _CONVERSION, folder.name)


def _has_weights(folder: Path, layout: Layout) -> bool:
    if layout is TRANSFORMERS:
        return has_weights(folder)
    return any((folder / name).is_file() for name in layout.weights)


def _library(name: str) -> str:
    library, _ = split_name(name)
    return library.prefix if library else "transformers"


def _suggestion(name: str) -> str:
    names = [checkpoint.name for family in FAMILIES for checkpoint in family.checkpoints]
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else "; `patchword models list` shows the known ones"


def _within(seconds: float, ask: Callable[[], T], *, name: str, revision: str | None) -> T:
    """Run a request in a thread and stop waiting after so many seconds."""
    answers: list[T] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            answers.append(_asking(ask, name=name, revision=revision))
        except Exception as error:  # handed over to the waiting thread
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not answers:
        why = f"the hub gave no answer in {seconds:g} seconds (HF_HUB_ETAG_TIMEOUT allows more time)"
        raise PatchwordError(missing_weights(name, why=why))
    return answers[0]


def _asking(ask: Callable[[], T], *, name: str, revision: str | None) -> T:
    """Turn every way in which the hub says no into one line."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return ask()
    except PatchwordError:
        raise
    except GatedRepoError as error:
        message = f"{name} is gated: accept its terms on its hub page, then log in with `hf auth login`"
        raise PatchwordError(message) from error
    except RepositoryNotFoundError as error:
        raise PatchwordError(f"the hub has no model {name} (or it is private){_suggestion(name)}") from error
    except RevisionNotFoundError as error:
        raise PatchwordError(f"{name} has no revision {revision!r}; give a branch, tag or commit") from error
    except LocalEntryNotFoundError as error:
        raise PatchwordError(missing_weights(name, why="the hub cannot be reached")) from error
    except EntryNotFoundError as error:
        _, layout = repository(name)
        message = f"{name} has no {layout.config} on the hub; give a {_library(name)} checkpoint"
        raise PatchwordError(message) from error
    except HFValidationError as error:
        raise PatchwordError(f"model {name!r} is neither a hub name nor a folder{_suggestion(name)}") from error
    except Exception as error:  # any failure of network, proxy, certificate or disk, each of its own type
        reason = str(error).strip().split("\n")[0]
        why = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        why += " (HF_HUB_ETAG_TIMEOUT allows more time)" if "Timeout" in type(error).__name__ else ""
        raise PatchwordError(missing_weights(name, why=why)) from error
