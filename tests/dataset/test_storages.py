"""A store at any URL, and packs elsewhere than their store."""

import os
import secrets
import shutil

import pytest
from http_server import http_server
from sftp_server import sftp_server
from versions import version_of

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import (
    DatasetNotFound,
    InvalidRequest,
    StoreLacksCreateIfAbsent,
    StoreNotFound,
    StoreReadOnly,
    StoreUnreachable,
)
from dataset_store.testing.folders import read, write

FILES = {"a.txt": b"one", "sub/big": os.urandom(300_000), "sub/b.txt": b"two" * 1_000}


@pytest.fixture
def folder(home):
    return write(home / "in", FILES)


@pytest.fixture
def bucket(s3_bucket, home):
    return f"{s3_bucket}/{secrets.token_hex(8)}"


@pytest.fixture(params=["memory", "s3", "sftp"])
def url(request, s3_bucket, home, monkeypatch):
    if request.param == "sftp":
        monkeypatch.setenv("DATASET_STORE_SINGLE_WRITER", "1")
        (home / "served").mkdir()
        with sftp_server(home / "served") as server:
            yield f"{server}/team/store"
    else:
        base = "memory://" if request.param == "memory" else s3_bucket + "/"
        yield f"{base}{secrets.token_hex(8)}/store"


def test_a_url_is_a_store_like_any_folder(url, home, folder, monkeypatch, another_machine):
    monkeypatch.setenv("DATASET_STORE_URL", url)
    first = version_of(folder, dataset_tags=["latest"])
    (folder / "a.txt").write_bytes(b"changed")
    (folder / "sub" / "b.txt").unlink()
    second = version_of(folder, parent_datasets=[first])
    another_machine()
    assert read(Dataset.get(dataset_tags="latest").get_local_copy()) == FILES
    found = Dataset.get(dataset_project="p", dataset_name="d")
    assert (found.id, found.version) == (second.id, "1.0.1")
    assert read(found.get_local_copy()) == read(folder)
    assert found.open("sub/big").read() == FILES["sub/big"]
    copy = found.get_mutable_local_copy(str(home / "mutable"))
    write(home / "mutable", {"new": b"new"})
    assert Dataset.create(parent_datasets=[found]).sync_folder(copy) == (0, 1, 0)
    Dataset.delete(first.id, force=True)
    assert read(Dataset.get(second.id).get_local_copy()) == read(folder)


