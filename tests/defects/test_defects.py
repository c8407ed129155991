"""Each defect of docs/defects.md is absent: one test for each number, which fails when the defect is put back."""

import os
import random
from pathlib import Path

import pytest
from versions import version_of

from dataset_store import Dataset, StorageManager
from dataset_store.cli import main
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import (
    Conflict,
    DatasetNotFound,
    ExternalFileChanged,
    InvalidRequest,
    PathNotFound,
    StorageFailed,
    UnsupportedFileType,
    VersionExists,
    VersionIsFinal,
)
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.testing.folders import read, write


def chain(home, depth):
    """Versions of which each adds a file to the one before, the first of them first."""
    versions = []
    for number in range(depth):
        folder = write(home / "chain", {f"f{number}": noise(number, 2_000)})
        versions.append(version_of(folder, parent_datasets=versions[-1:]))
    return versions


def noise(seed, size):
    """Bytes that do not compress and have no chunk in common with those of another seed."""
    return random.Random(seed).randbytes(size)


def stored_bytes(home):
    return sum(path.stat().st_size for path in (home / "store").rglob("*") if path.is_file())


# --- finding versions ----------------------------------------------------------------------------------------------


def test_d01_a_tag_may_be_given_as_plain_text(home):
    made = version_of(write(home / "in", {"a": b"1"}), dataset_tags=["latest"])
    assert Dataset.get(dataset_tags="latest").id == made.id


def test_d02_of_two_versions_with_a_tag_the_one_finalized_last_is_found(home):
    version_of(write(home / "in", {"a": b"1"}), dataset_version="1.0.0", dataset_tags=["latest"])
    newer = version_of(write(home / "in", {"a": b"2"}), dataset_version="0.5", dataset_tags=["latest"])
    assert Dataset.get(dataset_tags=["latest"]).id == newer.id


def test_d03_versions_numbered_by_dates_are_found_and_ordered(home):
    made = [version_of(write(home / "in", {"a": day.encode()}), dataset_version=day) for day in ("2024-09-30", "v24_9")]
    latest = version_of(write(home / "in", {"a": b"3"}), dataset_version="2024-10-01")
    for version in [*made, latest]:
        found = Dataset.get(dataset_project="p", dataset_name="d", dataset_version=version.version)
        assert found.id == version.id
    assert Dataset.get(dataset_project="p", dataset_name="d").id == latest.id


def test_d04_a_listing_has_all_versions(home):
    for number in range(12):
        Dataset.create(f"d{number}", "p").finalize()
    assert len(Dataset.list_datasets(dataset_project="p")) == 12


def test_d05_a_listing_tells_how_far_each_version_is(home):
    published = version_of(write(home / "in", {"a": b"1"}))
    published.publish()
    completed = version_of(write(home / "in", {"a": b"2"}))
    draft = Dataset.create("d", "p")
    states = {row["id"]: row.get("status") for row in Dataset.list_datasets(only_completed=False)}
    assert states == {published.id: "published", completed.id: "completed", draft.id: "in_progress"}


# --- making versions -----------------------------------------------------------------------------------------------


def test_d06_the_current_task_may_be_asked_for_where_there_is_none(home, caplog):
    dataset = Dataset.create("d", "p", use_current_task=True)
    assert "no task is running" in caplog.text
    assert dataset.finalize()


def test_d07_versions_begun_at_the_same_time_get_numbers_of_their_own(home):
    drafts = [Dataset.create("d", "p") for _ in range(3)]
    for draft in drafts:
        draft.finalize()
    assert [draft.version for draft in drafts] == ["1.0.0", "1.0.1", "1.0.2"]


def test_d08_a_version_that_could_not_be_created_takes_no_number(home):
    for wrong in ({"output_uri": "file://another-host/folder"}, {"parent_datasets": ["0" * 32]}):
        with pytest.raises((InvalidRequest, DatasetNotFound)):
            Dataset.create("d", "p", **wrong)
    assert Dataset.list_datasets(only_completed=False) == []
    assert Dataset.create("d", "p").version == "1.0.0"


def test_d09_a_writable_copy_keeps_the_storage_of_the_version_it_copies(home):
    kept = version_of(write(home / "in", {"a": b"1"}), output_uri=str(home / "bucket"))
    child = Dataset.get(kept.id, writable_copy=True)
    assert child.get_default_storage() == kept.get_default_storage() == f"file://{home}/bucket"


