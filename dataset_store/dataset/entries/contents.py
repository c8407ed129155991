"""Short contents of entries, such as link records and the texts of symbolic links, read from the store."""

from collections.abc import Sequence

from dataset_store.core.entries import Entries
from dataset_store.core.frames import FrameCodec, take_segment
from dataset_store.core.paths import to_text
from dataset_store.core.segments import segments_of
from dataset_store.dataset.workspace import Workspace

__all__ = ["stored_contents"]


def stored_contents(workspace: Workspace, entries: Entries, rows: Sequence[int]) -> list[bytes]:
    """The checked contents of rows, all in memory; each frame is read and decoded once.

    Raises:
        CorruptObject, ObjectMissing: The store is damaged.
    """
    segments = {row: segments_of(entries, row) for row in rows}
    places = sorted({one.place for some in segments.values() for one in some})
    codec = FrameCodec()
    frames = {
        place: list(codec.decode_frames(data, what=f"The frames at {place.offset} of pack {place.pack.name.hex()}"))
        for place, data in zip(places, workspace.store.packs.read_ranges(places), strict=True)
    }
    return [
        b"".join(
            take_segment(
                frames[one.place],
                one.plain_offset,
                one.plain_length,
                one.digest,
                what=f"The content of {to_text(entries.keys[row])!r}",
            )
            for one in some
        )
        for row, some in segments.items()
    ]
