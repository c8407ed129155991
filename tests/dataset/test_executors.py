"""Versions made and copied by the workers of an executor: the same as here, whatever executor that is."""

import multiprocessing
import os
import random
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from executors import Carrying, Elsewhere, Failing
from versions import version_of

from dataset_store import Dataset
from dataset_store.dataset.copies import filling
from dataset_store.dataset.uploads import packing
from dataset_store.dataset.workspace import StoreAddress, opened_at, workspace_at
from dataset_store.errors import DatasetNotFound, FileChanged, PathNotFound, StorageFailed, StoreNotFound, WorkerFailed
from dataset_store.local import folder as folders
from dataset_store.local.stat_cache import SETTLE_NS
from dataset_store.testing.folders import read, write

EXECUTORS = {
    "one thread": lambda: ThreadPoolExecutor(1),
    "four threads": lambda: ThreadPoolExecutor(4),
    "pickled": Carrying,
    "done twice": lambda: Carrying(times=2),
    "forked processes": lambda: ProcessPoolExecutor(2, multiprocessing.get_context("fork")),
    "new processes": lambda: ProcessPoolExecutor(2, multiprocessing.get_context("spawn")),
}


@pytest.fixture(params=EXECUTORS)
def executor(request):
    with EXECUTORS[request.param]() as made:
        yield made


@pytest.fixture(autouse=True)
def _small_jobs(monkeypatch):
    """So that few files are many jobs."""
    monkeypatch.setattr(folders, "_JOB_FILES", 7)
    monkeypatch.setattr(packing, "_JOB_FILES", 7)
    monkeypatch.setattr(filling, "_JOB_FILES", 7)


@pytest.fixture
def source(home):
    """Short and long files, equal ones far apart, empty ones, links, an empty folder."""
    noise = random.Random(5).randbytes
    files = {f"d{number % 3}/{number}.txt": noise(number * 97) for number in range(40)}
    files |= {"d0/copy": files["d2/38.txt"], "z/copy": files["d2/38.txt"], "empty": b"", "z/large": noise(3_000_000)}
    folder = write(home / "in", files)
    (folder / "nothing here").mkdir()
    (folder / "z" / "link").symlink_to("large")
    (folder / "z" / "copy").chmod(0o755)
    return folder


def made(source, executor=None, **create):
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    dataset.sync_folder(source, executor=executor)
    dataset.upload(executor=executor)
    dataset.finalize()
    return dataset


def edited(source):
    """One byte in the middle of the large file, and a few other files, changed."""
    large = source / "z" / "large"
    data = bytearray(large.read_bytes())
    data[1_500_000] ^= 1
    large.write_bytes(data)
    write(source, {"d1/1.txt": b"changed", "new/file": b"new"})
    (source / "d0" / "3.txt").unlink()


def tree_of(dataset):
    """The digest of the entries: names, kinds, sizes, times and contents."""
    return dataset._workspace.version(dataset.id).entry.tree.digest


def test_a_version_made_by_workers_is_the_one_that_is_made_here(source, executor, another_machine):
    here = version_of(source)
    another_machine()
    there = made(source, executor, dataset_name="there")
    assert tree_of(there) == tree_of(here)
    assert there.verify_dataset_hash() == []
    another_machine("third")
    assert read(Dataset.get(there.id).get_local_copy()) == read(source)


def test_what_is_equal_is_stored_once_though_different_workers_have_it(source, home, monkeypatch):
    def stored(store, executor):
        monkeypatch.setenv("DATASET_STORE_URL", str(home / store))
        report = made(source, executor).last_upload
        return report.files, report.bytes, report.new_bytes

    assert stored("one", Carrying()) == stored("two", None) == stored("three", ThreadPoolExecutor(3))


def test_of_a_large_file_that_was_edited_workers_store_only_what_changed(source, executor):
    first = made(source, executor)
    edited(source)
    child = made(source, executor, parent_datasets=[first])
    assert child.last_upload.new_bytes < 300_000
    assert (child.list_added_files(), child.list_removed_files()) == (["new/file"], ["d0/3.txt"])
    assert read(child.get_local_copy()) == read(source)


