"""Packs: many frames in one object, then a footer of columns that lists them, then a trailer.

A footer is believed only after its hash, which also covers the store id and the pack's own name, so that an
object under a wrong name is found; and after its columns agree with each other. It can always be rebuilt from
the frames. This module turns values into bytes and back: it never reads or writes objects, nor draws names.
"""

import struct
from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from dataset_store.core.arrays import I64, U8, U32, Bool, np
from dataset_store.core.digest import Buffer, PackName, StoreId, hash32
from dataset_store.core.envelope import too_new
from dataset_store.core.frames import (
    HEADER_SIZE,
    PLAIN_LIMITS,
    EncodedFrame,
    FrameCodec,
    FrameKind,
    frame_offsets,
    require,
)
from dataset_store.errors import InvalidRequest

__all__ = [
    "PACK_HEADER_SIZE",
    "PACK_LIMIT",
    "TRAILER_SIZE",
    "Footer",
    "PackBuilder",
    "PackRef",
    "Place",
    "are_inside",
    "check_pack",
    "decode_footer",
    "footer_start",
    "frame_rank",
    "pack_header",
    "pack_key",
    "rebuild_footer",
    "tail_length",
]


PACK_HEADER_SIZE: Final = 40
TRAILER_SIZE: Final = 64
PACK_LIMIT: Final = 1 << 32
"""Every pack is smaller than this, in bytes."""

_MAGIC: Final = b"DSTOREP\x01"
_COUNTS: Final = struct.Struct("<II")
_TRAILER: Final = struct.Struct("<QQQ32s8s")
_FRAME_ROW: Final = 13
_CHUNK_ROW: Final = 36


class PackRef(Struct, frozen=True, order=True):
    """A pack: the number of the storage that holds it (0: the store's own root), and its name."""

    storage: int
    name: PackName


class Place(Struct, frozen=True, order=True):
    """Where a frame is, or a run of whole frames: bytes `[offset, offset + stored)` of a pack.

    `plain` is the number of bytes that it decodes to.
    """

    pack: PackRef
    offset: int
    stored: int
    plain: int


def are_inside(offset: U32, stored: U32) -> Bool:
    """Which places, none of them empty, can be within a pack; shape (n,)."""
    inside: Bool = (offset >= PACK_HEADER_SIZE) & (stored > 0)
    inside &= offset.astype(np.uint64) + stored < PACK_LIMIT
    return inside


