"""A real S3 server, and many writers at once on it and on the one that everyday tests use, through a broken network.

The real one is Ceph's gateway: `tests/servers/radosgw.py --install` brings it.
"""

import json
import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from commit_drill import drill
from fault_proxy import Fault, FaultProxy, mixed
from fsspec.config import conf

from dataset_store import Dataset
from dataset_store.core.digest import ChunkId, PackName, StoreId, hash32
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import DatasetStoreError
from dataset_store.storage import s3_client
from dataset_store.storage.backend import Backend, Key
from dataset_store.storage.checkup import check_storage
from dataset_store.storage.create_probe import try_creates
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.retries import Patience, RetryingBackend
from dataset_store.storage.s3_backend import S3Backend
from dataset_store.storage.storages import backend_at
from dataset_store.storage.store import create_config
from dataset_store.testing.backend_conformance import BackendConformance
from dataset_store.testing.folders import read, write

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))
import radosgw

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(900)]
in_the_group = pytest.mark.xdist_group("radosgw")
"""One server for all tests that use it."""

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
    from s3fs import S3FileSystem

    monkeypatch.setitem(conf, "s3", dict(ceph))
    bucket = f"b{secrets.token_hex(8)}"
    S3FileSystem().mkdir(bucket)
    return f"s3://{bucket}"


@in_the_group
class TestRealS3(BackendConformance):
    @pytest.fixture(autouse=True)
    def _bucket(self, ceph_bucket):
        self.bucket = ceph_bucket

    def make_backend(self) -> Backend:
        return backend_at(f"{self.bucket}/{secrets.token_hex(8)}/store")

    def reopen(self, backend: Backend) -> Backend:
        return backend_at(backend.describe())


@in_the_group
def test_a_real_server_keeps_writers_apart(ceph_bucket):
    answers = try_creates(backend_at(ceph_bucket), Key("probe/a"))
    assert (answers.first, answers.second, answers.stands, answers.fault) == (True, False, b"first", None)


@in_the_group
def test_a_real_server_passes_the_long_trial(ceph_bucket, tell):
    found = list(check_storage(backend_at(ceph_bucket)))
    for one in found:
        tell(f"radosgw: {one.id}: {one.text}")
    assert [one for one in found if not one.sound] == []
    assert len(found) == 7


@in_the_group
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


def before(options):
    """A proxy before a server."""
    address = urlsplit(options["endpoint_url"])
    return FaultProxy(address.hostname, address.port).running()


def the_drill(url, options, network, tell):
    """Many writers through a network that loses one reply in a hundred; nothing is lost, doubled or refused."""
    backend = backend_at(url)
    create_config(backend)
    begun = time.monotonic()
    with before(options) as proxy:
        proxy.act = mixed(4, 0.01, [Fault.LOST])
        environment = {"FSSPEC_S3": json.dumps({**options, "endpoint_url": proxy.url})}
        found = drill(url, WRITERS, COMMITS, environment, 600)
        cut = Counter(request.method for request, _ in proxy.done)
        lost = sum(1 for request, _ in proxy.done if request.is_conditional)
        sent = len(proxy.requests)
    tell(
        f"{network}: {WRITERS} x {COMMITS} commits, {sent} requests, {sum(cut.values())} replies cut {dict(cut)} "
        f"({lost} of creates); {len(found.commits)} ids in {len(found.slots)} slots, {len(found.conflicts)} spurious "
        f"conflicts, {found.repeated} repeated; {time.monotonic() - begun:.0f} s"
    )
    assert found.conflicts == []
    assert found.slots == list(range(WRITERS * COMMITS))
    assert len(found.commits) == WRITERS * COMMITS
    assert set(found.commits.values()) == set(found.numbers.values()) == {1}
    assert cut.total() >= 0.005 * sent
    assert lost > 0


@in_the_group
def test_16_processes_of_50_commits_each_lose_nothing_on_a_real_server_that_loses_replies(ceph, ceph_bucket, tell):
    the_drill(f"{ceph_bucket}/drill", ceph, "radosgw", tell)


def test_16_processes_of_50_commits_each_lose_nothing_on_moto_that_loses_replies(s3_bucket, tell):
    options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"], "key": "tests", "secret": "tests"}
    the_drill(f"{s3_bucket}/{secrets.token_hex(8)}", options, "moto", tell)


@in_the_group
def test_10_000_reads_at_5_percent_faults_give_the_right_bytes_or_a_typed_error_in_time(
    ceph, ceph_bucket, monkeypatch, tell
):
    monkeypatch.setitem(s3_client._PATIENCE, "read_timeout", 2)  # seconds that a stall takes
    with before(ceph) as proxy:
        monkeypatch.setitem(conf, "s3", ceph | {"endpoint_url": proxy.url})
        backend = RetryingBackend(S3Backend(ceph_bucket), Patience(seconds=30.0))
        written, packs = _written_frames(backend)
        proxy.begin_anew()
        proxy.act = mixed(2, 0.05, [*Fault])
        begun = time.monotonic()
        with ThreadPoolExecutor(16) as pool:
            ended = list(pool.map(lambda number: _read(packs, written, number), range(10_000)))
        taken = time.monotonic() - begun
    how = Counter(kind for kind, _ in ended)
    faults = Counter(action.name for _, action in proxy.done)
    slowest = max(seconds for _, seconds in ended)
    tell(
        f"10,000 reads, {len(proxy.requests)} requests, {taken:.0f} s: {dict(how)}; "
        f"faults {dict(faults)}; slowest read {slowest:.1f} s"
    )
    assert set(how) <= {"right", "CorruptObject", "StorageFailed"}
    assert how["CorruptObject"] <= faults["FLIP"]
    assert how["right"] >= 9_500
    assert sum(faults.values()) >= 0.03 * len(proxy.requests)
    assert set(faults) == {fault.name for fault in Fault}
    assert slowest < 60


def _read(packs, written, number):
    """One read of a frame or of several, or of a pack's footer: how it ended, and the seconds it took."""
    wanted = random.Random(number).sample([*written], 1 if number % 8 else 6)
    begun = time.monotonic()
    try:
        if number % 4 != 1:
            found = packs.read_whole(FrameKind.NODE, [(place, hash32(written[place])) for place in wanted])
            assert found == [written[place] for place in wanted]
        else:
            (footer,) = packs.read_footers([wanted[0].pack])
            assert [bytes(row) for row in footer.ids] == [
                hash32(plain) for place, plain in written.items() if place.pack == wanted[0].pack
            ]
    except DatasetStoreError as error:
        return type(error).__name__, time.monotonic() - begun
    return "right", time.monotonic() - begun


def _written_frames(backend):
    """Packs of a few frames each: what stands at each place, and a reader."""
    store_id, drawn, codec, written = StoreId(bytes(16)), random.Random(1), FrameCodec(), {}
    for _ in range(20):
        writer = PackWriter(backend, store_id, 0, lambda: PackName(drawn.randbytes(16)))
        for _ in range(8):
            plain = drawn.randbytes(drawn.randrange(1, 30_000))
            frame = codec.encode_frame(FrameKind.NODE, [plain], [ChunkId(hash32(plain))])
            written[writer.append([frame])[0]] = plain
        writer.flush()
    return written, PackReader(store_id, lambda _number: backend)
