"""Which software a result was made with, and which of it decides what comes out."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from patchword import __version__
from patchword.precision import matmul_note

_PACKAGES = (
    "torch",
    "transformers",
    "numpy",
    "pillow",
    "safetensors",
    "pycocotools",
    "open_clip_torch",
    "timm",
    "ftfy",
)
_DECISIVE = ("patchword", "torch", "transformers")


def versions() -> dict[str, str]:
    """Versions of patchword, Python and the packages that results depend on, by name; packages absent are left out."""
    return dict(_installed())


@cache  # a process has what it has, and every run asks several times
def _installed() -> dict[str, str]:
    found = {"patchword": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def decisive_versions() -> dict[str, str]:
    """Versions of what a run must not change on its way, as far as they decide: the first number of each.

    patchword decides the method, torch the arithmetic, transformers the models' code and tokenizers. A new first number
    says that results may change; before 1.0 the second one does. What else is installed reads and writes files. With
    torch goes how precise its products are, where that is not in full.
    """
    notes = {"torch": matmul_note()}
    return {name: _leading(found) + notes.get(name, "") for name, found in versions().items() if name in _DECISIVE}


def _leading(text: str) -> str:
    first, _, rest = text.partition(".")
    return f"0.{rest.partition('.')[0]}" if first == "0" else first