def test_d10_empty_directories_come_back(home):
    folder = write(home / "in", {"a": b"1"})
    (folder / "empty" / "inner").mkdir(parents=True)
    assert Path(version_of(folder).get_local_copy(), "empty", "inner").is_dir()


def test_d11_links_to_directories_come_back(home):
    folder = write(home / "in", {"real/a": b"1"})
    (folder / "link").symlink_to("real")
    copy = Path(version_of(folder).get_local_copy())
    assert (copy / "link").is_symlink()
    assert (copy / "link" / "a").read_bytes() == b"1"


def test_d12_a_link_that_cannot_be_kept_is_named_and_not_left_out(home):
    folder = write(home / "in", {"a": b"1"})
    for target in (home, home / "nowhere"):
        (folder / "link").symlink_to(target)
        with pytest.raises(UnsupportedFileType, match="link"):
            Dataset.create("d", "p").add_files(folder)
        (folder / "link").unlink()


def test_d13_a_directory_is_removed_by_its_name(home):
    draft = Dataset.create("d", "p")
    draft.add_files(write(home / "in", {"a": b"1", "d/b": b"2", "d/e/c": b"3"}))
    assert draft.remove_files("d/") == 2
    assert draft.list_files() == ["a"]


def test_d14_what_was_synced_outlives_the_process(home, new_process):
    draft = Dataset.create("d", "p")
    draft.sync_folder(write(home / "in", {"a": b"1"}))
    new_process()
    later = Dataset.get(draft.id)
    assert later.list_files() == ["a"]
    later.finalize(auto_upload=True)
    assert read(later.get_local_copy()) == {"a": b"1"}


def test_d15_a_sync_that_changes_nothing_leaves_nothing_to_upload(home):
    folder = write(home / "in", {"a": b"1"})
    draft = Dataset.create(parent_datasets=[version_of(folder)])
    assert draft.sync_folder(folder) == (0, 0, 0)
    assert not draft.is_dirty()


def test_d16_a_sync_of_which_files_are_only_modified_takes_them(home):
    folder = write(home / "in", {"a": b"1", "b": b"2"})
    draft = Dataset.create(parent_datasets=[version_of(folder)])
    assert draft.sync_folder(write(folder, {"a": b"changed"})) == (0, 0, 1)
    draft.finalize(auto_upload=True)
    assert read(draft.get_local_copy()) == {"a": b"changed", "b": b"2"}


def test_d17_a_file_removed_after_its_upload_does_not_come_back(home):
    draft = Dataset.create("d", "p")
    draft.add_files(write(home / "in", {"a": b"1", "b": b"2"}))
    draft.upload()
    draft.remove_files("b")
    draft.finalize(auto_upload=True)
    assert draft.list_files() == ["a"]
    assert read(draft.get_local_copy()) == {"a": b"1"}


def test_d18_a_sync_into_a_final_version_is_refused_with_what_to_do_instead(home, capsys):
    made = version_of(write(home / "in", {"a": b"1"}))
    write(home / "in", {"a": b"2"})
    assert main(["sync", "--folder", str(home / "in"), "--id", made.id]) == 4
    assert f"create --parents {made.id}" in capsys.readouterr().err
    assert main(["sync", "--folder", str(home / "in"), "--parents", made.id]) == 0


def refuses_every_change(dataset, folder):
    for change in (
        lambda: dataset.add_files(folder),
        lambda: dataset.add_external_files(str(folder)),
        lambda: dataset.remove_files("a"),
        lambda: dataset.sync_folder(folder),
        lambda: dataset.upload(),
        lambda: dataset.finalize(),
    ):
        with pytest.raises(VersionIsFinal):
            change()


def test_d19_the_object_that_made_a_version_cannot_change_it_any_more(home):
    made = version_of(write(home / "in", {"a": b"1"}))
    before = read(home / "store")
    refuses_every_change(made, write(home / "more", {"b": b"2"}))
    assert made.list_files() == ["a"]
    assert not made.is_dirty()
    assert read(home / "store") == before


def test_d20_an_object_got_of_a_final_version_cannot_change_it(home, another_machine):
    made = version_of(write(home / "in", {"a": b"1"}))
    before = read(home / "store")
    another_machine()
    refuses_every_change(Dataset.get(made.id), write(home / "more", {"b": b"2"}))
    assert read(home / "store") == before
    another_machine("third")
    assert Dataset.get(made.id).list_files() == ["a"]


# --- storing -------------------------------------------------------------------------------------------------------


