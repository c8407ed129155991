"""Checking packs as they lie in a storage, without the rest of the store: header, footer, and every frame or some.

A pack is read in ranges of a few MiB and never as a whole. Damage is told frame by frame and does not end the check;
behind a frame whose header is damaged, in a pack without a usable footer, it goes on at the next known frame.

Never: decides who needs a frame, or writes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from msgspec import Struct, field

from dataset_store.core.arrays import Bool, np
from dataset_store.core.digest import StoreId, hash32
from dataset_store.core.frames import HEADER_SIZE, FrameCodec, frame_length, require
from dataset_store.core.packfile import (
    PACK_HEADER_SIZE,
    TRAILER_SIZE,
    Footer,
    PackRef,
    decode_footer,
    pack_header,
    pack_key,
    tail_length,
)
from dataset_store.errors import Corrupt, FormatTooNew
from dataset_store.storage.backend import Backend, Key, Span, Tail

__all__ = ["CheckedPack", "FrameDamage", "check_frames", "check_pack_ends", "scan_frames"]

_TAIL: Final = 64 << 10
_RANGE: Final = 4 << 20


class FrameDamage(Struct, frozen=True):
    """Bytes `[offset, offset + length)` of a pack, a frame or what should be some, and what is wrong with them."""

    offset: int
    length: int
    problem: str


class CheckedPack(Struct):
    """A pack and what is known of it.

    Attributes:
        ref: Which.
        size: Bytes of the object.
        footer: What it says of its frames; None where it cannot be used.
        header_problem: What is wrong with its first bytes; empty where nothing is.
        footer_problem: The same of its footer.
        damaged: Its frames that are not what they must be.
    """

    ref: PackRef
    size: int
    footer: Footer | None = None
    header_problem: str = ""
    footer_problem: str = ""
    damaged: list[FrameDamage] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """The object's key."""
        return Key(pack_key(self.ref.name))


def check_pack_ends(backend: Backend, store_id: StoreId, ref: PackRef, size: int) -> CheckedPack:
    """Read and check the header and the footer of a pack.

    Raises:
        ObjectMissing: It is not there any more.
        StorageFailed: The storage refused.
    """
    pack = CheckedPack(ref, size)
    header = pack_header(store_id, ref.name)
    head, tail = backend.get_ranges([Span(pack.key, 0, min(size, len(header))), Tail(pack.key, _TAIL)])
    if head != header:
        pack.header_problem = "It does not begin as this pack of this store."
    try:
        needed = tail_length(tail, what=pack.key)
        if needed > len(tail) and needed <= size:
            (tail,) = backend.get_ranges([Tail(pack.key, needed)])
        pack.footer = decode_footer(tail, store_id, ref.name, what=pack.key, object_size=size)
    except (Corrupt, FormatTooNew) as error:
        pack.footer_problem = error.what
    return pack


def check_frames(
    backend: Backend, pack: CheckedPack, footer: Footer, chosen: Bool
) -> Iterator[Callable[[FrameCodec], list[FrameDamage]]]:
    """Work that compares the chosen frames of a pack with its footer, each some MiB; it may run in any thread."""
    offsets, stored = footer.offsets.astype(np.int64), footer.stored.astype(np.int64)
    rows = np.flatnonzero(chosen)
    if not len(rows):
        return
    apart = np.diff(rows) > 1
    part = np.cumsum(np.concatenate(([False], apart))) * (1 << 40) + (np.cumsum(stored[rows]) // _RANGE)
    for some in np.split(rows, np.flatnonzero(np.diff(part)) + 1):
        start, stop = int(offsets[some[0]]), int(offsets[some[-1]] + stored[some[-1]])

        yield partial(_check_range, backend, pack.key, footer, some.tolist(), start, stop)


def _check_range(
    backend: Backend, key: Key, footer: Footer, rows: Sequence[int], start: int, stop: int, codec: FrameCodec
) -> list[FrameDamage]:
    (data,) = backend.get_ranges([Span(key, start, stop)])
    return list(_differing(codec, memoryview(data), start, footer, rows))


def _differing(
    codec: FrameCodec, data: memoryview, start: int, footer: Footer, rows: Sequence[int]
) -> Iterator[FrameDamage]:
    firsts = footer.chunk_starts()
    for row in rows:
        offset, stored = int(footer.offsets[row]), int(footer.stored[row])
        first = int(firsts[row])
        last = first + int(footer.chunk_counts[row])
        try:
            frame = codec.decode_frame(data[offset - start : offset - start + stored], what="It")
        except Corrupt as error:
            yield FrameDamage(offset, stored, error.what)
            continue
        ids = b"".join(hash32(chunk) for chunk in frame.chunks())
        same = frame.kind == footer.kinds[row] and list(frame.lengths) == footer.lengths[first:last].tolist()
        if not same or ids != footer.ids[first:last].tobytes():
            yield FrameDamage(offset, stored, "It is not what the pack's footer says.")


def scan_frames(
    backend: Backend, pack: CheckedPack, codec: FrameCodec, known_starts: Sequence[int], known_end: int = 0
) -> Iterator[tuple[int, int, str]]:
    """Offset, length and problem, empty where there is none, of the frames of a pack without a usable footer.

    Frames are decoded, but nothing tells whether their bytes are the right ones: that is for whoever knows their ids.

    Args:
        backend: Where it lies.
        pack: Which.
        codec: The calling thread's.
        known_starts: Offsets, ascending, at which frames are known to begin.
        known_end: Up to where there are known to be frames; what is no frame behind that is not told.
    """
    at, end = PACK_HEADER_SIZE, pack.size - TRAILER_SIZE
    buffer, first = b"", at
    while at + HEADER_SIZE <= end:
        if at + HEADER_SIZE > first + len(buffer):
            buffer, first = backend.get_ranges([Span(pack.key, at, min(end, at + _RANGE))])[0], at
        try:
            length = frame_length(memoryview(buffer)[at - first : at - first + HEADER_SIZE], what="It")
            require(at + length <= end, "It", "ends behind its pack")
        except Corrupt as error:
            following = next((one for one in known_starts if one > at), None)
            if following is None:
                if at < known_end:
                    yield at, known_end - at, error.what
                return
            yield at, following - at, error.what
            at = following
            continue
        if at + length > first + len(buffer):
            buffer, first = backend.get_ranges([Span(pack.key, at, min(end, max(at + _RANGE, at + length)))])[0], at
        try:
            codec.decode_frame(memoryview(buffer)[at - first : at - first + length], what="It")
        except Corrupt as error:
            yield at, length, error.what
        else:
            yield at, length, ""
        at += length
