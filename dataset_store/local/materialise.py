"""Turning entries into a folder: linked or cloned from seeds where bytes are on this machine, fetched where not.

Every chunk that is written here is hashed before its file is finished, and the folder is private until its owner
renames it, so wrong bytes never come under a user's path. Work goes to a few threads in units of some MiB; memory is
bounded by the units in flight.

Where stored bytes come from is a port: a function from places to stored bytes, safe to call from several threads.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from threading import Event, Lock, local
from typing import Protocol

from dataset_store.core.arrays import Bool, Rows, np
from dataset_store.core.digest import hash32, rows_digest
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, ONE_CHUNK, Entries
from dataset_store.core.frames import NEXT_STEP, Frame, FrameCodec, whole_frames
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.paths import PathKey, to_text
from dataset_store.core.segments import Segment, segments_of
from dataset_store.errors import CorruptObject, UnsupportedFileType
from dataset_store.local.folder_writer import FolderWriter

__all__ = ["Progress", "StoredFrames", "materialise"]


class StoredFrames(Protocol):
    """Where stored frames are read, wherever they are now. Every place is of whole frames."""

    @property
    def at_once(self) -> int:
        """How many large reads are worth having under way together."""

    def read_ranges(self, places: Sequence[Place]) -> Iterator[memoryview]:
        """The stored bytes of each place, in the order asked."""

    def read_run(self, place: Place, piece_bytes: int) -> Iterator[memoryview]:
        """The stored bytes of one run of frames, at most so many at once."""


Reuse = Callable[[int, Segment, int, int], bool]
"""Fills one segment of a row into an open file at an offset from bytes on this machine; whether it did."""

Progress = Callable[[int, int], object]
"""Told of files and bytes finished since the last call; called from several threads."""

External = Callable[[int, Callable[[bytes], object]], None]
"""Hands the bytes of the file that an external link leads to, a row of the entries, to a writer piece by piece, and
raises where they turn out not to be what was linked; called from several threads."""


def _no_external(_row: int, _write: Callable[[bytes], object]) -> None:
    raise UnsupportedFileType("There are external links, and nobody to fetch them.", "Say how to fetch them.")


_UNIT_BYTES = 4 * 2**20
_UNIT_FILES = 4_096
_EXTERNAL_AT_ONCE = 16
_READ_BYTES = 8 * 2**20


class _Codecs(local):
    """A codec for each thread."""

    def __init__(self) -> None:
        self.codec = FrameCodec()


def materialise(
    entries: Entries,
    writer: FolderWriter,
    stored: StoredFrames,
    *,
    done: Bool,
    external: External = _no_external,
    reuse: Reuse = lambda _row, _segment, _opened, _target: False,
    progress: Progress = lambda _files, _bytes: None,
) -> None:
    """Write the entries that are not done yet into a fresh private folder.

    Args:
        entries: Rows with all their segments (lists expanded).
        writer: The folder.
        stored: Where stored frames are read.
        done: Rows that are there already, such as links to seeds; shape (n,).
        external: Hands over the files that external links lead to.
        reuse: Asked for each segment of a file of several chunks before it is fetched.
        progress: Told of what was finished.

    Raises:
        CorruptObject: Stored bytes are not what the entries say. The folder must be thrown away.
        ObjectMissing: A pack is not there.
        DiskFull, AccessDenied, StorageFailed: The disk refused.
    """
    kinds = entries.kinds & KIND_BITS
    for row in np.flatnonzero((kinds == Kind.DIRECTORY) & ~done).tolist():
        writer.make_directory(entries.keys[row])
    files = (kinds == Kind.FILE) & ~done
    _write_empty(entries, writer, np.flatnonzero(files & (entries.sizes == 0)))
    copier = _Copier(entries, writer, stored, reuse, progress)
    one_chunk = (entries.kinds & ONE_CHUNK) != 0
    workers = max(stored.at_once, min(4, os.cpu_count() or 1))
    try:
        with ThreadPoolExecutor(workers) as pool:
            jobs = _jobs(copier, entries, np.flatnonzero(files & one_chunk), np.flatnonzero(files & ~one_chunk))
            _run(pool, jobs, 2 * workers, copier.stop)
    finally:
        copier.give_up()
    _fetch_external(entries, copier, np.flatnonzero((kinds == Kind.EXTERNAL) & ~done), external)
    _write_links(entries, copier, writer, np.flatnonzero((kinds == Kind.SYMLINK) & ~done))


def _run(pool: ThreadPoolExecutor, jobs: Iterable[Callable[[], object]], window: int, stop: Event) -> None:
    """Run jobs with at most `window` of them waiting or running; the first error, or Ctrl-C, ends all."""
    waiting: deque[Future[object]] = deque()
    try:
        for job in jobs:
            if len(waiting) >= window:
                waiting.popleft().result()
            waiting.append(pool.submit(_stopping, job, stop))
        while waiting:
            waiting.popleft().result()
    except _Stopped:
        # One that comes later in the queue has failed, and stopped this one.
        wait(waiting)
        errors = (future.exception() for future in waiting)
        raise next(error for error in errors if error is not None and not isinstance(error, _Stopped)) from None
    except BaseException:
        stop.set()
        for future in waiting:
            future.cancel()
        raise


def _stopping(job: Callable[[], object], stop: Event) -> None:
    """Run a job, unless another has failed; when it fails, the others end too."""
    if stop.is_set():
        raise _Stopped
    try:
        job()
    except BaseException:
        stop.set()
        raise


def _jobs(copier: "_Copier", entries: Entries, small: Rows, large: Rows) -> Iterator[Callable[[], object]]:
    for rows in _units(entries, small):
        yield partial(copier.copy_small, rows)
    for row in large.tolist():
        if entries.sizes[row]:
            file = _LargeFile(copier, row)
            target = 0
            for segment in file.segments:
                yield partial(file.copy, segment, target)
                target += segment.plain_length


def _units(entries: Entries, rows: Rows) -> Iterator[list[int]]:
    """One-chunk files by place, in units of some MiB of plain bytes; one frame's files stay together."""
    segments = entries.segments
    firsts = entries.segment_ends[rows] - 1
    order = np.lexsort((segments.plain_offset[firsts], segments.offset[firsts], segments.pack[firsts]))
    rows = rows[order]
    firsts = firsts[order]
    places = segments.pack[firsts].astype(np.int64) << 32 | segments.offset[firsts]
    total = np.cumsum(entries.sizes[rows])
    start = 0
    while start < len(rows):
        limit = int(total[start]) + _UNIT_BYTES
        stop = min(max(start + 1, int(np.searchsorted(total, limit))), start + _UNIT_FILES)
        while stop < len(rows) and places[stop] == places[stop - 1]:
            stop += 1
        yield rows[start:stop].tolist()
        start = stop


