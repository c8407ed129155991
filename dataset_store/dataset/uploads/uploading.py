"""Upload: whatever a draft has that the store lacks goes into packs, then the nodes of its tree.

Readers see nothing of it before the commit. What was sent before a failure is found again through the chunk index, so a
repeated upload goes on where the first one stopped.
"""

from concurrent.futures import Executor

from msgspec import Struct

from dataset_store.core.arrays import Bool, np
from dataset_store.core.diff import Difference, diff_entries
from dataset_store.core.entries import (
    Changes,
    Entries,
    concat,
    overlay,
    sort_rows,
)
from dataset_store.core.log_entries import Blob, Statistics, TreeRootRow
from dataset_store.core.segments import FileSegments, with_segments_at
from dataset_store.core.tree import lookup
from dataset_store.dataset.annotations.blobs import is_short, write_blob
from dataset_store.dataset.annotations.reports import pieces_of
from dataset_store.dataset.catalog.outputs import number_of
from dataset_store.dataset.uploads.finding import remember_contents
from dataset_store.dataset.uploads.holding import HeldNames
from dataset_store.dataset.uploads.placing import Sending, place_contents
from dataset_store.dataset.uploads.rechecking import fallen_rows, has_lost_packs, own_changes
from dataset_store.dataset.uploads.salvaging import can_be_read, require_nothing_lost, salvage
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Corrupt
from dataset_store.local.drafts import Draft, pending_rows
from dataset_store.storage.store import new_pack_name
from dataset_store.storage.trees import root_of, size_of, write_tree

__all__ = ["UploadReport", "upload_draft"]


class UploadReport(Struct, frozen=True):
    """What an upload did.

    Attributes:
        files: Entries of the draft that had content for the store to hold.
        bytes: Their sizes together.
        new_bytes: Those of these bytes that were nowhere in the store.
        stored: Bytes that were sent: the new ones compressed, and the nodes of the tree.
        packs: In how many packs.
    """

    files: int
    bytes: int
    new_bytes: int
    stored: int
    packs: int

    def __str__(self) -> str:
        files = f"{_counted(self.files, 'file')} of {_counted(self.bytes, 'byte')}, {self.new_bytes} of them new"
        return f"{files}; {_counted(self.stored, 'byte')} sent in {_counted(self.packs, 'pack')}"


def upload_draft(
    workspace: Workspace, draft: Draft, *, show_progress: bool, executor: Executor | None = None
) -> UploadReport:
    """Send what a draft names and the store does not have, or not any more, and its tree; and record both in the draft.

    Args:
        workspace: The store.
        draft: The draft.
        show_progress: Show it where somebody looks on.
        executor: Whose workers read and pack the files; by default this process does.

    Raises:
        FileChanged: A file is not what it was when it was added.
        ChunksLost: What was sent or found before was collected, and is not to be had again; the draft waits for it.
        StorageFailed: The store refused; repeat.
    """
    while True:
        catalog = workspace.refresh()
        catalog.require("write")
        head = catalog.head
        try:
            return _upload(workspace, draft, executor, show_progress=show_progress)
        except Corrupt:
            # What is missing may have been deleted by right, with a version that lived when this began.
            if workspace.refresh().head == head:
                raise


def _upload(workspace: Workspace, draft: Draft, executor: Executor | None, *, show_progress: bool) -> UploadReport:
    require_nothing_lost(draft)
    storage = number_of(workspace, draft.output)
    standing = workspace.store.standings.now()
    own = own_changes(workspace, draft)
    pending = pending_rows(own.changes.entries)
    fallen = fallen_rows(workspace, own.changes.entries, standing)
    held = fallen.any() or has_lost_packs(draft, standing)
    sender = Sender(workspace, standing, storage, HeldNames(workspace, draft).draw if held else new_pack_name)
    metadata = _send_metadata(draft, sender)
    # Only this process draws names that the log holds.
    sending = Sending(draft, own.base, sender, None if held else executor, show_progress)
    rows, total = _send_rows(own.changes.entries, pending, fallen, sending)
    tree = _send_tree(own.base, Changes(with_rows(own.changes.entries, rows), own.changes.removed), sender)
    remember_contents(workspace, rows)
    placed = rows if own.changes is draft.changes else rows.take(draft.changes.entries.find_many(rows.keys) >= 0)
    draft.record_sent(placed, sender.sent(tree, metadata, _statistics(workspace, draft, tree)))
    return UploadReport(int(pending.sum()), total, sender.new_bytes, sender.stored, len(sender.packs))


