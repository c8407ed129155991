"""The log: what is read, what is appended, and what lost replies and rivals can not do to it."""

import random
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_store.core.catalog import Catalog
from dataset_store.core.checkpoints import encode_checkpoint
from dataset_store.core.envelope import LOG_ENTRY, object_digest, seal
from dataset_store.core.log_entries import (
    DescribeEntry,
    FeatureEntry,
    LogEntry,
    PublishEntry,
    SeriesName,
    decode_entry,
    encode_entry,
    with_prev,
)
from dataset_store.errors import (
    CommitOutcomeUnknown,
    Conflict,
    CorruptObject,
    FormatTooNew,
    HistoryRewound,
    InvalidRequest,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
    StoreReadOnly,
    VersionExists,
)
from dataset_store.storage.backend import Backend, Buffers, Key
from dataset_store.storage.catalog_cache import CatalogView
from dataset_store.storage.log import Committed, Log, Lost, Pacing
from dataset_store.storage.log_reader import LogRecord, Position
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.wrappers import CountingBackend, ReadOnlyBackend, Wrapper
from dataset_store.testing.faults import Effect, Fault, FaultyBackend
from dataset_store.testing.log_entries import hash_hex, id_hex, version_entry

ANCHOR = hash_hex(7)


def slot(number: int) -> Key:
    return Key(f"log/catalog/{number:012d}")


def checkpoint(level: int, number: int) -> Key:
    return Key(f"ckpt/catalog/{level}/{number:012d}")


def quick(attempts: int = 8, slept: list[float] | None = None) -> Pacing:
    return Pacing(sleep=(slept if slept is not None else []).append, jitter=random.Random(1).random, attempts=attempts)


def make_log(backend: Backend, attempts: int = 8) -> Log:
    return Log(backend, ANCHOR, pacing=quick(attempts))


def publish(number: int) -> PublishEntry:
    return PublishEntry(commit=id_hex(number), time=number, version=id_hex(1))


def objects(count: int, anchor: str = ANCHOR) -> list[bytes]:
    """A log of so many entries."""
    made: list[bytes] = []
    for number in range(count):
        prev = object_digest(made[-1]) if made else anchor
        made.append(encode_entry(with_prev(publish(number), prev)))
    return made


def stored(entries: Iterable[bytes]) -> MemoryBackend:
    backend = MemoryBackend()
    for number, data in enumerate(entries):
        backend.create(slot(number), [data])
    return backend


def read(log: Log, position: Position | None = None) -> list[LogRecord]:
    return list(log.read_after(position or log.start))


def commits_in(backend: Backend) -> list[str]:
    """The commit ids of a log, read slot by slot, which must be gap-free and chained."""
    found: list[str] = []
    prev = ANCHOR
    while (data := backend.get_many([slot(len(found))])[0]) is not None:
        entry = decode_entry(data, "it")
        assert entry.prev == prev
        prev = object_digest(data)
        found.append(entry.commit)
    assert sum(1 for _ in backend.list("log")) == len(found)
    return found


MANY = objects(5000)


# Reading


def test_an_empty_log_is_two_requests():
    """One for its begin, one for what would be behind a lost one."""
    backend = CountingBackend(MemoryBackend())
    assert read(make_log(backend)) == []
    assert backend.snapshot().calls == {"get_many": 2}


def test_nothing_new_is_one_request_for_one_key():
    backend = CountingBackend(stored(objects(70)))
    position = read(make_log(backend))[-1].after
    backend.reset()
    assert read(make_log(backend), position) == []
    assert (backend.snapshot().calls, backend.snapshot().keys_read) == ({"get_many": 1}, (slot(70),))


@pytest.mark.parametrize("count", [1, 2, 9, 63, 64, 65, 128, 200])
def test_every_entry_is_read_once_in_order(count):
    entries = objects(count)
    backend = stored(entries)
    for _ in range(2):  # without checkpoints, then with those that the first reader wrote
        records = read(make_log(backend))
        assert [record.data for record in records] == entries
        assert [record.slot for record in records] == list(range(count))
        assert records[-1].after == Position(count, object_digest(entries[-1]))


@given(st.integers(0, 140), st.integers(0, 140))
@settings(max_examples=25)
def test_reading_may_begin_anywhere(count, start):
    entries = MANY[:count]
    start = min(start, count)
    position = Position(start, object_digest(entries[start - 1]) if start else ANCHOR)
    assert [record.data for record in read(make_log(stored(entries)), position)] == entries[start:]


