"""Fetched files, and folders of what is in fetched archives, cached: one for each state that their source tells of."""

import os
import time
from collections.abc import Callable

from dataset_store.core.digest import hash32
from dataset_store.core.paths import to_key
from dataset_store.errors import FileChanged
from dataset_store.local.archives import extract_archive
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.local_copies import LocalCopies, Stamp
from dataset_store.local.os_errors import naming_writes
from dataset_store.storage.filesystems import redacted
from dataset_store.storage.remote_objects import RemoteObject, describe_object, read_object

__all__ = ["FileCache", "read_whole"]


class FileCache:
    """One part of the cache.

    Args:
        copies: Where its files and folders lie.
    """

    def __init__(self, copies: LocalCopies) -> None:
        self.copies = copies

    def file(self, found: RemoteObject, name: str | None, *, again: bool) -> str:
        """The path of a file, fetched where it is not there in the state that its source tells of.

        Raises:
            InvalidPath: No file can be called `name`.
            PathNotFound, FileChanged, AccessDenied, StoreUnreachable, StorageFailed: It cannot be fetched.
        """
        called = _file_name(name or found.name or "file")

        def fill(folder: str) -> Stamp:
            _fetch_into(found, folder, called)
            return Stamp(os.path.getsize(os.path.join(folder, called)), source=_source("file", found.url, name))

        return os.path.join(self._made(("file", found.url, called, _state(found)), fill, again=again), called)

    def folder(self, found: RemoteObject, archive: str, name: str | None, *, again: bool) -> str:
        """The folder of what is in an archive of this machine, which was fetched from `found`.

        Raises:
            InvalidPath, UnsupportedFileType, CorruptObject: It cannot be extracted; nothing was.
        """
        called = _file_name(name) if name else ""

        def fill(folder: str) -> Stamp:
            inside = os.path.join(folder, called)
            os.makedirs(inside, exist_ok=True)
            size = extract_archive(archive, inside)
            os.chmod(inside, 0o555)  # noqa: S103  (it lies in a folder that is 0700)
            return Stamp(size, source=_source("folder", found.url, name))

        made = self._made(("folder", found.url, called, _state(found)), fill, again=again)
        return os.path.join(made, called) if called else made

    def handed_out_last(self, url: str, name: str | None, *, folder: bool) -> str | None:
        """What was given of a URL, or of the archive there, the last time; None where it is not in the cache."""
        source = _source("folder" if folder else "file", url, name)
        found = (self.copies.find(copy.copy_id) for copy in self.copies.all() if copy.stamp.source == source)
        copy = next((one for one in found if one is not None), None)
        if copy is None:
            return None
        if folder and not name:
            return copy.path
        (called,) = os.listdir(copy.path)
        return os.path.join(copy.path, called)

    def _made(self, identity: tuple[str, ...], fill: Callable[[str], Stamp], *, again: bool) -> str:
        copy_id = hash32("\n".join(identity).encode("utf-8", "surrogateescape")).hex()[:32]
        if again and not self.copies.remove(copy_id):
            # It is in use: what was handed out stays, and a new one stands beside it.
            copy_id = hash32(os.urandom(16)).hex()[:32]
        with naming_writes(self.copies.directory):
            return self.copies.make(copy_id, lambda folder, _: fill(folder)).path


def read_whole(found: RemoteObject, write: Callable[[bytes], object]) -> None:
    """Read an object, and see that it is still the one that was described.

    Raises:
        PathNotFound, FileChanged, AccessDenied, StoreUnreachable, StorageFailed: It cannot be fetched.
    """
    size = read_object(found.url, found.size, write)
    now = describe_object(found.url)
    if now.etag != found.etag or found.size not in {None, size}:
        raise FileChanged(f"{redacted(found.url)} changed while it was fetched.", "Fetch it again.")


def _fetch_into(found: RemoteObject, folder: str, name: str) -> None:
    mtime_ns = time.time_ns() if found.mtime_ns is None else found.mtime_ns
    with (
        FolderWriter(folder, read_only=True) as writer,
        writer.writing(to_key(name), executable=False, mtime_ns=mtime_ns) as write,
    ):
        read_whole(found, write)


def _state(found: RemoteObject) -> str:
    return found.etag or f"size:{found.size}"


def _source(kind: str, url: str, name: str | None) -> str:
    """What a copy is made from, whatever its state; a hash, as the URL may hold a secret."""
    return hash32("\n".join((kind, url, name or "")).encode("utf-8", "surrogateescape")).hex()[:32]


def _file_name(text: str) -> str:
    """A text as the name of a file.

    Raises:
        InvalidPath: No file can have it.
    """
    name = text.replace("/", "_")
    to_key(name)
    return name
