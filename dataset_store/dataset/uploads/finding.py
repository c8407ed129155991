"""Contents that a store has already, so that they need not be sent: in trees, and by what this machine knows of packs.

What is not found here may well be in the store; then it is stored once more, and nothing is wrong.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dataset_store.core.arrays import I64, Bool, np
from dataset_store.core.digest import ChunkId, ContentId
from dataset_store.core.entries import KIND_BITS, LISTED, ONE_CHUNK, Entries, Segments
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import Footer, PackRef
from dataset_store.core.segments import (
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
from dataset_store.core.standing import Standing
from dataset_store.dataset.checks.surviving import readable
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.uploads.locating import Located
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import CorruptObject
from dataset_store.storage.blobs import ChunkFinder

__all__ = ["SEARCHED_WHOLE", "earlier_chunks", "finder", "locate_by_index", "remember_contents"]

SEARCHED_WHOLE = 100_000
"""Entries of a base tree up to which all of it is searched for contents, whatever the number of new files."""

_SLICE = 65_536
"""Rows that are looked up together."""


def locate_by_index(workspace: Workspace, located: Located, one_chunk: Bool, standing: Standing) -> None:
    """Locate what this machine knows from packs that it has written or read, where it stands.

    Args:
        workspace: The store.
        located: What is searched.
        one_chunk: Its rows whose content is known to be one chunk.
        standing: What may be referred to.
    """
    sizes = located.pending.sizes
    missing = located.sought()
    for part in _slices(missing[one_chunk[missing]]):
        found = standing.hits(workspace.chunks.find_many(_content_ids(located, part)))
        hits = [(row, hit) for row, hit in zip(part, found, strict=True) if hit is not None]
        located.add_hits([row for row, _ in hits], [hit for _, hit in hits])
    for part in _slices(missing[~one_chunk[missing]]):
        plains = workspace.chunks.find_contents(_content_ids(located, part))
        for row, plain in zip(part, plains, strict=True):
            segments = _decoded(plain, int(sizes[row])) if plain is not None else None
            if segments is not None:
                now, stands = standing.segments(segments)
                if stands.all():
                    located.add(row, FileSegments(segment_rows(now)))


def remember_contents(workspace: Workspace, rows: Entries) -> None:
    """Note where contents of several chunks were put, for the next draft that has them under any name."""
    # Of an external link the segments hold its record, though its content id may be that of the file.
    files = (rows.kinds & (ONE_CHUNK | LISTED | KIND_BITS)) == Kind.FILE
    several = np.flatnonzero(files & (rows.segment_counts > 0)).tolist()
    workspace.chunks.add_contents(
        (ContentId(rows.content_ids[row].tobytes()), encode_segment_list(segment_columns(segments_of(rows, row))))
        for row in several
    )


def earlier_chunks(
    workspace: Workspace, base: Entries, pending: Entries, missing: Sequence[int]
) -> dict[ChunkId, ChunkHit]:
    """The chunks of what large changed files were before, where they lie in the base tree.

    They come before what the chunk index knows, so that a file that is edited again and again keeps its layout. Of a
    file whose chunks can't be told, as the store has lost something, none are given: they only save space.
    """
    minimum = workspace.store.chunker.minimum
    at = base.find_many([pending.keys[row] for row in missing if pending.sizes[row] > minimum])
    rows = np.unique(at[at >= 0])
    segments = _segments_of_all(workspace, base.take(rows[base.sizes[rows] > minimum]))
    footers = _footers_there(workspace, {segment.pack for segment in segments})
    known = (segment for segment in segments if segment.pack in footers)
    return {chunk: hit for segment in known for chunk, hit in segment_chunks(segment, footers[segment.pack])}


def _segments_of_all(workspace: Workspace, entries: Entries) -> list[Segment]:
    """The segments of all rows whose lists can be read."""

    def look(rows: Sequence[int]) -> list[list[Segment]]:
        whole = with_lists(entries.take(np.array(rows, np.int64)), workspace.store.nodes)
        return [segments_of(whole, row) for row in range(len(whole))]

    return [segment for found in readable(range(len(entries)), look) for segment in found or ()]


def _footers_there(workspace: Workspace, packs: Iterable[PackRef]) -> dict[PackRef, Footer]:
    """The footers of those packs that have one."""
    wanted = sorted(packs)

    def look(some: Sequence[PackRef]) -> list[Footer]:
        footers = workspace.footers(some)
        return [footers[pack] for pack in some]

    found = zip(wanted, readable(wanted, look), strict=True)
    return {pack: footer for pack, footer in found if footer is not None}


def finder(workspace: Workspace, earlier: Mapping[ChunkId, ChunkHit], standing: Standing) -> ChunkFinder:
    """A lookup of chunks: what the file was before, else what this machine knows; where they stand."""

    def find(ids: Sequence[ChunkId]) -> list[ChunkHit | None]:
        found = standing.hits([earlier.get(chunk) for chunk in ids])
        others = [chunk for chunk, hit in zip(ids, found, strict=True) if hit is None]
        indexed = dict(zip(others, standing.hits(workspace.chunks.find_many(others)), strict=True))
        return [indexed.get(chunk, hit) for chunk, hit in zip(ids, found, strict=True)]

    return find


def _slices(rows: I64) -> Iterator[list[int]]:
    return (rows[at : at + _SLICE].tolist() for at in range(0, len(rows), _SLICE))


def _content_ids(located: Located, rows: Sequence[int]) -> list[bytes]:
    return [content_id.tobytes() for content_id in located.pending.content_ids[rows]]


def _decoded(plain: bytes, size: int) -> Segments | None:
    try:
        return decode_segment_list(plain, size, what="of the chunk index")
    except CorruptObject:
        return None
