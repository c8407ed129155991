"""A folder as entries: scanned, known files taken from the stat cache, the others read and hashed.

The rows that come out have content ids and no segments. A file that was not changed since this machine last read it is
not opened. One whose content nobody needs to know yet may be left unread, to be hashed when it is packed: so what is
larger than this machine's memory comes from the disk once, and not twice.

With an executor the files are read by its workers, which must see the folder under the same path; scanning it, and what
this machine remembers of it, stay here.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import I64, U8, U64, Bool, Rows, np
from dataset_store.core.digest import hash32
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, Entries, make_entries, sort_rows
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey, to_path
from dataset_store.local.jobs import cut_by_size, require_seen, results_in_order
from dataset_store.local.listing import DirectoryBlock
from dataset_store.local.reading import HashedFiles, hash_files
from dataset_store.local.scan import USUAL, Scope, scan, stat_one
from dataset_store.local.stat_cache import StatCache

__all__ = ["Folder", "Later", "Progress", "Reading", "hash_by", "read_file", "read_folder", "remember_folder"]

_GROUP_ROWS = 32_768
_JOB_BYTES = 64 << 20
_JOB_FILES = 4_096
_FILE = int(Kind.FILE)  # numpy asks an enum member for its array protocols at each comparison


class Progress(Protocol):
    """What a reading tells of itself, in the calling thread."""

    def expect(self, files: int, count: int, /) -> object:
        """Files and bytes that must be read: all, or those that were changed. Called once, before any is."""

    def __call__(self, files: int, count: int, /) -> object:
        """Files and bytes that were read since the call before."""


class Folder(Struct, frozen=True, eq=False):
    """What was found: the folder that holds the files, its entries, and the text of each symbolic link by key."""

    root: bytes
    entries: Entries
    links: Mapping[PathKey, bytes]


class Later(Struct, frozen=True):
    """Which files need not be read now.

    Attributes:
        longer_than: Bytes; shorter ones are always read.
        may_wait: Of n files, by the root that they are below, their keys, their sizes in bytes and times of
            modification in ns, those whose content nobody needs; shape (n,).
    """

    longer_than: int
    may_wait: Callable[[bytes, Sequence[PathKey], I64, I64], Bool]


class Reading(Struct, frozen=True):
    """By whom files are read, and when.

    Attributes:
        executor: By its workers, all of them now; by default by this process.
        later: Which this process may leave unread; by default none.
    """

    executor: Executor | None = None
    later: Later | None = None


_NOW: Final = Reading()


class _Block(Struct, eq=False):
    """One block of a scan with its content ids as far as they are known; shapes (n, 32) and (n,).

    Attributes:
        left: Files that stay unread.
    """

    rows: DirectoryBlock
    ids: U8
    known: Bool
    stat: U64
    left: Bool

    def to_read(self) -> Rows:
        """Rows of files that must be read."""
        return np.flatnonzero(~(self.known | self.left))


def read_folder(
    folder: str,
    below: PathKey,
    stats: StatCache,
    now_ns: int,
    progress: Progress | None = None,
    *,
    scope: Scope = USUAL,
    how: Reading = _NOW,
) -> Folder:
    """The entries of a folder.

    Args:
        folder: Its absolute path.
        below: The directory of the dataset that its files go to; put before every key.
        stats: What this machine remembers of files.
        now_ns: The time now, ns since 1970, before anything is looked at.
        progress: Told of files and bytes to read, and read.
        scope: What of the folder is meant.
        how: By whom its files are read, and when.

    Raises:
        PathNotFound, UnsupportedFileType, InvalidPath, AccessDenied, FileChanged: As `scan` and `hash_files`.
        PathNotFound: A worker does not see the folder.
    """
    root = os.fsencode(folder)
    found = list(scan(root, below=below, scope=scope))
    return _read(root, found, stats, now_ns, progress, how=how)


def read_file(path: str, below: PathKey, stats: StatCache, now_ns: int, how: Reading = _NOW) -> Folder:
    """The entry of one file, under its own name in the directory `below`. Arguments and errors as `read_folder`."""
    raw = os.fsencode(path)
    # Of its own root in the stat cache, so that it does not replace its folder's block.
    found = [replace(stat_one(raw), below=below)]
    return _read(os.path.dirname(raw), found, stats, now_ns, None, cache_root=raw, how=how)


def _read(
    root: bytes,
    scanned: Sequence[DirectoryBlock],
    stats: StatCache,
    now_ns: int,
    progress: Progress | None,
    *,
    cache_root: bytes | None = None,
    how: Reading,
) -> Folder:
    cached = cache_root or root
    blocks = [
        _prepared(rows, known.ids, known.mask)
        for rows, known in zip(scanned, stats.lookup(cached, scanned), strict=True)
    ]
    if how.later is not None and how.executor is None:
        _leave(root, blocks, how.later)
    if progress:
        progress.expect(*_how_much(blocks))
    groups = list(_groups(blocks))
    wanted = (_files_to_read(root, group) for group in groups)
    hashed = _hash_here(wanted, progress) if how.executor is None else hash_by(how.executor, root, wanted, progress)
    with closing(hashed) as results:
        for group, result in zip(groups, results, strict=True):
            _take(group, result)
            files = [
                (block.rows.kind == _FILE) & (block.stat == block.rows.stat).all(axis=0) & ~block.left
                for block in group
            ]
            stats.record(cached, [block.rows for block in group], [block.ids for block in group], files, now_ns)
    return Folder(root, sort_rows(_entries(blocks)), dict(_links(blocks)))


def _leave(root: bytes, blocks: Sequence[_Block], later: Later) -> None:
    """Note which files stay unread."""
    long = [(block, rows) for block in blocks if len(rows := _unknown_files(block, later.longer_than))]
    if not long:
        return
    keys = [key for block, rows in long for key in _keys(block.rows, rows)]
    sizes = np.concatenate([block.rows.size[rows] for block, rows in long]).view(np.int64)
    times = np.concatenate([block.rows.mtime_ns[rows] for block, rows in long])
    waits = later.may_wait(root, keys, sizes, times)
    start = 0
    for block, rows in long:
        left = rows[waits[start : start + len(rows)]]
        block.left[left] = True
        block.ids[left] = 0  # else what the stat cache knows of an earlier state
        start += len(rows)


def _unknown_files(block: _Block, longer_than: int) -> Rows:
    """The files of a block whose content is not known, but for short ones."""
    return np.flatnonzero(~block.known & (block.rows.size > longer_than) & (block.rows.kind == _FILE))


def _keys(block: DirectoryBlock, rows: Rows) -> list[PathKey]:
    keys = block.keys()
    return [keys[row] for row in rows.tolist()]


def _paths(root: bytes, block: DirectoryBlock, rows: Rows) -> list[bytes]:
    """The paths of files of a block."""
    folder = os.path.join(root, to_path(block.directory), b"")
    return [folder + block.names[row] for row in rows.tolist()]


def _how_much(blocks: Sequence[_Block]) -> tuple[int, int]:
    """Files that must be read, and their bytes."""
    rows = [block.to_read() for block in blocks]
    size = sum(int(block.stat[0, some].sum()) for block, some in zip(blocks, rows, strict=True))
    return sum(map(len, rows)), size


def _groups(blocks: Iterable[_Block]) -> Iterator[list[_Block]]:
    """Blocks with rows to be read or left, some ten thousand rows at a time: paths and stats of a group are objects.

    Each group is remembered as soon as it was read, so a long first reading that is broken off is not lost.
    """
    group: list[_Block] = []
    rows = 0
    for block in blocks:
        wanted = len(block.to_read())
        if wanted or block.left.any():
            group.append(block)
            rows += wanted
        if rows >= _GROUP_ROWS:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _links(blocks: Iterable[_Block]) -> Iterator[tuple[PathKey, bytes]]:
    for block in blocks:
        if block.rows.targets:
            keys = block.rows.keys()
            yield from ((keys[row], target) for row, target in block.rows.targets.items())


def _prepared(rows: DirectoryBlock, ids: U8, known: Bool) -> _Block:
    """A block with the contents that need no reading: links, empty directories and empty files."""
    ids, known = ids.copy(), known.copy()
    for row, target in rows.targets.items():
        ids[row] = np.frombuffer(hash32(target), np.uint8)
    empty = (rows.kind == Kind.DIRECTORY) | ((rows.kind == Kind.FILE) & (rows.size == 0))
    ids[empty] = np.frombuffer(hash32(b""), np.uint8)
    known |= empty | (rows.kind == Kind.SYMLINK)
    return _Block(rows, ids, known, rows.stat.copy(), np.zeros(len(rows), np.bool_))


_Files = tuple[list[bytes], I64]
"""Paths of n files, and the stat of each as it was found, shape (n, 4)."""


def _files_to_read(root: bytes, blocks: Sequence[_Block]) -> _Files:
    """The files of the blocks that must be read."""
    rows = [block.to_read() for block in blocks]
    paths = [path for block, some in zip(blocks, rows, strict=True) for path in _paths(root, block.rows, some)]
    found = [block.stat[:4, some].T for block, some in zip(blocks, rows, strict=True)]
    return paths, np.concatenate(found).view(np.int64)


def _take(blocks: Sequence[_Block], hashed: HashedFiles) -> None:
    """Note the content ids of the files that were not known; a file's stat becomes that with which it was read."""
    start = 0
    for block in blocks:
        rows = block.to_read()
        stop = start + len(rows)
        block.ids[rows] = hashed.content_ids[start:stop]
        block.stat[:4, rows] = hashed.stats[start:stop].view(np.uint64).T
        start = stop


