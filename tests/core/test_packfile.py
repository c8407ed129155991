"""Packs: footers tell what the frames are, whole packs are checked to the byte, golden bytes stay readable."""

import struct
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core import packfile
from dataset_store.core.digest import PackName, StoreId, hash32, rows_digest
from dataset_store.core.frames import EncodedFrame, FrameCodec, FrameKind
from dataset_store.core.packfile import (
    PACK_HEADER_SIZE,
    TRAILER_SIZE,
    PackBuilder,
    check_pack,
    decode_footer,
    frame_rank,
    pack_key,
    rebuild_footer,
    tail_length,
)
from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest

CODEC = FrameCodec()
STORE = StoreId(bytes(range(16)))
NAME = PackName(bytes(range(0xA0, 0xB0)))
GOLDEN = Path(__file__).parents[1] / "golden" / "pack-1.bin"
DATA, LIST, NODE, CENSUS = FrameKind

relaxed = settings(deadline=None)


def noise(length, seed):
    return blake3(str(seed).encode()).digest(length=length)


def encode(kind, *chunks):
    return CODEC.encode_frame(kind, chunks, [hash32(chunk) for chunk in chunks])


def build(frames, store=STORE, name=NAME):
    builder = PackBuilder(store, name)
    for frame in frames:
        builder.append(frame)
    return builder


def packed(frames, **names):
    return b"".join(build(frames, **names).finish())


def check(pack, store=STORE, name=NAME):
    return check_pack(pack, store, name, CODEC, what="The pack")


@st.composite
def frame_lists(draw):
    """Up to eight frames in an order that a pack takes."""
    kinds = sorted(draw(st.lists(st.sampled_from(list(FrameKind)), max_size=8)), key=frame_rank)
    frames = []
    for kind in kinds:
        most = 4 if kind is DATA else 1
        sizes = draw(st.lists(st.integers(1, 300), min_size=1, max_size=most))
        seed = draw(st.integers(0, 3))
        frames.append(encode(kind, *(noise(size, (seed, row)) for row, size in enumerate(sizes))))
    return frames


def golden_frames():
    """Frames whose bytes depend on no compressor: raw, for their chunks do not compress."""
    return [
        encode(DATA, noise(700, "one")),
        encode(DATA, noise(100, "block 1"), noise(1, "block 2"), noise(64, "block 3")),
        encode(LIST, noise(90, "list")),
        encode(NODE, noise(300, "node 1")),
        encode(NODE, noise(200, "node 2")),
        encode(CENSUS, noise(28, "census")),
    ]


SMALL = [encode(DATA, b"text " * 40), encode(DATA, b"ab", b"c"), encode(NODE, noise(40, "n")), encode(CENSUS, b"!")]


# Round trips


@relaxed
@given(frame_lists())
def test_a_pack_is_checked_whole_and_its_footer_tells_its_frames(frames):
    builder = build(frames)
    pack = b"".join(builder.finish())
    footer = check(pack)
    assert len(pack) == builder.size
    assert footer.encode() == builder.footer().encode()
    assert footer.kinds.tolist() == [frame.kind for frame in frames]
    assert footer.plain_lengths().tolist() == [frame.plain for frame in frames]
    assert [row.tobytes() for row in footer.ids] == [chunk for frame in frames for chunk in frame.ids]
    places = zip(footer.offsets.tolist(), footer.stored.tolist(), strict=True)
    assert [pack[offset : offset + stored] for offset, stored in places] == [frame.data for frame in frames]


@relaxed
@given(frame_lists())
def test_a_footer_is_rebuilt_from_the_frames_alone(frames):
    builder = build(frames)
    stored = builder.footer()
    head = b"".join(builder.finish())[: stored.frames_end]
    assert rebuild_footer(head, CODEC, what="The pack").encode() == stored.encode()


