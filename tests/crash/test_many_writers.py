"""Many processes commit to one store at once: nothing is lost, nothing lands twice, nobody is told of a conflict."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from dataset_store import Dataset
from dataset_store.core.envelope import object_digest
from dataset_store.core.log_entries import DescribeEntry, TagsEntry, VersionEntry
from dataset_store.storage.log import Log
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.store import fetch_config

WRITER = Path(__file__).with_name("writer.py")
WRITERS = 16
COMMITS = 1_000

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(1200)]


def begin(home, number, version):
    machine = {"DATASET_STORE_CACHE": str(home / f"cache{number}"), "DATASET_STORE_DATA": str(home / f"own{number}")}
    return subprocess.Popen(
        [sys.executable, str(WRITER), str(number), str(COMMITS), version],
        env=os.environ | machine,
        stdout=subprocess.PIPE,
        text=True,
    )


def names_in(entry):
    """Whose commit an entry is, and the how-manieth."""
    if isinstance(entry, TagsEntry):
        return entry.add
    assert isinstance(entry, DescribeEntry | VersionEntry)
    return (entry.description,)


def test_what_sixteen_processes_commit_at_once_stands_in_the_log_once_each(home, tell):
    first = Dataset.create(dataset_project="p", dataset_name="d", description="first")
    first.finalize()
    began = time.perf_counter()
    writers = [begin(home, number, first.id) for number in range(WRITERS)]
    told = [writer.communicate()[0] for writer in writers]
    seconds = time.perf_counter() - began
    assert [writer.returncode for writer in writers] == [0] * WRITERS  # else one was told of a conflict
    told = [json.loads(line) for line in told]
    backend = PosixBackend(str(home / "store"))
    log = Log(backend, object_digest(fetch_config(backend)))
    records = list(log.read_after(log.start))
    lost, longest = sum(each["lost"] for each in told), max(each["longest"] for each in told)
    tell(
        f"{WRITERS} writers: {len(records)} entries in {seconds:.0f} s, {len(records) / seconds:.0f} a second; "
        f"{lost} races lost, the slowest commit {longest:.1f} s"
    )
    assert [record.slot for record in records] == list(range(WRITERS * COMMITS + 1))
    assert len({record.entry.commit for record in records}) == len(records)
    stands = Counter(name for record in records for name in names_in(record.entry))
    assert stands == Counter(["first", *(f"{n}.{at}" for n in range(WRITERS) for at in range(COMMITS))])
