"""Ways in which scripts use ClearML's `Dataset` and `StorageManager`; with the import changed they run."""

import os

import pytest

from dataset_store import Dataset, StorageManager
from dataset_store.testing.folders import read, write


@pytest.fixture
def folder(home):
    return str(write(home / "data", {"train/1.jpg": b"1", "train/2.jpg": b"2", "labels.csv": b"a,b\n"}))


def test_a_dataset_is_made_by_position_and_fetched_by_its_id_alone(folder):
    ds = Dataset.create("name", "project")
    ds.add_files(path=folder)
    ds.upload(show_progress=True, preview=False)
    ds.finalize()
    local = Dataset.get(ds.id).get_local_copy()
    assert isinstance(local, str)
    assert os.path.exists(os.path.join(local, "train", "1.jpg"))
    child = Dataset.create("name", "project", parent_datasets=[ds.id])
    assert child.get_dependency_graph() == {child.id: [ds.id], ds.id: []}


def test_methods_are_called_through_the_class_with_odd_arguments(folder):
    ds = Dataset.create(dataset_name="name", dataset_project="project", dataset_version="2.0.0", description="text")
    Dataset.add_files(ds, folder, verbose=True)
    Dataset.upload(ds, verbose=True)
    Dataset.upload(ds, chunk_size=100, compression="ZIP_DEFLATED", max_workers=2, retries=5)
    assert Dataset.finalize(ds, verbose=True) is True
    assert Dataset.get(dataset_name="name", dataset_version="2.0.0").version == "2.0.0"


def test_everything_is_removed_and_added_again(folder):
    first = Dataset.create("name", "project")
    first.add_files(folder)
    first.finalize(auto_upload=True)
    second = Dataset.create("name", "project", parent_datasets=[first])
    second.remove_files("*", recursive=True)
    second.add_files(folder, wildcard=["*.jpg"], dataset_path="images", recursive=True)
    second.finalize(auto_upload=True)
    assert second.list_files() == ["images/train/1.jpg", "images/train/2.jpg"]


def test_a_folder_is_synced_and_finalized_with_its_upload(folder):
    ds = Dataset.create(dataset_project="p", dataset_name="d", use_current_task=True)
    assert ds.sync_folder(local_path=folder) == (0, 3, 0)
    ds.finalize(auto_upload=True)
    assert not ds.is_dirty()
    assert ds.is_final()


def test_what_is_written_is_asked_for_with_auto_create_and_writable_copy(folder):
    ds = Dataset.get(dataset_project="p", dataset_name="d", auto_create=True, writable_copy=True)
    ds.add_files(folder)
    ds.finalize(auto_upload=True)
    again = Dataset.get(dataset_project="p", dataset_name="d", auto_create=True, writable_copy=True, alias="x")
    assert again.version == "1.0.1"
    assert again.get_dependency_graph()[again.id] == [ds.id]


def test_a_mutable_copy_is_changed_and_becomes_the_next_version(folder, home):
    ds = Dataset.create("d", "p")
    ds.add_files(folder, local_base_folder=os.path.dirname(folder))
    ds.finalize(auto_upload=True)
    assert ds.list_files("data/train/*") == ["data/train/1.jpg", "data/train/2.jpg"]
    path = Dataset.get(dataset_project="p", dataset_name="d").get_mutable_local_copy(str(home / "copy"), overwrite=True)
    os.remove(os.path.join(path, "data", "labels.csv"))
    new = Dataset.create(dataset_name="d", dataset_project="p", parent_datasets=[ds])
    new.sync_folder(path)
    new.upload()
    new.finalize()
    new.publish()
    assert new.list_removed_files() == ["data/labels.csv"]
    assert [row["status"] for row in Dataset.list_datasets("p", only_completed=True)] == ["published", "completed"]


def test_errors_are_value_errors_where_scripts_catch_those(folder):
    for call in (
        lambda: Dataset.get(dataset_project="none", dataset_name="none"),
        lambda: Dataset.get(dataset_id="x", dataset_name="d"),
        lambda: Dataset.create(dataset_name=""),
        lambda: Dataset.create("d").add_files("nothing"),
        lambda: Dataset.get(),
    ):
        with pytest.raises(ValueError, match=r"."):
            call()
    draft = Dataset.create("d", "p")
    draft.add_files(folder)
    with pytest.raises(ValueError, match="pending uploads"):
        draft.finalize()
    assert draft.finalize(raise_on_error=False) is False
    with pytest.raises(ValueError, match="not finalized"):
        Dataset.create("e", "p", parent_datasets=[draft])


def test_entries_have_the_fields_that_scripts_read(folder):
    ds = Dataset.create("d", "p")
    ds.add_files(folder)
    ds.add_external_files(source_url=f"file://{folder}/labels.csv", dataset_path="far")
    ds.finalize(auto_upload=True)
    for path, entry in ds.file_entries_dict.items():
        assert entry.relative_path == path
        assert len(entry.hash) == 64
        assert entry.size == os.path.getsize(os.path.join(folder, path))
        assert entry.parent_dataset_id == ds.id
    assert ds.link_entries[0].link == f"file://{folder}/labels.csv"
    assert ds.tags == ["external files"]
    assert ds.project == "p"


def test_files_are_fetched_and_sent_by_the_storage_manager(folder, home):
    manager = StorageManager()
    target = f"file://{home}/remote/labels.csv"
    assert StorageManager.upload_file(os.path.join(folder, "labels.csv"), target) == target
    assert os.path.basename(manager.get_local_copy(remote_url=target)) == "labels.csv"
    StorageManager.upload_folder(folder, str(home / "up"))
    StorageManager.download_folder(str(home / "up"), str(home / "down"))
    assert read(home / "down") == read(folder)
