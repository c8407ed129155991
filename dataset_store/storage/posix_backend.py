"""A folder of a POSIX file system as a backend: one file for each object.

An object gets its name by one `link` after its bytes are flushed, and is acknowledged after the folder that
holds the name is flushed. So the promises of the port rest on what any file system that follows POSIX does: a
link is atomic, has one winner, and never replaces a file. The file has no name before that where the system
can make such files (a killed writer leaves nothing at all); elsewhere it waits in `TEMP_FOLDER`.

Promises: those of `backend`, for any number of threads, processes and (NFS) machines; each failure is a
typed error that names the key. The root folder is made by the first write, never by a read, and never made
again by a handle that has seen it. Never: maps files into memory, reads a clock, takes a lock, lists or
removes anything unasked.
"""

import errno
import os
import stat
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from urllib.parse import quote

from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DiskFull,
    InvalidRequest,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
    StoreRootMissing,
)
from dataset_store.storage.backend import Buffers, Key, ObjectInfo, Span, Tail, Traits, extent, validate_key

if sys.platform == "darwin":
    import fcntl

__all__ = ["TEMP_FOLDER", "PosixBackend"]

TEMP_FOLDER = "tmp~"
"""Below the root: files not yet linked, on systems without nameless files. No key can name it ('~')."""

# Before the umask, which decides whether a group may write.
_FILE_MODE = 0o644
_FOLDER_MODE = 0o775

_MOST_BUFFERS = os.sysconf("SC_IOV_MAX") if hasattr(os, "sysconf") else 1024

# What systems and file systems answer that cannot make a file without a name, or cannot name it later.
_NO_NAMELESS_FILES = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.EXDEV})

# A folder that cannot be flushed by itself: the file system writes names through, or has no such promise.
_NO_FOLDER_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})

_ABSENT = (FileNotFoundError, NotADirectoryError)

# Refusals of a link that leave no doubt: no server or disk can carry it out later.
_CERTAINLY_NOT_LINKED = _NO_NAMELESS_FILES | {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.ELOOP,
    errno.EMFILE,
    errno.EMLINK,
    errno.ENAMETOOLONG,
    errno.ENFILE,
    errno.ENOENT,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}

_DISK_FULL = (DiskFull, "Free some space or raise the quota, then repeat; nothing acknowledged is lost.")
_DENIED = (
    AccessDenied,
    "Ask for access to the folder, or check that its file system has hard links, then repeat.",
)
_NO_FILES_LEFT = (StorageFailed, "Too many files are open: raise the limit (ulimit -n), then repeat.")
_OTHER = (StorageFailed, "Check the disk and its connection, then repeat; nothing acknowledged is lost.")

_FAILURES: dict[int, tuple[type[StorageFailed], str]] = {
    errno.ENOSPC: _DISK_FULL,
    errno.EDQUOT: _DISK_FULL,
    errno.EFBIG: _DISK_FULL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: (StoreReadOnly, "Mount the file system for writing, or use another store."),
    errno.EMFILE: _NO_FILES_LEFT,
    errno.ENFILE: _NO_FILES_LEFT,
}


