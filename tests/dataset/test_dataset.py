"""The façade: what a user does, from a folder to a version and back."""

import multiprocessing
import os
import pickle
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import (
    DatasetNotFound,
    FileChanged,
    InvalidRequest,
    NotFinal,
    PathNotFound,
    PendingUploads,
    TargetNotEmpty,
    UnsupportedFileType,
    VersionExists,
    VersionIsFinal,
)
from dataset_store.testing.folders import read, write


def version(folder: Path, **create) -> Dataset:
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset


def forget_workspaces() -> None:
    """As a new process would begin."""
    workspaces._open.clear()


def test_a_folder_becomes_a_version_and_a_version_becomes_a_folder(home):
    files = {"a.txt": b"one", "sub/b.bin": os.urandom(300_000), "sub/deep/c": b""}
    dataset = version(write(home / "in", files))
    assert read(dataset.get_local_copy()) == files
    assert dataset.list_files() == sorted(files)
    assert dataset.is_final()


def test_the_content_id_of_a_file_is_its_blake3(home):
    files = {"a.txt": b"one", "big": os.urandom(500_000)}
    dataset = version(write(home / "in", files))
    assert {e.relative_path: e.hash for e in dataset.file_entries} == {
        n: blake3(c).hexdigest() for n, c in files.items()
    }


def test_exec_bits_times_links_empty_directories_and_odd_names_come_back(home):
    folder = write(home / "in", {"run.sh": b"#!/bin/sh\n", "plain": b"x", "sub/target": b"t"})
    (folder / "run.sh").chmod(0o755)
    os.utime(folder / "plain", ns=(1, 123_456_789_012_345_678))
    (folder / "sub" / "link").symlink_to("target")
    (folder / "empty").mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).write_bytes(b"odd")
    copy = Path(version(folder).get_local_copy())
    assert stat.S_IMODE((copy / "run.sh").stat().st_mode) == 0o555
    assert stat.S_IMODE((copy / "plain").stat().st_mode) == 0o444
    assert (copy / "plain").stat().st_mtime_ns == 123_456_789_012_345_678
    assert os.readlink(copy / "sub" / "link") == "target"
    assert (copy / "empty").is_dir()
    assert Path(os.fsdecode(os.fsencode(copy) + b"/\xff\xfe")).read_bytes() == b"odd"


def test_a_child_version_lists_what_it_added_removed_and_modified(home):
    folder = write(home / "in", {"kept": b"k", "gone": b"g", "changed": b"1"})
    first = version(folder)
    (folder / "gone").unlink()
    write(folder, {"changed": b"22", "new": b"n"})
    second = Dataset.create(parent_datasets=[first])
    assert second.sync_folder(folder) == (1, 1, 1)
    for _ in range(2):
        assert second.list_added_files() == ["new"]
        assert second.list_removed_files() == ["gone"]
        assert second.list_modified_files() == ["changed"]
        if not second.is_final():
            second.finalize(auto_upload=True)
    assert (second.name, second.project, second.version) == ("d", "p", "1.0.1")
    assert second.get_dependency_graph() == {second.id: [first.id], first.id: []}


def test_a_change_of_time_alone_is_no_change(home):
    folder = write(home / "in", {"a": b"1"})
    first = version(folder)
    os.utime(folder / "a")
    assert Dataset.create(parent_datasets=[first]).sync_folder(folder) == (0, 0, 0)


def test_a_renamed_folder_stores_no_data(home):
    folder = write(home / "in", {f"old/{n}": os.urandom(5000) for n in range(20)})
    first = version(folder)
    before = size_of(home / "store" / "packs")
    (folder / "old").rename(folder / "new")
    second = version(folder, parent_datasets=[first])
    assert size_of(home / "store" / "packs") - before < 5000
    assert sorted(read(second.get_local_copy())) == sorted(f"new/{n}" for n in range(20))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_equal_contents_are_stored_once(home):
    content = os.urandom(200_000)
    version(write(home / "in", {str(n): content for n in range(10)}))
    assert size_of(home / "store" / "packs") < 230_000


