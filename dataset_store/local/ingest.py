"""Packing: files in, frames out, in the order of the files, with only what is not stored yet.

Promises:

- A file is complete only when all its bytes had the content id that was expected, so what is stored is what was
  added; a file changed since is FileChanged, and no unit that completes it is ever yielded. Of a file that nobody has
  read yet the content id is that of the very bytes that were cut, and the file was neither changed since it was found
  nor while it was read, as far as its stat tells.
- Units come in the order of the sources. Within one, the block of the short files comes first.
- In each 4 MiB of a file, and with 8 more in the first, at most 8 reused runs are short ones that touch what is
  stored anew or each other: deduplication that would shred a file is refused (`core.segments.bounded_reuse`).
- Memory: at most 24 MiB of files in flight, 4 MiB more being read, and what these encode to, whatever the sizes.

Reading and cutting a long file happens in the calling thread, its whole hash in one more, and the hashing, lookup
and compression of its pieces in a pool; everything else in the pool. A source that changed is noticed at its end:
frames yielded before belong to no file then, which does no harm but the space.

This module never writes, and never knows in which pack a frame ends up: the caller places frames and hands the
places to a `SegmentAssembler`.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate, pairwise
from typing import Final, NamedTuple, Self

from blake3 import blake3
from msgspec import Struct, field

from dataset_store.core.arrays import np
from dataset_store.core.chunking import ChunkerParams, cut_ends
from dataset_store.core.digest import ChunkId, ContentId
from dataset_store.core.frames import PLAIN_LIMITS, EncodedFrame, FrameCodec, FrameKind
from dataset_store.core.packfile import Place
from dataset_store.core.segments import ChunkHit, FileSegments, SegmentBuilder, bounded_reuse
from dataset_store.errors import FileChanged
from dataset_store.local.batches import read_unchanged
from dataset_store.local.os_errors import ADD_AGAIN, file_changed, reading_error
from dataset_store.local.reading import READ_SIZE, FileStat, default_workers, fill, open_regular

__all__ = [
    "FIRST_RUNS",
    "RUNS_PER_READ",
    "Block",
    "ChunkLookup",
    "Ingested",
    "Piece",
    "ReadFile",
    "SegmentAssembler",
    "SourceFile",
    "ingest",
]

ChunkLookup = Callable[[Sequence[ChunkId]], Sequence[ChunkHit | None]]
"""Where chunks are stored already, for each id or None. Called by several threads, by one at a time."""

RUNS_PER_READ: Final = 8
"""The most reused runs in each 4 MiB of a file."""

FIRST_RUNS: Final = 8
"""So many more in the first 4 MiB: a file of a few chunks may take each from elsewhere."""

_BLOCK: Final = PLAIN_LIMITS[FrameKind.DATA]
_UNIT_FILES: Final = 4_096
_IN_FLIGHT: Final = 24 << 20  # plain bytes


class SourceFile(Struct, frozen=True):
    """One content to store.

    Attributes:
        index: The caller's number for it.
        path: Of a regular file, or of a link to one.
        size: Bytes.
        content_id: What the bytes must hash to; None of a file that nobody has read yet.
        content: The bytes themselves where they are no file's: the text of a link.
        mtime_ns: Of a file that nobody has read yet: its time of modification.
    """

    index: int
    path: bytes
    size: int
    content_id: ContentId | None
    content: bytes | None = None
    mtime_ns: int = 0


class ReadFile(NamedTuple):
    """What a source turned out to be that nobody had read: its content, and its stat before and after it was read."""

    source: int
    content_id: ContentId
    stat: FileStat


class Piece(NamedTuple):
    """One chunk of a source: in frame number `frame` of its unit, from `start` of the plain bytes on, or at `hit`."""

    source: int
    chunk_id: ChunkId
    length: int
    frame: int
    start: int
    hit: ChunkHit | None


class Block(NamedTuple):
    """Short sources, each of one chunk: all the chunks of frame number `frame` of the unit, in order."""

    frame: int
    sources: Sequence[int]


class Ingested(Struct, frozen=True):
    """One unit of work done.

    Attributes:
        frames: To be stored, in this order.
        blocks: Sources that are complete with one chunk of a frame.
        pieces: Chunks of other sources, those of each source in order.
        complete: The index of each source that has no pieces after these, those in blocks included.
        read: What those of them turned out to be that nobody had read.
        repeated: Those of which there are no pieces, as their content is stored, or is that of another source.
    """

    frames: list[EncodedFrame] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    complete: list[int] = field(default_factory=list)
    read: list[ReadFile] = field(default_factory=list)
    repeated: set[int] = field(default_factory=set)

    @property
    def plain(self) -> int:
        """Plain bytes of all that the unit tells of."""
        return sum(self.frames[block.frame].plain for block in self.blocks) + sum(one.length for one in self.pieces)


class SegmentAssembler:
    """Makes segments out of units, once their frames have places."""

    __slots__ = ("_builders",)

    def __init__(self) -> None:
        self._builders: dict[int, SegmentBuilder] = {}

    def add(self, unit: Ingested, places: Sequence[Place]) -> list[tuple[int, FileSegments]]:
        """Take the next unit, and where each of its frames is; the sources that it completes, by index."""
        builders = self._builders
        for block in unit.blocks:
            for index, chunk_id, hit in _hits_in(unit.frames[block.frame], block, places[block.frame]):
                builders[index] = SegmentBuilder()
                builders[index].add(chunk_id, hit)
        for piece in unit.pieces:
            builder = builders.get(piece.source)
            if builder is None:
                builder = builders[piece.source] = SegmentBuilder()
            builder.add(piece.chunk_id, piece.hit or _hit(piece, unit.frames, places))
        return [(index, self._finish(index)) for index in unit.complete if index not in unit.repeated]

    def _finish(self, index: int) -> FileSegments:
        builder = self._builders.pop(index, None)
        return builder.finish() if builder else FileSegments()


def _hits_in(frame: EncodedFrame, block: Block, place: Place) -> Iterator[tuple[int, ChunkId, ChunkHit]]:
    starts = accumulate(frame.lengths, initial=0)
    for index, chunk_id, length, start in zip(block.sources, frame.ids, frame.lengths, starts, strict=False):
        yield index, chunk_id, ChunkHit(place.pack, place.offset, place.stored, start, length, len(frame.ids) == 1)


def _hit(piece: Piece, frames: Sequence[EncodedFrame], places: Sequence[Place]) -> ChunkHit:
    place = places[piece.frame]
    alone = len(frames[piece.frame].ids) == 1
    return ChunkHit(place.pack, place.offset, place.stored, piece.start, piece.length, alone)


def ingest(
    sources: Iterable[SourceFile],
    params: ChunkerParams,
    lookup: ChunkLookup,
    *,
    stored: Iterable[ContentId] = (),
    workers: int | None = None,
) -> Iterator[Ingested]:
    """Read, check, cut and encode sources.

    Files of at most `params.minimum` bytes are not looked up, as their one chunk id is known beforehand, and each
    distinct content is to be given once: the caller leaves out those that are stored, and repetitions. Chunks of
    longer files that repeat within what is in flight are stored more than once. Of files that nobody has read yet, up
    to `READ_SIZE` bytes, it is found here that the content is stored, or that of a source before.

    Args:
        sources: In the order of their keys, for that is the order of frames in packs.
        params: The store's chunker.
        lookup: What is stored already. It may answer for frames of earlier units of this very call.
        stored: Contents of which nothing is to be sent.
        workers: Threads; `default_workers()` by default.

    Yields:
        Units, all sources complete by the last; empty ones without being opened.

    Raises:
        FileChanged: A source is not what was added.
        AccessDenied: A source cannot be read.
        StorageFailed: The disk or the system refused.
    """
    with _Pipeline(params, lookup, set(stored), workers or default_workers()) as pipeline:
        yield from pipeline.run(sources)


class _LongFile(Struct):
    """A file longer than one buffer while it is read: what is left of it, and the start of a chunk not yet cut."""

    source: SourceFile
    found: FileStat
    left: int
    carry: bytes = b""
    hasher: blake3 = field(default_factory=blake3)


class _Task(Struct, frozen=True):
    """A unit in flight: the plain bytes it holds, the buffer to be used again after it, and what ends a long file."""

    future: Future[Ingested]
    weight: int
    buffer: bytearray | None = None
    hashed: Future[None] | None = None
    ends: _LongFile | None = None


class _Pipeline(AbstractContextManager["_Pipeline"]):
    """The threads, buffers and codecs of one call of `ingest`."""

    def __init__(self, params: ChunkerParams, lookup: ChunkLookup, stored: set[ContentId], workers: int) -> None:
        self._params = params
        self._lookup = lookup
        self._looking = threading.Lock()
        self._seen = stored
        self._most_tasks = 2 * workers
        self._pool = ThreadPoolExecutor(workers, "ingest")
        self._hashing = ThreadPoolExecutor(1, "ingest-whole")  # one thread: updates stay in order
        self._local = threading.local()
        self._free: list[bytearray] = []

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._hashing.shutdown(cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def run(self, sources: Iterable[SourceFile]) -> Iterator[Ingested]:
        """Keep a bounded window of tasks in flight; their results in order."""
        window: deque[_Task] = deque()
        weight = 0
        for task in self._tasks(sources):
            window.append(task)
            weight += task.weight
            while len(window) >= self._most_tasks or weight > _IN_FLIGHT:
                weight -= window[0].weight
                yield self._result(window.popleft())
        while window:
            yield self._result(window.popleft())

    def _result(self, task: _Task) -> Ingested:
        unit = task.future.result()
        if task.hashed:
            task.hashed.result()
        if task.buffer is not None:
            self._free.append(task.buffer)
        if task.ends:
            self._complete(task.ends, unit)
        return unit

    @staticmethod
    def _complete(file: _LongFile, unit: Ingested) -> None:
        content_id = ContentId(file.hasher.digest())
        if file.source.content_id is None:
            unit.read.append(ReadFile(file.source.index, content_id, file.found))
        elif content_id != file.source.content_id:
            raise file_changed(file.source.path)
        unit.complete.append(file.source.index)

    def _tasks(self, sources: Iterable[SourceFile]) -> Iterator[_Task]:
        for group in _groups(sources, self._params.minimum):
            if group[0].size > READ_SIZE and group[0].content is None:
                yield from self._long_tasks(group[0])
                continue
            total = sum(source.size for source in group)
            only_short = all(source.size <= self._params.minimum for source in group)
            buffer = None if only_short else self._buffer()
            yield _Task(self._pool.submit(self._pack_group, group, buffer), total, buffer)

    def _buffer(self) -> bytearray:
        return self._free.pop() if self._free else bytearray(READ_SIZE + self._params.maximum)

    # --- long files: read and cut here, in order ---

    def _long_tasks(self, source: SourceFile) -> Iterator[_Task]:
        with _opened(source) as (opened, found):
            file = _LongFile(source, found, source.size)
            while file.left:
                yield self._next_task(opened, file)

    def _next_task(self, opened: int, file: _LongFile) -> _Task:
        source, kept = file.source, len(file.carry)
        count = min(file.left, READ_SIZE)
        runs = RUNS_PER_READ + (FIRST_RUNS if file.left == source.size else 0)
        buffer = self._buffer()
        view = memoryview(buffer)[: kept + count]
        view[:kept] = file.carry
        _read_exactly(opened, view[kept:], source.path)
        file.left -= count
        if not file.left:
            _require_unchanged(opened, source, file.found)
        hashed = self._hashing.submit(_update, file.hasher, view[kept:])
        ends = cut_ends(view, self._params, final=not file.left).tolist()
        file.carry = bytes(view[ends[-1] :])
        future = self._pool.submit(self._pack_long, source.index, _cut(view, ends), runs)
        return _Task(future, len(view), buffer, hashed, None if file.left else file)

    # --- in the pool ---

    def _pack_long(self, index: int, chunks: Sequence[memoryview], runs: int) -> Ingested:
        unit = Ingested()
        self._pack_chunks(unit, index, chunks, runs)
        return unit

    def _pack_group(self, group: Sequence[SourceFile], buffer: bytearray | None) -> Ingested:
        unit = Ingested()
        self._pack_block(unit, [source for source in group if 0 < source.size <= self._params.minimum])
        if buffer is not None:
            for source in group:
                if source.size > self._params.minimum:
                    self._pack_whole(unit, source, memoryview(buffer)[: source.size])
        unit.complete.extend(source.index for source in group)
        return unit

    def _pack_block(self, unit: Ingested, sources: Sequence[SourceFile]) -> None:
        """Add one frame that holds these contents, each a chunk; none makes no frame."""
        if not sources:
            return
        sizes = [source.size for source in sources]
        plain = self._read_short(sources, sizes)
        unit.blocks.append(Block(len(unit.frames), [source.index for source in sources]))
        ids = [ChunkId(_known(source)) for source in sources]
        unit.frames.append(self._codec().encode_block(FrameKind.DATA, plain, sizes, ids))

    def _read_short(self, sources: Sequence[SourceFile], sizes: Sequence[int]) -> memoryview:
        """Contents of one chunk each, checked, one behind the other; good until this thread is asked again."""
        if not hasattr(self._local, "block"):
            self._local.block = memoryview(bytearray(_BLOCK))
        block: memoryview = self._local.block[: sum(sizes)]
        done = read_unchanged([source.path for source in sources], np.array(sizes, np.int64), block)
        start = 0
        for source, is_read in zip(sources, done, strict=True):
            content = block[start : start + source.size]
            if source.content is not None or not is_read:
                content[:] = _sized(
                    _read_file(source.path, source.size) if source.content is None else source.content, source
                )
            _check(content, source)
            start += source.size
        return block

    def _pack_whole(self, unit: Ingested, source: SourceFile, view: memoryview) -> None:
        """Add a file of several chunks that fits into one buffer."""
        if source.content_id is None:
            read = _read_unread(source, view)
            unit.read.append(read)
            if self._note(read.content_id):
                unit.repeated.add(source.index)
                return
        else:
            self._note(source.content_id)
            view = _content(source, view)
            _check(view, source)
        ends = cut_ends(view, self._params, final=True).tolist()
        self._pack_chunks(unit, source.index, _cut(view, ends), RUNS_PER_READ + FIRST_RUNS)

    def _note(self, content_id: ContentId) -> bool:
        """Note that a content is stored by this source, unless it is anyway; whether that is so."""
        with self._looking:
            known = content_id in self._seen
            self._seen.add(content_id)
        return known

    def _pack_chunks(self, unit: Ingested, index: int, chunks: Sequence[memoryview], runs: int) -> None:
        """Add consecutive chunks of a file: those not stored yet as frames, each alone."""
        ids = [ChunkId(blake3(chunk).digest()) for chunk in chunks]
        with self._looking:
            found = self._lookup(ids)
        for chunk_id, chunk, hit in zip(ids, chunks, bounded_reuse(found, runs), strict=True):
            unit.pieces.append(Piece(index, chunk_id, len(chunk), len(unit.frames), 0, hit))
            if hit is None:
                unit.frames.append(self._codec().encode_frame(FrameKind.DATA, [chunk], [chunk_id]))

    def _codec(self) -> FrameCodec:
        """The calling thread's."""
        if not hasattr(self._local, "codec"):
            self._local.codec = FrameCodec()
        codec: FrameCodec = self._local.codec
        return codec


