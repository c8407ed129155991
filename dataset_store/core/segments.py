"""Segments: where a file's chunks are, as few runs as possible, and the columns and lists that hold them.

Promises: a run joins chunks only where one read of whole frames gives all of them and nothing in between; what
`encode_segment_list` writes `decode_segment_list` reads, and bytes of any other origin give CorruptObject or rows
that add up to the file's size.

This module never reads a pack and never decides what is stored; `bounded_reuse` decides how much of what is already
stored is worth referring to.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import U8, Array, np
from dataset_store.core.digest import ChunkId, PackName, hash32, rows_digest
from dataset_store.core.entries import LISTED, ONE_CHUNK, Entries, Segments, concat_segments, first_use
from dataset_store.core.frames import NEXT_STEP
from dataset_store.core.packfile import Footer, PackRef, Place, are_inside
from dataset_store.errors import CorruptObject

__all__ = [
    "LONG_RUN",
    "MOST_SEGMENTS",
    "ChunkHit",
    "FileSegments",
    "Segment",
    "SegmentBuilder",
    "bounded_reuse",
    "decode_segment_list",
    "encode_segment_list",
    "reused_runs",
    "segment_chunks",
    "segment_columns",
    "segment_rows",
    "segments_of",
    "with_segments",
    "with_segments_at",
]

MOST_SEGMENTS: Final = 64
"""A file of more segments has them in a list frame of their own."""

LONG_RUN: Final = 512 << 10
"""Plain bytes from which a reused run is worth a range of its own, however many there are."""

_NO_DIGEST: Final = bytes(32)
_COUNTS: Final = struct.Struct("<II")
_SEGMENT_BYTES: Final = 8 + 4 * 4 + 32
_PACK_BYTES: Final = 4 + 16


class ChunkHit(Struct, frozen=True):
    """Where one chunk is: `plain_length` bytes from `plain_offset` of what one frame decodes to.

    `offset` and `stored` place the whole frame in its pack, in bytes; `alone` says that it holds only this chunk.
    """

    pack: PackRef
    offset: int
    stored: int
    plain_offset: int
    plain_length: int
    alone: bool

    def continued_by(self, following: "ChunkHit") -> bool:
        """Whether both can be of one run: frames of one chunk that adjoin, or chunks that adjoin in one block."""
        if self.pack != following.pack or self.alone != following.alone:
            return False
        if self.alone:
            return self.offset + self.stored == following.offset
        in_one_frame = self.offset == following.offset
        return in_one_frame and self.plain_offset + self.plain_length == following.plain_offset


class Segment(Struct, frozen=True):
    """A run of one file's chunks in one pack; the fields are those of docs/format.md §7."""

    pack: PackRef
    offset: int
    stored: int
    plain_offset: int
    plain_length: int
    digest: bytes

    @property
    def place(self) -> Place:
        """The frame or run of frames that it names."""
        return Place(self.pack, self.offset, self.stored, 0)


class FileSegments(Struct, frozen=True):
    """Where one entry's content is: its segments in order, and the bits of the kind byte that go with them.

    `bits` is ONE_CHUNK (then the one segment's digest is zero), LISTED or 0. No content has no segments.
    """

    rows: tuple[Segment, ...] = ()
    bits: int = 0

    @staticmethod
    def listed(place: Place, plain: bytes) -> "FileSegments":
        """The entry of a file whose segments are the list `plain`, a frame at `place`."""
        row = Segment(place.pack, place.offset, place.stored, 0, len(plain), hash32(plain))
        return FileSegments((row,), LISTED)


class SegmentBuilder:
    """Makes the segments of one file out of its chunks. Memory: the rows, and 36 bytes a chunk of the last run."""

    __slots__ = ("_chunks", "_first", "_ids", "_last", "_lengths", "_rows")

    def __init__(self) -> None:
        self._rows: list[Segment] = []
        self._first: ChunkHit | None = None
        self._last: ChunkHit | None = None
        self._ids: list[bytes] = []
        self._lengths: list[int] = []
        self._chunks = 0

    def add(self, chunk_id: ChunkId, at: ChunkHit) -> None:
        """The file's next chunk, and where it is."""
        if self._last is None or not self._last.continued_by(at):
            self._end_run()
            self._first = at
        self._last = at
        self._ids.append(chunk_id)
        self._lengths.append(at.plain_length)
        self._chunks += 1

    def finish(self) -> FileSegments:
        """The segments of all chunks added so far."""
        only = self._last if self._chunks == 1 else None
        if only is not None:
            row = Segment(only.pack, only.offset, only.stored, only.plain_offset, only.plain_length, _NO_DIGEST)
            return FileSegments((row,), ONE_CHUNK)
        self._end_run()
        return FileSegments(tuple(self._rows))

    def _end_run(self) -> None:
        first, last = self._first, self._last
        if first is None or last is None:
            return
        stored = last.offset + last.stored - first.offset
        digest = rows_digest(self._ids, self._lengths)
        self._rows.append(Segment(first.pack, first.offset, stored, first.plain_offset, sum(self._lengths), digest))
        self._first = self._last = None
        self._ids, self._lengths = [], []