def test_later_parents_win_and_removals_of_one_side_stay(home):
    base = version(write(home / "in", {"both": b"0", "left-removes": b"1", "untouched": b"2"}))
    left_folder = write(home / "left", {"both": b"left", "untouched": b"2", "left-adds": b"3"})
    right_folder = write(
        home / "right", {"both": b"right", "left-removes": b"1", "untouched": b"2", "right-adds": b"4"}
    )
    left = version(left_folder, parent_datasets=[base], dataset_name="left")
    right = version(right_folder, parent_datasets=[base], dataset_name="right")
    merged = Dataset.create(dataset_name="merged", parent_datasets=[left, right])
    assert not merged.is_dirty()
    merged.finalize()
    expected = {"both": b"right", "untouched": b"2", "left-adds": b"3", "right-adds": b"4"}
    assert read(merged.get_local_copy()) == expected
    other = Dataset.create(dataset_name="merged", parent_datasets=[right, left])
    other.finalize()
    assert read(other.get_local_copy()) == expected | {"both": b"left"}
    assert merged.get_dependency_graph()[merged.id] == [left.id, right.id]


def test_three_parents_are_folded_from_left_to_right(home):
    parents = [
        version(write(home / f"in{n}", {"shared": b"%d" % n, f"own{n}": b"x"}), dataset_name=f"n{n}") for n in range(3)
    ]
    merged = Dataset.create(dataset_name="all", parent_datasets=parents)
    merged.finalize()
    assert read(merged.get_local_copy()) == {"shared": b"2", "own0": b"x", "own1": b"x", "own2": b"x"}


def test_three_parents_of_many_files_are_merged(home):
    """So many files that the tree between two merges has inner nodes, which no pack holds."""
    many = {f"many/{number}": b"%d" % number for number in range(1_000)}
    parents = [version(write(home / f"in{at}", many | {f"own{at}": b"x"})) for at in range(3)]
    merged = Dataset.create(dataset_name="all", dataset_project="p", parent_datasets=parents)
    merged.finalize()
    assert read(merged.get_local_copy()) == many | dict.fromkeys(("own0", "own1", "own2"), b"x")


def test_a_version_is_found_by_id_name_number_and_tag(home):
    folder = write(home / "in", {"a": b"1"})
    first = version(folder, dataset_tags=["x"])
    second = version(write(folder, {"a": b"2"}), parent_datasets=[first], dataset_tags=["x", "y"])
    assert Dataset.get(first.id).version == "1.0.0"
    assert Dataset.get(dataset_project="p", dataset_name="d").id == second.id
    assert Dataset.get(dataset_project="p", dataset_name="d", dataset_version="1.0.0").id == first.id
    assert Dataset.get(dataset_tags="x").id == second.id
    assert Dataset.get(dataset_tags=["x"]).id == second.id
    with pytest.raises(DatasetNotFound):
        Dataset.get(dataset_name="nothing")
    with pytest.raises(InvalidRequest):
        Dataset.get()
    with pytest.raises(InvalidRequest):
        Dataset.get(first.id, dataset_name="d")


def test_of_two_versions_with_one_tag_the_one_finalized_last_is_taken(home):
    high = version(write(home / "a", {"a": b"1"}), dataset_version="9.0", dataset_tags=["t"])
    low = version(write(home / "b", {"a": b"2"}), dataset_version="1.0", dataset_tags=["t"])
    assert Dataset.get(dataset_tags="t").id == low.id
    assert Dataset.get(dataset_project="p", dataset_name="d").id == high.id


def test_tags_can_be_replaced_after_finalize(home):
    dataset = version(write(home / "in", {"a": b"1"}), dataset_tags=["old"])
    dataset.tags = ["b", "a"]
    assert Dataset.get(dataset.id).tags == ["a", "b"]
    dataset.tags = []
    with pytest.raises(DatasetNotFound):
        Dataset.get(dataset_tags=["a", "old"])


def test_a_final_version_refuses_every_change_before_touching_anything(home):
    folder = write(home / "in", {"a": b"1"})
    dataset = version(folder)
    for held in (dataset, Dataset.get(dataset.id)):
        for change in (
            lambda d: d.add_files(folder),
            lambda d: d.remove_files("a"),
            lambda d: d.sync_folder(folder),
            lambda d: d.upload(),
            lambda d: d.finalize(),
        ):
            with pytest.raises(VersionIsFinal):
                change(held)
    assert dataset.list_files() == ["a"]


