"""Nodes of a tree: what they are, their canonical bytes, and the content digest. `node_decoding` reads them back.

A leaf's rows are `Entries`; an inner node's rows are `Children`.
"""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import TypeAlias

from msgspec import Struct

from dataset_store.core.arrays import U8, U32, U64, Array, Bool, np
from dataset_store.core.digest import ContentDigest, NodeId, hash32
from dataset_store.core.entries import (
    EXECUTABLE,
    KIND_BITS,
    ONE_CHUNK,
    Entries,
    first_use,
)
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.paths import PathKey

__all__ = [
    "HEADER",
    "MAGIC",
    "Children",
    "Node",
    "NodeRef",
    "concat_children",
    "content_digest",
    "encode_node",
    "level_of",
]

HEADER = struct.Struct("<4sB3x6I")
"""Magic, level, and six counts: of rows, packs, segments, digests and origins, and of the bytes of all keys."""

MAGIC = b"DSN1"
_LEAF_TAG = b"dataset_store tree v1 leaf\n"
_INNER_TAG = b"dataset_store tree v1 inner\n"


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
            HEADER.pack(MAGIC, 0, *counts),
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
            HEADER.pack(MAGIC, children.level, len(children), len(packs), 0, 0, 0, len(keys)),
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
