"""Trees in a store: nodes read through a cache, nodes written into packs, and the census kept in step.

The cache of nodes is a port, so that this ring needs no folder of its own; a node is checked against its id wherever it
came from.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from dataset_store.core.arrays import np
from dataset_store.core.census import (
    Census,
    census_after,
    decode_census,
    encode_census,
    packs_to_empty,
)
from dataset_store.core.digest import ChunkId, ContentDigest, NodeId, PackName, hash32
from dataset_store.core.entries import Changes, Entries
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.log_entries import Census as CensusRow
from dataset_store.core.log_entries import PlaceRow, TreeRootRow
from dataset_store.core.node_decoding import decode_nodes
from dataset_store.core.nodes import Children, Node, NodeRef, level_of
from dataset_store.core.packfile import Footer, PackRef, Place
from dataset_store.core.paths import PathKey
from dataset_store.core.tree import TreeRoot
from dataset_store.core.tree_writing import build_of_parts, edit, still_there
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter

__all__ = [
    "NoKeeper",
    "NodeKeeper",
    "StoredNodes",
    "place_of",
    "root_of",
    "row_of",
    "size_of",
    "write_new_tree",
    "write_tree",
]


_RECENT_BYTES = 16 << 20
"""Plain bytes of the nodes that stay decoded in memory: some 150,000 entries, which take twice as much."""


class NodeKeeper(Protocol):
    """A cache of nodes' plain bytes by node id. It may forget anything at any time."""

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """The nodes it has, None for others, in the order asked; each checked against its id."""

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Keep nodes."""


class NoKeeper:
    """A cache that forgets at once."""

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """Nothing."""
        return [None] * len(node_ids)

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Forget."""


class _RecentNodes:
    """The nodes that were used last, decoded, by node id. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[NodeId, tuple[Node, int]] = OrderedDict()
        self._bytes = 0

    def get_many(self, node_ids: Sequence[NodeId]) -> list[Node | None]:
        with self._lock:
            found = [self._held.get(node_id) for node_id in node_ids]
            for node_id, one in zip(node_ids, found, strict=True):
                if one is not None:
                    self._held.move_to_end(node_id)
        return [None if one is None else one[0] for one in found]

    def put(self, node_id: NodeId, node: Node, size: int) -> None:
        with self._lock:
            self._bytes += size - self._held.pop(node_id, (node, 0))[1]
            self._held[node_id] = node, size
            while self._bytes > _RECENT_BYTES:
                self._bytes -= self._held.popitem(last=False)[1][1]


class StoredNodes:
    """The nodes of a store's trees. Reads are batched: one round of requests for all nodes that no cache has."""

    def __init__(self, reader: PackReader, keeper: NodeKeeper) -> None:
        self.reader = reader
        self.keeper = keeper
        self._recent = _RecentNodes()

    def read_nodes(self, refs: Sequence[NodeRef]) -> list[Node]:
        """Nodes, in the order asked; shared with others who ask, so nobody changes them.

        Raises:
            CorruptObject: A node is not what its reference says.
            ObjectMissing: Its pack is not in the store.
        """
        found = self._recent.get_many([ref.node_id for ref in refs])
        missing = [row for row, node in enumerate(found) if node is None]
        plains = self.read(FrameKind.NODE, [refs[row] for row in missing]) if missing else []
        nodes = decode_nodes(plains, [f"pack {refs[row].place.pack.name.hex()}" for row in missing])
        for row, plain, node in zip(missing, plains, nodes, strict=True):
            found[row] = node
            self._recent.put(refs[row].node_id, node, len(plain))
        return [node for node in found if node is not None]

    def read(self, kind: FrameKind, refs: Sequence[NodeRef]) -> list[bytes]:
        """Plain bytes of any kind of frame that holds one chunk, in the order asked. Raises as `read_nodes`."""
        plains = self.keeper.get_many([ref.node_id for ref in refs])
        missing = [row for row, plain in enumerate(plains) if plain is None]
        if missing:
            fetched = self.reader.read_whole(kind, [(refs[row].place, refs[row].node_id) for row in missing])
            self.keeper.put_many((refs[row].node_id, plain) for row, plain in zip(missing, fetched, strict=True))
            for row, plain in zip(missing, fetched, strict=True):
                plains[row] = plain
        return [plain for plain in plains if plain is not None]


class _PackedNodes:
    """Writes nodes as frames of the pack being made, and keeps them in the cache."""

    def __init__(self, writer: PackWriter, keeper: NodeKeeper) -> None:
        self.writer = writer
        self.keeper = keeper
        self.codec = FrameCodec()

    def write_nodes(self, plains: Sequence[bytes]) -> list[Place]:
        ids = [NodeId(hash32(plain)) for plain in plains]
        frames = [
            self.codec.encode_frame(FrameKind.NODE, [plain], [ChunkId(node_id)])
            for plain, node_id in zip(plains, ids, strict=True)
        ]
        self.keeper.put_many(zip(ids, plains, strict=True))
        return self.writer.append(frames)