def _groups(sources: Iterable[SourceFile], minimum: int) -> Iterator[list[SourceFile]]:
    """Consecutive sources for one unit: the short ones fit into one block, all of them into one buffer.

    A source longer than a buffer stands alone.
    """
    group: list[SourceFile] = []
    block = total = 0
    for source in sources:
        short = source.size if source.size <= minimum else 0
        full = block + short > _BLOCK or total + source.size > READ_SIZE or len(group) == _UNIT_FILES
        if group and full:
            yield group
            group, block, total = [], 0, 0
        group.append(source)
        block += short
        total += source.size
    if group:
        yield group


def _cut(view: memoryview, ends: Sequence[int]) -> list[memoryview]:
    return [view[start:end] for start, end in pairwise((0, *ends))]


def _update(hasher: blake3, data: memoryview) -> None:
    hasher.update(data)


def _read_exactly(opened: int, buffer: memoryview, path: bytes) -> None:
    """Fill `buffer`; what a file has gained at its end since it was added is not read."""
    try:
        count = fill(opened, buffer)
    except OSError as error:
        raise reading_error(error, path) from error
    if count < len(buffer):
        raise file_changed(path)


@contextmanager
def _opened(source: SourceFile) -> Iterator[tuple[int, FileStat]]:
    """The file of a source, open for reading, and its stat: of one that nobody has read yet as it was."""
    try:
        opened, stat = open_regular(source.path)
    except FileChanged as error:
        raise FileChanged(error.what, ADD_AGAIN) from error
    try:
        found = FileStat.of(stat)
        if source.content_id is None and (found.size, found.mtime_ns) != (source.size, source.mtime_ns):
            raise file_changed(source.path)
        yield opened, found
    finally:
        os.close(opened)


