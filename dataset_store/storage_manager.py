"""`StorageManager`: files by URL, fetched through a cache, sent, listed.

Names, arguments, defaults and return types are those of ClearML's `StorageManager`. What ClearML only logs, returning
None, is raised here; every scheme that fsspec has a driver for works, and so do paths.
"""

import fnmatch
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from dataset_store.core.digest import hash32
from dataset_store.core.paths import to_key, to_path
from dataset_store.core.wildcards import globbed
from dataset_store.errors import (
    DatasetStoreError,
    InvalidRequest,
    PathNotFound,
    StorageFailed,
    StoreUnreachable,
)
from dataset_store.file_cache import FileCache, read_whole
from dataset_store.local.archives import ARCHIVES
from dataset_store.local.local_copies import LocalCopies
from dataset_store.local.os_errors import naming_writes
from dataset_store.local.settings import load_settings, require_own_folders
from dataset_store.storage.backend_errors import may_pass
from dataset_store.storage.filesystems import WEB, is_remote, local_path, redacted, scheme_of
from dataset_store.storage.remote_objects import (
    RemoteObject,
    describe_object,
    list_objects,
    object_below,
    object_url,
    stream_object,
    write_object,
)

__all__ = ["StorageManager"]

_log = logging.getLogger(__name__)
_DEFAULT_CONTEXT = "global"
_DEFAULT_RETRIES = 3
_FIRST_PAUSE = 0.5  # seconds; doubled with each repetition
_AT_ONCE = 8


