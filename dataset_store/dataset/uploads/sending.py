"""Sending: the packs of one upload, and what the draft notes of them."""

from collections.abc import Callable, Mapping

from dataset_store.core.digest import ChunkId, PackName, hash32
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.log_entries import Blob, Statistics, TreeRootRow
from dataset_store.core.packfile import TRAILER_SIZE, Footer, PackRef
from dataset_store.core.segments import MOST_SEGMENTS, FileSegments, encode_segment_list, segment_columns
from dataset_store.core.standing import Standing
from dataset_store.dataset.workspace import Workspace
from dataset_store.local.draft_records import Sent
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.store import new_pack_name

__all__ = ["Sender"]


class Sender:
    """One upload's packs: places what is appended, and indexes every pack once it was put.

    Args:
        workspace: The store.
        standing: What may be referred to; every hit of the upload is checked at this one slot.
        storage: The number of the storage that the packs go to.
        new_name: Draws their names.
    """

    def __init__(
        self, workspace: Workspace, standing: Standing, storage: int, new_name: Callable[[], PackName] = new_pack_name
    ) -> None:
        self.workspace = workspace
        self.standing = standing
        self.storage = storage
        self.packs: list[PackRef] = []
        self.stored = 0
        self.new_bytes = 0
        self.writer: PackWriter = workspace.store.pack_writer(storage, self.note, new_name)

    def note(self, pack: PackRef, footer: Footer) -> None:
        """Take account of a pack that was put by this sender, or for it by somebody else."""
        self.workspace.chunks.add_footer(pack, footer, self.standing.condemned)
        self.packs.append(pack)
        self.stored += footer.frames_end + len(footer.encode()) + TRAILER_SIZE

    def sent(self, tree: TreeRootRow, metadata: Mapping[str, Blob], stats: Statistics) -> Sent:
        """What a draft notes of this upload, all of which stood before the upload's slot."""
        packs = [(pack.storage, bytes(pack.name)) for pack in self.packs]
        return Sent(tree, self.standing.slot, stats, dict(metadata), packs)

    def finish_list(self, found: FileSegments) -> FileSegments:
        """A file of many segments gets them as a list frame of its own."""
        if len(found.rows) <= MOST_SEGMENTS:
            return found
        plain = encode_segment_list(segment_columns(found.rows))
        frame = FrameCodec().encode_frame(FrameKind.LIST, [plain], [ChunkId(hash32(plain))])
        return FileSegments.listed(self.writer.append([frame])[0], plain)
