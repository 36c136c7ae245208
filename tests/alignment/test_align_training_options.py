"""What a training may do besides: parts, types, averages, held-out labels, stopping early, compiling, trackers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cluster_world import SETTINGS, accuracy, same_weights, training_set
from torch import Tensor

from patchword.alignment.artifact import StepRecord
from patchword.alignment.schedule import (
    agreement,
    count_hits,
    is_best,
    out_of_patience,
    schedule_for,
    seeded_generator,
    split_images,
)
from patchword.alignment.state import TrainingState, start_state
from patchword.alignment.trainer import TrainingResult, require_tracker, start_tracker, train
from patchword.config.align import AlignSettings
from patchword.errors import PatchwordError
from patchword.precision import choose_dtype
from patchword.runs.progress import Progress


def with_(**values: Any) -> AlignSettings:
    return AlignSettings(**{**SETTINGS.model_dump(), **values})


def close_weights(first: TrainingResult, second: TrainingResult, *, atol: float = 2e-5) -> None:
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def losses(result: TrainingResult) -> list[float]:
    return [record.total for record in result.history]


@pytest.mark.parametrize("parts", [2, 3, 9])
def test_parts_change_neither_the_loss_nor_the_weights(parts: int) -> None:
    whole = train(training_set(), settings=SETTINGS)
    divided = train(training_set(), settings=with_(accumulation=parts))
    assert losses(divided) == pytest.approx(losses(whole), rel=1e-4)
    close_weights(whole, divided)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_and_differs(precision: str) -> None:
    data, settings = training_set(), with_(steps=60, precision=precision)
    result = train(data, settings=settings)
    assert accuracy(result, data) > 0.95
    assert all(parameter.dtype == torch.float32 for parameter in result.module.parameters())
    assert not same_weights(result, train(training_set(), settings=with_(steps=60)))


def test_precision_by_device() -> None:
    assert choose_dtype("bf16", device=torch.device("cpu"), training=True) == torch.bfloat16
    assert choose_dtype("fp16", device=torch.device("mps")) == torch.float16
    with pytest.raises(PatchwordError, match=r"precision is 'fp16' on mps \(choose from auto, fp32, bf16"):
        choose_dtype("fp16", device=torch.device("mps"), training=True)


def test_gradients_are_clipped_to_the_norm() -> None:
    """Updates of AdamW hardly depend on the gradient's size, so a clip of next to nothing shows against its epsilon."""
    still = train(training_set(), settings=with_(gradient_clip=1e-12, weight_decay=0.0))
    start = train(training_set(), settings=with_(steps=1, learning_rate=1e-30, weight_decay=0.0))
    close_weights(start, still, atol=1e-4)


