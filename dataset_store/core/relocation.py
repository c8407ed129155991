"""Relocation: where the frames of repacked and repaired packs are now (docs/format.md §9.3, §11).

A relocation table tells, for every live frame of the packs that one `repack` entry condemned, where its copy is. Tables
are merged in log order, so that an old place resolves in one step, however often its frame was moved.

A frame's plain bytes are at its new place, chunk by chunk as they were, so whatever refers to the old place stays true:
the bytes of a run of frames are those of its frames at their new places, one after another. Only a repair makes frames
anew, of other stored lengths; what it could not find again of one it marks as lost.

This module never decides what is moved, and never does I/O.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Final

from msgspec import Struct

from dataset_store.core.arrays import I64, U32, U64, Bool, np
from dataset_store.core.digest import PackName
from dataset_store.core.extents import Extents, unite, without
from dataset_store.core.packfile import Footer, PackRef, Place, are_inside
from dataset_store.errors import CorruptObject

__all__ = [
    "Moved",
    "Relocations",
    "Table",
    "decode_table",
    "encode_table",
    "moved_footer",
    "moved_frames",
    "sound_packs",
]

_ROW: Final = [
    ("old", "u1", (20,)),
    ("offset", "<u4"),
    ("stored", "<u4"),
    ("new", "u1", (20,)),
    ("new_offset", "<u4"),
    ("new_stored", "<u4"),
    ("lost", "<u4"),
]


class Moved(Struct, frozen=True, eq=False):
    """Frames of one pack that were moved, ascending by offset, and where each begins now. Shapes: columns (n,).

    `pack` indexes `packs`. Of frames that are `lost` chunks are missing, with zeros in their place, or all: then the
    frame is still where it was, should its pack come back. Nobody may begin to refer to them.
    """

    offset: U32
    stored: U32
    packs: tuple[PackRef, ...]
    pack: U32
    new_offset: U32
    new_stored: U32
    lost: Bool

    def __len__(self) -> int:
        return len(self.offset)

    def rows_at(self, place: Place) -> tuple[slice, bool]:
        """The rows of a frame or run of frames in the old pack, and whether these make it up exactly."""
        first, last, whole = self.rows_of(np.array([place.offset], np.uint64), np.array([place.stored], np.uint32))
        return slice(int(first[0]), int(last[0])), bool(whole[0])

    def old_extents(self, old: PackRef, rows: Bool) -> Extents:
        """Where some frames were, in the pack that they were moved out of; `rows` is a mask of shape (n,)."""
        start: U64 = self.offset[rows].astype(np.uint64)
        return Extents((old,), np.zeros(len(start), np.uint32), start, start + self.stored[rows])

    def away_from(self, old: PackRef) -> Bool:
        """Which frames are in another pack now than in the one that they were moved out of; shape (n,)."""
        away: Bool = np.array([pack != old for pack in self.packs], np.bool_)[self.pack]
        return away

    def rows_of(self, start: U64, stored: U32) -> tuple[I64, I64, Bool]:
        """For each run `[start, start + stored)` its rows `[first, last)`, and whether these make it up exactly."""
        first = np.searchsorted(self.offset, start)
        last = np.searchsorted(self.offset, start + stored)
        below = np.concatenate((np.zeros(1, np.uint64), np.cumsum(self.stored, dtype=np.uint64)))
        begins = np.append(self.offset, np.uint32(0))[first] == start
        return first, last, begins & (last > first) & (below[last] - below[first] == stored)

    def adjoin(self, first: I64, last: I64) -> Bool:
        """Whether the frames of each run of rows, none of them empty, stand one after another now."""
        stop = self.new_offset.astype(np.uint64) + self.new_stored
        apart = (self.pack[1:] != self.pack[:-1]) | (self.new_offset[1:] != stop[:-1])
        breaks = np.concatenate(([0], np.cumsum(apart), [-1]))  # the last for runs that begin behind all rows
        none: Bool = breaks[np.maximum(last, first + 1) - 1] == breaks[first]
        return none

    def all_in(self, usable: Bool, first: I64, last: I64) -> Bool:
        """Whether each run of rows is whole, in packs that are usable; shape of `usable` as of `packs`."""
        fallen = np.concatenate(([0], np.cumsum(~usable[self.pack] | self.lost)))
        none: Bool = fallen[last] == fallen[first]
        return none

    def runs(self, first: int, last: int) -> Iterator[Place]:
        """The places of consecutive rows, without plain lengths; frames that adjoin are one place."""
        rows = slice(first, last)
        offset = self.new_offset[rows].astype(np.uint64)
        stop = offset + self.new_stored[rows]
        breaks = (self.pack[rows][1:] != self.pack[rows][:-1]) | (offset[1:] != stop[:-1])
        for begin, end in pairwise([0, *(np.flatnonzero(breaks) + 1).tolist(), len(offset)]):
            pack = self.packs[int(self.pack[first + begin])]
            yield Place(pack, int(offset[begin]), int(stop[end - 1] - offset[begin]), 0)


Table = Mapping[PackRef, Moved]
"""What one relocation table says, by old pack."""


class Relocations:
    """The relocation tables of a log so far, merged. A value: `with_table` gives another."""

    def __init__(self) -> None:
        self._moved: dict[PackRef, Moved] = {}
        self._came_from: dict[PackRef, frozenset[PackRef]] = {}

    def with_table(self, table: Table, staying: Collection[PackRef] = ()) -> "Relocations":
        """These, and the next table in log order.

        Args:
            table: The table.
            staying: The packs of the table that no entry has condemned yet: frames in them without a row stay where
                they are, and so do those that older rows lead to.
        """
        merged = Relocations()
        merged._moved = self._moved.copy()
        merged._came_from = self._came_from.copy()
        through = {old for pack in table for old in merged._came_from.pop(pack, ())}
        for old in through:
            merged._put(old, _forwarded(self._moved[old], table, staying))
        for old, moved in table.items():
            merged._put(old, moved)
        return merged

    def _put(self, old: PackRef, moved: Moved) -> None:
        self._moved[old] = moved
        for pack in moved.packs:
            self._came_from[pack] = self._came_from.get(pack, frozenset()) | {old}

    def __contains__(self, pack: PackRef) -> bool:
        """Whether frames of this pack were moved."""
        return pack in self._moved

    def moved(self, pack: PackRef) -> Moved | None:
        """What was moved out of a pack, at its places now; None where nothing was."""
        return self._moved.get(pack)

    def is_lost(self, place: Place) -> bool:
        """Whether anything of a frame or run of frames in a pack that was moved is lost, or was not moved."""
        moved = self._moved[place.pack]
        rows, whole = moved.rows_at(place)
        return not whole or bool(moved.lost[rows].any())

    def is_holed(self, place: Place) -> bool:
        """Whether of a frame or run of frames something was put elsewhere that lacks a part of it."""
        moved = self._moved.get(place.pack)
        if moved is None:
            return False
        rows, _ = moved.rows_at(place)
        return bool((moved.lost & moved.away_from(place.pack))[rows].any())

    def elsewhere(self, pack: PackRef) -> Extents:
        """The bytes of a pack that are to be read elsewhere now, united."""
        moved = self._moved.get(pack)
        if moved is None:
            return Extents.none()
        return unite([moved.old_extents(pack, moved.away_from(pack))])

    @cached_property
    def with_losses(self) -> frozenset[PackRef]:
        """The packs of whose frames some are lost in part or in whole."""
        return frozenset(pack for pack, moved in self._moved.items() if moved.lost.any())

    def packs(self) -> frozenset[PackRef]:
        """The packs of which tables tell."""
        return frozenset(self._moved)

    def lost(self) -> Extents:
        """The old places of the frames that are lost in part or in whole, united."""
        return unite(self._lost_frames)

    def awaited(self, named: Extents) -> Extents:
        """The old places of lost frames that united extents name: what comes back there is needed."""
        return unite([rows.take(np.flatnonzero(rows.touched_by(named))) for rows in self._lost_frames])

    @cached_property
    def _lost_frames(self) -> list[Extents]:
        """The old places of the frames that are lost in part or in whole, one row for each."""
        return [self._moved[pack].old_extents(pack, self._moved[pack].lost) for pack in self.with_losses]

    def maimed(self) -> frozenset[PackRef]:
        """The packs of which something lost is still where it was."""
        lost = ((pack, self._moved[pack]) for pack in self.with_losses)
        return frozenset(pack for pack, moved in lost if (moved.lost & ~moved.away_from(pack)).any())

    def places(self, place: Place) -> list[Place] | None:
        """The places whose bytes, one after another, are those of a frame or run of frames in a pack that was moved.

        None where not all of its frames were moved: nobody has them but, while it is there, the old pack.
        """
        moved = self._moved.get(place.pack)
        if moved is None:
            return None
        rows, whole = moved.rows_at(place)
        return list(moved.runs(rows.start, rows.stop)) if whole else None

    def frames(self, place: Place) -> list[Place] | None:
        """As `places`, each frame by itself."""
        moved = self._moved.get(place.pack)
        if moved is None:
            return None
        rows, whole = moved.rows_at(place)
        return [next(moved.runs(row, row + 1)) for row in range(rows.start, rows.stop)] if whole else None

    def extents(self, named: Extents) -> tuple[Extents, Extents]:
        """Where united extents lie now, united, and those of them that were not moved though their packs were.

        Extents of packs of which nothing was moved stay as they are.
        """
        staying = [pack not in self._moved for pack in named.packs]
        stays = np.array(staying, np.bool_)[named.pack] if len(named) else np.zeros(0, np.bool_)
        found, lost = [named.take(np.flatnonzero(stays))], []
        for pack, rows in named.take(np.flatnonzero(~stays)).by_pack():
            now, gone = _extents_now(self._moved[pack], rows)
            found.append(now)
            lost.append(gone)
        return unite(found), unite(lost)

    def named(self, now: Extents) -> Extents:
        """The inverse: these united extents, and the old places of the frames that now lie in them."""
        found = [now]
        for old in {old for pack in now.named() for old in self._came_from.get(pack, ())}:
            moved = self._moved[old]
            start = moved.new_offset.astype(np.uint64)
            there = Extents(moved.packs, moved.pack, start, start + moved.new_stored).touched_by(now)
            found.append(moved.old_extents(old, there & moved.away_from(old)))
        return unite(found)


def encode_table(table: Table) -> bytes:
    """The plain bytes of a table's blob: its rows, sorted bytewise; equal tables have equal bytes."""
    parts = [_encoded(old, moved) for old, moved in sorted(table.items())]
    rows = np.concatenate(parts) if parts else np.zeros(0, _ROW)
    data = rows.tobytes()
    return b"".join(sorted(data[at : at + rows.itemsize] for at in range(0, len(data), rows.itemsize)))


