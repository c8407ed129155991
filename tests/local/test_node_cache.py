"""The node cache gives back the nodes that it was given, checked, and is emptied when it is too large."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.digest import NodeId, hash32
from dataset_store.local.lmdb_environment import open_environment
from dataset_store.local.node_cache import NodeCache


def named(*nodes: bytes) -> list[tuple[NodeId, bytes]]:
    return [(NodeId(hash32(node)), node) for node in nodes]


def ids(items: list[tuple[NodeId, bytes]]) -> list[NodeId]:
    return [node_id for node_id, _ in items]


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "nodes")


@pytest.fixture(scope="module")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> NodeCache:
    return NodeCache(str(tmp_path_factory.mktemp("nodes")))


@settings(deadline=None)
@given(nodes=st.lists(st.binary(min_size=1, max_size=300), max_size=8), order=st.randoms())
def test_nodes_come_back_plain_in_the_order_asked(shared_cache: NodeCache, nodes: list[bytes], order) -> None:
    items = named(*nodes)
    shared_cache.put_many(items)
    order.shuffle(items)
    assert shared_cache.get_many(ids(items)) == [node for _, node in items]


def test_what_was_never_put_is_absent(folder: str) -> None:
    cache = NodeCache(folder)
    items = named(b"here", b"not here")
    cache.put_many(iter(items[:1]))
    assert cache.get_many(ids(items)) == [b"here", None]
    assert cache.get_many([]) == []


def test_nodes_are_there_for_whoever_opens_the_folder_later(folder: str) -> None:
    items = named(b"node")
    NodeCache(folder).put_many(items)
    assert NodeCache(folder).get_many(ids(items)) == [b"node"]


def test_values_are_the_plain_nodes(folder: str) -> None:
    items = named(b"node " * 100)
    NodeCache(folder).put_many(items)
    assert open_environment(folder).read(lambda txn: txn.get_many(ids(items))) == [b"node " * 100]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: b"",
        lambda value: value[:-1],
        lambda value: value + b"\0",
        lambda value: value[:30] + bytes([value[30] ^ 1]) + value[31:],
    ],
    ids=["empty", "cut off", "too long", "one bit"],
)
def test_a_damaged_value_is_removed_and_absent_until_it_is_put_again(folder: str, damage) -> None:
    cache = NodeCache(folder)
    items = named(b"good node " * 10, b"other node " * 10)
    cache.put_many(items)
    environment = open_environment(folder)
    (value,) = environment.read(lambda txn: txn.get_many(ids(items[:1])))
    environment.write(lambda txn: txn.put_many([(items[0][0], damage(value))]))
    assert cache.get_many(ids(items)) == [None, items[1][1]]
    assert environment.read(lambda txn: txn.get_many(ids(items[:1]))) == [None]
    cache.put_many(items)
    assert cache.get_many(ids(items)) == [node for _, node in items]


def test_a_node_under_the_id_of_another_is_never_given_out(folder: str) -> None:
    cache = NodeCache(folder)
    (good, other) = named(b"good node", b"other node")
    cache.put_many([(good[0], other[1])])
    assert cache.get_many([good[0]]) == [None]


def test_over_the_byte_limit_the_cache_is_emptied_by_the_next_write(folder: str) -> None:
    cache = NodeCache(folder, byte_limit=200_000)
    first, second, third = (named(*(hash32(b"%d" % at) * 400 for at in rows)) for rows in [(1,), (2,), (3,)])
    big = named(*(b"".join(hash32(b"%d" % at) for at in range(start, start + 3000)) for start in (0, 3000, 6000)))
    cache.put_many(first)
    cache.put_many(second)
    assert cache.get_many(ids(first + second)) == [node for _, node in first + second]
    cache.put_many(big)
    assert cache.get_many(ids(first + big)) == [node for _, node in first + big]
    cache.put_many(third)
    assert cache.get_many(ids(first + second + big + third)) == [None] * 5 + [third[0][1]]


def test_the_file_stays_near_the_byte_limit(folder: str) -> None:
    cache = NodeCache(folder, byte_limit=500_000)
    for batch in range(60):
        node = b"".join(hash32(b"%d/%d" % (batch, at)) for at in range(3000))
        cache.put_many(named(node))
    assert Path(folder, "data.mdb").stat().st_size < 1_500_000


def test_where_its_folder_cannot_be_used_the_cache_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = NodeCache(str(tmp_path / "file" / "nodes"))
    items = named(b"node")
    cache.put_many(items)
    assert cache.get_many(ids(items)) == [None]