def _require_unchanged(opened: int, source: SourceFile, found: FileStat) -> None:
    """Refuse a file that was changed while it was read, where no content id tells."""
    if source.content_id is None and FileStat.of(os.fstat(opened)) != found:
        raise file_changed(source.path)


def _read_unread(source: SourceFile, view: memoryview) -> ReadFile:
    """Fill `view` with a file that nobody has read yet."""
    with _opened(source) as (opened, found):
        _read_exactly(opened, view, source.path)
        _require_unchanged(opened, source, found)
    return ReadFile(source.index, ContentId(blake3(view).digest()), found)


def _content(source: SourceFile, view: memoryview) -> memoryview:
    """What a source holds, in `view` where it is a file's."""
    if source.content is not None:
        return memoryview(source.content)
    with _opened(source) as (opened, _):
        _read_exactly(opened, view, source.path)
    return view


def _known(source: SourceFile) -> ContentId:
    assert source.content_id is not None, source.path  # noqa: S101  (whoever leaves files unread leaves long ones)
    return source.content_id


def _sized(data: bytes, source: SourceFile) -> bytes:
    if len(data) != source.size:
        raise file_changed(source.path)
    return data


def _read_file(path: bytes, size: int) -> bytes:
    opened, _ = open_regular(path)
    try:
        data = os.read(opened, size)
        while len(data) < size and (more := os.read(opened, size - len(data))):
            data += more
    except OSError as error:
        raise reading_error(error, path) from error
    finally:
        os.close(opened)
    return data


def _check(data: bytes | memoryview, source: SourceFile) -> None:
    if len(data) != source.size or blake3(data).digest() != source.content_id:
        raise file_changed(source.path)
