"""Finalizing a draft: the one log entry that makes a version visible."""

import secrets
from collections.abc import Iterable

from dataset_store.core.catalog import Catalog
from dataset_store.core.diff import diff_entries
from dataset_store.core.entries import Changes, Entries, overlay
from dataset_store.core.log_entries import PackRow, SeriesName, Statistics, VersionEntry
from dataset_store.core.packfile import PackRef
from dataset_store.core.tree import lookup
from dataset_store.dataset.lineage import merged_parents
from dataset_store.dataset.reports import pieces_of
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import CommitOutcomeUnknown, Conflict, DatasetStoreError, VersionExists
from dataset_store.local.drafts import Committing, Draft, Sent
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.trees import root_of, size_of

__all__ = ["finalize_draft", "require_usable"]

_UPLOAD_AGAIN = "Upload again, then finalize: what was lost is sent again from the files."


def finalize_draft(workspace: Workspace, draft: Draft) -> None:
    """Append the draft's version to the log, then forget the draft.

    Raises:
        VersionExists: Another version took its explicit number; the draft is kept.
        Conflict: A pack that it uses was condemned meanwhile; upload again.
        CommitOutcomeUnknown: Repeat; it cannot land twice.
        Exception: As the log's `commit`; where that says that nothing was written, the draft can be changed again.
    """
    with draft.finalizing():
        _commit(workspace, draft)
        draft.discard()


def _commit(workspace: Workspace, draft: Draft) -> None:
    assert draft.sent is not None  # noqa: S101  (the caller uploads first)
    sent = draft.sent
    statistics = _statistics(workspace, draft, sent)
    packs = _packs_used(workspace, draft, sent)
    series_id = draft.opened.series or secrets.token_hex(16)
    time = now_ns()
    in_doubt = draft.committing
    if not in_doubt:
        draft.append(Committing())

    def entry(catalog: Catalog) -> VersionEntry:
        standing = catalog.version(draft.opened.id)
        if standing is not None:
            return standing.entry
        require_usable(catalog, packs, sent.slot, _UPLOAD_AGAIN)
        return _entry(catalog, draft, sent, statistics, series_id, time)

    try:
        workspace.repository.catalog.commit(entry)
    except CommitOutcomeUnknown:
        raise
    except DatasetStoreError as error:
        # A conflict is raised from a state in which this commit does not stand. Any other error says that it was not
        # written this time, and nothing of an earlier time.
        if isinstance(error, Conflict) or not in_doubt:
            draft.append(Committing(active=False))
        raise


def _entry(
    catalog: Catalog, draft: Draft, sent: Sent, statistics: Statistics, new_series: str, time: int
) -> VersionEntry:
    opened = draft.opened
    series = catalog.series(opened.series) if opened.series else None
    series = series or catalog.series_named(opened.project, opened.name)
    taken = {version.number for version in catalog.versions_of(series.id)} if series else set()
    number = draft.labels.number
    if number is not None and number in taken:
        raise VersionExists(
            f"The dataset {opened.project}/{opened.name} already has a version {number}.",
            "Make a draft with another number, or without one; what was uploaded is found again.",
        )
    return VersionEntry(
        commit=opened.id,
        time=time,
        series=series.id if series else new_series,
        opens=None if series else SeriesName(project=opened.project, name=opened.name),
        version=number or catalog.next_version(series.id if series else None),
        parents=tuple(opened.parents),
        tree=sent.tree,
        stats=statistics,
        tags=tuple(draft.labels.tags),
        description=draft.labels.description,
        metadata={name: sent.metadata.get(name) or data.decode() for name, data in pieces_of(draft).items()},
        producer=opened.producer,
    )


def _statistics(workspace: Workspace, draft: Draft, sent: Sent) -> Statistics:
    """Totals from the root node, and what differs from the merged parents under the keys that the draft touches."""
    nodes = workspace.repository.nodes
    entries, size = size_of(root_of(sent.tree), nodes)
    if not draft.opened.parents:
        return Statistics(files=entries, bytes=size, added=entries, modified=0, removed=0)
    changes = draft.changes
    before = Entries.empty()
    if draft.opened.base is not None:
        before = lookup(root_of(draft.opened.base), sorted({*changes.entries.keys, *changes.removed}), nodes)
    after = overlay(before, changes)
    if len(draft.opened.parents) > 1:
        before = overlay(before, merged_parents(workspace, draft.opened.parents))
        after = overlay(before, changes)
    difference = diff_entries(before, after)
    return Statistics(
        files=entries,
        bytes=size,
        added=len(difference.added),
        modified=len(difference.modified_new),
        removed=len(difference.removed),
    )


def _packs_used(workspace: Workspace, draft: Draft, sent: Sent) -> frozenset[PackRef]:
    """The packs of the draft's own rows, of its root and of its metadata.

    Whatever else its tree uses, the versions that it was made of use; while those live, no pack of theirs is condemned.
    """
    rows: Changes = draft.changes
    blobs = (pack for blob in sent.metadata.values() for pack in packs_of(blob))
    return frozenset(rows.entries.segments.packs) | {root_of(sent.tree).ref.place.pack} | frozenset(blobs)


def require_usable(catalog: Catalog, packs: Iterable[PackRef], slot: int, next_step: str) -> None:
    """No pack in use may have been condemned after the state from which it was taken.

    Raises:
        Conflict: One was; `next_step` says what to do.
    """
    for pack in packs:
        condemned = catalog.condemned.get(PackRow(pack.storage, pack.name.hex()))
        if condemned is not None and condemned >= slot:
            raise Conflict(
                f"The pack {pack.name.hex()} that this version uses was condemned meanwhile.",
                next_step,
            )
