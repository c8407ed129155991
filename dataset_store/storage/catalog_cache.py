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
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice, takewhile
from typing import BinaryIO, Final

import msgspec
from msgspec import Struct

from dataset_store.core.catalog import STATE, Catalog
from dataset_store.core.log_entries import MAX_ENTRY_BYTES, LogEntry
from dataset_store.core.tables import Row
from dataset_store.errors import Corrupt, CorruptObject, DatasetStoreError, FormatTooNew
from dataset_store.storage.log import Log
from dataset_store.storage.log_reader import LogRecord, Position, chained
from dataset_store.storage.sorted_file import SortedFile, write_sorted

__all__ = ["CatalogCache", "CatalogView"]

_LENGTH: Final = struct.Struct("<I")
_FILE: Final = "catalog.records"
_FOLD: Final = f"catalog.{STATE}.fold"
"""Two versions of the package that keep different states leave each other's alone."""

_LOOKED: Final = "catalog.looked"
_FLUSH: Final = 4096
"""Entries after which what was read is written, so that a long first read that is broken off is not lost."""

_FOLD_AFTER: Final = 128
"""Entries behind the kept fold after which it is made anew; or a share of all, if that is more."""

_FOLD_SHARE: Final = 64
_HOUR: Final = 3_600


class _About(Struct, array_like=True, frozen=True):
    """What a kept fold is: its `STATE`, the log's start, where it ends, and where in the file of records that is."""

    state: int
    start: str
    end: Position
    records: int


