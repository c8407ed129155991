"""Extents: ranges of bytes of packs, as columns. What is live is a set of extents, and what a node names is one too.

Extents always consist of whole frames. A set is *united* when its rows are sorted by pack and start and neither overlap
nor touch; sets of one meaning are then equal row by row.

This module never knows what the bytes are.
"""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from dataset_store.core.arrays import U32, U64, Array, Bool, np
from dataset_store.core.digest import PackName
from dataset_store.core.entries import Segments
from dataset_store.core.packfile import PackRef, Place

__all__ = ["Extents", "extents_of_places", "extents_of_segments", "unite", "without"]

_ROW = [("storage", "<u4"), ("name", "u1", (16,)), ("start", "<u4"), ("length", "<u4")]
_PACK_SHIFT = 33
_HEAD = 20
"""Bytes of a row that are its pack reference."""


class Extents(Struct, frozen=True, eq=False):
    """Rows of bytes `[start, stop)` of packs; `pack` indexes `packs`. Shapes: columns (n,)."""

    packs: tuple[PackRef, ...]
    pack: U32
    start: U64
    stop: U64

    def __len__(self) -> int:
        return len(self.pack)

    def named(self) -> set[PackRef]:
        """The packs that have rows here."""
        return {self.packs[index] for index in np.unique(self.pack).tolist()}

    def by_pack(self) -> Iterator[tuple[PackRef, "Extents"]]:
        """Each pack that has rows here, with those rows; of united extents in their order."""
        order = np.argsort(self.pack, kind="stable")
        bounds = np.flatnonzero(np.diff(self.pack[order])) + 1
        for rows in np.split(order, bounds) if len(order) else ():
            yield self.packs[int(self.pack[rows[0]])], self.take(rows)

    def take(self, rows: Array) -> "Extents":
        """The given rows, in the given order; the table of packs is kept whole."""
        return Extents(self.packs, self.pack[rows], self.start[rows], self.stop[rows])

    def touched_by(self, other: "Extents") -> Bool:
        """Which rows share a byte with the united extents `other`; shape (n,)."""
        index = {pack: at for at, pack in enumerate(other.packs)}
        table = np.array([index.get(pack, len(other.packs)) for pack in self.packs], np.uint64)
        if not len(self) or not len(other):
            return np.zeros(len(self), np.bool_)
        # Packs are less than 4 GiB, so one sorted column can hold the starts of all of them.
        base = table[self.pack] << np.uint64(_PACK_SHIFT)
        others = other.pack.astype(np.uint64) << np.uint64(_PACK_SHIFT)
        last = np.searchsorted(others | other.start, base | self.stop) - 1
        touched: Bool = (last >= 0) & ((others | other.stop)[np.maximum(last, 0)] > (base | self.start))
        return touched

    def total(self) -> int:
        """The lengths together; of united extents, how many bytes they cover."""
        return int((self.stop - self.start).sum())

    def encode(self) -> bytes:
        """Rows of u32 storage, name (16), u32 start, u32 length."""
        table = np.empty(len(self), _ROW)
        table["storage"] = np.array([pack.storage for pack in self.packs], "<u4")[self.pack]
        names = np.frombuffer(b"".join(pack.name for pack in self.packs), np.uint8).reshape(-1, 16)
        table["name"] = names[self.pack]
        table["start"] = self.start
        table["length"] = self.stop - self.start
        return table.tobytes()

    @staticmethod
    def decode(data: bytes | memoryview) -> "Extents":
        """What `encode` gave; the caller vouches for the bytes."""
        table = np.frombuffer(data, _ROW)
        heads = np.frombuffer(data, np.uint8).reshape(-1, table.itemsize)[:, :_HEAD].tobytes()
        packs: dict[bytes, int] = {}
        pack = [packs.setdefault(heads[at : at + _HEAD], len(packs)) for at in range(0, len(heads), _HEAD)]
        refs = tuple(PackRef(int.from_bytes(head[:4], "little"), PackName(head[4:])) for head in packs)
        start = table["start"].astype(np.uint64)
        return Extents(refs, np.array(pack, np.uint32), start, start + table["length"])

    @staticmethod
    def none() -> "Extents":
        """No rows."""
        none = np.zeros(0, np.uint64)
        return Extents((), none.astype(np.uint32), none, none)


def extents_of_places(places: Sequence[Place]) -> Extents:
    """One row for each place, in their order."""
    packs: dict[PackRef, int] = {}
    pack = np.array([packs.setdefault(place.pack, len(packs)) for place in places], np.uint32)
    start = np.array([place.offset for place in places], np.uint64)
    return Extents(tuple(packs), pack, start, start + np.array([place.stored for place in places], np.uint64))


def extents_of_segments(segments: Segments) -> Extents:
    """One row for each segment, in their order."""
    start = segments.offset.astype(np.uint64)
    return Extents(segments.packs, segments.pack, start, start + segments.stored)


def unite(parts: Iterable[Extents]) -> Extents:
    """The bytes that any of the parts covers, united."""
    found = [part for part in parts if len(part)]
    if not found:
        return Extents.none()
    packs = sorted({pack for part in found for pack in part.named()})
    index = {pack: at for at, pack in enumerate(packs)}
    maps = [np.array([index.get(pack, 0) for pack in part.packs], np.uint32) for part in found]
    pack = np.concatenate([table[part.pack] for table, part in zip(maps, found, strict=True)])
    start = np.concatenate([part.start for part in found])
    stop = np.concatenate([part.stop for part in found])
    order = np.lexsort((start, pack))
    pack, start, stop = pack[order], start[order], stop[order]
    # Packs are less than 4 GiB, so one running maximum over all of them can tell where a gap begins.
    reach = np.maximum.accumulate((pack.astype(np.uint64) << np.uint64(_PACK_SHIFT)) | stop)
    begins = np.ones(len(pack), np.bool_)
    begins[1:] = ((pack[1:].astype(np.uint64) << np.uint64(_PACK_SHIFT)) | start[1:]) > reach[:-1]
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(pack)) - 1
    return Extents(tuple(packs), pack[first], start[first], reach[last] & np.uint64((1 << 33) - 1))


def without(extents: Extents, removed: Extents) -> Extents:
    """The bytes of united extents that other united extents do not cover, united."""
    gone = dict(removed.by_pack())
    parts = []
    for pack, rows in extents.by_pack():
        other = gone.get(pack)
        parts.append(rows if other is None else _without(rows, other))
    return unite(parts)


def _without(rows: Extents, other: Extents) -> Extents:
    """As `without`, of one pack: each byte at which either set begins or ends is the edge of a piece."""
    edges = np.unique(np.concatenate((rows.start, rows.stop, other.start, other.stop)))
    start, stop = edges[:-1], edges[1:]
    kept = np.flatnonzero(_covers(rows, start) & ~_covers(other, start))
    pack = np.full(len(kept), rows.pack[0], np.uint32)
    return Extents(rows.packs, pack, start[kept], stop[kept])


def _covers(rows: Extents, at: U64) -> Bool:
    """Whether united rows of one pack hold each byte."""
    row = np.searchsorted(rows.start, at, side="right") - 1
    held: Bool = (row >= 0) & (at < rows.stop[np.maximum(row, 0)])
    return held