def decode_table(plain: bytes, what: str) -> dict[PackRef, Moved]:
    """The inverse of `encode_table`.

    Args:
        plain: The blob's bytes, checked against its hash.
        what: Names the table in messages.

    Raises:
        CorruptObject: The bytes are no table.
    """
    _require(len(plain) % np.dtype(_ROW).itemsize == 0, what, "is not made of whole rows")
    rows = np.frombuffer(plain, _ROW)
    _require(bool((rows["lost"] <= 1).all()), what, "has rows of an unknown kind")
    for begin, length in (("offset", "stored"), ("new_offset", "new_stored")):
        _require(bool(are_inside(rows[begin], rows[length]).all()), what, "has a frame outside its pack")
    within = (rows["old"] == rows["new"]).all(axis=1)
    stays = (rows["offset"] == rows["new_offset"]) & (rows["stored"] == rows["new_stored"]) & (rows["lost"] == 1)
    _require(bool((stays | ~within).all()), what, "moves a frame within its pack")
    old_refs, old = _refs(rows["old"])
    new_refs, new = _refs(rows["new"])
    order = np.lexsort((rows["offset"], old))
    table = {}
    for group in np.split(order, np.flatnonzero(np.diff(old[order])) + 1) if len(order) else ():
        offset, stored = rows["offset"][group], rows["stored"][group]
        apart = offset[1:].astype(np.uint64) >= offset[:-1].astype(np.uint64) + stored[:-1]
        _require(bool(apart.all()), what, "has frames that overlap")
        used, pack = np.unique(new[group], return_inverse=True)
        refs = tuple(new_refs[index] for index in used.tolist())
        places = (refs, pack.astype(np.uint32), rows["new_offset"][group], rows["new_stored"][group])
        table[old_refs[int(old[group[0]])]] = Moved(offset, stored, *places, rows["lost"][group] == 1)
    return table


