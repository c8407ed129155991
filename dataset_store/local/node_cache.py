"""The node cache: plain bytes of trees' nodes that this machine has read or written, by node id.

Promises: what comes out has the hash that was asked for; a damaged value is removed and counts as absent. Over the
byte limit everything is thrown away at once: it is only a cache, what is still in use comes back with the next
reads, and there is no order of use to keep with every read. Never: makes a request, or fails; where its folder
cannot be used it holds nothing.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from dataset_store.core.digest import NodeId, hash32
from dataset_store.local.best_effort import BestEffort

if TYPE_CHECKING:
    from dataset_store.local.lmdb_environment import Transaction

__all__ = ["NodeCache"]

_BYTE_LIMIT: Final = 2 << 30


class NodeCache:
    """The cache in one folder, shared by all processes that open it. Safe for threads.

    Values are plain, twice as large as compressed: to expand them would be most of what reading them takes.

    Args:
        directory: Used by nothing else; made if it is not there.
        byte_limit: Bytes of live pages above which the next write begins by emptying the cache. The file is larger
            by at most one write, and never shrinks.
    """

    __slots__ = ("_byte_limit", "_environment")

    def __init__(self, directory: str, byte_limit: int = _BYTE_LIMIT) -> None:
        self._environment = BestEffort(directory)
        self._byte_limit = byte_limit

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """The plain bytes of each node, in the order asked; None where they are not here."""
        values = self._environment.get_many(node_ids)
        damaged = [row for row, value in enumerate(values) if value is not None and hash32(value) != node_ids[row]]
        for row in damaged:
            values[row] = None
        if damaged:
            self._environment.write(lambda txn: txn.delete_many([node_ids[row] for row in damaged]))
        return values

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Keep nodes.

        Args:
            items: Node ids, trusted to be the hashes of the plain bytes that they come with.
        """
        rows = sorted(items)
        if rows:
            self._environment.write(partial(self._store, rows))

    def _store(self, rows: Sequence[tuple[bytes, bytes]], txn: "Transaction") -> None:
        if txn.used_bytes() > self._byte_limit:
            txn.clear()
        txn.put_many(rows, overwrite=False)
