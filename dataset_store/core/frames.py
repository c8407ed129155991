"""Frames: one chunk, or a block of several, compressed or raw, behind a header that describes it.

Decoders promise that bytes of any origin give either what their hashes say or CorruptObject, and that memory
stays bounded by what was asked for: sizes are compared with the limits of their kind, and with what the zstd
frame itself declares, before anything is decompressed. Functions here never know where a frame came from;
`what` names it in messages.

A codec holds a zstd context for each direction. Making one takes about 16 µs, decompressing 64 KiB about as
long; so a codec is made once by each thread and never shared by two.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import Final

from msgspec import Struct

from dataset_store.core.digest import Buffer, ChunkId, hash32, rows_digest
from dataset_store.core.zstd import DamagedFrame, Zstd
from dataset_store.errors import CorruptObject, InvalidRequest

__all__ = [
    "FRAME_MAGIC",
    "HEADER_SIZE",
    "NEXT_STEP",
    "PLAIN_LIMITS",
    "EncodedFrame",
    "Frame",
    "FrameCodec",
    "FrameKind",
    "frame_length",
    "frame_offsets",
    "require",
    "take_segment",
    "whole_frames",
]


class FrameKind(IntEnum):
    """What a frame's chunks are."""

    DATA = 1
    LIST = 2
    NODE = 3
    CENSUS = 4


FRAME_MAGIC: Final = b"DSF1"
HEADER_SIZE: Final = 20
"""Bytes of a frame's header before the lengths of its chunks."""

PLAIN_LIMITS: Final = {
    FrameKind.DATA: 262_144,
    FrameKind.LIST: 16 << 20,
    FrameKind.NODE: 16 << 20,
    FrameKind.CENSUS: 16 << 20,
}
"""The most plain bytes a frame of each kind may hold."""

NEXT_STEP: Final = "Versions that do not hold it are unaffected; `dataset-store verify --id ID` tells whether one does."

_HEADER: Final = struct.Struct("<4sBBHIII")
_RAW: Final = 0
_ZSTD: Final = 1
_LEVEL: Final = 1
_LARGEST_WINDOW: Final = 16 << 20


class EncodedFrame(Struct, frozen=True):
    """A frame as it is stored, with what the pack's footer says of it: id and plain length of each chunk."""

    kind: FrameKind
    data: bytes
    ids: tuple[ChunkId, ...]
    lengths: tuple[int, ...]

    @property
    def plain(self) -> int:
        """Plain bytes of all its chunks."""
        return sum(self.lengths)


class Frame(Struct, frozen=True):
    """A decoded frame. Its chunks are not hashed yet; `ends` are where they end in `plain`."""

    kind: FrameKind
    ends: tuple[int, ...]
    plain: memoryview

    @property
    def lengths(self) -> tuple[int, ...]:
        """Plain length of each chunk in bytes."""
        return tuple(end - start for start, end in pairwise((0, *self.ends)))

    def chunks(self) -> list[memoryview]:
        """The bytes of each chunk."""
        return self.chunks_between(0, len(self.plain))

    def chunks_between(self, first: int, last: int) -> list[memoryview]:
        """The bytes of each chunk that lies wholly between two places of the plain bytes."""
        bounds = pairwise((0, *self.ends))
        return [self.plain[start:end] for start, end in bounds if first <= start and end <= last]


class _Header(Struct, frozen=True):
    kind: FrameKind
    codec: int
    plain: int
    payload: int
    chunks: int

    @property
    def size(self) -> int:
        """Bytes before the payload."""
        return HEADER_SIZE + (4 * self.chunks if self.chunks > 1 else 0)

    @property
    def stored(self) -> int:
        """Bytes of the whole frame."""
        return self.size + self.payload


