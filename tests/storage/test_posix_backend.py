"""A folder as a backend: the promises of the port, and what a file system adds to them."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dataset_store
from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DatasetStoreError,
    DiskFull,
    InvalidRequest,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
    StoreUnreachable,
)
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.posix_backend import TEMP_FOLDER, PosixBackend
from dataset_store.testing.backend_conformance import BackendConformance

KEY = Key("packs/aa/0")

real_open, real_link, real_fsync, real_stat = os.open, os.link, os.fsync, os.stat


class TestPosixBackend(BackendConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def make_backend(self) -> Backend:
        self.root = tempfile.mkdtemp(dir=self.folder)
        return PosixBackend(self.root)

    def reopen(self, backend: Backend) -> Backend:
        return PosixBackend(self.root)


class TestPosixBackendWithoutNamelessFiles(TestPosixBackend):
    @pytest.fixture(autouse=True)
    def _without_nameless_files(self, monkeypatch: pytest.MonkeyPatch) -> None:
        refuse_nameless_files(monkeypatch, errno.EOPNOTSUPP)


def refuse_nameless_files(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    def open_(path, flags, mode=0o777, *, dir_fd=None):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(error, os.strerror(error))
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)


@pytest.fixture(params=["nameless files", "named files"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A root that does not exist yet, with each way to write."""
    if request.param == "named files":
        refuse_nameless_files(monkeypatch, errno.EOPNOTSUPP)
    return str(tmp_path / "root")


def files_below(root: str) -> set[str]:
    return {os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names}


def failing(error: int) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise OSError(error, os.strerror(error))

    return fail


WAYS = ["put", "create", "piece by piece"]


def write(backend: Backend, way: str, key: Key, pieces: list[bytes]) -> None:
    """Write an object in one of the ways that the port has."""
    if way != "piece by piece":
        getattr(backend, way)(key, pieces)
        return
    writer = backend.open_writer(key)
    for piece in pieces:
        writer.write([piece])
    writer.finish()


def run_script(script: str, *arguments: str) -> subprocess.Popen[str]:
    """Another process that can import the package under test; it ends when its input does."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(next(iter(dataset_store.__path__)))}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


# One law: a folder is a dictionary

KEYS = st.sampled_from([Key(name) for name in ("config", "log/c/0", "log/c/1", "packs/0/a", "packs/1/b", "tmp/x")])
STEPS = st.one_of(
    st.tuples(st.sampled_from(["put", "create"]), KEYS, st.lists(st.binary(max_size=9), max_size=3)),
    st.tuples(st.just("get_many"), st.lists(KEYS, max_size=5)),
    st.tuples(
        st.just("get_ranges"),
        st.lists(
            st.builds(Span, KEYS, st.integers(0, 6), st.integers(0, 9)) | st.builds(Tail, KEYS, st.integers(0, 9)),
            max_size=5,
        ),
    ),
    st.tuples(st.just("delete_many"), st.lists(KEYS, max_size=3)),
    st.tuples(st.just("list"), st.sampled_from(["log", "packs", "packs/0", "tmp", "config", "none"])),
)


def answer(backend: Backend, verb: str, *arguments: object) -> object:
    try:
        found = getattr(backend, verb)(*arguments)
        return sorted((row.key, row.size) for row in found) if verb == "list" else found
    except (InvalidRequest, CorruptObject, ObjectMissing):
        return "refused"  # of several bad parts in one request, any may be the one that is named


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, max_size=20))
def test_a_folder_answers_as_a_dictionary_does(steps):
    with tempfile.TemporaryDirectory() as root:
        folder, dictionary = PosixBackend(root), MemoryBackend()
        for step in steps:
            assert answer(folder, *step) == answer(dictionary, *step)


# Order of writing


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every fsync with the path of what it flushed ("file" for an object's), every link and mkdir."""
    seen: list[tuple[str, str]] = []

    def fsync(fd):
        is_folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        seen.append(("fsync", os.readlink(f"/proc/self/fd/{fd}") if is_folder else "file"))
        real_fsync(fd)

    def link(source, target, **options):
        seen.append(("link", target))
        real_link(source, target, **options)

    def mkdir(path, mode=0o777, real=os.mkdir):
        seen.append(("mkdir", path))
        real(path, mode)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(os, "mkdir", mkdir)
    return seen


