"""The cards beside the miniature models: how each was trained, and how good it is on scenes nothing was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchword.data.folders import write_json, write_text
from tools.miniatures.checkpoints import earlier_runs
from tools.miniatures.measure_clip import NamingMeasurement, measure_clip
from tools.miniatures.measure_dino import ProbeMeasurement, measure_dino
from tools.miniatures.measure_sam import SamMeasurement, measure_sam

_COMMON = """
It knows the drawn world that comes with patchword and nothing else: it is there so that every stage can be run, tested
and measured without a download, and is no use on photographs. It was trained on scenes of its own seeds
("train-{kind}") and measured on scenes of the purpose "validate", which nothing is trained on.

Train it again: {commands}. The weights that ship took {seconds} seconds on one or two cores of shared machines.
Measure again: `python -m tools.miniatures.train cards --out FOLDER`, with the three models in FOLDER.

Licence: Apache-2.0, as the project.
"""
_STYLES = ("day", "dusk")


def write_cards(folder: Path, *, scenes: int = 200) -> dict[str, Any]:
    """Measure the three miniatures and write README.md beside each, and measured.json.

    Args:
        folder: holds clip/, dino/ and sam/, each with the train.json of its training.
        scenes: unseen scenes of each style; five times as many for crops.

    Returns:
        the numbers by model and style.
    """
    # Hardly one thing a scene stands free, so that crops need more scenes than masks do.
    clip = {style: measure_clip(folder / "clip", scenes=5 * scenes, style=style) for style in _STYLES}
    sam = {style: measure_sam(folder / "sam", scenes=scenes, style=style) for style in _STYLES}
    dino = measure_dino(folder / "dino", test=scenes)
    _write(folder, kind="clip", body=_clip_body(clip), measured=clip["day"].accuracy)
    _write(folder, kind="dino", body=_dino_body(dino, scenes=scenes), measured=dino.features)
    _write(folder, kind="sam", body=_sam_body(sam), measured=sam["day"].all)
    numbers = {
        "scenes": scenes,
        "clip": {style: found.accuracy for style, found in clip.items()},
        "dino": {"features": dino.features, "pixels": dino.pixels},
        "sam": {style: found.all for style, found in sam.items()},
    }
    write_json(folder / "measured.json", numbers)
    return numbers


def _clip_body(measured: dict[str, NamingMeasurement]) -> str:
    day, dusk = (measured[style] for style in _STYLES)
    return (
        "# Miniature CLIP\n\nA `CLIPModel` trained contrastively on Toytown scenes, pieces of them, and captions that "
        "mention what a person would mention.\n\n"
        "| zero-shot name of a single-object crop, mean over classes | accuracy | crops | aim |\n|---|---|---|---|\n"
        f"| day, {len(day.per_class)} thing classes | {day.accuracy:.1%} | {day.crops} | 95 % |\n"
        f"| dusk, {len(dusk.per_class)} thing classes | {dusk.accuracy:.1%} | {dusk.crops} | |\n\n"
        f"Hardest by day: {_lowest(day.per_class)}.\n"
    )


def _dino_body(measured: ProbeMeasurement, *, scenes: int) -> str:
    return (
        "# Miniature DINOv2\n\nA `Dinov2Model` trained on Toytown scenes in the manner of DINO and iBOT, with contrast "
        "among patches and among regions in the place of prototypes (`train_dino.py` says what differs and why). It "
        "learns which pixels belong together from the drawn outlines, and from two drawings of every place that things "
        "stay the same when they are moved, painted anew or seen at dusk. Then it was distilled from itself: one pass "
        "over a whole picture learned the features that earlier trainings had in windows, and at dusk those that "
        "they had by day (`train_distill.py`). It never sees a class or a caption.\n\n"
        "| linear probe of patch classes | mean class accuracy | aim |\n|---|---|---|\n"
        f"| this model | {measured.features:.1%} | 80 % |\n"
        f"| raw patch pixels | {measured.pixels:.1%} | 20 points below the model |\n\n"
        f"On {scenes} unseen scenes, every fourth at dusk. The probe is class-balanced logistic regression, fitted "
        'on 1,500 scenes of the purpose "probe"; patches under 60 % majority are left out. '
        f"Hardest: {_lowest(measured.per_class)}.\n"
    )


def _sam_body(measured: dict[str, SamMeasurement]) -> str:
    day, dusk = (measured[style] for style in _STYLES)
    return (
        "# Miniature SAM\n\nA `SamModel` trained on the nameless masks of Toytown's things and regions with point "
        "prompts.\n\n"
        "| one random point, best mask by predicted IoU: mean true IoU | day | dusk | aim |\n|---|---|---|---|\n"
        f"| things and regions ({day.count} and {dusk.count}) | {day.all:.3f} | {dusk.all:.3f} | 0.80 |\n"
        f"| things | {day.things:.3f} | {dusk.things:.3f} | 0.70 |\n"
        f"| regions of stuff | {day.stuff:.3f} | {dusk.stuff:.3f} | |\n"
        f"| had the best of the three masks been known | {day.best:.3f} | {dusk.best:.3f} | |\n"
    )


def _lowest(per_class: dict[str, float], *, count: int = 4) -> str:
    lowest = sorted(per_class.items(), key=lambda item: item[1])[:count]
    return ", ".join(f"{name} {value:.0%}" for name, value in lowest)


def _write(folder: Path, *, kind: str, body: str, measured: float) -> None:
    trained = json.loads((folder / kind / "train.json").read_text())
    trained["measured"] = measured  # a training that goes on from this one keeps it: the card's curve
    write_json(folder / kind / "train.json", trained)
    runs = earlier_runs(trained)
    seconds = sum(int(run["seconds"]) for run in runs)
    common = _COMMON.format(kind=kind, commands=", then ".join(_command(kind, run) for run in runs), seconds=seconds)
    write_text(folder / kind / "README.md", body + _curve(runs) + common)


def _curve(runs: list[dict[str, Any]]) -> str:
    """What was measured after each training, where it was, by the steps until then."""
    steps, points = 0, []
    for run in runs:
        steps += run["step"]
        if "measured" in run:
            points.append(f"{run['measured']:.3f} after {steps:,} steps")
    return f"\nFirst number of the table over the trainings: {', '.join(points)}.\n" if len(points) > 1 else ""


def _command(kind: str, run: dict[str, Any]) -> str:
    recipe = run["recipe"]
    steps = recipe.get("steps", run["step"])
    scenes = f" --scenes {recipe['scenes']}" if "scenes" in recipe else ""
    onward = f" --rate {recipe['rate']} --start FOLDER-BEFORE" if "before" in recipe else ""
    stopped = "" if steps == run["step"] else f" stopped after {run['step']} steps"
    note = f" ({run['note']})" if "note" in run else ""
    options = f"--steps {steps}{scenes} --seed {recipe['seed']}{onward}"
    for teacher in recipe.get("teachers", ()):
        options += f" --teacher FOLDER-OF-{teacher['steps']}-STEPS {teacher['window']}"
    training = "distill" if "window" in recipe or "teachers" in recipe else kind
    return f"`python -m tools.miniatures.train {training} --out FOLDER {options}`{stopped}{note}"