def test_each_step_of_a_draft_may_be_its_own_process(home):
    folder = write(home / "in", {"a": b"1", "b": b"2"})
    draft_id = Dataset.create(dataset_name="d", dataset_project="p").id
    for step in (
        lambda d: d.add_files(folder),
        lambda d: d.remove_files("b"),
        lambda d: d.upload(),
        lambda d: d.finalize(),
    ):
        forget_workspaces()
        step(Dataset.get(draft_id))
    forget_workspaces()
    assert Dataset.get(draft_id).is_final()
    assert read(Dataset.get(dataset_name="d").get_local_copy()) == {"a": b"1"}


def test_a_draft_is_found_by_name_where_no_final_version_is(home):
    """Scripts make a version in steps, each of which asks for it by name."""
    first = Dataset.create("d", "p", dataset_tags=["raw"])
    second = Dataset.create("d", "p")
    assert Dataset.get(dataset_project="p", dataset_name="d") == second
    assert Dataset.get(dataset_name="d", dataset_tags=["raw"]) == first
    assert Dataset.get(dataset_name="d", dataset_project="p", auto_create=True) == second
    for options in (
        {"only_completed": True},
        {"only_published": True},
        {"dataset_version": "7"},
        {"dataset_tags": "x"},
    ):
        with pytest.raises(DatasetNotFound):
            Dataset.get(dataset_name="d", **options)
    with pytest.raises(NotFinal):
        Dataset.get(dataset_name="d", writable_copy=True)
    first.finalize()
    assert Dataset.get(dataset_name="d") == first
    third = Dataset.create(parent_datasets=[first])
    assert Dataset.get(dataset_name="d") == first
    assert Dataset.get(dataset_name="d", dataset_version=third.version) == third


def test_a_draft_is_no_parent_and_has_no_copy(home):
    draft = Dataset.create(dataset_name="d")
    with pytest.raises(NotFinal):
        Dataset.create(dataset_name="e", parent_datasets=[draft])
    with pytest.raises(NotFinal):
        draft.get_local_copy()


def test_finalize_asks_for_an_upload_first(home):
    draft = Dataset.create(dataset_name="d")
    draft.add_files(write(home / "in", {"a": b"1"}))
    assert draft.is_dirty()
    with pytest.raises(PendingUploads):
        draft.finalize()
    assert draft.finalize(raise_on_error=False) is False
    assert draft.upload() is True
    assert not draft.is_dirty()
    assert draft.finalize() is True


def test_an_empty_dataset_is_a_version_too(home):
    dataset = Dataset.create(dataset_name="empty")
    dataset.finalize()
    assert dataset.list_files() == []
    assert read(dataset.get_local_copy()) == {}
    child = Dataset.create(parent_datasets=[dataset])
    child.add_files(write(home / "in", {"a": b"1"}))
    child.finalize(auto_upload=True)
    assert read(child.get_local_copy()) == {"a": b"1"}


def test_an_explicit_version_number_is_taken_once(home):
    folder = write(home / "in", {"a": b"1"})
    rival = Dataset.create(dataset_name="d", dataset_project="p", dataset_version="2.0")
    version(folder, dataset_version="2.0")
    with pytest.raises(VersionExists):
        Dataset.create(dataset_name="d", dataset_project="p", dataset_version="2.0")
    rival.add_files(folder)
    rival.upload()
    with pytest.raises(VersionExists):
        rival.finalize()


def test_automatic_numbers_of_two_drafts_do_not_clash(home):
    drafts = [Dataset.create(dataset_name="d", dataset_project="p") for _ in range(3)]
    for draft in drafts:
        draft.finalize()
    assert [draft.version for draft in drafts] == ["1.0.0", "1.0.1", "1.0.2"]


def test_a_file_changed_after_it_was_added_is_refused_at_upload(home):
    folder = write(home / "in", {"a": b"1", "large": os.urandom(200_000)})
    draft = Dataset.create(dataset_name="d")
    draft.sync_folder(folder)
    (folder / "large").write_bytes(os.urandom(200_000))
    with pytest.raises(FileChanged, match="large"):
        draft.upload()
    draft.sync_folder(folder)
    draft.finalize(auto_upload=True)
    assert read(draft.get_local_copy()) == read(folder)


