"""Lets `patchword.suggest`, `label`, `align`, `segment`, `evaluate` be both a package and the function of that name.

Importing `patchword.label.dataset` makes Python bind the package `label` on `patchword`, over any function of that
name. So the bound package is given a class that can be called: `patchword.label(...)` then means the same whatever was
imported before.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from types import ModuleType
from typing import Any

ROOMS = ("suggest", "label", "align", "segment", "evaluate")


class CallableRoom(ModuleType):
    """A package that stands for the function of its name in `patchword.api` when it is called."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the public function of this room; see its signature and docstring in `patchword.api`."""
        return self._function(*args, **keywords)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)

    @property
    def _function(self) -> Any:
        return getattr(import_module("patchword.api"), self.__name__.rpartition(".")[2])


class RootPackage(ModuleType):
    """The package `patchword`: makes these rooms callable at the moment they are bound to it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ROOMS and isinstance(value, ModuleType):
            value.__class__ = CallableRoom
        super().__setattr__(name, value)
