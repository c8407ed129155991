"""Liveness: the bytes of packs that the fold of a catalog reaches (docs/format.md §11, Live).

A node never changes, so what it names is summed up once and kept: only nodes never seen are read. The walk goes level
by level, in batches, and visits a subtree that many versions share once.

Never: decides what is done with what is not reached.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

from dataset_store.core.arrays import Array, Void, np
from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.digest import NodeId, PackName
from dataset_store.core.entries import LISTED, Entries
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments, unite
from dataset_store.core.frames import FrameKind
from dataset_store.core.log_entries import Blob, TreeRootRow
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Children, NodeRef
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import decode_segment_list, segments_of
from dataset_store.storage.blobs import extents_of_blob
from dataset_store.storage.trees import StoredNodes, place_of, root_of

__all__ = ["NoSummaries", "Reached", "SummaryKeeper", "blobs_of", "blobs_of_contents", "blobs_of_fold", "reach_trees"]

_REF: Final = [
    ("kind", "u1"),
    ("id", "u1", (32,)),
    ("storage", "<u4"),
    ("name", "u1", (16,)),
    ("offset", "<u4"),
    ("stored", "<u4"),
    ("plain", "<u4"),
]
_EXTENT: Final = slice(33, 61)
"""Bytes of a reference that are an extent: from `storage` to `stored`."""

_COUNT: Final = struct.Struct("<I")
_AT_ONCE: Final = 1_024
"""Nodes that are read together; some 20 MB of them."""

_LIST_COUNTS: Final = struct.Struct("<II")

Refs = Void


class SummaryKeeper(Protocol):
    """A cache of what nodes name, by node id. It may forget anything at any time, and never makes anything up."""

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """What was kept of each node, None for others, in the order asked."""

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Keep summaries."""


class NoSummaries:
    """A cache that forgets at once."""

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """Nothing."""
        return [None] * len(node_ids)

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Forget."""


class Reached:
    """All that the fold reaches but for holds, which name packs and no bytes; every tree is walked once.

    Asked again at a later state, only the trees that came since are walked, and what was reached before counts still:
    so who computes anew because another was first is quick, however many versions there are. What died meanwhile is
    left for the next time.

    Args:
        nodes: Where trees are read.
        keeper: What is known of what nodes name.
    """

    def __init__(self, nodes: StoredNodes, keeper: SummaryKeeper) -> None:
        self._nodes = nodes
        self._keeper = keeper
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._walked: set[TreeRootRow] = set()
        self._seen: set[bytes] = set()
        self._named = Extents.none()

    def at(self, catalog: Catalog) -> Extents:
        """The bytes, united and as they are named.

        Raises:
            CorruptObject, ObjectMissing: A node of a live version is damaged or gone.
            StorageFailed: The storage refused.
        """
        trees = dict.fromkeys(version.entry.tree for version in catalog.live_versions())
        fresh = trees.keys() - self._walked
        if fresh:
            try:
                found = reach_trees([tree for tree in trees if tree in fresh], self._nodes, self._keeper, self._seen)
            except BaseException:
                self.forget()  # of what was seen not all was reached
                raise
            self._named = unite([self._named, found])
            self._walked |= fresh
        return unite([self._named, *map(extents_of_blob, blobs_of_fold(catalog))])


def blobs_of_fold(catalog: Catalog) -> list[Blob]:
    """Every blob that the fold names: metadata of live versions, artifacts, lists of packs, relocation tables."""
    return [*blobs_of_contents(catalog), *catalog.packs.lists, *(blob for _, blob in catalog.packs.relocations)]


def blobs_of_contents(catalog: Catalog) -> list[Blob]:
    """Those of users: metadata of live versions, and artifacts."""
    return [*(blob for version in catalog.live_versions() for blob in blobs_of(version)), *catalog.artifacts.values()]


def blobs_of(version: Version) -> list[Blob]:
    """The pieces of a version's metadata that lie in packs."""
    return [piece for piece in version.metadata.values() if isinstance(piece, Blob)]


def reach_trees(
    trees: Sequence[TreeRootRow], nodes: StoredNodes, keeper: SummaryKeeper, seen: set[bytes] | None = None
) -> Extents:
    """All bytes that some trees need, their censuses included; united, as they are named.

    Args:
        trees: The trees.
        nodes: Where they are read.
        keeper: What is known of what nodes name.
        seen: Nodes of which it is known already; those that are visited are added.

    Raises:
        CorruptObject, ObjectMissing, StorageFailed: As `Reached.at`.
    """
    places = [place_of(row.census.place) for row in trees]
    found = [extents_of_places(places)]
    frontier = _refs([(FrameKind.NODE, root_of(row).ref) for row in trees])
    seen = set() if seen is None else seen
    while len(frontier):
        found.append(_extents(frontier))
        frontier = _unseen(frontier, seen)
        below, named = [], []
        for at in range(0, len(frontier), _AT_ONCE):
            for summary in _summaries(frontier[at : at + _AT_ONCE], nodes, keeper):
                refs, extents = _split(summary)
                below.append(refs)
                named.append(extents)
        found.append(Extents.decode(b"".join(named)))
        frontier = np.concatenate(below) if below else frontier[:0]
    return unite(found)


