"""Nodes of a tree: columns to canonical bytes and back, and the content digest.

A leaf's rows are `Entries`; an inner node's rows are `Children`. Decoders check everything that could mislead a
reader and raise CorruptObject; they never trust a count before it fits the bytes at hand.
"""

import struct
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import TypeAlias

from msgspec import Struct

from dataset_store.core.arrays import I64, U8, U32, U64, Array, Bool, np
from dataset_store.core.digest import ContentDigest, NodeId, PackName, VersionId, hash32
from dataset_store.core.entries import (
    EXECUTABLE,
    KIND_BITS,
    LISTED,
    ONE_CHUNK,
    Entries,
    Segments,
    first_use,
)
from dataset_store.core.frames import NEXT_STEP, PLAIN_LIMITS, FrameKind
from dataset_store.core.packfile import PackRef, Place, are_inside
from dataset_store.core.paths import PathKey, check_keys
from dataset_store.errors import CorruptObject

__all__ = [
    "Children",
    "Node",
    "NodeRef",
    "concat_children",
    "content_digest",
    "decode_node",
    "encode_node",
    "level_of",
]

_HEADER = struct.Struct("<4sB3x6I")
_MAGIC = b"DSN1"
_LEAF_TAG = b"dataset_store tree v1 leaf\n"
_INNER_TAG = b"dataset_store tree v1 inner\n"
_MOST_BYTES = float(1 << 63)
_KNOWN_KIND_BITS = KIND_BITS | ONE_CHUNK | LISTED | EXECUTABLE


class NodeRef(Struct, frozen=True):
    """Where one node is and what it must be: its node id, and its place."""

    node_id: NodeId
    place: Place


class Children(Struct, frozen=True, eq=False):
    """Rows of an inner node, sorted by key, the first key below each child.

    Shapes: columns (n,), digests and node_ids (n, 32). `level` is that of the node: 1 above leaves. `pack` indexes
    `packs`. `counts` are entries below, `sizes` the sum of their sizes in bytes; `offset`, `stored` and `plain` place
    the child's frame.
    """

    level: int
    keys: list[PathKey]
    counts: U64
    sizes: U64
    packs: tuple[PackRef, ...]
    pack: U32
    offset: U32
    stored: U32
    plain: U32
    digests: U8
    node_ids: U8

    def __len__(self) -> int:
        return len(self.keys)

    def ref(self, row: int) -> NodeRef:
        """The reference to child `row`."""
        pack = self.packs[int(self.pack[row])]
        place = Place(pack, int(self.offset[row]), int(self.stored[row]), int(self.plain[row]))
        return NodeRef(NodeId(self.node_ids[row].tobytes()), place)

    def refs(self) -> list[NodeRef]:
        """The references to all children, in order."""
        return [self.ref(row) for row in range(len(self))]

    def rows(self, start: int, stop: int) -> "Children":
        """The rows `[start, stop)`."""
        return self.take(np.arange(start, stop))

    def take(self, rows: Array) -> "Children":
        """The given rows, in the given order."""
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        return Children(
            self.level,
            [self.keys[row] for row in rows.tolist()],
            self.counts[rows],
            self.sizes[rows],
            self.packs,
            self.pack[rows],
            self.offset[rows],
            self.stored[rows],
            self.plain[rows],
            self.digests[rows],
            self.node_ids[rows],
        )

    @staticmethod
    def empty(level: int) -> "Children":
        """No rows."""
        none, ids = np.zeros(0, np.uint32), np.zeros((0, 32), np.uint8)
        return Children(level, [], none.astype("<u8"), none.astype("<u8"), (), none, none, none, none, ids, ids)


Node: TypeAlias = Entries | Children
"""A leaf, or an inner node."""


def level_of(node: Node) -> int:
    """How many levels of nodes are below it: 0 for a leaf."""
    return node.level if isinstance(node, Children) else 0


