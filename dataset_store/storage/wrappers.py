"""Wrappers of the backend port that count, forbid writing, or take time; each works over any backend.

Promises: what the inner backend promises, verb by verb, and its errors unchanged. Never: changes, reorders,
repeats or keeps what passes through.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NoReturn

from msgspec import Struct, structs

from dataset_store.errors import InvalidRequest, StoreReadOnly
from dataset_store.storage.backend import (
    Backend,
    Buffers,
    CollectedWriter,
    Key,
    ObjectInfo,
    ObjectWriter,
    Span,
    Tail,
    Traits,
)

__all__ = ["CountingBackend", "Counts", "LatencyBackend", "ReadOnlyBackend", "Wrapper"]


class Wrapper:
    """Passes each verb on to `inner`; the base of the wrappers, which change some of them."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def traits(self) -> Traits:
        """Those of the inner storage, but that an object passes whole."""
        return structs.replace(self.inner.traits, streams=False)

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        return self.inner.get_many(keys)

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects; see the port."""
        return self.inner.get_ranges(ranges)

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port."""
        self.inner.put(key, buffers)

    def open_writer(self, key: Key) -> ObjectWriter:
        """Collect an object and put it by this wrapper; see the port."""
        return CollectedWriter(self, key)

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        return self.inner.create(key, buffers)

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; see the port."""
        self.inner.delete_many(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix; see the port."""
        return self.inner.list(prefix)

    def describe(self) -> str:
        """The inner storage as shown to a user."""
        return self.inner.describe()


class Counts(Struct, frozen=True):
    """What passed a `CountingBackend` since it was made or reset.

    Attributes:
        calls: Verb to number of calls, those that failed included; verbs never called are absent.
        keys_read: The key of every object or part asked for, call by call in the order asked.
        objects_read: Objects of which bytes came back, each once a call.
        bytes_read: Bytes that came back from `get_many` and `get_ranges`.
        bytes_written: Bytes of acknowledged puts and of creates that won.
    """

    calls: Mapping[str, int]
    keys_read: tuple[Key, ...]
    objects_read: int
    bytes_read: int
    bytes_written: int

    @property
    def total_calls(self) -> int:
        """Calls of all verbs together."""
        return sum(self.calls.values())


class CountingBackend(Wrapper):
    """Counts calls, objects and bytes; safe to use from several threads."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin again at zero."""
        with self._lock:
            self._calls: Counter[str] = Counter()
            self._keys_read: list[Key] = []
            self._objects_read = self._bytes_read = self._bytes_written = 0

    def snapshot(self) -> Counts:
        """The counts of this moment."""
        with self._lock:
            return Counts(
                MappingProxyType(dict(self._calls)),
                tuple(self._keys_read),
                self._objects_read,
                self._bytes_read,
                self._bytes_written,
            )

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects, and count."""
        self._called("get_many", keys)
        found = self.inner.get_many(keys)
        present = {key for key, data in zip(keys, found, strict=True) if data is not None}
        self._read(len(present), sum(len(data) for data in found if data is not None))
        return found

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, and count."""
        keys = [part.key for part in ranges]
        self._called("get_ranges", keys)
        found = self.inner.get_ranges(ranges)
        self._read(len(set(keys)), sum(map(len, found)))
        return found

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object, and count."""
        self._called("put")
        self.inner.put(key, buffers)
        self._wrote(buffers)

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none, and count."""
        self._called("create")
        made = self.inner.create(key, buffers)
        if made:
            self._wrote(buffers)
        return made

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects, and count."""
        self._called("delete_many")
        self.inner.delete_many(keys)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, and count the call."""
        self._called("list")
        return self.inner.list(prefix)

    def _called(self, verb: str, keys_read: Iterable[Key] = ()) -> None:
        with self._lock:
            self._calls[verb] += 1
            self._keys_read.extend(keys_read)

    def _read(self, objects: int, size: int) -> None:
        with self._lock:
            self._objects_read += objects
            self._bytes_read += size

    def _wrote(self, buffers: Buffers) -> None:
        with self._lock:
            self._bytes_written += _size(buffers)


class ReadOnlyBackend(Wrapper):
    """Refuses every write with `StoreReadOnly`."""

    def put(self, key: Key, buffers: Buffers) -> NoReturn:
        """Refuse."""
        self._refuse(f"write '{key}'")

    def open_writer(self, key: Key) -> NoReturn:
        """Refuse."""
        self._refuse(f"write '{key}'")

    def create(self, key: Key, buffers: Buffers) -> NoReturn:
        """Refuse."""
        self._refuse(f"create '{key}'")

    def delete_many(self, keys: Iterable[Key]) -> NoReturn:
        """Refuse."""
        self._refuse("delete objects")

    def _refuse(self, doing: str) -> NoReturn:
        raise StoreReadOnly(f"Cannot {doing}: {self.describe()} was opened for reading.", "Open it for writing.")


class LatencyBackend(Wrapper):
    """Takes the time that a distant storage would.

    Each call takes `seconds_per_request`, however many keys it has (they travel together), and the time its
    bytes take; calls of several threads do not share the line. A listing takes one request.

    Args:
        inner: The backend that does the work.
        seconds_per_request: Seconds, 0 or more.
        bytes_per_second: More than 0; infinite for a line that takes no time.
        sleep: Called with seconds once a call, after the work is done.

    Raises:
        InvalidRequest: A number is out of its range.
    """

    def __init__(
        self,
        inner: Backend,
        seconds_per_request: float,
        bytes_per_second: float = math.inf,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        super().__init__(inner)
        if not (seconds_per_request >= 0 and bytes_per_second > 0):
            raise InvalidRequest("A latency below 0 or a rate of 0 bytes a second cannot be.", "Change them.")
        self._seconds_per_request = seconds_per_request
        self._bytes_per_second = bytes_per_second
        self._sleep = sleep

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects, in the time that takes."""
        found = self.inner.get_many(keys)
        self._take(sum(len(data) for data in found if data is not None))
        return found

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, in the time that takes."""
        found = self.inner.get_ranges(ranges)
        self._take(sum(map(len, found)))
        return found

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object, in the time that takes."""
        self.inner.put(key, buffers)
        self._take(_size(buffers))

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none, in the time that takes."""
        made = self.inner.create(key, buffers)
        self._take(_size(buffers))
        return made

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects, in the time that takes."""
        self.inner.delete_many(keys)
        self._take(0)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, in the time that takes."""
        rows = self.inner.list(prefix)
        self._take(0)
        return rows

    def _take(self, size: int) -> None:
        self._sleep(self._seconds_per_request + size / self._bytes_per_second)


def _size(buffers: Buffers) -> int:
    return sum(memoryview(buffer).nbytes for buffer in buffers)
