"""Does everything that a draft's version would name still stand?

A pack that the draft took a chunk from, or that it uploaded itself, may have been condemned since: it lay unused when a
collection looked. An upload and every attempt to commit look at one state of the log; what does not stand there is sent
again (docs/format.md §11). Whatever the draft's tree takes whole from the version that it changes needs no look while
that version lives.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import chain

from msgspec import Struct

from dataset_store.core.arrays import Bool, np
from dataset_store.core.digest import PackName
from dataset_store.core.entries import LISTED, Changes, Entries, overlay
from dataset_store.core.extents import extents_of_segments
from dataset_store.core.log_entries import TreeRootRow
from dataset_store.core.packfile import PackRef
from dataset_store.core.standing import Standing
from dataset_store.core.tree import read_all
from dataset_store.dataset.checks.surviving import readable
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import ChunksLost, Corrupt, StorageFailed
from dataset_store.local.draft_records import Sent
from dataset_store.local.drafts import Draft
from dataset_store.storage.blobs import packs_of
from dataset_store.storage.liveness import NoSummaries, reach_trees
from dataset_store.storage.trees import root_of

__all__ = ["OwnChanges", "base_is_live", "fallen_rows", "has_lost_packs", "lost_rows", "own_changes", "still_stands"]


class OwnChanges(Struct, frozen=True):
    """What a draft's tree does not take from a live version: changes to `base`; without base to the empty tree."""

    base: TreeRootRow | None
    changes: Changes


def still_stands(workspace: Workspace, draft: Draft, sent: Sent) -> bool:
    """Whether everything that a draft's version would name stands in the catalog as it was last read.

    Raises:
        Corrupt, StorageFailed: What must be read for that can't be.
    """
    last = workspace.catalog.packs.last_condemnation
    if last is None or last < sent.slot:
        return True
    standing = workspace.store.standings.now()
    if has_lost_packs(draft, standing):
        return False
    if any(pack in standing.condemned for blob in sent.metadata.values() for pack in packs_of(blob)):
        return False
    if not base_is_live(workspace, draft):
        try:
            named = reach_trees([sent.tree], workspace.store.nodes, NoSummaries())
        except Corrupt:
            return False
        return standing.can_be_used(named)
    return not fallen_rows(workspace, draft.changes.entries, standing).any()


def has_lost_packs(draft: Draft, standing: Standing) -> bool:
    """Whether a pack that the draft's last upload put was condemned, or damaged and repaired."""
    sent = draft.sent
    return sent is not None and any(standing.is_touched(PackRef(number, PackName(name))) for number, name in sent.packs)


def own_changes(workspace: Workspace, draft: Draft) -> OwnChanges:
    """What an upload has to look at; all entries where no live version has the tree that the draft changes.

    Raises:
        ChunksLost: The entries of that tree cannot be read any more.
    """
    base = draft.opened.base
    if base_is_live(workspace, draft):
        return OwnChanges(base, draft.changes)
    assert base is not None  # noqa: S101  (no tree is always live)
    try:
        before = read_all(root_of(base), workspace.store.nodes)
    except Corrupt as error:
        raise ChunksLost(
            f"The version that the draft {draft.opened.id} changes was deleted, and its list of files collected.",
            "Begin anew, from another version or from a whole folder.",
        ) from error
    return OwnChanges(None, Changes(overlay(before, draft.changes), []))


def fallen_rows(workspace: Workspace, entries: Entries, standing: Standing) -> Bool:
    """The rows that have segments which do not stand, or a list of them that can't be read; shape (n,)."""

    def fallen(rows: Entries) -> Bool:
        _, stands = standing.segments(rows.segments)
        return rows.segment_sums(~stands) > 0

    return _rows_that(fallen, workspace, entries, look_into_lists=standing.tells_of_packs)


def lost_rows(workspace: Workspace, entries: Entries) -> Bool:
    """The rows of which the log, as it was last read, tells that bytes were lost; shape (n,).

    What can't be asked now counts as not lost: whoever looks here only stores more than is needed.
    """
    with suppress(StorageFailed, Corrupt):
        relocations = workspace.store.standings.now().relocations
        lost = relocations.lost()
        if len(lost):

            def touched(rows: Entries) -> Bool:
                return rows.segment_sums(extents_of_segments(rows.segments).touched_by(lost)) > 0

            return _rows_that(touched, workspace, entries, look_into_lists=True)
    return np.zeros(len(entries), np.bool_)


def _rows_that(
    are_meant: Callable[[Entries], Bool], workspace: Workspace, entries: Entries, *, look_into_lists: bool
) -> Bool:
    """The rows that are meant by what they say themselves or, where that is looked into, by their segment lists."""
    meant = are_meant(entries)
    listed = np.flatnonzero((entries.kinds & LISTED) != 0) if look_into_lists else np.zeros(0, np.int64)
    listed = listed[~meant[listed]]
    if len(listed):
        meant[listed] = _in_lists(are_meant, workspace, entries.take(listed))
    return meant


def _in_lists(are_meant: Callable[[Entries], Bool], workspace: Workspace, listed: Entries) -> Bool:
    """As `are_meant`, of rows with their lists put in; a list that can't be read is meant."""

    def look(rows: Sequence[int]) -> list[bool]:
        found: list[bool] = are_meant(with_lists(listed.take(np.array(rows)), workspace.store.nodes)).tolist()
        return found

    return np.array([one is None or one for one in readable(range(len(listed)), look)], np.bool_)


def base_is_live(workspace: Workspace, draft: Draft) -> bool:
    """Whether the tree that the draft changes is that of a live version, or of none."""
    base, catalog = draft.opened.base, workspace.catalog
    if base is None:
        return True
    parents = (catalog.version(parent) for parent in draft.opened.parents)  # one of which it mostly is
    live_parents = (version for version in parents if version is not None and not version.deleted)
    return any(version.entry.tree == base for version in chain(live_parents, catalog.live_versions()))
