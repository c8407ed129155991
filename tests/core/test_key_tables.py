"""The keys of a node: cut and checked alike by compiled code and by the reference."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataset_store.core import key_tables
from dataset_store.core.key_tables import cut_keys, cut_keys_reference
from dataset_store.core.paths import MAX_COMPONENTS, MAX_NAME_BYTES, MAX_PATH_BYTES
from dataset_store.errors import CorruptObject

needs_compiled = pytest.mark.skipif(key_tables._keys is None, reason="the compiled code is not built")

LIMITS = MAX_PATH_BYTES, MAX_NAME_BYTES, MAX_COMPONENTS
hostile = st.lists(st.sampled_from([b"a", b"b", b".", b"..", b"/", b"\0", b"\1", b"\xff"]), max_size=6).map(b"".join)
names = st.sampled_from([b"a", b"b", b"a.", b"...", b"\1", b"\x7f", b"\xff", b"long" * 60])
valid = st.lists(st.lists(names, min_size=1, max_size=3).map(b"\0".join), max_size=8)


def joined(keys):
    """The keys as a node has them: one behind the other, and where each ends."""
    return b"".join(keys), np.cumsum([len(key) for key in keys]).astype("<u4")


def outcome(cut, *tables):
    try:
        return cut([raw for raw, _ in tables], [ends for _, ends in tables])
    except CorruptObject as error:
        return str(error)


@given(st.lists(hostile, max_size=5) | valid.map(sorted) | valid)
@example([])
@example([b""])
@example([b"a", b"a"])
@example([b"a", b"a\0b"])
@example([b"a", b"a\1b", b"a\2"])
@example([b"a\1b", b"a\0b"])
@example([b"ab", b"a"])
@example([b"n" * MAX_NAME_BYTES])
@example([b"n" * (MAX_NAME_BYTES + 1)])
@example([b"d\0" + b"n" * (MAX_NAME_BYTES + 1) + b"\0f"])
@example([b"\0".join([b"n"] * MAX_COMPONENTS)])
@example([b"\0".join([b"n"] * (MAX_COMPONENTS + 1))])
@example([b"\0".join([b"n" * 255] * 64)])
@example([b"\0".join([b"n" * 255] * 64) + b"n"])
@example([b"\0".join([b"n" * 255] * 63 + [b"n" * 252, b"nn"])])
def test_the_compiled_code_and_the_reference_say_the_same(keys):
    expected = outcome(cut_keys_reference, joined(keys))
    assert outcome(cut_keys, joined(keys)) == expected
    if key_tables._keys is not None:
        found = key_tables._keys.cut_keys(*joined(keys), *LIMITS)
        assert found == (None if isinstance(expected, str) else keys)


@given(st.lists(valid.map(sorted), max_size=4))
def test_several_nodes_are_cut_at_once(tables):
    expected = outcome(cut_keys_reference, *map(joined, tables))
    assert outcome(cut_keys, *map(joined, tables)) == expected
    assert isinstance(expected, str) or expected == tables


@needs_compiled
@given(st.binary(max_size=40), st.lists(st.integers(0, 60) | st.integers(0, 2**32 - 1), max_size=8))
def test_whatever_the_ends_say_nothing_else_is_read(raw, ends):
    found = key_tables._keys.cut_keys(raw, np.array(ends, "<u4"), *LIMITS)
    if found is not None:
        assert b"".join(found) == raw
        assert np.cumsum([len(key) for key in found]).tolist() == ends


@needs_compiled
def test_ends_that_are_no_whole_numbers_are_refused():
    assert key_tables._keys.cut_keys(b"a", b"\1\0\0", *LIMITS) is None
    assert key_tables._keys.cut_keys(b"", b"", *LIMITS) == []


def test_without_compiled_code_the_reference_is_used(monkeypatch):
    monkeypatch.setattr(key_tables, "_keys", None)
    assert outcome(cut_keys, joined([b"a", b"b"])) == [[b"a", b"b"]]
    assert "out of order" in outcome(cut_keys, joined([b"b", b"a"]))
