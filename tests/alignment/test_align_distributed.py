"""Two and four processes on one machine train as one does on the same batches."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import colour_world
import pytest
import torch
from cluster_world import FEATURE_DIM, SETTINGS, TEXT_DIM, training_set
from colour_world import VOCABULARY, ColourPatches, ColourText, make_data
from torch import Tensor, multiprocessing

import warm
from patchword.alignment import trainer
from patchword.alignment.artifact import StepRecord
from patchword.alignment.data import AlignmentData
from patchword.alignment.distributed import Processes
from patchword.alignment.run import align_labels
from patchword.alignment.state import start_state
from patchword.alignment.step import draw_batch, training_step
from patchword.alignment.trainer import TrainingResult, train
from patchword.config.align import AlignSettings

# Batches of 3, 3, 3 and 1: shares that differ, and in the last one process without an image.
UNEVEN = {**SETTINGS.model_dump(), "batch_size": 3}
COLOURS = colour_world.SETTINGS.model_copy(update={"steps": None, "epochs": 2, "shard_megabytes": 1e-6})
CASES: dict[str, dict[str, Any]] = {
    "plain": UNEVEN,
    "sampled": {**UNEVEN, "patch_sample": 12, "text_sample": 8},
    "parts, average and held-out": {**UNEVEN, "accumulation": 2, "average_decay": 0.9, "held_out": 0.3, "patience": 2},
}


def descend() -> dict[str, Tensor]:
    """One step of plain gradient descent, which shows the gradient's size; AdamW would hide it."""
    data, settings = training_set(), AlignSettings(**{**UNEVEN, "gradient_clip": 1e9, "average_decay": 0.0})
    device = torch.device("cpu")
    state = start_state(dim=FEATURE_DIM, text_dim=TEXT_DIM, settings=settings, device=device)
    state.optimizer = torch.optim.SGD(list(state.named_parameters().values()), lr=1.0)  # type: ignore[assignment]
    processes = Processes.current(device)
    images = processes.shares(3)
    mine = list(images[processes.index])
    batch = draw_batch(
        data.features.read([data.keys[position] for position in mine]),
        data.labels[:3],
        images=images,
        index=processes.index,
        classes=len(data.text),
        generator=torch.Generator().manual_seed(0),
        settings=settings,
        device=device,
    )
    training_step(state, batch, data.text, forward=state.module, processes=processes, rate=0.1, settings=settings)
    return {name: parameter.detach() for name, parameter in state.named_parameters().items()}


