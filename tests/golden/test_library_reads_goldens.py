"""The library reads every golden store, as its independent reader does."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from dataset_store import Dataset
from dataset_store.dataset.annotations.metadata import piece_of
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import Corrupt, ExternalFileChanged, PathNotFound
from dataset_store.storage import storages
from dataset_store.storage.posix_backend import PosixBackend

STORE = Path(__file__).parent / "store-1"
VERSIONS = json.loads((STORE / "expected.json").read_text())


@pytest.fixture
def golden(home, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", str(STORE / "store"))
    return home


def rows(dataset: Dataset) -> list:
    return [
        [os.fsencode(e.relative_path).hex(), e.kind, e.size, e.hash, e.executable, e.mtime_ns, e.parent_dataset_id]
        for e in dataset.file_entries
    ]


def expected_rows(version: dict) -> list:
    if "on_top_of" not in version:
        return version["entries"]
    base = next(one for one in VERSIONS if one["id"] == version["on_top_of"])
    gone = {*version["removed"], *(row[0] for row in version["entries"])}
    kept = [row for row in base["entries"] if row[0] not in gone]
    return sorted(kept + version["entries"], key=lambda row: bytes.fromhex(row[0]).replace(b"/", b"\0"))


@pytest.mark.parametrize("version", VERSIONS, ids=lambda v: f"{v['name']}-{v['version']}")
def test_a_version_of_the_golden_store_is_what_it_was(golden, version):
    dataset = Dataset.get(version["id"])
    assert (dataset.project, dataset.name, dataset.version) == (version["project"], version["name"], version["version"])
    assert dataset.tags == version["tags"]
    assert dataset.get_dependency_graph()[dataset.id] == version["parents"]
    assert rows(dataset) == expected_rows(version)
    copy = Path(dataset.get_local_copy())
    for path, kind, _, content_id, executable, mtime, _ in expected_rows(version):
        place = os.fsencode(copy) + b"/" + bytes.fromhex(path)
        if kind == "file":
            assert blake3(Path(os.fsdecode(place)).read_bytes()).hexdigest() == content_id
            assert os.stat(place).st_mtime_ns == mtime
            assert os.access(place, os.X_OK) == executable
        elif kind == "symlink":
            assert blake3(os.readlink(place)).hexdigest() == content_id
        else:
            assert os.listdir(place) == []


@pytest.fixture
def second(home, monkeypatch):
    """The versions of the second store, whose output storage lies beside it."""
    folder = STORE.parent / "store-2"
    monkeypatch.setenv("DATASET_STORE_URL", str(folder / "store"))
    made_at = re.compile("^/golden/")
    monkeypatch.setattr(storages, "PosixBackend", lambda path: PosixBackend(made_at.sub(f"{folder}/", path)))
    return json.loads((folder / "expected.json").read_text())


def test_links_of_the_second_golden_store_are_what_they_were(second):
    for version in second:
        dataset = Dataset.get(version["id"])
        assert rows(dataset) == version["entries"]
        links = [[one.relative_path.encode().hex(), one.link, one.size, one.etag] for one in dataset.link_entries]
        assert links == version["links"]


def test_files_of_the_second_golden_store_are_read_from_its_output_storage(second):
    first, _, last = (Dataset.get(version["id"]) for version in second)
    assert first.get_default_storage() == "file:///golden/elsewhere"
    assert Path(first.get_local_copy(files=["near.txt"]), "near.txt").read_bytes() == b"kept\n"
    assert Path(last.get_local_copy(files=["near.txt"]), "near.txt").read_bytes() == b"changed\n"


def test_what_links_of_the_second_golden_store_lead_to_is_gone_and_never_made_up(second):
    with pytest.raises((PathNotFound, ExternalFileChanged)):
        Dataset.get(second[0]["id"]).get_local_copy()


def test_metadata_and_reports_of_the_second_golden_store_are_what_they_were(second):
    first = Dataset.get(second[0]["id"])
    for name, piece in second[0]["metadata"].items():
        assert piece_of(first._workspace, first.id, None, name).hex() == piece
    frame = first.get_metadata("frame")
    assert (frame["n"].tolist(), frame["text"].isna().tolist()) == ([1, 2], [False, True])
    array = first.get_metadata("array")
    assert (array.dtype.str, array.tolist()) == (">i2", [[0, 1, 2], [3, 4, 5]])
    assert np.array_equal(first.get_metadata("complex"), [[1 + 2j]])
    assert first.get_metadata("table").to_pydict() == {"n": [1, 2]}
    assert first.get_metadata("long") == "long " * 2_000
    assert first.get_metadata("later") == "after"
    assert [one.kind for one in first.reports] == ["text", "table", "text", "image"]
    assert first.description == "Described after it was finalized."


def test_reading_a_golden_store_changes_nothing_in_it(golden):
    before = {path: path.read_bytes() for path in (STORE / "store").rglob("*") if path.is_file()}
    Dataset.get(VERSIONS[0]["id"]).get_local_copy()
    assert {path: path.read_bytes() for path in (STORE / "store").rglob("*") if path.is_file()} == before


@pytest.fixture
def third(home, monkeypatch):
    """The versions of the third store: repacked, damaged, and repaired in part."""
    folder = STORE.parent / "store-3"
    monkeypatch.setenv("DATASET_STORE_URL", str(folder / "store"))
    return json.loads((folder / "expected.json").read_text())


def test_files_of_the_third_golden_store_are_found_where_they_are_now(third):
    for version in third:
        dataset = Dataset.get(version["id"])
        assert rows(dataset) == version["entries"]
        whole = [os.fsdecode(bytes.fromhex(row[0])) for row in version["entries"] if row[1] == "file"]
        whole = [path for path in whole if path not in version["lost"]]
        copy = Path(dataset.get_local_copy(files=whole))
        ids = {os.fsdecode(bytes.fromhex(row[0])): row[3] for row in version["entries"]}
        assert {path: blake3(Path(copy, path).read_bytes()).hexdigest() for path in whole} == {p: ids[p] for p in whole}
        for path in version["lost"]:
            with pytest.raises(Corrupt):
                dataset.get_local_copy(files=[path])


def test_what_was_lost_of_the_third_golden_store_is_told_exactly(third):
    affected = verify_store(open_workspace()).affected
    assert {one.id: list(one.paths) for one in affected} == {one["id"]: one["lost"] for one in third}
