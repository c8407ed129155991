"""A bucket of S3 keeps the promises of the port, and is reached as the user has configured it."""

import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest
from fault_proxy import Answer, Fault

from dataset_store.errors import (
    AccessDenied,
    DiskFull,
    InvalidRequest,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
    StorageRefused,
    StoreRootMissing,
)
from dataset_store.storage import s3_client
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.backend_errors import may_pass
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
def server(*answers, through=None):
    """A server that gives each connection the next of these answers, the last one to all others, and then hangs up.

    `through` is how its connections are encrypted, if they are.
    """
    left = [*answers]
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with suppress(OSError), through.wrap_socket(connection, True) if through else connection as connection:
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
CUTS_IN_WORDS = "the answer was cut off|Connection broken|Connection was closed|the server answered 500"
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
        with pytest.raises(StorageFailed, match=CUTS_IN_WORDS):
            READS[read](S3Backend("s3://bucket/store"))


def answered(status, body="", **headers):
    """An answer, whole."""
    rows = {"Content-Length": len(body), "Connection": "close"} | headers
    head = "".join(f"{name}: {said}\r\n" for name, said in rows.items())
    return f"HTTP/1.1 {status} Planned\r\n{head}\r\n{body}".encode()


def error(status, code):
    """An answer of S3 that tells of an error."""
    return answered(status, f"<Error><Code>{code}</Code><Message>planned</Message></Error>" if code else "")


NOT_OF_S3 = {
    "no body": answered(404),
    "a page of a proxy": answered(404, "<html><head><title>404 Not Found</title></head></html>"),
    "words": answered(404, "default backend - 404"),
    "another error": error(404, "NoSuchUpload"),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("answer", NOT_OF_S3)
def test_a_404_of_something_that_is_no_bucket_is_never_taken_for_an_absent_object(options, answer, read):
    with server(NOT_OF_S3[answer]) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed, match="the server answered 404") as failed:
            READS[read](S3Backend("s3://bucket/store"))
    assert type(failed.value) is StorageFailed, "and it is worth another request"
    assert "check the endpoint" in failed.value.next_step


def test_what_s3_says_is_absent_is_absent(options):
    with server(error(404, "NoSuchKey")) as url:
        options["endpoint_url"] = url
        backend = S3Backend("s3://bucket/store")
        assert backend.get_many([Key("a"), Key("b")]) == [None, None]
        with pytest.raises(ObjectMissing):
            backend.get_ranges([Span(Key("a"), 0, 3)])
        backend.delete_many([Key("a"), Key("b")])


WRITES = {
    "put": lambda backend: backend.put(Key("packs/a"), [b"a"]),
    "create": lambda backend: backend.create(Key("log/0"), [b"a"]),
    "delete": lambda backend: backend.delete_many([Key("packs/a")]),
}


@pytest.mark.parametrize("verb", READS | WRITES)
def test_a_bucket_that_is_not_there_is_told_by_every_verb(options, verb):
    with server(error(404, "NoSuchBucket")) as url:
        options["endpoint_url"] = url
        with pytest.raises(StoreRootMissing, match="it is not there"):
            (READS | WRITES)[verb](S3Backend("s3://bucket/store"))


STAYS = {
    "a quota of Ceph": (error(403, "QuotaExceeded"), DiskFull, "quota"),
    "a full disk of MinIO": (error(507, "XMinioStorageFull"), DiskFull, "Free some space"),
    "a full disk": (answered(507), DiskFull, "Free some space"),
    "a lock that asks for sums": (error(400, "InvalidRequest"), StorageRefused, "locks"),
    "a method that is not allowed": (error(405, "MethodNotAllowed"), StorageRefused, "locks"),
    "a proxy that takes small requests": (answered(413), StorageRefused, "64 MiB"),
    "a storage that takes small objects": (error(400, "EntityTooLarge"), StorageRefused, "64 MiB"),
    "a wrong clock": (error(403, "RequestTimeTooSkewed"), AccessDenied, "clock"),
    "an archived object": (error(403, "InvalidObjectState"), StorageRefused, "restore it"),
    "a wrong key": (error(403, "SignatureDoesNotMatch"), AccessDenied, "credentials and their rights"),
    "a bucket elsewhere": (error(301, "PermanentRedirect"), StorageRefused, "region"),
    "a bucket elsewhere, without words": (answered(301), StorageRefused, "region"),
    "no right": (error(403, "AccessDenied"), AccessDenied, "credentials and their rights"),
}


