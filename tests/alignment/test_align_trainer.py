"""The trainer: it learns, repeats, goes on where it stopped, and says when it cannot."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from cluster_world import SETTINGS, accuracy, same_weights, training_set

from fake_device import fake_device
from patchword.alignment.schedule import FEWEST_STEPS, image_order, learning_rate_share, schedule_for
from patchword.alignment.trainer import TrainingSet, train
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.runs.progress import Progress


def test_it_learns_what_the_labels_say() -> None:
    data = training_set()
    result = train(data, settings=SETTINGS.model_copy(update={"steps": 60}))
    assert accuracy(result, data) > 0.95
    assert result.history[-1].total < 0.7 * result.history[0].total
    assert not result.module.training


@pytest.mark.parametrize("reading", ["text-anchor", "patch-anchor"])
def test_each_reading_of_the_text_term_learns_alone(reading: str) -> None:
    data = training_set()
    settings = SETTINGS.model_copy(update={"steps": 60, "patch_text": reading, "loss": "patch-text"})
    assert accuracy(train(data, settings=settings), data) > 0.9


def test_history_has_the_terms_and_the_rates() -> None:
    result = train(training_set(), settings=SETTINGS)
    assert [record.step for record in result.history] == list(range(1, 10))
    for record in result.history:
        weighted = record.patch_patch + record.text_anchor + record.patch_anchor
        assert record.total == pytest.approx(weighted, rel=1e-5)
        assert record.learning_rate <= SETTINGS.learning_rate
    assert result.temperature == result.history[-1].temperature


def test_terms_that_are_off_are_zero_in_the_history() -> None:
    settings = SETTINGS.model_copy(update={"loss": "cross-entropy"})
    for record in train(training_set(), settings=settings).history:
        assert (record.patch_patch, record.text_anchor) == (0, 0)
        assert record.patch_anchor > 0


def test_the_same_seed_gives_the_same_weights_and_another_others() -> None:
    first, again = (train(training_set(), settings=SETTINGS) for _ in range(2))
    other = train(training_set(), settings=SETTINGS.model_copy(update={"seed": 1}))
    assert same_weights(first, again)
    assert first.history == again.history
    assert not same_weights(first, other)


def test_an_accelerator_trains_alike_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"held_out": 0.3, "patience": 2, "average_decay": 0.9, "accumulation": 2})
    whole = train(training_set(), settings=settings)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with fake_device() as device:
        with pytest.raises(KeyboardInterrupt):
            train(training_set(stop_after=8), settings=settings, device=device, checkpoint=checkpoint)
        assert checkpoint.exists()
        there = train(training_set(), settings=settings, device=device, checkpoint=checkpoint)
    for one, other in zip(there.history, whole.history, strict=True):
        assert one.model_dump(exclude_none=True) == pytest.approx(other.model_dump(exclude_none=True), rel=1e-4)
    for name, weight in there.module.state_dict().items():
        torch.testing.assert_close(weight, whole.module.state_dict()[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("stop_after", [2, 5, 8])
def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path, stop_after: int) -> None:
    whole = train(training_set(), settings=SETTINGS)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(training_set(stop_after=stop_after), settings=SETTINGS, checkpoint=checkpoint)
    assert checkpoint.exists() == (stop_after > 4)  # one read for the size of the features, three steps an epoch
    with Progress(9, "test", quiet=True) as progress:
        resumed = train(training_set(), settings=SETTINGS, checkpoint=checkpoint, progress=progress)
    assert progress.done == 9
    assert same_weights(whole, resumed)
    assert whole.history == resumed.history
    assert whole.temperature == resumed.temperature


@pytest.mark.parametrize("content", [b"", b"not safetensors at all"])
def test_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    checkpoint.write_bytes(content)
    with pytest.raises(PatchwordError, match=r"checkpoint.safetensors is damaged .* delete it"):
        train(training_set(), settings=SETTINGS, checkpoint=checkpoint)


def test_checkpoint_of_another_module_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    train(training_set(), settings=SETTINGS, checkpoint=checkpoint)
    with pytest.raises(PatchwordError, match="of another training"):
        train(training_set(), settings=SETTINGS.model_copy(update={"mlp_ratio": 2.0}), checkpoint=checkpoint)


def test_temperature_is_learned_and_bounded_or_fixed() -> None:
    moved = train(training_set(), settings=SETTINGS)
    assert moved.temperature != pytest.approx(0.07, rel=1e-4)
    fixed = train(training_set(), settings=SETTINGS.model_copy(update={"learn_temperature": False}))
    assert fixed.temperature == pytest.approx(0.07)
    floor = SETTINGS.model_copy(update={"minimum_temperature": 0.2, "steps": 2})
    assert train(training_set(), settings=floor).temperature == pytest.approx(0.2, rel=0.01)


def test_weight_decay_spares_norms_biases_and_temperature() -> None:
    """With a rate so high that decay alone is 1 a step, matrices end at the size of one update, norms stay near 1."""
    settings = SETTINGS.model_copy(
        update={"steps": 1, "learning_rate": 1e-3, "weight_decay": 1000.0, "warmup_share": 0.0}
    )
    result = train(training_set(), settings=settings)
    assert result.module.projection.weight.abs().max() < 2e-3
    assert result.module.final_norm.weight.min() > 0.99
    assert result.temperature == pytest.approx(0.07, rel=0.01)


def test_loss_that_is_no_number_is_an_error_with_its_step() -> None:
    data = training_set()
    broken = TrainingSet(data.features, data.keys, data.labels, data.text * float("nan"))
    with pytest.raises(PatchwordError, match=r"the loss is nan at step 0; try a `learning_rate` below 0.003"):
        train(broken, settings=SETTINGS)


def test_batch_without_a_label_is_harmless() -> None:
    data = training_set()
    labels = data.labels.clone()
    labels[:9] = -1
    result = train(TrainingSet(data.features, data.keys, labels, data.text), settings=SETTINGS)
    assert all(torch.isfinite(parameter).all() for parameter in result.module.parameters())


def test_no_images_and_other_grids_are_refused() -> None:
    data = training_set()
    with pytest.raises(PatchwordError, match="no image has a labelled patch"):
        train(TrainingSet(data.features, (), data.labels[:0], data.text), settings=SETTINGS)
    with pytest.raises(PatchwordError, match=r"features have \(3, 3\) patches; the labels have \(3, 2\)"):
        train(TrainingSet(data.features, data.keys, data.labels[:, :, :2], data.text), settings=SETTINGS)


class TestSchedule:
    def test_small_sets_get_many_steps_of_few_images(self) -> None:
        found = [schedule_for(images, settings=AlignSettings()) for images in (1, 20, 200, 2_000, 20_000)]
        assert all(schedule.steps >= FEWEST_STEPS for schedule in found)
        seen = [schedule.steps * schedule.batch_size for schedule in found]
        assert seen == sorted(seen)
        assert all(schedule.steps % schedule.epoch_steps == 0 for schedule in found)
        assert found[2].batch_size < found[4].batch_size == 32

    @pytest.mark.parametrize(("images", "epochs"), [(260, 14), (1_000, 14), (2_000, 8), (4_000, 5)])
    def test_smaller_steps_see_the_photographs_as_often(self, images: int, epochs: int) -> None:
        for batch_size in (2, None, 8):
            found = schedule_for(images, settings=AlignSettings(batch_size=batch_size))
            assert found.steps == epochs * found.epoch_steps

    def test_what_is_set_wins(self) -> None:
        for schedule in ("auto", "paper"):
            settings = AlignSettings(schedule=schedule, batch_size=3, epochs=2, learning_rate=0.5)
            found = schedule_for(10, settings=settings)
            assert (found.batch_size, found.steps, found.learning_rate) == (3, 8, 0.5)
            assert schedule_for(10, settings=settings.model_copy(update={"steps": 7})).steps == 7

    def test_the_paper_s_is_there_by_name(self) -> None:
        found = schedule_for(320, settings=AlignSettings(schedule="paper"))
        assert (found.batch_size, found.epoch_steps, found.steps, found.learning_rate) == (32, 10, 50, 1e-4)

    def test_it_says_what_it_will_do(self) -> None:
        settings = AlignSettings(epochs=14, batch_size=8, learning_rate=2e-3)
        expected = "260 photographs: 14 epochs x 33 steps of 8, learning rate 0.002"
        assert schedule_for(260, settings=settings).line() == expected
        expected = "1 photograph: 1 epoch x 1 step of 8, learning rate 0.002"
        assert schedule_for(1, settings=settings.model_copy(update={"epochs": 1})).line() == expected
        settings = settings.model_copy(update={"steps": 60})
        assert schedule_for(260, settings=settings).line() == "260 photographs: 60 steps of 8, learning rate 0.002"

    def test_it_warns_of_too_little(self) -> None:
        assert schedule_for(500, settings=AlignSettings()).warnings() == []
        (steps,) = schedule_for(500, settings=AlignSettings(steps=9)).warnings()
        assert steps.startswith("9 steps may be too few")
        (photographs,) = schedule_for(20, settings=AlignSettings()).warnings()
        assert photographs.startswith("20 photographs are few")

    def test_the_filled_settings_give_the_same_schedule(self) -> None:
        for settings in (AlignSettings(), AlignSettings(steps=9), AlignSettings(schedule="paper", epochs=3)):
            schedule = schedule_for(300, settings=settings)
            filled = schedule.fill(settings)
            assert schedule_for(300, settings=filled) == schedule
            assert None not in (filled.batch_size, filled.learning_rate)


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    shares = [learning_rate_share(step, steps=100, warmup_share=0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert shares[10:] == pytest.approx([(1 + math.cos(math.pi * step / 90)) / 2 for step in range(90)])
    assert learning_rate_share(0, steps=1, warmup_share=0.0) == 1


def test_every_epoch_sees_every_image_once_in_its_own_order() -> None:
    first, second = (image_order(50, epoch=epoch, seed=3) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
