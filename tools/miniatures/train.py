"""Train the miniature models again: `python -m tools.miniatures.train clip --out FOLDER`, likewise `dino` and `sam`.

`distill` trains the miniature DINOv2 on, by the features of its own small windows. `cards` measures the three and
writes a card beside each.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from patchword.errors import PatchwordError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and train or measure; a user's mistake ends in one line and exit code 2.

    Args:
        arguments: instead of the command line's.
    """
    parser = argparse.ArgumentParser(prog="python -m tools.miniatures.train", description=__doc__)
    parser.add_argument(
        "model",
        choices=["clip", "dino", "distill", "sam", "cards"],
        help="what to train; distill is the DINOv2's second training, and cards measures what is there",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint; for cards, of all three")
    parser.add_argument("--steps", type=int, help="optimiser steps; the recipe's own without it")
    parser.add_argument("--scenes", type=int, help="scenes drawn for training, or measured on for cards")
    parser.add_argument("--rate", type=float, help="peak learning rate; else the recipe's")
    parser.add_argument("--start", type=Path, help="folder of an earlier training to go on from")
    parser.add_argument(
        "--teacher",
        nargs=2,
        action="append",
        default=[],
        metavar=("FOLDER", "WINDOW"),
        help="for distill: an earlier training and the side of its windows in pixels; may be given again",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of every choice, at least 0")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        _run(chosen)
    except PatchwordError as error:
        parser.exit(2, f"{error}\n")


def _run(chosen: argparse.Namespace) -> None:
    if chosen.seed < 0:
        raise PatchwordError(f"--seed {chosen.seed}; it must be at least 0")
    for name in ("rate", "start"):
        if getattr(chosen, name) is not None and chosen.model == "cards":
            raise PatchwordError(f"--{name} does not go with cards (choose from clip, dino, distill, sam)")
    if chosen.teacher and chosen.model != "distill":
        raise PatchwordError(f"--teacher does not go with {chosen.model} (choose distill)")
    numbers = {name: value for name in ("steps", "scenes", "rate") if (value := getattr(chosen, name)) is not None}
    if chosen.model == "clip":
        from tools.miniatures.train_clip import ClipRecipe, train_clip

        recipe = replace(ClipRecipe(seed=chosen.seed), **numbers)
        train_clip(chosen.out, recipe=recipe, start=chosen.start, threads=chosen.threads)
    elif chosen.model == "dino":
        from tools.miniatures.train_dino import DinoRecipe, train_dino

        dino = replace(DinoRecipe(seed=chosen.seed), **numbers)
        train_dino(chosen.out, recipe=dino, start=chosen.start, threads=chosen.threads)
    elif chosen.model == "distill":
        from tools.miniatures.train_distill import DistillRecipe, train_distill

        distill = replace(DistillRecipe(seed=chosen.seed), **numbers)
        teachers = [(Path(folder), _pixels(window)) for folder, window in chosen.teacher]
        train_distill(chosen.out, recipe=distill, start=chosen.start, teachers=teachers, threads=chosen.threads)
    elif chosen.model == "sam":
        from tools.miniatures.train_sam import FRESH, ONWARD, train_sam

        rate = numbers.pop("rate", None)
        usual = FRESH if chosen.start is None else ONWARD
        sam = usual if rate is None else replace(usual, rate=rate)
        numbers = {"steps": 5000, **numbers}
        train_sam(chosen.out, **numbers, recipe=sam, start=chosen.start, seed=chosen.seed, threads=chosen.threads)
    else:
        from tools.miniatures.cards import write_cards

        write_cards(chosen.out, scenes=200 if chosen.scenes is None else chosen.scenes)


def _pixels(window: str) -> int:
    if not window.isdecimal():
        raise PatchwordError(f"--teacher with windows of {window!r}; choose a number of pixels, such as 48")
    return int(window)


if __name__ == "__main__":
    main()