class FrameCodec:
    """Encodes and decodes frames. Belongs to one thread."""

    __slots__ = ("_zstd",)

    def __init__(self) -> None:
        self._zstd = Zstd(_LEVEL, _LARGEST_WINDOW)

    def encode_frame(self, kind: FrameKind, chunks: Sequence[Buffer], ids: Sequence[ChunkId]) -> EncodedFrame:
        """Make one frame of `chunks`: zstd where that saves at least 5 %, else raw.

        Args:
            kind: A frame of another kind than DATA takes exactly one chunk.
            chunks: The plain bytes of each chunk, none empty; copied.
            ids: The chunk id of each, trusted.

        Raises:
            InvalidRequest: No chunk, an empty one, or more bytes than a frame of this kind may hold.
        """
        lengths = tuple(memoryview(chunk).nbytes for chunk in chunks)
        plain = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self.encode_block(kind, plain, lengths, ids)

    def encode_block(
        self, kind: FrameKind, plain: Buffer, lengths: Sequence[int], ids: Sequence[ChunkId]
    ) -> EncodedFrame:
        """As `encode_frame`, of chunks that lie one behind the other in `plain`; the length of each."""
        lengths = tuple(lengths)
        _check_request(kind, lengths, len(ids))
        total = sum(lengths)
        packed = self._zstd.compress(plain)
        codec, payload = (_ZSTD, packed) if 20 * len(packed) <= 19 * total else (_RAW, plain)
        head = _HEADER.pack(FRAME_MAGIC, kind, codec, 0, total, len(payload), len(lengths))
        table = struct.Struct(f"<{len(lengths)}I").pack(*lengths) if len(lengths) > 1 else b""
        return EncodedFrame(kind, b"".join((head, table, payload)), tuple(ids), lengths)

    def decode_frame(self, data: Buffer, *, what: str) -> Frame:
        """Decode the one whole frame that `data` is; its chunks are still to be hashed.

        Raises:
            CorruptObject: `data` is anything else.
        """
        view = memoryview(data)
        header = _parse(view, 0, what)
        require(header.stored == len(view), what, "has bytes after the frame")
        return self._decode(view, 0, header, what)

    def decode_frames(self, data: Buffer, *, what: str) -> Iterator[Frame]:
        """Decode a run of whole frames, one at a time; their chunks are still to be hashed.

        Raises:
            CorruptObject: `data` is anything else; raised when that is reached.
        """
        view = memoryview(data)
        for at, header in _walk(view, what):
            yield self._decode(view, at, header, what)

    def stored_frames(self, data: Buffer, *, what: str) -> Iterator[EncodedFrame]:
        """A run of whole frames as they are stored, each with the ids of its chunks, which are hashed for that.

        Raises:
            CorruptObject: `data` is anything else; raised when that is reached.
        """
        view = memoryview(data)
        for at, header in _walk(view, what):
            frame = self._decode(view, at, header, what)
            ids = tuple(ChunkId(hash32(chunk)) for chunk in frame.chunks())
            yield EncodedFrame(frame.kind, bytes(view[at : at + header.stored]), ids, frame.lengths)

    def decode_segment(
        self, data: Buffer, plain_offset: int, plain_length: int, digest: bytes, *, what: str
    ) -> memoryview:
        """The bytes of one segment, checked: its frames are `data`, its other fields are given.

        Frames that the run does not touch are not decompressed, so memory is bounded by `plain_length`.

        Args:
            data: Whole frames, one after another.
            plain_offset: Bytes to skip at the front of their plain bytes; the start of a chunk.
            plain_length: Bytes of the run; it ends at the end of a chunk.
            digest: Hash of the run's rows.
            what: Names the segment in messages.

        Raises:
            CorruptObject: Anything but bytes of this digest.
        """
        view = memoryview(data)
        end = plain_offset + plain_length
        start, before, frames = 0, 0, []
        for at, header in _walk(view, what):
            if start + header.plain <= plain_offset:
                before += header.plain
            elif start < end:
                frames.append((at, header))
            start += header.plain
        require(end <= start, what, "holds fewer bytes than the segment")
        decoded = [self._decode(view, at, header, what) for at, header in frames]
        return take_segment(decoded, plain_offset - before, plain_length, digest, what=what)

    def decode_whole(self, data: Buffer, kind: FrameKind, digest: bytes, *, what: str) -> bytes:
        """The plain bytes of the one frame that `data` is, checked: a node, a census or a segment list.

        Args:
            data: One whole frame.
            kind: The kind it must be of.
            digest: Hash of the plain bytes.
            what: Names the frame in messages.

        Raises:
            CorruptObject: Anything but a frame of this kind whose bytes have this hash.
        """
        frame = self.decode_frame(data, what=what)
        require(frame.kind is kind, what, "is a frame of another kind")
        require(hash32(frame.plain) == digest, what, "does not have the hash it must have")
        return bytes(frame.plain)

    def _decode(self, view: memoryview, at: int, header: _Header, what: str) -> Frame:
        ends = _chunk_ends(view, at, header, what)
        payload = view[at + header.size : at + header.stored]
        if header.codec == _RAW:
            return Frame(header.kind, ends, payload)
        return Frame(header.kind, ends, memoryview(self._decompress(payload, header.plain, what)))

    def _decompress(self, payload: memoryview, plain: int, what: str) -> bytes:
        try:
            return self._zstd.expand(payload, plain)
        except DamagedFrame as error:
            raise CorruptObject(f"{what} {error}.", NEXT_STEP) from error


def frame_length(header: Buffer, *, what: str) -> int:
    """Bytes of the whole frame that begins with these (at least 20) bytes.

    Raises:
        CorruptObject: This is no header of a frame.
    """
    return _parse(memoryview(header), 0, what).stored


def frame_offsets(data: Buffer, start: int, *, what: str) -> Iterator[tuple[int, int]]:
    """Offset and stored length of each frame from `start` on, up to the first bytes that begin no frame.

    Raises:
        CorruptObject: A frame's header is damaged, or its end is missing.
    """
    view = memoryview(data)
    while bytes(view[start : start + 4]) == FRAME_MAGIC:
        header = _parse(view, start, what)
        require(start + header.stored <= len(view), what, "ends within a frame")
        yield start, header.stored
        start += header.stored


