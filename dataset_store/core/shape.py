"""Where one level of a tree is cut into nodes: a function of the rows' keys alone, so equal data has equal trees.

The rule, its parameters and its hash are part of identity (`tree=v1`) and never change under that name.
"""

from collections.abc import Sequence
from zlib import crc32

from msgspec import Struct

from dataset_store.core.arrays import U32, np
from dataset_store.core.paths import PathKey

__all__ = ["INNER", "LEAF", "Shape", "begins_node", "cut_rows", "shape_of"]


class Shape(Struct, frozen=True):
    """Bounds of a node in rows, and the threshold under which a key's hash begins a new node."""

    minimum: int
    maximum: int
    threshold: int


LEAF = Shape(64, 1024, 2**32 // 192)
INNER = Shape(16, 256, 2**32 // 48)


def shape_of(level: int) -> Shape:
    """The shape of the nodes of a level; 0 are the leaves."""
    return INNER if level else LEAF


def _hashes(keys: Sequence[PathKey], level: int) -> U32:
    """The 32-bit finalizer of MurmurHash3 (public domain, A. Appleby) over a salted CRC-32."""
    x = np.fromiter(map(crc32, keys), np.uint32, len(keys))
    x ^= np.uint32(level * 0x9E3779B1 & 0xFFFFFFFF)
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return x


def begins_node(key: PathKey, level: int, rows_before: int) -> bool:
    """Whether the row `key` begins a new node after a node that holds `rows_before` rows so far."""
    shape = shape_of(level)
    if rows_before >= shape.maximum or rows_before == 0:
        return True
    return rows_before >= shape.minimum and int(_hashes([key], level)[0]) < shape.threshold


def cut_rows(keys: Sequence[PathKey], level: int) -> list[int]:
    """The ends of the nodes that one scan over `keys` makes; the last end is `len(keys)`, none for no keys."""
    shape = shape_of(level)
    count = len(keys)
    if count <= shape.minimum:
        return [count] if count else []
    candidates = np.flatnonzero(_hashes(keys, level) < shape.threshold)
    ends: list[int] = []
    start = 0
    while count - start > shape.minimum:
        at = int(np.searchsorted(candidates, start + shape.minimum))
        cut = int(candidates[at]) if at < len(candidates) else count
        start = min(cut, start + shape.maximum, count)
        ends.append(start)
    if start < count:
        ends.append(count)
    return ends
