"""Stat cache: which content a file had when its stat was last seen, so that an unchanged file need not be opened.

One value for each directory block: names, stats and content ids as columns, compared all at once. A file is known
if a row of its name has the same size, mtime, ctime and inode, and that row was *settled* when it was recorded:
both times lay far enough back that any later change of the file must show in them. (Git calls the others racily
clean.) How far that is, the times themselves tell: a file system that keeps fractions of a second stamps a
change at most one tick of the kernel late, others up to two seconds.

Promises:

- Never an answer that rests on a row whose checksum fails, and never an error: whatever is wrong with the
  cache, its answer is that nothing is known.
- Any number of threads and processes at once.
- Bounded: beyond `max_bytes` the cache is emptied and fills again.

This module never looks at a file and reads no clock. The cache belongs on a local disk. It cannot help against
somebody who sets the machine's clock back and then changes files.
"""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from blake3 import blake3
from msgspec import Struct

from dataset_store.core.arrays import I64, U8, U64, Bool, np
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey
from dataset_store.local.best_effort import BestEffort
from dataset_store.local.listing import DirectoryBlock

if TYPE_CHECKING:
    from dataset_store.local.lmdb_environment import Transaction

__all__ = ["SETTLE_NS", "Known", "StatCache"]

SETTLE_NS: Final = 20_000_000
"""How long after its last change a file is settled, where time stamps are fine: two ticks of the kernel at 100 Hz.

Whoever has written files itself and knows their content waits this long before it takes `now_ns`.
"""

_COARSE_SETTLE_NS: Final = 2_000_000_000
_COARSE_UNIT_NS: Final = 10_000_000  # the finest stamp of a file system that has no nanoseconds
_MAGIC: Final = b"DSS1"
_HEADER: Final = struct.Struct("<4sII4x")
_CHECK_BYTES: Final = 16
_START: Final = _HEADER.size + _CHECK_BYTES  # a multiple of 8, so that the columns are aligned
_ROW_BYTES: Final = 4 * 8 + 32 + 1
_WRITE_BYTES: Final = 32 << 20
_FILE: Final = int(Kind.FILE)


class Known(Struct, frozen=True, eq=False):
    """What is known of a block's n rows.

    Attributes:
        ids: u8 (n, 32): content ids; meaningless where not known, and not to be written to.
        mask: bool (n,): where the content id is known. Only files are ever known, links and directories never.
    """

    ids: U8
    mask: Bool