def _encoded(old: PackRef, moved: Moved) -> "np.ndarray[tuple[int], np.dtype[np.void]]":
    rows = np.zeros(len(moved), _ROW)
    rows["old"] = np.frombuffer(_packed(old), np.uint8)
    rows["offset"], rows["stored"] = moved.offset, moved.stored
    names = np.frombuffer(b"".join(map(_packed, moved.packs)), np.uint8).reshape(-1, 20)
    rows["new"] = names[moved.pack]
    rows["new_offset"], rows["new_stored"] = moved.new_offset, moved.new_stored
    rows["lost"] = moved.lost
    return rows


def _packed(pack: PackRef) -> bytes:
    return pack.storage.to_bytes(4, "little") + pack.name


def _refs(column: "np.ndarray[tuple[int, int], np.dtype[np.uint8]]") -> tuple[list[PackRef], U32]:
    """The distinct packs of a column of references, and of each row the index among them."""
    data = column.tobytes()
    index: dict[bytes, int] = {}
    rows = [index.setdefault(data[at : at + 20], len(index)) for at in range(0, len(data), 20)]
    return [PackRef(int.from_bytes(one[:4], "little"), PackName(one[4:])) for one in index], np.array(rows, np.uint32)


def _forwarded(moved: Moved, table: Table, staying: Collection[PackRef]) -> Moved:
    """Rows whose new places were moved again; those whose frames were left behind in a condemned pack go."""
    keep = np.ones(len(moved), np.bool_)
    offset, stored, pack = moved.new_offset.copy(), moved.new_stored.copy(), moved.pack.copy()
    lost = moved.lost.copy()
    packs: dict[PackRef, int] = {ref: at for at, ref in enumerate(moved.packs)}
    for at, ref in enumerate(moved.packs):
        again = table.get(ref)
        if again is None:
            continue
        rows = np.flatnonzero(moved.pack == at)
        begin, length = moved.new_offset[rows], moved.new_stored[rows]
        found = np.maximum(np.searchsorted(again.offset, begin, side="right") - 1, 0)
        numbers = np.array([packs.setdefault(one, len(packs)) for one in again.packs], np.uint32)
        inside = _within(begin, length, again.offset[found], again.stored[found])
        is_left = numbers[again.pack[found]] == at
        goes = ~is_left & (again.offset[found] == begin) & (again.stored[found] == length)
        # A frame without a row is where it was, if its pack is; what is lost is where it was in any case.
        stays = ~goes if ref in staying else inside & is_left
        keep[rows] = stays | goes
        lost[rows] |= again.lost[found] & inside
        rows, found = rows[goes], found[goes]
        offset[rows], stored[rows] = again.new_offset[found], again.new_stored[found]
        pack[rows] = numbers[again.pack[found]]
    used, index = np.unique(pack[keep], return_inverse=True)
    refs = list(packs)
    return Moved(
        moved.offset[keep],
        moved.stored[keep],
        tuple(refs[one] for one in used.tolist()),
        index.astype(np.uint32),
        offset[keep],
        stored[keep],
        lost[keep],
    )