def test_d21_equal_files_of_one_add_are_stored_once(home):
    content = noise(1, 100_000)
    version_of(write(home / "in", {str(number): content for number in range(10)}))
    assert stored_bytes(home) < 150_000


def test_d22_a_file_renamed_in_a_child_can_be_read(home, another_machine):
    folder = write(home / "in", {"old/y.bin": noise(1, 100_000), "old/short": b"short"})
    first = version_of(folder)
    (folder / "old").rename(folder / "new")
    second = version_of(folder, parent_datasets=[first])
    another_machine()
    assert read(Dataset.get(second.id).get_local_copy()) == read(folder)


def test_d23_a_renamed_folder_stores_no_data(home):
    folder = write(home / "in", {f"old/{number}": noise(number, 40_000) for number in range(5)})
    first = version_of(folder)
    before = stored_bytes(home)
    (folder / "old").rename(folder / "new")
    version_of(folder, parent_datasets=[first])
    assert stored_bytes(home) - before < 10_000


def test_d24_a_file_removed_and_added_again_is_stored_once(home):
    folder = write(home / "in", {"a": b"1", "b": noise(1, 200_000)})
    first = version_of(folder)
    (folder / "b").unlink()
    second = version_of(folder, parent_datasets=[first])
    before = stored_bytes(home)
    version_of(write(folder, {"b": noise(1, 200_000)}), parent_datasets=[second])
    assert stored_bytes(home) - before < 10_000


def test_d25_a_byte_more_in_a_large_file_stores_a_small_part_of_it(home):
    content = noise(1, 2_000_000)
    folder = write(home / "in", {"large": content})
    first = version_of(folder)
    before = stored_bytes(home)
    version_of(write(folder, {"large": content[:1_000_000] + b"!" + content[1_000_000:]}), parent_datasets=[first])
    assert stored_bytes(home) - before < 600_000


def test_d26_the_entry_of_a_version_does_not_grow_with_its_files(home):
    def entry_size(count, name):
        version_of(write(home / name, {f"f{number}": b"%d" % number for number in range(count)}), dataset_name=name)
        newest = max((home / "store" / "log").rglob("*"), key=lambda path: path.name if path.is_file() else "")
        return newest.stat().st_size

    assert abs(entry_size(1_000, "many") - entry_size(10, "few!")) < 50


def test_d27_changing_a_draft_asks_nothing_of_the_store(home, traffic):
    folder = write(home / "in", {"a": b"1", "b": b"2"})
    draft = Dataset.create("d", "p")
    traffic.reset()
    draft.add_files(folder)
    draft.remove_files("a")
    draft.sync_folder(folder)
    assert traffic.requests == 0


def test_d28_times_before_1980_come_back(home):
    folder = write(home / "in", {"epoch": b"1", "before": b"2"})
    os.utime(folder / "epoch", ns=(0, 0))
    os.utime(folder / "before", ns=(-(10**18), -(10**18)))
    copy = Path(version_of(folder).get_local_copy())
    assert [(copy / name).stat().st_mtime_ns for name in ("epoch", "before")] == [0, -(10**18)]


def test_d29_exec_bits_and_times_come_back(home):
    folder = write(home / "in", {"run.sh": b"#!/bin/sh\n", "plain": b"1"})
    (folder / "run.sh").chmod(0o755)
    os.utime(folder / "plain", ns=(1, 10**18))
    copy = Path(version_of(folder).get_local_copy())
    assert (copy / "run.sh").stat().st_mode & 0o100
    assert not (copy / "plain").stat().st_mode & 0o100
    assert (copy / "plain").stat().st_mtime_ns == 10**18


def test_d30_a_version_is_not_final_before_its_upload_succeeded(home, monkeypatch, another_machine):
    draft = Dataset.create("d", "p")
    draft.add_files(write(home / "in", {"a": b"1"}))

    def refuse(*_):
        raise StorageFailed("The disk is gone.", "Repeat.")

    with monkeypatch.context() as broken:
        broken.setattr(PosixBackend, "put", refuse)
        with pytest.raises(StorageFailed):
            draft.finalize(auto_upload=True)
    assert not draft.is_final()
    assert Dataset.list_datasets() == []
    draft.finalize(auto_upload=True)
    another_machine()
    assert read(Dataset.get(draft.id).get_local_copy()) == {"a": b"1"}