@relaxed
@given(frame_lists())
def test_a_footer_is_read_from_the_tail_alone(frames):
    builder = build(frames)
    pack = b"".join(builder.finish())
    needed = tail_length(pack[-TRAILER_SIZE:], what="The pack")
    tail = pack[-needed:]
    footer = decode_footer(tail, STORE, NAME, what="The pack", object_size=len(pack))
    assert footer.encode() == builder.footer().encode() == tail[:-TRAILER_SIZE]
    with pytest.raises(CorruptObject, match="shorter than its footer"):
        decode_footer(tail[1:], STORE, NAME, what="The pack")
    with pytest.raises(CorruptObject, match="bytes that it says"):
        decode_footer(tail, STORE, NAME, what="The pack", object_size=len(pack) + 1)


@relaxed
@given(frame_lists(), st.data())
def test_a_footer_tells_where_each_chunk_is_and_the_digest_of_any_run(frames, data):
    footer = build(frames).footer()
    chunks = [bytes(c) for frame in frames for c in CODEC.decode_frame(frame.data, what="").chunks()]
    where = zip(footer.frame_of_chunk().tolist(), footer.plain_offsets().tolist(), strict=True)
    for chunk, (row, offset) in zip(chunks, where, strict=True):
        plain = CODEC.decode_frame(frames[row].data, what="The frame").plain
        assert plain[offset : offset + len(chunk)] == chunk
    first = data.draw(st.integers(0, len(chunks)))
    last = data.draw(st.integers(first, len(chunks)))
    run = chunks[first:last]
    assert footer.run_digest(first, last) == rows_digest([hash32(c) for c in run], [len(c) for c in run])


@relaxed
@given(frame_lists(), st.data())
def test_a_pack_that_is_taken_while_it_grows_is_the_same_bytes_and_the_builder_keeps_none_that_were_taken(frames, data):
    builder, taken = PackBuilder(STORE, NAME), bytearray()
    for frame in frames:
        builder.append(frame)
        if data.draw(st.booleans()):
            pieces = b"".join(builder.take())
            assert pieces
            taken += pieces
        assert len(taken) + builder.waiting == builder.footer().frames_end
    taken += b"".join(builder.finish())
    assert builder.waiting == 0
    assert taken == packed(frames)
    assert len(taken) == builder.size


def test_the_first_node_frame_is_found_without_the_footer_and_is_where_the_frames_end_if_there_is_none():
    for frames, expected in [(SMALL, 2), (SMALL[:2], 2), ([], 0), ([SMALL[0], SMALL[3]], 2)]:
        pack = packed(frames)
        start, _, first_node = struct.unpack("<QQQ", pack[-TRAILER_SIZE:][:24])
        assert first_node == PACK_HEADER_SIZE + sum(len(frame.data) for frame in frames[:expected])
        assert start == PACK_HEADER_SIZE + sum(len(frame.data) for frame in frames)


def test_the_key_of_a_pack_begins_with_the_first_two_digits_of_its_name():
    assert pack_key(NAME) == "packs/a0/a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"


# What a pack takes


@pytest.mark.parametrize(("first", "then"), [(LIST, DATA), (NODE, LIST), (CENSUS, DATA), (CENSUS, LIST)])
def test_a_pack_takes_data_then_lists_then_nodes_and_the_census(first, then):
    builder = build([encode(DATA, b"x"), encode(first, b"x"), encode(first, b"y")])
    assert not builder.takes(encode(then, b"x"))
    with pytest.raises(InvalidRequest):
        builder.append(encode(then, b"x"))
    assert len(builder) == 3


def test_nodes_and_the_census_stand_in_any_order():
    assert check(packed([encode(CENSUS, b"x"), encode(NODE, b"y")])).kinds.tolist() == [CENSUS, NODE]


def test_a_pack_stays_under_four_gibibytes():
    class Vast(bytes):
        def __len__(self):
            return 1 << 30

    vast = EncodedFrame(DATA, Vast(), (hash32(b""),), (1,))
    builder = build([vast] * 3)
    assert not builder.takes(vast)
    assert builder.takes(encode(DATA, b"x"))


# Hostile bytes


