"""The fold of the catalog: the state that its log entries, applied in slot order, amount to.

The state is a pure function of the sequence of entries. No entry makes `apply` raise: one without effect,
such as a `tags` entry for an unknown version, changes nothing, and a `version` entry that breaks the rules is
kept in `invalid` for verify and ignored otherwise. What a query returns is an immutable value that later
entries leave as it is. Look-ups cost what they find, not what the store holds: all of the state is in sorted tables,
whose rows of an earlier state may be kept as a base, so that a process folds only what came since.

This module never does I/O and never compares time labels.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain, cycle
from types import MappingProxyType
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from dataset_store.core.envelope import too_new
from dataset_store.core.log_entries import (
    ArchiveEntry,
    ArtifactEntry,
    Blob,
    CondemnedEntry,
    DeleteEntry,
    DescribeEntry,
    FeatureEntry,
    HoldEntry,
    LogEntry,
    MetadataEntry,
    MoveEntry,
    PublishEntry,
    ReleaseEntry,
    RepackEntry,
    SeriesName,
    StorageEntry,
    TagsEntry,
    VersionEntry,
)
from dataset_store.core.pack_ledger import PackLedger
from dataset_store.core.tables import NO_BASE, Base, Row, Table, all_rows
from dataset_store.core.version_numbers import FIRST, increment, rank_key
from dataset_store.core.versions import Invalid, Query, Series, Version
from dataset_store.errors import InvalidRequest

__all__ = ["KNOWN_FEATURES", "STATE", "Catalog", "Invalid", "Query", "Series", "Version"]

KNOWN_FEATURES: Final[frozenset[str]] = frozenset()
"""The features that this version of the package knows."""

STATE: Final = 1
"""Raised with every change of what `apply` does, or of what rows are: an earlier base then serves no more."""

T = TypeVar("T")

_PacksEntry = HoldEntry | CondemnedEntry | RepackEntry
_SLOT_BYTES: Final = 8
_ALL: Final = b""
"""The owner of rows of a table that needs none."""


class Catalog:
    """The fold. `apply` is the only thing that changes what it says.

    Args:
        known_features: The features that the caller can deal with.
        base: The rows of an earlier state, which `rows` gave; by default those of the empty log.
        head: The number of entries folded into it.
    """

    def __init__(self, known_features: frozenset[str] = KNOWN_FEATURES, *, base: Base = NO_BASE, head: int = 0) -> None:
        self._known_features = known_features
        self._head = head
        # What is behind the colon are owner, key and value; a version is known by its slot.
        self._slots: Table[int] = Table(b"c", int, base)  # commit ids: -, id, slot
        self._versions: Table[Version] = Table(b"v", Version, base)  # -, slot, version
        self._children: Table[bool] = Table(b"p", bool, base)  # id of a parent, slot, -
        self._tagged: Table[bool] = Table(b"t", bool, base)  # tag, slot of a live version, -
        self._series: Table[Series] = Table(b"s", Series, base)  # -, id, series
        self._aliases: Table[str] = Table(b"a", str, base)  # -, id of a series, id of that which it is folded into
        self._numbers: Table[int] = Table(b"n", int, base)  # series, number, slot of a live version
        self._ranked: Table[bool] = Table(b"r", bool, base)  # series, rank and slot of a live version, -
        self._by_name: Table[str] = Table(b"b", str, base)  # project, name, id of the series
        self._named: Table[bool] = Table(b"m", bool, base)  # name, id of a series, -
        self._ledger: Table[_PacksEntry] = Table(b"l", _PacksEntry, base)  # -, slot, entry that has an effect
        self._holds: Table[bool] = Table(b"h", bool, base)  # hold, slot, -
        self._artifacts: Table[Blob] = Table(b"x", Blob, base)  # task, name, blob
        self._storages: Table[str] = Table(b"u", str, base)  # -, storage number, URL
        self._storage_numbers: Table[int] = Table(b"w", int, base)  # -, URL, storage number
        self._features: Table[tuple[str, ...]] = Table(b"f", tuple[str, ...], base)  # -, name, operations
        self._invalid: Table[Invalid] = Table(b"i", Invalid, base)  # -, slot, why
        self._packs = PackLedger()
        for key, entry in self._ledger.scan(_ALL):
            self._packs.fold(_slot_in(key), entry)

    def apply(self, slot: int, entry: LogEntry) -> None:
        """Fold the entry of the next slot in.

        Raises:
            InvalidRequest: `slot` is not the next one; nothing is changed.
        """
        if slot != self._head:
            raise InvalidRequest(f"Slot {slot} can't be folded next; the next one is {self._head}.")
        _EFFECTS[type(entry)](self, slot, entry)
        commit = _bytes(entry.commit)
        if self._slots.get(_ALL, commit) is None:
            self._slots.put(_ALL, commit, slot)
        self._head += 1

    def rows(self) -> Iterator[Row]:
        """All that the state is made of but `head`, ascending: the base of a catalog that says the same."""
        return all_rows([table for table in vars(self).values() if isinstance(table, Table)])

    @property
    def head(self) -> int:
        """The number of entries folded, which is the slot of the next one."""
        return self._head

    def slot_of(self, commit: str) -> int | None:
        """The slot of a commit id, None where it does not stand in the log."""
        return self._slots.get(_ALL, _bytes(commit))

    def version(self, version_id: str) -> Version | None:
        """A version, live or deleted, by its id; None where there is none."""
        slot = self._slots.get(_ALL, _bytes(version_id))
        return None if slot is None else self._versions.get(_ALL, _key(slot))

    def versions_beginning(self, start: str) -> list[Version]:
        """The versions, live or deleted, whose ids begin so."""
        slots = sorted(slot for _, slot in self._slots.scan(_ALL, _bytes(start)))
        found = (self._versions.get(_ALL, _key(slot)) for slot in slots)
        return [version for version in found if version is not None]

    def is_deleted(self, version_id: str) -> bool:
        """Whether there was such a version and it was deleted."""
        version = self.version(version_id)
        return version is not None and version.deleted

    def tags_of(self, version_id: str) -> frozenset[str]:
        """The labels of a version; none where there is no such version."""
        version = self.version(version_id)
        return version.tags if version else frozenset()

    def children(self, version_id: str) -> tuple[Version, ...]:
        """The versions, live or deleted, of which it is a parent, by slot."""
        return tuple(self._at(self._children.scan(_bytes(version_id))))

    def live_versions(self) -> Iterator[Version]:
        """Every version that is not deleted, by slot."""
        return (version for _, version in self._versions.scan(_ALL) if not version.deleted)

    def with_tag(self, tag: str) -> tuple[Version, ...]:
        """The live versions that carry a label, by slot."""
        return tuple(self._at(self._tagged.scan(_bytes(tag))))

    def series(self, series_id: str) -> Series | None:
        """A series by its id, its own or one that was folded into it; None where there is none."""
        key = _bytes(series_id)
        holder = self._aliases.get(_ALL, key)
        return self._series.get(_ALL, key if holder is None else _bytes(holder))

    def names(self) -> Collection[str]:
        """Every name of a series, in any project, each once."""
        return {_text(name) for name in self._named.owners()}

    def series_called(self, name: str) -> list[Series]:
        """Every series of a name, in any project, by slot."""
        found = (self._series.get(_ALL, key) for key, _ in self._named.scan(_bytes(name)))
        return sorted((series for series in found if series is not None), key=_slot)

    def series_named(self, project: str, name: str) -> Series | None:
        """The series that holds a name now; None where none does."""
        holder = self._by_name.get(_bytes(project), _bytes(name))
        return None if holder is None else self._series.get(_ALL, _bytes(holder))

    def versions_of(self, series_id: str) -> tuple[Version, ...]:
        """The live versions of a series, the highest number last."""
        series = self.series(series_id)
        return tuple(self._at(self._ranked.scan(_bytes(series.id)))) if series else ()

    def numbered(self, series_id: str, number: str) -> Version | None:
        """The live version of a series that has a number; None where none has."""
        series = self.series(series_id)
        slot = self._numbers.get(_bytes(series.id), _bytes(number)) if series else None
        return None if slot is None else self._versions.get(_ALL, _key(slot))

    def next_version(self, series_id: str | None) -> str:
        """A free number above the highest live one of a series; `1.0.0` where it has no semantic one."""
        series = self.series(series_id) if series_id is not None else None
        highest = next(self._highest_first(series), None) if series else None
        if series is None or highest is None:
            return FIRST
        number = increment(highest.number)
        while self._numbers.get(_bytes(series.id), _bytes(number)) is not None:
            number = increment(number)
        return number

    def matching(self, query: Query) -> list[Version]:
        """The live versions that a query means, the one that `resolve` takes first."""
        found = (version for version in self._candidates(query) if query.accepts(version))
        return sorted(found, key=_slot if query.by_tag else _order, reverse=True)

    def resolve(self, query: Query) -> Version | None:
        """The version that a query means: by tag the one in the highest slot, else the highest number.

        Where numbers are equal, as across series, the highest slot decides. None where nothing matches.
        """
        if query.by_tag or query.version is not None:
            return next(iter(self.matching(query)), None)
        each = (filter(query.accepts, self._highest_first(series)) for series in self._series_of(query))
        tops = (next(accepted, None) for accepted in each)
        return max((top for top in tops if top), key=_order, default=None)

    @property
    def packs(self) -> PackLedger:
        """What the log says of packs."""
        return self._packs

    @property
    def artifacts(self) -> Mapping[tuple[str, str], Blob]:
        """What is kept of tasks, by task and name; a later entry of the same name replaces an earlier one."""
        return {(_text(task), _text(name)): blob for task, name, blob in self._artifacts.everything()}

    @property
    def storages(self) -> Mapping[int, str]:
        """The URL of each root other than the store's own, by its storage number."""
        return {_slot_in(key): url for key, url in self._storages.scan(_ALL)}

    def storage_number(self, url: str) -> int | None:
        """The storage number of a root; None where it has none yet."""
        return self._storage_numbers.get(_ALL, _bytes(url))

    @property
    def features(self) -> Mapping[str, frozenset[str]]:
        """The operations that need a reader that knows a feature, by feature."""
        return {_text(name): frozenset(operations) for name, operations in self._features.scan(_ALL)}

    @property
    def invalid(self) -> tuple[Invalid, ...]:
        """The `version` entries that are ignored, by slot."""
        return tuple(one for _, one in self._invalid.scan(_ALL))

    def require(self, operation: str) -> None:
        """Refuse an operation (`read`, `write` or `gc`) that needs a feature unknown to the caller.

        Raises:
            FormatTooNew: There is such a feature.
        """
        for name, operations in self.features.items():
            if operation in operations and name not in self._known_features:
                raise too_new(f"To {operation} this store needs the feature {name[:80]!r}.")

    def _at(self, rows: Iterable[tuple[bytes, object]]) -> Iterator[Version]:
        """The versions in the slots with which keys end."""
        found = (self._versions.get(_ALL, key[-_SLOT_BYTES:]) for key, _ in rows)
        return (version for version in found if version is not None)

    def _highest_first(self, series: Series) -> Iterator[Version]:
        return self._at(self._ranked.scan(_bytes(series.id), backwards=True))

    def _series_of(self, query: Query) -> list[Series]:
        """Every series whose name a query accepts."""
        if query.project is not None and query.name is not None:
            held = self.series_named(query.project, query.name)
            return [] if held is None else [held]
        if query.project is not None:
            holders = (_bytes(series_id) for _, series_id in self._by_name.scan(_bytes(query.project)))
            return [series for series in (self._series.get(_ALL, key) for key in holders) if series]
        if query.name is not None:
            return self.series_called(query.name)
        return [series for _, series in self._series.scan(_ALL)]

    def _candidates(self, query: Query) -> Iterator[Version]:
        """Live versions among which are all that a query means, by way of the table that names the fewest."""
        found = self._series_of(query)
        if query.version is not None:
            number = _bytes(query.version)
            slots = (self._numbers.get(_bytes(series.id), number) for series in found)
            return self._at((_key(slot), None) for slot in slots if slot is not None)
        ranked = chain.from_iterable(self._ranked.scan(_bytes(series.id)) for series in found)
        tags = query.tags.one_of
        if not tags:
            return self._at(ranked)
        tagged = chain.from_iterable(self._tagged.scan(_bytes(tag)) for tag in tags)
        ids = {series.id for series in found}
        slots_once = dict.fromkeys(key[-_SLOT_BYTES:] for key, _ in _shorter(tagged, ranked))
        return (version for version in self._at((key, None) for key in slots_once) if version.series in ids)

    def _fold_version(self, slot: int, entry: VersionEntry) -> None:
        earlier = self._slots.get(_ALL, _bytes(entry.commit))
        if earlier is not None:
            self._reject(slot, entry, f"its id already stands in slot {earlier}")
            return
        series = self.series(entry.series)
        if series is None and entry.opens is not None:
            series = self._open(slot, entry.series, entry.opens)
        if series is None:
            self._reject(slot, entry, f"it belongs to the series {entry.series}, which no entry opened")
            return
        holder = self.numbered(series.id, entry.version)
        if holder is None:
            self._admit(slot, entry, series)
        else:
            self._reject(slot, entry, f"{holder.id} has its number {entry.version!r}")

    def _reject(self, slot: int, entry: VersionEntry, why: str) -> None:
        self._invalid.put(_ALL, _key(slot), Invalid(slot, entry.commit, why))

    def _open(self, slot: int, series_id: str, opens: SeriesName) -> Series:
        """Make a series, or fold it into the one that holds its name."""
        holder = self.series_named(opens.project, opens.name)
        if holder is not None:
            self._aliases.put(_ALL, _bytes(series_id), holder.id)
            return holder
        series = Series(series_id, opens.project, opens.name, slot)
        self._take_name(series)
        return series

    def _take_name(self, series: Series) -> None:
        self._series.put(_ALL, _bytes(series.id), series)
        self._by_name.put(_bytes(series.project), _bytes(series.name), series.id)
        self._named.put(_bytes(series.name), _bytes(series.id), value=True)

    def _admit(self, slot: int, entry: VersionEntry, series: Series) -> None:
        version = Version(
            slot=slot,
            entry=entry,
            series=series.id,
            tags=frozenset(entry.tags),
            description=entry.description,
            metadata=MappingProxyType(dict(entry.metadata)),
        )
        key = _key(slot)
        self._versions.put(_ALL, key, version)
        self._end_hold(version.id)
        self._numbers.put(_bytes(series.id), _bytes(version.number), slot)
        self._ranked.put(_bytes(series.id), rank_key(version.number) + key, value=True)
        for parent in entry.parents:
            self._children.put(_bytes(parent), key, value=True)
        for tag in version.tags:
            self._tagged.put(_bytes(tag), key, value=True)

    def _change(self, version_id: str, **fields: Any) -> None:
        version = self.version(version_id)
        if version is not None:
            self._versions.put(_ALL, _key(version.slot), replace(version, **fields))

    def _fold_tags(self, _slot: int, entry: TagsEntry) -> None:
        version = self.version(entry.version)
        if version is None or version.deleted:
            return
        self._change(version.id, tags=(version.tags | set(entry.add)).difference(entry.remove))
        for tag in entry.add:
            self._tagged.put(_bytes(tag), _key(version.slot), value=True)
        for tag in entry.remove:
            self._tagged.remove(_bytes(tag), _key(version.slot))

    def _fold_describe(self, _slot: int, entry: DescribeEntry) -> None:
        self._change(entry.version, description=entry.description)

    def _fold_metadata(self, _slot: int, entry: MetadataEntry) -> None:
        version = self.version(entry.version)
        if version is None:
            return
        metadata = dict(version.metadata)
        piece = entry.blob if entry.value is None else entry.value
        if piece is None:
            metadata.pop(entry.name, None)
        else:
            metadata[entry.name] = piece
        self._change(version.id, metadata=MappingProxyType(metadata))

    def _fold_publish(self, _slot: int, entry: PublishEntry) -> None:
        self._change(entry.version, published=True)

    def _fold_archive(self, _slot: int, entry: ArchiveEntry) -> None:
        self._change(entry.version, archived=entry.archived)

    def _fold_move(self, _slot: int, entry: MoveEntry) -> None:
        old = self.series(entry.series)
        if old is None or self.series_named(entry.project, entry.name) is not None:
            return
        self._by_name.remove(_bytes(old.project), _bytes(old.name))
        self._named.remove(_bytes(old.name), _bytes(old.id))
        self._take_name(replace(old, project=entry.project, name=entry.name))

    def _fold_delete(self, _slot: int, entry: DeleteEntry) -> None:
        for version_id in entry.versions:
            version = self.version(version_id)
            if version is not None and not version.deleted:
                self._drop(version)

    def _drop(self, version: Version) -> None:
        """End the life of a version; its number is free again."""
        series, key = _bytes(version.series), _key(version.slot)
        self._change(version.id, deleted=True)
        self._numbers.remove(series, _bytes(version.number))
        self._ranked.remove(series, rank_key(version.number) + key)
        for tag in version.tags:
            self._tagged.remove(_bytes(tag), key)

    def _fold_packs(self, slot: int, entry: _PacksEntry) -> None:
        self._ledger.put(_ALL, _key(slot), entry)
        if isinstance(entry, HoldEntry):
            self._holds.put(_bytes(entry.hold), _key(slot), value=True)
        self._packs.fold(slot, entry)

    def _fold_release(self, _slot: int, entry: ReleaseEntry) -> None:
        self._end_hold(entry.hold)

    def _end_hold(self, hold: str) -> None:
        owner = _bytes(hold)
        for key, _ in self._holds.scan(owner):
            self._holds.remove(owner, key)
            self._ledger.remove(_ALL, key)
        self._packs.end_hold(hold)

    def _fold_artifact(self, _slot: int, entry: ArtifactEntry) -> None:
        self._artifacts.put(_bytes(entry.task), _bytes(entry.name), entry.blob)

    def _fold_storage(self, _slot: int, entry: StorageEntry) -> None:
        number, url = _key(entry.number), _bytes(entry.url)
        if self._storages.get(_ALL, number) is None:
            self._storages.put(_ALL, number, entry.url)
        if self._storages.get(_ALL, number) == entry.url and self._storage_numbers.get(_ALL, url) is None:
            self._storage_numbers.put(_ALL, url, entry.number)

    def _fold_feature(self, _slot: int, entry: FeatureEntry) -> None:
        name = _bytes(entry.name)
        known = self._features.get(_ALL, name) or ()
        self._features.put(_ALL, name, tuple(sorted({*known, *entry.operations})))


