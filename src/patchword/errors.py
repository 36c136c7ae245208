"""The one exception that a user's mistake raises, how other errors are told in one line, and warnings."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

_TOLD: dict[Any, Any] = {}  # what `warn_of_file` has said


class PatchwordError(ValueError):
    """A mistake that the caller can mend.

    The message is one line that names the value, the place and what is allowed. The command line prints it and exits
    with code 2; library callers may catch it as a `ValueError`.
    """


class WriteError(PatchwordError):
    """A file that cannot be written, such as on a full disk: no fault of the one photograph that is at hand."""


class StorageError(PatchwordError):
    """A store of objects that cannot be reached or refuses: no fault of the one photograph that is at hand."""


class SizeError(PatchwordError):
    """A mask of another size than its photograph; masks are never resized.

    Args:
        what: what the message calls the mask.
        found, needed: (height, width) in pixels of the mask and of the photograph.
    """

    def __init__(self, what: str, *, found: tuple[int, int], needed: tuple[int, int]) -> None:
        super().__init__(
            f"{what}: labels are of {found[1]} x {found[0]} pixels, the photograph is {needed[1]} x {needed[0]}"
        )
        self.found = found


class UnusableError(PatchwordError):
    """One object of many that gives no mask; the message names the kind of trouble, the same words for all of a kind,
    so that they can be counted."""


class PatchwordWarning(UserWarning):
    """Something that works, but probably not as it was meant. The command line prints it as one line."""


def warn(message: str, *, level: int = 2) -> None:
    """Warn a caller; Python shows each message once at each place, unless its filters say otherwise.

    Args:
        message: one line.
        level: whose call is shown beside it: 1 is the function that warns, 2 its caller.
    """
    warnings.warn(message, PatchwordWarning, stacklevel=level + 1)


def warn_of_file(message: str, *, path: Path) -> None:
    """Warn of what a file holds; Python shows the file in the place of a line of code, and each message once.

    Args:
        message: one line, which names the file.
        path: of the file.
    """
    warnings.warn_explicit(message, PatchwordWarning, str(path), 0, module="patchword", registry=_TOLD)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__


def printable(text: object) -> str:
    """Text that fits on one line of a terminal: control characters and bytes that are not UTF-8 become escapes."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in str(text))