def test_every_byte_of_a_pack_flipped_is_found_or_changes_nothing():
    pack = packed(SMALL)
    original = check(pack).encode()
    inert = 0
    for at in range(len(pack)):
        for bit in (0x01, 0x10, 0x80):
            flipped = bytearray(pack)
            flipped[at] ^= bit
            try:
                footer = check(bytes(flipped))
            except CorruptObject:
                continue
            except FormatTooNew:
                assert at in {7, len(pack) - 1}
                continue
            inert += 1
            frames = rebuild_footer(bytes(flipped), CODEC, what="The pack")
            assert footer.encode() == frames.encode() == original
    assert inert <= 8, "only bits that the compressor leaves unused may be flipped unseen"


def test_every_byte_of_a_tail_flipped_is_found():
    pack = packed(SMALL)
    needed = tail_length(pack, what="The pack")
    for at in range(len(pack) - needed, len(pack)):
        flipped = bytearray(pack)
        flipped[at] ^= 0x01
        with pytest.raises((CorruptObject, FormatTooNew)):
            decode_footer(flipped[-needed:], STORE, NAME, what="The pack")


def test_a_pack_cut_anywhere_is_refused():
    pack = packed(SMALL)
    for length in range(len(pack)):
        with pytest.raises(CorruptObject):
            check(pack[:length])
        with pytest.raises(CorruptObject):
            decode_footer(pack[:length], STORE, NAME, what="The pack")


@pytest.mark.parametrize("names", [{"name": PackName(bytes(16))}, {"store": StoreId(bytes(16))}])
def test_a_pack_under_another_name_or_of_another_store_is_refused(names):
    pack = packed(SMALL, **names)
    with pytest.raises(CorruptObject, match="another pack"):
        check(pack)
    with pytest.raises(CorruptObject, match="another pack"):
        decode_footer(pack, STORE, NAME, what="The pack")
    renamed = pack[:8] + STORE + NAME + pack[PACK_HEADER_SIZE:]
    with pytest.raises(CorruptObject, match="another pack"):
        check(renamed)


def test_a_damaged_frame_among_others_is_named_by_its_offset():
    pack = bytearray(packed(golden_frames()))
    offset = int(build(golden_frames()).footer().offsets[1])
    pack[offset + 4] = 9
    with pytest.raises(CorruptObject, match="codec"):
        rebuild_footer(bytes(pack), CODEC, what="The pack")
    compressed = build(SMALL)
    pack = bytearray(b"".join(compressed.finish()))
    pack[PACK_HEADER_SIZE + 20] ^= 0xFF
    with pytest.raises(CorruptObject, match="The frame at 40 of The pack"):
        rebuild_footer(bytes(pack), CODEC, what="The pack")


def test_an_object_larger_than_any_pack_is_not_walked(monkeypatch):
    pack = packed(SMALL)
    monkeypatch.setattr(packfile, "PACK_LIMIT", len(pack))
    with pytest.raises(CorruptObject, match="larger"):
        rebuild_footer(pack, CODEC, what="The pack")


@pytest.mark.parametrize(
    ("start", "length", "magic"),
    [
        (40, 8, b"DSTOREP\x00"),
        (40, 8, b"DSTOREQ\x02"),
        (39, 8, b"DSTOREP\x01"),
        (40, 7, b"DSTOREP\x01"),
        (40, (1 << 32) - 104, b"DSTOREP\x01"),
        (1 << 32, 8, b"DSTOREP\x01"),
        (2**64 - 1, 2**64 - 1, b"DSTOREP\x01"),
    ],
)
def test_no_tail_is_asked_for_that_no_pack_can_have(start, length, magic):
    assert tail_length(struct.pack("<QQQ32s8s", 40, 8, 40, b"", b"DSTOREP\x01"), what="The pack") == 72
    with pytest.raises(CorruptObject):
        tail_length(struct.pack("<QQQ32s8s", start, length, 40, b"", magic), what="The pack")


def test_a_pack_of_a_later_format_says_to_install_a_newer_version():
    pack = packed(SMALL)
    later = bytearray(pack)
    later[-1] = 2
    for read in (check, lambda pack: decode_footer(pack, STORE, NAME, what="The pack")):
        with pytest.raises(FormatTooNew, match="format version 2"):
            read(bytes(later))
    later = bytearray(pack)
    later[7] = 9
    with pytest.raises(FormatTooNew, match="format version 9"):
        check(bytes(later))