_EFFECTS: Final[Mapping[type, Callable[[Catalog, int, Any], None]]] = {
    VersionEntry: Catalog._fold_version,
    TagsEntry: Catalog._fold_tags,
    DescribeEntry: Catalog._fold_describe,
    MetadataEntry: Catalog._fold_metadata,
    PublishEntry: Catalog._fold_publish,
    ArchiveEntry: Catalog._fold_archive,
    MoveEntry: Catalog._fold_move,
    DeleteEntry: Catalog._fold_delete,
    HoldEntry: Catalog._fold_packs,
    ReleaseEntry: Catalog._fold_release,
    CondemnedEntry: Catalog._fold_packs,
    RepackEntry: Catalog._fold_packs,
    ArtifactEntry: Catalog._fold_artifact,
    StorageEntry: Catalog._fold_storage,
    FeatureEntry: Catalog._fold_feature,
}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def _key(slot: int) -> bytes:
    """Bytes that compare as slots, or other numbers, do."""
    return slot.to_bytes(_SLOT_BYTES, "big")


def _slot_in(key: bytes) -> int:
    return int.from_bytes(key, "big")


def _slot(one: Version | Series) -> int:
    return one.slot


def _order(version: Version) -> tuple[bytes, int]:
    return rank_key(version.number), version.slot


def _shorter(first: Iterable[T], second: Iterable[T]) -> list[T]:
    """The items of the one that ends first, which is all that is taken of the other."""
    taken: tuple[list[T], list[T]] = ([], [])
    for some, items in cycle(zip(taken, map(iter, (first, second)), strict=True)):
        for item in items:
            some.append(item)
            break
        else:
            return some
    raise AssertionError
