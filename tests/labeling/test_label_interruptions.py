"""Real child processes that are killed, stopped and left without disk: what they leave goes on and ends the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import patchword

SCRIPT = Path(__file__).parent.with_name("interruptions.py")
NO_ROOM = "No space left on device"
# A mount that only this process and its children see; not everywhere permitted.
MOUNT = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"')

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="children are forked")


@pytest.fixture(scope="module")
def report(tiny_clip: Path, tiny_sam: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    scratch = tmp_path_factory.mktemp("interruptions")
    small = scratch / "small"
    small.mkdir()
    command = [sys.executable, str(SCRIPT), "label", str(scratch), str(tiny_clip), str(tiny_sam)]
    if _may_mount(small):
        command = [*MOUNT[:4], MOUNT[4], str(small), *command, str(small)]
    source = str(Path(patchword.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 0, ran.stderr[-2000:]
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _may_mount(folder: Path) -> bool:
    try:
        return subprocess.run([*MOUNT, str(folder), "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def test_the_run_that_the_others_are_compared_with(report: dict[str, Any]) -> None:
    assert report["whole"]["code"] == 1  # one photograph is broken
    assert report["whole"]["files"] == 3 * 11 + len(("marker", "dataset", "manifest", "quality", "report", "card"))


def test_killed_at_twenty_random_instants_it_ends_with_the_same_bytes(report: dict[str, Any]) -> None:
    killed = report["killed"]
    assert len(killed["files"]) == 20
    assert len(set(killed["files"])) >= 4  # at various instants: before anything was written, and in the midst of it
    for outcome in killed["outcomes"]:
        assert outcome["same"]
        assert outcome["code"] == 1
        assert outcome["ended"][-1] == "finished"
        assert set(outcome["ended"][:-1]) <= {None, "finished"}  # nobody could say how it ended


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
    assert len(report["full"]) == 4
    for outcome in report["full"]:
        _check_full(outcome)
    assert len({line for outcome in report["full"] for line in outcome["said"]}) > 1  # not always the same file


def test_a_disk_that_is_really_full(report: dict[str, Any]) -> None:
    if not report["small"]:
        pytest.skip("may not mount a small file system")
    for outcome in report["small"]:
        _check_full(outcome)


def _check_full(outcome: dict[str, Any]) -> None:
    assert outcome["code"] == 2
    (line,) = outcome["said"]
    assert line.startswith("patchword: cannot write ")
    assert line.endswith(NO_ROOM)
    assert outcome["leftovers"] == []
    assert outcome["resumed"] == 1
    assert outcome["same"]