class StatCache:
    """The stat cache in one folder, which is made when it is first used.

    Args:
        directory: Used by nothing else.
        max_bytes: About how much disk it may take; a million files take about 100 MB.
    """

    def __init__(self, directory: str, *, max_bytes: int = 4 << 30) -> None:
        self._environment = BestEffort(directory)
        self._max_bytes = max_bytes

    def lookup(self, root: bytes | str, blocks: Sequence[DirectoryBlock]) -> list[Known]:
        """What is known of these blocks; best for all blocks of a directory together.

        Args:
            root: The folder that was scanned; relative paths start at the working directory.
            blocks: Of a scan of it.

        Returns:
            One for each block.
        """
        place = _root_digest(root)

        def work(transaction: "Transaction") -> list[Known]:
            reader = _Reader(transaction)
            return [reader.known(_directory_digest(place, block.directory), block) for block in blocks]

        found = self._environment.read(work)
        return [_unknown(block) for block in blocks] if found is None else found

    def record(
        self,
        root: bytes | str,
        blocks: Sequence[DirectoryBlock],
        ids: Sequence[U8],
        masks: Sequence[Bool],
        now_ns: int,
    ) -> None:
        """Remember the content of files, in place of what was remembered of these blocks.

        Args:
            root: As for `lookup`.
            blocks: The stats with which the content was read: those of a scan before it, where the file's stat
                was still the same after its last byte was read.
            ids: For each block (n, 32): content ids.
            masks: For each block (n,): where the content id is given.
            now_ns: A moment, ns since 1970, at which the files already had this content: for files that were
                read, *before* the first was opened (before the scan is fine). A later moment could hide a
                change that came between.
        """
        place = _root_digest(root)
        batch: list[tuple[bytes, bytes]] = []
        ends: list[bytes] = []
        size = 0
        for block, block_ids, mask in zip(blocks, ids, masks, strict=True):
            directory = _directory_digest(place, block.directory)
            known = mask & _settled(block.stat[1:3], now_ns) & (block.kind == _FILE)
            value = _encode(_Stored(b"\0".join(block.names), block.stat[:4], block_ids, known))
            batch.append((_key(directory, block.number), value))
            if block.last:
                ends.append(_key(directory, block.number + 1))
            size += len(value)
            if size > _WRITE_BYTES:
                self._write(batch, ends)
                batch, ends, size = [], [], 0
        self._write(batch, ends)

    def record_files(self, root: bytes | str, keys: Sequence[PathKey], ids: U8, stats: I64, now_ns: int) -> Bool:
        """Remember the content of some files of blocks that were recorded before, in which they stand.

        Args:
            root: As for `lookup`.
            keys: Of n files, relative to the root.
            ids: Content ids, shape (n, 32).
            stats: With which the contents were read, shape (n, 4): size, times and inode, as in a block.
            now_ns: As for `record`.

        Returns:
            Which of them stand in a block, shape (n,).
        """
        place = _root_digest(root)
        rows_of: dict[bytes, dict[bytes, int]] = {}
        for row, key in enumerate(keys):
            directory, _, name = key.rpartition(b"\0")
            rows_of.setdefault(_directory_digest(place, PathKey(directory)), {})[name] = row
        settled = _settled(stats.T[1:3], now_ns)
        found = np.zeros(len(keys), np.bool_)

        def work(transaction: "Transaction") -> list[tuple[bytes, bytes]]:
            reader = _Reader(transaction)
            changed = []
            for directory, wanted in rows_of.items():
                for key, stored in reader.blocks(directory):
                    at, rows = _standing_in(stored, wanted)
                    if rows:
                        found[rows] = True
                        changed.append((key, _encode(_with_files(stored, at, ids[rows], stats[rows], settled[rows]))))
            return changed

        self._write(self._environment.read(work) or [], [])
        return found

    def _write(self, batch: list[tuple[bytes, bytes]], ends: list[bytes]) -> None:
        """Store what differs from what is stored, and remove the blocks from each of `ends` on."""

        def changes(transaction: "Transaction") -> tuple[list[tuple[bytes, bytes]], list[bytes]]:
            stored = transaction.get_many(key for key, _ in batch)
            differing = [item for item, old in zip(batch, stored, strict=True) if item[1] != old]
            return sorted(differing), [key for end in ends for key in _following(transaction, end)]

        differing, surplus = self._environment.read(changes) or ([], [])

        def work(transaction: "Transaction") -> None:
            if transaction.used_bytes() > self._max_bytes:
                transaction.clear()
            transaction.delete_many(surplus)
            transaction.put_many(differing)

        if differing or surplus:
            self._environment.write(work)


class _Stored(Struct, frozen=True, eq=False):
    """A block as it was recorded: names joined by a zero byte, u64 (4, n), u8 (n, 32) and bool (n,)."""

    names: bytes
    stat: U64
    ids: U8
    mask: Bool


class _Reader:
    """Lookups within one transaction."""

    def __init__(self, transaction: "Transaction") -> None:
        self._transaction = transaction
        self._directory = b""
        self._ranges: list[tuple[int, bytes, bytes]] = []

    def blocks(self, directory: bytes) -> Iterator[tuple[bytes, _Stored]]:
        """The blocks of a directory that can be read, each with its key."""
        for number, key in enumerate(_following(self._transaction, _key(directory, 0))):
            stored = self._load(directory, number)
            if stored is not None:
                yield key, stored

    def known(self, directory: bytes, block: DirectoryBlock) -> Known:
        stored = self._load(directory, block.number)
        if stored is None or stored.names != b"\0".join(block.names):
            return self._aligned(directory, block)
        same = (stored.stat == block.stat[:4]).all(axis=0)
        return Known(stored.ids, same & stored.mask & (block.kind == _FILE))

    def _aligned(self, directory: bytes, block: DirectoryBlock) -> Known:
        """The same by name, in whichever blocks the names were before some were added or removed."""
        near = self._near(directory, block.names[0], block.names[-1]) if block.names else []
        if not near:
            return _unknown(block)
        place = {name: row for row, name in enumerate(b"\0".join(one.names for one in near).split(b"\0"))}
        rows = np.fromiter((place.get(name, -1) for name in block.names), np.intp, len(block))
        stat = np.concatenate([one.stat for one in near], axis=1)[:, rows]
        mask = np.concatenate([one.mask for one in near])[rows]
        same = (rows >= 0) & (stat == block.stat[:4]).all(axis=0)
        ids = np.concatenate([one.ids for one in near])[rows]
        return Known(ids, same & mask & (block.kind == _FILE))

    def _near(self, directory: bytes, first: bytes, last: bytes) -> list[_Stored]:
        """The stored blocks of a directory that may hold names from `first` to `last`."""
        if directory != self._directory:
            self._directory, self._ranges = directory, list(self._all_ranges(directory))
        numbers = [number for number, low, high in self._ranges if low <= last and first <= high]
        found = [self._load(directory, number) for number in numbers]
        return [one for one in found if one is not None]

    def _all_ranges(self, directory: bytes) -> Iterator[tuple[int, bytes, bytes]]:
        for number, _ in enumerate(_following(self._transaction, _key(directory, 0))):
            stored = self._load(directory, number)
            if stored is not None:
                yield number, stored.names.partition(b"\0")[0], stored.names.rpartition(b"\0")[2]

    def _load(self, directory: bytes, number: int) -> _Stored | None:
        (value,) = self._transaction.get_many([_key(directory, number)])
        return None if value is None else _decode(value)