@pytest.mark.parametrize("way", WAYS)
def test_the_file_is_flushed_then_linked_then_its_folder_flushed(root, events, way):
    backend = PosixBackend(root)
    backend.put(Key("log/0"), [])
    events.clear()
    write(backend, way, Key("log/1"), [b"con", b"tent"])
    assert events == [("fsync", "file"), ("link", "1"), ("fsync", f"{root}/log")]


def test_each_new_folder_is_flushed_into_its_parent_before_anything_is_acknowledged(tmp_path, events):
    root = f"{tmp_path}/not/yet"
    PosixBackend(root).put(Key("log/catalog/0"), [])
    assert events == [
        ("mkdir", f"{tmp_path}/not"),
        ("fsync", f"{tmp_path}"),
        ("mkdir", f"{tmp_path}/not/yet"),
        ("fsync", f"{tmp_path}/not"),
        ("mkdir", f"{root}/log"),
        ("mkdir", f"{root}/log/catalog"),
        ("fsync", root),
        ("fsync", f"{root}/log"),
        ("fsync", "file"),
        ("link", "0"),
        ("fsync", f"{root}/log/catalog"),
    ]


def test_an_object_that_is_written_piece_by_piece_waits_for_the_disk_at_its_end_only(root, events):
    backend = PosixBackend(root)
    backend.put(Key("packs/aa/1"), [])
    events.clear()
    writer = backend.open_writer(Key("packs/bb/2"))
    writer.write([b"content"])
    assert events == [("mkdir", f"{root}/packs/bb")]
    writer.finish()
    assert events[1:] == [
        ("fsync", f"{root}/packs"),
        ("fsync", "file"),
        ("link", "2"),
        ("fsync", f"{root}/packs/bb"),
    ]


def test_folders_made_by_another_are_flushed_too_for_it_may_not_have_come_so_far(tmp_path, events):
    root = f"{tmp_path}/root"
    os.makedirs(f"{root}/log")
    events.clear()
    PosixBackend(root).put(Key("log/0"), [])
    flushed = [path for event, path in events[: events.index(("link", "0"))] if event == "fsync"]
    assert flushed == [str(tmp_path), root, "file"]


def test_the_loser_of_a_create_flushes_the_folder_before_it_is_told_so(root, events):
    PosixBackend(root).create(KEY, [b"winner"])
    loser = PosixBackend(root)
    events.clear()
    assert loser.create(KEY, [b"loser"]) is False
    assert events[-1] == ("fsync", f"{root}/packs/aa")


def test_a_put_repeated_after_a_failed_flush_of_the_folder_flushes_it_again(root, monkeypatch, events):
    backend = PosixBackend(root)
    backend.put(Key("packs/aa/1"), [])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail_on_folders(errno.EIO))
        with pytest.raises(StorageFailed) as raised:
            backend.put(KEY, [b"content"])
        assert not isinstance(raised.value, OutcomeUnknown)
    events.clear()
    backend.put(KEY, [b"content"])
    assert events[-1] == ("fsync", f"{root}/packs/aa")
    assert backend.get_many([KEY]) == [b"content"]


def fail_on_folders(error: int) -> Callable[[int], None]:
    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(error, os.strerror(error))
        real_fsync(fd)

    return fsync


# Doubt about a link


def test_a_create_whose_folder_cannot_be_flushed_has_no_known_outcome(root, monkeypatch):
    backend = PosixBackend(root)
    backend.put(Key("log/0"), [])
    monkeypatch.setattr(os, "fsync", fail_on_folders(errno.EIO))
    with pytest.raises(OutcomeUnknown, match="'log/1'"):
        backend.create(Key("log/1"), [b"content"])
    assert backend.get_many([Key("log/1")]) == [b"content"]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_flush_folders_is_good_enough(root, monkeypatch, error):
    monkeypatch.setattr(os, "fsync", fail_on_folders(error))
    assert PosixBackend(root).create(KEY, [b"content"]) is True


