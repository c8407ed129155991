"""How operations grow with the number of entries of a version, and with the number of versions of a dataset.

    python benchmarks/studies/growth.py entries --sizes 10000 100000 1000000 10000000 100000000 --scratch /dev/shm
    python benchmarks/studies/growth.py versions --counts 1 10 100 1000 10000 --scratch /dev/shm

Entries are made up (their contents are nowhere), but stores, trees and logs are real, and so is every operation that is
measured: each is one call in a process of its own, whose largest resident set is told beside it; the median of five.
Then the exponent of each fit, the slope of a line through the logarithms: 0 where an operation takes as long however
much there is, 1 where it takes ten times as long for ten times as much. What is expected stands beside it.
"""

import argparse
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from depth import entries_of
from machines import use

PART = 250_000
EDITS = 100
ROUNDS = 5

EXPECTED = {
    "get": 0.0,
    "commit": 0.0,
    "diff": 0.0,
    "merge": 0.0,
    "one directory": 0.0,
    "list": 1.0,
    "first get": 1.0,
    "all versions": 1.0,
    "store bytes": 1.0,
    "log objects": 1.0,
    "state of a machine": 1.0,
}
"""Exponents."""


# --- stores of made-up entries ------------------------------------------------------------------------------------


class Series:
    """A dataset whose versions are made from trees alone, as `finalize` makes them; each of the one before."""

    def __init__(self) -> None:
        from dataset_store import Dataset
        from dataset_store.dataset.workspace import workspace_for
        from dataset_store.local.settings import load_settings

        versions = Dataset.list_datasets("p", "^growth$", only_completed=True)
        if versions:
            last = max(versions, key=lambda one: tuple(map(int, one["version"].split("."))))["id"]
        else:
            first = Dataset.create(dataset_project="p", dataset_name="growth", dataset_version="0.0.1")
            first.finalize()
            last = first.id
        self.rng = np.random.default_rng(len(versions))
        self.workspace = workspace_for(load_settings())
        entry = self.workspace.live_version(last).entry
        self.series = entry.series
        self.parents: tuple[str, ...] = (last,) if versions else ()
        self.tree = entry.tree if versions else None

    def edit(self, numbers: np.ndarray) -> None:
        """Give these entries new contents."""
        from dataset_store.core.digest import PackName
        from dataset_store.core.entries import Changes
        from dataset_store.core.packfile import PackRef
        from dataset_store.storage.trees import write_tree

        store = self.workspace.store
        writer = store.pack_writer(0)
        changes = Changes(entries_of(numbers, self.rng, PackRef(0, PackName(self.rng.bytes(16)))), [])
        self.tree = write_tree(self.tree, changes, writer, store.nodes)
        writer.flush()

    def fill(self, size: int) -> None:
        """Make the first tree, of so many entries, in parts; no copies of nodes are kept."""
        from dataset_store.core.digest import PackName
        from dataset_store.core.packfile import PackRef
        from dataset_store.storage.trees import NoKeeper, write_new_tree

        starts = range(0, size, PART)
        pack = PackRef(0, PackName(self.rng.bytes(16)))
        parts = (entries_of(np.arange(start, min(start + PART, size)), self.rng, pack) for start in starts)
        writer = self.workspace.store.pack_writer(0)
        self.tree = write_new_tree(parts, writer, NoKeeper())
        writer.flush()

    def commit(self, number: str) -> None:
        from dataset_store.core.log_entries import Statistics, VersionEntry

        entry = VersionEntry(
            commit=self.rng.bytes(16).hex(),
            time=time.time_ns(),
            series=self.series,
            opens=None,
            version=number,
            parents=self.parents,
            tree=self.tree,
            stats=Statistics(files=0, bytes=0, added=0, modified=0, removed=0),
            tags=(),
            description=None,
            metadata={},
            producer=None,
        )
        self.workspace.store.catalog.commit(lambda _catalog: entry)
        self.parents = (entry.commit,)


def store_of_entries(home: Path, size: int) -> None:
    """Versions 1.0.0 of so many entries, 1.0.1 with a hundred of them changed."""
    use(home, "writer")
    made = Series()
    made.fill(size)
    made.commit("1.0.0")
    made.edit(np.unique(made.rng.integers(0, size, EDITS)))
    made.commit("1.0.1")


def more_versions(home: Path, first: int, last: int) -> None:
    """Versions 1.0.`first` to `last` of 10,000 entries, each with ten changed."""
    use(home, "writer")
    made = Series()
    for number in range(first, last + 1):
        made.edit(np.arange(10_000) if number == 1 else np.unique(made.rng.integers(0, 10_000, 10)))
        made.commit(f"1.0.{number}")


# --- what is measured, each in a process of its own ---------------------------------------------------------------


def operation(name: str, home: Path, machine: str, old: str, new: str) -> float:
    """Seconds of one operation. What comes before it in a program is not in them: the import, and `get`."""
    use(home, machine)
    from dataset_store import Dataset

    def get(version: str) -> Dataset:
        return Dataset.get(dataset_project="p", dataset_name="growth", dataset_version=version)

    if name in {"get", "first get"}:
        return seconds(lambda: get(new))
    before, after = get(old), get(new)
    return seconds(OPERATIONS[name](home, before, after))


def _commit(home: Path, _before, after) -> Callable[[], object]:
    from dataset_store import Dataset

    folder = Path(tempfile.mkdtemp(dir=home))
    for number in range(EDITS):
        (folder / f"d{number:05d}").mkdir()
        (folder / f"d{number:05d}" / "new").write_bytes(os.urandom(100))

    def commit() -> None:
        made = Dataset.create(dataset_project="p", dataset_name=f"child of {after.id}", parent_datasets=[after])
        made.add_files(folder)
        made.finalize(auto_upload=True)

    return commit


