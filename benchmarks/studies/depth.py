"""What depth costs: a long chain of versions, read by a machine that has never seen it.

    python benchmarks/studies/depth.py files --versions 1000 --files 10000 --edits 20
    python benchmarks/studies/depth.py entries --entries 1000000 --commits 200 --edits 10

`files` makes real files and versions and counts what a fresh machine reads of the first and of the last. `entries`
edits a tree of made-up entries in a store in memory and compares node bytes written with those of the edits alone.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machines import counted

from dataset_store.core.census import decode_census
from dataset_store.core.diff import diff
from dataset_store.core.digest import NodeId, PackName, StoreId, VersionId
from dataset_store.core.entries import ONE_CHUNK, Changes, Entries, Segments, make_entries
from dataset_store.core.frames import FrameKind
from dataset_store.core.nodes import NodeRef
from dataset_store.core.packfile import PackRef
from dataset_store.core.paths import PathKey
from dataset_store.core.tree import read_all
from dataset_store.core.tree_writing import edit
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.trees import NoKeeper, StoredNodes, place_of, root_of, write_tree

STORE = StoreId(bytes(16))


class Counted:
    """Nodes read from packs, and the packs that they lay in."""

    def __init__(self, nodes: StoredNodes) -> None:
        self.nodes, self.count, self.packs = nodes, 0, set()

    def read_nodes(self, refs):
        self.count += len(refs)
        self.packs |= {ref.place.pack for ref in refs}
        return self.nodes.read_nodes(refs)


# --- real versions ------------------------------------------------------------------------------------------------


def chain(home: Path, versions: int, files: int, edits: int) -> list[str]:
    from dataset_store import Dataset

    rng = random.Random(5)
    folder = home / "data"
    paths = [folder / f"d{n // 500:03d}" / f"f{n:06d}" for n in range(files)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(64))
    ids: list[str] = []
    first_edited = rng.sample(paths, edits)
    for number in range(versions):
        # The last edit is of the same files as the first, so that only their depth tells the two apart.
        edited = first_edited if number in {1, versions - 1} else rng.sample(paths, edits)
        dataset = Dataset.create(dataset_name="chain", dataset_project="bench", parent_datasets=ids[-1:])
        if number:
            dataset.add_files(_edit(rng, edited, home / "edited"))
        else:
            dataset.sync_folder(folder)
        dataset.finalize(auto_upload=True)
        ids.append(dataset.id)
        if number % 100 == 99:
            print(f"  {number + 1} versions", file=sys.stderr, flush=True)
    return ids


def _edit(rng: random.Random, paths: list[Path], folder: Path) -> Path:
    """A folder of new contents for these files, so that a version costs what it changes."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in paths:
        place = folder / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(rng.randbytes(64))
    return folder


def read_as_fresh_machine(home: Path, version: str, parent: str) -> dict[str, int]:
    """Nodes, node packs and log objects that listing a version, and diffing it with its parent, read."""
    from dataset_store.dataset import workspace as workspaces
    from dataset_store.local.settings import load_settings

    fresh = home / f"fresh-{version}"
    os.environ.update(DATASET_STORE_CACHE=str(fresh / "cache"), DATASET_STORE_DATA=str(fresh / "own"))
    with counted() as backends:
        space = workspaces.workspace_for(load_settings())
        space.refresh()
        log_objects = backends[-1].snapshot().objects_read
        root, before = root_of(space.base_of(version)), root_of(space.base_of(parent))
        listing = Counted(space.store.nodes)
        read_all(root, listing)
        difference = Counted(space.store.nodes)
        changed = len(diff(before, root, difference))
    shutil.rmtree(fresh, ignore_errors=True)
    return {
        "log objects": log_objects,
        "nodes listed": listing.count,
        "node packs": len(listing.packs),
        "nodes diffed": difference.count,
        "files that differ": changed,
    }


def measure_files(options: argparse.Namespace) -> None:
    home = Path(tempfile.mkdtemp(prefix="depth-", dir=options.scratch))
    os.environ.update(
        DATASET_STORE_URL=str(home / "store"),
        DATASET_STORE_CACHE=str(home / "cache"),
        DATASET_STORE_DATA=str(home / "own"),
    )
    try:
        begin = time.perf_counter()
        ids = chain(home, options.versions, options.files, options.edits)
        seconds = time.perf_counter() - begin
        print(f"{options.versions} versions of {options.files} files, {options.edits} edits each: {seconds:.0f} s")
        for name, at in (("version 2", 1), (f"version {len(ids)}", len(ids) - 1)):
            print(f"{name:14s} {read_as_fresh_machine(home, ids[at], ids[at - 1])}")
    finally:
        shutil.rmtree(home, ignore_errors=True)


