""".npy files that are read through a map of the file, so that only a few of their pages are in memory."""

import math
import mmap
from pathlib import Path
from typing import Any

import numpy
from numpy.lib import format as npy

from scripts.training.errors import RunError

RELEASE_BYTES = 8 * 2**20  # read from a map before its pages are released


class Header:
    """What the beginning of a .npy file states.

    Args:
        path: The file.

    Raises:
        RunError: If it is no .npy file of numbers, or its length is not what it states.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                version = npy.read_magic(file)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                self.shape, self.fortran, self.dtype = read(file)
                self.offset = file.tell()
                self.length = path.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise RunError(f"{path} must be a .npy file, got one that cannot be read ({error}).") from error
        if self.dtype.hasobject:
            raise RunError(f"{path} must contain numbers, got Python objects, which could execute code.")
        expected = self.offset + math.prod(self.shape) * self.dtype.itemsize
        if self.length != expected:
            raise RunError(
                f"{path} must have {expected} bytes for its shape {self.shape}, got {self.length}. Write it again."
            )


class Mapped:
    """A .npy file as an array of which rows are read: ``array[index]`` and ``array[start:stop]`` are copies.

    Pages that were read count as memory of the process until they are released, which is done every few reads: the
    memory that a process uses does not grow with the file. A file that changes its length is an error, not a crash.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        header = Header(path)
        self.path, self.shape, self.dtype = path, header.shape, header.dtype
        self.header = header
        self.opened: tuple[mmap.mmap, numpy.ndarray] | None = None
        self.read_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "opened": None}  # another process opens the file for itself

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | slice) -> numpy.ndarray:
        if self.opened is None:
            self.opened = self.open()
        pages, array = self.opened
        self.refuse_change(pages.size())  # of the file, not of the map
        taken = numpy.array(array[rows], order="C")
        self.read_bytes += taken.nbytes
        if self.read_bytes >= RELEASE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)
            self.read_bytes = 0
        return taken

    def open(self) -> tuple[mmap.mmap, numpy.ndarray]:
        header = self.header
        try:
            with self.path.open("rb") as file:
                self.refuse_change(file.seek(0, 2))
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise RunError(f"{self.path} cannot be read ({error}).") from error
        order = "F" if header.fortran else "C"
        return pages, numpy.ndarray(header.shape, header.dtype, pages, header.offset, order=order)

    def refuse_change(self, length: int) -> None:
        """Refuse to read a file that was replaced or cut: reading behind the end of a map ends the process."""
        if length != self.header.length:
            raise RunError(
                f"{self.path} must keep its {self.header.length} bytes during a run, got {length}. Restore it, then "
                "continue with --resume."
            )
