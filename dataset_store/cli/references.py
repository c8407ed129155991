"""Which version the words of a call mean: ids and beginnings of ids, names, version numbers and `latest`.

What could mean several is refused, never chosen from. A whole id is passed on without a look at the store.
"""

import re
from argparse import Namespace
from typing import TYPE_CHECKING

from dataset_store.errors import Conflict, DatasetNotFound, InvalidRequest

if TYPE_CHECKING:
    from dataset_store.core.catalog import Catalog
    from dataset_store.dataset import Dataset
    from dataset_store.dataset.workspace import Workspace

__all__ = ["LATEST", "full_id", "full_ids", "id_against", "parents_meant", "project_meant", "require_one_dataset"]

LATEST = "latest"
"""What `--parents` takes for the newest version of the dataset that is named."""

_WHOLE = re.compile(r"[0-9a-f]{32}")
_BEGINNING = re.compile(r"[0-9a-f]{6,31}")
_NAMED_AT_MOST = 5


def full_id(text: str, workspace: "Workspace | None" = None) -> str:
    """The id that a text begins, among the versions of a store and this machine's drafts of it.

    Args:
        text: An id, or its first digits.
        workspace: The store; by default the one in force.

    Raises:
        DatasetNotFound: None begins so, or the text is too short or no beginning of an id.
        Conflict: Several do.
    """
    given = text.lower()
    if not given or _WHOLE.fullmatch(given):
        return given
    if not _BEGINNING.fullmatch(given):
        raise DatasetNotFound(
            f"No version has the id {text!r}.", "An id is 32 hex digits; the first 6 or more of them are enough."
        )
    found = _ids_beginning(given, workspace)
    if not found:
        from dataset_store.cli.session import store_url

        store = store_url() if workspace is None else workspace.store.backend.describe()
        raise DatasetNotFound(
            f"No version or draft in {store} has an id that begins with {text}.",
            "List them with `dataset-store list --versions`.",
        )
    if len(found) > 1:
        named = ", ".join(found[:_NAMED_AT_MOST])
        raise Conflict(
            f"{len(found)} versions have ids that begin with {text}, among them {named}.", "Give more of its digits."
        )
    return found[0]


def full_ids(texts: list[str], workspace: "Workspace | None" = None) -> list[str]:
    """As `full_id`, of each."""
    return [full_id(text, workspace) for text in texts]


def parents_meant(arguments: Namespace) -> list[str] | None:
    """The ids that `--parents` gives; `latest` is the highest version of the dataset named by --project and --name.

    Raises:
        InvalidRequest: `latest` was given and no dataset named.
        DatasetNotFound, Conflict: As `full_id`; or no dataset, or several, are called so.
    """
    if not arguments.parents:
        return None
    return [_latest(arguments) if text == LATEST else full_id(text) for text in arguments.parents]


def id_against(text: str, dataset: "Dataset") -> str:
    """The version to compare a dataset's version with: a number of the same dataset, or an id."""
    from dataset_store.core.catalog import Query
    from dataset_store.dataset.workspace import open_workspace

    if _WHOLE.fullmatch(text.lower()):
        return text.lower()
    query = Query(dataset.project, dataset.name, text, include_archived=True)
    found = open_workspace().refresh().resolve(query)
    return full_id(text) if found is None else found.id


def project_meant(project: str | None, name: str) -> str:
    """The project of a dataset: as given, or that of the only dataset of its name.

    Raises:
        DatasetNotFound: There is none of that name.
        Conflict: Several projects have one.
    """
    from dataset_store.dataset.catalog.changing import dataset_named
    from dataset_store.dataset.workspace import open_workspace

    return project if project is not None else dataset_named(open_workspace().refresh(), None, name).project


def require_one_dataset(catalog: "Catalog", arguments: Namespace, *, archived: bool = False) -> None:
    """Refuse a name that datasets of several projects have, where the call does not say which project.

    Raises:
        Conflict: There are several.
    """
    from dataset_store.dataset.catalog.changing import require_one_named

    if arguments.name is not None and arguments.project is None:
        require_one_named(catalog, arguments.name, archived=archived)


def _latest(arguments: Namespace) -> str:
    from dataset_store.dataset import Dataset

    if arguments.name is None:
        raise InvalidRequest("--parents latest is of a dataset, and none is named.", "Add --name, and --project.")
    project = project_meant(arguments.project, arguments.name)
    return Dataset.get(dataset_project=project, dataset_name=arguments.name).id


def _ids_beginning(start: str, workspace: "Workspace | None") -> list[str]:
    """Ids of live versions and of drafts; where there is none, of versions that were deleted."""
    from dataset_store.dataset.workspace import open_workspace
    from dataset_store.local.drafts import draft_ids

    workspace = workspace or open_workspace()
    versions = workspace.refresh().versions_beginning(start)
    live = {version.id for version in versions if not version.deleted}
    drafts = {draft_id for draft_id in draft_ids(workspace.drafts_directory) if draft_id.startswith(start)}
    deleted = {version.id for version in versions if version.deleted}
    return sorted((live | drafts) - deleted or deleted)