@pytest.mark.parametrize("error", [errno.EIO, errno.EEXIST, errno.ETIMEDOUT])
def test_a_link_that_was_made_although_an_error_came_back_is_a_win(root, monkeypatch, error):
    def link(*arguments, **options):
        real_link(*arguments, **options)
        raise OSError(error, os.strerror(error))

    backend = PosixBackend(root)
    monkeypatch.setattr(os, "link", link)
    assert backend.create(KEY, [b"content"]) is True
    assert backend.get_many([KEY]) == [b"content"]


@pytest.mark.parametrize("error", [errno.EIO, errno.ETIMEDOUT])
def test_a_link_that_may_yet_be_made_has_no_known_outcome(root, monkeypatch, error):
    backend = PosixBackend(root)
    monkeypatch.setattr(os, "link", failing(error))
    with pytest.raises(OutcomeUnknown, match=f"'{KEY}'"):
        backend.create(KEY, [b"content"])
    with pytest.raises(StorageFailed) as raised:
        backend.put(KEY, [b"content"])
    assert not isinstance(raised.value, OutcomeUnknown)
    assert files_below(root) == set()


def test_a_link_that_another_won_is_lost_whatever_the_error_says(root, monkeypatch):
    PosixBackend(root).create(KEY, [b"winner"])
    monkeypatch.setattr(os, "link", failing(errno.EIO))
    assert PosixBackend(root).create(KEY, [b"loser"]) is False


def test_a_doubt_is_never_settled_by_writing_again(root, monkeypatch):
    backend = PosixBackend(root)
    backend.put(Key("log/0"), [])
    errors = [errno.EXDEV]  # one that would speak against nameless files, had the link not been made already

    def fsync(fd):
        if errors and stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errors.pop(), "refused once")
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutcomeUnknown):
        backend.create(Key("log/1"), [b"content"])


def test_an_outcome_that_cannot_be_looked_up_is_not_known(root, monkeypatch):
    def stat_(path, *, dir_fd=None, follow_symlinks=True):
        if dir_fd is not None:
            raise OSError(errno.EIO, "I/O error")
        return real_stat(path, follow_symlinks=follow_symlinks)

    backend = PosixBackend(root)
    backend.create(KEY, [b"first"])
    monkeypatch.setattr(os, "stat", stat_)
    with pytest.raises(OutcomeUnknown):
        backend.create(KEY, [b"second"])


@pytest.mark.parametrize("way", WAYS)
def test_something_that_is_no_object_under_the_name_is_an_error_not_an_acknowledgement(root, way):
    backend = PosixBackend(root)
    backend.put(Key("a/b"), [b"content"])
    with pytest.raises(StorageFailed, match="not an object"):
        write(backend, way, Key("a"), [b"content"])
    with pytest.raises(StorageFailed, match="'a/b/c'"):
        write(backend, way, Key("a/b/c"), [b"content"])
    os.symlink("nowhere", f"{root}/dangling")
    with pytest.raises(StorageFailed, match="'dangling'"):
        write(backend, way, Key("dangling"), [b"content"])


# Files and folders


def test_an_object_is_a_file_at_the_path_of_its_key_and_nothing_else_is_left(root):
    backend = PosixBackend(root)
    backend.put(KEY, [b"con", b"tent"])
    backend.create(Key("config"), [b"{}"])
    backend.create(Key("config"), [b"lost"])
    assert files_below(root) == {KEY, "config"}
    assert Path(root, KEY).read_bytes() == b"content"
    assert os.stat(f"{root}/{KEY}").st_nlink == 1


