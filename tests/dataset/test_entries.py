"""Entries as ClearML's scripts read them: the attributes, `as_dict` and `vars` of files and links."""

import copy
import json
import pickle
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.dataset.entries import selecting
from dataset_store.testing.folders import read, write

OF_FILES = ["relative_path", "hash", "parent_dataset_id", "size", "artifact_name", "local_path"]
OF_LINKS = ["link", "relative_path", "parent_dataset_id", "size", "hash"]


@pytest.fixture
def dataset(home):
    made = Dataset.create("d", "p")
    folder = write(home / "in", {"a": b"1", "sub/b": b"22", "sub/c": b"333"})
    made.add_files(folder)
    made.add_external_files(str(folder / "a"), dataset_path="far")
    return made


@pytest.mark.parametrize("final", [False, True], ids=["of a draft", "of a final version"])
def test_entries_have_the_attributes_of_clearmls(dataset, final):
    if final:
        dataset.finalize(auto_upload=True)
    (file, *_), (link,) = dataset.file_entries, dataset.link_entries
    assert list(file.as_dict()) == [name for name in OF_FILES if name != "local_path"]  # left out where it is None
    assert list(vars(file))[:6] == OF_FILES
    assert vars(file) | {"executable": False, "kind": "file"} == vars(file)
    assert all(getattr(file, name) == value for name, value in vars(file).items())
    assert list(link.as_dict()) == list(vars(link))[:5] == OF_LINKS
    assert all(getattr(link, name) == value for name, value in vars(link).items())
    assert json.loads(json.dumps([one.as_dict() for one in dataset.file_entries]))[0]["relative_path"] == "a"


def test_entries_are_values(dataset):
    for one in [*dataset.file_entries, *dataset.link_entries]:
        assert copy.copy(one) == pickle.loads(pickle.dumps(one)) == one
        assert len({one, copy.copy(one)}) == 1
        with pytest.raises(AttributeError):
            one.relative_path = "mine"
        vars(one)["relative_path"] = "mine"
        assert one.relative_path != "mine"


def test_the_name_of_an_artifact_tells_the_part_of_a_copy_that_holds_the_file(dataset, monkeypatch):
    dataset.finalize(auto_upload=True)
    assert {one.artifact_name for one in dataset.file_entries} == {"data"}
    monkeypatch.setattr(selecting, "_PART_BYTES", 2)
    assert dataset.get_num_chunks() > 2
    names = {one.relative_path: one.artifact_name for one in dataset.file_entries}
    assert len(set(names.values())) > 1
    for path, name in names.items():
        part = 0 if name == "data" else int(name.removeprefix("data_"))
        assert path in read(Path(dataset.get_local_copy(part=part)))