@pytest.mark.parametrize("verb", WRITES)
@pytest.mark.parametrize("answer", STAYS)
def test_a_refusal_that_will_be_the_same_the_next_time_says_what_to_do_and_leaves_no_doubt(options, answer, verb):
    told, kind, hint = STAYS[answer]
    with server(told) as url:
        options["endpoint_url"] = url
        with pytest.raises(kind) as failed:
            WRITES[verb](S3Backend("s3://bucket/store"))
    assert type(failed.value) is kind
    assert hint in failed.value.next_step


PASSES = {
    "a damaged body": error(400, "BadDigest"),
    "another damaged body": error(400, "XAmzContentSHA256Mismatch"),
    "a slow line": error(400, "RequestTimeout"),
    "broken words": answered(400, "Bad Request"),
    "too many requests": error(429, "TooManyRequests"),
    "another writer at work": error(409, "OperationAborted"),
    "a gateway without a server": answered(502),
    "a server in trouble": error(503, "SlowDown"),
}


@pytest.mark.parametrize("answer", PASSES)
def test_a_refusal_that_may_be_gone_the_next_time_is_worth_another_request_and_a_create_is_in_doubt(options, answer):
    with server(PASSES[answer]) as url:
        options["endpoint_url"] = url
        backend = S3Backend("s3://bucket/store")
        with pytest.raises(StorageFailed) as failed:
            WRITES["put"](backend)
        assert type(failed.value) is StorageFailed
        with pytest.raises(OutcomeUnknown):
            WRITES["create"](backend)


def test_a_refusal_that_comes_before_an_upload_was_taken_is_heard(options):
    with server(error(403, "AccessDenied")) as url:
        options["endpoint_url"] = url
        with pytest.raises(AccessDenied):
            S3Backend("s3://bucket/store").put(Key("packs/a"), [bytes(32 << 20)])


@pytest.mark.parametrize("content_range", ["bytes 2-5/9", None], ids=["what was asked for", "all of it"])
def test_a_part_is_cut_out_of_what_came_wherever_that_begins(options, content_range):
    whole = b"012345678"
    told = answered(206, "2345", **{"Content-Range": content_range}) if content_range else answered(200, whole.decode())
    with server(told) as url:
        options["endpoint_url"] = url
        assert S3Backend("s3://bucket/store").get_ranges([Span(Key("a"), 2, 6)]) == [b"2345"]


def test_another_part_than_was_asked_for_is_an_error(options):
    other, size = answered(206, "6789", **{"Content-Range": "bytes 6-9/20"}), answered(200, **{"Content-Length": 20})
    with server(other, size) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed, match="sent 0 bytes of 'a' where 4 were asked for"):
            S3Backend("s3://bucket/store").get_ranges([Span(Key("a"), 2, 6)])


def chunked(body=""):
    sent = f"{len(body):x}\r\n{body}\r\n" * bool(body) + "0\r\n\r\n"
    return f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{sent}".encode()


def test_an_answer_that_lacks_what_s3_says_is_told_as_such(options):
    with server(chunked("<Hello></Hello>")) as url:
        options["endpoint_url"] = url
        backend = S3Backend("s3://bucket/store")
        with pytest.raises(StorageFailed, match=r"no IsTruncated.*does not speak S3"):
            backend.list("packs")
        with pytest.raises(StorageFailed, match=r"no ContentLength.*does not speak S3"):
            backend.get_ranges([Span(Key("packs/a"), 0, 0)])


@pytest.mark.parametrize("answer", [answered(200), chunked("<html>Welcome</html>")], ids=["empty", "a page"])
def test_an_object_that_nobody_says_was_made_was_not_made(options, answer):
    """As something answers that says yes to everything."""
    with server(answer) as url:
        options["endpoint_url"] = url
        backend = S3Backend("s3://bucket/store")
        with pytest.raises(StorageFailed, match=r"cut off|no ETag.*does not speak S3"):
            backend.put(Key("packs/a"), [b"data"])
        with pytest.raises(OutcomeUnknown, match="may or may not have been made"):
            backend.create(Key("log/a"), [b"data"])


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


