"""Copies of large files: their segments are fetched side by side, and a file is whole or has no time of its own."""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event

import pytest

from dataset_store import Dataset
from dataset_store.dataset.entries.lists import with_lists
from dataset_store.errors import ObjectMissing
from dataset_store.local import materialise
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.storage.backend import Traits
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.testing.folders import read, write


@pytest.fixture
def version(home, monkeypatch):
    """A version of one file whose bytes lie in several packs."""
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 1 << 20)
    write(home / "data", {"large": random.Random(1).randbytes(6 << 20)})  # the same packs in every run
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(home / "data")
    dataset.finalize(auto_upload=True)
    return dataset


def packs_in(home):
    return sorted((home / "store" / "packs").rglob("*/*"))


def test_segments_of_one_file_are_fetched_by_several_threads(version, home, monkeypatch):
    both = Barrier(2, timeout=30)
    copy_segment = materialise._Copier.copy_segment

    def copied(self, row, segment, opened, target):
        if target < 2 << 20:
            both.wait()  # would stand still if one thread wrote the whole file
        copy_segment(self, row, segment, opened, target)

    monkeypatch.setattr(materialise._Copier, "copy_segment", copied)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert read(version.get_local_copy()) == read(home / "data")


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_copy_that_ends_early_leaves_nothing_open(version, home, monkeypatch, at_once):
    monkeypatch.setattr(PosixBackend, "traits", Traits(at_once=at_once))
    found = packs_in(home)
    assert len(found) > 4
    found[len(found) // 2].unlink()
    before = os.listdir("/proc/self/fd")
    with pytest.raises(ObjectMissing):
        version.get_local_copy()
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_a_descriptor_is_not_closed_while_a_thread_may_write_to_it(version, tmp_path):
    entries = with_lists(version._entries(), version._workspace.store.nodes)
    begun, go_on, seen = Event(), Event(), []

    def reuse(_row, _segment, opened, _target):
        seen.append(opened)
        begun.set()
        assert go_on.wait(30)
        os.fstat(opened)  # its number is still this file's
        return False

    (tmp_path / "copy").mkdir()
    with FolderWriter(str(tmp_path / "copy")) as writer, ThreadPoolExecutor(1) as pool:
        copier = materialise._Copier(entries, writer, version._workspace.store.packs, reuse, lambda *_: None)
        file = materialise._LargeFile(copier, 0)
        assert len(file.segments) > 1
        writing = pool.submit(file.copy, file.segments[0], 0)
        assert begun.wait(30)
        copier.stop.set()
        copier.give_up()  # as where Ctrl-C ends the wait for the threads
        with pytest.raises(materialise._Stopped):
            file.copy(file.segments[1], file.segments[0].plain_length)
        go_on.set()
        with pytest.raises(materialise._Stopped):
            writing.result(30)
    assert copier.open == set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(seen[0])
    assert os.stat(tmp_path / "copy" / "large").st_mtime_ns != entries.mtimes[0]
