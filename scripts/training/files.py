"""Files that are whole or absent."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from scripts.training.errors import RunError

PARTIAL = ".partial"  # how the names of files end that are being written


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that, whatever happens, the old one or the new one is there, and whole.

    Raises:
        RunError: If the disk is full.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if is_full(error):
            raise RunError(full(path, len(content))) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the disk know which files ``folder`` holds, where folders can be opened (on Windows they cannot)."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def full(path: Path | None, size: int = 0) -> str:
    what = f"{path} ({size / 2**20:.1f} MiB)" if path else "the results"
    return (
        f"The disk is full: there is no room for {what}. What was written before is as it was. Make room, then go on "
        "with --resume."
    )


def remove_partials(folder: Path) -> None:
    """Remove what a killed process was writing."""
    for path in folder.rglob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
