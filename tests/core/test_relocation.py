"""Relocation tables: what was moved is found in one step, whole, and nothing else is."""

import itertools
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.digest import PackName
from dataset_store.core.extents import Extents, extents_of_places, unite, without
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.relocation import Relocations, decode_table, encode_table, moved_frames
from dataset_store.errors import CorruptObject


def pack(number, storage=0):
    return PackRef(storage, PackName(bytes([number]) * 16))


def frame(number, at, stored=10, storage=0):
    return Place(pack(number, storage), at, stored, 0)


def rows(extents):
    return [
        (extents.packs[int(p)], int(a), int(z))
        for p, a, z in zip(extents.pack, extents.start, extents.stop, strict=True)
    ]


# --- extents -------------------------------------------------------------------------------------------------------

some_places = st.lists(
    st.builds(frame, st.integers(0, 3), st.integers(40, 200), st.integers(1, 30), st.integers(0, 1)), max_size=30
)


@given(st.lists(some_places, max_size=4))
def test_united_extents_cover_exactly_the_bytes_of_their_parts(parts):
    united = unite([extents_of_places(part) for part in parts])
    covered = {(p.pack, byte) for part in parts for p in part for byte in range(p.offset, p.offset + p.stored)}
    assert {(ref, byte) for ref, start, stop in rows(united) for byte in range(start, stop)} == covered
    assert united.total() == len(covered)
    for (one, _, stop), (other, start, _) in itertools.pairwise(rows(united)):
        assert one < other or stop < start


@given(some_places)
def test_extents_come_back_from_their_bytes(places):
    extents = extents_of_places(places)
    assert rows(Extents.decode(extents.encode())) == rows(extents)


def test_extents_by_pack_are_all_of_them():
    extents = unite([extents_of_places([frame(2, 40), frame(1, 70), frame(2, 90)])])
    assert [(ref, rows(part)) for ref, part in extents.by_pack()] == [
        (pack(1), [(pack(1), 70, 80)]),
        (pack(2), [(pack(2), 40, 50), (pack(2), 90, 100)]),
    ]


def covered(places):
    return {(p.pack, byte) for p in places for byte in range(p.offset, p.offset + p.stored)}


@given(some_places, some_places)
def test_what_is_taken_from_extents_is_gone_and_the_rest_stays(places, removed):
    left = without(unite([extents_of_places(places)]), unite([extents_of_places(removed)]))
    found = [(ref, byte) for ref, start, stop in rows(left) for byte in range(start, stop)]
    assert len(found) == len(set(found))
    assert set(found) == covered(places) - covered(removed)


@given(some_places, some_places)
def test_extents_touch_others_where_they_share_a_byte(places, others):
    touched = extents_of_places(places).touched_by(unite([extents_of_places(others)]))
    assert touched.tolist() == [bool(covered([place]) & covered(others)) for place in places]


def test_nothing_unites_to_nothing():
    assert rows(unite([])) == rows(Extents.none()) == []
    assert list(Extents.none().by_pack()) == []


# --- tables --------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_from_its_bytes_whatever_the_order_of_its_rows():
    pairs = [(frame(1, at), frame(7 + at % 2, 500 + at)) for at in range(40, 400, 10)]
    one = encode_table(moved_frames(pairs))
    random.Random(1).shuffle(pairs)
    assert encode_table(moved_frames(pairs)) == one
    assert encode_table(decode_table(one, "of a test")) == one


def test_a_table_of_nothing_is_no_bytes():
    assert encode_table({}) == b""
    assert decode_table(b"", "of a test") == {}


@pytest.mark.parametrize(
    "pairs",
    [
        [(frame(1, 10), frame(2, 40))],
        [(frame(1, 40), frame(2, 2**32 - 5))],
        [(frame(1, 40), frame(1, 90))],
        [(frame(1, 40), frame(2, 40)), (frame(1, 45), frame(2, 80))],
        [(frame(1, 40, 0), frame(2, 40, 0))],
    ],
    ids=["before the frames", "behind the end", "into itself", "overlapping", "empty"],
)
def test_a_table_that_cannot_be_true_is_refused(pairs):
    with pytest.raises(CorruptObject):
        decode_table(b"".join(raw(*pair) for pair in pairs), "of a test")


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (frame(1, 40), frame(2, 70), 2),
        (frame(1, 40), frame(1, 90), 1),
        (frame(1, 40), frame(1, 40, 11), 1),
        (frame(1, 40), frame(1, 40), 0),
    ],
    ids=["of an unknown kind", "into itself", "into more than itself", "to where it was, and not lost"],
)
def test_a_row_that_tells_of_something_lost_leads_elsewhere_or_to_where_it_was(old, new, lost):
    with pytest.raises(CorruptObject):
        decode_table(raw(old, new, lost), "of a test")


