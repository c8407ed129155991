"""What each commit adds to a store: bytes and objects, for edits of a dataset of many small files and one large one.

    python benchmarks/studies/cost_follows_change.py [--directories 50] [--files 1000] [--json]

Objects and bytes are counted in the store's own folder. Checkpoints, and nodes copied to bound the number of packs, are
reported apart.
"""

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

LARGE = 64 * 2**20


def stored(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


class Run:
    def __init__(self, home: Path, rng: random.Random) -> None:
        self.home, self.rng = home, rng
        self.folder = home / "data"
        self.rows: dict[str, dict[str, float]] = {}
        self.parent = None

    def write(self, path: Path, size: int) -> None:
        path.write_bytes(self.rng.randbytes(size))
        moment = self.rng.randrange(10**18, 17 * 10**17)
        os.utime(path, ns=(moment, moment))

    def commit(self, what: str, name: str = "edits") -> dict[str, float]:
        from dataset_store import Dataset

        before = stored(self.home / "store")
        begin = time.perf_counter()
        parents = [self.parent] if self.parent is not None else None
        dataset = Dataset.create(dataset_project="bench", dataset_name=name, parent_datasets=parents)
        changed = dataset.sync_folder(self.folder)
        dataset.upload()
        dataset.finalize()
        seconds = time.perf_counter() - begin
        new = {key: size for key, size in stored(self.home / "store").items() if key not in before}
        row = {
            "bytes": sum(size for key, size in new.items() if not key.startswith("ckpt")),
            "objects": sum(not key.startswith("ckpt") for key in new),
            "checkpoint bytes": sum(size for key, size in new.items() if key.startswith("ckpt")),
            "changed": sum(changed),
            "seconds": round(seconds, 2),
        }
        self.parent = dataset
        self.rows[what] = row
        print(f"{what:42s} {row}", flush=True)
        return row


def measure(home: Path, directories: int, files: int, positions: int) -> dict[str, dict[str, float]]:
    rng = random.Random(1)
    run = Run(home, rng)
    for directory in range(directories):
        (run.folder / f"d{directory:03d}").mkdir(parents=True)
        for file in range(files):
            run.write(run.folder / f"d{directory:03d}" / f"f{file:05d}.bin", 2048)
    run.write(run.folder / "large.bin", LARGE)
    run.commit("v1")
    run.commit("no change")
    for directory in rng.sample(range(directories), 10):
        run.write(run.folder / f"d{directory:03d}" / f"f{rng.randrange(files):05d}.bin", 2048)
    run.commit("10 files edited in ten directories")
    inserts = []
    for _ in range(positions):
        data = (run.folder / "large.bin").read_bytes()
        at = rng.randrange(len(data))
        (run.folder / "large.bin").write_bytes(data[:at] + rng.randbytes(1000) + data[at:])
        inserts.append(run.commit("1 kB inserted in the large file")["bytes"])
    run.rows["1 kB inserted in the large file"] = {
        "median bytes": statistics.median(inserts),
        "most bytes": max(inserts),
        "positions": positions,
    }
    (run.folder / "d000").rename(run.folder / "renamed")
    run.commit("a directory renamed")
    return run.rows


def measure_flat(home: Path, files: int) -> dict[str, dict[str, float]]:
    run = Run(home, random.Random(2))
    run.folder = home / "flat"
    run.folder.mkdir()
    for file in range(files):
        run.write(run.folder / f"f{file:07d}.bin", 64)
    run.commit(f"flat v1 of {files}", "flat")
    run.write(run.folder / "f0012345a.bin", 64)
    run.commit("one file added to a flat directory", "flat")
    return run.rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--directories", type=int, default=50)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--positions", type=int, default=16)
    parser.add_argument("--scratch", default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="cost-", dir=options.scratch))
    os.environ.update(
        DATASET_STORE_URL=str(home / "store"),
        DATASET_STORE_CACHE=str(home / "cache"),
        DATASET_STORE_DATA=str(home / "own"),
    )
    try:
        rows = measure(home, options.directories, options.files, options.positions)
        rows |= measure_flat(home, options.directories * options.files)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB", file=sys.stderr)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
