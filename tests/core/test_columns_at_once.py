"""What is done to many rows at once gives what doing it row by row gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core import tree_writing
from dataset_store.core.digest import PackName, hash32
from dataset_store.core.entries import ONE_CHUNK, Changes, Entries, make_entries, overlay
from dataset_store.core.nodes import encode_node
from dataset_store.core.packfile import PackRef, Place
from dataset_store.core.paths import PathKey
from dataset_store.core.segments import FileSegments, Segment, segments_of, with_segments, with_segments_at

PACKS = [PackRef(number, PackName(bytes([number]) * 16)) for number in range(3)]

segments = st.builds(
    Segment,
    st.sampled_from(PACKS),
    st.integers(40, 99),
    st.integers(1, 99),
    st.integers(0, 99),
    st.integers(1, 99),
    st.just(b"d" * 32),
)
files = st.builds(FileSegments, st.lists(segments, max_size=3).map(tuple))


def table(count: int, first: int = 0) -> Entries:
    ids = np.frombuffer(b"".join(hash32(b"%d" % row) for row in range(count)), np.uint8).reshape(-1, 32)
    keys = [PathKey(b"%06d" % (first + row)) for row in range(count)]
    return make_entries(keys, np.ones(count, np.uint8), np.ones(count, np.uint64), content_ids=ids)


@given(st.lists(files, max_size=12), st.data())
def test_segments_of_some_rows_are_replaced_and_those_of_all_others_stay(per_row, data):
    entries = with_segments(table(len(per_row)), per_row)
    found = data.draw(st.dictionaries(st.integers(0, max(0, len(per_row) - 1)), files)) if per_row else {}
    replaced = with_segments_at(entries, found)
    whole = with_segments(entries, [found.get(row, one) for row, one in enumerate(per_row)])
    assert encode_node(replaced) == encode_node(whole)
    for row, one in enumerate(per_row):
        assert segments_of(replaced, row) == list(found.get(row, one).rows)


def test_a_row_of_one_chunk_that_gets_several_segments_loses_its_mark():
    only = FileSegments((Segment(PACKS[0], 40, 10, 0, 1, bytes(32)),), ONE_CHUNK)
    several = FileSegments(tuple(Segment(PACKS[1], 40 + at, 1, 0, 1, b"d" * 32) for at in range(2)))
    entries = with_segments_at(with_segments(table(2), [only, only]), {1: several})
    assert [int(kind) & ONE_CHUNK for kind in entries.kinds] == [ONE_CHUNK, 0]


def test_rows_that_replace_all_rows_are_taken_as_they_are():
    old, new = table(5), replace(table(5), sizes=np.full(5, 7, np.uint64))
    assert overlay(old, Changes(new, [])) is new
    assert overlay(Entries.empty(), Changes(new, [PathKey(b"gone")])) is new
    assert overlay(old, Changes(new, [PathKey(b"000001")])).keys == new.keys
    assert overlay(old, Changes(table(5, first=1), [])).keys == [PathKey(b"%06d" % row) for row in range(6)]


class Nodes:
    """Nodes in memory, and how many were handed over at a time."""

    def __init__(self) -> None:
        self.plains: list[bytes] = []
        self.calls: list[int] = []

    def write_nodes(self, plains):
        self.calls.append(len(plains))
        first = len(self.plains)
        self.plains += plains
        return [Place(PACKS[0], 40 + first + at, 1, len(plain)) for at, plain in enumerate(plains)]


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_a_tree_built_some_nodes_at_a_time_is_the_same_tree(monkeypatch, at_once):
    one_segment = FileSegments((Segment(PACKS[0], 40, 10, 0, 1, bytes(32)),), ONE_CHUNK)
    entries = with_segments(table(3_000), [one_segment] * 3_000)
    whole, parts = Nodes(), Nodes()
    expected = tree_writing.build(entries, whole)
    monkeypatch.setattr(tree_writing, "_NODES_AT_ONCE", at_once)
    assert tree_writing.build(entries, parts) == expected
    assert parts.plains == whole.plains
    assert max(parts.calls) <= at_once < max(whole.calls)
