"""Merging parents: the laws of docs/format.md §10, against a model of plain dicts."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.entries import overlay
from dataset_store.core.merge import ancestors, common_bases, merge, parents_first
from dataset_store.core.tree import read_all
from dataset_store.core.tree_writing import build, edit
from dataset_store.testing.trees import MemoryNodes, entries_of, key_sets

KEYS = st.sampled_from([b"a", b"a\0x", b"a\0y", b"b", b"b\0c\0d", b"c", b"d\0e", b"d", b"z"])


def unshadowed(files: dict[bytes, int]) -> dict[bytes, int]:
    return {k: v for k, v in files.items() if not any(k.startswith(other + b"\0") for other in files)}


trees = st.dictionaries(KEYS, st.integers(0, 3), max_size=6).map(unshadowed)


def model(one: dict, other: dict, bases: list[dict]) -> dict:
    def removed_since(key, value):
        return any(base.get(key) == value for base in bases)

    merged = dict(other)
    for key, value in other.items():
        if key not in one and removed_since(key, value):
            del merged[key]
    added = {key for key in merged if key not in one}
    for key, value in one.items():
        below = any(key.startswith(new + b"\0") for new in added)
        above = any(new.startswith(key + b"\0") for new in added)
        if key not in other and not removed_since(key, value) and not below and not above:
            merged[key] = value
    return merged


def merged(one: dict, other: dict, bases: list[dict]) -> dict:
    nodes = MemoryNodes()
    roots = [build(entries_of(files), nodes).root for files in (one, other, *bases)]
    changes = merge(roots[0], roots[1], roots[2:], nodes)
    result = read_all(edit(roots[0], changes, nodes, nodes).root, nodes)
    assert result.keys == overlay(entries_of(one), changes).keys
    return {key: int(time) // 10**9 for key, time in zip(result.keys, result.mtimes, strict=True)}


@settings(max_examples=400)
@given(trees, trees, st.lists(trees, max_size=2))
def test_a_merge_is_what_the_rules_say(one, other, bases):
    assert merged(one, other, bases) == model(one, other, bases)


@given(trees, st.lists(trees, max_size=2))
def test_merging_a_version_with_itself_changes_nothing(one, bases):
    assert merged(one, one, bases) == one


@given(trees, trees)
def test_merging_a_child_into_its_parent_gives_the_child(parent, child):
    assert merged(parent, child, [parent]) == child


@given(trees, trees)
def test_merging_a_parent_into_its_child_keeps_the_child_but_for_what_both_hold(parent, child):
    expected = {**child, **{key: value for key, value in parent.items() if key in child}}
    assert merged(child, parent, [parent]) == expected


@given(key_sets())
def test_no_merged_key_lies_below_another(keys):
    halves = {key: 1 for key in keys[::2]}, {key + b"\0below": 2 for key in keys[::3]}
    result = sorted(merged(*halves, []))
    assert not any(later.startswith(key + b"\0") for key, later in zip(result, result[1:], strict=False))


def test_the_bases_are_all_maximal_common_ancestors():
    #   r ─┬─ a ─┬─ m        criss-cross: a and b are both merged on both sides
    #      └─ b ─┴─ n
    parents = {"r": [], "a": ["r"], "b": ["r"], "m": ["a", "b"], "n": ["a", "b"], "x": ["m"]}
    assert common_bases(["m"], "n", parents) == {"a", "b"}
    assert common_bases(["x"], "m", parents) == {"m"}
    assert common_bases(["a"], "b", parents) == {"r"}
    assert common_bases(["a", "b"], "n", parents) == {"a", "b"}
    assert common_bases(["a"], "unrelated", parents) == set()
    assert ancestors(["x"], parents) == {"x", "m", "a", "b", "r"}


def test_the_bases_in_a_long_lineage_are_found_by_a_few_looks_at_each_version():
    looks = []

    class Parents(dict):
        def get(self, version, default=()):
            looks.append(version)
            return super().get(version, default)

    parents = Parents({str(number): [str(number - 1)] for number in range(1, 3_000)} | {"a": ["2990"], "b": ["2980"]})
    assert common_bases(["a"], "b", parents) == {"2980"}
    assert len(looks) < 4 * len(parents)


def test_an_ancestor_that_is_not_live_lets_its_own_ancestors_through():
    parents = {"a": ["gone"], "b": ["gone"], "gone": ["r"], "r": ["never had"]}
    assert common_bases(["a"], "b", parents) == {"gone"}
    assert common_bases(["a"], "b", parents, live={"a", "b", "r"}) == {"r"}
    assert common_bases(["r"], "r", parents, live={"never"}) == set()


def test_an_ancestor_that_nobody_knows_is_no_base():
    assert common_bases(["a"], "b", {"a": ["never had"], "b": ["never had"]}) == set()


lineages = st.integers(1, 8).flatmap(
    lambda count: st.lists(st.sets(st.integers(0, count + 1).map(str), max_size=3), min_size=count, max_size=count)
)


@given(lineages, st.randoms())
def test_parents_come_first_whatever_the_order_and_cycles_end(drawn, random):
    parents = {str(number): sorted(above) for number, above in enumerate(drawn)}
    given_order = list(parents)
    random.shuffle(given_order)
    order = parents_first(given_order, parents)
    assert sorted(order) == sorted(parents)
    for version, above in parents.items():
        for parent in above:
            if parent in parents and version not in ancestors([parent], parents):
                assert order.index(parent) < order.index(version)
    assert parents_first(order, parents) == order or any(
        version in ancestors([parent], parents) for version, above in parents.items() for parent in above
    )
