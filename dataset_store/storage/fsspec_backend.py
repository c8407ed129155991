"""Any URL that fsspec knows as a backend: one object of the storage for each object of the store.

What a storage can promise depends on its protocol. Object stores (`gs`, `az`; `s3` is elsewhere) and `memory` make an
object whole and only if its key is free, so any number of writers may share them. Others (`sftp` and the rest) write
beside the object and rename; two could win a `create` there, so it is refused unless one writer is declared. `http` is
read.

Promises: those of `backend` as far as the storage keeps its own; short answers are errors, never data; an object is
sent by one request, and a GCS or Azure that says nothing is an error after 20 s, while an object is sent after one
second more for each 64 KiB. Never: overwrites an object, retries on its own, keeps a listing.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import datetime
from threading import Lock
from typing import Any, Final

from dataset_store.errors import (
    AccessDenied,
    DatasetStoreError,
    InvalidRequest,
    ObjectMissing,
    StorageFailed,
    StoreLacksCreateIfAbsent,
    StoreReadOnly,
    StoreRootMissing,
    StoreUnreachable,
)
from dataset_store.storage.backend import (
    Buffers,
    CollectedWriter,
    Key,
    ObjectInfo,
    ObjectWriter,
    Span,
    Tail,
    Traits,
    extent,
    validate_key,
)
from dataset_store.storage.backend_errors import arrived_short, create_failure, object_missing
from dataset_store.storage.filesystems import (
    STALL_SECONDS,
    WEB,
    answers,
    cause,
    failure,
    found_nothing,
    open_filesystem,
    redacted,
    scheme_of,
    turn_of,
)

__all__ = ["FsspecBackend"]

_ATOMIC: Final = frozenset({"gs", "gcs", "az", "abfs", "abfss", "memory"})
"""Protocols whose driver passes "only if absent" on to a storage that decides it."""

_DECIDED_FAR_AWAY: Final = _ATOMIC - {"memory"}
"""Of those, the ones where a server might ignore it."""

_RANGED: Final = _DECIDED_FAR_AWAY | WEB
"""Protocols whose driver reads many ranges at once, each by one request."""

_SUFFIXES: Final = frozenset({"gs", "gcs"})
"""Of those, the ones that read the end of an object without being told its size."""

_DELETES_AT_ONCE: Final = 16
_HOLE_BYTES: Final = 256 << 10
_AT_ONCE: Final = 4
_SINGLE_PUT: Final = 5 << 30
_SLOWEST: Final = 64 << 10
"""Bytes a second; an upload that is slower is given up."""

_memory_lock = Lock()


class FsspecBackend:
    """The backend over one URL.

    Args:
        url: Of the folder or prefix that holds the objects. It need not exist; a bucket must.
        single_writer: Whether the caller knows that nobody else writes there.

    Raises:
        DriverMissing: The driver of the scheme is not installed.
        InvalidRequest: The URL cannot be used.
        AccessDenied, StoreUnreachable, StorageFailed: The driver connects at once and could not.
    """

    def __init__(self, url: str, *, single_writer: bool = False) -> None:
        self._url = url.rstrip("/")
        self._scheme = scheme_of(url)
        self._single_writer = single_writer
        self._opened: tuple[int, Any] | None = None
        self._root = self._open()[1]
        self._folders: set[str] = set()

    @property
    def traits(self) -> Traits:
        """A request costs about what 256 KiB do; the create of a storage is tried before it is trusted."""
        return Traits(
            hole_bytes=_HOLE_BYTES,
            at_once=_AT_ONCE if self._scheme in _RANGED else 1,
            create_is_promised=self._scheme not in _DECIDED_FAR_AWAY,
            asks_once=self._scheme in WEB,
        )

    def get_many(self, keys: Sequence[Key]) -> list[bytes | None]:
        """Read whole objects; see the port."""
        paths = [self._path(key) for key in keys]
        found = self._read(paths, [0] * len(paths), [None] * len(paths))
        return [self._whole(key, answer) for key, answer in zip(keys, found, strict=True)]

    def get_ranges(self, ranges: Sequence[Span | Tail]) -> list[bytes]:
        """Read parts of objects; see the port."""
        paths = [self._path(part.key) for part in ranges]
        bounds = [self._bounds(part) for part in ranges]
        found = self._read(paths, [start for start, _ in bounds], [stop for _, stop in bounds])
        return [self._part(part, bound, answer) for part, bound, answer in zip(ranges, bounds, found, strict=True)]

    def put(self, key: Key, buffers: Buffers) -> None:
        """Write one object under a fresh name; see the port. Names are fresh, so two writers never meet in one."""
        path = self._path(key)
        self._require_writable(f"write '{key}'")
        try:
            self._write(path, b"".join(buffers))
        except Exception as error:
            raise self._failure(error, f"write '{key}' to") from cause(error, self._url)

    def open_writer(self, key: Key) -> ObjectWriter:
        """Collect an object, as it is sent by one request; see the port."""
        self._require_writable(f"write '{key}'")
        return CollectedWriter(self, key)

    def create(self, key: Key, buffers: Buffers) -> bool:
        """Write one object if the key holds none; see the port."""
        path = self._path(key)
        self._require_writable(f"create '{key}'")
        self._require_decided(f"create '{key}'")
        data = b"".join(buffers)
        try:
            return self._create_shared(path, data) if self._is_shared else self._create_alone(path, data)
        except Exception as error:
            doing, words = f"create '{key}' in", answers(error)
            raise create_failure(key, self.describe(), self._failure(error, doing), words) from cause(error, self._url)

    def delete_many(self, keys: Iterable[Key]) -> None:
        """Remove objects; see the port."""
        paths = [self._path(key) for key in keys]
        self._require_writable("delete objects")
        if self._scheme in _DECIDED_FAR_AWAY and len(paths) > 1:
            with ThreadPoolExecutor(min(_DELETES_AT_ONCE, len(paths))) as pool:
                list(pool.map(self._delete, paths))
            return
        for path in paths:
            self._delete(path)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object below a prefix, read at once; see the port. What is no key is passed over."""
        folder = self._path(Key(prefix))
        if self._scheme in WEB:
            raise StorageFailed(f"{self.describe()} cannot be listed.", "Do this where the store is written.")
        try:
            with self._turn:
                self._fs.invalidate_cache()
                rows = self._fs.find(folder, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        except Exception as error:
            raise self._failure(error, f"list '{prefix}' of") from cause(error, self._url)
        # The driver of Azure answers with a list of names where the prefix is an object itself.
        found = rows.items() if isinstance(rows, dict) else ()
        return iter([row for path, info in found if (row := self._row(folder, path, info)) is not None])

    def describe(self) -> str:
        """The URL without credentials."""
        return redacted(self._url)

    # The driver

    @property
    def _fs(self) -> Any:
        return self._open()[0]

    def _open(self) -> tuple[Any, str]:
        """The file system, opened anew in a forked process: drivers do not survive a fork."""
        if self._opened is None or self._opened[0] != os.getpid():
            filesystem, path = open_filesystem(self._url)
            self._opened = (os.getpid(), (filesystem, path.rstrip("/")))
        opened: tuple[Any, str] = self._opened[1]
        return opened

    @property
    def _turn(self) -> AbstractContextManager[object]:
        return turn_of(self._url)

    @property
    def _is_shared(self) -> bool:
        return self._scheme in _ATOMIC

    def _path(self, key: str) -> str:
        return f"{self._root}/{validate_key(key)}"

    def _failure(self, error: Exception, doing: str) -> DatasetStoreError:
        if found_nothing(error):
            return StoreRootMissing(
                f"Cannot {doing} {self.describe()}: it is not there.", "Make the bucket or folder, or check the URL."
            )
        return failure(error, f"{doing} {self.describe()}")

    # Reading

    def _read(
        self, paths: Sequence[str], starts: Sequence[int], stops: Sequence[int | None]
    ) -> Sequence[bytes | Exception]:
        """What each read answers: bytes, or the error it ended with."""
        if not paths:
            return []
        filesystem = self._fs
        if self._scheme in _RANGED:
            try:
                found: Sequence[bytes | Exception] = filesystem.cat_ranges([*paths], starts, stops, on_error="return")
            except Exception as error:
                raise self._failure(error, "read from") from cause(error, self._url)
            return found
        return [
            self._read_open(filesystem, path, start, stop)
            for path, start, stop in zip(paths, starts, stops, strict=True)
        ]

    def _read_open(self, filesystem: Any, path: str, start: int, stop: int | None) -> bytes | Exception:
        try:
            with self._turn, filesystem.open(path, "rb") as file:
                data = _read_file(file, start, stop)
        except Exception as error:
            return error
        return data

    def _whole(self, key: Key, answer: bytes | Exception) -> bytes | None:
        if not isinstance(answer, Exception):
            return bytes(answer)
        if isinstance(answer, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            return None
        # No server gives a range of an empty object, and to some the name of a folder is an error.
        size = self._size_after(answer, key)
        if size:
            raise self._failure(answer, f"read '{key}' from") from cause(answer, self._url)
        return None if size is None else b""

    def _bounds(self, part: Span | Tail) -> tuple[int, int | None]:
        """Start and stop as the driver takes them; parts that no request can ask for are settled by the size."""
        match part:
            case Tail(_, length) if length > 0 and self._scheme in _SUFFIXES:
                return -length, None
            case Span(_, start, stop) if 0 <= start < stop:
                return start, stop
            case _:
                extent(part, 1 << 62)  # what runs backwards is refused before anything is asked
                return extent(part, self._known_size(part.key))

    def _part(self, part: Span | Tail, bounds: tuple[int, int | None], answer: bytes | Exception) -> bytes:
        start, stop = bounds
        if start == stop:
            return b""
        if isinstance(answer, FileNotFoundError | IsADirectoryError | NotADirectoryError):
            raise self._missing(part.key) from cause(answer, self._url)
        if isinstance(answer, Exception):
            return self._refused(part, answer)
        if stop is None:
            return bytes(answer)[start:]  # the tail, also where a server sent all of it
        if len(answer) > stop - start:
            answer = answer[start:stop]  # a server that does not know ranges sent all of it
        if len(answer) < stop - start:
            extent(part, self._known_size(part.key))
            raise arrived_short(part.key, len(answer), stop - start, self.describe())
        return bytes(answer)

    def _refused(self, part: Span | Tail, error: Exception) -> bytes:
        """After an error: what it means where the object is absent or too short, else the error."""
        size = self._size_after(error, part.key)
        if size is None:
            raise self._missing(part.key) from cause(error, self._url)
        start, stop = extent(part, size)
        if start < stop:
            raise self._failure(error, f"read '{part.key}' from") from cause(error, self._url)
        return b""

    def _size_after(self, error: Exception, key: Key) -> int | None:
        """The size of an object of which a read failed; the failure itself where that cannot be learned.

        A refusal stays one, and so does silence: neither proves that an object is absent, though drivers say so.
        """
        told = self._failure(error, f"read '{key}' from")
        if isinstance(told, AccessDenied | StoreUnreachable):
            raise told from cause(error, self._url)
        try:
            return self._size(self._path(key))
        except Exception as second:
            raise told from cause(second, self._url)

    def _known_size(self, key: Key) -> int:
        try:
            size = self._size(self._path(key))
        except Exception as error:
            raise self._failure(error, f"read the size of '{key}' in") from cause(error, self._url)
        if size is None:
            raise self._missing(key)
        return size

    def _missing(self, key: Key) -> ObjectMissing:
        return object_missing(key, self.describe())

    def _size(self, path: str) -> int | None:
        """The size of an object; None where there is none. Errors are the driver's own."""
        filesystem = self._fs
        try:
            with self._turn:
                filesystem.invalidate_cache()
                info = filesystem.info(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        size: int | None = info.get("size") if info.get("type") == "file" else None
        return size

    def _is_object(self, path: str) -> bool:
        return self._scheme in _DECIDED_FAR_AWAY or self._size(path) is not None

    # Writing

    def _delete(self, path: str) -> None:
        try:
            with self._turn:
                if self._is_object(path):
                    self._fs.rm_file(path)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return
        except Exception as error:
            raise self._failure(error, "delete objects of") from cause(error, self._url)

    def _require_writable(self, doing: str) -> None:
        if self._scheme in WEB:
            raise StoreReadOnly(f"Cannot {doing}: {self.describe()} can only be read.", "Write where it is kept.")

    def _require_decided(self, doing: str) -> None:
        if not (self._is_shared or self._single_writer):
            raise StoreLacksCreateIfAbsent(
                f"Cannot {doing}: {self._scheme}:// storages cannot keep two writers apart.",
                "Reading is safe. If you are its only writer, say so with DATASET_STORE_SINGLE_WRITER=1.",
            )

    def _write(self, path: str, data: bytes) -> None:
        """Write a whole object under a name that holds none, or holds this."""
        if self._is_shared:
            self._fs.pipe_file(path, data, **self._one_request(len(data)))
            return
        # No key has a '~', so no reader asks for the half of an object.
        beside = f"{path}~{os.urandom(8).hex()}"
        filesystem = self._fs
        with self._turn:
            self._make_folder(path.rpartition("/")[0])
            with filesystem.open(beside, "wb") as file:
                if hasattr(file, "set_pipelined"):
                    file.set_pipelined(True)  # sftp: sends on without waiting for each piece's answer
                file.write(data)
            if self._size(beside) != len(data):
                raise OSError(errno.EIO, "it did not arrive whole")
            filesystem.mv(beside, path)

    def _make_folder(self, folder: str) -> None:
        if folder not in self._folders:
            self._fs.makedirs(folder, exist_ok=True)
            self._folders.add(folder)

    def _one_request(self, size: int) -> dict[str, float]:
        """How a driver is told to send an object by one request, and to give up where that stands still.

        Its client's own time-out counts only once all was sent; until then it would wait for ever.
        """
        whole = {"chunksize": _SINGLE_PUT} if self._scheme in _SUFFIXES else {}
        return whole | ({"timeout": STALL_SECONDS + size / _SLOWEST} if self._fs.async_impl else {})

    def _create_shared(self, path: str, data: bytes) -> bool:
        try:
            if self._scheme == "memory":
                # All of its objects are in this process, and its own check and write are two steps.
                with _memory_lock:
                    self._fs.pipe_file(path, data, mode="create")
            else:
                self._fs.pipe_file(path, data, mode="create", **self._one_request(len(data)))
        except FileExistsError:
            return False
        return True

    def _create_alone(self, path: str, data: bytes) -> bool:
        with self._turn:
            if self._size(path) is not None:
                return False
            self._write(path, data)
            return True

    # Listing

    def _row(self, folder: str, path: str, info: dict[str, Any]) -> ObjectInfo | None:
        if not path.startswith(f"{folder}/") or info.get("type") != "file":
            return None
        try:
            return ObjectInfo(validate_key(path[len(self._root) + 1 :]), int(info["size"]), _modified(info))
        except InvalidRequest:
            return None


def _read_file(file: Any, start: int, stop: int | None) -> bytes:
    """Bytes of an open file; sftp's asks for all pieces at once where it can, not for one after another."""
    if stop is not None and hasattr(file, "readv"):
        length = min(stop, file.stat().st_size) - start
        return b"".join(file.readv([(start, length)])) if length > 0 else b""
    if stop is None and hasattr(file, "prefetch"):
        file.prefetch()
    file.seek(start)
    data: bytes = file.read() if stop is None else file.read(stop - start)
    return data


def _modified(info: dict[str, Any]) -> float:
    """When a driver says that an object was written, in seconds since 1970; 0 where it says nothing that is known."""
    for name in ("LastModified", "last_modified", "mtime", "created"):
        told = info.get(name)
        if isinstance(told, datetime):
            return told.timestamp()
        if isinstance(told, int | float):
            return float(told)
    return 0.0
