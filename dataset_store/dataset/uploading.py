"""Upload: whatever a draft has that the store lacks goes into packs, then the nodes of its tree.

Readers see nothing of it before the commit. What was sent before a failure is found again through the chunk index, so a
repeated upload goes on where the first one stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataset_store.core.digest import ContentId
from dataset_store.core.entries import Bool, Changes, Entries, concat
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.segments import FileSegments
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.blobs import is_short, write_blob
from dataset_store.dataset.finding import SEARCHED_WHOLE, earlier_chunks, finder, locate_by_index, remember_contents
from dataset_store.dataset.links import as_linked, as_stored
from dataset_store.dataset.locating import Located
from dataset_store.dataset.outputs import number_of
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.reports import pieces_of
from dataset_store.dataset.sending import PackSender, condemned_packs
from dataset_store.dataset.workspace import Workspace
from dataset_store.local.drafts import Draft, Sent, pending_rows
from dataset_store.local.ingest import Ingested, SegmentAssembler, SourceFile, ingest
from dataset_store.storage.trees import root_of, size_of, write_tree

__all__ = ["UploadReport", "upload_draft"]


@dataclass(frozen=True, slots=True)
class UploadReport:
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


def upload_draft(workspace: Workspace, draft: Draft, *, show_progress: bool) -> UploadReport:
    """Send a draft's contents and tree, and record both in the draft.

    Raises:
        FileChanged: A file is not what it was when it was added.
        StorageFailed: The store refused; repeat.
    """
    catalog = workspace.refresh()
    catalog.require("write")
    storage = number_of(workspace, draft.output)
    slot = catalog.head
    sender = PackSender(workspace, condemned_packs(catalog), storage)
    long = {name: data for name, data in pieces_of(draft).items() if not is_short(data)}
    metadata = {name: write_blob(workspace, sender.writer, data) for name, data in long.items()}
    rows, total = _located(draft, sender, show_progress=show_progress)
    changes = Changes(_replaced(draft.changes.entries, rows), draft.changes.removed)
    base = draft.opened.base
    tree = base if base is not None and not len(changes) else _write(workspace, base, changes, sender)
    sender.writer.flush()
    if len(rows):
        draft.change(Changes(rows, []))
        remember_contents(workspace, rows)
    draft.append(Sent(tree, slot, metadata))
    return UploadReport(len(rows), total, sender.new_bytes, sender.stored, sender.packs)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _write(workspace: Workspace, base: TreeRootRow | None, changes: Changes, sender: PackSender) -> TreeRootRow:
    return write_tree(base, changes, sender.writer, workspace.repository.nodes)


def _replaced(entries: Entries, rows: Entries) -> Entries:
    """`entries` with those that are pending replaced by `rows`, which are the same with segments."""
    pending = np.flatnonzero(pending_rows(entries))
    if len(pending) == len(entries):
        return rows
    order = np.arange(len(entries))
    order[pending] = len(entries) + np.arange(len(rows))
    return concat([entries, rows]).take(order)


def _located(draft: Draft, sender: PackSender, *, show_progress: bool) -> tuple[Entries, int]:
    """The pending rows with their segments, contents that the store lacks being sent; and the bytes of all of them."""
    own = draft.pending()
    if not len(own):
        return own, 0
    pending = as_stored(own, draft)
    workspace, condemned = sender.workspace, sender.condemned
    located = Located(pending)
    base = _base_rows(workspace, draft, pending)
    located.add_from(base, condemned)
    located.add_from(draft.changes.entries, condemned)
    short: Bool = pending.sizes <= workspace.repository.chunker.minimum
    locate_by_index(workspace, located, short, condemned)
    missing = located.missing()
    earlier = earlier_chunks(workspace, base, pending, missing.tolist())
    sending = _Sending(located, sender)
    total = int(pending.sizes[missing].sum())
    with progress_bar("uploading", total, len(missing), show=show_progress) as advance:
        sources = _sources(draft, pending, missing)
        for unit in ingest(sources, workspace.repository.chunker, finder(workspace, earlier, condemned)):
            sending.take(unit)
            advance(len(unit.complete), sum(piece.length for piece in unit.pieces))
    sending.finish()
    return as_linked(located.entries(), own), int(pending.sizes.sum())


class _Sending:
    """Appends what ingest gives to packs, and notes where contents came to lie."""

    def __init__(self, located: Located, sender: PackSender) -> None:
        self.located = located
        self.sender = sender
        self.assembler = SegmentAssembler()
        self.several: list[tuple[int, FileSegments]] = []
        minimum = sender.workspace.repository.chunker.minimum
        # Of each row, whether it is one chunk of its own; as bytes, which are indexed faster than an array.
        self.short = (located.pending.sizes <= minimum).tobytes()

    def take(self, unit: Ingested) -> None:
        """One unit: its short files are columns at once, the others are assembled over several units."""
        places = self.sender.writer.append(unit.frames)
        self.sender.new_bytes += sum(frame.plain for frame in unit.frames)
        by_frame: dict[int, tuple[list[int], list[int]]] = {}
        long = Ingested(unit.frames, [], [row for row in unit.complete if not self.short[row]])
        for piece in unit.pieces:
            if self.short[piece.source] and piece.hit is None:
                rows, starts = by_frame.setdefault(piece.frame, ([], []))
                rows.append(piece.source)
                starts.append(piece.start)
            else:
                long.pieces.append(piece)
        for frame, (rows, starts) in by_frame.items():
            place = places[frame]
            self.located.add_chunks(np.array(rows), place.pack, place.offset, place.stored, np.array(starts))
        self.several += self.assembler.add(long, places)

    def finish(self) -> None:
        """Files of several chunks; lists follow all data, as the order of frames in a pack asks."""
        for row, found in self.several:
            self.located.add(row, self.sender.finish_list(found))


def _sources(draft: Draft, pending: Entries, rows: npt.NDArray[np.int64]) -> Iterator[SourceFile]:
    """The files of these rows, numbered by row; made when they are asked for."""
    sources = draft.sources_of([pending.keys[row] for row in rows.tolist()])
    for row, source in zip(rows.tolist(), sources, strict=True):
        key = pending.keys[row]
        content_id = ContentId(pending.content_ids[row].tobytes())
        yield SourceFile(row, source.path_of(key), int(pending.sizes[row]), content_id, source.links.get(key))


def _base_rows(workspace: Workspace, draft: Draft, pending: Entries) -> Entries:
    """Entries of the base tree in which contents are searched: all, or those under the keys that the draft touches."""
    base = draft.opened.base
    if base is None:
        return Entries.empty()
    nodes = workspace.repository.nodes
    if size_of(root_of(base), nodes)[0] <= max(SEARCHED_WHOLE, 16 * len(pending)):
        return read_all(root_of(base), nodes)
    return lookup(root_of(base), sorted({*draft.changes.removed, *pending.keys}), nodes)
