"""Bad input, one kind after another: each ends in a typed error that names the thing, and nothing is lost."""

import logging
import os
import pickle
import signal
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.errors import (
    AccessDenied,
    DatasetNotFound,
    DatasetStoreError,
    FileChanged,
    InvalidPath,
    InvalidRequest,
    PathNotFound,
    StorageFailed,
    TargetNotEmpty,
    UnsupportedFileType,
)
from dataset_store.testing.folders import read, write

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root to become another user or to mount a disk")
NOBODY = 65_534


def draft() -> Dataset:
    return Dataset.create(dataset_name="broken", dataset_project="p")


def as_nobody(work: Callable[[], object]) -> object:
    """What `work` returns, or the error that it raises, in a child process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            signal.alarm(60)  # a child that hangs must not hang the tests
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = pickle.dumps(work())
        except BaseException as error:  # noqa: BLE001  (the parent judges)
            answer = pickle.dumps(_plain(error))
        os.write(writing, answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        answer = file.read()
    os.waitpid(child, 0)
    outcome = pickle.loads(answer)
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _plain(error: BaseException) -> Exception:
    if isinstance(error, DatasetStoreError):
        return type(error)(error.what, error.next_step)
    return AssertionError(repr(error))


@pytest.fixture
def shared(place, monkeypatch):
    """A folder that the other user may write to, holding his cache and data; the store stays readable to him."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        place.monkeypatch.setenv("DATASET_STORE_CACHE", str(folder / "cache"))
        place.monkeypatch.setenv("DATASET_STORE_DATA", str(folder / "own"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
        monkeypatch.chdir(folder)
        place.new_process()
        subprocess.run(["cp", "-r", place.store, folder / "store"], check=True)
        place.monkeypatch.setenv("DATASET_STORE_URL", str(folder / "store"))
        yield folder
        place.new_process()
        place.monkeypatch.setenv("DATASET_STORE_URL", str(place.store))
        place.monkeypatch.setenv("DATASET_STORE_CACHE", str(place.home / "cache"))
        place.monkeypatch.setenv("DATASET_STORE_DATA", str(place.home / "own"))
        monkeypatch.chdir(place.home)


# --- paths that are not there, or are something else -----------------------------------------------------------------


def test_a_path_that_does_not_exist_is_named(place, refused):
    new = draft()
    with refused(PathNotFound, place.home / "missing"):
        new.add_files(place.home / "missing")
    with refused(PathNotFound, place.home / "missing"):
        new.sync_folder(place.home / "missing")
    assert new.list_files() == []


def test_a_link_to_itself_is_nothing_to_add(place, refused):
    loop = place.home / "loop"
    loop.symlink_to(loop)
    new = draft()
    for call in (new.sync_folder, new.add_files):
        with refused(PathNotFound, loop):
            call(loop)


def test_what_was_asked_for_and_not_found_is_named(place):
    with pytest.raises(DatasetNotFound, match="the project 'p' and the name 'x' and one of the tags 'a', 'b'"):
        Dataset.get(dataset_project="p", dataset_name="x", dataset_tags=["a", "b"])
    with pytest.raises(DatasetNotFound, match="has the version '7'"):
        Dataset.get(dataset_version="7")


def test_a_file_cannot_be_synced_and_a_folder_not_outside_its_base(place, refused):
    folder = place.source({"a": b"1"})
    new = draft()
    with refused(InvalidRequest, folder / "a"):
        new.sync_folder(folder / "a")
    with refused(InvalidRequest, folder / "a"):
        new.add_files(folder / "a", local_base_folder=str(place.home / "first"))
    assert new.list_files() == []


def test_a_mutable_copy_cannot_lie_where_a_file_is(place, refused):
    file = place.home / "first" / "small"
    with refused(TargetNotEmpty, file):
        place.first.get_mutable_local_copy(file)
    with refused(StorageFailed, file / "inside"):
        place.first.get_mutable_local_copy(file / "inside")
    assert file.read_bytes() == b"small"


def test_what_is_no_version_is_not_found(place, refused):
    with refused(DatasetNotFound, "f" * 32):
        Dataset.get("f" * 32)
    for odd in ("../../etc", "", "x" * 5_000, "nul\0"):
        with pytest.raises(DatasetStoreError):
            Dataset.get(odd)
    with refused(DatasetNotFound, "nobody"):
        Dataset.get(dataset_name="nobody")


@pytest.mark.parametrize("directory", ["../up", "a/../../b", "x" * 256, "nul\0"])
def test_a_directory_of_the_dataset_that_no_store_may_hold_is_refused(place, directory, refused):
    new = draft()
    for call in (new.add_files, new.sync_folder):
        with refused(InvalidPath):
            call(place.source({"a": b"1"}), dataset_path=directory)
    assert new.list_files() == []


def test_a_folder_synced_below_a_file_takes_its_place(place):
    new = draft()
    new.add_files(place.source({"a": b"a file"}, "one"))
    new.sync_folder(place.source({"x": b"below"}, "two"), dataset_path="a/b")
    new.finalize(auto_upload=True)
    assert read(new.get_local_copy()) == {"a/b/x": b"below"}


# --- kinds of files --------------------------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path has at most 107 bytes
        one.bind(path.name)
        os.chdir(here)


def make_device(path: Path) -> None:
    if not is_root:
        pytest.skip("needs root to make a device")
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device])
def test_a_fifo_socket_or_device_is_refused_by_name(place, make, refused):
    folder = place.source({"a": b"1"})
    make(folder / "special")
    new = draft()
    for call in (
        lambda: new.sync_folder(folder),
        lambda: new.add_files(folder),
        lambda: new.add_files(folder / "special"),
    ):
        with refused(UnsupportedFileType, "special"):
            call()
    assert new.list_files() == []


