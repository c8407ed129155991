"""Deleting: a draft of this machine, a version, or all versions of one dataset."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from dataset_store.core.catalog import Catalog, Query, Series, Version
from dataset_store.dataset.catalog import changing
from dataset_store.dataset.catalog.overview import draft_is_meant, drafts_of
from dataset_store.dataset.drafts import beginning
from dataset_store.dataset.drafts.externals import remove_unlinked, urls_of
from dataset_store.dataset.uploads.holding import discard_draft
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import DatasetNotFound, InvalidRequest

__all__ = ["Deleted", "delete"]


class Deleted(Struct, frozen=True):
    """What is gone: versions of one dataset, or a draft; `number` is that of the only one."""

    project: str
    name: str
    versions: int
    number: str = ""


def delete(
    workspace: Workspace,
    dataset_id: str | None,
    query: Query,
    *,
    force: bool,
    entire_dataset: bool,
    external_files: bool = False,
) -> Deleted:
    """Delete the draft or version of an id, or else what a query means; of which dataset, and how many.

    Raises:
        DatasetNotFound: Nothing matches.
        Conflict: Other versions have it as a parent and `force` is not set; or datasets of several projects match.
        InvalidRequest: Several versions match, or no dataset is named, or all of one are meant without `force`.
    """
    if dataset_id is None and not query.name:
        raise InvalidRequest(
            "No dataset is named; nothing was deleted.", "Give an id, or a name: only one dataset is deleted at a time."
        )
    if entire_dataset and not force:
        raise InvalidRequest("An entire dataset is deleted only with --force (force=True).", "Nothing was deleted.")
    if dataset_id is not None:
        draft = beginning.open_draft(workspace, dataset_id)
        if draft is not None:
            discard_draft(workspace, draft)
            return Deleted(draft.opened.project, draft.opened.name, 0)
    choose = _chosen_by_id(dataset_id) if dataset_id is not None else _chosen_by_name(query, several=entire_dataset)
    deleted = changing.delete_versions(workspace, choose, force=force)
    if not deleted:
        return _draft_deleted(workspace, dataset_id, query)
    versions = [workspace.version(version_id) for version_id in deleted]
    if external_files:
        remove_unlinked(workspace, urls_of(workspace, versions))
    series = workspace.catalog.series(versions[0].series) or Series(versions[0].series, "", "", 0)
    return Deleted(series.project, series.name, len(versions), versions[0].number if len(versions) == 1 else "")


def _draft_deleted(workspace: Workspace, dataset_id: str | None, query: Query) -> Deleted:
    """Where no version matched: discard the draft that does, if there is exactly one."""
    drafts = [row for row in drafts_of(workspace) if dataset_id is None and draft_is_meant(row, query)]
    if not drafts:
        what = f"the id {dataset_id!r}" if dataset_id is not None else query.in_words()
        raise DatasetNotFound(f"No version has {what}.", "Nothing was deleted.")
    if len(drafts) > 1:
        raise InvalidRequest(
            f"{len(drafts)} drafts have {query.in_words()}.", "Give the id of one; nothing was deleted."
        )
    draft = beginning.open_draft(workspace, drafts[0].id)
    if draft is not None:
        discard_draft(workspace, draft)
    return Deleted(drafts[0].project, drafts[0].name, 0)


def _chosen_by_id(version_id: str) -> Callable[[Catalog], Sequence[Version]]:
    def choose(catalog: Catalog) -> list[Version]:
        version = catalog.version(version_id)
        return [] if version is None or version.deleted else [version]

    return choose


def _chosen_by_name(query: Query, *, several: bool) -> Callable[[Catalog], Sequence[Version]]:
    def choose(catalog: Catalog) -> list[Version]:
        if query.name is not None and query.project is None:
            changing.require_one_named(catalog, query.name, archived=True)
        found = catalog.matching(query)
        if len(found) > 1 and not several:
            raise InvalidRequest(
                f"{len(found)} versions have {query.in_words()}.",
                "Say which one by its version number or id, or ask for the entire dataset; nothing was deleted.",
            )
        return found

    return choose