def _write_empty(entries: Entries, writer: FolderWriter, rows: Rows) -> None:
    chosen = rows.tolist()
    writer.write_small(
        [entries.keys[row] for row in chosen],
        [b""] * len(chosen),
        _executable(entries, chosen),
        entries.mtimes[rows].tolist(),
    )


def _write_links(entries: Entries, copier: "_Copier", writer: FolderWriter, rows: Rows) -> None:
    targets: dict[int, bytes] = {}
    for unit in _units(entries, rows):
        targets.update((row, bytes(content)) for row, content in copier.contents(unit).items())
    chosen = rows.tolist()
    writer.symlinks([entries.keys[row] for row in chosen], [targets[row] for row in chosen])


def _executable(entries: Entries, rows: Sequence[int]) -> list[bool]:
    return [bool(entries.kinds[row] & EXECUTABLE) for row in rows]


def _fetch_external(entries: Entries, copier: "_Copier", rows: Rows, external: External) -> None:
    if len(rows):
        with ThreadPoolExecutor(_EXTERNAL_AT_ONCE) as pool:
            jobs = (partial(copier.copy_external, row, external) for row in rows.tolist())
            _run(pool, jobs, 2 * _EXTERNAL_AT_ONCE, copier.stop)


class _Stopped(Exception):
    """Ends a unit of work whose outcome nobody waits for any more."""


