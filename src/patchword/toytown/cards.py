"""The cards beside the miniature models: how each was trained and how good it measured on scenes nothing was trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from patchword.folders import write_json, write_text
from patchword.toytown.measure_clip import measure_clip
from patchword.toytown.measure_dino import measure_dino
from patchword.toytown.measure_sam import measure_sam

_COMMON = """
It knows the drawn world that comes with patchword and nothing else: it is there so that every stage can be run, tested and measured
without a download, and no use on photographs. Trained on scenes of its own seeds ({purpose}); measured on scenes of the purpose
"validate", which nothing is trained on, day and dusk.

Train it again: `python -m patchword.toytown.train {kind} --out FOLDER --steps {steps}`. The weights that ship took {seconds} seconds on
one core of an AMD EPYC with other work beside it. Measure again: `python -m patchword.toytown.train cards --out FOLDER`.

Licence: Apache-2.0, as the project.
"""


def write_cards(folder: Path, *, scenes: int = 200) -> dict[str, Any]:
    """Measure the three miniatures and write README.md beside each, and measured.json.

    Args:
        folder: holds clip/, dino/ and sam/, each with the train.json of its training.
        scenes: unseen scenes of each style.

    Returns:
        the numbers by model and style.
    """
    clip = {style: measure_clip(folder / "clip", scenes=scenes, style=style) for style in ("day", "dusk")}
    sam = {style: measure_sam(folder / "sam", scenes=scenes, style=style) for style in ("day", "dusk")}
    dino = measure_dino(folder / "dino", test=scenes)
    worst = sorted(clip["day"].per_class.items(), key=lambda item: item[1])[:4]
    _write(
        folder / "clip",
        kind="clip",
        title="Miniature CLIP",
        purpose="train-clip",
        body=(
            "A `CLIPModel` trained contrastively on Toytown scenes, pieces of them and captions that mention what a person would mention.\n\n"
            "| measured | day | dusk | aim |\n|---|---|---|---|\n"
            f"| zero-shot name of a single-object crop among {len(clip['day'].per_class)} thing classes, mean over classes | "
            f"{clip['day'].accuracy:.1%} ({clip['day'].crops} crops) | {clip['dusk'].accuracy:.1%} ({clip['dusk'].crops} crops) | 90 % |\n\n"
            f"Hardest by day: {', '.join(f'{name} {value:.0%}' for name, value in worst)}.\n"
        ),
    )
    low = sorted(dino.per_class.items(), key=lambda item: item[1])[:4]
    _write(
        folder / "dino",
        kind="dino",
        title="Miniature DINOv2",
        purpose="train-dino",
        body=(
            "A `Dinov2Model` trained by self-supervision on Toytown scenes alone, in the manner of DINO and iBOT with contrast among patches in "
            "the place of prototypes (`train_dino.py` says what differs and why). It never sees a label, a mask or a caption.\n\n"
            "| linear probe of patch classes, mean class accuracy | this model | raw patch pixels | aim |\n|---|---|---|---|\n"
            f"| {scenes} unseen scenes, every fourth at dusk | {dino.features:.1%} | {dino.pixels:.1%} | 75 %, and 20 points above pixels |\n\n"
            'The probe is class-balanced logistic regression, fitted on scenes of the purpose "probe"; patches under 60 % majority '
            f"are left out. Hardest: {', '.join(f'{name} {value:.0%}' for name, value in low)}.\n"
        ),
    )
    _write(
        folder / "sam",
        kind="sam",
        title="Miniature SAM",
        purpose="train-sam",
        body=(
            "A `SamModel` trained on the nameless masks of Toytown's things and regions with point prompts.\n\n"
            "| one random point, best of the masks by predicted IoU: mean true IoU | day | dusk | aim |\n|---|---|---|---|\n"
            f"| things and regions | {sam['day'].all:.3f} ({sam['day'].count}) | {sam['dusk'].all:.3f} ({sam['dusk'].count}) | 0.80 |\n"
            f"| things | {sam['day'].things:.3f} | {sam['dusk'].things:.3f} | |\n"
            f"| regions of stuff | {sam['day'].stuff:.3f} | {sam['dusk'].stuff:.3f} | |\n"
            f"| had the best of the three masks been known | {sam['day'].best:.3f} | {sam['dusk'].best:.3f} | |\n"
        ),
    )
    numbers = {
        "scenes": scenes,
        "clip": {style: found.accuracy for style, found in clip.items()},
        "dino": {"features": dino.features, "pixels": dino.pixels},
        "sam": {style: found.all for style, found in sam.items()},
    }
    write_json(folder / "measured.json", numbers)
    return numbers


def _write(folder: Path, *, kind: str, title: str, purpose: str, body: str) -> None:
    trained = json.loads((folder / "train.json").read_text())
    common = _COMMON.format(kind=kind, purpose=purpose, steps=trained["step"], seconds=trained["seconds"])
    write_text(folder / "README.md", f"# {title}\n\n{body}{common}")
