"""What holds for one thread, and for a while."""

import contextlib
import threading
from collections.abc import Iterator

__all__ = ["setting"]


@contextlib.contextmanager
def setting(local: threading.local, name: str, value: object) -> Iterator[None]:
    """Have the attribute ``name`` of ``local`` be ``value``, and then what it was."""
    before = getattr(local, name, None)
    setattr(local, name, value)
    try:
        yield
    finally:
        setattr(local, name, before)