def _within(begin: U32, length: U32, start: U32, stored: U32) -> Bool:
    """Whether each of some ranges lies in another; what is lost and stays where it was may be told as one run."""
    inside: Bool = (begin >= start) & (begin.astype(np.uint64) + length <= start.astype(np.uint64) + stored)
    return inside


def _extents_now(moved: Moved, rows: Extents) -> tuple[Extents, Extents]:
    """Where united extents of one pack lie now, not united, and what of them was not moved."""
    start: U64 = moved.offset.astype(np.uint64)
    stop = start + moved.stored
    row = np.searchsorted(rows.start, start, side="right") - 1
    taken = np.flatnonzero((row >= 0) & (stop <= rows.stop[np.maximum(row, 0)]))
    pack = np.full(len(taken), rows.pack[0], np.uint32)
    lost = without(rows, unite([Extents(rows.packs, pack, start[taken], stop[taken])]))
    now: U64 = moved.new_offset[taken].astype(np.uint64)
    return Extents(moved.packs, moved.pack[taken], now, now + moved.new_stored[taken]), lost


def moved_footer(moved: Moved, footers: Sequence[Footer], what: str) -> Footer:
    """What a pack's own footer says of the frames that were moved out of it; lost ones are left out.

    Args:
        moved: The frames.
        footers: Of `sound_packs(moved)`, in that order.
        what: Names the old pack in messages.

    Raises:
        CorruptObject: A frame is not where the table says.
    """
    kept = np.flatnonzero(~moved.lost)
    chunk = np.zeros(len(moved), np.int64)
    counts = np.zeros(len(moved), np.uint32)
    kinds = np.zeros(len(moved), np.uint8)
    firsts = np.cumsum([0] + [len(footer.lengths) for footer in footers])
    for at, (pack, footer) in enumerate(zip(sound_packs(moved), footers, strict=True)):
        rows = kept[moved.pack[kept] == moved.packs.index(pack)]
        frame = np.minimum(np.searchsorted(footer.offsets, moved.new_offset[rows]), len(footer.offsets) - 1)
        there = (footer.offsets[frame] == moved.new_offset[rows]) & (footer.stored[frame] == moved.new_stored[rows])
        _require(bool(there.all()), what, "names frames that are not there")
        counts[rows], kinds[rows] = footer.chunk_counts[frame], footer.kinds[frame]
        chunk[rows] = firsts[at] + footer.chunk_starts()[frame]
    counts, chunk = counts[kept], chunk[kept]
    ends = np.cumsum(counts, dtype=np.int64)
    taken = np.repeat(chunk - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)
    lengths = np.concatenate([np.zeros(0, np.uint32), *(footer.lengths for footer in footers)])[taken]
    ids = np.concatenate([np.zeros((0, 32), np.uint8), *(footer.ids for footer in footers)])[taken]
    return Footer(moved.offset[kept], moved.stored[kept], counts, lengths, ids, kinds[kept])


