"""Frames: what is encoded comes back, and whatever else is given raises CorruptObject in little memory."""

import itertools
import struct
import subprocess
import sys

import pytest
import zstandard
from blake3 import blake3
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dataset_store.core.digest import hash32, rows_digest
from dataset_store.core.frames import (
    HEADER_SIZE,
    PLAIN_LIMITS,
    FrameCodec,
    FrameKind,
    frame_length,
    frame_offsets,
    take_segment,
    whole_frames,
)
from dataset_store.errors import CorruptObject, InvalidRequest

CODEC = FrameCodec()
DATA, LIST, NODE, CENSUS = FrameKind
TEXT = b"a chunk of text that compresses well, for it says again and again that it compresses well. " * 20
RAW, ZSTD = 0, 1


def noise(length, seed=b"noise"):
    return blake3(seed).digest(length=length)


relaxed = settings(deadline=None)
chunk_bytes = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.integers(1, 3000).map(lambda n: TEXT[:n]),
    st.integers(1, 3000).map(noise),
)
blocks = st.lists(chunk_bytes, min_size=1, max_size=6)


def encode(kind, *chunks):
    return CODEC.encode_frame(kind, chunks, [hash32(chunk) for chunk in chunks])


def header(kind=DATA, codec=RAW, zero=0, plain=1, payload=1, chunks=1, magic=b"DSF1"):
    return struct.pack("<4sBBHIII", magic, kind, codec, zero, plain, payload, chunks)


def zstd_frame(payload, plain, kind=DATA):
    return header(kind, ZSTD, 0, plain, len(payload)) + payload


def decode(data):
    return CODEC.decode_frame(data, what="The frame")


def segment(chunks):
    return rows_digest([hash32(chunk) for chunk in chunks], [len(chunk) for chunk in chunks])


# Digests


