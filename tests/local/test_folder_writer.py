"""Writing entries into a private folder and removing folders: what comes out, and that nothing else is touched."""

import errno
import itertools
import os
import stat
import threading
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_store.core.paths import ROOT, to_key, to_text
from dataset_store.errors import (
    AccessDenied,
    DatasetStoreError,
    DiskFull,
    PathNotFound,
    StorageFailed,
    TargetNotEmpty,
    UnsupportedFileType,
)
from dataset_store.local import batches, folder_writer
from dataset_store.local.folder_writer import FolderWriter
from dataset_store.local.removal import remove_tree
from dataset_store.local.scan import scan
from dataset_store.testing.folders import few_open_files, read

pytestmark = pytest.mark.usefixtures("both_ways")

MTIME = 1_234_567_890_123_456_789


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    made.mkdir()
    yield made
    remove_tree(os.fsencode(made))


@pytest.fixture
def outside(tmp_path):
    made = tmp_path / "outside"
    made.mkdir()
    (made / "precious").write_bytes(b"precious")
    return made


@pytest.fixture
def writer(root):
    with FolderWriter(os.fsencode(root)) as made:
        yield made


def write_all(writer, contents):
    keys = sorted(map(to_key, contents))
    values = [contents[to_text(key)] for key in keys]
    writer.write_small(keys, values, [False] * len(keys), [MTIME] * len(keys))


def write_one(writer, path, content=b"x"):
    write_all(writer, {path: content})


def files_below(folder):
    return {
        os.path.relpath(os.path.join(where, name), os.fsencode(folder))
        for where, _, names in os.walk(os.fsencode(folder))
        for name in names
    }


