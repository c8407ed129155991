"""The catalog on this machine: the log objects read so far, kept in a file, and the fold of them, kept in another.

The first file is a prefix of the log, one record after another (u32 length, then the whole object), perhaps with a
torn end. What does not follow the store's config, record by record, is not used and gives way to what does; so
a file of another store, a torn or rotten one, or none costs requests and nothing else. Several processes may
use one file: what one appends is what every other would have appended there.

The second file is the state that the first entries amount to, as a base of `Catalog`: where it is of this log, and
whole, only what came after it is folded. It is replaced when that has become much, so that opening a catalog costs the
same however long its log is.

The cache is never needed: where its folder can't be read or written, everything works without. The view never
takes an entry that it did not read from the log or the cache.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from dataset_store.core.catalog import STATE, Catalog
from dataset_store.core.log_entries import MAX_ENTRY_BYTES, LogEntry
from dataset_store.errors import Corrupt, DatasetStoreError, FormatTooNew
from dataset_store.storage.log import Log
from dataset_store.storage.log_reader import LogRecord, Position, chained
from dataset_store.storage.sorted_file import SortedFile, write_sorted

__all__ = ["CatalogCache", "CatalogView"]

_LENGTH: Final = struct.Struct("<I")
_FILE: Final = "catalog.records"
_FOLD: Final = "catalog.fold"
_LOOKED: Final = "catalog.looked"
_FLUSH: Final = 4096
"""Entries after which what was read is written, so that a long first read that is broken off is not lost."""

_FOLD_AFTER: Final = 128
"""Entries behind the kept fold after which it is made anew; or a share of all, if that is more."""

_FOLD_SHARE: Final = 64


class _About(Struct, array_like=True, frozen=True):
    """What a kept fold is: its `STATE`, the log's start, where it ends, and where in the file of records that is."""

    state: int
    start: str
    end: Position
    records: int


class Kept(Struct, frozen=True):
    """A catalog and the position up to which it is folded."""

    catalog: Catalog
    position: Position


