"""Zero-shot names of single-object crops of unseen scenes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from patchword.data.vocabulary import Vocabulary
from patchword.errors import PatchwordError
from patchword.models.loading import load_image_text
from patchword.models.text_embeddings import encode_vocabulary
from patchword.toytown.classes import STYLES
from patchword.toytown.things import THINGS
from patchword.toytown.world import Scene
from tools.miniatures.pool import draw_pool


@dataclass(frozen=True)
class NamingMeasurement:
    """Share in [0, 1] of crops whose most similar class name is the right one, of all thing classes.

    Attributes:
        accuracy: mean over classes, so that frequent things count no more than rare ones.
        crops: number of crops.
        per_class: accuracy of every class.
    """

    accuracy: float
    crops: int
    per_class: dict[str, float]


def single_object_crops(
    scene: Scene, *, margin: float = 0.1, visible: float = 0.8, smallest: int = 20
) -> Iterator[tuple[Tensor, str]]:
    """Cut out every thing that is hardly covered.

    Args:
        scene: where the things stand.
        margin: added on every side, as a share of the longer side of the box.
        visible: least share of the crop's things that is this thing's, and of the box that lies in the picture.
        smallest: least side of the box in pixels.

    Yields:
        crop (1, 3, s, s) in [0, 1] and the thing's name.
    """
    height, width = scene.classes.shape
    first_thing = len(scene.stuff) + 1
    for thing in scene.things:
        left, top, wide, tall = thing.box
        if min(wide, tall) < smallest or left < 0 or top < 0 or left + wide > width or top + tall > height:
            continue
        side = round(max(wide, tall) * (1 + 2 * margin))
        x = min(max(left + wide // 2 - side // 2, 0), max(width - side, 0))
        y = min(max(top + tall // 2 - side // 2, 0), max(height - side, 0))
        inside = scene.instances[y : y + side, x : x + side]
        things = int((inside >= first_thing).sum())
        if int((inside == thing.instance).sum()) < visible * things:
            continue
        crop = torch.from_numpy(scene.image[y : y + side, x : x + side]).permute(2, 0, 1)[None].float() / 255
        yield crop, thing.name


@torch.no_grad()
def measure_clip(folder: Path, *, scenes: int = 400, style: str = "day") -> NamingMeasurement:
    """Name single-object crops of scenes of the purpose "validate" among all thing classes, in the default templates.

    Args:
        folder: checkpoint of a CLIP.
        scenes: number of scenes.
        style: "day" or "dusk".

    Returns:
        the accuracy over every class of which there is a crop.

    Raises:
        PatchwordError: on a folder without a CLIP, an unknown style, or too few scenes for a single crop.
    """
    if style not in STYLES:
        raise PatchwordError(f"Toytown has no style {style!r} (choose from {', '.join(STYLES)})")
    encoder = load_image_text(str(folder), device="cpu")
    names = [thing.name for thing in THINGS]
    text = encode_vocabulary(encoder, vocabulary=Vocabulary.of(names)).class_vectors()
    hits: dict[str, list[bool]] = {name: [] for name in names}
    for scene in draw_pool("validate", count=scenes, dusk_every=1 if style == "dusk" else 0):
        for crop, name in single_object_crops(scene):
            guess = int((encoder.encode_images(crop) @ text.T).argmax())
            hits[name].append(names[guess] == name)
    if not any(hits.values()):
        raise PatchwordError(f"no thing stands free in {scenes} scenes of Toytown; measuring needs more of them")
    each = {name: sum(found) / len(found) for name, found in hits.items() if found}
    return NamingMeasurement(sum(each.values()) / len(each), sum(map(len, hits.values())), each)