def test_a_file_that_became_a_fifo_before_the_upload_is_refused(place, refused):
    folder = place.source({"a": b"1" * 100})
    new = draft()
    new.sync_folder(folder)
    (folder / "a").unlink()
    os.mkfifo(folder / "a")
    with refused(FileChanged, folder / "a"):
        new.upload()


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_come_back(place):
    folder = os.fsencode(place.source({"plain": b"1"}))
    for name in (b"\xff\xfe", b"latin-\xe9", b"caf\xc3\xa9", b"new\nline", b"\x01"):
        Path(os.fsdecode(os.path.join(folder, name))).write_bytes(name)
    new = draft()
    new.sync_folder(os.fsdecode(folder))
    new.finalize(auto_upload=True)
    copy = os.fsencode(new.get_local_copy())
    assert sorted(os.listdir(copy)) == sorted(os.listdir(folder))
    assert Path(os.fsdecode(copy + b"/latin-\xe9")).read_bytes() == b"latin-\xe9"


def test_the_longest_names_and_paths_longer_than_the_kernel_takes_come_back(place):
    folder = place.home / "long"
    folder.mkdir()
    (folder / ("n" * 255)).write_bytes(b"long name")
    make_deep(folder, 40, b"deep")
    new = draft()
    new.sync_folder(folder)
    new.finalize(auto_upload=True)
    copy = new.get_local_copy()
    assert (Path(copy) / ("n" * 255)).read_bytes() == b"long name"
    assert read_deep(copy, 40) == b"deep"


def test_a_path_longer_than_a_store_may_hold_is_refused(place, refused):
    folder = place.home / "long"
    folder.mkdir()
    make_deep(folder, 90, b"too deep")
    new = draft()
    with refused(InvalidPath, "d" * 200):
        new.sync_folder(folder)
    assert new.list_files() == []


def make_deep(folder: Path, levels: int, content: bytes) -> None:
    opened = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d" * 200, dir_fd=opened)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    file = os.open("file", os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=opened)
    os.write(file, content)
    os.close(file)
    os.close(opened)


