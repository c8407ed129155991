"""Long files are read once, when they are packed, and whoever asks for their contents before that gets them."""

import os
import random
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from executors import Carrying
from versions import version_of

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.making import Counts, add_counting
from dataset_store.errors import FileChanged
from dataset_store.local import folder as folders
from dataset_store.local import ingest as ingesting
from dataset_store.local.reading import READ_SIZE
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.testing.folders import read, write

SIZES = {"of several chunks": 200_000, "longer than a buffer": READ_SIZE + 70_000}
each_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def bytes_read():
    """What this process has read from files so far, bytes."""
    return int(Path("/proc/self/io").read_text().split()[1])


@pytest.fixture
def opened(monkeypatch):
    """The names of files that were hashed or packed, in the order in which they were."""
    found = []
    real_hash, real_open = folders.hash_files, ingesting.open_regular

    def hashing(paths, *rest, **more):
        found.extend(os.path.basename(path).decode() for path in paths)
        return real_hash(paths, *rest, **more)

    def opening(path, *rest):
        found.append(os.path.basename(path).decode())
        return real_open(path, *rest)

    monkeypatch.setattr(folders, "hash_files", hashing)
    monkeypatch.setattr(ingesting, "open_regular", opening)
    return found


def draft_of(folder, **create):
    draft = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    draft.sync_folder(folder)
    return draft


def packed(home):
    """Bytes of all packs."""
    return sum(path.stat().st_size for path in (home / "store" / "packs").rglob("*") if path.is_file())


def assert_stored(dataset, folder):
    """A version is what the folder is, by its content and by what it says of it."""
    files = read(folder)
    assert read(dataset.get_local_copy()) == files
    hashes = {one.relative_path: one.hash for one in dataset.file_entries}
    assert hashes == {name: blake3(data).hexdigest() for name, data in files.items()}
    assert dataset.compare_folder(folder).matches


# --- reading once ---


def test_each_byte_of_a_new_folder_is_read_once_from_its_files(home):
    folder = write(home / "in", {str(number): noise(number, 3 * READ_SIZE) for number in range(4)})
    total = 12 * READ_SIZE
    before = bytes_read()
    draft = draft_of(folder)
    assert bytes_read() - before < total / 10  # what is imported
    draft.finalize(auto_upload=True)
    assert bytes_read() - before < total * 1.2
    assert_stored(draft, folder)


@each_size
def test_a_file_that_is_longer_now_is_read_once_and_one_of_the_same_length_where_it_is_added(home, size, opened):
    folder = write(home / "in", {"a": noise(1, size), "b": noise(2, size)})
    first = version_of(folder)
    write(folder, {"a": noise(1, size) + b"more", "b": noise(3, size)})
    opened.clear()
    draft = draft_of(folder, parent_datasets=[first])
    assert opened == ["b"]
    draft.finalize(auto_upload=True)
    assert sorted(opened) == ["a", "b", "b"]
    assert_stored(draft, folder)


@each_size
def test_what_was_read_when_it_was_packed_is_not_opened_by_the_next_sync(home, size, opened):
    folder = write(home / "in", {"a": noise(1, size), "sub/b": noise(2, size)})
    single = write(home / "single", {"c": noise(3, size)}) / "c"
    time.sleep(2 * SETTLE_NS / 1e9)
    draft = draft_of(folder)
    draft.add_files(single)
    draft.finalize(auto_upload=True)
    opened.clear()
    child = Dataset.create(parent_datasets=[draft])
    assert (child.add_files(folder), child.add_files(single)) == (0, 0)
    assert opened == []


# --- before it is read ---


@each_size
def test_a_folder_that_is_synced_again_before_the_upload_has_no_changes(home, size, opened):
    folder = write(home / "in", {"a": noise(1, size), "b": noise(2, size)})
    draft = draft_of(folder)
    assert draft.sync_folder(folder) == (0, 0, 0)
    assert opened == []
    (folder / "b").write_bytes(noise(3, size))
    assert draft.sync_folder(folder) == (0, 0, 1)
    write(folder, {"b": noise(3, size) + b"1"})
    assert draft.sync_folder(folder) == (0, 0, 1)
    assert draft.sync_folder(folder) == (0, 0, 0)
    draft.finalize(auto_upload=True)
    assert_stored(draft, folder)


