"""What the stat cache knows, what it does not trust, and that nothing done to its files is an error."""

import gc
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core.kinds import Kind
from dataset_store.core.paths import PathKey
from dataset_store.local import listing
from dataset_store.local.listing import Columns, Listing
from dataset_store.local.scan import scan, stat_one
from dataset_store.local.stat_cache import SETTLE_NS, StatCache, _decode, _encode, _Stored

LONG_AGO = 1_000_000_000_000_000_001
NOW = LONG_AGO + 10**15
STATS = st.tuples(st.integers(0, 3), st.integers(LONG_AGO, LONG_AGO + 1))


def directory_blocks(rows, directory=b"d"):
    """The blocks of a directory made of {name: (size, ctime)}."""
    names = sorted(rows)
    stat = np.zeros((5, len(rows)), np.uint64)
    for column, name in enumerate(names):
        stat[:, column] = rows[name][0], LONG_AGO, rows[name][1], 7, 8
    columns = Columns(np.full(len(rows), Kind.FILE, np.uint8), np.zeros(len(rows), np.bool_), stat)
    return list(Listing(names, columns).blocks(PathKey(b""), PathKey(directory)))


def ids_of(block, salt=0):
    """A content id for each row that tells which row it was given to."""
    ids = np.zeros((len(block), 32), np.uint8)
    for row, name in enumerate(block.names):
        ids[row, : len(name[:31])] = list(name[:31])
        ids[row, 31] = int(block.size[row]) + salt
    return ids


def remember(cache, root, blocks, now_ns=NOW, salt=0):
    masks = [np.ones(len(block), np.bool_) for block in blocks]
    cache.record(root, blocks, [ids_of(block, salt) for block in blocks], masks, now_ns)


def known_names(cache, root, blocks):
    """The names that are known, after checking that each has the content id it was given."""
    found = cache.lookup(root, blocks)
    for block, known in zip(blocks, found, strict=True):
        assert known.ids.shape == (len(block), 32)
        assert np.array_equal(known.ids[known.mask], ids_of(block)[known.mask])
    return [name for block, known in zip(blocks, found, strict=True) for name in np.array(block.names)[known.mask]]


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path / "stats")


@pytest.fixture
def cache(directory):
    return StatCache(directory)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "folder"
    (made / "a").mkdir(parents=True)
    for number in range(5):
        (made / "a" / f"{number}").write_bytes(b"x" * number)
        (made / f"{number}").write_bytes(b"y" * number)
    os.symlink("1", made / "link")
    (made / "empty").mkdir()
    return made


def later():
    """A moment at which everything written so far is settled, however coarse the time stamps."""
    return time.time_ns() + 3 * 10**9


def test_files_of_an_unchanged_folder_are_known_and_links_and_directories_never(cache, folder):
    blocks = list(scan(folder))
    assert known_names(cache, folder, blocks) == []
    remember(cache, folder, blocks, later())
    assert known_names(cache, folder, list(scan(folder))) == [b"%d" % number for number in range(5)] * 2


def test_a_new_cache_object_knows_what_an_earlier_one_recorded(cache, directory, folder):
    blocks = list(scan(folder))
    remember(cache, folder, blocks, later())
    del cache
    gc.collect()
    assert len(known_names(StatCache(directory), folder, blocks)) == 10


def test_a_cache_makes_its_folder_on_first_use_and_for_its_owner_only(directory, folder):
    cache = StatCache(directory)
    assert not os.path.exists(directory)
    cache.lookup(folder, list(scan(folder)))
    assert os.stat(directory).st_mode & 0o777 == 0o700


def change_content(path):
    path.write_bytes(b"other content")


