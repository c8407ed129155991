"""Holds: for a draft that once lost what it had sent the log keeps packs, so that it gets to its end, however slow.

A hold names packs before anything is put under these names. It ends with the draft's version, or is released when the
draft is discarded. It is for progress only: nothing that must be right rests on it.
"""

from dataset_store.core.catalog import Catalog
from dataset_store.core.digest import PackName
from dataset_store.core.log_entries import HoldEntry, ReleaseEntry
from dataset_store.core.packfile import PackRef
from dataset_store.dataset.catalog.outputs import number_of
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.local.draft_records import Held
from dataset_store.local.drafts import Draft
from dataset_store.storage.standings import pack_row
from dataset_store.storage.store import new_pack_name

__all__ = ["HeldNames", "discard_draft"]

_NAMES_AT_ONCE = 16
"""Pack names that one hold entry draws; 640 MiB to 1 GiB of packs."""


def discard_draft(workspace: Workspace, draft: Draft) -> None:
    """Forget a draft; what it sent is left to gc, also where the log holds it.

    Raises:
        CommitOutcomeUnknown, StorageFailed: Its hold could not be ended; the draft is kept.
    """
    if draft.held:
        hold = draft.opened.id

        def entry(catalog: Catalog, commit: str) -> ReleaseEntry | None:
            if hold not in catalog.packs.hold_ids:
                return None
            return ReleaseEntry(commit=commit, time=now_ns(), hold=hold)

        workspace.store.catalog.change(entry)
    draft.discard()


class HeldNames:
    """Draws pack names that the log holds for a draft before anything is put under them."""

    def __init__(self, workspace: Workspace, draft: Draft) -> None:
        self._workspace = workspace
        self._draft = draft
        self._names: list[PackName] = []

    def draw(self) -> PackName:
        """The next name; where none is left, more are held first."""
        if not self._names:
            self._names = [new_pack_name() for _ in range(_NAMES_AT_ONCE)]
            self._hold(number_of(self._workspace, self._draft.output))
        return self._names.pop()

    def _hold(self, storage: int) -> None:
        if not self._draft.held:
            self._draft.append(Held())
        rows = tuple(pack_row(PackRef(storage, name)) for name in sorted(self._names))
        hold = self._draft.opened.id
        self._workspace.store.catalog.change(
            lambda _catalog, commit: HoldEntry(commit=commit, time=now_ns(), hold=hold, packs=rows)
        )