def test_d31_finalizing_costs_the_same_at_any_depth(home, traffic):
    requests = []
    versions = []
    for number in range(8):
        draft = Dataset.create("d", "p", parent_datasets=versions[-1:])
        draft.add_files(write(home / "in", {f"f{number}": b"%d" % number}))
        draft.upload()
        traffic.reset()
        draft.finalize()
        requests.append(traffic.requests)
        versions.append(draft)
    assert requests[-1] <= requests[1]


# --- parents -------------------------------------------------------------------------------------------------------


def test_d32_all_of_three_parents_are_merged(home):
    parents = [
        version_of(write(home / f"in{number}", {f"own{number}": b"1"}), dataset_name=f"n{number}")
        for number in range(3)
    ]
    merged = Dataset.create("all", "p", parent_datasets=parents)
    merged.finalize()
    assert sorted(read(merged.get_local_copy())) == ["own0", "own1", "own2"]


def test_d33_the_last_of_a_chain_of_versions_is_read_whole(home, another_machine):
    last = chain(home, 6)[-1]
    another_machine()
    assert sorted(read(Dataset.get(last.id).get_local_copy())) == [f"f{number}" for number in range(6)]


def test_d34_parents_of_which_no_file_is_left_stay_in_the_graph(home):
    first = version_of(write(home / "one", {"a": b"1"}))
    second = version_of(write(home / "two", {"b": b"2"}), parent_datasets=[first])
    assert second.get_dependency_graph() == {second.id: [first.id], first.id: []}


def test_d35_what_a_squashed_version_removed_stays_removed(home):
    first = version_of(write(home / "one", {"kept": b"1", "removed": b"2"}))
    second = version_of(write(home / "two", {"kept": b"1"}), parent_datasets=[first])
    assert Dataset.squash("s", [first.id, second.id]).list_files() == ["kept"]


def test_d36_squashing_copies_no_data(home, traffic, another_machine):
    ids = [version_of(write(home / name, {name: noise(name, 300_000)}), dataset_name=name).id for name in ("a", "b")]
    another_machine()
    traffic.reset()
    squashed = Dataset.squash("s", ids)
    assert traffic.bytes_read < 30_000
    assert traffic.bytes_written < 30_000
    assert read(squashed.get_local_copy()) == {name: noise(name, 300_000) for name in ("a", "b")}


# --- reading -------------------------------------------------------------------------------------------------------


def test_d37_of_an_ancestor_only_what_is_left_of_it_is_fetched(home, traffic, another_machine):
    files = {f"f{number}": noise(number, 200_000) for number in range(8)}
    first = version_of(write(home / "in", files))
    second = version_of(write(home / "one", {"f3": files["f3"]}), parent_datasets=[first])
    another_machine()
    traffic.reset()
    assert read(Dataset.get(second.id).get_local_copy()) == {"f3": files["f3"]}
    assert traffic.bytes_read < 300_000


def test_d38_reading_asks_for_no_ancestor_at_any_depth(home, traffic, another_machine):
    versions = chain(home, 10)
    batches, parts = [], []
    for version in (versions[1], versions[9]):
        another_machine(version.id)
        traffic.reset()
        Dataset.get(version.id).get_local_copy()
        batches.append(traffic.requests)
        parts.append(traffic.parts_read)
    assert batches[1] <= batches[0]
    assert parts[1] - parts[0] <= 9 - 1, "one for the data of each file more, which lies in a pack of its own"


def test_d39_a_copy_that_is_there_is_handed_out_without_a_request(home, traffic, new_process):
    made = chain(home, 3)[-1]
    path = made.get_local_copy()
    new_process()
    traffic.reset()
    assert Dataset.get(made.id).get_local_copy() == path
    assert traffic.requests == 0


