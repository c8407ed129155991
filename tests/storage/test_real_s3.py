"""A real S3 server, and many writers at once on it and on the one that everyday tests use, through a broken network.

The real one is Ceph's gateway: `tests/servers/radosgw.py --install` brings it.
"""

import json
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from commit_drill import drill
from fault_proxy import Fault, FaultProxy, mixed

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.create_probe import try_creates
from dataset_store.storage.repository import create_config
from dataset_store.storage.storages import backend_at
from dataset_store.testing.backend_conformance import BackendConformance
from dataset_store.testing.folders import read, write

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
import radosgw

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900), pytest.mark.xdist_group("radosgw")]

WRITERS, COMMITS = 16, 50


@pytest.fixture(scope="session")
def ceph(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A real server; what S3's driver must be told to reach it."""
    if not radosgw.is_installed():
        pytest.skip("needs `tests/servers/radosgw.py --install`, as root")
    with radosgw.radosgw(tmp_path_factory.mktemp("radosgw")) as endpoint:
        yield {"endpoint_url": endpoint, "key": radosgw.ACCESS_KEY, "secret": radosgw.SECRET_KEY}


@pytest.fixture
def ceph_bucket(ceph, monkeypatch) -> str:
    """The URL of a new bucket there."""
    from fsspec.config import conf
    from s3fs import S3FileSystem

    monkeypatch.setitem(conf, "s3", dict(ceph))
    bucket = f"b{secrets.token_hex(8)}"
    S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


class TestRealS3(BackendConformance):
    @pytest.fixture(autouse=True)
    def _bucket(self, ceph_bucket):
        self.bucket = ceph_bucket

    def make_backend(self) -> Backend:
        return backend_at(f"{self.bucket}/{secrets.token_hex(8)}/store")

    def reopen(self, backend: Backend) -> Backend:
        return backend_at(backend.describe())


def test_a_real_server_keeps_writers_apart(ceph_bucket):
    answers = try_creates(backend_at(ceph_bucket), Key("probe/a"))
    assert (answers.first, answers.second, answers.stands, answers.fault) == (True, False, b"first", None)


def test_versions_are_committed_to_a_real_server_and_read_by_another_machine(home, ceph_bucket, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", f"{ceph_bucket}/store")
    files = {"a": b"content", "empty": b"", "b/large": os.urandom(9 << 20), **{f"c/{n}": b"%d" % n for n in range(500)}}
    first = Dataset.create(dataset_project="p", dataset_name="d")
    first.sync_folder(write(home / "in", files))
    first.finalize(auto_upload=True)
    second = Dataset.create(parent_datasets=[first], dataset_tags=["t"])
    files["b/large"] = files["b/large"][: 4 << 20] + b"inserted" + files["b/large"][4 << 20 :]
    second.sync_folder(write(home / "in", files))
    second.finalize(auto_upload=True)
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "other" / "cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / "other" / "own"))
    workspaces._open.clear()
    assert read(Path(Dataset.get(dataset_tags="t").get_local_copy())) == files


def the_drill(url, options, network):
    """Many writers through a network that loses one reply in a hundred; nothing is lost, doubled or refused."""
    backend = backend_at(url)
    create_config(backend)
    address = urlsplit(options["endpoint_url"])
    begun = time.monotonic()
    with FaultProxy(address.hostname, address.port).running() as proxy:
        proxy.act = mixed(4, 0.01, [Fault.LOST])
        environment = {"FSSPEC_S3": json.dumps({**options, "endpoint_url": proxy.url})}
        found = drill(url, WRITERS, COMMITS, environment, 600)
        cut = Counter(request.method for request, _ in proxy.done)
        lost = sum(1 for request, _ in proxy.done if request.is_conditional)
        sent = len(proxy.requests)
    print(
        f"\n{network}: {WRITERS} x {COMMITS} commits, {sent} requests, {sum(cut.values())} replies cut {dict(cut)} "
        f"({lost} of creates); {len(found.commits)} ids in {len(found.slots)} slots, {len(found.conflicts)} spurious "
        f"conflicts, {found.repeated} repeated; {time.monotonic() - begun:.0f} s"
    )
    assert found.conflicts == []
    assert found.slots == list(range(WRITERS * COMMITS))
    assert len(found.commits) == WRITERS * COMMITS
    assert set(found.commits.values()) == set(found.numbers.values()) == {1}
    assert cut.total() >= 0.005 * sent
    assert lost > 0


def test_16_processes_of_50_commits_each_lose_nothing_on_a_real_server_that_loses_replies(ceph, ceph_bucket):
    the_drill(f"{ceph_bucket}/drill", ceph, "radosgw")


def test_16_processes_of_50_commits_each_lose_nothing_on_moto_that_loses_replies(s3_bucket):
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": "tests", "secret": "tests"}
    the_drill(f"{s3_bucket}/{secrets.token_hex(8)}", options, "moto")
