"""Repacking: live frames are copied into new packs, and the old packs condemned with a table that says where they went.

No node, root or draft changes: places are translated when they are read (docs/format.md §11). What is live is computed
against exactly the state before the entry's own slot; where another entry takes that slot first, the frames that it
reaches are copied too, and those whose copies it condemned are copied again under a new name.

Packs that hold relocation tables or lists of packs are left: their places are read while the log is folded, before any
table is known. So are held ones, and damaged ones that a repair has told of and not condemned. Every chunk is checked
on its way against the footer of the pack that it comes from.

Never: changes what any version holds, or writes under a name that was used before.
"""

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import np
from dataset_store.core.catalog import Catalog
from dataset_store.core.extents import Extents
from dataset_store.core.frames import EncodedFrame, FrameCodec
from dataset_store.core.log_entries import Blob, RepackEntry
from dataset_store.core.packfile import PACK_HEADER_SIZE, Footer, PackRef, Place, frame_rank, pack_key
from dataset_store.core.relocation import encode_table, moved_frames
from dataset_store.core.standing import Standing
from dataset_store.errors import CorruptObject
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.collecting import (
    ListedPacks,
    PackList,
    at_one_state,
    delete_condemned,
    list_packs,
    live_extents,
    put_blob,
)
from dataset_store.storage.liveness import Reached, SummaryKeeper
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.store import Store

__all__ = ["Candidate", "Repacked", "candidates", "repack"]


class Candidate(Struct, frozen=True):
    """A pack that may be repacked: the bytes of its frames, and how many of them something live needs."""

    pack: PackRef
    size: int
    live: int

    @property
    def dead_share(self) -> float:
        """The part of the pack that nothing needs, from 0 to 1."""
        return 1 - min(self.live, self.size) / self.size


class Repacked(Struct, frozen=True):
    """What a repack did.

    Attributes:
        slot: Of its entry; None where nothing was to be done.
        packs: The packs that it condemned.
        bytes: That they held.
        new_packs: Those that hold what was live of them.
        new_bytes: That these hold.
        deleted: Packs that were deleted after it.
    """

    slot: int | None
    packs: frozenset[PackRef]
    bytes: int
    new_packs: frozenset[PackRef]
    new_bytes: int
    deleted: frozenset[PackRef]


class _State(Struct, frozen=True):
    standing: Standing
    live: Mapping[PackRef, Extents]
    left: frozenset[PackRef]


def candidates(store: Store, listed: ListedPacks, keeper: SummaryKeeper, dead_share: float = 0) -> list[Candidate]:
    """Every listed pack that holds something live, at least so much that is dead, and may be repacked.

    By the catalog as it was last read. The footers of packs that may be that dead are read.

    Raises:
        CorruptObject, ObjectMissing: A live version cannot be walked.
        StorageFailed: The storage refused.
    """
    reached = Reached(store.nodes, keeper)
    return at_one_state(store, lambda: _candidates(store, listed, reached, dead_share))


def _candidates(store: Store, listed: ListedPacks, reached: Reached, dead_share: float) -> list[Candidate]:
    state = _state(store, reached)
    found = [
        Candidate(pack, listed.packs[pack].size, extents.total())
        for pack, extents in sorted(state.live.items(), key=lambda row: row[0])
        if pack in listed.packs and pack not in state.left
    ]
    if not dead_share:
        return found
    # By its size alone a pack seems more dead than it is, as its footer is no frame.
    rough = [one for one in found if one.dead_share >= dead_share]
    footers = store.packs.read_footers([one.pack for one in rough])
    exact = [
        replace(one, size=footer.frames_end - PACK_HEADER_SIZE) for one, footer in zip(rough, footers, strict=True)
    ]
    return [one for one in exact if one.dead_share >= dead_share]


def repack(
    store: Store,
    keeper: SummaryKeeper,
    victims: frozenset[PackRef],
    *,
    now_ns: Callable[[], int],
    first: Sequence[Place] = (),
    told: Callable[[int, int], object] = lambda _frames, _bytes: None,
) -> Repacked:
    """Copy what is live of some packs into new ones, condemn and delete the old ones.

    Args:
        store: The store.
        keeper: What is known of what nodes name.
        victims: The packs. Those that may not be repacked, or not any more, are left.
        now_ns: The wall clock, for the entry's label.
        first: Places, where they are now, whose frames come first in the new packs, in this order; the others follow
            in that of the old packs. Data comes before lists, and these before nodes, in any case.
        told: Called with frames and bytes as they are copied.

    Raises:
        CorruptObject: A frame is damaged; nothing was condemned.
        CommitOutcomeUnknown: Run it again; what was copied in vain is collected later.
        StorageFailed: The storage refused.
    """
    store.catalog.refresh()
    listed = list_packs(store)
    work = _Repack(store, keeper, victims & listed.packs.keys(), first, told)

    def entry(_catalog: Catalog, commit: str) -> RepackEntry | None:
        _catalog.require("gc")
        return work.entry(commit, now_ns())

    record = store.catalog.change(entry)
    if record is None:
        return Repacked(None, frozenset(), 0, frozenset(), 0, frozenset())
    deleted = delete_condemned(store, listed)
    new = work.new_packs()
    return Repacked(record.slot, work.victims, listed.bytes_of(work.victims), new, work.bytes_of(new), deleted)