@each_size
def test_files_whose_contents_were_asked_for_in_between_have_not_changed(home, size):
    folder = write(home / "in", {"a": noise(1, size), "sub/b": noise(2, size)})
    single = write(home / "single", {"c": noise(3, size)}) / "c"
    time.sleep(2 * SETTLE_NS / 1e9)  # from then on what was read is known the next time
    draft = draft_of(folder)
    draft.add_files(single)
    assert len(draft.file_entries) == 3
    assert add_counting(draft, folder) == Counts(2, 0, 0)
    assert add_counting(draft, single) == Counts(1, 0, 0)
    assert draft.sync_folder(folder, dry_run=True) == (1, 0, 0)
    (folder / "a").write_bytes(noise(4, size))
    assert add_counting(draft, folder) == Counts(2, 0, 1)
    draft.finalize(auto_upload=True)
    assert_stored(draft, write(home / "all", read(folder) | {"c": noise(3, size)}))


@each_size
def test_another_folder_whose_files_have_the_same_names_sizes_and_times_is_another_folder(home, size):
    one = write(home / "one", {"a": noise(1, size), "b": noise(2, size)})
    other = write(home / "other", {"a": noise(1, size), "b": noise(3, size)})
    for path in (*one.iterdir(), *other.iterdir()):
        os.utime(path, ns=(10**18, 10**18))
    draft = draft_of(one)
    added, removed, _ = draft.sync_folder(other)
    assert (added, removed) == (0, 0)
    draft.finalize(auto_upload=True)
    assert_stored(draft, other)


@each_size
def test_a_draft_knows_the_contents_of_its_files_before_anything_is_sent(home, size):
    folder = write(home / "in", {"a": noise(1, size), "b": b"short"})
    draft = draft_of(folder)
    entries = {one.relative_path: (one.size, one.hash) for one in draft.file_entries}
    assert entries == {name: (len(data), blake3(data).hexdigest()) for name, data in read(folder).items()}
    assert draft.entries_table().num_rows == 2
    assert draft.compare_folder(folder).matches
    write(home / "copy", {"a": noise(2, size), "b": b"short"})
    assert not draft.compare_folder(home / "copy").matches
    draft.finalize(auto_upload=True)
    assert_stored(draft, folder)


@each_size
def test_names_and_sizes_of_a_draft_are_told_without_its_files_being_read(home, size, opened):
    folder = write(home / "in", {"a": noise(1, size), "b": noise(2, size)})
    draft = draft_of(folder)
    assert draft.list_files() == ["a", "b"]
    assert draft.list_added_files() == ["a", "b"]
    assert draft.diff().added == ["a", "b"]
    assert opened == []


@each_size
def test_a_draft_whose_process_ended_is_read_by_another_one(home, size):
    folder = write(home / "in", {"a": noise(1, size)})
    draft_id = draft_of(folder).id
    workspaces._open.clear()
    again = Dataset.get(draft_id)
    again.finalize(auto_upload=True)
    assert_stored(again, folder)


@each_size
@pytest.mark.parametrize("change", ["rewritten", "longer", "gone", "a folder"])
def test_a_file_that_was_changed_before_anybody_read_it_is_refused_by_whoever_reads_it(home, size, change):
    folder = write(home / "in", {"a": noise(1, size)})
    draft = draft_of(folder)
    if change in {"gone", "a folder"}:
        (folder / "a").unlink()
    if change == "a folder":
        (folder / "a").mkdir()
    elif change != "gone":
        write(folder, {"a": noise(2, size + (change == "longer"))})
    readers = [draft.upload, lambda: draft.file_entries, draft.entries_table, lambda: draft.compare_folder(folder)]
    for asks in readers:
        with pytest.raises(FileChanged, match="/in/a'") as failed:
            asks()
        assert "add it, again" in failed.value.next_step
    assert draft.list_files() == ["a"]
    draft.sync_folder(folder)
    draft.finalize(auto_upload=True)
    assert read(draft.get_local_copy()) == read(folder)


@each_size
def test_what_was_changed_while_it_waited_is_read_when_it_is_added_again(home, size, opened):
    folder = write(home / "in", {"a": noise(1, size), "b": noise(2, size)})
    draft = draft_of(folder)
    write(folder, {"a": noise(3, size + 1)})
    assert draft.sync_folder(folder) == (0, 0, 1)
    assert opened == ["a"]


@each_size
def test_a_file_that_is_added_again_after_it_was_removed_has_not_changed(home, size):
    folder = write(home / "in", {"a": noise(1, size)})
    first = version_of(folder)
    draft = Dataset.create(parent_datasets=[first])
    draft.remove_files("a")
    draft.add_files(folder)
    assert (draft.list_added_files(), draft.list_modified_files(), draft.list_removed_files()) == ([], [], [])
    assert not draft.is_dirty()


@each_size
def test_a_draft_is_compared_with_any_version_by_what_its_files_hold(home, size):
    folder = write(home / "in", {"same": noise(1, size), "other": noise(2, size), "moved": noise(3, size)})
    version = version_of(folder)
    write(folder, {"other": noise(4, size)})
    (folder / "moved").rename(folder / "here")
    draft = draft_of(folder, dataset_name="of another dataset")
    assert draft.list_modified_files(version.id) == ["other"]
    found = draft.diff(version)
    assert (found.added, found.removed, found.modified, found.renamed) == ([], [], ["other"], [("moved", "here")])
    assert draft.list_added_files() == ["here", "other", "same"]


