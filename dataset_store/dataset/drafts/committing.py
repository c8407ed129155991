"""Finalizing a draft: the one log entry that makes a version visible."""

import os

from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.log_entries import SeriesName, VersionEntry
from dataset_store.dataset.annotations.reports import pieces_of
from dataset_store.dataset.uploads.rechecking import still_stands
from dataset_store.dataset.uploads.uploading import upload_draft
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import CommitOutcomeUnknown, Conflict, DatasetStoreError, VersionExists
from dataset_store.local.draft_records import Committing, Sent
from dataset_store.local.drafts import Draft

__all__ = ["finalize_draft"]


def finalize_draft(workspace: Workspace, draft: Draft) -> None:
    """Append the draft's version to the log, then forget the draft.

    What was sent or found in the store and has been collected since is sent again first.

    Raises:
        VersionExists: Another version took its explicit number; the draft is kept.
        ChunksLost: Contents were collected and their files are gone; the draft is kept.
        CommitOutcomeUnknown: Repeat; it cannot land twice.
        Exception: As the log's `commit`; where that says that nothing was written, the draft can be changed again.
    """
    with draft.finalizing():
        in_doubt = draft.committing
        if not in_doubt:
            draft.append(Committing())
        try:
            while not _commit(workspace, draft):
                upload_draft(workspace, draft, show_progress=False)
        except CommitOutcomeUnknown:
            raise
        except DatasetStoreError as error:
            # A conflict is raised from a state in which this commit does not stand. Any other error says that it was
            # not written this time, and nothing of an earlier time.
            if isinstance(error, Conflict) or not in_doubt:
                draft.append(Committing(active=False))
            raise
        draft.discard()


def _commit(workspace: Workspace, draft: Draft) -> bool:
    """Append the version; False where something that it names does not stand."""
    assert draft.sent is not None  # noqa: S101  (the caller uploads first)
    sent = draft.sent
    series_id = draft.opened.series or os.urandom(16).hex()
    time = now_ns()

    def entry(catalog: Catalog) -> VersionEntry:
        standing = catalog.version(draft.opened.id)
        if standing is not None:
            _require_same(standing, sent)
            return standing.entry
        if not still_stands(workspace, draft, sent):
            raise _Fallen(draft.opened.id)
        return _entry(catalog, draft, sent, series_id, time)

    try:
        workspace.store.catalog.commit(entry)
    except _Fallen:
        return False
    return True


def _require_same(standing: Version, sent: Sent) -> None:
    """A version that has the draft's id is the draft's own only if it holds the same; places may differ.

    Raises:
        Conflict: It holds something else, as where one step was run twice and made two things.
    """
    if standing.entry.tree.digest != sent.tree.digest:
        raise Conflict(
            f"The version {standing.id} is final already, and holds something else than this draft.",
            "It is complete; make this draft's files a version of their own.",
        )


class _Fallen(DatasetStoreError):
    """Gives an attempt up; it counts only in the state at the end of the log."""


def _entry(catalog: Catalog, draft: Draft, sent: Sent, new_series: str, time: int) -> VersionEntry:
    opened = draft.opened
    series = catalog.series(opened.series) if opened.series else None
    series = series or catalog.series_named(opened.project, opened.name)
    number = draft.labels.number
    if number is not None and series is not None and catalog.numbered(series.id, number):
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
        stats=sent.stats,
        tags=tuple(draft.labels.tags),
        description=draft.labels.description,
        metadata={name: sent.metadata.get(name) or data.decode() for name, data in pieces_of(draft).items()},
        producer=opened.producer,
    )
