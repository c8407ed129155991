"""Upload: whatever a draft has that the store lacks goes into packs, then the nodes of its tree.

Readers see nothing of it before the commit. What was sent before a failure is found again through the chunk index, so a
repeated upload goes on where the first one stopped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dataset_store.core.digest import ChunkId, ContentId, PackName, hash32
from dataset_store.core.entries import KIND_BITS, LISTED, ONE_CHUNK, Changes, Entries, concat
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.kinds import Kind
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.segments import (
    MOST_SEGMENTS,
    ChunkHit,
    FileSegments,
    Segment,
    SegmentBuilder,
    decode_segment_list,
    encode_segment_list,
    segment_chunks,
    segment_columns,
    segment_rows,
    segments_of,
    with_segments,
)
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.lists import with_lists
from dataset_store.dataset.progress import progress_bar
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import CorruptObject
from dataset_store.local.drafts import Batch, Draft, Sent, contents_of
from dataset_store.local.ingest import SegmentAssembler, SourceFile, ingest
from dataset_store.storage.packs import PackWriter
from dataset_store.storage.trees import root_of, write_tree

__all__ = ["UploadReport", "upload_draft"]

_ALL_WHEN_FEWER = 100_000
"""Entries of a base tree up to which all of it is searched for contents, whatever the number of new files."""


@dataclass(frozen=True, slots=True)
class UploadReport:
    """What an upload did: files whose content was read, and packs and bytes that were put."""

    files: int
    packs: int
    stored: int


class _Sender:
    """One upload's packs: places what is appended, and indexes every pack once it was put."""

    def __init__(self, workspace: Workspace, condemned: frozenset[PackRef]) -> None:
        self.workspace = workspace
        self.condemned = condemned
        self.packs = 0
        self.stored = 0
        self.writer: PackWriter = workspace.repository.pack_writer(self._on_written)

    def _on_written(self, pack: PackRef, footer: Footer) -> None:
        self.workspace.chunks.add_footer(pack, footer, self.condemned)
        self.packs += 1
        self.stored += footer.frames_end

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
    slot = catalog.head
    condemned = frozenset(PackRef(row.storage, PackName(bytes.fromhex(row.pack))) for row in catalog.condemned)
    sender = _Sender(workspace, condemned)
    pending = draft.pending()
    located, files = _locate(draft, pending, sender, show_progress=show_progress)
    rows = with_segments(pending, [located[content] for content in _content_ids(pending)]) if len(pending) else pending
    changes = Changes(_replaced(draft.changes.entries, rows), draft.changes.removed)
    base = draft.opened.base
    tree = base if base is not None and not len(changes) else _write(workspace, base, changes, sender)
    sender.writer.flush()
    if len(rows):
        draft.append(Batch.of(Changes(rows, [])))
        _remember(workspace, rows)
    draft.append(Sent(tree, slot))
    return UploadReport(files, sender.packs, sender.stored)


def _write(workspace: Workspace, base: TreeRootRow | None, changes: Changes, sender: _Sender) -> TreeRootRow:
    return write_tree(base, changes, sender.writer, workspace.repository.nodes)


def _replaced(entries: Entries, rows: Entries) -> Entries:
    """`entries` with the rows of equal keys put in."""
    from_rows = rows.find_many(entries.keys)
    joined = concat([entries, rows])
    order = np.where(from_rows >= 0, from_rows + len(entries), np.arange(len(entries)))
    return joined.take(order)


def _content_ids(entries: Entries) -> list[bytes]:
    raw = entries.content_ids.tobytes()
    return [raw[at : at + 32] for at in range(0, len(raw), 32)]


def _locate(
    draft: Draft, pending: Entries, sender: _Sender, *, show_progress: bool
) -> tuple[dict[bytes, FileSegments], int]:
    """Where each pending content is, those that the store lacks being appended to packs; and how many were read."""
    if not len(pending):
        return {}, 0
    workspace, condemned = sender.workspace, sender.condemned
    wanted = _distinct(pending)
    base = _base_rows(workspace, draft, pending)
    located = _from_entries(base, wanted, condemned)
    located |= _from_entries(draft.changes.entries, wanted, condemned)
    minimum = workspace.repository.chunker.minimum
    located |= _from_index(
        workspace, {c: r for c, r in wanted.items() if c not in located}, pending, minimum, condemned
    )
    missing = [row for content, row in wanted.items() if content not in located]
    earlier = _earlier_chunks(workspace, base, pending, missing)

    def find(ids: Sequence[ChunkId]) -> list[ChunkHit | None]:
        found = [earlier.get(chunk) for chunk in ids]
        others = [chunk for chunk, hit in zip(ids, found, strict=True) if hit is None or hit.pack in condemned]
        indexed = dict(zip(others, workspace.chunks.find_many(others, condemned), strict=True))
        return [indexed.get(chunk, hit) for chunk, hit in zip(ids, found, strict=True)]

    sources = list(_sources(draft, pending, missing))
    assembler = SegmentAssembler()
    lists: list[tuple[bytes, FileSegments]] = []
    total = sum(source.size for source in sources)
    with progress_bar("uploading", total, show=show_progress) as advance:
        for unit in ingest(sources, workspace.repository.chunker, find):
            places = sender.writer.append(unit.frames)
            lists += [(sources[index].content_id, found) for index, found in assembler.add(unit, places)]
            advance(sum(piece.length for piece in unit.pieces))
    # Lists follow all data, as the order of frames in a pack asks.
    located |= {content: sender.finish_list(found) for content, found in lists}
    return located, len(sources)


