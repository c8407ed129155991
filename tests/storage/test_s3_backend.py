"""A bucket of S3 keeps the promises of the port, and is reached as the user has configured it."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from fault_proxy import Answer, Fault

from dataset_store.errors import (
    AccessDenied,
    InvalidRequest,
    StorageFailed,
    StoreUnreachable,
)
from dataset_store.storage import s3_client
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.s3_backend import S3Backend
from dataset_store.testing.backend_conformance import BackendConformance


class TestS3(BackendConformance):
    @pytest.fixture(autouse=True)
    def _bucket(self, s3_bucket):
        self.bucket = s3_bucket

    def make_backend(self) -> Backend:
        return S3Backend(f"{self.bucket}/{secrets.token_hex(8)}/store")

    def reopen(self, backend: Backend) -> Backend:
        return S3Backend(backend.describe())


@contextmanager
def server(*answers):
    """A server that gives each connection the next of these answers, the last one to all others, and then hangs up."""
    left = [*answers]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(left.pop(0) if len(left) > 1 else left[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def options(monkeypatch):
    """What the user's configuration of fsspec says of S3; the machine says nothing."""
    from fsspec.config import conf

    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    said = {"key": "tests", "secret": "tests"}
    monkeypatch.setitem(conf, "s3", said)
    return said


CUT = {
    "in its head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "behind its head": b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\nContent-Type: application/xml\r\n\r\n",
    "in its body": b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n<ListBucketResult>",
    "before its first chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n<ListBucketResult>",
}
READS = {
    "object": lambda backend: backend.get_many([Key("packs/a")]),
    "range": lambda backend: backend.get_ranges([Span(Key("packs/a"), 0, 300)]),
    "tail": lambda backend: backend.get_ranges([Tail(Key("packs/a"), 300)]),
    "list": lambda backend: [*backend.list("packs")],
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("cut", CUT)
def test_an_answer_that_is_cut_off_is_an_error_and_never_an_empty_one(options, cut, read):
    with server(CUT[cut]) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed):
            READS[read](S3Backend("s3://bucket/store"))


def page(*names, token=None, goes_on=True):
    rows = "".join(
        f"<Contents><Key>store/packs/{name}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        for name in names
    )
    told = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    body = f"<ListBucketResult>{rows}<IsTruncated>{str(goes_on).lower()}</IsTruncated>{told}</ListBucketResult>"
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()


def test_a_list_of_several_pages_is_read_to_its_end(options):
    with server(page("a", "b", token="1"), page("c", token="2"), page("d", goes_on=False)) as url:
        options["endpoint_url"] = url
        keys = [row.key for row in S3Backend("s3://bucket/store").list("packs")]
    assert keys == ["packs/a", "packs/b", "packs/c", "packs/d"]


@pytest.mark.parametrize("token", [None, "1"])
def test_a_list_that_goes_on_and_says_not_where_is_an_error_and_never_a_shorter_one(options, token):
    with server(page("a", token="1"), page("b", token=token)) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed, match="goes on, and not where"):
            [*S3Backend("s3://bucket/store").list("packs")]


def test_a_bucket_that_is_not_there_cannot_be_written(s3_bucket):
    backend = S3Backend("s3://no-such-bucket/store")
    assert backend.get_many([Key("config")]) == [None]
    for write in (lambda: backend.put(Key("x"), [b"x"]), lambda: backend.create(Key("x"), [b"x"])):
        with pytest.raises(StoreUnreachable, match="no-such-bucket"):
            write()


def test_a_bucket_whose_name_cannot_be_one_is_refused_before_anything_is_sent(options):
    backend = S3Backend("s3://not a bucket/store")
    for act in (
        lambda: backend.get_many([Key("a")]),
        lambda: backend.put(Key("a"), [b"a"]),
        lambda: backend.create(Key("a"), [b"a"]),
        lambda: [*backend.list("packs")],
    ):
        with pytest.raises(InvalidRequest, match="not a bucket"):
            act()


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(InvalidRequest, match="names no bucket"):
        S3Backend("s3:///store")


@pytest.mark.parametrize(
    "option",
    [
        {"profile": "none-such"},
        {"config_kwargs": {"none_such": 1}},
        *({table: "none such"} for table in ("config_kwargs", "client_kwargs", "s3_additional_kwargs")),
    ],
    ids=str,
)
def test_options_that_cannot_be_used_are_told_when_a_store_is_opened(options, option):
    options |= option
    with pytest.raises(InvalidRequest, match=r"none.such"):
        S3Backend("s3://bucket/store")


def test_a_machine_without_credentials_is_told_so_and_nothing_is_left_in_doubt(options):
    options.clear()
    backend = S3Backend("s3://bucket/store")
    for act in (lambda: backend.get_many([Key("a")]), lambda: backend.create(Key("a"), [b"a"])):
        with pytest.raises(AccessDenied, match="credentials"):
            act()


def test_a_refusal_is_never_taken_for_an_absent_object(s3_bucket, s3_proxy):
    backend = S3Backend(f"{s3_bucket}/refused")
    s3_proxy.act = lambda _request: Answer(403, "AccessDenied")
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        backend.get_many([Key("config")])
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        backend.get_ranges([Tail(Key("config"), 3)])


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken"])
def test_credentials_that_have_expired_are_told_as_a_refusal(s3_bucket, s3_proxy, code):
    backend = S3Backend(f"{s3_bucket}/expired")
    s3_proxy.act = lambda _request: Answer(400, code)
    for act in (lambda: backend.get_many([Key("a")]), lambda: backend.create(Key("a"), [b"a"])):
        with pytest.raises(AccessDenied, match=code):
            act()


