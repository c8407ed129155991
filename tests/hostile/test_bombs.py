"""Small objects that claim to be large are refused by what they claim, in a process that could not hold the rest."""

import subprocess
import sys

import pytest
from zstandard import ZstdCompressor

SPARE = 96 << 20
"""Bytes of memory beyond what is in use; every bomb here would take 256 MiB and more."""

IN_BOUNDS = f"""
import resource, struct, sys
import zstandard
from pathlib import Path
from dataset_store.core.checkpoints import decode_checkpoint
from dataset_store.core.envelope import CHECKPOINT, seal
from dataset_store.core.frames import FrameCodec
from dataset_store.core.nodes import decode_node
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

DECODERS = {
    "a frame that declares it": "refused(FrameCodec().decode_frame, frame(1, 262_144, payload), what='a frame')",
    "a frame whose header declares it": "refused(FrameCodec().decode_frame, frame(3, 2**28, payload), what='a frame')",
    "a node": "refused(FrameCodec().decode_whole, frame(3, 2**24, payload), 3, bytes(32), what='a node')",
    "a checkpoint": "refused(decode_checkpoint, 1, checkpoint(1, 64, 2**22, payload), 'it')",
    "a checkpoint whose header declares it": "refused(decode_checkpoint, 2, checkpoint(2, 4096, 2**28, payload), 'it')",
}


def in_bounds(script: str, payload: bytes) -> str:
    words = [sys.executable, "-c", IN_BOUNDS + script]
    done = subprocess.run(words, input=payload, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    return done.stdout.decode()


def compressed(size: int) -> bytes:
    """A zstd frame of that many zero bytes, which says so."""
    return ZstdCompressor(level=1).compress(bytes(size))


@pytest.mark.parametrize("name", DECODERS)
def test_a_bomb_is_refused_by_what_it_declares(name):
    assert "taken" not in in_bounds(DECODERS[name], compressed(256 << 20))


def test_the_bound_of_these_tests_would_be_passed_by_a_decoder_that_does_not_look():
    script = """
try:
    zstandard.ZstdDecompressor().decompress(payload, max_output_size=1 << 20)
except MemoryError:
    print("no memory")
"""
    assert in_bounds(script, compressed(256 << 20)) == "no memory\n"


def test_a_window_larger_than_any_object_is_refused():
    head = bytes([0x80, (27 - 10) << 3]) + (1 << 20).to_bytes(4, "little")  # of a window of 128 MiB
    payload = b"\x28\xb5\x2f\xfd" + head + bytes([3, 0, 0x80]) + b"\0"
    said = in_bounds("refused(FrameCodec().decode_frame, frame(3, 1 << 20, payload), what='it')", payload)
    assert "too large a window" in said


@pytest.mark.parametrize("behind", [b"\0", b"junk", compressed(16)])
def test_bytes_behind_a_compressed_frame_are_refused(behind):
    payload = compressed(4096) + behind
    assert "taken" not in in_bounds("refused(FrameCodec().decode_frame, frame(3, 4096, payload), what='it')", payload)


@pytest.mark.parametrize(
    "script",
    [
        "refused(decode_node, b'DSN1' + bytes(4) + struct.pack('<6I', *[2**32 - 1] * 6), 'a pack')",
        "refused(decode_node, b'DSN1' + bytes([1, 0, 0, 0]) + struct.pack('<6I', 2**31, 1, 0, 0, 0, 9), 'a pack')",
        "refused(decode_segment_list, struct.pack('<II', 2**32 - 1, 2**32 - 1), 5, what='of a file')",
        "refused(Footer.decode, struct.pack('<II', 2**32 - 1, 2**32 - 1), what='a pack')",
    ],
)
def test_counts_are_compared_with_the_bytes_at_hand_before_anything_is_made_room_for(script):
    assert "taken" not in in_bounds(script, b"")
