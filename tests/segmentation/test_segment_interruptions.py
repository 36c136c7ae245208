"""Real child processes that are killed, stopped and left without disk: what they leave goes on and ends the same."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

import warm

SCRIPT = Path(__file__).parent.with_name("interruptions.py")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture(scope="module")
def report(tiny_clip: Path, tiny_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    scratch = tmp_path_factory.mktemp("interruptions")
    command = [sys.executable, str(SCRIPT), "segment", str(scratch), str(tiny_clip), str(tiny_sam)]
    ran = warm.run(command)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_the_run_that_the_others_are_compared_with(report: dict[str, Any]) -> None:
    assert report["whole"]["code"] == 1  # one photograph is broken
    assert report["whole"]["files"] == 3 * 11 + len(("marker", "segment", "results", "report"))


def test_killed_at_random_instants_it_ends_with_the_same_bytes(report: dict[str, Any]) -> None:
    killed = report["killed"]
    assert len(killed["files"]) == 5
    assert len(set(killed["files"])) >= 2
    for outcome in killed["outcomes"]:
        assert outcome["same"]
        assert outcome["code"] == 1
        assert outcome["ended"][-1] == "finished"
        assert set(outcome["ended"][:-1]) <= {None, "finished"}


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_ends_it_after_what_is_being_written(report: dict[str, Any], name: str, code: int) -> None:
    stopped = report["signals"][name]
    assert stopped["code"] == code
    (line,) = stopped["said"]
    assert line.startswith("patchword: interrupted;")
    assert line.endswith("go on with the same command and --resume")
    assert stopped["whole_lines"]
    assert 1 <= stopped["lines"] < 12
    assert stopped["leftovers"] == []
    assert stopped["ended"] == ["interrupted"]
    assert stopped["resumed"] == 1
    assert stopped["same"]


def test_a_full_disk_is_one_line_and_the_run_goes_on_with_room(report: dict[str, Any]) -> None:
    assert len(report["full"]) == 2
    for outcome in report["full"]:
        assert outcome["code"] == 2
        (line,) = outcome["said"]
        assert line.startswith("patchword: cannot write ")
        assert line.endswith("No space left on device")
        assert outcome["leftovers"] == []
        assert outcome["resumed"] == 1
        assert outcome["same"]
