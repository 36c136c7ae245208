"""torch.compile where it works."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

_log = logging.getLogger(__name__)


class Compiled:
    """A module as torch.compile makes it, or the module itself from the first failure on, with a note on the log.

    The first call compiles the way back too, so that it cannot fail later.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._compiled: Callable[[Tensor, Tensor], Tensor] | None = None
        self._tried = False

    def __call__(self, features: Tensor, kept: Tensor) -> Tensor:
        """What the module gives for these arguments."""
        if not self._tried:
            self._tried = True
            self._try(features, kept)
        aligned: Tensor = (self._compiled or self._module)(features, kept)
        return aligned

    def _try(self, features: Tensor, kept: Tensor) -> None:
        try:
            compiled = torch.compile(self._module)
            with torch.enable_grad():
                torch.autograd.grad(compiled(features, kept).sum(), list(self._module.parameters()), allow_unused=True)
        except Exception as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _log.warning("torch.compile does not work here, training goes on without it: %s", reason[0])
        else:
            self._compiled = compiled
