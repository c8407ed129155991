"""Long files that may be the same, told by a look at three places of each."""

import os
import random

import numpy as np
import pytest

from dataset_store.local.reading import READ_SIZE
from dataset_store.local.twins import twins
from dataset_store.testing.folders import write

LONG = READ_SIZE + 100_000
DATA = random.Random(1).randbytes(LONG)


def told(folder, files):
    """The names of the files that look like another one."""
    write(folder, files)
    paths = [os.fsencode(folder / name) for name in files]
    found = twins(paths, np.array([len(data) for data in files.values()], np.int64))
    return [name for name, is_told in zip(files, found, strict=True) if is_told]


def with_a_byte_changed(at):
    data = bytearray(DATA)
    data[at] ^= 1
    return bytes(data)


def test_equal_files_are_told_wherever_they_lie(tmp_path):
    assert told(tmp_path, {"a": DATA, "b": DATA[::-1], "c/d": DATA, "e": DATA + b"1", "f": DATA}) == ["a", "c/d", "f"]


@pytest.mark.parametrize("at", [0, LONG // 2, LONG - 1])
def test_files_that_differ_at_the_start_in_the_middle_or_at_the_end_are_not_told(tmp_path, at):
    assert told(tmp_path, {"a": DATA, "b": with_a_byte_changed(at)}) == []


def test_two_pairs_of_one_size_are_two_pairs(tmp_path):
    other = DATA[::-1]
    assert told(tmp_path, {"a": DATA, "b": other, "c": DATA, "d": other}) == ["a", "b", "c", "d"]


def test_shorter_files_are_not_looked_at(tmp_path):
    assert told(tmp_path, {"a": DATA[:READ_SIZE], "b": DATA[:READ_SIZE]}) == []


def test_only_so_much_of_a_file_is_read_and_nothing_of_one_with_a_size_of_its_own(tmp_path, monkeypatch):
    read, real = [], os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: read.append(count) or real(fd, count, at))
    told(tmp_path, {"a": DATA, "b": DATA, "c": DATA + b"1"})
    assert sum(read) <= 2 * 3 * 16_384


@pytest.mark.parametrize("become", ["nothing", "a folder", "unreadable"])
def test_of_files_that_cannot_be_read_nothing_is_told(tmp_path, become, monkeypatch):
    write(tmp_path, {"c": DATA, "d": DATA})
    paths = [os.fsencode(tmp_path / name) for name in "abcd"]
    if become == "a folder":
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
    elif become == "unreadable":
        write(tmp_path, {"a": DATA, "b": DATA})
        real = os.pread
        broken = {os.stat(tmp_path / name).st_ino for name in "ab"}

        def failing(fd, count, at):
            if os.fstat(fd).st_ino in broken:
                raise OSError(5, "Input/output error")
            return real(fd, count, at)

        monkeypatch.setattr(os, "pread", failing)
    assert twins(paths, np.full(4, LONG, np.int64)).tolist() == [False, False, True, True]
