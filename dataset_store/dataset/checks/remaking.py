"""Remaking: frames of a lost pack, made anew out of contents that were found elsewhere.

A frame comes back with the chunks that it had, at the same plain offsets: ids and digests that live versions hold
decide, or the pack's footer. Its stored length may be another one. Chunks of a block of small files that were not found
become zeros; such a frame is *holed*.

Where no footer tells how the frames of a run lay in the lost pack, the run is divided at the ends of all that live
trees name in it, and between these in proportion to the new frames. So whatever is named is made of whole frames, and
nothing else is asked for.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, compress, pairwise
from typing import TypeAlias

from msgspec import Struct, field

from dataset_store.core.digest import ChunkId, hash32, rows_digest
from dataset_store.core.extents import Extents, extents_of_places, unite
from dataset_store.core.frames import PLAIN_LIMITS, EncodedFrame, FrameCodec, FrameKind
from dataset_store.core.packfile import Footer, PackRef, Place
from dataset_store.core.segments import Segment

__all__ = [
    "Chunks",
    "Remade",
    "RemadeFrame",
    "chunks_in",
    "cut_as",
    "data_frame",
    "remake_block",
    "remake_by_footer",
    "remake_runs",
]

Chunks: TypeAlias = Sequence[bytes]
"""Consecutive chunks of a content."""

RemadeFrame: TypeAlias = tuple[Place, EncodedFrame, bool]
"""Where a frame was in the lost pack, the frame, and whether it is holed."""


class Remade(Struct):
    """Frames of one pack that were made anew, and the places of those that are holed."""

    frames: dict[Place, EncodedFrame] = field(default_factory=dict)
    holed: set[Place] = field(default_factory=set)
    _by_offset: dict[int, Place] = field(default_factory=dict)
    _offsets: list[int] = field(default_factory=list)
    _chunks: dict[Place, list[tuple[ChunkId, int]]] = field(default_factory=dict)
    _rows: dict[Place, dict[int, int]] = field(default_factory=dict)
    _whole: Extents | None = None

    def take(self, made: Iterable[RemadeFrame]) -> None:
        """Add frames at places that are still free."""
        for place, frame, is_holed in made:
            if not self.touches(place):
                self.frames[place] = frame
                self._whole = None
                self._by_offset[place.offset] = place
                insort(self._offsets, place.offset)
                if is_holed:
                    self.holed.add(place)

    def count_as_holed(self, parts: Sequence[Place]) -> None:
        """Count frames that share a byte with some places as holed."""
        touched = unite([extents_of_places(parts)])
        places = list(self.frames)
        self.holed.update(compress(places, extents_of_places(places).touched_by(touched).tolist()))
        self._whole = None

    def whole(self) -> Extents:
        """The bytes of the frames that are not holed, united."""
        if self._whole is None:
            self._whole = unite([extents_of_places([place for place in self.frames if place not in self.holed])])
        return self._whole

    def touches(self, place: Place) -> bool:
        """Whether a frame shares a byte with a place."""
        row = bisect_left(self._offsets, place.offset + place.stored) - 1
        if row < 0:
            return False
        before = self._by_offset[self._offsets[row]]
        return before.offset + before.stored > place.offset

    def makes_up(self, place: Place) -> bool:
        """Whether a place is made of whole frames."""
        return bool(self._chunks_at(place))

    def holds(self, place: Place, segment: Segment) -> bool:
        """Whether a place is made of whole frames, in which the bytes of a segment are where it says."""
        rows = self._chunks_at(place)
        first = rows.get(segment.plain_offset)
        last = rows.get(segment.plain_offset + segment.plain_length)
        if first is None or last is None:
            return False
        chunks = self._chunks[place][first:last]
        return rows_digest([one for one, _ in chunks], [length for _, length in chunks]) == segment.digest

    def _chunks_at(self, place: Place) -> dict[int, int]:
        """The rows of chunks by their plain offsets; none where the place is not made of whole frames."""
        if place not in self._rows:
            chunks: list[tuple[ChunkId, int]] = []
            at = place.offset
            while at < place.offset + place.stored and at in self._by_offset:
                frame = self.frames[self._by_offset[at]]
                chunks += zip(frame.ids, frame.lengths, strict=True)
                at += self._by_offset[at].stored
            if at != place.offset + place.stored:
                return {}
            starts = accumulate((length for _, length in chunks), initial=0)
            self._chunks[place], self._rows[place] = chunks, {start: row for row, start in enumerate(starts)}
        return self._rows[place]


def chunks_in(footer: Footer, pack: PackRef, bad: Extents) -> Iterator[tuple[bytes, int]]:
    """The ids and lengths of the chunks in frames of several that touch what is bad of a pack."""
    for at, frame in enumerate(footer.frame_of_chunk().tolist()):
        if footer.chunk_counts[frame] > 1 and extents_of_places([_place(footer, pack, frame)]).touched_by(bad).any():
            yield footer.ids[at].tobytes(), int(footer.lengths[at])


def cut_as(data: bytes | memoryview, ways: Iterable[Sequence[int]], digest: bytes) -> Chunks:
    """The chunks of a segment's bytes, in the first way of cutting them that gives its digest; none if no way does.

    Args:
        data: The bytes.
        ways: For each way where chunks end.
        digest: The segment's.
    """
    for ends in ways:
        pieces = [bytes(data[start:end]) for start, end in pairwise((0, *ends))]
        if pieces and rows_digest([hash32(piece) for piece in pieces], [len(piece) for piece in pieces]) == digest:
            return pieces
    return []


def data_frame(codec: FrameCodec, chunks: Chunks) -> EncodedFrame:
    """A frame of these chunks, none of them empty."""
    return codec.encode_frame(FrameKind.DATA, chunks, [ChunkId(hash32(chunk)) for chunk in chunks])


def remake_by_footer(
    codec: FrameCodec, footer: Footer, pack: PackRef, bad: Extents, chunk: Callable[[bytes, int], bytes | None]
) -> Iterator[RemadeFrame]:
    """The data frames that touch what is bad of a pack and of which at least one chunk is to be had.

    Args:
        codec: The calling thread's.
        footer: The pack's.
        pack: The pack.
        bad: What is lost of it.
        chunk: The bytes of a chunk by its id and length; None where nobody has them.
    """
    firsts = footer.chunk_starts()
    for row in range(len(footer.offsets)):
        place = _place(footer, pack, row)
        if footer.kinds[row] != FrameKind.DATA or not extents_of_places([place]).touched_by(bad).any():
            continue
        rows = range(int(firsts[row]), int(firsts[row]) + int(footer.chunk_counts[row]))
        wanted = [(footer.ids[at].tobytes(), int(footer.lengths[at])) for at in rows]
        found = [chunk(*one) for one in wanted]
        if any(found):
            whole = [one or bytes(length) for one, (_, length) in zip(found, wanted, strict=True)]
            yield place, data_frame(codec, whole), not all(found)


def remake_block(codec: FrameCodec, place: Place, parts: Mapping[int, Chunks]) -> Iterator[RemadeFrame]:
    """One frame of several contents, if it can be.

    Args:
        codec: The calling thread's.
        place: The frame.
        parts: The chunks that are known, by the plain offset of the first of each part; parts may overlap.
    """
    pieces: list[bytes] = []
    at, has_gaps = 0, False
    for start, chunk in sorted(_starting(parts).items()):
        if start > at:
            pieces.append(bytes(start - at))
            has_gaps = True
        if start >= at:
            pieces.append(chunk)
            at = start + len(chunk)
    if 0 < at <= PLAIN_LIMITS[FrameKind.DATA]:
        frame = data_frame(codec, pieces)
        # Where its length is another one, it may have had more chunks behind these.
        yield place, frame, has_gaps or len(frame.data) != place.stored


def _starting(parts: Mapping[int, Chunks]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for start, chunks in parts.items():
        for chunk in chunks:
            found[start] = chunk
            start += len(chunk)  # noqa: PLW2901
    return found


def remake_runs(codec: FrameCodec, runs: Mapping[Place, Chunks], others: Sequence[Segment]) -> Iterator[RemadeFrame]:
    """The frames of one chunk each that made up runs of one pack.

    Args:
        codec: The calling thread's.
        runs: Their chunks. Runs may overlap, as versions share what did not change between them.
        others: What else is named in the pack; its chunks need not be known.
    """
    stretches: list[_Stretch] = []
    for place, chunks in sorted(runs.items(), key=lambda one: (one[0].offset, -one[0].stored)):
        frames = [data_frame(codec, [chunk]) for chunk in chunks]
        if not stretches or place.offset >= stretches[-1].stop or not stretches[-1].join(place, frames):
            stretches.append(_Stretch(place.pack, frames, {place.offset: 0, place.offset + place.stored: len(frames)}))
    for stretch in stretches:
        for segment in others:
            stretch.keep_whole(segment)
        yield from stretch.divided()


class _Stretch(Struct):
    """Consecutive frames of one chunk each, and offsets in the lost pack at which some of them began: offset to row."""

    pack: PackRef
    frames: list[EncodedFrame]
    rows: dict[int, int]

    @property
    def stop(self) -> int:
        return max(self.rows)

    def join(self, place: Place, frames: Sequence[EncodedFrame]) -> bool:
        """Take in a run that begins within; whether that could be done."""
        ids, own = [one.ids for one in frames], [one.ids for one in self.frames]
        end = place.offset + place.stored
        if end <= self.stop:
            fitting = [row for row in range(len(own) - len(ids) + 1) if own[row : row + len(ids)] == ids]
        else:
            fitting = [
                row for row in range(max(len(own) - len(ids), 0), len(own)) if ids[: len(own) - row] == own[row:]
            ]
        fitting = [row for row in fitting if self._agrees(place.offset, row, end, row + len(frames))]
        if not fitting:
            return False
        first = self._nearest(fitting, place.offset)
        self.frames += frames[len(own) - first :]
        self.rows |= {place.offset: first, end: first + len(frames)}
        return True

    def keep_whole(self, segment: Segment) -> None:
        """Divide at the ends of a segment, if it is a run of these frames."""
        stop = segment.offset + segment.stored
        if segment.pack != self.pack or segment.plain_offset or segment.offset < min(self.rows) or stop > self.stop:
            return
        ends = list(accumulate((one.plain for one in self.frames), initial=0))
        row_at = {end: row for row, end in enumerate(ends)}
        pairs = ((row, row_at.get(end + segment.plain_length)) for row, end in enumerate(ends[:-1]))
        found = ((first, last) for first, last in pairs if last is not None and self._is(segment, first, last))
        fitting = {first: last for first, last in found if self._agrees(segment.offset, first, stop, last)}
        if fitting:
            first = self._nearest(list(fitting), segment.offset)
            self.rows |= {segment.offset: first, stop: fitting[first]}

    def divided(self) -> Iterator[RemadeFrame]:
        """Each frame at a part of the stretch."""
        for (start, first), (stop, last) in pairwise(sorted(self.rows.items())):
            lengths = [len(one.data) for one in self.frames[first:last]]
            total = sum(lengths)
            ends = [start + (stop - start) * done // total for done in accumulate(lengths)]
            for frame, (begin, end) in zip(self.frames[first:last], pairwise([start, *ends]), strict=True):
                yield Place(self.pack, begin, end - begin, 0), frame, False

    def _agrees(self, start: int, first: int, stop: int, last: int) -> bool:
        """Whether rows may begin at two more offsets: in the order of what is known, and with a frame for each part."""
        merged = {start: first, stop: last} | self.rows
        in_order = all(before < after for (_, before), (_, after) in pairwise(sorted(merged.items())))
        return in_order and (merged[start], merged[stop]) == (first, last)

    def _is(self, segment: Segment, first: int, last: int) -> bool:
        some = self.frames[first:last]
        return rows_digest([one.ids[0] for one in some], [one.plain for one in some]) == segment.digest

    def _nearest(self, rows: Sequence[int], offset: int) -> int:
        """Of rows that may be meant, as chunks may be equal, the one that begins nearest to an offset."""
        stored = list(accumulate((len(one.data) for one in self.frames), initial=min(self.rows)))
        return min(rows, key=lambda row: abs(stored[row] - offset))


def _place(footer: Footer, pack: PackRef, row: int) -> Place:
    return Place(pack, int(footer.offsets[row]), int(footer.stored[row]), 0)
