"""Stores by URL keep the promises of the port on memory, SFTP and HTTP, and say what they cannot do."""

import importlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from http_server import http_server
from sftp_server import sftp_server

from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DriverMissing,
    InvalidRequest,
    ObjectMissing,
    OutcomeUnknown,
    StoreLacksCreateIfAbsent,
    StoreReadOnly,
    StoreRootMissing,
    StoreUnreachable,
)
from dataset_store.storage.backend import Backend, Key, Span, Tail, Traits
from dataset_store.storage.create_probe import require_create_if_absent
from dataset_store.storage.fsspec_backend import FsspecBackend
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.s3_backend import S3Backend
from dataset_store.storage.storages import backend_at, normal_url
from dataset_store.storage.wrappers import Wrapper
from dataset_store.testing.backend_conformance import BackendConformance


class TestMemoryUrl(BackendConformance):
    def make_backend(self) -> Backend:
        return FsspecBackend(f"memory://{secrets.token_hex(8)}/store")

    def reopen(self, backend: Backend) -> Backend:
        return FsspecBackend(backend.describe())


GIVEN = os.environ.get("DATASET_STORE_TEST_URLS", "").split()


if GIVEN:

    @pytest.mark.parametrize("_url", GIVEN)
    class TestGivenUrls(BackendConformance):
        """Buckets that `DATASET_STORE_TEST_URLS` names: CONTRIBUTING.md says how."""

        @pytest.fixture(autouse=True)
        def _given(self, _url):
            self.url = _url

        def make_backend(self) -> Backend:
            return backend_at(f"{self.url}/{secrets.token_hex(8)}/store")

        def reopen(self, backend: Backend) -> Backend:
            return backend_at(backend.describe())


@pytest.fixture(scope="module")
def sftp(tmp_path_factory):
    with sftp_server(tmp_path_factory.mktemp("sftp")) as url:
        yield url


class TestSftpOfOneWriter(BackendConformance):
    large = 256 << 10

    @pytest.fixture(autouse=True)
    def _server(self, sftp):
        self.server = sftp

    def make_backend(self) -> Backend:
        return FsspecBackend(f"{self.server}/{secrets.token_hex(8)}/store", single_writer=True)

    def reopen(self, backend: Backend) -> Backend:
        return FsspecBackend(backend._url, single_writer=True)

    @pytest.mark.skip(reason="two writers may both win there: that is why one must be declared")
    def test_racing_creates_have_exactly_one_winner_whose_bytes_stand(self) -> None: ...


def test_sftp_is_written_by_a_declared_writer_only_but_takes_packs_from_anybody(sftp):
    backend = FsspecBackend(f"{sftp}/shared")
    with pytest.raises(StoreLacksCreateIfAbsent, match="DATASET_STORE_SINGLE_WRITER"):
        backend.create(Key("log/0"), [b"entry"])
    backend.put(Key("packs/aa"), [b"pack"])
    assert backend.get_many([Key("log/0"), Key("packs/aa")]) == [None, b"pack"]


def test_passwords_are_never_shown(sftp):
    backend = FsspecBackend(f"{sftp}/shared")
    assert backend.describe().startswith("sftp://127.0.0.1:")
    with pytest.raises(ObjectMissing) as missing:
        backend.get_ranges([Tail(Key("none"), 3)])
    assert "secret" not in str(missing.value)
    with pytest.raises(Exception, match=r"connect to sftp://127") as refused:
        FsspecBackend(sftp.replace("secret", "hunter2") + "/x")
    assert "hunter2" not in str(refused.value)
    assert normal_url("s3://key:hunter2@bucket/a/") == "s3://bucket/a"


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_http_reads_what_another_backend_wrote_and_writes_nothing(tmp_path, ranges):
    PosixBackend(str(tmp_path / "store")).put(Key("a/b"), [b"0123456789"])
    PosixBackend(str(tmp_path / "store")).put(Key("empty"), [])
    with http_server(tmp_path, ranges=ranges) as url:
        backend = FsspecBackend(f"{url}/store")
        assert backend.get_many([Key("a/b"), Key("none"), Key("empty")]) == [b"0123456789", None, b""]
        parts = [Span(Key("a/b"), 2, 5), Tail(Key("a/b"), 3), Tail(Key("a/b"), 99), Span(Key("a/b"), 4, 4)]
        assert backend.get_ranges(parts) == [b"234", b"789", b"0123456789", b""]
        with pytest.raises(CorruptObject, match="'a/b'"):
            backend.get_ranges([Span(Key("a/b"), 5, 11)])
        with pytest.raises(ObjectMissing, match="'none'"):
            backend.get_ranges([Span(Key("none"), 0, 1)])
        for write in (lambda: backend.put(Key("x"), [b""]), lambda: backend.create(Key("x"), [b""])):
            with pytest.raises(StoreReadOnly):
                write()
        with pytest.raises(StoreReadOnly):
            backend.delete_many([Key("a/b")])


