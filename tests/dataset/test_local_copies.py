"""Read-only local copies: what they allow, and what becomes of one that was changed all the same."""

import os
import stat
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.testing.folders import read, write

FILES = {"a": b"grey\n", "d/b": b"black\n", "d/e/c": b"white\n" * 100_000, "run.sh": b"#!/bin/sh\n"}


@pytest.fixture
def first(home):
    folder = write(home / "in", FILES)
    (folder / "run.sh").chmod(0o755)
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset


def child(home, parent):
    write(home / "in", {"new": b"new"})
    dataset = Dataset.create(parent_datasets=[parent])
    dataset.sync_folder(home / "in")
    dataset.finalize(auto_upload=True)
    return dataset


def modes(folder):
    below = sorted(Path(folder).rglob("*"))
    return {str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode) for path in below}


def overwrite(path, content):
    """As whoever may write anything does."""
    path.chmod(0o644)
    path.write_bytes(content)


def test_neither_files_nor_folders_of_a_copy_can_be_changed(first):
    folder = Path(first.get_local_copy())
    assert modes(folder) == {"a": 0o444, "d": 0o555, "d/b": 0o444, "d/e": 0o555, "d/e/c": 0o444, "run.sh": 0o555}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o555


def test_the_next_version_shares_unchanged_files_and_is_read_only_too(home, first):
    old = Path(first.get_local_copy())
    new = Path(child(home, first).get_local_copy())
    assert read(new) == {**FILES, "new": b"new"}
    assert (old / "d/e/c").stat().st_ino == (new / "d/e/c").stat().st_ino
    assert modes(new)["d/e"] == 0o555


@pytest.mark.parametrize("changed", [b"other", b"gray\n"], ids=["another size", "the same size"])
def test_a_file_that_was_changed_in_a_copy_does_not_come_into_the_next_version(home, first, changed):
    overwrite(Path(first.get_local_copy()) / "a", changed)
    assert read(child(home, first).get_local_copy()) == {**FILES, "new": b"new"}


def test_a_file_that_was_replaced_in_a_copy_does_not_come_into_the_next_version(home, first):
    copy = Path(first.get_local_copy())
    (copy / "a").unlink()
    (copy / "a").symlink_to("d/b")
    (copy / "d/b").unlink()
    assert read(child(home, first).get_local_copy()) == {**FILES, "new": b"new"}


@pytest.mark.parametrize("unit", [1, 1_000, 10**9, 2 * 10**9])
def test_files_are_shared_on_file_systems_that_keep_coarser_times(home, first, unit):
    path = Path(first.get_local_copy()) / "d/e/c"
    kept = path.stat().st_mtime_ns // unit * unit
    os.utime(path, ns=(kept, kept))
    new = Path(child(home, first).get_local_copy())
    assert path.stat().st_ino == (new / "d/e/c").stat().st_ino


def test_a_copy_is_removed_though_its_folders_are_read_only(home, first, another_machine):
    folder = Path(first.get_local_copy())
    os.chmod(folder / "d", 0o555)
    copies = first._workspace.copies
    copies._release(first.id)
    assert copies.remove(first.id)
    assert not folder.exists()