def _distinct(pending: Entries) -> dict[bytes, int]:
    """The first row of each content, in key order."""
    first: dict[bytes, int] = {}
    for row, content in enumerate(_content_ids(pending)):
        first.setdefault(content, row)
    return first


def _sources(draft: Draft, pending: Entries, rows: Sequence[int]) -> Iterator[SourceFile]:
    keys = [pending.keys[row] for row in rows]
    contents = contents_of(draft, keys)
    for index, (row, key) in enumerate(zip(rows, keys, strict=True)):
        path, text = contents[key]
        content_id = ContentId(pending.content_ids[row].tobytes())
        yield SourceFile(index, path, int(pending.sizes[row]), content_id, text)


# --- contents that the store has already ---------------------------------------------------------------------------


def _base_rows(workspace: Workspace, draft: Draft, pending: Entries) -> Entries:
    """Entries of the base tree in which contents are searched: all, or those under the keys that the draft touches."""
    base = draft.opened.base
    if base is None:
        return Entries.empty()
    parent = workspace.version(draft.opened.parents[0])
    nodes = workspace.repository.nodes
    if parent.entry.stats.files <= max(_ALL_WHEN_FEWER, 16 * len(pending)):
        return read_all(root_of(base), nodes)
    return lookup(root_of(base), sorted({*draft.changes.removed, *pending.keys}), nodes)


def _from_entries(
    entries: Entries, wanted: dict[bytes, int], condemned: frozenset[PackRef]
) -> dict[bytes, FileSegments]:
    """Wanted contents that entries hold, in packs that may be used."""
    if not len(entries):
        return {}
    heads = np.ascontiguousarray(entries.content_ids[:, :8]).view(np.uint64).reshape(-1)
    wanted_heads = np.frombuffer(b"".join(content[:8] for content in wanted), np.uint64)
    found: dict[bytes, FileSegments] = {}
    for row in np.flatnonzero(np.isin(heads, wanted_heads) & (entries.segment_counts > 0)).tolist():
        content = entries.content_ids[row].tobytes()
        if content in wanted and content not in found and (entries.kinds[row] & KIND_BITS) <= Kind.SYMLINK:
            segments = segments_of(entries, row)
            if not any(segment.pack in condemned for segment in segments):
                found[content] = FileSegments(tuple(segments), int(entries.kinds[row]) & (ONE_CHUNK | LISTED))
    return found


def _from_index(
    workspace: Workspace, wanted: dict[bytes, int], pending: Entries, minimum: int, condemned: frozenset[PackRef]
) -> dict[bytes, FileSegments]:
    """Wanted contents that this machine knows from packs that it has written or read."""
    small = [content for content, row in wanted.items() if pending.sizes[row] <= minimum]
    large = [content for content, row in wanted.items() if pending.sizes[row] > minimum]
    found: dict[bytes, FileSegments] = {}
    for content, hit in zip(small, workspace.chunks.find_many(small, condemned), strict=True):
        if hit is not None:
            found[content] = _one_chunk(content, hit)
    for content, plain in zip(large, workspace.chunks.find_contents(large), strict=True):
        rows = _decoded(plain, int(pending.sizes[wanted[content]])) if plain is not None else None
        if rows is not None and not any(row.pack in condemned for row in rows):
            found[content] = FileSegments(rows)
    return found


def _one_chunk(content: bytes, hit: ChunkHit) -> FileSegments:
    builder = SegmentBuilder()
    builder.add(ChunkId(content), hit)
    return builder.finish()


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
    several = np.flatnonzero(((rows.kinds & (ONE_CHUNK | LISTED)) == 0) & (rows.segment_counts > 0)).tolist()
    workspace.chunks.add_contents(
        (ContentId(rows.content_ids[row].tobytes()), encode_segment_list(segment_columns(segments_of(rows, row))))
        for row in several
    )