@pytest.mark.parametrize(
    ("umask", "file_mode", "folder_mode"),
    [(0o022, 0o644, 0o755), (0o002, 0o644, 0o775), (0o077, 0o600, 0o700)],
)
def test_the_umask_decides_whether_a_team_can_share(root, umask, file_mode, folder_mode):
    before = os.umask(umask)
    try:
        PosixBackend(root).put(KEY, [b"content"])
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (f"{root}/{KEY}", f"{root}/packs", root)]
    assert modes == [file_mode, folder_mode, folder_mode]


def test_a_relative_root_stays_where_it_was_when_the_working_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    backend = PosixBackend("root")
    monkeypatch.chdir(tmp_path / "elsewhere")
    backend.put(KEY, [])
    assert files_below(str(tmp_path)) == {f"root/{KEY}"}


def test_the_root_is_shown_as_a_file_url(tmp_path):
    assert PosixBackend("/data sets/ü").describe() == "file:///data%20sets/%C3%BC"


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(InvalidRequest):
        PosixBackend(path)


def test_folders_removed_by_someone_are_made_again(root):
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    shutil.rmtree(f"{root}/packs")
    shutil.rmtree(f"{root}/{TEMP_FOLDER}", ignore_errors=True)
    backend.put(Key("packs/aa/1"), [b"content"])
    assert backend.get_many([KEY, Key("packs/aa/1")]) == [None, b"content"]


def test_a_listing_passes_over_what_is_no_object(root):
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    Path(root, "packs", "README.txt").write_text("not of the store")
    Path(root, "packs", "DIR").mkdir()
    Path(root, "packs", "DIR", "a").write_text("not of the store")
    os.symlink("nowhere", f"{root}/packs/dangling")
    os.mkfifo(f"{root}/packs/fifo")
    assert [(row.key, row.size) for row in backend.list("packs")] == [(KEY, 7)]


def test_a_fifo_under_a_key_is_no_object_and_does_not_block(root):
    os.makedirs(f"{root}/packs")
    os.mkfifo(f"{root}/packs/fifo")
    assert PosixBackend(root).get_many([Key("packs/fifo")]) == [None]


def test_a_listing_that_runs_in_a_circle_ends(root):
    backend = PosixBackend(root)
    backend.put(Key("packs/a"), [b"content"])
    os.symlink(".", f"{root}/packs/again")
    assert {row.size for row in backend.list("packs")} == {7}


def test_a_part_of_a_folder_may_lie_elsewhere_behind_a_link(root, tmp_path):
    os.makedirs(root)
    (tmp_path / "large disk").mkdir()
    os.symlink(tmp_path / "large disk", f"{root}/packs")
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    assert backend.get_many([KEY]) == [b"content"]
    assert [row.key for row in backend.list("packs")] == [KEY]


# Roots that are not there


@pytest.fixture
def rootless_reads() -> list[tuple[str, list[object]]]:
    return [
        ("get_many", [[KEY]]),
        ("get_ranges", [[Tail(KEY, 1)]]),
        ("delete_many", [[KEY]]),
        ("list", ["packs"]),
    ]


def test_no_read_makes_the_root_and_each_says_that_it_is_missing(root, rootless_reads):
    for verb, arguments in rootless_reads:
        with pytest.raises(StoreUnreachable, match="no folder at") as raised:
            getattr(PosixBackend(root), verb)(*arguments)
        assert raised.value.next_step
    assert not os.path.exists(root)


def test_the_first_write_makes_the_root_and_all_above_it(tmp_path):
    PosixBackend(f"{tmp_path}/a/b/c").create(Key("config"), [b"{}"])
    assert files_below(str(tmp_path)) == {"a/b/c/config"}


@pytest.mark.parametrize("below", ["", "/below", "/far/below"])
def test_a_root_that_is_a_file_or_lies_below_one_is_unreachable(root, rootless_reads, below):
    Path(root).write_text("a file")
    backend = PosixBackend(root + below)
    for verb, arguments in [*rootless_reads, ("put", [KEY, [b"x"]]), ("create", [Key("config"), [b"x"]])]:
        with pytest.raises(StoreUnreachable):
            getattr(backend, verb)(*arguments)
    assert Path(root).read_text() == "a file"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", [KEY, Key("packs/aa/1"), Key("new/folder/0"), Key("top")])
