"""torch.compile where it works."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)


class Compiled:
    """A module as torch.compile makes it, or the module itself from the first failure on, with a note on the log.

    The first call compiles the way back too, so that it does not fail in a step that is half done.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._compiled: Callable[[Tensor, Tensor], Tensor] | None = None
        self._tried = False

    def __call__(self, features: Tensor, kept: Tensor) -> Tensor:
        """What the module gives for these arguments."""
        try:
            if not self._tried:
                self._tried = True
                self._compiled = torch.compile(self._module)
                self._go_back(self._compiled(features, kept))
            if self._compiled is not None:
                return self._compiled(features, kept)
        except Exception as error:  # compilers fail in ways of their own; a mistake in the module shows again below
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _log.warning("torch.compile does not work here, training goes on without it: %s", reason[0])
            self._compiled = None
        aligned: Tensor = self._module(features, kept)
        return aligned

    def _go_back(self, aligned: Tensor) -> None:
        if aligned.requires_grad:
            torch.autograd.grad(aligned.sum(), list(self._module.parameters()), allow_unused=True)