def test_add_files_counts_added_files_and_skips_those_it_has(home):
    folder = write(home / "in", {"a.jpg": b"1", "b.txt": b"2", "sub/c.jpg": b"3"})
    draft = Dataset.create(dataset_name="d")
    assert draft.add_files(folder, wildcard="*.jpg") == 2
    assert draft.add_files(folder) == 1
    write(folder, {"a.jpg": b"changed"})
    assert draft.add_files(folder) == 0
    assert draft.add_files(folder / "a.jpg", dataset_path="images") == 1
    assert draft.add_files(folder / "sub" / "c.jpg", local_base_folder=folder) == 0
    assert draft.list_files() == ["a.jpg", "b.txt", "images/a.jpg", "sub/c.jpg"]
    with pytest.raises(PathNotFound):
        draft.add_files(home / "missing")


def test_remove_files_takes_paths_directories_and_wildcards(home):
    names = ["a.jpg", "d/b.jpg", "d/c.txt", "e/f.txt"]
    draft = Dataset.create(dataset_name="d")
    draft.add_files(write(home / "in", {name: b"x" for name in names}))
    assert draft.remove_files("missing") == 0
    assert draft.remove_files("d/") == 2
    assert draft.remove_files("*.txt") == 1
    assert draft.list_files() == ["a.jpg"]
    assert draft.remove_files("*") == 1


def test_a_directory_may_take_a_files_place_and_a_file_a_directorys(home):
    draft = Dataset.create(dataset_name="d")
    draft.add_files(write(home / "one", {"x": b"file", "y/z": b"below"}))
    draft.add_files(write(home / "two", {"x/inner": b"now a folder", "y": b"now a file"}))
    draft.finalize(auto_upload=True)
    assert read(draft.get_local_copy()) == {"x/inner": b"now a folder", "y": b"now a file"}


def test_sync_into_a_directory_leaves_the_rest_alone(home):
    draft = Dataset.create(dataset_name="d")
    draft.add_files(write(home / "one", {"a": b"1", "sub/b": b"2"}))
    assert draft.sync_folder(write(home / "two", {"c": b"3"}), dataset_path="sub") == (1, 1, 0)
    assert draft.list_files() == ["a", "sub/c"]


def test_a_mutable_copy_shares_nothing_with_the_cache(home):
    files = {"a": b"1", "big": os.urandom(400_000)}
    dataset = version(write(home / "in", files))
    copy = Path(dataset.get_local_copy())
    work = Path(dataset.get_mutable_local_copy(home / "work"))
    assert read(work) == files
    assert {p.stat().st_ino for p in work.rglob("*")}.isdisjoint(p.stat().st_ino for p in copy.rglob("*"))
    (work / "a").write_bytes(b"mine")
    assert read(copy) == files
    with pytest.raises(TargetNotEmpty):
        dataset.get_mutable_local_copy(home / "work")
    assert read(dataset.get_mutable_local_copy(home / "work", overwrite=True)) == files


def test_unchanged_files_of_a_new_version_are_links_to_the_earlier_copy(home):
    folder = write(home / "in", {"same": b"s" * 1000, "moved": b"m" * 1000, "changed": b"1"})
    first = version(folder)
    old = Path(first.get_local_copy())
    (folder / "moved").rename(folder / "elsewhere")
    write(folder, {"changed": b"2"})
    new = Path(version(folder, parent_datasets=[first]).get_local_copy())
    assert (new / "same").stat().st_ino == (old / "same").stat().st_ino
    assert (new / "elsewhere").stat().st_ino == (old / "moved").stat().st_ino
    assert (new / "changed").read_bytes() == b"2"


def test_a_tampered_seed_costs_a_fetch_and_never_a_wrong_byte(home):
    data = os.urandom(1_000_000)
    folder = write(home / "in", {"big": data})
    first = version(folder)
    old = Path(first.get_local_copy())
    write(folder, {"big": data[:500_000] + b"inserted" + data[500_000:]})
    second = version(folder, parent_datasets=[first])
    (old / "big").chmod(0o644)
    (old / "big").write_bytes(os.urandom(1_000_000))
    assert read(second.get_local_copy()) == read(folder)


