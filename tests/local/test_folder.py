"""Folders as entries: what is remembered, and when."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dataset_store.core.paths import ROOT
from dataset_store.errors import FileChanged
from dataset_store.local import folder as folders
from dataset_store.local.folder import Later, Reading, read_file, read_folder
from dataset_store.local.stat_cache import StatCache
from dataset_store.testing.folders import write


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


# --- files that are left unread ---


def all_may_wait(_root, keys, _sizes, _mtimes):
    return np.ones(len(keys), np.bool_)


def none_may_wait(_root, keys, _sizes, _mtimes):
    return np.zeros(len(keys), np.bool_)


LONG = 10  # bytes; longer files may wait here


@pytest.fixture
def mixed(tmp_path):
    """Long files beside all that is never left unread."""
    made = write(tmp_path / "in", {"a/long": b"long" * 10, "a/short": b"short", "b": b"another" * 9, "empty": b""})
    (made / "link").symlink_to("a/long")
    for path in made.rglob("*"):
        os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)
    time.sleep(0.05)
    return made


@pytest.fixture
def opened(monkeypatch):
    """The files that are read, in the order in which they are."""
    found, real = [], folders.hash_files

    def hashing(paths, *rest, **more):
        found.extend(os.path.basename(path) for path in paths)
        return real(paths, *rest, **more)

    monkeypatch.setattr(folders, "hash_files", hashing)
    return found


def unread_of(found):
    return [key for key, is_unread in zip(found.entries.keys, found.entries.unread, strict=True) if is_unread]


def test_only_long_files_are_left_unread_and_they_are_not_opened(mixed, tmp_path, opened):
    stats = StatCache(str(tmp_path / "stats"))
    found = read_folder(str(mixed), ROOT, stats, time.time_ns(), how=Reading(later=Later(LONG, all_may_wait)))
    assert unread_of(found) == [b"a\0long", b"b"]
    assert opened == [b"short"]
    read = read_folder(str(mixed), ROOT, stats, time.time_ns())
    assert unread_of(read) == []
    assert opened == [b"short", b"long", b"b"]
    assert np.array_equal(found.entries.sizes, read.entries.sizes)
    assert np.array_equal(found.entries.mtimes, read.entries.mtimes)


def test_who_decides_is_asked_of_long_files_that_are_not_known_only(mixed, tmp_path):
    stats, asked = StatCache(str(tmp_path / "stats")), []

    def deciding(root, keys, sizes, mtimes):
        asked.append((root, list(keys), sizes.tolist(), mtimes.tolist()))
        return none_may_wait(root, keys, sizes, mtimes)

    later = Reading(later=Later(LONG, deciding))
    found = read_folder(str(mixed), ROOT, stats, time.time_ns(), how=later)
    assert asked == [(os.fsencode(mixed), [b"a\0long", b"b"], [40, 63], [10**18, 10**18])]
    assert unread_of(found) == []
    read_folder(str(mixed), ROOT, stats, time.time_ns(), how=later)
    assert len(asked) == 1


def test_a_file_that_is_left_unread_is_not_remembered_and_the_others_of_its_folder_are(mixed, tmp_path, opened):
    stats = StatCache(str(tmp_path / "stats"))
    for _ in range(2):
        found = read_folder(str(mixed), ROOT, stats, time.time_ns(), how=Reading(later=Later(LONG, all_may_wait)))
        assert unread_of(found) == [b"a\0long", b"b"]
    assert opened == [b"short"]


def test_a_file_that_was_changed_since_it_was_read_is_left_unread_and_its_old_content_is_not_kept(mixed, tmp_path):
    stats = StatCache(str(tmp_path / "stats"))
    read_folder(str(mixed), ROOT, stats, time.time_ns())
    (mixed / "b").write_bytes(b"changed" * 10)
    found = read_folder(str(mixed), ROOT, stats, time.time_ns(), how=Reading(later=Later(LONG, all_may_wait)))
    assert unread_of(found) == [b"b"]


def test_a_single_file_may_be_left_unread_too(mixed, tmp_path, opened):
    how, stats = Reading(later=Later(LONG, all_may_wait)), StatCache(str(tmp_path / "stats"))
    assert unread_of(read_file(str(mixed / "b"), ROOT, stats, time.time_ns(), how)) == [b"b"]
    assert unread_of(read_file(str(mixed / "a" / "short"), ROOT, stats, time.time_ns(), how)) == []
    assert opened == [b"short"]


def test_workers_leave_nothing_unread(mixed, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        how = Reading(executor, Later(LONG, all_may_wait))
        assert unread_of(read_folder(str(mixed), ROOT, StatCache(str(tmp_path / "s")), time.time_ns(), how=how)) == []


def test_what_is_left_unread_is_not_told_as_something_to_read(mixed, tmp_path):
    told, how = Told(), Reading(later=Later(LONG, all_may_wait))
    read_folder(str(mixed), ROOT, StatCache(str(tmp_path / "stats")), time.time_ns(), told, how=how)
    assert told.calls == [("of", 1, 5), (1, 5)]