def test_a_list_of_other_names_than_were_asked_for_is_an_error_and_never_an_empty_one(options):
    with server(page("a", goes_on=False)) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed, match="below 'other/packs/' were asked for"):
            S3Backend("s3://bucket/other").list("packs")


@pytest.mark.parametrize("token", [None, "1"])
def test_a_list_that_goes_on_and_says_not_where_is_an_error_and_never_a_shorter_one(options, token):
    with server(page("a", token="1"), page("b", token=token)) as url:
        options["endpoint_url"] = url
        with pytest.raises(StorageFailed, match="goes on, and not where"):
            [*S3Backend("s3://bucket/store").list("packs")]


def test_a_bucket_whose_name_cannot_be_one_is_refused_before_anything_is_sent(options):
    backend = S3Backend("s3://not a bucket/store")
    for act in (
        lambda: backend.get_many([Key("a")]),
        lambda: backend.put(Key("a"), [b"a"]),
        lambda: backend.create(Key("a"), [b"a"]),
        lambda: [*backend.list("packs")],
    ):
        with pytest.raises(InvalidRequest, match="Invalid bucket name"):
            act()


def test_a_url_without_a_bucket_is_refused():
    with pytest.raises(InvalidRequest, match="names no bucket"):
        S3Backend("s3:///store")


@pytest.mark.parametrize(
    "option",
    [
        {"profile": "none-such"},
        {"config_kwargs": {"none_such": 1}},
        {"client_kwargs": {"none_such": 1}},
        {"s3_additional_kwargs": {"none_such": 1}},
    ],
    ids=str,
)
def test_options_that_cannot_be_used_are_told_when_a_store_is_opened(options, option):
    options |= option
    with pytest.raises(InvalidRequest, match=r"none.such"):
        S3Backend("s3://bucket/store")


@pytest.mark.parametrize("table", ["config_kwargs", "client_kwargs", "s3_additional_kwargs"])
def test_what_should_be_a_table_is_named_and_never_shown_as_it_may_be_a_secret(options, table):
    options[table] = "a secret"
    with pytest.raises(InvalidRequest, match=f"for {table} of S3 is no table, but of type str") as failed:
        S3Backend("s3://bucket/store")
    assert "a secret" not in str(failed.value)


@pytest.mark.parametrize("also", [{"ServerSideEncryption": "AES256"}, {"CopySource": "a request of another kind"}])
def test_what_any_request_of_s3_knows_may_be_said_of_requests(options, also):
    options["s3_additional_kwargs"] = also
    S3Backend("s3://bucket/store")


@pytest.mark.parametrize("switch", ["anon", "requester_pays", "use_ssl"])
def test_a_switch_may_be_off_in_the_words_of_a_variable_of_the_environment(options, switch):
    heard = []
    for said in ("False", "no", "0", "", "true", True):
        options[switch] = said
        client = s3_client.BucketClient("bucket", options)
        heard.append(
            {
                "anon": client._client().meta.config.signature_version is s3_client.import_module("botocore").UNSIGNED,
                "requester_pays": "RequestPayer" in client._also,
                "use_ssl": client._client().meta.endpoint_url.startswith("https"),
            }[switch]
        )
    assert heard == [False, False, False, False, True, True]
    options[switch] = "perhaps"
    with pytest.raises(InvalidRequest, match=f"neither yes nor no for {switch}") as failed:
        S3Backend("s3://bucket/store")
    assert "perhaps" not in str(failed.value)


def test_a_machine_without_credentials_is_told_so_and_nothing_is_left_in_doubt(options):
    options.clear()
    backend = S3Backend("s3://bucket/store")
    for act in (lambda: backend.get_many([Key("a")]), lambda: backend.create(Key("a"), [b"a"])):
        with pytest.raises(AccessDenied, match="Unable to locate credentials"):
            act()


def test_credentials_that_a_machine_was_slow_to_tell_are_looked_for_again(options, monkeypatch):
    options.clear()
    with server(error(404, "NoSuchKey")) as url:
        options["endpoint_url"] = url
        backend = S3Backend("s3://bucket/store")
        with pytest.raises(AccessDenied):
            backend.get_many([Key("a")])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "late")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
        assert backend.get_many([Key("a")]) == [None]


