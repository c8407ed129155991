"""Walking all live trees of a store that may be damaged: each node once, and what cannot be read is told.

A node that the store has lost may be in this machine's cache, under its id: then the walk goes on below it, and what it
names is known. What of the trees is nowhere is known by its reference only.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct, field

from dataset_store.core.arrays import Bool, np
from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.digest import NodeId
from dataset_store.core.entries import LISTED, Entries
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments, unite
from dataset_store.core.frames import FrameKind
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Children, Node, NodeRef
from dataset_store.core.packfile import Place
from dataset_store.core.segments import (
    FileSegments,
    Segment,
    decode_segment_list,
    segment_rows,
    segments_of,
    with_segments_at,
)
from dataset_store.dataset.checks.surviving import SurvivingPacks
from dataset_store.errors import Corrupt
from dataset_store.storage.blobs import extents_of_blob, segments_of_blob
from dataset_store.storage.liveness import blobs_of_contents, blobs_of_fold
from dataset_store.storage.trees import NodeKeeper, place_of, root_of

__all__ = ["LiveTrees", "Unread", "census_ref", "head_ref"]

_AT_ONCE = 1_024


class Unread(Struct, frozen=True):
    """A frame of one chunk that the store does not have as it must, and whether this machine has it."""

    kind: FrameKind
    ref: NodeRef
    problem: str
    known: bool


class LiveTrees(Struct):
    """The trees of live versions, read node by node from the store, else from this machine's cache.

    Attributes:
        packs: Where they are read.
        keeper: This machine's cache.
        unread: What the store did not have, by id.
        restored: Of what it did not have, what a repair has put since.
    """

    packs: SurvivingPacks
    keeper: NodeKeeper
    unread: dict[NodeId, Unread] = field(default_factory=dict)
    restored: set[NodeId] = field(default_factory=set)

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for could be read somewhere."""
        return all(one.known for one in self.unread.values())

    def read(self, kind: FrameKind, refs: Sequence[NodeRef]) -> list[bytes | None]:
        """The plain bytes of nodes, lists or censuses; None where nobody has them."""
        wanted = [(ref.place, bytes(ref.node_id)) for ref in refs]
        read = partial(self.packs.store.packs.read_whole, kind)
        found = self.packs.each(wanted, lambda one: one[0].pack, read)
        lost = [row for row, one in enumerate(found) if isinstance(one, Corrupt)]
        kept = self.keeper.get_many([refs[row].node_id for row in lost]) if lost else []
        for row, plain in zip(lost, kept, strict=True):
            error, ref = found[row], refs[row]
            assert isinstance(error, Corrupt)  # noqa: S101
            if ref.node_id not in self.restored:
                self.unread[ref.node_id] = Unread(kind, ref, error.what, plain is not None)
            found[row] = plain if plain is not None else error
        return [None if isinstance(one, Corrupt) else one for one in found]

    def nodes(self, roots: Iterable[NodeRef]) -> Iterator[tuple[NodeRef, Node]]:
        """Each node below some roots that can be read, once; children after their parents. Lists are put into rows."""
        met: set[NodeId] = set()
        level = list(roots)
        while level:
            deeper: list[NodeRef] = []
            fresh = _unmet(level, met)
            for at in range(0, len(fresh), _AT_ONCE):
                some = fresh[at : at + _AT_ONCE]
                for ref, plain in zip(some, self.read(FrameKind.NODE, some), strict=True):
                    if plain is None:
                        continue
                    node = decode_node(plain, f"pack {ref.place.pack.name.hex()}")
                    if isinstance(node, Children):
                        deeper += node.refs()
                    yield ref, node
            level = deeper

    def with_lists(self, leaf: Entries) -> Entries:
        """The rows with their segment lists put in, where these can be had."""
        listed = np.flatnonzero(leaf.kinds & LISTED).tolist()
        if not listed:
            return leaf
        refs = [head_ref(leaf, row) for row in listed]
        found = {
            row: FileSegments(segment_rows(decode_segment_list(plain, int(leaf.sizes[row]), what="of a large file")))
            for row, plain in zip(listed, self.read(FrameKind.LIST, refs), strict=True)
            if plain is not None
        }
        return with_segments_at(leaf, found)

    def segments(self, catalog: Catalog) -> Iterator[Segment]:
        """Those of all live contents, metadata too, as far as they can be read; some of them several times."""
        for _, node in self.nodes(root_of(version.entry.tree).ref for version in catalog.live_versions()):
            if isinstance(node, Entries):
                leaf = self.with_lists(node)
                for row in range(len(leaf)):
                    yield from segments_of(leaf, row)
        for blob in blobs_of_contents(catalog):
            yield from segments_of_blob(blob)

    def reach(self, catalog: Catalog) -> Extents:
        """All bytes that the fold names, united, as far as it can be read; censuses are read too."""
        live = list(catalog.live_versions())
        trees = [version.entry.tree for version in live]
        self.read(FrameKind.CENSUS, [census_ref(version) for version in live])
        roots = [root_of(tree).ref for tree in trees]
        found = [extents_of_places([ref.place for ref in roots] + [place_of(tree.census.place) for tree in trees])]
        gathered: list[Extents] = []
        for _, node in self.nodes(roots):
            if isinstance(node, Children):
                gathered.append(extents_of_places([ref.place for ref in node.refs()]))
            else:
                gathered += [extents_of_segments(node.segments), extents_of_segments(self.with_lists(node).segments)]
            if len(gathered) > _AT_ONCE:
                gathered = [unite(gathered)]
        return unite([*found, *gathered, *map(extents_of_blob, blobs_of_fold(catalog))])

    def touched(
        self, versions: Sequence[Version], choose: Callable[[Entries], Bool]
    ) -> tuple[dict[NodeId, Entries], Mapping[str, frozenset[NodeId]]]:
        """Rows of leaves that are chosen, by leaf; and of each version the leaves among these, and its lost nodes.

        Rows that the store can list no more, as only this machine has a node above them, count as chosen.

        Args:
            versions: Whose trees.
            choose: Which rows of a leaf, lists put in, are meant.
        """
        rows: dict[NodeId, Entries] = {}
        below: dict[NodeId, tuple[NodeId, ...]] = {}
        roots = [root_of(version.entry.tree).ref for version in versions]
        fallen: set[NodeId] = set()
        for ref, node in self.nodes(roots):
            is_fallen = ref.node_id in fallen or ref.node_id in self.unread
            if isinstance(node, Children):
                below[ref.node_id] = tuple(one.node_id for one in node.refs())
                fallen.update(below[ref.node_id] if is_fallen else ())
                continue
            chosen = np.flatnonzero(choose(node) | choose(self.with_lists(node)) | is_fallen)
            if len(chosen):
                rows[ref.node_id] = node.take(chosen)
        return rows, _leading_to(self._nowhere().union(rows), versions, roots, below)

    def _nowhere(self) -> set[NodeId]:
        return {node_id for node_id, one in self.unread.items() if not one.known}


