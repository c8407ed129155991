"""How finding versions grows with their number: many datasets of many versions in one store.

For each number of datasets, on a warm machine and as medians: `list`, `search`, `get` by name and by tag; and on a cold
one the rounds of requests, and the objects, that the first `get` takes.

    python benchmarks/studies/catalog_scale.py --datasets 10 100 1000 --versions 20
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machines import counted, use


def measure(call: Callable[[], object], repeats: int) -> float:
    """The median of the seconds that a call takes."""
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def build(home: Path, datasets: int, versions: int) -> None:
    from dataset_store import Dataset

    use(home, "writer")
    for number in range(datasets * versions):
        at = number % datasets
        tags = ["latest"] if number >= datasets * (versions - 1) else []
        Dataset.create(f"dataset-{at:04}", f"project-{at % 10}", tags).finalize()


def warm(repeats: int) -> dict[str, float]:
    from dataset_store import Dataset

    name, project = "dataset-0003", "project-3"
    return {
        "get by name": measure(lambda: Dataset.get(dataset_project=project, dataset_name=name), repeats),
        "get by tag": measure(lambda: Dataset.get(dataset_name=name, dataset_tags="latest"), repeats),
        "list a dataset": measure(
            lambda: Dataset.list_datasets(project, f"^{name}$", recursive_project_search=False), repeats
        ),
        "search one tag": measure(lambda: Dataset.list_datasets(partial_name=name, tags=["latest"]), repeats),
    }


def cold(home: Path, machine: str) -> dict[str, int]:
    """What the first `get` of a machine that knows nothing asks for."""
    from dataset_store import Dataset

    use(home, machine)
    with counted() as made:
        Dataset.get(dataset_name="dataset-0003", dataset_project="project-3")
    counts = made[-1].snapshot()
    return {"rounds": counts.total_calls, "objects": counts.objects_read}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--versions", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--folder", help="where to build the stores; by default a temporary one")
    arguments = parser.parse_args()
    found = {}
    for datasets in arguments.datasets:
        home = Path(tempfile.mkdtemp(dir=arguments.folder))
        build(home, datasets, arguments.versions)
        first = cold(home, "reader")
        found[datasets] = warm(arguments.repeats) | first
        shutil.rmtree(home)
    base = found[arguments.datasets[0]]
    for datasets, row in found.items():
        print(f"{datasets} datasets x {arguments.versions} versions")
        for what, value in row.items():
            if isinstance(value, float):
                print(f"  {what:16} {value * 1000:8.3f} ms  {value / base[what]:5.2f} x")
            else:
                print(f"  cold {what:11} {value}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
