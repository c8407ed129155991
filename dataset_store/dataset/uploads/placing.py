"""Contents of a draft's rows placed: each is found in the store, or packed.

A file that nobody has read is read here, once: its content is known when it has been packed. What that turns out to be
may lie elsewhere after all, in the tree that the draft changes or under another name in the draft; then nothing is
packed of it, or of a long file only what the chunks' own ids do not find.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.digest import ChunkId, ContentId
from dataset_store.core.entries import KIND_BITS, Entries
from dataset_store.core.kinds import Kind
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.segments import ChunkHit
from dataset_store.core.standing import Standing
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.entries.links import as_linked, as_stored
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.uploads.finding import SEARCHED_WHOLE, earlier_chunks, locate_by_index
from dataset_store.dataset.uploads.locating import Located
from dataset_store.dataset.uploads.packing import Advance, Packed, pack, pack_by
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.dataset.uploads.unread import ReadFiles, read_now, remember_read
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.local.drafts import Draft
from dataset_store.local.ingest import SourceFile
from dataset_store.local.reading import READ_SIZE
from dataset_store.local.twins import twins
from dataset_store.storage.trees import root_of, size_of

__all__ = ["Sending", "place_contents"]


class Sending(Struct, frozen=True):
    """How the contents of an upload are sent: of a draft that changes `base`, by whose hands, and who looks on."""

    draft: Draft
    base: TreeRootRow | None
    sender: Sender
    executor: Executor | None
    show_progress: bool

    @property
    def workspace(self) -> Workspace:
        """The store."""
        return self.sender.workspace

    @property
    def standing(self) -> Standing:
        """What may be referred to."""
        return self.sender.standing


def place_contents(own: Entries, sending: Sending) -> tuple[Entries, int]:
    """Rows of a draft with their segments, contents that the store lacks being sent; and the bytes of all of them.

    Raises:
        FileChanged: A file is not what it was when it was added.
        StorageFailed: The store refused.
    """
    if not len(own):
        return own, 0
    before = _base_rows(sending.workspace, sending.draft, sending.base, own)
    pending = as_stored(_known_beforehand(own, before, sending), sending.draft)
    located = Located(pending)
    located.add_from(before, sending.standing)
    located.add_from(sending.draft.changes.entries, sending.standing)
    short: Bool = pending.sizes <= sending.workspace.store.chunker.minimum
    locate_by_index(sending.workspace, located, short, sending.standing)
    missing = located.missing()
    total = int(pending.sizes[missing].sum())
    with progress_bar("uploading", total, len(missing), show=sending.show_progress) as advance:
        _pack_missing(located, before, sending, advance)
    return as_linked(located.entries(), own), int(located.pending.sizes.sum())


def _known_beforehand(own: Entries, before: Entries, sending: Sending) -> Entries:
    """The rows, of which more have been read where it pays.

    A long file that looks like another one, or is as long as one of the base, may have that one's content under another
    name; then nothing needs to be packed of it. Workers pack apart from each other, so contents that repeat are stored
    once only if all are known.
    """
    which = None
    if sending.executor is None:
        which = own.unread & (own.sizes > READ_SIZE)
        which &= np.isin(own.sizes, before.sizes) | _twins(sending.draft, own)
    shown = sending.show_progress
    return read_now(sending.workspace, sending.draft, own, which, executor=sending.executor, show_progress=shown)


def _twins(draft: Draft, own: Entries) -> Bool:
    """Which rows are long files that look like another one of them, shape (n,)."""
    rows = np.flatnonzero((own.sizes > READ_SIZE) & ((own.kinds & KIND_BITS) == Kind.FILE)).tolist()
    keys = [own.keys[row] for row in rows]
    paths = [source.path_of(key) for source, key in zip(draft.sources_of(keys), keys, strict=True)]
    found = np.zeros(len(own), np.bool_)
    found[rows] = twins(paths, own.sizes[rows].view(np.int64))
    return found


def _pack_missing(located: Located, before: Entries, sending: Sending, advance: Advance) -> None:
    """Pack what is not located."""
    began = now_ns()
    read = ReadFiles()
    for packed in _packed(located, before, sending, advance):
        _take(packed, located)
        read = packed.read
    if not len(read):
        return
    pending = _with_read(located.pending, read)
    remember_read(sending.workspace, sending.draft, [pending.keys[row] for row in read.numbers], read, began)
    located.now_read(pending)
    located.add_from(before, sending.standing)
    # What was passed over as stored, and is not found after all: next to nothing, if anything.
    for packed in _packed(located, before, sending, advance):
        _take(packed, located)


def _packed(located: Located, before: Entries, sending: Sending, advance: Advance) -> Iterator[Packed]:
    """What is not located is packed: here in one go, or in jobs by workers."""
    missing, pending = located.missing(), located.pending
    if not len(missing):
        return
    sources = _sources(sending.draft, pending, missing)

    def earlier(rows: Sequence[int]) -> dict[ChunkId, ChunkHit]:
        return earlier_chunks(sending.workspace, before, pending, rows)

    if sending.executor is None:
        stored = _stored_alike(before, pending, sending.standing)
        yield pack(sources, earlier(missing.tolist()), sending.sender, advance, stored)
        return
    sizes = pending.sizes[missing].astype(np.int64)
    with closing(pack_by(sending.executor, sources, sizes, earlier, sending.sender, advance)) as done:
        yield from done


def _take(packed: Packed, located: Located) -> None:
    located.add_blocks(packed.blocks)
    for row, found in packed.several:
        located.add(row, found)


def _with_read(pending: Entries, read: ReadFiles) -> Entries:
    """The rows with the content ids of what was read."""
    content_ids = pending.content_ids.copy()
    content_ids[read.rows] = read.content_ids
    return replace(pending, content_ids=content_ids)


def _stored_alike(before: Entries, pending: Entries, standing: Standing) -> list[ContentId]:
    """Contents of the base that stand, and that files which nobody has read may have by their sizes."""
    unread = pending.unread
    if not unread.any() or not len(before):
        return []
    _, stands = standing.segments(before.segments)
    alike = np.isin(before.sizes, pending.sizes[unread]) & (before.segment_sums(~stands) == 0)
    return [ContentId(content_id.tobytes()) for content_id in before.content_ids[alike]]


def _sources(draft: Draft, pending: Entries, rows: I64) -> Iterator[SourceFile]:
    """The files of these rows, numbered by row; made when they are asked for."""
    sources, unread = draft.sources_of([pending.keys[row] for row in rows.tolist()]), pending.unread
    for row, source in zip(rows.tolist(), sources, strict=True):
        key = pending.keys[row]
        yield SourceFile(
            row,
            source.path_of(key),
            int(pending.sizes[row]),
            None if unread[row] else ContentId(pending.content_ids[row].tobytes()),
            source.links.get(key),
            int(pending.mtimes[row]),
        )


def _base_rows(workspace: Workspace, draft: Draft, base: TreeRootRow | None, pending: Entries) -> Entries:
    """Entries of the base tree in which contents are searched: all, or those under the keys that the draft touches."""
    if base is None:
        return Entries.empty()
    nodes = workspace.store.nodes
    if size_of(root_of(base), nodes)[0] <= max(SEARCHED_WHOLE, 16 * len(pending)):
        return read_all(root_of(base), nodes)
    return lookup(root_of(base), sorted({*draft.changes.removed, *pending.keys}), nodes)
