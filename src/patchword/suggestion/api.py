"""The public function: turns names and folders into parts, has a class list proposed, writes it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchword.config.inputs import Classes, root_of
from patchword.data.folders import write_text
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.loading import Loader
from patchword.models.registry import find_preset

if TYPE_CHECKING:
    from patchword.config.suggest import SuggestSettings
    from patchword.models.protocols import ImageTextEncoder
    from patchword.suggestion.result import Suggestion

BUILT_IN = Path(__file__).with_name("nouns.txt")


def suggest(
    photos: str | Path,
    *,
    out: str | Path | None = None,
    page: str | Path | None = None,
    nouns: Classes | None = None,
    preset: str = "balanced",
    image_text: str | Path | ImageTextEncoder | None = None,
    settings: SuggestSettings | Mapping[str, Any] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Suggestion:
    """Propose a class list from photographs: the everyday nouns that an image-text model sees in them.

    Args:
        photos: a folder of photographs, searched recursively, or one photograph.
        out: class list file to write, in the format of docs/vocabulary.md; None writes none.
        page: HTML file to write, with examples of every class; None writes none.
        nouns: the candidates, as `label` takes classes; None for the list that comes with the package.
        preset: "fast", "balanced" or "thorough": which model looks where none is named.
        image_text: instead of the preset's: hub name, `name@revision`, local folder, or a loaded encoder.
        settings: all numbers, as `SuggestSettings` or by name; defaults where none is given.
        device: "auto" or a torch device such as "cuda:1".
        dtype: "auto", "float32", "bfloat16" or "float16".
        overwrite: whether files that exist are replaced.
        quiet: whether to show no progress on standard error.
        command: what the user typed, for the page.

    Returns:
        the proposal; photographs that could not be looked at are in its `failed`.

    Raises:
        PatchwordError: for anything above that is not as described, before a model is loaded where that is possible,
            and when nothing can be proposed.
    """
    from patchword.config.suggest import SuggestSettings
    from patchword.data.images import find_images
    from patchword.suggestion.result import render

    targets = _targets(out=out, page=page, nouns=nouns, overwrite=overwrite)
    numbers = settings if isinstance(settings, SuggestSettings) else SuggestSettings(**(settings or {}))
    candidates = read_nouns(nouns)
    names = find_preset(preset)
    images = find_images(photos)
    _check_spared(images, targets=targets.values())
    from patchword.suggestion.run import suggest_classes  # after what can be refused without torch

    encoder = Loader(device=device, dtype=dtype).image_text(image_text or names.image_text)
    suggestion = suggest_classes(
        images,
        root=root_of(photos),
        encoder=encoder,
        nouns=candidates,
        settings=numbers,
        examples="page" in targets,
        quiet=quiet,
    )
    if "page" in targets:
        write_text(targets["page"], render(suggestion, command=command))
    if "out" in targets:
        write_text(targets["out"], suggestion.to_text())
    return suggestion


def read_nouns(nouns: Classes | None) -> Vocabulary:
    """The candidates for a class list; None for the everyday nouns that come with the package."""
    vocabulary = Vocabulary.of(BUILT_IN if nouns is None else nouns)
    if len(vocabulary) + len(vocabulary.background) < 2:
        raise PatchwordError(f"there is one noun, {vocabulary.names[0]!r}; at least two are needed for a vote")
    return vocabulary


def _targets(
    *, out: str | Path | None, page: str | Path | None, nouns: Classes | None, overwrite: bool
) -> dict[str, Path]:
    """The files to write, refused before minutes of work where they cannot be."""
    targets = {name: Path(path) for name, path in (("out", out), ("page", page)) if path is not None}
    for path in targets.values():
        if path.is_dir():
            raise PatchwordError(f"{path} is a folder; the output is a file, such as {path / 'classes.txt'}")
        if path.exists() and not overwrite:
            raise PatchwordError(f"{path} exists; choose another name, or --overwrite it")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise PatchwordError(f"cannot write {path}: {above} is not a folder that may be written to")
    places = [path.resolve() for path in targets.values()]
    if len(set(places)) < len(places):
        raise PatchwordError(f"class list and page are both {targets['out']}; name two different files")
    if isinstance(nouns, str | Path) and "\n" not in str(nouns) and Path(nouns).resolve() in places:
        raise PatchwordError(f"{nouns} holds the nouns; choose another output file")
    return targets


def _check_spared(images: Sequence[Path], *, targets: Iterable[Path]) -> None:
    """Refuse to overwrite a photograph."""
    places = {os.path.realpath(path) for path in targets}  # `Path.resolve` ends at a link that leads to itself
    for path in images if places else ():
        if os.path.realpath(path) in places:
            raise PatchwordError(f"{path} is one of the photographs; choose another output file")
