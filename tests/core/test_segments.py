"""Segments: runs of a file's chunks, the columns and lists that hold them, and how much reuse is too much."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core.digest import ChunkId, PackName, hash32, rows_digest
from dataset_store.core.entries import LISTED, ONE_CHUNK, make_entries
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import encode_node
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.paths import PathKey
from dataset_store.core.segments import (
    LONG_RUN,
    ChunkHit,
    FileSegments,
    Segment,
    SegmentBuilder,
    bounded_reuse,
    decode_segment_list,
    encode_segment_list,
    reused_runs,
    segment_columns,
    segments_of,
    with_segments,
)
from dataset_store.errors import CorruptObject


@dataclass
class MadeUpPack:
    """A pack as a list of (offset, stored, rows), rows being (chunk id, length) of each chunk of a frame."""

    ref: PackRef
    frames: list

    def hits(self):
        for offset, stored, rows in self.frames:
            start = 0
            for chunk_id, length in rows:
                yield chunk_id, ChunkHit(self.ref, offset, stored, start, length, len(rows) == 1)
                start += length

    def rows_of(self, segment):
        """What a reader of the segment's range finds between its plain offset and end, by the format alone."""
        stop = segment.offset + segment.stored
        inside = [frame for frame in self.frames if segment.offset <= frame[0] < stop]
        assert inside[0][0] == segment.offset
        assert inside[-1][0] + inside[-1][1] == stop
        rows, at = [], 0
        for chunk_id, length in (row for _, _, rows in inside for row in rows):
            if segment.plain_offset <= at < segment.plain_offset + segment.plain_length:
                rows.append((chunk_id, length))
            at += length
        return rows


@st.composite
def packs(draw, number):
    """A pack of frames of one to four chunks; now and then there is a gap of other frames between two."""
    ref = PackRef(0, PackName(number.to_bytes(16, "big")))
    offset, frames, serial = 40, [], 0
    for count in draw(st.lists(st.sampled_from([1, 1, 1, 2, 4]), min_size=1, max_size=8)):
        lengths = [draw(st.integers(1, 1000)) for _ in range(count)]
        rows = [(ChunkId(hash32(b"%d %d" % (number, serial + row))), length) for row, length in enumerate(lengths)]
        stored = sum(lengths) + 20
        frames.append((offset, stored, rows))
        serial += count
        offset += stored
        if draw(st.booleans()) and draw(st.booleans()):
            frames.append((offset, 33, [(ChunkId(hash32(b"gap %d" % offset)), 13)]))
            offset += 33
    return MadeUpPack(ref, frames)


@st.composite
def files(draw):
    """Two packs, and a file whose chunks come from anywhere in them, often in runs."""
    both = [draw(packs(0)), draw(packs(1))]
    known = [hit for pack in both for hit in pack.hits()]
    chunks = []
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(known) - 1))
        chunks += known[start : start + draw(st.integers(1, 6))]
    return {pack.ref: pack for pack in both}, chunks


def built(chunks):
    builder = SegmentBuilder()
    for chunk_id, hit in chunks:
        builder.add(chunk_id, hit)
    return builder.finish()


@given(files())
def test_a_file_can_be_read_from_its_segments_alone_and_each_digest_covers_its_rows(case):
    by_ref, chunks = case
    entry = built(chunks)
    found = [by_ref[segment.pack].rows_of(segment) for segment in entry.rows]
    assert [row for rows in found for row in rows] == [(chunk_id, hit.plain_length) for chunk_id, hit in chunks]
    if len(chunks) > 1:
        digests = [rows_digest([row[0] for row in rows], [row[1] for row in rows]) for rows in found]
        assert [segment.digest for segment in entry.rows] == digests


@given(files())
def test_there_is_one_segment_for_each_run_and_no_more(case):
    _, chunks = case
    hits = [hit for _, hit in chunks]
    breaks = sum(not before.continued_by(after) for before, after in pairwise(hits))
    assert len(built(chunks).rows) == 1 + breaks == len(reused_runs(hits))


PACK = PackRef(0, PackName(bytes(16)))
OTHER = PackRef(3, PackName(b"another pack...."))


def alone(offset, length=100, pack=PACK):
    return ChunkHit(pack, offset, length + 20, 0, length, True)


def test_chunks_are_joined_only_within_one_read_of_whole_frames():
    first = alone(40)
    block = ChunkHit(PACK, 160, 500, 0, 100, False)
    assert first.continued_by(alone(160))
    assert not first.continued_by(alone(161))
    assert not first.continued_by(alone(160, pack=OTHER))
    assert not first.continued_by(block)
    assert block.continued_by(replace(block, plain_offset=100))
    assert not block.continued_by(replace(block, plain_offset=101))
    assert not block.continued_by(replace(block, offset=660))


