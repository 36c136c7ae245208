"""Fixtures that every room's tests may use: tiny random checkpoints of each model family, as folders on disk."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import typer.testing
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"  # tests use no network
os.environ["PATCHWORD_CACHE"] = ""  # tests leave nothing behind, and know nothing of each other
os.environ.setdefault("NLTK_DATA", tempfile.gettempdir())  # which Label Studio's converter imports; it wants a home
os.environ.setdefault("OMP_NUM_THREADS", "1")  # their models are so small that threads cost more than they give
sys.path.insert(0, str(Path(__file__).parent / "labeling"))  # their fakes serve others, too
sys.path.insert(0, str(Path(__file__).parent / "models"))
sys.path.insert(0, str(Path(__file__).parent / "export"))

import stand_ins
import tiny as tiny_checkpoints

from small_world import Models

if TYPE_CHECKING:
    from s3_store import Store

# The files that take longest, in this order: where several processes share the tests, none is left with one at the end.
LONG = (
    "test_ray.py",
    "test_demo.py",
    "test_notebook.py",
    "test_review_page.py",
    "test_folder_runs.py",
    "test_processes.py",
    "test_playground.py",
    "test_label_interruptions.py",
    "test_jobs.py",
    "test_results_by_url.py",
    "test_align_distributed.py",
    "test_quality_model.py",
    "test_limits.py",
    "test_suggest_cli.py",
    "test_odd_names.py",
    "test_hub_server.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; and what is imported by now is not looked through for garbage again and again."""
    gc.freeze()
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


os.fsync = lambda file: None  # nobody cuts the power of a test, and the disk would be waited for thousands of times
vars(typer.testing)["_get_command"] = cache(typer.main.get_command)  # else made anew for every command that is run
settings.register_profile("patchword", deadline=None, derandomize=True)  # no test depends on time or on luck
settings.load_profile("patchword")


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def tiny_siglip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_siglip(tmp_path_factory.mktemp("siglip"))


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="session")
def tiny_dinov2_registers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_dinov2(tmp_path_factory.mktemp("dinov2_registers"), registers=3)


@pytest.fixture(scope="session")
def tiny_dinov3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_dinov3(tmp_path_factory.mktemp("dinov3"))


@pytest.fixture(scope="session")
def tiny_dinov3_convnext(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_dinov3_convnext(tmp_path_factory.mktemp("dinov3_convnext"))


@pytest.fixture(scope="session")
def tiny_mae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_mae(tmp_path_factory.mktemp("mae"))


@pytest.fixture(scope="session")
def tiny_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_vit(tmp_path_factory.mktemp("vit"))


@pytest.fixture(scope="session")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def tiny_sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="session")
def tiny_sam2_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoints.make_sam2(tmp_path_factory.mktemp("sam2_video"), video=True)


@pytest.fixture(scope="session")
def tiny_timm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a timm model, with a stand-in of timm to load it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "timm", stand_ins.timm_module())
        yield f"timm:{stand_ins.make_timm(tmp_path_factory.mktemp('timm').resolve())}"


@pytest.fixture(scope="session")
def tiny_open_clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of an OpenCLIP model, with a stand-in of open_clip to load it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "open_clip", stand_ins.open_clip_module())
        yield f"open_clip:{stand_ins.make_open_clip(tmp_path_factory.mktemp('open_clip').resolve())}"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    from s3_store import serving

    with serving() as found:
        yield found


@pytest.fixture(scope="session")
def models(tiny_clip: Path, tiny_sam: Path, tiny_dinov2: Path) -> Models:
    return Models(clip=tiny_clip, sam=tiny_sam, dinov2=tiny_dinov2)
