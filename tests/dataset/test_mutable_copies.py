"""Mutable copies are put where the user says, and nothing else is touched."""

import os
import stat
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.dataset.copies import copying, filling
from dataset_store.errors import InvalidRequest, StorageFailed, TargetNotEmpty
from dataset_store.testing.folders import read, write

FILES = {"a": b"grey\n", "d/b": b"black\n"}


@pytest.fixture
def version(home):
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(write(home / "in", FILES))
    dataset.finalize(auto_upload=True)
    return dataset


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced_by_a_copy(home, version, overwrite):
    write(home, {"precious.txt": b"mine"})
    with pytest.raises(TargetNotEmpty, match="is a file"):
        version.get_mutable_local_copy("precious.txt", overwrite=overwrite)
    assert (home / "precious.txt").read_bytes() == b"mine"


def test_a_link_to_a_folder_stays_and_the_folder_takes_the_copy(home, version):
    write(home / "large-disk/work", {"old": b"old"})
    (home / "work").symlink_to("large-disk/work")
    with pytest.raises(TargetNotEmpty):
        version.get_mutable_local_copy("work")
    assert version.get_mutable_local_copy("work", overwrite=True) == str(home / "work")
    assert os.readlink(home / "work") == "large-disk/work"
    assert read(home / "large-disk/work") == FILES


def test_the_folder_that_one_stands_in_is_filled_and_not_swapped(home, version, monkeypatch):
    write(home / "here", {"old/file": b"old"})
    before = (home / "here").stat().st_ino
    monkeypatch.chdir(home / "here")
    version.get_mutable_local_copy(".", overwrite=True)
    assert os.stat(".").st_ino == before
    assert read(home / "here") == FILES


def test_an_empty_mount_point_is_filled(home, version, monkeypatch):
    (home / "mnt").mkdir()
    before = (home / "mnt").stat().st_ino
    monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) == str(home / "mnt"))
    version.get_mutable_local_copy("mnt")
    assert (home / "mnt").stat().st_ino == before
    assert read(home / "mnt") == FILES


def test_a_folder_of_ones_own_below_one_that_cannot_be_written_is_filled(home, version, monkeypatch):
    (home / "closed" / "own").mkdir(parents=True)
    before = (home / "closed/own").stat().st_ino
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **more: path != str(home / "closed") and real(path, mode))
    version.get_mutable_local_copy("closed/own")
    assert (home / "closed/own").stat().st_ino == before
    assert read(home / "closed/own") == FILES


@pytest.mark.parametrize("stays", [False, True], ids=["replaced", "filled"])
def test_a_copy_that_fails_leaves_the_folder_as_it_was(home, version, monkeypatch, stays):
    write(home / "work", {"old": b"old"})
    monkeypatch.setattr(copying, "_must_stay", lambda _: stays)

    def fail(*_, **__):
        raise StorageFailed("The disk refused.", "Look at it.")

    monkeypatch.setattr(filling, "materialise", fail)
    with pytest.raises(StorageFailed):
        version.get_mutable_local_copy("work", overwrite=True)
    assert read(home / "work") == {"old": b"old"}
    assert sorted(path.name for path in home.iterdir() if path.name.startswith("work")) == ["work"]


def test_a_folder_that_is_replaced_keeps_its_mode(home, version):
    folder = Path(home / "work")
    folder.mkdir(mode=0o750)
    folder.chmod(0o2750)
    version.get_mutable_local_copy("work")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750


@pytest.mark.parametrize("kept", ["store", "cache", "own"])
def test_a_folder_that_holds_the_store_is_never_replaced(home, version, kept):
    version.get_local_copy()
    assert (home / kept).is_dir()
    for target in (home, home / kept):
        with pytest.raises(TargetNotEmpty, match="holds"):
            version.get_mutable_local_copy(target, overwrite=True)
    assert read(version.get_local_copy()) == FILES


def test_ones_home_and_the_root_of_everything_are_never_replaced(home, version, monkeypatch):
    write(home / "me", {"precious": b"mine"})
    monkeypatch.setenv("HOME", str(home / "me"))
    monkeypatch.setattr(filling, "fill", lambda *_, **__: pytest.fail("it was begun"))
    for target in ("me", "/", str(home / "me" / "." / "..") + "/me/"):
        with pytest.raises(TargetNotEmpty, match="no folder to replace"):
            version.get_mutable_local_copy(target, overwrite=True)
    assert read(home / "me") == {"precious": b"mine"}


def test_an_empty_path_is_no_folder(version):
    with pytest.raises(InvalidRequest):
        version.get_mutable_local_copy("", overwrite=True)


def test_a_link_to_a_local_copy_is_no_way_into_the_cache(home, version):
    copy = Path(version.get_local_copy())
    (home / "link").symlink_to(copy)
    for overwrite in (False, True):
        for target in ("link", copy, copy / "new", home / "store" / "new"):
            with pytest.raises(TargetNotEmpty, match="lies in"):
                version.get_mutable_local_copy(target, overwrite=overwrite)
    assert read(version.get_local_copy()) == FILES
    assert not (home / "store" / "new").exists()
