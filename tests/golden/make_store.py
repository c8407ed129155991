"""Makes a golden store: run once for each version of the format, never again for the same one.

    python tests/golden/make_store.py tests/golden/store-1

Writes `store/` and `expected.json`. Chunks are small in it (average 256 bytes), so that a small store has files of many
chunks, segment lists and trees of several levels.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from blake3 import blake3

from dataset_store import Dataset
from dataset_store.core.chunking import ChunkerParams, cut_ends
from dataset_store.core.envelope import StoreConfig, encode_config
from dataset_store.local import ingest
from dataset_store.storage.backend import Key
from dataset_store.storage.posix_backend import PosixBackend


def noise(name: str, size: int) -> bytes:
    return blake3(name.encode()).digest(size)


def write(path: Path, data: bytes, mtime: int = 1_600_000_000_123_456_789, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)
    os.utime(path, ns=(mtime, mtime))


def fill(folder: Path) -> None:
    for number in range(700):
        write(folder / "many" / f"{number:05d}.txt", b"%d\n" % (number % 300), mtime=number * 10**15)
    write(folder / "empty.bin", b"")
    write(folder / "run.sh", b"#!/bin/sh\necho hello\n", mode=0o755)
    write(folder / "text.csv", b"".join(b"%d,%d,%d\n" % (n, n * n, n % 7) for n in range(1500)))
    write(folder / "noise.bin", noise("noise", 20_000), mtime=-5)
    (folder / "nothing" / "here").mkdir(parents=True)
    (folder / "link").symlink_to("many/00007.txt")
    write(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.txt")), b"not UTF-8\n")


def listing(entries: list) -> list[list[object]]:
    """Rows of path (hex), kind, size, content id, exec bit, time, origin."""
    return [
        [os.fsencode(e.relative_path).hex(), e.kind, e.size, e.hash, e.executable, e.mtime_ns, e.parent_dataset_id]
        for e in entries
    ]


def main(target: Path) -> None:
    home = Path(tempfile.mkdtemp())
    os.environ.update(
        DATASET_STORE_URL=str(target / "store"),
        DATASET_STORE_CACHE=str(home / "cache"),
        DATASET_STORE_DATA=str(home / "data"),
    )
    config = StoreConfig(store=os.urandom(16).hex(), chunker="gear64-v1/256", tree="v1")
    PosixBackend(str(target / "store")).create(Key("config"), [encode_config(config)])
    ingest.FIRST_RUNS = 10_000  # a file of many pieces is not pieced together anew
    folder = home / "data-1"
    fill(folder)
    versions = []

    def commit(**create: object) -> Dataset:
        dataset = Dataset.create(**create)
        dataset.sync_folder(folder)
        dataset.finalize(auto_upload=True)
        versions.append(dataset)
        return dataset

    first = commit(
        dataset_project="golden", dataset_name="store", dataset_tags=["first", "latest"], description="The first."
    )
    commit(parent_datasets=[first])
    # A file whose chunks are all stored, in another order: more than 64 segments.
    base = noise("noise", 20_000)
    ends = [0, *cut_ends(base, ChunkerParams(256), final=True).tolist()]
    chunks = [base[start:end] for start, end in zip(ends, ends[1:], strict=False)]
    write(folder / "shuffled.bin", noise("lead", 3000) + base[10_000:] + base[:10_000])
    write(folder / "noise.bin", base[:9_000] + b"inserted" + base[9_000:])
    (folder / "many" / "00003.txt").unlink()
    (folder / "empty.bin").unlink()
    (folder / "link").unlink()
    left = commit(parent_datasets=[first], dataset_name="left", dataset_version="7.0")
    write(folder / "pieces.bin", b"".join(reversed(chunks)))
    right = commit(parent_datasets=[first], dataset_name="right", dataset_project="golden", dataset_tags=["ü"])
    merged = Dataset.create(dataset_project="golden", dataset_name="merged", parent_datasets=[left, right])
    merged.finalize(auto_upload=True)
    versions.append(merged)
    first.tags = ["first"]
    empty = Dataset.create(dataset_project="golden", dataset_name="empty")
    empty.finalize(auto_upload=True)
    versions.append(empty)
    expected = [
        {
            "id": one.id,
            "project": one.project,
            "name": one.name,
            "version": one.version,
            "tags": one.tags,
            "parents": one.get_dependency_graph()[one.id],
            "digest": one._final().entry.tree.digest,
            "entries": listing(one.file_entries),
        }
        for one in versions
    ]
    for one in expected[1:]:
        # The long listing once; of the others what differs.
        if len(one["entries"]) > 100:
            same = {json.dumps(entry) for entry in expected[0]["entries"]}
            held = {entry[0] for entry in one["entries"]}
            one["removed"] = [entry[0] for entry in expected[0]["entries"] if entry[0] not in held]
            one["entries"] = [entry for entry in one["entries"] if json.dumps(entry) not in same]
            one["on_top_of"] = expected[0]["id"]
    (target / "expected.json").write_text(json.dumps(expected).replace("], [", "],\n[") + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
