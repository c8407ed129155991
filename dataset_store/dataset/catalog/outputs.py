"""Where packs go: the store's own root, or another that the log numbers."""

from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.log_entries import StorageEntry
from dataset_store.dataset.catalog.changing import commit_entry
from dataset_store.dataset.workspace import Workspace, now_ns
from dataset_store.errors import InvalidRequest
from dataset_store.storage.filesystems import has_secrets, redacted
from dataset_store.storage.storages import backend_at, normal_url

__all__ = ["number_of", "output_of", "storage_url"]


def storage_url(workspace: Workspace, url: str) -> str | None:
    """The root of a URL or path as the log knows it; None where that is the store's own.

    Raises:
        InvalidRequest: No driver knows it, it names another machine's file, or it holds a password.
        DriverMissing: Its driver is not installed.
        AccessDenied, StoreUnreachable, StorageFailed: Its driver connects at once and could not.
    """
    if has_secrets(url):
        raise InvalidRequest(
            f"The URL {redacted(url)} was given with a user, a password or a query, which are not kept.",
            "Leave them out, and give them to the driver (environment variables, fsspec's configuration).",
        )
    root = normal_url(url)
    backend_at(root)
    return None if root == normal_url(workspace.store.backend.describe()) else root


def output_of(catalog: Catalog, version: Version) -> str | None:
    """The root where the tree of a version lies; None where that is the store's own."""
    return catalog.storages.get(version.entry.tree.place.storage)


def number_of(workspace: Workspace, url: str | None) -> int:
    """The storage number of a root; the log gives it one where it has none yet.

    Raises:
        StorageFailed: The log cannot be written.
    """
    if url is None:
        return 0

    def entry(catalog: Catalog, commit: str) -> StorageEntry | None:
        if catalog.storage_number(url) is not None:
            return None
        number = max(catalog.storages, default=0) + 1
        return StorageEntry(commit=commit, time=now_ns(), number=number, url=url)

    while (number := workspace.catalog.storage_number(url)) is None:
        commit_entry(workspace, entry)
    return number
