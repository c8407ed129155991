"""Reading local files that others may be changing, and the content ids of many files at once.

Promises:

- Nothing but a regular file is read, and nothing else blocks: a fifo, socket or device is refused.
- A content id is returned with the stat that the file had both before and after it was read, so nothing that shows
  in size, times or inode happened meanwhile. A file that keeps changing is an error, never a guess. What a clock
  of coarse ticks hides here, the check of the content id in `ingest` finds.
- Memory: one buffer of 4 MiB a thread, whatever the sizes of the files.

Files below 256 KiB are read in units of some hundred KiB by compiled code, where there is any. What it leaves as a file
is not what was found or anything else is unusual, is read one by one, as every file is without it: by the calling
thread as long as files come from memory, for at 10 KiB two threads were 5 to 20 % slower than one, as they hand the
interpreter to each other at every call. Once reads wait for a disk or a network, the rest goes to a pool, and so do
longer files at once.

This module never changes a file and never follows a link, except to the very file that the caller saw behind it.
"""

import errno
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Final, NamedTuple, NoReturn

from blake3 import blake3
from msgspec import Struct

from dataset_store.core.arrays import I64, U8, np
from dataset_store.errors import DatasetStoreError, FileChanged
from dataset_store.local.batches import compiled, read_unchanged
from dataset_store.local.os_errors import reading_error, shown

__all__ = [
    "READ_SIZE",
    "FileStat",
    "HashedFiles",
    "Progress",
    "content_id_at",
    "default_workers",
    "fill",
    "hash_files",
    "open_regular",
    "stats_of",
]

READ_SIZE: Final = 4 << 20
"""Bytes read at a time from long files."""

Progress = Callable[[int, int], object]
"""Called with files and bytes done since the call before, in the calling thread."""

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_WORKERS: Final = 8
_ATTEMPTS: Final = 4
_SHORT: Final = 256 << 10  # bytes; a longer file is worth a thread's attention by itself
_UNIT_BYTES: Final = 256 << 10
_UNIT_FILES: Final = 64
_THIS_THREAD: Final = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


class FileStat(NamedTuple):
    """What tells whether a file was changed: size in bytes, times in ns since 1970, inode as a signed number."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @staticmethod
    def of(found: os.stat_result) -> "FileStat":
        """The part of a stat that matters."""
        return FileStat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, _signed(found.st_ino))


def _signed(inode: int) -> int:
    """An inode in 64 bits with a sign, as columns hold it."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


class HashedFiles(Struct, frozen=True, eq=False):
    """Content ids, shape (n, 32), and the stat of each file as it was hashed, shape (n, 4), as of `FileStat`."""

    content_ids: U8
    stats: I64


def default_workers() -> int:
    """Threads worth using for reading: one for each processor, at most 8."""
    return min(_MOST_WORKERS, os.cpu_count() or 1)