def reused_runs(found: Sequence[ChunkHit | None]) -> list[range]:
    """The runs among consecutive chunks of a file: maximal ranges of hits of which each continues the one before."""
    runs: list[range] = []
    before: ChunkHit | None = None
    for row, hit in enumerate(found):
        if hit is not None and before is not None and before.continued_by(hit):
            runs[-1] = range(runs[-1].start, row + 1)
        elif hit is not None:
            runs.append(range(row, row + 1))
        before = hit
    return runs


def bounded_reuse(found: Sequence[ChunkHit | None], most_runs: int) -> list[ChunkHit | None]:
    """The same hits without runs that would shred the file; the chunks of those are to be stored anew.

    Each run is one more range to read, forever. Over `most_runs`, short runs are dropped, the shortest first, but only
    where that saves a range: beside chunks that are stored anyway, or beside another short run, dropped with it. A
    short run between long ones is kept, as storing it again would cost its bytes and still be a range.
    """
    kept = list(found)
    runs = reused_runs(found)
    sizes = {run: sum(hit.plain_length for row in run if (hit := found[row])) for run in runs}
    short = sorted((run for run in runs if sizes[run] < LONG_RUN), key=lambda run: (sizes[run], run.start))
    left = len(runs)
    while left > most_runs:
        dropped = _worth_dropping(short, kept)
        if not dropped:
            break
        for run in dropped:
            short.remove(run)
            kept[run.start : run.stop] = [None] * len(run)
        left -= len(dropped)
    return kept


def _worth_dropping(short: Sequence[range], kept: Sequence[ChunkHit | None]) -> list[range]:
    """The shortest run beside chunks that are stored anew; else the first two that touch; else none."""
    for run in short:
        before = run.start > 0 and kept[run.start - 1] is None
        if before or (run.stop < len(kept) and kept[run.stop] is None):
            return [run]
    by_start = {run.start: run for run in short}
    return next(([run, by_start[run.stop]] for run in short if run.stop in by_start), [])


def segment_columns(rows: Sequence[Segment]) -> Segments:
    """Rows as columns; the pack table holds each pack once, in order of first use."""
    packs: dict[PackRef, int] = {}
    pack = [packs.setdefault(row.pack, len(packs)) for row in rows]
    digests = b"".join(row.digest for row in rows)
    return Segments(
        tuple(packs),
        np.array(pack, np.uint32),
        np.array([row.offset for row in rows], np.uint32),
        np.array([row.stored for row in rows], np.uint32),
        np.array([row.plain_offset for row in rows], np.uint32),
        np.array([row.plain_length for row in rows], np.uint64),
        np.frombuffer(digests, np.uint8).reshape(-1, 32),
    )


def with_segments(entries: Entries, per_row: Sequence[FileSegments]) -> Entries:
    """The same entries with these segments, one `FileSegments` a row, in place of those they had."""
    bare = replace(entries, segment_ends=np.zeros(len(entries), np.int64), segments=Segments.empty())
    return with_segments_at(bare, dict(enumerate(per_row)))


def with_segments_at(entries: Entries, found: Mapping[int, FileSegments]) -> Entries:
    """The same entries, where the rows in `found` have those segments in place of what they had.

    What it costs follows `found`: the segments of all other rows are moved as columns.
    """
    if not found:
        return entries
    rows = np.array(sorted(found), np.int64)
    chosen = [found[row] for row in rows.tolist()]
    replaced = np.zeros(len(entries), np.bool_)
    replaced[rows] = True
    counts = entries.segment_counts
    kept = np.flatnonzero(~np.repeat(replaced, counts))
    counts[rows] = [len(one.rows) for one in chosen]
    kinds = entries.kinds.copy()
    kinds[rows] &= np.uint8(0xFF ^ (ONE_CHUNK | LISTED))
    kinds[rows] |= np.array([one.bits for one in chosen], np.uint8)
    fresh = np.repeat(replaced, counts)
    order = np.empty(len(fresh), np.int64)
    order[~fresh] = kept
    order[fresh] = len(entries.segments) + np.arange(int(fresh.sum()))
    added = segment_columns([segment for one in chosen for segment in one.rows])
    columns = concat_segments([entries.segments, added]).take(order)
    return replace(entries, kinds=kinds, segment_ends=np.cumsum(counts), segments=columns)


def segments_of(entries: Entries, row: int) -> list[Segment]:
    """The segments of one entry, each with its digest: that of a one-chunk content follows from its content id.

    Of an entry with the LISTED bit it is the place of the list: read that frame, check that the digest is the hash
    of its plain bytes, and decode it.
    """
    end = int(entries.segment_ends[row])
    rows = list(_rows(entries.segments, int(entries.segment_ends[row - 1]) if row else 0, end))
    if entries.kinds[row] & ONE_CHUNK:
        digest = rows_digest([entries.content_ids[row].tobytes()], [int(entries.sizes[row])])
        return [replace(only, digest=digest) for only in rows]
    return rows


