"""The fold of the catalog: the state that its log entries, applied in slot order, amount to.

The state is a pure function of the sequence of entries. No entry makes `apply` raise: one without effect,
such as a `tags` entry for an unknown version, changes nothing, and a `version` entry that breaks the rules is
kept in `invalid` for verify and ignored otherwise. What a query returns is an immutable value that later
entries leave as it is. Look-ups cost what they find, not what the store holds.

This module never does I/O and never compares time labels.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from msgspec import Struct, field
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
from dataset_store.core.version_numbers import FIRST, Rank, increment, rank
from dataset_store.core.versions import Invalid, Query, Series, Version
from dataset_store.errors import InvalidRequest

__all__ = ["KNOWN_FEATURES", "Catalog", "Invalid", "Query", "Series", "Version"]

KNOWN_FEATURES: Final[frozenset[str]] = frozenset()
"""The features that this version of the package knows."""


_Ranked = tuple[Rank, int, str]  # by number, then by slot; the id


class _Family(Struct):
    """A series and its live versions: by number, and ascending by rank."""

    value: Series
    by_number: dict[str, str] = field(default_factory=dict)
    ranked: list[_Ranked] = field(default_factory=list)


class Catalog:
    """The fold. Begins empty; `apply` is the only thing that changes what it says.

    Args:
        known_features: The features that the caller can deal with.
    """

    def __init__(self, known_features: frozenset[str] = KNOWN_FEATURES) -> None:
        self._known_features = known_features
        self._head = 0
        self._slots: dict[str, int] = {}
        self._versions: dict[str, Version] = {}
        self._live: dict[str, None] = {}
        self._children: dict[str, list[str]] = {}
        self._tagged: dict[str, dict[str, None]] = {}
        self._families: dict[str, _Family] = {}
        self._aliases: dict[str, str] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self._in_project: dict[str, dict[str, None]] = {}
        self._named: dict[str, dict[str, None]] = {}
        self._packs = PackLedger()
        self._artifacts: dict[tuple[str, str], Blob] = {}
        self._storages: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._features: dict[str, frozenset[str]] = {}
        self._invalid: list[Invalid] = []

    def apply(self, slot: int, entry: LogEntry) -> None:
        """Fold the entry of the next slot in.

        Raises:
            InvalidRequest: `slot` is not the next one; nothing is changed.
        """
        if slot != self._head:
            raise InvalidRequest(f"Slot {slot} can't be folded next; the next one is {self._head}.")
        _EFFECTS[type(entry)](self, slot, entry)
        self._slots.setdefault(entry.commit, slot)
        self._head += 1

    @property
    def head(self) -> int:
        """The number of entries folded, which is the slot of the next one."""
        return self._head

    def slot_of(self, commit: str) -> int | None:
        """The slot of a commit id, None where it does not stand in the log."""
        return self._slots.get(commit)

    def version(self, version_id: str) -> Version | None:
        """A version, live or deleted, by its id; None where there is none."""
        return self._versions.get(version_id)

    def versions_beginning(self, start: str) -> list[Version]:
        """The versions, live or deleted, whose ids begin so."""
        return [version for version_id, version in self._versions.items() if version_id.startswith(start)]

    def is_deleted(self, version_id: str) -> bool:
        """Whether there was such a version and it was deleted."""
        version = self._versions.get(version_id)
        return version is not None and version.deleted

    def tags_of(self, version_id: str) -> frozenset[str]:
        """The labels of a version; none where there is no such version."""
        version = self._versions.get(version_id)
        return version.tags if version else frozenset()

    def children(self, version_id: str) -> tuple[Version, ...]:
        """The versions, live or deleted, of which it is a parent, by slot."""
        return tuple(self._versions[child] for child in self._children.get(version_id, ()))

    def live_versions(self) -> Iterator[Version]:
        """Every version that is not deleted, by slot."""
        return (self._versions[version_id] for version_id in self._live)

    def with_tag(self, tag: str) -> tuple[Version, ...]:
        """The live versions that carry a label, by slot."""
        found = (self._versions[version_id] for version_id in self._tagged.get(tag, ()))
        return tuple(sorted(found, key=_slot))

    def series(self, series_id: str) -> Series | None:
        """A series by its id; None where there is none."""
        family = self._family(series_id)
        return family.value if family else None

    def names(self) -> Collection[str]:
        """Every name of a series, in any project, each once."""
        return self._named.keys()

    def series_called(self, name: str) -> list[Series]:
        """Every series of a name, in any project."""
        return [self._families[series_id].value for series_id in self._named.get(name, ())]

    def series_named(self, project: str, name: str) -> Series | None:
        """The series that holds a name now; None where none does."""
        series_id = self._by_name.get((project, name))
        return None if series_id is None else self._families[series_id].value

    def versions_of(self, series_id: str) -> tuple[Version, ...]:
        """The live versions of a series, the highest number last."""
        family = self._family(series_id)
        return tuple(self._versions[row[2]] for row in family.ranked) if family else ()

    def next_version(self, series_id: str | None) -> str:
        """A free number above the highest live one of a series; `1.0.0` where it has no semantic one."""
        family = self._family(series_id) if series_id is not None else None
        if family is None or not family.ranked:
            return FIRST
        number = increment(self._versions[family.ranked[-1][2]].number)
        while number in family.by_number:
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
        tops = (self._highest(family, query) for family in self._families_of(query))
        return max((top for top in tops if top), key=_order, default=None)

    @property
    def packs(self) -> PackLedger:
        """What the log says of packs."""
        return self._packs

    @property
    def artifacts(self) -> Mapping[tuple[str, str], Blob]:
        """What is kept of tasks, by task and name; a later entry of the same name replaces an earlier one."""
        return MappingProxyType(self._artifacts)

    @property
    def storages(self) -> Mapping[int, str]:
        """The URL of each root other than the store's own, by its storage number."""
        return MappingProxyType(self._storages)

    def storage_number(self, url: str) -> int | None:
        """The storage number of a root; None where it has none yet."""
        return self._numbers.get(url)

    @property
    def features(self) -> Mapping[str, frozenset[str]]:
        """The operations that need a reader that knows a feature, by feature."""
        return MappingProxyType(self._features)

    @property
    def invalid(self) -> tuple[Invalid, ...]:
        """The `version` entries that are ignored, by slot."""
        return tuple(self._invalid)

    def require(self, operation: str) -> None:
        """Refuse an operation (`read`, `write` or `gc`) that needs a feature unknown to the caller.

        Raises:
            FormatTooNew: There is such a feature.
        """
        for name, operations in self._features.items():
            if operation in operations and name not in self._known_features:
                raise too_new(f"To {operation} this store needs the feature {name[:80]!r}.")

    def _family(self, series_id: str) -> _Family | None:
        return self._families.get(self._aliases.get(series_id, series_id))

    def _families_of(self, query: Query) -> list[_Family]:
        """Every series whose name a query accepts."""
        if query.project is not None and query.name is not None:
            held = self._by_name.get((query.project, query.name))
            ids: Iterable[str] = () if held is None else (held,)
        elif query.project is not None:
            ids = self._in_project.get(query.project, ())
        elif query.name is not None:
            ids = self._named.get(query.name, ())
        else:
            return list(self._families.values())
        return [self._families[series_id] for series_id in ids]

    def _candidates(self, query: Query) -> Iterator[Version]:
        """Live versions among which are all that a query means, from the index that leaves the fewest."""
        families = self._families_of(query)
        if query.version is not None:
            ids = (family.by_number.get(query.version) for family in families)
            return (self._versions[version_id] for version_id in ids if version_id is not None)
        tags = query.tags.one_of
        if tags and sum(len(self._tagged.get(tag, ())) for tag in tags) < sum(len(f.ranked) for f in families):
            return self._tagged_within(tags, {family.value.id for family in families})
        return (self._versions[row[2]] for family in families for row in family.ranked)

    def _tagged_within(self, tags: tuple[str, ...], series: set[str]) -> Iterator[Version]:
        ids = {version_id: None for tag in tags for version_id in self._tagged.get(tag, ())}
        found = (self._versions[version_id] for version_id in ids)
        return (version for version in found if version.series in series)

    def _highest(self, family: _Family, query: Query) -> Version | None:
        ranked = (self._versions[row[2]] for row in reversed(family.ranked))
        return next((version for version in ranked if query.accepts(version)), None)

    def _fold_version(self, slot: int, entry: VersionEntry) -> None:
        if entry.commit in self._slots:
            self._reject(slot, entry, f"its id already stands in slot {self._slots[entry.commit]}")
            return
        if entry.opens is not None and self._family(entry.series) is None:
            self._open(slot, entry.series, entry.opens)
        family = self._family(entry.series)
        if family is None:
            self._reject(slot, entry, f"it belongs to the series {entry.series}, which no entry opened")
        elif entry.version in family.by_number:
            self._reject(slot, entry, f"{family.by_number[entry.version]} has its number {entry.version!r}")
        else:
            self._admit(slot, entry, family)

    def _reject(self, slot: int, entry: VersionEntry, why: str) -> None:
        self._invalid.append(Invalid(slot, entry.commit, why))

    def _open(self, slot: int, series_id: str, opens: SeriesName) -> None:
        """Make a series, or fold it into the one that holds its name."""
        holder = self._by_name.get((opens.project, opens.name))
        if holder is not None:
            self._aliases[series_id] = holder
            return
        self._families[series_id] = _Family(Series(series_id, opens.project, opens.name, slot))
        self._take_name(series_id, opens.project, opens.name)

    def _take_name(self, series_id: str, project: str, name: str) -> None:
        self._by_name[project, name] = series_id
        self._in_project.setdefault(project, {})[series_id] = None
        self._named.setdefault(name, {})[series_id] = None

    def _admit(self, slot: int, entry: VersionEntry, family: _Family) -> None:
        version = Version(
            slot=slot,
            entry=entry,
            series=family.value.id,
            tags=frozenset(entry.tags),
            description=entry.description,
            metadata=MappingProxyType(dict(entry.metadata)),
        )
        self._versions[version.id] = version
        self._live[version.id] = None
        self._packs.end_hold(version.id)
        family.by_number[version.number] = version.id
        insort(family.ranked, (rank(version.number), slot, version.id))
        for parent in dict.fromkeys(entry.parents):
            self._children.setdefault(parent, []).append(version.id)
        for tag in version.tags:
            self._tagged.setdefault(tag, {})[version.id] = None

    def _change(self, version_id: str, **fields: Any) -> None:
        version = self._versions.get(version_id)
        if version is not None:
            self._versions[version_id] = replace(version, **fields)

    def _fold_tags(self, _slot: int, entry: TagsEntry) -> None:
        version = self._versions.get(entry.version)
        if version is None or version.deleted:
            return
        self._change(version.id, tags=(version.tags | set(entry.add)).difference(entry.remove))
        for tag in entry.add:
            self._tagged.setdefault(tag, {})[version.id] = None
        for tag in entry.remove:
            self._untag(tag, version.id)

    def _untag(self, tag: str, version_id: str) -> None:
        carriers = self._tagged.get(tag, {})
        carriers.pop(version_id, None)
        if not carriers:
            self._tagged.pop(tag, None)

    def _fold_describe(self, _slot: int, entry: DescribeEntry) -> None:
        self._change(entry.version, description=entry.description)

    def _fold_metadata(self, _slot: int, entry: MetadataEntry) -> None:
        version = self._versions.get(entry.version)
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
        family = self._family(entry.series)
        if family is None or (entry.project, entry.name) in self._by_name:
            return
        old = family.value
        del self._by_name[old.project, old.name]
        del self._in_project[old.project][old.id]
        del self._named[old.name][old.id]
        family.value = replace(old, project=entry.project, name=entry.name)
        self._take_name(old.id, entry.project, entry.name)

    def _fold_delete(self, _slot: int, entry: DeleteEntry) -> None:
        for version_id in entry.versions:
            if version_id in self._live:
                self._drop(self._versions[version_id])

    def _drop(self, version: Version) -> None:
        """End the life of a version; its number is free again."""
        family = self._families[version.series]
        self._change(version.id, deleted=True)
        del self._live[version.id]
        del family.by_number[version.number]
        del family.ranked[bisect_left(family.ranked, (rank(version.number), version.slot, version.id))]
        for tag in version.tags:
            self._untag(tag, version.id)

    def _fold_packs(self, slot: int, entry: HoldEntry | CondemnedEntry | RepackEntry) -> None:
        self._packs.fold(slot, entry)

    def _fold_release(self, _slot: int, entry: ReleaseEntry) -> None:
        self._packs.end_hold(entry.hold)

    def _fold_artifact(self, _slot: int, entry: ArtifactEntry) -> None:
        self._artifacts[entry.task, entry.name] = entry.blob

    def _fold_storage(self, _slot: int, entry: StorageEntry) -> None:
        self._storages.setdefault(entry.number, entry.url)
        if self._storages[entry.number] == entry.url:
            self._numbers.setdefault(entry.url, entry.number)

    def _fold_feature(self, _slot: int, entry: FeatureEntry) -> None:
        known = self._features.get(entry.name, frozenset())
        self._features[entry.name] = known | set(entry.operations)


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


def _slot(version: Version) -> int:
    return version.slot


def _order(version: Version) -> tuple[Rank, int]:
    return rank(version.number), version.slot