def test_d40_a_file_damaged_at_the_same_size_is_found(home):
    made = version_of(write(home / "in", {"a": b"right", "b": b"2"}))
    damaged = Path(made.get_local_copy(), "a")
    before = damaged.stat()
    damaged.chmod(0o644)
    damaged.write_bytes(b"wrong")
    os.utime(damaged, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert made.verify_dataset_hash() == ["a"]


def test_d41_a_file_missing_from_a_folder_is_listed(home):
    made = version_of(write(home / "in", {"a": b"1", "b": b"2"}))
    assert made.verify_dataset_hash(write(home / "other", {"a": b"1"})) == ["b"]


def test_d42_a_local_copy_is_read_only_and_a_mutable_one_shares_nothing_with_it(home):
    made = version_of(write(home / "in", {"a": b"1", "large": noise(1, 100_000)}))
    copy, work = Path(made.get_local_copy()), Path(made.get_mutable_local_copy(home / "work"))
    for name in ("a", "large"):
        assert not (copy / name).stat().st_mode & 0o222
        (work / name).write_bytes(b"mine")
    assert made.verify_dataset_hash(copy) == []


def test_d43_a_mutable_copy_fills_no_cache(home, another_machine):
    made = version_of(write(home / "in", {"a": noise(1, 100_000)}))
    another_machine()
    Dataset.get(made.id).get_mutable_local_copy(home / "work")
    assert workspaces.open_workspace().copies.all() == []


# --- the cache -----------------------------------------------------------------------------------------------------


def test_d44_the_cache_is_bounded_by_its_bytes(home, monkeypatch, new_process):
    monkeypatch.setenv("DATASET_STORE_CACHE_BYTES", "250000")
    ids = [version_of(write(home / name, {name: noise(name, 100_000)}), dataset_name=name).id for name in "abcd"]
    paths = []
    for version_id in ids:
        new_process()
        paths.append(Path(Dataset.get(version_id).get_local_copy()))
    assert sum(path.exists() for path in paths) == 2
    assert paths[-1].exists()


def test_d45_a_copy_that_another_process_uses_is_not_evicted(home, monkeypatch, second_process):
    monkeypatch.setenv("DATASET_STORE_CACHE_BYTES", "1")
    ids = [version_of(write(home / name, {name: b"1"}), dataset_name=name).id for name in "ab"]
    second_process()
    used = Dataset.get(ids[0]).get_local_copy()
    second_process()
    Dataset.get(ids[1]).get_local_copy()
    assert Path(used).exists()
    assert read(used) == {"a": b"1"}


def test_d46_evicting_the_copy_of_a_parent_leaves_that_of_its_child_whole(home, monkeypatch, new_process):
    files = {"a": noise(1, 1_000), "b": noise(2, 100_000)}
    first = version_of(write(home / "in", files))
    second = version_of(write(home / "in", {"c": b"3"}), parent_datasets=[first])
    parent = Path(first.get_local_copy())
    second.get_local_copy()
    monkeypatch.setenv("DATASET_STORE_CACHE_BYTES", "1")
    new_process()
    child = Dataset.get(second.id).get_local_copy()
    assert workspaces.open_workspace().copies.evict() == [first.id]
    assert not parent.exists()
    assert read(child) == files | {"c": b"3"}


# --- deleting and renaming -----------------------------------------------------------------------------------------


def test_d47_a_parent_is_not_deleted_by_its_id_unless_that_is_forced(home):
    first = version_of(write(home / "in", {"a": b"1"}))
    second = version_of(write(home / "in", {"b": b"2"}), parent_datasets=[first])
    with pytest.raises(Conflict, match=second.id):
        Dataset.delete(first.id)
    assert Dataset.get(first.id).list_files() == ["a"]


def test_d48_children_of_a_deleted_version_can_be_read(home, another_machine):
    first = version_of(write(home / "in", {"a": b"1"}))
    second = version_of(write(home / "in", {"b": b"2"}), parent_datasets=[first])
    Dataset.delete(first.id, force=True)
    another_machine()
    assert read(Dataset.get(second.id).get_local_copy()) == {"a": b"1", "b": b"2"}


def test_d49_a_delete_that_means_several_versions_raises(home):
    versions = [version_of(write(home / "in", {"a": b"%d" % number})) for number in range(2)]
    with pytest.raises(InvalidRequest, match="2 versions"):
        Dataset.delete(dataset_project="p", dataset_name="d")
    assert len(Dataset.list_datasets()) == 2
    Dataset.delete(dataset_project="p", dataset_name="d", dataset_version=versions[0].version)
    assert [row["id"] for row in Dataset.list_datasets()] == [versions[1].id]


def test_d50_a_rename_that_cannot_be_made_raises(home):
    version_of(write(home / "in", {"a": b"1"}))
    version_of(write(home / "in", {"a": b"1"}), dataset_name="taken")
    with pytest.raises(VersionExists):
        Dataset.rename("taken", "p", "d")
    with pytest.raises(DatasetNotFound):
        Dataset.rename("new", "p", "missing")


# --- external links ------------------------------------------------------------------------------------------------


def linked(url):
    dataset = Dataset.create("d", "p")
    dataset.add_external_files(str(url))
    dataset.finalize(auto_upload=True)
    return dataset


def change_behind(path, content):
    """Write a file of another owner; its time is set, so that no clock decides whether it changed."""
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))


