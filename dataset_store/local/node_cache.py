"""The node cache: plain bytes of trees' nodes that this machine has read or written, by node id.

Promises: what comes out has the hash that was asked for; a damaged value is removed and counts as absent. Over the
byte limit everything is thrown away at once: it is only a cache, what is still in use comes back with the next
reads, and there is no order of use to keep with every read. Never: makes a request, or fails; where its folder
cannot be used it holds nothing.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from dataset_store.core.digest import ChunkId, NodeId
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.errors import CorruptObject
from dataset_store.local.best_effort import BestEffort

if TYPE_CHECKING:
    from dataset_store.local.environment import Transaction

__all__ = ["NodeCache"]

_BYTE_LIMIT: Final = 1 << 30


class NodeCache:
    """The cache in one folder, shared by all processes that open it. Safe for threads.

    Values are node frames as packs have them: zstd level 1 where that saves at least 5 %.

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
        codec = FrameCodec()
        nodes = [
            None if value is None else _plain(codec, value, node_id)
            for node_id, value in zip(node_ids, values, strict=True)
        ]
        damaged = [
            node_id
            for node_id, value, node in zip(node_ids, values, nodes, strict=True)
            if node is None and value is not None
        ]
        if damaged:
            self._environment.write(lambda txn: txn.delete_many(damaged))
        return nodes

    def put_many(self, items: Iterable[tuple[NodeId, bytes]]) -> None:
        """Keep nodes.

        Args:
            items: Node ids, trusted to be the hashes of the plain bytes that they come with.
        """
        codec = FrameCodec()
        rows = sorted((node_id, _frame(codec, node_id, plain)) for node_id, plain in items)
        if rows:
            self._environment.write(partial(self._store, rows))

    def _store(self, rows: Sequence[tuple[bytes, bytes]], txn: "Transaction") -> None:
        if txn.used_bytes() > self._byte_limit:
            txn.clear()
        txn.put_many(rows, overwrite=False)


def _frame(codec: FrameCodec, node_id: NodeId, plain: bytes) -> bytes:
    return codec.encode_frame(FrameKind.NODE, [plain], [ChunkId(node_id)]).data


def _plain(codec: FrameCodec, value: bytes, node_id: NodeId) -> bytes | None:
    try:
        return codec.decode_whole(value, FrameKind.NODE, node_id, what="A cached node")
    except CorruptObject:
        return None
