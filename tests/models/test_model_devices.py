"""Which device and which type are chosen, on machines that are not there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fake_device import fake_device
from patchword.config.command import command
from patchword.config.others import QualityConfig
from patchword.errors import PatchwordError
from patchword.models import loading as devices
from patchword.models.loading import choose_device, load_image_text
from patchword.precision import choose_dtype, float32_matmul, matmul_precision
from patchword.runs.station import Setup
from patchword.versions import decisive_versions

A100, T4, V100, P100 = (8, 0), (7, 5), (7, 0), (6, 0)


class Machine:
    """A machine with these CUDA cards, of which torch itself asks capability and bfloat16."""

    def __init__(self, patch: pytest.MonkeyPatch, *cards: tuple[int, int]) -> None:
        self.cards = cards
        self.current = 0
        patch.setattr(torch.version, "cuda", "12.4")
        patch.setattr(torch.cuda, "is_available", lambda: bool(cards))
        patch.setattr(torch.cuda, "device_count", lambda: len(cards))
        patch.setattr(torch.cuda, "current_device", lambda: self.current)
        patch.setattr(torch.cuda, "device", self.entered)
        patch.setattr(torch.cuda, "get_device_capability", lambda device: cards[torch.device(device).index])
        patch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=cards[device][0]))
        patch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda device: True)  # all emulate it
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        patch.setattr(torch, "zeros", self.zeros)
        patch.delenv("LOCAL_RANK", raising=False)

    @contextmanager
    def entered(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        yield
        self.current = before

    def zeros(self, *sizes: int, device: torch.device) -> Any:
        if device.type == "cuda" and device.index >= len(self.cards):
            raise RuntimeError("CUDA error: invalid device ordinal")
        return SimpleNamespace(device=device)


@pytest.mark.parametrize(
    ("asked", "rank", "expected"),
    [
        ("auto", None, "cuda:0"),
        ("auto", "1", "cuda:1"),
        ("cuda", None, "cuda:0"),
        ("cuda", "1", "cuda:1"),  # as torchrun starts its second process
        ("cuda", "", "cuda:0"),
        ("cuda:0", "1", "cuda:0"),  # what is said goes before what is meant
        ("cpu", "1", "cpu"),
    ],
)
def test_a_card_has_a_number(asked: str, rank: str | None, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, A100, A100)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device(asked) == torch.device(expected)


def test_a_card_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, A100)
    with pytest.raises(PatchwordError) as error:
        choose_device("cuda:3")
    assert str(error.value) == "device 'cuda:3' is not available on this machine (choose from cpu, cuda:0)"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(PatchwordError, match=r"^device 'cuda:2', by LOCAL_RANK, is not available"):
        choose_device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(PatchwordError, match="LOCAL_RANK is 'first'; it must be a whole number"):
        choose_device("auto")


@pytest.mark.parametrize(
    ("cards", "device", "expected"),
    [
        ([A100], "cuda:0", torch.bfloat16),
        ([T4], "cuda:0", torch.float16),
        ([V100], "cuda:0", torch.float16),
        ([P100], "cuda:0", torch.float32),
        ([A100, T4], "cuda:1", torch.float16),  # the card's own, not the first one's
        ([T4, A100], "cuda:1", torch.bfloat16),
        ([], "cpu", torch.float32),
        ([], "mps:0", torch.float32),
    ],
)
def test_models_and_training_have_one_automatic_type(
    cards: list[tuple[int, int]], device: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, *cards)
    assert choose_dtype("auto", device=torch.device(device)) == expected
    assert choose_dtype("auto", device=torch.device(device), training=True) == expected


def test_mps_is_said_to_be_untested_once(caplog: pytest.LogCaptureFixture) -> None:
    devices._tell_that_mps_is_untested.cache_clear()
    with fake_device(), caplog.at_level(logging.WARNING):
        assert choose_device("mps") == torch.device("mps:0")
        assert not caplog.messages  # who names it knows
        assert choose_device("auto") == choose_device("auto") == torch.device("mps:0")
    (line,) = caplog.messages
    assert "--device cpu" in line


def test_products_are_as_precise_as_the_command_says_and_results_tell(tmp_path: Path) -> None:
    seen = []

    @command(QualityConfig)
    def look(labels: str, config: QualityConfig) -> None:
        seen.append((matmul_precision(), decisive_versions()["torch"]))

    look(str(tmp_path), float32_matmul_precision="high")
    look(str(tmp_path))
    plain = torch.__version__.partition(".")[0]
    assert seen == [("high", f"{plain} with float32_matmul_precision high"), ("highest", plain)]
    with float32_matmul("medium"):
        assert Setup.of(None, loaded=None, load=dict, count=1).matmul == "medium"  # type: ignore[arg-type]
    assert Setup.of(None, loaded=None, load=dict, count=1).matmul == "highest"  # type: ignore[arg-type]


def test_text_is_in_float32_in_full_beside_a_half_model(tiny_clip: Path) -> None:
    seen = []
    plain = load_image_text(str(tiny_clip), device="cpu", dtype="float32").encode_text(["a cat"])
    half = load_image_text(str(tiny_clip), device="cpu", dtype="float16")
    half.model.text_model.register_forward_hook(lambda *_: seen.append(matmul_precision()))  # type: ignore[attr-defined]
    with float32_matmul("medium"):
        assert torch.equal(half.encode_text(["a cat"]), plain)
    assert seen == ["highest"]
