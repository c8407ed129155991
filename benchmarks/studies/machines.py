"""Machines that benchmarks play, and what they ask of their store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock


def use(home: Path, machine: str) -> None:
    """From here on this process is that machine; the store is `store` in `home`."""
    from dataset_store.dataset import workspace as workspaces

    workspaces._open.clear()
    os.environ.update(
        DATASET_STORE_URL=str(home / "store"),
        DATASET_STORE_CACHE=str(home / machine / "cache"),
        DATASET_STORE_DATA=str(home / machine / "own"),
    )


@contextmanager
def counted() -> Iterator[list]:
    """Yields the backends that are opened within the block, each counting what is asked of it."""
    from dataset_store.dataset import workspace as workspaces
    from dataset_store.storage.wrappers import CountingBackend

    real, made = workspaces.backend_at, []

    def counting(url: str, **options):
        made.append(CountingBackend(real(url, **options)))
        return made[-1]

    with mock.patch.object(workspaces, "backend_at", counting):
        yield made