# What the user says


ASKED = {
    "GET": lambda backend: backend.get_many([Key("packs/a")]),
    "PUT": lambda backend: backend.put(Key("packs/b"), [b"b"]),
    "DELETE": lambda backend: backend.delete_many([Key("packs/b")]),
    "LIST": lambda backend: [*backend.list("packs")],
}


def headers_of(proxy, backend):
    """The headers of the request that each verb sends."""
    proxy.begin_anew()
    for ask in ASKED.values():
        ask(backend)
    assert len(proxy.requests) == len(ASKED)
    return dict(zip(ASKED, (request.headers for request in proxy.requests), strict=True))


def test_credentials_of_the_url_go_before_those_of_the_machine_and_are_not_shown(s3_bucket, s3_proxy):
    backend = S3Backend(f"s3://mine:hidden@{s3_bucket.partition('://')[2]}/store")
    assert all("Credential=mine/" in said["authorization"] for said in headers_of(s3_proxy, backend).values())
    assert backend.describe() == f"{s3_bucket}/store"


def test_credentials_of_the_configuration_go_before_those_of_the_machine(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    told = {"key": "configured", "secret": "hidden", "token": "session"}
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url} | told)
    for said in headers_of(s3_proxy, S3Backend(f"{s3_bucket}/store")).values():
        assert "Credential=configured/" in said["authorization"]
        assert said["x-amz-security-token"] == "session"


def test_a_public_bucket_is_read_without_credentials(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url, "anon": True})
    backend = S3Backend(f"{s3_bucket}/store")
    for read in ("GET", "LIST"):
        ASKED[read](backend)
    assert len(s3_proxy.requests) == 2
    assert not any("authorization" in request.headers for request in s3_proxy.requests)


def test_who_pays_is_said_with_each_request_and_encryption_with_those_that_know_it(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    encrypted = {"ServerSideEncryption": "AES256"}
    monkeypatch.setitem(
        conf, "s3", {"endpoint_url": s3_proxy.url, "requester_pays": True, "s3_additional_kwargs": encrypted}
    )
    said = headers_of(s3_proxy, S3Backend(f"{s3_bucket}/store"))
    assert all(headers["x-amz-request-payer"] == "requester" for headers in said.values())
    assert [verb for verb in ASKED if "x-amz-server-side-encryption" in said[verb]] == ["PUT"]


def test_what_is_sent_is_signed_with_its_hash_and_needs_no_sums_that_only_new_servers_know(s3_bucket, s3_proxy):
    for size in (10, 100_000):
        s3_proxy.begin_anew()
        S3Backend(f"{s3_bucket}/signed").put(Key(f"packs/{size}"), [bytes(size)])
        [put] = s3_proxy.requests
        assert len(put.headers["x-amz-content-sha256"]) == 64
        assert int(put.headers["content-length"]) == size
        assert not [name for name in put.headers if "checksum" in name or "trailer" in name]
        assert ("expect" in put.headers) == (size > 64 << 10), "large ones ask first whether they will be taken"


# Processes


def test_a_forked_process_opens_its_own_connection(s3_bucket):
    backend = S3Backend(f"{s3_bucket}/forked")
    backend.put(Key("a"), [b"content"])
    script = (
        "import os, sys\n"
        "from dataset_store.storage.backend import Key\n"
        "from dataset_store.storage.s3_backend import S3Backend\n"
        "backend = S3Backend(sys.argv[1])\n"
        "assert backend.get_many([Key('a')]) == [b'content']\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if backend.get_many([Key('a')]) == [b'content'] else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script, backend.describe()], timeout=60)
    assert done.returncode == 0


def test_a_server_that_takes_no_more_of_an_upload_is_given_up(s3_bucket, s3_proxy, monkeypatch):
    monkeypatch.setitem(s3_client._SETTINGS, "connect_timeout", 1)  # and 20 s to say something
    backend = S3Backend(f"{s3_bucket}/stalled")
    s3_proxy.act = lambda _request: Fault.STALL
    begun = time.monotonic()
    with pytest.raises(StorageFailed):
        backend.put(Key("packs/a"), [bytes(32 << 20)])
    assert time.monotonic() - begun < 10


@pytest.mark.heavy
def test_an_interrupt_ends_a_process_that_waits_for_a_silent_server_in_time(s3_bucket, s3_proxy):
    script = (
        "import signal, sys\n"
        "from dataset_store.storage.backend import Key\n"
        "from dataset_store.storage.s3_backend import S3Backend\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets jobs in the background ignore it\n"
        "backend = S3Backend(sys.argv[1])\n"
        "print('asking', flush=True)\n"
        "backend.get_many([Key(f'packs/{number}') for number in range(1_000)])\n"
    )
    s3_proxy.act = lambda _request: Fault.STALL
    environment = os.environ | {"AWS_ENDPOINT_URL": s3_proxy.url}
    with subprocess.Popen(
        [sys.executable, "-c", script, f"{s3_bucket}/silent"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "asking\n"
        while len(s3_proxy.requests) < s3_client.REQUESTS_AT_ONCE:
            time.sleep(0.05)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0
        assert time.monotonic() - begun < 20 + 5
    assert len(s3_proxy.requests) == s3_client.REQUESTS_AT_ONCE, "what waited for its turn is not asked for"
