"""Machines and stores for tests that break things: switch to another machine, and check that nothing was lost."""

import gc
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import DatasetStoreError
from dataset_store.storage.wrappers import CountingBackend
from dataset_store.testing.folders import read, write


def use_home(path: Path, set_variable) -> None:
    set_variable("DATASET_STORE_URL", str(path / "store"))
    set_variable("DATASET_STORE_CACHE", str(path / "cache"))
    set_variable("DATASET_STORE_DATA", str(path / "own"))


@dataclass
class Place:
    """A working folder, and the store in it with one version that must outlive everything."""

    home: Path
    monkeypatch: pytest.MonkeyPatch
    files: dict[str, bytes]
    first_id: str
    machines: int = 0

    @property
    def first(self) -> Dataset:
        """The version, as this machine sees it now."""
        return Dataset.get(self.first_id)

    @property
    def store(self) -> Path:
        return self.home / "store"

    def source(self, files: dict[str, bytes], name: str = "other") -> Path:
        return write(self.home / name, files)

    def new_process(self) -> None:
        """The same machine; nothing that was open is."""
        for workspace in workspaces._open.values():
            for lock in workspace.copies._held.values():
                os.close(lock)
            workspace.copies._held.clear()
        workspaces._open.clear()
        gc.collect()

    def new_machine(self) -> Path:
        """Another machine with nothing in its cache; its folder."""
        self.new_process()
        self.machines += 1
        machine = self.home / f"machine{self.machines}"
        self.monkeypatch.setenv("DATASET_STORE_CACHE", str(machine / "cache"))
        self.monkeypatch.setenv("DATASET_STORE_DATA", str(machine / "own"))
        return machine

    def check(self) -> None:
        """Another machine reads the first version byte for byte, by its id and by its name."""
        cache, data = os.environ["DATASET_STORE_CACHE"], os.environ["DATASET_STORE_DATA"]
        self.new_machine()
        assert read(self.first.get_local_copy()) == self.files
        assert Dataset.get(dataset_project="p", dataset_name="d", dataset_version="1.0.0").id == self.first_id
        self.new_process()
        self.monkeypatch.setenv("DATASET_STORE_CACHE", cache)
        self.monkeypatch.setenv("DATASET_STORE_DATA", data)


@pytest.fixture
def backends(monkeypatch):
    """Every backend that a workspace opens from here on, counting."""
    made = []
    real = workspaces.backend_at

    def counting(url, **options):
        made.append(CountingBackend(real(url, **options)))
        return made[-1]

    monkeypatch.setattr(workspaces, "backend_at", counting)
    workspaces._open.clear()
    return made


@pytest.fixture
def another_machine(home, monkeypatch):
    """Switch to a machine that knows nothing yet of the store; its folder."""

    def switch(name: str = "other") -> Path:
        workspaces._open.clear()
        monkeypatch.setenv("DATASET_STORE_CACHE", str(home / name / "cache"))
        monkeypatch.setenv("DATASET_STORE_DATA", str(home / name / "own"))
        return home / name

    return switch


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with a store of one version of small, compressible and large files; the version's id; the files."""
    folder = tmp_path_factory.mktemp("made")
    files = {
        "small": b"small",
        "sub/text.txt": b"some text that repeats\n" * 2_000,
        "sub/large.bin": os.urandom(400_000),
        "empty": b"",
    }
    with pytest.MonkeyPatch.context() as patch:
        use_home(folder, patch.setenv)
        version_id = version_of(write(folder / "first", files)).id
    workspaces._open.clear()
    return folder, version_id, files


@pytest.fixture
def place(home, monkeypatch, made):
    """A store with one version, which is checked again when the test ends."""
    folder, version_id, files = made
    shutil.copytree(folder, home, dirs_exist_ok=True)
    place = Place(home, monkeypatch, files, version_id)
    yield place
    place.check()


@pytest.fixture
def refused():
    """A context in which exactly this error is raised: it says what happened, to which thing, and what to do next."""

    @contextmanager
    def check(kind: type[DatasetStoreError], *names: object):
        with pytest.raises(kind) as caught:
            yield
        error = caught.value
        assert type(error) is kind, repr(error)
        for name in names:
            assert str(name) in error.what, error.what
        assert error.what.endswith(".")
        assert error.next_step.endswith(".")

    return check