def _unseen(refs: Refs, seen: set[bytes]) -> Refs:
    """Those of the nodes that were not visited yet, each once; they count as visited from here on."""
    ids = refs["id"].tobytes()
    rows = []
    for row in range(len(refs)):
        node_id = ids[32 * row : 32 * row + 32]
        if node_id not in seen:
            seen.add(node_id)
            rows.append(row)
    return refs[rows]


def _summaries(refs: Refs, nodes: StoredNodes, keeper: SummaryKeeper) -> Iterator[bytes]:
    """What each node names; those that are not known are read, in one batch of each kind."""
    ids = [NodeId(row.tobytes()) for row in refs["id"]]
    kept = keeper.get_many(ids)
    fresh: list[tuple[NodeId, bytes]] = []
    for kind in (FrameKind.NODE, FrameKind.LIST):
        rows = [row for row, summary in enumerate(kept) if summary is None and refs["kind"][row] == kind]
        wanted = [_node_ref(refs[row]) for row in rows]
        for row, ref, plain in zip(rows, wanted, nodes.read(kind, wanted) if wanted else [], strict=True):
            kept[row] = summary = _summary(kind, plain, ref)
            fresh.append((ref.node_id, summary))
    keeper.put_many(fresh)
    return (summary for summary in kept if summary is not None)


def _summary(kind: FrameKind, plain: bytes, ref: NodeRef) -> bytes:
    """The references that a node or list holds, and the other bytes that it names."""
    what = f"pack {ref.place.pack.name.hex()}"
    if kind is FrameKind.LIST:
        count = _LIST_COUNTS.unpack_from(plain)[0] if len(plain) >= _LIST_COUNTS.size else 0
        held = _LIST_COUNTS.size + 8 * count <= len(plain)
        size = sum(np.frombuffer(plain, "<u8", count, _LIST_COUNTS.size).tolist()) if held else -1
        return _joined([], extents_of_segments(decode_segment_list(plain, size, what=what)))
    node = decode_node(plain, what)
    if isinstance(node, Children):
        return _joined([(FrameKind.NODE, child) for child in node.refs()], Extents.none())
    return _leaf_summary(node)


def _leaf_summary(leaf: Entries) -> bytes:
    listed = np.flatnonzero(leaf.kinds & LISTED)
    heads = [segments_of(leaf, row)[0] for row in listed.tolist()]
    lists = [
        (FrameKind.LIST, NodeRef(NodeId(one.digest), Place(one.pack, one.offset, one.stored, one.plain_length)))
        for one in heads
    ]
    return _joined(lists, extents_of_segments(leaf.segments))


def _joined(refs: Sequence[tuple[FrameKind, NodeRef]], extents: Extents) -> bytes:
    return _COUNT.pack(len(refs)) + _refs(refs).tobytes() + unite([extents]).encode()


def _split(summary: bytes) -> tuple[Refs, bytes]:
    (count,) = _COUNT.unpack_from(summary)
    end = _COUNT.size + count * np.dtype(_REF).itemsize
    return np.frombuffer(summary, _REF, count, _COUNT.size), summary[end:]


def _refs(refs: Sequence[tuple[FrameKind, NodeRef]]) -> Refs:
    table: Array = np.zeros(len(refs), _REF)
    table["kind"] = [kind for kind, _ in refs]
    table["id"] = np.frombuffer(b"".join(ref.node_id for _, ref in refs), np.uint8).reshape(-1, 32)
    table["name"] = np.frombuffer(b"".join(ref.place.pack.name for _, ref in refs), np.uint8).reshape(-1, 16)
    table["storage"] = [ref.place.pack.storage for _, ref in refs]
    for column in ("offset", "stored", "plain"):
        table[column] = [getattr(ref.place, column) for _, ref in refs]
    return table


def _node_ref(row: "np.void") -> NodeRef:
    pack = PackRef(int(row["storage"]), PackName(row["name"].tobytes()))
    return NodeRef(NodeId(row["id"].tobytes()), Place(pack, int(row["offset"]), int(row["stored"]), int(row["plain"])))


def _extents(refs: Refs) -> Extents:
    """The frames of the nodes themselves."""
    return Extents.decode(refs.view(np.uint8).reshape(-1, refs.itemsize)[:, _EXTENT].tobytes())