def test_a_cold_reader_of_5000_entries_writes_the_checkpoints_that_the_next_one_reads():
    backend = CountingBackend(stored(MANY))
    assert len(read(make_log(backend))) == 5000
    without = backend.snapshot()
    assert without.objects_read == 5000
    assert without.calls["create"] == 78 + 1
    assert without.calls["get_many"] <= 90

    backend.reset()
    records = read(make_log(backend))
    assert [record.data for record in records] == MANY
    with_checkpoints = backend.snapshot()
    assert with_checkpoints.calls == {"get_many": 6}
    # the first slot and the first checkpoint of level 1, which a shorter log needs; the checkpoint of level 2, 14 of
    # level 1, and the last 8 slots
    assert with_checkpoints.objects_read == 2 + 1 + 14 + 8


def test_a_checkpoint_is_the_one_of_the_specification():
    backend = stored(MANY[:4096])
    read(make_log(backend))
    assert backend.get_many([checkpoint(1, 63)]) == [encode_checkpoint(1, MANY[63 * 64 : 4096])]
    assert backend.get_many([checkpoint(2, 0)]) == [encode_checkpoint(2, MANY[:4096])]


class CopyableBackend(MemoryBackend):
    def copy(self) -> "CopyableBackend":
        copied = CopyableBackend()
        copied._objects = dict(self._objects)
        return copied


def seasoned() -> CopyableBackend:
    backend = CopyableBackend()
    for number, data in enumerate(MANY):
        backend.create(slot(number), [data])
    read(make_log(backend))
    return backend


SEASONED = seasoned()


@given(st.data())
@settings(max_examples=12, deadline=None)
def test_any_checkpoints_may_be_missing_or_damaged(data):
    backend = SEASONED.copy()
    keys = [row.key for row in backend.list("ckpt")]
    gone = data.draw(st.sets(st.sampled_from(keys), max_size=20))
    rotten = data.draw(st.sets(st.sampled_from(keys), max_size=5)) - gone
    backend.delete_many(gone | rotten)
    for key in rotten:
        backend.create(key, [data.draw(st.sampled_from([b"", b"DSTOREK\x02", seal(b"K", b"x")]))])
    assert [record.data for record in read(make_log(backend))] == MANY


def test_a_checkpoint_of_another_history_is_not_believed():
    backend = stored(MANY[:70])
    backend.create(checkpoint(1, 0), [encode_checkpoint(1, objects(64, anchor=hash_hex(8)))])
    assert [record.data for record in read(make_log(backend))] == MANY[:70]


def test_a_reader_that_comes_back_again_and_again_writes_checkpoints_too():
    backend = MemoryBackend()
    log = make_log(backend)
    position = log.start
    for number, data in enumerate(MANY[:64]):
        backend.create(slot(number), [data])
        (record,) = log.read_after(position)
        position = record.after
    assert backend.get_many([checkpoint(1, 0)]) == [encode_checkpoint(1, MANY[:64])]


def test_a_store_that_can_not_be_written_is_read_all_the_same():
    inner = stored(MANY[:130])
    for backend in (
        ReadOnlyBackend(inner),
        FaultyBackend(inner, [Fault("create", None, Effect.ERROR_BEFORE)]),
        FaultyBackend(inner, [Fault("create", None, Effect.ERROR_BEFORE, OutcomeUnknown("late"))]),
    ):
        assert len(read(make_log(backend))) == 130
    assert list(inner.list("ckpt")) == []


def test_an_entry_that_does_not_follow_is_corrupt():
    entries = objects(5)
    entries[3] = encode_entry(with_prev(publish(3), hash_hex(9)))
    with pytest.raises(CorruptObject, match="log/catalog/000000000003"):
        read(make_log(stored(entries)))


def test_a_log_of_another_store_is_corrupt():
    with pytest.raises(CorruptObject, match="log/catalog/000000000000"):
        read(make_log(stored(objects(3, anchor=hash_hex(8)))))


def test_a_log_that_does_not_continue_what_was_read_is_rewound():
    position = Position(2, object_digest(objects(2, anchor=hash_hex(8))[-1]))
    with pytest.raises(HistoryRewound, match="log/catalog/000000000002"):
        read(make_log(stored(objects(3))), position)


