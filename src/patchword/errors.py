"""The one exception that a user's mistake raises, and nothing else."""


class PatchwordError(ValueError):
    """A mistake that the caller can mend.

    The message is one line that names the value, the place and what is allowed. The command line prints it and exits
    with code 2; library callers may catch it as a `ValueError`.
    """