def test_a_url_without_a_store_is_not_found(url, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", url)
    with pytest.raises(StoreNotFound) as error:
        Dataset.get(dataset_name="d")
    assert "secret" not in str(error.value)


def test_a_store_that_was_replaced_while_a_process_had_it_open_is_written_to_as_it_is_now(home, folder):
    old = Dataset.create(dataset_name="old")
    old.sync_folder(folder)
    old.finalize(auto_upload=True)
    shutil.rmtree(home / "store")
    new = Dataset.create(dataset_name="new")
    new.sync_folder(folder)
    new.finalize(auto_upload=True)
    assert read(Dataset.get(new.id).get_local_copy()) == read(folder)
    with pytest.raises(DatasetNotFound):
        Dataset.get(old.id)


def test_a_server_that_does_not_answer_is_not_an_absent_store(home, monkeypatch):
    with http_server(home) as url:
        pass
    monkeypatch.setenv("DATASET_STORE_URL", f"{url}/store")
    for call in (lambda: Dataset.get(dataset_name="d"), lambda: Dataset.create("d")):
        with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1"):
            call()


def test_a_store_that_one_writer_must_be_declared_for_says_so_before_anything_is_made(home, folder, monkeypatch):
    (home / "served").mkdir()
    with sftp_server(home / "served") as server:
        monkeypatch.setenv("DATASET_STORE_URL", f"{server}/store")
        with pytest.raises(StoreLacksCreateIfAbsent):
            Dataset.create(dataset_name="d")
    assert not any((home / "served").rglob("*"))


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_store_served_by_http_can_be_read(home, folder, monkeypatch, another_machine, ranges):
    version = version_of(folder)
    another_machine()
    with http_server(home, ranges=ranges) as url:
        monkeypatch.setenv("DATASET_STORE_URL", f"{url}/store")
        found = Dataset.get(dataset_project="p", dataset_name="d")
        assert read(found.get_local_copy()) == FILES
        with pytest.raises(StoreReadOnly):
            found.add_tags("t")
    assert found.id == version.id


# --- packs elsewhere -------------------------------------------------------------------------------------------------


def packs_below(path):
    return [found for found in path.rglob("packs/*/*") if found.is_file()]


def test_packs_go_to_the_output_uri_and_the_log_stays(home, folder, bucket, another_machine):
    version = version_of(folder, output_uri=bucket)
    assert version.get_default_storage() == bucket
    assert packs_below(home / "store") == []
    another_machine()
    assert read(Dataset.get(version.id).get_local_copy()) == FILES
    assert Dataset.get(version.id).get_default_storage() == bucket
    assert Dataset.get(version.id).verify_dataset_hash() == []


def test_a_child_keeps_the_storage_of_its_last_parent(home, folder, another_machine):
    first = version_of(folder, output_uri=str(home / "elsewhere"))
    before = len(packs_below(home / "elsewhere"))
    (folder / "a.txt").write_bytes(b"changed")
    copies = [
        version_of(folder, parent_datasets=[first]),
        Dataset.get(first.id, writable_copy=True),
        Dataset.squash("flat", dataset_ids=[first.id]),
    ]
    for dataset in copies:
        assert dataset.get_default_storage() == f"file://{home}/elsewhere"
    assert len(packs_below(home / "elsewhere")) == before + 1
    assert packs_below(home / "store") == []


def test_versions_of_several_storages_are_merged_and_read_together(home, bucket, another_machine):
    own = version_of(write(home / "one", {"one": os.urandom(200_000)}), dataset_name="one")
    other = version_of(write(home / "two", {"two": os.urandom(200_000)}), dataset_name="two", output_uri=bucket)
    both = Dataset.create("both", parent_datasets=[own, other], output_uri=str(home / "third"))
    both.add_files(write(home / "three", {"three": b"3"}))
    both.finalize(auto_upload=True)
    again = version_of(write(home / "two", {"four": b"4"}), dataset_name="four", output_uri=bucket + "/")
    assert again.get_default_storage() == bucket  # numbered once
    another_machine()
    expected = read(home / "one") | {"two": (home / "two" / "two").read_bytes(), "three": b"3"}
    assert read(Dataset.get(both.id).get_local_copy()) == expected


def test_upload_can_send_a_draft_elsewhere(home, folder, another_machine):
    dataset = Dataset.create("d")
    dataset.sync_folder(folder)
    dataset.upload(output_url=f"file://{home}/elsewhere")
    assert dataset.get_default_storage() == f"file://{home}/elsewhere"
    assert len(packs_below(home / "elsewhere")) == 1
    dataset.finalize()
    another_machine()
    assert read(Dataset.get(dataset.id).get_local_copy()) == FILES


def test_the_stores_own_root_is_no_other_storage(home, folder):
    dataset = version_of(folder, output_uri=f"file://{home}/store/")
    assert len(packs_below(home / "store")) == 1
    assert not (home / "store" / "dataset-store").exists()
    assert len(list((home / "store" / "log" / "catalog").iterdir())) == 1
    assert dataset.get_default_storage() == f"file://{home}/store"


@pytest.mark.parametrize("url", ["sftp://user:secret@127.0.0.1/x", "https://host/x?token=secret", "nope://x/y"])
def test_an_output_uri_that_cannot_be_kept_or_reached_is_refused_before_anything_is_made(home, folder, url):
    with pytest.raises(InvalidRequest) as error:
        Dataset.create("d", output_uri=url)
    assert "secret" not in str(error.value)
    draft = Dataset.create("d")
    draft.sync_folder(folder)
    with pytest.raises(InvalidRequest):
        draft.upload(output_url=url)
    assert not (home / "store" / "log").exists()
    draft.finalize(auto_upload=True)


def test_creates_that_race_for_a_storage_number_agree(home, folder, bucket):
    first, second = Dataset.create("one", output_uri=bucket), Dataset.create("two", output_uri=f"{home}/elsewhere")
    for dataset in (first, second):
        dataset.sync_folder(folder)
    workspaces._open.clear()
    Dataset.get(second.id).finalize(auto_upload=True)
    first.finalize(auto_upload=True)
    assert Dataset.get(first.id).get_default_storage() == bucket
    assert Dataset.get(second.id).get_default_storage() == f"file://{home}/elsewhere"