class PosixBackend:
    """The backend over one folder.

    Args:
        root: The folder, absolute or relative to the present working folder. It need not exist.

    Raises:
        InvalidRequest: `root` is empty or holds a NUL.
    """

    def __init__(self, root: str) -> None:
        if not root or "\0" in root:
            raise InvalidRequest(f"{root!r} cannot be a folder.", "Give the path of a folder.")
        self._root = os.path.abspath(root)
        self._nameless = hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd")
        # Folders whose own names are known to be flushed. May hold some that were removed since.
        self._durable: set[str] = set()

    @property
    def traits(self) -> Traits:
        """Requests cost nothing, and a link has one winner."""
        return Traits()

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        return [self._read_whole(key) for key in [validate_key(key) for key in keys]]

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects, each file opened once and read front to back; see the port."""
        places: dict[Key, list[int]] = defaultdict(list)
        for place, part in enumerate(ranges):
            places[validate_key(part.key)].append(place)
        found = [b""] * len(ranges)
        for key, wanted in places.items():
            parts = self._read_parts(key, [ranges[place] for place in wanted])
            for place, data in zip(wanted, parts, strict=True):
                found[place] = data
        return found

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port."""
        try:
            # A name is used for one content only, so an object that is there already is this one: a repeated
            # put whose first attempt landed. It needs no look, and the folder was flushed for it again.
            self._write(validate_key(key), buffers)
        except OSError as error:
            raise self._failure(error, f"write '{key}'") from error

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        try:
            return self._write(validate_key(key), buffers)
        except _LinkInDoubtError as error:
            raise OutcomeUnknown(
                f"'{key}' in {self._root} may or may not have been made: {error.strerror}.",
                "Read it back to learn.",
            ) from error
        except OSError as error:
            raise self._failure(error, f"create '{key}'") from error

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; see the port. The folders stay."""
        for key in [validate_key(key) for key in keys]:
            try:
                os.unlink(self._path(key))
            except (*_ABSENT, IsADirectoryError):
                self._require_root()
            except OSError as error:
                raise self._failure(error, f"delete '{key}'") from error

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, one folder at a time; see the port. What is no key is passed over.

        Raises:
            StoreUnreachable, AccessDenied, StorageFailed: The root is not there, or a folder cannot be read.
        """
        validate_key(prefix)
        self._require_root()
        return self._walk(prefix)

    def describe(self) -> str:
        """The root as a file URL."""
        return f"file://{quote(os.fsencode(self._root))}"

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _failure(self, error: OSError, doing: str) -> StorageFailed:
        """The typed error for what the system answered."""
        kind, next_step = _FAILURES.get(error.errno or 0, _OTHER)
        return kind(f"Cannot {doing} in {self._root}: {error.strerror or error}.", next_step)

    def _require_root(self) -> None:
        if not os.path.isdir(self._root):
            raise self._no_root()

    def _no_root(self) -> StoreRootMissing:
        return StoreRootMissing(
            f"There is no folder at {self._root}.", "Check the path, or mount the disk it is on, then repeat."
        )

    # Reading

    @contextmanager
    def _opened(self, key: Key) -> Iterator[tuple[int, int]]:
        """The descriptor and the size in bytes of an object's file."""
        file = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not make us wait
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                raise FileNotFoundError(errno.ENOENT, "a folder or device, not an object")
            yield file, status.st_size
        finally:
            os.close(file)

    def _read_whole(self, key: Key) -> bytes | None:
        try:
            with self._opened(key) as (file, size):
                return _read(file, 0, size)
        except _ABSENT:
            self._require_root()
            return None
        except OSError as error:
            raise self._failure(error, f"read '{key}'") from error

    def _read_parts(self, key: Key, parts: Sequence[Span | Tail]) -> Sequence[bytes]:
        try:
            with self._opened(key) as (file, size):
                return _read_extents(key, file, [extent(part, size) for part in parts])
        except _ABSENT as error:
            self._require_root()
            raise ObjectMissing(
                f"There is no object '{key}' in {self._root}.", "Run verify to learn what is affected."
            ) from error
        except OSError as error:
            raise self._failure(error, f"read '{key}'") from error

    # Listing

    def _walk(self, folder: str) -> Iterator[ObjectInfo]:
        for row in self._rows(folder):
            if isinstance(row, ObjectInfo):
                yield row
            else:
                yield from self._walk(row)

    def _rows(self, folder: str) -> Sequence[ObjectInfo | Key]:
        """What a folder holds, read at once: nothing stays open while the caller works, or deletes."""
        try:
            with os.scandir(self._path(folder)) as rows:
                return [found for row in rows if (found := _row(folder, row)) is not None]
        except _ABSENT:
            return []
        except OSError as error:
            raise self._failure(error, f"list '{folder}'") from error

    # Writing. From here on the system's own errors pass through; put and create turn them into typed ones.

    def _write(self, key: Key, buffers: Buffers) -> bool:
        try:
            return self._write_once(key, buffers)
        except FileNotFoundError:
            # Someone removed a folder that this handle knew. It is made again, but not the root: where that
            # was and is no more, a disk was unmounted or a store removed, and none must grow in its place.
            if self._root in self._durable:
                self._require_root()
            self._durable.clear()
            return self._write_once(key, buffers)

    def _write_once(self, key: Key, buffers: Buffers) -> bool:
        path, name = os.path.split(self._path(key))
        self._make_root()
        self._make_durable(path)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if self._nameless:
                return self._write_nameless(folder, name, buffers)
            return self._write_named(folder, name, buffers)
        finally:
            os.close(folder)

    def _write_nameless(self, folder: int, name: str, buffers: Buffers) -> bool:
        """Write a file that has no name until it is whole."""
        try:
            file = os.open(".", os.O_TMPFILE | os.O_WRONLY, _FILE_MODE, dir_fd=folder)
            try:
                _fill(file, buffers)
                return _publish(file, f"/proc/self/fd/{file}", folder, name)
            finally:
                os.close(file)
        except OSError as error:
            if error.errno not in _NO_NAMELESS_FILES or isinstance(error, _LinkInDoubtError):
                raise
        self._nameless = False
        return self._write_named(folder, name, buffers)

    def _write_named(self, folder: int, name: str, buffers: Buffers) -> bool:
        """Write a file that has a random name in the temp folder until it is whole."""
        self._make_durable(self._path(TEMP_FOLDER))
        path = self._path(f"{TEMP_FOLDER}/{os.urandom(16).hex()}")
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
        try:
            _fill(file, buffers)
            return _publish(file, path, folder, name)
        finally:
            os.close(file)
            with suppress(OSError):  # litter at worst: the object itself is decided
                os.unlink(path)

    def _make_root(self) -> None:
        try:
            self._make_durable(self._root)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._no_root() from error

    def _make_durable(self, path: str) -> None:
        """Make a folder and those above it, each flushed into its parent.

        A folder that exists is flushed too: whoever made it may not have come so far, and what is
        acknowledged in it must not be lost with it.
        """
        if path in self._durable:
            return
        parent = os.path.dirname(path)
        below_root = len(path) > len(self._root)
        if below_root or not os.path.isdir(parent):
            self._make_durable(parent)
        _make_folder(path)
        try:
            _flush_folder_at(parent)
        except PermissionError:
            if below_root:  # what lies above the root may belong to others, and be closed to us
                raise
        self._durable.add(path)


