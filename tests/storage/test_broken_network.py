"""An S3 store through a network that cuts, loses, holds back, refuses and flips: right answers or typed errors."""

import gc
import secrets
import time
from contextlib import contextmanager, suppress

import pytest
from fault_proxy import Answer, Changed, Fault, mixed

from dataset_store.errors import CommitOutcomeUnknown, OutcomeUnknown, StorageFailed
from dataset_store.storage import filesystems, s3_client
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.log import Committed, Log, Pacing
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.retries import Patience, RetryingBackend
from dataset_store.storage.s3_backend import S3Backend
from dataset_store.storage.storages import backend_at
from dataset_store.storage.wrappers import Wrapper
from dataset_store.testing.backend_conformance import BackendConformance
from dataset_store.testing.log_entries import hash_hex, id_hex, version_entry

QUICK = Patience(base=0.001, ceiling=0.01)
SEEN = [Fault.REFUSED, Fault.LOST, Fault.CUT_HEAD, Fault.CUT_BODY, Fault.SLOW_DOWN]
"""Faults that the client is told of at once."""


@pytest.fixture
def impatient(monkeypatch):
    """A server may say nothing for one second."""
    for wait in ("connect_timeout", "read_timeout"):
        monkeypatch.setitem(s3_client._PATIENCE, wait, 1)


@pytest.fixture
def store(s3_bucket, s3_proxy):
    """A store of one object, asked once; the proxy before it."""
    backend = S3Backend(f"{s3_bucket}/{secrets.token_hex(8)}")
    backend.put(Key("packs/a"), [b"0123456789"])
    return backend, s3_proxy


@contextmanager
def failing(proxy, act):
    before = len(proxy.requests)
    proxy.act = act
    try:
        yield
    finally:
        proxy.act = lambda _request: None
        proxy.seen = proxy.requests[before:]


def first_of(method, fault):
    """A plan by which the first request of a method fails."""
    left = [fault]
    return lambda request: left.pop() if request.method == method and left else None


VERBS = {
    "get_many": ("GET", lambda backend: backend.get_many([Key("packs/a"), Key("none")]), [b"0123456789", None]),
    "get_ranges": ("GET", lambda backend: backend.get_ranges([Span(Key("packs/a"), 2, 9)]), [b"2345678"]),
    "tail": ("GET", lambda backend: backend.get_ranges([Tail(Key("packs/a"), 4)]), [b"6789"]),
    "put": ("PUT", lambda backend: backend.put(Key("packs/a"), [b"0123456789"]), None),
    "delete_many": ("DELETE", lambda backend: backend.delete_many([Key("packs/b")]), None),
    "list": ("GET", lambda backend: [(row.key, row.size) for row in backend.list("packs")], [("packs/a", 10)]),
}


@pytest.mark.parametrize(
    "fault", [*SEEN, pytest.param(Fault.STALL, marks=pytest.mark.heavy)], ids=lambda fault: fault.name
)
@pytest.mark.parametrize("verb", VERBS)
def test_a_request_that_fails_once_is_done_in_the_end_and_asked_for_no_more_often(store, impatient, verb, fault):
    backend, proxy = store
    backend = RetryingBackend(S3Backend(backend.describe()), QUICK)
    method, act, answer = VERBS[verb]
    with failing(proxy, first_of(method, fault)):
        assert act(backend) == answer
    # A batch of two is asked for again in halves.
    assert len(proxy.seen) <= 5


@pytest.mark.parametrize(
    "verb",
    [
        "get_ranges",
        "put",
        *(pytest.param(verb, marks=pytest.mark.heavy) for verb in ("get_many", "delete_many", "list")),
    ],
)
def test_a_server_that_accepts_and_says_nothing_ends_in_a_typed_error_in_time(store, impatient, verb):
    backend = RetryingBackend(S3Backend(store[0].describe()), Patience(attempts=2, base=0.001))
    begun = time.monotonic()
    with failing(store[1], lambda _request: Fault.STALL), pytest.raises(StorageFailed):
        VERBS[verb][1](backend)
    assert time.monotonic() - begun < 2 * (1 + 1) + 10  # machines are busy


