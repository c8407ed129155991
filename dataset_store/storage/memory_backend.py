"""A dictionary as a backend: for tests, examples, and stores that need not outlive the process.

Promises: those of `backend`, except that "durable" means as long as this object lives; threads that share the
object share its storage. Never: hands out or keeps a buffer that the caller can change.
"""

import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from dataset_store.storage.backend import (
    Buffers,
    CollectedWriter,
    Key,
    ObjectInfo,
    ObjectWriter,
    Span,
    Tail,
    Traits,
    extent,
    validate_key,
)
from dataset_store.storage.backend_errors import object_missing

__all__ = ["MemoryBackend"]


class MemoryBackend:
    """The backend over one dictionary, empty at first."""

    def __init__(self) -> None:
        self._objects: dict[Key, bytes] = {}
        self._made: dict[Key, float] = {}
        self._lock = threading.Lock()

    @property
    def traits(self) -> Traits:
        """Requests cost nothing, and a lock decides each create."""
        return Traits()

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        valid = [validate_key(key) for key in keys]
        with self._lock:
            return [self._objects.get(key) for key in valid]

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects; see the port."""
        return [
            _cut(part, data) for part, data in zip(ranges, self.get_many([part.key for part in ranges]), strict=True)
        ]

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port."""
        self.create(key, buffers)

    def open_writer(self, key: Key) -> ObjectWriter:
        """Collect an object; see the port."""
        return CollectedWriter(self, key)

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        validate_key(key)
        data = b"".join(buffers)
        with self._lock:
            made = key not in self._objects
            self._objects.setdefault(key, data)
            self._made.setdefault(key, time.time())
        return made

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; see the port."""
        valid = [validate_key(key) for key in keys]
        with self._lock:
            for key in valid:
                self._objects.pop(key, None)
                self._made.pop(key, None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, as of this call; see the port."""
        below = validate_key(prefix) + "/"
        with self._lock:
            found = [(key, len(data)) for key, data in self._objects.items() if key.startswith(below)]
            return iter([ObjectInfo(key, size, self._made.get(key, 0.0)) for key, size in found])

    def describe(self) -> str:
        """`memory://`, for there is nothing else to tell."""
        return "memory://"


def _cut(part: Span | Tail, data: bytes | None) -> bytes:
    if data is None:
        raise object_missing(part.key, "memory")
    start, stop = extent(part, len(data))
    return data[start:stop]
