"""Environments: LMDB files of this machine that several processes and threads read and write at once.

An environment is a map of bytes to bytes in a folder of its own. It holds only what can be had again, so whatever
is wrong with its files is answered in one way: they are dropped and made anew, empty. Promises:

* a transaction sees one state, and leaves all of what it wrote or nothing;
* readers never wait for writers; they wait only while this process swaps its map or opens files, well under a
  millisecond;
* the map grows by itself, and a fork at any moment is safe for parent and child;
* errors of LMDB never leave this module: they become errors of this package.

Not promised: that what was written is there after a power cut, or at all. Never: used on a network file system,
where memory maps and locks do not hold.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import lmdb
from msgspec import Struct
from msgspec.structs import replace

from dataset_store.errors import AccessDenied, DatasetStoreError, DiskFull, StorageFailed
from dataset_store.local.os_errors import shown, writing_error
from dataset_store.local.private import make_private

__all__ = ["Environment", "Transaction", "Work", "open_environment"]

T = TypeVar("T")

FIRST_MAP: Final = 64 << 20
"""Bytes of address space that a process begins with; doubled as often as needed."""

_READERS: Final = 1_024
_LOCK_BYTES: Final = 72 << 10  # a little more than that many readers take
_DATA: Final = "data.mdb"
_LOCK: Final = "lock.mdb"
_GUARD: Final = "opening"
_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.CursorFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageFullError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
)
_SCARCITY: Final = (
    lmdb.DiskError,
    lmdb.LockError,
    lmdb.MemoryError,
    lmdb.ReadersFullError,
    lmdb.TlsFullError,
)
_NEXT_STEP: Final = "It holds nothing that cannot be rebuilt: delete that folder, or choose another for caches."


class Transaction:
    """What one piece of work may do with an environment; ends with that work."""

    __slots__ = ("_raw", "_table")

    def __init__(self, raw: "lmdb.Transaction[bytes]", table: lmdb._Database) -> None:
        self._raw = raw
        self._table = table

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The value of each key (1 to 511 bytes), None where there is none; in the order asked."""
        return list(map(self._raw.get, keys))

    def put_many(self, items: Iterable[tuple[bytes, bytes]], *, overwrite: bool = True) -> None:
        """Store values by key; fastest where keys ascend. Without `overwrite` a key that has a value keeps it."""
        with self._raw.cursor() as cursor:
            cursor.putmulti(items, overwrite=overwrite)

    def delete_many(self, keys: Iterable[bytes]) -> None:
        """Remove keys; one that has no value is no error."""
        for key in keys:
            self._raw.delete(key)

    def clear(self) -> None:
        """Remove every key. The files keep their length and are filled again."""
        self._raw.drop(self._table, delete=False)

    def used_bytes(self) -> int:
        """Bytes of the pages that hold something."""
        stat = self._raw.stat()
        return stat["psize"] * (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"])


Work = Callable[[Transaction], T]
"""One transaction's work. It may be run several times, and must not itself begin another transaction or fork."""


class _Opened(Struct, frozen=True, eq=False):
    """Open files: which ones (device and inode number of the data file), and the size of the map in bytes."""

    handle: lmdb.Environment
    table: lmdb._Database
    identity: tuple[int, int]
    map_size: int


class Environment:
    """The environment in one folder; made by `open_environment`. Safe for threads, processes and forks."""

    __slots__ = ("__weakref__", "_directory", "_first_map", "_gate", "_opened")

    def __init__(self, directory: str, first_map: int) -> None:
        self._directory = directory
        self._first_map = first_map
        self._gate = _Gate()
        self._opened: _Opened | None = None
        self._change(None, self._open)

    def read(self, work: Work[T]) -> T:
        """Run `work` on one unchanging state and return what it returns.

        Raises:
            AccessDenied, DiskFull, StorageFailed: The files cannot be used, and not be made anew either.
        """
        return self._run(work, write=False)

    def write(self, work: Work[T]) -> T:
        """Run `work` as the only writer of all processes and keep all that it did, or nothing if it raises.

        Raises:
            AccessDenied, DiskFull, StorageFailed: Nothing was kept.
        """
        return self._run(work, write=True)

    def _run(self, work: Work[T], *, write: bool) -> T:
        rebuilt = False
        while True:
            with self._gate.shared():
                seen = self._opened
                try:
                    if seen is not None:
                        with seen.handle.begin(write=write) as raw:
                            return work(Transaction(raw, seen.table))
                    error = None
                except lmdb.Error as caught:
                    error = caught
            damaged = isinstance(error, _DAMAGE)
            if damaged and rebuilt:
                raise _failure(error, self._directory) from error
            self._mend(seen, error)
            rebuilt |= damaged

    def _mend(self, seen: _Opened | None, error: lmdb.Error | None) -> None:
        """Do what lets the work that failed with `error` be run again; must be outside the gate."""
        if seen is None:
            self._change(seen, self._open)
        elif isinstance(error, lmdb.MapFullError):
            self._change(seen, partial(_remap, seen, 2 * seen.map_size))
        elif isinstance(error, lmdb.MapResizedError):
            self._change(seen, partial(_remap, seen, 0))
        elif isinstance(error, _DAMAGE):
            self._change(seen, partial(self._open, seen))
        else:
            raise _failure(error, self._directory) from error

    def _change(self, seen: _Opened | None, change: Callable[[], _Opened]) -> None:
        """Replace what is open by what `change` makes, unless another thread has since it was `seen`.

        Where that fails nothing stays open, and the next work opens anew.
        """
        with self._gate.alone():
            if self._opened is not seen:
                return
            self._opened = None
            try:
                self._opened = change()
            except (lmdb.Error, OSError) as error:
                raise _failure(error, self._directory) from error
            finally:
                if seen is not None and (self._opened is None or self._opened.handle is not seen.handle):
                    seen.handle.close()

    def _open(self, broken: _Opened | None = None) -> _Opened:
        """Open the files as they are, but make those anew that are `broken`.

        The broken ones are still open, so that nobody else has their inode number.
        """
        make_private(self._directory)
        os.chmod(self._directory, 0o700)
        with _opening_alone(self._directory):
            if broken is not None and _identity(self._directory) == broken.identity:
                _drop_files(self._directory)
            try:
                return _open_files(self._directory, self._first_map)
            except lmdb.Error as error:
                if _is_scarcity(error):
                    raise
                _drop_files(self._directory)
                return _open_files(self._directory, self._first_map)

    def _pause(self) -> None:
        """Before a fork: wait for the end of running transactions and let none begin."""
        self._gate.close()

    def _resume(self) -> None:
        """After a fork, in the parent."""
        self._gate.open()

    def _begin_anew(self) -> None:
        """After a fork, in the child: what is open belongs to the parent, and no other thread exists."""
        opened, self._opened, self._gate = self._opened, None, _Gate()
        if opened is not None:
            opened.handle.close()


class _Gate:
    """Many inside, or one alone; whoever wants to be alone goes before those who come later."""

    __slots__ = ("_changed", "_inside", "_waiting")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        self.close()
        try:
            yield
        finally:
            self.open()

    def close(self) -> None:
        """Wait until nobody is inside; nobody gets in before `open`, for this thread keeps the lock."""
        self._changed.acquire()
        self._waiting += 1
        try:
            self._changed.wait_for(lambda: not self._inside)
        except BaseException:
            self._changed.release()
            raise
        finally:
            self._waiting -= 1

    def open(self) -> None:
        self._changed.notify_all()
        self._changed.release()


class _Registry:
    """The environments of this process by real path: LMDB forbids to open the same files twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._environments: WeakValueDictionary[str, Environment] = WeakValueDictionary()
        self._paused: list[Environment] = []
        os.register_at_fork(before=self._before_fork, after_in_parent=self._in_parent, after_in_child=self._in_child)

    def get(self, directory: str, first_map: int) -> Environment:
        path = os.path.realpath(directory)
        with self._lock:
            environment = self._environments.get(path)
            if environment is None:
                environment = self._environments[path] = Environment(path, first_map)
            return environment

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._paused = list(self._environments.values())
        for environment in self._paused:
            environment._pause()

    def _in_parent(self) -> None:
        for environment in self._paused:
            environment._resume()
        self._paused = []
        self._lock.release()

    def _in_child(self) -> None:
        for environment in self._paused:
            environment._begin_anew()
        self._paused = []
        self._lock.release()


_registry: Final = _Registry()


def open_environment(directory: str, first_map: int = FIRST_MAP) -> Environment:
    """The environment in a folder, which is made (0700) if it is not there; one and the same for all callers.

    Args:
        directory: Used by nothing else.
        first_map: Bytes of address space to begin with, if it is not open yet.

    Raises:
        AccessDenied, DiskFull, StorageFailed: The folder cannot be used.
    """
    return _registry.get(directory, first_map)


def _remap(seen: _Opened, size: int) -> _Opened:
    """Swap the map for one of `size` bytes; 0 takes on the size that another process gave to its own."""
    seen.handle.set_mapsize(size)
    return replace(seen, map_size=seen.handle.info()["map_size"])


@contextmanager
def _opening_alone(directory: str) -> Iterator[None]:
    """Keep every other thread and process from opening or dropping these files.

    So nobody holds a data file without the lock file that belongs to it.
    """
    guard = os.open(os.path.join(directory, _GUARD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield
    finally:
        os.close(guard)


def _is_scarcity(error: lmdb.Error) -> bool:
    """Whether an error says nothing against the files: it is of a resource, or of the binding (number 0)."""
    unnamed = type(error) is lmdb.Error and getattr(error, "code", None) in {0, errno.EMFILE, errno.ENFILE}
    return unnamed or isinstance(error, _SCARCITY)


def _open_files(directory: str, map_size: int) -> _Opened:
    while True:
        try:
            return _open_once(directory, map_size)
        except lmdb.MapResizedError:  # another process wrote between the two looks that opening takes at the size
            map_size *= 2


def _open_once(directory: str, map_size: int) -> _Opened:
    _reserve_lock_file(os.path.join(directory, _LOCK))
    handle = lmdb.open(directory, map_size=map_size, max_readers=_READERS, metasync=False, mode=0o600)
    try:
        handle.reader_check()
        info = handle.info()
        needed = (info["last_pgno"] + 1) * handle.stat()["psize"]
        size = os.stat(os.path.join(directory, _DATA)).st_size
        if size < needed:  # reading a page beyond the end would kill the process
            raise lmdb.CorruptedError(f"{needed} bytes are cut to {size}")
        return _Opened(handle, handle.open_db(), _identity(directory), info["map_size"])
    except BaseException:
        handle.close()
        raise


def _reserve_lock_file(path: str) -> None:
    """Make sure that the disk has the blocks of the lock file: writing to a map of a hole kills the process if not.

    LMDB takes a longer file than it needs for one with room for more readers.
    """
    opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate") and os.fstat(opened).st_blocks * 512 < _LOCK_BYTES:
            os.posix_fallocate(opened, 0, _LOCK_BYTES)
    finally:
        os.close(opened)


def _drop_files(directory: str) -> None:
    """Processes that have them open go on with these files, which nobody else sees any more."""
    for name in (_DATA, _LOCK):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))


def _identity(directory: str) -> tuple[int, int]:
    try:
        stat = os.stat(os.path.join(directory, _DATA))
    except FileNotFoundError:
        return (0, 0)
    return (stat.st_dev, stat.st_ino)


def _failure(error: Exception | None, directory: str) -> DatasetStoreError:
    if isinstance(error, OSError):
        return writing_error(error, directory)
    if isinstance(error, lmdb.DiskError):
        return DiskFull(f"No space is left for the cache in {shown(directory)}.", "Free some space and run it again.")
    if isinstance(error, lmdb.ReadonlyError):
        return AccessDenied(f"The cache in {shown(directory)} cannot be opened: {error}.", _NEXT_STEP)
    return StorageFailed(f"The cache in {shown(directory)} cannot be used: {error}.", _NEXT_STEP)