class Footer(Struct, frozen=True, eq=False):
    """What a pack holds, as columns over its f frames and their c chunks; equal footers encode alike.

    Shapes: `offsets`, `stored` and `chunk_counts` (f,) u32, `kinds` (f,) u8; `lengths` (c,) u32, plain bytes;
    `ids` (c, 32) u8.
    """

    offsets: U32
    stored: U32
    chunk_counts: U32
    lengths: U32
    ids: U8
    kinds: U8

    @property
    def frames_end(self) -> int:
        """Offset at which the footer begins."""
        return int(self.offsets[-1]) + int(self.stored[-1]) if len(self.offsets) else PACK_HEADER_SIZE

    @property
    def first_node(self) -> int:
        """Offset of the first node frame; where the frames end if there is none."""
        nodes = np.flatnonzero(self.kinds == FrameKind.NODE)
        return int(self.offsets[nodes[0]]) if len(nodes) else self.frames_end

    def chunk_starts(self) -> I64:
        """Row of the first chunk of each frame (f,)."""
        counts = self.chunk_counts.astype(np.int64)
        return np.cumsum(counts) - counts

    def frame_of_chunk(self) -> I64:
        """Row of the frame that holds each chunk (c,)."""
        return np.repeat(np.arange(len(self.offsets)), self.chunk_counts)

    def plain_lengths(self) -> I64:
        """Plain bytes of each frame (f,)."""
        if not len(self.offsets):
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(self.lengths.astype(np.int64), self.chunk_starts())

    def plain_offsets(self) -> I64:
        """Where each chunk begins in its frame's plain bytes (c,)."""
        lengths = self.lengths.astype(np.int64)
        before = np.cumsum(lengths) - lengths
        return before - before[self.chunk_starts()][self.frame_of_chunk()]

    def run_digest(self, first: int, last: int) -> bytes:
        """The digest of the segment made of the chunks of rows `[first, last)`."""
        rows = np.empty((last - first, _CHUNK_ROW), dtype=np.uint8)
        rows[:, :32] = self.ids[first:last]
        rows[:, 32:] = self.lengths[first:last, np.newaxis].astype("<u4").view(np.uint8)
        return hash32(rows.tobytes())

    def encode(self) -> bytes:
        """The footer's bytes, without the trailer."""
        numbers = (self.offsets, self.stored, self.chunk_counts, self.lengths)
        columns = [column.astype("<u4", copy=False).tobytes() for column in numbers]
        counts = _COUNTS.pack(len(self.offsets), len(self.lengths))
        return b"".join((counts, *columns, self.ids.tobytes(), self.kinds.tobytes()))

    @staticmethod
    def decode(body: bytes, *, what: str) -> "Footer":
        """The columns that `encode` gave bytes of; views of `body`. What they say is not checked here.

        Raises:
            CorruptObject: The bytes are of another length than their counts say.
        """
        require(len(body) >= _COUNTS.size, what, "has a footer that is too short")
        frames, chunks = _COUNTS.unpack_from(body)
        size = _COUNTS.size + _FRAME_ROW * frames + _CHUNK_ROW * chunks
        require(size == len(body), what, "has a footer of another length than its counts say")
        numbers = np.frombuffer(body, "<u4", 3 * frames + chunks, _COUNTS.size)
        offsets, stored, counts, lengths = np.split(numbers, [frames, 2 * frames, 3 * frames])
        at = _COUNTS.size + numbers.nbytes
        ids = np.frombuffer(body, np.uint8, 32 * chunks, at).reshape(-1, 32)
        kinds = np.frombuffer(body, np.uint8, frames, at + ids.nbytes)
        return Footer(offsets, stored, counts, lengths, ids, kinds)


class PackBuilder:
    """The bytes of one pack while frames are added. Memory: the frames that were not taken yet.

    Frames come in the order of §7: data, then segment lists, then nodes and the census.
    """

    __slots__ = ("_columns", "_rank", "_waiting", "name", "size", "store_id", "waiting")

    def __init__(self, store_id: StoreId, name: PackName) -> None:
        self.store_id = store_id
        self.name = name
        self.size = PACK_HEADER_SIZE + _COUNTS.size + TRAILER_SIZE
        """Bytes of the pack if it were finished now."""
        header = pack_header(store_id, name)
        self._waiting: list[Buffer] = [header]
        self.waiting = len(header)
        """Bytes that were not taken yet."""
        self._columns = _Columns()
        self._rank = 0

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._columns.kinds)

    def takes(self, frame: EncodedFrame) -> bool:
        """Whether `frame` may come next: its kind is in order and the pack stays under 4 GiB."""
        return frame_rank(frame.kind) >= self._rank and self.size + _growth(frame) < PACK_LIMIT

    def append(self, frame: EncodedFrame) -> int:
        """Add a frame; the offset at which it will stand.

        Raises:
            InvalidRequest: This pack does not take the frame.
        """
        if not self.takes(frame):
            raise InvalidRequest(f"This pack does not take a {frame.kind.name} frame now.", "Begin another pack.")
        self._waiting.append(frame.data)
        self.waiting += len(frame.data)
        self._rank = frame_rank(frame.kind)
        self.size += _growth(frame)
        return self._columns.add(frame.kind, len(frame.data), frame.ids, frame.lengths)

    def footer(self) -> Footer:
        """What the pack holds so far."""
        return self._columns.footer()

    def take(self) -> list[Buffer]:
        """The bytes of the pack that were not taken yet, in pieces; the frames among them are forgotten here."""
        taken, self._waiting, self.waiting = self._waiting, [], 0
        return taken

    def finish(self) -> list[Buffer]:
        """What was not taken yet, and what stands behind the frames; together with what was taken, the whole pack."""
        footer = self.footer()
        body = footer.encode()
        header = pack_header(self.store_id, self.name)
        return [*self.take(), body, _trailer(header, footer.frames_end, footer.first_node, body)]