def _send_rows(entries: Entries, pending: Bool, fallen: Bool, sending: Sending) -> tuple[Entries, int]:
    """The rows that were not sent yet, or do not stand any more, with their segments; and the bytes of the former.

    What is to be had from files is, the rest from the packs that it lies in while these exist.
    """
    draft = sending.draft
    readable = np.zeros(len(entries), np.bool_)
    if fallen.any():
        readable[fallen] = can_be_read(draft, entries.take(fallen))
    bare = {row: FileSegments() for row in np.flatnonzero(readable).tolist()}
    from_files = with_segments_at(entries, bare).take(pending | readable)
    rows, total = place_contents(from_files, sending)
    salvaged, lost = salvage(entries.take(fallen & ~readable), sending.sender)
    if lost:
        draft.lose(lost)
        require_nothing_lost(draft)
    return (sort_rows(concat([rows, salvaged])) if len(salvaged) else rows), total


def _send_metadata(draft: Draft, sender: Sender) -> dict[str, Blob]:
    """Append the pieces of a draft's metadata that are too long for its entry."""
    long = {name: data for name, data in pieces_of(draft).items() if not is_short(data)}
    return {name: write_blob(sender.workspace, sender.writer, data) for name, data in long.items()}


def _send_tree(base: TreeRootRow | None, changes: Changes, sender: Sender) -> TreeRootRow:
    """Append the nodes of the tree that is `base` changed, and put everything that was appended."""
    tree = base
    if base is None or len(changes):
        tree = write_tree(base, changes, sender.writer, sender.workspace.store.nodes)
    sender.writer.flush()
    assert tree is not None  # noqa: S101  (either there was one, or one was written)
    return tree


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def with_rows(entries: Entries, rows: Entries) -> Entries:
    """`entries` with some of them replaced by `rows`, which have the same keys."""
    if len(rows) == len(entries):
        return rows
    order = np.arange(len(entries))
    order[entries.find_many(rows.keys)] = len(entries) + np.arange(len(rows))
    return concat([entries, rows]).take(order)


def _statistics(workspace: Workspace, draft: Draft, tree: TreeRootRow) -> Statistics:
    """Totals from the root node, and what differs from the merged parents under the keys that the draft touches."""
    nodes = workspace.store.nodes
    entries, size = size_of(root_of(tree), nodes)
    if not draft.opened.parents:
        return Statistics(files=entries, bytes=size, added=entries, modified=0, removed=0)
    try:
        difference = _difference(workspace, draft)
    except Corrupt:
        # A parent was deleted and its tree collected: there is nothing any more to compare with.
        return Statistics(files=entries, bytes=size, added=entries, modified=0, removed=0)
    return Statistics(
        files=entries,
        bytes=size,
        added=len(difference.added),
        modified=len(difference.modified_new),
        removed=len(difference.removed),
    )


def _difference(workspace: Workspace, draft: Draft) -> Difference:
    """What differs from the merged parents under the keys that the draft touches."""
    base, changes = Entries.empty(), draft.changes
    if draft.opened.base is not None:
        keys = sorted({*changes.entries.keys, *changes.removed})
        base = lookup(root_of(draft.opened.base), keys, workspace.store.nodes)
    return diff_entries(overlay(base, draft.inherited), overlay(base, changes))
