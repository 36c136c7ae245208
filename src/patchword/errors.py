"""The one exception that a user's mistake raises, and how other errors are told in one line."""


class PatchwordError(ValueError):
    """A mistake that the caller can mend.

    The message is one line that names the value, the place and what is allowed. The command line prints it and exits
    with code 2; library callers may catch it as a `ValueError`.
    """


class WriteError(PatchwordError):
    """A file that cannot be written, such as on a full disk: no fault of the one photograph that is at hand."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or the name of its type where it says nothing."""
    return str(error).strip().split("\n")[0] or type(error).__name__