# --- made-up entries ----------------------------------------------------------------------------------------------


def entries_of(numbers: np.ndarray, rng: np.random.Generator, pack: PackRef) -> Entries:
    """Entries with random contents and times, as hard to compress as real ones."""
    count = len(numbers)
    keys = [PathKey(b"d%05d\0image_%07d.jpg" % (n // 1000, n)) for n in numbers.tolist()]
    rows = make_entries(keys, np.full(count, 1 | ONE_CHUNK, np.uint8), rng.integers(1, 30_000, count).astype(np.uint64))
    one = np.arange(count, dtype=np.uint32)
    segments = Segments(
        (pack,),
        one * 0,
        40 + (one // 20) * 200_000 % 2**26,
        one * 0 + 200_000,
        (one % 20) * 9_000,
        rows.sizes,
        np.zeros((count, 32), np.uint8),
    )
    return Entries(
        keys,
        rows.kinds,
        rows.sizes,
        rng.integers(10**18, 2 * 10**18, count),
        rng.integers(0, 256, (count, 32)).astype(np.uint8),
        rows.origins,
        (VersionId(rng.bytes(16)),),
        np.arange(1, count + 1),
        segments,
    )


def measure_entries(options: argparse.Namespace) -> dict[str, float]:
    rng = np.random.default_rng(1)
    backend = MemoryBackend()
    nodes = StoredNodes(PackReader(STORE, lambda _: backend), NoKeeper())
    begin = time.perf_counter()

    def writer() -> PackWriter:
        return PackWriter(backend, STORE, 0, lambda: PackName(rng.bytes(16)))

    first = writer()
    tree = write_tree(
        None,
        Changes(entries_of(np.arange(options.entries), rng, PackRef(0, PackName(rng.bytes(16)))), []),
        first,
        nodes,
    )
    first.flush()
    versions, written, alone, most_packs = [tree], 0, 0, 0
    for _ in range(options.commits):
        numbers = np.unique(rng.integers(0, options.entries, options.edits))
        changes = Changes(entries_of(numbers, rng, PackRef(0, PackName(rng.bytes(16)))), [])
        alone += sum(place.stored for place in edit(root_of(tree), changes, nodes, _Measured()).written)
        commit = writer()
        measured = _Stored(commit)
        tree = write_tree(tree, changes, measured, nodes)
        commit.flush()
        written += measured.node_bytes
        census = nodes.read(
            FrameKind.CENSUS, [NodeRef(NodeId(bytes.fromhex(tree.census.id)), place_of(tree.census.place))]
        )[0]
        most_packs = max(most_packs, len(decode_census(census, "memory")))
        versions.append(tree)
    seconds = time.perf_counter() - begin
    print(f"{options.entries} entries, {options.commits} commits of {options.edits} edits: {seconds:.0f} s")
    print(f"node bytes written {written}, of the edits alone {alone}, ratio {written / alone:.2f}")
    print(f"node packs at most {most_packs}")
    counts = []
    for name, at in (("version 1", 0), (f"version {len(versions)}", -1)):
        counted = Counted(nodes)
        read_all(root_of(versions[at]), counted)
        counts.append(counted.count)
        print(f"{name:14s} nodes {counted.count}, packs {len(counted.packs)}")
    return {
        "ratio": written / alone,
        "most packs": most_packs,
        "nodes of the first": counts[0],
        "nodes of the last": counts[1],
    }


class _Measured:
    """Takes nodes and forgets them, as frames of their stored length."""

    def __init__(self) -> None:
        self.writer = PackWriter(MemoryBackend(), STORE, 0, lambda: PackName(os.urandom(16)))

    def write_nodes(self, plains):
        from dataset_store.storage.trees import _PackedNodes

        return _PackedNodes(self.writer, NoKeeper()).write_nodes(plains)


class _Stored:
    """A pack writer that adds up the node bytes appended to it."""

    def __init__(self, writer: PackWriter) -> None:
        self.writer, self.node_bytes = writer, 0

    def append(self, frames):
        self.node_bytes += sum(len(frame.data) for frame in frames if frame.kind is FrameKind.NODE)
        return self.writer.append(frames)


def main() -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    files = commands.add_parser("files")
    files.add_argument("--versions", type=int, default=1000)
    files.add_argument("--files", type=int, default=10_000)
    files.add_argument("--edits", type=int, default=20)
    files.add_argument("--scratch", default=None)
    files.set_defaults(run=measure_files)
    entries = commands.add_parser("entries")
    entries.add_argument("--entries", type=int, default=1_000_000)
    entries.add_argument("--commits", type=int, default=200)
    entries.add_argument("--edits", type=int, default=10)
    entries.set_defaults(run=measure_entries)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
