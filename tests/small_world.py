"""What the tests of the command line and of the public functions share: tiny photographs, and commands that are run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from patchword.cli.app import app

# So low that random weights label something.
LABEL_SETTINGS = {"grids": [1, 2], "minimum_crops": 1, "minimum_share": 0, "pred_iou_thresh": 0, "margin": 0}
ALIGN_SETTINGS = {"image_size": 28, "steps": 2, "majority": 0.01}


# What a run says before it works.
UNDERSTOOD = re.compile("[0-9,]+ (class|photographs? (in|with) )|(preset|models?|method|predictions|output|device)\\b")


@dataclass(frozen=True)
class Models:
    """Folders of tiny random checkpoints."""

    clip: Path
    sam: Path
    dinov2: Path


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line on standard error beside what was understood; fails for another number."""
        (line,) = [line for line in self.err.splitlines() if not UNDERSTOOD.match(line)]
        assert line.startswith("patchword: ")
        return line


def run(*arguments: object) -> Ran:
    """Run `patchword` in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def pixels(*, seed: int = 0, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    """Blocks of random colour, (height, width, 3)."""
    blocks = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    repeated = blocks.repeat(-(-height // 3), axis=0).repeat(-(-width // 4), axis=1)
    return repeated[:height, :width]


def make_photos(folder: Path, count: int = 2) -> Path:
    """A folder of photographs called 0.png, 1.png and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(pixels(seed=number)).save(folder / f"{number}.png")
    return folder


def settings_options(settings: dict[str, object]) -> list[str]:
    """Settings as options of a command."""
    return [f"--set={name}={value}" for name, value in settings.items()]


def label_command(
    photos: Path | str, *, out: Path | str, models: Models, classes: object = "cat, dog, sofa"
) -> list[object]:
    """`patchword label` with tiny models."""
    parts = ["--image-text", models.clip, "--mask-generator", models.sam]
    return ["label", photos, "--classes", classes, "-o", out, *parts, *settings_options(LABEL_SETTINGS)]


def align_command(labels: Path, *, out: Path, models: Models) -> list[object]:
    """`patchword align` with tiny models."""
    return ["align", labels, "-o", out, "--encoder", models.dinov2, *settings_options(ALIGN_SETTINGS)]


def files_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder and what it holds."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def must(ran: Ran, *, code: int = 0) -> Ran:
    """Fail with what was said when a command ended with another code."""
    assert ran.code == code, (ran.code, ran.out, ran.err)
    return ran


def make_world(folder: Path, *, models: Models, count: int = 2) -> Path:
    """Make photos/, labels/ and model/ by the commands; the photographs' folder."""
    photos = make_photos(folder / "photos", count)
    must(run(*label_command(photos, out=folder / "labels", models=models)))
    must(run(*align_command(folder / "labels", out=folder / "model", models=models)))
    return photos


def names(paths: Sequence[Path]) -> list[str]:
    """Last parts of paths."""
    return [path.name for path in paths]


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file and folder below a folder: when it was last changed, and what it holds."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *sorted(folder.rglob("*"))]
    }
