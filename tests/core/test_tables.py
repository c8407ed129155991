"""Tables in two layers: whatever was put above whatever base, they read as one sorted map."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.core.tables import NO_BASE, Row, Table, all_rows
from dataset_store.testing.bases import RowsBase

KEYS = [b"", b"\0", b"a", b"ab", b"b", b"\xff", b"\xff\xff"]
OWNERS = [b"", b"o", b"oo", b"\0\0\0\1"]

changes = st.lists(
    st.tuples(st.sampled_from(OWNERS), st.sampled_from(KEYS), st.one_of(st.none(), st.integers(0, 9))), max_size=40
)


def applied(table: Table[int], model: dict[tuple[bytes, bytes], int], some) -> None:
    for owner, key, value in some:
        if value is None:
            table.remove(owner, key)
            model.pop((owner, key), None)
        else:
            table.put(owner, key, value)
            model[owner, key] = value


@given(changes, changes)
def test_a_table_over_a_base_is_the_map_of_all_changes(earlier, later):
    model: dict[tuple[bytes, bytes], int] = {}
    below: Table[int] = Table(b"t", int, NO_BASE)
    applied(below, model, earlier)
    table: Table[int] = Table(b"t", int, RowsBase(below.rows()))
    applied(table, model, later)
    for read in (table, Table(b"t", int, RowsBase(table.rows()))):
        assert sorted(read.everything()) == sorted((owner, key, value) for (owner, key), value in model.items())
        assert read.owners() == {owner for owner, _ in model}
        for owner in OWNERS:
            mine = sorted((key, value) for (each, key), value in model.items() if each == owner)
            assert list(read.scan(owner)) == mine
            assert list(read.scan(owner, backwards=True)) == mine[::-1]
            for key in KEYS:
                assert read.get(owner, key) == model.get((owner, key))
                beginning = [row for row in mine if row[0].startswith(key)]
                assert list(read.scan(owner, key)) == beginning
                assert list(read.scan(owner, key, backwards=True)) == beginning[::-1]


def test_tables_over_one_base_do_not_see_each_other():
    tables: list[Table[int]] = [Table(tag, int, NO_BASE) for tag in (b"b", b"a")]
    for number, table in enumerate(tables):
        table.put(b"o", b"k", number)
    base = RowsBase(all_rows(tables))
    assert [Table(tag, int, base).get(b"o", b"k") for tag in (b"b", b"a", b"c")] == [0, 1, None]


def test_a_scan_gives_the_rows_that_were_there_when_it_began():
    table: Table[int] = Table(b"t", int, NO_BASE)
    for number in range(200):
        table.put(b"", bytes([number]), number)
    rows = table.scan(b"")
    first = next(rows)
    for number in range(200, 256):
        table.put(b"", bytes([number]), number)
    assert [first, *rows] == [(bytes([number]), number) for number in range(200)]


@pytest.mark.parametrize("step", [1, 7, 255])
def test_keys_are_in_order_however_they_came(step):
    table: Table[int] = Table(b"t", int, NO_BASE)
    for number in range(1_000):
        table.put(b"", (number * step % 1_009).to_bytes(2, "big"), number)
    keys = [key for key, _ in table.scan(b"")]
    assert keys == sorted(keys)
    assert len(keys) == 1_000


def test_rows_ascend_over_all_tables():
    tables: list[Table[int]] = [Table(bytes([tag]), int, NO_BASE) for tag in (3, 1, 2)]
    for table in tables:
        for owner in OWNERS:
            for key in KEYS:
                table.put(owner, key, 1)
    rows: list[Row] = list(all_rows(tables))
    assert rows == sorted(rows)
    assert len({key for key, _ in rows}) == len(rows) == 3 * len(OWNERS) * len(KEYS)


@pytest.mark.parametrize("backwards", [False, True])
def test_a_row_of_the_base_that_is_changed_while_it_is_scanned_is_not_lost(backwards):
    below: Table[int] = Table(b"t", int, NO_BASE)
    for number in range(10):
        below.put(b"", bytes([number]), number)
    table: Table[int] = Table(b"t", int, RowsBase(below.rows()))
    table.put(b"", bytes([0]), 0)
    rows = table.scan(b"", backwards=backwards)
    first = next(rows)
    for number in range(10):
        table.put(b"", bytes([number]), number)
    keys = sorted(key for key, _ in [first, *rows])
    assert keys == [bytes([number]) for number in range(10)]
