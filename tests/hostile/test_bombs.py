"""Small objects that claim to be large are refused by what they claim, in a process that could not hold the rest."""

import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from zstandard import ZstdCompressor

from dataset_store.core.log_entries import Blob, SegmentRow
from dataset_store.dataset.annotations.arrow import decode_value, encode_value
from dataset_store.errors import CorruptObject, InvalidRequest
from dataset_store.storage.blobs import read_blob

SPARE = 96 << 20
"""Bytes of memory beyond what is in use; every bomb here would take 256 MiB and more."""

IN_BOUNDS = f"""
import resource, struct, sys
import numpy, zstandard
from pathlib import Path
from dataset_store.core.checkpoints import decode_checkpoint
from dataset_store.core.envelope import CHECKPOINT, seal
from dataset_store.core.frames import FrameCodec
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.segments import decode_segment_list
from dataset_store.core.packfile import Footer
from dataset_store.errors import CorruptObject
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {SPARE},) * 2)
payload = sys.stdin.buffer.read()

def frame(kind, plain, payload):
    return struct.pack("<4sBBHIII", b"DSF1", kind, 1, 0, plain, len(payload), 1) + payload

def checkpoint(level, count, plain, payload):
    return seal(CHECKPOINT, struct.pack("<B3xIQ", level, count, plain) + payload)

def refused(decode, *arguments, **named):
    try:
        decode(*arguments, **named)
    except CorruptObject as error:
        print(error)
    else:
        print("taken")
"""

SMALL = "zstandard.compress(bytes(4096), 1)"
WINDOW = r'b"\x28\xb5\x2f\xfd" + bytes([0x80, 17 << 3]) + (1 << 20).to_bytes(4, "little") + bytes([3, 0, 0x80, 0])'

CASES = {
    "a frame that declares it": "FrameCodec().decode_frame, frame(1, 262_144, payload), what='it'",
    "a frame whose header declares it": "FrameCodec().decode_frame, frame(3, 2**28, payload), what='it'",
    "a node": "FrameCodec().decode_whole, frame(3, 2**24, payload), 3, bytes(32), what='it'",
    "a checkpoint": "decode_checkpoint, 1, checkpoint(1, 64, 2**22, payload), 'it'",
    "a checkpoint whose header declares it": "decode_checkpoint, 2, checkpoint(2, 4096, 2**28, payload), 'it'",
    "a window of 128 MiB": f"FrameCodec().decode_frame, frame(3, 1 << 20, {WINDOW}), what='it'",
    "a zero byte behind it": f"FrameCodec().decode_frame, frame(3, 4096, {SMALL} + bytes(1)), what='it'",
    "junk behind it": f"FrameCodec().decode_frame, frame(3, 4096, {SMALL} + b'junk'), what='it'",
    "another frame behind it": f"FrameCodec().decode_frame, frame(3, 4096, {SMALL} * 2), what='it'",
    "a leaf of any number of rows": "decode_node, b'DSN1' + bytes(4) + struct.pack('<6I', *[2**32 - 1] * 6), 'it'",
    "an inner node of them": "decode_node, b'DSN1' + b'\\1\\0\\0\\0' + struct.pack('<6I', 2**31, 1, 0, 0, 0, 9), 'it'",
    "a segment list of them": "decode_segment_list, struct.pack('<II', 2**32 - 1, 2**32 - 1), 5, what='it'",
    "a footer of them": "Footer.decode, struct.pack('<II', 2**32 - 1, 2**32 - 1), what='it'",
}
"""What is refused before room is made for it; `payload` is 256 MiB of zeros, compressed."""


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    """What a process that could not hold them says of each of them, and of one that a careless decoder is given."""
    script = IN_BOUNDS + "".join(f"refused({case})\n" for case in CASES.values())
    script += "zstandard.ZstdDecompressor().decompress(payload, max_output_size=1 << 20)\n"
    payload = ZstdCompressor(level=1).compress(bytes(256 << 20))
    done = subprocess.run([sys.executable, "-c", script], input=payload, capture_output=True, timeout=60)
    said = dict(zip(CASES, done.stdout.decode().splitlines(), strict=True))
    return said | {"a careless decoder": done.stderr.decode().splitlines()[-1]}


