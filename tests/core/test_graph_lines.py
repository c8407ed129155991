"""A lineage drawn as text."""

from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.graph_lines import graph_lines


def drawn(ids: str, **parents: str) -> list[str]:
    """Lines of a graph of versions that are one letter each."""
    return [f"{graph}  {shown or ''}".rstrip() for graph, shown in graph_lines(list(ids), parents)]


def test_a_chain_is_one_lane():
    assert drawn("cba", c="b", b="a") == ["*  c", "*  b", "*  a"]


def test_a_merge_opens_a_lane_that_its_common_ancestor_closes():
    assert drawn("dcba", d="bc", c="a", b="a") == ["*  d", "|\\", "| *  c", "* |  b", "|/", "*  a"]


def test_three_parents_open_two_lanes():
    picture = ["*  m", "|\\ \\", "| | *  c", "| * |  b", "| |/", "* |  a", "|/", "*  r"]
    assert drawn("mcbar", m="abc", a="r", b="r", c="r") == picture


def test_parents_that_are_not_shown_are_left_out():
    assert drawn("cb", c="bx", b="y") == ["*  c", "*  b"]


@given(st.data())
def test_every_version_has_one_line_and_stands_in_one_lane(data):
    count = data.draw(st.integers(1, 12))
    ids = list(range(count))[::-1]
    parents = {one: data.draw(st.lists(st.integers(0, one - 1), max_size=3)) if one else [] for one in ids}
    lines = graph_lines(
        [str(one) for one in ids], {str(one): [str(p) for p in above] for one, above in parents.items()}
    )
    assert [shown for _, shown in lines if shown] == [str(one) for one in ids]
    for graph, shown in lines:
        assert set(graph) <= set("*| /\\")
        assert graph.count("*") == (shown is not None)
