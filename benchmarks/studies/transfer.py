"""What it costs to bring versions into another store: time, requests and bytes follow what is new there.

python benchmarks/studies/transfer.py --number 10000 --large 256
"""

import argparse
import random
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machines import counted, use


def told(what: str, call: Callable[[], object]) -> None:
    """Do it counting what is asked of both stores; print how long it took and what it asked."""
    from dataset_store.dataset import workspace as workspaces

    workspaces._open.clear()
    begin = time.perf_counter()
    with counted() as made:
        report = call()
    took = time.perf_counter() - begin
    counts = [backend.snapshot() for backend in made]
    calls = sum(one.total_calls for one in counts)
    read, written = (sum(getattr(one, name) for one in counts) for name in ("bytes_read", "bytes_written"))
    sums = f"{calls:5} requests {read:13,} read {written:13,} written, {report.new_bytes:13,} new"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{what:44} {took:7.2f} s {sums}, peak {peak} MiB")


def version(folder: Path, parents: list[str]) -> str:
    from dataset_store import Dataset

    dataset = Dataset.create("files", parent_datasets=parents)
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset.id


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="short files of 1,000 bytes")
    parser.add_argument("--large", type=int, default=256, help="MiB of one long file")
    parser.add_argument("--to", help="the other store; by default a folder")
    parser.add_argument("--folder", help="where to work; by default a temporary one")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        run(home, arguments.number, arguments.large, arguments.to or str(home / "other"))
    finally:
        shutil.rmtree(home)


def run(home: Path, number: int, large: int, to: str) -> None:
    from dataset_store import Dataset

    use(home, "writer")
    folder, draw = home / "in", random.Random(1)
    for at in range(number):
        if at % 1000 == 0:
            (folder / f"{at // 1000:04}").mkdir(parents=True)
        (folder / f"{at // 1000:04}" / f"{at % 1000:03}.bin").write_bytes(draw.randbytes(1_000))
    with (folder / "large.bin").open("wb") as file:
        for _ in range(large):
            file.write(draw.randbytes(1 << 20))
    first = version(folder, [])
    told("push of the first version", lambda: Dataset.get(first).push(to))
    told("the same again", lambda: Dataset.get(first).push(to))
    (folder / "0003" / "333.bin").write_bytes(b"changed")
    second = version(folder, [first])
    told("push of a child with one short file changed", lambda: Dataset.get(second).push(to))
    with (folder / "large.bin").open("r+b") as file:
        file.seek((large << 20) // 2)
        file.write(b"changed")
    third = version(folder, [second])
    use(home, "another")
    told("another machine: seven bytes of the long file", lambda: Dataset.get(third).push(to))
    (folder / "0004").rename(folder / "moved")
    fourth = version(folder, [third])
    use(home, "third")
    told("a third machine: a folder moved", lambda: Dataset.get(fourth).push(to))


if __name__ == "__main__":
    main()
