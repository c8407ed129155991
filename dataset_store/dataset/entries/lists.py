"""Entries of very many segments keep them in list frames; here they are put back into the columns."""

from dataset_store.core.arrays import np
from dataset_store.core.digest import NodeId
from dataset_store.core.entries import LISTED, Entries
from dataset_store.core.frames import FrameKind
from dataset_store.core.nodes import NodeRef
from dataset_store.core.packfile import Place
from dataset_store.core.segments import FileSegments, decode_segment_list, segment_rows, segments_of, with_segments_at
from dataset_store.storage.trees import StoredNodes

__all__ = ["with_lists"]


def with_lists(entries: Entries, nodes: StoredNodes) -> Entries:
    """The same entries with every segment list expanded; one batch of reads where there are any."""
    listed = np.flatnonzero(entries.kinds & LISTED).tolist()
    if not listed:
        return entries
    heads = [segments_of(entries, row)[0] for row in listed]
    refs = [NodeRef(NodeId(one.digest), Place(one.pack, one.offset, one.stored, one.plain_length)) for one in heads]
    expanded = {
        row: FileSegments(segment_rows(decode_segment_list(plain, int(entries.sizes[row]), what="of a large file")))
        for row, plain in zip(listed, nodes.read(FrameKind.LIST, refs), strict=True)
    }
    return with_segments_at(entries, expanded)