def _rows(segments: Segments, start: int, stop: int) -> Iterator[Segment]:
    for at in range(start, stop):
        yield Segment(
            segments.packs[int(segments.pack[at])],
            int(segments.offset[at]),
            int(segments.stored[at]),
            int(segments.plain_offset[at]),
            int(segments.plain_length[at]),
            segments.digest[at].tobytes(),
        )


def segment_rows(segments: Segments) -> tuple[Segment, ...]:
    """Columns as rows."""
    return tuple(_rows(segments, 0, len(segments)))


def segment_chunks(segment: Segment, footer: Footer) -> list[tuple[ChunkId, ChunkHit]]:
    """Id and place of each chunk of a segment, by its pack's footer; none if the two do not agree."""
    first, last = np.searchsorted(footer.offsets, (segment.offset, segment.offset + segment.stored)).tolist()
    ends_of_frames = np.cumsum(footer.chunk_counts, dtype=np.int64)
    low = int(ends_of_frames[first - 1]) if first else 0
    high = int(ends_of_frames[last - 1]) if last else 0
    ends = np.cumsum(footer.lengths[low:high], dtype=np.int64)
    begin = low + int(np.searchsorted(ends, segment.plain_offset, side="right"))
    end = low + int(np.searchsorted(ends, segment.plain_offset + segment.plain_length)) + 1
    if end > high or footer.run_digest(begin, end) != segment.digest:
        return []
    frames = footer.frame_of_chunk()[begin:end]
    ids = footer.ids[begin:end].tobytes()
    columns = (
        footer.offsets[frames],
        footer.stored[frames],
        footer.plain_offsets()[begin:end],
        footer.lengths[begin:end],
        footer.chunk_counts[frames] == 1,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(ChunkId(ids[32 * at : 32 * at + 32]), ChunkHit(segment.pack, *row)) for at, row in enumerate(rows)]


def encode_segment_list(segments: Segments) -> bytes:
    """The plain bytes of a list frame. Packs that no row uses are left out."""
    used, pack = first_use(segments.pack)
    packs = [segments.packs[index] for index in used.tolist()]
    return b"".join(
        (
            _COUNTS.pack(len(segments), len(packs)),
            segments.plain_length.astype("<u8").tobytes(),
            pack.astype("<u4").tobytes(),
            segments.offset.astype("<u4").tobytes(),
            segments.stored.astype("<u4").tobytes(),
            segments.plain_offset.astype("<u4").tobytes(),
            np.array([one.storage for one in packs], "<u4").tobytes(),
            segments.digest.tobytes(),
            b"".join(one.name for one in packs),
        )
    )


def decode_segment_list(plain: bytes, size: int, *, what: str) -> Segments:
    """The segments in a list frame's plain bytes.

    Args:
        plain: The bytes, already checked against the digest of the list's place.
        size: Bytes of the file, as its entry says.
        what: Names the list in messages.

    Raises:
        CorruptObject: The bytes are no list, or one whose segments do not add up to `size`.
    """
    _require(len(plain) >= _COUNTS.size, what, "is too short")
    count, packs = _COUNTS.unpack_from(plain)
    expected = _COUNTS.size + _SEGMENT_BYTES * count + _PACK_BYTES * packs
    _require(len(plain) == expected, what, "has another length than its counts say")
    at = _COUNTS.size + 8 * count
    lengths = np.frombuffer(plain, "<u8", count, _COUNTS.size)
    pack, offset, stored, plain_offset = np.frombuffer(plain, "<u4", 4 * count, at).reshape(4, count)
    at += 16 * count
    storages = np.frombuffer(plain, "<u4", packs, at).tolist()
    at += 4 * packs
    digest: U8 = np.frombuffer(plain, np.uint8, 32 * count, at).reshape(count, 32)
    at += 32 * count
    names = [PackName(plain[start : start + 16]) for start in range(at, len(plain), 16)]
    _check_places(pack, offset, stored, packs, what)
    _require(bool((lengths > 0).all()), what, "has an empty segment")
    _require(sum(lengths.tolist()) == size, what, f"does not add up to the {size} bytes of its file")
    table = tuple(PackRef(storage, name) for storage, name in zip(storages, names, strict=True))
    return Segments(table, pack, offset, stored, plain_offset, lengths, digest)


def _check_places(pack: Array, offset: Array, stored: Array, packs: int, what: str) -> None:
    _require(bool((pack < packs).all()), what, "names a pack that it does not list")
    _require(bool(are_inside(offset, stored).all()), what, "has a segment outside its pack")


def _require(holds: bool, what: str, otherwise: str) -> None:
    if not holds:
        raise CorruptObject(f"The segment list {what} {otherwise}.", NEXT_STEP)