def _merge(home: Path, before, after) -> Callable[[], object]:
    from dataset_store import Dataset

    beside = Dataset.create(dataset_project="p", dataset_name="beside", parent_datasets=[before])
    folder = Path(tempfile.mkdtemp(dir=home))
    (folder / "beside").write_bytes(os.urandom(100))
    beside.add_files(folder)
    beside.finalize(auto_upload=True)

    def merge() -> None:
        Dataset.create(dataset_project="p", dataset_name="merged", parent_datasets=[after, beside]).finalize()

    return merge


OPERATIONS: Mapping[str, Callable[..., Callable[[], object]]] = {
    "diff": lambda _home, before, after: lambda: after.diff(before),
    "one directory": lambda _home, _before, after: lambda: after.list_files("d00000/*"),
    "list": lambda _home, _before, after: after.list_files,
    "all versions": lambda _home, _before, after: lambda: type(after).list_datasets("p", "^growth$"),
    "commit": _commit,
    "merge": _merge,
}


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measured(name: str, home: Path, old: str, new: str) -> dict[str, float]:
    """Medians of an operation's seconds and of the largest resident set, in MB."""
    found = []
    for number in range(ROUNDS):
        machine = f"fresh-{number}" if name == "first get" else "reader"
        words = [sys.executable, __file__, "one", name, str(home), machine, old, new]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        found.append(json.loads(done.stdout))
    return {key: statistics.median(one[key] for one in found) for key in ("seconds", "MB")}


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- the two axes -------------------------------------------------------------------------------------------------


def by_entries(options: argparse.Namespace) -> None:
    rows: dict[int, dict[str, dict[str, float]]] = {}
    for size in options.sizes:
        home = Path(tempfile.mkdtemp(prefix="growth-", dir=options.scratch))
        try:
            began = time.perf_counter()
            peak = apart("build", str(home), str(size))
            row = {"build": {"seconds": time.perf_counter() - began, "MB": peak}}
            row["store bytes"] = {"bytes": taken(home / "store")}
            for name in ("get", "one directory", "diff", "commit", "merge", "list"):
                if name != "list" or size <= options.list_up_to:
                    row[name] = measured(name, home, "1.0.0", "1.0.1")
            rows[size] = row
            tell(f"{size} entries", row)
        finally:
            shutil.rmtree(home, ignore_errors=True)
    fits(rows)


def apart(*words: str) -> float:
    """Build in a process of its own, as memory of this one would be counted as its children's; its largest, in MB."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def by_versions(options: argparse.Namespace) -> None:
    rows: dict[int, dict[str, dict[str, float]]] = {}
    home = Path(tempfile.mkdtemp(prefix="growth-", dir=options.scratch))
    try:
        done = 0
        for count in options.counts:
            began = time.perf_counter()
            peak = apart("more", str(home), str(done + 1), str(count))
            row = {"build": {"seconds": time.perf_counter() - began, "MB": peak}}
            done = count
            row["store bytes"] = {"bytes": taken(home / "store")}
            row["log objects"] = {"count": sum(1 for one in (home / "store" / "log").rglob("*") if one.is_file())}
            for name in ("first get", "get", "diff", "commit", "all versions"):
                row[name] = measured(name, home, "1.0.1", f"1.0.{count}")
            row["state of a machine"] = {"bytes": taken(home / "reader")}
            for fresh in home.glob("fresh-*"):
                shutil.rmtree(fresh)
            rows[count] = row
            tell(f"{count} versions", row)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    fits(rows)


def tell(title: str, row: Mapping[str, Mapping[str, float]]) -> None:
    print(title, flush=True)
    for name, values in row.items():
        told = ", ".join(f"{value:.4g} {unit}" for unit, value in values.items())
        print(f"  {name:20} {told}", flush=True)


def fits(rows: Mapping[int, Mapping[str, Mapping[str, float]]]) -> None:
    """The exponent of each operation over all sizes, and over the last two."""
    print(f"{'':22} exponent, of the last two, expected")
    for name in next(iter(rows.values())):
        points = [(size, next(iter(row[name].values()))) for size, row in rows.items() if name in row]
        if name in EXPECTED and len(points) > 1:
            print(f"  {name:20} {slope(points):6.2f} {slope(points[-2:]):8.2f} {EXPECTED[name]:10.0f}")
    print(json.dumps(rows))


def slope(points: Sequence[tuple[float, float]]) -> float:
    x, y = (np.array([math.log(one[at]) for one in points]) for at in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    entries = commands.add_parser("entries")
    entries.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    entries.add_argument("--list-up-to", type=int, default=10_000_000)
    entries.add_argument("--scratch")
    versions = commands.add_parser("versions")
    versions.add_argument("--counts", type=int, nargs="+", default=[1, 10, 100, 1000])
    versions.add_argument("--scratch")
    building = commands.add_parser("build")
    building.add_argument("home", type=Path)
    building.add_argument("size", type=int)
    more = commands.add_parser("more")
    more.add_argument("home", type=Path)
    more.add_argument("first", type=int)
    more.add_argument("last", type=int)
    one = commands.add_parser("one")
    for name in ("name", "home", "machine", "old", "new"):
        one.add_argument(name)
    options = parser.parse_args()
    if options.command == "entries":
        by_entries(options)
    elif options.command == "versions":
        by_versions(options)
    elif options.command in {"build", "more"}:
        if options.command == "build":
            store_of_entries(options.home, options.size)
        else:
            more_versions(options.home, options.first, options.last)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    else:
        took = operation(options.name, Path(options.home), options.machine, options.old, options.new)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        json.dump({"seconds": took, "MB": peak}, sys.stdout)


if __name__ == "__main__":
    main()
