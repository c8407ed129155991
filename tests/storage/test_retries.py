"""What may be repeated is repeated, a bounded number of times and for a bounded time; what may not, never."""

import itertools
from dataclasses import dataclass, field

import pytest

from dataset_store.errors import (
    AccessDenied,
    CorruptObject,
    DiskFull,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
    StoreRootMissing,
    StoreUnreachable,
)
from dataset_store.storage.backend import Key, Span
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.retries import Patience, RetryingBackend
from dataset_store.storage.wrappers import CountingBackend
from dataset_store.testing.backend_conformance import BackendConformance
from dataset_store.testing.faults import Effect, Fault, FaultyBackend

KEY = Key("packs/a")


@dataclass
class Clock:
    """Time that passes only by sleeping."""

    time: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.time += seconds

    def patience(self, **changes):
        return Patience(**({"sleep": self.sleep, "jitter": lambda: 1.0, "now": lambda: self.time} | changes))


def over(plan, **changes):
    """A backend with one object that fails as planned, and repeats; what it passes on, counted; its clock."""
    inner = MemoryBackend()
    inner.put(KEY, [b"content"])
    clock = Clock()
    counted = CountingBackend(FaultyBackend(inner, plan))
    return RetryingBackend(counted, clock.patience(**changes)), counted, clock


class TestRetrying(BackendConformance):
    def make_backend(self):
        return RetryingBackend(MemoryBackend())

    def reopen(self, backend):
        return RetryingBackend(backend.inner)


VERBS = {
    "get_many": lambda backend: backend.get_many([KEY]),
    "get_ranges": lambda backend: backend.get_ranges([Span(KEY, 0, 7)]),
    "put": lambda backend: backend.put(Key("packs/b"), [b"more"]),
    "delete_many": lambda backend: backend.delete_many(iter([KEY])),
    "list": lambda backend: [*backend.list("packs")],
}


def sizes(rows):
    """A listing without the times."""
    return [(row.key, row.size) for row in rows]


@pytest.mark.parametrize("effect", [Effect.ERROR_BEFORE, Effect.ERROR_AFTER])
@pytest.mark.parametrize("verb", VERBS)
def test_what_failed_by_chance_is_done_in_the_end(verb, effect):
    backend, counted, clock = over([Fault(verb, call, effect) for call in (1, 2, 3)])
    plain = MemoryBackend()
    plain.put(KEY, [b"content"])
    answer, expected = VERBS[verb](backend), VERBS[verb](plain)
    assert answer == expected or sizes(answer) == sizes(expected)
    assert sizes(backend.list("packs")) == sizes(plain.list("packs"))
    assert counted.snapshot().calls[verb] >= 4
    assert clock.pauses == [0.2, 0.4, 0.8]


@pytest.mark.parametrize("verb", VERBS)
def test_what_fails_always_ends_with_its_own_error(verb):
    backend, counted, clock = over([Fault(verb, None, Effect.ERROR_BEFORE, StoreUnreachable("The line is cut."))])
    with pytest.raises(StoreUnreachable, match="The line is cut"):
        VERBS[verb](backend)
    assert counted.snapshot().calls[verb] == 6
    assert sum(clock.pauses) < 10


@pytest.mark.parametrize("kind", [AccessDenied, DiskFull, StoreReadOnly, StoreRootMissing])
@pytest.mark.parametrize("verb", VERBS)
def test_what_was_refused_for_good_is_not_asked_again(verb, kind):
    backend, counted, clock = over([Fault(verb, None, Effect.ERROR_BEFORE, kind("No."))])
    with pytest.raises(kind):
        VERBS[verb](backend)
    assert counted.snapshot().calls[verb] == 1
    assert clock.pauses == []


@pytest.mark.parametrize("effect", [Effect.ERROR_BEFORE, Effect.ERROR_AFTER])
@pytest.mark.parametrize("error", [None, StoreUnreachable("The line is cut.")])
def test_a_create_is_sent_once_whatever_comes_of_it(effect, error):
    backend, counted, clock = over([Fault("create", None, effect, error)])
    with pytest.raises(StorageFailed) as failed:
        backend.create(Key("log/0"), [b"entry"])
    assert isinstance(failed.value, OutcomeUnknown) == (error is None and effect is Effect.ERROR_AFTER)
    assert counted.snapshot().calls["create"] == 1
    assert clock.pauses == []


def test_wrong_bytes_are_no_failure_to_be_hidden_by_asking_again():
    backend, counted, _ = over([Fault("get_many", 1, Effect.CORRUPT)])
    assert backend.get_many([KEY]) != [b"content"]
    with pytest.raises(CorruptObject):
        backend.get_ranges([Span(KEY, 0, 8)])
    assert counted.snapshot().calls == {"get_many": 1, "get_ranges": 1}


def test_no_request_is_begun_after_the_time_is_up():
    clock = Clock()

    class Stalling(MemoryBackend):
        def get_many(self, keys):
            clock.time += 20
            raise StorageFailed("It says nothing.")

    backend = RetryingBackend(Stalling(), clock.patience(seconds=60.0))
    with pytest.raises(StorageFailed):
        backend.get_many([KEY])
    assert clock.time < 20 + 60 + 20


@pytest.mark.parametrize("verb", VERBS)
def test_what_failed_after_a_long_time_is_repeated_too(verb):
    each_look_at_the_clock_is_ten_minutes_later = itertools.count(0, 600).__next__
    backend, _, clock = over([Fault(verb, 1, Effect.ERROR_BEFORE)], now=each_look_at_the_clock_is_ten_minutes_later)
    VERBS[verb](backend)
    assert clock.pauses == [0.2]


class _EveryTenth(MemoryBackend):
    """Fails a batch that holds the tenth, twentieth … key that it was asked for."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def get_many(self, keys):
        self._count(keys)
        return super().get_many(keys)

    def delete_many(self, keys):
        self._count(keys)
        super().delete_many(keys)

    def _count(self, keys):
        before, self.asked = self.asked, self.asked + len(keys)
        if before // 10 != self.asked // 10:
            raise StorageFailed("The line is cut.")


def test_a_batch_of_which_some_always_fail_comes_through_in_parts_and_in_order():
    inner, clock = _EveryTenth(), Clock()
    keys = [Key(f"packs/{n}") for n in range(64)]
    for key in keys:
        inner.put(key, [key.encode()])
    backend = RetryingBackend(inner, clock.patience())
    assert backend.get_many(keys) == [key.encode() for key in keys]
    assert inner.asked <= 6 * len(keys)
    backend.delete_many(keys)
    assert [*inner.list("packs")] == []
    assert inner.asked <= 12 * len(keys)


def test_pauses_differ_between_callers_that_were_refused_together():
    pauses = set()
    for jitter in (0.0, 0.3, 1.0):
        backend, _, clock = over([Fault("get_many", 1, Effect.ERROR_BEFORE)], jitter=lambda jitter=jitter: jitter)
        backend.get_many([KEY])
        pauses.update(clock.pauses)
    assert pauses == {0.1, 0.13, 0.2}