def test_credentials_that_fail_when_a_store_is_opened_are_told_as_such(options, monkeypatch, tmp_path):
    options.clear()
    (tmp_path / "config").write_text("[default]\ncredential_process = false\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(AccessDenied, match="custom-process"):
        S3Backend("s3://bucket/store").get_many([Key("a")])


@pytest.fixture
def role(options, monkeypatch, tmp_path):
    """A machine that gets its credentials for a token, as in a cluster of containers."""
    options.clear()
    options["endpoint_url"] = "http://127.0.0.1:9"  # nobody gets so far
    (tmp_path / "token").write_text("a token")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def asks(url):
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", url)
        return S3Backend("s3://bucket/store")

    return asks


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "InvalidIdentityToken"), (400, "ExpiredTokenException"), (404, "ResourceNotFoundException")],
)
def test_a_role_that_is_refused_is_a_refusal_and_never_an_absent_object(role, status, code):
    body = f"<ErrorResponse><Error><Code>{code}</Code><Message>planned</Message></Error></ErrorResponse>"
    with server(answered(status, body)) as url:
        backend = role(url)
        with pytest.raises(AccessDenied, match=code) as failed:
            backend.get_many([Key("a")])
    assert "Log in again" in failed.value.next_step


def test_a_role_that_is_given_out_too_often_is_asked_for_again(role):
    body = "<ErrorResponse><Error><Code>Throttling</Code><Message>planned</Message></Error></ErrorResponse>"
    with server(answered(400, body)) as url:
        backend = role(url)
        with pytest.raises(StorageFailed, match="Throttling") as failed:
            backend.get_many([Key("a")])
    assert type(failed.value) is StorageFailed


def test_who_provides_identities_may_have_been_out_of_reach_once(role):
    body = "<ErrorResponse><Error><Code>IDPCommunicationError</Code><Message>planned</Message></Error></ErrorResponse>"
    with server(answered(400, body)) as url:
        backend = role(url)
        with pytest.raises(StorageFailed, match="IDPCommunicationError") as failed:
            backend.get_many([Key("a")])
    assert may_pass(failed.value)


def test_a_role_of_the_machine_that_is_not_told_may_be_told_the_next_time(options, monkeypatch):
    options.clear()
    with server(answered(500)) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/role")
        with pytest.raises(StorageFailed, match="container-role") as failed:
            S3Backend("s3://bucket/store").get_many([Key("a")])
    assert may_pass(failed.value)


def test_what_gives_out_roles_and_says_nothing_is_given_up_as_a_bucket_would_be(role, monkeypatch):
    monkeypatch.setitem(s3_client._PATIENCE, "read_timeout", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with pytest.raises(StorageFailed, match="Read timeout"):
            role(f"http://127.0.0.1:{silent.getsockname()[1]}").get_many([Key("a")])
    assert time.monotonic() - begun < 10


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


def test_credentials_of_the_url_may_hold_any_sign_and_are_not_mixed_with_others(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    others = {"token": "session", "profile": "none-such", "anon": True}
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url} | others)
    backend = S3Backend(f"s3://mine%3Atoo:hid%2Fden%40%25@{s3_bucket.partition('://')[2]}/store")
    assert backend._bucket._client()._get_credentials().secret_key == "hid/den@%"
    for said in headers_of(s3_proxy, backend).values():
        assert "Credential=mine:too/" in said["authorization"]
        assert "x-amz-security-token" not in said
    assert backend.describe() == f"{s3_bucket}/store"


def test_credentials_of_the_url_go_before_those_that_the_configuration_has_for_the_client(
    s3_bucket, s3_proxy, monkeypatch
):
    from fsspec.config import conf

    others = {"aws_access_key_id": "other", "aws_secret_access_key": "other", "aws_session_token": "other"}
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url, "client_kwargs": others})
    backend = S3Backend(f"s3://mine:hidden@{s3_bucket.partition('://')[2]}/store")
    for said in headers_of(s3_proxy, backend).values():
        assert "Credential=mine/" in said["authorization"]
        assert "x-amz-security-token" not in said


def test_a_key_without_its_secret_is_refused():
    with pytest.raises(InvalidRequest, match="no secret"):
        S3Backend("s3://mine@bucket/store")


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
        assert "expect" not in put.headers, "the client may wait for ever for the answer to that"