def test_a_root_that_vanished_is_not_made_again_by_a_handle_that_knew_it(root, key, way):
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    shutil.rmtree(root)
    for _ in range(2):
        with pytest.raises(StoreUnreachable):
            write(backend, way, key, [b"content"])
    assert not os.path.exists(root)


def test_a_root_that_vanished_while_an_object_was_written_is_missed(root):
    writer = PosixBackend(root).open_writer(KEY)
    writer.write([b"content"])
    shutil.rmtree(root)
    with pytest.raises(StoreUnreachable, match="no folder at"):
        writer.finish()
    assert not os.path.exists(root)


# Errors of the system


FAILURES = [
    (errno.ENOSPC, DiskFull),
    (errno.EDQUOT, DiskFull),
    (errno.EFBIG, DiskFull),
    (errno.EACCES, AccessDenied),
    (errno.EPERM, AccessDenied),
    (errno.EROFS, StoreReadOnly),
    (errno.EMFILE, StorageFailed),
    (errno.ENFILE, StorageFailed),
    (errno.EIO, StorageFailed),
    (errno.ESTALE, StorageFailed),
]


def check_failure(error: DatasetStoreError, kind: type, number: int, key: str) -> None:
    assert type(error) is kind
    assert isinstance(error.__cause__, OSError)
    assert error.__cause__.errno == number
    assert f"'{key}'" in error.what
    assert error.next_step


@pytest.mark.parametrize(("number", "kind"), FAILURES)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", ["fsync", "writev"])
def test_a_write_that_fails_is_typed_and_leaves_nothing(root, monkeypatch, number, kind, way, call):
    backend = PosixBackend(root)
    backend.put(Key("packs/aa/1"), [])
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(StorageFailed) as raised:
        write(backend, way, KEY, [b"content"])
    check_failure(raised.value, kind, number, KEY)
    assert files_below(root) == {"packs/aa/1"}


@pytest.mark.parametrize("call", ["fsync", "writev", "link"])
def test_an_object_that_could_not_be_written_whole_is_given_up_so_that_none_has_a_hole(root, monkeypatch, call):
    backend = PosixBackend(root)
    backend.put(Key("packs/aa/1"), [])
    before = set(os.listdir("/proc/self/fd"))
    writer = backend.open_writer(KEY)
    writer.write([b"first"])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(DiskFull):
            writer.write([b"second"])
            writer.finish()
    for again in (lambda: writer.write([b"third"]), writer.finish):
        with pytest.raises(StorageFailed, match=f"'{KEY}' has ended"):
            again()
    assert files_below(root) == {"packs/aa/1"}
    assert set(os.listdir("/proc/self/fd")) == before  # nothing is open, though the writer is still there


def test_an_object_that_nobody_finishes_is_closed_and_removed_with_its_writer(root):
    backend = PosixBackend(root)
    backend.put(Key("packs/aa/1"), [])
    before = set(os.listdir("/proc/self/fd"))
    writer = backend.open_writer(KEY)
    writer.write([b"never finished"])
    del writer
    assert files_below(root) == {"packs/aa/1"}
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_fork_that_drops_a_writer_takes_nothing_from_the_process_that_writes(root):
    writer = PosixBackend(root).open_writer(KEY)
    writer.write([b"con"])
    child = os.fork()
    if child == 0:
        del writer
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    writer.write([b"tent"])
    writer.finish()
    assert PosixBackend(root).get_many([KEY]) == [b"content"]
    assert files_below(root) == {KEY}


