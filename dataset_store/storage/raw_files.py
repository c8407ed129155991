"""Files over what is no file: a position that moves, and the pieces of an object one behind another."""

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

__all__ = ["PiecesFile", "SeekableFile"]


class SeekableFile(io.RawIOBase):
    """An unbuffered file of known size whose position can be moved anywhere; who extends it says what is read there."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a place, also behind the end, where nothing is read; ValueError before the beginning."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._at = base + offset
        return self._at


class PiecesFile(SeekableFile):
    """Buffers one behind another, read without being joined."""

    def __init__(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        self._pieces = [memoryview(piece).cast("B") for piece in buffers]
        self._ends = list(accumulate(len(piece) for piece in self._pieces))
        super().__init__(self._ends[-1] if self._ends else 0)

    def __len__(self) -> int:
        return self._size

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as fit and are left; how many."""
        target, filled = memoryview(buffer).cast("B"), 0
        while filled < len(target) and self._at < self._size:
            row = bisect_right(self._ends, self._at)
            start = self._at - (self._ends[row] - len(self._pieces[row]))
            some = self._pieces[row][start : start + len(target) - filled]
            target[filled : filled + len(some)] = some
            filled += len(some)
            self._at += len(some)
        return filled
