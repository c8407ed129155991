"""Metadata that is too long for a log entry: when it is a blob, and how long it may be."""

from dataset_store.core.log_entries import Blob
from dataset_store.dataset.workspace import Workspace
from dataset_store.errors import InvalidRequest
from dataset_store.storage import blobs
from dataset_store.storage.pack_writer import PackWriter

__all__ = ["MOST_BLOB_BYTES", "is_short", "read_blob", "require_bounded", "write_blob"]

MOST_BLOB_BYTES = 256 << 20
_MOST_SHORT_BYTES = 512


def is_short(data: bytes) -> bool:
    """Whether a piece of metadata is text that a log entry holds itself."""
    if len(data) > _MOST_SHORT_BYTES:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def require_bounded(length: int) -> None:
    """See to it that a blob can be read back into memory.

    Raises:
        InvalidRequest: It has too many bytes.
    """
    if length > MOST_BLOB_BYTES:
        raise InvalidRequest(
            f"{length >> 20} MiB are too much for the metadata or reports of a version.",
            "Keep them in a file of the dataset instead.",
        )


def write_blob(
    workspace: Workspace, writer: PackWriter, data: bytes, find: blobs.ChunkFinder = blobs.finds_nothing
) -> Blob:
    """Append a blob's chunks to packs, but for those that `find` finds; it is there once the writer was flushed.

    Raises:
        InvalidRequest: It is too long.
        StorageFailed: A full pack could not be put.
    """
    require_bounded(len(data))
    return blobs.write_blob(data, writer, workspace.store.chunker, find)


def read_blob(workspace: Workspace, blob: Blob) -> bytes:
    """The bytes of a blob, checked.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    what = f"The metadata {blob.id[:16]}"
    return blobs.read_blob(blob, workspace.store.packs, what=what, most=MOST_BLOB_BYTES)
