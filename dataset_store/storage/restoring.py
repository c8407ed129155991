"""Restoring: frames of a lost or damaged pack are put into a new one, and a `repack` entry tells where they are.

Works as a repack does (docs/format.md §11): no old name is written again and no version changes. Of what is lost the
entry tells too, so that nobody begins to use it. The old pack is condemned only where nothing live of it is lost; else
it stays, so that what comes back of it counts again.

Never: deletes, or makes up the bytes of a frame but for zeros in the place of lost chunks.
"""

from collections.abc import Callable, Mapping
from itertools import compress

from msgspec import Struct, field

from dataset_store.core.catalog import Catalog
from dataset_store.core.digest import PackName
from dataset_store.core.extents import Extents, extents_of_places, unite, without
from dataset_store.core.frames import EncodedFrame
from dataset_store.core.log_entries import Blob, RepackEntry
from dataset_store.core.packfile import PackRef, Place, frame_rank
from dataset_store.core.relocation import Moved, decode_table, encode_table, moved_frames
from dataset_store.storage.collecting import PackList, put_blob
from dataset_store.storage.store import Store

__all__ = ["Found", "Restored", "restore"]


class Found(Struct, frozen=True):
    """What a repair has of one pack.

    Attributes:
        frames: By the place in the pack where each was, with the same chunks at the same plain offsets.
        holed: Those of them that have zeros in the place of chunks that are lost.
        lost: Places in the pack of which nothing was found.
        complete: Whether all that something live needs of the pack is there.
        told: What tables told of the pack when that was found out; None where none did.
    """

    frames: Mapping[Place, EncodedFrame]
    holed: frozenset[Place]
    lost: frozenset[Place]
    complete: bool
    told: Moved | None


class Restored(Struct, frozen=True):
    """What became of one pack.

    Attributes:
        slot: Of the entry; None where there was nothing to be told, or where another came first.
        is_told: Whether the log says now what was found; not if it was repacked or repaired meanwhile by another.
        condemned: Whether nothing live needs the pack any more.
    """

    slot: int | None
    is_told: bool
    condemned: bool


def restore(
    store: Store,
    pack: PackRef,
    found: Found,
    live: Callable[[Catalog], Extents | None],
    now_ns: Callable[[], int],
) -> Restored:
    """Put frames of a pack into new ones, and say where they are.

    Args:
        store: The store.
        pack: The lost or damaged pack.
        found: What is to be put, and what is lost.
        live: What something live needs at the state of a catalog, where it is now; None where that cannot be told.
        now_ns: The wall clock, for the entry's label.

    Raises:
        CommitOutcomeUnknown: Run it again; what was put in vain is collected later.
        StorageFailed: The storage refused.
    """
    work = _Restoration(store, pack, found, live, pack in store.standings.now().condemned)

    def entry(catalog: Catalog, commit: str) -> RepackEntry | None:
        catalog.require("gc")
        return work.entry(catalog, commit, now_ns())

    record = store.catalog.change(entry)
    return Restored(None if record is None else record.slot, not work.was_late, record is not None and work.condemns)


class _Restoration(Struct):
    """One pack being restored: where its frames were put, for the attempt at hand."""

    store: Store
    pack: PackRef
    found: Found
    live: Callable[[Catalog], Extents | None]
    was_condemned: bool
    condemns: bool = False
    was_late: bool = False
    put: dict[Place, Place] = field(default_factory=dict)
    table: tuple[bytes, Blob] | None = None

    def entry(self, catalog: Catalog, commit: str, time: int) -> RepackEntry | None:
        """The entry for the state before the slot, all that it names being put; None where another was first."""
        standing = self.store.standings.now()
        condemned_since = self.pack in standing.condemned and not self.was_condemned
        # What another has restored meanwhile may overlap with this.
        self.was_late = condemned_since or not _tell_the_same(standing.relocations.moved(self.pack), self.found.told)
        if self.was_late:
            return None
        if self.found.frames and (not self.put or any(new.pack in standing.condemned for new in self.put.values())):
            self._put_frames()
        earlier, lost_before = self._earlier()
        moved = {old: new for old, new in earlier.items() if old != new} | self.put
        rows = moved | {place: place for place in self.found.lost}
        lost = ((lost_before & moved.keys()) - self.put.keys()) | self.found.holed | self.found.lost
        self.condemns = self._is_covered(catalog, moved)
        if (rows, lost) == (earlier, lost_before) and (not self.condemns or self.pack in standing.condemned):
            return None
        if not rows:
            return None
        table = encode_table(moved_frames(list(rows.items()), lost))
        decode_table(table, "of a repair")  # none that readers refuse may come into the log
        if self.table is None or self.table[0] != table or not self.store.standings.stands(self.table[1]):
            self.table = table, put_blob(self.store, table)
        packs, listed = PackList(self.store).of(frozenset({self.pack} if self.condemns else ()))
        return RepackEntry(commit=commit, time=time, packs=packs, listed=listed, table=self.table[1])

    def _put_frames(self) -> None:
        writer = self.store.pack_writer(self.pack.storage)
        order = sorted(self.found.frames.items(), key=lambda one: (frame_rank(one[1].kind), one[0].offset))
        self.put = {}
        for place, frame in order:
            (new,) = writer.append([frame])
            self.put[place] = Place(new.pack, new.offset, new.stored, 0)
        writer.flush()

    def _earlier(self) -> tuple[dict[Place, Place], set[Place]]:
        """What earlier tables tell of the pack, which one more replaces: the rows, and which of them are lost."""
        moved = self.store.standings.now().relocations.moved(self.pack)
        if moved is None:
            return {}, set()
        columns = zip(moved.offset.tolist(), moved.stored.tolist(), strict=True)
        old = [Place(self.pack, offset, stored, 0) for offset, stored in columns]
        columns = zip(moved.new_offset.tolist(), moved.new_stored.tolist(), strict=True)
        packs = [moved.packs[at] for at in moved.pack.tolist()]
        new = [Place(pack, offset, stored, 0) for pack, (offset, stored) in zip(packs, columns, strict=True)]
        return dict(zip(old, new, strict=True)), set(compress(old, moved.lost.tolist()))

    def _is_covered(self, catalog: Catalog, moved: Mapping[Place, Place]) -> bool:
        held = frozenset().union(*self.store.standings.holds().values())
        live = self.live(catalog) if self.found.complete else None
        if live is None or self.pack in held:
            return False
        own = [extents for pack, extents in live.by_pack() if pack == self.pack]
        return not len(without(unite(own), unite([extents_of_places(list(moved))])))


def _tell_the_same(one: Moved | None, other: Moved | None) -> bool:
    if one is None or other is None:
        return one is other
    pack = PackRef(0, PackName(bytes(16)))
    return encode_table({pack: one}) == encode_table({pack: other})
