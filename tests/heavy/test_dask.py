"""A cluster of Dask's: processes that are reached over the network, through its own executor."""

import os
import random
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.dataset.copies import filling
from dataset_store.dataset.uploads import packing
from dataset_store.local import folder as folders
from dataset_store.testing.folders import read, write

pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def client(home):
    """Of two processes, which begin with this test's settings."""
    from distributed import Client, LocalCluster

    cluster = LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None, silence_logs=50
    )
    with cluster, Client(cluster) as client:
        yield client


@pytest.fixture
def source(home, monkeypatch):
    for module in (folders, packing, filling):
        monkeypatch.setattr(module, "_JOB_FILES", 100)
    noise = random.Random(7).randbytes
    return write(home / "in", {f"{number % 7}/{number}": noise(number * 3) for number in range(5_000)})


def made(source, executor):
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(source, executor=executor)
    dataset.upload(executor=executor)
    dataset.finalize()
    return dataset


def test_a_folder_is_hashed_packed_and_copied_by_the_workers_of_a_cluster(client, source):
    executor = client.get_executor()
    version = made(source, executor)
    assert read(version.get_local_copy(executor=executor)) == read(source)
    assert version.verify_dataset_hash() == []
    assert set(client.run(lambda: "dataset_store.local.ingest" in sys.modules).values()) == {True}
    here = version_of(source, dataset_name="here")
    assert here.last_upload.new_bytes == 0
    assert here._final().entry.tree.digest == version._final().entry.tree.digest


def _a_worker_has_written(cache):
    # os.walk, as directories that are moved away meanwhile are no errors to it.
    return any(files for folder, _, files in os.walk(cache) if ".making/" in folder)


def test_when_a_worker_is_killed_the_other_goes_on_and_nothing_is_missing(client, source, home):
    executor = client.get_executor()
    version = made(source, executor)
    victim = next(iter(client.run(os.getpid).values()))
    with ThreadPoolExecutor(1) as beside:
        copying = beside.submit(version.get_local_copy, executor=executor)
        while not copying.done() and not _a_worker_has_written(home / "cache"):
            pass
        os.kill(victim, signal.SIGKILL)
        assert read(copying.result(120)) == read(source)
    assert version.verify_dataset_hash() == []
