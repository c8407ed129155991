"""Contents of one store into the packs of another: frames as they are stored, wherever all of a frame is wanted.

Promises: every chunk is hashed between being read and being put, and none is sent whose bytes are not what its version
says; what the target is known to have is neither read nor sent; frames come in the order of their files' keys. Memory:
what 65,536 rows take, two windows of 16 MiB, and one pack.

Chunks stay as the source has cut them, whatever the target's own chunker: that costs deduplication with what is cut
there, and is as right (docs/format.md §5).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from heapq import merge
from itertools import chain, groupby, islice
from operator import itemgetter

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.digest import ChunkId, hash32, rows_digest
from dataset_store.core.entries import (
    IDENTITY_BITS,
    ONE_CHUNK,
    Changes,
    Entries,
    Segments,
    concat,
    sort_rows,
)
from dataset_store.core.frames import PLAIN_LIMITS, EncodedFrame, Frame, FrameCodec, FrameKind, require
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import PackRef, Place, pack_key
from dataset_store.core.paths import to_text
from dataset_store.core.segments import (
    ChunkHit,
    FileSegments,
    Segment,
    SegmentBuilder,
    bounded_reuse,
    segment_chunks,
    segments_of,
)
from dataset_store.core.standing import Standing
from dataset_store.core.tree import lookup, read_all
from dataset_store.dataset.entries.contents import stored_contents
from dataset_store.dataset.entries.links import as_linked, link_rows, with_records
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.progress import Told
from dataset_store.dataset.uploads.finding import SEARCHED_WHOLE, earlier_chunks, finder, locate_by_index
from dataset_store.dataset.uploads.locating import Located
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.dataset.workspace import Workspace
from dataset_store.local.ingest import FIRST_RUNS, RUNS_PER_READ
from dataset_store.storage.blobs import ChunkFinder
from dataset_store.storage.trees import root_of, size_of

__all__ = ["Wanted", "relay", "wanted"]

_SLICE = 65_536
_WINDOW = 16 << 20
_PIECES = 16_384
_CUT = 4 << 20
_SEGMENTS_AT_ONCE = 256
_NODE_BYTES = 128
"""What an entry takes of its tree's nodes, at most, where nothing is known of it."""


# --- what is wanted --------------------------------------------------------------------------------------------------


class Wanted(Struct, frozen=True, eq=False):
    """What a target lacks of some changes.

    Attributes:
        changes: The changes, with places of the source.
        stored: Of their rows those with content: of links their records, with places of the source.
        located: The same rows, and where the target has their contents.
        near: The entries that the target's base tree has under the keys that change.
    """

    changes: Changes
    stored: Entries
    located: Located
    near: Entries

    @property
    def files(self) -> int:
        """How many contents the target is not known to have."""
        return len(self.located.missing())

    @property
    def bytes(self) -> int:
        """Their sizes together: the most that has to be sent, before compression."""
        return int(self.stored.sizes[self.located.missing()].sum(dtype=np.uint64))


def wanted(
    source: Workspace,
    target: Workspace | None,
    base: TreeRootRow | None,
    changes: Changes,
    standing: Standing,
) -> Wanted:
    """Find what of the contents of changes a target has: in its base tree, and by what this machine knows.

    Args:
        source: Where the changes are read.
        target: Where they are to go; None where there is no store yet, which has nothing.
        base: The tree in the target to which they apply; None is the empty tree.
        changes: With places of the source.
        standing: What of the target may be referred to.
    """
    own = changes.entries.take(changes.entries.segment_counts > 0)
    stored = _with_records(source, own)
    bare = replace(
        stored,
        kinds=stored.kinds & np.uint8(IDENTITY_BITS),
        segment_ends=np.zeros(len(stored), np.int64),
        segments=Segments.empty(),
    )
    located = Located(bare)
    if target is None:
        return Wanted(changes, stored, located, Entries.empty())
    found = Wanted(changes, stored, located, _near(target, base, changes))
    located.add_from(found.near, standing)
    one_chunk: Bool = (stored.kinds & ONE_CHUNK) != 0
    locate_by_index(target, located, one_chunk, standing)
    if base is not None and found.files:
        nodes = target.store.nodes
        entries, _ = size_of(root_of(base), nodes)
        # All of the tree is worth reading where that takes less than sending again what may stand elsewhere in it.
        if entries <= max(SEARCHED_WHOLE, 16 * len(stored)) and entries * _NODE_BYTES < found.bytes:
            located.add_from(read_all(root_of(base), nodes), standing)
    return found


