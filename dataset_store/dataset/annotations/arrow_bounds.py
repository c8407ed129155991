"""What an Arrow stream would take in memory, told before it is unpacked.

A few hundred bytes can claim any number of values that take no bytes (nulls, runs, lists of nulls), let many columns
lie in the same bytes, or hold bytes that are compressed. None of that is written here, but for nulls in moderation. So
a stream within these bounds takes memory in proportion to its own length, and others are refused unread.

The headers of messages are FlatBuffers, which pyarrow has verified before they are looked into here.
"""

from collections.abc import Iterator
from importlib import import_module
from struct import error as OutOfBounds  # noqa: N812
from struct import unpack_from
from typing import Any, Final

from dataset_store.core.arrays import np

__all__ = ["require_bounded", "require_plain_types"]

_VALUES_PER_BYTE: Final = 8
_MOST_EMPTY: Final = 1 << 24
"""Values beyond those that the bytes have room for, as truth values of one bit are the shortest there are."""

_BATCH: Final = {"record batch": (), "dictionary": (1,)}
"""By the type of a message, the fields that lead from its header to a record batch."""

_HEADER, _NODES, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
"""Fields of Message and of RecordBatch, https://github.com/apache/arrow/tree/main/format."""


def require_bounded(stream: Any) -> None:
    """Refuse a stream that would take far more memory than it has bytes.

    Args:
        stream: A pyarrow Buffer.

    Raises:
        ValueError: It would, or it is no stream. Others as pyarrow raises them.
    """
    left = _VALUES_PER_BYTE * stream.size + _MOST_EMPTY
    for message in import_module("pyarrow").ipc.MessageReader.open_stream(stream):
        if message.type in _BATCH:
            body = 0 if message.body is None else message.body.size
            try:
                left -= _values(bytes(message.metadata), _BATCH[message.type], body)
            except OutOfBounds as error:
                raise ValueError("a header is damaged") from error
            if left < 0:
                raise ValueError("it claims far more values than its bytes can hold")


def require_plain_types(schema: Any) -> None:
    """Refuse columns whose values can be told many times over by the same bytes: views, and dictionaries inside others.

    Raises:
        ValueError: There is one.
    """
    types = import_module("pyarrow").types
    for column in schema:
        inside = [*_inside(column.type)]
        views = any(is_view(one) for one in (column.type, *inside) for is_view in _view_tests(types))
        if views or any(types.is_dictionary(one) for one in inside):
            raise ValueError(f"a column of type {column.type} cannot be turned into cells")


def _view_tests(types: Any) -> list[Any]:
    names = ("is_string_view", "is_binary_view", "is_list_view", "is_large_list_view", "is_run_end_encoded")
    return [getattr(types, name) for name in names]


def _inside(column: Any) -> Iterator[Any]:
    """The types of what values of a type are made of, at any depth."""
    for at in range(column.num_fields):
        part = column.field(at).type
        yield part
        yield from _inside(part)


def _values(header: bytes, way: tuple[int, ...], body: int) -> int:
    """The values of all columns of a batch, those inside others too, each counted."""
    batch = _table(header, _field(header, _table(header, 0), _HEADER))
    for step in way:
        batch = _table(header, _field(header, batch, step))
    if _field(header, batch, _COMPRESSION):
        raise ValueError("it is compressed")
    if sum(_column(header, batch, _BUFFERS, 1)) > body:
        raise ValueError("its columns lie in the same bytes")
    return sum(_column(header, batch, _NODES, 0))


def _table(header: bytes, at: int) -> int:
    """The table that an offset leads to."""
    return at + int(unpack_from("<I", header, at)[0])


def _field(header: bytes, table: int, number: int) -> int:
    """Where a field of a table is; 0 where the table does not have it."""
    entries = table - int(unpack_from("<i", header, table)[0])
    if entries < 0:
        raise OutOfBounds
    at = 4 + 2 * number
    (size,) = unpack_from("<H", header, entries)
    (offset,) = unpack_from("<H", header, entries + at) if at + 2 <= size else (0,)
    return table + offset if offset else 0


def _column(header: bytes, table: int, number: int, member: int) -> list[int]:
    """One member of each pair of numbers in a vector."""
    at = _field(header, table, number)
    if not at:
        return []
    at = _table(header, at)
    (count,) = unpack_from("<I", header, at)
    if at + 4 + 16 * count > len(header):
        raise OutOfBounds
    column: list[int] = np.frombuffer(header, "<i8", 2 * count, at + 4).reshape(-1, 2)[:, member].tolist()
    if min(column, default=0) < 0:
        raise ValueError("it claims a negative number of values")
    return column
