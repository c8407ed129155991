"""Many processes that commit to one store at once, each entry under an id of its own: how it ended.

As a program it is one of the writers: `commit_drill.py URL FIRST COUNT` commits the versions `FIRST` … and prints what
it met as JSON. `drill` runs many and reads the log back. A commit whose outcome could not be learned is repeated with
the same id, as its error says; whatever else a writer is told is a conflict that should not be.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dataset_store.core.catalog import Catalog
from dataset_store.core.envelope import object_digest
from dataset_store.core.log_entries import SeriesName, VersionEntry
from dataset_store.errors import CommitOutcomeUnknown, DatasetStoreError
from dataset_store.storage.catalog_cache import CatalogView
from dataset_store.storage.log import Log
from dataset_store.storage.storages import backend_at
from dataset_store.storage.store import fetch_config
from dataset_store.testing.log_entries import id_hex, version_entry

_ATTEMPTS = 5


@dataclass(frozen=True)
class Drill:
    """What many writers met, and what stands in the log after them."""

    commits: Counter
    """How often each commit id stands."""
    numbers: Counter
    """How often each version number stands."""
    slots: list[int]
    conflicts: list[str]
    repeated: int
    """Commits whose outcome had to be learned by repeating them."""


def drill(url: str, writers: int, count: int, environment: Mapping[str, str], seconds: float) -> Drill:
    """Let `writers` processes commit `count` versions each to the store at `url`, for at most `seconds`."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, url, str(writer * count), str(count)],
            env=os.environ | environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for writer in range(writers)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [json.loads(process.communicate(timeout=seconds)[0]) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    backend = backend_at(url)
    log = Log(backend, object_digest(fetch_config(backend)))
    records = list(log.read_after(log.start))
    versions = [record.entry for record in records if isinstance(record.entry, VersionEntry)]
    return Drill(
        Counter(entry.commit for entry in versions),
        Counter(entry.version for entry in versions),
        [record.slot for record in records],
        [conflict for one in told for conflict in one["conflicts"]],
        sum(one["repeated"] for one in told),
    )


def _entry(number: int, catalog: Catalog) -> VersionEntry:
    """The version of that number, of the one series; its own number is the slot that it takes."""
    standing = catalog.version(id_hex(number))
    if standing is not None:
        return standing.entry
    opens = {} if catalog.series_named("p", "d") else {"opens": SeriesName(project="p", name="d")}
    return version_entry(number, f"1.0.{catalog.head}", **opens)


def _commit(view: CatalogView, number: int) -> tuple[list[str], int]:
    for attempt in range(_ATTEMPTS):
        try:
            record = view.commit(lambda catalog: _entry(number, catalog))
        except CommitOutcomeUnknown:
            continue
        except DatasetStoreError as error:
            return [f"{type(error).__name__}: {error}"], attempt
        return [] if record.entry.commit == id_hex(number) else ["another entry"], attempt
    return ["never learned"], _ATTEMPTS


def main(url: str, first: str, count: str) -> None:
    """One writer."""
    backend = backend_at(url)
    view = CatalogView(Log(backend, object_digest(fetch_config(backend))))
    print("ready", flush=True)
    sys.stdin.readline()
    ended = [_commit(view, number) for number in range(int(first), int(first) + int(count))]
    told = {"conflicts": [one for conflicts, _ in ended for one in conflicts], "repeated": sum(n for _, n in ended)}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
