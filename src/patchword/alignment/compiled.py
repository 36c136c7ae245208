"""torch.compile where it works."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from patchword.errors import PatchwordError
from patchword.models.batching import is_out_of_memory

_log = logging.getLogger(__name__)


class Compiled:
    """A function as torch.compile makes it, or the function itself from the first failure on, with a note on the log.

    The first call of a module compiles the way back too, so that it does not fail in a step that is half done.

    Args:
        function: a module, or anything that takes tensors to a tensor.
        goes_on: what goes on without the compiler, for the note.
    """

    def __init__(self, function: Callable[..., Tensor], *, goes_on: str = "training") -> None:
        self._function = function
        self._goes_on = goes_on
        self._compiled: Callable[..., Tensor] | None = None
        self._tried = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        """What the function gives for these arguments."""
        try:
            if not self._tried:
                self._tried = True
                self._compiled = torch.compile(self._function)
                self._go_back(self._compiled(*arguments))
            if self._compiled is not None:
                return self._compiled(*arguments)
        except PatchwordError:
            raise
        except Exception as error:  # compilers fail in ways of their own; a mistake in the function shows again below
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            _log.warning("torch.compile does not work here, %s goes on without it: %s", self._goes_on, reason[0])
            self._compiled = None
        return self._function(*arguments)

    def _go_back(self, result: Tensor) -> None:
        if result.requires_grad and isinstance(self._function, nn.Module):
            torch.autograd.grad(result.sum(), list(self._function.parameters()), allow_unused=True)
