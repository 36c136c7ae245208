"""Two visits to one place: the same things, elsewhere and in other colours; and the views that are cut of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from patchword.errors import PatchwordError
from patchword.toytown.surfaces import STUFF
from patchword.toytown.world import scene_seed
from tools.miniatures import places
from tools.miniatures.dino_steps import draw_step
from tools.miniatures.dino_targets import PATCH
from tools.miniatures.places import FIRST_THING, Visit, draw_day_and_dusk, draw_visit_pool, draw_visits


@pytest.fixture(scope="module")
def visits() -> list[tuple[Visit, Visit]]:
    return [draw_visits(seed, size=96) for seed in range(40)]


def things(visit: Visit) -> set[int]:
    return {int(number) for number in np.unique(visit.regions) if number >= FIRST_THING}


def test_a_seed_gives_the_same_two_visits(visits: list[tuple[Visit, Visit]]) -> None:
    for again, once in zip(draw_visits(3, size=96), visits[3], strict=True):
        assert np.array_equal(again.image, once.image)
        assert np.array_equal(again.regions, once.regions)


def test_most_things_are_met_again_elsewhere_and_repainted(visits: list[tuple[Visit, Visit]]) -> None:
    shared, moved, repainted = 0, 0, 0
    for first, second in visits:
        for number in things(first) & things(second):
            here, there = first.regions == number, second.regions == number
            shared += 1
            moved += not (here & there).any()
            repainted += bool(np.abs(first.image[here].mean(0) - second.image[there].mean(0)).max() > 15)
    met = sum(len(things(first) | things(second)) for first, second in visits)
    assert shared > 0.6 * met > 100
    assert moved > 0.4 * shared
    assert repainted > 0.7 * shared


def test_every_pixel_belongs_to_a_ground_or_a_thing(visits: list[tuple[Visit, Visit]]) -> None:
    for visit in (visit for pair in visits for visit in pair):
        numbers = np.unique(visit.regions)
        assert visit.regions.shape == visit.image.shape[:2]
        assert all(1 <= number <= len(STUFF) or FIRST_THING <= number < FIRST_THING + 8 for number in numbers)


def test_day_and_dusk_meet(visits: list[tuple[Visit, Visit]]) -> None:
    bright = np.array([[visit.image.mean() for visit in pair] for pair in visits])
    assert (np.abs(bright[:, 0] - bright[:, 1]) > 40).mean() > 0.2


def test_a_style_changes_the_light_and_nothing_else(visits: list[tuple[Visit, Visit]]) -> None:
    assert {visit.style for pair in visits for visit in pair} == {"day", "dusk"}
    for seed, pair in enumerate(visits[:8]):
        for own, dark in zip(pair, draw_visits(seed, size=96, style="dusk"), strict=True):
            assert dark.style == "dusk"
            assert np.array_equal(own.regions, dark.regions)
            assert np.array_equal(own.image, dark.image) == (own.style == "dusk")


def test_visits_by_day_are_drawn_at_dusk_as_well() -> None:
    pairs = draw_day_and_dusk("train-dino", count=4, size=32)
    seeds = [scene_seed("train-dino", index=index) for index in range(4)]
    by_day = [visit.image for seed in seeds for visit in draw_visits(seed, size=32) if visit.style == "day"]
    assert np.array_equal(pairs[:, 0], np.stack(by_day))
    assert (pairs[:, 1].mean((1, 2, 3)) < pairs[:, 0].mean((1, 2, 3))).all()


def test_places_without_a_visit_by_day_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_DUSK", 1.0)
    with pytest.raises(PatchwordError, match="all visits to 2 places are at dusk; draw more"):
        draw_day_and_dusk("train-dino", count=2, size=32)


def test_a_place_is_drawn_from_its_purpose_and_number() -> None:
    pictures, regions = draw_visit_pool("train-dino", count=3, size=32)
    assert pictures.shape == (3, 2, 32, 32, 3)
    assert regions.shape == (3, 2, 32, 32)
    assert len({picture.tobytes() for pair in pictures for picture in pair}) == 6


@pytest.mark.parametrize("again", [False, True])
def test_views_show_what_their_regions_say(again: bool) -> None:
    """Pictures whose red tells the region: the view's patches must have the colour of their region."""
    regions = torch.zeros(5, 2, 96, 96, dtype=torch.uint8)
    regions[:, 0, 20:60, 10:50] = FIRST_THING
    regions[:, 1, 40:80, 50:90] = FIRST_THING
    pool = torch.zeros(5, 2, 96, 96, 3, dtype=torch.uint8)
    pool[..., 0] = regions
    generator = torch.Generator().manual_seed(0)
    step = draw_step(pool, regions, batch=8, size=48, masked=0.3, again=again, generator=generator)
    assert (step.boxes is None) == again
    assert step.clean.shape == step.coloured.shape == (16, 3, 48, 48)
    side = 48 // PATCH
    centres = step.clean.view(2, 8, 3, side, PATCH, side, PATCH)[:, :, 0, :, 3:5, :, 3:5].mean((3, 5)) * 255
    told = torch.stack(step.regions).view(2, 8, side, side)
    assert torch.equal(told // 256, torch.arange(8).view(1, 8, 1, 1).expand_as(told))
    inside = told % 256 == FIRST_THING
    assert centres[inside].mean() > 0.9 * FIRST_THING
    assert centres[~inside].mean() < 0.1 * FIRST_THING
    if again:  # both views show the thing
        assert inside.any(-1).any(-1).all()