class CatalogCache:
    """The file of log objects in one folder.

    Args:
        folder: A folder for this one store; it is made when there is something to write.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._path = os.path.join(folder, _FILE)
        self._fold_path = os.path.join(folder, _FOLD)
        self._end = 0  # bytes of the file that this object has read or written
        self._folded = 0  # entries that the kept fold has
        self._usable = True

    def looked(self) -> int | None:
        """The slot behind which this machine has looked last; None where it is not known."""
        with suppress(OSError, ValueError), open(os.path.join(self._folder, _LOOKED), "rb") as file:
            return int(file.read(20))
        return None

    def note_look(self, slot: int) -> None:
        """Remember behind which slot this machine has looked."""
        with suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            with replacing(os.path.join(self._folder, _LOOKED)) as file:
                file.write(b"%d" % slot)

    def fold(self, start: Position) -> Kept:
        """The kept fold of the log that begins so; an empty one where none can be used. `load` goes on from there."""
        self._end = 0
        try:
            base = SortedFile(self._fold_path)
            about = msgspec.msgpack.decode(base.about, type=_About)
            is_ours = (about.state, about.start) == (STATE, start.prev)
            if is_ours and os.stat(self._path).st_size >= about.records:
                kept = Kept(Catalog(base=base, head=about.end.slot), about.end)
                self._end, self._folded = about.records, about.end.slot
                return kept
        except (OSError, Corrupt, msgspec.MsgspecError):
            pass
        self._folded = 0
        return Kept(Catalog(), start)

    def keep_fold(self, start: Position, kept: Kept) -> None:
        """Keep the state of all entries that were loaded and appended, if there are many that no fold has."""
        behind = kept.position.slot - self._folded
        if behind < max(_FOLD_AFTER, kept.position.slot // _FOLD_SHARE) or not self._usable:
            return
        about = _About(STATE, start.prev, kept.position, self._end)
        with suppress(OSError, Corrupt):  # what is damaged is told by whoever needs it
            with replacing(self._fold_path) as file:
                write_sorted(file, kept.catalog.rows(), msgspec.msgpack.encode(about))
                file.flush()
                os.fsync(file.fileno())
            self._folded = kept.position.slot

    def load(self, start: Position) -> Iterator[LogRecord]:
        """The entries in the file that follow one another from what `fold` gave, or the beginning of the log."""
        try:
            with open(self._path, "rb") as file:
                file.seek(self._end)
                data = file.read()
        except OSError:
            data = b""
        position = start
        for each in _objects(data):
            try:
                record = chained(position, each, self._path)
            except (Corrupt, FormatTooNew):
                return
            position = record.after
            self._end += _LENGTH.size + len(each)
            yield record

    def append(self, records: Sequence[LogRecord]) -> None:
        """Keep the entries that follow those loaded and appended so far; whatever else stands there goes."""
        if not self._usable or not records:
            return
        wanted = b"".join(_LENGTH.pack(len(record.data)) + record.data for record in records)
        try:
            self._append(wanted)
        except OSError:
            self._usable = False

    def _append(self, wanted: bytes) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._place(file, wanted)
        finally:
            os.close(file)

    def _place(self, file: int, wanted: bytes) -> None:
        """Make `wanted` stand at the end of what this object knows; another process may have put it there."""
        if os.fstat(file).st_size < self._end:
            self._usable = False  # another process began anew: what is known here no longer says where to write
            return
        if _pread(file, len(wanted), self._end) != wanted:
            os.ftruncate(file, self._end)
            _pwrite(file, wanted, self._end)
        self._end += len(wanted)


class _NothingToDo(DatasetStoreError):
    """Gives a commit up."""


class CatalogView:
    """The fold of a store's catalog, brought up to date by reading the log forward.

    Opening one folds what the cache holds and sends no request. Safe to use from several threads: one at a time
    changes the state, and queries of `catalog` answer from before or after a change.

    Args:
        log: The catalog.
        cache: Where to keep what was read, if anywhere.
    """

    def __init__(self, log: Log, cache: CatalogCache | None = None) -> None:
        self._log = log
        self._cache = cache
        kept = cache.fold(log.start) if cache else Kept(Catalog(), log.start)
        self._catalog, self._position = kept.catalog, kept.position
        self._lock = threading.RLock()
        if cache is not None:
            self._fold(cache.load(self._position))
            self._keep_fold()

    @property
    def catalog(self) -> Catalog:
        """The state as of `position`."""
        return self._catalog

    @property
    def position(self) -> Position:
        """The position up to which the log was read."""
        return self._position

    def refresh(self) -> int:
        """Read the log to its end; one request where nothing is new.

        Returns:
            How many entries were new.

        Raises:
            Exception: As `Log.read_after`; the state is then that of the entries read before.
        """
        with self._lock:
            before = self._position.slot
            self.take(self._log.read_after(self._position))
            return self._position.slot - before

    def require_standing(self) -> None:
        """See that the log still holds the last entry that was read, now or by an earlier process; one request.

        Raises:
            HistoryRewound: It does not: an older copy of the log was put back, or another log in its place.
        """
        self._log.require_standing(self._position)

    def commit(self, make_entry: Callable[[Catalog], LogEntry]) -> LogRecord:
        """Append the entry that follows from the state; see `Log.commit`."""
        with self._lock:
            return self._log.commit(make_entry, self)

    def change(self, make: Callable[[Catalog, str], LogEntry | None], commit: str | None = None) -> LogRecord | None:
        """Append what `make` gives for the state before the slot, and a commit id; None where that is nothing.

        Args:
            make: Asked anew whenever another entry came first; what it raises, or None, counts only in the state at
                the end of the log.
            commit: The commit id of an intention that others may have as well: where it stands already, nothing is
                done; by default a fresh one.

        Raises:
            Exception: As `Log.commit`.
        """
        commit_id = commit or os.urandom(16).hex()
        sent: list[LogEntry] = []

        def entry(catalog: Catalog) -> LogEntry:
            # Once the commit stands it is the entry that was sent, whatever would be made of the state now.
            if catalog.slot_of(commit_id) is None:
                made = make(catalog, commit_id)
                if made is None:
                    raise _NothingToDo("There is nothing to change.")
                sent.append(made)
            elif not sent:
                raise _NothingToDo("That was done before.")
            return sent[-1]

        try:
            return self.commit(entry)
        except _NothingToDo:
            return None

    def take(self, records: Iterable[LogRecord]) -> None:
        """Fold in the entries that follow, in order, and keep them in the cache."""
        with self._lock:
            following = iter(records)
            while self._take_some(following):
                pass
            self._keep_fold()

    def _take_some(self, records: Iterator[LogRecord]) -> int:
        """Take up to `_FLUSH` entries; those that came before an error are taken too."""
        taken: list[LogRecord] = []
        try:
            for record in islice(records, _FLUSH):
                self._fold([record])
                taken.append(record)
        finally:
            if self._cache is not None:
                self._cache.append(taken)
        return len(taken)

    def _keep_fold(self) -> None:
        if self._cache is not None:
            self._cache.keep_fold(self._log.start, Kept(self._catalog, self._position))

    def _fold(self, records: Iterable[LogRecord]) -> None:
        for record in records:
            self._catalog.apply(record.slot, record.entry)
            self._position = record.after


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A new file, for nobody else to read, that takes the place of another when it is whole."""
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _objects(data: bytes) -> Iterator[bytes]:
    """The objects of whole records, as far as the lengths can be true."""
    start = 0
    while start + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size + length
        if length > MAX_ENTRY_BYTES or start > len(data):
            return
        yield data[start - length : start]


def _pread(file: int, length: int, start: int) -> bytes:
    """Up to `length` bytes of a file, fewer only at its end."""
    pieces: list[bytes] = []
    while length and (piece := os.pread(file, length, start)):
        pieces.append(piece)
        start += len(piece)
        length -= len(piece)
    return b"".join(pieces)


def _pwrite(file: int, data: bytes, start: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, start)
        view = view[written:]
        start += written