def test_an_entry_of_a_newer_writer_stops_the_reader():
    backend = stored(objects(2))
    backend.create(slot(2), [seal(LOG_ENTRY, b'{"kind":"novelty"}')])
    with pytest.raises(FormatTooNew):
        read(make_log(backend))


def test_damaged_bytes_in_a_slot_are_corrupt():
    backend = FaultyBackend(stored(objects(3)), [Fault("get_many", 1, Effect.CORRUPT)])
    with pytest.raises(CorruptObject):
        read(make_log(backend))


# Appending to one slot


def test_an_appended_entry_stands_in_its_slot():
    backend = MemoryBackend()
    log = make_log(backend)
    first = log.append(publish(1), log.start)
    assert isinstance(first, Committed)
    second = log.append(publish(2), first.record.after)
    assert isinstance(second, Committed)
    assert [record.data for record in read(make_log(backend))] == [first.record.data, second.record.data]
    assert commits_in(backend) == [id_hex(1), id_hex(2)]


def test_a_commit_is_one_create_and_the_first_of_a_process_one_look_more():
    backend = CountingBackend(MemoryBackend())
    log = make_log(backend)
    record = log.append(publish(1), log.start).record
    log.append(publish(2), record.after)
    assert backend.snapshot().calls == {"create": 2, "get_many": 1}


class Remembered:
    """A machine's memory of where its processes have looked."""

    slot = None

    def looked(self):
        return self.slot

    def note_look(self, slot):
        self.slot = slot


def test_processes_of_a_machine_look_behind_the_end_once_in_64_entries():
    backend, looks = MemoryBackend(), Remembered()
    position, asked = make_log(backend).start, []
    get_many = backend.get_many
    backend.get_many = lambda keys: asked.append(len(keys)) or get_many(keys)
    for number in range(130):
        position = Log(backend, ANCHOR, pacing=quick(), looks=looks).append(publish(number), position).record.after
    # Slots behind and checkpoints, and but for the first slot the entry before it.
    assert asked == [18 if slot % 64 == 0 and slot else 17 if slot == 0 else 1 for slot in range(130)]


def test_a_machine_whose_memory_is_of_another_log_looks():
    backend, looks = CountingBackend(stored(objects(3))), Remembered()
    for slot in (400, 10**18, -100):
        looks.slot = slot
        (*_, last) = read(make_log(backend))
        Log(backend, ANCHOR, pacing=quick(), looks=looks).append(publish(50 + len(str(slot))), last.after)
        assert looks.slot == last.slot + 1


def test_a_lost_race_is_one_read_more():
    backend = CountingBackend(stored(objects(1)))
    log = make_log(backend)
    (first,) = read(log)
    make_log(backend).append(publish(8), first.after)
    backend.reset()
    outcome = log.append(publish(9), first.after)
    assert isinstance(outcome, Lost)
    assert outcome.record.entry.commit == id_hex(8)
    assert backend.snapshot().calls == {"create": 1, "get_many": 1}


def test_a_lost_reply_is_found_to_be_a_commit():
    backend = FaultyBackend(MemoryBackend(), [Fault("create", 1, Effect.ERROR_AFTER)])
    log = make_log(backend)
    assert isinstance(log.append(publish(1), log.start), Committed)
    assert commits_in(backend) == [id_hex(1)]


def test_a_create_that_was_never_carried_out_is_sent_to_the_same_slot_again():
    lost = OutcomeUnknown("lost on the way")
    plan = [Fault("create", call, Effect.ERROR_BEFORE, lost) for call in (1, 2)]
    backend = FaultyBackend(MemoryBackend(), plan)
    slept: list[float] = []
    log = Log(backend, ANCHOR, pacing=quick(slept=slept))
    assert isinstance(log.append(publish(1), log.start), Committed)
    assert commits_in(backend) == [id_hex(1)]
    assert len(slept) == 2
    assert 0 < slept[0] < slept[1] <= 2


def test_a_refusal_that_leaves_no_doubt_is_raised_as_it_is():
    backend = FaultyBackend(MemoryBackend(), [Fault("create", 1, Effect.ERROR_BEFORE)])
    log = make_log(backend)
    with pytest.raises(StorageFailed, match="as planned"):
        log.append(publish(1), log.start)
    with pytest.raises(StoreReadOnly):
        make_log(ReadOnlyBackend(MemoryBackend())).append(publish(1), log.start)
    assert commits_in(backend) == []


