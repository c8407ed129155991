"""Upload: whatever a draft has that the store lacks goes into packs, then the nodes of its tree.

Readers see nothing of it before the commit. What was sent before a failure is found again through the chunk index, so a
repeated upload goes on where the first one stopped.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dataset_store.core.digest import ChunkId, ContentId, PackName, hash32
from dataset_store.core.entries import KIND_BITS, LISTED, ONE_CHUNK, Changes, Entries, concat
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.kinds import Kind
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import TRAILER_SIZE, Footer, PackRef
from dataset_store.core.segments import (
    MOST_SEGMENTS,
    ChunkHit,
    FileSegments,
    Segment,
    decode_segment_list,
    encode_segment_list,
    segment_chunks,
    segment_columns,
    segment_rows,
    segments_of,
)
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.blobs import is_short, write_blob
from dataset_store.dataset.links import as_linked, as_stored
from dataset_store.dataset.lists import with_lists
from dataset_store.dataset.locating import Located
from dataset_store.dataset.outputs import number_of
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.reports import pieces_of
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import CorruptObject
from dataset_store.local.drafts import Draft, Sent, pending_rows
from dataset_store.local.ingest import Ingested, SegmentAssembler, SourceFile, ingest
from dataset_store.storage.packs import PackWriter
from dataset_store.storage.trees import root_of, size_of, write_tree

__all__ = ["UploadReport", "upload_draft"]

_ALL_WHEN_FEWER = 100_000
"""Entries of a base tree up to which all of it is searched for contents, whatever the number of new files."""

_SLICE = 65_536
"""Rows that are looked up together."""


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


class _Sender:
    """One upload's packs: places what is appended, and indexes every pack once it was put."""

    def __init__(self, workspace: Workspace, condemned: frozenset[PackRef], storage: int) -> None:
        self.workspace = workspace
        self.condemned = condemned
        self.packs = 0
        self.stored = 0
        self.new_bytes = 0
        self.writer: PackWriter = workspace.repository.pack_writer(storage, self._on_written)

    def _on_written(self, pack: PackRef, footer: Footer) -> None:
        self.workspace.chunks.add_footer(pack, footer, self.condemned)
        self.packs += 1
        self.stored += footer.frames_end + len(footer.encode()) + TRAILER_SIZE

    def finish_list(self, found: FileSegments) -> FileSegments:
        """A file of many segments gets them as a list frame of its own."""
        if len(found.rows) <= MOST_SEGMENTS:
            return found
        plain = encode_segment_list(segment_columns(found.rows))
        frame = FrameCodec().encode_frame(FrameKind.LIST, [plain], [ChunkId(hash32(plain))])
        return FileSegments.listed(self.writer.append([frame])[0], plain)


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
    condemned = frozenset(PackRef(row.storage, PackName(bytes.fromhex(row.pack))) for row in catalog.condemned)
    sender = _Sender(workspace, condemned, storage)
    long = {name: data for name, data in pieces_of(draft).items() if not is_short(data)}
    metadata = {name: write_blob(workspace, sender.writer, data) for name, data in long.items()}
    rows, total = _located(draft, sender, show_progress=show_progress)
    changes = Changes(_replaced(draft.changes.entries, rows), draft.changes.removed)
    base = draft.opened.base
    tree = base if base is not None and not len(changes) else _write(workspace, base, changes, sender)
    sender.writer.flush()
    if len(rows):
        draft.change(Changes(rows, []))
        _remember(workspace, rows)
    draft.append(Sent(tree, slot, metadata))
    return UploadReport(len(rows), total, sender.new_bytes, sender.stored, sender.packs)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _write(workspace: Workspace, base: TreeRootRow | None, changes: Changes, sender: _Sender) -> TreeRootRow:
    return write_tree(base, changes, sender.writer, workspace.repository.nodes)


def _replaced(entries: Entries, rows: Entries) -> Entries:
    """`entries` with those that are pending replaced by `rows`, which are the same with segments."""
    pending = np.flatnonzero(pending_rows(entries))
    if len(pending) == len(entries):
        return rows
    order = np.arange(len(entries))
    order[pending] = len(entries) + np.arange(len(rows))
    return concat([entries, rows]).take(order)


def _located(draft: Draft, sender: _Sender, *, show_progress: bool) -> tuple[Entries, int]:
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
    _locate_by_index(workspace, located, condemned)
    missing = located.missing()
    earlier = _earlier_chunks(workspace, base, pending, missing.tolist())
    sending = _Sending(located, sender)
    total = int(pending.sizes[missing].sum())
    with progress_bar("uploading", total, len(missing), show=show_progress) as advance:
        sources = _sources(draft, pending, missing)
        for unit in ingest(sources, workspace.repository.chunker, _finder(workspace, earlier, condemned)):
            sending.take(unit)
            advance(len(unit.complete), sum(piece.length for piece in unit.pieces))
    sending.finish()
    return as_linked(located.entries(), own), int(pending.sizes.sum())


