"""Reading local files that others may be changing, and the content ids of many files at once."""

import itertools
import os
import socket
import threading
from unittest import mock

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.errors import AccessDenied, FileChanged, StorageFailed
from dataset_store.local import batches, reading
from dataset_store.local.reading import FileStat, hash_files

pytestmark = pytest.mark.usefixtures("both_ways")


def random_bytes(seed, length):
    return blake3(f"{seed}".encode()).digest(length=length) if length else b""


def content_id(data):
    return blake3(data).digest()


def write(folder, contents):
    paths = []
    for index, data in enumerate(contents):
        path = folder / f"{index:04}"
        path.write_bytes(data)
        paths.append(os.fsencode(path))
    return paths


def stats_of(paths):
    return np.array([FileStat.of(os.stat(path)) for path in paths], np.int64).reshape(-1, 4)


def hash_all(paths, **options):
    return hash_files(paths, stats_of(paths), **options)


def ids_of(hashed):
    return [row.tobytes() for row in hashed.content_ids]


FILES = [random_bytes(n, size) for n, size in enumerate([0, 1, 5_000_000, 300_000, 70_000, *[4_000] * 200])]


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_the_content_ids_are_the_hashes_of_the_files_in_the_order_asked(tmp_path, workers):
    paths = write(tmp_path, FILES)
    hashed = hash_all(paths, workers=workers)
    assert ids_of(hashed) == [content_id(data) for data in FILES]
    assert (hashed.stats == stats_of(paths)).all()


def test_no_files_have_no_content_ids():
    assert hash_files([], stats_of([])).content_ids.shape == (0, 32)


def test_progress_counts_every_file_and_byte_once_in_the_calling_thread(tmp_path):
    paths = write(tmp_path, FILES)
    told = []
    hash_all(paths, progress=lambda files, size: told.append((files, size, threading.get_ident())))
    assert sum(files for files, _, _ in told) == len(FILES)
    assert sum(size for _, size, _ in told) == sum(map(len, FILES))
    assert {thread for _, _, thread in told} == {threading.get_ident()}


def reading_threads(paths, waits):
    """The threads that open files when the calling thread seems to wait so many times for each unit."""
    counter = itertools.count(0, waits)
    seen = []
    plain = reading.open_regular

    def opening(path, inode=None):
        seen.append(threading.get_ident())
        return plain(path, inode)

    with (
        mock.patch.object(reading, "_waits", side_effect=counter),
        mock.patch.object(reading, "open_regular", opening),
    ):
        hashed = hash_all(paths, workers=2)
    return ids_of(hashed), seen


def test_short_files_go_to_other_threads_once_reading_waits(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_files", None)
    files = [random_bytes(n, 4_000) for n in range(300)]
    paths = write(tmp_path, files)
    here = threading.get_ident()
    inline, without_waits = reading_threads(paths, 0)
    pooled, with_waits = reading_threads(paths, 1_000)
    assert set(without_waits) == {here}
    assert 0 < with_waits.count(here) < 100
    assert inline == pooled == [content_id(data) for data in files]


def test_a_file_that_changed_after_it_was_found_is_hashed_with_its_new_stat(tmp_path):
    (path,) = write(tmp_path, [b"old"])
    expected = stats_of([path])
    (tmp_path / "0000").write_bytes(b"new and longer")
    hashed = hash_files([path], expected)
    assert ids_of(hashed) == [content_id(b"new and longer")]
    assert (hashed.stats == stats_of([path])).all()
    assert (hashed.stats != expected).any()


def changing_while_read(path, versions, size):
    """Patches that put the next version into the file right after each time it was read."""
    times = itertools.count(10**18, 10**9)
    plain_read, plain_readv = os.read, os.readv

    def change():
        version = next(versions, None)
        if version is not None:
            path.write_bytes(random_bytes(version, size))
            stamp = next(times)  # as a clock of any resolution would show it in the end
            os.utime(path, ns=(stamp, stamp))

    def read(opened, count):
        data = plain_read(opened, count)
        change()
        return data

    def readv(opened, buffers):
        count = plain_readv(opened, buffers)
        if not count:
            change()
        return count

    return mock.patch.multiple(reading.os, read=read, readv=readv)


@pytest.mark.parametrize("size", [5_000, 500_000])
@pytest.mark.parametrize("changes", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, size, changes):
    path = tmp_path / "changing"
    path.write_bytes(random_bytes("first", size))
    raw = os.fsencode(path)
    with changing_while_read(path, iter(range(changes)), size):
        hashed = hash_all([raw])
    assert ids_of(hashed) == [content_id(random_bytes(changes - 1, size))]
    assert (hashed.stats == stats_of([raw])).all()


@pytest.mark.parametrize("size", [5_000, 500_000])
def test_a_file_that_changes_each_time_it_is_read_is_refused_after_four_times(tmp_path, size):
    path = tmp_path / "changing"
    path.write_bytes(random_bytes("first", size))
    versions = itertools.count()
    with changing_while_read(path, versions, size), pytest.raises(FileChanged, match="each time"):
        hash_all([os.fsencode(path)])
    assert next(versions) == 4


def test_a_file_that_grows_faster_than_it_is_read_does_not_hold_a_thread_forever(tmp_path):
    (path,) = write(tmp_path, [bytes(300_000)])
    reads = itertools.count()

    def readv(opened, buffers):
        return len(buffers[0]) if next(reads) < 1_000 else 0

    with mock.patch.object(reading.os, "readv", readv), pytest.raises(FileChanged, match="each time"):
        hash_all([path])
    assert next(reads) < 10


@settings(deadline=None, max_examples=5)
@given(st.sampled_from([1_000, 200_000, 3_000_000]))
def test_of_a_file_that_grows_meanwhile_a_state_that_it_had_is_hashed_or_none(tmp_path_factory, start):
    path = tmp_path_factory.mktemp("growing") / "log"
    stream = random_bytes("log", start + 4_000_000)
    path.write_bytes(stream[:start])
    stop = threading.Event()

    def grow():
        with path.open("ab", buffering=0) as file:
            for at in range(start, len(stream), 1_000):
                file.write(stream[at : at + 1_000])
                if stop.is_set():
                    return

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(20):
            try:
                hashed = hash_all([os.fsencode(path)])
            except FileChanged:
                continue
            assert ids_of(hashed) == [content_id(stream[: hashed.stats[0, 0]])]
    finally:
        stop.set()
        writer.join()


def test_what_is_no_file_any_more_is_refused_without_waiting(tmp_path):
    (path,) = write(tmp_path, [b"was a file"])
    expected = stats_of([path])
    for replace in (os.mkfifo, os.mkdir, bind_socket, lambda path: os.symlink(b"nowhere", path)):
        remove(path)
        replace(path)
        with pytest.raises(FileChanged, match="0000"):
            hash_files([path], expected)
    os.unlink(path)
    with pytest.raises(FileChanged, match="0000"):
        hash_files([path], expected)


def remove(path):
    if os.path.isdir(path):
        os.rmdir(path)
    else:
        os.unlink(path)


def bind_socket(path):
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)


