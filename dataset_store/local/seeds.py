"""Seeds: earlier local copies as a source of bytes.

Whole files that did not change are linked into a read-only copy, and copied into a mutable one, or cloned where the
file system can share blocks; of large files that did change, the chunks that the earlier file already has are copied
from it. Whatever is copied is hashed on the way, so a seed that someone has changed costs a fetch and never a wrong
byte. A link or a clone shares the file as it is, unread, so only a file with the size and time that it was given is
shared: whoever writes into one changes its time. What a disk changes by itself is found by checking the local copy.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from itertools import compress, islice
from threading import local

from msgspec import Struct

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.digest import hash32
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, ONE_CHUNK, Entries, same_identity
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.paths import PathKey, to_path
from dataset_store.core.segments import Segment, segment_chunks, segments_of
from dataset_store.errors import Corrupt
from dataset_store.local.batches import read_unchanged
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.jobs import cut_by_size

__all__ = ["ChunkReuse", "Seed", "copy_unchanged", "link_unchanged"]

_SMALL = 256 * 1024
_COPIED = 4 << 20
"""Bytes of small files that are read, hashed and written together."""

_AT_ONCE = 1 << 20
"""Bytes of a large file after which what was read is hashed and written."""

_BATCH = 1_024
_THREADS = 2
_SLICE = 65_536
"""Rows that are Python numbers at a time."""

Footers = Callable[[PackRef], Footer]


class Seed(Struct, frozen=True, eq=False):
    """An earlier local copy: its folder, and the entries that it holds."""

    path: bytes
    entries: Entries

    def file(self, row: int) -> bytes:
        """The path of one of its files."""
        return b"%b/%b" % (self.path, to_path(self.entries.keys[row]))


def _matches(entries: Entries, seed: Entries, wanted: Bool) -> Iterator[tuple[int, int]]:
    """Rows of `entries` that are wanted, each with a row of the seed of the same content, exec bit and time."""
    kinds = entries.kinds & KIND_BITS
    has_bytes = ((kinds == Kind.FILE) | (kinds == Kind.EXTERNAL)) & (entries.sizes > 0)
    rows = np.flatnonzero(wanted & has_bytes)
    there = seed.find_many([entries.keys[row] for row in rows.tolist()])
    held = np.flatnonzero(there >= 0)
    here, its = rows[held], there[held]
    same = held[same_identity(entries, here, seed, its) & (entries.mtimes[here] == seed.mtimes[its])]
    for at in range(0, len(same), _SLICE):
        part = same[at : at + _SLICE]
        yield from zip(rows[part].tolist(), there[part].tolist(), strict=True)
    rest = np.delete(rows, same)
    yield from _moved(entries, seed, rest[kinds[rest] == Kind.FILE].tolist())


def _moved(entries: Entries, seed: Entries, rows: Sequence[int]) -> list[tuple[int, int]]:
    """Matches under other keys, such as those of a renamed folder."""
    if not rows:
        return []
    wanted = {entries.content_ids[row].tobytes() for row in rows}
    held: dict[tuple[bytes, bool, int], int] = {}
    raw = seed.content_ids.tobytes()
    for row in range(len(seed)):
        content = raw[32 * row : 32 * row + 32]
        if content in wanted and (seed.kinds[row] & KIND_BITS) == Kind.FILE:
            held.setdefault((content, bool(seed.kinds[row] & EXECUTABLE), int(seed.mtimes[row])), row)
    found = []
    for row in rows:
        key = (entries.content_ids[row].tobytes(), bool(entries.kinds[row] & EXECUTABLE), int(entries.mtimes[row]))
        if key in held:
            found.append((row, held[key]))
    return found


def link_unchanged(entries: Entries, seed: Seed, writer: FolderWriter, done: Bool) -> Bool:
    """Link what the seed has unchanged; the rows that are done now, shape (n,)."""

    def link(pairs: _Pairs) -> list[int]:
        rows = [row for row, _ in pairs]
        sources = [seed.file(there) for _, there in pairs]
        linked = writer.hard_links(sources, [entries.keys[row] for row in rows], _size_and_time(entries, rows))
        return list(compress(rows, linked.tolist()))

    return _taken(entries, seed, done, link)


def copy_unchanged(entries: Entries, seed: Seed, writer: FolderWriter, done: Bool) -> Bool:
    """Clone what the seed has unchanged, or copy what is small of it; the rows that are done now, shape (n,).

    What is copied is hashed. A large file that can't be cloned is left to `ChunkReuse`.
    """
    threads = _Buffers()

    def clone(pairs: _Pairs) -> list[int]:
        rows = [row for row, _ in pairs]
        cloned = writer.clones(
            [seed.file(there) for _, there in pairs],
            [entries.keys[row] for row in rows],
            ((entries.kinds[rows] & EXECUTABLE) != 0).tolist(),
            _size_and_time(entries, rows),
        )
        return list(compress(rows, cloned.tolist()))

    def copy(pairs: _Pairs) -> list[int]:
        done = clone(pairs) if writer.may_clone else []
        cloned = frozenset(done)
        left = [pair for pair in pairs if pair[0] not in cloned]
        # The content id of an external link may not be that of its bytes.
        small = [pair for pair in left if entries.sizes[pair[0]] <= _SMALL and _is_file(entries, pair[0])]
        for part in cut_by_size(entries.sizes[[row for row, _ in small]].astype(np.int64), _COPIED, _BATCH):
            contents = _contents(entries, seed, small[part], threads.buffer)
            _write_small(entries, writer, contents)
            done += contents
        return done

    return _taken(entries, seed, done, copy)


_Pairs = Sequence[tuple[int, int]]
"""Rows, each with a row of the seed."""


def _taken(entries: Entries, seed: Seed, done: Bool, take: Callable[[_Pairs], list[int]]) -> Bool:
    """Let some threads take what the seed has unchanged, in batches; the rows that are done then."""
    done = done.copy()
    matches = _matches(entries, seed.entries, ~done)
    with ThreadPoolExecutor(_THREADS, "seeds") as pool:
        waiting: deque[Future[list[int]]] = deque()
        for pairs in iter(lambda: list(islice(matches, _BATCH)), []):
            waiting.append(pool.submit(take, pairs))
            if len(waiting) > 2 * _THREADS:
                done[waiting.popleft().result()] = True
        for one in waiting:
            done[one.result()] = True
    return done


def _size_and_time(entries: Entries, rows: Sequence[int]) -> I64:
    return np.stack([entries.sizes[rows].astype(np.int64), entries.mtimes[rows]], axis=1)


def _is_file(entries: Entries, row: int) -> bool:
    return bool((entries.kinds[row] & KIND_BITS) == Kind.FILE)


class _Buffers(local):
    """What small files are read into, for each thread."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(_COPIED))