@pytest.mark.parametrize(("number", "kind"), FAILURES)
def test_a_read_that_fails_is_typed(root, monkeypatch, number, kind):
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    monkeypatch.setattr(os, "pread", failing(number))
    monkeypatch.setattr(os, "scandir", failing(number))
    monkeypatch.setattr(os, "unlink", failing(number))
    for verb, argument in [("get_many", [KEY]), ("get_ranges", [Tail(KEY, 1)]), ("delete_many", [KEY])]:
        with pytest.raises(StorageFailed) as raised:
            getattr(backend, verb)(argument)
        check_failure(raised.value, kind, number, KEY)
    with pytest.raises(StorageFailed) as raised:
        list(backend.list("packs"))
    check_failure(raised.value, kind, number, "packs")


@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT])
def test_an_object_written_piece_by_piece_whose_link_is_in_doubt_may_be_absent(root, monkeypatch, number):
    backend = PosixBackend(root)
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(StorageFailed) as raised:
        write(backend, "piece by piece", KEY, [b"content"])
    check_failure(raised.value, StorageFailed, number, KEY)
    assert files_below(root) == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EMLINK])
def test_a_link_that_is_refused_is_certainly_not_made(root, monkeypatch, number):
    backend = PosixBackend(root)
    monkeypatch.setattr(os, "link", failing(number))
    with pytest.raises(StorageFailed) as raised:
        backend.create(KEY, [b"content"])
    assert not isinstance(raised.value, OutcomeUnknown)
    assert files_below(root) == set()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_file_system_without_nameless_files_is_asked_once(tmp_path, monkeypatch, number):
    refuse_nameless_files(monkeypatch, number)
    asked: list[object] = []

    def open_(path, flags, mode=0o777, *, dir_fd=None, refusing=os.open):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            asked.append(path)
        return refusing(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", open_)
    backend = PosixBackend(str(tmp_path / "root"))
    assert [backend.create(Key(f"log/{n}"), [b"content"]) for n in range(3)] == [True] * 3
    assert len(asked) == 1


@pytest.fixture
def nameless_stay_so(monkeypatch):
    """A file without a name can be made, and gets none."""

    def link(source, target, **options):
        if source.startswith("/proc"):
            raise OSError(errno.EXDEV, "cross-device link")
        real_link(source, target, **options)

    monkeypatch.setattr(os, "link", link)


def test_a_nameless_file_that_cannot_be_named_is_copied_to_one_with_a_name(tmp_path, nameless_stay_so):
    backend = PosixBackend(str(tmp_path))
    assert backend.create(KEY, [b"content"]) is True
    assert backend.create(KEY, [b"again"]) is False
    assert backend.get_many([KEY]) == [b"content"]
    assert files_below(str(tmp_path)) == {KEY}


def test_a_nameless_file_written_piece_by_piece_that_cannot_be_named_is_copied_too(tmp_path, nameless_stay_so):
    backend = PosixBackend(str(tmp_path))
    pieces = [random.Random(n).randbytes(700_000) for n in range(4)]
    write(backend, "piece by piece", KEY, pieces)
    assert backend.get_many([KEY]) == [b"".join(pieces)]
    assert files_below(str(tmp_path)) == {KEY}


def test_short_writes_are_carried_on_where_they_stopped(root, monkeypatch):
    chance = random.Random(7)

    def writev(fd, buffers):
        content = b"".join(buffers)
        return os.write(fd, content[: chance.randint(1, len(content))])

    monkeypatch.setattr(os, "writev", writev)
    backend = PosixBackend(root)
    for n in range(20):
        pieces = [chance.randbytes(chance.randint(0, 40)) for _ in range(chance.randint(0, 30))]
        backend.put(Key(f"packs/{n}"), pieces)
        assert backend.get_many([Key(f"packs/{n}")]) == [b"".join(pieces)]


def test_short_reads_are_carried_on_where_they_stopped(root, monkeypatch):
    backend = PosixBackend(root)
    content = random.Random(7).randbytes(5000)
    backend.put(KEY, [content])
    monkeypatch.setattr(os, "pread", lambda fd, size, start, real=os.pread: real(fd, min(size, 300), start))
    assert backend.get_many([KEY]) == [content]
    assert backend.get_ranges([Span(KEY, 10, 4000), Tail(KEY, 999)]) == [content[10:4000], content[-999:]]


def test_an_object_cut_short_while_it_is_read_is_corrupt(root, monkeypatch):
    backend = PosixBackend(root)
    backend.put(KEY, [b"0123456789"])
    monkeypatch.setattr(os, "pread", lambda fd, size, start, real=os.pread: real(fd, size, start)[: 5 - start])
    with pytest.raises(CorruptObject, match=f"'{KEY}'"):
        backend.get_ranges([Span(KEY, 2, 10)])


def test_a_file_is_opened_once_and_read_from_front_to_back(root, monkeypatch):
    backend = PosixBackend(root)
    backend.put(KEY, [b"0123456789"])
    backend.put(Key("other"), [b"abc"])
    opened: list[str] = []
    read: list[int] = []
    monkeypatch.setattr(os, "open", lambda path, flags: opened.append(path) or real_open(path, flags))
    monkeypatch.setattr(os, "pread", lambda fd, size, start, real=os.pread: read.append(start) or real(fd, size, start))
    parts = [Span(KEY, 7, 9), Tail(Key("other"), 1), Span(KEY, 0, 2), Tail(KEY, 5), Span(KEY, 3, 4)]
    assert backend.get_ranges(parts) == [b"78", b"c", b"01", b"56789", b"3"]
    assert opened == [f"{root}/{KEY}", f"{root}/other"]
    assert read == [0, 3, 5, 7, 2]


def test_an_absurd_span_is_refused_without_its_memory(root):
    backend = PosixBackend(root)
    backend.put(KEY, [b"content"])
    with pytest.raises(CorruptObject):
        backend.get_ranges([Span(KEY, 0, 1 << 60)])


# Permissions


@pytest.fixture
def shared_folder() -> Iterator[str]:
    """A folder that any user can reach, unlike the usual temporary ones; the test is no privileged user."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    privileged = os.geteuid() == 0
    if privileged:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if privileged:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_folder_that_may_not_be_written_denies_access(shared_folder):
    backend = PosixBackend(shared_folder)
    backend.put(KEY, [b"content"])
    os.chmod(f"{shared_folder}/packs/aa", 0o555)
    for act in (
        lambda: backend.put(Key("packs/aa/1"), [b"content"]),
        lambda: backend.create(Key("packs/aa/1"), [b"content"]),
        lambda: backend.delete_many([KEY]),
    ):
        with pytest.raises(AccessDenied, match="'packs/aa/"):
            act()
    assert backend.get_many([KEY]) == [b"content"]
    os.chmod(f"{shared_folder}/packs/aa", 0o755)


def test_an_object_that_may_not_be_read_denies_access_and_is_not_taken_for_absent(shared_folder):
    backend = PosixBackend(shared_folder)
    backend.put(KEY, [b"content"])
    os.chmod(f"{shared_folder}/packs/aa", 0)
    for act in (
        lambda: backend.get_many([KEY]),
        lambda: backend.get_ranges([Tail(KEY, 1)]),
        lambda: list(backend.list("packs")),
    ):
        with pytest.raises(AccessDenied, match="'packs"):
            act()
    os.chmod(f"{shared_folder}/packs/aa", 0o755)


def test_a_root_in_a_folder_of_others_can_be_used(shared_folder):
    os.mkdir(f"{shared_folder}/root")
    os.chmod(shared_folder, 0o311)
    backend = PosixBackend(f"{shared_folder}/root")
    assert backend.create(KEY, [b"content"]) is True
    assert backend.get_many([KEY]) == [b"content"]
    os.chmod(shared_folder, 0o755)


# A small disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[str]:
    """A file system of 1 MiB."""
    mount = shutil.which("mount")
    point = tmp_path / "small"
    point.mkdir()
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(point)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield str(point)
    subprocess.run(["umount", str(point)], check=True)


@pytest.mark.parametrize("files", ["nameless files", "named files"])
@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_is_said_to_be_full_and_shows_nothing_of_the_object(small_disk, monkeypatch, files, way):
    if files == "named files":
        refuse_nameless_files(monkeypatch, errno.EOPNOTSUPP)
    backend = PosixBackend(f"{small_disk}/root")
    backend.put(Key("packs/aa/1"), [bytes(300_000)])
    with pytest.raises(DiskFull) as raised:
        write(backend, way, KEY, [bytes(400_000), bytes(800_000)])
    check_failure(raised.value, DiskFull, errno.ENOSPC, KEY)
    assert files_below(small_disk) == {"root/packs/aa/1"}
    assert [row.key for row in backend.list("packs")] == ["packs/aa/1"]
    backend.put(KEY, [bytes(500_000)])
    assert backend.get_ranges([Tail(KEY, 1)]) == [b"\0"]


# Several processes

RACE = """
import sys, time
from dataset_store.storage.backend import Key
from dataset_store.storage.posix_backend import PosixBackend
backend = PosixBackend(sys.argv[1])
for line in sys.stdin:
    slot, start = line.split()
    while time.monotonic() < float(start):
        pass
    print(backend.create(Key(slot), [sys.argv[2].encode()]), flush=True)
"""

KILLED = """
import os, signal, sys
from dataset_store.storage.backend import Key
from dataset_store.storage.posix_backend import PosixBackend
if sys.argv[2] == "named":
    del os.O_TMPFILE
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
backend = PosixBackend(sys.argv[1])
backend.put(Key("packs/aa/0"), [b"acknowledged"])
setattr(os, sys.argv[3], die)
if sys.argv[4] == "put":
    backend.put(Key("packs/aa/1"), [bytes(100_000)])
writer = backend.open_writer(Key("packs/aa/1"))
writer.write([bytes(100_000)])
writer.finish()
"""


def race(racer: subprocess.Popen[str], slot: Key, start: float) -> None:
    assert racer.stdin is not None
    racer.stdin.write(f"{slot} {start}\n")
    racer.stdin.flush()


def has_won(racer: subprocess.Popen[str]) -> bool:
    assert racer.stdout is not None
    return racer.stdout.readline() == "True\n"


def test_racing_processes_have_exactly_one_winner_for_each_slot(tmp_path):
    root = str(tmp_path / "root")
    slots = [Key(f"log/{n:03}") for n in range(100)]
    winners = []
    with run_script(RACE, root, "0") as a, run_script(RACE, root, "1") as b, run_script(RACE, root, "2") as c:
        for slot in slots:
            start = time.monotonic() + 0.001  # for each slot anew: else the first winner runs ahead of the race
            for racer in (a, b, c):
                race(racer, slot, start)
            winners.append([n for n, racer in enumerate((a, b, c)) if has_won(racer)])
    assert [len(racers) for racers in winners] == [1] * len(slots)
    assert PosixBackend(root).get_many(slots) == [str(racers[0]).encode() for racers in winners]
    assert files_below(root) == set(slots)


@pytest.mark.parametrize("at", ["writev", "fsync", "link"])
@pytest.mark.parametrize("files", ["nameless", "named"])
@pytest.mark.parametrize("way", ["put", "piece by piece"])
def test_a_killed_writer_leaves_nothing_that_a_reader_sees(tmp_path, way, files, at):
    with run_script(KILLED, str(tmp_path), files, at, way) as writer:
        assert writer.wait() == -signal.SIGKILL
    backend = PosixBackend(str(tmp_path))
    assert [row.key for row in backend.list("packs")] == [KEY]
    assert backend.get_many([KEY, Key("packs/aa/1")]) == [b"acknowledged", None]
    litter = files_below(str(tmp_path)) - {KEY}
    if files == "nameless":
        assert litter == set()
    else:
        assert [os.path.dirname(path) for path in litter] == [TEMP_FOLDER]
    assert backend.create(Key("packs/aa/1"), [b"next"]) is True