def test_files_are_added_one_call_at_a_time_by_workers_too(source, executor):
    dataset = Dataset.create("d", "p")
    assert dataset.add_files(source, dataset_path="a", executor=executor) == 46
    assert dataset.add_files(source / "z" / "large", dataset_path="b", executor=executor) == 1
    assert dataset.add_files(source, dataset_path="a", executor=executor) == 0
    dataset.upload(executor=executor)
    dataset.finalize()
    assert len(dataset.list_files()) == 46  # the empty folder is no file


def test_files_that_were_not_changed_are_not_given_to_workers(source):
    time.sleep(2 * SETTLE_NS / 1e9)
    first = made(source)
    again = Dataset.create(parent_datasets=[first])
    counting = Carrying()
    assert again.sync_folder(source, executor=counting) == (0, 0, 0)
    again.upload(executor=counting)
    assert counting.jobs == 0
    write(source, {"d0/3.txt": b"changed"})
    assert again.sync_folder(source, executor=counting) == (0, 0, 1)
    again.upload(executor=counting)
    assert counting.jobs == 2


def test_a_copy_written_by_workers_is_the_one_that_is_written_here(source, executor, another_machine):
    version = made(source)
    another_machine()
    copy = Path(Dataset.get(version.id).get_local_copy(executor=executor))
    assert read(copy) == read(source)
    assert os.readlink(copy / "z" / "link") == "large"
    assert (copy / "nothing here").is_dir()
    assert Dataset.get(version.id).verify_dataset_hash(copy) == []
    assert {path.stat().st_mode & 0o777 for path in copy.rglob("*")} == {0o444, 0o555}
    assert (copy / "z" / "large").stat().st_mtime_ns == (source / "z" / "large").stat().st_mtime_ns


def test_the_next_copy_links_what_it_can_and_workers_write_the_rest(source, executor):
    first = made(source)
    old = Path(first.get_local_copy(executor=executor))
    edited(source)
    new = Path(made(source, parent_datasets=[first]).get_local_copy(executor=executor))
    assert read(new) == read(source)
    assert (old / "z" / "copy").stat().st_ino == (new / "z" / "copy").stat().st_ino


def test_a_mutable_copy_is_written_by_workers_too(source, executor, home):
    copy = made(source).get_mutable_local_copy(home / "work", executor=executor)
    assert read(copy) == read(source)
    write(Path(copy), {"d0/0.txt": b"may be changed"})


def test_selected_files_and_linked_ones_are_copied_by_workers(source, executor, home):
    outside = write(home / "outside", {"far": b"from far away" * 1_000})
    dataset = Dataset.create("d", "p")
    dataset.add_files(source)
    dataset.add_external_files((outside / "far").as_uri(), dataset_path="linked")
    dataset.finalize(auto_upload=True)
    copy = dataset.get_local_copy(files=["linked/*", "z/*"], executor=executor)
    assert read(copy) == {"linked/far": b"from far away" * 1_000} | {
        name: data for name, data in read(source).items() if name.startswith("z/")
    }


@pytest.mark.parametrize("step", ["sync_folder", "upload"])
def test_a_worker_that_does_not_see_the_folder_says_so_and_nothing_was_added(source, step):
    dataset = Dataset.create("d", "p")
    if step == "upload":
        dataset.sync_folder(source)
    with pytest.raises(PathNotFound, match=r"The worker on .* sees no folder .*in.*under the same path"):
        getattr(dataset, step)(*([source] if step == "sync_folder" else []), executor=Elsewhere(source))
    assert dataset.is_dirty() == (step == "upload")
    dataset.sync_folder(source)
    dataset.finalize(auto_upload=True)
    assert read(dataset.get_local_copy()) == read(source)


def test_a_worker_that_does_not_see_the_cache_says_so_and_no_copy_is_left(source, home):
    dataset = made(source)
    with pytest.raises(PathNotFound, match=r"sees no folder .*cache"):
        dataset.get_local_copy(executor=Elsewhere(home / "cache"))
    assert not [path for path in (home / "cache").rglob("*") if "making" in path.name]
    assert read(dataset.get_local_copy()) == read(source)


