"""The catalog on this machine: opening without a request, and a cache file that can do no harm."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.catalog import Catalog, Query
from dataset_store.core.envelope import HEADER_SIZE, LOG_ENTRY, object_digest, seal
from dataset_store.core.log_entries import LogEntry, PublishEntry, SeriesName, encode_entry, with_prev
from dataset_store.core.tables import Table
from dataset_store.errors import CorruptObject, FormatTooNew, HistoryRewound
from dataset_store.storage import catalog_cache
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.catalog_cache import CatalogCache, CatalogView
from dataset_store.storage.log import Log, Pacing
from dataset_store.storage.log_reader import LogRecord, chained
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.wrappers import CountingBackend
from dataset_store.testing.faults import Effect, Fault, FaultyBackend
from dataset_store.testing.log_entries import hash_hex, id_hex, version_entry

ANCHOR = hash_hex(7)
PACING = Pacing(sleep=lambda _: None, jitter=lambda: 0.5)


def make_log(backend: Backend, anchor: str = ANCHOR) -> Log:
    return Log(backend, anchor, pacing=PACING)


def publish(number: int) -> PublishEntry:
    return PublishEntry(commit=id_hex(number), time=number, version=id_hex(1))


def view_of(backend: Backend, folder: Path | str) -> CatalogView:
    return CatalogView(make_log(backend), CatalogCache(str(folder)))


def filled(count: int, anchor: str = ANCHOR) -> MemoryBackend:
    backend = MemoryBackend()
    prev = anchor
    for number in range(count):
        data = encode_entry(with_prev(publish(number), prev))
        backend.create(Key(f"log/catalog/{number:012d}"), [data])
        prev = object_digest(data)
    return backend


def records_of(backend: Backend) -> list[LogRecord]:
    log = make_log(backend)
    return list(log.read_after(log.start))


def file_in(folder: Path) -> Path:
    (file,) = folder.iterdir()
    return file


def test_a_store_is_opened_again_without_a_request_and_read_on_with_one(tmp_path):
    backend = CountingBackend(filled(100))
    assert view_of(backend, tmp_path / "new").refresh() == 100
    backend.reset()
    view = view_of(backend, tmp_path / "new")
    assert view.catalog.head == 100
    assert backend.snapshot().total_calls == 0
    assert view.refresh() == 0
    assert backend.snapshot().keys_read == ("log/catalog/000000000100",)


def test_what_was_read_and_what_was_committed_is_kept(tmp_path):
    backend = filled(3)
    view = view_of(backend, tmp_path)
    view.refresh()
    view.commit(lambda _: publish(50))
    assert view_of(backend, tmp_path).position == view.position
    assert view.position.slot == 4


def test_the_file_is_the_log_objects_behind_their_lengths(tmp_path):
    backend = filled(2)
    view_of(backend, tmp_path).refresh()
    objects = [record.data for record in records_of(backend)]
    expected = b"".join(len(data).to_bytes(4, "little") + data for data in objects)
    assert file_in(tmp_path).read_bytes() == expected


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_whatever_the_file_holds_the_fold_is_that_of_the_log(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache")
    backend = filled(12)
    view_of(backend, folder).refresh()
    octets = bytearray(file_in(folder).read_bytes())
    start = data.draw(st.integers(0, len(octets)))
    stop = data.draw(st.sampled_from([start, start + 1, start + 40, len(octets)]))
    octets[start:stop] = data.draw(st.sampled_from([b"", b"\0" * 50, b"\xff" * 5, b"x"]))
    file_in(folder).write_bytes(octets)
    damaged = view_of(backend, folder)
    assert damaged.position.slot <= 12
    damaged.refresh()
    assert damaged.catalog.head == 12
    assert [damaged.catalog.slot_of(id_hex(number)) for number in range(12)] == list(range(12))
    again = CountingBackend(backend)
    assert view_of(again, folder).refresh() == 0
    assert again.snapshot().total_calls == 1


def test_the_file_of_another_store_gives_way(tmp_path):
    view_of(filled(5), tmp_path).refresh()
    other = filled(3, anchor=hash_hex(8))
    view = CatalogView(make_log(other, hash_hex(8)), CatalogCache(str(tmp_path)))
    assert view.catalog.head == 0
    view.refresh()
    assert CatalogView(make_log(other, hash_hex(8)), CatalogCache(str(tmp_path))).catalog.head == 3


def test_a_log_that_was_rewound_is_noticed_and_not_followed(tmp_path):
    backend = filled(5)
    view_of(backend, tmp_path).refresh()
    rewound = MemoryBackend()
    prev = ANCHOR
    for number in range(7):
        data = encode_entry(with_prev(publish(number + 100), prev))
        rewound.create(Key(f"log/catalog/{number:012d}"), [data])
        prev = object_digest(data)
    view = view_of(rewound, tmp_path)
    with pytest.raises(HistoryRewound):
        view.refresh()
    assert view.catalog.head == 5


def test_caches_that_share_a_file_take_turns(tmp_path):
    backend = filled(10)
    records = records_of(backend)
    one, two = CatalogCache(str(tmp_path)), CatalogCache(str(tmp_path))
    one.append(records[:3])
    two.append(records[:2])
    two.append(records[2:6])
    one.append(records[3:4])
    one.append(records[4:9])
    two.append(records[6:10])
    assert list(CatalogCache(str(tmp_path)).load(make_log(backend).start)) == records


def test_a_file_that_was_begun_anew_is_left_to_the_one_who_did(tmp_path):
    records = records_of(filled(6))
    cache = CatalogCache(str(tmp_path))
    cache.append(records[:4])
    os.truncate(file_in(tmp_path), 0)
    cache.append(records[4:])
    assert file_in(tmp_path).read_bytes() == b""


def test_without_a_usable_folder_everything_works(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    backend = filled(5)
    view = view_of(backend, blocked / "below")
    assert view.refresh() == 5
    view.commit(lambda _: publish(50))
    assert view_of(backend, blocked / "below").catalog.head == 0
    assert CatalogView(make_log(backend)).refresh() == 6


def test_what_was_read_before_an_error_is_kept(tmp_path):
    inner = filled(9)
    backend = FaultyBackend(inner, [Fault("get_many", 2, Effect.CORRUPT, item=5)])
    # get_many: slot 0 with the first checkpoints, then slots 1 to 8, of which the sixth is damaged
    view = view_of(backend, tmp_path)
    with pytest.raises(CorruptObject, match="log/catalog/000000000006"):
        view.refresh()
    assert backend.unused() == ()
    kept = view_of(inner, tmp_path)
    assert kept.position == view.position
    assert kept.position.slot == 6
    assert kept.refresh() == 3


def test_an_entry_of_a_newer_writer_in_the_cache_is_reported_by_the_log(tmp_path):
    backend = filled(2)
    view_of(backend, tmp_path).refresh()
    last = records_of(backend)[-1]
    later = encode_entry(with_prev(publish(9), object_digest(last.data))).replace(b"publish", b"novelty")
    backend.create(Key("log/catalog/000000000002"), [_resealed(later)])
    with file_in(tmp_path).open("ab") as file:
        file.write(len(_resealed(later)).to_bytes(4, "little") + _resealed(later))
    view = view_of(backend, tmp_path)
    assert view.catalog.head == 2
    with pytest.raises(FormatTooNew):
        view.refresh()


def _resealed(data: bytes) -> bytes:
    return seal(LOG_ENTRY, data[HEADER_SIZE:])


def test_a_long_first_read_is_kept_piece_by_piece(tmp_path):
    backend = filled(4200)
    records = records_of(backend)
    view = view_of(MemoryBackend(), tmp_path)

    def broken_off():
        yield from records[:4100]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        view.take(broken_off())
    assert view.position == records[4099].after
    assert view_of(backend, tmp_path).position == view.position


_RACER = """
import sys
from dataset_store.core.log_entries import PublishEntry
from dataset_store.storage.catalog_cache import CatalogCache, CatalogView
from dataset_store.storage.log import Log
from dataset_store.storage.posix_backend import PosixBackend