@contextmanager
def ordinary_user(*folders):
    """Permissions bind even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for folder in folders:
        os.chown(folder, 65_534, 65_534)
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


# Files


@pytest.mark.parametrize(("read_only", "modes"), [(True, (0o444, 0o555)), (False, (0o644, 0o755))])
def test_files_get_content_mode_and_time(root, read_only, modes):
    previous = os.umask(0o022)
    try:
        with FolderWriter(root, read_only=read_only) as writer:
            writer.write_small(
                [to_key("a/b/c"), to_key("a/d")], [b"one", memoryview(b"two")], [False, True], [MTIME, -MTIME]
            )
            opened = writer.create_file(to_key("e"), executable=True)
            os.write(opened, b"three")
            writer.close_file(opened, to_key("e"), MTIME)
    finally:
        os.umask(previous)
    assert [(root / path).read_bytes() for path in ("a/b/c", "a/d", "e")] == [b"one", b"two", b"three"]
    found = [(root / path).stat() for path in ("a/b/c", "a/d", "e")]
    assert [stat.S_IMODE(one.st_mode) for one in found] == [modes[0], modes[1], modes[1]]
    assert [one.st_mtime_ns for one in found] == [MTIME, -MTIME, MTIME]
    assert stat.S_IMODE((root / "a" / "b").stat().st_mode) == 0o755


names = st.binary(min_size=1, max_size=3).filter(lambda n: not {0, 47} & set(n) and n not in {b".", b".."})
trees = st.dictionaries(st.lists(names, min_size=1, max_size=4).map(b"\0".join), st.binary(max_size=9), max_size=20)


@given(trees, st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_what_is_written_is_what_a_scan_finds(tmp_path, contents, reverse):
    contents = {key: value for key, value in contents.items() if not any(k.startswith(key + b"\0") for k in contents)}
    folder = os.fsencode(tmp_path / "tree")
    remove_tree(folder)
    os.mkdir(folder)
    keys = sorted(contents, reverse=reverse)
    with FolderWriter(folder) as writer:
        writer.write_small(keys, [contents[key] for key in keys], [False] * len(keys), [0] * len(keys))
    found = {key: int(size) for block in scan(folder) for key, size in zip(block.keys(), block.size, strict=True)}
    assert found == {key: len(content) for key, content in contents.items()}
    for key, content in contents.items():
        with open(folder + b"/" + key.replace(b"\0", b"/"), "rb") as opened:
            assert opened.read() == content


@pytest.mark.parametrize("mtime_ns", [-(2**63), 2**63 - 1, -1, 0])
def test_no_time_that_a_tree_can_hold_is_an_error(root, writer, mtime_ns):
    writer.write_small([to_key("f")], [b"x"], [False], [mtime_ns])
    assert (root / "f").read_bytes() == b"x"


def test_a_short_write_is_continued(root, writer, monkeypatch):
    write = os.write
    monkeypatch.setattr(folder_writer.os, "write", lambda opened, data: write(opened, memoryview(data)[:3]))
    write_one(writer, "f", b"0123456789")
    assert (root / "f").read_bytes() == b"0123456789"


def test_names_are_bytes(root, writer):
    keys = sorted([b"bad\xff", b"n" * 255, "é".encode(), b"back\\slash", b"new\nline"])
    writer.write_small(keys, keys, [False] * 5, [0] * 5)
    assert sorted(os.listdir(os.fsencode(root))) == keys


def test_a_tree_deeper_than_any_path_the_kernel_takes_is_written(root, writer):
    path = "/".join(["n" * 200] * 40)
    write_one(writer, f"{path}/file", b"deep")
    writer.make_directory(to_key(f"{path}/empty"))
    writer.symlinks([to_key(f"{path}/link")], [b"file"])
    (block,) = scan(root)
    assert block.names == [b"empty", b"file", b"link"]


def test_wide_and_deep_trees_need_few_open_files(root, writer):
    before = len(os.listdir("/proc/self/fd"))
    write_all(writer, {f"{number}/{'d/' * (90 if number % 40 == 0 else 0)}f": b"x" for number in range(120)})
    assert len(os.listdir("/proc/self/fd")) <= before + 64
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert len(files_below(root)) == 120


def test_empty_directories_are_made_with_those_above_them(root, writer):
    writer.make_directory(to_key("a/b/c"))
    writer.make_directory(to_key("a/b"))
    assert os.listdir(root / "a" / "b") == ["c"]


def test_a_file_is_never_overwritten(root, writer):
    write_one(writer, "a/f", b"first")
    with pytest.raises(TargetNotEmpty, match="a/f"):
        write_one(writer, "a/f", b"second")
    with pytest.raises(TargetNotEmpty):
        writer.create_file(to_key("a/f"), executable=False)
    with pytest.raises(TargetNotEmpty):
        linked(writer, [root / "a" / "f"], ["a/f"])
    with pytest.raises(TargetNotEmpty):
        writer.symlinks([to_key("a/f")], [b"g"])
    assert (root / "a" / "f").read_bytes() == b"first"


def test_a_file_where_a_directory_is_wanted_is_an_error(root, writer):
    write_one(writer, "a")
    with pytest.raises(StorageFailed, match="a/f"):
        write_one(writer, "a/f")
    with pytest.raises(StorageFailed):
        writer.make_directory(to_key("a"))


def test_a_directory_in_use_stays_open_however_many_others_are_used_meanwhile(root, writer, monkeypatch):
    plain, others = folder_writer.write_files, [f"{number}/f" for number in range(100)]

    def meanwhile(directory, *arguments):
        if others:
            used, others[:] = list(others), []
            write_all(writer, dict.fromkeys(used, b"x"))
        return plain(directory, *arguments)

    monkeypatch.setattr(folder_writer, "write_files", meanwhile)
    writer.write_small([to_key("a/1"), to_key("a/2")], [b"first", b"second"], [False] * 2, [0] * 2)
    assert (root / "a" / "2").read_bytes() == b"second"
    assert (root / "99" / "f").read_bytes() == b"x"


def test_several_threads_write_different_files(root, writer):
    def write(number):
        for turn in range(14):
            write_all(writer, {f"{turn % 7}/{number}/{place}/{turn}": b"%d" % number for place in range(15)})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files_below(root)) == 4 * 14 * 15
    assert all((root / os.fsdecode(path)).read_text() == path.split(b"/")[1].decode() for path in files_below(root))


# Hard links


@pytest.fixture(params=["compiled", "plain"])
def either_way(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(batches, "_files", None)


def linked(writer, sources, paths, size=None, mtime_ns=None):
    """Links to sources as they are, or as they should be."""
    found = [os.stat(source) if os.path.exists(source) else os.stat("/") for source in sources]
    expected = np.array([[one.st_size, one.st_mtime_ns] if size is None else [size, mtime_ns] for one in found])
    return writer.hard_links([os.fsencode(one) for one in sources], [to_key(path) for path in paths], expected).tolist()


def test_a_hard_link_shares_the_file(root, writer, outside, either_way):
    assert linked(writer, [outside / "precious"], ["a/f"]) == [True]
    assert os.path.samefile(root / "a" / "f", outside / "precious")


def test_many_links_are_made_and_those_that_cannot_be_are_told(root, writer, outside, either_way):
    sources = [outside / f"{number}" for number in range(30)]
    for number, source in enumerate(sources):
        source.write_text(str(number))
    sources[7].unlink()
    sources[12].unlink()
    sources[12].symlink_to("11")
    paths = [f"{number // 10}/{number:02}" for number in range(30)]
    assert linked(writer, sources, paths) == [number not in {7, 12} for number in range(30)]
    assert files_below(root) == {os.fsencode(path) for number, path in enumerate(paths) if number not in {7, 12}}
    assert all((root / path).read_text() == str(int(path[2:])) for path in map(os.fsdecode, files_below(root)))


def test_only_a_file_of_the_size_and_time_that_it_was_given_is_linked(root, writer, outside, either_way):
    precious = outside / "precious"
    size = precious.stat().st_size
    os.utime(precious, ns=(0, 1_700_000_000_000_000_000))
    assert linked(writer, [precious], ["f"], size + 1, 1_700_000_000_000_000_000) == [False]
    assert linked(writer, [precious], ["f"], size, 1_600_000_000_000_000_000) == [False]
    assert linked(writer, [precious], ["f"], size, 1_700_000_000_123_456_789) == [True]  # kept to the second there


def test_a_link_that_cannot_be_made_is_left_to_the_caller(root, writer, outside, monkeypatch):
    monkeypatch.setattr(batches, "_files", None)
    assert linked(writer, [outside / "nothing"], ["a/f"]) == [False]
    for number in (errno.EMLINK, errno.EXDEV, errno.EPERM):

        def refuse(*_, number=number, **__):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(folder_writer.os, "link", refuse)
        assert linked(writer, [outside / "precious"], ["a/f"]) == [False]
    assert files_below(root) == set()
    write_one(writer, "a/f")


def test_the_limit_of_names_of_one_file_is_met_without_an_error(root, writer, outside, monkeypatch):
    real, made = os.link, []

    def limited(*args, **options):
        if len(made) == 3:
            raise OSError(errno.EMLINK, "too many links")
        made.append(real(*args, **options))

    monkeypatch.setattr(folder_writer.os, "link", limited)
    monkeypatch.setattr(batches, "_files", None)
    paths = [f"{number}" for number in range(5)]
    assert linked(writer, [outside / "precious"] * 5, paths) == [True] * 3 + [False] * 2


# Symbolic links


def test_links_are_made_with_the_text_they_have(root, writer):
    write_one(writer, "a/f", b"here")
    writer.symlinks([to_key("a/l"), to_key("b/m")], [b"f", b"../a/l"])
    assert os.readlink(root / "b" / "m") == "../a/l"
    assert (root / "b" / "m").read_bytes() == b"here"


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../outside", b"a/../../outside", b"", b"x/../y"])
def test_a_link_that_could_leave_the_folder_is_refused_and_none_is_made(root, writer, target):
    with pytest.raises(UnsupportedFileType, match="bad"):
        writer.symlinks([to_key("a"), to_key("bad")], [b"fine", target])
    assert os.listdir(root) == []


def test_nothing_is_written_below_a_link(root, writer, outside):
    os.symlink(outside, root / "l")
    (root / "in").mkdir()
    writer.symlinks([to_key("m")], [b"in"])
    for path in ("l", "m"):
        with pytest.raises(StorageFailed, match=path):
            write_one(writer, f"{path}/f")
        with pytest.raises(StorageFailed):
            writer.create_file(to_key(f"{path}/f"), executable=False)
        with pytest.raises(StorageFailed):
            writer.make_directory(to_key(f"{path}/d"))
        with pytest.raises(StorageFailed):
            writer.make_directory(to_key(path))
        with pytest.raises(StorageFailed):
            linked(writer, [outside / "precious"], [f"{path}/f"])
        with pytest.raises(StorageFailed):
            writer.symlinks([to_key(f"{path}/f")], [b"g"])
    assert os.listdir(outside) == ["precious"]
    assert os.listdir(root / "in") == []


def test_a_link_in_the_place_of_a_file_is_not_written_through(root, writer, outside):
    os.symlink(outside / "precious", root / "f")
    os.symlink(outside / "new", root / "g")
    for path in ("f", "g"):
        with pytest.raises(TargetNotEmpty):
            write_one(writer, path)
    assert (outside / "precious").read_bytes() == b"precious"
    assert os.listdir(outside) == ["precious"]


def test_the_root_itself_must_be_a_folder_and_no_link(root, tmp_path):
    os.symlink(root, tmp_path / "alias")
    with pytest.raises(StorageFailed):
        FolderWriter(tmp_path / "alias")
    with pytest.raises(PathNotFound):
        FolderWriter(tmp_path / "nothing")


def test_a_directory_swapped_for_a_link_just_before_it_is_opened_is_not_followed(root, outside, monkeypatch):
    opened = os.open

    def swap_then_open(name, *args, **options):
        if name == b"d":
            os.rename(root / "d", root / "kept")
            os.symlink(outside, root / "d")
        return opened(name, *args, **options)

    with FolderWriter(root) as writer, monkeypatch.context() as patch:
        patch.setattr(folder_writer.os, "open", swap_then_open)
        with suppress(StorageFailed):
            write_one(writer, "d/f")
    assert os.listdir(outside) == ["precious"]
    assert os.listdir(root / "kept") == []


def test_nothing_appears_outside_while_directories_are_swapped_for_links(root, outside):
    """Somebody swaps a directory for a link and back, as fast as they can, while files are written into it."""
    done = threading.Event()
    swaps = []

    def swap():
        for attempt in itertools.count():
            if done.is_set():
                return
            kept = root / f"kept{attempt}"  # one that could not be put back is in the way of the next of its name
            with suppress(OSError):
                os.rename(root / "d", kept)
                os.symlink(outside, root / "d")
                swaps.append(1)
            with suppress(OSError):
                os.unlink(root / "d")
            with suppress(OSError):
                os.rename(kept, root / "d")

    attacker = threading.Thread(target=swap)
    attacker.start()
    refused = written = 0
    try:
        for number in range(2_000):
            with FolderWriter(root) as writer:
                try:
                    write_one(writer, f"d/e/{number}")
                    written += 1
                except DatasetStoreError:
                    refused += 1
    finally:
        done.set()
        attacker.join()
    assert swaps
    assert written
    assert written + refused == 2_000
    assert os.listdir(outside) == ["precious"]


# Errors of the disk


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EACCES, AccessDenied),
        (errno.EROFS, AccessDenied),
        (errno.EIO, StorageFailed),
        (errno.EMFILE, StorageFailed),
    ],
)
@pytest.mark.parametrize("call", ["write", "open", "utime"])
def test_what_the_disk_refuses_is_told_with_the_path(writer, monkeypatch, number, expected, call):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(batches, "_files", None)
    write_one(writer, "a/first")
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(folder_writer.os, call, refuse)
        with pytest.raises(expected, match="root/a/f'") as caught:
            write_one(writer, "a/f")
    assert type(caught.value) is expected
    assert caught.value.next_step
    assert isinstance(caught.value.__cause__, OSError)
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_error_at_the_end_of_a_file_still_closes_it(writer, monkeypatch):
    opened = writer.create_file(to_key("f"), executable=False)

    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(folder_writer.os, "utime", refuse)
        with pytest.raises(DiskFull, match="f"):
            writer.close_file(opened, to_key("f"), MTIME)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


def test_a_folder_that_may_not_be_written_is_access_denied(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    writer = FolderWriter(closed)
    with writer, ordinary_user(), pytest.raises(AccessDenied, match="closed/f"):
        write_one(writer, "f")


# Sharing blocks


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(b"x" * 1_000)
    os.utime(path, ns=(MTIME, MTIME))
    return os.fsencode(path)


def clone_one(writer, source, key=b"d\0f", size=1_000, mtime_ns=MTIME):
    (made,) = writer.clones([source], [key], [False], np.array([[size, mtime_ns]]))
    return bool(made)


def sharing(monkeypatch):
    """As if this file system could share blocks; how often it was asked."""
    asked = []

    def take_over(target, _request, source):
        asked.append(target)
        os.write(target, os.pread(source, 1 << 20, 0))

    monkeypatch.setattr(folder_writer.fcntl, "ioctl", take_over)
    return asked


def test_a_clone_is_a_file_of_its_own_with_the_time_and_mode_asked_for(root, writer, source, monkeypatch):
    sharing(monkeypatch)
    assert clone_one(writer, source)
    made = (root / "d/f").stat()
    assert (made.st_size, made.st_mtime_ns, made.st_mode & 0o777, made.st_nlink) == (1_000, MTIME, 0o644, 1)
    with pytest.raises(TargetNotEmpty):
        clone_one(writer, source)


def test_a_source_that_is_gone_or_changed_or_no_file_is_not_cloned(root, writer, source, tmp_path, monkeypatch):
    asked = sharing(monkeypatch)
    (tmp_path / "link").symlink_to(os.fsdecode(source))
    os.mkfifo(tmp_path / "pipe")
    for path, size, mtime_ns in (
        (b"/nowhere/at/all", 1_000, MTIME),
        (source + b"/below", 1_000, MTIME),
        (source, 999, MTIME),
        (source, 1_000, MTIME + 1),
        (os.fsencode(tmp_path / "link"), 1_000, MTIME),
        (os.fsencode(tmp_path / "pipe"), 0, MTIME),
    ):
        assert not clone_one(writer, path, size=size, mtime_ns=mtime_ns)
    assert asked == []
    assert not (root / "d/f").exists()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV])
def test_a_file_system_that_cannot_share_blocks_is_asked_once_and_nothing_stays(
    root, writer, source, monkeypatch, number
):
    asked = []

    def refuse(*_):
        asked.append(1)
        raise OSError(number, "not here")

    monkeypatch.setattr(folder_writer.fcntl, "ioctl", refuse)
    assert not clone_one(writer, source)
    assert not clone_one(writer, source)
    assert asked == [1]
    assert not (root / "d/f").exists()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EIO, errno.ENOSPC])
def test_a_clone_that_fails_this_once_leaves_nothing_and_is_tried_for_the_next(
    root, writer, source, monkeypatch, number
):
    def refuse(*_):
        raise OSError(number, "not now")

    with monkeypatch.context() as patch:
        patch.setattr(folder_writer.fcntl, "ioctl", refuse)
        assert not clone_one(writer, source)
    assert not (root / "d/f").exists()
    sharing(monkeypatch)
    assert clone_one(writer, source)


def test_of_many_clones_each_gets_its_own_mode_time_and_directory(root, writer, tmp_path, monkeypatch):
    sharing(monkeypatch)
    keys = [b"a\0x", b"a\0y", b"b\0x", b"z"]
    sources = [tmp_path / f"source{number}" for number in range(4)]
    for number, path in enumerate(sources):
        path.write_bytes(bytes([number]) * (number + 1))
        os.utime(path, ns=(MTIME + number, MTIME + number))
    expected = np.array([[number + 1, MTIME + number] for number in range(4)])
    expected[2, 1] += 1  # changed meanwhile
    made = writer.clones([os.fsencode(path) for path in sources], keys, [False, True, False, True], expected)
    assert made.tolist() == [True, True, False, True]
    assert read(root) == {"a/x": b"\0", "a/y": b"\1\1", "z": b"\3" * 4}
    assert [(root / name).stat().st_mode & 0o777 for name in ("a/x", "a/y", "z")] == [0o644, 0o755, 0o755]
    assert [(root / name).stat().st_mtime_ns - MTIME for name in ("a/x", "a/y", "z")] == [0, 1, 3]


def test_a_clone_that_is_not_whole_is_none(root, writer, source, monkeypatch):
    monkeypatch.setattr(folder_writer.fcntl, "ioctl", lambda target, *_: os.write(target, b"x" * 999))
    assert not clone_one(writer, source)
    assert not (root / "d/f").exists()


# Removing


def test_a_tree_is_removed_with_everything_in_it(root, writer, tmp_path):
    write_all(writer, {"a/b/c": b"x", "a/d": b"x", "e": b"x"})
    writer.make_directory(to_key("f/g"))
    writer.symlinks([to_key("h")], [b"a"])
    os.mkfifo(root / "fifo")
    remove_tree(os.fsencode(root) + b"/")
    assert not root.exists()
    assert tmp_path.exists()


def test_removing_what_is_not_there_is_no_error(tmp_path):
    remove_tree(tmp_path / "nothing")
    remove_tree(tmp_path / "no" / "where")


def test_links_are_removed_and_never_followed(root, outside):
    os.symlink(outside, root / "l")
    os.symlink(outside / "precious", root / "m")
    os.symlink(outside, root.parent / "top")
    remove_tree(root)
    remove_tree(root.parent / "top")
    assert not os.path.lexists(root.parent / "top")
    assert (outside / "precious").read_bytes() == b"precious"


def test_a_directory_swapped_for_a_link_while_it_is_removed_is_not_followed(root, outside, monkeypatch):
    (root / "d").mkdir()
    (root / "d" / "f").write_bytes(b"x")
    opened = os.open

    def swap_then_open(name, *args, **options):
        if name == b"d":
            os.rename(root / "d", root.parent / "moved")
            os.symlink(outside, root / "d")
        return opened(name, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(folder_writer.os, "open", swap_then_open)
        with pytest.raises(StorageFailed, match="root"):
            remove_tree(root)
    assert os.listdir(outside) == ["precious"]


def test_a_single_file_is_removed(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "g").write_bytes(b"x")
    remove_tree(tmp_path / "f")
    monkeypatch.chdir(tmp_path)
    remove_tree("g")
    assert os.listdir(tmp_path) == []


def test_a_tree_of_many_levels_is_removed_with_few_open_files(root):
    with FolderWriter(root) as writer:
        path = "/".join(["n" * 10] * 300)
        write_all(writer, {f"{path}/file": b"x", f"{'n' * 10}/{'o/' * 200}f": b"x"})
    with few_open_files(80):
        remove_tree(root)
    assert not root.exists()


@pytest.mark.parametrize("mode", [0o555, 0o000, 0o200])
def test_read_only_directories_are_no_hindrance(tmp_path, monkeypatch, mode):
    monkeypatch.chdir(tmp_path)
    with ordinary_user(tmp_path):
        os.mkdir("top")
        with FolderWriter("top", read_only=True) as writer:
            write_all(writer, {"a/b/f": b"x", f"{'d/' * 70}f": b"x"})
        where = os.open("top/a/b", os.O_RDONLY)
        os.fchmod(where, mode)
        os.close(where)
        os.chmod("top/" + "d/" * 66, mode)
        os.chmod("top/a", mode)
        os.chmod("top", mode)
        remove_tree("top")
    assert os.listdir(tmp_path) == []


def test_what_may_not_be_removed_is_access_denied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("others", mode=0o755)
    os.mkdir("others/d", mode=0o755)
    with ordinary_user(), pytest.raises(AccessDenied, match="others"):
        remove_tree("others/d")
    assert os.listdir("others") == ["d"]


def test_a_directory_in_use_is_closed_by_its_last_user(root):
    writer = FolderWriter(os.fsencode(root))
    directories = writer._directories
    with directories.borrowed(to_key("a")) as opened, directories.borrowed(ROOT) as top:
        writer.close()
        writer.close()
        assert os.path.samestat(os.fstat(opened), (root / "a").stat())
        assert os.path.samestat(os.fstat(top), root.stat())
        with pytest.raises(StorageFailed):
            writer.make_directory(to_key("b"))
    for one in (opened, top):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(one)