def _near(target: Workspace, base: TreeRootRow | None, changes: Changes) -> Entries:
    if base is None:
        return Entries.empty()
    return lookup(root_of(base), sorted({*changes.entries.keys, *changes.removed}), target.store.nodes)


def _with_records(source: Workspace, own: Entries) -> Entries:
    """Rows with size and content id of what is stored of them; records of one chunk are marked as such."""
    rows = link_rows(own).tolist()
    if not rows:
        return own
    records = [
        record for at in range(0, len(rows), _SLICE) for record in stored_contents(source, own, rows[at : at + _SLICE])
    ]
    stored = with_records(own, rows, records)
    kinds = stored.kinds.copy()
    for row, record in zip(rows, records, strict=True):
        segments = segments_of(stored, row)
        if len(segments) == 1 and segments[0].digest == rows_digest([hash32(record)], [len(record)]):
            kinds[row] |= np.uint8(ONE_CHUNK)
    return replace(stored, kinds=kinds)


# --- sending it ------------------------------------------------------------------------------------------------------


def relay(source: Workspace, sender: Sender, found: Wanted, told: Told) -> tuple[Changes, set[PackRef]]:
    """Send what a target lacks.

    Returns:
        The changes with places of the target, valid once the sender's writer was flushed; and all packs that they use,
        also those that new lists of segments name.

    Raises:
        CorruptObject, ObjectMissing: The source is damaged.
        StorageFailed: A store refused.
    """
    rows = found.changes.entries
    has_content = rows.segment_counts > 0
    own = rows.take(has_content)
    target = sender.workspace
    missing = found.located.missing().tolist()
    earlier = earlier_chunks(target, found.near, found.located.pending, missing)
    relaying = _Relay(source, sender, found, finder(target, earlier, sender.standing), told)
    relaying.run()
    located = as_linked(found.located.entries(), replace(own, kinds=own.kinds & np.uint8(IDENTITY_BITS)))
    segments = located.segments
    packs = relaying.packs | {segments.packs[number] for number in np.unique(segments.pack).tolist()}
    return Changes(sort_rows(concat([rows.take(~has_content), located])), found.changes.removed), packs


class _Shorts(Struct, frozen=True, eq=False):
    """Contents of one chunk each that are wanted of one frame: rows, and where each begins in the plain bytes."""

    place: Place
    rows: I64
    starts: I64


class _Piece(Struct, frozen=True):
    """One chunk of a row's content: where the source has it, and where the target does."""

    row: int
    chunk_id: ChunkId
    at: ChunkHit
    hit: ChunkHit | None

    @property
    def place(self) -> Place | None:
        """The frame to be read; None where the target has the chunk."""
        return Place(self.at.pack, self.at.offset, self.at.stored, 0) if self.hit is None else None


class _End(Struct, frozen=True):
    """A row's content has no pieces after these."""

    row: int
    place: None = None


_Item = _Shorts | _Piece | _End
_Frames = Mapping[Place, memoryview]


