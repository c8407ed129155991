"""Makes a golden store: run once for each of them, never again for the same one.

    python tests/golden/make_store.py tests/golden/store-1
    python tests/golden/make_store.py tests/golden/store-2
    python tests/golden/make_store.py tests/golden/store-3

Writes `store/` and `expected.json`. Chunks are small in it (average 256 bytes), so that a small store has files of many
chunks, segment lists and trees of several levels.

* `store-1`: files, symbolic links, directories; children, merges and labels.
* `store-2`: external links, metadata and reports, an output storage, labels changed after finalize, checkpoints. The
  packs of the output storage lie in `elsewhere/`; the log knows it as `file:///golden/elsewhere`, where it was made.
* `store-3`: packs condemned by gc, repacked twice, lost and repaired in part; holds, one of them released; lists of
  packs that are blobs; an artifact. `expected.json` has the paths of each version whose contents are lost.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from blake3 import blake3
from fsspec.implementations.memory import MemoryFileSystem

from dataset_store import Dataset
from dataset_store.core import log_entries
from dataset_store.core.chunking import ChunkerParams, cut_ends
from dataset_store.core.envelope import StoreConfig, encode_config
from dataset_store.core.packfile import pack_key
from dataset_store.core.segments import segments_of
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.annotations.metadata import piece_of
from dataset_store.dataset.checks.repairing import repair_store
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.upkeep.maintaining import collect_garbage, packs_of_version, repack_packs, wasteful_packs
from dataset_store.dataset.workspace import open_workspace
from dataset_store.local import ingest
from dataset_store.storage import collecting, pack_writer
from dataset_store.storage.backend import Key
from dataset_store.storage.posix_backend import PosixBackend

ELSEWHERE = Path("/golden/elsewhere")


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


def described(dataset: Dataset) -> dict[str, object]:
    return {
        "id": dataset.id,
        "project": dataset.project,
        "name": dataset.name,
        "version": dataset.version,
        "tags": dataset.tags,
        "parents": dataset.get_dependency_graph()[dataset.id],
        "digest": dataset._final().entry.tree.digest,
        "entries": listing(dataset.file_entries),
    }


def write_expected(target: Path, expected: list[dict[str, object]]) -> None:
    (target / "expected.json").write_text(json.dumps(expected).replace("], [", "],\n[") + "\n")


def begin(target: Path) -> Path:
    """An empty store, and a folder to work in."""
    home = Path(tempfile.mkdtemp())
    os.environ.update(
        DATASET_STORE_URL=str(target / "store"),
        DATASET_STORE_CACHE=str(home / "cache"),
        DATASET_STORE_DATA=str(home / "data"),
    )
    config = StoreConfig(store=os.urandom(16).hex(), chunker="gear64-v1/256", tree="v1")
    PosixBackend(str(target / "store")).create(Key("config"), [encode_config(config)])
    ingest.FIRST_RUNS = 10_000  # a file of many pieces is not pieced together anew
    return home


def make_first(target: Path) -> None:
    home = begin(target)
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
    expected = [described(one) for one in versions]
    for one in expected[1:]:
        # The long listing once; of the others what differs.
        if len(one["entries"]) > 100:
            same = {json.dumps(entry) for entry in expected[0]["entries"]}
            held = {entry[0] for entry in one["entries"]}
            one["removed"] = [entry[0] for entry in expected[0]["entries"] if entry[0] not in held]
            one["entries"] = [entry for entry in one["entries"] if json.dumps(entry) not in same]
            one["on_top_of"] = expected[0]["id"]
    write_expected(target, expected)


def make_second(target: Path) -> None:
    home = begin(target)
    folder = home / "data-2"
    write(folder / "near.txt", b"kept\n")
    write(folder / "noise.bin", noise("noise", 5_000))
    linked = MemoryFileSystem()
    linked.pipe("/golden/cats/tom.txt", b"grey\n")
    linked.pipe("/golden/cats/felix.txt", b"black and white\n")
    write(ELSEWHERE.parent / "hashed.txt", b"its hash is known\n")

    first = Dataset.create("links", "golden", output_uri=str(ELSEWHERE))
    first.sync_folder(folder)
    first.add_external_files("memory://golden/cats/", dataset_path="cats")
    first.add_external_files("memory://golden/cats/tom.txt", dataset_path="twice")
    first.set_metadata({"a": 1, "b": [None, "ü", 0.5, float("inf")]}, "plain")
    first.set_metadata(pd.DataFrame({"n": [1, 2], "text": ["x", None]}), "frame")
    first.set_metadata(np.arange(6, dtype=">i2").reshape(2, 3), "array")
    first.set_metadata(np.array([[1 + 2j]]), "complex")
    first.set_metadata(pa.table({"n": [1, 2]}), "table")
    first.set_metadata("long " * 2_000, "long")
    first.get_logger().report_text("begun", print_console=False)
    first.get_logger().report_table("table", "rows", 0, table_plot=[["a"], [1], [2]])
    first.finalize(auto_upload=True)

    first.set_metadata("after", "later")
    first.set_metadata("gone", "gone")
    first.set_metadata(None, "plain")
    first.get_logger().report_text("ended", print_console=False)
    first.get_logger().report_image("image", "array", 0, image=np.arange(300, dtype=np.uint8).reshape(10, 30))
    first.set_description("Described after it was finalized.")
    first.publish()
    first.archive()
    for number in range(60):
        first.tags = [f"tag-{number}", "kept"]
    Dataset.move_to_project("silver", "golden", "links")

    child = Dataset.create(parent_datasets=[first], description="", dataset_version="2.0.0")
    child.remove_files("memory://golden/cats/felix.txt")
    child.add_external_files(str(ELSEWHERE.parent / "hashed.txt"), read_hash=True)
    child.finalize(auto_upload=True)
    gone = Dataset.create(parent_datasets=[child])
    gone.finalize(auto_upload=True)
    home_again = Dataset.create(parent_datasets=[gone], output_uri=os.environ["DATASET_STORE_URL"])
    write(folder / "near.txt", b"changed\n")
    home_again.add_files(str(folder / "near.txt"))
    home_again.finalize(auto_upload=True)
    Dataset.delete(gone.id, force=True)
    write_expected(target, [described(one) | said_of(one) for one in (first, child, home_again)])
    shutil.move(ELSEWHERE, target / ELSEWHERE.name)


def make_third(target: Path) -> None:
    home = begin(target)
    log_entries.MAX_PACK_ROWS = collecting.MAX_PACK_ROWS = 2
    pack_writer.PackWriter.__init__.__kwdefaults__["target"] = 6_000
    folder = home / "data-3"
    for number in range(60):
        write(folder / "small" / f"{number:02d}.txt", noise(f"small{number}", 15), mtime=number * 10**15)
    write(folder / "noise.bin", noise("noise", 30_000))
    write(folder / "text.csv", b"".join(b"%d,%d,%d\n" % (n, n * n, n % 7) for n in range(1_500)))

    def commit(*parents: Dataset) -> Dataset:
        dataset = Dataset.create("upkeep", "golden", parent_datasets=list(parents))
        dataset.sync_folder(folder)
        dataset.finalize(auto_upload=True)
        return dataset

    first = commit()
    for number in range(0, 60, 2):
        write(folder / "small" / f"{number:02d}.txt", noise(f"later{number}", 16))
    base = noise("noise", 30_000)
    write(folder / "noise.bin", base[:9_000] + b"inserted" + base[9_000:])
    second = commit(first)
    workspace = open_workspace()
    store = workspace.store

    def keep(_: object, commit: str) -> log_entries.ArtifactEntry:
        blob = collecting.put_blob(store, noise("artifact", 3_000))
        return log_entries.ArtifactEntry(commit=commit, time=1, task="task", name="output", blob=blob)

    store.catalog.change(keep)
    draft = Dataset.create("upkeep", "golden")
    for number in range(3):
        write(folder / "dropped" / f"{number}.bin", noise(f"dropped{number}", 9_000))
    draft.sync_folder(folder)
    draft.upload()
    shutil.rmtree(folder / "dropped")
    held = sorted(collecting.list_packs(store).packs)[:3]

    def hold(packs_held: list, hold_id: str) -> None:
        def entry(_: object, commit: str) -> log_entries.HoldEntry:
            rows, blob = collecting.PackList(store).of(frozenset(packs_held))
            return log_entries.HoldEntry(commit=commit, time=1, hold=hold_id, packs=rows, listed=blob)

        store.catalog.change(entry)

    hold(held, "ab" * 16)
    collect_garbage(workspace, min_age=0, apply=True)
    store.catalog.change(lambda _, commit: log_entries.ReleaseEntry(commit=commit, time=1, hold="ab" * 16))
    hold(held[:1], "cd" * 16)
    Dataset.delete(first.id, force=True)
    for number in range(0, 60, 3):
        write(folder / "small" / f"{number:02d}.txt", noise(f"last{number}", 17))
    third = commit(second)
    repack_packs(workspace, [one.pack for one in wasteful_packs(workspace, dead_share=0.05)])
    collect_garbage(workspace, min_age=0, apply=True)
    repack_packs(workspace, [one.pack for one in packs_of_version(workspace, third._final())])
    collect_garbage(workspace, min_age=0, apply=True)
    (folder / "small" / "01.txt").unlink()
    (folder / "noise.bin").unlink()
    lose_and_repair(target, folder, [second, third])
    write_expected(target, [described(one) | lost_of(one) for one in (second, third)])


def lose_and_repair(target: Path, folder: Path, versions: list[Dataset]) -> None:
    """Delete packs with small files, and restore them from a folder that lacks some of these, without footers."""
    for name in ("cache", "data"):
        os.environ[f"DATASET_STORE_{name.upper()}"] += "-later"
    workspaces._open.clear()
    workspace, small = open_workspace(), set()
    for version in versions:
        entries = Dataset.get(version.id)._entries()
        small |= {segments_of(entries, row)[0].pack for row, key in enumerate(entries.keys) if key.startswith(b"small")}
    moved = [workspace.store.standings.moved_out_of(pack) for pack in small]
    for pack in {pack for one in moved if one is not None for pack in one.packs}:
        (target / "store" / pack_key(pack.name)).unlink()
    repair_store(workspace, folders=[str(folder)], apply=True)


def lost_of(dataset: Dataset) -> dict[str, object]:
    told = verify_store(open_workspace()).affected
    return {"lost": [path for one in told if one.id == dataset.id for path in one.paths]}


def said_of(dataset: Dataset) -> dict[str, object]:
    links = [[os.fsencode(one.relative_path).hex(), one.link, one.size, one.etag] for one in dataset.link_entries]
    metadata = dict(dataset._final().metadata)
    pieces = {name: piece_of(dataset._workspace, dataset.id, None, name) for name in metadata}
    return {"links": links, "metadata": {name: piece.hex() for name, piece in pieces.items()}}


if __name__ == "__main__":
    store = Path(sys.argv[1]).absolute()
    {"store-1": make_first, "store-2": make_second, "store-3": make_third}[store.name](store)