def read_deep(folder: str, levels: int) -> bytes:
    opened = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=opened)
        os.close(opened)
        opened = inner
    file = os.open("file", os.O_RDONLY, dir_fd=opened)
    os.close(opened)
    with os.fdopen(file, "rb") as found:
        return found.read()


def test_names_that_collide_elsewhere_are_stored_with_a_warning(place, caplog):
    files = {"Read.me": b"1", "READ.ME": b"2", "caf\u00e9": b"3", "cafe\u0301": b"4", "aux": b"5", "what?": b"6"}
    new = draft()
    with caplog.at_level(logging.WARNING):
        new.sync_folder(place.source(files))
    for named in ("READ.ME", "cafe\u0301", "aux", "what?"):
        assert named in caplog.text
    new.finalize(auto_upload=True)
    assert read(new.get_local_copy()) == files


# --- files that change -----------------------------------------------------------------------------------------------


def test_a_file_that_is_rewritten_all_the_time_is_one_of_its_contents_or_an_error(place):
    folder = place.source({"quiet": b"q"})
    contents = [bytes([number]) * 300_000 for number in range(8)]
    busy = folder / "busy"
    busy.write_bytes(contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        turn = 0
        with busy.open("r+b", buffering=0) as file:
            while not stop.is_set():
                turn += 1
                file.seek(0)
                file.write(contents[turn % 8])

    thread = threading.Thread(target=rewrite)
    thread.start()
    outcomes = set()
    try:
        for _ in range(10):
            new = draft()
            try:
                new.sync_folder(folder)
                new.finalize(auto_upload=True)
            except FileChanged as error:
                assert str(busy) in error.what
                outcomes.add("refused")
            else:
                # Whatever was stored has the content id that was announced: it was this content at one moment.
                assert Path(new.get_local_copy(), "busy").stat().st_size == 300_000
                outcomes.add("stored")
    finally:
        stop.set()
        thread.join()
    assert outcomes
    new = draft()
    new.sync_folder(folder)
    new.finalize(auto_upload=True)
    assert read(new.get_local_copy()) == read(folder)


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))


