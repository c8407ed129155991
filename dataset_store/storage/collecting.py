"""Garbage collection: packs that nothing live needs are condemned by a log entry, and deleted once it stands.

Collecting is one more commit. What is dead is computed against exactly the state before the entry's own slot, and anew
when another entry takes that slot first; so nothing that is referred to before the entry is in it, and nobody begins to
refer to what it lists after it (docs/format.md §11). It may run beside any number of writers and other collectors, be
killed at any moment, and be gone on with by anyone: names once condemned are deleted whenever they are met.

For the progress of slow writers, never for safety, packs that are held, or younger than is asked, are left.

Never: takes a lock, or waits for a clock.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct

from dataset_store.core.catalog import Catalog
from dataset_store.core.digest import PackName
from dataset_store.core.extents import Extents, unite
from dataset_store.core.log_entries import (
    MAX_PACK_ROWS,
    Blob,
    CondemnedEntry,
    PackRow,
    encode_pack_list,
)
from dataset_store.core.packfile import PackRef, pack_key
from dataset_store.core.standing import Standing
from dataset_store.errors import Corrupt, CorruptObject, DatasetStoreError
from dataset_store.storage.backend import Key, ObjectInfo
from dataset_store.storage.blobs import write_blob
from dataset_store.storage.liveness import Reached, SummaryKeeper
from dataset_store.storage.standings import pack_row
from dataset_store.storage.store import Store

__all__ = [
    "Collection",
    "ListedPacks",
    "PackList",
    "Survey",
    "at_one_state",
    "collect",
    "delete_condemned",
    "list_packs",
    "live_extents",
    "put_blob",
    "survey",
]

_T = TypeVar("_T")


class ListedPacks(Struct, frozen=True):
    """The packs that storages hold, as listed at one time.

    Attributes:
        packs: Every pack with its size in bytes and its time.
        silent: Numbers of storages that could not be listed, and why.
    """

    packs: Mapping[PackRef, ObjectInfo]
    silent: Mapping[int, DatasetStoreError]

    def bytes_of(self, packs: frozenset[PackRef]) -> int:
        """Sizes of some of the packs together."""
        return sum(self.packs[pack].size for pack in packs if pack in self.packs)


class Survey(Struct, frozen=True):
    """What a collection would do with the packs that were listed, by one state of the catalog.

    Attributes:
        live: Those that something live needs.
        held: Others that a hold keeps.
        young: Others that are left for their age.
        doomed: Those that an entry has condemned already.
        dead: The rest.
    """

    live: frozenset[PackRef]
    held: frozenset[PackRef]
    young: frozenset[PackRef]
    doomed: frozenset[PackRef]
    dead: frozenset[PackRef]


class Collection(Struct, frozen=True):
    """What a collection found and did.

    Attributes:
        listed: The packs that were there.
        survey: What is to be done with each, by the state that counted.
        slot: Of the entry that condemned `survey.dead`; None where nothing was.
        deleted: Packs that were deleted.
    """

    listed: ListedPacks
    survey: Survey
    slot: int | None
    deleted: frozenset[PackRef]


def list_packs(store: Store) -> ListedPacks:
    """Every pack of the store's own root and of the other storages that the catalog numbers.

    Raises:
        StorageFailed: The store's own root cannot be listed.
    """
    packs: dict[PackRef, ObjectInfo] = {}
    silent: dict[int, DatasetStoreError] = {}
    for number in (0, *store.catalog.catalog.storages):
        try:
            rows = list(store.storages[number].list("packs"))
        except DatasetStoreError as error:
            if number == 0:
                raise
            silent[number] = error
            continue
        packs |= {PackRef(number, name): row for row in rows if (name := _name_of(row.key)) is not None}
    return ListedPacks(packs, silent)


def survey(store: Store, listed: ListedPacks, reached: Reached, *, older_than: float) -> Survey:
    """What is to be done with packs, by the catalog as it was last read.

    Args:
        store: The store.
        listed: Its packs.
        reached: What live versions need, as far as it was walked.
        older_than: Dead packs written at this time or later, in seconds since 1970, are left.

    Raises:
        CorruptObject, ObjectMissing: A live version cannot be walked; nothing is known to be dead.
        StorageFailed: The storage refused.
    """
    standing, held, live = at_one_state(store, lambda: _state(store, reached))
    there = listed.packs.keys()
    doomed = frozenset(pack for pack in there if pack in standing.condemned)
    rest = there - live - doomed
    kept = frozenset(rest & held)
    young = frozenset(pack for pack in rest - kept if listed.packs[pack].modified >= older_than)
    return Survey(frozenset(there & live), kept, young, doomed, frozenset(rest - kept - young))


def at_one_state(store: Store, compute: Callable[[], _T]) -> _T:
    """What `compute` gives for one state of the catalog: again where reading moved the catalog on meanwhile."""
    while True:
        head = store.catalog.catalog.head
        try:
            found = compute()
        except Corrupt:
            # What is missing may have been deleted by right: a version that lived in this state is gone in a later one.
            if store.catalog.catalog.head == head and not store.catalog.refresh():
                raise
            continue
        if store.catalog.catalog.head == head:
            return found


def _state(store: Store, reached: Reached) -> tuple[Standing, frozenset[PackRef], frozenset[PackRef]]:
    standing = store.standings.now()
    held = frozenset().union(*store.standings.holds().values())
    return standing, held, frozenset(live_extents(store, standing, reached).named())


def live_extents(store: Store, standing: Standing, reached: Reached) -> Extents:
    """The bytes that something live needs, where they are now, and where lost ones were.

    Raises:
        CorruptObject: A live version needs a frame that is condemned and was not moved.
    """
    named = reached.at(store.catalog.catalog)
    now, lost = standing.extents(named)
    if len(lost):
        reached.forget()  # a version that died meanwhile may have lost them by right
        named = reached.at(store.catalog.catalog)
        now, lost = standing.extents(named)
    if len(lost):
        first = min(pack_key(pack.name) for pack in lost.named())
        raise CorruptObject(
            f"Something live needs frames of packs that were condemned, among them {first}.",
            "Nothing was collected; run `dataset-store verify` to learn what is affected.",
        )
    return unite([now, standing.relocations.awaited(named)])


def collect(
    store: Store,
    keeper: SummaryKeeper,
    *,
    older_than: float,
    now_ns: Callable[[], int],
    told: Callable[[int, int], object] = lambda _packs, _bytes: None,
) -> Collection:
    """Condemn what is dead, then delete everything that is condemned and there.

    Args:
        store: The store.
        keeper: What is known of what nodes name.
        older_than: As in `survey`.
        now_ns: The wall clock, for the entry's label.
        told: Called with packs and bytes as they are deleted.

    Raises:
        CommitOutcomeUnknown: Run it again; it goes on where it stopped.
        Exception: As `survey`.
    """
    store.catalog.refresh()
    listed = list_packs(store)
    written = PackList(store)
    reached = Reached(store.nodes, keeper)
    found: list[Survey] = []

    def entry(catalog: Catalog, commit: str) -> CondemnedEntry | None:
        catalog.require("gc")
        found.append(survey(store, listed, reached, older_than=older_than))
        if not found[-1].dead:
            return None
        rows, blob = written.of(found[-1].dead)
        return CondemnedEntry(commit=commit, time=now_ns(), packs=rows, listed=blob)

    record = store.catalog.change(entry)
    slot = None if record is None else record.slot
    return Collection(listed, found[-1], slot, delete_condemned(store, listed, told))


def delete_condemned(
    store: Store, listed: ListedPacks, told: Callable[[int, int], object] = lambda _packs, _bytes: None
) -> frozenset[PackRef]:
    """Delete the packs that stand condemned in the catalog as it was last read; those that were deleted."""
    standing = store.standings.now()
    doomed = sorted(pack for pack in listed.packs if pack in standing.condemned)
    for pack in doomed:
        store.storages[pack.storage].delete_many([Key(pack_key(pack.name))])
        told(1, listed.packs[pack].size)
    return frozenset(doomed)


class PackList:
    """A list of packs as an entry holds it: rows, or where these are too many a blob, put before the entry.

    A list that was put for an earlier attempt is used again while it says the same and its pack is not condemned.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listed: frozenset[PackRef] = frozenset()
        self._blob: Blob | None = None

    def of(self, packs: frozenset[PackRef]) -> tuple[tuple[PackRow, ...] | None, Blob | None]:
        """Rows or a blob, never both.

        Raises:
            StorageFailed: The list could not be put.
        """
        rows = tuple(map(pack_row, sorted(packs)))
        if len(rows) <= MAX_PACK_ROWS:
            return rows, None
        if self._blob is None or packs != self._listed or not self._store.standings.stands(self._blob):
            self._listed, self._blob = packs, put_blob(self._store, encode_pack_list(rows))
        return None, self._blob


def put_blob(store: Store, data: bytes) -> Blob:
    """Put a blob into a pack of its own, in the store's own root."""
    writer = store.pack_writer(0)
    blob = write_blob(data, writer, store.chunker)
    writer.flush()
    return blob


def _name_of(key: str) -> PackName | None:
    """The pack that a key is of; None where it is none."""
    text = key.rpartition("/")[2]
    try:
        name = PackName(bytes.fromhex(text))
    except ValueError:
        return None
    return name if len(name) == 16 and pack_key(name) == key else None
