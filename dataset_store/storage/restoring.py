"""Restoring: frames of a lost or damaged pack are put into a new one, and a `repack` entry tells where they are.

Works as a repack does (docs/format.md §11): no old name is written again and no version changes. The old pack is
condemned only where every live frame of it has a row; else it stays, so that what comes back of it counts again.

Never: deletes, or makes up the bytes of a frame.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from dataset_store.core.catalog import Catalog
from dataset_store.core.extents import Extents, extents_of_places, unite, without
from dataset_store.core.frames import EncodedFrame
from dataset_store.core.log_entries import Blob, RepackEntry
from dataset_store.core.packfile import PackRef, Place, frame_rank
from dataset_store.core.relocation import encode_table, moved_frames
from dataset_store.storage.collecting import PackList, put_blob
from dataset_store.storage.repository import Repository

__all__ = ["Restored", "restore"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of one pack.

    Attributes:
        slot: Of the entry; None where the pack was condemned meanwhile, by a repack or another repair.
        condemned: Whether nothing live needs the pack any more.
    """

    slot: int | None
    condemned: bool


def restore(
    repository: Repository,
    pack: PackRef,
    frames: Mapping[Place, EncodedFrame],
    live: Callable[[Catalog], Extents | None],
    now_ns: Callable[[], int],
) -> Restored:
    """Put frames of a pack into new ones, and say where they are.

    Args:
        repository: The store.
        pack: The lost or damaged pack.
        frames: By the place in it where each was, with the same chunks and of the same stored length.
        live: What something live needs at the state of a catalog, where it is now; None where that cannot be told.
        now_ns: The wall clock, for the entry's label.

    Raises:
        CommitOutcomeUnknown: Run it again; what was put in vain is collected later.
        StorageFailed: The storage refused.
    """
    work = _Restoration(repository, pack, frames, live, pack in repository.standings.now().condemned)

    def entry(catalog: Catalog, commit: str) -> RepackEntry | None:
        catalog.require("gc")
        return work.entry(catalog, commit, now_ns())

    record = repository.catalog.change(entry)
    return Restored(None if record is None else record.slot, record is not None and work.condemns)


@dataclass(slots=True)
class _Restoration:
    """One pack being restored: where its frames were put, for the attempt at hand."""

    repository: Repository
    pack: PackRef
    frames: Mapping[Place, EncodedFrame]
    live: Callable[[Catalog], Extents | None]
    was_condemned: bool
    condemns: bool = False
    put: dict[Place, Place] = field(default_factory=dict)
    table: tuple[bytes, Blob] | None = None

    def entry(self, catalog: Catalog, commit: str, time: int) -> RepackEntry | None:
        """The entry for the state before the slot, all that it names being put; None where another was first."""
        standing = self.repository.standings.now()
        if self.pack in standing.condemned and not self.was_condemned:
            return None
        if not self.put or any(new.pack in standing.condemned for new in self.put.values()):
            self._put_frames()
        rows = self._earlier() | self.put
        table = encode_table(moved_frames(list(rows.items())))
        if self.table is None or self.table[0] != table or not self.repository.standings.stands(self.table[1]):
            self.table = table, put_blob(self.repository, table)
        self.condemns = self._is_covered(catalog, rows)
        packs, listed = PackList(self.repository).of(frozenset({self.pack} if self.condemns else ()))
        return RepackEntry(commit=commit, time=time, packs=packs, listed=listed, table=self.table[1])

    def _put_frames(self) -> None:
        writer = self.repository.pack_writer(self.pack.storage)
        order = sorted(self.frames.items(), key=lambda one: (frame_rank(one[1].kind), one[0].offset))
        self.put = {}
        for place, frame in order:
            (new,) = writer.append([frame])
            self.put[place] = Place(new.pack, new.offset, new.stored, 0)
        writer.flush()

    def _earlier(self) -> dict[Place, Place]:
        """What an earlier repair moved out of the pack: a table replaces those before it that tell of the pack."""
        moved = self.repository.standings.now().relocations.moved(self.pack)
        if moved is None:
            return {}
        columns = (moved.offset.tolist(), moved.stored.tolist(), moved.pack.tolist(), moved.new_offset.tolist())
        return {
            Place(self.pack, offset, stored, 0): Place(moved.packs[at], new, stored, 0)
            for offset, stored, at, new in zip(*columns, strict=True)
        }

    def _is_covered(self, catalog: Catalog, rows: Mapping[Place, Place]) -> bool:
        held = frozenset().union(*self.repository.standings.holds().values())
        live = self.live(catalog)
        if live is None or self.pack in held:
            return False
        own = [extents for pack, extents in live.by_pack() if pack == self.pack]
        return not len(without(unite(own), unite([extents_of_places(list(rows))])))