def vanish(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("size", [100, 100_000, 9_000_000])
@pytest.mark.parametrize("change", [shrink, flip, vanish, become_a_folder])
def test_a_file_that_changes_between_sync_and_upload_is_refused_and_a_new_sync_takes_it(place, change, size, refused):
    folder = place.source({"quiet": b"q" * 1_000, "busy": os.urandom(size)})
    new = draft()
    new.sync_folder(folder)
    change(folder / "busy")
    with refused(FileChanged, folder / "busy"):
        new.upload()
    new.sync_folder(folder)
    new.finalize(auto_upload=True)
    assert read(new.get_local_copy()) == read(folder)


@pytest.mark.parametrize("lines", [100, 50_000, 2_000_000])
def test_of_a_log_that_grows_all_the_time_what_was_added_is_stored(place, lines, refused):
    folder = place.source({"log": b"line\n" * lines})

    def grow():
        with (folder / "log").open("ab") as file:
            file.write(b"one more line\n")

    new = draft()
    new.sync_folder(folder)
    grow()
    if lines > 100:  # nobody has read it yet, so nobody knows what it was
        with refused(FileChanged, folder / "log"):
            new.upload()
        assert new.sync_folder(folder) == (0, 0, 1)
    before = (folder / "log").read_bytes() if lines > 100 else b"line\n" * lines
    grow()
    new.finalize(auto_upload=True)
    assert read(new.get_local_copy()) == {"log": before}
    assert Dataset.create(parent_datasets=[new]).sync_folder(folder) == (0, 0, 1)


def test_a_folder_that_vanishes_between_sync_and_upload_is_named(place, refused):
    folder = place.source({"a": b"1"})
    new = draft()
    new.sync_folder(folder)
    folder.rename(place.home / "elsewhere")
    with refused(FileChanged, folder / "a"):
        new.upload()
    (place.home / "elsewhere").rename(folder)
    new.finalize(auto_upload=True)


# --- permissions -----------------------------------------------------------------------------------------------------


@needs_root
def test_a_file_or_folder_that_may_not_be_read_is_named(shared, place, refused):
    folder = write(shared / "in", {"open": b"1", "closed": b"2", "dir/inside": b"3"})

    def sync() -> None:
        draft().sync_folder(folder)

    (folder / "closed").chmod(0)
    with refused(AccessDenied, folder / "closed"):
        as_nobody(sync)
    (folder / "closed").chmod(0o644)
    (folder / "dir").chmod(0)
    with refused(AccessDenied, folder / "dir"):
        as_nobody(sync)
    with refused(AccessDenied, folder / "dir"):
        as_nobody(lambda: draft().add_files(folder / "dir"))
    (folder / "dir").chmod(0o755)


@needs_root
def test_a_store_that_may_only_be_read_is_read_and_not_written(shared, place, refused):
    make_writable(shared / "store", False)
    copy = as_nobody(lambda: read(place.first.get_local_copy()))
    assert copy == place.files
    folder = write(shared / "in", {"a": b"new"})

    def upload() -> None:
        new = draft()
        new.sync_folder(folder)
        new.upload()

    with refused(AccessDenied, shared / "store"):
        as_nobody(upload)


@needs_root
def test_a_new_store_where_nothing_may_be_written_is_refused(shared, place, monkeypatch, refused):
    monkeypatch.setenv("DATASET_STORE_URL", str(place.home / "closed" / "store"))
    with refused(AccessDenied, place.home):
        as_nobody(draft)


def make_writable(folder: Path, writable: bool) -> None:
    for path in [folder, *folder.rglob("*")]:
        mode = (0o777 if path.is_dir() else 0o666) if writable else (0o555 if path.is_dir() else 0o444)
        path.chmod(mode)


@needs_root
def test_a_store_that_may_not_be_read_is_named(shared, place, refused):
    packs = shared / "store" / "packs"
    packs.chmod(0)
    with refused(AccessDenied, "packs/"):
        as_nobody(lambda: place.first.get_local_copy())
    (shared / "store").chmod(0)
    with refused(AccessDenied, shared / "store"):
        as_nobody(lambda: Dataset.get(dataset_name="d").id)


@needs_root
def test_a_mutable_copy_where_nothing_may_be_written_is_refused(shared, place, refused):
    (shared / "closed").mkdir()
    with refused(AccessDenied, shared / "closed" / "copy"):
        as_nobody(lambda: place.first.get_mutable_local_copy(shared / "closed" / "copy"))


@needs_root
def test_without_a_cache_all_works_but_local_copies_which_name_it(shared, place, refused):
    (shared / "cache").mkdir(mode=0o755)
    folder = write(shared / "in", {"a": b"new"})

    def work() -> object:
        new = draft()
        new.sync_folder(folder)
        new.finalize(auto_upload=True)
        return new.list_files(), read(place.first.get_mutable_local_copy(shared / "copy"))

    make_writable(shared / "store", True)
    assert as_nobody(work) == (["a"], place.files)
    with refused(AccessDenied, shared / "cache"):
        as_nobody(lambda: place.first.get_local_copy())


@needs_root
def test_a_data_folder_that_cannot_be_written_is_named(shared, place, refused):
    (shared / "own").mkdir(mode=0o755)
    with refused(AccessDenied, shared / "own"):
        as_nobody(draft)


@pytest.mark.parametrize(
    ("what", "call"), [("CACHE", lambda place: place.first.get_local_copy()), ("DATA", lambda _place: draft())]
)
def test_a_cache_or_data_folder_that_is_a_file_is_named(place, monkeypatch, what, call, refused):
    file = place.home / "a-file"
    file.write_bytes(b"not a folder")
    monkeypatch.setenv(f"DATASET_STORE_{what}", str(file))
    place.new_process()
    with refused(StorageFailed, file):
        call(place)
    monkeypatch.setenv(f"DATASET_STORE_{what}", str(place.home / what))
