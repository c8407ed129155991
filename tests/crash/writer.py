"""One of several processes that commit to one store: small versions, tags and descriptions, each an entry of the log.

    python writer.py WRITER COMMITS VERSION      at the end a line of JSON

Every commit says whose it is and the how-manieth, `3.17`, so that each can be found in the log. VERSION is a version
that all writers describe.
"""

import json
import sys
import time

from dataset_store import Dataset
from dataset_store.storage.log import Log, Lost

lost = []
append = Log.append


def counted(log, entry, position):
    """`Log.append`, with the races that it lost noted."""
    outcome = append(log, entry, position)
    if isinstance(outcome, Lost):
        lost.append(position.slot)
    return outcome


def commit(writer: int, number: int, shared: Dataset, own: Dataset | None) -> Dataset:
    """One commit, and this writer's own version from here on."""
    name = f"{writer}.{number}"
    if own is None or number % 50 == 0:
        own = Dataset.create(dataset_project="p", dataset_name="d", description=name)
        own.add_files(__file__)
        own.finalize(auto_upload=True)
    elif number % 2:
        shared.set_description(name)
    else:
        own.add_tags([name])
    return own


def main() -> None:
    Log.append = counted
    writer, commits = int(sys.argv[1]), int(sys.argv[2])
    shared, own = Dataset.get(sys.argv[3]), None
    longest = 0.0
    for number in range(commits):
        began = time.perf_counter()
        own = commit(writer, number, shared, own)
        longest = max(longest, time.perf_counter() - began)
    print(json.dumps({"lost": len(lost), "longest": longest}))


if __name__ == "__main__":
    main()
