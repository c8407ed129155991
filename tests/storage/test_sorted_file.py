"""Sorted files: what was written is read, and a damaged file never answers wrongly."""

import errno
import io
import os
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataset_store.errors import CorruptObject
from dataset_store.storage.sorted_file import SortedFile, write_sorted
from dataset_store.testing.bases import RowsBase

keys = st.binary(max_size=6) | st.lists(st.sampled_from([b"a", b"\xff", b"\0"]), max_size=8).map(b"".join)


def written(path, rows, about=b"about"):
    with path.open("wb") as file:
        write_sorted(file, sorted(rows), about)
    return path


def many(count, size=100, seed=1):
    rng = random.Random(seed)
    return {rng.randbytes(rng.randrange(1, 20)): rng.randbytes(rng.randrange(size)) for _ in range(count)}


@given(st.dictionaries(keys, st.binary(max_size=3_000), max_size=60), st.lists(keys, max_size=10))
@settings(max_examples=60)
@example({b"": b""}, [b""])
@example({b"\xff" * 3: b"x", b"\xff\xff": b"y"}, [b"\xff"])
def test_what_was_written_is_read(tmp_path_factory, rows, others):
    file = SortedFile(str(written(tmp_path_factory.mktemp("sorted") / "file", rows.items())))
    model = RowsBase(sorted(rows.items()))
    assert file.about == b"about"
    for key in [*rows, *others]:
        assert file.get(key) == rows.get(key)
        for backwards in (False, True):
            for prefix in (key, key[:1]):
                scanned = list(file.scan(prefix, backwards=backwards))
                assert scanned == list(model.scan(prefix, backwards=backwards))


@pytest.mark.parametrize("count", [0, 1, 50, 20_000])
def test_a_file_of_any_size_is_read_by_key_and_in_order(tmp_path, count):
    rows = many(count)
    file = SortedFile(str(written(tmp_path / "file", rows.items())))
    assert list(file.scan(b"")) == sorted(rows.items())
    assert list(file.scan(b"", backwards=True)) == sorted(rows.items(), reverse=True)
    assert all(file.get(key) == value for key, value in list(rows.items())[:500])
    assert file.get(b"no such key, as it is so long") is None


def test_nothing_but_the_trailer_is_read_when_a_file_is_opened_and_a_block_of_each_level_for_a_key(tmp_path):
    rows = many(60_000)
    file = SortedFile(str(written(tmp_path / "file", rows.items())))
    assert file._block.cache_info().misses == 0
    assert file.get(next(iter(rows))) is not None
    assert file._block.cache_info().misses == file._levels + 1 == 3


def test_a_row_larger_than_a_block_is_a_row_like_others(tmp_path):
    rows = {bytes([number]): bytes(100_000 + number) for number in range(10)}
    file = SortedFile(str(written(tmp_path / "file", rows.items())))
    assert dict(file.scan(b"")) == rows


def test_a_flipped_bit_anywhere_is_told_or_makes_no_difference(tmp_path):
    rows = many(60, size=600)
    path = written(tmp_path / "file", rows.items())
    whole = path.read_bytes()
    told = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            file = SortedFile(str(path))
            assert (dict(file.scan(b"")), file.about) == (rows, b"about")
        except CorruptObject:
            told += 1
            assert not path.exists(), "the next process begins anew"
    assert told == len(whole)


def test_a_cut_file_is_told(tmp_path):
    rows = many(60)
    path = written(tmp_path / "file", rows.items())
    whole = path.read_bytes()
    for length in [*range(60), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CorruptObject):
            SortedFile(str(path))


def test_a_block_that_the_disk_cannot_read_is_told_as_damaged(tmp_path, monkeypatch):
    path = written(tmp_path / "file", many(500).items())
    file = SortedFile(str(path))

    def refused(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", refused)
    for read in (lambda: list(file.scan(b"")), lambda: SortedFile(str(path))):
        with pytest.raises(CorruptObject):
            read()
        assert not path.exists(), "the next process begins anew"
        written(path, many(500).items())


def test_the_rows_stay_readable_when_the_name_is_given_to_another_file(tmp_path):
    first, second = many(500, seed=1), many(500, seed=2)
    file = SortedFile(str(written(tmp_path / "file", first.items())))
    written(tmp_path / "new", second.items()).replace(tmp_path / "file")
    assert dict(file.scan(b"")) == first
    assert dict(SortedFile(str(tmp_path / "file")).scan(b"")) == second


def test_equal_rows_give_equal_files():
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        write_sorted(file, sorted(many(100).items()), b"")
    assert files[0].getvalue() == files[1].getvalue()
