"""The library reads every golden store, as its independent reader does."""

import json
import os
from pathlib import Path

import pytest
from blake3 import blake3

from dataset_store import Dataset

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


def test_reading_a_golden_store_changes_nothing_in_it(golden):
    before = {path: path.read_bytes() for path in (STORE / "store").rglob("*") if path.is_file()}
    Dataset.get(VERSIONS[0]["id"]).get_local_copy()
    assert {path: path.read_bytes() for path in (STORE / "store").rglob("*") if path.is_file()} == before
