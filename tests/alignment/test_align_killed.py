"""A training whose process is killed goes on from its checkpoint and ends with the same bits."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cluster_world import SETTINGS, same_weights, training_set
from torch import multiprocessing

import warm
from patchword.alignment import trainer
from patchword.alignment.trainer import train
from patchword.config.align import AlignSettings

EVERYTHING = AlignSettings(
    **{
        **SETTINGS.model_dump(),
        "average_decay": 0.9,
        "held_out": 0.2,
        "patience": 4,
        "accumulation": 2,
        "precision": "bf16",
        "epochs": 4,
        "checkpoint_minutes": 1e-9,
    }
)


def train_until_killed(index: int, checkpoint: str, steps: int) -> None:
    """A training in a process that ends itself, as the system would, in its middle."""
    step, done = trainer.training_step, []

    def deadly(*arguments: object, **named: object) -> object:
        if len(done) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(1)
        return step(*arguments, **named)  # type: ignore[arg-type]

    trainer.training_step = deadly  # type: ignore[assignment]
    train(training_set(), settings=EVERYTHING, checkpoint=Path(checkpoint))


def test_killed_and_resumed_is_as_uninterrupted(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(multiprocessing.ProcessExitedException, match="SIGKILL"):
        multiprocessing.start_processes(
            train_until_killed, args=(str(checkpoint), 5), nprocs=1, start_method=warm.START
        )
    assert checkpoint.exists()
    resumed = train(training_set(), settings=EVERYTHING, checkpoint=checkpoint)
    whole = train(training_set(), settings=EVERYTHING)
    assert resumed.history == whole.history
    assert len(whole.history) == 8
    assert resumed.temperature == whole.temperature
    assert same_weights(resumed, whole)
