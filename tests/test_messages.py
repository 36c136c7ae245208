"""What a person reads who has made a mistake: the place, the value, and what is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import patchword
from patchword.config.segment import SegmentSettings
from patchword.errors import PatchwordError
from patchword.runs.records import told_apart
from small_world import make_photos, must, run


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"jbu": {"colr": 3}},
            "jbu: setting 'colr' is unknown; did you mean 'colour'? (choose from radius, distance, colour",
        ),
        ({"pamr": {"contrast": 11}}, "pamr: setting 'contrast' is 11; it must be at most 10"),
        ({"jbu": 3}, "setting 'jbu' is 3; "),
        ({"stride": 100}, "stride is 100; it requires window"),
        ({"stride": 100, "window": 64}, "stride is 100; it must be 1 to the window's side, 64"),
    ],
)
def test_wrong_setting_names_its_place(values: dict[str, object], told: str) -> None:
    with pytest.raises(PatchwordError) as raised:
        SegmentSettings.of(values)
    assert str(raised.value).startswith(told)


def test_parts_of_settings_are_read() -> None:
    assert SegmentSettings.of({"jbu": {"radius": 3}}).jbu.radius == 3


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (("cat", "dog"), ("cat", "dog"), None),
        (("cat", "dog"), ("cat",), ("'cat', 'dog'", "'cat'")),
        (("a", "b", "c", "d"), ("a", "b", "c"), ("3 alike, then 'd'", "3 alike, then nothing")),
        (("a", "b", "c", "d", "e"), ("x",), ("'a', 'b', 'c' and 2 more", "'x'")),
    ],
)
def test_other_classes_are_told_by_name(
    before: tuple[str, ...], now: tuple[str, ...], told: tuple[str, str] | None
) -> None:
    first, second = told_apart(before, now)
    assert (first == second) if told is None else ((first, second) == told)


@pytest.mark.parametrize(
    ("name", "told"), [("absent", "is not there"), ("photos", "is a folder that patchword did not write")]
)
def test_merge_of_what_is_no_result(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "photos").mkdir()
    complaint = must(run("merge", tmp_path / name, "-o", tmp_path / "out"), code=2).complaint
    assert f"{told}; give folders that `label`, `segment` or `evaluate` wrote" in complaint


def test_export_tells_all_formats(tmp_path: Path) -> None:
    complaint = must(run("export", tmp_path, "--format", "foo", "-o", tmp_path / "out"), code=2).complaint
    assert "--format is 'foo'; choose from coco, " in complaint
    assert complaint.endswith(", hf, onnx, text-embeddings")


def test_evaluate_refuses_snapping_without_masks_before_it_loads_anything(tmp_path: Path) -> None:
    for folder, mode in (("photos", "RGB"), ("masks", "L")):
        (tmp_path / folder).mkdir()
        Image.new(mode, (8, 8)).save(tmp_path / folder / "a.png")
    command = ["evaluate", tmp_path / "photos", "--masks", tmp_path / "masks", "--classes", "cat", "--model", "absent"]
    complaint = must(run(*command, "--set", "refine=sam"), code=2).complaint
    assert "refine=sam needs a mask generator, such as a SAM; name one by --mask-generator" in complaint


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_help_says_what_a_mask_generator_is_for(command: str) -> None:
    assert "the setting refine=sam" in " ".join(must(run(command, "--help")).out.split())


# Beside a folder `photos` with two photographs and nothing else.
MISTAKES = [
    "label absent --classes cat -o out",
    "label absent --classes cat -o out --dry-run",
    "label absent --classes cat -o out --preview 3",
    "label photos --classes classes.tx -o out",
    "label photos --classes cat -o out --preset fats",
    "label photos --classes cat -o out --set margn=1",
    "label photos --classes cat -o out --image-text absent/",
    "label photos --classes cat -o out --encoder absent/",
    "label photos --classes cat -o photos/0.png",
    "label photos --classes cat -o photos",
    "label photos --classes cat -o out --preview 0",
    "align absent -o out",
    "align absent -o out --dry-run",
    "align photos -o out",
    "segment absent --method maskclip --image-text absent/ --classes cat -o out",
    "segment photos --model absent/ --classes cat -o out",
    "segment photos --model absent/ --classes cat -o out --dry-run",
    "segment photos --model photos --classes cat -o out",
    "segment photos --method maskclp --image-text absent/ --classes cat -o out",
    "evaluate absent --masks photos --classes cat --model absent/",
    "evaluate photos --masks absent --classes cat --model absent/",
    "evaluate photos --masks photos --classes classes.tx --model absent/",
    "evaluate photos --masks photos --classes cat --model absent/",
    "evaluate photos --masks photos --classes cat --predictions absent",
    "evaluate photos --masks photos --classes cat --model absent/ --limit 0",
    "evaluate --benchmark voc22 --data photos --model absent/",
    "evaluate --benchmark voc21 --data absent --model absent/",
    "export absent --format coco -o out.json",
    "export photos --format coco -o out.json",
    "export photos --format cocco -o out.json",
    "export absent/ --format onnx -o out.onnx",
    "export absent/ --format text-embeddings -o out.npz",
    "import absent --format coco --photos photos --classes cat -o out",
    "import photos --format cvat --photos photos --classes cat -o out",
    "import photos --format voc --photos absent --classes cat -o out",
    "import photos --format voc --photos photos --classes classes.tx -o out",
    "quality absent",
    "quality photos",
    "suggest absent -o out.txt",
    "suggest photos -o out.txt --preset fats",
    "suggest photos -o out.txt --nouns nuons.txt",
    "merge absent -o out",
    "ablate absent -o out",
    "push absent user/name",
    "benchmarks voc22",
]
WITHOUT_TORCH = """
import json, sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise RuntimeError("torch was imported")

sys.meta_path.insert(0, NoTorch())
from typer.testing import CliRunner
from patchword.cli.app import app

for line in sys.stdin:
    result = CliRunner().invoke(app, line.split())
    raised = None if isinstance(result.exception, SystemExit) else repr(result.exception)
    print(json.dumps([result.exit_code, result.stderr, raised]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[object]]:
    """Exit code, what was said and what was raised, of each mistake, made in a process that has no torch."""
    folder = make_photos(tmp_path_factory.mktemp("mistakes") / "photos").parent
    command = [sys.executable, "-c", WITHOUT_TORCH]
    done = subprocess.run(command, input="\n".join(MISTAKES), capture_output=True, text=True, check=True, cwd=folder)
    return dict(zip(MISTAKES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_before_torch_is_imported(mistake: str, answers: dict[str, Sequence[object]]) -> None:
    code, said, raised = answers[mistake]
    assert (code, raised) == (2, None)
    assert str(said).startswith("patchword: ")
    assert str(said).count("\n") == 1


def test_align_refuses_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(PatchwordError, match="labels is 3; pass a folder that `label` wrote, or a data set"):
        patchword.align(3, out=tmp_path / "model")  # type: ignore[arg-type]
