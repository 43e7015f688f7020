"""What ends a run with a message instead of a traceback."""

from collections.abc import Sequence


class RunError(Exception):
    """A run cannot start or go on; the message says why and what to do."""


class NonFiniteError(RunError):
    """The loss or a weight is not finite."""


class Stopped(Exception):  # noqa: N818  it is no error
    """A signal asked the run to stop, and what was to be saved is saved."""


def listed(names: Sequence[str]) -> str:
    """The names for a message: five of many, and how many more there are."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