def test_a_link_is_followed_only_to_the_file_that_was_found_behind_it(tmp_path):
    (tmp_path / "one").write_bytes(b"same size 1")
    (tmp_path / "two").write_bytes(b"same size 2")
    (tmp_path / "link").symlink_to("one")
    link = os.fsencode(tmp_path / "link")
    expected = stats_of([link])
    assert ids_of(hash_files([link], expected)) == [content_id(b"same size 1")]
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("two")
    with pytest.raises(FileChanged, match="link"):
        hash_files([link], expected)


@pytest.mark.parametrize(
    ("problem", "meaning"), [(PermissionError(13, "denied"), AccessDenied), (OSError(5, "I/O"), StorageFailed)]
)
@pytest.mark.parametrize("call", ["open", "read"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, problem, meaning, call):
    (path,) = write(tmp_path, [b"secret"])
    expected = stats_of([path])
    with mock.patch.object(reading.os, call, side_effect=problem), pytest.raises(meaning, match="0000"):
        hash_files([path], expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_denied(tmp_path):
    (path,) = write(tmp_path, [b"secret"])
    os.chmod(path, 0)
    with pytest.raises(AccessDenied, match="0000"):
        hash_all([path])


def test_file_systems_that_return_less_than_was_asked_for_change_nothing(tmp_path):
    files = [random_bytes("a", 3_000), random_bytes("b", 300_000)]
    paths = write(tmp_path, files)
    plain_read, plain_readv = os.read, os.readv
    with mock.patch.multiple(
        reading.os,
        read=lambda opened, count: plain_read(opened, min(count, 700)),
        readv=lambda opened, buffers: plain_readv(opened, [buffers[0][:70_001]]),
    ):
        hashed = hash_all(paths)
    assert ids_of(hashed) == [content_id(data) for data in files]


def test_one_bad_file_among_many_is_the_error_and_no_thread_stays(tmp_path):
    paths = write(tmp_path, [random_bytes(n, 300_000) for n in range(12)])
    expected = stats_of(paths)
    os.unlink(paths[5])
    with pytest.raises(FileChanged, match="0005"):
        hash_files(paths, expected)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("hash")]


def test_a_path_longer_than_the_system_takes_at_once_is_read(tmp_path):
    names = ["d" * 250] * 20
    here = os.open(tmp_path, os.O_RDONLY)
    opened = [here]
    for name in names:
        os.mkdir(name, dir_fd=here)
        here = os.open(name, os.O_RDONLY, dir_fd=here)
        opened.append(here)
    file = os.open("deep", os.O_CREAT | os.O_WRONLY, dir_fd=here)
    os.write(file, b"deep down")
    expected = np.array([FileStat.of(os.fstat(file))], np.int64)
    path = os.fsencode("/".join([str(tmp_path), *names, "deep"]))
    try:
        assert len(path) > 4096
        assert ids_of(hash_files([path], expected)) == [content_id(b"deep down")]
        with pytest.raises(FileChanged, match="deeper"):
            hash_files([path + b"er"], expected)
    finally:
        os.unlink("deep", dir_fd=here)
        os.close(file)
        for parent, name in zip(reversed(opened[:-1]), reversed(names), strict=True):
            os.rmdir(name, dir_fd=parent)
        for one in opened:
            os.close(one)


def test_inodes_of_all_64_bits_are_compared_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "_files", None)
    (path,) = write(tmp_path, [b"content"])
    (tmp_path / "link").symlink_to(os.fsdecode(path))
    real = os.fstat

    class Large:
        def __init__(self, found):
            self.__dict__.update({name: getattr(found, name) for name in dir(found) if name.startswith("st_")})
            self.st_ino = found.st_ino + (1 << 63)

    monkeypatch.setattr(reading.os, "fstat", lambda opened: Large(real(opened)))
    found = os.stat(path)
    expected = np.array([[found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino - (1 << 63)]], np.int64)
    for name in (path, os.fsencode(tmp_path / "link")):
        hashed = hash_files([name], expected)
        assert ids_of(hashed) == [content_id(b"content")]
        assert (hashed.stats == expected).all()