def _hash_here(groups: Iterable[_Files], progress: Progress | None) -> Generator[HashedFiles, None, None]:
    """The hashes of each group of files, one group after another."""
    for paths, found in groups:
        yield hash_files(paths, found, progress=progress)


def hash_by(
    executor: Executor, root: bytes, groups: Iterable[_Files], progress: Progress | None
) -> Generator[HashedFiles, None, None]:
    """As `_hash_here`, by the workers of an executor, which go on with the next groups meanwhile.

    Args:
        executor: Where they run.
        root: A folder that they must see, if they see the files.
        groups: Paths of n files, and the stat of each as it was found, shape (n, 4).
        progress: Told of files and bytes that were read.
    """
    counts: deque[int] = deque()

    def jobs() -> Iterator[_Files]:
        for paths, found in groups:
            cuts = cut_by_size(found[:, 0], _JOB_BYTES, _JOB_FILES)
            counts.append(len(cuts))
            yield from ((paths[cut], found[cut]) for cut in cuts)

    done: list[HashedFiles] = []
    with closing(results_in_order(executor, partial(_hash_job, root), jobs())) as results:
        for hashed in results:
            done.append(hashed)
            if progress:
                progress(len(hashed.stats), int(hashed.stats[:, 0].sum()))
            if len(done) == counts[0]:
                counts.popleft()
                yield _joined(done)
                done.clear()