@pytest.mark.parametrize("name", CASES)
def test_a_bomb_is_refused_before_room_is_made_for_it(answers, name):
    assert answers[name] != "taken"
    assert ("too large a window" in answers[name]) == ("window" in name)


def test_a_decoder_that_does_not_look_would_not_pass(answers):
    assert answers["a careless decoder"].startswith("MemoryError")


# Arrow streams


FRAME = {b"dataset_store.made_of": b"dataframe"}


def stream(column, made_of=FRAME, **options):
    table = pa.table({"values": column}).replace_schema_metadata(made_of)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def longer(data, count, claimed):
    """The same stream, which claims another number of values wherever it says that one."""
    assert struct.pack("<q", count) in data
    return data.replace(struct.pack("<q", count), struct.pack("<q", claimed))


def one_text(count):
    """An array of texts that are one text of a mebibyte, by number."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int8()), pa.array(["x" * (1 << 20)]))


ARRAY = {b"dataset_store.made_of": b"array", b"dataset_store.dtype": b"<U250000000", b"dataset_store.shape": b"[100]"}

STREAMS = {
    "nulls": longer(stream(pa.nulls(12_345)), 12_345, 1 << 40),
    "nulls in a list": longer(stream(pa.ListArray.from_arrays([0, 12_345], pa.nulls(12_345))), 12_345, 1 << 40),
    "a run": stream(pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30], pa.int32()), pa.array([1.5]))),
    "compressed": stream(pa.array(np.zeros(1 << 26, np.int8)), compression="zstd"),
    "views": stream(pa.array(["x" * 100], pa.string_view())),
    "numbers of texts in a list": stream(pa.ListArray.from_arrays(pa.array([0, 500], pa.int32()), one_text(500))),
    "short texts of a long type": stream(pa.array(["a"] * 100), ARRAY),
    "objects": stream(pa.array([1, 2]), ARRAY | {b"dataset_store.dtype": b"|O"}),
}


@pytest.mark.parametrize("name", STREAMS)
def test_an_arrow_stream_that_would_become_much_is_refused_unread(name):
    data = STREAMS[name]
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    with pytest.raises(CorruptObject, match="A piece"):
        decode_value(data, what="A piece")
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_columns_that_lie_in_the_same_bytes_are_refused():
    data = stream(pa.array(range(4_321), pa.int64()))
    at = data.index(struct.pack("<qq", 0, 4_321 * 8))  # where the values' buffer is told
    with pytest.raises(CorruptObject, match="same bytes"):
        decode_value(data[: at + 8] + struct.pack("<q", 1 << 40) + data[at + 16 :], what="A piece")


def test_what_is_written_is_within_the_same_bounds():
    moderate = pd.DataFrame({"a": [None] * 100_000})
    assert len(decode_value(encode_value(moderate), what="A piece")) == 100_000
    with pytest.raises(InvalidRequest, match="values"):
        encode_value(pa.table({"a": pa.nulls(1 << 26)}))
    with pytest.raises(InvalidRequest, match="MiB"):
        encode_value(np.zeros(40_000, "<U10000"))


# Blobs


@pytest.mark.parametrize(("times", "size"), [(512, 512 << 20), (512, 1 << 20), (300, 300 << 20)])
def test_a_blob_that_names_the_same_bytes_again_and_again_is_refused_before_it_is_read(times, size):
    """Of a blob that claims too much, or other than its segments do, nothing is asked for."""
    row = SegmentRow(0, "0" * 32, 40, 4_096, 0, 1 << 20, "0" * 64)
    blob = Blob(id="0" * 64, size=size, segments=(row,) * times)
    with pytest.raises(CorruptObject, match="claims"):
        read_blob(blob, None, what="A blob", most=256 << 20)
