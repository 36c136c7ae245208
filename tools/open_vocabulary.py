"""Words that neither labelling nor alignment was given, tried on Toytown: the four tables of docs/claims.md.

    patchword demo -o demo
    python -m tools.open_vocabulary demo -o open-vocabulary

For each test every name of its list is on offer, and only the new words are scored: five classes that stand in no
list ("new things"), a class under its synonym, several classes under the name of their kind, and things by their
pattern ("new combinations"). Exact masks of the demo's unseen scenes are drawn again from their seeds.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import patchword
from patchword.data.folders import prepare_output, write_json
from patchword.data.masks import LabelMap
from patchword.errors import PatchwordError, PatchwordWarning
from patchword.toytown.classes import CLASSES, KINDS, SEEN, SYNONYMS, UNSEEN
from patchword.toytown.demo_compare import Contender, training_free
from patchword.toytown.demo_scenes import ALL, SIZE
from patchword.toytown.things import THINGS
from patchword.toytown.world import Scene, draw_scene, scene_seed

REPORT = "open_vocabulary.json"
PATTERNED = tuple(thing.name for thing in THINGS if thing.patterned and thing.name in SEEN)
_IGNORED = 255


@dataclass(frozen=True)
class Words:
    """A test of open vocabulary.

    Attributes:
        title: for the reader of a table.
        names: all names on offer.
        new: those that nobody was given before, which are scored.
        truth: (h, w) positions in the names of a scene's pixels; 255 for pixels that do not count.
    """

    title: str
    names: tuple[str, ...]
    new: tuple[str, ...]
    truth: Callable[[Scene], NDArray[np.uint8]]


def renamed(names: Sequence[str], *, call: Callable[[str], str]) -> Callable[[Scene], NDArray[np.uint8]]:
    """The truth where every class has another name; classes that have none of the names do not count."""
    codes = {name: position for position, name in enumerate(names)}
    order = np.array([codes.get(call(name), _IGNORED) for name in CLASSES], dtype=np.uint8)

    def truth(scene: Scene) -> NDArray[np.uint8]:
        positions: NDArray[np.uint8] = order[scene.classes]
        return positions

    return truth


def patterned(names: Sequence[str]) -> Callable[[Scene], NDArray[np.uint8]]:
    """The truth where striped and spotted things are classes of their own."""
    plain = renamed(names, call=str)

    def truth(scene: Scene) -> NDArray[np.uint8]:
        positions = plain(scene)
        for thing in scene.things:
            name = f"{thing.pattern} {thing.name}"
            if name in names:
                positions[scene.instances == thing.instance] = names.index(name)
        return positions

    return truth


def word_tests() -> tuple[Words, ...]:
    """The four tests."""
    synonyms = {name: word for name, word in SYNONYMS.items() if name in SEEN}
    by_synonym = tuple(synonyms.get(name, name) for name in SEEN)
    kind_of = {name: kind for kind, members in KINDS.items() for name in members if name in SEEN}
    by_kind = tuple(dict.fromkeys(kind_of.get(name, name) for name in SEEN))
    combinations = tuple(f"{pattern} {name}" for name in PATTERNED for pattern in ("striped", "spotted"))
    by_pattern = (*SEEN, *combinations)
    return (
        Words("new things", ALL, UNSEEN, renamed(ALL, call=str)),
        Words(
            "synonyms",
            by_synonym,
            tuple(synonyms.values()),
            renamed(by_synonym, call=lambda name: synonyms.get(name, name)),
        ),
        Words("kinds", by_kind, tuple(KINDS), renamed(by_kind, call=lambda name: kind_of.get(name, name))),
        Words("new combinations", by_pattern, combinations, patterned(by_pattern)),
    )


def run_tests(demo: Path, *, out: Path, overwrite: bool, quiet: bool = False) -> dict[str, dict[str, float]]:
    """Measure the trained segmenter, its oracle, the training-free methods and chance.

    Args:
        demo: folder that `patchword demo` made.
        out: folder of the masks and of the scores.

    Returns:
        test -> contender -> mean IoU of the new words in per cent.
    """
    report = demo / "report.json"
    if not report.is_file():
        raise PatchwordError(f"{demo} is not a folder that `patchword demo` made")
    settings = json.loads(report.read_bytes())["settings"]
    prepare_output(out, overwrite=overwrite, marker=REPORT)
    scenes = list(_scenes(seed=settings["seed"], count=settings["evaluated_scenes"]))
    contenders = [
        Contender("ours", model=demo / "model"),
        Contender("oracle: exact masks", model=demo / "oracle"),
        *training_free(),
    ]
    found: dict[str, dict[str, float]] = {}
    for test in word_tests():
        masks = out / test.title.replace(" ", "-")
        counts = np.zeros(len(test.names))
        for file, scene in scenes:
            positions = test.truth(scene)
            masks.mkdir(exist_ok=True)
            LabelMap(positions, test.names).save(masks / f"{file}.png")
            counts += np.bincount(positions[positions != _IGNORED], minlength=len(test.names))
        found[test.title] = {each.title: _new_miou(each, demo / "day", masks, test, quiet) for each in contenders}
        found[test.title]["chance"] = _chance(counts, test)
    write_json(out / REPORT, {"settings": settings, "miou": found})
    return found


def _scenes(*, seed: int, count: int) -> Iterator[tuple[str, Scene]]:
    """The unseen scenes by day of a demo, with their files' names."""
    for index in range(count):
        place = scene_seed("evaluate-seen", index=seed * 100_000 + index)
        yield f"{index:05d}.png", draw_scene(place, size=SIZE)


def _new_miou(contender: Contender, photos: Path, masks: Path, test: Words, quiet: bool) -> float:
    report = patchword.evaluate(
        photos,
        masks=masks,
        classes=list(test.names),
        model=contender.load(),
        settings=dict(contender.settings),
        scoring={"boundary": False, "resamples": 0},
        device="cpu",
        quiet=quiet,
    )
    found = [row.iou for row in report.classes if row.name in test.new and row.iou is not None]
    return 100 * float(np.mean(found)) if found else 0.0


def _chance(counts: NDArray[np.float64], test: Words) -> float:
    """Mean IoU of the new words that occur, in per cent, where every pixel gets any name with the same probability."""
    shares, guess = counts / counts.sum(), 1 / len(test.names)
    found = [shares[test.names.index(name)] for name in test.new]
    return 100 * float(np.mean([share * guess / (share + guess - share * guess) for share in found if share]))


def markdown(found: dict[str, dict[str, float]]) -> str:
    """The scores as a table, a row a contender."""
    rows = ["| mIoU of the new words, % | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for name in next(iter(found.values())):
        rows.append(f"| {name} | " + " | ".join(f"{scores[name]:.1f}" for scores in found.values()) + " |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Entry point of `python -m tools.open_vocabulary`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder that `patchword demo` made")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--overwrite", action="store_true", help="empty the folder first")
    asked = parser.parse_args()
    warnings.simplefilter("ignore", PatchwordWarning)  # every pixel of a scene has one of the classes
    try:
        found = run_tests(asked.demo, out=asked.out, overwrite=asked.overwrite)
    except PatchwordError as error:
        parser.exit(2, f"patchword: {error}\n")
    print(markdown(found), end="")


if __name__ == "__main__":
    main()
