"""Version numbers: their order and what follows them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.version_numbers import increment, is_semantic, rank, rank_key

ASCENDING = [
    "anything",
    "0",
    "0.0.1-dev",
    "0.0.1",
    "0.9",
    "1.0.0-1",
    "1.0.0-2",
    "1.0.0-10",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-beta",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.9",
    "1.10",
    "2",
    "2024.09.30",
    "2024.10.1",
]

numbers = st.one_of(
    st.text(max_size=12),
    st.from_regex(r"[vV]?[0-9]{1,3}(\.[0-9]{1,3}){0,3}(-[0-9a-z.]{1,6})?(\+[0-9a-z]{1,4})?", fullmatch=True),
)


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ASCENDING)))
def test_numbers_compare_by_value_and_a_pre_release_is_below_its_release(lower, higher):
    assert rank(lower) < rank(higher)


@pytest.mark.parametrize(("one", "other"), [("1.0", "1.0.0"), ("v1.2", "1.2"), ("1.0+a", "1.0+b"), ("x", "9z")])
def test_some_different_numbers_are_equally_high(one, other):
    assert rank(one) == rank(other)


@given(st.lists(numbers, max_size=6))
def test_any_texts_can_be_sorted(texts):
    ranks = sorted(map(rank, texts))
    assert all(one <= other for one, other in pairwise(ranks))


@pytest.mark.parametrize("number", ["9" * 18, f"1.{'9' * 18}", f"v1.{'9' * 18}-{'9' * 18}"])
def test_a_number_that_cannot_be_higher_gets_one_more_component_or_its_release(number):
    assert rank(increment(number)) > rank(number)


@given(numbers, numbers)
def test_the_bytes_of_ranks_compare_as_they_do(one, other):
    assert (rank_key(one) < rank_key(other)) == (rank(one) < rank(other))
    assert rank_key(one) == rank_key(other) or not rank_key(one).startswith(rank_key(other))


def test_the_bytes_of_the_ranks_of_known_numbers_ascend():
    keys = [rank_key(number) for number in ASCENDING]
    assert keys == sorted(set(keys))


@pytest.mark.parametrize("text", ["", "final", "1.", ".1", "1..2", "1 ", "1\n", "-1", "1.0.0-", "¹", "1" * 19])
def test_other_texts_are_not_semantic(text):
    assert not is_semantic(text)
    assert increment(text) == "1.0.0"


@pytest.mark.parametrize(
    ("number", "following"),
    [
        ("1.0.0", "1.0.1"),
        ("1.9", "1.10"),
        ("7", "8"),
        ("v1.0", "v1.1"),
        ("1.0.0-rc.1", "1.0.0-rc.2"),
        ("1.0.0-rc", "1.0.1-rc"),
        ("2024.09", "2024.10"),
        ("2024.99", "2024.100"),
        ("1.2.3+linux7", "1.2.4"),
        ("1.0.0-9a", "1.0.0"),
    ],
)
def test_the_last_numeric_component_is_counted_up(number, following):
    assert increment(number) == following


@given(numbers.filter(is_semantic))
def test_the_next_number_of_a_short_one_is_higher(number):
    following = increment(number)
    assert is_semantic(following)
    assert rank(following) > rank(number)
