"""Drafts begun, and found again. Nothing here writes to the store."""

import logging
import os
from collections.abc import Sequence

from msgspec import Struct

from dataset_store.core.catalog import Version
from dataset_store.core.entries import Changes
from dataset_store.core.log_entries import Producer, TreeRootRow
from dataset_store.core.producer import current_producer
from dataset_store.dataset.annotations.describing import require_free
from dataset_store.dataset.annotations.limits import Description, require_writable
from dataset_store.dataset.catalog.lineage import merged_parents
from dataset_store.dataset.catalog.outputs import output_of, storage_url
from dataset_store.dataset.workspace import Workspace, new_commit_id, now_ns
from dataset_store.errors import InvalidRequest, NotFinal
from dataset_store.local.draft_records import Batch, Labels, Opened, Output
from dataset_store.local.drafts import Draft

__all__ = ["NewVersion", "begin", "open_draft", "require_final", "require_name"]

_log = logging.getLogger(__name__)


class NewVersion(Struct, frozen=True):
    """What a new version is to be.

    `number` is an explicit version number, `output` the root where its packs go; by default that of the last parent's.
    """

    project: str
    name: str
    number: str | None
    parents: tuple[str, ...]
    tags: tuple[str, ...]
    description: str | None
    use_current_task: bool
    output: str | None = None


def begin(workspace: Workspace, new: NewVersion, squashed: Sequence[str] = ()) -> Draft:
    """Make a draft; its base is the first parent's tree, and it begins with what the others change in it.

    With `squashed` instead of parents it begins likewise with those versions' entries, and has no parents.

    Raises:
        DatasetNotFound, NotFinal: A parent is not there or not final.
        VersionExists: The explicit version number is taken.
        InvalidRequest: A log entry cannot hold its names, tags or description.
    """
    require_writable(Description(new.project, new.name, new.number, new.tags, new.description, new.parents))
    catalog = workspace.refresh()
    sources = [require_final(workspace, source) for source in new.parents or squashed]
    series = catalog.series_named(new.project, new.name)
    if new.number:
        require_free(workspace, series, new.number, new.project, new.name)
    draft_id = new_commit_id()
    inherited = _inherited(workspace, sources)
    base: TreeRootRow | None = sources[0].entry.tree if sources else None
    opened = Opened(
        id=draft_id,
        store=workspace.store_id,
        project=new.project,
        name=new.name,
        series=series.id if series else None,
        parents=list(new.parents),
        base=base,
        created=now_ns(),
        producer=_producer() if new.use_current_task else None,
        inherited=Batch.of(inherited, None) if inherited else None,
    )
    return Draft.create(
        os.path.join(workspace.drafts_directory, draft_id),
        opened,
        Labels(sorted(set(new.tags)), new.description, new.number),
        Output(_output(workspace, new, sources)),
    )


def _inherited(workspace: Workspace, sources: Sequence[Version]) -> Changes:
    """What all sources but the first change in the first one's tree."""
    ids = [source.id for source in sources]
    if len(ids) < 2:
        return Changes.none()
    with workspace.reading(*ids):
        return merged_parents(workspace, ids)


def _output(workspace: Workspace, new: NewVersion, sources: Sequence[Version]) -> str | None:
    """The root where the packs of a new version go; None for the store's own."""
    if new.output:
        return storage_url(workspace, new.output)
    return output_of(workspace.catalog, sources[-1]) if sources else None


def _producer() -> Producer | None:
    producer = current_producer.get()
    if producer is None:
        _log.warning("use_current_task=True has no effect: no task is running.")
    return producer


def open_draft(workspace: Workspace, draft_id: str) -> Draft | None:
    """The draft of that id, unless its commit has landed meanwhile: then the draft is done with."""
    draft = workspace.draft(draft_id)
    if draft is None:
        return None
    landed = workspace.catalog.version(draft_id)
    if landed is None and draft.committing:
        landed = workspace.refresh().version(draft_id)
    if landed is not None:
        draft.discard()
        return None
    return draft


def require_final(workspace: Workspace, version_id: str) -> Version:
    """A version that may be a parent.

    Raises:
        DatasetNotFound: There is none, or it was deleted.
        NotFinal: It is a draft of this machine.
    """
    if workspace.draft(version_id) is not None and workspace.catalog.version(version_id) is None:
        raise NotFinal(
            f"Cannot inherit from a parent that was not finalized/closed: {version_id}.", "Finalize it first."
        )
    return workspace.live_version(version_id)


def require_name(name: str | None) -> str:
    """A dataset's name.

    Raises:
        InvalidRequest: It is missing or empty.
    """
    if not name:
        raise InvalidRequest("A dataset needs a name.", "Give one, or a parent that has one.")
    return name
