"""Summaries: what nodes of trees name, kept on this machine by node id, for garbage collection.

A node never changes, so a summary is right forever. Promises: what comes out is what went in, or nothing; a damaged
value counts as absent. Never: makes a request, or fails; where its folder cannot be used it holds nothing.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from dataset_store.core.digest import NodeId, hash32
from dataset_store.local.best_effort import BestEffort

__all__ = ["Summaries"]

_CHECK: Final = 16
"""Bytes of the hash of key and value that stand before a value: what is dead is decided by what it says."""


class Summaries:
    """The summaries in one folder, shared by all processes that open it. Safe for threads.

    Args:
        directory: Used by nothing else; made if it is not there.
    """

    __slots__ = ("_environment",)

    def __init__(self, directory: str) -> None:
        self._environment = BestEffort(directory)

    def get_many(self, node_ids: Sequence[NodeId]) -> list[bytes | None]:
        """What was kept of each node, None for others, in the order asked."""
        values = self._environment.get_many(node_ids)
        pairs = zip(node_ids, values, strict=True)
        return [None if value is None else _unsealed(node_id, value) for node_id, value in pairs]

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Keep summaries."""
        rows = sorted((node_id, _check(node_id, summary) + summary) for node_id, summary in items)
        if rows:
            self._environment.write(lambda txn: txn.put_many(rows))


def _check(node_id: bytes, summary: bytes) -> bytes:
    return hash32(node_id + summary)[:_CHECK]


def _unsealed(node_id: bytes, value: bytes) -> bytes | None:
    summary = value[_CHECK:]
    return summary if _check(node_id, summary) == value[:_CHECK] else None