def test_two_stores_given_the_same_files_in_any_order_have_equal_content_digests(home, monkeypatch):
    files = {f"d{n % 7}/f{n}": b"%d" % n for n in range(400)} | {"big": os.urandom(200_000)}
    folder = write(home / "in", files)
    whole = version(folder)
    monkeypatch.setenv("DATASET_STORE_URL", str(home / "other"))
    dataset = Dataset.create(dataset_name="d")
    dataset.add_files(folder / "d3", dataset_path="d3")
    dataset.finalize(auto_upload=True)
    for name in ("big", "d5", "d0"):
        dataset = Dataset.create(parent_datasets=[dataset])
        dataset.add_files(folder / name, dataset_path=name if name != "big" else None)
        dataset.finalize(auto_upload=True)
    dataset = Dataset.create(parent_datasets=[dataset])
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    assert dataset._final().entry.tree.digest == whole._final().entry.tree.digest
    assert dataset._final().entry.tree.node != whole._final().entry.tree.node


def test_every_cache_may_be_deleted_at_any_time(home):
    folder = write(home / "in", {"a": b"1", "big": os.urandom(300_000)})
    first = version(folder)
    import shutil

    shutil.rmtree(home / "cache")
    forget_workspaces()
    version(write(folder, {"a": b"2"}), parent_datasets=[first.id])
    shutil.rmtree(home / "cache")
    forget_workspaces()
    assert read(Dataset.get(dataset_name="d").get_local_copy()) == read(folder)


def test_a_file_that_comes_back_is_the_parents_again_though_the_cache_was_deleted_and_the_draft_got_by_id(home):
    folder = write(home / "in", {"a": b"one", "b": b"two"})
    parent = version(folder)
    draft = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[parent.id])
    draft.remove_files("a")
    shutil.rmtree(home / "cache")
    forget_workspaces()
    draft = Dataset.get(draft.id)
    assert draft.add_files(folder / "a") == 1
    assert draft.file_entries_dict["a"].parent_dataset_id == parent.id
    assert not draft.is_dirty()


def test_use_current_task_outside_a_task_is_a_warning(home, caplog):
    dataset = Dataset.create(dataset_name="d", use_current_task=True)
    assert "no task is running" in caplog.text
    dataset.finalize()


def test_importing_the_package_loads_nothing_heavy():
    import subprocess
    import sys

    code = "import sys, dataset_store; print([m for m in ('numpy', 'pyarrow', 'fsspec', 's3fs') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_dry_sync_tells_what_would_change_and_changes_nothing(home):
    first = version(write(home / "in", {"a": b"1", "b": b"2"}))
    draft = Dataset.create(parent_datasets=[first])
    write(home / "in", {"a": b"x", "c": b"3"})
    (home / "in" / "b").unlink()
    assert draft.sync_folder(home / "in", dry_run=True) == (1, 1, 1)
    assert not draft.is_dirty()
    assert draft.list_files() == ["a", "b"]
    report = first.compare_folder(home / "in")
    assert (report.missing, report.modified, report.extra) == (("b",), ("a",), ("c",))
    assert draft.sync_folder(home / "in") == (1, 1, 1)


def test_a_local_copy_whose_folder_was_removed_is_made_again(home):
    dataset = version(write(home / "in", {"a": b"1"}))
    code = f"from dataset_store import Dataset; print(Dataset.get({dataset.id!r}).get_local_copy())"
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        copy = done.stdout.strip()
        assert read(copy) == {"a": b"1"}
        subprocess.run(["rm", "-rf", copy], check=True)
    assert read(dataset.get_local_copy()) == {"a": b"1"}
    subprocess.run(["rm", "-rf", copy], check=True)
    assert read(dataset.get_local_copy()) == {"a": b"1"}


def test_the_store_and_what_this_machine_keeps_of_it_are_no_part_of_a_folder_that_holds_them(home):
    write(home, {"a": b"1", "d/b": b"2"})
    for output in (None, str(home / "elsewhere")):
        dataset = Dataset.create("d", "p", output_uri=output)
        assert dataset.sync_folder(home) == (0, 2, 0)
        dataset.finalize(auto_upload=True)
        assert dataset.list_files() == ["a", "d/b"]
        dataset.get_local_copy()
    assert {"store", "cache", "own", "elsewhere"} < {path.name for path in home.iterdir()}