class _Relay:
    """One version's contents on their way. Belongs to one thread, but for a second one that reads ahead."""

    def __init__(self, source: Workspace, sender: Sender, found: Wanted, find: ChunkFinder, told: Told) -> None:
        self.source = source
        self.sender = sender
        self.stored = found.stored
        self.located = found.located
        self.find = find
        self.told = told
        self.codec = FrameCodec()
        self.builders: dict[int, SegmentBuilder] = {}
        self.several: list[tuple[int, FileSegments]] = []
        self.block: list[tuple[int, memoryview]] = []
        self.block_bytes = 0
        self.packs: set[PackRef] = set()

    def run(self) -> None:
        """Send all that is missing; lists follow all data, as the order of frames in a pack asks."""
        missing = self.located.missing()
        for at in range(0, len(missing), _SLICE):
            for window, frames in self._read_ahead(_windows(self._items(missing[at : at + _SLICE]))):
                for item in window:
                    self._take(item, frames)
            self._end_block()
        for row, found in self.several:
            self.packs.update(segment.pack for segment in found.rows)
            self.located.add(row, self.sender.finish_list(found))

    # --- what to read ---

    def _items(self, leads: I64) -> Iterator[_Item]:
        """What is wanted of these rows, in their order."""
        rows = with_lists(self.stored.take(leads), self.source.store.nodes)
        one_chunk = (rows.kinds & ONE_CHUNK) != 0
        shorts = _by_frame(rows, np.flatnonzero(one_chunk), leads)
        several = self._pieces(rows, np.flatnonzero(~one_chunk), leads)
        return (item for _, item in merge(shorts, several, key=itemgetter(0)))

    def _pieces(self, rows: Entries, several: I64, leads: I64) -> Iterator[tuple[int, _Item]]:
        """The chunks of contents of several, in order, each with the number of its row."""
        segments = ((row, segment) for row in several.tolist() for segment in segments_of(rows, row))
        for row, group in groupby(self._with_chunks(segments), key=itemgetter(0)):
            lead, most_runs = int(leads[row]), RUNS_PER_READ + FIRST_RUNS
            for part in _cut(chain.from_iterable(chunks for _, chunks in group)):
                hits = bounded_reuse(self.find([chunk_id for chunk_id, _ in part]), most_runs)
                most_runs = RUNS_PER_READ
                for (chunk_id, at), hit in zip(part, hits, strict=True):
                    yield row, _Piece(lead, chunk_id, at, hit)
            yield row, _End(lead)

    def _with_chunks(
        self, segments: Iterator[tuple[int, Segment]]
    ) -> Iterator[tuple[int, list[tuple[ChunkId, ChunkHit]]]]:
        """The chunks of segments, by the footers of the source's packs; what these say is checked."""
        while some := list(islice(segments, _SEGMENTS_AT_ONCE)):
            footers = self.source.footers({segment.pack for _, segment in some})
            for row, segment in some:
                chunks = segment_chunks(segment, footers[segment.pack])
                what = f"The footer of {pack_key(segment.pack.name)}"
                require(bool(chunks), what, "names other chunks than a version does")
                yield row, chunks

    def _read_ahead(self, windows: Iterator[list[_Item]]) -> Iterator[tuple[list[_Item], _Frames]]:
        """Windows with the frames that they need; the next one is read while one is worked on."""
        first = list(islice(windows, 2))
        if len(first) < 2:
            yield from ((window, self._read(window)) for window in first)
            return
        with ThreadPoolExecutor(1, "relay") as pool:
            before: tuple[list[_Item], Future[_Frames]] | None = None
            for window in chain(first, windows):
                following = (window, pool.submit(self._read, window))
                if before is not None:
                    yield before[0], before[1].result()
                before = following
            if before is not None:
                yield before[0], before[1].result()

    def _read(self, window: Sequence[_Item]) -> _Frames:
        places = list(dict.fromkeys(item.place for item in window if item.place is not None))
        return dict(zip(places, self.source.store.packs.read_frames(places), strict=True))

    # --- what becomes of it ---

    def _take(self, item: _Item, frames: _Frames) -> None:
        match item:
            case _Shorts():
                self._take_shorts(item, frames[item.place])
            case _Piece():
                builder = self.builders.setdefault(item.row, SegmentBuilder())
                builder.add(item.chunk_id, item.hit or self._sent(item, frames))
                self.told(0, item.at.plain_length)
            case _End():
                self.several.append((item.row, self.builders.pop(item.row).finish()))
                self.told(1, 0)

    def _take_shorts(self, item: _Shorts, data: memoryview) -> None:
        """A frame of whole contents: as it is where all of it is wanted, else those that are, gathered anew."""
        frame = self._decoded(item.place, data)
        chunks = dict(zip((0, *frame.ends), frame.chunks(), strict=False))
        rows = item.rows.tolist()
        found = [chunks.get(start, memoryview(b"")) for start in item.starts.tolist()]
        for row, chunk in zip(rows, found, strict=True):
            same = len(chunk) == self.stored.sizes[row] and hash32(chunk) == self._content_id(row)
            require(same, f"The content of {self._path(row)!r}", "is not what its version says")
        if len(rows) == len(frame.ends):
            ids = tuple(ChunkId(self._content_id(row)) for row in rows)
            place = self._append(EncodedFrame(FrameKind.DATA, bytes(data), ids, frame.lengths))
            self.located.add_chunks(item.rows, place.pack, place.offset, place.stored, item.starts)
        else:
            for row, chunk in zip(rows, found, strict=True):
                self._gather(row, chunk)
        self.told(len(rows), sum(map(len, found)))

    def _gather(self, row: int, chunk: memoryview) -> None:
        if self.block_bytes + len(chunk) > PLAIN_LIMITS[FrameKind.DATA]:
            self._end_block()
        self.block.append((row, chunk))
        self.block_bytes += len(chunk)

    def _end_block(self) -> None:
        """Append what was gathered as one frame."""
        if not self.block:
            return
        rows, chunks = [row for row, _ in self.block], [chunk for _, chunk in self.block]
        ids = [ChunkId(self._content_id(row)) for row in rows]
        place = self._append(self.codec.encode_frame(FrameKind.DATA, chunks, ids))
        starts = np.cumsum([0, *map(len, chunks[:-1])])
        self.located.add_chunks(np.array(rows), place.pack, place.offset, place.stored, starts)
        self.block, self.block_bytes = [], 0

    def _sent(self, piece: _Piece, frames: _Frames) -> ChunkHit:
        """Where a chunk of a longer content came to lie."""
        place = Place(piece.at.pack, piece.at.offset, piece.at.stored, 0)
        frame = self._decoded(place, frames[place])
        start = piece.at.plain_offset
        chunk = frame.plain[start : start + piece.at.plain_length]
        require(
            hash32(chunk) == piece.chunk_id, f"A chunk of {self._path(piece.row)!r}", "is not what its version says"
        )
        if len(frame.ends) == 1:
            encoded = EncodedFrame(FrameKind.DATA, bytes(frames[place]), (piece.chunk_id,), frame.lengths)
        else:
            encoded = self.codec.encode_frame(FrameKind.DATA, [chunk], [piece.chunk_id])
        there = self._append(encoded)
        return ChunkHit(there.pack, there.offset, there.stored, 0, len(chunk), alone=True)

    def _append(self, frame: EncodedFrame) -> Place:
        self.sender.new_bytes += frame.plain
        (place,) = self.sender.writer.append([frame])
        return place

    def _decoded(self, place: Place, data: memoryview) -> Frame:
        what = f"The frame at {place.offset} of {pack_key(place.pack.name)}"
        frame = self.codec.decode_frame(data, what=what)
        require(frame.kind is FrameKind.DATA, what, "is no file's data")
        return frame

    def _content_id(self, row: int) -> bytes:
        return bytes(self.stored.content_ids[row])

    def _path(self, row: int) -> str:
        return to_text(self.stored.keys[row])


