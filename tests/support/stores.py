"""Several stores of one machine, and all that a version is, to be compared between them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dataset_store import Dataset
from dataset_store.core.entries import IDENTITY_BITS, Entries
from dataset_store.core.tree import read_all
from dataset_store.dataset.annotations.metadata import piece_of
from dataset_store.dataset.workspace import Workspace, open_workspace
from dataset_store.storage.trees import root_of
from dataset_store.testing.folders import read


@dataclass
class Stores:
    """Stores in a folder, by name; one of them is in force."""

    home: Path
    monkeypatch: pytest.MonkeyPatch

    def url(self, name: str) -> str:
        return name if "://" in name else str(self.home / name)

    def use(self, name: str) -> None:
        """From here on this one is in force."""
        self.monkeypatch.setenv("DATASET_STORE_URL", self.url(name))

    def get(self, name: str, version_id: str) -> Dataset:
        """A version of a store, which is in force from here on."""
        self.use(name)
        return Dataset.get(version_id)


def snapshot(store: str, version_id: str, *, files: bool = True) -> dict[str, Any]:
    """All that a version is, wherever its bytes lie and whatever its dataset is called there."""
    workspace = open_workspace(store)
    workspace.refresh()
    version = workspace.live_version(version_id)
    entry = version.entry
    rows = read_all(root_of(entry.tree), workspace.store.nodes)
    return {
        "id": version.id,
        "number": version.number,
        "digest": entry.tree.digest,
        "parents": entry.parents,
        "statistics": entry.stats,
        "producer": entry.producer,
        "time": entry.time,
        "tags": version.tags,
        "description": version.description,
        "metadata": {name: piece_of(workspace, version_id, None, name) for name in sorted(version.metadata)},
        "published": version.published,
        "archived": version.archived,
        "keys": rows.keys,
        "kinds": (rows.kinds & IDENTITY_BITS).tolist(),
        "times": rows.mtimes.tolist(),
        "contents": rows.content_ids.tobytes(),
        "origins": [rows.origin_ids[number] for number in rows.origins.tolist()],
        "links": [(one.link, one.size, one.etag, one.hash) for one in held(workspace, version_id).link_entries],
        "files": read(held(workspace, version_id).get_local_copy()) if files else None,
    }


def held(workspace: Workspace, version_id: str) -> Dataset:
    return Dataset(workspace, None, version_id)


def same(one: str, other: str, version_id: str, *, files: bool = True, **differing: Any) -> None:
    """Assert that a version is the same in two stores, but for what is told; with `files`, byte for byte."""
    there = snapshot(other, version_id, files=files)
    assert there == snapshot(one, version_id, files=files) | differing


def log_length(store: str) -> int:
    workspace = open_workspace(store)
    workspace.refresh()
    return workspace.catalog.head


def pack_bytes(store: Path) -> int:
    return sum(path.stat().st_size for path in (store / "packs").rglob("*") if path.is_file())


def rows_of(store: str, version_id: str) -> Entries:
    """The entries of a version, with places of that store."""
    workspace = open_workspace(store)
    return read_all(root_of(workspace.live_version(version_id).entry.tree), workspace.store.nodes)