def test_the_bounds_of_a_silent_server_are_those_that_are_documented():
    assert filesystems.STALL_SECONDS == s3_client._PATIENCE["read_timeout"] == 20
    assert Patience().seconds == 60


def test_a_storage_that_refuses_all_is_given_up_soon_and_told_apart_from_one_that_is_empty(store):
    backend = RetryingBackend(store[0], QUICK)
    with failing(store[1], lambda _request: Fault.SLOW_DOWN), pytest.raises(StorageFailed):
        backend.get_many([Key("config")])
    assert len(store[1].seen) == QUICK.attempts


@pytest.fixture
def no_collector():
    """What is held in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


WRITES = {"put": lambda backend, data: backend.put(Key("packs/b"), [memoryview(data)])} | {
    "create": lambda backend, data: backend.create(Key("log/0"), [memoryview(data)])
}


@pytest.mark.parametrize("fault", [*SEEN, Answer(403, "AccessDenied"), Answer(412, "PreconditionFailed")], ids=str)
@pytest.mark.parametrize("write", WRITES)
def test_what_a_failed_request_was_to_send_is_not_held_behind_it(store, no_collector, write, fault):
    backend = RetryingBackend(S3Backend(store[0].describe()), QUICK)
    data = bytearray(b"content")
    with failing(store[1], lambda _request: fault), suppress(StorageFailed):
        WRITES[write](backend, data)
    data.extend(b"; a buffer that something holds cannot grow")


def test_an_error_that_the_caller_is_handling_keeps_what_its_frames_hold(store):
    def fails():
        important = 42
        raise KeyError(important)

    try:
        fails()
    except KeyError as error:
        error.__cause__ = LookupError()
        error.__cause__.__cause__ = error  # as where a cause is raised again while what it caused is handled
        assert store[0].get_many([Key("none")]) == [None]
        assert error.__traceback__.tb_next.tb_frame.f_locals == {"important": 42}


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.LOST, Fault.SLOW_DOWN, Fault.STALL], ids=lambda f: f.name)
def test_a_create_whose_reply_is_lost_is_told_as_doubt(store, impatient, fault):
    backend = S3Backend(store[0].describe())
    with failing(store[1], lambda _request: fault), pytest.raises(OutcomeUnknown):
        backend.create(Key("log/0"), [b"entry"])


def test_a_conflict_of_two_requests_on_one_key_is_doubt_and_no_loss(store):
    with failing(store[1], lambda _request: Answer(409, "ConditionalRequestConflict")), pytest.raises(OutcomeUnknown):
        store[0].create(Key("log/0"), [b"entry"])


@pytest.mark.parametrize(
    "action", [Fault.REFUSED, Fault.LOST, Fault.SLOW_DOWN, Answer(409, "ConditionalRequestConflict")], ids=str
)
def test_an_entry_lands_once_whatever_becomes_of_the_first_reply(store, action):
    log = Log(store[0], hash_hex(0), pacing=Pacing(sleep=lambda _seconds: None))
    with failing(store[1], first_of("PUT", action)):
        outcome = log.append(version_entry(1), log.start)
    assert isinstance(outcome, Committed)
    assert [record.entry.commit for record in log.read_after(log.start)] == [id_hex(1)]


def test_a_commit_of_which_nothing_can_be_learned_says_so_and_lands_once_when_it_is_repeated(store):
    backend, proxy = store
    log = Log(backend, hash_hex(0), pacing=Pacing(sleep=lambda _seconds: None))
    log.append(version_entry(1), log.start)
    (first,) = log.read_after(log.start)

    def lost(request):
        return Fault.LOST if request.key.endswith("000000000001") else None

    with failing(proxy, lost), pytest.raises(CommitOutcomeUnknown):
        log.append(version_entry(2), first.after)
    assert isinstance(log.append(version_entry(2), first.after), Committed)
    assert [record.entry.commit for record in log.read_after(log.start)] == [id_hex(1), id_hex(2)]


def test_a_commit_to_a_server_that_falls_silent_ends_in_time():
    time_now = [0.0]

    class Silent(Wrapper):
        def create(self, key, buffers):
            time_now[0] += 20
            raise OutcomeUnknown("It says nothing.")

        def get_many(self, keys):
            if keys == ["log/catalog/000000000000"]:
                time_now[0] += 80
                raise StorageFailed("It says nothing.")
            return super().get_many(keys)

    pacing = Pacing(sleep=lambda _seconds: None, now=lambda: time_now[0])
    log = Log(Silent(MemoryBackend()), hash_hex(0), pacing=pacing)
    with pytest.raises(CommitOutcomeUnknown):
        log.append(version_entry(1), log.start)
    assert time_now[0] <= 120 + 20 + 80


def test_a_part_that_comes_too_short_is_an_error_and_no_damage_of_the_object(store):
    def cut_short(request):
        return Changed(body=lambda data: data[:-1]) if request.method == "GET" else None

    short = pytest.raises(StorageFailed, match="6 bytes of 'packs/a' where 7 were asked for")
    with failing(store[1], cut_short), short:
        store[0].get_ranges([Span(Key("packs/a"), 2, 9)])


@pytest.mark.heavy
def test_objects_larger_than_any_pack_are_sent_by_one_request(store):
    backend, proxy = store
    with failing(proxy, lambda _request: None):
        backend.put(Key("packs/large"), [bytes(1 << 20)] * 128)  # the driver would send 100 MiB in parts
        assert backend.create(Key("packs/larger"), [bytes(1 << 20)] * 128)
    assert [(seen.method, seen.target.partition("?")[2]) for seen in proxy.seen] == [("PUT", "")] * 2


def test_the_users_configuration_of_the_driver_goes_before_ours(s3_bucket, s3_proxy, monkeypatch):
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", {"endpoint_url": s3_proxy.url, "config_kwargs": {"read_timeout": 7}})
    client = backend_at(f"{s3_bucket}/x").inner._bucket._client().meta
    assert client.endpoint_url == s3_proxy.url
    assert client.config.read_timeout == 7
    assert client.config.retries["total_max_attempts"] == 1
    filesystem, _ = filesystems.open_filesystem(f"{s3_bucket}/x")
    assert filesystem.endpoint_url == s3_proxy.url
    assert filesystem.config_kwargs["read_timeout"] == 7


def test_a_profile_with_an_endpoint_of_its_own_is_used(s3_bucket, s3_proxy, monkeypatch, tmp_path):
    from fsspec.config import conf

    (tmp_path / "config").write_text(
        f"[profile mine]\nendpoint_url = {s3_proxy.url}\naws_access_key_id = tests\naws_secret_access_key = tests\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setitem(conf, "s3", {"profile": "mine"})
    backend = backend_at(f"{s3_bucket}/{secrets.token_hex(8)}")
    backend.put(Key("packs/a"), [b"content"])
    assert backend.get_many([Key("packs/a")]) == [b"content"]
    assert [request.method for request in s3_proxy.requests] == ["PUT", "GET"]


class _Settled(Wrapper):
    """Learns by reading back what became of a create, as the log does."""

    def create(self, key, buffers):
        data = b"".join(buffers)
        try:
            if self.inner.create(key, [data]):
                return True
        except OutcomeUnknown:
            if self.inner.get_many([key]) == [None]:
                return self.create(key, [data])
        return self.inner.get_many([key]) == [data]


@pytest.mark.heavy
class TestS3ThroughABrokenNetwork(BackendConformance):
    """One request in fifty fails, in each way that the client is told of."""

    @pytest.fixture(autouse=True)
    def _network(self, s3_bucket, s3_proxy):
        self.bucket = s3_bucket
        s3_proxy.act = mixed(secrets.randbits(32), 0.02, SEEN)

    def make_backend(self) -> Backend:
        return self.at(f"{self.bucket}/{secrets.token_hex(8)}/store")

    def reopen(self, backend: Backend) -> Backend:
        return self.at(backend.describe())

    def at(self, url):
        return _Settled(RetryingBackend(S3Backend(url), Patience(base=0.01)))
