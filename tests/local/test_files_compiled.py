"""The compiled twin of reading short files: it does what is plain, and leaves all else to its caller."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset_store.local.reading import FileStat

_files = pytest.importorskip("dataset_store.local._files")


def stats(*paths):
    return np.array([FileStat.of(os.lstat(path)) for path in paths], np.int64).reshape(-1, 4)


def raw(*paths):
    return tuple(os.fsencode(path) for path in paths)


@given(contents=st.lists(st.binary(max_size=3_000), max_size=12))
def test_files_lie_one_behind_the_other(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / str(number) for number in range(len(contents))]
    for path, data in zip(paths, contents):
        path.write_bytes(data)
    whole = b"".join(contents)
    for expected in (stats(*paths), stats(*paths)[:, 0].copy()):
        buffer = bytearray(len(whole) + 1)
        assert _files.read_files(raw(*paths), expected, buffer) == b"\1" * len(contents)
        assert buffer == whole + b"\0"


@pytest.mark.parametrize("column", range(4))
def test_a_file_that_is_not_as_it_was_found_is_left(tmp_path, column):
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").write_bytes(b"two")
    paths = [tmp_path / "a", tmp_path / "b"]
    expected = stats(*paths)
    expected[0, column] += 1 if column else -1
    buffer = bytearray(8)
    assert _files.read_files(raw(*paths), expected, buffer) == b"\0\1"
    start = int(expected[0, 0])
    assert buffer[start : start + 3] == b"two"


def test_what_is_no_regular_file_is_left_and_not_waited_for(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    paths = [tmp_path / name for name in ("link", "fifo", "folder", "gone", "n" * 300, "file")]
    sizes = np.array([1, 0, 0, 0, 0, 1], np.int64)
    buffer = bytearray(2)
    assert _files.read_files(raw(*paths), sizes, buffer) == b"\0\0\0\0\0\1"
    assert buffer[1:] == b"x"


def test_a_buffer_that_is_too_short_is_never_written_beyond(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    path = raw(tmp_path / "a")
    for room in range(5):
        with pytest.raises(ValueError, match="room"):
            _files.read_files(path, np.array([5], np.int64), bytearray(room))
    for size in (-1, -(2**63), 2**63 - 1):
        with pytest.raises(ValueError, match="room"):
            _files.read_files(path * 2, np.array([5, size], np.int64), bytearray(10))


def test_what_does_not_go_together_is_refused(tmp_path):
    path = raw(tmp_path / "a")
    with pytest.raises(ValueError, match="rows"):
        _files.read_files(path, np.zeros(2, np.int64), bytearray(1))
    with pytest.raises(ValueError, match="rows"):
        _files.read_files(path, np.zeros(0, np.int64), bytearray(1))
    with pytest.raises(TypeError):
        _files.read_files(("text",), np.zeros(1, np.int64), bytearray(1))
    with pytest.raises(ValueError, match="null byte"):
        _files.read_files((b"a\0b",), np.zeros(1, np.int64), bytearray(1))
    with pytest.raises(TypeError):
        _files.read_files([b"a"], np.zeros(1, np.int64), bytearray(1))
    assert _files.read_files((), np.zeros(0, np.int64), bytearray(0)) == b""


def test_a_directory_is_listed_in_the_order_of_bytes_with_the_stat_of_each(tmp_path):
    names = [b"b", b"a", b"\xff\xfe", b"Z", b"aa", b"n" * 255, b" ", b"\xc3\xa9"]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(bytes(number))
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(2):  # the place in the directory is what it was
            text, rows = _files.list_directory(opened)
            found = [one.name for one in os.scandir(opened)]
    finally:
        os.close(opened)
    listed = text.split(b"\0")[:-1]
    assert listed == sorted(os.fsencode(name) for name in found)
    assert len(listed) == len(names) + 3
    for name, row in zip(listed, np.frombuffer(rows, np.int64).reshape(-1, 6).tolist()):
        now = os.lstat(os.path.join(os.fsencode(tmp_path), name))
        assert row == [now.st_mode, now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_dev]


def test_an_empty_directory_has_no_names_and_what_is_none_is_an_error(tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    assert _files.list_directory(opened) == (b"", b"")
    os.close(opened)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _files.list_directory(opened)
    (tmp_path / "file").write_bytes(b"")
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            _files.list_directory(opened)
    finally:
        os.close(opened)


def test_listing_leaves_no_descriptor_open(tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            _files.list_directory(opened)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(opened)
