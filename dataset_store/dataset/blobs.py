"""Blobs: bytes too long for a log entry, kept in packs like the content of a file."""

from collections.abc import Sequence
from itertools import pairwise

from dataset_store.core.chunking import cut_ends
from dataset_store.core.digest import ChunkId, PackName, hash32, rows_digest
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.log_entries import Blob, SegmentRow
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import ChunkHit, SegmentBuilder, reused_runs
from dataset_store.dataset.finding import ChunkFinder
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import CorruptObject, InvalidRequest
from dataset_store.storage.packs import PackWriter

__all__ = ["MOST_BLOB_BYTES", "is_short", "packs_of", "read_blob", "require_bounded", "write_blob"]

MOST_BLOB_BYTES = 256 << 20
_MOST_SHORT_BYTES = 512
_MOST_REUSED_RUNS = 128
"""A blob has 512 segments at most; what lies in more runs than this is stored anew."""


def _finds_nothing(ids: Sequence[ChunkId]) -> list[ChunkHit | None]:
    return [None] * len(ids)


def is_short(data: bytes) -> bool:
    """Whether a piece of metadata is text that a log entry holds itself."""
    if len(data) > _MOST_SHORT_BYTES:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def require_bounded(length: int) -> None:
    """See to it that a blob can be read back into memory.

    Raises:
        InvalidRequest: It has too many bytes.
    """
    if length > MOST_BLOB_BYTES:
        raise InvalidRequest(
            f"{length >> 20} MiB are too much for the metadata or reports of a version.",
            "Keep them in a file of the dataset instead.",
        )


def write_blob(workspace: Workspace, writer: PackWriter, data: bytes, find: ChunkFinder = _finds_nothing) -> Blob:
    """Append a blob's chunks to packs; it is there once the writer was flushed.

    Args:
        workspace: The store.
        writer: Of packs.
        data: The blob.
        find: Tells which chunks are in the store already.

    Raises:
        InvalidRequest: It is too long.
        StorageFailed: A full pack could not be put.
    """
    require_bounded(len(data))
    codec, builder = FrameCodec(), SegmentBuilder()
    ends = cut_ends(data, workspace.repository.chunker, final=True).tolist()
    chunks = [memoryview(data)[start:end] for start, end in pairwise((0, *ends))]
    ids = [ChunkId(hash32(chunk)) for chunk in chunks]
    hits = find(ids)
    if len(reused_runs(hits)) > _MOST_REUSED_RUNS:
        hits = _finds_nothing(ids)
    # Each chunk is a frame of its own, and comes before nodes in its pack.
    for chunk, chunk_id, known in zip(chunks, ids, hits, strict=True):
        hit = known
        if hit is None:
            (place,) = writer.append([codec.encode_frame(FrameKind.DATA, [chunk], [chunk_id])])
            hit = ChunkHit(place.pack, place.offset, place.stored, 0, len(chunk), alone=True)
        builder.add(chunk_id, hit)
    rows = []
    for one in builder.finish().rows:
        digest = one.digest if any(one.digest) else _digest_of_one(data)
        rows.append(
            SegmentRow(
                one.pack.storage,
                one.pack.name.hex(),
                one.offset,
                one.stored,
                one.plain_offset,
                one.plain_length,
                digest.hex(),
            )
        )
    return Blob(id=hash32(data).hex(), size=len(data), segments=tuple(rows))


def read_blob(workspace: Workspace, blob: Blob) -> bytes:
    """The bytes of a blob, checked.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    what, codec = f"The metadata {blob.id[:16]}", FrameCodec()
    places = [Place(ref, row.offset, row.stored, 0) for ref, row in zip(packs_of(blob), blob.segments, strict=True)]
    stored = workspace.repository.packs.read_ranges(places)
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


def _digest_of_one(data: bytes) -> bytes:
    """The digest of a segment that is one chunk, which files leave out."""
    return rows_digest([hash32(data)], [len(data)])
