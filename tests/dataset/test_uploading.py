"""What an upload tells of itself."""

import logging
import os

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.testing.folders import write


@pytest.fixture
def draft(home):
    """A child of a version of one large file, in which that file has one more byte; with a copy and a small file."""
    large = os.urandom(1_000_000)
    first = version_of(write(home / "in", {"large": large}))
    draft = Dataset.create(parent_datasets=[first])
    draft.sync_folder(write(home / "in", {"large": large + b"!", "copy": large, "small": b"some text " * 100}))
    return draft


def packs(home):
    return {path: path.stat().st_size for path in (home / "store" / "packs").rglob("*") if path.is_file()}


def test_an_upload_says_what_of_its_files_was_new_and_what_was_sent(draft, home):
    before = packs(home)
    assert draft.last_upload is None
    draft.upload()
    sent = [size for path, size in packs(home).items() if path not in before]
    report = draft.last_upload
    assert (report.files, report.bytes) == (3, 2_001_001)
    assert 1_000 < report.new_bytes < 300_000  # the last chunk of the large file, and the small one
    assert (report.stored, report.packs) == (sum(sent), len(sent))
    assert report.stored < report.new_bytes + 5_000


def test_what_finalize_uploads_is_told_and_outlives_it(draft):
    draft.finalize(auto_upload=True)
    assert draft.last_upload.files == 3
    assert draft.last_upload.packs == 1


def test_an_upload_of_nothing_new_sends_nodes_only(home):
    folder = write(home / "in", {"a": b"a" * 10_000})
    version_of(folder)
    os.rename(folder / "a", folder / "b")
    dataset = version_of(folder)
    report = dataset.last_upload
    assert (report.files, report.bytes, report.new_bytes, report.packs) == (1, 10_000, 0, 1)
    assert 0 < report.stored < 2_000


def test_a_log_of_an_upload_counts_one_of_each_as_one(home, caplog):
    draft = Dataset.create("d", "p")
    draft.add_files(write(home / "in", {"a": b"1"}))
    with caplog.at_level(logging.INFO, "dataset_store"):
        draft.upload(verbose=True)
    (said,) = [record.getMessage() for record in caplog.records if "sent in" in record.getMessage()]
    assert said == f"1 file of 1 byte, 1 of them new; {draft.last_upload.stored} bytes sent in 1 pack"