# --- what turns out to be stored ---


@each_size
@pytest.mark.parametrize("same_machine", [True, False])
def test_of_a_file_with_another_name_nothing_is_sent_and_its_old_name_is_told(
    home, size, same_machine, another_machine
):
    folder = write(home / "in", {"old": noise(1, size), "stays": b"stays"})
    first = version_of(folder)
    if not same_machine:
        another_machine()
    (folder / "old").rename(folder / "new")
    before = packed(home)
    draft = draft_of(folder, parent_datasets=[first.id])
    assert draft.diff().renamed == [("old", "new")]
    draft.finalize(auto_upload=True)
    assert draft.last_upload.new_bytes == 0
    assert packed(home) - before < 1_000  # nodes
    assert draft.diff().renamed == [("old", "new")]
    assert_stored(draft, folder)


@each_size
@pytest.mark.parametrize("calls", ["one", "several"])
def test_equal_files_are_stored_once_whichever_way_they_were_added(home, size, calls):
    folder = write(home / "in", {f"{number}/copy": noise(1, size) for number in range(5)} | {"other": noise(2, size)})
    draft = Dataset.create("d", "p")
    if calls == "one":
        draft.add_files(folder)
    else:
        for path in sorted(folder.iterdir()):
            draft.add_files(path, dataset_path=path.name if path.is_dir() else None)
    draft.finalize(auto_upload=True)
    assert packed(home) < 2.2 * size + 20_000
    assert_stored(draft, folder)


@each_size
def test_a_file_that_equals_one_which_this_machine_knows_is_stored_once(home, size):
    folder = write(home / "in", {"known": noise(1, size)})
    time.sleep(2 * SETTLE_NS / 1e9)
    shutil.rmtree(home / "store", ignore_errors=True)
    version_of(folder, dataset_name="elsewhere")
    before = packed(home)
    write(folder, {"a copy": noise(1, size), "z": noise(1, size)})
    draft = draft_of(folder, dataset_name="new")
    draft.finalize(auto_upload=True)
    assert packed(home) - before < size + 20_000
    assert_stored(draft, folder)


@each_size
def test_a_content_of_a_draft_that_was_sent_before_is_not_sent_again(home, size):
    folder = write(home / "in", {"a": noise(1, size)})
    draft = draft_of(folder)
    draft.upload()
    before = packed(home)
    write(folder, {"b": noise(1, size)})
    draft.sync_folder(folder)
    draft.finalize(auto_upload=True)
    assert packed(home) - before < size / 2
    assert_stored(draft, folder)


# --- whoever reads them ---

EXECUTORS = {"thread": lambda: ThreadPoolExecutor(2), "pickled": Carrying, "processes": lambda: ProcessPoolExecutor(2)}


@pytest.mark.parametrize("executor", EXECUTORS.values(), ids=EXECUTORS.keys())
def test_files_that_were_left_unread_here_are_read_by_workers_of_the_upload(home, executor):
    files = {f"{number}": noise(number % 7, size) for number, size in enumerate([200_000, 5_000_000, 90_000] * 4)}
    folder = write(home / "in", files)
    here = draft_of(folder)
    here.finalize(auto_upload=True)
    there = draft_of(folder, dataset_name="other")
    with executor() as workers:
        there.upload(executor=workers)
    there.finalize()
    assert_stored(there, folder)
    assert [one.hash for one in there.file_entries] == [one.hash for one in here.file_entries]


@each_size
def test_files_that_stay_where_they_lie_are_read_before_they_are_linked(home, size):
    folder = write(home / "in", {"a": noise(1, size), "b": b"short"})
    draft = draft_of(folder)
    draft.upload(upload_as_external_links=True)
    draft.finalize()
    assert read(draft.get_local_copy()) == read(folder)
    assert {one.relative_path: one.hash for one in draft.link_entries} == {
        name: blake3(data).hexdigest() for name, data in read(folder).items()
    }


@each_size
def test_a_broken_upload_of_files_that_nobody_had_read_goes_on(home, size):
    folder = write(home / "in", {"a": noise(1, size), "b": noise(2, size)})
    draft = draft_of(folder)
    content = (folder / "b").read_bytes()
    stat = os.stat(folder / "b")
    (folder / "b").unlink()
    with pytest.raises(FileChanged, match="b"):
        draft.upload()
    (folder / "b").write_bytes(content)
    os.utime(folder / "b", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    draft.upload()
    draft.finalize()
    assert_stored(draft, folder)