@pytest.mark.parametrize("landed", [False, True])
def test_an_outcome_that_stays_unknown_is_raised_with_its_commit_id(landed):
    effect = Effect.ERROR_AFTER if landed else Effect.ERROR_BEFORE
    plan = [
        Fault("create", 1, effect, OutcomeUnknown("lost")),
        Fault("create", None, Effect.ERROR_BEFORE),
        *(Fault("get_many", call, Effect.ERROR_BEFORE) for call in range(2, 9)),
    ]
    inner = MemoryBackend()
    log = make_log(FaultyBackend(inner, plan), attempts=3)
    with pytest.raises(CommitOutcomeUnknown, match="Repeat the same commit") as caught:
        log.append(publish(1), log.start)
    assert caught.value.commit_id == id_hex(1)
    assert isinstance(make_log(inner).append(publish(1), log.start), Committed)
    assert commits_in(inner) == [id_hex(1)]


def test_an_entry_that_can_not_be_written_is_refused_before_anything_is_sent():
    backend = CountingBackend(MemoryBackend())
    log = make_log(backend)
    too_long = DescribeEntry(commit=id_hex(1), time=0, version=id_hex(1), description="x" * 70_000)
    with pytest.raises(InvalidRequest):
        log.append(too_long, log.start)
    assert backend.snapshot().total_calls == 0


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_log_that_lost_its_end_gets_no_gap(left):
    entries = objects(3)
    position = Position(3, object_digest(entries[-1]))
    backend = stored(entries[:left])
    with pytest.raises(HistoryRewound):
        make_log(backend).append(publish(9), position)
    assert len(commits_in(backend)) == left


def holed(count: int, *gone: int, checkpoints: bool = False) -> MemoryBackend:
    """A log of so many entries without some of its slots."""
    backend = stored(objects(count))
    if checkpoints:
        read(make_log(backend))
    backend.delete_many([slot(number) for number in gone])
    return backend


@given(st.integers(0, 199), st.integers(1, 40))
@settings(max_examples=40)
def test_entries_lost_from_the_middle_are_not_the_end_of_the_log(first, length):
    """A loss of n entries shows if 2n follow the first of them: to whoever reads all, and to whoever would write."""
    backend = holed(first + 2 * length + 1, *range(first, first + length))
    with pytest.raises(ObjectMissing, match=f"{first:012d}"):
        read(make_log(backend))
    position = Position(first, object_digest(MANY[first - 1]) if first else ANCHOR)
    with pytest.raises(ObjectMissing, match=f"{first:012d}"):
        make_log(backend).append(publish(9), position)
    assert backend.get_many([slot(first)]) == [None]


def test_an_entry_lost_while_a_process_knows_the_rest_is_found_before_its_first_commit():
    backend = stored(objects(10))
    log = make_log(backend)
    position = Position(4, object_digest(MANY[3]))
    assert len(read(log, position)) == 6
    backend.delete_many([slot(6)])
    with pytest.raises(ObjectMissing, match="000000000006"):
        log.append(publish(9), Position(6, object_digest(MANY[5])))


@pytest.mark.parametrize("gone", [0, 1, 63])
def test_a_checkpoint_takes_the_place_of_slots_that_are_lost(gone):
    backend = holed(70, gone, checkpoints=True)
    assert [record.data for record in read(make_log(backend))] == objects(70)


def test_checkpoints_show_that_all_slots_are_lost():
    backend = holed(200, *range(200), checkpoints=True)
    backend.delete_many([checkpoint(1, 0)])
    with pytest.raises(ObjectMissing, match="000000000000"):
        read(make_log(backend))


class GrowingBackend(Wrapper):
    """A store into which others commit between any two requests."""

    def __init__(self, inner: Backend, entries: list[bytes]) -> None:
        super().__init__(inner)
        self.entries = entries
        self.stored = 0

    def get_many(self, keys):
        found = super().get_many(keys)
        for _ in range(3):
            if self.stored < len(self.entries):
                self.inner.create(slot(self.stored), [self.entries[self.stored]])
                self.stored += 1
        return found


