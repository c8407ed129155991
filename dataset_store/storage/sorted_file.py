"""Sorted files: rows of bytes in the order of their keys, in a file that never changes once it is written.

A file is a tree of blocks of some KiB: those of the lowest level hold rows, those above hold the first key of each
block below and where it is. A look-up reads one block of each level, so nothing is loaded when a file is opened,
whatever its size. Each block is named with its checksum, and the root by the trailer; so a file that rotted or was cut
is told when that is met, and never answers wrongly. It is for this machine only and nothing of it goes into a store;
one that is found damaged is removed.

    blocks | about | trailer: magic, place of the root, levels below it, place of about, crc32 of these
    place: u64 offset, u32 length, u32 crc32
    block: msgpack, [keys, values]; above the lowest level values are places

Never: decides what rows mean, or replaces a file that others may be reading: that is for whoever names it.
"""

import os
import struct
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import BinaryIO, Final
from zlib import crc32

import msgspec
from msgspec import Struct

from dataset_store.core.tables import Row
from dataset_store.errors import CorruptObject

__all__ = ["SortedFile", "write_sorted"]

_MAGIC: Final = b"DSSORT1\n"
_PLACE: Final = struct.Struct("<QII")
_TRAILER: Final = struct.Struct("<8s16sI16s")
_CHECK: Final = struct.Struct("<I")
_TAIL: Final = _TRAILER.size + _CHECK.size
_BLOCK_BYTES: Final = 8 << 10
_BLOCKS_KEPT: Final = 512
_NEXT_STEP: Final = "Nothing is lost, as it held only what is in the store: run it again."


class _Block(Struct, array_like=True, frozen=True, gc=False):
    keys: list[bytes]
    values: list[bytes]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Block).decode


def write_sorted(file: BinaryIO, rows: Iterable[Row], about: bytes) -> None:
    """Write rows, ascending by key, each key once, into an empty file; `about` is for who writes and reads it."""
    writer = _Writer(file)
    level = [writer.write(keys, values) for keys, values in _blocks(rows)] or [writer.write([], [])]
    levels = 0
    while len(level) > 1:
        level = [writer.write(keys, values) for keys, values in _blocks(level)]
        levels += 1
    ((_, root),) = level
    trailer = _TRAILER.pack(_MAGIC, root, levels, writer.put(about))
    file.write(trailer + _CHECK.pack(crc32(trailer)))


def _blocks(rows: Iterable[Row]) -> Iterator[tuple[list[bytes], list[bytes]]]:
    """Rows in blocks of about `_BLOCK_BYTES`, and of at least two."""
    keys: list[bytes] = []
    values: list[bytes] = []
    size = 0
    for key, value in rows:
        if size >= _BLOCK_BYTES and len(keys) > 1:
            yield keys, values
            keys, values, size = [], [], 0
        keys.append(key)
        values.append(value)
        size += len(key) + len(value)
    if keys:
        yield keys, values


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.offset = 0

    def put(self, data: bytes) -> bytes:
        """Write bytes; their place."""
        place = _PLACE.pack(self.offset, len(data), crc32(data))
        self.file.write(data)
        self.offset += len(data)
        return place

    def write(self, keys: list[bytes], values: list[bytes]) -> Row:
        """Write a block; its row in the level above."""
        return keys[0] if keys else b"", self.put(_encode(_Block(keys, values)))


class SortedFile:
    """A sorted file that is open; the rows stay readable when its name is gone. Safe for threads.

    Args:
        path: The file.

    Raises:
        OSError: It cannot be opened.
        CorruptObject: It is no such file, or not all of one; so do all methods where a part of it is damaged.
    """

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, file)
        tail = _pread(file, path, _TAIL, max(0, os.fstat(file).st_size - _TAIL))
        if len(tail) < _TAIL or tail[-_CHECK.size :] != _CHECK.pack(crc32(tail[: -_CHECK.size])):
            raise _damaged(path)
        magic, self._root, self._levels, about = _TRAILER.unpack(tail[: -_CHECK.size])
        if magic != _MAGIC:
            raise _damaged(path)
        self.about = _read(file, path, about)
        # Not a method of this object: it would hold what holds it, and the file stay open.
        self._block = lru_cache(maxsize=_BLOCKS_KEPT)(partial(_read_block, file, path))

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None where there is none."""
        block = self._block(self._root)
        for _ in range(self._levels):
            block = self._block(block.values[max(0, bisect_right(block.keys, key) - 1)])
        row = bisect_left(block.keys, key)
        return block.values[row] if row < len(block.keys) and block.keys[row] == key else None

    def scan(self, prefix: bytes, *, backwards: bool = False) -> Iterator[Row]:
        """The rows whose keys begin so, ascending or descending."""
        return self._scan(self._block(self._root), self._levels, prefix, backwards=backwards)

    def _scan(self, block: _Block, levels: int, prefix: bytes, *, backwards: bool) -> Iterator[Row]:
        rows = _rows_within(block.keys, prefix, is_lowest=not levels)
        for row in reversed(rows) if backwards else rows:
            if levels:
                yield from self._scan(self._block(block.values[row]), levels - 1, prefix, backwards=backwards)
            else:
                yield block.keys[row], block.values[row]


def _read_block(file: int, path: str, place: bytes) -> _Block:
    try:
        return _decode(_read(file, path, place))
    except msgspec.MsgspecError as error:
        raise _damaged(path) from error


def _read(file: int, path: str, place: bytes) -> bytes:
    offset, length, crc = _PLACE.unpack(place)
    data = _pread(file, path, length, offset)
    if len(data) != length or crc32(data) != crc:
        raise _damaged(path)
    return data


def _pread(file: int, path: str, length: int, offset: int) -> bytes:
    try:
        return os.pread(file, length, offset)
    except OSError as error:  # bytes that the disk cannot give are lost to us as damaged ones are
        raise _damaged(path) from error


def _damaged(path: str) -> CorruptObject:
    with suppress(OSError):
        os.unlink(path)
    return CorruptObject(f"{path!r} was damaged, a file of this machine's cache, and was removed.", _NEXT_STEP)


def _rows_within(keys: Sequence[bytes], prefix: bytes, *, is_lowest: bool) -> range:
    """The rows of a block that begin with a prefix, or below which such rows may be."""
    after = _after(prefix)
    stop = len(keys) if after is None else bisect_left(keys, after)
    return range(bisect_left(keys, prefix) if is_lowest else max(0, bisect_right(keys, prefix) - 1), stop)


def _after(prefix: bytes) -> bytes | None:
    """The first of all keys behind those that begin so; None where there is none."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else None