def concat_children(parts: Sequence[Children]) -> Children:
    """The rows of one or several tables of one level, one table after another."""
    level = parts[0].level
    parts = [part for part in parts if len(part)]
    if len(parts) < 2:
        return parts[0] if parts else Children.empty(level)
    table: dict[PackRef, int] = {}
    maps = [np.array([table.setdefault(p, len(table)) for p in part.packs], np.uint32) for part in parts]

    def joined(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    return Children(
        level,
        list(chain.from_iterable(part.keys for part in parts)),
        joined("counts"),
        joined("sizes"),
        tuple(table),
        np.concatenate([m[part.pack] for m, part in zip(maps, parts, strict=True)]),
        joined("offset"),
        joined("stored"),
        joined("plain"),
        joined("digests"),
        joined("node_ids"),
    )


def _key_columns(keys: list[PathKey]) -> tuple[bytes, bytes]:
    lengths = np.fromiter(map(len, keys), np.uint32, len(keys))
    return np.cumsum(lengths, dtype="<u4").tobytes(), b"".join(keys)


def _pack_columns(packs: Sequence[PackRef]) -> tuple[bytes, bytes]:
    storages = np.fromiter((pack.storage for pack in packs), "<u4", len(packs))
    return storages.tobytes(), b"".join(pack.name for pack in packs)


def _le(column: Array, dtype: str) -> memoryview:
    """A column's bytes as the format has them, without a copy where they are so already."""
    return np.ascontiguousarray(column, dtype).reshape(-1).view(np.uint8).data


def digest_rows(entries: Entries) -> Bool:
    """Which segments have a digest row of their own: those of contents of more than one chunk. Shape (s,)."""
    return np.repeat((entries.kinds & ONE_CHUNK) == 0, entries.segment_counts)


def encode_node(node: Node) -> bytes:
    """The canonical plain bytes of a node."""
    return _encode_leaf(node) if isinstance(node, Entries) else _encode_inner(node)


def _encode_leaf(entries: Entries) -> bytes:
    segments = entries.segments
    used_packs, pack = first_use(segments.pack)
    used_origins, origin = first_use(entries.origins)
    packs = [segments.packs[index] for index in used_packs.tolist()]
    digests = segments.digest[digest_rows(entries)]
    key_ends, keys = _key_columns(entries.keys)
    storages, names = _pack_columns(packs)
    counts = (len(entries), len(packs), len(segments), len(digests), len(used_origins), len(keys))
    return b"".join(
        (
            _HEADER.pack(_MAGIC, 0, *counts),
            _le(entries.sizes, "<u8"),
            _le(entries.mtimes, "<i8"),
            _le(segments.plain_length, "<u8"),
            key_ends,
            _le(entries.segment_ends, "<u4"),
            _le(origin, "<u4"),
            _le(pack, "<u4"),
            _le(segments.offset, "<u4"),
            _le(segments.stored, "<u4"),
            _le(segments.plain_offset, "<u4"),
            storages,
            _le(entries.kinds, "u1"),
            _le(entries.content_ids, "u1"),
            _le(digests, "u1"),
            names,
            b"".join(entries.origin_ids[index] for index in used_origins.tolist()),
            keys,
        )
    )


def _encode_inner(children: Children) -> bytes:
    used_packs, pack = first_use(children.pack)
    packs = [children.packs[index] for index in used_packs.tolist()]
    key_ends, keys = _key_columns(children.keys)
    storages, names = _pack_columns(packs)
    return b"".join(
        (
            _HEADER.pack(_MAGIC, children.level, len(children), len(packs), 0, 0, 0, len(keys)),
            _le(children.counts, "<u8"),
            _le(children.sizes, "<u8"),
            key_ends,
            _le(pack, "<u4"),
            _le(children.offset, "<u4"),
            _le(children.stored, "<u4"),
            _le(children.plain, "<u4"),
            storages,
            _le(children.digests, "u1"),
            _le(children.node_ids, "u1"),
            names,
            keys,
        )
    )


def content_digest(rows: Node) -> ContentDigest:
    """The content digest of a node: a function of paths, kinds, exec bits, sizes and content ids alone."""
    count = len(rows).to_bytes(4, "little")
    key_ends, keys = _key_columns(rows.keys)
    head: tuple[bytes | memoryview, ...]
    if isinstance(rows, Entries):
        kinds = rows.kinds & (KIND_BITS | EXECUTABLE)
        head = (_LEAF_TAG, count, kinds.tobytes(), _le(rows.sizes, "<u8"), _le(rows.content_ids, "u1"))
    else:
        head = (_INNER_TAG, bytes([rows.level]), count, _le(rows.digests, "u1"))
    return ContentDigest(hash32(b"".join((*head, key_ends, keys))))


class _Columns:
    """Takes columns off the front of a node's bytes; every length is checked against what is left."""

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self.data = data
        self.at = _HEADER.size
        self.what = what

    def take(self, dtype: str, count: int) -> Array:
        length = np.dtype(dtype).itemsize * count
        self.require(self.at + length <= len(self.data), "is cut short")
        column = np.frombuffer(self.data, dtype, count, self.at)
        self.at += length
        return column

    def ids(self, count: int) -> U8:
        column: U8 = self.take("u1", 32 * count).reshape(count, 32)
        return column

    def names(self, count: int) -> list[bytes]:
        raw = self.take("u1", 16 * count).tobytes()
        return [raw[16 * row : 16 * row + 16] for row in range(count)]

    def keys(self, ends: U32, length: int) -> list[PathKey]:
        raw = self.take("u1", length).tobytes()
        self.require(self.at == len(self.data), "has bytes left over")
        self.require_running(ends, length, "key")
        bounds = [0, *ends.tolist()]
        keys = [PathKey(raw[start:stop]) for start, stop in pairwise(bounds)]
        check_keys(keys)
        return keys

    def require(self, fact: object, otherwise: str) -> None:
        if not fact:
            raise CorruptObject(f"A tree node in {self.what} {otherwise}.", NEXT_STEP)

    def require_running(self, ends: Array, total: int, name: str) -> None:
        rising = len(ends) == 0 or bool((ends[1:] >= ends[:-1]).all())
        last = int(ends[-1]) if len(ends) else 0
        self.require(rising and last == total, f"has {name} ends that do not add up")

    def require_below(self, column: Array, bound: int, name: str) -> None:
        self.require(len(column) == 0 or int(column.max()) < bound, f"has a {name} index out of bounds")


def decode_node(data: bytes | memoryview, what: str, *, placed: bool = True) -> Node:
    """Columns of a node's plain bytes (views of `data`).

    Args:
        data: The plain bytes.
        what: Names the object in messages.
        placed: Whether every content must have its segments; rows of a draft may lack them.

    Raises:
        CorruptObject: The bytes are no canonical node.
    """
    columns = _Columns(data, what)
    columns.require(len(data) >= _HEADER.size and data[:4] == _MAGIC, "does not begin like one")
    _, level, n, p, s, d, o, b = _HEADER.unpack_from(data)
    columns.require(data[5:8] == b"\0\0\0", "has unknown flags")
    if level:
        return _decode_inner(columns, level, n, p, b, (s, d, o))
    entries = _decode_leaf(columns, (n, p, s, d, o, b))
    if placed:
        _require_whole_contents(columns, entries)
    return entries


def _pack_table(columns: _Columns, storages: U32, count: int) -> tuple[PackRef, ...]:
    names = columns.names(count)
    return tuple(PackRef(storage, PackName(name)) for storage, name in zip(storages.tolist(), names, strict=True))


def _decode_leaf(columns: _Columns, counts: tuple[int, int, int, int, int, int]) -> Entries:
    n, p, s, d, o, b = counts
    sizes: U64 = columns.take("<u8", n)
    mtimes: I64 = columns.take("<i8", n)
    plain_length: U64 = columns.take("<u8", s)
    key_ends: U32 = columns.take("<u4", n)
    segment_ends: U32 = columns.take("<u4", n)
    origins: U32 = columns.take("<u4", n)
    pack, offset, stored, plain_offset = (columns.take("<u4", s) for _ in range(4))
    storages: U32 = columns.take("<u4", p)
    kinds: U8 = columns.take("u1", n)
    content_ids = columns.ids(n)
    digests = columns.ids(d)
    packs = _pack_table(columns, storages, p)
    origin_ids = tuple(VersionId(name) for name in columns.names(o))
    keys = columns.keys(key_ends, b)
    columns.require_running(segment_ends, s, "segment")
    columns.require_below(pack, p, "pack")
    columns.require(are_inside(offset, stored).all(), "has a segment outside its pack")
    columns.require_below(origins, o, "origin")
    columns.require(not (kinds & ~np.uint8(_KNOWN_KIND_BITS)).any(), "has unknown kind bits")
    columns.require(((kinds & KIND_BITS) - 1 < 4).all(), "has an unknown kind")
    ends = segment_ends.astype(np.int64)
    has_digest = np.repeat((kinds & ONE_CHUNK) == 0, ends - np.concatenate(([0], ends[:-1]))[: len(ends)])
    columns.require(int(has_digest.sum()) == d, "has digests that belong to no segment")
    digest = np.zeros((s, 32), np.uint8)
    digest[has_digest] = digests
    segments = Segments(packs, pack, offset, stored, plain_offset, plain_length, digest)
    return Entries(keys, kinds, sizes, mtimes, content_ids, origins, origin_ids, ends, segments)


def _require_whole_contents(columns: _Columns, entries: Entries) -> None:
    """A file's segments add up to its size; only then may a reader trust either."""
    lengths = entries.segments.plain_length
    columns.require(
        lengths.sum(dtype=np.float64) <= _MOST_BYTES, "has more bytes than a tree may have"
    )  # so no sum wraps
    below = entries.segment_sums(lengths)
    kind = entries.kinds & KIND_BITS
    plain = (kind <= 2) & ((entries.kinds & LISTED) == 0)
    columns.require((below[plain] == entries.sizes[plain]).all(), "has segments that do not add up to a size")
    one = (entries.kinds & ONE_CHUNK) != 0
    columns.require((entries.segment_counts[one] == 1).all(), "has a one-chunk entry of several segments")
    listed = (entries.kinds & LISTED) != 0
    columns.require((entries.segment_counts[listed] == 1).all(), "has a segment list of several places")
    of_lists = lengths[entries.segment_ends[listed] - 1]
    columns.require((of_lists <= PLAIN_LIMITS[FrameKind.LIST]).all(), "has a segment list longer than any")


def _decode_inner(columns: _Columns, level: int, n: int, p: int, b: int, leaf_only: tuple[int, int, int]) -> Children:
    columns.require(leaf_only == (0, 0, 0) and n > 0, "has the columns of a leaf")
    counts: U64 = columns.take("<u8", n)
    sizes: U64 = columns.take("<u8", n)
    key_ends: U32 = columns.take("<u4", n)
    pack, offset, stored, plain = (columns.take("<u4", n) for _ in range(4))
    storages: U32 = columns.take("<u4", p)
    digests = columns.ids(n)
    node_ids = columns.ids(n)
    packs = _pack_table(columns, storages, p)
    keys = columns.keys(key_ends, b)
    columns.require_below(pack, p, "pack")
    columns.require(are_inside(offset, stored).all(), "has a child outside its pack")
    return Children(level, keys, counts, sizes, packs, pack, offset, stored, plain, digests, node_ids)
