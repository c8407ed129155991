"""What a store holds: its versions, this machine's drafts of it, and its sums. Everything here reads."""

import os
from collections.abc import Iterator

from msgspec import Struct

from dataset_store.core.catalog import Catalog, Query, Series, Version
from dataset_store.core.merge import parents_first
from dataset_store.dataset.catalog.lineage import ancestors_of
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Corrupt, DatasetNotFound, DriverMissing, InvalidRequest, StorageFailed
from dataset_store.local.drafts import Draft, draft_ids
from dataset_store.storage.backend import Backend

__all__ = [
    "StorageUsage",
    "StoreUsage",
    "VersionSummary",
    "draft_is_meant",
    "draft_row",
    "drafts_of",
    "latest_draft",
    "lineage_of",
    "number_of",
    "status_name",
    "summary_of",
    "usage_of",
    "versions_of",
]


def status_name(*, final: bool, published: bool) -> str:
    """ClearML's name for how far a version is."""
    return "in_progress" if not final else "published" if published else "completed"


class VersionSummary(Struct, frozen=True):
    """One version, or one draft of this machine, as a row of a table.

    `entries`, `bytes`, `added`, `modified` and `removed` are those of the manifest; None of a draft. `created_ns` is a
    label, ns since 1970. `number` of a draft that was given none is the one it would get now.
    """

    id: str
    project: str
    name: str
    number: str
    final: bool
    tags: tuple[str, ...]
    description: str | None
    parents: tuple[str, ...]
    created_ns: int
    published: bool = False
    archived: bool = False
    deleted: bool = False
    entries: int | None = None
    bytes: int | None = None
    added: int | None = None
    modified: int | None = None
    removed: int | None = None

    @property
    def status(self) -> str:
        """ClearML's name for how far it is: `in_progress`, `completed` or `published`."""
        return status_name(final=self.final, published=self.published)


class StorageUsage(Struct, frozen=True):
    """What lies in one storage: the store's own root, which is number 0, or another to which packs went.

    Attributes:
        number: By which the log knows it.
        url: Where it is, without credentials.
        packs: How many.
        bytes: Of its packs.
        problem: Why it cannot be listed now; None where it could.
    """

    number: int
    url: str
    packs: int
    bytes: int
    problem: str | None = None


class StoreUsage(Struct, frozen=True):
    """What a store keeps: objects and bytes of each sort, and what its live versions amount to without sharing.

    `linked_bytes` is the part of `logical_bytes` that lies behind external links, as far as that is known.
    """

    storages: tuple[StorageUsage, ...]
    log_entries: int
    log_bytes: int
    checkpoints: int
    checkpoint_bytes: int
    versions: int
    logical_bytes: int
    linked_bytes: int = 0

    @property
    def packs(self) -> int:
        """How many packs there are in all storages that could be listed."""
        return sum(one.packs for one in self.storages)

    @property
    def pack_bytes(self) -> int:
        """Bytes of these packs."""
        return sum(one.bytes for one in self.storages)

    @property
    def is_whole(self) -> bool:
        """Whether every storage could be listed."""
        return all(one.problem is None for one in self.storages)

    @property
    def stored_bytes(self) -> int:
        """Bytes of packs, log and checkpoints."""
        return self.pack_bytes + self.log_bytes + self.checkpoint_bytes

    @property
    def deduplication(self) -> float | None:
        """Bytes of the files of all live versions for each stored byte; None where no data is, or not all is known."""
        if not self.is_whole or not self.packs or not self.versions:
            return None
        return (self.logical_bytes - self.linked_bytes) / self.stored_bytes


def versions_of(workspace: Workspace, query: Query) -> list[VersionSummary]:
    """The live versions that a query means, by project and name, the lowest number first; one request."""
    found = workspace.refresh().matching(query)
    rows = [summary_of(workspace, version) for version in reversed(found)]
    return sorted(rows, key=lambda row: (row.project, row.name))


def summary_of(workspace: Workspace, version: Version) -> VersionSummary:
    """One version as a row."""
    series = workspace.catalog.series(version.series) or Series(version.series, "", "", 0)
    stats = version.entry.stats
    return VersionSummary(
        id=version.id,
        project=series.project,
        name=series.name,
        number=version.number,
        final=True,
        tags=tuple(sorted(version.tags)),
        description=version.description,
        parents=version.entry.parents,
        created_ns=version.entry.time,
        published=version.published,
        archived=version.archived,
        deleted=version.deleted,
        entries=stats.files,
        bytes=stats.bytes,
        added=stats.added,
        modified=stats.modified,
        removed=stats.removed,
    )