def test_a_server_that_is_not_there_is_unreachable_not_empty():
    with http_server(Path("/nonexistent")) as url:
        pass
    with pytest.raises(StoreUnreachable, match=r"127\.0\.0\.1"):
        FsspecBackend(f"{url}/store").get_many([Key("config")])


class Answered(Exception):
    """How drivers of other storages raise: the status in an attribute, and several lines of words."""

    def __init__(self, status_code):
        super().__init__("The server said no.\nRequestId:1234\nTime:now")
        self.status_code = status_code


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answered(401), AccessDenied),
        (Answered(403), AccessDenied),
        (OSError("Forbidden: bucket/object\nRequestId:1234"), AccessDenied),  # so gcsfs tells of a 403
        (Answered(404), StoreRootMissing),
    ],
)
def test_what_a_server_refuses_was_not_made_whatever_its_driver_raises(monkeypatch, answer, kind):
    backend = FsspecBackend("memory://refused/store")

    def refuse(*_, **__):
        raise answer

    monkeypatch.setattr(backend._fs, "pipe_file", refuse)
    for write in (backend.put, backend.create):
        with pytest.raises(kind) as refused:
            write(Key("packs/aa"), [b"x"])
        assert "RequestId" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "told"), [(Answered(500), "the answer was 500"), (TimeoutError(), "no answer came")], ids=["500", "none"]
)
def test_an_answer_that_says_nothing_of_the_outcome_leaves_it_open(monkeypatch, answer, told):
    backend = FsspecBackend("memory://open/store")

    def break_off(*_, **__):
        raise answer

    monkeypatch.setattr(backend._fs, "pipe_file", break_off)
    with pytest.raises(OutcomeUnknown, match=told):
        backend.create(Key("log/0"), [b"x"])


def test_a_server_that_does_not_know_conditions_is_told_of_and_nothing_was_made(monkeypatch):
    backend = FsspecBackend("memory://unconditional/store")

    def refuse(*_, **__):
        raise Answered(501)

    monkeypatch.setattr(backend._fs, "pipe_file", refuse)
    with pytest.raises(StoreLacksCreateIfAbsent, match="log/0"):
        backend.create(Key("log/0"), [b"x"])


def test_a_driver_that_lists_an_object_itself_as_a_list_lists_nothing_below_it(monkeypatch):
    backend = FsspecBackend("memory://listed/store")
    backend.put(Key("a/b"), [b"x"])
    monkeypatch.setattr(backend._fs, "find", lambda path, detail: [path])
    assert [*backend.list("a/b")] == []


class _LastWins(Wrapper):
    """What a server does that does not know conditional writes: it answers yes, and replaces."""

    def __init__(self, inner, *, says):
        super().__init__(inner)
        self.says = says

    @property
    def traits(self):
        return Traits(create_is_promised=False)

    def create(self, key, buffers):
        self.inner.delete_many([key])
        self.inner.create(key, buffers)
        self.says.append(True)
        return self.says.pop(0)


@pytest.mark.parametrize("says", [[], [True, False]], ids=["and says so", "and lies"])
def test_a_storage_that_replaces_objects_gets_no_store(says):
    inner = MemoryBackend()
    with pytest.raises(StoreLacksCreateIfAbsent, match="memory"):
        require_create_if_absent(_LastWins(inner, says=says))
    assert [*inner.list("probe")] == []


def test_a_storage_that_keeps_writers_apart_passes(s3_bucket):
    backend = S3Backend(f"{s3_bucket}/probed")
    require_create_if_absent(backend)
    assert [*backend.list("probe")] == []


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://b/x", "s3"), ("gs://b/x", "gcs"), ("az://c/x", "azure"), ("sftp://h/x", "sftp")]
)
def test_a_missing_driver_is_an_error_that_names_the_extra(url, extra, monkeypatch):
    for module in ("botocore.session", "gcsfs", "adlfs", "fsspec.implementations.sftp"):
        monkeypatch.setitem(sys.modules, module, None)
    loaded = importlib.import_module("fsspec.registry")._registry
    monkeypatch.setattr(importlib.import_module("fsspec.registry"), "_registry", loaded)
    for scheme in set(loaded) & {"s3", "gs", "az", "sftp"}:
        monkeypatch.delitem(loaded, scheme)
    with pytest.raises(DriverMissing, match=rf"dataset-store\[{extra}\]"):
        backend_at(url)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InvalidRequest, match="nope://"):
        FsspecBackend("nope://host/path")


def test_opening_a_folder_loads_no_driver(home):
    script = (
        "import sys\n"
        "from dataset_store import Dataset\n"
        "Dataset.create(dataset_name='d').finalize()\n"
        "assert not {'fsspec', 'aiohttp', 's3fs', 'pyarrow'} & set(sys.modules), sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", script], env=os.environ).returncode == 0
