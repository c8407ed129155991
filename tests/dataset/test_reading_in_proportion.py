"""What an operation reads of a tree follows from what it is about, not from how large the tree is."""

import os

import pytest

from dataset_store import Dataset
from dataset_store.core import shape
from dataset_store.storage.trees import StoredNodes
from dataset_store.testing.folders import write


@pytest.fixture
def version(home, monkeypatch):
    """A version of 1,000 files in 20 directories, in a tree of small nodes."""
    monkeypatch.setattr(shape, "LEAF", shape.Shape(2, 8, 2**32 // 3))
    monkeypatch.setattr(shape, "INNER", shape.Shape(2, 6, 2**32 // 2))
    write(home / "data", {f"d{number // 50:02}/f{number:04}": os.urandom(9) for number in range(1_000)})
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(home / "data")
    dataset.finalize(auto_upload=True)
    return dataset


@pytest.fixture
def nodes_read(monkeypatch):
    read = set()
    read_nodes = StoredNodes.read_nodes

    def counted(self, refs):
        read.update(ref.node_id for ref in refs)
        return read_nodes(self, refs)

    monkeypatch.setattr(StoredNodes, "read_nodes", counted)
    return read


def all_nodes(version, nodes_read):
    version.list_files()
    whole = len(nodes_read)
    nodes_read.clear()
    assert whole > 250
    return whole


@pytest.mark.parametrize("name", ["f0270", "f0270/below", "new"])
def test_adding_many_files_below_one_directory_reads_what_lies_there(home, version, nodes_read, name):
    whole = all_nodes(version, nodes_read)
    child = Dataset.create("child", "p", parent_datasets=[version])
    write(home / "more", {f"d05/{name}{number}": b"x" for number in range(40)})
    child.add_files(home / "more")
    assert len(nodes_read) < whole / 6


@pytest.mark.parametrize("pattern", ["d05/*", "d05/f02?9", "/d05/*", "d05/f0262"])
def test_listing_a_directory_reads_what_lies_there(version, nodes_read, pattern):
    everything = version.list_files()
    whole = all_nodes(version, nodes_read)
    listed = version.list_files(pattern)
    assert len(nodes_read) < whole / 6
    assert listed
    assert set(listed) < set(everything)
    assert all(path.startswith("d05/") for path in listed)


def test_removing_files_of_a_directory_reads_what_lies_there(version, nodes_read):
    whole = all_nodes(version, nodes_read)
    child = Dataset.create("child", "p", parent_datasets=[version])
    assert child.remove_files("d05/*") == 50
    assert len(nodes_read) < whole / 4


def test_a_directory_that_stands_in_the_way_is_removed_with_all_that_it_holds(home, version, nodes_read):
    child = Dataset.create("child", "p", parent_datasets=[version])
    write(home / "more", {"d05": b"a file now", **{f"d06x{number}": b"x" for number in range(40)}})
    child.add_files(home / "more")
    listed = child.list_files()
    assert "d05" in listed
    assert not any(path.startswith("d05/") for path in listed)
    assert len(listed) == 1_000 - 50 + 41
