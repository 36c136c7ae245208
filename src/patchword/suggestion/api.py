"""The public function: turns names and folders into parts, has a class list proposed, writes it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from patchword.config.command import command
from patchword.config.inputs import choose_images, tell
from patchword.config.shared import ClassesValue, PhotosValue
from patchword.config.suggest import SuggestConfig
from patchword.data.folders import write_text
from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.loading import Loader
from patchword.models.registry import find_preset, name_of
from patchword.runs.processes import executor_of

if TYPE_CHECKING:
    from patchword.suggestion.result import Suggestion

BUILT_IN = Path(__file__).with_name("nouns.txt")


@command(SuggestConfig)
def suggest(photos: PhotosValue, config: SuggestConfig) -> Suggestion:
    """Propose a class list from photographs: the everyday nouns that an image-text model sees in them.

    Returns:
        the proposal; photographs that could not be looked at are in its `failed`.
    """
    from patchword.suggestion.result import render

    targets = _targets(config)
    candidates = read_nouns(config.nouns)
    found = choose_images(photos)
    _check_spared(found.images, targets=targets.values())
    image_text = config.image_text or find_preset(config.preset).image_text
    tell(found.spoken(), f"image-text model: {name_of(image_text)}", quiet=config.quiet)
    from patchword.suggestion.run import suggest_classes  # after what can be refused without torch

    loader = Loader(device=config.device, dtype=config.dtype)
    tell(loader.spoken(), quiet=config.quiet)
    encoder = loader.image_text(image_text)
    suggestion = suggest_classes(
        found.images,
        root=found.root,
        encoder=encoder,
        nouns=candidates,
        settings=config.numbers,
        examples="page" in targets,
        executor=executor_of(
            config.executor,
            device=config.device,
            loaded=encoder,
            load=partial(loader.image_text, image_text),
        ),
        quiet=config.quiet,
    )
    if "page" in targets:
        write_text(targets["page"], render(suggestion, command=config.command))
    if "out" in targets:
        write_text(targets["out"], suggestion.to_text())
    return suggestion


def read_nouns(nouns: ClassesValue | None) -> Vocabulary:
    """The candidates for a class list; None for the everyday nouns that come with the package."""
    vocabulary = Vocabulary.of(BUILT_IN if nouns is None else nouns)
    if len(vocabulary) + len(vocabulary.background) < 2:
        raise PatchwordError(f"there is one noun, {vocabulary.names[0]!r}; at least two are needed for a vote")
    return vocabulary


def _targets(config: SuggestConfig) -> dict[str, Path]:
    """The files to write, refused before minutes of work where they cannot be."""
    targets = {name: Path(path) for name, path in (("out", config.out), ("page", config.page)) if path is not None}
    for path in targets.values():
        if path.is_dir():
            raise PatchwordError(f"{path} is a folder; the output is a file, such as {path / 'classes.txt'}")
        if path.exists() and not config.overwrite:
            raise PatchwordError(f"{path} exists; choose another name, or --overwrite it")
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            raise PatchwordError(f"cannot write {path}: {above} is not a folder that may be written to")
    places = [path.resolve() for path in targets.values()]
    if len(set(places)) < len(places):
        raise PatchwordError(f"class list and page are both {targets['out']}; name two different files")
    nouns = config.nouns
    if isinstance(nouns, str | Path) and "\n" not in str(nouns) and Path(nouns).resolve() in places:
        raise PatchwordError(f"{nouns} holds the nouns; choose another output file")
    return targets


def _check_spared(images: Sequence[Path], *, targets: Iterable[Path]) -> None:
    """Refuse to overwrite a photograph."""
    places = {os.path.realpath(path) for path in targets}  # `Path.resolve` ends at a link that leads to itself
    for path in images if places else ():
        if os.path.realpath(path) in places:
            raise PatchwordError(f"{path} is one of the photographs; choose another output file")
