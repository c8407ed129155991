"""Trees: an edited tree is the tree built anew, whatever the history."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core import shape
from dataset_store.core.census import MOST_PACKS, SMALL_BYTES, Census, census_after, packs_to_empty
from dataset_store.core.diff import changes_between, diff, diff_entries
from dataset_store.core.digest import ContentDigest, PackName
from dataset_store.core.entries import LISTED, Changes, Entries, overlay, same_identity
from dataset_store.core.node_decoding import decode_node, decode_nodes
from dataset_store.core.nodes import Children, concat_children, encode_node, level_of
from dataset_store.core.packfile import PackRef
from dataset_store.core.paths import PathKey
from dataset_store.core.shares import read_share
from dataset_store.core.tree import TreeRoot, lookup, read_all, read_range, read_ranges
from dataset_store.core.tree_writing import _Writes, build, build_of_parts, edit
from dataset_store.errors import CorruptObject
from dataset_store.testing.trees import MemoryNodes, entries_of


@pytest.fixture
def small_shape(monkeypatch):
    """Nodes of a few rows, so that small trees have several levels."""
    monkeypatch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
    monkeypatch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))


def key(number: int) -> bytes:
    return b"d%d\0f%05d" % (number % 5, number)


def equal(one: Entries, other: Entries) -> bool:
    rows = np.arange(len(one))
    return one.keys == other.keys and bool(same_identity(one, rows, other, rows).all())


contents = st.dictionaries(st.integers(0, 300).map(key), st.integers(0, 50), max_size=250)


def edited(held: dict[bytes, int]) -> st.SearchStrategy[tuple[dict[bytes, int], dict[bytes, int]]]:
    """The contents before and after some of the values were changed, and few keys."""
    values = st.dictionaries(st.sampled_from(sorted(held)) if held else st.nothing(), st.integers(0, 50))
    few = st.dictionaries(st.integers(0, 300).map(key), st.integers(0, 50), max_size=3)
    return st.tuples(st.just(held), st.builds(lambda *parts: held | parts[0] | parts[1], values, few))


pairs = st.tuples(contents, contents) | contents.flatmap(edited)


@settings(max_examples=300)
@given(contents, contents, st.sets(st.integers(0, 300).map(key), max_size=200))
def test_an_edited_tree_is_the_tree_built_anew(before, added, removed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
        patch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
        nodes = MemoryNodes()
        removed -= added.keys()
        old = build(entries_of(before), nodes)
        edited = edit(old.root, Changes(entries_of(added), sorted(removed)), nodes, nodes)
        after = {k: v for k, v in (before | added).items() if k not in removed}
        anew = build(entries_of(after), nodes)
        assert edited.root.digest == anew.root.digest
        assert equal(read_all(edited.root, nodes), entries_of(after))
        assert live_places(edited.root, nodes) == (live_places(old.root, nodes) - set(edited.replaced)) | set(
            edited.written
        )


@settings(max_examples=200)
@given(contents, st.lists(st.integers(0, 250), max_size=6))
def test_a_tree_that_is_built_of_parts_is_that_of_the_whole(held, cuts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
        patch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
        whole, nodes = entries_of(held), MemoryNodes()
        bounds = sorted(min(cut, len(whole)) for cut in [0, *cuts, len(whole)])
        parts = (whole.rows(start, stop) for start, stop in pairwise(bounds))
        made = build_of_parts(parts, nodes)
        assert made.root.digest == build(whole, nodes).root.digest
        assert equal(read_all(made.root, nodes), whole)
        assert live_places(made.root, nodes) == set(made.written)


def live_places(root: TreeRoot, nodes: MemoryNodes) -> set:
    found, waiting = set(), [root.ref]
    while waiting:
        ref = waiting.pop()
        found.add(ref.place)
        node = decode_node(nodes.plains[ref.place], "memory")
        waiting += node.refs() if isinstance(node, Children) else []
    return found


@settings(max_examples=200)
@given(pairs)
def test_a_difference_applied_to_the_old_tree_gives_the_new_tree(pair):
    before, after = pair
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
        patch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
        nodes = MemoryNodes()
        old, new = build(entries_of(before), nodes).root, build(entries_of(after), nodes).root
        found = diff(old, new, nodes)
        reference = diff_entries(entries_of(before), entries_of(after))
        for name in ("removed", "added", "modified_old", "modified_new"):
            assert equal(getattr(found, name), getattr(reference, name))
        assert edit(old, found.as_changes(), nodes, nodes).root.digest == new.digest


@settings(max_examples=100)
@given(contents, contents, st.integers(0, 6), st.integers(0, 6))
def test_changes_between_trees_give_the_new_tree_with_its_times_and_origins(before, after, touched, adopted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
        patch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
        nodes = MemoryNodes()
        rows = entries_of(after)
        mtimes, origins = rows.mtimes.copy(), rows.origins.copy()
        mtimes[:touched] += 1
        origins[len(rows) - adopted :] = 1
        rows = replace(rows, mtimes=mtimes, origins=origins, origin_ids=(*rows.origin_ids, b"another version.")[:2])
        old, new = build(entries_of(before), nodes).root, build(rows, nodes).root
        found = changes_between(old, new, nodes)
        made = read_all(edit(old, found, nodes, nodes).root, nodes)
        assert encode_node(made) == encode_node(read_all(new, nodes))
        assert set(found.entries.keys).isdisjoint(found.removed)
        assert not len(changes_between(new, new, nodes))


@settings(max_examples=60)
@given(
    contents,
    st.lists(st.integers(-5, 310).map(key), unique=True),
    st.integers(0, 300),
    st.integers(0, 300),
    st.lists(st.integers(0, 310), max_size=12),
)
def test_looking_up_keys_and_ranges_equals_filtering_the_whole(held, wanted, low, high, bounds):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
        patch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
        nodes = MemoryNodes()
        root = build(entries_of(held), nodes).root
        assert lookup(root, sorted(wanted), nodes).keys == sorted(set(wanted) & held.keys())
        start, stop = sorted((key(low), key(high)))
        assert read_range(root, start, stop, nodes).keys == sorted(k for k in held if start <= k < stop)
        edges = sorted({key(number) for number in (low, high, *bounds)})
        ranges = [*zip(edges[::2], edges[1::2], strict=False)]
        if len(edges) % 2:
            ranges.append((edges[-1], None))
        inside = {k for k in held for start, stop in ranges if start <= k and (stop is None or k < stop)}
        assert read_ranges(root, ranges, nodes).keys == sorted(inside)


def test_one_edit_among_many_entries_rewrites_one_path():
    nodes = MemoryNodes()
    old = build(entries_of({key(n): n for n in range(20_000)}), nodes)
    nodes.read = 0
    edited = edit(old.root, Changes(entries_of({key(777): 1}), []), nodes, nodes)
    assert len(edited.written) == len(edited.replaced) == 3
    assert nodes.read == 3


def test_nodes_hold_a_quarter_to_four_times_their_mean():
    nodes = MemoryNodes()
    build(entries_of({key(n): n for n in range(60_000)}), nodes)
    leaves = [node for p in nodes.plains.values() if isinstance(node := decode_node(p, "memory"), Entries)]
    sizes = sorted(len(leaf) for leaf in leaves)
    assert sizes[1] >= 64
    assert sizes[-1] <= 1024
    assert 200 < np.mean(sizes) < 320


def test_cuts_of_a_batch_equal_the_rule_applied_row_by_row():
    keys = [key(n) for n in sorted(random.Random(7).sample(range(10**6), 5000))]
    keys.sort()
    for level in (0, 1, 2):
        ends, count = [], 0
        for row, k in enumerate(keys):
            if count and shape.begins_node(k, level, count):
                ends.append(row)
                count = 0
            count += 1
        assert shape.cut_rows(keys, level) == [*ends, len(keys)]


@given(contents)
def test_a_leaf_comes_back_from_its_bytes(held):
    entries = entries_of(held)
    back = decode_node(encode_node(entries), "memory")
    assert isinstance(back, Entries)
    assert equal(back, entries)
    assert encode_node(back) == encode_node(entries)
    assert back.mtimes.tolist() == entries.mtimes.tolist()


@settings(max_examples=300)
@given(st.data())
def test_hostile_nodes_raise_only_corrupt_object(data):
    nodes = MemoryNodes()
    build(entries_of({key(n): n for n in range(data.draw(st.sampled_from([3, 700])))}), nodes)
    plain = bytearray(data.draw(st.sampled_from(list(nodes.plains.values()))))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, min(len(plain) - 1, 4000)))
        plain[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(plain)))
    for hostile in (bytes(plain), bytes(plain[:cut])):
        try:
            decode_node(hostile, "memory")
        except CorruptObject:
            continue


@settings(max_examples=300)
@given(st.data())
def test_nodes_that_are_decoded_together_are_those_that_are_decoded_alone_and_the_broken_one_is_named(data):
    nodes = MemoryNodes()
    for size in (0, 3, 700):
        build(entries_of({key(n): n for n in range(size)}), nodes)
    plains = data.draw(st.lists(st.sampled_from(list(nodes.plains.values())), max_size=6))
    row = data.draw(st.integers(0, 5))
    if row < len(plains):
        hostile = bytearray(plains[row])
        hostile[data.draw(st.integers(0, len(hostile) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        plains[row] = bytes(hostile)
    whats = [f"pack {number}" for number in range(len(plains))]
    alone, problem = [], None
    try:
        alone = [decode_node(plain, what) for plain, what in zip(plains, whats, strict=True)]
    except CorruptObject as error:
        problem = str(error)
    if problem is None:
        together = decode_nodes(plains, whats)
        assert [encode_node(node) for node in together] == [encode_node(node) for node in alone]
        for one, other in zip(together, alone, strict=True):
            assert [column.tolist() for column in numbers_in(one)] == [column.tolist() for column in numbers_in(other)]
    else:
        with pytest.raises(CorruptObject) as told:
            decode_nodes(plains, whats)
        assert str(told.value) == problem


def numbers_in(rows):
    """All columns of a node."""
    fields = [getattr(rows, name) for name in rows.__struct_fields__]
    return [one for one in fields if isinstance(one, np.ndarray)]


@pytest.mark.parametrize(("offset", "stored"), [(39, 50), (100, 0), (2**32 - 50, 50), (2**32 - 1, 2**32 - 1)])
def test_nodes_that_name_what_no_pack_can_hold_are_refused(offset, stored):
    nodes = MemoryNodes()
    root = decode_node(
        nodes.plains[build(entries_of({key(n): n for n in range(2_000)}), nodes).root.ref.place], "memory"
    )
    leaf = entries_of({key(1): 1})
    place = {"offset": np.array([offset], np.uint32), "stored": np.array([stored], np.uint32)}
    for hostile in (
        replace(leaf, segments=replace(leaf.segments, **place)),
        replace(root, **{name: np.append(value, getattr(root, name)[1:]) for name, value in place.items()}),
    ):
        with pytest.raises(CorruptObject, match="outside its pack"):
            decode_node(encode_node(hostile), "memory")


@pytest.mark.parametrize("kind", [1, 1 | LISTED])
def test_a_leaf_whose_lengths_add_up_only_by_wrapping_is_refused(kind):
    leaf = entries_of({key(1): 1, key(2): 2})
    lengths = np.array([2**63, 2**63 + 5], np.uint64)
    hostile = replace(
        leaf.take(np.array([0])),
        kinds=np.array([kind], np.uint8),
        sizes=np.array([5], np.uint64),
        segments=replace(leaf.segments, plain_length=lengths),
        segment_ends=np.array([2]),
    )
    with pytest.raises(CorruptObject, match="more bytes"):
        decode_node(encode_node(hostile), "memory")


def test_a_leaf_that_has_too_many_bytes_alone_has_them_in_company_too():
    def leaf(*lengths):
        one = entries_of({key(n): n for n in range(len(lengths))})
        whole = np.array([sum(lengths) % 2**64], np.uint64)
        return encode_node(
            replace(
                one.take(np.array([0])),
                kinds=np.array([1], np.uint8),
                sizes=whole,
                segments=replace(one.segments, plain_length=np.array(lengths, np.uint64)),
                segment_ends=np.array([len(lengths)]),
            )
        )

    few, many = leaf(1024, 1), leaf(1024, 1, 2**63)
    with pytest.raises(CorruptObject, match="pack 1 has more bytes"):
        decode_nodes([few, many, few], ["pack 0", "pack 1", "pack 2"])
    assert len(decode_nodes([few, few], ["pack 0", "pack 1"])) == 2


def test_a_long_chain_of_edits_keeps_few_packs_and_copies_less_than_it_writes():
    """200 commits of 10 edits: the bound on packs holds, and copying at most doubles the node bytes written."""
    rng = random.Random(3)
    nodes = MemoryNodes()
    held = {key(n): n for n in range(30_000)}
    made = build(entries_of(held), nodes)
    root, census = made.root, census_after({}, made.written, [])
    own = copied = 0
    for commit in range(200):
        nodes.next_pack()
        changed = {key(rng.randrange(30_000)): commit for _ in range(10)}
        held |= changed
        changes = Changes(entries_of(changed), [])
        alone = edit(root, changes, nodes, MemoryNodes(nodes.pack))
        moving = nodes_in(root, set(packs_to_empty(census)), nodes)
        made = edit(root, changes, nodes, nodes, moving)
        assert made.root.digest == alone.root.digest
        own += sum(place.stored for place in alone.written)
        copied += sum(place.stored for place in made.written) - sum(place.stored for place in alone.written)
        census = census_after(census, made.written, made.replaced)
        root = made.root
        assert len(census) <= MOST_PACKS
    assert census == counted(root, nodes)
    assert equal(read_all(root, nodes), entries_of(held))
    assert copied <= own


def test_packs_that_hold_many_nodes_are_never_emptied():
    def refs(first: int, count: int) -> list[PackRef]:
        return [PackRef(0, PackName(number.to_bytes(16, "big"))) for number in range(first, first + count)]

    for count, bound in ((0, 32), (2, 30), (16, 16), (500, 16)):
        full = dict.fromkeys(refs(0, count), SMALL_BYTES)
        few, many = refs(500, bound - 1), refs(500, bound + 3)
        assert packs_to_empty(full | dict.fromkeys(few, SMALL_BYTES - 1)) == []
        emptied = packs_to_empty(full | {pack: 1 + at for at, pack in enumerate(many)})
        assert emptied == many[: 3 + 1 + bound // 2]


def nodes_in(root: TreeRoot, packs: set, nodes: MemoryNodes) -> list:
    found, waiting = [], [root.ref] if packs else []
    while waiting:
        ref = waiting.pop()
        plain = nodes.plains[ref.place]
        node = decode_node(plain, "memory")
        if ref.place.pack in packs:
            found.append((level_of(node), node.keys[0], ref))
        waiting += node.refs() if isinstance(node, Children) else []
    return found


def counted(root: TreeRoot, nodes: MemoryNodes) -> Census:
    return census_after({}, live_places(root, nodes), [])


def test_overlaying_changes_replaces_adds_and_removes():
    base = entries_of({b"a": 1, b"b": 2, b"c": 3})
    result = overlay(base, Changes(entries_of({b"b": 9, b"bb": 4}), [b"c", b"zz"]))
    assert equal(result, entries_of({b"a": 1, b"b": 9, b"bb": 4}))


# --- forged trees ---


def above(nodes: MemoryNodes, level: int, *rows: tuple[bytes, Children]) -> Children:
    """A node whose rows name the only node of other tables, under any keys; the row that names it in turn."""
    table = concat_children([replace(below, keys=[PathKey(first)]) for first, below in rows])
    return row_above(nodes, table, level)


def row_above(nodes: MemoryNodes, rows: Entries | Children, level: int) -> Children:
    forged = replace(rows, level=level) if isinstance(rows, Children) else rows
    return _Writes(nodes).write_nodes([forged], level, {})


def root_named_by(row: Children) -> TreeRoot:
    return TreeRoot(ContentDigest(row.digests[0].tobytes()), row.ref(0))


def test_a_tree_that_names_a_node_again_and_again_is_refused_before_it_is_walked():
    """Twenty levels of four rows that all mean the same node: a million million leaves in 21 nodes."""
    nodes = MemoryNodes()
    row = row_above(nodes, entries_of({b"a": 1}), 0)
    for level in range(1, 21):
        row = above(nodes, level, *((b"%c" % (97 + at), row) for at in range(4)))
    root = root_named_by(row)
    other = build(entries_of({b"b": 2}), nodes).root
    for walk in (
        lambda: read_all(root, nodes),
        lambda: diff(root, other, nodes),
        lambda: diff(other, root, nodes),
        lambda: lookup(root, [b"a", b"b", b"c"], nodes),
        lambda: read_share(root, 0, 2, nodes),
    ):
        with pytest.raises(CorruptObject, match="twice"):
            walk()
    assert nodes.read < 100


def test_leaves_that_are_out_of_order_are_refused():
    nodes = MemoryNodes()
    one, two = (row_above(nodes, entries_of({name: 1, name + b"z": 2}), 0) for name in (b"a", b"b"))
    for first, second in ((two, one), (one, row_above(nodes, entries_of({b"az\0x": 1}), 0))):
        root = root_named_by(above(nodes, 1, (b"a", first), (b"b", second)))
        with pytest.raises(CorruptObject, match="out of order"):
            read_all(root, nodes)


def test_a_tree_that_is_higher_than_its_root_says_has_no_difference():
    nodes = MemoryNodes()
    row = above(nodes, 1, (b"a", row_above(nodes, entries_of({b"a": 1}), 0)))
    forged = root_named_by(above(nodes, 1, (b"a", row)))
    with pytest.raises(CorruptObject, match="several levels"):
        diff(build(entries_of({b"b": 2}), nodes).root, forged, nodes)
