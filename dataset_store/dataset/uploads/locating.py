"""Where contents are: found bit by bit while a draft is uploaded, and kept as columns.

A file of one chunk costs some thirty bytes here and no object; only files of several chunks have objects of their own.
Equal contents are found once: what is known of one row is known of all rows of that content. A file that nobody has
read yet is a content of its own until it was read.
"""

from collections.abc import Sequence
from itertools import chain

from msgspec.structs import replace

from dataset_store.core.arrays import I64, U8, U32, U64, np
from dataset_store.core.entries import KIND_BITS, LISTED, ONE_CHUNK, Entries, Segments
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import ChunkHit, FileSegments, segment_rows, with_segments_at
from dataset_store.core.standing import Standing

__all__ = ["Located"]


class Located:
    """Where the contents of a draft's rows are, as far as that is known.

    A content is named by its lead, the first row that has it.

    Args:
        pending: n rows that need segments.
    """

    def __init__(self, pending: Entries) -> None:
        self.pending = pending
        self._unread = pending.unread
        self._lead = _leads(pending.content_ids)
        self._lead[self._unread] = np.flatnonzero(self._unread)
        self._known = np.zeros(len(pending), np.bool_)
        self._one_chunk = np.zeros(len(pending), np.bool_)
        # Pack number, offset, stored length and plain offset; only rows of one-chunk leads mean something.
        self._places = np.zeros((4, len(pending)), np.uint32)
        self._packs: dict[PackRef, int] = {}
        self._several: dict[int, FileSegments] = {}

    def missing(self) -> I64:
        """The leads that are not located yet, ascending."""
        is_lead = self._lead == np.arange(len(self._lead))
        return np.flatnonzero(is_lead & ~self._known)

    def sought(self) -> I64:
        """Those of them whose content ids are known, so that they may be found somewhere."""
        missing = self.missing()
        return missing[~self._unread[missing]]

    def now_read(self, pending: Entries) -> None:
        """Take the same rows, of which more have been read.

        One that has the content of another row, and is not located itself, is where that one is.
        """
        self.pending = pending
        self._unread = pending.unread
        itself, located, first = np.arange(len(pending)), np.flatnonzero(self._known), _leads(pending.content_ids)
        lead = itself.copy()
        lead[first[located]] = located
        self._lead = np.where(self._known | self._unread, itself, lead[first])

    def add(self, lead: int, found: FileSegments) -> None:
        """Locate one content."""
        self._known[lead] = True
        self._several[lead] = found

    def add_hits(self, leads: Sequence[int], hits: Sequence[ChunkHit]) -> None:
        """Locate contents that are one chunk each."""
        numbers = [self._packs.setdefault(hit.pack, len(self._packs)) for hit in hits]
        columns = (
            numbers,
            [hit.offset for hit in hits],
            [hit.stored for hit in hits],
            [hit.plain_offset for hit in hits],
        )
        self._add(np.array(leads, np.int64), np.array(columns, np.uint32).reshape(4, -1))

    def add_chunks(self, leads: I64, pack: PackRef, offset: int, stored: int, plain_offset: I64) -> None:
        """Locate contents that are one chunk each, all of them in one frame."""
        columns = np.empty((4, len(leads)), np.uint32)
        columns[:3] = np.array([[self._packs.setdefault(pack, len(self._packs))], [offset], [stored]], np.uint32)
        columns[3] = plain_offset
        self._add(leads, columns)

    def add_blocks(self, blocks: Sequence[tuple[Place, Sequence[int], Sequence[int]]]) -> None:
        """As `add_chunks`, many frames at once: of each its place, and the lead and length of every chunk in it."""
        if not blocks:
            return
        counts = [len(leads) for _, leads, _ in blocks]
        frames = [(self._packs.setdefault(at.pack, len(self._packs)), at.offset, at.stored) for at, _, _ in blocks]
        lengths = np.fromiter(chain.from_iterable(lengths for _, _, lengths in blocks), np.int64, sum(counts))
        ends = np.cumsum(lengths)
        begins = np.repeat(np.concatenate(([0], ends[np.cumsum(counts)[:-1] - 1])), counts)
        columns = np.empty((4, len(lengths)), np.uint32)
        columns[:3] = np.repeat(np.array(frames, np.uint32).T, counts, axis=1)
        columns[3] = ends - lengths - begins
        self._add(np.fromiter(chain.from_iterable(leads for _, leads, _ in blocks), np.int64, len(lengths)), columns)

    def add_from(self, entries: Entries, standing: Standing) -> None:
        """Locate the contents that other entries have, where their frames stand.

        A list of segments is taken at its place, so what it lists must stand there too: it does in a live version, if
        nothing was ever lost; else such a content is located chunk by chunk.
        """
        lists_stand = not standing.relocations.with_losses
        leads, there = self._matches(entries)
        one_chunk = (entries.kinds[there] & ONE_CHUNK) != 0
        segments, stands = standing.segments(entries.segments)
        for lead, row in zip(leads[~one_chunk].tolist(), there[~one_chunk].tolist(), strict=True):
            end = int(entries.segment_ends[row])
            rows = slice(end - int(entries.segment_counts[row]), end)
            if stands[rows].all() and (lists_stand or not entries.kinds[row] & LISTED):
                found = segment_rows(segments.take(np.arange(rows.start, rows.stop)))
                self.add(lead, FileSegments(found, int(entries.kinds[row]) & LISTED))
        at = entries.segment_ends[there[one_chunk]] - 1
        usable = stands[at]
        at = at[usable]
        numbers = np.array([self._packs.setdefault(pack, len(self._packs)) for pack in segments.packs], np.uint32)
        columns = (numbers[segments.pack[at]], segments.offset[at], segments.stored[at], segments.plain_offset[at])
        self._add(leads[one_chunk][usable], np.array(columns, np.uint32).reshape(4, -1))

    def entries(self) -> Entries:
        """The rows with their segments; every content must be located."""
        pending = self.pending
        one = self._one_chunk[self._lead]
        pack, offset, stored, plain_offset = self._places[:, self._lead[one]]
        digests = np.zeros((len(pack), 32), np.uint8)
        segments = Segments(tuple(self._packs), pack, offset, stored, plain_offset, pending.sizes[one], digests)
        kinds = np.where(one, pending.kinds | ONE_CHUNK, pending.kinds).astype(np.uint8)
        rows = replace(pending, kinds=kinds, segment_ends=np.cumsum(one, dtype=np.int64), segments=segments)
        several = np.flatnonzero(~one)
        leads = self._lead[several].tolist()
        return with_segments_at(
            rows, {row: self._several[lead] for row, lead in zip(several.tolist(), leads, strict=True)}
        )

    def _add(self, leads: I64, columns: U32) -> None:
        self._known[leads] = True
        self._one_chunk[leads] = True
        self._places[:, leads] = columns

    def _matches(self, entries: Entries) -> tuple[I64, I64]:
        """Leads that are missing, each with a row of `entries` that has its content and knows where it is.

        Of contents that agree in their first eight bytes only one is found; the others are stored once more.
        """
        leads = self.sought()
        kind = entries.kinds & KIND_BITS
        held = np.flatnonzero((kind <= Kind.SYMLINK) & (entries.segment_counts > 0))
        if not len(leads) or not len(held):
            return leads[:0], held[:0]
        wanted = _heads(self.pending.content_ids[leads])
        order = np.argsort(wanted)
        place = np.searchsorted(wanted, _heads(entries.content_ids[held]), sorter=order)
        candidate = leads[order[np.minimum(place, len(order) - 1)]]
        same = (self.pending.content_ids[candidate] == entries.content_ids[held]).all(axis=1)
        found, first = np.unique(candidate[same], return_index=True)
        return found, held[same][first]


def _heads(content_ids: U8) -> U64:
    """The first eight bytes of each; shape (n,)."""
    return np.ascontiguousarray(content_ids[:, :8]).view(np.uint64).reshape(-1)


def _leads(content_ids: U8) -> I64:
    """For each row the first one with the same content; shape (n,)."""
    columns = np.ascontiguousarray(content_ids).view(np.uint64).reshape(-1, 4)
    order = np.lexsort(columns.T)  # stable, so the first of each run of equals is the lowest row
    ordered = columns[order]
    begins = np.ones(len(order), np.bool_)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    leads = np.empty(len(order), np.int64)
    leads[order] = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    return leads