def _standing_in(stored: _Stored, wanted: dict[bytes, int]) -> tuple[list[int], list[int]]:
    """Which rows of a block are wanted names, and what is wanted of each."""
    names = enumerate(stored.names.split(b"\0"))
    pairs = [(at, row) for at, name in names if (row := wanted.get(name)) is not None]
    return [at for at, _ in pairs], [row for _, row in pairs]


def _with_files(stored: _Stored, at: Sequence[int], ids: U8, stats: I64, settled: Bool) -> _Stored:
    """A block in which the contents of some rows are known, of those that have the stat with which they were read."""
    same = settled & (stats.view(np.uint64) == stored.stat[:, at].T).all(axis=1)
    rows = np.array(at, np.int64)[same]
    all_ids, mask = stored.ids.copy(), stored.mask.copy()
    all_ids[rows], mask[rows] = ids[same], True
    return _Stored(stored.names, stored.stat, all_ids, mask)


def _settled(times: U64 | I64, now_ns: int) -> Bool:
    """Which files would show any change made after `now_ns` in one of their two times, shape (2, n); shape (n,).

    A time that is a whole multiple of 10 ms is taken for a coarse one; of a fine one that is true by chance once
    in ten million, and then the file is read once more.
    """
    times = times.view(np.int64)
    latest = np.where(times % _COARSE_UNIT_NS == 0, now_ns - _COARSE_SETTLE_NS, now_ns - SETTLE_NS)
    return np.asarray((times <= latest).all(axis=0))


def _encode(block: _Stored) -> bytes:
    head = _HEADER.pack(_MAGIC, len(block.mask), len(block.names))
    columns = [
        np.ascontiguousarray(block.stat, dtype="<u8").tobytes(),
        np.ascontiguousarray(block.ids, dtype=np.uint8).tobytes(),
        np.ascontiguousarray(block.mask, dtype=np.bool_).tobytes(),
    ]
    body = b"".join([*columns, block.names])
    return b"".join([head, _checksum(head, body), body])


def _decode(value: bytes) -> _Stored | None:
    """A stored block as views of its value; None if it is damaged in any way."""
    if len(value) < _START:
        return None
    head, check, body = value[: _HEADER.size], value[_HEADER.size : _START], memoryview(value)[_START:]
    magic, count, names = _HEADER.unpack(head)
    if magic != _MAGIC or len(body) != count * _ROW_BYTES + names or check != _checksum(head, body):
        return None
    stat_end, ids_end, mask_end = count * 32, count * 64, count * 65
    return _Stored(
        bytes(body[mask_end:]),
        np.frombuffer(body[:stat_end], "<u8").reshape(4, count),
        np.frombuffer(body[stat_end:ids_end], np.uint8).reshape(count, 32),
        np.frombuffer(body[ids_end:mask_end], np.bool_),
    )


def _checksum(head: bytes, body: bytes | memoryview) -> bytes:
    return blake3(head).update(body).digest(_CHECK_BYTES)


def _following(transaction: "Transaction", key: bytes) -> Iterator[bytes]:
    """The keys of a directory's stored blocks, from this one on as long as their numbers have no gap."""
    directory, number = key[:-4], int.from_bytes(key[-4:], "big")
    while transaction.get_many([_key(directory, number)])[0] is not None:
        yield _key(directory, number)
        number += 1


def _key(directory: bytes, number: int) -> bytes:
    return directory + number.to_bytes(4, "big")


def _root_digest(root: bytes | str) -> bytes:
    return blake3(os.path.abspath(os.fsencode(root))).digest(16)


def _directory_digest(root: bytes, directory: PathKey) -> bytes:
    return root + blake3(directory).digest(16)


def _unknown(block: DirectoryBlock) -> Known:
    return Known(np.zeros((len(block), 32), np.uint8), np.zeros(len(block), np.bool_))
