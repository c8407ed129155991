"""Operations of this package from Python, each timed in one process: JSON, seconds by operation.

    python api_program.py PROJECT NAME OLD NEW        the numbers of two versions, of which NEW has a local copy

What is found once is found again in less time, so each figure is the first of its operation in this process, but for
`warm copy`, the median of ten: a process that trains asks again and again. What is merged is the new version with
another child of the old one, in which one file is new; a merge is a version made of the two, and finalized.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def main(project: str, name: str, old: str, new: str) -> None:
    from dataset_store import Dataset

    def get(version: str) -> Dataset:
        return Dataset.get(dataset_project=project, dataset_name=name, dataset_version=version)

    found = {"get": seconds(lambda: get(new))}
    dataset, before = get(new), get(old)
    found["first copy"] = seconds(dataset.get_local_copy)
    found["warm copy"] = statistics.median(seconds(lambda: get(new).get_local_copy()) for _ in range(10))
    found["diff"] = seconds(lambda: dataset.diff(before))
    found["list"] = seconds(dataset.list_files)
    with tempfile.TemporaryDirectory() as folder:
        added = Path(folder, "added")
        added.write_text("beside")
        beside = Dataset.create(dataset_project=project, dataset_name="beside", parent_datasets=[before])
        beside.add_files(added)
        beside.finalize(auto_upload=True)

    def merge() -> None:
        parents = [dataset, beside]
        Dataset.create(dataset_project=project, dataset_name="merged", parent_datasets=parents).finalize()

    found["merge"] = seconds(merge)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
