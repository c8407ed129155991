"""What a damaged store has lost, part by part: segments of live contents, and nodes that can be made again."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from msgspec import Struct

from dataset_store.core.census import encode_census
from dataset_store.core.digest import hash32
from dataset_store.core.extents import Extents, extents_of_places, extents_of_segments, unite
from dataset_store.core.frames import FrameKind
from dataset_store.core.nodes import Children, NodeRef
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.segments import Segment, segments_of
from dataset_store.dataset.checks.surveying import Surveyed
from dataset_store.dataset.checks.walking import census_ref
from dataset_store.storage.blobs import extents_of_blob, segments_of_blob
from dataset_store.storage.liveness import blobs_of_contents
from dataset_store.storage.trees import root_of

__all__ = ["LostSegment", "lost_nodes", "lost_segments", "now_at"]


class LostSegment(Struct, frozen=True):
    """A segment that lies, at least in part, in what is lost of a pack.

    Attributes:
        segment: As a live tree names it.
        content_id: Of the content that it is a part of.
        size: That content's, in bytes.
        start: Where in the content the segment begins.
    """

    segment: Segment
    content_id: bytes
    size: int
    start: int


def lost_segments(found: Surveyed) -> dict[PackRef, list[LostSegment]]:
    """The segments of live entries of which something is lost, by the pack in which that is or was.

    What touches something bad is lost where it is now. What a frame that was restored in part lacks is lost where
    it was: the new frame has zeros there, which something else may name rightly.
    """
    relocations = found.standing.relocations
    named = relocations.named(found.bad)
    lost: defaultdict[PackRef, dict[LostSegment, None]] = defaultdict(dict)
    hollow = {one.place for one in found.hollow}
    for one in _segments_touched(found, unite([named, extents_of_places(list(hollow))])):
        place = one.segment.place
        if place in hollow:
            lost[place.pack][one] = None
        for now in relocations.places(place) or [place]:
            if extents_of_places([now]).touched_by(found.bad).any():
                lost[now.pack][one] = None
    return {pack: list(segments) for pack, segments in lost.items()}


def _segments_touched(found: Surveyed, meant: Extents) -> Iterator[LostSegment]:
    """The segments of live contents, entries' and blobs', some of which name bytes that are meant."""
    rows, _ = found.touched(meant)
    for leaf in rows.values():
        entries = found.trees.with_lists(leaf)
        if extents_of_segments(entries.segments).touched_by(meant).any():
            for row in range(len(entries)):
                segments, content_id = segments_of(entries, row), entries.content_ids[row].tobytes()
                yield from _with_starts(segments, content_id, int(entries.sizes[row]))
    for blob in blobs_of_contents(found.catalog):
        if extents_of_blob(blob).touched_by(meant).any():
            yield from _with_starts(segments_of_blob(blob), bytes.fromhex(blob.id), blob.size)


def lost_nodes(found: Surveyed) -> dict[Place, tuple[FrameKind, bytes]]:
    """Nodes, lists and censuses that the store lacks and this machine has or can make, by where they are now."""
    nodes: dict[Place, tuple[FrameKind, bytes]] = {}
    unread = found.trees.unread
    kept = found.trees.keeper.get_many(list(unread))
    for one, plain in zip(unread.values(), kept, strict=True):
        if plain is not None:
            nodes[now_at(found, one.ref.place)] = (one.kind, plain)
    for version in found.versions():
        ref = census_ref(version)
        if ref.node_id in unread and now_at(found, ref.place) not in nodes:
            plain = _census(found, root_of(version.entry.tree).ref)
            if plain is not None and hash32(plain) == ref.node_id:
                nodes[now_at(found, ref.place)] = (FrameKind.CENSUS, plain)
    return nodes


def _census(found: Surveyed, top: NodeRef) -> bytes | None:
    """The census of a tree, counted anew; None where nodes are lost."""
    if any(not one.known and one.kind is FrameKind.NODE for one in found.trees.unread.values()):
        return None
    census = Counter({top.place.pack: top.place.stored})
    for _, node in found.trees.nodes([top]):
        if isinstance(node, Children):
            for ref in node.refs():
                census[ref.place.pack] += ref.place.stored
    return encode_census(dict(census))


def now_at(found: Surveyed, place: Place) -> Place:
    """Where the first bytes of what is named at a place are now."""
    now = (found.standing.relocations.places(place) or [place])[0]
    return Place(now.pack, now.offset, now.stored, 0)


def _with_starts(segments: Sequence[Segment], content_id: bytes, size: int) -> Iterator[LostSegment]:
    at = 0
    for segment in segments:
        yield LostSegment(segment, content_id, size, at)
        at += segment.plain_length
