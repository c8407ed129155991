"""Which backend a URL, or a storage number of the log, means.

A store has its own root, number 0; packs may lie under other roots, which `storage` entries of the log number. A
root is named by a URL without credentials, so that it means the same to everybody.
"""

import os
from collections.abc import Callable, Mapping
from threading import Lock
from urllib.parse import quote

from dataset_store.core.digest import StoreId
from dataset_store.core.urls import require_whole_scheme
from dataset_store.errors import Corrupt
from dataset_store.storage.backend import Backend
from dataset_store.storage.filesystems import S3, is_remote, local_path, redacted, scheme_of
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.retries import RetryingBackend

__all__ = ["Storages", "backend_at", "normal_url"]


def backend_at(url: str, *, single_writer: bool = False) -> Backend:
    """The backend that reaches a URL or path; plain paths and `file://` never go through fsspec.

    Args:
        url: Of the folder, bucket or prefix.
        single_writer: Whether the user has said that nobody else writes there.

    Raises:
        InvalidRequest: No driver knows the scheme.
        DriverMissing: The driver is not installed.
    """
    if scheme_of(url) in S3:
        from dataset_store.storage.s3_backend import S3Backend  # noqa: PLC0415  (folders don't need it)

        return RetryingBackend(S3Backend(url))
    if is_remote(url):
        from dataset_store.storage.fsspec_backend import FsspecBackend  # noqa: PLC0415  (folders don't need it)

        backend = FsspecBackend(url, single_writer=single_writer)
        return RetryingBackend(backend) if backend.traits.asks_once else backend
    return PosixBackend(local_path(url))


def normal_url(url: str) -> str:
    """The one URL under which the log knows a root: absolute, without credentials, without a slash at its end.

    Raises:
        InvalidRequest: It names another machine's file, or lacks a slash.
    """
    require_whole_scheme(url)
    if is_remote(url):
        return redacted(url).rstrip("/")
    return f"file://{quote(os.fsencode(os.path.abspath(os.path.expanduser(local_path(url)))))}"


class Storages:
    """The backends of one store by storage number, each opened when it is first needed.

    Args:
        root: The backend of the store's own root.
        store_id: The store whose packs lie under the other roots.
        urls: The roots as the log numbers them now.
        open_at: Opens a backend.
    """

    def __init__(
        self,
        root: Backend,
        store_id: StoreId,
        urls: Callable[[], Mapping[int, str]],
        open_at: Callable[[str], Backend] = backend_at,
    ) -> None:
        self._backends = {0: root}
        self._store_id = store_id
        self._urls = urls
        self._open_at = open_at
        self._lock = Lock()

    def __getitem__(self, number: int) -> Backend:
        """The backend of a storage number.

        Raises:
            Corrupt: The log numbers no such root.
            InvalidRequest, DriverMissing: The root cannot be reached from here.
        """
        with self._lock:
            held = self._backends.get(number)
            if held is None:
                held = self._backends[number] = self._open_at(self._root_of(number))
            return held

    def _root_of(self, number: int) -> str:
        url = self._urls().get(number)
        if url is None:
            raise Corrupt(f"The log names no storage {number}, though packs lie there.", "Run verify on the store.")
        return f"{url}/dataset-store/{self._store_id.hex()}"
