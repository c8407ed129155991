"""Wrappers keep the promises of the port; each adds one thing."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dataset_store.errors import InvalidRequest, ObjectMissing, OutcomeUnknown, StorageFailed, StoreReadOnly
from dataset_store.storage.backend import Backend, Key, Span, Tail
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.wrappers import CountingBackend, LatencyBackend, ReadOnlyBackend, Wrapper
from dataset_store.testing.backend_conformance import BackendConformance
from dataset_store.testing.faults import Effect, Fault, FaultyBackend

A, B, C = Key("packs/a"), Key("packs/b"), Key("packs/c")


class WrapperConformance(BackendConformance):
    def reopen(self, backend: Backend) -> Backend:
        return backend


class TestWrapper(WrapperConformance):
    def make_backend(self) -> Backend:
        return Wrapper(MemoryBackend())


class TestCountingBackend(WrapperConformance):
    def make_backend(self) -> Backend:
        return CountingBackend(MemoryBackend())


class TestLatencyBackend(WrapperConformance):
    def make_backend(self) -> Backend:
        return LatencyBackend(MemoryBackend(), 0.1, sleep=lambda _: None)


class TestFaultyBackendWithoutFaults(WrapperConformance):
    def make_backend(self) -> Backend:
        return FaultyBackend(MemoryBackend(), [])


def filled() -> MemoryBackend:
    backend = MemoryBackend()
    backend.put(A, [b"0123456789"])
    backend.put(B, [b"abc"])
    return backend


# Counting


def test_every_call_is_counted_by_its_verb():
    backend = CountingBackend(filled())
    backend.get_many([A, B])
    backend.get_many([])
    backend.get_ranges([Span(A, 0, 1)])
    backend.put(C, [b"c"])
    backend.create(C, [b"c"])
    backend.list("packs")
    backend.delete_many([A])
    counts = backend.snapshot()
    assert counts.calls == {
        "get_many": 2,
        "get_ranges": 1,
        "put": 1,
        "create": 1,
        "list": 1,
        "delete_many": 1,
    }
    assert counts.total_calls == 7


def test_reads_are_counted_in_keys_asked_objects_found_and_bytes():
    backend = CountingBackend(filled())
    backend.get_many([B, C, A, A])
    assert backend.snapshot().keys_read == (B, C, A, A)
    assert backend.snapshot().objects_read == 2
    assert backend.snapshot().bytes_read == 23
    backend.reset()
    backend.get_ranges([Span(A, 0, 4), Tail(B, 2), Tail(A, 1)])
    assert backend.snapshot().keys_read == (A, B, A)
    assert backend.snapshot().objects_read == 2
    assert backend.snapshot().bytes_read == 7


def test_only_what_was_written_counts_as_written():
    backend = CountingBackend(FaultyBackend(filled(), [Fault("put", 1, Effect.ERROR_BEFORE)]))
    with pytest.raises(StorageFailed):
        backend.put(C, [b"refused"])
    backend.create(A, [b"lost the race"])
    assert backend.snapshot().bytes_written == 0
    backend.create(C, [b"12", memoryview(b"12345678").cast("I")])
    backend.put(Key("d"), [b"123"])
    assert backend.snapshot().bytes_written == 13


def test_a_call_that_fails_is_counted():
    backend = CountingBackend(MemoryBackend())
    with pytest.raises(ObjectMissing):
        backend.get_ranges([Tail(A, 1)])
    assert backend.snapshot().calls == {"get_ranges": 1}
    assert backend.snapshot().objects_read == 0


def test_a_snapshot_does_not_change_and_a_reset_begins_at_zero():
    backend = CountingBackend(filled())
    backend.get_many([A])
    before = backend.snapshot()
    backend.reset()
    assert before.calls == {"get_many": 1}
    assert backend.snapshot() == CountingBackend(MemoryBackend()).snapshot()


def test_no_count_is_lost_between_threads():
    backend = CountingBackend(filled())
    start = threading.Barrier(8)

    def read(_: int) -> None:
        start.wait()
        for _ in range(500):
            backend.get_many([A])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    counts = backend.snapshot()
    assert (counts.total_calls, counts.objects_read, counts.bytes_read) == (4000, 4000, 40_000)
    assert counts.keys_read == (A,) * 4000


# Reading only


def test_a_read_only_backend_reads():
    backend = ReadOnlyBackend(filled())
    assert backend.get_many([A, C]) == [b"0123456789", None]
    assert backend.get_ranges([Tail(B, 1)]) == [b"c"]
    assert {row.key for row in backend.list("packs")} == {A, B}
    assert backend.describe() == "memory://"


def test_a_read_only_backend_refuses_every_write_and_changes_nothing():
    inner = filled()
    backend = ReadOnlyBackend(inner)
    with pytest.raises(StoreReadOnly, match="packs/c"):
        backend.put(C, [b"c"])
    with pytest.raises(StoreReadOnly, match="packs/c"):
        backend.create(C, [b"c"])
    with pytest.raises(StoreReadOnly):
        backend.delete_many([A])
    assert inner.get_many([A, C]) == [b"0123456789", None]


# Latency


def test_each_call_takes_one_request_and_the_time_of_its_bytes():
    slept: list[float] = []
    backend = LatencyBackend(filled(), 0.5, bytes_per_second=10, sleep=slept.append)
    backend.get_many([A, C, B])
    backend.get_ranges([Span(A, 0, 4), Tail(B, 1)])
    backend.put(C, [b"12345", b"67890"])
    backend.create(C, [b"12345"])
    list(backend.list("packs"))
    backend.delete_many([A, B])
    assert slept == [1.8, 1.0, 1.5, 1.0, 0.5, 0.5]


def test_a_line_without_a_rate_takes_no_time_for_bytes():
    slept: list[float] = []
    LatencyBackend(filled(), 0.25, sleep=slept.append).get_many([A])
    assert slept == [0.25]


@pytest.mark.parametrize(("latency", "rate"), [(-1, 1), (0, 0), (0, -5), (float("nan"), 1)])
def test_times_that_cannot_be_are_refused(latency: float, rate: float):
    with pytest.raises(InvalidRequest):
        LatencyBackend(MemoryBackend(), latency, rate)


# Faults


def test_an_error_before_leaves_nothing_done_and_strikes_only_the_call_it_names():
    inner = filled()
    backend = FaultyBackend(inner, [Fault("put", 2, Effect.ERROR_BEFORE)])
    backend.put(C, [b"c"])
    with pytest.raises(StorageFailed):
        backend.put(Key("d"), [b"d"])
    assert inner.get_many([C, Key("d")]) == [b"c", None]
    backend.put(Key("d"), [b"d"])
    assert inner.get_many([Key("d")]) == [b"d"]


def test_an_error_after_loses_the_reply_of_what_was_done():
    inner = filled()
    plan = [Fault(verb, 1, Effect.ERROR_AFTER) for verb in ("put", "create", "delete_many")]
    backend = FaultyBackend(inner, plan)
    with pytest.raises(StorageFailed) as put:
        backend.put(C, [b"c"])
    with pytest.raises(OutcomeUnknown):
        backend.create(Key("d"), [b"d"])
    with pytest.raises(StorageFailed):
        backend.delete_many([A])
    assert not isinstance(put.value, OutcomeUnknown)
    assert inner.get_many([A, C, Key("d")]) == [None, b"c", b"d"]


@pytest.mark.parametrize("verb", ["get_many", "get_ranges", "put", "create", "delete_many", "list"])
@pytest.mark.parametrize("effect", [Effect.ERROR_BEFORE, Effect.ERROR_AFTER])
def test_every_verb_can_raise_an_error_of_the_plan(verb, effect):
    error = StoreReadOnly("planned")
    backend = FaultyBackend(MemoryBackend(), [Fault(verb, 1, effect, error)])
    arguments = {"put": (C, [b"c"]), "create": (C, [b"c"]), "list": ("packs",)}.get(verb, ([],))
    with pytest.raises(StoreReadOnly) as raised:
        getattr(backend, verb)(*arguments)
    assert raised.value is error


def test_a_fault_without_a_call_number_strikes_every_call():
    backend = FaultyBackend(filled(), [Fault("get_many", None, Effect.ERROR_BEFORE)])
    for _ in range(3):
        with pytest.raises(StorageFailed):
            backend.get_many([A])


@pytest.mark.parametrize(
    ("effect", "offset", "left"),
    [
        (Effect.CORRUPT, 0, b"\xcf123456789"),
        (Effect.CORRUPT, -1, b"012345678\xc6"),
        (Effect.CORRUPT, 13, b"012\xcc456789"),
        (Effect.TRUNCATE, -1, b"012345678"),
        (Effect.TRUNCATE, 2, b"01"),
        (Effect.MISSING, 0, None),
    ],
)
def test_bytes_are_flipped_cut_or_lost_in_one_answer_of_a_read_or_in_what_is_stored(effect, offset, left):
    read = FaultyBackend(filled(), [Fault("get_many", 1, effect, item=1, offset=offset)])
    assert read.get_many([B, A]) == [b"abc", left]
    assert read.get_many([B, A]) == [b"abc", b"0123456789"]
    for verb in ("put", "create"):
        inner = MemoryBackend()
        written = FaultyBackend(inner, [Fault(verb, 1, effect, offset=offset)])
        assert getattr(written, verb)(A, [b"01234", b"56789"]) in {None, True}
        assert inner.get_many([A]) == [left]


def test_ranges_are_flipped_and_cut_in_one_answer_and_a_lost_object_is_missing():
    plan = [
        Fault("get_ranges", 1, Effect.CORRUPT, item=1),
        Fault("get_ranges", 2, Effect.TRUNCATE, item=0),
        Fault("get_ranges", 3, Effect.MISSING, item=1),
    ]
    backend = FaultyBackend(filled(), plan)
    parts = [Span(A, 0, 3), Tail(B, 2)]
    assert backend.get_ranges(parts) == [b"012", b"b\x9c"]
    assert backend.get_ranges(parts) == [b"01", b"bc"]
    with pytest.raises(ObjectMissing, match="packs/b"):
        backend.get_ranges(parts)
    assert backend.get_ranges(parts) == [b"012", b"bc"]


def test_an_absent_object_and_an_answer_that_was_not_asked_for_cannot_be_damaged():
    plan = [
        Fault("get_many", 1, Effect.CORRUPT),
        Fault("get_many", 2, Effect.CORRUPT, item=5),
        Fault("get_ranges", None, Effect.CORRUPT),
    ]
    backend = FaultyBackend(filled(), plan)
    assert backend.get_many([C]) == [None]
    assert backend.get_many([B]) == [b"abc"]
    assert backend.get_ranges([Span(B, 1, 1)]) == [b""]


@pytest.mark.parametrize("verb", ["delete_many", "list"])
def test_damage_to_a_verb_without_bytes_cannot_be_planned(verb):
    with pytest.raises(InvalidRequest):
        Fault(verb, 1, Effect.CORRUPT)


def test_the_plan_tells_which_faults_were_never_met():
    met, unmet = Fault("get_many", 1, Effect.CORRUPT), Fault("get_many", 2, Effect.CORRUPT)
    backend = FaultyBackend(filled(), [met, unmet])
    assert backend.unused() == (met, unmet)
    backend.get_many([A])
    assert backend.unused() == (unmet,)
