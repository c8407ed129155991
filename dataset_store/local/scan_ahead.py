"""Directories that a scan is about to enter, opened and listed by two threads meanwhile.

The compiled listing needs no interpreter, so two directories are listed at the same time, and the scan finds them done.
What could not be opened or listed here is forgotten: the scan does it again, one by one, and tells what is wrong.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Final, NamedTuple

from dataset_store.local.batches import compiled, list_directory
from dataset_store.local.listing import Listing

__all__ = ["Ahead", "Listed"]

_MOST_OPEN: Final = 16
_THREADS: Final = 2
_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW

Place = tuple[int, int]
"""A directory below one that is being walked: the depth of that, and the row of its listing."""


class Listed(NamedTuple):
    """An open directory and all that it holds."""

    opened: int
    listing: Listing


class Ahead:
    """What two threads have listed, or are listing; at most 16 directories. For one scan, in one thread."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._usable = compiled()
        self._begun: dict[Place, Future[Listed | None]] = {}

    def begin(self, parent: int, depth: int, rows: Sequence[int], names: Sequence[bytes]) -> None:
        """List some of the directories below an open one, the first ones first, as far as there is room.

        `parent` must stay open until `settle`.
        """
        if not self._usable:
            return
        self._pool = self._pool or ThreadPoolExecutor(_THREADS, "scan")
        for row in rows[: _MOST_OPEN - len(self._begun)]:
            if (depth, row) not in self._begun:
                try:
                    self._begun[depth, row] = self._pool.submit(_list, names[row], parent)
                except RuntimeError:  # the system gives no thread, or the process is ending
                    self._usable = False
                    self._pool.shutdown(cancel_futures=True)
                    return

    def take(self, depth: int, row: int) -> Listed | None:
        """A directory that was listed, from now on the caller's; None where it was not."""
        begun = self._begun.pop((depth, row), None)
        return begun.result() if begun is not None and not begun.cancelled() else None

    def settle(self, depth: int) -> None:
        """Wait until nothing uses the directory of this depth any more."""
        wait([begun for place, begun in self._begun.items() if place[0] == depth])

    def close(self) -> None:
        """End the threads and close what nobody has taken."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        for begun in self._begun.values():
            if not begun.cancelled() and begun.exception() is None and (listed := begun.result()) is not None:
                os.close(listed.opened)
        self._begun.clear()


def _list(name: bytes, parent: int) -> Listed | None:
    with suppress(OSError):
        opened = os.open(name, _FLAGS, dir_fd=parent)
        listing = None
        try:
            listing = list_directory(opened)
        finally:
            if listing is None:
                os.close(opened)
        return None if listing is None else Listed(opened, listing)
    return None
