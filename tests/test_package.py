"""The public names: lazy, complete, and the rooms that can be called."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import patchword
from patchword import api
from patchword.versions import versions

SOURCE = str(Path(patchword.__file__).parents[1])
HEAVY = ("torch", "transformers", "numpy", "PIL", "pydantic", "rich")


def run_python(code: str) -> str:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {SOURCE!r})\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("name", ["patchword", "patchword.cli", "patchword.models"])
def test_importing_is_light(name: str) -> None:
    loaded = run_python(f"import {name}\nprint(' '.join(name for name in {HEAVY!r} if name in sys.modules))")
    assert loaded == ""


def test_every_public_name_is_there() -> None:
    assert len(patchword.__all__) <= 23
    for name in patchword.__all__:
        assert getattr(patchword, name) is not None
    assert set(patchword.__all__) <= set(dir(patchword))
    with pytest.raises(AttributeError, match="no attribute 'lable'"):
        patchword.lable  # noqa: B018


@pytest.mark.parametrize("before", ["", "import patchword.{room}", "from patchword import {room}"])
def test_rooms_can_be_called_whatever_was_imported_before(before: str) -> None:
    rooms = ("suggest", "label", "align", "segment", "evaluate")
    imports = "\n".join(before.format(room=room) for room in rooms)
    code = f"""
import patchword
{imports}
from patchword import api
for room in {rooms!r}:
    setattr(api, room, lambda *args, room=room, **keywords: (room, args, keywords))
    called = getattr(patchword, room)("photos", out="out")
    assert called == (room, ("photos",), {{'out': 'out'}}), called
    assert getattr(patchword, room).__name__ == f"patchword.{{room}}"
print("done")
"""
    assert run_python(code) == "done"


@pytest.mark.parametrize("room", ["label", "align", "segment", "evaluate"])
def test_a_room_shows_the_signature_of_its_function(room: str) -> None:
    assert inspect.signature(getattr(patchword, room)) == inspect.signature(getattr(api, room))


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