def test_a_bucket_that_asks_for_sums_gets_them_if_the_configuration_says_so(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    sums = {"request_checksum_calculation": "when_supported"}
    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url, "config_kwargs": sums})
    backend = S3Backend(f"{s3_bucket}/locked")
    backend.put(Key("packs/a"), [b"con", b"tent"])
    assert [name for name in s3_proxy.requests[-1].headers if name.startswith("x-amz-checksum-")]
    assert backend.get_many([Key("packs/a")]) == [b"content"]


def test_the_client_asks_once_whatever_the_machine_says(s3_bucket, s3_proxy, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "5")
    monkeypatch.setenv("AWS_RETRY_MODE", "adaptive")
    for _ in range(2):
        backend = S3Backend(f"{s3_bucket}/once")
        s3_proxy.begin_anew()
        s3_proxy.act = lambda _request: Fault.SLOW_DOWN
        with pytest.raises(StorageFailed):
            backend.get_many([Key("a")])
        assert len(s3_proxy.requests) == 1


# Processes


@pytest.mark.parametrize("keys", [1, 64])
def test_a_forked_process_opens_one_client_of_its_own(s3_bucket, keys):
    backend = S3Backend(f"{s3_bucket}/forked")
    backend.put(Key("a"), [b"content"])
    script = (
        "import os, sys\n"
        "from dataset_store.storage import s3_client\n"
        "from dataset_store.storage.backend import Key\n"
        "from dataset_store.storage.s3_backend import S3Backend\n"
        "opened, really = [], s3_client._open\n"
        "s3_client._open = lambda options: opened.append(os.getpid()) or really(options)\n"
        "keys = [Key('a')] * int(sys.argv[2])\n"
        "backend = S3Backend(sys.argv[1])\n"
        "assert backend.get_many(keys) == [b'content'] * len(keys)\n"
        "parent, child = os.getpid(), os.fork()\n"
        "if child == 0:\n"
        "    right = backend.get_many(keys) == [b'content'] * len(keys)\n"
        "    os._exit(0 if right and opened == [parent, os.getpid()] else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, backend.describe(), str(keys)]
    assert subprocess.run(command, timeout=60).returncode == 0


def test_a_server_whose_certificate_is_not_good_is_refused_at_once_and_not_asked_again(options, tmp_path):
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1"]
    subprocess.run([*made, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with server(answered(200), through=context) as url:
        options["endpoint_url"] = url.replace("http://127.0.0.1", "https://localhost")
        backend = S3Backend("s3://bucket/store")
        for act in (lambda: backend.get_many([Key("a")]), lambda: backend.create(Key("a"), [b"a"])):
            with pytest.raises(StorageRefused, match="certificate verify failed") as failed:
                act()
            assert "certificate authorities" in failed.value.next_step


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_where_the_system_gives_few_threads_or_none_a_batch_is_asked_for_all_the_same(s3_bucket, monkeypatch, threads):
    backend = S3Backend(f"{s3_bucket}/{secrets.token_hex(8)}")
    keys = [Key(f"packs/{number}") for number in range(8)]
    for key in keys:
        backend.put(key, [key.encode()])
    real, begun = threading.Thread.start, []

    def start(thread):
        if thread.name.startswith("s3"):
            if len(begun) >= threads:
                raise RuntimeError("can't start new thread")
            begun.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    assert backend.get_many(keys) == [key.encode() for key in keys]
    backend.delete_many(keys)
    monkeypatch.undo()
    assert backend.get_many(keys) == [None] * 8


def test_a_batch_may_be_asked_for_while_the_interpreter_ends(s3_bucket):
    place = f"{s3_bucket}/{secrets.token_hex(8)}"
    S3Backend(place).put(Key("packs/a"), [b"a"])
    program = f"""
import atexit
from dataset_store.storage.s3_backend import S3Backend
backend = S3Backend({place!r})
atexit.register(lambda: print(backend.get_many(["packs/a", "packs/b"])))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[b'a', None]\n"


def test_a_server_that_takes_no_more_of_an_upload_is_given_up(s3_bucket, s3_proxy, monkeypatch):
    monkeypatch.setitem(s3_client._PATIENCE, "connect_timeout", 1)  # and 20 s to say something
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
