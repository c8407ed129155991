"""Files of a version as file objects that read from the store only the chunks that are asked for.

Every chunk is checked against its id before a byte of it is handed out. Nothing is kept but what the buffer holds: a
file that is read often is cheaper from a local copy.
"""

import io
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import IO, TYPE_CHECKING

from dataset_store.core.catalog import Version
from dataset_store.core.digest import ChunkId, hash32
from dataset_store.core.entries import KIND_BITS, ONE_CHUNK, Entries
from dataset_store.core.frames import FrameCodec
from dataset_store.core.kinds import Kind
from dataset_store.core.packfile import Place
from dataset_store.core.paths import to_key
from dataset_store.core.segments import ChunkHit, Segment, segment_chunks, segments_of
from dataset_store.core.tree import lookup
from dataset_store.dataset.entries.links import open_link
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import CorruptObject, InvalidRequest, PathNotFound
from dataset_store.storage.raw_files import SeekableFile
from dataset_store.storage.trees import root_of

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["open_file"]

_BUFFER = 1 << 20
"""Bytes that one request asks for at least, where the file is that long."""

_WHOLE = 8 << 20
"""The same where all the rest of the file is wanted."""

_Chunks = list[tuple[ChunkId, ChunkHit]]


def open_file(
    workspace: Workspace, version: Version, path: str, mode: str, encoding: str | None
) -> IO[bytes] | IO[str]:
    """A file of a final version, to be read.

    Raises:
        PathNotFound: The version has no such path.
        InvalidRequest: It is no regular file, or the mode is not for reading.
    """
    if mode not in {"rb", "r", "rt"}:
        raise InvalidRequest(f"A file of a version cannot be opened with the mode {mode!r}.", "Use 'rb' or 'r'.")
    nodes = workspace.store.nodes
    entries = with_lists(lookup(root_of(version.entry.tree), [to_key(path.strip("/"))], nodes), nodes)
    if not len(entries):
        raise PathNotFound(f"The version has no {path!r}.", "List its files.")
    kind = Kind(int(entries.kinds[0]) & KIND_BITS)
    if kind is Kind.EXTERNAL:
        linked = open_link(workspace, entries, 0)
        return linked if mode == "rb" else io.TextIOWrapper(linked, encoding=encoding)
    if kind is not Kind.FILE:
        raise InvalidRequest(f"{path!r} is no regular file but a {kind.name.lower()}.", "Take a local copy.")
    binary = io.BufferedReader(_StoredFile(workspace, entries, path), _BUFFER)
    return binary if mode == "rb" else io.TextIOWrapper(binary, encoding=encoding)


class _StoredFile(SeekableFile):
    """One file, unbuffered. Memory: what one read asks for, and the tables of the segments that were read from."""

    def __init__(self, workspace: Workspace, entries: Entries, path: str) -> None:
        super().__init__(int(entries.sizes[0]))
        self.name = path
        self._workspace = workspace
        self._codec = FrameCodec()
        self._segments: Sequence[Segment] = segments_of(entries, 0)
        self._starts = list(accumulate((one.plain_length for one in self._segments), initial=0))
        self._tables: dict[int, _Chunks] = {}
        if entries.kinds[0] & ONE_CHUNK:
            (only,) = self._segments
            hit = ChunkHit(only.pack, only.offset, only.stored, only.plain_offset, only.plain_length, alone=False)
            self._tables[0] = [(ChunkId(entries.content_ids[0].tobytes()), hit)]

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        stop = min(self._at + len(view), self._size)
        if stop <= self._at:
            return 0
        wanted = self._chunks_within(self._at, stop)
        done = 0
        for start, content in wanted:
            part = content[max(0, self._at - start) : stop - start]
            view[done : done + len(part)] = part
            done += len(part)
        self._at += done
        return done

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(_WHOLE) or b"", b""))

    def _chunks_within(self, begin: int, stop: int) -> list[tuple[int, memoryview]]:
        """The chunks that hold the bytes `[begin, stop)`, checked, each with where it begins in the file."""
        first, last = bisect_right(self._starts, begin) - 1, bisect_right(self._starts, stop - 1) - 1
        self._require_tables(range(first, last + 1))
        found: list[tuple[int, ChunkId, ChunkHit]] = []
        for number in range(first, last + 1):
            start = self._starts[number]
            for chunk_id, hit in self._tables[number]:
                if start < stop and start + hit.plain_length > begin:
                    found.append((start, chunk_id, hit))
                start += hit.plain_length
        contents = self._fetch([(chunk_id, hit) for _, chunk_id, hit in found])
        return [(start, content) for (start, _, _), content in zip(found, contents, strict=True)]

    def _require_tables(self, numbers: range) -> None:
        """Learn from their packs' footers which chunks make up these segments; one round of requests."""
        missing = [number for number in numbers if number not in self._tables]
        footers = self._workspace.footers({self._segments[number].pack for number in missing})
        for number in missing:
            segment = self._segments[number]
            chunks = segment_chunks(segment, footers[segment.pack])
            if not chunks:
                raise self._wrong(segment.pack.name, segment.offset)
            self._tables[number] = chunks

    def _fetch(self, wanted: _Chunks) -> list[memoryview]:
        """The bytes of chunks, checked; each frame is read and decoded once."""
        places = list(dict.fromkeys(Place(hit.pack, hit.offset, hit.stored, 0) for _, hit in wanted))
        stored = self._workspace.store.packs.read_frames(places)
        plains = {
            place: self._codec.decode_frame(data, what=f"The frame at {place.offset} of {self.name!r}").plain
            for place, data in zip(places, stored, strict=True)
        }
        found = []
        for chunk_id, hit in wanted:
            plain = plains[Place(hit.pack, hit.offset, hit.stored, 0)]
            content = plain[hit.plain_offset : hit.plain_offset + hit.plain_length] if not hit.alone else plain
            if hash32(content) != chunk_id:
                raise self._wrong(hit.pack.name, hit.offset)
            found.append(content)
        return found

    def _wrong(self, pack: bytes, offset: int) -> CorruptObject:
        return CorruptObject(
            f"The bytes of {self.name!r} at {offset} of pack {pack.hex()} are not what the version says.",
            "Run `dataset-store verify`; other files may be whole.",
        )