def _hash_job(root: bytes, files: _Files) -> HashedFiles:
    require_seen(root)
    return hash_files(*files, workers=1)


def _joined(parts: Sequence[HashedFiles]) -> HashedFiles:
    return HashedFiles(
        np.concatenate([part.content_ids for part in parts]), np.concatenate([part.stats for part in parts])
    )


def _entries(blocks: Sequence[_Block]) -> Entries:
    if not blocks:
        return Entries.empty()
    kinds = np.concatenate([block.rows.kind for block in blocks]).astype(np.uint8)
    executable = np.concatenate([block.rows.executable for block in blocks])
    stat = np.concatenate([block.stat for block in blocks], axis=1)
    kinds = np.where(executable & (kinds == Kind.FILE), kinds | EXECUTABLE, kinds).astype(np.uint8)
    sizes = np.where(kinds == Kind.DIRECTORY, 0, stat[0]).astype(np.uint64)
    return make_entries(
        list(chain.from_iterable(block.rows.keys() for block in blocks)),
        kinds,
        sizes,
        stat[1].view(np.int64),
        np.concatenate([block.ids for block in blocks]),
    )


def remember_folder(folder: str, entries: Entries, stats: StatCache, now_ns: int) -> None:
    """Note the content of files that were just written, so that the next reading opens only what was changed.

    Args:
        folder: The absolute path of a folder that was filled with `entries` and with nothing else.
        entries: What was written.
        stats: Where it is noted.
        now_ns: The time now, at least `SETTLE_NS` after the last file was written.
    """
    root = os.fsencode(folder)
    blocks = list(scan(root))
    rows = [entries.find_many(block.keys()) for block in blocks]
    ids = [entries.content_ids[np.maximum(at, 0)] if len(entries) else np.zeros((len(at), 32), np.uint8) for at in rows]
    # The content id of an external link may be that of its record.
    own = (entries.kinds & KIND_BITS) == Kind.FILE
    masks = [
        (at >= 0) & (block.kind == Kind.FILE) & (own[np.maximum(at, 0)] if len(entries) else False)
        for at, block in zip(rows, blocks, strict=True)
    ]
    stats.record(root, blocks, ids, masks, now_ns)