def frame_rank(kind: FrameKind) -> int:
    """The position of a kind in a pack: ranks never fall from one frame to the next."""
    return min(int(kind), int(FrameKind.NODE))


def pack_key(name: PackName) -> str:
    """The key of a pack below its root: `packs/<xx>/<name>`."""
    text = name.hex()
    return f"packs/{text[:2]}/{text}"


def tail_length(tail: Buffer, *, what: str) -> int:
    """How many of a pack's last bytes are its footer and trailer.

    Args:
        tail: The last bytes of the pack, at least 64.
        what: Names the pack in messages.

    Raises:
        CorruptObject: They do not end with the trailer of a pack.
        FormatTooNew: It is a pack of a later format.
    """
    trailer = _parse_trailer(tail, what)
    return trailer.length + TRAILER_SIZE


def footer_start(tail: Buffer, *, what: str) -> int:
    """The offset in the pack at which its footer begins. Arguments and errors as `tail_length`."""
    return _parse_trailer(tail, what).start


def decode_footer(
    tail: Buffer, store_id: StoreId, name: PackName, *, what: str, object_size: int | None = None
) -> Footer:
    """The footer of the pack that ends with `tail`, checked.

    Args:
        tail: The last bytes of the pack, at least as many as `tail_length` says.
        store_id: The store that the pack must belong to.
        name: The name that the pack must have.
        what: Names the pack in messages.
        object_size: The size of the whole object in bytes, where known.

    Raises:
        CorruptObject: Damaged, cut off, of another store or of another name.
        FormatTooNew: It is a pack of a later format.
    """
    trailer = _parse_trailer(tail, what)
    size = trailer.start + trailer.length + TRAILER_SIZE
    require(object_size in {None, size}, what, f"is not of the {size} bytes that it says")
    require(trailer.length + TRAILER_SIZE <= len(tail), what, "is shorter than its footer")
    stop = len(tail) - TRAILER_SIZE
    body = bytes(memoryview(tail)[stop - trailer.length : stop])
    made = _trailer(pack_header(store_id, name), trailer.start, trailer.first_node, body)
    require(made == memoryview(tail)[stop:], what, "has a damaged footer, or is another pack under this name")
    footer = Footer.decode(body, what=what)
    _check_columns(footer, trailer, what)
    return footer


def rebuild_footer(pack: Buffer, codec: FrameCodec, *, what: str) -> Footer:
    """The footer as the frames alone tell it: each is decoded and its chunks are hashed.

    Args:
        pack: A pack's bytes from its beginning; whatever follows the frames is not looked at.
        codec: The calling thread's.
        what: Names the pack in messages.

    Raises:
        CorruptObject: A frame is damaged.
    """
    view = memoryview(pack)
    require(len(view) < PACK_LIMIT, what, "is larger than any pack")
    columns = _Columns()
    for offset, stored in frame_offsets(view, PACK_HEADER_SIZE, what=what):
        frame = codec.decode_frame(view[offset : offset + stored], what=f"The frame at {offset} of {what}")
        columns.add(frame.kind, stored, [hash32(chunk) for chunk in frame.chunks()], frame.lengths)
    return columns.footer()


def check_pack(pack: Buffer, store_id: StoreId, name: PackName, codec: FrameCodec, *, what: str) -> Footer:
    """Check every byte of a whole pack that bears meaning; its footer.

    Raises:
        CorruptObject: The header, a frame, a chunk's hash, the footer or the trailer is not as it must be.
        FormatTooNew: It is a pack of a later format.
    """
    header = pack_header(store_id, name)
    _check_magic(bytes(memoryview(pack)[: len(_MAGIC)]), what)
    require(memoryview(pack)[: len(header)] == header, what, "is another pack, or of another store")
    footer = decode_footer(pack, store_id, name, what=what, object_size=len(pack))
    rebuilt = rebuild_footer(pack, codec, what=what)
    require(rebuilt.encode() == footer.encode(), what, "has a footer that differs from its frames")
    return footer


class _Trailer(NamedTuple):
    start: int
    length: int
    first_node: int


