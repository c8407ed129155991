"""Full disks, wrong URLs, and damaged files of this machine: typed errors that name the thing, or nothing at all."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from dataset_store import Dataset
from dataset_store.errors import (
    CorruptObject,
    DatasetNotFound,
    DiskFull,
    InvalidRequest,
    StoreNotFound,
    StoreRootMissing,
)
from dataset_store.local.settings import load_settings
from dataset_store.testing.folders import read

is_root = os.geteuid() == 0
needs_root = pytest.mark.skipif(not is_root, reason="needs root to mount a disk")


def draft() -> Dataset:
    return Dataset.create(dataset_name="broken", dataset_project="p")


# --- full disks ------------------------------------------------------------------------------------------------------


@contextmanager
def small_disk(place, at: Path, size: str):
    at.mkdir(parents=True, exist_ok=True)
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", at], capture_output=True
    ).returncode:
        pytest.skip("cannot mount a disk here")
    try:
        yield
    finally:
        place.new_process()
        subprocess.run(["umount", "--lazy", at], check=True)


@needs_root
def test_a_full_store_is_said_and_the_same_upload_goes_on_when_there_is_space(place, monkeypatch, refused):
    disk = place.home / "disk"
    with small_disk(place, disk, "2m"):
        monkeypatch.setenv("DATASET_STORE_URL", str(disk / "store"))
        kept = draft()
        kept.sync_folder(place.source({"kept": b"k" * 50}, "kept"))
        kept.finalize(auto_upload=True)
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_200_000))
        folder = place.source({f"f{number}": os.urandom(50_000) for number in range(20)})
        new = draft()
        new.sync_folder(folder)
        with refused(DiskFull, disk / "store"):
            new.upload()
        assert read(kept.get_local_copy()) == {"kept": b"k" * 50}
        fill_up(disk / "fill")
        with refused(DiskFull, disk / "store"):
            new.upload()
        ballast.unlink()
        (disk / "fill").unlink()
        new.upload()
        fill_up(disk / "fill")
        with refused(DiskFull, disk / "store"):
            new.finalize()
        (disk / "fill").unlink()
        new.finalize()
        place.new_machine()
        assert read(Dataset.get(new.id).get_local_copy()) == read(folder)
        assert read(Dataset.get(kept.id).get_local_copy()) == {"kept": b"k" * 50}
    monkeypatch.setenv("DATASET_STORE_URL", str(place.store))


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            while True:
                try:
                    file.write(bytes(size))
                except OSError:
                    break


@needs_root
@pytest.mark.parametrize("size", ["100k", "250k", "400k"])
def test_a_full_cache_is_said_and_the_same_copy_is_made_when_there_is_space(place, size, refused):
    machine = place.new_machine()
    with small_disk(place, machine, size):
        with refused(DiskFull):
            place.first.get_local_copy()
        assert not list(machine.glob("cache/*/copies/*.making"))
        subprocess.run(["mount", "-o", "remount,size=20m", machine], check=True)
        assert read(place.first.get_local_copy()) == place.files


@needs_root
def test_a_disk_without_a_single_free_block_does_not_kill_the_process(place):
    """Where a file has no blocks, writing to a map of it would."""
    machine = place.new_machine()
    work = "from dataset_store import Dataset; print(Dataset.get(dataset_name='d').list_files())"
    for free in (0, 8_192, 122_880):
        with small_disk(place, machine, "1m"):
            (machine / "keep").write_bytes(bytes(free))
            fill_up(machine / "fill")
            (machine / "keep").unlink()
            done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout == f"{sorted(place.files)}\n"


@needs_root
def test_a_full_disk_under_a_mutable_copy_leaves_nothing_behind(place, refused):
    disk = place.home / "disk"
    with small_disk(place, disk, "200k"):
        with refused(DiskFull, disk):
            place.first.get_mutable_local_copy(disk / "copy")
        assert os.listdir(disk) == []
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert read(place.first.get_mutable_local_copy(disk / "copy")) == place.files


@needs_root
def test_a_full_data_folder_is_said_and_the_same_draft_goes_on(place, monkeypatch, refused):
    disk = place.home / "disk"
    with small_disk(place, disk, "1m"):
        monkeypatch.setenv("DATASET_STORE_DATA", str(disk))
        new = draft()
        fill_up(disk / "fill")
        folder = place.source({f"f{number:03}": b"%d" % number for number in range(500)})
        with refused(DiskFull, disk):
            new.sync_folder(folder)
        with refused(DiskFull, disk):
            draft()
        (disk / "fill").unlink()
        assert new.list_files() == []
        assert new.sync_folder(folder) == (0, 500, 0)
        new.finalize(auto_upload=True)
        assert read(new.get_local_copy()) == read(folder)
    monkeypatch.setenv("DATASET_STORE_DATA", str(place.home / "own"))


# --- URLs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["nope://bucket/x", "file://host/x", "file://", "nul\0"])
def test_a_url_that_no_backend_knows_is_named(place, monkeypatch, url, refused):
    if "\0" in url:  # no environment variable holds one
        monkeypatch.setattr("dataset_store.dataset.workspace.load_settings", with_store(url))
    else:
        monkeypatch.setenv("DATASET_STORE_URL", url)
    for call in (draft, lambda: place.first):
        with refused(InvalidRequest):
            call()
    monkeypatch.undo()
    os.environ.update(
        DATASET_STORE_URL=str(place.store),
        DATASET_STORE_CACHE=str(place.home / "cache"),
        DATASET_STORE_DATA=str(place.home / "own"),
    )


def with_store(url: str):
    return lambda _store=None: replace(load_settings(), store=url)


def test_a_store_that_is_a_file_or_below_one_is_named(place, monkeypatch, refused):
    for url in (place.home / "first" / "small", place.home / "first" / "small" / "store"):
        monkeypatch.setenv("DATASET_STORE_URL", str(url))
        with refused(StoreRootMissing, url):
            draft()
        with refused(StoreNotFound, url):
            _ = place.first
    monkeypatch.setenv("DATASET_STORE_URL", str(place.store))


def test_a_store_that_is_away_is_said_and_nothing_grows_in_its_place(place, refused):
    place.first.get_local_copy()
    place.store.rename(place.home / "away")
    assert read(place.first.get_local_copy()) == place.files
    with refused(StoreRootMissing, place.store):
        Dataset.get(dataset_name="d")
    place.new_process()
    with refused(StoreRootMissing, place.store):
        Dataset.get(dataset_name="d")
    place.new_machine()
    with refused(StoreNotFound, place.store):
        Dataset.get(dataset_name="d")
    assert not place.store.exists()
    (place.home / "away").rename(place.store)


def test_a_settings_file_that_cannot_be_understood_is_named(place, monkeypatch, refused):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place.home / "config"))
    file = place.home / "config" / "dataset-store" / "config.toml"
    file.parent.mkdir(parents=True)
    for text in (b"store = [", b"unknown = 1\n", b"\xff\xfe", b"cache_bytes = -1\n"):
        file.write_bytes(text)
        with refused(InvalidRequest):
            draft()
    file.unlink()


# --- this machine's own files ----------------------------------------------------------------------------------------


def test_damaged_caches_are_made_anew_without_a_word(place, caplog):
    folder = place.source({"a": b"1", "big": os.urandom(200_000)})
    place.first.get_local_copy()
    maps = list((place.home / "cache").rglob("data.mdb"))
    assert len(maps) == 3
    for damage in (garbage_all_over, garbage_in_the_middle, cut_to_a_page, cut_to_nothing):
        new = None
        place.new_process()
        for path in maps:
            damage(path)
        new = draft()
        new.sync_folder(folder)
        new.finalize(auto_upload=True)
        assert read(new.get_local_copy()) == read(folder)
        assert read(place.first.get_mutable_local_copy(place.home / damage.__name__)) == place.files
    assert caplog.text == ""


def garbage_all_over(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def garbage_in_the_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8_192 + 100)
        file.write(os.urandom(2_000))


def cut_to_a_page(path: Path) -> None:
    os.truncate(path, 4_096)


def cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def test_a_damaged_copy_of_the_config_or_the_log_is_read_anew(place):
    for path in [*(place.home / "cache" / "stores").iterdir(), *(place.home / "cache").rglob("catalog.records")]:
        for damage in (garbage_all_over, cut_to_nothing, lambda path: os.truncate(path, 20)):
            damage(path)
            place.new_process()
            assert Dataset.get(dataset_name="d").id == place.first_id
            assert read(place.first.get_local_copy()) == place.files


def test_a_damaged_stamp_of_a_local_copy_makes_it_anew(place):
    place.first.get_local_copy()
    (stamp,) = (place.home / "cache").rglob("*.stamp")
    for damage in (b"", b"{", b"[]", os.urandom(200)):
        stamp.write_bytes(damage)
        place.new_process()
        assert read(place.first.get_local_copy()) == place.files


def test_a_damaged_journal_is_an_error_and_never_fewer_files(place, refused):
    """Whatever byte is flipped or wherever it is cut: no draft, an error that names it, or a state that it has had."""
    new = draft()
    states = [[]]
    for name in ("a", "b", "c"):
        new.add_files(place.source({name: name.encode() * 10}, name))
        states.append(new.list_files())
    journal = place.home / "own" / "drafts" / new._workspace.store_id / new.id / "journal"
    whole = journal.read_bytes()
    for at in range(0, len(whole), 7):
        journal.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with refused(CorruptObject, new.id):
            Dataset.get(new.id)
    for length in range(0, len(whole), 7):
        journal.write_bytes(whole[:length])
        try:
            assert Dataset.get(new.id).list_files() in states
        except DatasetNotFound:
            assert length < 400
    journal.write_bytes(whole)
    place.new_process()
    again = Dataset.get(new.id)
    again.finalize(auto_upload=True)
    assert read(again.get_local_copy()) == {name: name.encode() * 10 for name in ("a", "b", "c")}
