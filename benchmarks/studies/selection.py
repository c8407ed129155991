"""What many links, and a selection of very many files, cost: time, requests and bytes follow what is selected.

python benchmarks/studies/selection.py links --number 100000
python benchmarks/studies/selection.py files --number 1000000 --select 10000
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machines import counted, use


def told(what: str, call: Callable[[], object]) -> object:
    """Do it counting what is asked of the store; print how long it took and what it asked."""
    from dataset_store.dataset import workspace as workspaces

    workspaces._open.clear()
    begin = time.perf_counter()
    with counted() as made:
        found = call()
    took = time.perf_counter() - begin
    counts = [backend.snapshot() for backend in made]
    calls, read = sum(one.total_calls for one in counts), sum(one.bytes_read for one in counts)
    print(f"{what:42} {took:8.2f} s  {calls:6} requests  {read:12,} bytes read")
    return found


def write(folder: Path, number: int) -> None:
    for at in range(number):
        if at % 1000 == 0:
            (folder / f"{at // 1000:04}").mkdir(parents=True)
        (folder / f"{at // 1000:04}" / f"{at % 1000:03}.bin").write_bytes(b"%d" % at)


def links(home: Path, number: int, _select: int) -> None:
    from dataset_store import Dataset

    use(home, "writer")
    write(home / "far", number)
    dataset = Dataset.create("links")
    told(f"add {number:,} links", lambda: dataset.add_external_files(str(home / "far")))
    told("upload and finalize", lambda: dataset.finalize(auto_upload=True))
    use(home, "reader")
    told("copy of 100 of them", lambda: Dataset.get(dataset.id).get_local_copy(files=["0007/1*"]))
    told("copy of 1,000 of them", lambda: Dataset.get(dataset.id).get_local_copy(files=["0008"]))
    told("list all with their URLs", lambda: len(Dataset.get(dataset.id).link_entries))
    child = Dataset.create(parent_datasets=[dataset])
    told(
        "child that adds one",
        lambda: child.add_external_files(str(home / "far" / "0000" / "000.bin"), dataset_path="x"),
    )
    told("its upload and finalize", lambda: child.finalize(auto_upload=True))


def files(home: Path, number: int, select: int) -> None:
    from dataset_store import Dataset

    use(home, "writer")
    write(home / "in", number)
    dataset = Dataset.create("files")
    dataset.sync_folder(home / "in")
    dataset.finalize(auto_upload=True)
    folders = [f"{at:04}" for at in range(select // 1000)]
    for machine, some in (("reader1", folders[:1]), ("reader2", folders)):
        use(home, machine)
        told(
            f"copy of {len(some) * 1000:,} of {number:,}",
            lambda some=some: Dataset.get(dataset.id).get_local_copy(files=some),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["links", "files"])
    parser.add_argument("--number", type=int, default=100_000)
    parser.add_argument("--select", type=int, default=10_000)
    parser.add_argument("--folder", help="where to work; by default a temporary one")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(dir=arguments.folder))
    try:
        {"links": links, "files": files}[arguments.what](home, arguments.number, arguments.select)
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
