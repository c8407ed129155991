"""Salvaging: where contents that do not stand any more are to be had from again.

First from the files that were added, if these are still what they were; else from the packs that the contents lie in,
condemned as these are, for as long as they exist.
"""

from msgspec.structs import replace

from dataset_store.core.arrays import Bool, np
from dataset_store.core.entries import EXECUTABLE, KIND_BITS, LISTED, Entries
from dataset_store.core.frames import FrameCodec
from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey, to_texts
from dataset_store.core.segments import FileSegments, segments_of, with_segments_at
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.dataset.uploads.sending import Sender
from dataset_store.errors import ChunksLost, Corrupt
from dataset_store.local.drafts import Draft
from dataset_store.local.reading import content_id_at

__all__ = ["can_be_read", "require_nothing_lost", "salvage"]

_TOLD_AT_MOST = 5


def can_be_read(draft: Draft, entries: Entries) -> Bool:
    """The rows whose contents are still to be had from where they were added; shape (n,)."""
    found = np.zeros(len(entries), np.bool_)
    sources = draft.known_sources(entries.keys)
    for row, source in enumerate(sources):
        if source is None:
            continue
        key = entries.keys[row]
        if key in source.links:
            found[row] = True
        elif (entries.kinds[row] & KIND_BITS) == Kind.FILE:
            found[row] = content_id_at(source.path_of(key)) == entries.content_ids[row].tobytes()
    return found


def salvage(entries: Entries, sender: Sender) -> tuple[Entries, list[PathKey]]:
    """Rows with their frames copied out of the packs that they lie in; and the keys of those that are not there."""
    found: dict[int, FileSegments] = {}
    lost: list[PathKey] = []
    for row in range(len(entries)):
        try:
            found[row] = _copied(entries.rows(row, row + 1), sender)
        except Corrupt:
            lost.append(entries.keys[row])
    return with_segments_at(entries, found), lost


def require_nothing_lost(draft: Draft) -> None:
    """Refuse to go on with a draft of which contents are nowhere.

    Raises:
        ChunksLost: There are some.
    """
    if draft.lost:
        lost = to_texts(sorted(draft.lost))
        more = len(lost) - _TOLD_AT_MOST
        told = ", ".join(lost[:_TOLD_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        raise ChunksLost(
            f"What this draft had of {len(lost)} files was collected, and they are not there to be read again: {told}.",
            "The draft is kept: add or sync these files again, or remove them, then finalize.",
        )


def _copied(entry: Entries, sender: Sender) -> FileSegments:
    """One entry's segments, their frames appended to the sender's packs."""
    codec, bits = FrameCodec(), int(entry.kinds[0]) & (0xFF ^ (KIND_BITS | EXECUTABLE | LISTED))
    whole = with_lists(entry, sender.workspace.store.nodes)
    copied = []
    for segment, stored_as in zip(segments_of(whole, 0), whole.segments.digest, strict=True):
        place = segment.place
        (data,) = sender.workspace.store.packs.read_frames([place])
        what = f"pack {segment.pack.name.hex()}"
        codec.decode_segment(data, segment.plain_offset, segment.plain_length, segment.digest, what=what)
        frames = list(codec.stored_frames(data, what=what))
        first = sender.writer.append(frames, together=True)[0]
        copied.append(replace(segment, pack=first.pack, offset=first.offset, digest=stored_as.tobytes()))
    return sender.finish_list(FileSegments(tuple(copied), bits))
