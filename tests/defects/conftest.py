"""What the tests of defects need besides a home: other processes, other machines, and what is asked of the store."""

import os
from dataclasses import dataclass, field

import pytest

from dataset_store.dataset import workspace as workspaces
from dataset_store.storage.wrappers import CountingBackend


@pytest.fixture
def new_process():
    """Go on as a process that was started after this one ended: nothing is open, and no copy is in use."""

    def switch():
        for workspace in workspaces._open.values():
            for lock in workspace.copies._held.values():
                os.close(lock)
            workspace.copies._held.clear()
        workspaces._open.clear()

    return switch


@pytest.fixture
def second_process():
    """Go on as a process that runs beside this one: whatever this one uses stays in use."""
    return workspaces._open.clear


@pytest.fixture
def another_machine(home, monkeypatch):
    """Go on as a machine that knows nothing yet of the store."""

    def switch(name="other"):
        workspaces._open.clear()
        monkeypatch.setenv("DATASET_STORE_CACHE", str(home / name / "cache"))
        monkeypatch.setenv("DATASET_STORE_DATA", str(home / name / "own"))

    return switch


@dataclass
class Traffic:
    """What passed between this machine and its stores since the last reset."""

    backends: list[CountingBackend] = field(default_factory=list)

    @property
    def requests(self) -> int:
        return sum(backend.snapshot().total_calls for backend in self.backends)

    @property
    def parts_read(self) -> int:
        """Objects and parts that were asked for, of which a batch asks for many."""
        return sum(len(backend.snapshot().keys_read) for backend in self.backends)

    @property
    def bytes_read(self) -> int:
        return sum(backend.snapshot().bytes_read for backend in self.backends)

    @property
    def bytes_written(self) -> int:
        return sum(backend.snapshot().bytes_written for backend in self.backends)

    def reset(self) -> None:
        for backend in self.backends:
            backend.reset()


@pytest.fixture
def traffic(monkeypatch):
    """Counts what every store that is opened from here on is asked."""
    counted = Traffic()
    real = workspaces.backend_at

    def counting(url, **options):
        counted.backends.append(CountingBackend(real(url, **options)))
        return counted.backends[-1]

    monkeypatch.setattr(workspaces, "backend_at", counting)
    workspaces._open.clear()
    return counted