@pytest.mark.parametrize("count", [1, 4, 70, 150])
def test_entries_that_come_while_the_end_is_looked_for_are_no_loss(count):
    entries = objects(count)
    records = read(make_log(GrowingBackend(MemoryBackend(), entries)))
    assert [record.data for record in records] == entries[: len(records)]
    backend = GrowingBackend(MemoryBackend(), entries)
    outcome = make_log(backend).append(publish(9), make_log(backend).start)
    assert isinstance(outcome, Lost)
    assert outcome.record.data == entries[0]


def test_the_64th_entry_is_followed_by_a_checkpoint():
    backend = MemoryBackend()
    log = make_log(backend)
    position = log.start
    for number in range(64):
        position = log.append(publish(number), position).record.after
    assert [row.key for row in backend.list("ckpt")] == [checkpoint(1, 0)]
    backend.delete_many([slot(number) for number in range(1, 64)])
    assert len(read(make_log(backend))) == 64


# Committing


def test_an_entry_is_made_anew_for_every_state_until_it_lands():
    backend = stored(objects(3))
    view = CatalogView(make_log(backend))
    heads: list[int] = []

    def make(catalog: Catalog) -> LogEntry:
        heads.append(catalog.head)
        return publish(50)

    record = view.commit(make)
    assert record.slot == 3
    assert heads[0] == 0
    assert heads[-1] == 3
    assert heads == sorted(set(heads))
    assert view.position == record.after
    assert view.catalog.slot_of(id_hex(50)) == 3


def test_an_entry_is_made_anew_where_making_it_met_newer_entries():
    backend = MemoryBackend()
    view, heads = CatalogView(make_log(backend)), []

    def make(catalog: Catalog) -> LogEntry:
        heads.append(catalog.head)
        if len(heads) == 1:
            CatalogView(make_log(backend)).commit(lambda _: publish(1))
            view.refresh()
        return publish(2)

    assert view.commit(make).slot == 1
    assert heads == [0, 1], "what was decided on the empty log does not count behind another entry"


def test_giving_up_on_an_old_state_does_not_count_where_deciding_it_met_newer_entries():
    backend = MemoryBackend()
    view, heads = CatalogView(make_log(backend)), []

    def make(catalog: Catalog) -> LogEntry:
        heads.append(catalog.head)
        if len(heads) == 1:
            CatalogView(make_log(backend)).commit(lambda _: publish(1))
            view.refresh()
            raise VersionExists("There is one.", "Choose another.")
        return publish(2)

    assert view.commit(make).slot == 1
    assert heads == [0, 1]


def test_repeating_a_commit_that_landed_gives_the_same_entry_and_writes_nothing():
    backend = CountingBackend(MemoryBackend())
    first = CatalogView(make_log(backend)).commit(lambda _: publish(1))
    CatalogView(make_log(backend)).commit(lambda _: publish(2))
    for view in (CatalogView(make_log(backend)), CatalogView(make_log(backend))):
        again = view.commit(lambda _: with_prev(publish(1), hash_hex(3)))
        assert again == first
    assert commits_in(backend) == [id_hex(1), id_hex(2)]


def test_a_repeated_commit_may_have_another_time_label_but_nothing_else():
    view = CatalogView(make_log(MemoryBackend()))
    view.commit(lambda _: publish(1))
    later = PublishEntry(commit=id_hex(1), time=999, version=id_hex(1))
    assert view.commit(lambda _: later).entry.time == 1
    with pytest.raises(Conflict, match="another content"):
        view.commit(lambda _: PublishEntry(commit=id_hex(1), time=1, version=id_hex(2)))


def test_a_reason_to_give_up_counts_only_at_the_end_of_the_log():
    backend = MemoryBackend()
    CatalogView(make_log(backend)).commit(lambda _: publish(1))

    def make(catalog: Catalog) -> LogEntry:
        if catalog.head == 0:
            raise VersionExists("Taken.", "Choose another.")
        return publish(2)

    assert CatalogView(make_log(backend)).commit(make).slot == 1

    def give_up(_: Catalog) -> LogEntry:
        raise VersionExists("Taken.", "Choose another.")

    with pytest.raises(VersionExists):
        CatalogView(make_log(backend)).commit(give_up)
    assert commits_in(backend) == [id_hex(1), id_hex(2)]


