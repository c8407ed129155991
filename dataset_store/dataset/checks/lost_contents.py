"""Where the bytes of lost contents can still be had: folders of this machine, other places of the store, another store.

A folder is asked by content id: files of the sizes that are wanted are hashed, so it does not matter what they are
called or what a copy's stamp says of them. What is read is checked by whoever asks.
"""

import os
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from dataset_store.core.arrays import np
from dataset_store.core.digest import hash32
from dataset_store.core.entries import Entries
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments
from dataset_store.core.frames import NEXT_STEP, FrameCodec
from dataset_store.core.log_entries import Blob
from dataset_store.core.packfile import Place
from dataset_store.core.segments import Segment, segments_of
from dataset_store.core.tree import read_all
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import Corrupt, CorruptObject
from dataset_store.local.reading import content_id_at
from dataset_store.storage.blobs import extents_of_blob, read_blob
from dataset_store.storage.liveness import blobs_of_contents
from dataset_store.storage.store import Store
from dataset_store.storage.trees import root_of

__all__ = ["ContentSource", "Folders", "StoredContents", "contents_of_other", "first_of"]


class ContentSource(Protocol):
    """Where parts of contents may be had."""

    def read(self, content_id: bytes, start: int, length: int) -> Iterator[bytes]:
        """What may be bytes `[start, start + length)` of a content, unchecked, in each place that has as much."""


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

    def read(self, content_id: bytes, start: int, length: int) -> Iterator[bytes]:
        """As the port says."""
        if content_id in self._texts:
            yield self._texts[content_id][start : start + length]
        path = self._paths.get(content_id)
        with suppress(OSError):
            if path is not None:
                with open(path, "rb") as file:
                    yield os.pread(file.fileno(), length, start)


class StoredContents:
    """Contents by what entries and blobs of a store say of them; it is asked wherever these differ in that.

    Args:
        store: The store.
        lost: What of it is known to be lost, united, as it is named; it is not asked for.
        hollow: Segments of which something is lost though the frames are there.
    """

    def __init__(self, store: Store, lost: Extents, hollow: frozenset[Segment] = frozenset()) -> None:
        self._store = store
        self._lost = lost
        self._hollow = hollow
        self._rows: dict[bytes, dict[tuple[Place, ...], tuple[Entries, int]]] = {}
        self._blobs: dict[bytes, list[Blob]] = {}
        self._last: tuple[Blob, bytes] | None = None

    def add_blobs(self, blobs: Iterable[Blob], wanted: Container[bytes]) -> None:
        """Know of pieces of metadata that are wanted."""
        for blob in blobs:
            if bytes.fromhex(blob.id) in wanted:
                self._blobs.setdefault(bytes.fromhex(blob.id), []).append(blob)

    def add(self, entries: Entries, wanted: Container[bytes]) -> None:
        """Know of the contents that are wanted, as far as anything of them may be there."""
        there = entries.segment_sums(~extents_of_segments(entries.segments).touched_by(self._lost)) > 0
        for row in np.flatnonzero(there).tolist():
            content_id = entries.content_ids[row].tobytes()
            if content_id not in wanted:
                continue
            segments = segments_of(entries, row)
            if not self._hollow.issuperset(segments):
                places = tuple(segment.place for segment in segments)
                self._rows.setdefault(content_id, {}).setdefault(places, (entries, row))

    def knows(self, content_id: bytes) -> bool:
        """Whether an entry or blob with such a content was met."""
        return content_id in self._rows or content_id in self._blobs

    def read(self, content_id: bytes, start: int, length: int) -> Iterator[bytes]:
        """As the port says; an external link may have the content id of a file, but holds something else."""
        for entries, row in self._rows.get(content_id, {}).values():
            with suppress(Corrupt):
                yield b"".join(self._parts(entries.rows(row, row + 1), start, start + length))
        for blob in self._blobs.get(content_id, ()):
            with suppress(Corrupt):
                yield self._whole(blob)[start : start + length]

    def _parts(self, entry: Entries, start: int, stop: int) -> Iterator[bytes]:
        codec, packs = FrameCodec(), self._store.packs
        at = 0
        for one in segments_of(with_lists(entry, self._store.nodes), 0):
            if start < at + one.plain_length and at < stop:
                self._require_not_lost(one)
                (data,) = packs.read_frames([one.place])
                what = f"pack {one.pack.name.hex()}"
                plain = codec.decode_segment(data, one.plain_offset, one.plain_length, one.digest, what=what)
                yield bytes(plain[max(start - at, 0) : stop - at])
            at += one.plain_length

    def _require_not_lost(self, segment: Segment) -> None:
        if segment in self._hollow or extents_of_places([segment.place]).touched_by(self._lost).any():
            raise CorruptObject(f"A part of pack {segment.pack.name.hex()} is lost.", NEXT_STEP)

    def _whole(self, blob: Blob) -> bytes:
        """A blob, read once for all of its segments that are asked for one after another."""
        if extents_of_blob(blob).touched_by(self._lost).any():
            raise CorruptObject(f"A part of the blob {blob.id} is lost.", NEXT_STEP)
        if self._last is None or self._last[0] != blob:
            self._last = blob, read_blob(blob, self._store.packs, what="A piece of metadata")
        return self._last[1]


def contents_of_other(workspace: Workspace, wanted: Collection[bytes]) -> StoredContents:
    """Contents of the live versions of another store, of as many of them as have all that is wanted.

    Raises:
        StorageFailed: It cannot be read.
    """
    found = StoredContents(workspace.store, Extents.none())
    catalog = workspace.refresh()
    found.add_blobs(blobs_of_contents(catalog), wanted)
    for version in list(catalog.live_versions()):
        if all(map(found.knows, wanted)):
            break
        with suppress(Corrupt):
            found.add(read_all(root_of(version.entry.tree), workspace.store.nodes), wanted)
    return found


def first_of(sources: Sequence[ContentSource], content_id: bytes, start: int, length: int) -> Iterator[bytes]:
    """What each source has of a part of a content, where it has as much as is asked."""
    for source in sources:
        yield from (found for found in source.read(content_id, start, length) if len(found) == length)


def _files_below(folder: bytes) -> Iterator[bytes]:
    for directory, _, names in os.walk(folder):
        yield from (os.path.join(directory, name) for name in names)
