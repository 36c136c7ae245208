"""Which software a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from patchword import __version__

_PACKAGES = ("torch", "transformers", "numpy", "pillow", "safetensors", "pycocotools", "open_clip_torch", "timm")


def versions() -> dict[str, str]:
    """Versions of patchword, Python and the packages that results depend on, by name; packages absent are left out."""
    found = {"patchword": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