def test_d51_a_linked_file_that_changed_at_the_same_size_is_modified_when_added_again(home):
    far = write(home / "far", {"one.txt": b"one"})
    child = Dataset.create(parent_datasets=[linked(far)])
    change_behind(far / "one.txt", b"two")
    child.add_external_files(str(far))
    assert child.list_modified_files() == ["one.txt"]


def test_d52_a_linked_file_that_is_not_what_was_linked_is_not_handed_out(home):
    far = write(home / "far", {"one.txt": b"one"})
    made = linked(far)
    change_behind(far / "one.txt", b"two")
    with pytest.raises(ExternalFileChanged, match=r"one\.txt"):
        made.get_local_copy()


def test_d53_a_source_that_cannot_be_reached_raises(home):
    draft = Dataset.create("d", "p")
    with pytest.raises(PathNotFound):
        draft.add_external_files(str(home / "nothing"))
    assert draft.list_files() == []


def test_d54_paths_of_linked_files_are_whole(home):
    far = write(home / "far", {"one.txt": b"one", "sub/deep/two.txt": b"two"})
    for url in (far, f"file://{far}", f"file://{far}/", os.path.relpath(far)):
        draft = Dataset.create("d", "p")
        assert draft.add_external_files(str(url)) == 2
        assert draft.list_files() == ["one.txt", "sub/deep/two.txt"]


def test_d55_links_are_listed(home):
    made = linked(write(home / "far", {"one.txt": b"one"}))
    assert made.list_files() == ["one.txt"]
    assert made.list_added_files() == ["one.txt"]
    assert [entry.link for entry in made.link_entries] == [f"file://{home}/far/one.txt"]


def test_d56_the_number_of_links_does_not_show_in_what_is_written(home, traffic):
    far = write(home / "far", {f"f{number}": b"%d" % number for number in range(50)})
    draft = Dataset.create("d", "p")
    traffic.reset()
    assert draft.add_external_files(str(far)) == 50
    assert traffic.requests == 0
    draft.finalize(auto_upload=True)
    assert traffic.requests < 15


# --- elsewhere -----------------------------------------------------------------------------------------------------


def test_d57_a_file_that_cannot_be_had_raises(home):
    with pytest.raises(PathNotFound):
        StorageManager.get_local_copy(f"file://{home}/nothing")


def test_d58_a_store_that_was_moved_can_be_read(home, monkeypatch, another_machine):
    made = version_of(write(home / "in", {"a": b"1"}))
    (home / "store").rename(home / "moved")
    monkeypatch.setenv("DATASET_STORE_URL", str(home / "moved"))
    another_machine()
    assert read(Dataset.get(made.id).get_local_copy()) == {"a": b"1"}


def test_d59_each_working_folder_remembers_a_version_of_its_own(home, monkeypatch, capsys):
    begun = {}
    for name in ("one", "two"):
        (home / name).mkdir()
        monkeypatch.chdir(home / name)
        assert main(["create", "--name", name]) == 0
        begun[name] = capsys.readouterr().out.strip()
    monkeypatch.chdir(home / "one")
    assert main(["close"]) == 0
    assert Dataset.get(begun["one"]).is_final()
    assert not Dataset.get(begun["two"]).is_final()


def test_d60_exit_codes_tell_errors_apart(home, capsys):
    made = version_of(write(home / "in", {"a": b"1"}))
    assert main(["remove", "--files", "a", "--id", made.id]) == 4
    assert main(["list", "--id", "0" * 32]) == 3
    assert main(["create"]) == 2
    assert "Error" in capsys.readouterr().err


def test_d61_a_copy_that_is_there_is_handed_out_without_a_look_at_its_files(home, monkeypatch, new_process):
    made = version_of(write(home / "in", {"a": b"1", "sub/b": b"2"}))
    path = made.get_local_copy()
    new_process()
    seen = []
    with monkeypatch.context() as watched:
        for name in ("open", "stat", "lstat", "scandir"):
            real = getattr(os, name)
            watched.setattr(os, name, lambda at, *rest, real=real, **named: seen.append(at) or real(at, *rest, **named))
        assert Dataset.get(made.id).get_local_copy() == path
    assert path in seen
    assert [at for at in seen if str(at).startswith(f"{path}/")] == []
