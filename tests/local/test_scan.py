"""What a scan finds, how it tells links apart, and what it refuses."""

import itertools
import os
import socket
import stat
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core.kinds import Kind
from dataset_store.core.paths import ROOT, to_key, to_path, to_text
from dataset_store.errors import (
    AccessDenied,
    FileChanged,
    InvalidPath,
    InvalidRequest,
    PathNotFound,
    UnsupportedFileType,
)
from dataset_store.local import batches, listing, scan_ahead
from dataset_store.local import scan as scan_module
from dataset_store.local.reading import open_regular
from dataset_store.local.removal import remove_tree
from dataset_store.local.scan import EVERYTHING, Scope, scan, stat_one
from dataset_store.testing.folders import few_open_files

pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@contextmanager
def ordinary_user():
    """Permissions bind even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def write(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def rows(folder, **options):
    """Every entry found: its path, kind, size, exec bit and link text."""
    return {
        to_text(key): (Kind(block.kind[row]), int(block.size[row]), bool(block.executable[row]), block.targets.get(row))
        for block in scan(folder, scope=replace(EVERYTHING, **options))
        for row, key in enumerate(block.keys())
    }


def kinds(folder, **options):
    return {path: row[0] for path, row in rows(folder, **options).items()}


def link_text(folder, path):
    kind, size, _, text = rows(folder)[path]
    assert kind == Kind.SYMLINK
    assert size == len(text)
    return text


names = st.binary(min_size=1, max_size=3).filter(lambda n: not {0, 47} & set(n) and n not in {b".", b".."})
trees = st.recursive(st.none(), lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=12)


@given(st.dictionaries(names, trees, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_a_scan_finds_exactly_the_files_and_empty_directories(tmp_path, tree):
    folder = os.fsencode(tmp_path / "tree")
    remove_tree(folder)
    expected = {}

    def make(path, key, node):
        if node is None:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            expected[key] = Kind.FILE
            return
        os.mkdir(path)
        if not node and key:
            expected[key] = Kind.DIRECTORY
        for name, child in node.items():
            make(path + b"/" + name, key + b"\0" + name if key else name, child)

    make(folder, b"", tree)
    found = {key: kind for block in scan(folder) for key, kind in zip(block.keys(), block.kind, strict=True)}
    assert found == expected


def test_columns_hold_what_a_stat_of_each_file_tells(root):
    for number in range(20):
        path = write(root / "d" / f"{number:02}", b"x" * number)
        os.utime(path, ns=(0, (number - 10) * 10**15 + 7))
        path.chmod(0o644 if number % 2 else 0o755)
    (block,) = scan(root)
    assert block.directory == b"d"
    assert block.names == sorted(block.names)
    for row, name in enumerate(block.names):
        found = os.stat(root / "d" / os.fsdecode(name))
        assert block.size[row] == found.st_size
        assert block.mtime_ns[row] == found.st_mtime_ns
        assert block.ctime_ns[row] == found.st_ctime_ns
        assert block.inode[row] == found.st_ino
        assert block.device[row] == found.st_dev
        assert block.executable[row] == bool(found.st_mode & stat.S_IXUSR)


def test_only_the_owners_permission_to_execute_counts(root):
    write(root / "group").chmod(0o654)
    write(root / "owner").chmod(0o744)
    assert [row[2] for row in rows(root).values()] == [False, True]


def test_directories_come_after_what_lies_below_them_and_names_ascend(root):
    for path in ("b/2", "b/1/x", "a/y", "c", "b/3/z"):
        write(root / path)
    assert [block.directory for block in scan(root)] == [b"a", b"b\x001", b"b\x003", b"b", b""]
    assert [block.names for block in scan(root)] == [[b"y"], [b"x"], [b"z"], [b"2"], [b"c"]]


def test_a_large_directory_is_cut_into_blocks_by_position(root, monkeypatch):
    monkeypatch.setattr(scan_module, "BLOCK_NAMES", 40)
    monkeypatch.setattr(listing, "BLOCK_NAMES", 40)
    count = 2 * 40 + 5
    descriptor = os.open(root, os.O_RDONLY)
    for number in range(count):
        os.close(os.open(f"{number:05}", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    os.symlink("00000", root / "00001l")
    (root / "0000").mkdir()
    (root / "00000d").mkdir()
    write(root / "00000d" / "file")
    blocks = [block for block in scan(root) if block.directory == ROOT]
    assert [(block.number, len(block), block.last) for block in blocks] == [
        (0, 40, False),
        (1, 40, False),
        (2, 7, True),
    ]
    names = [name for block in blocks for name in block.names]
    assert names == sorted([b"%05d" % number for number in range(count)] + [b"00001l", b"0000"])
    assert [block.targets for block in blocks] == [{3: b"00000"}, {}, {}]
    assert blocks[0].kind[:4].tolist() == [Kind.DIRECTORY, Kind.FILE, Kind.FILE, Kind.SYMLINK]
    assert all(block.stat.flags.c_contiguous and block.stat.shape == (5, len(block)) for block in blocks)
    assert [block.inode[-1] for block in blocks] == [
        os.lstat(os.fsencode(root) + b"/" + block.names[-1]).st_ino for block in blocks
    ]


def test_an_empty_directory_is_an_entry_of_its_parent_and_an_empty_root_is_none(root):
    assert list(scan(root)) == []
    (root / "a" / "b" / "c").mkdir(parents=True)
    write(root / "a" / "f")
    assert rows(root) == {
        "a/b/c": (Kind.DIRECTORY, 0, False, None),
        "a/f": (Kind.FILE, 1, False, None),
    }


def test_keys_are_put_below_a_directory_of_the_dataset(root):
    write(root / "a" / "b")
    write(root / "c")
    blocks = list(scan(root, below=to_key("data/in")))
    assert [block.keys() for block in blocks] == [[b"data\0in\0a\0b"], [b"data\0in\0c"]]
    assert [block.directory for block in blocks] == [b"a", b""]


def test_names_are_bytes(root):
    for name in (b"bad\xff", b"n" * 255, "é".encode(), b"new\nline", b"back\\slash"):
        os.close(os.open(os.fsencode(root) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    (block,) = scan(root)
    assert block.names == sorted([b"bad\xff", b"n" * 255, "é".encode(), b"new\nline", b"back\\slash"])


def make_deep(root, depth, name):
    """A chain of directories with a file at its end, made without naming a long path."""
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=descriptor)
        deeper = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = deeper
    opened = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor)
    os.write(opened, b"deep")
    os.close(opened)
    os.mkdir("z", dir_fd=descriptor)
    os.symlink("file", "link", dir_fd=descriptor)
    os.close(descriptor)


@pytest.fixture
def deep(root):
    yield root
    remove_tree(os.fsencode(root))


def test_a_tree_deeper_than_any_path_the_kernel_takes_is_scanned_and_opened(deep):
    make_deep(deep, 40, "n" * 200)
    (block,) = scan(deep)
    assert block.names == [b"file", b"link", b"z"]
    assert len(block.directory) == 40 * 201 - 1
    opened, found = open_regular(os.path.join(os.fsencode(deep), to_path(block.keys()[0])))
    assert os.read(opened, 9) == b"deep"
    assert found.st_ino == block.inode[0]
    os.close(opened)


def test_a_tree_of_many_levels_needs_few_open_files(deep):
    make_deep(deep, 200, "d")
    step = deep
    for level in range(0, 200, 7):  # something to come back to on the way up
        os.mkdir(step / "e")
        write(step / "f" / "g", b"x" * level)
        step = step.joinpath(*["d"] * 7)
    with few_open_files(86):
        found = rows(deep)
    assert len(found) == 3 + 2 * 29
    assert found["d/" * 42 + "f/g"][1] == 42


def test_what_cannot_be_listed_ahead_is_listed_when_it_is_entered(root, monkeypatch):
    for number in range(40):
        write(root / f"{number % 4}" / str(number) / "f", b"x" * number)
    expected = rows(root)
    assert len(expected) == 40
    every_other = itertools.cycle([lambda opened: None, batches.list_directory])
    monkeypatch.setattr(scan_ahead, "list_directory", lambda opened: next(every_other)(opened))
    assert rows(root) == expected


def test_a_path_that_no_store_may_hold_is_refused(deep):
    make_deep(deep, 66, "n" * 250)
    with pytest.raises(InvalidPath):
        list(scan(deep))
    with pytest.raises(InvalidPath):
        list(scan(deep / ("n" * 250), below=to_key("/".join(["p" * 250] * 2))))


def test_a_scan_that_is_abandoned_closes_what_it_opened(root):
    for number in range(5):
        write(root / f"{number}" / "a" / "f")
    before = os.listdir("/proc/self/fd")
    found = scan(root)
    next(found)
    assert len(os.listdir("/proc/self/fd")) > len(before)
    found.close()
    assert os.listdir("/proc/self/fd") == before


# Links


@pytest.mark.parametrize("target", ["file", "../a/file", "./file", "nowhere", "sub", "../a", "..", "."])
def test_a_link_that_stays_inside_keeps_its_text(root, target):
    write(root / "a" / "file")
    (root / "a" / "sub").mkdir()
    os.symlink(target, root / "a" / "link")
    assert link_text(root, "a/link") == target.encode()


def test_a_link_to_a_file_outside_is_stored_as_that_file(root, tmp_path):
    target = write(tmp_path / "elsewhere", b"12345")
    target.chmod(0o755)
    os.symlink("../elsewhere", root / "relative")
    os.symlink(target, root / "absolute")
    assert rows(root) == {
        "relative": (Kind.FILE, 5, True, None),
        "absolute": (Kind.FILE, 5, True, None),
    }
    (block,) = scan(root)
    assert block.inode.tolist() == [target.stat().st_ino] * 2
    assert block.mtime_ns.tolist() == [target.stat().st_mtime_ns] * 2


def test_a_link_to_a_directory_outside_is_refused_unless_links_are_followed(root, tmp_path):
    write(tmp_path / "other" / "deep" / "file", b"123")
    (tmp_path / "other" / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    os.symlink(tmp_path / "other", root / "link")
    os.symlink(tmp_path / "bare", root / "bare")
    with pytest.raises(UnsupportedFileType, match="outside"):
        list(scan(root))
    assert rows(root, follow_links=True) == {
        "link/deep/file": (Kind.FILE, 3, False, None),
        "link/empty": (Kind.DIRECTORY, 0, False, None),
        "bare": (Kind.DIRECTORY, 0, False, None),
    }


def test_in_a_directory_reached_by_a_link_inside_means_inside_that_directory(root, tmp_path):
    write(tmp_path / "other" / "file", b"123")
    write(tmp_path / "secret", b"12345")
    write(root / "secret", b"1")
    os.symlink("file", tmp_path / "other" / "stays")
    os.symlink("../secret", tmp_path / "other" / "leaves")
    os.symlink(tmp_path / "other", root / "link")
    assert rows(root, follow_links=True) == {
        "link/file": (Kind.FILE, 3, False, None),
        "link/stays": (Kind.SYMLINK, 4, False, b"file"),
        "link/leaves": (Kind.FILE, 5, False, None),
        "secret": (Kind.FILE, 1, False, None),
    }


@pytest.mark.parametrize("target", ["..", "../root/../", "../around"])
def test_links_that_lead_round_in_a_circle_are_refused(root, tmp_path, target):
    (tmp_path / "around").mkdir()
    os.symlink("..", tmp_path / "around" / "up")
    write(root / "a" / "file")
    os.symlink(target, root / "link")
    found = zip(scan(root, scope=Scope(follow_links=True)), range(1000), strict=False)
    with pytest.raises(UnsupportedFileType, match="circle"):
        list(found)


def test_a_link_inside_that_is_written_in_another_way_becomes_relative(root):
    write(root / "a" / "file")
    (root / "b" / "c").mkdir(parents=True)
    os.symlink(root / "a" / "file", root / "b" / "c" / "absolute")
    os.symlink("c/../../a/file", root / "b" / "winding")
    os.symlink("../b/../../root/a", root / "b" / "around")
    assert link_text(root, "b/c/absolute") == b"../../a/file"
    assert link_text(root, "b/winding") == b"../a/file"
    assert link_text(root, "b/around") == b"../a"


def test_a_link_that_winds_through_another_link_leads_where_the_kernel_says(root):
    write(root / "x" / "y" / "z")
    write(root / "x" / "there")
    write(root / "there")
    os.symlink("x/y", root / "jump")
    os.symlink("jump/../there", root / "link")
    assert link_text(root, "link") == b"x/there"


def test_a_link_gets_no_other_text_than_one_that_leads_to_the_same_file(root, monkeypatch):
    """Beyond the longest path that the kernel takes, links on the way cannot be resolved."""
    write(root / "x" / "y" / "z")
    write(root / "x" / "there", b"right")
    write(root / "there")
    os.symlink("x/y", root / "jump")
    os.symlink("jump/../there", root / "link")
    monkeypatch.setattr(scan_module.os.path, "realpath", os.path.abspath)
    assert rows(root)["link"] == (Kind.FILE, 5, False, None)


def test_links_in_a_circle_of_their_own_are_kept_as_links(root):
    os.symlink("b", root / "a")
    os.symlink("a", root / "b")
    assert kinds(root) == {"a": Kind.SYMLINK, "b": Kind.SYMLINK}


def test_a_broken_link_that_winds_inside_is_kept(root):
    (root / "a").mkdir()
    os.symlink("a/../nowhere", root / "link")
    assert link_text(root, "link") == b"nowhere"


@pytest.mark.parametrize("target", ["/nowhere/at/all", "../nowhere", "a/../../nowhere"])
def test_a_broken_link_that_leads_outside_is_refused_with_advice(root, target):
    (root / "a").mkdir()
    os.symlink(target, root / "link")
    with pytest.raises(UnsupportedFileType, match="link") as caught:
        list(scan(root))
    assert "mend" in caught.value.next_step


def test_all_that_cannot_be_stored_is_told_at_once_and_by_name(root, tmp_path):
    write(root / "fine")
    (tmp_path / "other").mkdir()
    os.symlink(tmp_path / "other", root / "away")
    os.symlink("/nowhere/at/all", root / "broken")
    os.mkfifo(root / "fifo")
    with pytest.raises(UnsupportedFileType) as caught:
        list(scan(root))
    told = caught.value.what
    assert all(part in told for part in ("away", "a folder outside", "broken", "does not exist", "fifo"))
    assert ".datasetignore" in caught.value.next_step
    for number in range(7):
        os.symlink("/nowhere", root / f"more{number}")
    with pytest.raises(UnsupportedFileType, match="and 5 more"):
        list(scan(root))


def test_directories_that_are_to_be_left_out_are_not_entered(root):
    write(root / "a" / "file")
    write(root / "store" / "packs" / "x")
    write(root / "b" / "store" / "y")
    found = (root / "store").stat()
    assert set(rows(root, leave_out=frozenset([(found.st_dev, found.st_ino)]))) == {"a/file", "b/store/y"}
    assert set(rows(root / "store", leave_out=frozenset([(found.st_dev, found.st_ino)]))) == {"packs/x"}


def test_the_root_may_be_a_link_itself(root, tmp_path):
    write(root / "f")
    os.symlink(root / "f", root / "l")
    os.symlink("root", tmp_path / "alias")
    assert kinds(tmp_path / "alias") == {"f": Kind.FILE, "l": Kind.SYMLINK}


# What is refused


def make_special(path, kind):
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_refused_by_name_and_never_blocks(root, tmp_path, kind, linked):
    make_special((tmp_path if linked else root) / "odd", kind)
    if linked:
        os.symlink("../odd", root / "odd")
    with pytest.raises(UnsupportedFileType, match="odd"):
        list(scan(root))
    with pytest.raises(UnsupportedFileType, match="odd"):
        stat_one(root / "odd")
    with pytest.raises(FileChanged, match="odd"):
        open_regular(os.fsencode(root / "odd"))


def test_a_missing_root_is_not_found(tmp_path):
    with pytest.raises(PathNotFound, match="nowhere"):
        list(scan(tmp_path / "nowhere"))
    with pytest.raises(PathNotFound):
        list(scan(""))
    with pytest.raises(PathNotFound, match="nowhere"):
        stat_one(tmp_path / "nowhere")


def test_a_file_is_no_root_and_a_folder_no_single_file(root):
    write(root / "f")
    with pytest.raises(InvalidRequest):
        list(scan(root / "f"))
    with pytest.raises(InvalidRequest):
        stat_one(root)


def test_a_single_file_is_a_block_of_one_row(root):
    path = write(root / "f", b"123")
    os.symlink("f", root / "l")
    block = stat_one(path)
    assert (block.keys(), block.size.tolist(), block.last) == ([b"f"], [3], True)
    through = stat_one(root / "l")
    assert (through.keys(), through.kind.tolist(), through.size.tolist()) == ([b"l"], [Kind.FILE], [3])


def test_a_file_that_vanishes_between_its_name_and_its_stat_is_a_change(root, monkeypatch):
    write(root / "a")
    write(root / "b")
    listed = os.scandir

    class Vanishing:
        def __init__(self, opened):
            self.entries = list(listed(opened))
            (root / "b").unlink()

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(batches, "_files", None)
    monkeypatch.setattr(scan_module.os, "scandir", Vanishing)
    with pytest.raises(FileChanged, match=r"root/b'"):
        list(scan(root))


@pytest.mark.parametrize("replacement", ["nothing", "link", "file"])
def test_a_directory_that_is_replaced_before_it_is_entered_is_a_change(root, tmp_path, replacement, monkeypatch):
    write(root / "d" / "f")
    write(tmp_path / "outside" / "secret")
    opened = os.open

    def swap_then_open(name, flags, *args, **options):
        if name == b"d":
            os.rename(root / "d", tmp_path / "moved")
            if replacement == "link":
                os.symlink(tmp_path / "outside", root / "d")
            elif replacement == "file":
                write(root / "d")
        return opened(name, flags, *args, **options)

    monkeypatch.setattr(scan_module.os, "open", swap_then_open)
    with pytest.raises(FileChanged, match="root/d'"):
        list(scan(root))


def test_a_directory_swapped_while_its_descriptor_was_at_rest_is_a_change(deep, monkeypatch):
    make_deep(deep, 80, "d")
    for number in range(20):  # more than are listed ahead
        write(deep / "d" / f"e{number}" / "f")
    found = scan(deep)
    next(found)
    inner = deep / "d"
    os.rename(inner, deep / "moved")
    for number in range(20):
        write(inner / f"e{number}" / "f")
    with pytest.raises(FileChanged):
        list(found)


def test_what_is_opened_for_reading_is_the_file_that_was_found(root):
    write(root / "a" / "f", b"123")
    opened, found = open_regular(os.fsencode(root / "a" / "f"))
    assert os.read(opened, 9) == b"123"
    assert found.st_ino == next(scan(root)).inode[0]
    os.close(opened)
    (root / "a" / "f").unlink()
    with pytest.raises(FileChanged, match="a/f"):
        open_regular(os.fsencode(root / "a" / "f"))


def test_blocks_of_an_unchanged_folder_are_equal(root):
    for path in ("a/1", "a/2", "b"):
        write(root / path)
    for first, second in zip(scan(root), scan(root), strict=True):
        assert (first.directory, first.number, first.names) == (second.directory, second.number, second.names)
        assert np.array_equal(first.stat, second.stat)


def test_a_directory_that_may_not_be_read_is_access_denied(root, monkeypatch):
    write(root / "closed" / "f")
    write(root / "listed" / "f")
    (root / "closed").chmod(0o000)
    monkeypatch.chdir(root)
    with ordinary_user(), pytest.raises(AccessDenied, match="closed"):
        list(scan("."))
    (root / "closed").chmod(0o755)
    (root / "listed").chmod(0o444)  # names can be read, stats cannot
    with ordinary_user(), pytest.raises(AccessDenied, match="listed/f"):
        list(scan("."))
    (root / "listed").chmod(0o755)
    (root / "listed" / "f").chmod(0o000)
    with ordinary_user(), pytest.raises(AccessDenied, match="listed/f"):
        open_regular(b"./listed/f")


def test_a_time_that_no_version_can_hold_is_refused_by_name(root):
    write(root / "d" / "far")
    os.utime(root / "d" / "far", (10**10, 10**10))
    if os.stat(root / "d" / "far").st_mtime < 9 * 10**9:
        pytest.skip("this file system holds no such time")
    with pytest.raises(UnsupportedFileType, match=r"root/d/far' has a time before 1678 or after 2262"):
        list(scan(root))