def raw(old, new, lost=0):
    places = b"".join(struct.pack("<I16sII", p.pack.storage, p.pack.name, p.offset, p.stored) for p in (old, new))
    return places + struct.pack("<I", lost)


def test_a_table_of_half_a_row_is_refused():
    with pytest.raises(CorruptObject):
        decode_table(bytes(61), "of a test")


# --- resolving -----------------------------------------------------------------------------------------------------


def test_a_frame_moved_twice_is_found_in_one_step():
    now = Relocations().with_table(moved_frames([(frame(1, 40), frame(2, 70)), (frame(1, 50), frame(2, 80))]))
    now = now.with_table(moved_frames([(frame(2, 70), frame(3, 40))]))
    assert now.places(frame(1, 40)) == [frame(3, 40)]
    assert now.places(frame(2, 70)) == [frame(3, 40)]
    assert now.places(frame(1, 50)) is None, "left behind by the second move"


def test_a_run_is_found_as_runs_of_what_still_adjoins():
    now = Relocations().with_table(
        moved_frames(
            [
                (frame(1, 40), frame(2, 70)),
                (frame(1, 50), frame(2, 80)),
                (frame(1, 60), frame(3, 90)),
            ]
        )
    )
    assert now.places(frame(1, 40, 30)) == [frame(2, 70, 20), frame(3, 90)]
    assert now.places(frame(1, 50, 20)) == [frame(2, 80), frame(3, 90)]


def test_a_run_of_which_a_frame_was_left_behind_is_not_found():
    now = Relocations().with_table(moved_frames([(frame(1, 40), frame(2, 70)), (frame(1, 60), frame(2, 80))]))
    assert now.places(frame(1, 40, 30)) is None
    assert now.places(frame(1, 45)) is None
    assert now.places(frame(4, 40)) is None


def plainly(tables):
    """The reference: one row at a time, as the model of the protocol has it."""
    merged = {}
    for table in tables:
        moved = dict(table)
        packs = {old.pack for old in moved}
        merged = {old: moved.get(new, new) for old, new in merged.items() if new.pack not in packs or new in moved}
        merged |= moved
    return merged


@st.composite
def histories(draw):
    """Repacks, each of frames of packs that no earlier one moved, into packs that were not there before."""
    frames = {number: [frame(number, 40 + 10 * at) for at in range(draw(st.integers(1, 5)))] for number in range(3)}
    fresh, gone, tables = 10, set(), []
    for _ in range(draw(st.integers(1, 5))):
        victims = draw(st.sets(st.sampled_from(sorted(frames.keys() - gone)), min_size=1, max_size=2))
        gone |= victims
        table, target = [], []
        for victim in sorted(victims):
            for old in frames[victim]:
                if draw(st.booleans()):
                    target.append(frame(fresh, 40 + 10 * len(target)))
                    table.append((old, target[-1]))
        frames[fresh] = target
        fresh += 1
        tables.append(table)
        if frames.keys() == gone:
            break
    return tables


@given(histories())
def test_merged_tables_say_what_rows_merged_one_by_one_say(tables):
    now = Relocations()
    for table in tables:
        now = now.with_table(moved_frames(table))
    expected = plainly(tables)
    olds = {old for table in tables for old, _ in table}
    assert {old: now.places(old) for old in olds} == {old: [expected[old]] if old in expected else None for old in olds}
    there, lost = now.extents(unite([extents_of_places(sorted(olds))]))
    if olds == expected.keys():
        assert rows(lost) == []
        assert rows(there) == rows(unite([extents_of_places(list(expected.values()))]))
    else:
        assert rows(lost)


