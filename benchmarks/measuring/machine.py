"""The machine that a run has: images in a folder, a page cache that can be forgotten, and memory that stays in use.

The host of a virtual machine may take back memory that nobody has used for some seconds. Where it does, writing to a
gigabyte of such memory takes two to three seconds, and to one that was just given back a fifth of one: more than most
operations take, and it falls upon whoever comes first. So what is free is filled with pages of a file that holds
nothing; the kernel gives them to whoever asks, as on any machine that has run for a day.
"""

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.measuring.image import drop_page_cache, mounted

__all__ = ["Machine"]

LEFT_FREE = 1 << 30
"""Bytes; the kernel itself keeps most of that."""

PIECE = 1 << 20
PIECES = 64
HOLE = 8 << 40


class Machine:
    """One machine.

    Args:
        scratch: A folder on a disk; what comes to lie there is whoever's who made it.
    """

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.filler = scratch / "filler"
        self.at = 0

    def image(self, size: int, kind: str = "ext4") -> AbstractContextManager[Path]:
        """A new file system; see `mounted`."""
        return mounted(self.scratch, size, kind)

    def forget(self) -> None:
        """Let the next to read a file read the disk."""
        drop_page_cache()
        self.fill()

    def fill(self) -> None:
        """Bring what is free into use; at most all memory is filled."""
        buffer, end = bytearray(PIECE), self.at + memory()["MemTotal"]
        handle = os.open(self.filler, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(handle, HOLE)  # of which nothing is on the disk
            while memory()["MemFree"] > LEFT_FREE and self.at < end:
                for _ in range(PIECES):
                    os.preadv(handle, [buffer], self.at % HOLE)
                    self.at += PIECE
        finally:
            os.close(handle)


def memory() -> Mapping[str, int]:
    """What the kernel tells of memory, in bytes."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
