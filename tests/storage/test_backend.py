"""The grammar of keys and the extents of parts, which every backend shares."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.errors import CorruptObject, InvalidRequest
from dataset_store.storage.backend import Key, Span, Tail, extent, validate_key
from dataset_store.testing.backend_conformance import INVALID_KEYS

A = Key("a")


@pytest.mark.parametrize("text", INVALID_KEYS)
def test_what_is_no_key_is_refused_by_name(text):
    with pytest.raises(InvalidRequest, match=re.escape(repr(text[:200]))):
        validate_key(text)


@given(st.text(alphabet="a9._-/A ~\n\0é\\", max_size=12))
def test_the_grammar_of_keys_is_that_of_one_pattern(text):
    pattern = r"(?!\.{1,2}(?:/|\Z))[a-z0-9._-]+(?:/(?!\.{1,2}(?:/|\Z))[a-z0-9._-]+)*"
    try:
        accepted = validate_key(text) == text
    except InvalidRequest:
        accepted = False
    assert accepted == (re.fullmatch(pattern, text) is not None)


@pytest.mark.parametrize("text", ["config", "log/catalog/000000000000", "packs/0f/" + "0" * 32, "...", "k" * 200])
def test_a_key_comes_back_as_it_is(text):
    assert validate_key(text) == text


@given(st.integers(-2, 12), st.integers(-2, 12), st.integers(0, 10))
def test_a_span_lies_where_it_says_or_nowhere(start, stop, size):
    span = Span(A, start, stop)
    if not 0 <= start <= stop:
        with pytest.raises(InvalidRequest):
            extent(span, size)
    elif stop > size:
        with pytest.raises(CorruptObject, match="'a'"):
            extent(span, size)
    else:
        assert extent(span, size) == (start, stop)


@given(st.binary(max_size=10), st.integers(0, 12))
def test_a_tail_is_the_slice_from_the_end(data, length):
    start, stop = extent(Tail(A, length), len(data))
    assert data[start:stop] == (data[-length:] if length else b"")


def test_a_tail_of_negative_length_is_refused():
    with pytest.raises(InvalidRequest):
        extent(Tail(A, -1), 5)