class _Copier:
    """Fetches, checks and writes; each method is one unit of work and may run in any thread.

    Once `stop` is set, units that run end at the next piece.
    """

    def __init__(
        self, entries: Entries, writer: FolderWriter, stored: StoredFrames, reuse: Reuse, progress: Progress
    ) -> None:
        self.entries = entries
        self.writer = writer
        self.stored = stored
        self.reuse = reuse
        self.progress = progress
        self.threads = _Codecs()
        self.stop = Event()
        self.open: set[_LargeFile] = set()
        """Files of several chunks that were begun and are not whole yet."""

    def give_up(self) -> None:
        """Close what is not whole; what a thread is still at, that closes."""
        for file in list(self.open):
            file.give_up()

    def require_wanted(self) -> None:
        if self.stop.is_set():
            raise _Stopped

    def contents(self, rows: Sequence[int]) -> dict[int, memoryview]:
        """The checked contents of one-chunk entries; each frame is read and decoded once."""
        segments = self.entries.segments
        at = self.entries.segment_ends[rows] - 1
        names = (segments.pack, segments.offset, segments.stored, segments.plain_offset, segments.plain_length)
        columns = zip(rows, *(column[at].tolist() for column in names), strict=True)
        by_frame: defaultdict[tuple[int, int, int], list[tuple[int, int, int]]] = defaultdict(list)
        for row, pack, offset, stored, start, length in columns:
            by_frame[pack, offset, stored].append((row, start, start + length))
        places = [Place(segments.packs[pack], offset, stored, 0) for pack, offset, stored in by_frame]
        found: dict[int, memoryview] = {}
        for place, pieces, data in zip(places, by_frame.values(), self.stored.read_ranges(places), strict=True):
            plain = self.threads.codec.decode_frame(data, what=_named(place.pack, place.offset)).plain
            for row, start, stop in pieces:
                found[row] = content = plain[start:stop]
                if hash32(content) != self.entries.content_ids[row].tobytes():
                    raise self._wrong(row, place)
        return found

    def copy_small(self, rows: Sequence[int]) -> None:
        """Write one-chunk files."""
        contents = self.contents(rows)
        ordered = sorted(rows)
        self.writer.write_small(
            [self.entries.keys[row] for row in ordered],
            [contents[row] for row in ordered],
            _executable(self.entries, ordered),
            self.entries.mtimes[ordered].tolist(),
        )
        self.progress(len(ordered), int(self.entries.sizes[ordered].sum()))

    def copy_external(self, row: int, external: External) -> None:
        """Write the file that an external link leads to."""
        key: PathKey = self.entries.keys[row]
        with self.writer.writing(key, executable=False, mtime_ns=int(self.entries.mtimes[row])) as write:

            def take(piece: bytes) -> None:
                self.require_wanted()
                write(piece)
                self.progress(0, len(piece))

            external(row, take)
        self.progress(1, 0)

    def copy_segment(self, row: int, segment: Segment, opened: int, target: int) -> None:
        """Write one segment into an open private file; its rows are checked when all of it was seen."""
        key = self.entries.keys[row]
        ids: list[bytes] = []
        lengths: list[int] = []
        skip, left = segment.plain_offset, segment.plain_length
        for frame in self._frames(segment):
            start, stop = min(skip, len(frame.plain)), min(skip + left, len(frame.plain))
            chunks = frame.chunks_between(start, stop)
            ids += map(hash32, chunks)
            lengths += map(len, chunks)
            self.writer.write_at(opened, key, frame.plain[start:stop], target)
            target += stop - start
            skip, left = skip - start, left - sum(map(len, chunks))
        if left or rows_digest(ids, lengths) != segment.digest:
            raise self._wrong(row, segment)

    def _frames(self, segment: Segment) -> Iterator[Frame]:
        """The frames of a segment, read some MiB at a time."""
        what = _named(segment.pack, segment.offset)
        for data in whole_frames(self.stored.read_run(segment.place, _READ_BYTES), what=what):
            self.require_wanted()
            yield self.threads.codec.decode_frame(data, what=what)

    def _wrong(self, row: int, where: Segment | Place) -> CorruptObject:
        return CorruptObject(
            f"The bytes of {to_text(self.entries.keys[row])!r} at {where.offset} of pack "
            f"{where.pack.name.hex()} are not what the version says.",
            NEXT_STEP,
        )


class _LargeFile:
    """A file of several chunks. Each of its segments is one unit of work; the first opens it and the last closes it.

    Nobody closes a descriptor that another thread may write to: its number could be that of another file by then.
    """

    def __init__(self, copier: _Copier, row: int) -> None:
        self.copier = copier
        self.row = row
        self.segments = list(segments_of(copier.entries, row))
        self.left = len(self.segments)
        self.users = 0
        self.given_up = False
        self.opened: int | None = None
        self.lock = Lock()

    def copy(self, segment: Segment, target: int) -> None:
        """Write one segment at its place."""
        copier = self.copier
        copier.require_wanted()
        opened = self._enter()
        try:
            if not copier.reuse(self.row, segment, opened, target):
                copier.copy_segment(self.row, segment, opened, target)
            copier.progress(0, segment.plain_length)
        except BaseException:
            self._leave(done=False)
            raise
        self._leave(done=True)

    def give_up(self) -> None:
        """Close it without its time, by which whole files are known, or have the last who is at it do that."""
        with self.lock:
            self.given_up = True
            if not self.users:
                self._close_unfinished()

    def _enter(self) -> int:
        entries = self.copier.entries
        with self.lock:
            if self.given_up:
                raise _Stopped
            if self.opened is None:
                executable = bool(entries.kinds[self.row] & EXECUTABLE)
                self.opened = self.copier.writer.create_file(entries.keys[self.row], executable=executable)
                self.copier.open.add(self)
            self.users += 1
            return self.opened

    def _leave(self, *, done: bool) -> None:
        entries, opened = self.copier.entries, None
        with self.lock:
            self.users -= 1
            self.left -= done
            if not self.left:
                opened, self.opened = self.opened, None
                self.copier.open.discard(self)
            elif self.given_up and not self.users:
                self._close_unfinished()
        if opened is not None:
            self.copier.writer.close_file(opened, entries.keys[self.row], int(entries.mtimes[self.row]))
            self.copier.progress(1, 0)

    def _close_unfinished(self) -> None:
        if self.opened is not None:
            os.close(self.opened)
            self.opened = None
            self.copier.open.discard(self)


def _named(pack: PackRef, offset: int) -> str:
    return f"The frame at {offset} of pack {pack.name.hex()}"
