"""Tags of final versions, changed by one entry of the log."""

from collections.abc import Callable

from dataset_store.core.catalog import Catalog
from dataset_store.core.log_entries import TagsEntry
from dataset_store.dataset.workspace import Workspace, new_commit_id, now_ns

__all__ = ["change_tags"]


def change_tags(workspace: Workspace, version_id: str, wanted: Callable[[frozenset[str]], frozenset[str]]) -> None:
    """Give a final version the tags that `wanted` makes of those it has at the commit.

    Nothing is written where nothing changes.

    Raises:
        DatasetNotFound: There is no such version.
    """
    commit = new_commit_id()
    standing: list[TagsEntry] = []

    def entry(catalog: Catalog) -> TagsEntry:
        if catalog.slot_of(commit) is not None:
            return standing[-1]
        now = catalog.tags_of(version_id)
        new = wanted(now)
        add, remove = tuple(sorted(new - now)), tuple(sorted(now - new))
        standing.append(TagsEntry(commit=commit, time=now_ns(), version=version_id, add=add, remove=remove))
        return standing[-1]

    workspace.refresh()
    now = workspace.version(version_id).tags
    if wanted(now) != now:
        workspace.repository.catalog.commit(entry)
