"""The things of Toytown: how each looks, how large it is and where it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from patchword.toytown import shapes
from patchword.toytown.shapes import Pen

Palette = tuple[str, ...]


@dataclass(frozen=True)
class Thing:
    """A class of objects.

    Attributes:
        name: as captions call it.
        draw: fills the parts of a unit square.
        aspect: width over height.
        place: "sky", "ground" or "water", where it is.
        height: against a house's, for what stands equally near.
        colours: of the parts `MAIN` to `FOURTH`, those that it has; the first part's are named in captions.
        kind: what a person might call it more loosely; "" for nothing.
        patterned: whether its main part is plain, striped or spotted, each as often.
        synonym: what a person might say for it; "" for nothing.
        turn: largest rotation in radians.
    """

    name: str
    draw: Callable[[Pen], None]
    aspect: float
    place: str
    height: float
    colours: tuple[Palette, ...]
    kind: str = ""
    patterned: bool = False
    synonym: str = ""
    turn: float = 0.04


_BRIGHT = ("red", "blue", "orange", "pink", "purple", "green", "yellow")
_WALLS = ("white", "red", "yellow", "blue", "pink")
_GLASS = ("glass",)
THINGS: tuple[Thing, ...] = (
    Thing(
        "house",
        shapes.draw_house,
        1.1,
        "ground",
        1.0,
        (_WALLS, ("brown", "red", "grey"), ("brown", "blue", "green"), _GLASS),
        "building",
        synonym="home",
    ),
    Thing(
        "lighthouse",
        shapes.draw_lighthouse,
        0.42,
        "ground",
        1.45,
        (("white",), ("red", "blue", "black"), (), ("lit",)),
        "building",
    ),
    Thing(
        "windmill",
        shapes.draw_windmill,
        0.8,
        "ground",
        1.35,
        (("white", "brown", "grey"), ("brown", "red"), ("white",)),
        "building",
    ),
    Thing(
        "tree",
        shapes.draw_tree,
        0.85,
        "ground",
        1.05,
        (("green", "green", "green", "orange", "red"), ("lighter",), ("brown",)),
        "plant",
    ),
    Thing("pine", shapes.draw_pine, 0.65, "ground", 1.1, (("green", "dark green"), ("darker",), ("brown",)), "plant"),
    Thing("cactus", shapes.draw_cactus, 0.75, "ground", 0.85, (("green",), ("darker",)), "plant"),
    Thing(
        "flower",
        shapes.draw_flower,
        0.72,
        "ground",
        0.58,
        (("pink", "red", "purple", "white", "yellow", "blue"), ("yellow", "orange"), ("green",)),
        "plant",
        synonym="blossom",
    ),
    Thing(
        "mushroom",
        shapes.draw_mushroom,
        1.0,
        "ground",
        0.56,
        (("red", "brown", "orange", "purple"), ("cream",)),
        patterned=True,
        synonym="toadstool",
    ),
    Thing(
        "car",
        shapes.draw_car,
        1.9,
        "ground",
        0.50,
        (("red", "blue", "white", "yellow", "green", "black"), (), (), _GLASS),
        "vehicle",
        synonym="automobile",
    ),
    Thing(
        "truck",
        shapes.draw_truck,
        1.75,
        "ground",
        0.62,
        (("red", "blue", "orange", "green"), ("white", "grey", "yellow"), (), _GLASS),
        "vehicle",
        synonym="lorry",
    ),
    Thing(
        "boat",
        shapes.draw_boat,
        1.05,
        "water",
        0.76,
        (("brown", "red", "blue", "white"), ("white", "cream", "yellow")),
        "vehicle",
        synonym="ship",
    ),
    Thing(
        "cow",
        shapes.draw_cow,
        1.4,
        "ground",
        0.60,
        (("white", "brown", "black"), ("black", "brown", "white"), ("pink",)),
        "animal",
    ),
    Thing(
        "sheep",
        shapes.draw_sheep,
        1.3,
        "ground",
        0.55,
        (("white", "white", "grey", "black"), ("dark",)),
        "animal",
        synonym="lamb",
    ),
    Thing(
        "duck", shapes.draw_duck, 1.15, "water", 0.48, (("yellow", "white", "brown"), ("orange",), ("cream",)), "animal"
    ),
    Thing(
        "bird",
        shapes.draw_bird,
        1.3,
        "sky",
        0.42,
        (("red", "blue", "brown", "black", "yellow"), ("grey", "black", "brown"), ("orange",)),
        "animal",
    ),
    Thing(
        "fish",
        shapes.draw_fish,
        1.5,
        "water",
        0.50,
        (("orange", "blue", "red", "yellow", "purple"), ("orange", "red", "blue", "yellow")),
        "animal",
        patterned=True,
        turn=0.25,
    ),
    Thing(
        "butterfly",
        shapes.draw_butterfly,
        1.2,
        "sky",
        0.44,
        (("orange", "blue", "purple", "pink", "yellow"), ("yellow", "white", "black")),
        "animal",
        synonym="moth",
        turn=0.4,
    ),
    Thing("sun", shapes.draw_sun, 1.0, "sky", 0.50, (("yellow", "orange"), ("orange", "yellow")), turn=0.5),
    Thing("moon", shapes.draw_moon, 0.85, "sky", 0.48, (("cream", "white", "yellow"),), turn=0.4),
    Thing("cloud", shapes.draw_cloud, 1.8, "sky", 0.38, (("white", "white", "grey"),)),
    Thing("balloon", shapes.draw_balloon, 0.75, "sky", 0.74, (_BRIGHT, (), ("brown",)), patterned=True),
    Thing(
        "kite",
        shapes.draw_kite,
        0.7,
        "sky",
        0.72,
        (_BRIGHT, ("yellow", "white", "orange", "blue"), ("red", "white", "pink")),
        turn=0.4,
    ),
    Thing("ball", shapes.draw_ball, 1.0, "ground", 0.48, (_BRIGHT,), patterned=True, turn=1.5),
    Thing(
        "umbrella", shapes.draw_umbrella, 1.05, "ground", 0.64, (_BRIGHT,), patterned=True, synonym="parasol", turn=0.25
    ),
    Thing(
        "snowman", shapes.draw_snowman, 0.7, "ground", 0.80, (("snow white",), ("red", "blue", "green"), ("orange",))
    ),
    Thing("fence", shapes.draw_fence, 1.8, "ground", 0.48, (("white", "brown"), ("white", "brown"))),
    Thing("bench", shapes.draw_bench, 1.6, "ground", 0.50, (("brown", "red", "green", "blue"),)),
    Thing("lamp", shapes.draw_lamp, 0.38, "ground", 1.0, (("lit", "cream", "yellow"),), synonym="lantern"),
)
