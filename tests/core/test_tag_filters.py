"""Lists of tags with operators: which sets of tags they accept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.tag_filters import parse_tags
from dataset_store.errors import InvalidRequest

TAGS = ["a", "b", "c", "d", "e", "f", "g"]
sets = st.frozensets(st.sampled_from(TAGS))


@given(sets, st.lists(st.sampled_from(TAGS), min_size=1))
def test_tags_alone_are_alternatives(tags, wanted):
    assert parse_tags(wanted).accepts(tags) == any(tag in tags for tag in wanted)


@given(sets)
def test_the_documented_example_means_what_it_says(tags):
    words = ["__$all", "a", "b", "c", "__$or", "d", "__$not", "e", "__$and", "__$or", "f", "g"]
    expected = {"a", "b", "c"} <= tags and ("d" in tags or "e" not in tags) and ("f" in tags or "g" in tags)
    assert parse_tags(words).accepts(tags) == expected


@given(sets)
def test_a_tag_with_a_minus_must_not_be_there(tags):
    assert parse_tags(["a", "-b"]).accepts(tags) == ("a" in tags and "b" not in tags)
    assert parse_tags(["-b"]).accepts(tags) == ("b" not in tags)
    assert parse_tags(["__$all", "a", "__$not", "b", "__$not", "c"]).accepts(tags) == (
        "a" in tags and not {"b", "c"} & tags
    )


def test_no_tags_accept_everything():
    assert parse_tags([]).accepts(frozenset())
    assert parse_tags(["__$all"]).accepts({"a"})


words = st.lists(st.sampled_from([*TAGS[:3], "-a", "__$all", "__$and", "__$or", "__$any"]), max_size=8)


@given(words, sets)
def test_whatever_is_accepted_carries_one_of_the_tags_that_are_looked_up(asked, tags):
    found = parse_tags(asked)
    if found.one_of and found.accepts(tags):
        assert tags & set(found.one_of)
    assert found.asks_for_tags == any(word in TAGS for word in asked)


@pytest.mark.parametrize("asked", [["__$xor", "a"], ["__$not"], ["__$not", "__$or", "a"], [""], ["-"], [1]])
def test_what_is_no_filter_is_refused(asked):
    with pytest.raises(InvalidRequest):
        parse_tags(asked)
