"""Sorted tables in two layers: what was changed in this process, above what a base holds.

A table maps an owner and a key, both bytes, to a value; the keys of one owner are in order. The base is a port: a
sorted map of bytes that never changes, such as a file, in which each table has the keys that begin with its tag. A
look-up costs what it finds, and making a table over a base of any size costs nothing. What `all_rows` gives is what a
base of the same state holds.

Values are immutable and come back equal, not identical. Safe to read while another thread writes: a scan gives the
rows as they were when it began, or as they are.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from heapq import merge
from itertools import chain, takewhile
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct, field

__all__ = ["NO_BASE", "Base", "Row", "Table", "all_rows"]

V = TypeVar("V")

Row = tuple[bytes, bytes]
"""A key of a base, and a value."""

_GONE: Final[Any] = object()
_OWNER_LENGTH: Final = 4
_RECENT: Final = 64
_first = itemgetter(0)


class Base(Protocol):
    """A sorted map that never changes."""

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""

    def scan(self, prefix: bytes, *, backwards: bool = False) -> Iterator[Row]:
        """The rows whose keys begin so, ascending or descending."""


class _Nothing:
    """A base without rows."""

    def get(self, _key: bytes) -> None:
        return None

    def scan(self, _prefix: bytes, *, backwards: bool = False) -> Iterator[Row]:
        return iter(())


NO_BASE: Final[Base] = _Nothing()


class _Owned(Struct, Generic[V]):
    """What was changed of one owner's rows.

    Attributes:
        values: By key; `_GONE` where a row was removed.
        order: The keys: most of them sorted, and some recent ones. One attribute, as readers take both at once.
    """

    values: dict[bytes, V] = field(default_factory=dict)
    order: tuple[list[bytes], list[bytes]] = field(default_factory=lambda: ([], []))

    def put(self, key: bytes, value: V) -> None:
        is_new = key not in self.values
        self.values[key] = value
        if is_new:
            in_order, recent = self.order
            if not recent and (not in_order or in_order[-1] < key):
                in_order.append(key)  # most keys are of the newest slot
            else:
                recent.append(key)
                if len(recent) > _RECENT + len(in_order) // 8:
                    self.order = (sorted([*in_order, *recent]), [])

    def sorted_keys(self) -> list[bytes]:
        """A copy, sorted."""
        in_order, recent = self.order
        return sorted([*in_order, *recent]) if recent else list(in_order)


class Table(Generic[V]):
    """One table.

    Args:
        tag: One byte that no other table over this base has.
        kind: The type of the values, which msgspec can decode.
        base: What it begins with.
    """

    __slots__ = ("_base", "_changed", "_decode", "tag")

    def __init__(self, tag: bytes, kind: Any, base: Base) -> None:
        self.tag = tag
        self._decode: Callable[[bytes], V] = msgspec.msgpack.Decoder(kind).decode
        self._base = base
        self._changed: dict[bytes, _Owned[V]] = {}

    def get(self, owner: bytes, key: bytes) -> V | None:
        """The value of a key; None where there is none."""
        owned = self._changed.get(owner)
        if owned is not None and (value := owned.values.get(key)) is not None:
            return None if value is _GONE else value
        if self._base is NO_BASE:
            return None
        data = self._base.get(self._prefix(owner) + key)
        return None if data is None else self._decode(data)

    def put(self, owner: bytes, key: bytes, value: V) -> None:
        """Set a value."""
        owned = self._changed.get(owner)
        if owned is None:
            owned = self._changed[owner] = _Owned()
        owned.put(key, value)

    def remove(self, owner: bytes, key: bytes) -> None:
        """Remove a key, if it is there."""
        self.put(owner, key, _GONE)

    def scan(self, owner: bytes, start: bytes = b"", *, backwards: bool = False) -> Iterator[tuple[bytes, V]]:
        """The rows of one owner whose keys begin with `start`, ascending or descending."""
        prefix = self._prefix(owner)
        below = ((key[len(prefix) :], data) for key, data in self._base.scan(prefix + start, backwards=backwards))
        owned = self._changed.get(owner)
        if owned is None:
            return ((key, self._decode(data)) for key, data in below)
        keys = owned.sorted_keys()
        first = bisect_left(keys, start)
        above = {key: owned.values[key] for key in takewhile(lambda key: key.startswith(start), keys[first:])}
        return self._layered(above, below, backwards=backwards)

    def owners(self) -> set[bytes]:
        """Every owner of a row."""
        changed = list(self._changed.items())
        found = {owner for owner, owned in changed if any(value is not _GONE for value in list(owned.values.values()))}
        for full, _ in self._base.scan(self.tag):
            owner, key = self._split(full)
            if owner not in found and self.get(owner, key) is not None:
                found.add(owner)
        return found

    def everything(self) -> Iterator[tuple[bytes, bytes, V]]:
        """Every row: owner, key, value."""
        for full, value in self._layered(self._above(), self._base.scan(self.tag)):
            yield *self._split(full), value

    def rows(self) -> Iterator[Row]:
        """All rows, ascending, as a base holds them."""
        above = self._above()
        merged = _merged(above, self._base.scan(self.tag))
        return ((key, _encode(above[key]) if data is None else data) for key, data in merged)

    def _layered(
        self, above: dict[bytes, V], below: Iterator[Row], *, backwards: bool = False
    ) -> Iterator[tuple[bytes, V]]:
        merged = _merged(above, below, backwards=backwards)
        return ((key, above[key] if data is None else self._decode(data)) for key, data in merged)

    def _above(self) -> dict[bytes, V]:
        """What was changed, by keys of the base, in order."""
        changed = list(self._changed.items())
        above = {
            self._prefix(owner) + key: owned.values[key] for owner, owned in changed for key in owned.sorted_keys()
        }
        return dict(sorted(above.items(), key=_first))

    def _prefix(self, owner: bytes) -> bytes:
        return self.tag + len(owner).to_bytes(_OWNER_LENGTH, "big") + owner

    def _split(self, key: bytes) -> tuple[bytes, bytes]:
        """The owner and the key of a key of the base."""
        start = len(self.tag) + _OWNER_LENGTH
        stop = start + int.from_bytes(key[len(self.tag) : start], "big")
        return key[start:stop], key[stop:]


def _merged(
    above: dict[bytes, Any], below: Iterator[Row], *, backwards: bool = False
) -> Iterator[tuple[bytes, bytes | None]]:
    """The keys of both, in order, with what is below where nothing is above it; `above` has its keys in order.

    `above` is a copy: what another thread puts meanwhile must hide no row of the base.
    """
    keys = reversed(above) if backwards else iter(above)
    for key, data in merge(below, ((key, None) for key in keys), key=_first, reverse=backwards):
        if above[key] is not _GONE if data is None else key not in above:
            yield key, data


def all_rows(tables: list[Table[Any]]) -> Iterator[Row]:
    """The rows of all tables over one base, ascending."""
    return chain.from_iterable(table.rows() for table in sorted(tables, key=lambda table: table.tag))


def _plain(value: object) -> object:
    if isinstance(value, MappingProxyType):
        return dict(value)
    raise TypeError(type(value))


_encode: Final = msgspec.msgpack.Encoder(enc_hook=_plain, order="deterministic").encode