def work(index: int, port: int, folder: str) -> None:
    """One of two processes: every case in turn, the results to a file."""
    os.environ.update(
        RANK=str(index),
        LOCAL_RANK=str(index),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="yes",
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.set_num_threads(1)
    digest, hashed = hashlib.file_digest, []
    hashlib.file_digest = lambda file, name: hashed.append(file.name) or digest(file, name)  # type: ignore
    results = {}
    for name, values in CASES.items():
        checkpoint = Path(folder) / f"{name}.safetensors"
        results[name] = train(training_set(), settings=AlignSettings(**values), checkpoint=checkpoint)
        results[f"{name}, resumed"] = train(training_set(), settings=AlignSettings(**values), checkpoint=checkpoint)
    folders = Path(folder)
    encoder = ColourPatches()
    run = align_labels(
        AlignmentData.from_folders(folders / "photos", masks=folders / "masks", vocabulary=VOCABULARY),
        encoder=encoder,
        text_encoder=ColourText(),
        out=folders / "model",
        settings=COLOURS,
        cache=folders / "cache",
        quiet=True,
    )
    results["run"] = TrainingResult(run.artifact.module, run.artifact.config.temperature, run.history)
    kept = {
        name: ([record.model_dump() for record in result.history], result.temperature, result.module.state_dict())
        for name, result in results.items()
    }
    work_done = {"encoded": encoder.images, "hashed": hashed}
    torch.save({**kept, "descended": descend(), **work_done}, Path(folder) / f"{index}.pt")
    torch.distributed.destroy_process_group()


def curve(index: int, port: int, folder: str, count: int, dies_at: int) -> None:
    """One of so many processes: the plain case; the last one dies at a step."""
    os.environ.update(
        RANK=str(index),
        LOCAL_RANK=str(index),
        WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="yes",
        GLOO_SOCKET_IFNAME="lo",
    )
    torch.set_num_threads(1)
    steps = []

    def step(*arguments: Any, **named: Any) -> Any:
        steps.append(None)
        if len(steps) == dies_at and index == count - 1:
            os._exit(9)
        return training_step(*arguments, **named)

    trainer.training_step = step
    checkpoint = Path(folder) / "checkpoint.safetensors"
    settings = AlignSettings(**{**UNEVEN, "checkpoint_minutes": 1e-9})
    result = train(training_set(), settings=settings, checkpoint=checkpoint)
    history = [record.model_dump() for record in result.history]
    torch.save((history, result.temperature, result.module.state_dict()), Path(folder) / f"{index}.pt")
    torch.distributed.destroy_process_group()


def start(count: int, folder: Path, *, dies_at: int = 0) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    arguments = (port, str(folder), count, dies_at)
    multiprocessing.start_processes(curve, args=arguments, nprocs=count, start_method=warm.START)


def test_a_process_that_is_lost_ends_the_training_which_goes_on_with_any_number(
    tmp_path: Path, alone: dict[str, TrainingResult]
) -> None:
    """Of four, of batches of 3, 3, 3 and 1: in every step at least one has no image."""
    with pytest.raises((multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException)):
        start(4, tmp_path, dies_at=6)
    assert (tmp_path / "checkpoint.safetensors").is_file()
    start(2, tmp_path)
    results = [torch.load(tmp_path / f"{index}.pt", weights_only=True) for index in range(2)]
    one = alone["plain"]
    for history, temperature, weights in results:
        found = [(record["step"], record["total"]) for record in history]
        assert found == [(record.step, pytest.approx(record.total, rel=1e-4)) for record in one.history]
        assert temperature == pytest.approx(one.temperature, rel=1e-4)
        for name, tensor in one.module.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes ended with."""
    folder = tmp_path_factory.mktemp("processes")
    for item in make_data(folder).items:
        for path in (item.image, item.label_map):
            os.utime(path, (1e9, 1e9))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
    multiprocessing.start_processes(work, args=(port, str(folder)), nprocs=2, start_method=warm.START)
    written = {path.name for path in (folder / "model").rglob("*") if path.is_file()}
    assert written == {".patchword", "README.md", "config.json", "model.safetensors", "training.json"}
    results: list[dict[str, Any]] = [
        {name: _with_records(value) for name, value in torch.load(folder / f"{index}.pt", weights_only=True).items()}
        for index in range(2)
    ]
    results[0]["cache"] = _files(folder / "cache")
    return results


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.glob("*/*") if path.is_file()}


def _with_records(value: Any) -> Any:
    """A result with its history as records again."""
    return ([StepRecord(**record) for record in value[0]], *value[1:]) if isinstance(value, tuple) else value


@pytest.fixture(scope="module")
def alone() -> dict[str, TrainingResult]:
    return {name: train(training_set(), settings=AlignSettings(**values)) for name, values in CASES.items()}


@pytest.mark.parametrize("case", CASES)
def test_the_loss_curve_and_the_weights_are_those_of_one_process(
    case: str, together: list[dict[str, Any]], alone: dict[str, TrainingResult]
) -> None:
    history, temperature, weights = together[0][case]
    one = alone[case]
    assert [record.step for record in history] == [record.step for record in one.history]
    for name in ("total", "patch_patch", "text_anchor", "patch_anchor", "temperature"):
        found, wanted = ([getattr(record, name) for record in records] for records in (history, one.history))
        assert found == pytest.approx(wanted, rel=1e-4), name
    assert [record.held_out for record in history] == pytest.approx([record.held_out for record in one.history])
    assert temperature == pytest.approx(one.temperature, rel=1e-4)
    for name, tensor in one.module.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=2e-5)


def test_a_whole_run_is_that_of_one_process(together: list[dict[str, Any]], tmp_path: Path) -> None:
    one = align_labels(
        make_data(tmp_path),
        encoder=ColourPatches(),
        text_encoder=ColourText(),
        out=tmp_path / "model",
        settings=COLOURS,
        cache=tmp_path / "cache",
        quiet=True,
    )
    assert together[0]["cache"] == _files(tmp_path / "cache")  # photographs in threes: three files
    assert [each["encoded"] for each in together] == [5, 3]
    hashed = [Path(name) for each in together for name in each["hashed"]]
    assert len(set(hashed)) == len([path for path in hashed if path.suffix == ".png"]) == 16
    assert [sum(name.endswith(".png") for name in each["hashed"]) for each in together] == [8, 8]
    for history, temperature, weights in (each["run"] for each in together):
        assert [record.total for record in history] == pytest.approx([each.total for each in one.history], rel=1e-4)
        assert temperature == pytest.approx(one.artifact.config.temperature, rel=1e-4)
        for name, tensor in one.artifact.module.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=0, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_end_with_the_same_bits(case: str, together: list[dict[str, Any]]) -> None:
    (first_history, first_temperature, first), (history, temperature, second) = (each[case] for each in together)
    assert first_history == history
    assert first_temperature == temperature
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("case", CASES)
def test_both_go_on_from_the_one_checkpoint(case: str, together: list[dict[str, Any]]) -> None:
    for each in together:
        history, _, weights = each[case]
        resumed_history, _, resumed = each[f"{case}, resumed"]
        assert resumed_history == history
        assert all(torch.equal(weights[name], resumed[name]) for name in weights)


def test_the_gradient_is_that_of_one_process_in_size_too(together: list[dict[str, Any]]) -> None:
    start = start_state(dim=FEATURE_DIM, text_dim=TEXT_DIM, settings=SETTINGS, device=torch.device("cpu"))
    for name, wanted in descend().items():
        moved = float((wanted - start.named_parameters()[name].detach()).abs().max())
        assert moved > 1e-6, name
        for each in together:
            torch.testing.assert_close(each["descended"][name], wanted, rtol=0, atol=1e-3 * moved)


def test_shares_are_in_order_and_as_even_as_they_can_be() -> None:
    for count in (1, 2, 3, 5):
        for length in (0, 1, 4, 11):
            shares = Processes(count=count).shares(length)
            assert [position for share in shares for position in share] == list(range(length))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_a_launcher_there_is_one_process() -> None:
    assert Processes.current(torch.device("cpu")) == Processes(count=1, index=0)