def _leading_to(
    marked: set[NodeId], versions: Sequence[Version], roots: Sequence[NodeRef], below: Mapping[NodeId, Sequence[NodeId]]
) -> dict[str, frozenset[NodeId]]:
    """The marked nodes of each version; `below` has the children of inner nodes, parents first."""
    leading = set(marked)
    for node_id in reversed(list(below)):
        if not leading.isdisjoint(below[node_id]):
            leading.add(node_id)
    found = {}
    for version, root in zip(versions, roots, strict=True):
        met: set[NodeId] = set()
        todo = [root.node_id] if root.node_id in leading else []
        while todo:
            node_id = todo.pop()
            if node_id not in met:
                met.add(node_id)
                todo += [one for one in below.get(node_id, ()) if one in leading]
        found[version.id] = frozenset(met & marked)
    return found


def census_ref(version: Version) -> NodeRef:
    """Where a version's census is."""
    census = version.entry.tree.census
    return NodeRef(NodeId(bytes.fromhex(census.id)), place_of(census.place))


def head_ref(leaf: Entries, row: int) -> NodeRef:
    """Where the segment list of an entry is."""
    one = segments_of(leaf, row)[0]
    return NodeRef(NodeId(one.digest), Place(one.pack, one.offset, one.stored, one.plain_length))


def _unmet(refs: Sequence[NodeRef], met: set[NodeId]) -> list[NodeRef]:
    fresh = []
    for ref in refs:
        if ref.node_id not in met:
            met.add(ref.node_id)
            fresh.append(ref)
    return fresh