class _Repack:
    """One repack under way: what was copied so far, and where to."""

    def __init__(
        self,
        store: Store,
        keeper: SummaryKeeper,
        victims: frozenset[PackRef],
        first: Sequence[Place],
        told: Callable[[int, int], object],
    ) -> None:
        self.store = store
        self.reached = Reached(store.nodes, keeper)
        self.victims = victims
        self.told = told
        self._first = first
        self._moved: dict[Place, Place] = {}
        self._sizes: dict[PackRef, int] = {}
        self._listed = PackList(store)
        self._table: tuple[bytes, Blob] | None = None

    def entry(self, commit: str, time: int) -> RepackEntry | None:
        """The entry for the state before the slot, all that it names being put; None where nothing is to be done."""
        state = at_one_state(self.store, self._copied)
        if not self.victims:
            return None
        table = encode_table(moved_frames([(old, new) for old, new in self._moved.items() if old.pack in self.victims]))
        if self._table is None or self._table[0] != table or not self.store.standings.stands(self._table[1]):
            self._table = table, put_blob(self.store, table)
        rows, blob = self._listed.of(self.victims)
        assert not self.victims & state.standing.condemned  # noqa: S101  (see _copied)
        return RepackEntry(commit=commit, time=time, packs=rows, listed=blob, table=self._table[1])

    def new_packs(self) -> frozenset[PackRef]:
        """The packs that hold copies now."""
        return frozenset(new.pack for new in self._moved.values())

    def bytes_of(self, packs: frozenset[PackRef]) -> int:
        """Sizes of new packs together."""
        return sum(self._sizes[pack] for pack in packs)

    def _copied(self) -> _State:
        """The state, with every live frame of the victims copied to where it stands."""
        state = _state(self.store, self.reached)
        self.victims -= state.left | state.standing.condemned
        self.victims &= state.live.keys()
        self._moved = {
            old: new
            for old, new in self._moved.items()
            if old.pack in self.victims and new.pack not in state.standing.condemned
        }
        wanted = []
        footers = dict(zip(sorted(self.victims), self.store.packs.read_footers(sorted(self.victims)), strict=True))
        for pack, footer in footers.items():
            rows = _frames_within(footer, state.live[pack])
            columns = zip(rows, footer.offsets[rows].tolist(), footer.stored[rows].tolist(), strict=True)
            wanted += [(row, Place(pack, offset, stored, 0)) for row, offset, stored in columns]
        missing = [(row, place) for row, place in wanted if place not in self._moved]
        self._copy(self._in_order(missing, footers), footers)
        return state

    def _in_order(
        self, frames: Sequence[tuple[int, Place]], footers: Mapping[PackRef, Footer]
    ) -> list[tuple[int, Place]]:
        """Frames by the part of a pack that they belong to, then those that come first, then by old pack and offset."""
        rank: dict[tuple[PackRef, int], int] = {}
        for place in self._first:
            if place.pack in footers:
                offsets = footers[place.pack].offsets
                begin, end = np.searchsorted(offsets, (place.offset, place.offset + place.stored)).tolist()
                for row in range(begin, end):
                    rank.setdefault((place.pack, row), len(rank))

        def position(one: tuple[int, Place]) -> tuple[int, int, PackRef, int]:
            row, place = one
            kind = frame_rank(footers[place.pack].kinds[row])
            return kind, rank.get((place.pack, row), len(rank)), place.pack, place.offset

        return sorted(frames, key=position)

    def _copy(self, frames: Sequence[tuple[int, Place]], footers: Mapping[PackRef, Footer]) -> None:
        writers: dict[int, PackWriter] = {}
        moved: dict[Place, Place] = {}
        codec = FrameCodec()
        stored = self.store.packs.read_ranges([place for _, place in frames])
        for (row, place), data in zip(frames, stored, strict=True):
            storage = place.pack.storage
            if storage not in writers:
                writers[storage] = self.store.pack_writer(storage, self._on_written)
            frame = _checked(codec, data, footers[place.pack], row, place)
            (new,) = writers[storage].append([frame])
            moved[place] = Place(new.pack, new.offset, new.stored, 0)
            self.told(1, place.stored)
        for writer in writers.values():
            writer.flush()
        self._moved |= moved

    def _on_written(self, pack: PackRef, footer: Footer) -> None:
        self._sizes[pack] = footer.frames_end + len(footer.encode())


def _state(store: Store, reached: Reached) -> _State:
    standing = store.standings.now()
    live = live_extents(store, standing, reached)
    ledger = store.catalog.catalog.packs
    folded = [*ledger.lists, *(blob for _, blob in ledger.relocations)]
    held = frozenset().union(*store.standings.holds().values())
    left = held.union(standing.relocations.packs(), *map(packs_of, folded))
    return _State(standing, dict(live.by_pack()), left)


def _frames_within(footer: Footer, live: Extents) -> list[int]:
    """The rows of a footer whose frames lie in united extents of its pack."""
    offsets = footer.offsets.astype(np.uint64)
    at = np.searchsorted(live.start, offsets, side="right") - 1
    inside = (at >= 0) & (offsets < live.stop[np.maximum(at, 0)])
    rows: list[int] = np.flatnonzero(inside).tolist()
    return rows


def _checked(codec: FrameCodec, data: memoryview, footer: Footer, row: int, place: Place) -> EncodedFrame:
    """The frame as it is stored, if it is what its pack's footer says."""
    what = f"The frame at {place.offset} of {pack_key(place.pack.name)}"
    (frame,) = codec.stored_frames(data, what=what)
    first = int(footer.chunk_starts()[row])
    ids = footer.ids[first : first + int(footer.chunk_counts[row])].tobytes()
    if b"".join(frame.ids) != ids:
        raise CorruptObject(f"{what} is not what the pack's footer says.", "Run `dataset-store verify`, then repair.")
    return frame
