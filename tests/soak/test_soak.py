"""Writers, a collector that never waits, and kills, for a while: all get on, and no acknowledged version is lost."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from soak import Journal

from dataset_store import Dataset
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.upkeep.maintaining import collect_garbage
from dataset_store.dataset.workspace import open_workspace

SOAK = Path(__file__).with_name("soak.py")
WRITERS = 8


def begin(home, role, number, until):
    machine = {
        "DATASET_STORE_CACHE": str(home / f"cache-{role}{number}"),
        "DATASET_STORE_DATA": str(home / f"{role}{number}" / "own"),
    }
    (home / f"{role}{number}").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(SOAK), role, str(number), str(until), str(home / f"{role}{number}.json")],
        env=os.environ | machine,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(home, seconds):
    """Let all run; how often one was killed."""
    until = time.monotonic() + seconds
    roles = [("collector", 0), *(("writer", number) for number in range(WRITERS))]
    running = {role: begin(home, *role, until) for role in roles}
    kills = 0
    while running:
        for role, process in list(running.items()):
            if process.poll() is None:
                continue
            del running[role]
            if process.returncode == -signal.SIGKILL:
                kills += 1
                process.stderr.close()
                running[role] = begin(home, *role, until)
                continue
            assert process.returncode == 0, process.stderr.read()
            process.stderr.close()
        time.sleep(0.02)
    return kills


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(40, marks=[pytest.mark.heavy, pytest.mark.timeout(600)]),
        pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(2400)]),
    ],
)
def test_writers_a_collector_and_kills_for_a_while_lose_nothing_and_all_get_on(home, seconds, tell):
    Dataset.create(dataset_project="p", dataset_name="d0").finalize()
    began = time.monotonic()
    kills = run(home, seconds)
    journals = [Journal(home / f"writer{number}.json").lines() for number in range(WRITERS)]
    workspace = open_workspace()
    gone = {line["id"] for lines in journals for line in lines if line["what"] == "means to delete"}
    commits = Counter()
    for number, lines in enumerate(journals):
        said = {line["id"]: line["files"] for line in lines if line["what"] == "means to commit"}
        for line in lines:
            if line["what"] == "committed":
                commits[number, int((line["at"] - began) * 4 / seconds)] += 1
                if line["id"] not in gone:
                    held = {one.relative_path: one.hash for one in Dataset.get(line["id"]).file_entries}
                    assert held == said[line["id"]]
    collected = len(Journal(home / "collector0.json").lines())
    workspace.refresh()
    tell(
        f"{sum(commits.values())} commits of {WRITERS} writers in {seconds} s, {len(gone)} deleted, "
        f"{kills} kills, {collected} collections, {workspace.catalog.head} log entries"
    )
    assert all(commits[number, quarter] for number in range(WRITERS) for quarter in range(4)), commits
    assert collected
    assert kills
    assert verify_store(workspace).sound
    collect_garbage(workspace, min_age=0, apply=True)
    assert verify_store(workspace).findings == ()