def sound_packs(moved: Moved) -> list[PackRef]:
    """The packs in which frames that are not lost are now."""
    return [moved.packs[at] for at in np.unique(moved.pack[~moved.lost]).tolist()]


def moved_frames(frames: Sequence[tuple[Place, Place]], lost: Collection[Place] = ()) -> dict[PackRef, Moved]:
    """The table that says of each frame where it was and where it is, and which of the old places are `lost`."""
    by_pack: dict[PackRef, list[tuple[Place, Place]]] = {}
    for old, new in frames:
        by_pack.setdefault(old.pack, []).append((old, new))
    table = {}
    for pack, pairs in by_pack.items():
        pairs.sort(key=lambda pair: pair[0].offset)
        packs: dict[PackRef, int] = {}
        index = [packs.setdefault(new.pack, len(packs)) for _, new in pairs]
        table[pack] = Moved(
            np.array([old.offset for old, _ in pairs], np.uint32),
            np.array([old.stored for old, _ in pairs], np.uint32),
            tuple(packs),
            np.array(index, np.uint32),
            np.array([new.offset for _, new in pairs], np.uint32),
            np.array([new.stored for _, new in pairs], np.uint32),
            np.array([old in lost for old, _ in pairs], np.bool_),
        )
    return table


def _require(holds: bool, what: str, otherwise: str) -> None:
    if not holds:
        raise CorruptObject(f"The relocation table {what} {otherwise}.", "Run `dataset-store verify`.")