class _Sending:
    """Appends what ingest gives to packs, and notes where contents came to lie."""

    def __init__(self, located: Located, sender: _Sender) -> None:
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


def _slices(rows: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    return (rows[at : at + _SLICE].tolist() for at in range(0, len(rows), _SLICE))


def _finder(
    workspace: Workspace, earlier: Mapping[ChunkId, ChunkHit], condemned: frozenset[PackRef]
) -> Callable[[Sequence[ChunkId]], list[ChunkHit | None]]:
    """A lookup of chunks: what the file was before, else what this machine knows."""

    def find(ids: Sequence[ChunkId]) -> list[ChunkHit | None]:
        found = [earlier.get(chunk) for chunk in ids]
        others = [chunk for chunk, hit in zip(ids, found, strict=True) if hit is None or hit.pack in condemned]
        indexed = dict(zip(others, workspace.chunks.find_many(others, condemned), strict=True))
        return [indexed.get(chunk, hit) for chunk, hit in zip(ids, found, strict=True)]

    return find


# --- contents that the store has already ---------------------------------------------------------------------------


def _base_rows(workspace: Workspace, draft: Draft, pending: Entries) -> Entries:
    """Entries of the base tree in which contents are searched: all, or those under the keys that the draft touches."""
    base = draft.opened.base
    if base is None:
        return Entries.empty()
    nodes = workspace.repository.nodes
    if size_of(root_of(base), nodes)[0] <= max(_ALL_WHEN_FEWER, 16 * len(pending)):
        return read_all(root_of(base), nodes)
    return lookup(root_of(base), sorted({*draft.changes.removed, *pending.keys}), nodes)


def _locate_by_index(workspace: Workspace, located: Located, condemned: frozenset[PackRef]) -> None:
    """Locate what this machine knows from packs that it has written or read."""
    sizes = located.pending.sizes
    missing = located.missing()
    is_short = sizes[missing] <= workspace.repository.chunker.minimum
    for part in _slices(missing[is_short]):
        found = workspace.chunks.find_many(_content_ids(located, part), condemned)
        hits = [(row, hit) for row, hit in zip(part, found, strict=True) if hit is not None]
        located.add_hits([row for row, _ in hits], [hit for _, hit in hits])
    for part in _slices(missing[~is_short]):
        plains = workspace.chunks.find_contents(_content_ids(located, part))
        for row, plain in zip(part, plains, strict=True):
            rows = _decoded(plain, int(sizes[row])) if plain is not None else None
            if rows is not None and not any(one.pack in condemned for one in rows):
                located.add(row, FileSegments(rows))


def _content_ids(located: Located, rows: Sequence[int]) -> list[bytes]:
    return [content_id.tobytes() for content_id in located.pending.content_ids[rows]]


def _decoded(plain: bytes, size: int) -> tuple[Segment, ...] | None:
    try:
        return segment_rows(decode_segment_list(plain, size, what="of the chunk index"))
    except CorruptObject:
        return None


def _earlier_chunks(
    workspace: Workspace, base: Entries, pending: Entries, missing: Sequence[int]
) -> dict[ChunkId, ChunkHit]:
    """The chunks of what large changed files were before, where they lie in the base tree.

    They come before what the chunk index knows, so that a file that is edited again and again keeps its layout.
    """
    minimum = workspace.repository.chunker.minimum
    at = base.find_many([pending.keys[row] for row in missing if pending.sizes[row] > minimum])
    earlier = with_lists(base.take(np.unique(at[at >= 0])), workspace.repository.nodes)
    large = np.flatnonzero(earlier.sizes > minimum).tolist()
    segments = [segment for row in large for segment in segments_of(earlier, row)]
    footers = workspace.footers({segment.pack for segment in segments})
    return {chunk: hit for segment in segments for chunk, hit in segment_chunks(segment, footers[segment.pack])}


def _remember(workspace: Workspace, rows: Entries) -> None:
    """Note where contents of several chunks are, for the next draft that has them under any name."""
    # Of an external link the segments hold its record, though its content id may be that of the file.
    files = (rows.kinds & (ONE_CHUNK | LISTED | KIND_BITS)) == Kind.FILE
    several = np.flatnonzero(files & (rows.segment_counts > 0)).tolist()
    workspace.chunks.add_contents(
        (ContentId(rows.content_ids[row].tobytes()), encode_segment_list(segment_columns(segments_of(rows, row))))
        for row in several
    )