class StorageManager:
    """Files by URL. All methods are class methods; an instance has nothing of its own."""

    _contexts: ClassVar[dict[str, LocalCopies]] = {}
    _lock: ClassVar[Lock] = Lock()
    _background: ClassVar[ThreadPoolExecutor | None] = None

    @classmethod
    def get_local_copy(
        cls,
        remote_url: str,
        cache_context: str | None = None,
        extract_archive: bool = True,
        name: str | None = None,
        force_download: bool = False,
    ) -> str:
        """A path of this machine that holds a file, fetched at most once for each state that its source knows of.

        Where the source cannot be reached, the copy that was handed out last is, with a logged warning.

        Args:
            remote_url: A URL, or a path; a file of this machine is handed out as it is.
            cache_context: The part of the cache; by default one for all.
            extract_archive: Of what the URL calls `.zip`, `.tgz` or `.tar.gz` give the folder of what is in it.
            name: The name that the file, or the folder, gets.
            force_download: Fetch it although it is there.

        Returns:
            The path. Do not change what is there. It is not removed while this process lives.

        Raises:
            PathNotFound: There is no such file.
            FileChanged: It changed while it was fetched.
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: It cannot be fetched.
            InvalidPath, UnsupportedFileType, CorruptObject: The archive cannot be extracted; nothing was.
        """
        own = None if is_remote(remote_url) else os.path.expanduser(local_path(remote_url))
        if own is not None and os.path.isdir(own):
            return own
        url, cache = object_url(remote_url), FileCache(cls._copies(cache_context))
        extract = extract_archive and _path_in_bucket(url).lower().endswith(ARCHIVES)
        try:
            found = describe_object(url)
        except StoreUnreachable as error:
            kept = None if force_download else cache.handed_out_last(url, name, folder=extract)
            if kept is None:
                raise
            _log.warning("%s What was fetched before is used.", error)
            return kept
        if not extract:
            return own or cache.file(found, name, again=force_download)
        archive = own or cache.file(found, None, again=force_download)
        return cache.folder(found, archive, name, again=force_download)

    @classmethod
    def get_stream(cls, remote_url: str, chunk_size: int | None = None) -> Iterator[bytes]:
        """The bytes of a file, piece by piece, without keeping it.

        Args:
            remote_url: A URL, or a path.
            chunk_size: The most bytes of a piece; by default 4 MiB.

        Raises:
            PathNotFound, AccessDenied, StoreUnreachable, StorageFailed: It cannot be read; raised when a piece is
                taken.
        """
        return stream_object(object_url(remote_url), *([chunk_size] if chunk_size else []))

    @classmethod
    def upload_file(
        cls, local_file: str, remote_url: str, wait_for_upload: bool = True, retries: int | None = None
    ) -> str:
        """Send a file.

        Args:
            local_file: Its path.
            remote_url: Where it goes, its name included. What is there is replaced.
            wait_for_upload: With False, send it in the background; a failure is logged, and the process does not end
                before it is done.
            retries: How often a failed attempt is repeated, after a pause; by default 3 times.

        Returns:
            `remote_url`.

        Raises:
            PathNotFound: There is no such file.
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: It cannot be sent.
        """
        if not os.path.isfile(local_file):
            raise PathNotFound(f"There is no file {local_file!r}.", "Give an existing file.")
        send = partial(_send, local_file, object_url(remote_url), _DEFAULT_RETRIES if retries is None else retries)
        if wait_for_upload:
            send()
        else:
            cls._in_background(send, remote_url)
        return remote_url

    @classmethod
    def upload_folder(
        cls, local_folder: str, remote_url: str, match_wildcard: str | None = None, retries: int | None = None
    ) -> str:
        """Send the files of a folder, with the folders they are in.

        Args:
            local_folder: Its path.
            remote_url: What becomes the folder's equal.
            match_wildcard: Only files that it finds there, as `pathlib.Path.rglob` does.
            retries: As in `upload_file`.

        Returns:
            `remote_url`.

        Raises:
            PathNotFound: There is no such folder.
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: A file cannot be sent. Others
                may have been; repeat.
        """
        if not os.path.isdir(local_folder):
            raise PathNotFound(f"There is no folder {local_folder!r}.", "Give an existing folder.")
        names = sorted(_files_below(local_folder))
        meant = globbed(names, match_wildcard or "", recursive=True)
        chosen = [name for name, is_meant in zip(names, meant, strict=True) if is_meant]
        base, attempts = object_url(remote_url), _DEFAULT_RETRIES if retries is None else retries
        with ThreadPoolExecutor(_AT_ONCE, "uploads") as pool:
            list(
                pool.map(
                    lambda name: _send(os.path.join(local_folder, name), object_below(base, name), attempts), chosen
                )
            )
        return remote_url

    @classmethod
    def download_file(
        cls,
        remote_url: str,
        local_folder: str | None = None,
        overwrite: bool = False,
        skip_zero_size_check: bool = False,
        silence_errors: bool = False,
    ) -> str | None:
        """Fetch a file into a folder, below which it gets the path that it has in its bucket or on its server.

        Args:
            remote_url: A URL, or a path.
            local_folder: The folder; by default one in the cache.
            overwrite: Fetch it although it is there.
            skip_zero_size_check: Accepted without effect: an empty file is a file.
            silence_errors: Return None instead of raising.

        Returns:
            The file's path.

        Raises:
            PathNotFound, FileChanged, AccessDenied, StoreUnreachable, StorageFailed: It cannot be fetched.
        """
        try:
            found = describe_object(object_url(remote_url))
            inside = _path_in_bucket(found.url) if is_remote(remote_url) else found.name
            folder = cls._folder(local_folder, remote_url)
            return _download(found, inside, folder, overwrite=overwrite or local_folder is None)
        except DatasetStoreError:
            if silence_errors:
                return None
            raise

    @classmethod
    def download_folder(
        cls,
        remote_url: str,
        local_folder: str | None = None,
        match_wildcard: str | None = None,
        overwrite: bool = False,
        skip_zero_size_check: bool = False,
        silence_errors: bool = False,
        max_workers: int | None = None,
    ) -> str | None:
        """Fetch all files below a URL into a folder, as `download_file` does each.

        Args:
            remote_url: A URL, or a path.
            local_folder: The folder; by default one in the cache.
            match_wildcard: Only files whose whole URL matches it.
            overwrite: Fetch files although they are there.
            skip_zero_size_check: Accepted without effect.
            silence_errors: Log files that cannot be fetched instead of raising.
            max_workers: How many files are fetched at once; by default 8.

        Returns:
            The folder's path; where there is nothing to fetch, that is logged as a warning.

        Raises:
            PathNotFound, FileChanged, AccessDenied, StoreUnreachable, StorageFailed: A file cannot be fetched.
        """
        folder = cls._folder(local_folder, remote_url)
        try:
            found = list_objects(object_url(remote_url))
        except DatasetStoreError:
            if silence_errors:
                return None
            raise
        chosen = [one for one in found if not match_wildcard or fnmatch.fnmatch(one.url, match_wildcard)]
        if not chosen:
            _log.warning("Nothing was fetched: there is no such file at %s.", redacted(object_url(remote_url)))
        with naming_writes(folder):
            os.makedirs(folder, exist_ok=True)

        def fetch(one: RemoteObject) -> None:
            try:
                inside = _path_in_bucket(one.url) if is_remote(remote_url) else one.name
                _download(one, inside, folder, overwrite=overwrite or local_folder is None)
            except DatasetStoreError as error:
                if not silence_errors:
                    raise
                _log.warning("%s", error)

        with ThreadPoolExecutor(max_workers or _AT_ONCE, "downloads") as pool:
            list(pool.map(fetch, chosen))
        return folder

    @classmethod
    def list(
        cls, remote_url: str, return_full_path: bool = False, with_metadata: bool = False, read_hash: bool = False
    ) -> "list[str] | list[dict[str, Any]]":
        """The files below a URL; none where a folder is empty, or a bucket has nothing under a prefix.

        Args:
            remote_url: A URL, or a path.
            return_full_path: Give URLs instead of paths in the bucket (of paths: in the folder).
            with_metadata: Give dicts with `name` and `size`, and `etag` where there is one.
            read_hash: Accepted without effect.

        Raises:
            PathNotFound: There is no such folder, or no such bucket.
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: It cannot be listed.
        """
        found = list_objects(object_url(remote_url))
        remote = is_remote(remote_url)
        names = [one.url if return_full_path else _path_in_bucket(one.url) if remote else one.name for one in found]
        if not with_metadata:
            return names
        return [_as_dict(one, name) for one, name in zip(found, names, strict=True)]

    @classmethod
    def get_metadata(
        cls, remote_url: str, return_full_path: bool = False, read_hash: bool = False
    ) -> dict[str, Any] | None:
        """What a file's source says of it: `name`, `size`, and `etag` where there is one; None where there is no file.

        Args:
            remote_url: A URL, or a path.
            return_full_path: Give the URL as the name.
            read_hash: Accepted without effect.

        Raises:
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: Its source refused.
        """
        try:
            found = describe_object(object_url(remote_url))
        except PathNotFound:
            return None
        return _as_dict(found, found.url if return_full_path else _path_in_bucket(found.url))

    @classmethod
    def exists_file(cls, remote_url: str) -> bool:
        """Whether there is a file; a folder is none.

        Raises:
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: That cannot be told.
        """
        return not remote_url.endswith("/") and cls.get_metadata(remote_url) is not None

    @classmethod
    def get_file_size_bytes(cls, remote_url: str, silence_errors: bool = False) -> int | None:
        """How long a file is; None where there is none.

        Args:
            remote_url: A URL, or a path.
            silence_errors: Return None where that cannot be told.

        Raises:
            AccessDenied, StoreUnreachable, StorageFailed, DriverMissing, InvalidRequest: That cannot be told.
        """
        try:
            found = cls.get_metadata(remote_url)
        except DatasetStoreError:
            if silence_errors:
                return None
            raise
        return found["size"] if found else None

    @classmethod
    def set_cache_file_limit(cls, cache_file_limit: int, cache_context: str | None = None) -> int:
        """Keep at most so many files of a context; those not in use go first that were used longest ago.

        Without this only their bytes are bounded. Returns the limit.

        Raises:
            InvalidRequest: It is below 1.
        """
        if cache_file_limit < 1:
            raise InvalidRequest(f"A cache of {cache_file_limit} files is none.", "Give 1 or more.")
        copies = cls._copies(cache_context)
        copies.count_limit = cache_file_limit
        copies.evict()
        return cache_file_limit

    @classmethod
    def get_files_server(cls) -> str:
        """The default store, which is where files go that nobody sends elsewhere; without a password."""
        return redacted(load_settings().store)

    @classmethod
    def set_report_upload_chunk_size(cls, chunk_size_mb: int) -> None:
        """Accepted without effect."""

    @classmethod
    def set_report_download_chunk_size(cls, chunk_size_mb: int) -> None:
        """Accepted without effect."""

    # The cache

    @classmethod
    def _copies(cls, context: str | None) -> LocalCopies:
        settings = load_settings()
        require_own_folders(settings)
        name = hash32((context or _DEFAULT_CONTEXT).encode()).hex()[:16]
        directory = os.path.join(settings.cache, "files", name)
        with cls._lock:
            return cls._contexts.setdefault(directory, LocalCopies(directory, settings.cache_bytes))

    @classmethod
    def _folder(cls, folder: str | None, url: str) -> str:
        """The folder that is meant; by default one in the cache for each bucket or server."""
        if folder is not None:
            return os.path.abspath(os.path.expanduser(folder))
        root = "/".join(redacted(object_url(url)).split("/")[:3])
        return os.path.join(os.path.abspath(load_settings().cache), "downloads", hash32(root.encode()).hex()[:16])

    @classmethod
    def _in_background(cls, send: Callable[[], None], url: str) -> None:
        def run() -> None:
            try:
                send()
            except DatasetStoreError as error:
                _log.error("%s was not sent: %s", redacted(url), error)

        with cls._lock:
            if cls._background is None:
                cls._background = ThreadPoolExecutor(_AT_ONCE, "background-uploads")
        cls._background.submit(run)