def _contents(entries: Entries, seed: Seed, pairs: _Pairs, buffer: memoryview) -> dict[int, bytes | memoryview]:
    """The contents of small files of the seed that are what they must be, by row; good while the buffer is."""
    sizes = entries.sizes[[row for row, _ in pairs]].astype(np.int64)
    paths = [seed.file(there) for _, there in pairs]
    read = read_unchanged(paths, sizes, buffer[: int(sizes.sum())])
    contents: dict[int, bytes | memoryview] = {}
    start = 0
    for (row, _), path, size, is_read in zip(pairs, paths, sizes.tolist(), read, strict=True):
        content = buffer[start : start + size] if is_read else _read_small(path, size)
        if content is not None and hash32(content) == entries.content_ids[row].tobytes():
            contents[row] = content
        start += size
    return contents


def _write_small(entries: Entries, writer: FolderWriter, contents: Mapping[int, bytes | memoryview]) -> None:
    rows = list(contents)
    writer.write_small(
        [entries.keys[row] for row in rows],
        list(contents.values()),
        [bool(entries.kinds[row] & EXECUTABLE) for row in rows],
        entries.mtimes[rows].tolist(),
    )


def _read_small(path: bytes, size: int) -> bytes | None:
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        content = os.read(opened, size + 1)
    except OSError:
        return None
    finally:
        os.close(opened)
    return content if len(content) == size else None