@pytest.mark.parametrize("number", [1, 3])
def test_when_a_worker_is_lost_the_call_fails_and_can_be_repeated(source, number, home, another_machine):
    dataset = Dataset.create("d", "p")
    with pytest.raises(WorkerFailed, match="ConnectionError: the worker was lost"):
        dataset.sync_folder(source, executor=Failing(number))
    dataset.sync_folder(source)
    with pytest.raises(WorkerFailed, match="ConnectionError: the worker was lost"):
        dataset.upload(executor=Failing(number))
    assert dataset.is_dirty()
    dataset.upload(executor=Carrying())
    dataset.finalize()
    another_machine()
    again = Dataset.get(dataset.id)
    with pytest.raises(WorkerFailed, match="ConnectionError: the worker was lost"):
        again.get_local_copy(executor=Failing(number))
    assert read(again.get_local_copy()) == read(source)


def test_a_file_that_changes_before_a_worker_reads_it_is_told(source):
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(source)
    write(source, {"d0/3.txt": b"something else"})
    with pytest.raises(FileChanged, match=r"3\.txt.* changed since it was added"):
        dataset.upload(executor=Carrying())


def test_a_worker_that_finds_another_store_at_the_url_touches_nothing(source, home):
    dataset = made(source)
    url = StoreAddress.of(dataset._workspace).url
    with pytest.raises(StoreNotFound, match="Another store than the caller's"):
        opened_at(StoreAddress(url, "0" * 32, os.getpid()))
    assert opened_at(StoreAddress.of(dataset._workspace)) is dataset._workspace
    with pytest.raises(StoreNotFound, match="There is no store at"):
        workspace_at((home / "nowhere").as_uri())


def test_a_store_in_memory_is_not_looked_for_in_another_process(source, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", "memory://by-many")
    dataset = Dataset.create("d", "p")
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as processes:
        dataset.sync_folder(source, executor=processes)
        with pytest.raises(StoreNotFound, match="in the memory of another process"):
            dataset.upload(executor=processes)
    dataset.upload(executor=Carrying())
    dataset.finalize()
    assert read(dataset.get_local_copy()) == read(source)


class OnItsOwnDisk(Carrying):
    """A machine that has a copy of the store and takes it for the store: the caller sees nothing of what it puts."""

    def __init__(self, store):
        super().__init__()
        self.store = store

    def run(self, function, arguments):
        before = set(self.store.rglob("*"))
        done = function(*arguments)
        for path in set(self.store.rglob("*")) - before:
            if path.is_file():
                path.unlink()
        return done


def test_packs_that_a_worker_has_put_elsewhere_are_in_no_version(source, home):
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(source)
    with pytest.raises(WorkerFailed, match=r"What a worker has put is not in file://.*as it is seen from here"):
        dataset.upload(executor=OnItsOwnDisk(home / "store"))
    assert dataset.is_dirty()


def test_a_worker_that_sees_an_older_log_than_the_caller_packs_nothing(source, home):
    address = StoreAddress.of(made(source)._workspace)
    with pytest.raises(StorageFailed, match="an older state of file://"):
        packing._pack_job(packing._Job(address, 99, 0, [], {}))


def test_a_run_that_is_late_changes_nothing(source, home):
    dataset = made(source)
    copy = Path(dataset.get_mutable_local_copy(home / "work"))
    address, folder = StoreAddress.of(dataset._workspace), os.fsencode(copy)
    late = filling._Target(address, dataset.id, folder, folder + b"/.gone", read_only=False)
    with pytest.raises(PathNotFound, match="sees no folder"):
        filling._fill_job(late, dataset._entries())
    assert read(copy) == read(source)


def test_a_version_that_a_worker_does_not_know_is_no_empty_copy(source):
    dataset = made(source)
    entries = dataset._entries()
    address = StoreAddress.of(dataset._workspace)
    target = filling._Target(address, "0" * 32, os.fsencode(source), os.fsencode(source), read_only=True)
    with pytest.raises(DatasetNotFound):
        filling._fill_job(target, entries)