def forge(footer, first_node=None, start=None, head=None, tail=b""):
    """A pack's tail with a valid hash over whatever the footer says."""
    body = footer.encode() + tail
    body = (head or body[:8]) + body[8:]
    start = footer.frames_end if start is None else start
    first_node = footer.first_node if first_node is None else first_node
    numbers = struct.pack("<QQQ", start, len(body), first_node)
    magic = b"DSTOREP\x01"
    return body + numbers + hash32(magic + STORE + NAME + body + numbers) + magic


def columns(**changes):
    footer = build(golden_frames()).footer()
    edited = {}
    for name, (row, value) in changes.items():
        edited[name] = getattr(footer, name).copy()
        edited[name][row] = value
    return replace(footer, **edited)


def restored(row, stored):
    """The golden footer with one frame of another stored length and the frames after it moved along."""
    footer = columns(stored=(row, stored))
    lengths = footer.stored.astype(np.int64)
    return replace(footer, offsets=(40 + np.cumsum(lengths) - lengths).astype(np.uint32))


def test_a_forged_tail_of_no_change_is_read():
    footer = decode_footer(forge(columns()), STORE, NAME, what="The pack")
    assert footer.encode() == columns().encode()
    smallest = restored(1, 33)
    assert decode_footer(forge(smallest), STORE, NAME, what="The pack").encode() == smallest.encode()


@pytest.mark.parametrize(
    "tail",
    [
        forge(columns(kinds=(0, 0))),
        forge(columns(kinds=(0, 9))),
        forge(columns(kinds=(0, NODE))),
        forge(columns(kinds=(1, LIST))),
        forge(columns(chunk_counts=(0, 0))),
        forge(columns(chunk_counts=(0, 2))),
        forge(columns(chunk_counts=(slice(0, 2), [0, 4]))),
        forge(columns(chunk_counts=(0, 2**32 - 1))),
        forge(columns(lengths=(0, 0))),
        forge(columns(lengths=(0, 262_145))),
        forge(columns(lengths=(1, 2**32 - 1))),
        forge(columns(lengths=(5, (16 << 20) + 1))),
        forge(columns(offsets=(0, 41))),
        forge(columns(offsets=(3, 0))),
        forge(columns(stored=(0, 21))),
        forge(restored(0, 20)),
        forge(restored(1, 32)),
        forge(columns(stored=(2, 2**32 - 1))),
        forge(columns(), first_node=40),
        forge(columns(), start=columns().frames_end + 1),
        forge(columns(), start=39),
        forge(columns(), start=2**64 - 1),
        forge(columns(), tail=b"\x04"),
        forge(columns(), head=struct.pack("<II", 2**32 - 1, 2**32 - 1)),
        forge(columns(), head=struct.pack("<II", 5, 8)),
        forge(columns(), head=struct.pack("<II", 6, 7)),
    ],
)
def test_a_footer_of_a_valid_hash_that_contradicts_itself_is_refused(tail):
    with pytest.raises(CorruptObject):
        decode_footer(tail, STORE, NAME, what="The pack")


@relaxed
@given(st.binary(max_size=200), st.integers(0, 600))
def test_arbitrary_bytes_raise_nothing_but_the_errors_of_a_store(junk, cut):
    pack = packed(SMALL)
    for hostile in (junk, pack[:cut] + junk, junk + pack[cut:], pack[:cut] + junk + pack[cut:]):
        if hostile != pack:
            with pytest.raises((CorruptObject, FormatTooNew)):
                check(hostile)


# Golden


def test_the_golden_pack_is_read_and_made_again_to_the_byte():
    golden = GOLDEN.read_bytes()
    frames = golden_frames()
    footer = check(golden)
    assert footer.chunk_counts.tolist() == [1, 3, 1, 1, 1, 1]
    assert footer.lengths.tolist() == [700, 100, 1, 64, 90, 300, 200, 28]
    assert footer.kinds.tolist() == [1, 1, 2, 3, 3, 4]
    assert footer.offsets.dtype == footer.lengths.dtype == np.uint32
    assert [row.tobytes() for row in footer.ids] == [chunk for frame in frames for chunk in frame.ids]
    assert packed(frames) == golden
