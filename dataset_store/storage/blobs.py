"""Blobs: bytes too long for a log entry, kept in packs like the content of a file.

A blob is checked as a whole and chunk by chunk. Its chunks are frames of their own and come before nodes in their pack.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

from dataset_store.core.chunking import ChunkerParams, cut_ends
from dataset_store.core.digest import ChunkId, PackName, hash32, rows_digest
from dataset_store.core.extents import Extents, extents_of_places
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.log_entries import Blob, SegmentRow
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import ChunkHit, Segment, SegmentBuilder, reused_runs
from dataset_store.errors import CorruptObject
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter

__all__ = ["ChunkFinder", "extents_of_blob", "finds_nothing", "packs_of", "read_blob", "segments_of_blob", "write_blob"]

ChunkFinder = Callable[[Sequence[ChunkId]], list[ChunkHit | None]]
"""Where chunks are in a store, for each id or None."""

MOST_BYTES = 1 << 32
"""Of any blob: it is held in memory as a whole."""

_MOST_REUSED_RUNS = 128
"""A blob has 512 segments at most; what lies in more runs than this is stored anew."""


def finds_nothing(ids: Sequence[ChunkId]) -> list[ChunkHit | None]:
    """A `ChunkFinder` that knows of no chunk."""
    return [None] * len(ids)


def write_blob(data: bytes, writer: PackWriter, chunker: ChunkerParams, find: ChunkFinder = finds_nothing) -> Blob:
    """Append a blob's chunks to packs; it is there once the writer was flushed.

    Args:
        data: The blob.
        writer: Of packs.
        chunker: How it is cut.
        find: Tells which chunks are in the store already.

    Raises:
        StorageFailed: A full pack could not be put.
    """
    codec, builder = FrameCodec(), SegmentBuilder()
    ends = cut_ends(data, chunker, final=True).tolist()
    chunks = [memoryview(data)[start:end] for start, end in pairwise((0, *ends))]
    ids = [ChunkId(hash32(chunk)) for chunk in chunks]
    hits = find(ids)
    if len(reused_runs(hits)) > _MOST_REUSED_RUNS:
        hits = finds_nothing(ids)
    for chunk, chunk_id, known in zip(chunks, ids, hits, strict=True):
        hit = known
        if hit is None:
            (place,) = writer.append([codec.encode_frame(FrameKind.DATA, [chunk], [chunk_id])])
            hit = ChunkHit(place.pack, place.offset, place.stored, 0, len(chunk), alone=True)
        builder.add(chunk_id, hit)
    rows = [_row(one, data) for one in builder.finish().rows]
    return Blob(id=hash32(data).hex(), size=len(data), segments=tuple(rows))


def read_blob(blob: Blob, packs: PackReader, *, what: str, most: int = MOST_BYTES) -> bytes:
    """The bytes of a blob, checked.

    Args:
        blob: Which one.
        packs: Where it is read.
        what: Names it in messages.
        most: Bytes that it may have; what its segments claim together is compared before anything is read.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    claimed = sum(row.plain_length for row in blob.segments)
    if claimed != blob.size or claimed > most:
        raise CorruptObject(f"{what} claims {claimed} bytes, which it cannot have.", "Run `dataset-store verify`.")
    codec = FrameCodec()
    stored = packs.read_ranges(_places(blob))
    parts = [
        codec.decode_segment(data, row.plain_offset, row.plain_length, bytes.fromhex(row.digest), what=what)
        for data, row in zip(stored, blob.segments, strict=True)
    ]
    found = b"".join(parts)
    if len(found) != blob.size or hash32(found).hex() != blob.id:
        raise CorruptObject(f"{what} is not what the log says.", "Run `dataset-store verify`.")
    return found


def packs_of(blob: Blob) -> list[PackRef]:
    """The pack of each of its segments."""
    return [PackRef(row.storage, PackName(bytes.fromhex(row.pack))) for row in blob.segments]


def segments_of_blob(blob: Blob) -> list[Segment]:
    """Its segments, in order."""
    return [
        Segment(ref, row.offset, row.stored, row.plain_offset, row.plain_length, bytes.fromhex(row.digest))
        for ref, row in zip(packs_of(blob), blob.segments, strict=True)
    ]


def extents_of_blob(blob: Blob) -> Extents:
    """The frames that hold it."""
    return extents_of_places(_places(blob))


def _places(blob: Blob) -> list[Place]:
    return [Place(ref, row.offset, row.stored, 0) for ref, row in zip(packs_of(blob), blob.segments, strict=True)]


def _row(one: Segment, data: bytes) -> SegmentRow:
    # The digest of a segment that is one chunk, which files leave out, is part of a blob.
    digest = one.digest if any(one.digest) else rows_digest([hash32(data)], [len(data)])
    return SegmentRow(
        one.pack.storage,
        one.pack.name.hex(),
        one.offset,
        one.stored,
        one.plain_offset,
        one.plain_length,
        digest.hex(),
    )
