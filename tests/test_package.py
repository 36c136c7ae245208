"""The public names: lazy and complete."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import patchword
from patchword.versions import versions
from tools.measure_structure import cycles, module_imports

SOURCE = str(Path(patchword.__file__).parents[1])
HEAVY = ("torch", "transformers", "numpy", "PIL", "pydantic", "rich")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {SOURCE!r})\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["patchword", "patchword.cli.app", "patchword.models.registry"])
def test_importing_is_light(name: str) -> None:
    loaded = run_python(f"import {name}\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))")
    assert loaded == ("pydantic" if name == "patchword.cli.app" else "")  # the configs, which the options come from


def test_every_public_name_is_there() -> None:
    assert len(patchword.__all__) <= 31
    for name in patchword.__all__:
        assert getattr(patchword, name) is not None
    assert set(patchword.__all__) <= set(dir(patchword))
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        patchword.lable  # noqa: B018


@pytest.mark.parametrize("name", ["suggest", "label", "align", "segment", "evaluate"])
def test_a_command_is_a_function_whatever_was_imported_before(name: str) -> None:
    code = "import patchword.labeling.run, patchword.segmentation.run; import patchword"
    assert run_python(f"{code}\nprint(callable(patchword.{name}))") == "True"


def test_versions() -> None:
    found = versions()
    assert found["patchword"] == patchword.__version__
    assert {"python", "torch", "transformers", "numpy", "pillow"} <= set(found)


def test_the_installed_version_is_the_package_s() -> None:
    try:
        installed = version("patchword")
    except PackageNotFoundError:
        pytest.skip("patchword is not installed here")
    assert installed == patchword.__version__


# Below the stages: what each package may import of the others; "models.registry" is that module alone.
LAYERS = {
    "data": ("errors",),
    "models": ("data", "errors", "versions", "precision", "config.base"),
    "runs": ("data", "errors", "versions", "precision", "config.base"),
    "config": ("data", "errors", "precision", "models.registry"),
}
STILL_THERE = {("patchword.config.shared", "patchword.runs.shards")}  # goes when it can; nothing joins it


def test_no_module_imports_itself_over_others() -> None:
    assert cycles(module_imports()) == []


@pytest.mark.parametrize("package", LAYERS)
def test_a_layer_imports_only_what_lies_below_it(package: str) -> None:
    own = f"patchword.{package}"
    allowed = (own, *(f"patchword.{name}" for name in LAYERS[package]))
    found = {
        (module, imported)
        for module, others in module_imports().items()
        if module == own or module.startswith(own + ".")
        for imported in others
        if not any(imported == name or imported.startswith(name + ".") for name in allowed)
    }
    assert found - STILL_THERE == set()