def test_a_content_of_one_chunk_is_marked_and_stores_no_digest():
    entry = built([(ChunkId(hash32(b"x")), alone(40))])
    assert entry.bits == ONE_CHUNK
    assert entry.rows[0].digest == bytes(32)
    assert built([(ChunkId(hash32(b"x")), alone(40)), (ChunkId(hash32(b"y")), alone(160))]).bits == 0


def test_a_content_without_chunks_has_no_segments_and_no_mark():
    assert built([]) == FileSegments((), 0)


# --- how much is reused ---

hit_lists = st.lists(
    st.one_of(
        st.none(),
        st.builds(alone, st.integers(0, 5).map(lambda n: 40 + 120 * n), st.just(100), st.sampled_from([PACK, OTHER])),
        st.builds(alone, st.integers(10_000, 20_000), st.integers(1, 500)),
    ),
    max_size=40,
)


def ranges(found):
    """Ranges that a reader will fetch: reused runs, and stretches that are stored anew."""
    anew = sum(hit is None and (row == 0 or found[row - 1] is not None) for row, hit in enumerate(found))
    return len(reused_runs(found)) + anew


@given(hit_lists, st.integers(0, 6))
def test_dropping_runs_never_makes_more_ranges_and_drops_whole_runs_only_over_the_allowance(found, most):
    kept = bounded_reuse(found, most)
    assert ranges(kept) <= ranges(found)
    assert set(reused_runs(kept)) <= set(reused_runs(found))
    assert len(reused_runs(found)) > most or kept == found
    assert all(hit in (None, before) for hit, before in zip(kept, found, strict=True))


@given(hit_lists, st.integers(0, 6))
def test_short_runs_over_the_allowance_touch_nothing_that_is_stored_anew(found, most):
    kept = bounded_reuse(found, most)
    runs = reused_runs(kept)
    if len(runs) > most:
        for run in runs:
            around = [kept[row] for row in (run.start - 1, run.stop) if 0 <= row < len(kept)]
            assert None not in around
            assert run.stop not in {other.start for other in runs}


def test_a_short_run_beside_new_chunks_is_stored_with_them():
    short, longer = [alone(40)], [alone(1000), alone(1120), alone(1240)]
    assert bounded_reuse([*short, None, *longer], 1) == [None, None, *longer]


def test_a_short_run_between_long_ones_is_kept():
    whole = [ChunkHit(PACK, 40, 10, 0, LONG_RUN, True), ChunkHit(OTHER, 40, 10, 0, 100, True)]
    found = [*whole, ChunkHit(PACK, 90, 10, 0, LONG_RUN, True)]
    assert bounded_reuse(found, 1) == found


# --- columns ---

segments = st.builds(
    Segment,
    st.builds(PackRef, st.integers(0, 3), st.integers(0, 5).map(lambda n: PackName(n.to_bytes(16, "big")))),
    st.integers(40, 2**31),
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**18),
    st.integers(1, 2**40),
    st.binary(min_size=32, max_size=32),
)


def entries_for(per_row):
    count = len(per_row)
    sizes = [0 if one.bits == LISTED else sum(row.plain_length for row in one.rows) for one in per_row]
    ids = np.frombuffer(b"".join(hash32(b"%d" % row) for row in range(count)), np.uint8).reshape(-1, 32)
    keys = [PathKey(b"%06d" % row) for row in range(count)]
    return make_entries(keys, np.ones(count, np.uint8), np.array(sizes, np.uint64), content_ids=ids)


def test_entries_take_the_segments_of_each_row_and_a_leaf_keeps_them():
    one = FileSegments((Segment(PACK, 40, 30, 0, 10, bytes(32)),), ONE_CHUNK)
    two = FileSegments((Segment(OTHER, 90, 30, 5, 10, b"a" * 32), Segment(PACK, 500, 60, 0, 40, b"b" * 32)), 0)
    listed = FileSegments.listed(Place(OTHER, 7000, 300, 9000), b"plain bytes of a list")
    per_row = [one, FileSegments(), two, listed, one]
    entries = with_segments(entries_for(per_row), per_row)
    leaf = decode_node(encode_node(entries), "a test")
    for table in (entries, leaf):
        assert table.segment_ends.tolist() == [1, 1, 3, 4, 5]
        assert [int(kind) for kind in table.kinds] == [1 | ONE_CHUNK, 1, 1, 1 | LISTED, 1 | ONE_CHUNK]
        assert segments_of(table, 1) == []
        assert segments_of(table, 2) == list(two.rows)
        assert segments_of(table, 3) == list(listed.rows)
        digest = rows_digest([table.content_ids[0].tobytes()], [10])
        assert segments_of(table, 0) == [replace(one.rows[0], digest=digest)]


