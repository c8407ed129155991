"""Where the bytes of lost contents can still be had: folders of this machine, other places of the store, another store.

A folder is asked by content id: files of the sizes that are wanted are hashed, so it does not matter what they are
called or what a copy's stamp says of them. What is read is checked by whoever asks.
"""

import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from dataset_store.core.digest import hash32
from dataset_store.core.entries import Entries
from dataset_store.core.frames import FrameCodec
from dataset_store.core.log_entries import Blob
from dataset_store.core.packfile import Place
from dataset_store.core.segments import segments_of
from dataset_store.core.tree import read_all
from dataset_store.dataset.lists import with_lists
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Corrupt
from dataset_store.local.reading import content_id_at
from dataset_store.storage.blobs import read_blob
from dataset_store.storage.liveness import blobs_of_contents
from dataset_store.storage.repository import Repository
from dataset_store.storage.trees import root_of

__all__ = ["ContentSource", "Folders", "StoredContents", "contents_of_other", "first_of"]


class ContentSource(Protocol):
    """Where parts of contents may be had."""

    def read(self, content_id: bytes, start: int, length: int) -> bytes | None:
        """Bytes `[start, start + length)` of a content, unchecked; None where they are not here."""


class Folders:
    """Contents of files, and texts of symbolic links, below some folders.

    Args:
        folders: Where to look; those that are not there are left out.
        wanted: Content ids with the sizes of the contents.
    """

    def __init__(self, folders: Iterable[str], wanted: Mapping[bytes, int]) -> None:
        self._paths: dict[bytes, bytes] = {}
        self._texts: dict[bytes, bytes] = {}
        sizes = set(wanted.values())
        for folder in folders:
            for path in _files_below(os.fsencode(folder)):
                self._look_at(path, sizes, wanted)

    def _look_at(self, path: bytes, sizes: set[int], wanted: Mapping[bytes, int]) -> None:
        with suppress(OSError):
            if os.path.islink(path):
                text = os.readlink(path)
                self._texts[hash32(text)] = text
            if os.path.isfile(path) and os.path.getsize(path) in sizes:
                content_id = content_id_at(path)
                if content_id is not None and content_id in wanted:
                    self._paths.setdefault(content_id, path)

    def read(self, content_id: bytes, start: int, length: int) -> bytes | None:
        """As the port says."""
        if content_id in self._texts:
            return self._texts[content_id][start : start + length]
        path = self._paths.get(content_id)
        if path is None:
            return None
        try:
            with open(path, "rb") as file:
                return os.pread(file.fileno(), length, start)
        except OSError:
            return None


class StoredContents:
    """Contents by what entries of a store say of them; it is asked wherever entries differ in that.

    Args:
        repository: The store.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._rows: dict[bytes, dict[Place, Entries]] = {}
        self._blobs: dict[bytes, list[Blob]] = {}

    def add_blobs(self, blobs: Iterable[Blob], wanted: Container[bytes]) -> None:
        """Know of pieces of metadata that are wanted."""
        for blob in blobs:
            if bytes.fromhex(blob.id) in wanted:
                self._blobs.setdefault(bytes.fromhex(blob.id), []).append(blob)

    def add(self, entries: Entries, wanted: Container[bytes]) -> None:
        """Know of the contents that are wanted."""
        for row in range(len(entries)):
            content_id = entries.content_ids[row].tobytes()
            if content_id in wanted and entries.segment_counts[row]:
                place = segments_of(entries, row)[0].place
                self._rows.setdefault(content_id, {}).setdefault(place, entries.take(np.array([row])))

    def knows(self, content_id: bytes) -> bool:
        """Whether an entry with such a content was met."""
        return content_id in self._rows or content_id in self._blobs

    def read(self, content_id: bytes, start: int, length: int) -> bytes | None:
        """As the port says; what the store has lost is not there."""
        for entry in self._rows.get(content_id, {}).values():
            with suppress(Corrupt):
                return b"".join(self._parts(entry, start, start + length))
        for blob in self._blobs.get(content_id, ()):
            with suppress(Corrupt):
                return read_blob(blob, self._repository.packs, what="A piece of metadata")[start : start + length]
        return None

    def _parts(self, entry: Entries, start: int, stop: int) -> Iterator[bytes]:
        codec, packs = FrameCodec(), self._repository.packs
        at = 0
        for one in segments_of(with_lists(entry, self._repository.nodes), 0):
            if start < at + one.plain_length and at < stop:
                (data,) = packs.read_frames([one.place])
                what = f"pack {one.pack.name.hex()}"
                plain = codec.decode_segment(data, one.plain_offset, one.plain_length, one.digest, what=what)
                yield bytes(plain[max(start - at, 0) : stop - at])
            at += one.plain_length


def contents_of_other(workspace: Workspace, wanted: Collection[bytes]) -> StoredContents:
    """Contents of the live versions of another store, each once.

    Raises:
        StorageFailed: It cannot be read.
    """
    found = StoredContents(workspace.repository)
    catalog = workspace.refresh()
    found.add_blobs(blobs_of_contents(catalog), wanted)
    left = {content_id for content_id in wanted if not found.knows(content_id)}
    for version in list(catalog.live_versions()):
        if not left:
            break
        with suppress(Corrupt):
            found.add(read_all(root_of(version.entry.tree), workspace.repository.nodes), left)
            left = {content_id for content_id in left if not found.knows(content_id)}
    return found


def first_of(sources: Sequence[ContentSource], content_id: bytes, start: int, length: int) -> Iterator[bytes]:
    """What each source has of a part of a content, where it has as much as is asked."""
    for source in sources:
        found = source.read(content_id, start, length)
        if found is not None and len(found) == length:
            yield found


def _files_below(folder: bytes) -> Iterator[bytes]:
    for directory, _, names in os.walk(folder):
        yield from (os.path.join(directory, name) for name in names)