def place_of(row: PlaceRow) -> Place:
    """The place that a log entry names."""
    return Place(PackRef(row.storage, PackName(bytes.fromhex(row.pack))), row.offset, row.stored, row.plain)


def place_row(place: Place) -> PlaceRow:
    """A place as a log entry names it."""
    return PlaceRow(place.pack.storage, place.pack.name.hex(), place.offset, place.stored, place.plain)


def root_of(row: TreeRootRow) -> TreeRoot:
    """The tree that a manifest names."""
    ref = NodeRef(NodeId(bytes.fromhex(row.node)), place_of(row.place))
    return TreeRoot(ContentDigest(bytes.fromhex(row.digest)), ref)


def row_of(root: TreeRoot, census: CensusRow) -> TreeRootRow:
    """A tree as a manifest names it."""
    return TreeRootRow(
        census=census, digest=root.digest.hex(), node=root.ref.node_id.hex(), place=place_row(root.ref.place)
    )


def write_tree(base: TreeRootRow | None, changes: Changes, writer: PackWriter, nodes: StoredNodes) -> TreeRootRow:
    """The tree `base` with `changes` applied, its new nodes and census appended to `writer` (not flushed).

    Args:
        base: The tree to edit; None is the empty tree.
        changes: Every row must have its segments.
        writer: The packs being made; data frames come before this.
        nodes: Where `base` is read.
    """
    if base is None:
        return write_new_tree([changes.entries], writer, nodes.keeper)
    packed = _PackedNodes(writer, nodes.keeper)
    root = root_of(base)
    census = _read_census(base.census, nodes)
    made = edit(root, changes, nodes, packed, _nodes_to_move(root, census, nodes))
    if made.root == root and not made.written:
        return base
    return row_of(made.root, _append_census(census_after(census, made.written, made.replaced), packed))


def write_new_tree(parts: Iterable[Entries], writer: PackWriter, keeper: NodeKeeper) -> TreeRootRow:
    """The tree of entries that come in parts, each behind the one before; its nodes are appended, and kept as well."""
    packed = _PackedNodes(writer, keeper)
    made = build_of_parts(parts, packed)
    return row_of(made.root, _append_census(census_after({}, made.written, []), packed))


def size_of(root: TreeRoot, nodes: StoredNodes) -> tuple[int, int]:
    """Entries of a tree, and the sum of their sizes in bytes; its root node is all that is read."""
    (node,) = nodes.read_nodes([root.ref])
    entries = int(node.counts.sum()) if isinstance(node, Children) else len(node)
    return entries, int(node.sizes.sum(dtype="u8"))


def _append_census(census: Census, packed: _PackedNodes) -> CensusRow:
    plain = encode_census(census)
    digest = hash32(plain)
    frame = packed.codec.encode_frame(FrameKind.CENSUS, [plain], [ChunkId(digest)])
    packed.keeper.put_many([(NodeId(digest), plain)])
    return CensusRow(id=digest.hex(), place=place_row(packed.writer.append([frame])[0]))


def _read_census(row: CensusRow, nodes: StoredNodes) -> Census:
    ref = NodeRef(NodeId(bytes.fromhex(row.id)), place_of(row.place))
    return decode_census(nodes.read(FrameKind.CENSUS, [ref])[0], f"pack {row.place.pack}")


def _nodes_to_move(root: TreeRoot, census: Census, nodes: StoredNodes) -> list[tuple[int, PathKey, NodeRef]]:
    """The nodes that still live in the packs that this commit empties, found through those packs' own frames."""
    packs = packs_to_empty(census)
    if not packs:
        return []
    footers = nodes.reader.read_footers(packs)
    refs = [ref for pack, footer in zip(packs, footers, strict=True) for ref in _nodes_of(pack, footer)]
    wanted = []
    for ref, node in zip(refs, nodes.read_nodes(refs), strict=True):
        wanted += [(level_of(node), node.keys[0], ref)] if len(node) else []
    return still_there(root, wanted, nodes)


def _nodes_of(pack: PackRef, footer: Footer) -> list[NodeRef]:
    """The nodes that a pack holds."""
    rows = np.flatnonzero(footer.kinds == FrameKind.NODE)
    ids = footer.ids[footer.chunk_starts()[rows]]
    columns = (footer.offsets[rows], footer.stored[rows], footer.plain_lengths()[rows])
    places = zip(*(column.tolist() for column in columns), strict=True)
    return [
        NodeRef(NodeId(node_id.tobytes()), Place(pack, offset, stored, plain))
        for node_id, (offset, stored, plain) in zip(ids, places, strict=True)
    ]
