"""What can still be read of a damaged store: each thing that was asked for, or why it cannot be had.

A pack that is not there is asked for once. A storage that does not answer at all says nothing of what it holds: that is
raised, and not taken for damage.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

from dataset_store.core.digest import NodeId
from dataset_store.core.entries import Entries, concat
from dataset_store.core.nodes import Children, Node, NodeRef
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.paths import ROOT, PathKey, to_text
from dataset_store.core.tree import NodeReader, TreeRoot, read_children
from dataset_store.errors import Corrupt, CorruptObject, DatasetStoreError, ObjectMissing, StorageFailed
from dataset_store.storage.store import Store, fetch_config

__all__ = ["Lost", "Surviving", "SurvivingPacks", "read_surviving", "readable"]

_Wanted = TypeVar("_Wanted")
_Found = TypeVar("_Found")


def readable(wanted: Sequence[_Wanted], read: Callable[[Sequence[_Wanted]], Sequence[_Found]]) -> list[_Found | None]:
    """What `read` finds of each, None where something is damaged or gone: all at once, and by halves where one is.

    Raises:
        StorageFailed: A storage refused.
    """
    try:
        return list(read(wanted))
    except Corrupt:
        if len(wanted) <= 1:
            return [None] * len(wanted)
        half = len(wanted) // 2
        return readable(wanted[:half], read) + readable(wanted[half:], read)


class _Unreadable(Corrupt):
    """A pack cannot be read, though its storage answers."""

    kind = "unreadable"


class SurvivingPacks:
    """The packs of a store, some of which may be gone or damaged. May be used from several threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._gone: dict[PackRef, Corrupt] = {}

    def read_frames(self, places: Sequence[Place]) -> list[memoryview | Corrupt]:
        """The stored bytes of each place, unchecked, or why they cannot be had.

        Raises:
            StorageFailed: A storage does not answer.
        """
        return self.each(places, lambda place: place.pack, self.store.packs.read_frames)

    def each(
        self,
        wanted: Sequence[_Wanted],
        pack_of: Callable[[_Wanted], PackRef],
        read: Callable[[Sequence[_Wanted]], Sequence[_Found]],
    ) -> list[_Found | Corrupt]:
        """What `read` finds of each, at once where all is whole, else one by one.

        Raises:
            StorageFailed: A storage does not answer.
        """
        gone = [self._gone.get(pack_of(one)) for one in wanted]
        try:
            found = iter(read([one for one, error in zip(wanted, gone, strict=True) if error is None]))
        except (Corrupt, StorageFailed):
            return [self._alone(one, pack_of(one), read) for one in wanted]
        return [next(found) if error is None else error for error in gone]

    def _alone(
        self, one: _Wanted, pack: PackRef, read: Callable[[Sequence[_Wanted]], Sequence[_Found]]
    ) -> _Found | Corrupt:
        if pack not in self._gone:
            try:
                return read([one])[0]
            except ObjectMissing as error:
                if self._has_restored(pack):
                    return error
                self._gone[pack] = error
            except Corrupt as error:
                return error
            except StorageFailed as error:
                if not self.answers(pack.storage):
                    raise
                self._gone[pack] = _Unreadable(error.what, error.next_step)
        return self._gone[pack]

    def _has_restored(self, pack: PackRef) -> bool:
        """Whether some frames of a pack are elsewhere, so that one that is gone says nothing of the others."""
        try:
            return self.store.standings.moved_out_of(pack) is not None
        except Corrupt:
            return False

    def answers(self, storage: int) -> bool:
        """Whether another object of the storage can be had."""
        try:
            if storage == 0:
                return fetch_config(self.store.backend) is not None
            return next(iter(self.store.storages[storage].list("packs")), None) is not None
        except DatasetStoreError:
            return False


# --- trees -----------------------------------------------------------------------------------------------------------


class Lost(Struct, frozen=True):
    """Entries of a version that cannot even be listed, as the node that named them is not to be had.

    Attributes:
        first: The path that they begin with; None where that is the version's first.
        before: The path before which they end; None where that is behind the version's last.
        entries: How many.
        bytes: The sum of their sizes.
        problem: What is wrong with the node.
        kind: Of the error, a stable name.
    """

    first: str | None
    before: str | None
    entries: int
    bytes: int
    problem: str
    kind: str


class Surviving(Struct, frozen=True):
    """What is left of a tree: entries in order, and what lies between them."""

    entries: Entries
    lost: tuple[Lost, ...]


class _Part(Struct, frozen=True):
    """A node to be read: the keys in `[first, before)`, and what the node above says of it."""

    ref: NodeRef
    first: PathKey
    before: PathKey | None
    entries: int
    bytes: int

    def lost(self, error: Corrupt) -> tuple[PathKey, Lost]:
        first = to_text(self.first) if self.first else None
        before = None if self.before is None else to_text(self.before)
        return self.first, Lost(first, before, self.entries, self.bytes, error.what, error.kind)

    def below(self, node: Children) -> list["_Part"]:
        firsts = [self.first, *node.keys[1:]]
        columns = zip(node.refs(), firsts, [*firsts[1:], self.before], strict=True)
        return [
            _Part(ref, first, before, int(node.counts[row]), int(node.sizes[row]))
            for row, (ref, first, before) in enumerate(columns)
        ]


def read_surviving(root: TreeRoot, entries: int, size: int, nodes: NodeReader, packs: SurvivingPacks) -> Surviving:
    """Every entry of a tree that can be listed, one batch of reads for each level where nothing is lost.

    Args:
        root: The tree.
        entries: How many it has, as its manifest says.
        size: The sum of their sizes in bytes.
        nodes: Where its nodes are read.
        packs: The packs that they lie in.

    Raises:
        StorageFailed: A storage does not answer.
    """
    leaves: list[tuple[PathKey, Entries]] = []
    lost: list[tuple[PathKey, Lost]] = []
    parts = [_Part(root.ref, ROOT, None, entries, size)]
    met: set[NodeId] = set()
    while parts:
        parts, again = _first_met(parts, met)
        lost += [part.lost(CorruptObject("A tree has a node twice.")) for part in again]
        found = packs.each(parts, lambda part: part.ref.place.pack, lambda some: _read(some, nodes))
        deeper: list[_Part] = []
        for part, node in zip(parts, found, strict=True):
            if isinstance(node, Corrupt):
                lost.append(part.lost(node))
            elif isinstance(node, Entries):
                leaves.append((part.first, node))
            else:
                deeper += part.below(node)
        parts = deeper
    leaves.sort(key=lambda row: row[0])
    lost.sort(key=lambda row: row[0])
    return Surviving(concat([rows for _, rows in leaves]), tuple(one for _, one in lost))


def _first_met(parts: Sequence[_Part], met: set[NodeId]) -> tuple[list[_Part], list[_Part]]:
    """The parts whose nodes were not met before, and the others, which no tree has. All are `met` from now on."""
    fresh: list[_Part] = []
    again: list[_Part] = []
    for part in parts:
        (again if part.ref.node_id in met else fresh).append(part)
        met.add(part.ref.node_id)
    return fresh, again


def _read(parts: Sequence[_Part], nodes: NodeReader) -> list[Node]:
    return read_children([part.ref for part in parts], nodes)