def test_a_feature_that_came_first_stops_a_writer_that_does_not_know_it():
    backend = MemoryBackend()
    late = CatalogView(make_log(backend))
    feature = FeatureEntry(commit=id_hex(1), time=0, name="later", operations=("write",))
    CatalogView(make_log(backend)).commit(lambda _: feature)
    with pytest.raises(FormatTooNew, match="later"):
        late.commit(lambda _: publish(2))
    assert commits_in(backend) == [id_hex(1)]


class SlowNetwork(Wrapper):
    """Loses replies and requests at random; a lost request may arrive much later, or twice."""

    def __init__(self, inner: Backend, seed: int) -> None:
        super().__init__(inner)
        self._random = random.Random(seed)
        self._late: list[tuple[Key, bytes]] = []

    def create(self, key: Key, buffers: Buffers) -> bool:
        data = b"".join(buffers)
        self._deliver()
        fate = self._random.random()
        if fate < 0.25:
            self._late.append((key, data))
            raise OutcomeUnknown("No reply.")
        if fate < 0.3:
            raise StorageFailed("Not sent.")
        made = self.inner.create(key, [data])
        if fate < 0.5:
            raise OutcomeUnknown("The reply was lost.")
        return made

    def get_many(self, keys):
        self._deliver()
        if self._random.random() < 0.2:
            raise StorageFailed("Cannot read now.")
        return self.inner.get_many(keys)

    def _deliver(self) -> None:
        while self._late and self._random.random() < 0.4:
            key, data = self._late.pop(self._random.randrange(len(self._late)))
            self.inner.create(key, [data])


@given(st.integers(0, 2**32), st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_with_lost_and_late_requests_every_commit_stands_exactly_once(seed, writers):
    backend = MemoryBackend()
    chance = random.Random(seed)
    views = [CatalogView(make_log(SlowNetwork(backend, seed * 10 + writer), attempts=2)) for writer in range(writers)]
    waiting = [(writer, number) for writer in range(writers) for number in range(writer * 100, writer * 100 + 4)]
    expected = {id_hex(number) for _, number in waiting}
    while waiting:
        writer, number = waiting.pop(chance.randrange(len(waiting)))
        try:
            record = views[writer].commit(lambda _, number=number: publish(number))
        except (CommitOutcomeUnknown, StorageFailed):
            waiting.append((writer, number))
            continue
        assert record.entry.commit == id_hex(number)
    found = commits_in(backend)
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_threads_that_race_each_land_each_of_their_commits_once():
    backend = MemoryBackend()
    errors: list[BaseException] = []

    def work(writer: int) -> None:
        try:
            view = CatalogView(make_log(backend))
            for number in range(25):
                view.commit(lambda _, number=number: publish(writer * 1000 + number))
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = commits_in(backend)
    assert sorted(found) == sorted(id_hex(w * 1000 + n) for w in range(4) for n in range(25))


def test_writers_that_take_turns_at_one_series_get_numbers_without_a_gap():
    backend = MemoryBackend()
    views = [CatalogView(make_log(backend)) for _ in range(2)]

    def next_version(number: int, catalog: Catalog) -> LogEntry:
        opens = None if catalog.series(id_hex(1)) else SeriesName(project="p", name="n")
        return version_entry(number, catalog.next_version(id_hex(1)), opens=opens)

    for number in range(1, 7):
        views[number % 2].commit(lambda catalog, number=number: next_version(number, catalog))
    for view in views:
        view.refresh()
        numbers = [version.number for version in view.catalog.versions_of(id_hex(1))]
        assert numbers == ["1.0.0", "1.0.1", "1.0.2", "1.0.3", "1.0.4", "1.0.5"]
        assert view.catalog.invalid == ()


def test_pauses_after_losses_grow_and_then_shrink_so_that_nobody_loses_for_ever():
    slept: list[float] = []
    pacing = Pacing(sleep=slept.append, jitter=lambda: 1.0)
    for losses in range(1, 1_000):
        pacing.after_loss(losses)
    longest = slept.index(max(slept))
    assert slept[: longest + 1] == sorted(set(slept[: longest + 1]))
    assert slept[longest:] == sorted(slept[longest:], reverse=True)
    assert slept[-1] < slept[0] <= slept[longest] / 100
    assert slept[longest] < pacing.ceiling
