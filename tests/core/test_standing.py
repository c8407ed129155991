"""Standing: nobody begins to use what is condemned or lost, and what was moved is used where it is now."""

import numpy as np

from dataset_store.core.digest import PackName
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.relocation import Relocations, moved_frames
from dataset_store.core.segments import ChunkHit, Segment, segment_columns, segment_rows
from dataset_store.core.standing import Standing


def pack(number):
    return PackRef(0, PackName(bytes([number]) * 16))


def frame(number, at, stored=10):
    return Place(pack(number), at, stored, 0)


def hit(place, plain_offset=0):
    return ChunkHit(place.pack, place.offset, place.stored, plain_offset, 5, alone=False)


def segment(place):
    return Segment(place.pack, place.offset, place.stored, 0, 5, bytes(32))


LOST, HOLED = frame(2, 60), frame(2, 50)
RELOCATIONS = Relocations().with_table(
    moved_frames(
        [
            (frame(1, 40), frame(3, 70, 13)),  # pack 1 was repacked, pack 2 repaired in part
            (frame(1, 50), frame(3, 83, 8)),
            (frame(2, 40), frame(4, 40, 11)),
            (HOLED, frame(4, 51, 9)),
            (LOST, LOST),
        ],
        {HOLED, LOST},
    )
)
STANDING = Standing(9, frozenset({pack(1)}), RELOCATIONS)


def test_a_hit_stands_where_it_is_or_where_it_was_moved_whole():
    assert STANDING.hits([hit(frame(7, 40)), None]) == [hit(frame(7, 40)), None]
    assert STANDING.hits([hit(frame(1, 40), 3)]) == [hit(frame(3, 70, 13), 3)]
    assert STANDING.hits([hit(frame(2, 40))]) == [hit(frame(4, 40, 11))]


def test_nothing_lost_or_left_behind_is_hit():
    assert STANDING.hits([hit(HOLED), hit(LOST), hit(frame(1, 60)), hit(frame(2, 90))]) == [None] * 4


def test_what_stands_in_a_pack_that_a_repair_made_is_hit_also_beside_zeros():
    assert STANDING.hits([hit(frame(4, 51, 9), 2)]) == [hit(frame(4, 51, 9), 2)]


def test_segments_stand_where_their_frames_are_now_with_the_lengths_of_now():
    run = frame(1, 40, 20)
    named = [frame(7, 40), run, frame(2, 40), HOLED, LOST, frame(2, 90), frame(1, 70)]
    now, stands = STANDING.segments(segment_columns([segment(place) for place in named]))
    assert stands.tolist() == [True, True, True, False, False, False, False]
    found = [one.place for one in segment_rows(now)]
    assert found == [frame(7, 40), frame(3, 70, 21), frame(4, 40, 11), HOLED, LOST, frame(2, 90), frame(1, 70)]
    assert now.stored.dtype == np.uint32


def test_a_pack_is_touched_by_what_condemns_it_and_by_what_repairs_it():
    assert [STANDING.is_touched(pack(number)) for number in (1, 2, 3, 7)] == [True, True, False, False]