class ChunkReuse:
    """Fills segments of large files from the seed's file of the same path, where that has the chunks.

    Args:
        entries: The entries being written.
        seed: Where to look.
        footers: Gives the footer of a pack, fetched at most once.
    """

    def __init__(self, entries: Entries, seed: Seed, footers: Footers) -> None:
        self.entries = entries
        self.seed = seed
        self.footers = footers
        # A file of many segments asks once for each; as many rows are at work at once as there are threads.
        self._held = lru_cache(maxsize=8)(self._chunks_held)

    def __call__(self, row: int, segment: Segment, opened: int, target: int) -> bool:
        """Write one segment into an open private file, all of it or none of it that counts; whether it is there."""
        there = self.seed.entries.find(PathKey(self.entries.keys[row]))
        if there is None or (self.seed.entries.kinds[there] & (ONE_CHUNK | KIND_BITS)) != Kind.FILE:
            return False
        if segment.pack not in {one.pack for one in segments_of(self.seed.entries, there)}:
            return False
        if not os.path.lexists(self.seed.file(there)):
            return False
        try:
            wanted, held = _chunks(segment, self.footers), self._held(there)
        except Corrupt:  # the earlier version has lost a pack that this one may not need
            return False
        if not all(chunk_id in held for chunk_id, _ in wanted):
            return False
        return _copy_chunks(self.seed.file(there), wanted, held, opened, target)

    def _chunks_held(self, there: int) -> dict[bytes, int]:
        """Where each chunk of one of the seed's files begins."""
        segments = segments_of(self.seed.entries, there)
        return _offsets([chunk for one in segments for chunk in _chunks(one, self.footers)])


_Chunks = Sequence[tuple[bytes, int]]
"""Ids and lengths of chunks."""


def _chunks(segment: Segment, footers: Footers) -> list[tuple[bytes, int]]:
    """Id and length of each chunk of a segment."""
    return [(chunk_id, hit.plain_length) for chunk_id, hit in segment_chunks(segment, footers(segment.pack))]


def _offsets(chunks: _Chunks) -> dict[bytes, int]:
    """Where each chunk begins in the file that they make up."""
    held: dict[bytes, int] = {}
    at = 0
    for chunk_id, length in chunks:
        held.setdefault(chunk_id, at)
        at += length
    return held


def _copy_chunks(path: bytes, wanted: _Chunks, held: Mapping[bytes, int], opened: int, target: int) -> bool:
    """Copy chunks one after another, each hashed; False at the first that is not what it must be."""
    if not wanted:
        return False
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        for start, chunks in _runs(wanted, held):
            length = sum(length for _, length in chunks)
            data = memoryview(os.pread(source, length, start))
            if not _are_chunks(data, chunks) or os.pwrite(opened, data, target) != length:
                return False
            target += length
    except OSError:  # whoever writes the segment in another way will say what is wrong
        return False
    finally:
        os.close(source)
    return True


def _runs(wanted: _Chunks, held: Mapping[bytes, int]) -> Iterator[tuple[int, _Chunks]]:
    """Chunks that lie one behind the other, some at once, and where in the file they begin."""
    run: list[tuple[bytes, int]] = []
    start = length = 0
    for chunk in wanted:
        at = held[chunk[0]]
        if run and (at != start + length or length >= _AT_ONCE):
            yield start, run
            run = []
        if not run:
            start, length = at, 0
        run.append(chunk)
        length += chunk[1]
    if run:
        yield start, run


def _are_chunks(data: memoryview, chunks: _Chunks) -> bool:
    start = 0
    for chunk_id, length in chunks:
        if hash32(data[start : start + length]) != chunk_id:
            return False
        start += length
    return True