class _Columns:
    """A footer while it grows, frame by frame, in 49 bytes for a frame of one chunk."""

    __slots__ = ("counts", "end", "ids", "kinds", "lengths", "offsets", "stored")

    def __init__(self) -> None:
        self.end = PACK_HEADER_SIZE
        self.offsets, self.stored, self.counts, self.lengths = (array("I") for _ in range(4))
        self.ids, self.kinds = bytearray(), bytearray()

    def add(self, kind: FrameKind, stored: int, ids: Sequence[bytes], lengths: Sequence[int]) -> int:
        """Add a frame of `stored` bytes after the last; its offset."""
        offset = self.end
        self.offsets.append(offset)
        self.stored.append(stored)
        self.counts.append(len(lengths))
        self.lengths.extend(lengths)
        self.ids += b"".join(ids)
        self.kinds.append(kind)
        self.end += stored
        return offset

    def footer(self) -> Footer:
        """The columns so far, copied."""
        numbers = (self.offsets, self.stored, self.counts, self.lengths)
        offsets, stored, counts, lengths = (np.array(column, dtype=np.uint32) for column in numbers)
        ids = np.frombuffer(bytes(self.ids), dtype=np.uint8).reshape(-1, 32)
        return Footer(offsets, stored, counts, lengths, ids, np.frombuffer(bytes(self.kinds), dtype=np.uint8))


def _growth(frame: EncodedFrame) -> int:
    return len(frame.data) + _FRAME_ROW + _CHUNK_ROW * len(frame.lengths)


def pack_header(store_id: StoreId, name: PackName) -> bytes:
    """The first 40 bytes of a pack."""
    return _MAGIC + store_id + name


def _trailer(header: bytes, start: int, first_node: int, body: bytes) -> bytes:
    numbers = _TRAILER.pack(start, len(body), first_node, b"", b"")[:24]
    return numbers + hash32(b"".join((header, body, numbers))) + _MAGIC


def _parse_trailer(tail: Buffer, what: str) -> _Trailer:
    require(len(tail) >= TRAILER_SIZE, what, "is too short to be a pack")
    start, length, first_node, _, magic = _TRAILER.unpack_from(tail, len(tail) - TRAILER_SIZE)
    _check_magic(magic, what)
    bounded = start >= PACK_HEADER_SIZE and start + length + TRAILER_SIZE < PACK_LIMIT
    require(bounded and length >= _COUNTS.size, what, "claims impossible lengths")
    return _Trailer(start, length, first_node)


def _check_magic(magic: bytes, what: str) -> None:
    if magic[:7] == _MAGIC[:7] and magic[7:] > _MAGIC[7:]:
        raise too_new(f"{what} is a pack of format version {magic[7]}.")
    require(magic == _MAGIC, what, "does not begin and end like a pack")


def _check_columns(footer: Footer, trailer: _Trailer, what: str) -> None:
    """The columns agree with each other, with the limits and with the trailer; none can mislead a reader."""
    counts = footer.chunk_counts.astype(np.int64)
    kinds = footer.kinds
    known = bool(((kinds >= min(FrameKind)) & (kinds <= max(FrameKind))).all())
    require(known and _ascends(np.minimum(kinds, FrameKind.NODE)), what, "has frames of wrong kinds")
    whole = bool((counts > 0).all()) and int(counts.sum()) == len(footer.lengths)
    require(whole and bool((footer.lengths > 0).all()), what, "has a footer whose chunks do not add up")
    single = bool((counts[kinds != FrameKind.DATA] == 1).all())
    limit_of_kind = np.array([0, *(PLAIN_LIMITS[kind] for kind in FrameKind)], dtype=np.int64)
    small = bool((footer.plain_lengths() <= limit_of_kind[kinds]).all())
    require(single and small, what, "has a footer with frames over their limits")
    least = HEADER_SIZE + 1 + np.where(counts > 1, 4 * counts, 0)
    stored = footer.stored.astype(np.int64)
    places = PACK_HEADER_SIZE + np.cumsum(stored) - stored
    adjacent = bool((stored >= least).all()) and np.array_equal(places, footer.offsets)
    require(adjacent and footer.frames_end == trailer.start, what, "has a footer with frames out of place")
    require(footer.first_node == trailer.first_node, what, "has its first node elsewhere than it says")


def _ascends(column: U8) -> bool:
    return bool((column[1:] >= column[:-1]).all())
