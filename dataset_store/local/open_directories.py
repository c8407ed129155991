"""Directories of a folder that is being written, open by key: each is reached from the one above it by one name.

Promises: no step follows a link; a bounded number is open; one in use is never closed, whatever ends meanwhile. Safe to
use from several threads.
"""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from msgspec import Struct

from dataset_store.core.paths import ROOT, PathKey, parent_key

__all__ = ["OPEN_DIRECTORY", "Cursor", "OpenDirectories"]

OPEN_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags that open a directory, and nothing that a link leads to."""

_MAX_OPEN: Final = 64


class _Open(Struct, eq=False):
    """An open directory and how many are using it now."""

    opened: int
    users: int


class OpenDirectories:
    """Open directories by key, least recently used first; one in use is never closed, whatever ends."""

    def __init__(self, root: int) -> None:
        self._root = _Open(root, 1)  # always in use
        self._open: OrderedDict[PathKey, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self._closed = False
        self.made: list[PathKey] = []

    def borrow(self, key: PathKey) -> _Open:
        """A directory, made where missing; to be given back."""
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the folder is written no more")
            found = self._find(key) or self._make(key)
            found.users += 1
            self._shrink()
            return found

    def give_back(self, directory: _Open) -> None:
        """End the use of a borrowed directory."""
        with self._lock:
            directory.users -= 1
            if self._closed and not directory.users:
                os.close(directory.opened)

    @contextmanager
    def borrowed(self, key: PathKey) -> Iterator[int]:
        """A directory's descriptor for a while."""
        directory = self.borrow(key)
        try:
            yield directory.opened
        finally:
            self.give_back(directory)

    def close(self) -> None:
        """Close what nobody uses; of the rest the last user does it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._root.users -= 1
            for directory in (self._root, *self._open.values()):
                if not directory.users:
                    os.close(directory.opened)
            self._open.clear()

    def _find(self, key: PathKey) -> _Open | None:
        if key == ROOT:
            return self._root
        found = self._open.get(key)
        if found:
            self._open.move_to_end(key)
        return found

    def _make(self, key: PathKey) -> _Open:
        """Open a directory from the nearest open one above it."""
        missing = []
        while (found := self._find(key)) is None:
            missing.append(key)
            key = parent_key(key)
        for below in reversed(missing):
            name = below.rpartition(b"\0")[2]
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=found.opened)
                self.made.append(below)
            found = self._open[below] = _Open(os.open(name, OPEN_DIRECTORY, dir_fd=found.opened), 0)
        return found

    def _shrink(self) -> None:
        if len(self._open) <= _MAX_OPEN:
            return
        idle = [key for key, directory in self._open.items() if not directory.users]
        for key in idle[: len(self._open) - _MAX_OPEN]:
            os.close(self._open.pop(key).opened)


class Cursor:
    """The directory of the key at hand, kept as long as keys stay in it."""

    __slots__ = ("_directories", "_held", "_key")

    def __init__(self, directories: OpenDirectories) -> None:
        self._directories = directories
        self._key = ROOT
        self._held: _Open | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def at(self, key: PathKey) -> int:
        """The descriptor of the directory that holds `key`."""
        directory = parent_key(key)
        if self._held is None or directory != self._key:
            self._release()
            self._held = self._directories.borrow(directory)
            self._key = directory
        return self._held.opened

    def _release(self) -> None:
        if self._held is not None:
            self._directories.give_back(self._held)
            self._held = None
