"""What one of several processes does for all."""

import sys

from lightning.pytorch.utilities import rank_zero_only


def is_first() -> bool:
    """Whether this is the process that writes, also before the others are known."""
    return getattr(rank_zero_only, "rank", 0) == 0


@rank_zero_only
def say(text: str) -> None:
    print(text, flush=True)


@rank_zero_only
def warn(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)
