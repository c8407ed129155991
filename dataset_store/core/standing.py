"""Standing: which frames of a store's packs may be used, as the fold at one slot has it, and where they are.

A frame stands if its pack is not condemned and no relocation table tells of it, or if a row moves it whole into a pack
that is not condemned. Nobody may begin to refer to a frame that does not stand; a place that the fold resolves may be
referred to as it is (docs/format.md §11).

A standing is a value: what later entries say does not change it.
"""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.core.arrays import Bool, np
from dataset_store.core.entries import Segments
from dataset_store.core.extents import Extents, unite, without
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.relocation import Relocations
from dataset_store.core.segments import ChunkHit

__all__ = ["Standing"]


class Standing(Struct, frozen=True, eq=False):
    """The state of packs before one slot.

    Attributes:
        slot: The slot.
        condemned: The packs that nobody may begin to use.
        relocations: Where frames of some of them are now.
    """

    slot: int
    condemned: frozenset[PackRef]
    relocations: Relocations

    def is_touched(self, pack: PackRef) -> bool:
        """Whether a pack may only be used as far as its frames were moved: it was condemned, or repaired in part."""
        return pack in self.condemned or pack in self.relocations

    def hits(self, found: Sequence[ChunkHit | None]) -> list[ChunkHit | None]:
        """Each hit where its frame is now; None for those that do not stand."""
        return [None if hit is None else self._hit(hit) for hit in found]

    def _hit(self, hit: ChunkHit) -> ChunkHit | None:
        moved = self.relocations.moved(hit.pack)
        if moved is None:
            return None if hit.pack in self.condemned else hit
        place = Place(hit.pack, hit.offset, hit.stored, 0)
        now = self.relocations.places(place)
        if now is None or len(now) > 1 or now[0].pack in self.condemned or self.relocations.is_lost(place):
            return None
        return replace(hit, pack=now[0].pack, offset=now[0].offset, stored=now[0].stored)

    def segments(self, segments: Segments) -> tuple[Segments, Bool]:
        """The same segments where their frames are now, and which of them stand.

        A segment whose frames no longer adjoin stays at its old place, as its parts would have digests of their own.
        """
        stands = np.array([not self.is_touched(pack) for pack in segments.packs], np.bool_)[segments.pack]
        if stands.all():
            return segments, stands
        packs = {pack: at for at, pack in enumerate(segments.packs)}
        pack, offset, stored = segments.pack.copy(), segments.offset.copy(), segments.stored.copy()
        for ref in {segments.packs[at] for at in np.unique(segments.pack[~stands]).tolist()}:
            moved = self.relocations.moved(ref)
            if moved is None:
                continue
            rows = np.flatnonzero(segments.pack == packs[ref])
            first, last, whole = moved.rows_of(segments.offset[rows].astype(np.uint64), segments.stored[rows])
            usable = np.array([one not in self.condemned for one in moved.packs], np.bool_)
            standing = whole & moved.all_in(usable, first, last)
            stands[rows] = standing
            one_place = standing & moved.adjoin(first, last)
            at = rows[one_place]
            numbers = np.array([packs.setdefault(one, len(packs)) for one in moved.packs], np.uint32)
            pack[at] = numbers[moved.pack[first[one_place]]]
            offset[at] = moved.new_offset[first[one_place]]
            stops = moved.new_offset[last[one_place] - 1] + moved.new_stored[last[one_place] - 1]
            stored[at] = stops - offset[at]
        return replace(segments, packs=tuple(packs), pack=pack, offset=offset, stored=stored), stands

    def can_be_used(self, named: Extents) -> bool:
        """Whether each of united extents is made of frames that stand, so that a new version may name it."""
        return not any(
            len(without(rows, self._usable(pack))) for pack, rows in named.by_pack() if self.is_touched(pack)
        )

    def _usable(self, pack: PackRef) -> Extents:
        """The bytes of a touched pack that were moved whole into packs that are not condemned, united."""
        moved = self.relocations.moved(pack)
        if moved is None:
            return Extents.none()
        usable = np.array([one not in self.condemned for one in moved.packs], np.bool_)[moved.pack] & ~moved.lost
        return unite([moved.old_extents(pack, usable)])

    @property
    def tells_of_packs(self) -> bool:
        """Whether any pack is condemned or repaired."""
        return bool(self.condemned or self.relocations.packs())

    def extents(self, named: Extents) -> tuple[Extents, Extents]:
        """Where united extents are now, united; and of them, those that do not stand, as they were named or moved."""
        now, left = self.relocations.extents(named)
        stays = np.array([pack not in self.condemned for pack in left.packs], np.bool_)
        stays = stays[left.pack] if len(left) else np.zeros(0, np.bool_)
        # A repair that could not restore all frames of a pack leaves the others where they were.
        now, lost = unite([now, left.take(np.flatnonzero(stays))]), left.take(np.flatnonzero(~stays))
        fallen = np.array([pack in self.condemned for pack in now.packs], np.bool_)
        gone = fallen[now.pack] if len(now) else np.zeros(0, np.bool_)
        return now.take(np.flatnonzero(~gone)), unite([lost, now.take(np.flatnonzero(gone))])
