"""Trees written: built of entries, and edited.

As the shape of a tree is a function of its keys, a tree edited is the tree built anew. Editing reads and writes only
nodes on the paths to the changed keys.

Nodes are read and written through two small ports; nothing here knows where they are.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from msgspec import Struct, field

from dataset_store.core.arrays import np
from dataset_store.core.digest import ContentDigest, NodeId, hash32
from dataset_store.core.entries import Changes, Entries, concat, overlay
from dataset_store.core.nodes import (
    Children,
    Node,
    NodeRef,
    concat_children,
    content_digest,
    encode_node,
    level_of,
)
from dataset_store.core.packfile import Place
from dataset_store.core.paths import ROOT, PathKey
from dataset_store.core.shape import begins_node, cut_rows
from dataset_store.core.tree import NodeReader, TreeRoot, children_holding
from dataset_store.errors import CorruptObject

__all__ = ["EditedTree", "NodeWriter", "build", "build_of_parts", "edit", "still_there"]

_NODES_AT_ONCE = 256
"""Nodes encoded before they are written; about 64,000 entries."""


class NodeWriter(Protocol):
    """Where new nodes go."""

    def write_nodes(self, plains: Sequence[bytes]) -> list[Place]:
        """Append nodes, children always before their parents; their places."""


class EditedTree(Struct, frozen=True):
    """What an edit made: the new root, nodes written, and nodes of the old tree that the new one does not use."""

    root: TreeRoot
    written: list[Place]
    replaced: list[Place]


# --- building ----------------------------------------------------------------------------------------------------


def build(entries: Entries, writer: NodeWriter) -> EditedTree:
    """The tree of `entries`, all its nodes written."""
    return build_of_parts([entries], writer)


def build_of_parts(parts: Iterable[Entries], writer: NodeWriter) -> EditedTree:
    """As `build`, of entries that come in parts, each behind the one before; memory is that of a part or two."""
    log = _Writes(writer)
    above: list[Children] = []
    pending = Entries.empty()
    for part in parts:
        pending = concat([pending, part]) if len(pending) else part
        # The end of the last node is known when what follows is.
        end = [0, *cut_rows(pending.keys, 0)[:-1]][-1]
        if end:
            above.append(log.write_level(pending.rows(0, end)))
            pending = pending.rows(end, len(pending))
    if len(pending) or not above:
        above.append(log.write_level(pending))
    return EditedTree(_grow(concat_children(above), log), log.written, [])


def _grow(rows: Children, log: "_Writes") -> TreeRoot:
    """Levels on top of some nodes, given as the rows above them, until one node is left."""
    while len(rows) > 1:
        rows = log.write_level(rows)
    return TreeRoot(ContentDigest(rows.digests[0].tobytes()), rows.ref(0))


class _Writes(Struct):
    """Writes nodes and remembers their places."""

    writer: NodeWriter
    written: list[Place] = field(default_factory=list)
    nodes: dict[NodeId, Node] = field(default_factory=dict)

    def write_level(self, rows: Node) -> Children:
        """Cut rows into nodes and write them; the rows of the level above. No rows make one empty leaf."""
        level = level_of(rows)
        bounds = list(pairwise([0, *(cut_rows(rows.keys, level) or [0])]))
        above = []
        for at in range(0, len(bounds), _NODES_AT_ONCE):
            nodes = [rows.rows(start, stop) for start, stop in bounds[at : at + _NODES_AT_ONCE]]
            above.append(self.write_nodes(nodes, level, {}))
        return concat_children(above)

    def write_nodes(self, nodes: Sequence[Node], level: int, known: Mapping[NodeId, NodeRef]) -> Children:
        """Write nodes except those that already are; their rows for the level above."""
        plains = [encode_node(node) for node in nodes]
        ids = [NodeId(hash32(plain)) for plain in plains]
        missing = [plain for plain, node_id in zip(plains, ids, strict=True) if node_id not in known]
        places = self.writer.write_nodes(missing) if missing else []
        self.written.extend(places)
        self.nodes.update((i, node) for i, node in zip(ids, nodes, strict=True) if isinstance(node, Children))
        fresh = iter(places)
        refs = [known.get(node_id) or NodeRef(node_id, next(fresh)) for node_id in ids]
        return _rows_of(nodes, refs, level)


def _rows_of(nodes: Sequence[Node], refs: Sequence[NodeRef], level: int) -> Children:
    """One row of the level above for each node."""
    if not nodes:
        return Children.empty(level + 1)
    table: dict[object, int] = {}
    pack = [table.setdefault(ref.place.pack, len(table)) for ref in refs]
    counts = [int(node.counts.sum()) if isinstance(node, Children) else len(node) for node in nodes]
    digests = b"".join(content_digest(node) for node in nodes)
    packs = tuple(dict.fromkeys(ref.place.pack for ref in refs))
    return Children(
        level + 1,
        [node.keys[0] if len(node) else ROOT for node in nodes],
        np.array(counts, np.uint64),
        np.array([int(node.sizes.sum(dtype=np.uint64)) for node in nodes], np.uint64),
        packs,
        np.array(pack, np.uint32),
        np.array([ref.place.offset for ref in refs], np.uint32),
        np.array([ref.place.stored for ref in refs], np.uint32),
        np.array([ref.place.plain for ref in refs], np.uint32),
        np.frombuffer(digests, np.uint8).reshape(-1, 32),
        np.frombuffer(b"".join(ref.node_id for ref in refs), np.uint8).reshape(-1, 32),
    )


# --- editing -----------------------------------------------------------------------------------------------------


class _OldTree(Struct):
    """The tree being edited; nodes are read once."""

    root: TreeRoot
    reader: NodeReader
    nodes: dict[NodeId, Node] = field(default_factory=dict)

    def load(self, refs: Sequence[NodeRef]) -> list[Node]:
        missing = list({ref.node_id: ref for ref in refs if ref.node_id not in self.nodes}.values())
        if missing:
            found = self.reader.read_nodes(missing)
            self.nodes.update(zip((ref.node_id for ref in missing), found, strict=True))
        return [self.nodes[ref.node_id] for ref in refs]

    @property
    def height(self) -> int:
        """The level of the root."""
        return level_of(self.load([self.root.ref])[0])

    def prefetch(self, keys: Sequence[PathKey]) -> None:
        """Read all nodes on the paths to the sorted `keys`, one batch a level."""
        refs, shares = [self.root.ref], [keys]
        while refs:
            deeper: list[tuple[NodeRef, Sequence[PathKey]]] = []
            for node, share in zip(self.load(refs), shares, strict=True):
                if isinstance(node, Children):
                    deeper += [(node.ref(row), part) for row, part in children_holding(share, node.keys)]
            refs, shares = [ref for ref, _ in deeper], [share for _, share in deeper]


class _Cursor:
    """A node of one level of the old tree, and its neighbours on that level."""

    def __init__(self, tree: _OldTree, level: int, key: PathKey) -> None:
        self.tree = tree
        self.path: list[tuple[Children, int]] = []
        node = tree.load([tree.root.ref])[0]
        for _ in range(tree.height - level):
            node = self._push(node, None, key)

    def _push(self, node: Node, row: int | None, key: PathKey = ROOT) -> Node:
        if not isinstance(node, Children):
            raise CorruptObject("A tree has leaves on several levels.", "Run `dataset-store verify`.")
        if row is None:
            row = max(0, bisect_right(node.keys, key) - 1)
        self.path.append((node, row % len(node)))
        return self.tree.load([self.ref])[0]

    @property
    def ref(self) -> NodeRef:
        node, row = self.path[-1]
        return node.ref(row)

    @property
    def node(self) -> Node:
        return self.tree.load([self.ref if self.path else self.tree.root.ref])[0]

    @property
    def key(self) -> PathKey:
        """The first key of the node as its parent knows it; the root begins before every key."""
        return self.path[-1][0].keys[self.path[-1][1]] if self.path else ROOT

    def next_key(self) -> PathKey | None:
        """The first key of the next node of this level, without reading that node; None at the end."""
        for node, row in reversed(self.path):
            if row + 1 < len(node):
                return node.keys[row + 1]
        return None

    def move(self, step: int) -> bool:
        """Go to the next (+1) or previous (-1) node of the level; False where there is none."""
        for depth in range(len(self.path) - 1, -1, -1):
            node, row = self.path[depth]
            if 0 <= row + step < len(node):
                levels = len(self.path) - depth - 1
                self.path[depth:] = [(node, row + step)]
                for _ in range(levels):
                    self._push(self.node, 0 if step > 0 else -1)
                return True
        return False


def still_there(
    root: TreeRoot, wanted: Sequence[tuple[int, PathKey, NodeRef]], reader: NodeReader
) -> list[tuple[int, PathKey, NodeRef]]:
    """Those of the nodes, given as (level, first key, reference), that the tree uses at that very place."""
    tree = _OldTree(root, reader)
    tree.prefetch(sorted(key for _, key, _ in wanted))
    found = []
    for level, key, ref in wanted:
        cursor = _Cursor(tree, min(level, tree.height), key)
        if (cursor.ref if cursor.path else root.ref) == ref:
            found.append((level, cursor.key, ref))
    return found


class _RowChanges(Struct, frozen=True):
    """Changes to the rows of one level: keys that go, and rows that are added or replaced, both sorted."""

    removed: list[PathKey]
    rows: Node

    def touched(self) -> list[PathKey]:
        return sorted({*self.removed, *self.rows.keys})

    def between(self, touched: Sequence[PathKey]) -> "_RowChanges":
        """The part of the changes on a run of consecutive touched keys."""
        low, high = touched[0], touched[-1]
        gone = self.removed[bisect_left(self.removed, low) : bisect_right(self.removed, high)]
        keys = self.rows.keys
        return _RowChanges(gone, self.rows.rows(bisect_left(keys, low), bisect_right(keys, high)))


def _apply(rows: Node, changes: _RowChanges) -> Node:
    if isinstance(rows, Entries) and isinstance(changes.rows, Entries):
        return overlay(rows, Changes(changes.rows, changes.removed))
    assert isinstance(rows, Children)  # noqa: S101  (levels are homogeneous: see _Cursor)
    assert isinstance(changes.rows, Children)  # noqa: S101
    gone = {*changes.removed, *changes.rows.keys}
    kept = rows.take(np.array([key not in gone for key in rows.keys], np.bool_))
    both = concat_children([kept, changes.rows])
    order = sorted(range(len(both)), key=both.keys.__getitem__)
    return both.take(np.array(order, np.int64))


def _concat(one: Node, other: Node) -> Node:
    if isinstance(one, Entries) and isinstance(other, Entries):
        return concat([one, other])
    assert isinstance(one, Children)  # noqa: S101
    assert isinstance(other, Children)  # noqa: S101
    return concat_children([one, other])


class _LevelEdit:
    """Edits one level: rescans from each first touched node to the first old cut that the scan reproduces."""

    def __init__(self, tree: _OldTree, level: int, changes: _RowChanges) -> None:
        self.tree = tree
        self.level = level
        self.changes = changes
        self.touched = changes.touched()
        self.removed = set(changes.removed)
        self.old: dict[PathKey, NodeRef] = {}
        self.new: list[Node] = []

    def run(self) -> None:
        at = 0
        while at < len(self.touched):
            cursor = _Cursor(self.tree, self.level, self.touched[at])
            if cursor.key in self.removed:
                # The cut before this node was its first key's; with the key it goes.
                cursor.move(-1)
            at = self._rescan(cursor, at)

    def _rescan(self, cursor: _Cursor, at: int) -> int:
        pending: Node | None = None
        while True:
            self.old[cursor.key] = cursor.ref if cursor.path else self.tree.root.ref
            following = cursor.next_key()
            end = len(self.touched) if following is None else bisect_left(self.touched, following, at)
            rows = cursor.node
            if end > at:
                rows = _apply(rows, self.changes.between(self.touched[at:end]))
            pending = rows if pending is None else _concat(pending, rows)
            at = end
            pending = self._emit(pending)
            if following is None or (
                following not in self.removed and begins_node(following, self.level, len(pending))
            ):
                if len(pending):
                    self.new.append(pending)
                return at
            cursor.move(+1)

    def _emit(self, pending: Node) -> Node:
        """Give out all nodes but the last, whose end is not known yet."""
        ends = cut_rows(pending.keys, self.level)
        start = 0
        for end in ends[:-1]:
            self.new.append(pending.rows(start, end))
            start = end
        return pending.rows(start, len(pending)) if start else pending


def edit(
    root: TreeRoot,
    changes: Changes,
    reader: NodeReader,
    writer: NodeWriter,
    moving: Sequence[tuple[int, PathKey, NodeRef]] = (),
) -> EditedTree:
    """`root` with `changes` applied: the same tree as built anew from the resulting entries.

    Args:
        root: The tree to edit.
        changes: Rows to add or replace and keys to remove (keys that the tree lacks are ignored).
        reader: Where the nodes of `root` are.
        writer: Where new nodes go.
        moving: Nodes of `root` to be written again though their content stays, as (level, first key, reference).
    """
    tree = _OldTree(root, reader)
    log = _Writes(writer)
    replaced: list[Place] = []
    tree.prefetch(sorted({*changes.removed, *changes.entries.keys, *(key for _, key, _ in moving)}))
    rows: _RowChanges = _RowChanges(sorted(changes.removed), changes.entries)
    edited: dict[PathKey, NodeRef] = {}
    above = Children.empty(1)
    stuck = {ref.node_id for _, _, ref in moving}
    for level in range(tree.height + 1):
        work = _LevelEdit(tree, level, rows)
        work.run()
        edited = work.old
        known = {ref.node_id: ref for ref in edited.values() if ref.node_id not in stuck}
        movers = [(key, ref) for at, key, ref in moving if at == level and key not in edited]
        above = _sorted_rows(
            [
                log.write_nodes(work.new, level, known),
                log.write_nodes(tree.load([ref for _, ref in movers]), level, {}),
            ]
        )
        kept = {ref.place for ref in above.refs()}
        old = [*edited.values(), *(ref for _, ref in movers)]
        replaced += [ref.place for ref in old if ref.place not in kept]
        rows = _RowChanges(sorted(set(edited) - set(above.keys)), above)
    return _finish(tree, above, bool(edited), log, replaced)


def _sorted_rows(parts: Sequence[Children]) -> Children:
    both = concat_children(parts)
    order = sorted(range(len(both)), key=both.keys.__getitem__)
    return both.take(np.array(order, np.int64))


def _finish(tree: _OldTree, top: Children, changed: bool, log: _Writes, replaced: list[Place]) -> EditedTree:
    """The root above the nodes of the old root's level: grown where they are many, shrunk where one has one child."""
    if not len(top):
        empty = hash32(encode_node(Entries.empty()))
        if not changed or empty == tree.root.ref.node_id:
            return EditedTree(tree.root, [], [])
        return EditedTree(_grow(log.write_level(Entries.empty()), log), log.written, replaced)
    root = _grow(top, log)
    while True:
        node = log.nodes.get(root.ref.node_id) or tree.load([root.ref])[0]
        if isinstance(node, Entries) or len(node) > 1:
            return EditedTree(root, log.written, replaced)
        if root.ref.place in log.written:
            log.written.remove(root.ref.place)
        else:
            replaced.append(root.ref.place)
        root = TreeRoot(ContentDigest(node.digests[0].tobytes()), node.ref(0))