def test_a_hash_is_what_b3sum_prints():
    assert hash32(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def test_a_segment_digest_is_the_hash_of_its_rows_of_chunk_id_and_little_endian_length():
    ids = [hash32(b"a"), hash32(b"b")]
    rows = ids[0] + b"\x01\0\0\0" + ids[1] + b"\x02\x01\0\0"
    assert rows_digest(ids, [1, 258]) == blake3(rows).digest()


def test_a_segment_digest_needs_as_many_lengths_as_ids():
    with pytest.raises(ValueError, match="zip"):
        rows_digest([hash32(b"a")], [1, 2])


# Round trips


@relaxed
@given(blocks)
def test_a_data_frame_gives_back_its_chunks(chunks):
    frame = encode(DATA, *chunks)
    decoded = decode(frame.data)
    assert decoded.kind is DATA
    assert [bytes(chunk) for chunk in decoded.chunks()] == chunks
    assert decoded.lengths == frame.lengths == tuple(map(len, chunks))
    assert frame.plain == len(decoded.plain) == decoded.ends[-1]


@relaxed
@given(st.sampled_from([LIST, NODE, CENSUS]), chunk_bytes)
def test_a_frame_of_another_kind_gives_back_its_one_chunk_checked(kind, plain):
    data = encode(kind, plain).data
    assert CODEC.decode_whole(data, kind, hash32(plain), what="The node") == plain


@relaxed
@given(st.lists(blocks, max_size=5))
def test_a_run_of_frames_is_decoded_in_order_and_its_offsets_are_found_without_decoding(many):
    frames = [encode(DATA, *chunks) for chunks in many]
    run = b"".join(frame.data for frame in frames)
    decoded = list(CODEC.decode_frames(run, what="The run"))
    assert [list(map(bytes, frame.chunks())) for frame in decoded] == many
    found = list(frame_offsets(b"head" + run + b"tail", 4, what="The run"))
    assert [stored for _, stored in found] == [len(frame.data) for frame in frames]
    assert [offset for offset, _ in found] == [
        4 + sum(len(frame.data) for frame in frames[:row]) for row in range(len(frames))
    ]


@relaxed
@given(blocks)
def test_the_first_twenty_bytes_of_a_frame_tell_its_length(chunks):
    data = encode(DATA, *chunks).data
    assert frame_length(data[:HEADER_SIZE], what="The frame") == len(data)


def test_the_header_is_as_specified():
    assert encode(NODE, b"xyz").data == b"DSF1\x03\0\0\0\x03\0\0\0\x03\0\0\0\x01\0\0\0xyz"
    assert encode(DATA, b"xyz", b"uv").data == (
        b"DSF1\x01\0\0\0\x05\0\0\0\x05\0\0\0\x02\0\0\0" + b"\x03\0\0\0\x02\0\0\0" + b"xyzuv"
    )


def test_a_frame_is_compressed_where_that_saves_five_percent_and_raw_otherwise():
    level = zstandard.ZstdCompressor(level=1)
    seen = set()
    for length in range(40, 120, 2):
        plain = noise(1000) + bytes(length)
        saves = len(level.compress(plain)) <= 0.95 * len(plain)
        assert encode(DATA, plain).data[5] == (ZSTD if saves else RAW)
        seen.add(saves)
    assert seen == {True, False}


def test_a_frame_takes_any_kind_of_buffer_and_copies_it():
    buffer = bytearray(b"abc")
    frame = encode(DATA, memoryview(buffer), bytearray(b"de"))
    buffer[:] = b"xyz"
    assert bytes(decode(frame.data).plain) == b"abcde"


@pytest.mark.parametrize("kind", FrameKind)
def test_a_frame_holds_plain_bytes_up_to_the_limit_of_its_kind_and_no_more(kind):
    most = bytes(PLAIN_LIMITS[kind])
    assert bytes(decode(encode(kind, most).data).plain) == most
    with pytest.raises(InvalidRequest, match="limit"):
        encode(kind, most + b"x")


def test_a_frame_without_chunks_or_with_an_empty_one_or_with_two_nodes_is_refused():
    for chunks in [(), (b"",), (b"a", b"")]:
        with pytest.raises(InvalidRequest):
            encode(DATA, *chunks)
    with pytest.raises(InvalidRequest):
        encode(NODE, b"a", b"b")
    with pytest.raises(InvalidRequest):
        CODEC.encode_frame(DATA, [b"a"], [])


# Segments


@st.composite
def segments(draw):
    """Frames, and a run of their chunks: (frames, plain offset, chunks of the run)."""
    many = draw(st.lists(blocks, min_size=1, max_size=4))
    flat = [chunk for chunks in many for chunk in chunks]
    first = draw(st.integers(0, len(flat) - 1))
    last = draw(st.integers(first + 1, len(flat)))
    return [encode(DATA, *chunks) for chunks in many], sum(map(len, flat[:first])), flat[first:last]


@relaxed
@given(segments())
def test_any_run_of_chunks_is_read_and_checked_from_whole_frames(case):
    frames, offset, run = case
    data, length = b"".join(frame.data for frame in frames), sum(map(len, run))
    read = CODEC.decode_segment(data, offset, length, segment(run), what="The segment")
    assert read == b"".join(run)
    decoded = [decode(frame.data) for frame in frames]
    assert take_segment(decoded, offset, length, segment(run), what="The segment") == read


@relaxed
@given(segments(), st.integers(-3, 3), st.integers(-3, 3))
def test_a_segment_read_a_little_off_is_refused(case, shift, growth):
    assume((shift, growth) != (0, 0))
    frames, offset, run = case
    plain = b"".join(bytes(chunk) for frame in frames for chunk in decode(frame.data).chunks())
    data, length = b"".join(frame.data for frame in frames), sum(map(len, run))
    assume(plain[max(0, offset + shift) :][: length + growth] != b"".join(run))
    with pytest.raises(CorruptObject):
        CODEC.decode_segment(data, offset + shift, length + growth, segment(run), what="The segment")


@relaxed
@given(segments(), st.data())
def test_a_segment_with_any_byte_changed_gives_its_own_bytes_or_an_error(case, data):
    frames, offset, run = case
    stored = bytearray(b"".join(frame.data for frame in frames))
    stored[data.draw(st.integers(0, len(stored) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = CODEC.decode_segment(stored, offset, sum(map(len, run)), segment(run), what="The segment")
    except CorruptObject:
        return
    assert read == b"".join(run)


def test_a_segment_of_anything_but_data_frames_is_refused():
    with pytest.raises(CorruptObject, match="no file's data"):
        CODEC.decode_segment(encode(NODE, b"abc").data, 0, 3, segment([b"abc"]), what="The segment")


def test_a_segment_of_no_bytes_or_of_more_than_its_frames_hold_is_refused():
    frame = encode(DATA, b"abc")
    for length, run in [(0, []), (-3, []), (4, [b"abc"])]:
        with pytest.raises(CorruptObject):
            take_segment([decode(frame.data)], 0, length, segment(run), what="The segment")
        with pytest.raises(CorruptObject):
            CODEC.decode_segment(frame.data, 0, length, segment(run), what="The segment")


def test_frames_beside_the_run_are_not_decompressed():
    broken = bytearray(encode(DATA, TEXT).data)
    broken[HEADER_SIZE:] = bytes(len(broken) - HEADER_SIZE)
    stored = bytes(broken) + encode(DATA, b"abc").data + bytes(broken)
    assert CODEC.decode_segment(stored, len(TEXT), 3, segment([b"abc"]), what="The segment") == b"abc"


# Hostile bytes


def test_a_frame_cut_anywhere_or_followed_by_anything_is_refused():
    data = encode(DATA, TEXT, b"more", noise(50)).data
    for cut in range(len(data)):
        with pytest.raises(CorruptObject):
            decode(data[:cut])
    for cut in range(4, len(data)):
        with pytest.raises(CorruptObject, match="ends within"):
            list(frame_offsets(data[:cut], 0, what="The run"))
    with pytest.raises(CorruptObject):
        decode(data + b"\0")


@relaxed
@given(st.binary(max_size=60), blocks)
def test_arbitrary_bytes_raise_nothing_but_corrupt_object(junk, chunks):
    data = encode(DATA, *chunks).data
    for hostile in (junk, b"DSF1" + junk, data[:6] + junk, data[:HEADER_SIZE] + junk, data + junk):
        for read in (decode, lambda data: list(CODEC.decode_frames(data, what="The run"))):
            try:
                read(hostile)
            except CorruptObject as error:
                assert error.next_step


@pytest.mark.parametrize(
    "forged",
    [
        header(magic=b"DSF2") + b"x",
        header(kind=0) + b"x",
        header(kind=5) + b"x",
        header(codec=2) + b"x",
        header(zero=1) + b"x",
        header(chunks=0) + b"x",
        header(plain=0, payload=0),
        header(kind=NODE, plain=0, payload=0),
        header(plain=2, payload=1) + b"x",
        header(plain=262_145, payload=262_145) + bytes(262_145),
        header(plain=2**32 - 1, payload=1, codec=ZSTD) + b"x",
        header(plain=2, payload=2, chunks=3) + struct.pack("<3I", 1, 1, 0) + b"xy",
        header(plain=2, payload=2, chunks=2) + struct.pack("<2I", 1, 2) + b"xy",
        header(plain=2, payload=2, chunks=2) + struct.pack("<2I", 2, 0) + b"xy",
        header(plain=2, payload=2, chunks=2) + struct.pack("<2I", 3, 2**32 - 1) + b"xy",
        header(plain=2, payload=2, chunks=2**32 - 1) + b"xy",
        header(kind=NODE, plain=2, payload=2, chunks=2) + struct.pack("<2I", 1, 1) + b"xy",
    ],
)
def test_a_header_that_contradicts_itself_or_a_limit_is_refused(forged):
    with pytest.raises(CorruptObject):
        decode(forged)


@pytest.mark.parametrize("compressed", ["without its size", "of another size", "twice", "with a tail", "skippable"])
def test_a_zstd_payload_that_is_not_exactly_one_frame_of_the_declared_size_is_refused(compressed):
    whole = zstandard.ZstdCompressor(level=1).compress(TEXT)
    payload = {
        "without its size": zstandard.ZstdCompressor(write_content_size=False).compress(TEXT),
        "of another size": zstandard.ZstdCompressor().compress(TEXT + b"x"),
        "twice": whole + whole,
        "with a tail": whole + b"\0",
        "skippable": struct.pack("<II", 0x184D2A50, len(TEXT)) + TEXT,
    }[compressed]
    assert decode(zstd_frame(whole, len(TEXT))).plain == TEXT
    with pytest.raises(CorruptObject):
        decode(zstd_frame(payload, len(TEXT)))


def test_a_zstd_payload_that_asks_for_a_huge_window_is_refused():
    plain_size_with_two_bytes, window_of_two_gigabytes = 0x40, (31 - 10) << 3
    payload = struct.pack("<IBBH", 0xFD2FB528, plain_size_with_two_bytes, window_of_two_gigabytes, 1000 - 256)
    payload += struct.pack("<I", 1 | 1 << 1 | 1000 << 3)[:3] + b"x"
    assert zstandard.get_frame_parameters(payload).content_size == 1000
    with pytest.raises(CorruptObject, match="window"):
        decode(zstd_frame(payload, 1000))


@pytest.mark.parametrize("kind", FrameKind)
def test_a_whole_frame_of_another_kind_or_hash_is_refused(kind):
    data = encode(kind, b"abc").data
    with pytest.raises(CorruptObject, match="hash"):
        CODEC.decode_whole(data, kind, hash32(b"abd"), what="The frame")
    with pytest.raises(CorruptObject, match="kind"):
        CODEC.decode_whole(data, FrameKind(kind % 4 + 1), hash32(b"abc"), what="The frame")


FORGED_SIZES = """
import resource, struct, zstandard
from dataset_store.core.frames import FrameCodec
from dataset_store.errors import CorruptObject

def frame(kind, plain, payload, chunks=1):
    return struct.pack("<4sBBHIII", b"DSF1", kind, 1, 0, plain, len(payload), chunks) + payload

codec = FrameCodec()
bomb = zstandard.ZstdCompressor().compress(bytes(1 << 30))
sizes = [262_144, 262_145, 16 << 20, (16 << 20) + 1, 1 << 30, (1 << 32) - 1]
forged = [frame(kind, plain, bomb) for kind in (1, 2, 3, 4) for plain in sizes]
forged += [frame(1, plain, bytes(100), chunks=plain) for plain in sizes]
many = frame(1, 262_144, zstandard.ZstdCompressor().compress(bytes(262_144))) * 20_000
held = resource.getpagesize() * int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20),) * 2)
refused = 0
for data in forged:
    try:
        codec.decode_frame(data, what="The frame")
    except CorruptObject:
        refused += 1
try:
    codec.decode_segment(many, 0, 262_144, bytes(32), what="The segment")
except CorruptObject:
    refused += 1
print(refused == len(forged) + 1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit on address space")
def test_forged_sizes_are_refused_in_little_memory():
    run = subprocess.run([sys.executable, "-c", FORGED_SIZES], capture_output=True, text=True, check=False)
    assert run.stdout == "True\n", run.stderr


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8), st.lists(st.integers(0, 400), max_size=12)
)
def test_frames_come_whole_however_their_bytes_are_cut(contents, cuts):
    codec = FrameCodec()
    frames = [codec.encode_frame(FrameKind.DATA, [data], [hash32(data)]).data for data in contents]
    run = b"".join(frames)
    ends = sorted({min(cut * 4, len(run)) for cut in cuts} | {len(run)})
    pieces = [run[start:end] for start, end in itertools.pairwise([0, *ends])]
    assert [bytes(frame) for frame in whole_frames(pieces, what="it")] == frames
    with pytest.raises(CorruptObject, match="ends within a frame"):
        list(whole_frames([*pieces[:-1], pieces[-1][:-1]], what="it"))