def _send(path: str, url: str, retries: int) -> None:
    """Send a file; what a repetition may mend is repeated."""
    pause = _FIRST_PAUSE
    for left in range(retries, -1, -1):
        try:
            write_object(path, url)
        except StorageFailed as error:
            if not left or not may_pass(error):
                raise
            time.sleep(pause)
            pause *= 2
        else:
            return


def _download(found: RemoteObject, inside: str, folder: str, *, overwrite: bool) -> str:
    """Fetch an object into its place below a folder, whole or not at all: it gets its name when it is whole."""
    path = os.path.join(folder, os.fsdecode(to_path(to_key(inside))))
    if os.path.isfile(path) and not overwrite:
        return path
    with naming_writes(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{os.urandom(4).hex()}.part"
        try:
            with open(temporary, "wb") as file:
                read_whole(found, file.write)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    return path


def _path_in_bucket(url: str) -> str:
    """The path of a URL below its bucket or host, as a file may be called; of this machine's files the whole path."""
    if scheme_of(url) in WEB:
        return unquote(urlsplit(url).path).lstrip("/")
    return url.partition("://")[2].partition("/")[2] if is_remote(url) else local_path(url)


def _files_below(folder: str) -> Iterator[str]:
    for directory, _, names in os.walk(folder):
        inside = os.path.relpath(directory, folder)
        yield from (name if inside == os.curdir else f"{inside}/{name}" for name in names)


def _as_dict(found: RemoteObject, name: str) -> dict[str, Any]:
    return {"name": name, "size": found.size} | ({"etag": found.etag} if found.etag else {})