def test_extents_of_packs_that_stay_are_where_they_were():
    now = Relocations().with_table(moved_frames([(frame(1, 40), frame(2, 70))]))
    named = unite([extents_of_places([frame(1, 40), frame(5, 40), frame(5, 60)])])
    there, lost = now.extents(named)
    assert rows(there) == [(pack(2), 70, 80), (pack(5), 40, 50), (pack(5), 60, 70)]
    assert rows(lost) == []


def test_a_pack_of_which_some_frames_were_moved_has_the_others_left():
    now = Relocations().with_table(moved_frames([(frame(1, 50), frame(2, 70))]))
    there, lost = now.extents(unite([extents_of_places([frame(1, 40, 30)])]))
    assert rows(there) == [(pack(2), 70, 80)]
    assert rows(lost) == [(pack(1), 40, 50), (pack(1), 60, 70)]


def test_where_frames_are_now_leads_back_to_all_places_that_lead_there():
    now = Relocations().with_table(moved_frames([(frame(1, 40), frame(2, 70)), (frame(1, 50), frame(2, 80))]))
    now = now.with_table(moved_frames([(frame(2, 70), frame(3, 40))]))
    assert rows(now.named(unite([extents_of_places([frame(3, 45, 1)])]))) == [
        (pack(1), 40, 50),
        (pack(2), 70, 80),
        (pack(3), 45, 46),
    ]


# --- frames made anew, and lost ones -------------------------------------------------------------------------------


def test_a_frame_of_another_length_is_found_whole_with_those_beside_it():
    pairs = [(frame(1, 40), frame(2, 70, 13)), (frame(1, 50), frame(2, 83, 7)), (frame(1, 60), frame(2, 95, 10))]
    now = Relocations().with_table(decode_table(encode_table(moved_frames(pairs)), "of a test"))
    assert now.places(frame(1, 40, 30)) == [frame(2, 70, 20), frame(2, 95)]
    assert now.frames(frame(1, 40, 20)) == [frame(2, 70, 13), frame(2, 83, 7)]
    there, lost = now.extents(unite([extents_of_places([frame(1, 40, 20)])]))
    assert (rows(there), rows(lost)) == ([(pack(2), 70, 90)], [])
    assert rows(now.named(unite([extents_of_places([frame(2, 82, 1)])]))) == [(pack(1), 40, 50), (pack(2), 82, 83)]


def test_what_is_lost_stays_where_it_was_and_what_is_lost_in_part_is_read_elsewhere():
    pairs = [(frame(1, 40), frame(2, 70)), (frame(1, 50), frame(2, 80)), (frame(1, 60, 30), frame(1, 60, 30))]
    table = moved_frames(pairs, {frame(1, 50), frame(1, 60, 30)})
    now = Relocations().with_table(decode_table(encode_table(table), "of a test"))
    assert [now.is_lost(frame(1, at)) for at in (40, 50)] == [False, True]
    assert now.is_lost(frame(1, 60, 30))
    assert now.is_lost(frame(1, 70)), "within a run that is lost"
    assert now.places(frame(1, 50)) == [frame(2, 80)]
    assert now.places(frame(1, 60, 30)) == [frame(1, 60, 30)]
    assert now.maimed() == now.with_losses == {pack(1)}
    assert rows(now.elsewhere(pack(1))) == [(pack(1), 40, 60)]
    assert rows(now.elsewhere(pack(2))) == []


def test_a_loss_is_passed_on_to_all_that_lead_there_and_taken_back_where_it_was_told():
    now = Relocations().with_table(moved_frames([(frame(1, 40), frame(2, 70)), (frame(1, 50), frame(2, 80))]))
    run = frame(2, 80, 30)
    now = now.with_table(moved_frames([(frame(2, 70), frame(3, 40)), (run, run)], {run}))
    assert now.places(frame(1, 40)) == [frame(3, 40)]
    assert now.places(frame(1, 50)) == [frame(2, 80)], "should its pack come back"
    assert [now.is_lost(frame(1, at)) for at in (40, 50)] == [False, True]
    now = now.with_table(moved_frames([(frame(1, 40), frame(3, 40)), (frame(1, 50), frame(4, 40))]))
    assert not now.is_lost(frame(1, 50))
    assert now.maimed() == {pack(2)}
