"""Files of a draft that nobody has read yet: what they turn out to be, and how this machine remembers it.

A file is left unread where it is added (`local/folder.py`), so that it is read once, when it is packed. Whoever asks
for its content before that has it read.
"""

import os
from array import array
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import closing

from msgspec import Struct, field
from msgspec.structs import replace

from dataset_store.core.arrays import I64, U8, Bool, np
from dataset_store.core.diff import Difference, diff_entries
from dataset_store.core.entries import Entries
from dataset_store.core.paths import PathKey
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import FileChanged
from dataset_store.local.draft_records import Source
from dataset_store.local.drafts import Draft
from dataset_store.local.folder import Progress, hash_by
from dataset_store.local.ingest import ReadFile
from dataset_store.local.os_errors import ADD_AGAIN, file_changed
from dataset_store.local.reading import HashedFiles, hash_files, stats_of

__all__ = ["ReadFiles", "difference_of", "read_now", "remember_read"]


class ReadFiles(Struct):
    """Files that were read while they were packed, as columns: of each its source's number, content id and stat."""

    numbers: "array[int]" = field(default_factory=lambda: array("q"))
    ids: bytearray = field(default_factory=bytearray)
    stat: "array[int]" = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.numbers)

    def add(self, found: Sequence[ReadFile]) -> None:
        """Take some more."""
        for one in found:
            self.numbers.append(one.source)
            self.ids += one.content_id
            self.stat.extend(one.stat)

    @property
    def rows(self) -> I64:
        """The numbers of the sources, shape (n,)."""
        return np.array(self.numbers, np.int64)

    @property
    def content_ids(self) -> U8:
        """Shape (n, 32)."""
        return np.frombuffer(bytes(self.ids), np.uint8).reshape(-1, 32)

    @property
    def stats(self) -> I64:
        """Of each the stat before and after it was read, shape (n, 4), as of `FileStat`."""
        return np.array(self.stat, np.int64).reshape(-1, 4)


def read_now(
    workspace: Workspace,
    draft: Draft,
    entries: Entries,
    which: Bool | None = None,
    *,
    executor: Executor | None = None,
    show_progress: bool = False,
) -> Entries:
    """Entries of a draft with the content ids of their files; those that nobody has read yet are read.

    The draft is not changed, so they are read again when they are packed.

    Args:
        workspace: The store.
        draft: Knows where the files lie.
        entries: n of its entries.
        which: Those whose content ids are asked for, shape (n,); by default all.
        executor: Whose workers read the files; by default this process does.
        show_progress: Show it also where not everything is shown.

    Raises:
        FileChanged: A file is not what it was when it was added.
        AccessDenied, StorageFailed: It cannot be read.
    """
    rows = np.flatnonzero(entries.unread if which is None else entries.unread & which)
    if not len(rows):
        return entries
    began = now_ns()
    unread = entries.take(rows)
    content_ids = entries.content_ids.copy()
    with progress_bar("reading", int(unread.sizes.sum()), len(rows), show=show_progress) as told:
        for source, some in _by_source(draft, unread.keys):
            keys = [unread.keys[row] for row in some]
            hashed = _hashed(source, keys, unread.take(np.array(some)), executor, told)
            content_ids[rows[some]] = hashed.content_ids
            _remember(workspace, source, keys, hashed, began)
    return replace(entries, content_ids=content_ids)


def difference_of(workspace: Workspace, draft: Draft, before: Entries, entries: Entries) -> Difference:
    """What a draft's entries have that others have not, and the reverse.

    Files that nobody has read yet are read where their content decides: those that are as long as what the others have
    at the same path, and of those that were added the ones that may be something removed under another name.

    Args:
        workspace: The store.
        draft: Knows where the files lie.
        before: The other entries, the old side.
        entries: Those of the draft.

    Raises:
        FileChanged, AccessDenied, StorageFailed: As `read_now`.
    """
    rows = np.flatnonzero(entries.unread)
    may_be_same = np.zeros(len(entries), np.bool_)
    may_be_same[rows] = before.have_sizes([entries.keys[row] for row in rows.tolist()], entries.sizes[rows])
    found = diff_entries(before, read_now(workspace, draft, entries, may_be_same))
    may_be_moved: Bool = np.isin(found.added.sizes, found.removed.sizes)
    return replace(found, added=read_now(workspace, draft, found.added, may_be_moved))


def remember_read(workspace: Workspace, draft: Draft, keys: Sequence[PathKey], read: ReadFiles, began: int) -> None:
    """Note what was read while it was packed, so that the next reading of its folder opens only what was changed.

    Args:
        workspace: Has the stat cache.
        draft: Knows where the files lie.
        keys: Of the files, n of them.
        read: The same files.
        began: A moment before the first was opened, ns since 1970.
    """
    for source, some in _by_source(draft, keys):
        hashed = HashedFiles(read.content_ids[some], read.stats[some])
        _remember(workspace, source, [keys[row] for row in some], hashed, began)


def _by_source(draft: Draft, keys: Sequence[PathKey]) -> list[tuple[Source, list[int]]]:
    """Pending files by the call that added them."""
    found: dict[int, tuple[Source, list[int]]] = {}
    for row, source in enumerate(draft.sources_of(keys)):
        found.setdefault(id(source), (source, []))[1].append(row)
    return list(found.values())


def _hashed(
    source: Source, keys: Sequence[PathKey], unread: Entries, executor: Executor | None, told: Progress
) -> HashedFiles:
    """Files read that are as they were when they were added."""
    paths = [source.path_of(key) for key in keys]
    try:
        found = stats_of(paths)
        _require_same(paths, np.stack([unread.sizes.view(np.int64), unread.mtimes], axis=1), found[:, :2])
        if executor is None:
            hashed = hash_files(paths, found, progress=told)
        else:
            with closing(hash_by(executor, source.root, [(paths, found)], told)) as results:
                hashed = next(results)
    except FileChanged as error:
        raise FileChanged(error.what, ADD_AGAIN) from error
    _require_same(paths, found, hashed.stats)
    return hashed


def _require_same(paths: Sequence[bytes], before: I64, after: I64) -> None:
    """Refuse files whose stat has changed, shape (n, k)."""
    changed = np.flatnonzero((before != after).any(axis=1))
    if len(changed):
        raise file_changed(paths[int(changed[0])])


def _remember(workspace: Workspace, source: Source, keys: Sequence[PathKey], hashed: HashedFiles, began: int) -> None:
    inside = [PathKey(key[len(source.below) + 1 :] if source.below else key) for key in keys]
    stands = workspace.stats.record_files(source.root, inside, hashed.content_ids, hashed.stats, began)
    # A file that was added by itself is remembered under a root of its own.
    for row in np.flatnonzero(~stands).tolist():
        name = PathKey(os.path.basename(source.path_of(keys[row])))
        root = source.path_of(keys[row])
        workspace.stats.record_files(root, [name], hashed.content_ids[[row]], hashed.stats[[row]], began)
