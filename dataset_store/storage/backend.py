"""The backend port: a flat map from keys to immutable objects, the one thing a storage must provide.

A key is one or more components of `[a-z0-9._-]`, joined by '/', none of them '.' or '..', at most 200
characters. Every verb refuses anything else with `InvalidRequest` before it touches any object. Of two keys
in use none is the leading components of the other (`a` and `a/b`); a backend may fail where that is broken.
Objects are written once and never changed. What every backend promises:

* **Durable when acknowledged.** When `put` or `create` returns, the object survives a power cut.
* **All or nothing.** A reader sees an object whole or not at all, never a part.
* **Read after write.** An acknowledged object is seen by every later read on any machine; a key whose
  create was never acknowledged may be seen or not, but once seen it stays.
* **`create` has exactly one winner** among any number of racing callers.

A backend never retries, caches, lists implicitly, or interprets what it stores: each such behaviour is a
wrapper of this port. It is safe to use from several threads.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NewType, Protocol

from msgspec import Struct

from dataset_store.errors import CorruptObject, InvalidRequest
from dataset_store.storage.backend_errors import writing_ended

__all__ = [
    "Backend",
    "Buffer",
    "Buffers",
    "CollectedWriter",
    "Key",
    "ObjectInfo",
    "ObjectWriter",
    "Span",
    "Tail",
    "Traits",
    "extent",
    "validate_key",
]

Key = NewType("Key", str)

_MAX_KEY_LENGTH = 200
_COMPONENT = re.compile(r"[a-z0-9._-]+")

Buffer = bytes | bytearray | memoryview
Buffers = Sequence[Buffer]
"""The content of one object, in pieces that are written one after another."""


class Span(Struct, frozen=True):
    """The bytes `[start, stop)` of one object."""

    key: Key
    start: int
    stop: int


class Tail(Struct, frozen=True):
    """The last `length` bytes of one object, or all of it where it is shorter."""

    key: Key
    length: int


def validate_key(key: str) -> Key:
    """The key itself, or `InvalidRequest` where it breaks the grammar of this module.

    Raises:
        InvalidRequest: The key is empty, too long, or has a component that no key may have.
    """
    if len(key) > _MAX_KEY_LENGTH or not all(map(_is_component, key.split("/"))):
        raise InvalidRequest(
            f"{key[:_MAX_KEY_LENGTH]!r} is not a key.",
            "Use components of [a-z0-9._-] joined by '/', none '.' or '..', 200 characters at most.",
        )
    return Key(key)


def extent(part: Span | Tail, size: int) -> tuple[int, int]:
    """Where a part of an object lies: `(start, stop)` in bytes, within an object of `size` bytes.

    Raises:
        InvalidRequest: The span runs backwards or the part has a negative number in it.
        CorruptObject: The object is too short for the span.
    """
    start, stop = _bounds(part, size)
    if not 0 <= start <= stop:
        raise InvalidRequest(f"{part} is not a part of an object.", "Ask for 0 <= start <= stop.")
    if stop > size:
        raise CorruptObject(
            f"Object '{part.key}' has {size} bytes where {stop} are needed.",
            "It was cut short; run verify on the store.",
        )
    return start, stop


class ObjectInfo(Struct, frozen=True):
    """One row of a listing.

    Attributes:
        key: The object's.
        size: Bytes.
        modified: When it was written, in seconds since 1970 by the storage's clock; 0 where that is not told. A hint:
            nothing that must be right may rest on it.
    """

    key: Key
    size: int
    modified: float = 0.0


class Traits(Struct, frozen=True):
    """What is worth knowing of a storage before it is used.

    Attributes:
        hole_bytes: Bytes that take about as long to read as one more request; 0 where requests cost nothing.
        at_once: How many large requests are worth having under way together; one where one alone fills the line.
        create_is_promised: Whether the rules of the storage itself promise one winner. Where they do not, a store
            is made there only after its create was tried.
        asks_once: Whether a request that fails was sent once only, so that it is worth repeating. Other storages do
            not fail by chance, or their drivers repeat by themselves.
        streams: Whether an object that is written piece by piece takes no memory; else it is collected, and sent by
            one request.
    """

    hole_bytes: int = 0
    at_once: int = 1
    create_is_promised: bool = True
    asks_once: bool = False
    streams: bool = False


class ObjectWriter(Protocol):
    """One object while it is written piece by piece.

    Nobody sees it before it is finished, and of one that never is nothing stays. After an error it is given up, so that
    no object has a hole: every later call raises `StorageFailed`. It is used by one thread at a time.
    """

    def write(self, buffers: Buffers) -> None:
        """Take the next pieces, which must not change until the object is finished.

        Raises:
            DiskFull, AccessDenied, StoreReadOnly, StoreUnreachable, StorageFailed: The object is given up.
        """

    def finish(self) -> None:
        """Make the object of all the pieces. It is durable when this returns, as after `put`.

        Raises:
            DiskFull, AccessDenied, StoreReadOnly, StoreUnreachable, StorageFailed: As `put`. The object may be absent,
                and is given up; writing it again with the same key and bytes is safe.
        """


class Backend(Protocol):
    """Keys to immutable objects. See the module for what every implementation promises."""

    @property
    def traits(self) -> Traits:
        """What is worth knowing of the storage; no request."""

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; None for a key that holds none. In the order asked.

        Raises:
            StoreUnreachable: The root of the storage itself is not there.
            AccessDenied, StorageFailed: The storage refused.
        """

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, in the order asked.

        Raises:
            ObjectMissing: A key holds no object.
            CorruptObject: An object is too short for its span.
            StoreUnreachable, AccessDenied, StorageFailed: The storage refused.
        """

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a key that was never used before (a fresh random name).

        Raises:
            DiskFull, AccessDenied, StoreReadOnly, StoreUnreachable, StorageFailed: The object may be absent;
                repeating with the same key and bytes is safe.
        """

    def open_writer(self, key: Key) -> ObjectWriter:
        """Begin one object, as `put`, of which the pieces are not there yet. With `Traits.streams` none is held.

        Raises:
            DiskFull, AccessDenied, StoreReadOnly, StoreUnreachable, StorageFailed: The object is absent.
        """

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none: True where this call made it, False where one was there.

        A network that loses a reply, and a client that then asks again by itself, can make the one that was there
        this very one: whoever must know reads the key back.

        Raises:
            OutcomeUnknown: The request was sent and no reply came; read the key back to learn.
            DiskFull, AccessDenied, StoreReadOnly, StoreUnreachable, StorageFailed: Certainly not written.
        """

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; a key that holds none is no error."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix` + '/', in no promised order."""

    def describe(self) -> str:
        """The storage as shown to a user: a URL without credentials."""


class CollectedWriter:
    """The writer of a storage that takes an object by one request: holds the pieces, and puts them at the end.

    Args:
        backend: The storage.
        key: The key of the object.

    Raises:
        InvalidRequest: It is none.
    """

    def __init__(self, backend: Backend, key: Key) -> None:
        self._backend = backend
        self._key = validate_key(key)
        self._buffers: list[Buffer] | None = []

    def write(self, buffers: Buffers) -> None:
        """Keep the next pieces; see the port."""
        if self._buffers is None:
            raise writing_ended(self._key)
        self._buffers.extend(buffers)

    def finish(self) -> None:
        """Put them; see the port."""
        if self._buffers is None:
            raise writing_ended(self._key)
        buffers, self._buffers = self._buffers, None
        self._backend.put(self._key, buffers)


def _is_component(text: str) -> bool:
    return _COMPONENT.fullmatch(text) is not None and text not in {".", ".."}


def _bounds(part: Span | Tail, size: int) -> tuple[int, int]:
    match part:
        case Span(_, start, stop):
            return start, stop
        case Tail(_, length):
            return (max(0, size - length) if length >= 0 else -1), size
