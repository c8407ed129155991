"""Files of other owners, by URL: found, described, read, written. Nothing here knows of stores or versions.

A plain path is a file of this machine. Promises: an object is read whole or the reading fails; each failure is a typed
error that names the URL without credentials. Never: retries, or trusts a listing that a driver remembers.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from msgspec import Struct
from msgspec.structs import replace

from dataset_store.errors import AccessDenied, DatasetStoreError, InvalidRequest, PathNotFound, StoreUnreachable
from dataset_store.storage.filesystems import (
    WEB,
    cause,
    failure,
    is_remote,
    open_filesystem,
    redacted,
    scheme_of,
    turn_of,
)

__all__ = [
    "RemoteObject",
    "describe_object",
    "find_objects",
    "kept_url",
    "list_objects",
    "object_below",
    "object_url",
    "read_object",
    "remove_object",
    "require_lasting",
    "stream_object",
    "write_object",
]

_PIECE: Final = 4 << 20
_ONE_REQUEST: Final = 16 << 20
_LOCAL: Final = frozenset({"file", "local"})
_FLAT: Final = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "azure"})
"""Protocols without folders: what has nothing below it is not told apart from what is absent."""

_ETAGS: Final = ("ETag", "etag", "content_md5", "md5Hash")
_TIMES: Final = ("LastModified", "last_modified", "Last-Modified", "updated", "mtime", "modified", "created")
_SIGNATURE: Final = re.compile(
    r"x-(?:amz|goog|oss|ms)-.*|(?:aws|google)accesskeyid|.*(?:signature|token|api_?key|secret|password).*|sig|policy|key-pair-id",
    re.IGNORECASE,
)
"""Names of parameters by which a URL is signed, or carries a secret."""


class RemoteObject(Struct, frozen=True):
    """One file elsewhere.

    Attributes:
        url: Where, as it was asked for.
        name: Its path below what was asked for; its own name where that was the file itself.
        size: In bytes; None where the source does not say.
        etag: What its source tells its states apart by: an entity tag, `mtime:` and ns, or nothing.
        mtime_ns: When it was modified, ns since 1970; None where the source does not say.
    """

    url: str
    name: str
    size: int | None
    etag: str | None
    mtime_ns: int | None


def object_url(url: str | os.PathLike[str]) -> str:
    """The URL of a URL or path: absolute, and with a scheme."""
    text = os.fspath(url)
    return text if scheme_of(text) else f"file://{quote(os.fsencode(os.path.abspath(os.path.expanduser(text))))}"


def object_below(url: str, name: str) -> str:
    """The URL of a path below another URL."""
    return f"{url.rstrip('/')}/{_quoted(url, name)}"


def require_lasting(url: str) -> None:
    """Refuse a URL that must not be kept: a signed one is a secret, and expires.

    Raises:
        InvalidRequest: It is signed.
    """
    query = urlsplit(url).query if scheme_of(url) in WEB else ""
    signed = sorted({name for name, _ in parse_qsl(query, keep_blank_values=True) if _SIGNATURE.fullmatch(name)})
    if signed:
        raise InvalidRequest(
            f"The URL {redacted(url)} is signed ({signed[0]}): it is a secret, and it expires.",
            "Give the URL without the signature, and credentials to its driver.",
        )


def describe_object(url: str) -> RemoteObject:
    """One object, as its source describes it now.

    Raises:
        PathNotFound: There is none.
        DriverMissing, InvalidRequest: The URL cannot be reached from here.
        AccessDenied, StoreUnreachable, StorageFailed: The source refused.
    """
    with _using("look at", url) as (filesystem, path):
        filesystem.invalidate_cache()
        info = filesystem.info(path)
        if info.get("type") != "file":
            raise PathNotFound(f"{redacted(url)} is no file.", "Give a file's URL.")
        return _object(url, _last_name(url, path), path, info)


def find_objects(url: str, *, recursive: bool = True) -> list[RemoteObject]:
    """The object of a URL, or those below it, by name.

    Raises:
        PathNotFound: There is nothing.
        DriverMissing, InvalidRequest: The URL cannot be reached from here.
        AccessDenied, StoreUnreachable, StorageFailed: The source refused.
    """
    found = _found(url, recursive=recursive)
    if not found:
        raise PathNotFound(f"There is nothing at {redacted(url)}.", "Check the URL.")
    return found


def list_objects(url: str) -> list[RemoteObject]:
    """As `find_objects`; an empty folder has none, and where there are no folders, so has a prefix without objects.

    Raises:
        PathNotFound: There is no such folder, or no such bucket.
        DriverMissing, InvalidRequest, AccessDenied, StoreUnreachable, StorageFailed: As `find_objects`.
    """
    found = _found(url, recursive=True)
    if not found and scheme_of(url) not in _FLAT:
        with _using("look at", url) as (filesystem, path):
            filesystem.info(path)
    return found


def _found(url: str, *, recursive: bool) -> list[RemoteObject]:
    if not url.endswith("/"):
        with suppress(PathNotFound):
            return [describe_object(url)]
    with _using("list", url) as (filesystem, path):
        folder = path.rstrip("/")
        filesystem.invalidate_cache()
        listed = filesystem.find(folder, maxdepth=None if recursive else 1, detail=True)
    rows = listed if isinstance(listed, dict) else {}  # Azure's driver: names alone, where it is an object itself
    found = [
        one
        for path, info in rows.items()
        if path.startswith(f"{folder}/") and not path.endswith("/") and (one := _listed(url, folder, path, info))
    ]
    return sorted(found, key=lambda one: one.name)


def _listed(url: str, folder: str, path: str, info: dict[str, Any]) -> RemoteObject | None:
    """A row of a listing; None where it is no file. A link of a folder is what it leads to."""
    name = path[len(folder) + 1 :]
    if scheme_of(url) in WEB:
        return _object(path, unquote(name), path, info)  # its path is a URL already
    below = object_below(url, name)
    with suppress(PathNotFound, FileNotFoundError):
        if info.get("type") == "file" and not info.get("islink"):
            return _object(below, name, path, info)
        return replace(describe_object(below), name=name)
    return None


def read_object(url: str, size: int | None, write: Callable[[bytes], object]) -> int:
    """Hand the bytes of an object to `write`, piece by piece, from the first; how many there were.

    Args:
        url: The object.
        size: How long it is expected to be, in bytes; one more is asked for, so that a longer one shows. None where
            that is not known.
        write: Takes each piece.

    Raises:
        PathNotFound: There is no such object.
        DriverMissing, InvalidRequest, AccessDenied, StoreUnreachable, StorageFailed: It cannot be read.
    """
    filesystem, path = open_filesystem(url)
    done = 0
    try:
        with turn_of(url):
            for piece in _pieces(filesystem, path, size, one_request=scheme_of(url) not in WEB):
                write(piece)
                done += len(piece)
    except Exception as error:
        if not done and not isinstance(error, FileNotFoundError) and not describe_object(url).size:
            return 0  # some servers call a range of an empty object an error
        raise _failed(error, "read", url) from cause(error, url)
    return done


def stream_object(url: str, piece_bytes: int = _PIECE) -> Iterator[bytes]:
    """The bytes of an object, piece by piece, as they are asked for.

    Raises:
        PathNotFound: There is no such object.
        DriverMissing, InvalidRequest, AccessDenied, StoreUnreachable, StorageFailed: It cannot be read.
    """
    filesystem, path = open_filesystem(url)
    try:
        with turn_of(url):
            file = filesystem.open(path, "rb", block_size=_PIECE)
        with file:
            while piece := _next(file, url, piece_bytes):
                yield piece
    except Exception as error:
        raise _failed(error, "read", url) from cause(error, url)


def write_object(local_file: str, url: str) -> None:
    """Write a file of this machine under a URL, replacing what is there.

    Raises:
        DriverMissing, InvalidRequest, AccessDenied, StoreUnreachable, StorageFailed: It cannot be written.
    """
    with _using("write", url) as (filesystem, path):
        if is_remote(url):
            filesystem.put_file(local_file, path)
        else:
            _write_local(local_file, path)


def _write_local(local_file: str, path: str) -> None:
    """Copy a file to a place on this machine, durable before it gets its name."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.{os.urandom(4).hex()}.part"
    try:
        shutil.copyfile(local_file, beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_object(url: str) -> None:
    """Remove an object; that it is gone already is no error.

    Raises:
        DriverMissing, InvalidRequest, AccessDenied, StoreUnreachable, StorageFailed: It cannot be removed.
    """
    with _using("remove", url) as (filesystem, path), suppress(FileNotFoundError):
        filesystem.rm_file(path)


@contextmanager
def _using(doing: str, url: str) -> Iterator[tuple[Any, str]]:
    """The driver of a URL while it is this caller's turn, and the path; what it raises comes out as a typed error."""
    filesystem, path = open_filesystem(url)
    try:
        with turn_of(url):
            yield filesystem, path
    except Exception as error:
        raise _failed(error, doing, url) from cause(error, url)


def _pieces(filesystem: Any, path: str, size: int | None, *, one_request: bool) -> Any:
    if size == 0 and one_request:
        return  # no server gives a range of an empty object; its description tells whether it still is one
    if size is not None and size <= _ONE_REQUEST and one_request:
        yield filesystem.cat_file(path, start=0, end=size + 1)
        return
    with filesystem.open(path, "rb", block_size=_PIECE) as file:
        while piece := file.read(_PIECE):
            yield piece


def _next(file: Any, url: str, size: int) -> bytes:
    with turn_of(url):
        piece: bytes = file.read(size)
    return piece


def _object(url: str, name: str, path: str, info: dict[str, Any]) -> RemoteObject:
    if scheme_of(url) in _LOCAL:
        mtime: int | None = os.stat(path).st_mtime_ns  # the driver tells it as a float, which is not exact
    else:
        mtime = next((ns for key in _TIMES if (ns := _nanoseconds(info.get(key))) is not None), None)
    etag = next((str(info[key]).strip('"') for key in _ETAGS if info.get(key)), None)
    if etag is None and mtime is not None:
        etag = f"mtime:{mtime}"
    size = info.get("size")
    return RemoteObject(url, name, None if size is None else int(size), etag, mtime)


def kept_url(url: str) -> str:
    """The URL without user and password. What a web server finds a file by, after a `?`, stays."""
    query = urlsplit(url).query if scheme_of(url) in WEB else ""
    return f"{redacted(url)}?{query}" if query else redacted(url)


def _nanoseconds(value: object) -> int | None:
    """A time as drivers give it, in ns since 1970; None where it is none."""
    if isinstance(value, str):
        with suppress(ValueError):
            value = import_module("email.utils").parsedate_to_datetime(value)  # of web servers only
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        whole = value if value.tzinfo else value.replace(tzinfo=UTC)
        return int(whole.timestamp()) * 10**9 + whole.microsecond * 1_000
    if isinstance(value, int | float):
        return int(value * 10**6) * 1_000
    return None


def _quoted(url: str, name: str) -> str:
    """A path below a URL, as that URL's driver reads it: only web servers and files take percent signs as code."""
    return quote(os.fsencode(name)) if scheme_of(url) in WEB | _LOCAL else name


def _last_name(url: str, path: str) -> str:
    """The name of a file; of a web address without what only finds it there."""
    whole = unquote(urlsplit(url).path) if scheme_of(url) in WEB else path
    return whole.rstrip("/").rpartition("/")[2]


def _failed(error: Exception, doing: str, url: str) -> DatasetStoreError:
    first = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(first, Exception):
        told = failure(first, f"{doing} {redacted(url)}")
        if isinstance(told, StoreUnreachable | AccessDenied):
            return told  # some drivers say of a server that does not answer that the file is absent
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return PathNotFound(f"There is nothing at {redacted(url)}.", "Check the URL.")
    return failure(error, f"{doing} {redacted(url)}")