class _Base:
    """The kept fold as a base. Should a part of it turn out damaged, it is made anew of the records, in memory.

    Args:
        file: The fold.
        refold: Gives the same rows in another way.
    """

    def __init__(self, file: SortedFile, refold: Callable[[], Iterator[Row]]) -> None:
        self._file = file
        self._refold = refold
        self._rows: list[Row] | None = None
        self._lock = threading.Lock()

    def get(self, key: bytes) -> bytes | None:
        if self._rows is None:
            with suppress(Corrupt):
                return self._file.get(key)
        return next((value for found, value in self._anew(key) if found == key), None)

    def scan(self, prefix: bytes, *, backwards: bool = False) -> Iterator[Row]:
        last: bytes | None = None
        if self._rows is None:
            with suppress(Corrupt):
                for row in self._file.scan(prefix, backwards=backwards):
                    last = row[0]
                    yield row
                return
        rows = self._anew(prefix)
        for row in reversed(rows) if backwards else rows:
            if last is None or (row[0] < last if backwards else row[0] > last):
                yield row

    def _anew(self, prefix: bytes) -> list[Row]:
        """The rows that begin so."""
        with self._lock:
            if self._rows is None:
                self._rows = list(self._refold())
        start = bisect_left(self._rows, (prefix, b""))
        return list(takewhile(lambda row: row[0].startswith(prefix), islice(self._rows, start, None)))


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
        self._end = self._folded = 0
        found = self._fold_of(start)
        if found is None:
            return Kept(Catalog(), start)
        file, about = found
        kept = Kept(Catalog(base=_Base(file, partial(self._refold, start, about)), head=about.end.slot), about.end)
        self._end, self._folded = about.records, about.end.slot
        return kept

    def _fold_of(self, start: Position) -> tuple[SortedFile, _About] | None:
        """The kept fold, if it is of this log and state, and its records are there."""
        try:
            file = SortedFile(self._fold_path)
            about = msgspec.msgpack.decode(file.about, type=_About)
            has_records = os.stat(self._path).st_size >= about.records
        except (OSError, Corrupt, msgspec.MsgspecError):
            return None
        is_ours = (about.state, about.start) == (STATE, start.prev)
        return (file, about) if is_ours and has_records else None

    def _refold(self, start: Position, about: _About) -> Iterator[Row]:
        """The rows of a kept fold that turned out damaged, by its records.

        Raises:
            CorruptObject: They are damaged too.
        """
        catalog, position = Catalog(), start
        for record in _records(self._path, start, 0, about.records):
            catalog.apply(record.slot, record.entry)
            position = record.after
        if position != about.end:
            raise CorruptObject(
                f"What this machine keeps of the log, in {self._path!r}, is damaged.",
                "Nothing in the store is: delete that folder and run it again.",
            )
        return catalog.rows()

    def keep_fold(self, start: Position, kept: Kept) -> None:
        """Keep the state of all entries that were loaded and appended, if there are many that no fold has."""
        behind = kept.position.slot - self._folded
        if behind < max(_FOLD_AFTER, kept.position.slot // _FOLD_SHARE) or not self._usable:
            return
        self._folded = kept.position.slot  # also where it can't be written: then after as many entries again
        found = self._fold_of(start)
        if found is not None and found[1].end.slot >= kept.position.slot:
            return
        about = _About(STATE, start.prev, kept.position, self._end)
        with suppress(OSError, Corrupt):  # what is damaged is told by whoever needs it
            self._remove_unfinished()
            with replacing(self._fold_path) as file:
                write_sorted(file, kept.catalog.rows(), msgspec.msgpack.encode(about))
                file.flush()
                os.fsync(file.fileno())

    def _remove_unfinished(self) -> None:
        """Remove what killed processes left of folds; nobody takes an hour to write one."""
        for one in os.scandir(self._folder):
            if one.name.startswith(f"{os.path.basename(self._fold_path)}."):
                with suppress(OSError):
                    if one.stat().st_mtime < time.time() - _HOUR:
                        os.unlink(one.path)

    def load(self, start: Position) -> Iterator[LogRecord]:
        """The entries in the file that follow one another from what `fold` gave, or the beginning of the log."""
        for record in _records(self._path, start, self._end):
            self._end += _LENGTH.size + len(record.data)
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
        self._lock = threading.RLock()
        self._catalog: Catalog
        self._position: Position
        self._whole = False
        self._open()

    @property
    def catalog(self) -> Catalog:
        """The state as of `position`."""
        self._open()
        return self._catalog

    @property
    def position(self) -> Position:
        """The position up to which the log was read."""
        self._open()
        return self._position

    def refresh(self) -> int:
        """Read the log to its end; one request where nothing is new.

        Returns:
            How many entries were new.

        Raises:
            Exception: As `Log.read_after`; the state is then that of the entries read before.
        """
        with self._lock:
            begun = self.position
            self.take(self._log.read_after(begun))
            return self._position.slot - begun.slot

    def require_standing(self) -> None:
        """See that the log still holds the last entry that was read, now or by an earlier process; one request.

        Raises:
            HistoryRewound: It does not: an older copy of the log was put back, or another log in its place.
        """
        self._log.require_standing(self.position)

    def commit(self, make_entry: Callable[[Catalog], LogEntry]) -> LogRecord:
        """Append the entry that follows from the state; see `Log.commit`."""
        with self._lock:
            self._open()
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
            self._open()
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

    def _open(self) -> None:
        """Begin with what the cache has, also where Ctrl-C came into the middle of an entry: half of it is no state."""
        if not self._whole:
            with self._lock:
                self._begin()

    def _begin(self) -> None:
        if self._whole:
            return  # another thread was at it
        kept = self._cache.fold(self._log.start) if self._cache else Kept(Catalog(), self._log.start)
        self._catalog, self._position = kept.catalog, kept.position
        self._whole = True
        if self._cache is not None:
            self._fold(self._cache.load(self._position))
            self._keep_fold()

    def _fold(self, records: Iterable[LogRecord]) -> None:
        for record in records:
            self._whole = False
            self._catalog.apply(record.slot, record.entry)
            self._position = record.after
            self._whole = True


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


def _records(path: str, position: Position, start: int, stop: int | None = None) -> Iterator[LogRecord]:
    """The entries in a range of the file of records that follow one another from a position on."""
    try:
        with open(path, "rb") as file:
            file.seek(start)
            data = file.read() if stop is None else file.read(stop - start)
    except OSError:
        return
    for each in _objects(data):
        try:
            record = chained(position, each, path)
        except (Corrupt, FormatTooNew):
            return
        position = record.after
        yield record


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