def test_the_average_is_that_of_the_weights_after_each_step() -> None:
    trail: list[list[Tensor]] = []
    original = TrainingState.update_average

    def watched(self: TrainingState, decay: float) -> None:
        trail.append([parameter.detach().clone() for parameter in self.named_parameters().values()])
        original(self, decay)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "update_average", watched)
        start = start_state(dim=12, text_dim=8, settings=SETTINGS, device=torch.device("cpu"))
        result = train(training_set(), settings=with_(average_decay=0.9))
    expected = [parameter.detach().clone() for parameter in start.named_parameters().values()]
    for step, weights in enumerate(trail, start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [decay * mean + (1 - decay) * weight for mean, weight in zip(expected, weights, strict=True)]
    for found, wanted in zip(result.module.parameters(), expected, strict=False):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert result.temperature == pytest.approx(float(expected[-1].exp()), rel=1e-5)


class TestHeldOut:
    def test_equal_photographs_stay_together_and_none_is_lost(self) -> None:
        keys = ["a", "b", "a", "c", "d", "b"]
        training, held = split_images(keys, share=0.5, generator=seeded_generator(0, "test"))
        assert sorted(training + held) == list(range(6))
        assert {keys[position] for position in training}.isdisjoint({keys[position] for position in held})
        assert len({keys[position] for position in held}) == 2

    def test_nothing_is_held_out_without_a_share(self) -> None:
        assert split_images(["a", "b"], share=0.0, generator=seeded_generator(0, "test")) == ([0, 1], [])

    def test_one_photograph_must_be_left(self) -> None:
        with pytest.raises(PatchwordError, match=r"held_out is 0.6 of 1 photograph; leave at least one"):
            train(training_set(images=1), settings=with_(held_out=0.6))

    def test_agreement_is_the_mean_over_classes(self) -> None:
        text = torch.eye(4)
        given = torch.tensor([[[0, 0, 1, 1], [2, 0, 0, 0]]])  # what the module says
        labels = torch.tensor([[[0, 0, 0, 1], [1, 1, 1, -1]]])  # class 0: 2 of 3, class 1: 1 of 4, class 2: none
        hits = count_hits(text[given].permute(0, 3, 1, 2), labels, text)
        assert hits.tolist() == [[2, 1, 0, 0], [3, 4, 0, 0]]
        assert agreement(hits) == pytest.approx((2 / 3 + 1 / 4) / 2)
        assert agreement(torch.zeros(2, 4)) == 0

    def test_it_is_measured_after_each_epoch_and_on_photographs_that_are_not_trained_on(self) -> None:
        class Recording:
            def __init__(self) -> None:
                self.inner, self.read_keys = training_set().features, []

            def read(self, keys: Any, /) -> Tensor:
                self.read_keys.append(list(keys))
                return self.inner.read(keys)

        data = training_set()
        recording = Recording()
        settings = with_(held_out=0.25)
        result = train(type(data)(recording, data.keys, data.labels, data.text), settings=settings)
        assert [record.held_out is not None for record in result.history] == [False, True] * 3
        assert len(result.history) == schedule_for(10, settings=settings).steps == 6
        _, held = split_images(data.keys, share=0.25, generator=seeded_generator(0, "held out"))
        held_keys = [data.keys[position] for position in held]
        evaluations = [keys for keys in recording.read_keys if keys == held_keys]
        others = [keys for keys in recording.read_keys[1:] if keys != held_keys]
        assert len(evaluations) == 3
        assert all(set(keys).isdisjoint(held_keys) for keys in others)

    def test_a_training_of_some_length_agrees_with_what_it_has_not_seen(self) -> None:
        result = train(training_set(), settings=with_(held_out=0.25, epochs=30))
        assert result.history[-1].held_out == pytest.approx(1.0, abs=0.1)

    def test_patience_needs_labels_that_are_held_out(self) -> None:
        with pytest.raises(PatchwordError, match="setting 'patience' is 2, which needs a 'held_out' above 0"):
            with_(patience=2)


def records(*values: float | None) -> list[StepRecord]:
    numbers = dict.fromkeys(
        ("learning_rate", "temperature", "total", "patch_patch", "text_anchor", "patch_anchor"), 1.0
    )
    return [StepRecord(step=step, held_out=value, **numbers) for step, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "patience", "stops", "best"),
    [
        ((None, 0.5), 1, False, True),
        ((0.5, None, 0.5), 1, True, False),
        ((0.5, 0.6, 0.6), 2, False, False),
        ((0.5, 0.6, 0.6, 0.55), 2, True, False),
        ((0.5, 0.4, 0.3, 0.6), 2, False, True),
        ((0.5, 0.4, 0.3), None, False, False),
    ],
)
def test_patience(values: tuple[float | None, ...], patience: int | None, stops: bool, best: bool) -> None:
    assert out_of_patience(records(*values), patience=patience) == stops
    assert is_best(records(*values)) == best


def test_training_stops_early_and_keeps_the_best_weights() -> None:
    """Agreement is perfect soon and cannot rise, so that two epochs later the training ends with those weights."""
    settings = with_(held_out=0.2, patience=2, epochs=40)
    with Progress(0, "test", quiet=True) as progress:
        result = train(training_set(noise=0.01), settings=settings, progress=progress)
    values = [record.held_out for record in result.history if record.held_out is not None]
    best = values.index(1.0)
    assert len(values) == best + 3 < 40
    assert progress.total == 80
    whole = train(training_set(noise=0.01), settings=with_(held_out=0.2, epochs=40, patience=40))
    assert whole.history[: len(result.history)] == result.history
    assert len(whole.history) == 80
    assert same_weights(result, whole)  # both are the weights of the first perfect evaluation
    last = train(training_set(noise=0.01), settings=with_(held_out=0.2, epochs=40))
    assert not same_weights(result, last)


EVERYTHING = {"average_decay": 0.9, "held_out": 0.2, "patience": 3, "accumulation": 2, "precision": "fp16", "epochs": 4}


@pytest.mark.parametrize("stop_after", [6, 8, 10])
def test_with_everything_on_a_stopped_run_still_ends_the_same(tmp_path: Path, stop_after: int) -> None:
    whole = train(training_set(), settings=with_(**EVERYTHING))
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(training_set(stop_after=stop_after), settings=with_(**EVERYTHING), checkpoint=checkpoint)
    assert checkpoint.exists()
    resumed = train(training_set(), settings=with_(**EVERYTHING), checkpoint=checkpoint)
    assert same_weights(whole, resumed)
    assert whole.history == resumed.history
    assert whole.temperature == resumed.temperature


