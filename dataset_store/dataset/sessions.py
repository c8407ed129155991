"""Taking a version of one store into another as a draft: its files, links, labels, metadata and reports."""

import os

from dataset_store.core.arrays import np
from dataset_store.core.entries import Entries
from dataset_store.core.paths import to_text
from dataset_store.core.tree import read_all
from dataset_store.core.version_numbers import FIRST
from dataset_store.dataset.annotations import describing
from dataset_store.dataset.annotations.metadata import metadata_names, piece_of, report_lines
from dataset_store.dataset.copies.copying import mutable_copy
from dataset_store.dataset.drafts import beginning, drafting
from dataset_store.dataset.drafts.linking import NewLink, put_links
from dataset_store.dataset.entries.links import known_content, link_rows, links_of
from dataset_store.dataset.entries.selecting import EVERYTHING, Selection
from dataset_store.dataset.making import Making
from dataset_store.dataset.workspace import Workspace
from dataset_store.local.drafts import Draft
from dataset_store.storage.trees import root_of

__all__ = ["take_in"]


def take_in(held: Making, target: Workspace) -> Draft:
    """A draft in `target` that holds what a version, or a draft that is finalized for it, holds. It has no parents.

    The draft's files lie in a folder beside its journal until they are uploaded.

    Raises:
        VersionExists: The explicit version number is taken.
        FileChanged: A file that was not uploaded yet is not what it was.
    """
    workspace = held._workspace
    number = _explicit_number(held)
    if not held.is_final():
        held.finalize(auto_upload=True)
    version = workspace.version(held.id)
    draft = beginning.begin(
        target,
        beginning.NewVersion(
            held.project,
            held.name,
            number,
            (),
            tuple(sorted(version.tags)),
            version.description,
            use_current_task=False,
        ),
    )
    try:
        _take_entries(workspace, held.id, target, draft)
        for name in metadata_names(workspace, held.id, None):
            describing.annotate(draft, name, piece_of(workspace, held.id, None, name))
        for line in report_lines(workspace, held.id):
            describing.report(draft, line)
    except BaseException:
        draft.discard()
        raise
    return draft


def _explicit_number(held: Making) -> str | None:
    """The number that somebody chose, as far as that can be told."""
    draft = held._draft
    if draft is not None:
        return draft.labels.number
    number = held._number()
    return None if number == FIRST else number


def _take_entries(workspace: Workspace, version_id: str, target: Workspace, draft: Draft) -> None:
    version = workspace.version(version_id)
    entries = read_all(root_of(version.entry.tree), workspace.store.nodes)
    rows = link_rows(entries)
    folder = os.path.join(draft.directory, "files")
    mutable_copy(workspace, version, folder, overwrite=False, selected=_all_but(entries, rows.tolist()))
    drafting.sync(target, draft, folder, None)
    links = {
        entries.keys[row]: NewLink(link, int(entries.mtimes[row]), known_content(entries, row, link))
        for row, link in zip(rows.tolist(), links_of(workspace, entries, rows.tolist()), strict=True)
    }
    if links:
        put_links(target, draft, links)


def _all_but(entries: Entries, rows: list[int]) -> Selection:
    """Everything where no row is left out, else the other entries by path."""
    if not rows:
        return EVERYTHING
    kept = np.ones(len(entries), np.bool_)
    kept[rows] = False
    return Selection(tuple(sorted(to_text(entries.keys[row]) for row in np.flatnonzero(kept).tolist())))
