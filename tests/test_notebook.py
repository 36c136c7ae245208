"""What a notebook shows of results; the notebooks of examples/ run."""

from __future__ import annotations

import io
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

import patchword as pw
from patchword.config.suggest import SuggestSettings
from patchword.suggestion.result import Proposed

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
# In place of the hub's models those of Toytown, which the notebook does not know of.
STAND_INS = """
from patchword.models import registry
from patchword.toytown import miniatures
from patchword.toytown.demo_scenes import draw
registry.PRESETS["balanced"] = registry.Preset(*map(str, (miniatures.CLIP, miniatures.SAM, miniatures.DINO)))
place = draw(Path("drawn"), "scenes", purpose="label", count=3, first=0, style="day")
place.photos.rename("photos")
"""
COARSELY = """
_label = pw.label
pw.label = lambda *given, **named: _label(*given, **named, settings={"grids": (1, 2), "points_per_side": 12})
"""
# A third of the scenes, labelled coarsely, and a training of a few steps.
SHORTER = f"""{COARSELY}
_draw, _align = draw, pw.align
draw = lambda *given, **named: _draw(*given, **{{**named, "count": 4}})
pw.align = lambda *given, settings, **named: _align(*given, **named, settings={{**settings, "steps": 8}})
"""
IN_TOYTOWN = f"""{COARSELY}
classes, background = ["tree; plant", "house", "cloud"], ["sky", "grass"]
_align = pw.align
pw.align = lambda *given, **named: _align(*given, **named, settings={{"image_size": 96, "steps": 2}})
"""


def cells(html: str) -> list[list[str]]:
    """The text of a table's cells, row by row."""
    rows = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", html, re.DOTALL)]
    return [[re.sub(r"<.*?>", "", cell) for cell in row] for row in rows]


@pytest.fixture
def result() -> pw.SegmentationResult:
    """A quarter cat at confidence 0.5, half dog at 0.75, a quarter of no class at 0.25."""
    mask = np.full((600, 1000), 1)
    mask[:300, :500], mask[300:, :500] = 0, 255
    confidence = np.choose(np.minimum(mask, 2), [0.5, 0.75, 0.25]).astype(np.float32)
    return pw.SegmentationResult(pw.LabelMap(mask, ("cat", "<dog>")), confidence, np.zeros((600, 1000, 3), np.uint8))


def test_a_segmentation_is_told_by_class(result: pw.SegmentationResult) -> None:
    assert repr(result) == "SegmentationResult(1000 x 600 pixels: <dog> 50 %, cat 25 %)"
    html = result._repr_html_()
    assert cells(html) == [
        ["class", "share", "confidence"],
        ["&lt;dog&gt;", "50.0 %", "0.750"],
        ["cat", "25.0 %", "0.500"],
        ["no class", "25.0 %", "0.250"],
    ]
    assert "mean confidence: 0.562" in html
    assert html.count("<img") == 1


def test_a_segmentation_is_indexed_by_class(result: pw.SegmentationResult) -> None:
    assert result.mask is result.label_map.indices
    np.testing.assert_array_equal(result["cat"], result.mask == 0)
    with pytest.raises(pw.PatchwordError, match=r"^unknown class 'cta' \(choose from cat, <dog>\)$"):
        result["cta"]


def test_a_segmentation_is_a_picture_of_moderate_size(result: pw.SegmentationResult) -> None:
    picture = Image.open(io.BytesIO(result._repr_png_()))
    assert picture.format == "PNG"
    assert picture.width == 720
    assert picture.height > 432, "a legend stands below"
    cat, dog = (picture.convert("RGB").getpixel((x, 100)) for x in (100, 600))
    assert cat != dog


def test_a_proposal_is_a_table_and_long_ones_are_cut() -> None:
    names = [f"noun {number}" for number in range(40)]
    suggestion = pw.Suggestion(
        vocabulary=pw.Vocabulary.of(names),
        classes=tuple(Proposed(name, photographs=4, crops=1234, near=("a", "b")) for name in names),
        background=(),
        missed=(),
        photographs=8,
        found=8,
        crops=80,
        failed={},
        model="clip",
        settings=SuggestSettings(),
    )
    assert repr(suggestion).startswith("Suggestion(8 photographs: 40 classes: noun 0, noun 1")
    assert len(repr(suggestion)) < 300
    html = suggestion._repr_html_()
    assert cells(html)[1] == ["noun 0", "4", "50%", "1,234", "a, b"]
    assert len(cells(html)) == 1 + 20
    assert "and 20 more" in html


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_without_outputs_and_places(name: str) -> None:
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
        assert not re.search(r"https?:|huggingface|[\"'](?:/|~|[A-Z]:)", cell.source)


def execute(
    name: str, folder: Path, *, skip: str = "", before: str = "", parameters: str = ""
) -> nbformat.NotebookNode:
    """Run a notebook in a folder, with cells put in at its beginning and after its parameters."""
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    tagged = [place for place, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ())]
    for place, text in [(each + 1, parameters) for each in tagged] + [(2, before)]:
        notebook.cells.insert(place, nbformat.v4.new_code_cell(text))
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=200, resources=where, skip_cells_with_tag=skip or "no-such-tag").execute()
    return notebook


def shown(notebook: nbformat.NotebookNode) -> list[str]:
    """The HTML of its results."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.data["text/html"] for output in outputs if "text/html" in output.get("data", {})]


def titles(notebook: nbformat.NotebookNode) -> list[str]:
    """The first words of its results."""
    return re.findall(r"<b>(\w+).*?</b>", " ".join(shown(notebook)))


@pytest.fixture
def own(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder; the kernel writes what it keeps elsewhere."""
    kernels = tmp_path_factory.mktemp("jupyter")
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(kernels))
    return tmp_path


def test_the_notebook_of_toytown_runs(own: Path) -> None:
    notebook = execute("toytown.ipynb", own, before=SHORTER)
    assert titles(notebook) == ["Labels", "Segmentation", "Segmentation", "Evaluation", "Evaluation"]
    assert list(own.iterdir()) == []


def test_the_notebook_of_own_photographs_runs_without_weights(own: Path) -> None:
    (own / "photos").mkdir()
    Image.new("RGB", (32, 24)).save(own / "photos" / "a.jpg")
    assert titles(execute("own_photographs.ipynb", own, skip="needs-hub")) == []
    assert list(own.iterdir()) == [own / "photos"]


def test_the_notebook_of_own_photographs_runs_with_other_weights(own: Path) -> None:
    notebook = execute("own_photographs.ipynb", own, before=STAND_INS, parameters=IN_TOYTOWN)
    assert titles(notebook) == ["Proposed", "Labels", "Segmentation", "Masks"]
    assert (own / "labels.json").is_file()
