"""Frames made anew: whatever live trees name in a lost pack is made of whole frames again, and holds what it held."""

import random
from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.digest import PackName, hash32, rows_digest
from dataset_store.core.extents import extents_of_places, unite
from dataset_store.core.frames import FrameCodec
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import Segment
from dataset_store.dataset.checks.remaking import Remade, cut_as, remake_block, remake_runs

PACK = PackRef(0, PackName(bytes(16)))
CODEC = FrameCodec()


def chunk(number):
    return random.Random(number).randbytes(30 + number % 50)


def segment_of(place, plain_offset, chunks):
    digest = rows_digest([hash32(one) for one in chunks], [len(one) for one in chunks])
    return Segment(place.pack, place.offset, place.stored, plain_offset, sum(map(len, chunks)), digest)


def run_of(offsets, first, last):
    return Place(PACK, offsets[first], offsets[last] - offsets[first], 0)


@st.composite
def packs_and_runs(draw, numbers):
    """Chunks, where their frames were in a pack, and some runs of them; the frames had other lengths than today."""
    chunks = [chunk(draw(numbers)) for _ in range(draw(st.integers(2, 12)))]
    lengths = [len(one) + draw(st.integers(20, 28)) for one in chunks]
    offsets = list(accumulate(lengths, initial=40))
    ends = st.tuples(st.integers(0, len(chunks)), st.integers(0, len(chunks))).filter(lambda pair: pair[0] < pair[1])
    return chunks, offsets, draw(st.lists(ends, min_size=1, max_size=6)), draw(st.lists(ends, max_size=4))


def remade_of(chunks, offsets, runs, others):
    known = {run_of(offsets, first, last): chunks[first:last] for first, last in runs}
    named = [segment_of(run_of(offsets, *one), 0, chunks[slice(*one)]) for one in [*runs, *others]]
    remade = Remade()
    remade.take(remake_runs(CODEC, known, named))
    return remade, named


@given(packs_and_runs(st.integers(0, 2**40)))
def test_every_run_is_made_of_whole_frames_again_however_runs_overlap(drawn):
    chunks, offsets, runs, others = drawn
    if len(set(chunks)) < len(chunks):
        return
    remade, named = remade_of(chunks, offsets, runs, others)
    covered = {row for first, last in runs for row in range(first, last)}
    for one, (first, last) in zip(named, [*runs, *others], strict=True):
        if any(start <= first and last <= stop for start, stop in joint(runs)):
            assert remade.holds(one.place, one)
        if not covered.issuperset(range(first, last)):
            assert not remade.holds(one.place, one)


def joint(runs):
    """What runs that overlap cover together."""
    found = []
    for first, last in sorted(runs):
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


@given(packs_and_runs(st.integers(0, 2)))
def test_equal_chunks_never_make_frames_overlap_or_a_run_hold_something_else(drawn):
    remade, named = remade_of(*drawn)
    places = sorted(remade.frames, key=lambda place: place.offset)
    assert all(before.offset + before.stored <= after.offset for before, after in pairwise(places))
    for one in named:
        if remade.holds(one.place, one):
            inside = [place for place in places if one.offset <= place.offset < one.offset + one.stored]
            lengths = [length for place in inside for length in remade.frames[place].lengths]
            ids = [each for place in inside for each in remade.frames[place].ids]
            assert rows_digest(ids, lengths) == one.digest


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.data())
def test_a_block_holds_what_is_known_of_it_and_zeros_between(numbers, data):
    chunks = [chunk(number) for number in numbers]
    starts = list(accumulate(map(len, chunks), initial=0))
    rows = sorted(data.draw(st.sets(st.integers(0, len(chunks) - 1), min_size=1)))
    place = Place(PACK, 40, 1_000, 0)
    ((where, frame, holed),) = remake_block(CODEC, place, {starts[row]: [chunks[row]] for row in rows})
    assert where == place
    assert holed
    remade = Remade()
    remade.take([(where, frame, holed)])
    for row, start in enumerate(starts[:-1]):
        assert remade.holds(place, segment_of(place, start, [chunks[row]])) == (row in rows)


def test_a_block_that_is_as_long_as_it_was_is_whole():
    chunks = [chunk(number) for number in range(5)]
    starts = list(accumulate(map(len, chunks), initial=0))
    parts = {start: [one] for start, one in zip(starts, chunks, strict=False)}
    ((_, frame, _),) = remake_block(CODEC, Place(PACK, 40, 1, 0), parts)
    ((_, _, holed),) = remake_block(CODEC, Place(PACK, 40, len(frame.data), 0), parts)
    assert not holed


def test_bytes_are_cut_in_the_way_that_gives_their_digest():
    chunks = [b"one", b"second", b"3"]
    digest = segment_of(Place(PACK, 40, 100, 0), 0, chunks).digest
    ways = [[], [10], [3, 9, 10]]
    assert cut_as(b"".join(chunks), ways, digest) == chunks
    assert cut_as(b"".join(chunks), ways[:2], digest) == []


def test_frames_are_put_only_where_none_is():
    chunks = [chunk(number) for number in range(3)]
    remade = Remade()
    for offset, stored in ((100, 50), (140, 20), (60, 41), (150, 10), (90, 10)):
        remade.take(remake_block(CODEC, Place(PACK, offset, stored, 0), {0: chunks}))
    assert sorted(place.offset for place in remade.frames) == [90, 100, 150]
    assert unite([extents_of_places(list(remade.frames))]).total() == 70
