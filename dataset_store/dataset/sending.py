"""The packs of one upload or transfer: what is appended is placed, and every pack is indexed once it was put.

So whatever is broken off is found again through the chunk index, and the same call goes on where the first one stopped.
"""

from dataset_store.core.catalog import Catalog
from dataset_store.core.digest import ChunkId, PackName, hash32
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.packfile import TRAILER_SIZE, Footer, PackRef
from dataset_store.core.segments import MOST_SEGMENTS, FileSegments, encode_segment_list, segment_columns
from dataset_store.dataset.workspace import Workspace
from dataset_store.storage.packs import PackWriter

__all__ = ["PackSender", "condemned_packs"]


class PackSender:
    """A writer of packs into one storage of a store, that counts what went.

    Args:
        workspace: The store.
        condemned: Packs that must not be used, as of the state from which hits are taken.
        storage: The number of the storage.
    """

    def __init__(self, workspace: Workspace, condemned: frozenset[PackRef], storage: int) -> None:
        self.workspace = workspace
        self.condemned = condemned
        self.packs = 0
        self.stored = 0
        self.new_bytes = 0
        self.writer: PackWriter = workspace.repository.pack_writer(storage, self._on_written)

    def _on_written(self, pack: PackRef, footer: Footer) -> None:
        self.workspace.chunks.add_footer(pack, footer, self.condemned)
        self.packs += 1
        self.stored += footer.frames_end + len(footer.encode()) + TRAILER_SIZE

    def finish_list(self, found: FileSegments) -> FileSegments:
        """A file of many segments gets them as a list frame of its own."""
        if len(found.rows) <= MOST_SEGMENTS:
            return found
        plain = encode_segment_list(segment_columns(found.rows))
        frame = FrameCodec().encode_frame(FrameKind.LIST, [plain], [ChunkId(hash32(plain))])
        return FileSegments.listed(self.writer.append([frame])[0], plain)


def condemned_packs(catalog: Catalog) -> frozenset[PackRef]:
    """Every pack that nobody may begin to use, as of a state."""
    return frozenset(PackRef(row.storage, PackName(bytes.fromhex(row.pack))) for row in catalog.condemned)