def test_segments_replace_those_that_entries_had():
    first = [FileSegments((Segment(PACK, 40, 30, 0, 10, bytes(32)),), ONE_CHUNK)]
    second = [FileSegments((Segment(OTHER, 90, 25, 0, 5, b"d" * 32), Segment(PACK, 40, 25, 0, 5, b"e" * 32)))]
    entries = with_segments(with_segments(entries_for(first), first), second)
    assert segments_of(entries, 0) == list(second[0].rows)
    assert entries.segments.packs == (OTHER, PACK)


# --- lists ---


def rows_in(columns):
    entries = entries_for([FileSegments()])
    whole = replace(entries, segments=columns, segment_ends=np.array([len(columns)]))
    return segments_of(whole, 0)


@given(st.lists(segments, min_size=1, max_size=80))
def test_a_list_that_was_written_is_read_back(rows):
    plain = encode_segment_list(segment_columns(rows))
    assert rows_in(decode_segment_list(plain, sum(row.plain_length for row in rows), what="x")) == rows


def test_a_list_is_laid_out_as_the_format_says():
    rows = [Segment(OTHER, 0x28, 2, 3, 4, b"d" * 32), Segment(OTHER, 0x50, 6, 7, 8, b"e" * 32)]
    expected = (
        "02000000 01000000"  # segments, packs
        "0400000000000000 0800000000000000"  # plain length
        "00000000 00000000"  # pack
        "28000000 50000000"  # offset
        "02000000 06000000"  # stored
        "03000000 07000000"  # plain offset
        "03000000"  # storage
    )
    plain = encode_segment_list(segment_columns(rows))
    assert plain == bytes.fromhex(expected) + b"d" * 32 + b"e" * 32 + OTHER.name


SOUND = [Segment(PACK, 40 + 200 * row, 120, 0, 100, bytes([row]) * 32) for row in range(65)]
SOUND_SIZE = 65 * 100


@given(st.data())
def test_a_damaged_list_is_corrupt_or_still_adds_up_to_the_size(data):
    plain = bytearray(encode_segment_list(segment_columns(SOUND)))
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(plain), len(plain) - 1, 7, 0, len(plain) // 2]))
    try:
        found = rows_in(decode_segment_list(bytes(plain[:cut]), SOUND_SIZE, what="x"))
    except CorruptObject:
        return
    assert sum(row.plain_length for row in found) == SOUND_SIZE
    assert all(row.offset + row.stored < 2**32 for row in found)


@pytest.mark.parametrize("counts", [(2**32 - 1, 0), (0, 2**32 - 1), (2**32 - 1, 2**32 - 1), (64, 1), (66, 1)])
def test_counts_are_not_believed_before_they_fit_the_bytes(counts):
    plain = encode_segment_list(segment_columns(SOUND))
    forged = b"".join(count.to_bytes(4, "little") for count in counts) + plain[8:]
    with pytest.raises(CorruptObject, match="counts"):
        decode_segment_list(forged, SOUND_SIZE, what="x")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"plain_length": 0}, "empty"),
        ({"plain_length": 101}, "add up"),
        ({"offset": 39}, "outside"),
        ({"stored": 0}, "outside"),
        ({"offset": 2**32 - 1}, "outside"),
    ],
)
def test_a_segment_that_no_file_has_is_refused(change, complaint):
    rows = [replace(SOUND[0], **change), *SOUND[1:]]
    with pytest.raises(CorruptObject, match=complaint):
        decode_segment_list(encode_segment_list(segment_columns(rows)), SOUND_SIZE, what="x")


def test_lengths_that_add_up_only_by_overflowing_64_bits_are_refused():
    rows = [replace(SOUND[0], plain_length=2**63), replace(SOUND[1], plain_length=2**63 + SOUND_SIZE)]
    with pytest.raises(CorruptObject, match="add up"):
        decode_segment_list(encode_segment_list(segment_columns(rows)), SOUND_SIZE, what="x")


def test_a_pack_that_the_list_does_not_name_is_refused():
    columns = segment_columns(SOUND)
    plain = encode_segment_list(columns)
    forged = bytearray(plain)
    forged[8 + 8 * 65] = 1
    with pytest.raises(CorruptObject, match="pack that it does not list"):
        decode_segment_list(bytes(forged), SOUND_SIZE, what="x")