def whole_frames(pieces: Iterable[Buffer], *, what: str) -> Iterator[memoryview]:
    """Each frame of a run whose bytes come piece by piece; only one that lies in several pieces is copied.

    Raises:
        CorruptObject: A header is damaged, or the run ends within a frame; raised when that is reached.
    """
    rest = b""
    for piece in pieces:
        view, at = memoryview(piece), 0
        if len(rest) < HEADER_SIZE:
            view = memoryview(rest + view) if rest else view
        else:
            at = frame_length(rest, what=what) - len(rest)
            if at > len(view):
                rest += view
                continue
            yield memoryview(rest + view[:at])
        while at + HEADER_SIZE <= len(view):
            stop = at + frame_length(view[at : at + HEADER_SIZE], what=what)
            if stop > len(view):
                break
            yield view[at:stop]
            at = stop
        rest = bytes(view[at:])
    require(not rest, what, "ends within a frame")


def take_segment(
    frames: Sequence[Frame], plain_offset: int, plain_length: int, digest: bytes, *, what: str
) -> memoryview:
    """The bytes of one segment out of decoded frames, checked; see `FrameCodec.decode_segment`.

    Raises:
        CorruptObject: The run is not made of whole chunks, or its rows do not have this digest.
    """
    start, end = plain_offset, plain_offset + plain_length
    require(0 <= start < end, what, "is a segment of no bytes")
    parts: list[memoryview] = []
    chunks: list[memoryview] = []
    base = 0
    for frame in frames:
        if base < end and start < base + len(frame.plain):
            require(frame.kind is FrameKind.DATA, what, "has frames that are no file's data")
            low, high = max(start - base, 0), min(end - base, len(frame.plain))
            chunks += _chunks_between(frame, low, high, what)
            parts.append(frame.plain[low:high])
        base += len(frame.plain)
    require(end <= base, what, "holds fewer bytes than the segment")
    rows = rows_digest([hash32(chunk) for chunk in chunks], [len(chunk) for chunk in chunks])
    require(rows == digest, what, "holds other bytes than the segment's digest says")
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _chunks_between(frame: Frame, low: int, high: int, what: str) -> list[memoryview]:
    first = bisect_right(frame.ends, low)
    last = bisect_left(frame.ends, high)
    whole = (low == 0 or frame.ends[first - 1] == low) and frame.ends[last] == high
    require(whole, what, "is a segment that cuts a chunk")
    ends = (low, *frame.ends[first : last + 1])
    return [frame.plain[start:end] for start, end in pairwise(ends)]


def _walk(view: memoryview, what: str) -> Iterator[tuple[int, _Header]]:
    at = 0
    while at < len(view):
        header = _parse(view, at, what)
        require(at + header.stored <= len(view), what, "ends within a frame")
        yield at, header
        at += header.stored


def _parse(view: memoryview, at: int, what: str) -> _Header:
    require(at + HEADER_SIZE <= len(view), what, "ends within a frame's header")
    magic, kind, codec, zero, plain, payload, chunks = _HEADER.unpack_from(view, at)
    require(magic == FRAME_MAGIC and zero == 0, what, "does not begin with a frame's header")
    require(kind in PLAIN_LIMITS and codec in {_RAW, _ZSTD}, what, "is of an unknown kind or codec")
    known = FrameKind(kind)
    require(0 < plain <= PLAIN_LIMITS[known], what, "claims more plain bytes than it may hold, or none")
    require(codec == _ZSTD or payload == plain, what, "is raw and claims two different lengths")
    require(1 <= chunks <= (plain if known is FrameKind.DATA else 1), what, "claims an impossible number of chunks")
    return _Header(known, codec, plain, payload, chunks)


def _chunk_ends(view: memoryview, at: int, header: _Header, what: str) -> tuple[int, ...]:
    """Where each chunk ends in the plain bytes; `view` holds the whole frame."""
    if header.chunks == 1:
        return (header.plain,)
    lengths = struct.Struct(f"<{header.chunks}I").unpack_from(view, at + HEADER_SIZE)
    ends = tuple(accumulate(lengths))
    require(min(lengths) > 0 and ends[-1] == header.plain, what, "has chunks that do not add up")
    return ends


def _check_request(kind: FrameKind, lengths: tuple[int, ...], ids: int) -> None:
    if not lengths or min(lengths) == 0 or ids != len(lengths):
        raise InvalidRequest("A frame needs chunks, none of them empty, and one id for each.")
    if sum(lengths) > PLAIN_LIMITS[kind]:
        limit = PLAIN_LIMITS[kind]
        raise InvalidRequest(f"A {kind.name} frame of {sum(lengths)} bytes is over the limit of {limit}.")
    if kind is not FrameKind.DATA and len(lengths) > 1:
        raise InvalidRequest(f"A {kind.name} frame holds one chunk, not {len(lengths)}.")


def require(holds: bool, what: str, otherwise: str) -> None:
    """Raise CorruptObject with the sentence "`what` `otherwise`." unless `holds`."""
    if not holds:
        raise CorruptObject(f"{what} {otherwise}.", NEXT_STEP)
