"""Packs read from any storage: frames and footers, in batches.

Promises: whatever is read in one batch takes one round of ranged reads for each storage (footers longer than 64 KiB a
second one). Memory is bounded by the budget on reading.

A reader that is told whereabouts looks for frames where they are now; a pack that is missing all the same is looked for
again while the log has moved on (docs/format.md §11, Reading).

Never: lists, or decides which frames are needed. Frames are handed back as they are stored; only footers, nodes, lists
and censuses are decoded and checked here. A reader of verified frames belongs to one thread.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from dataset_store.core.digest import StoreId
from dataset_store.core.frames import FrameCodec, FrameKind, require
from dataset_store.core.packfile import (
    Footer,
    PackRef,
    Place,
    decode_footer,
    footer_start,
    pack_key,
    tail_length,
)
from dataset_store.core.relocation import Moved, moved_footer, sound_packs
from dataset_store.errors import ObjectMissing
from dataset_store.storage.backend import Backend, Key, Span, Tail, Traits

__all__ = ["PackReader", "Whereabouts"]

_TAIL: Final = 64 << 10
_FOOTERS_AT_ONCE: Final = 256
_CACHED: Final = 1 << 20
"""Bytes that stay near a processor while they are read, hashed and written."""
_BUDGET: Final = 64 << 20
_LARGEST_SPAN: Final = 16 << 20

_Part = TypeVar("_Part", Span, Tail)
_Found = TypeVar("_Found")


class Whereabouts(Protocol):
    """Where frames of packs are now that a repack has moved."""

    def moved(self, places: Sequence[Place]) -> list[list[Place]]:
        """For each place those whose bytes, one after another, are its own now; often just the place."""

    def moved_out_of(self, pack: PackRef) -> Moved | None:
        """The frames that were moved out of a pack; None where none were."""

    def newer(self) -> bool:
        """Learn what was moved since; whether there is anything new."""


class PackReader:
    """Reads footers and frames of packs, in any storage.

    Args:
        store_id: The store that the packs must belong to.
        resolve: The backend of a storage number.
        traits: What is worth knowing of the storages. Holes that cost less than a request are read and dropped
            rather than asked around.
        whereabouts: Where frames are now; without it they are where their places say.
    """

    def __init__(
        self,
        store_id: StoreId,
        resolve: Callable[[int], Backend],
        traits: Traits = Traits(),  # noqa: B008  (a value)
        *,
        whereabouts: Whereabouts | None = None,
    ) -> None:
        self._store_id = store_id
        self._resolve = resolve
        self._hole_bytes = traits.hole_bytes
        self.at_once = traits.at_once
        self._whereabouts = whereabouts
        self._codec = FrameCodec()

    def read_footers(self, refs: Sequence[PackRef]) -> list[Footer]:
        """The footers of packs, checked, in the order asked; of a pack that was moved, what it says of those frames.

        Raises:
            ObjectMissing: A pack is not there; its key, hence its name, is in the message.
            CorruptObject: A pack is damaged or is another pack under this name.
            FormatTooNew: A pack is of a later format.
            StorageFailed: The storage refused.
        """
        groups = (refs[at : at + _FOOTERS_AT_ONCE] for at in range(0, len(refs), _FOOTERS_AT_ONCE))
        return [footer for group in groups for footer in self._current(partial(self._read_footers, group))]

    def read_ranges(self, places: Sequence[Place], budget_bytes: int = _BUDGET) -> Iterator[memoryview]:
        """The stored bytes of each place, unchecked, in the order asked.

        At most about `budget_bytes` are asked for at once; what is handed out should be dropped before the
        next is taken. Places that overlap or lie near each other are read together.

        Raises:
            ObjectMissing: A pack is not there; its key, hence its name, is in the message.
            CorruptObject: A pack is too short for a place.
            StorageFailed: The storage refused.
        """
        for window in _windows(places, budget_bytes, self._hole_bytes):
            yield from self._current(partial(self._read_window, window))

    def read_frames(self, places: Sequence[Place]) -> list[memoryview]:
        """As `read_ranges`, all at once and in memory together."""
        return self._current(partial(self._read_window, places))

    def read_run(self, place: Place, piece_bytes: int) -> Iterator[memoryview]:
        """The stored bytes of one run of frames, unchecked, piece by piece; a frame may lie in several pieces.

        Args:
            place: The run, as it is named.
            piece_bytes: The most that is asked for and in memory at once; it is less where requests cost nothing.

        Raises:
            ObjectMissing: A pack is not there; its key, hence its name, is in the message.
            CorruptObject: A pack is too short for the run.
            StorageFailed: The storage refused.
        """
        done, total = 0, None
        most = piece_bytes if self._hole_bytes else min(piece_bytes, _CACHED)
        what = f"The run of frames at {place.offset} of {_key(place.pack)}"
        while True:
            parts = [place] if self._whereabouts is None else self._whereabouts.moved([place])[0]
            length = sum(part.stored for part in parts)
            # Frames are moved unchanged; only where a repair has made them anew meanwhile it does not go on.
            require(total in {None, length}, what, "was made anew while it was read")
            total = length
            try:
                for piece in _pieces(parts, done, most):
                    (data,) = self._read_places([piece])
                    done += piece.stored
                    yield data
            except ObjectMissing:
                if self._whereabouts is None or not self._whereabouts.newer():
                    raise
            else:
                return

    def read_where_named(self, places: Sequence[Place]) -> list[memoryview]:
        """As `read_frames`, from the packs that the places name, whatever was moved out of them."""
        return self._read_places(places)

    def read_whole(self, kind: FrameKind, wanted: Sequence[tuple[Place, bytes]]) -> list[bytes]:
        """The plain bytes of frames of one chunk, each checked against its kind, length and hash, in the order asked.

        Args:
            kind: Segment list, node or census.
            wanted: Place and hash of the plain bytes of each.

        Raises:
            ObjectMissing: A pack is not there; its key, hence its name, is in the message.
            CorruptObject: A place does not hold that.
            StorageFailed: The storage refused.
        """
        stored = self.read_ranges([place for place, _ in wanted])
        return [self._decode(data, kind, place, digest) for data, (place, digest) in zip(stored, wanted, strict=True)]

    def _decode(self, data: memoryview, kind: FrameKind, place: Place, digest: bytes) -> bytes:
        what = f"The frame at {place.offset} of {pack_key(place.pack.name)}"
        plain = self._codec.decode_whole(data, kind, digest, what=what)
        require(len(plain) == place.plain, what, "is not as long as its place says")
        return plain

    def _current(self, read: Callable[[], list[_Found]]) -> list[_Found]:
        """What `read` finds; where a pack is missing, once more for as long as the log has moved on meanwhile."""
        while True:
            try:
                return read()
            except ObjectMissing:
                if self._whereabouts is None or not self._whereabouts.newer():
                    raise

    def _read_footers(self, refs: Sequence[PackRef]) -> list[Footer]:
        moved = {ref: rows for ref in refs if (rows := self._moved_out_of(ref)) is not None}
        own = list(dict.fromkeys([*(ref for ref in refs if ref not in moved), *_targets(moved)]))
        footers = dict(zip(own, self._read_own_footers(own), strict=True))
        for ref, rows in moved.items():
            footers[ref] = moved_footer(rows, [footers[target] for target in sound_packs(rows)], what=_key(ref))
        return [footers[ref] for ref in refs]

    def _moved_out_of(self, ref: PackRef) -> Moved | None:
        return None if self._whereabouts is None else self._whereabouts.moved_out_of(ref)

    def _read_own_footers(self, refs: Sequence[PackRef]) -> list[Footer]:
        tails = self._get([(ref.storage, Tail(_key(ref), _TAIL)) for ref in refs])
        needed = [tail_length(tail, what=_key(ref)) for ref, tail in zip(refs, tails, strict=True)]
        longer = [row for row, length in enumerate(needed) if length > _TAIL]
        heads = self._get([(refs[row].storage, _head(refs[row], tails[row], needed[row])) for row in longer])
        for row, head in zip(longer, heads, strict=True):
            tails[row] = head + tails[row]
        return [self._footer(ref, tail) for ref, tail in zip(refs, tails, strict=True)]

    def _footer(self, ref: PackRef, tail: bytes) -> Footer:
        size = len(tail) if len(tail) < _TAIL else None
        return decode_footer(tail, self._store_id, ref.name, what=_key(ref), object_size=size)

    def _read_window(self, places: Sequence[Place]) -> list[memoryview]:
        if self._whereabouts is None:
            return self._read_places(places)
        now = self._whereabouts.moved(places)
        found = iter(self._read_places([place for parts in now for place in parts]))
        return [_joined([next(found) for _ in parts]) for parts in now]

    def _read_places(self, places: Sequence[Place]) -> list[memoryview]:
        plan = _plan(places, self._hole_bytes)
        spans = [(run.pack.storage, Span(_key(run.pack), run.start, run.stop)) for run in plan.runs]
        found = [memoryview(data) for data in self._get(spans)]
        starts = [run.start for run in plan.runs]
        return [
            found[run][place.offset - starts[run] : place.offset - starts[run] + place.stored]
            for place, run in zip(places, plan.run_of_place, strict=True)
        ]

    def _get(self, parts: Sequence[tuple[int, _Part]]) -> list[bytes]:
        """Ranged reads in several storages, one batch for each, in the order asked."""
        found = [b""] * len(parts)
        for storage, rows in _rows_by_storage(parts).items():
            answers = self._resolve(storage).get_ranges([parts[row][1] for row in rows])
            for row, answer in zip(rows, answers, strict=True):
                found[row] = answer
        return found


def _pieces(parts: Sequence[Place], skip: int, most: int) -> Iterator[Place]:
    """The bytes of some places behind the first `skip`, at most so many at once."""
    for part in parts:
        for start in range(min(skip, part.stored), part.stored, most):
            yield Place(part.pack, part.offset + start, min(most, part.stored - start), 0)
        skip = max(0, skip - part.stored)


class _Run(Struct):
    """Bytes `[start, stop)` of a pack that are read by one request."""

    pack: PackRef
    start: int
    stop: int


class _Plan(Struct, frozen=True):
    runs: list[_Run]
    run_of_place: list[int]


def _plan(places: Sequence[Place], hole_bytes: int) -> _Plan:
    """Which runs to read, and the run that holds each place.

    A hole is read if it is no longer than `hole_bytes`, or shorter than a twentieth of the two places beside it;
    each place is beside two holes at most, so by the second rule fewer than 10 % more bytes are read than asked.
    """
    runs: list[_Run] = []
    run_of_place = [0] * len(places)
    before = 0
    for row in sorted(range(len(places)), key=lambda row: (places[row].pack, places[row].offset)):
        place = places[row]
        bridged = max(hole_bytes, (before + place.stored - 1) // 20)
        if not (runs and _joins(runs[-1], place, bridged)):
            runs.append(_Run(place.pack, place.offset, place.offset))
        runs[-1].stop = max(runs[-1].stop, place.offset + place.stored)
        run_of_place[row] = len(runs) - 1
        before = place.stored
    return _Plan(runs, run_of_place)


def _joins(run: _Run, place: Place, bridged: int) -> bool:
    """Whether to read `place` together with `run`; runs end at 16 MiB, so that several travel at once."""
    if run.pack != place.pack or place.offset - run.stop > bridged:
        return False
    return place.offset + place.stored - run.start <= _LARGEST_SPAN


def _windows(places: Sequence[Place], budget_bytes: int, hole_bytes: int) -> Iterator[Sequence[Place]]:
    """Consecutive places whose bytes, and the holes that may be read with them, stay within the budget."""
    first, size = 0, 0
    for row, place in enumerate(places):
        cost = place.stored + hole_bytes
        if row > first and size + cost > budget_bytes:
            yield places[first:row]
            first, size = row, 0
        size += cost
    if first < len(places):
        yield places[first:]


def _targets(moved: Mapping[PackRef, Moved]) -> list[PackRef]:
    return [pack for rows in moved.values() for pack in sound_packs(rows)]


def _joined(parts: Sequence[memoryview]) -> memoryview:
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _rows_by_storage(parts: Sequence[tuple[int, object]]) -> Mapping[int, list[int]]:
    rows: dict[int, list[int]] = {}
    for row, (storage, _) in enumerate(parts):
        rows.setdefault(storage, []).append(row)
    return rows


def _head(ref: PackRef, tail: bytes, needed: int) -> Span:
    """The front of a footer that is longer than the tail that was read."""
    start = footer_start(tail, what=_key(ref))
    return Span(_key(ref), start, start + needed - len(tail))


def _key(ref: PackRef) -> Key:
    return Key(pack_key(ref.name))
