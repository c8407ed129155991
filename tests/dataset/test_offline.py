"""Versions made without their store, and taken into one later."""

import shutil

import pytest

from dataset_store import Dataset
from dataset_store.errors import FileChanged, InvalidRequest, PathNotFound, VersionExists
from dataset_store.testing.folders import read, write

FILES = {"a.txt": b"one", "sub/b.bin": b"b" * 100_000}


@pytest.fixture(autouse=True)
def online_afterwards():
    yield
    Dataset.set_offline(False)


@pytest.fixture
def session(home):
    """A draft made offline, with labels, links, metadata and a report."""
    folder = write(home / "in", FILES)
    Dataset.set_offline(True)
    dataset = Dataset.create("d", "p", dataset_tags=["t"], description="text")
    dataset.sync_folder(folder)
    dataset.add_external_files(str(write(home / "far", {"far.txt": b"far"}) / "far.txt"))
    dataset.set_metadata({"rows": 3})
    dataset.get_logger().report_text("made offline", print_console=False)
    return dataset


def check(found):
    assert (found.project, found.name, found.version, found.description) == ("p", "d", "1.0.0", "text")
    assert found.tags == ["external files", "t"]
    assert read(found.get_local_copy()) == FILES | {"far.txt": b"far"}
    assert sorted(found.link_entries_dict) == ["far.txt"]
    assert found.get_metadata() == {"rows": 3}
    assert [one.value for one in found.reports] == ["made offline"]


def test_nothing_is_written_to_the_store_offline(session, home):
    assert Dataset.is_offline()
    session.upload()
    assert not (home / "store").exists()
    assert session.get_offline_mode_folder().is_dir()
    Dataset.set_offline()
    assert not Dataset.is_offline()
    assert Dataset.create("online").get_offline_mode_folder() is None


@pytest.mark.parametrize("state", ["drafted", "uploaded", "finalized"])
def test_a_session_is_taken_in_whatever_its_state(session, state, another_machine):
    if state == "uploaded":
        session.upload()
    if state == "finalized":
        session.finalize(auto_upload=True)
    Dataset.set_offline(False)
    taken = Dataset.import_offline_session(session.get_offline_mode_folder(), finalize=True)
    another_machine()
    check(Dataset.get(taken))


@pytest.mark.parametrize("kind", ["zip", "gztar", "zip of the folder"])
def test_a_session_travels_as_an_archive(session, home, kind, another_machine):
    session.upload()
    folder = session.get_offline_mode_folder()
    name = str(home / "session")
    if kind == "zip of the folder":
        archive = shutil.make_archive(name, "zip", folder.parent, folder.name)
    else:
        archive = shutil.make_archive(name, kind, folder)
    shutil.rmtree(folder)
    shutil.rmtree(home / "in")
    another_machine()
    Dataset.set_offline(False)
    check(Dataset.get(Dataset.import_offline_session(archive, finalize=True)))


def test_without_upload_and_finalize_it_is_a_draft_that_needs_the_session_no_more(session, home):
    folder = session.get_offline_mode_folder()
    session.upload()
    Dataset.set_offline(False)
    taken = Dataset.get(Dataset.import_offline_session(str(folder), upload=False))
    shutil.rmtree(folder)
    shutil.rmtree(home / "in")
    assert not taken.is_final()
    assert taken.is_dirty()
    taken.finalize(auto_upload=True)
    check(taken)


def test_a_number_that_was_chosen_stays_and_one_that_is_taken_is_refused(home):
    Dataset.set_offline(True)
    session = Dataset.create("d", "p", dataset_version="7.0")
    Dataset.set_offline(False)
    folder = session.get_offline_mode_folder()
    assert Dataset.get(Dataset.import_offline_session(folder, finalize=True)).version == "7.0"
    with pytest.raises(VersionExists):
        Dataset.import_offline_session(folder)


def test_files_that_were_not_uploaded_must_be_what_they_were(session, home):
    (home / "in" / "a.txt").write_bytes(b"two")
    Dataset.set_offline(False)
    with pytest.raises(FileChanged):
        Dataset.import_offline_session(session.get_offline_mode_folder())


def test_what_is_no_session_is_refused(home):
    write(home / "in", FILES)
    with pytest.raises(PathNotFound):
        Dataset.import_offline_session(str(home / "none"))
    for path in (home / "in", home / "in" / "a.txt"):
        with pytest.raises(InvalidRequest):
            Dataset.import_offline_session(path)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Dataset.get(dataset_name="d"),
        lambda: Dataset.create(parent_datasets=["0" * 32]),
        lambda: Dataset.squash("d", dataset_ids=["0" * 32]),
        lambda: Dataset.rename("e", "p", "d"),
        lambda: Dataset.move_to_project("q", "p", "d"),
        lambda: Dataset.delete(dataset_name="d"),
        lambda: Dataset.import_offline_session("x"),
    ],
)
def test_what_needs_the_store_is_refused_offline(home, call):
    Dataset.set_offline(True)
    with pytest.raises(InvalidRequest, match="offline"):
        call()
