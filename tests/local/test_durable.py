"""What is flushed, and when it is flushed one by one."""

import ctypes
import os

import pytest

from dataset_store.local import durable
from dataset_store.local.durable import flush_tree
from dataset_store.testing.folders import write


@pytest.fixture
def flushed(monkeypatch):
    """The names of what is flushed."""
    names = []
    fsync = os.fsync

    def noted(descriptor):
        names.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return names


def test_a_small_tree_is_flushed_file_by_file_and_folder_by_folder(tmp_path, flushed):
    folder = write(tmp_path / "in", {"a": b"1", "d/b": b"2", "d/e/c": b""})
    (folder / "link").symlink_to("/")
    flush_tree(str(folder))
    assert sorted(flushed) == ["a", "b", "c", "d", "e", "in"]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "syncfs"), reason="needs syncfs: Linux")
def test_a_large_tree_is_flushed_at_once(tmp_path, flushed, monkeypatch):
    called = []
    monkeypatch.setattr(durable, "flush_file_system", called.append)
    folder = write(tmp_path / "in", {f"d/{number}": b"" for number in range(durable._ONE_BY_ONE)})
    flush_tree(str(folder))
    assert (called, flushed) == ([str(folder)], [])
    monkeypatch.undo()
    flush_tree(str(folder))


def test_a_folder_that_is_gone_cannot_be_flushed(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.flush_file_system(str(tmp_path / "gone"))
