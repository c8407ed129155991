"""What can still be changed of final versions and of their series, each by entries of the log.

A change is decided against exactly the state before its own slot: what another writer did meanwhile is seen, and
either the change still makes sense there or it raises and nothing is written. Nothing is written either where nothing
would change.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from dataset_store.core.catalog import Catalog, Series, Version
from dataset_store.core.log_entries import (
    ArchiveEntry,
    DeleteEntry,
    DescribeEntry,
    LogEntry,
    MoveEntry,
    PublishEntry,
    TagsEntry,
)
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import Conflict, DatasetNotFound, VersionExists

__all__ = [
    "change_tags",
    "commit_entry",
    "dataset_named",
    "delete_versions",
    "describe",
    "move_series",
    "publish",
    "require_live",
    "require_one_named",
    "set_archived",
]

Entry = TypeVar("Entry", bound=LogEntry)

_MOST_IDS = 1_024
"""Versions that one `delete` entry may name."""

_NAMED_AT_MOST = 5


def change_tags(workspace: Workspace, version_id: str, wanted: Callable[[frozenset[str]], frozenset[str]]) -> None:
    """Give a final version the tags that `wanted` makes of those it has at the commit.

    Raises:
        DatasetNotFound: There is no such version.
    """

    def entry(catalog: Catalog, commit: str) -> TagsEntry | None:
        now = require_live(catalog, version_id).tags
        add, remove = wanted(now) - now, now - wanted(now)
        if not add and not remove:
            return None
        return TagsEntry(
            commit=commit,
            time=now_ns(),
            version=version_id,
            add=tuple(sorted(add)),
            remove=tuple(sorted(remove)),
        )

    commit_entry(workspace, entry)


def describe(workspace: Workspace, version_id: str, text: str) -> None:
    """Give a final version another description.

    Raises:
        DatasetNotFound: There is no such version.
    """

    def entry(catalog: Catalog, commit: str) -> DescribeEntry | None:
        if require_live(catalog, version_id).description == text:
            return None
        return DescribeEntry(commit=commit, time=now_ns(), version=version_id, description=text)

    commit_entry(workspace, entry)


def publish(workspace: Workspace, version_id: str) -> None:
    """Mark a final version published; there is no way back.

    Raises:
        DatasetNotFound: There is no such version.
    """

    def entry(catalog: Catalog, commit: str) -> PublishEntry | None:
        if require_live(catalog, version_id).published:
            return None
        return PublishEntry(commit=commit, time=now_ns(), version=version_id)

    commit_entry(workspace, entry)


def set_archived(workspace: Workspace, version_id: str, *, archived: bool, commit: str | None = None) -> None:
    """Hide a final version from searches by name and tag, or show it again; `commit` is as in `commit_entry`.

    Raises:
        DatasetNotFound: There is no such version.
    """

    def entry(catalog: Catalog, commit: str) -> ArchiveEntry | None:
        if require_live(catalog, version_id).archived == archived:
            return None
        return ArchiveEntry(commit=commit, time=now_ns(), version=version_id, archived=archived)

    commit_entry(workspace, entry, commit)


def move_series(
    workspace: Workspace, project: str, name: str, *, to_project: str | None = None, to_name: str | None = None
) -> None:
    """Give all versions of a dataset another name, or another project. Their ids stay.

    Raises:
        DatasetNotFound: No dataset has that project and name.
        VersionExists: Another dataset has the new ones.
    """
    target = (project if to_project is None else to_project, name if to_name is None else to_name)

    def entry(catalog: Catalog, commit: str) -> MoveEntry | None:
        series = dataset_named(catalog, project, name)
        if target == (project, name):
            return None
        if catalog.series_named(*target) is not None:
            raise VersionExists(
                f"There is a dataset {_shown(*target)} already.", "Choose another name; nothing was changed."
            )
        return MoveEntry(commit=commit, time=now_ns(), series=series.id, project=target[0], name=target[1])

    commit_entry(workspace, entry)


def delete_versions(workspace: Workspace, choose: Callable[[Catalog], Sequence[Version]], *, force: bool) -> list[str]:
    """Delete the versions that `choose` finds in the state before the commit, children before their parents.

    What other versions share with them stays; what nobody needs any more is left to gc.

    Returns:
        Their ids.

    Raises:
        Conflict: Versions that are not chosen have them as parents, and `force` is not set.
    """
    deleted, left = _delete_last(workspace, choose, force=force)
    while left:
        # Versions that came after the first entry was decided on are not deleted.
        done, left = _delete_last(workspace, partial(_those_live, left), force=force)
        deleted += done
    return deleted


def _delete_last(
    workspace: Workspace, choose: Callable[[Catalog], Sequence[Version]], *, force: bool
) -> tuple[list[str], list[str]]:
    """Delete as many of the chosen versions as one entry holds, the last first; their ids, and those that are left."""
    ids: list[str] = []

    def entry(catalog: Catalog, commit: str) -> DeleteEntry | None:
        chosen = sorted(choose(catalog), key=lambda version: version.slot)
        if not force:
            _require_no_children(catalog, chosen)
        ids[:] = [version.id for version in chosen]
        return DeleteEntry(commit=commit, time=now_ns(), versions=tuple(ids[-_MOST_IDS:])) if ids else None

    commit_entry(workspace, entry)
    return ids[-_MOST_IDS:], ids[:-_MOST_IDS]


def _those_live(ids: Sequence[str], catalog: Catalog) -> list[Version]:
    found = (catalog.version(version_id) for version_id in ids)
    return [version for version in found if version is not None and not version.deleted]


def _require_no_children(catalog: Catalog, chosen: Sequence[Version]) -> None:
    ids = {version.id for version in chosen}
    for version in chosen:
        children = [child for child in catalog.children(version.id) if not child.deleted and child.id not in ids]
        if children:
            raise Conflict(
                f"The version {version.id} is a parent of {len(children)} others, among them {children[0].id}.",
                "Delete those first, or delete it all the same with --force (force=True): they can be read as before.",
            )


def require_live(catalog: Catalog, version_id: str) -> Version:
    """A version that an entry may change.

    Raises:
        DatasetNotFound: There is none, or it was deleted.
    """
    version = catalog.version(version_id)
    if version is None or version.deleted:
        fate = "was deleted" if version else "is not in this store, or not final"
        raise DatasetNotFound(f"The version {version_id} {fate}.", "Nothing was changed.")
    return version


def dataset_named(catalog: Catalog, project: str | None, name: str) -> Series:
    """The dataset of a project and name; with None for the project, the only one of that name.

    Raises:
        DatasetNotFound: There is none.
        Conflict: Several projects have one.
    """
    if project is None:
        require_one_named(catalog, name, archived=True)
        called = catalog.series_called(name)
        series = next((one for one in called if catalog.versions_of(one.id)), called[0] if called else None)
    else:
        series = catalog.series_named(project, name)
    if series is None:
        raise DatasetNotFound(
            f"There is no dataset {_shown(project, name)}.", "List what there is with `dataset-store list --versions`."
        )
    return series


def require_one_named(catalog: Catalog, name: str, *, archived: bool) -> None:
    """Refuse a name that datasets with versions have in several projects; archived versions count if so asked.

    Raises:
        Conflict: There are several.
    """
    projects = sorted(
        series.project
        for series in catalog.series_called(name)
        if any(archived or not version.archived for version in catalog.versions_of(series.id))
    )
    if len(projects) > 1:
        more = len(projects) - _NAMED_AT_MOST
        told = [repr(project) for project in projects[:_NAMED_AT_MOST]] + ([f"{more} more"] if more > 0 else [])
        raise Conflict(
            f"{len(projects)} projects have a dataset {name!r}: {', '.join(told)}.",
            "Name the project too; an empty one is none.",
        )


def _shown(project: str | None, name: str) -> str:
    return f"{project}/{name}" if project else name


def commit_entry(
    workspace: Workspace, make: Callable[[Catalog, str], Entry | None], commit: str | None = None
) -> Entry | None:
    """Append what `make` gives for the state before the slot and a commit id; None where that is nothing.

    With `commit`, the commit id of an intention that others may have as well, nothing is done where it stands already.
    """
    made: list[Entry | None] = []

    def entry(catalog: Catalog, commit_id: str) -> Entry | None:
        made.append(make(catalog, commit_id))
        return made[-1]

    return made[-1] if workspace.store.catalog.change(entry, commit) is not None else None