def open_regular(path: bytes, inode: int | None = None) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, whatever the length of its path.

    Args:
        path: Where a link is to be stored as its bytes, the path of the link will do.
        inode: If `path` is a link, only the file of this inode will do, signed; None where the content is checked.

    Returns:
        A descriptor, which the caller closes, and the file's stat.

    Raises:
        FileChanged: It is gone, or is no regular file (any more).
        AccessDenied: It cannot be read.
        StorageFailed: The disk or the system refused.
    """
    try:
        opened, linked = _open(path)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device without a driver
            _raise_replaced(path, error)
        raise reading_error(error, path) from error
    found = os.fstat(opened)
    if not stat.S_ISREG(found.st_mode) or (linked and inode not in (None, _signed(found.st_ino))):
        os.close(opened)
        _raise_replaced(path)
    return opened, found


def stats_of(paths: Sequence[bytes]) -> I64:
    """The stats of files as they are now, shape (n, 4). Arguments and errors as `open_regular`, of each path."""
    found = np.empty((len(paths), 4), np.int64)
    for row, path in enumerate(paths):
        opened, stat = open_regular(path)
        os.close(opened)
        found[row] = FileStat.of(stat)
    return found


def fill(opened: int, buffer: memoryview) -> int:
    """Read until `buffer` is full or the file ends; the bytes read.

    Raises:
        OSError: As the system says.
    """
    filled = 0
    while filled < len(buffer):
        count = os.readv(opened, [buffer[filled:]])
        if not count:
            break
        filled += count
    return filled


def hash_files(
    paths: Sequence[bytes],
    expected: I64,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> HashedFiles:
    """Read every file once and hash it; one that changed meanwhile is read again, at most three times.

    Args:
        paths: n paths of regular files, or of links to such.
        expected: The stat of each as it was found, shape (n, 4): the fields of `FileStat`.
        workers: Threads; `default_workers()` by default.
        progress: Told of every unit of work.

    Raises:
        FileChanged: A file is gone, is no regular file any more, or did not stay the same for one reading.
        AccessDenied: A file cannot be read.
        StorageFailed: The disk or the system refused.
    """
    run = _Run(paths, expected, progress)
    with ThreadPoolExecutor(workers or default_workers(), "hash") as pool:
        try:
            run.hash_all(pool)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    ids = np.frombuffer(b"".join(run.digests), np.uint8).reshape(-1, 32)
    return HashedFiles(ids, run.stats)


class _Run:
    """One call of `hash_files`; `digests` and `stats` are complete when `hash_all` returns."""

    def __init__(self, paths: Sequence[bytes], expected: I64, progress: Progress | None) -> None:
        self._paths = paths
        self._sizes: list[int] = expected[:, 0].tolist()
        self._progress = progress
        self._local = threading.local()
        self.digests = [b""] * len(paths)
        self.stats = expected.copy()

    def hash_all(self, pool: ThreadPoolExecutor) -> None:
        short, long = self._units()
        rest = short if compiled() else self._hash_while_in_memory(short)
        futures: dict[Future[None], Sequence[int]] = {}
        for unit in (*long, *rest):
            futures[pool.submit(self._hash_unit, unit)] = unit
        for future in as_completed(futures):
            future.result()
            self._report(futures[future])

    def _units(self) -> tuple[list[list[int]], list[list[int]]]:
        """Rows of short files, some together, and rows of long files, each alone."""
        short: list[list[int]] = [[]]
        long = []
        total = 0
        for row, size in enumerate(self._sizes):
            if size >= _SHORT:
                long.append([row])
                continue
            short[-1].append(row)
            total += size
            if total >= _UNIT_BYTES or len(short[-1]) >= _UNIT_FILES:
                short.append([])
                total = 0
        return [unit for unit in short if unit], long

    def _hash_while_in_memory(self, units: Sequence[list[int]]) -> Sequence[list[int]]:
        """Hash units in this thread until one has to wait; the units left."""
        for done, unit in enumerate(units, start=1):
            before = _waits()
            self._hash_unit(unit)
            waited = _waits() - before
            self._report(unit)
            if 4 * waited > len(unit) + 4:
                return units[done:]
        return []

    def _hash_unit(self, rows: Sequence[int]) -> None:
        for row in self._hash_unchanged(rows) if compiled() and len(rows) > 1 else rows:
            expected = FileStat(*self.stats[row].tolist())
            self.digests[row], self.stats[row] = self._hash_file(self._paths[row], expected)

    def _hash_unchanged(self, rows: Sequence[int]) -> list[int]:
        """Hash the short files that are as they were found, read together; the rows that are left."""
        buffer = self._buffer()
        done = read_unchanged([self._paths[row] for row in rows], self.stats[list(rows)], buffer)
        left = []
        at = 0
        for row, is_read in zip(rows, done, strict=True):
            stop = at + self._sizes[row]
            if is_read:
                self.digests[row] = blake3(buffer[at:stop]).digest()
            else:
                left.append(row)
            at = stop
        return left

    def _hash_file(self, path: bytes, expected: FileStat) -> tuple[bytes, FileStat]:
        for _ in range(_ATTEMPTS):
            opened, found = open_regular(path, expected.inode)
            before = FileStat.of(found)
            try:
                if before == expected:
                    digest, length = self._digest(opened, before.size)
                    before = FileStat.of(os.fstat(opened))
                    if before == expected and length == before.size:
                        return digest, before
            except OSError as error:
                raise reading_error(error, path) from error
            finally:
                os.close(opened)
            expected = before
        raise FileChanged(
            f"{shown(path)} changed each time it was read.",
            "Nothing was added; run it again when nothing writes to the file, or leave the file out.",
        )

    def _digest(self, opened: int, size: int) -> tuple[bytes, int]:
        """Hash and length of what can be read; a little more than `size` is enough to see that it is not all."""
        if size < _SHORT:
            data = _read_short(opened, size)
            return blake3(data).digest(), len(data)
        buffer = self._buffer()
        hasher = blake3()
        length = 0
        while length <= size and (count := os.readv(opened, [buffer])):
            hasher.update(buffer[:count])
            length += count
        return hasher.digest(), length

    def _buffer(self) -> memoryview:
        """The calling thread's."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(READ_SIZE))
        buffer: memoryview = self._local.buffer
        return buffer

    def _report(self, rows: Sequence[int]) -> None:
        if self._progress:
            self._progress(len(rows), int(self.stats[list(rows), 0].sum()))


def content_id_at(path: bytes) -> bytes | None:
    """The hash of what is read of a regular file now; None where there is none that can be read."""
    try:
        opened, _ = open_regular(path)
    except DatasetStoreError:
        return None
    try:
        hasher = blake3()
        while data := os.read(opened, READ_SIZE):
            hasher.update(data)
    except OSError:
        return None
    finally:
        os.close(opened)
    return hasher.digest()


def _waits() -> int:
    """How often the calling thread has given up the processor to wait for something."""
    return resource.getrusage(_THIS_THREAD).ru_nvcsw


def _read_short(opened: int, size: int) -> bytes:
    """The whole file, if it is as long as its stat says; file systems may return less than was asked for."""
    data = os.read(opened, size + 1)
    while len(data) < size and (more := os.read(opened, size + 1 - len(data))):
        data += more
    return data


def _open(path: bytes) -> tuple[int, bool]:
    """A descriptor, and whether `path` is a link."""
    try:
        return os.open(path, _FLAGS | os.O_NOFOLLOW), False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return os.open(path, _FLAGS), True
        if error.errno == errno.ENAMETOOLONG:
            return _open_long(path), False
        raise


def _open_long(path: bytes) -> int:
    """Open a path of any length, one directory after another."""
    *directories, name = path.split(b"/")
    parent = os.open(b"/" if path.startswith(b"/") else b".", _DIRECTORY)
    try:
        for directory in _nonempty(directories):
            deeper = os.open(directory, _DIRECTORY, dir_fd=parent)
            os.close(parent)
            parent = deeper
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    finally:
        os.close(parent)


def _nonempty(names: Sequence[bytes]) -> Iterator[bytes]:
    return (name for name in names if name)


def _raise_replaced(path: bytes, cause: OSError | None = None) -> NoReturn:
    raise FileChanged(
        f"{shown(path)} is no longer the file that was found there.",
        "Nothing was added; run it again when nothing writes to the folder.",
    ) from cause