def test_folders_outside_that_links_lead_to_are_taken_where_that_is_asked_for(home):
    write(home / "in", {"a": b"1"})
    write(home / "shared", {"d/b": b"2"})
    (home / "in/link").symlink_to(home / "shared")
    dataset = Dataset.create("d", "p")
    for take in (dataset.sync_folder, dataset.add_files):
        with pytest.raises(UnsupportedFileType, match="link"):
            take(home / "in")
    assert dataset.sync_folder(home / "in", follow_links=True) == (0, 2, 0)
    assert dataset.add_files(home / "in", dataset_path="again", follow_links=True) == 2
    dataset.finalize(auto_upload=True)
    assert read(dataset.get_local_copy()) == {"a": b"1", "link/d/b": b"2", "again/a": b"1", "again/link/d/b": b"2"}


def test_a_dataset_object_goes_to_other_processes_and_is_the_same_there(home):
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(write(home / "in", {"a": b"1"}))
    draft = pickle.dumps(dataset)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(Dataset.list_files, dataset).result() == ["a"]
        dataset.finalize(auto_upload=True)
        assert read(pool.submit(Dataset.get_local_copy, dataset).result()) == {"a": b"1"}
    assert pickle.loads(draft) == pickle.loads(pickle.dumps(dataset)) == Dataset.get(dataset.id) == dataset
    assert len({dataset, Dataset.get(dataset.id)}) == 1
    assert dataset != Dataset.create("other", "p")
    assert dataset != dataset.id


def test_no_password_goes_to_another_process_with_a_dataset_object(home, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", "memory://user:secret@host/store")
    dataset = Dataset.create("d", "p")
    pickled = pickle.dumps(dataset)
    assert b"secret" not in pickled
    assert pickle.loads(pickled)._workspace is dataset._workspace


def test_the_directory_of_the_dataset_may_be_written_with_dots_and_slashes(home):
    write(home / "in", {"a": b"1"})
    for form in ("./images", "images/", "/images/", "images/.", Path("images")):
        dataset = Dataset.create("d", "p")
        dataset.add_files(home / "in", dataset_path=form)
        assert dataset.list_files() == ["images/a"]
        assert dataset.sync_folder(home / "in", form) == (0, 0, 0)
        dataset.add_external_files(str(home / "in/a"), dataset_path=f"{form}/linked")
        assert dataset.list_files() == ["images/a", "images/linked/a"]


def test_changes_against_ones_own_id_are_those_against_the_parents(home):
    first = Dataset.create("d", "p")
    first.sync_folder(write(home / "in", {"a": b"1", "b": b"2", "c": b"3"}))
    first.finalize(auto_upload=True)
    child = Dataset.create(parent_datasets=[first])
    (home / "in/b").unlink()
    child.sync_folder(write(home / "in", {"a": b"!", "new": b"4"}))

    def changes(own):
        return child.list_added_files(own), child.list_removed_files(own), child.list_modified_files(own)

    assert [changes(own) for own in (child.id, "", None)] == [(["new"], ["b"], ["a"])] * 3
    child.finalize(auto_upload=True)
    assert [changes(own) for own in (child.id, "", None)] == [(["new"], ["b"], ["a"])] * 3


def test_numbers_and_path_objects_are_taken_for_their_texts(home):
    write(home / "in", {"a": b"1"})
    dataset = Dataset.create("d", "p", dataset_version=2)
    assert dataset.version == "2"
    dataset.sync_folder(home / "in", Path("below"))
    assert dataset.list_files(Path("below")) == ["below/a"]
    dataset.finalize(auto_upload=True)
    assert Dataset.get(dataset_name="d", dataset_version=2) == dataset
    assert Dataset.create("e", "p", dataset_version=" 1.0.0 ").version == "1.0.0"


def test_the_only_draft_of_a_name_can_be_deleted_by_it(home):
    draft = Dataset.create("d", "p")
    Dataset.delete(dataset_project="p", dataset_name="d")
    with pytest.raises(DatasetNotFound):
        Dataset.get(draft.id)
    for _ in range(2):
        Dataset.create("d", "p")
    with pytest.raises(InvalidRequest, match="2 drafts"):
        Dataset.delete(dataset_project="p", dataset_name="d")