def _by_frame(rows: Entries, shorts: I64, leads: I64) -> Iterator[tuple[int, _Item]]:
    """Contents of one chunk by the frame that holds them, frames in the order of their first rows."""
    segments, firsts = rows.segments, rows.segment_ends[shorts] - 1
    order = np.lexsort((segments.plain_offset[firsts], segments.offset[firsts], segments.pack[firsts]))
    shorts, firsts = shorts[order], firsts[order]
    pack, offset = segments.pack[firsts], segments.offset[firsts]
    begins = np.flatnonzero(np.append(True, (pack[1:] != pack[:-1]) | (offset[1:] != offset[:-1]))[: len(shorts)])
    lowest = np.minimum.reduceat(shorts, begins) if len(begins) else begins
    ends = np.append(begins[1:], len(shorts))
    for at in np.argsort(lowest).tolist():
        part = slice(int(begins[at]), int(ends[at]))
        first = int(firsts[part.start])
        place = Place(
            segments.packs[int(segments.pack[first])], int(segments.offset[first]), int(segments.stored[first]), 0
        )
        starts = segments.plain_offset[firsts[part]].astype(np.int64)
        yield int(lowest[at]), _Shorts(place, leads[shorts[part]], starts)


def _cut(chunks: Iterable[tuple[ChunkId, ChunkHit]]) -> Iterator[list[tuple[ChunkId, ChunkHit]]]:
    """Consecutive chunks of a content, some MiB at a time."""
    part: list[tuple[ChunkId, ChunkHit]] = []
    size = 0
    for chunk in chunks:
        part.append(chunk)
        size += chunk[1].plain_length
        if size >= _CUT:
            yield part
            part, size = [], 0
    if part:
        yield part


def _windows(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Consecutive items whose frames are read together."""
    window: list[_Item] = []
    size = 0
    for item in items:
        cost = item.place.stored if item.place is not None else 0
        if window and (size + cost > _WINDOW or len(window) == _PIECES):
            yield window
            window, size = [], 0
        window.append(item)
        size += cost
    if window:
        yield window
