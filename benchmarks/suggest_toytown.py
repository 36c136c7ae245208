"""Does `suggest` name the classes that are there? Toytown scenes without some classes, the miniature CLIP, two lists.

    python benchmarks/suggest_toytown.py [--scenes N] [--first N] [--set name=value ...] [--json]

Scenes of both styles in which none of `ABSENT` was drawn are the photographs. The nouns are once all of Toytown's
classes, those that the scenes lack included, and once the package's own list of everyday nouns, of which the miniature
CLIP was taught only Toytown's; what it makes of the others' letters is chance. A class is there when it covers at least
1 % of the pixels of `minimum_share` of the scenes; a proposed class is right when any scene shows it at all. Only this
file looks at the masks.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from patchword.cli.terminal import parse_settings
from patchword.config.suggest import SuggestSettings
from patchword.data.vocabulary import Vocabulary
from patchword.models.loading import load_image_text
from patchword.models.protocols import ImageTextEncoder
from patchword.suggestion.api import read_nouns
from patchword.suggestion.run import suggest_classes
from patchword.toytown import miniatures
from patchword.toytown.classes import CLASSES
from patchword.toytown.world import Scene, draw_scene, scene_seed

STYLES = {"day": "evaluate-seen", "dusk": "evaluate-style"}
ABSENT = ("boat", "balloon", "mushroom", "bench", "snowman", "kite", "fence", "butterfly")
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Row:
    """One list of nouns on the scenes of one style.

    Attributes:
        style: "day" or "dusk".
        nouns: which list.
        candidates: nouns on it.
        proposed: classes that were proposed.
        precision: share of the proposed classes that some scene shows.
        recall: share of the classes that are there that were proposed.
        absent: classes proposed of those that no scene has.
        wrong: proposed classes that no scene shows.
        missed: classes that are there and were not proposed.
        seconds: of the whole, models loaded.
    """

    style: str
    nouns: str
    candidates: int
    proposed: int
    precision: float
    recall: float
    absent: int
    wrong: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float


def draw_photographs(folder: Path, *, style: str, count: int, first: int) -> tuple[list[Path], list[dict[str, float]]]:
    """Scenes without the absent classes, and the share of the pixels of each class in each."""
    paths: list[Path] = []
    shares = []
    index = first
    while len(paths) < count:
        scene = draw_scene(scene_seed(STYLES[style], index=index), style=style)
        index += 1
        covered = shares_of(scene)
        if not covered.keys() & set(ABSENT):
            paths.append(folder / f"{style}-{index:05d}.png")
            Image.fromarray(scene.image).save(paths[-1])
            shares.append(covered)
    return paths, shares


def shares_of(scene: Scene) -> dict[str, float]:
    """Share of the pixels of every class in a scene."""
    counts = np.bincount(scene.classes.ravel(), minlength=len(CLASSES))
    return {name: counts[index] / scene.classes.size for index, name in enumerate(CLASSES) if counts[index]}


def measure(
    style: str,
    nouns: tuple[str, Vocabulary],
    *,
    photographs: tuple[list[Path], list[dict[str, float]]],
    encoder: ImageTextEncoder,
    settings: SuggestSettings,
) -> Row:
    """Propose, then compare with the masks."""
    paths, shares = photographs
    started = time.perf_counter()
    suggestion = suggest_classes(paths, root=paths[0].parent, encoder=encoder, nouns=nouns[1], settings=settings)
    seconds = time.perf_counter() - started
    anywhere = {name for covered in shares for name in covered}
    often = {name: sum(covered.get(name, 0) >= LEAST_SHARE for covered in shares) / len(shares) for name in anywhere}
    there = {name for name, share in often.items() if share >= settings.minimum_share}
    named = set(suggestion.vocabulary.names)
    return Row(
        style=style,
        nouns=nouns[0],
        candidates=len(nouns[1]),
        proposed=len(named),
        precision=len(named & anywhere) / len(named),
        recall=len(named & there) / len(there),
        absent=len(named & set(ABSENT)),
        wrong=tuple(sorted(named - anywhere)),
        missed=tuple(sorted(there - named)),
        seconds=seconds,
    )


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=200, help="scenes a style")
    parser.add_argument("--first", type=int, default=0, help="index of the first scene")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of suggest")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    settings = SuggestSettings(**parse_settings(options.set))
    encoder = load_image_text(str(miniatures.CLIP))
    lists = (("Toytown's classes", read_nouns(list(CLASSES))), ("the package's own", read_nouns(None)))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for style in STYLES:
            photographs = draw_photographs(Path(folder), style=style, count=options.scenes, first=options.first)
            rows += [
                measure(style, nouns, photographs=photographs, encoder=encoder, settings=settings) for nouns in lists
            ]
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print(f"{'style':6} {'nouns':18} {'candidates':>10} {'proposed':>8} {'precision':>9} {'recall':>6} absent seconds")
    for row in rows:
        print(
            f"{row.style:6} {row.nouns:18} {row.candidates:10} {row.proposed:8} {row.precision:9.2f} {row.recall:6.2f} "
            f"{row.absent} of {len(ABSENT)} {row.seconds:7.1f}"
        )
        print(f"       wrong: {', '.join(row.wrong) or 'none'}; missed: {', '.join(row.missed) or 'none'}")


if __name__ == "__main__":
    main()