def lineage_of(workspace: Workspace, version_id: str) -> list[VersionSummary]:
    """A version or draft of this machine and all its ancestors, deleted ones too; every child before its parents.

    Raises:
        DatasetNotFound: There is no such version.
    """
    draft = workspace.draft(version_id) if workspace.catalog.version(version_id) is None else None
    first = [draft_row(workspace.catalog, draft)] if draft is not None else []
    begun = draft.opened.parents if draft is not None else [workspace.version(version_id).id]
    found = (workspace.catalog.version(each) for each in ancestors_of(workspace.catalog, begun))
    versions = {one.id: one for one in sorted((one for one in found if one), key=lambda version: version.slot)}
    # Of versions that came from another store a parent may stand in a later slot than its child.
    order = parents_first(list(versions), {one.id: one.entry.parents for one in versions.values()})
    return first + [summary_of(workspace, versions[version_id]) for version_id in reversed(order)]


def drafts_of(workspace: Workspace) -> list[VersionSummary]:
    """The drafts of this store on this machine, oldest first. Those that became versions are left out."""
    catalog = workspace.catalog
    rows = [draft_row(catalog, draft) for draft in _drafts(workspace) if catalog.version(draft.opened.id) is None]
    return sorted(rows, key=lambda row: row.created_ns)


def latest_draft(workspace: Workspace, query: Query) -> str | None:
    """The id of the draft, of those that a query means, that was begun last on this machine."""
    return next((row.id for row in reversed(drafts_of(workspace)) if draft_is_meant(row, query)), None)


def draft_is_meant(draft: VersionSummary, query: Query) -> bool:
    """Whether a draft passes every condition that one can pass."""
    return (
        query.project in {None, draft.project}
        and query.name in {None, draft.name}
        and query.version in {None, draft.number}
        and query.tags.accepts(set(draft.tags))
    )


def _drafts(workspace: Workspace) -> Iterator[Draft]:
    for draft_id in draft_ids(workspace.drafts_directory):
        try:
            yield Draft.load(os.path.join(workspace.drafts_directory, draft_id))
        except (Corrupt, DatasetNotFound):
            continue  # being made, being discarded, or of another version of this package


def number_of(catalog: Catalog, draft: Draft) -> str:
    """A draft's version number: its own, or the one that it would get now."""
    series = catalog.series_named(draft.opened.project, draft.opened.name)
    return draft.labels.number or catalog.next_version(series.id if series else None)


def draft_row(catalog: Catalog, draft: Draft) -> VersionSummary:
    """One draft as a row."""
    opened = draft.opened
    return VersionSummary(
        id=opened.id,
        project=opened.project,
        name=opened.name,
        number=number_of(catalog, draft),
        final=False,
        tags=tuple(draft.labels.tags),
        description=draft.labels.description,
        parents=tuple(opened.parents),
        created_ns=opened.created,
    )


def usage_of(workspace: Workspace) -> StoreUsage:
    """What the store keeps, by listing all of it, and the other storages that its log numbers.

    Raises:
        StorageFailed: The store's own root cannot be listed.
    """
    root = workspace.store.backend
    catalog = workspace.refresh()
    own = StorageUsage(0, root.describe(), *_listed(root, "packs"))
    others = (_storage_usage(workspace, number, url) for number, url in sorted(catalog.storages.items()))
    live = [version.entry.stats.bytes for version in catalog.live_versions()]
    return StoreUsage(
        (own, *others), *_listed(root, "log"), *_listed(root, "ckpt"), versions=len(live), logical_bytes=sum(live)
    )


def _storage_usage(workspace: Workspace, number: int, url: str) -> StorageUsage:
    try:
        return StorageUsage(number, url, *_listed(workspace.store.storages[number], "packs"))
    except (StorageFailed, InvalidRequest, DriverMissing) as error:
        return StorageUsage(number, url, 0, 0, error.what)


def _listed(backend: Backend, prefix: str) -> tuple[int, int]:
    """How many objects a storage has under a prefix, and their bytes."""
    sizes = [info.size for info in backend.list(prefix)]
    return len(sizes), sum(sizes)
