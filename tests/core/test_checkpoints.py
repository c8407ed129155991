"""Checkpoints: what went in comes out, and nothing is decompressed that was not announced."""

import tracemalloc
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from dataset_store.core.checkpoints import MAX_PLAIN, SPANS, decode_checkpoint, encode_checkpoint
from dataset_store.core.envelope import CHECKPOINT, HEADER_SIZE, seal
from dataset_store.errors import CorruptObject, FormatTooNew, InvalidRequest

OBJECTS = [bytes([i]) * (10 + i) for i in range(64)]
PLAIN = b"".join(pack("<I", len(data)) + data for data in OBJECTS)
FRAME = ZstdCompressor().compress(PLAIN)


def forged(frame: bytes, *, level: int = 1, count: int = 64, length: int = len(PLAIN)) -> bytes:
    return seal(CHECKPOINT, pack("<B3xIQ", level, count, length) + frame)


@pytest.mark.parametrize("level", [1, 2])
def test_the_objects_come_back_in_order(level):
    objects = [i.to_bytes(4, "big") * (1 + i % 7) for i in range(SPANS[level])]
    assert decode_checkpoint(level, encode_checkpoint(level, objects), "it") == objects


def test_the_bytes_are_those_of_the_specification():
    payload = encode_checkpoint(1, OBJECTS)[HEADER_SIZE:]
    assert payload[:16] == b"\x01\0\0\0" + pack("<IQ", 64, len(PLAIN))
    assert decode_checkpoint(1, forged(FRAME), "it") == OBJECTS


@pytest.mark.parametrize(("level", "count"), [(1, 63), (1, 65), (2, 64), (0, 1), (3, 64)])
def test_a_level_holds_exactly_its_number_of_entries(level, count):
    with pytest.raises(InvalidRequest):
        encode_checkpoint(level, [b"x"] * count)


def test_more_bytes_than_a_level_may_hold_are_not_put_into_one():
    with pytest.raises(InvalidRequest):
        encode_checkpoint(1, [bytes(MAX_PLAIN[1])] + [b""] * 63)


def test_a_frame_that_declares_another_size_is_refused_without_being_decompressed():
    bomb = ZstdCompressor().compress(bytes(200 << 20))
    tracemalloc.start()
    with pytest.raises(CorruptObject, match="it"):
        decode_checkpoint(1, forged(bomb), "it")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    "data",
    [
        forged(ZstdCompressor(write_content_size=False).compress(PLAIN)),
        forged(FRAME, length=len(PLAIN) - 1),
        forged(ZstdCompressor().compress(bytes(200 << 20)), length=200 << 20),
        forged(FRAME, level=2),
        forged(FRAME, count=63),
        forged(FRAME + b"x"),
        forged(FRAME + FRAME),
        forged(FRAME[:-1]),
        forged(b""),
        forged(b"\x50\x2a\x4d\x18" + pack("<I", len(PLAIN)) + PLAIN),
        forged(ZstdCompressor().compress(PLAIN[:-1]), length=len(PLAIN) - 1),
        forged(ZstdCompressor().compress(PLAIN + b"\0"), length=len(PLAIN) + 1),
        forged(ZstdCompressor().compress(bytes(1 << 20)), length=1 << 20),
        seal(CHECKPOINT, b"\x01"),
        b"",
    ],
)
def test_forged_checkpoints_are_corrupt(data):
    with pytest.raises(CorruptObject):
        decode_checkpoint(1, data, "it")


@given(st.data())
def test_a_changed_payload_raises_only_typed_errors(data):
    payload = bytearray(encode_checkpoint(1, OBJECTS)[HEADER_SIZE:])
    start = data.draw(st.integers(0, len(payload)))
    payload[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        objects = decode_checkpoint(1, seal(CHECKPOINT, bytes(payload)), "it")
    except (CorruptObject, FormatTooNew):
        return
    assert len(objects) == 64