class _LinkInDoubtError(OSError):
    """A file may or may not have its name, now or later; or has it, but not durably."""


def _row(folder: str, row: os.DirEntry[str]) -> ObjectInfo | Key | None:
    """The row of an object, the key of a folder, None of anything else."""
    try:
        key = validate_key(f"{folder}/{row.name}")
        if row.is_dir():
            return key
        found = row.stat() if row.is_file() else None
        return ObjectInfo(key, found.st_size, found.st_mtime) if found is not None else None
    except (InvalidRequest, FileNotFoundError):  # not of the store; or deleted since its name was read
        return None


def _read(file: int, start: int, length: int) -> bytes:
    """The bytes from `start` on, `length` of them or all there are. Usually one read and no copy."""
    data = os.pread(file, length, start)
    if len(data) == length:
        return data
    pieces = [data]
    missing = length - len(data)
    while missing and pieces[-1]:
        pieces.append(os.pread(file, missing, start + length - missing))
        missing -= len(pieces[-1])
    return b"".join(pieces)


def _read_extents(key: Key, file: int, extents: Sequence[tuple[int, int]]) -> Sequence[bytes]:
    """The bytes of each extent, in the order given, read in the order of the file."""
    found = [b""] * len(extents)
    for place in sorted(range(len(extents)), key=extents.__getitem__):
        start, stop = extents[place]
        found[place] = _read(file, start, stop - start)
        if len(found[place]) < stop - start:
            raise CorruptObject(f"Object '{key}' was cut short while it was read.", "Run verify on the store.")
    return found


def _fill(file: int, buffers: Buffers) -> None:
    """Write all buffers and flush the file."""
    waiting = deque(memoryview(buffer).cast("B") for buffer in buffers if memoryview(buffer).nbytes)
    while waiting:
        written = os.writev(file, list(islice(waiting, _MOST_BUFFERS)))
        while waiting and written >= len(waiting[0]):
            written -= len(waiting.popleft())
        if written:
            waiting[0] = waiting[0][written:]
    _flush(file)


def _publish(file: int, path: str, folder: int, name: str) -> bool:
    """Give a flushed file its name, then flush the folder: True where the name is new, False where taken.

    The folder is flushed for the loser too: it is told that an object is there, and builds on that.
    """
    try:
        # With a folder descriptor this is linkat, which follows the link in /proc; plain link would not.
        os.link(path, name, dst_dir_fd=folder, follow_symlinks=True)
        made = True
    except OSError as refusal:
        made = _judge(refusal, file, folder, name)
    try:
        _flush_folder(folder)
    except OSError as error:
        raise _LinkInDoubtError(error.errno, error.strerror) from error
    return made


def _judge(refusal: OSError, file: int, folder: int, name: str) -> bool:
    """After a refused link: True where the name is there and ours, False where another's object has it.

    NFS may carry out a link and lose the reply; its repetition then fails with EEXIST, so that no error
    number says who won. The file under the name does.
    """
    try:
        there = os.stat(name, dir_fd=folder)
    except OSError as error:
        if refusal.errno in _CERTAINLY_NOT_LINKED and isinstance(error, FileNotFoundError):
            raise refusal from None
        raise _LinkInDoubtError(refusal.errno, refusal.strerror) from refusal
    if os.path.samestat(there, os.fstat(file)):
        return True
    if not stat.S_ISREG(there.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is not an object has this name") from refusal
    return False


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):
        try:
            os.mkdir(path, _FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):  # else another made it in between
                raise


def _flush(file: int) -> None:
    """Return when the bytes would survive a power cut."""
    if sys.platform == "darwin":
        with suppress(OSError):  # not every file system knows it
            fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # fsync leaves the bytes in the drive's own cache there
            return
    os.fsync(file)


def _flush_folder(folder: int) -> None:
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def _flush_folder_at(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush_folder(folder)
    finally:
        os.close(folder)
