"""What the catalog says of packs, with its long lists and relocation tables read.

The fold alone can't read these, as they lie in packs. Here they are, each once: what they say is kept, and their bytes
in the cache of nodes where they fit. Packs that hold them are never repacked, so their places are taken as they stand.

Never: asks for anything while nothing was condemned, or changes the fold but for the lists that it lacks.
"""

import threading
from collections.abc import Mapping, Sequence

from dataset_store.core.digest import NodeId, PackName
from dataset_store.core.frames import PLAIN_LIMITS, FrameKind
from dataset_store.core.log_entries import Blob, PackRow, decode_pack_list
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.relocation import Moved, Relocations, decode_table
from dataset_store.core.standing import Standing
from dataset_store.storage.blobs import packs_of, read_blob
from dataset_store.storage.catalog_cache import CatalogView
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.trees import NodeKeeper

__all__ = ["Standings", "pack_ref", "pack_row"]


class Standings:
    """The standing of a store's packs, brought up to date with the catalog whenever it is asked for.

    Safe to use from several threads.

    Args:
        view: The catalog.
        packs: Reads packs at the places given, and translates none.
        keeper: A cache of nodes, for lists and tables too.
    """

    def __init__(self, view: CatalogView, packs: PackReader, keeper: NodeKeeper) -> None:
        self._view = view
        self._packs = packs
        self._keeper = keeper
        self._lock = threading.RLock()
        self._tables = 0
        self._last: int | None = None
        self._standing = Standing(0, frozenset(), Relocations())

    def now(self) -> Standing:
        """The standing as of the catalog as it was last read.

        Raises:
            CorruptObject, ObjectMissing: A list or a table is damaged or gone.
            StorageFailed: The storage refused.
        """
        with self._lock:
            catalog = self._view.catalog
            self._read_lists()
            head, ledger = catalog.head, catalog.packs
            if ledger.last_condemnation != self._last:
                condemned = frozenset(map(pack_ref, ledger.condemned))
                self._standing = Standing(head, condemned, self._relocations())
                self._last = ledger.last_condemnation
            return Standing(head, self._standing.condemned, self._standing.relocations)

    def holds(self) -> Mapping[str, frozenset[PackRef]]:
        """The packs of each hold that has not ended. Raises as `now`."""
        with self._lock:
            self._read_lists()
            holds = self._view.catalog.packs.holds
            return {hold: frozenset(map(pack_ref, rows)) for hold, rows in holds.items()}

    def stands(self, blob: Blob) -> bool:
        """Whether no pack of a blob is condemned. Raises as `now`."""
        condemned = self.now().condemned
        return not any(pack in condemned for pack in packs_of(blob))

    def moved(self, places: Sequence[Place]) -> list[list[Place]]:
        """For each place those whose bytes, one after another, are its own now; where none are known, the place."""
        if self._view.catalog.packs.last_condemnation is None:
            return [[place] for place in places]
        relocations = self.now().relocations
        return [relocations.places(place) or [place] for place in places]

    def moved_out_of(self, pack: PackRef) -> Moved | None:
        """The frames that were moved out of a pack; None where none were."""
        if self._view.catalog.packs.last_condemnation is None:
            return None
        return self.now().relocations.moved(pack)

    def newer(self) -> bool:
        """Read the catalog to its end; whether anything was new."""
        return self._view.refresh() > 0

    def _read_lists(self) -> None:
        ledger = self._view.catalog.packs
        for slot, blob in sorted(ledger.unread_lists.items()):
            what = f"The list of packs in slot {slot}"
            ledger.supply_list(slot, decode_pack_list(self._read(blob, what), what))

    def _relocations(self) -> Relocations:
        """The tables known so far, and those that came since."""
        merged, condemned = self._standing.relocations, self._view.catalog.packs.condemned
        tables = self._view.catalog.packs.relocations
        for slot, blob in tables[self._tables :]:
            what = f"The relocation table in slot {slot}"
            table = decode_table(self._read(blob, what), what)
            staying = [pack for pack in table if condemned.get(pack_row(pack), slot + 1) > slot]
            merged = merged.with_table(table, staying)
        self._tables = len(tables)
        return merged

    def _read(self, blob: Blob, what: str) -> bytes:
        blob_id = NodeId(bytes.fromhex(blob.id))
        (kept,) = self._keeper.get_many([blob_id])
        if kept is not None:
            return kept
        plain = read_blob(blob, self._packs, what=what)
        if 0 < len(plain) <= PLAIN_LIMITS[FrameKind.NODE]:
            self._keeper.put_many([(blob_id, plain)])
        return plain


def pack_ref(row: PackRow) -> PackRef:
    """A pack as log entries name it, as a reference."""
    return PackRef(row.storage, PackName(bytes.fromhex(row.pack)))


def pack_row(pack: PackRef) -> PackRow:
    """A pack as log entries name it."""
    return PackRow(pack.storage, pack.name.hex())
