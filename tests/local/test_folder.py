"""Folders as entries: what is remembered, and when."""

import os
import time

import pytest

from dataset_store.core.paths import ROOT
from dataset_store.errors import FileChanged
from dataset_store.local import folder as folders
from dataset_store.local.folder import read_folder
from dataset_store.local.stat_cache import StatCache


@pytest.fixture
def tree(tmp_path):
    """Six directories of five settled files each."""
    for number in range(30):
        path = tmp_path / "in" / f"d{number // 5}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
        os.utime(path, ns=(10**18, 10**18))
    time.sleep(0.05)
    return tmp_path / "in"


def test_a_first_reading_that_is_broken_off_goes_on_where_it_stopped(tree, tmp_path, monkeypatch):
    stats = StatCache(str(tmp_path / "stats"))
    monkeypatch.setattr(folders, "_GROUP_ROWS", 10)
    real, calls = folders.hash_files, []

    def failing(paths, *rest, **more):
        calls.append(len(paths))
        if len(calls) == 3:
            raise FileChanged("It is pulled out.", "Plug it in.")
        return real(paths, *rest, **more)

    monkeypatch.setattr(folders, "hash_files", failing)
    with pytest.raises(FileChanged):
        read_folder(str(tree), ROOT, stats, time.time_ns())
    assert len(read_folder(str(tree), ROOT, stats, time.time_ns()).entries) == 30
    assert calls == [10, 10, 10, 10]
    read_folder(str(tree), ROOT, stats, time.time_ns())
    assert calls == [10, 10, 10, 10]


def test_links_keep_their_texts_under_their_keys(tree, tmp_path):
    for number in range(6):
        (tree / f"d{number}" / "link").symlink_to(f"f{5 * number}")
    found = read_folder(str(tree), ROOT, StatCache(str(tmp_path / "stats")), time.time_ns())
    assert dict(found.links) == {b"d%d\0link" % number: b"f%d" % (5 * number) for number in range(6)}


class Told:
    """What a reading tells of itself."""

    def __init__(self):
        self.calls = []

    def __call__(self, files, count):
        self.calls.append((files, count))

    def expect(self, files, count):
        self.calls.append(("of", files, count))


def test_how_much_must_be_read_is_told_before_anything_is(tree, tmp_path):
    stats, first, second = StatCache(str(tmp_path / "stats")), Told(), Told()
    read_folder(str(tree), ROOT, stats, time.time_ns(), first)
    assert first.calls[0] == ("of", 30, 50)
    assert [sum(column) for column in zip(*first.calls[1:], strict=True)] == [30, 50]
    (tree / "d1" / "f5").write_bytes(b"longer than before")
    (tree / "d1" / "new").write_bytes(b"new")
    read_folder(str(tree), ROOT, stats, time.time_ns(), second)
    assert second.calls == [("of", 2, 21), (2, 21)]
