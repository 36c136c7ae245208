"""The settings of labelling: method.md's defaults, and errors that say what is allowed."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from patchword.config.label import LABEL_PRESETS, LabelSettings, label_settings
from patchword.errors import PatchwordError
from patchword.models.registry import PRESETS


def test_defaults_are_those_of_the_method() -> None:
    settings = LabelSettings()
    assert settings.grids == (1, 2, 3)
    assert settings.overlap == 0.5
    assert settings.minimum_crops == 2
    assert settings.minimum_share == 0.04
    assert settings.peaks == 4
    assert settings.peak_distance == 1.0
    assert settings.pred_iou_thresh == 0.7
    assert settings.dense == "value"
    assert settings.generator == "both"
    assert settings.proposal_grids == (1,)


@pytest.mark.parametrize(
    ("values", "place", "offending", "allowed"),
    [
        ({"overlap": 1.5}, "overlap", "1.5", "0.9"),
        ({"overlap": float("nan")}, "overlap", "nan", "finite"),
        ({"grids": (1, 0)}, "grids.1", "0", "at least 1"),
        ({"grids": ()}, "grids", "()", "at least 1"),
        ({"grids": (2, 2)}, "grid", "twice", "give each grid once"),
        ({"proposal_grids": (2, 2)}, "grid", "twice", "give each grid once"),
        ({"grids": (1,)}, "minimum_crops", "2", "at most 1"),
        ({"pred_iou_thresh": -1}, "pred_iou_thresh", "-1", "0"),
        ({"peaks": 0}, "peaks", "0", "1"),
        ({"dense": "magic"}, "dense", "magic", "naclip"),
        ({"margins": 0.1}, "margins", "unknown", "margin"),
    ],
)
def test_bad_value_is_named_with_what_is_allowed(
    values: dict[str, Any], place: str, offending: str, allowed: str
) -> None:
    with pytest.raises(PatchwordError) as caught:
        LabelSettings(**values)
    message = str(caught.value)
    assert place in message
    assert offending in message
    assert allowed in message
    assert "\n" not in message


def test_bad_value_inside_another_record_is_named_too() -> None:
    class Holder(BaseModel):
        settings: LabelSettings

    with pytest.raises(ValueError, match=r"overlap.*1\.5"):
        Holder.model_validate({"settings": {"overlap": 1.5}})


def test_former_names_are_read_and_written() -> None:
    former = {"seeds": "grid", "grid_side": 9, "minimum_predicted_iou": 0.5, "prompt_batch": 8, "seed_joint": 2}
    now = LabelSettings(
        point_sampling="grid", points_per_side=9, pred_iou_thresh=0.5, points_per_batch=8, reprompt_points=2
    )
    assert LabelSettings(**former) == now == LabelSettings.model_validate(now.recorded())
    assert former.items() <= now.recorded().items()  # a data set stays readable for earlier versions
    assert label_settings(former, preset="thorough").points_per_side == 9
    with pytest.raises(PatchwordError, match=r"'seeds' is now called 'point_sampling'"):
        LabelSettings(seeds="grid", point_sampling="grid")
    with pytest.raises(PatchwordError, match=r"point_sampling.*'lines'.*choose from .*grid"):
        LabelSettings(seeds="lines")


def test_settings_survive_json() -> None:
    settings = LabelSettings(grids=(1, 4), margin=0.1, crop_size=64)
    assert LabelSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("grid", "overlap", "expected"), [(1, 0.5, 1), (2, 0.5, 3), (3, 0.5, 5), (3, 0, 3), (2, 0.75, 5), (4, 0.9, 31)]
)
def test_crops_a_side(grid: int, overlap: float, expected: int) -> None:
    assert LabelSettings(overlap=overlap).crops_a_side(grid) == expected


def test_each_preset_of_models_has_settings() -> None:
    assert LABEL_PRESETS.keys() == PRESETS.keys()
    assert LABEL_PRESETS["balanced"] == LabelSettings()
    crops = {
        name: sum(chosen.crops_a_side(grid) ** 2 for grid in chosen.grids) for name, chosen in LABEL_PRESETS.items()
    }
    assert crops["fast"] < crops["balanced"] < crops["thorough"]
    with pytest.raises(PatchwordError, match=r"'quick'.*fast, balanced, thorough"):
        label_settings(None, preset="quick")


def test_what_is_named_wins_over_the_preset() -> None:
    assert label_settings(None, preset="fast") == LABEL_PRESETS["fast"]
    chosen = label_settings({"peaks": 9}, preset="fast")
    assert chosen == LABEL_PRESETS["fast"].model_copy(update={"peaks": 9})
    whole = LabelSettings(peaks=7)
    assert label_settings(whole, preset="fast") == whole
    for settings in ({"generator": "clip-prompts-sam"}, None):
        assert label_settings(settings, preset="fast", generator="sam-then-clip").generator == "sam-then-clip"
    assert label_settings(whole, generator="sam-then-clip") == LabelSettings(peaks=7, generator="sam-then-clip")
    with pytest.raises(PatchwordError, match=r"generator.*'all'.*choose from .*both"):
        label_settings(None, generator="all")


def test_every_setting_says_what_it_is() -> None:
    for name, field in LabelSettings.model_fields.items():
        assert field.description, name
        assert len(field.description) > 60, name
