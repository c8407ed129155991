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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TypeVar
from urllib.parse import quote

from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DiskFull,
    InvalidRequest,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
    StoreRootMissing,
)
from dataset_store.storage.backend import (
    Buffers,
    Key,
    ObjectInfo,
    ObjectWriter,
    Span,
    Tail,
    Traits,
    extent,
    validate_key,
)
from dataset_store.storage.backend_errors import object_missing, writing_ended
from dataset_store.storage.new_files import NO_NAMELESS_FILES, LinkInDoubtError, NewFile, flush_folder

__all__ = ["TEMP_FOLDER", "PosixBackend"]

TEMP_FOLDER = "tmp~"
"""Below the root: files not yet linked, on systems without nameless files. No key can name it ('~')."""

# Before the umask, which decides whether a group may write.
_FILE_MODE = 0o644
_FOLDER_MODE = 0o775

_T = TypeVar("_T")

_ABSENT = (FileNotFoundError, NotADirectoryError)

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
        """Requests cost nothing, a link has one winner, and what is written piece by piece is not held."""
        return Traits(streams=True)

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

    def open_writer(self, key: Key) -> ObjectWriter:
        """Begin a file that is written piece by piece and gets its name at the end; see the port."""
        valid = validate_key(key)
        try:
            return _ObjectFile(self, valid, self._with_folders(lambda: self._begin(valid)))
        except OSError as error:
            raise self._failure(error, f"write '{key}'") from error

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        try:
            return self._write(validate_key(key), buffers)
        except LinkInDoubtError as error:
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
        if isinstance(error, _ABSENT) and not os.path.isdir(self._root):
            return self._no_root()
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
            raise object_missing(key, self._root) from error
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
        return self._with_folders(lambda: self._write_once(key, buffers))

    def _with_folders(self, act: Callable[[], _T]) -> _T:
        """What `act` gives, which needs the folder of its key."""
        try:
            return act()
        except FileNotFoundError:
            # Someone removed a folder that this handle knew. It is made again, but not the root: where that
            # was and is no more, a disk was unmounted or a store removed, and none must grow in its place.
            if self._root in self._durable:
                self._require_root()
            self._durable.clear()
            return act()

    def _write_once(self, key: Key, buffers: Buffers) -> bool:
        file = self._begin(key)
        try:
            file.write(buffers)
            return self._publish(key, file)
        finally:
            file.close()

    def _begin(self, key: Key) -> NewFile:
        """An empty file that is to become the object of `key`."""
        path, name = os.path.split(self._path(key))
        self._make_root()
        self._make_folders(path)
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return self._new_file(folder, name)
        except BaseException:
            os.close(folder)
            raise

    def _new_file(self, folder: int, name: str) -> NewFile:
        """A file that has no name until it is whole; in the temp folder under a random one where that cannot be."""
        if self._nameless:
            try:
                file = os.open(".", os.O_TMPFILE | os.O_RDWR, _FILE_MODE, dir_fd=folder)
                return NewFile(file, folder, name)
            except OSError as error:
                if error.errno not in NO_NAMELESS_FILES:
                    raise
            self._nameless = False
        _make_folder(self._path(TEMP_FOLDER))
        path = self._path(f"{TEMP_FOLDER}/{os.urandom(16).hex()}")
        return NewFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), folder, name, path)

    def _publish(self, key: Key, file: NewFile) -> bool:
        """Give a whole file its name: True where the name is new, False where it is taken."""
        # Only now: it waits for the disk, and whoever writes an object piece by piece goes on meanwhile.
        self._flush_folders(os.path.dirname(self._path(key)))
        try:
            return file.publish()
        except OSError as error:
            refused = file.is_nameless and error.errno in NO_NAMELESS_FILES
            if not refused or isinstance(error, LinkInDoubtError):
                raise
        # It can be made without a name, and gets none.
        self._nameless = False
        named = self._begin(key)
        try:
            named.copy(file)
            return named.publish()
        finally:
            named.close()

    def _make_root(self) -> None:
        """Make the root and the folders above it that are not there, each flushed into its parent."""
        try:
            self._make_above(self._root)
        except (FileExistsError, NotADirectoryError) as error:
            raise self._no_root() from error

    def _make_above(self, path: str) -> None:
        if path in self._durable:
            return
        parent = os.path.dirname(path)
        if not os.path.isdir(parent):
            self._make_above(parent)
        _make_folder(path)
        with suppress(PermissionError):  # what lies above the root may belong to others, and be closed to us
            _flush_folder_at(parent)
        self._durable.add(path)

    def _make_folders(self, path: str) -> None:
        """Make a folder below the root, and those between."""
        if path != self._root and path not in self._durable:
            self._make_folders(os.path.dirname(path))
            _make_folder(path)

    def _flush_folders(self, path: str) -> None:
        """Flush the names of a folder below the root and of those between, each into its parent.

        Also of one that was there: whoever made it may not have come so far, and what is acknowledged in it must not be
        lost with it.
        """
        if path != self._root and path not in self._durable:
            parent = os.path.dirname(path)
            self._flush_folders(parent)
            _flush_folder_at(parent)
            self._durable.add(path)


class _ObjectFile:
    """The port's writer over a new file."""

    def __init__(self, backend: PosixBackend, key: Key, file: NewFile) -> None:
        self._backend = backend
        self._key = key
        self._file = file

    def write(self, buffers: Buffers) -> None:
        """Write the next pieces; see the port."""
        with self._guarded():
            self._file.write(buffers)

    def finish(self) -> None:
        """Flush the file and give it its name; see the port."""
        with self._guarded():
            self._backend._publish(self._key, self._file)
        self._file.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Give the file up after an error, so that no object with a hole ever gets the name."""
        if not self._file.close.alive:
            raise writing_ended(self._key)
        try:
            yield
        except OSError as error:
            self._file.close()
            raise self._backend._failure(error, f"write '{self._key}'") from error


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


def _make_folder(path: str) -> None:
    if not os.path.isdir(path):
        try:
            os.mkdir(path, _FOLDER_MODE)
        except FileExistsError:
            if not os.path.isdir(path):  # else another made it in between
                raise


def _flush_folder_at(path: str) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flush_folder(folder)
    finally:
        os.close(folder)
