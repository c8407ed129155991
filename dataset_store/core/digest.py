"""Hashes and the names made of them: what identifies chunks, files, nodes, trees, packs, stores and versions.

A *hash* is BLAKE3-256. Names of 32 bytes are hashes: equal names mean equal bytes, and nothing here ever
compares bytes as well. Among n hashed values the odds that any two collide are about n² / 2²⁵⁷: for 2⁴⁰
chunks (64 PiB) 2⁻¹⁷⁷. Names of 16 bytes are random (128 bits): among n of them the odds are about n² / 2¹²⁹:
for 2³² packs 2⁻⁶⁵. Whoever chooses the bytes needs about 2¹²⁸ steps to make two values of one hash.

This module never draws a random name; names come from outside the core.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import NewType

from blake3 import blake3

__all__ = [
    "Buffer",
    "ChunkId",
    "ContentDigest",
    "ContentId",
    "NodeId",
    "PackName",
    "StoreId",
    "VersionId",
    "hash32",
    "rows_digest",
]

Buffer = bytes | bytearray | memoryview

ChunkId = NewType("ChunkId", bytes)
"""Hash of a chunk's bytes (32 bytes)."""

ContentId = NewType("ContentId", bytes)
"""Hash of a file's bytes (32 bytes); of a file that is one chunk it equals the chunk id."""

NodeId = NewType("NodeId", bytes)
"""Hash of a node's plain bytes (32 bytes); it covers places."""

ContentDigest = NewType("ContentDigest", bytes)
"""Hash of what a tree's entries are, wherever their bytes lie (32 bytes)."""

PackName = NewType("PackName", bytes)
"""Name of a pack (16 random bytes), never reused."""

StoreId = NewType("StoreId", bytes)
"""Identity of a store (16 random bytes)."""

VersionId = NewType("VersionId", bytes)
"""Id of a version, the commit id of its log entry (16 random bytes)."""

_LENGTH = struct.Struct("<I")


def hash32(data: Buffer) -> bytes:
    """BLAKE3-256 of `data`, 32 raw bytes; what `b3sum` prints in hex."""
    return blake3(data).digest()


def rows_digest(ids: Sequence[bytes], lengths: Sequence[int]) -> bytes:
    """The digest of a segment: the hash of its rows (chunk id, u32 length), one after another.

    Args:
        ids: Chunk ids of 32 bytes each.
        lengths: Plain length of each chunk in bytes, as many as there are ids.
    """
    packed = map(_LENGTH.pack, lengths)
    return hash32(b"".join(chain.from_iterable(zip(ids, packed, strict=True))))