root, cache, anchor, writer = sys.argv[1:]
view = CatalogView(Log(PosixBackend(root), anchor), CatalogCache(cache))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    commit = f"{int(writer) * 1000 + number:032x}"
    entry = PublishEntry(commit=commit, time=0, version="0" * 32)
    view.commit(lambda _: entry)
"""


def test_two_processes_that_race_on_a_folder_both_land(tmp_path):
    root, cache = tmp_path / "store", tmp_path / "cache"
    root.mkdir()
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(root), str(cache), ANCHOR, str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in (1, 2)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=60)
    assert [racer.returncode for racer in racers] == [0, 0]

    backend = PosixBackend(str(root))
    records = records_of(backend)
    commits = [record.entry.commit for record in records]
    assert sorted(commits) == sorted(id_hex(writer * 1000 + number) for writer in (1, 2) for number in range(20))
    position = make_log(backend).start
    for record in records:
        position = chained(position, record.data, "it").after
    kept = list(CatalogCache(str(cache)).load(make_log(backend).start))
    assert kept == records


def test_queries_see_what_was_folded(tmp_path):
    view = view_of(MemoryBackend(), tmp_path)
    seen: list[int] = []

    def make(catalog) -> LogEntry:
        seen.append(catalog.head)
        return publish(len(seen))

    view.commit(make)
    view.commit(make)
    assert seen == [0, 1]
    assert view.catalog.head == view.position.slot == 2


# The kept fold


@pytest.fixture
def folded_soon(monkeypatch):
    """The fold is kept after eight entries."""
    monkeypatch.setattr(catalog_cache, "_FOLD_AFTER", 8)


def grown(count: int) -> MemoryBackend:
    """A log of versions."""
    backend, prev = MemoryBackend(), ANCHOR
    for number in range(count):
        opens = {} if number else {"opens": SeriesName(project="p", name="n")}
        data = encode_entry(with_prev(version_entry(number, f"1.0.{number}", **opens), prev))
        backend.create(Key(f"log/catalog/{number:012d}"), [data])
        prev = object_digest(data)
    return backend


def applied_by(opening, monkeypatch) -> int:
    """How many entries are folded meanwhile."""
    count, apply = [0], Catalog.apply

    def counted(catalog, slot, entry):
        count[0] += 1
        apply(catalog, slot, entry)

    monkeypatch.setattr(Catalog, "apply", counted)
    opening()
    monkeypatch.setattr(Catalog, "apply", apply)
    return count[0]


def fold_in(folder: Path) -> Path:
    return folder / catalog_cache._FOLD


def test_a_catalog_is_opened_from_the_kept_fold_and_what_came_after_it(tmp_path, folded_soon, monkeypatch):
    backend = grown(20)
    view = view_of(backend, tmp_path)
    view.refresh()
    for number in range(20, 23):
        view.commit(lambda _, number=number: version_entry(number, f"1.0.{number}"))
    counted = CountingBackend(backend)
    assert applied_by(lambda: view_of(counted, tmp_path), monkeypatch) == 3
    again = view_of(counted, tmp_path)
    assert counted.snapshot().total_calls == 0
    assert again.position == view.position
    assert again.catalog.resolve(Query(project="p", name="n")).number == "1.0.22"
    assert list(again.catalog.rows()) == list(view.catalog.rows())
    assert again.refresh() == 0


def test_the_fold_is_kept_anew_when_much_came_after_it_and_not_each_time(tmp_path, folded_soon):
    backend = grown(9)
    view = view_of(backend, tmp_path)
    view.refresh()
    kept = []
    for number in range(9, 30):
        view.commit(lambda _, number=number: version_entry(number, f"1.0.{number}"))
        kept.append(fold_in(tmp_path).stat().st_ino)
    assert [at for at, (one, next_one) in enumerate(pairwise(kept), 10) if one != next_one] == [16, 24]
    assert [file.name for file in tmp_path.iterdir() if "fold" in file.name] == [catalog_cache._FOLD]


def test_many_entries_that_an_earlier_process_read_are_folded_by_the_next_that_opens(tmp_path, monkeypatch):
    backend = grown(20)
    view_of(backend, tmp_path).refresh()
    assert not fold_in(tmp_path).exists(), "so few are folded as quickly as a file is opened"
    monkeypatch.setattr(catalog_cache, "_FOLD_AFTER", 8)
    assert applied_by(lambda: view_of(backend, tmp_path), monkeypatch) == 20
    assert applied_by(lambda: view_of(backend, tmp_path), monkeypatch) == 0


def spoil(folder: Path, start: int, stop: int, octets: bytes) -> None:
    """Another file in place of the kept fold, with other bytes in a range."""
    data = bytearray(fold_in(folder).read_bytes())
    data[start:stop] = octets
    fold_in(folder).unlink()
    fold_in(folder).write_bytes(data)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_fold_is_made_anew_of_the_records_and_nobody_notices(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache")
    backend = grown(300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_cache, "_FOLD_AFTER", 8)
        right = view_of(backend, folder)
        right.refresh()
        size = fold_in(folder).stat().st_size
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.sampled_from([start, start + 1, start + 5_000, size]))
        spoil(folder, start, stop, data.draw(st.sampled_from([b"", bytes(50), b"\xff" * 5, b"x"])))
        for _ in range(2):
            view = view_of(backend, folder)
            assert list(view.catalog.live_versions()) == list(right.catalog.live_versions())
            assert list(view.catalog.versions_of(id_hex(1)))[::-1] == list(right.catalog.versions_of(id_hex(1)))[::-1]
            assert view.catalog.numbered(id_hex(1), "1.0.7") == right.catalog.numbered(id_hex(1), "1.0.7")
            assert list(view.catalog.rows()) == list(right.catalog.rows())
            assert view.position == right.position


def test_a_fold_and_records_that_are_both_damaged_are_told_and_the_next_view_is_right(tmp_path, folded_soon):
    backend = grown(300)
    view_of(backend, tmp_path).refresh()
    spoil(tmp_path, 5_000, 5_002, b"??")
    view = view_of(backend, tmp_path)
    records = tmp_path / "catalog.records"
    data = bytearray(records.read_bytes())
    data[1_000] ^= 1
    records.write_bytes(data)
    with pytest.raises(CorruptObject, match="delete that folder"):
        list(view.catalog.rows())
    again = view_of(backend, tmp_path)
    again.refresh()
    assert len(list(again.catalog.live_versions())) == 300


@pytest.mark.parametrize("line", range(6))
def test_ctrl_c_in_the_middle_of_an_entry_leaves_nothing_half_done(tmp_path, folded_soon, monkeypatch, line):
    """The entry is folded again from what stood before it, and no half of it is kept for others."""
    backend = grown(40)
    calls, put = [0], Table.put

    def interrupted(table, *words, **named):
        calls[0] += 1
        if calls[0] == 4 * 20 + line:
            raise KeyboardInterrupt
        put(table, *words, **named)

    view = view_of(backend, tmp_path)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Table, "put", interrupted)
        view.refresh()
    view.refresh()
    whole = CatalogView(make_log(backend))
    whole.refresh()
    for one in (view, view_of(backend, tmp_path)):
        assert one.position == whole.position
        assert one.catalog.invalid == ()
        assert list(one.catalog.rows()) == list(whole.catalog.rows())


def test_a_fold_that_another_process_has_kept_is_not_written_again_nor_one_that_cannot_be(
    tmp_path, folded_soon, monkeypatch
):
    backend = grown(20)
    views = [view_of(backend, tmp_path) for _ in range(3)]
    views[0].refresh()
    kept = fold_in(tmp_path).stat().st_ino
    (tmp_path / f"{catalog_cache._FOLD}.0123abcd").write_bytes(b"what a killed process left")
    os.utime(tmp_path / f"{catalog_cache._FOLD}.0123abcd", (0, 0))
    for view in views[1:]:
        view.refresh()
    assert fold_in(tmp_path).stat().st_ino == kept
    writes = []
    monkeypatch.setattr(catalog_cache, "write_sorted", lambda *_: writes.append(1))
    monkeypatch.setattr(catalog_cache.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    for number in range(20, 30):
        views[0].commit(lambda _, number=number: version_entry(number, f"1.0.{number}"))
    assert writes == [1]
    assert not (tmp_path / f"{catalog_cache._FOLD}.0123abcd").exists()


def test_a_fold_of_another_log_or_state_or_without_its_records_is_not_used(tmp_path, folded_soon, monkeypatch):
    backend = grown(20)
    view_of(backend, tmp_path).refresh()
    other = CatalogView(make_log(MemoryBackend(), hash_hex(8)), CatalogCache(str(tmp_path)))
    assert other.catalog.head == 0
    with monkeypatch.context() as patch:
        patch.setattr(catalog_cache, "STATE", 0)
        assert applied_by(lambda: view_of(backend, tmp_path), monkeypatch) == 20
    records = tmp_path / "catalog.records"
    os.truncate(records, records.stat().st_size - 1)
    assert view_of(backend, tmp_path).catalog.head == 19
    records.unlink()
    assert view_of(backend, tmp_path).catalog.head == 0


def test_a_fold_that_cannot_be_written_is_done_without(tmp_path, folded_soon, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    backend = grown(20)
    with monkeypatch.context() as patch:
        patch.setattr(catalog_cache.os, "fsync", refuse)
        assert view_of(backend, tmp_path).refresh() == 20
        assert view_of(backend, tmp_path).catalog.head == 20
    assert [file.name for file in tmp_path.iterdir()] == ["catalog.records"]


def test_entries_that_do_not_follow_the_kept_fold_give_way(tmp_path, folded_soon):
    backend = grown(20)
    view = view_of(backend, tmp_path)
    view.refresh()
    with (tmp_path / "catalog.records").open("ab") as file:
        file.write(b"\x20\0\0\0" + bytes(32))
    view = view_of(backend, tmp_path)
    assert view.catalog.head == 20
    view.commit(lambda _: version_entry(20, "1.0.20"))
    assert view_of(backend, tmp_path).catalog.head == 21