def change_content_and_restore_size_and_mtime(path):
    before = path.stat()
    path.write_bytes(b"z" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_a_copy(path):
    before = path.stat()
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(copy, path)


@pytest.mark.parametrize(
    "change", [change_content, change_content_and_restore_size_and_mtime, replace_by_a_copy, os.utime]
)
def test_a_file_that_was_touched_is_not_known_and_the_others_are(cache, folder, change):
    remember(cache, folder, list(scan(folder)), later())
    before = (folder / "3").stat().st_ctime_ns
    while (folder / "3").stat().st_ctime_ns == before:  # until the clock of the kernel has ticked
        change(folder / "3")
    assert known_names(cache, folder, list(scan(folder))) == [b"0", b"1", b"2", b"3", b"4", b"0", b"1", b"2", b"4"]


def test_a_file_rewritten_within_one_time_stamp_was_never_trusted(cache, folder):
    blocks = list(scan(folder))
    first = min(int(block.ctime_ns.min()) for block in blocks)
    remember(cache, folder, blocks, first)
    # Whatever is written from then on may leave exactly these stats.
    assert known_names(cache, folder, blocks) == []


@pytest.mark.parametrize("column", [1, 2])
@pytest.mark.parametrize(
    ("stamp", "settle"),
    [(LONG_AGO, SETTLE_NS), (LONG_AGO - 1, 2 * 10**9), (LONG_AGO - 1 + 10**7, 2 * 10**9), (-1, SETTLE_NS)],
)
def test_a_row_is_trusted_from_the_moment_on_at_which_a_change_must_show(cache, column, stamp, settle):
    (block,) = directory_blocks({b"f": (0, 0)})
    block.stat.view(np.int64)[1:3] = stamp - 10**15 - 1
    block.stat.view(np.int64)[column] = stamp
    remember(cache, b"/r", [block], stamp + settle - 1)
    assert known_names(cache, b"/r", [block]) == []
    remember(cache, b"/r", [block], stamp + settle)
    assert known_names(cache, b"/r", [block]) == [b"f"]


@pytest.mark.parametrize("stamp", [2**63 - 1, NOW + 10**18])
def test_a_file_from_the_future_is_not_trusted(cache, stamp):
    (block,) = directory_blocks({b"f": (0, 0)})
    block.stat.view(np.int64)[1] = stamp
    remember(cache, b"/r", [block])
    assert known_names(cache, b"/r", [block]) == []


def test_only_rows_whose_content_was_given_are_known(cache):
    (block,) = directory_blocks({b"a": (1, LONG_AGO), b"b": (2, LONG_AGO)})
    cache.record(b"/r", [block], [ids_of(block)], [np.array([False, True])], NOW)
    assert known_names(cache, b"/r", [block]) == [b"b"]


def test_directories_and_roots_are_kept_apart(cache):
    (block,) = directory_blocks({b"f": (0, LONG_AGO)}, b"a")
    (other,) = directory_blocks({b"f": (0, LONG_AGO)}, b"b")
    remember(cache, b"/r", [block])
    assert known_names(cache, b"/r", [other]) == known_names(cache, b"/s", [block]) == []
    assert known_names(cache, b"/r", [other, block]) == [b"f"]
    assert known_names(cache, "/x/../r/", [block]) == [b"f"]


def test_a_single_file_and_its_folder_do_not_disturb_each_other(cache, folder):
    blocks = list(scan(folder))
    single = stat_one(folder / "1")
    remember(cache, folder, blocks, later())
    remember(cache, folder / "1", [single], later())
    assert known_names(cache, folder / "1", [single]) == [b"1"]
    assert len(known_names(cache, folder, blocks)) == 10


tables = st.dictionaries(st.binary(min_size=1, max_size=2).filter(lambda name: 0 not in name), STATS, max_size=14)


@given(tables, tables, st.data())
@example({b"%d" % n: (0, LONG_AGO) for n in range(9)}, {b"%d" % n: (0, LONG_AGO) for n in range(4)}, None)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
def test_a_row_is_known_exactly_if_it_was_recorded_with_this_stat(cache, monkeypatch, old, changes, data):
    monkeypatch.setattr(listing, "BLOCK_NAMES", 3)
    root = os.urandom(8).hex().encode()
    remember(cache, root, directory_blocks(old))
    removed = data.draw(st.sets(st.sampled_from(sorted(old)))) if data and old else set()
    new = {name: stat for name, stat in {**old, **changes}.items() if name not in removed}
    if data is None:
        new = changes
    blocks = directory_blocks(new)
    expected = sorted(name for name in new if old.get(name) == new[name])
    assert known_names(cache, root, blocks) == expected
    assert [name for block in blocks for name in known_names(cache, root, [block])] == expected
    if blocks:
        remember(cache, root, blocks)
        assert known_names(cache, root, blocks) == sorted(new)
        gone = {name: old[name] for name in old if name not in new}
        assert known_names(cache, root, directory_blocks(gone)) == []


def test_names_added_and_removed_in_the_middle_of_a_large_directory_cost_only_themselves(cache):
    rows = {b"%05d" % number: (number % 4, LONG_AGO) for number in range(10_000)}
    remember(cache, b"/r", directory_blocks(rows))
    for gone in range(100, 4_300):
        del rows[b"%05d" % gone]
    rows[b"00050x"] = (1, LONG_AGO)
    assert len(known_names(cache, b"/r", directory_blocks(rows))) == len(rows) - 1


def test_names_added_to_several_directories_are_found_in_their_own(cache, monkeypatch):
    monkeypatch.setattr(listing, "BLOCK_NAMES", 3)
    small = {b"%d" % number: (0, LONG_AGO) for number in range(2)}
    large = {b"%d" % number: (1, LONG_AGO) for number in range(9)}
    remember(cache, b"/r", directory_blocks(small, b"s") + directory_blocks(large, b"t"))
    added = {b"-": (2, LONG_AGO)}
    blocks = directory_blocks({**small, **added}, b"s") + directory_blocks({**large, **added}, b"t")
    assert known_names(cache, b"/r", blocks) == sorted(small) + sorted(large)
    assert known_names(cache, b"/r", blocks[::-1]) == [
        name for block in blocks[::-1] for name in block.names if name != b"-"
    ]


def test_recording_again_replaces_what_was_known(cache):
    (block,) = directory_blocks({b"f": (0, LONG_AGO)})
    remember(cache, b"/r", [block], salt=5)
    remember(cache, b"/r", [block])
    assert known_names(cache, b"/r", [block]) == [b"f"]
    remember(cache, b"/r", [block], LONG_AGO)
    assert known_names(cache, b"/r", [block]) == []


def test_no_byte_of_a_stored_block_can_be_wrong_unnoticed():
    (block,) = directory_blocks({b"a": (1, LONG_AGO), b"bc": (2, LONG_AGO)})
    value = _encode(_Stored(b"\0".join(block.names), block.stat[:4], ids_of(block), np.array([True, False])))
    stored = _decode(value)
    assert stored is not None
    assert (stored.names, stored.mask.tolist()) == (b"a\0bc", [True, False])
    assert np.array_equal(stored.stat, block.stat[:4])
    for place in range(len(value)):
        flipped = bytearray(value)
        flipped[place] ^= 0x40
        # Bytes 12 to 15 are padding; the checksum covers them too.
        assert _decode(bytes(flipped)) is None, place
        assert _decode(value[:place]) is None
    assert _decode(value + b"\0") is None


def damage_start(path):
    with open(path, "r+b") as opened:
        opened.write(b"garbage!" * 1024)


def damage_length(path):
    os.truncate(path, os.path.getsize(path) // 2 // 4096 * 4096)


def damage_all(path):
    with open(path, "wb") as opened:
        opened.write(os.urandom(100_000))


@pytest.mark.parametrize("damage", [damage_start, damage_length, damage_all])
def test_damaged_files_of_the_cache_are_dropped_and_made_anew(directory, damage):
    blocks = directory_blocks({b"%05d" % number: (number % 4, LONG_AGO) for number in range(5_000)})
    cache = StatCache(directory)
    remember(cache, b"/r", blocks)
    del cache
    gc.collect()
    damage(os.path.join(directory, "data.mdb"))
    cache = StatCache(directory)
    assert known_names(cache, b"/r", blocks) == []
    remember(cache, b"/r", blocks)
    assert len(known_names(cache, b"/r", blocks)) == 5_000


def test_a_cache_that_cannot_exist_knows_nothing_and_is_no_error(tmp_path, folder):
    (tmp_path / "file").write_bytes(b"")
    cache = StatCache(str(tmp_path / "file" / "stats"))
    blocks = list(scan(folder))
    remember(cache, folder, blocks, later())
    assert known_names(cache, folder, blocks) == []


def test_a_cache_is_emptied_when_it_has_grown_too_large(directory):
    cache = StatCache(directory, max_bytes=200_000)
    rows = {b"%05d" % number: (0, LONG_AGO) for number in range(3_000)}
    for number in range(10):
        remember(cache, b"/r", directory_blocks(rows, b"%d" % number))
    known = [bool(known_names(cache, b"/r", directory_blocks(rows, b"%d" % number))) for number in range(10)]
    assert known[-1]
    assert sum(known) < 4


WRITER = """
import sys, time
import numpy as np
from dataset_store.local.scan import scan
from dataset_store.local.stat_cache import StatCache

folder, directory, now = sys.argv[1], sys.argv[2], int(sys.argv[3])
cache = StatCache(directory)
for turn in range(50):
    blocks = list(scan(folder))
    cache.record(folder, blocks, [np.full((len(b), 32), 9, np.uint8) for b in blocks],
                 [np.ones(len(b), bool) for b in blocks], now + turn % 2 * 10**18 - 10**18)
"""


def test_two_processes_use_one_cache_at_once(cache, directory, folder):
    now = later()
    blocks = list(scan(folder))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = [sys.executable, "-c", WRITER, str(folder), directory, str(now)]
    with subprocess.Popen(arguments, env=environment) as other:
        seen = set()
        while other.poll() is None:
            for known in cache.lookup(folder, blocks):
                seen |= {bytes(one) for one in known.ids[known.mask]}
            cache.record(
                "/elsewhere", blocks, [ids_of(b) for b in blocks], [np.ones(len(b), np.bool_) for b in blocks], now
            )
    assert other.returncode == 0
    assert seen <= {b"\x09" * 32}
    known = cache.lookup(folder, blocks)
    assert sum(int(one.mask.sum()) for one in known) == 10
    assert {bytes(one) for k in known for one in k.ids[k.mask]} == {b"\x09" * 32}
    assert len(known_names(cache, "/elsewhere", blocks)) == 10


def test_several_threads_use_one_cache_at_once(cache):
    failures = []

    def use(number):
        try:
            for turn in range(20):
                blocks = directory_blocks({b"%d" % n: (turn % 4, LONG_AGO) for n in range(50)}, b"%d" % number)
                remember(cache, b"/r", blocks)
                assert len(known_names(cache, b"/r", blocks)) == 50
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_device_may_change_from_one_mount_to_the_next(cache):
    (block,) = directory_blocks({b"f": (0, LONG_AGO)})
    remember(cache, b"/r", [block])
    stat = block.stat.copy()
    stat[4] += 1
    assert known_names(cache, b"/r", [replace(block, stat=stat)]) == [b"f"]


# --- files that are read after their folder was recorded ---


def none_known(cache, root, blocks):
    """Record blocks of which no content is known yet."""
    cache.record(root, blocks, [ids_of(block) for block in blocks], [np.zeros(len(b), np.bool_) for b in blocks], NOW)


def read_later(cache, root, blocks, names, now_ns=NOW, stat=None):
    """Say what some files of blocks turned out to be; which of them stood in a block."""
    by_name = {name: (b, row) for b in blocks for row, name in enumerate(b.names)}
    picked = [by_name[name] for name in names]
    ids = np.array([ids_of(block)[row] for block, row in picked])
    stats = np.array([block.stat[:4, row] for block, row in picked]).view(np.int64)
    keys = [PathKey(b"\0".join(filter(None, [block.directory, block.names[row]]))) for block, row in picked]
    return cache.record_files(root, keys, ids, stats if stat is None else stat(stats), now_ns)


def test_files_that_are_read_after_their_folder_was_recorded_are_known_then(cache):
    blocks = directory_blocks({b"%05d" % number: (number % 200, LONG_AGO) for number in range(5_000)})
    assert len(blocks) > 1
    none_known(cache, "/r", blocks)
    wanted = [b"00000", b"02345", b"04999"]
    assert read_later(cache, "/r", blocks, wanted).all()
    assert known_names(cache, "/r", blocks) == wanted
    assert read_later(cache, "/r", blocks, [b"00001"]).all()
    assert known_names(cache, "/r", blocks) == [b"00000", b"00001", *wanted[1:]]


def test_files_of_several_folders_are_noted_in_one_go(cache):
    blocks = directory_blocks({b"a": (1, LONG_AGO)}, b"x") + directory_blocks({b"b": (2, LONG_AGO)}, b"x\0y")
    none_known(cache, "/r", blocks)
    assert read_later(cache, "/r", blocks, [b"b", b"a"]).all()
    assert known_names(cache, "/r", blocks) == [b"a", b"b"]


@pytest.mark.parametrize("column", range(4))
def test_a_file_that_was_changed_since_its_folder_was_recorded_stays_unknown(cache, column):
    blocks = directory_blocks({b"a": (1, LONG_AGO), b"b": (2, LONG_AGO)})
    none_known(cache, "/r", blocks)

    def changed(stats):
        stats[0, column] += 1
        return stats

    assert read_later(cache, "/r", blocks, [b"a", b"b"], stat=changed).all()
    assert known_names(cache, "/r", blocks) == [b"b"]


def test_a_file_that_was_read_too_soon_after_it_was_written_stays_unknown(cache):
    blocks = directory_blocks({b"a": (1, NOW - SETTLE_NS + 1), b"b": (2, NOW - SETTLE_NS)})
    none_known(cache, "/r", blocks)
    read_later(cache, "/r", blocks, [b"a", b"b"])
    assert known_names(cache, "/r", blocks) == [b"b"]


def test_files_of_a_folder_that_was_never_recorded_are_told_and_no_error(cache):
    blocks = directory_blocks({b"a": (1, LONG_AGO)})
    assert read_later(cache, "/r", blocks, [b"a"]).tolist() == [False]
    none_known(cache, "/r", blocks)
    assert read_later(cache, "/elsewhere", blocks, [b"a"]).tolist() == [False]
    assert known_names(cache, "/r", blocks) == []


def test_files_are_noted_nowhere_by_a_cache_that_cannot_exist(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    blocks = directory_blocks({b"a": (1, LONG_AGO)})
    broken = StatCache(str(tmp_path / "file" / "stats"))
    assert read_later(broken, "/r", blocks, [b"a"]).tolist() == [False]
