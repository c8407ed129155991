"""What versions come from: merging a draft's parents, and comparing a version with its parents."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from dataset_store.core.catalog import Catalog, Version
from dataset_store.core.digest import PackName, hash32
from dataset_store.core.entries import Changes, Entries, compose, overlay
from dataset_store.core.merge import common_bases, merge
from dataset_store.core.node_decoding import decode_node
from dataset_store.core.nodes import Node, NodeRef
from dataset_store.core.packfile import PACK_HEADER_SIZE, PackRef, Place
from dataset_store.core.tree import NodeReader, TreeRoot, read_all
from dataset_store.core.tree_writing import edit
from dataset_store.dataset.workspace import Workspace
from dataset_store.storage.trees import root_of

__all__ = [
    "ancestors_of",
    "dependency_graph",
    "merged_entries",
    "merged_parents",
    "nearest_ancestors",
    "tree_of_version",
]

_SCRATCH = PackRef(2**32 - 1, PackName(bytes(16)))


class _Scratch:
    """Nodes of intermediate trees, in memory, in front of the stored ones."""

    def __init__(self, stored: NodeReader) -> None:
        self.stored = stored
        self.nodes: dict[bytes, Node] = {}

    def write_nodes(self, plains: Sequence[bytes]) -> list[Place]:
        self.nodes.update((hash32(plain), decode_node(plain, "memory")) for plain in plains)
        return [Place(_SCRATCH, PACK_HEADER_SIZE, len(plain), len(plain)) for plain in plains]

    def read_nodes(self, refs: Sequence[NodeRef]) -> list[Node]:
        wanted = [ref for ref in refs if ref.node_id not in self.nodes]
        found = dict(zip((ref.node_id for ref in wanted), self.stored.read_nodes(wanted), strict=True))
        return [self.nodes[ref.node_id] if ref.node_id in self.nodes else found[ref.node_id] for ref in refs]


def _known_parents(catalog: Catalog, version_ids: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The parents of these versions and of all their ancestors."""
    known: dict[str, Sequence[str]] = {}
    waiting = list(version_ids)
    while waiting:
        version = catalog.version(waiting.pop())
        if version is not None and version.id not in known:
            known[version.id] = version.entry.parents
            waiting.extend(version.entry.parents)
    return known


def merged_parents(workspace: Workspace, parents: Sequence[str]) -> Changes:
    """What the merge of the parents changes in the first parent's tree.

    Bases that were deleted are passed over, as their nodes may be gone, and those that this store never had.
    """
    catalog = workspace.catalog
    known = _known_parents(catalog, parents)
    live = {version for version in known if not catalog.is_deleted(version)}
    scratch = _Scratch(workspace.store.nodes)
    total = Changes.none()
    so_far = root_of(workspace.base_of(parents[0]))
    for at, parent in enumerate(parents[1:], start=1):
        common = sorted(common_bases(parents[:at], parent, known, live))
        bases = [root_of(workspace.base_of(base)) for base in common]
        step = merge(so_far, root_of(workspace.base_of(parent)), bases, scratch)
        total = compose(total, step)
        if len(step) and at + 1 < len(parents):
            so_far = edit(so_far, step, scratch, scratch).root
    return total


def dependency_graph(catalog: Catalog, version_id: str, parents: Sequence[str]) -> dict[str, list[str]]:
    """Every version of a lineage with its parents, `version_id` first."""
    known = _known_parents(catalog, parents)
    return {version_id: list(parents)} | {version: list(above) for version, above in known.items()}


def ancestors_of(catalog: Catalog, version_ids: Sequence[str]) -> list[str]:
    """These versions and all their ancestors, deleted ones too."""
    return list(_known_parents(catalog, version_ids))


def nearest_ancestors(catalog: Catalog, version: Version) -> Iterator[Version]:
    """A version, its parents, theirs, and so on, as far as the store has had them; deleted ones too, each once."""
    waiting, seen = deque([version]), {version.id}
    while waiting:
        version = waiting.popleft()
        yield version
        fresh = [parent for parent in version.entry.parents if parent not in seen]
        seen.update(fresh)
        waiting.extend(found for parent in fresh if (found := catalog.version(parent)) is not None)


def tree_of_version(workspace: Workspace, version_id: str) -> TreeRoot:
    """The tree of a live version.

    Raises:
        DatasetNotFound: It was deleted.
    """
    return root_of(workspace.live_version(version_id).entry.tree)


def merged_entries(workspace: Workspace, parents: Sequence[str]) -> Entries:
    """The entries that a draft of these parents begins with."""
    if not parents:
        return Entries.empty()
    first = read_all(tree_of_version(workspace, parents[0]), workspace.store.nodes)
    return overlay(first, merged_parents(workspace, parents)) if len(parents) > 1 else first
