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
            found = os.listdir(opened)
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


@given(contents=st.lists(st.binary(max_size=3_000), max_size=8), seed=st.integers(0, 10**6))
def test_files_are_made_with_their_bytes_modes_and_times(tmp_path_factory, contents, seed):
    folder = tmp_path_factory.mktemp("made")
    names = [b"%d" % number for number in range(len(contents))]
    times = [(number - 2) * 10**9 + (seed * 7919) % 10**9 for number in range(len(contents))]  # some before 1970
    modes = [0o444 if number % 2 else 0o755 for number in range(len(contents))]
    told = np.array([modes, times], np.int64).T.copy()
    opened = os.open(folder, os.O_RDONLY)
    try:
        assert _files.write_files(opened, tuple(names), tuple(map(memoryview, contents)), told) == len(contents)
    finally:
        os.close(opened)
    for name, data, mode, moment in zip(names, contents, modes, times):
        path = folder / os.fsdecode(name)
        assert path.read_bytes() == data
        found = path.stat()
        assert (found.st_mode & 0o777, found.st_mtime_ns) == (mode, moment)


def test_making_files_ends_at_the_first_that_cannot_be_made_and_changes_nothing_that_was_there(tmp_path):
    (tmp_path / "c").write_bytes(b"before")
    (tmp_path / "d").symlink_to("elsewhere")
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        for taken in ("c", "d", "n" * 300):
            names = (f"a{taken[0]}".encode(), taken.encode(), f"b{taken[0]}".encode())
            told = np.full((3, 2), 0o644, np.int64)
            assert _files.write_files(opened, names, (b"1", b"2", b"3"), told) == 1
    finally:
        os.close(opened)
    assert sorted(os.listdir(tmp_path)) == ["ac", "ad", "an", "c", "d"]
    assert (tmp_path / "c").read_bytes() == b"before"


def test_a_file_that_could_not_be_written_whole_is_not_left(tmp_path):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    opened = os.open(tmp_path, os.O_RDONLY)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
        told = np.full((3, 2), 0o644, np.int64)
        assert _files.write_files(opened, (b"a", b"b", b"c"), (b"x", bytes(2_000), b"y"), told) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
        os.close(opened)
    assert os.listdir(tmp_path) == ["a"]


def test_what_cannot_be_made_into_files_is_refused(tmp_path):
    opened = os.open(tmp_path, os.O_RDONLY)
    told = np.zeros((2, 2), np.int64)
    try:
        for names, contents, error in [
            ((b"a",), (b"x", b"y"), ValueError),
            ((b"a", b"b"), (b"x",), ValueError),
            ((b"a", b"b\0"), (b"x", b"y"), ValueError),
            ((b"a", "b"), (b"x", b"y"), TypeError),
            ((b"a", b"b"), (b"x", "y"), TypeError),
            ((b"a", b"b"), [b"x", b"y"], TypeError),
        ]:
            with pytest.raises(error):
                _files.write_files(opened, names, contents, told)
    finally:
        os.close(opened)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("make", ["link_files", "clone_files"])
def test_names_sources_and_rows_that_do_not_go_together_are_refused(tmp_path, make):
    opened = os.open(tmp_path, os.O_RDONLY)
    source, columns = os.fsencode(tmp_path / "there"), 2 if make == "link_files" else 3
    (tmp_path / "there").write_bytes(b"x")
    try:
        for rows in (np.zeros((2, columns - 1), np.int64), np.zeros((1, columns), np.int64)):
            with pytest.raises(ValueError, match="do not go together"):
                getattr(_files, make)(opened, (b"a", b"b"), (source, source), rows)
    finally:
        os.close(opened)
    assert os.listdir(tmp_path) == ["there"]


def test_clones_are_tried_until_the_system_says_that_none_can_be_made_and_leave_nothing(tmp_path):
    (tmp_path / "there").write_bytes(b"x")
    found = (tmp_path / "there").stat()
    source, row = os.fsencode(tmp_path / "there"), [1, found.st_mtime_ns, 0o644]
    opened = os.open(tmp_path, os.O_RDONLY)
    names = (b"there", b"a/b", b"gone", b"other", b"a", b"b")
    sources = (source, source, source + b"x", source, source, source)
    told = np.array([row, row, row, [1, found.st_mtime_ns + 1, 0o644], row, row])
    try:
        made = _files.clone_files(opened, names, sources, told)
    finally:
        os.close(opened)
    assert made in {b"\0\0\0\0\1\1", bytes(6)}, "by what this file system can"
    assert sorted(os.listdir(tmp_path)) == sorted(["there"] + ["a", "b"] * made[4])


def test_what_cannot_be_linked_together_is_refused_and_what_is_wrong_with_one_file_is_left(tmp_path):
    (tmp_path / "there").write_bytes(b"x")
    opened = os.open(tmp_path, os.O_RDONLY)
    source = os.fsencode(tmp_path / "there")
    told = np.array([[1, (tmp_path / "there").stat().st_mtime_ns]] * 2)
    try:
        for names, sources, error in [
            ((b"a",), (source, source), ValueError),
            ((b"a", b"b"), (source,), ValueError),
            ((b"a", b"b\0"), (source, source), ValueError),
            ((b"a", "b"), (source, source), TypeError),
            ((b"a", b"b"), (source, "there"), TypeError),
            ((b"a", b"b"), [source, source], TypeError),
        ]:
            with pytest.raises(error):
                _files.link_files(opened, names, sources, told)
        assert os.listdir(tmp_path) == ["there"]
        assert _files.link_files(opened, (b"there", b"a"), (source, source), told) == b"\0\1"
    finally:
        os.close(opened)
    assert os.path.samefile(tmp_path / "a", tmp_path / "there")