def test_a_checkpoint_is_written_within_an_epoch_when_the_minutes_are_over(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    settings = with_(checkpoint_minutes=1e-9)
    with pytest.raises(KeyboardInterrupt):
        train(training_set(stop_after=2), settings=settings, checkpoint=checkpoint)  # the first of three steps
    assert checkpoint.exists()
    resumed = train(training_set(), settings=settings, checkpoint=checkpoint)
    assert same_weights(resumed, train(training_set(), settings=settings))


class FakeCompiled:
    """Stands for what torch.compile gives, which has no length and so cannot be asked whether it is true."""

    def __init__(self, module: Callable[..., Tensor], *, calls: list[int], fails_at: int | None = None) -> None:
        self._module, self._calls, self._fails_at = module, calls, fails_at

    def __call__(self, *arguments: Any) -> Tensor:
        self._calls.append(1)
        if len(self._calls) == self._fails_at:
            raise RuntimeError("no compiler\nand a long story")
        return self._module(*arguments)

    def __len__(self) -> int:
        raise TypeError("does not support len()")


class TestCompile:
    def test_what_it_makes_is_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []
        monkeypatch.setattr(torch, "compile", lambda module: FakeCompiled(module, calls=calls))
        result = train(training_set(), settings=with_(compile=True))
        assert len(calls) == 10  # nine steps and a trial
        assert same_weights(result, train(training_set(), settings=SETTINGS))

    @pytest.mark.parametrize("call", [1, 4])
    def test_failure_is_a_note_and_training_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: int
    ) -> None:
        calls: list[int] = []
        monkeypatch.setattr(torch, "compile", lambda module: FakeCompiled(module, calls=calls, fails_at=call))
        with caplog.at_level(logging.WARNING):
            result = train(training_set(), settings=with_(compile=True))
        notes = [record.getMessage() for record in caplog.records]
        assert notes == ["torch.compile does not work here, training goes on without it: no compiler"]
        assert len(calls) == call
        assert same_weights(result, train(training_set(), settings=SETTINGS))


class FakeTracker:
    """Stands for accelerate's tracker of any kind."""

    made: list[FakeTracker]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.arguments, self.named = arguments, named
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.configuration: dict[str, Any] = {}
        self.started = self.finished = False

    def start(self) -> None:
        self.started = True

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.configuration = values

    def log(self, values: dict[str, float], /, *, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.finished = True


class TestTrackers:
    def test_the_history_is_logged(self) -> None:
        tracker = FakeTracker()
        result = train(training_set(), settings=with_(held_out=0.2), tracker=tracker)
        assert [step for step, _ in tracker.logged] == [record.step for record in result.history]
        for record, (_, values) in zip(result.history, tracker.logged, strict=True):
            assert values["total"] == record.total
            assert values.get("held_out") == record.held_out
            assert values["patches_per_second"] > 0
            assert "step" not in values

    def test_tensorboard_reads_what_was_logged(self, tmp_path: Path) -> None:
        reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        tracker = start_tracker("tensorboard", folder=tmp_path, settings={"seed": 3, "patience": None})
        result = train(training_set(), settings=SETTINGS, tracker=tracker)
        tracker.finish()
        events = reader.EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        logged = {event.step: event.value for event in events.Scalars("total")}
        assert logged == {record.step: pytest.approx(record.total) for record in result.history}

    def test_weights_and_biases_keeps_what_was_logged_without_a_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wandb = pytest.importorskip("wandb")
        for name, value in (("WANDB_MODE", "offline"), ("WANDB_SILENT", "true"), ("WANDB_DIR", str(tmp_path))):
            monkeypatch.setenv(name, value)
        for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
            monkeypatch.setenv(name, str(tmp_path / name))
        tracker = start_tracker("wandb", folder=tmp_path, settings={"seed": 3, "patience": None})
        result = train(training_set(), settings=SETTINGS, tracker=tracker)
        tracker.finish()
        wandb.teardown()  # its service writes on its own time; it has ended when this returns
        (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
        kept = run.read_bytes()
        assert kept.count(b"patches_per_second") >= len(result.history)
        assert b"patience" in kept

    @pytest.mark.parametrize("name", ["tensorboard", "wandb"])
    def test_missing_package_is_one_line(self, monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
        monkeypatch.setattr(f"accelerate.utils.is_{name}_available", lambda: False)
        with pytest.raises(
            PatchwordError, match=rf"tracker '{name}' needs .* not installed; install patchword\[{name}\]"
        ):
            require_tracker(name)
        monkeypatch.setattr(f"accelerate.utils.is_{name}_available", lambda: True)
        require_tracker(name)

    def test_what_does_not_start_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from accelerate import tracking

        class Broken(FakeTracker):
            def start(self) -> None:
                raise RuntimeError("no key\nlog in first")

        monkeypatch.setattr(tracking, "WandBTracker", Broken)
        with pytest.raises(PatchwordError, match=r"tracker 'wandb' does not start: no key$"):
            start_tracker("wandb", folder=tmp_path, settings={})


def test_progress_tells_the_terms_and_the_speed() -> None:
    with Progress(0, "test", quiet=True) as progress:
        result = train(training_set(), settings=SETTINGS, progress=progress)
    last = result.history[-1]
    assert progress.note.startswith(f"loss {last.total:.3f}, ")
    assert (
        f" patches a second (patch patch {last.patch_patch:.3f}, text anchor {last.text_anchor:.3f}, " in progress.note
    )
    assert (progress.done, progress.total) == (9, 9)
