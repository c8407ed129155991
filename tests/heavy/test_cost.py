"""Cost follows the change, and depth costs nothing: the figures of the benchmarks, held to their bounds."""

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from dataset_store.dataset import workspace as workspaces

BENCHMARKS = Path(__file__).parents[2] / "benchmarks" / "studies"


def benchmark(name: str):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.heavy
def test_each_edit_of_50_000_files_and_a_large_one_stays_within_its_bytes(home):
    cost = benchmark("cost_follows_change")
    rows = cost.measure(home, 50, 1000, 16)
    workspaces._open.clear()
    assert rows["v1"]["objects"] <= 12
    assert rows["no change"]["objects"] == 1
    assert rows["no change"]["bytes"] <= 1500
    assert rows["10 files edited in ten directories"]["bytes"] <= 350_000
    inserted = rows["1 kB inserted in the large file"]
    assert inserted["median bytes"] <= 200_000
    assert inserted["most bytes"] <= 300_000
    assert rows["a directory renamed"]["bytes"] <= 150_000


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.xdist_group("a million files")
def test_the_same_edits_of_a_million_files_cost_at_most_1_4_times_as_much(roomy, monkeypatch):
    for name, folder in (("URL", "store"), ("CACHE", "cache"), ("DATA", "own")):
        monkeypatch.setenv(f"DATASET_STORE_{name}", str(roomy / folder))
    cost = benchmark("cost_follows_change")
    rows = cost.measure(roomy, 1000, 1000, 4)
    workspaces._open.clear()
    assert rows["no change"]["objects"] == 1
    assert rows["no change"]["bytes"] <= 1.4 * 1500
    assert rows["10 files edited in ten directories"]["bytes"] <= 1.4 * 350_000
    inserted = rows["1 kB inserted in the large file"]
    assert inserted["median bytes"] <= 1.4 * 200_000
    assert inserted["most bytes"] <= 1.4 * 300_000
    assert rows["a directory renamed"]["bytes"] <= 1.4 * 150_000


@pytest.mark.heavy
def test_one_file_added_to_a_flat_directory_of_50_000_costs_little(home):
    rows = benchmark("cost_follows_change").measure_flat(home, 50_000)
    assert rows["one file added to a flat directory"]["bytes"] <= 100_000


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_version_1000_reads_as_many_nodes_as_the_first(home, tell):
    depth = benchmark("depth")
    ids = depth.chain(home, 1000, 10_000, 20)
    first = depth.read_as_fresh_machine(home, ids[1], ids[0])
    last = depth.read_as_fresh_machine(home, ids[-1], ids[-2])
    tell(f"what a fresh machine reads of version 1 and of version 1000: {first}, {last}")
    assert abs(last["nodes listed"] - first["nodes listed"]) <= 2
    assert abs(last["nodes diffed"] - first["nodes diffed"]) <= 2  # the two edits are of the same files
    assert last["node packs"] <= 32
    assert last["files that differ"] == 20
    assert last["log objects"] <= -(-len(ids) // 64) + 64 + 1


@pytest.mark.heavy
def test_a_million_entries_keep_the_bound_on_packs_and_on_node_bytes(capsys):
    figures = benchmark("depth").measure_entries(Namespace(entries=1_000_000, commits=200, edits=10))
    assert figures["ratio"] <= 2
    assert figures["most packs"] <= 32
    assert abs(figures["nodes of the last"] - figures["nodes of the first"]) <= 2
