"""Packs in a storage: what is appended is read back from its place, in few requests, and damage is found."""

import errno
import gc
import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dataset_store.core.digest import NodeId, PackName, StoreId, hash32
from dataset_store.core.frames import FrameCodec, FrameKind
from dataset_store.core.packfile import PackRef, Place, check_pack, pack_key
from dataset_store.errors import CorruptObject, DiskFull, ObjectMissing, StorageFailed
from dataset_store.storage import pack_writer
from dataset_store.storage.backend import Key, Span, Tail, Traits
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.pack_reader import PackReader
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.wrappers import Wrapper
from dataset_store.testing.faults import Effect, Fault, FaultyBackend

CODEC = FrameCodec()
STORE = StoreId(b"s" * 16)
OTHER_STORE = StoreId(b"o" * 16)
DATA, LIST, NODE, CENSUS = FrameKind

relaxed = settings(deadline=None)


def noise(length, seed):
    return blake3(str(seed).encode()).digest(length=length)


def encode(kind, *chunks):
    return CODEC.encode_frame(kind, chunks, [hash32(chunk) for chunk in chunks])


def names():
    counter = itertools.count(1)
    return lambda: PackName(next(counter).to_bytes(16, "big"))


def writer(backend, target=1 << 20, written=None, storage=0):
    note = (lambda ref, footer: written.append((ref, footer))) if written is not None else lambda *_: None
    return PackWriter(backend, STORE, storage, names(), on_written=note, target=target)


def reader(backend, **options):
    return PackReader(STORE, lambda _storage: backend, **options)


def stored_frames(count, size=1000, kind=DATA, backend=None):
    """A backend with one pack of `count` raw frames, the frames, and their places."""
    backend = backend or MemoryBackend()
    frames = [encode(kind, noise(size, row)) for row in range(count)]
    packs = writer(backend)
    places = packs.append(frames)
    packs.flush()
    return backend, frames, places


class Spans(Wrapper):
    """Notes every ranged read: one row for each call, of its parts."""

    def __init__(self, inner):
        super().__init__(inner)
        self.calls = []

    def get_ranges(self, ranges):
        self.calls.append(list(ranges))
        return super().get_ranges(ranges)


# Writing


@relaxed
@given(
    st.lists(st.lists(st.integers(1, 400), max_size=6), max_size=5),
    st.integers(200, 3000),
)
def test_frames_in_batches_of_any_sizes_are_read_back_from_the_places_handed_out(batches, target):
    backend, written = MemoryBackend(), []
    packs = writer(backend, target, written)
    seeds = itertools.count()
    frames, places = [], []
    for batch in batches:
        made = [encode(DATA, noise(size, next(seeds))) for size in batch]
        frames += made
        places += packs.append(made)
    packs.flush()
    assert [bytes(data) for data in reader(backend).read_frames(places)] == [frame.data for frame in frames]
    assert [place.plain for place in places] == [frame.plain for frame in frames]
    refs = [ref for ref, _ in written]
    assert refs == list(dict.fromkeys(place.pack for place in places))
    read = reader(backend).read_footers(refs)
    assert [footer.encode() for footer in read] == [footer.encode() for _, footer in written]


def test_a_pack_is_put_once_it_is_full_and_only_its_last_frame_goes_beyond_the_target():
    backend, written = MemoryBackend(), []
    packs = writer(backend, 5000, written)
    for row in range(20):
        packs.append([encode(DATA, noise(1000, row))])
    assert len(written) == 3
    packs.flush()
    sizes = sorted(info.size for info in backend.list("packs"))
    assert len(sizes) == 4
    assert all(5000 <= size < 6100 for size in sizes)


def test_a_flush_of_nothing_writes_nothing():
    backend = MemoryBackend()
    packs = writer(backend)
    packs.flush()
    packs.append([])
    packs.flush()
    assert list(backend.list("packs")) == []


def test_a_frame_of_an_earlier_kind_begins_another_pack():
    packs = writer(MemoryBackend())
    places = packs.append([encode(kind, b"x") for kind in (DATA, LIST, NODE, CENSUS, NODE, DATA, DATA, LIST)])
    assert [place.pack.name[-1] for place in places] == [1, 1, 1, 1, 1, 2, 2, 2]


def test_places_name_the_storage_and_packs_lie_under_their_key():
    backend = MemoryBackend()
    packs = writer(backend, storage=7)
    [place] = packs.append([encode(DATA, b"x")])
    packs.flush()
    assert place.pack.storage == 7
    [pack] = backend.get_many([Key(pack_key(place.pack.name))])
    check_pack(pack, STORE, place.pack.name, CODEC, what="The pack")


EFFECTS = pytest.mark.parametrize("effect", [Effect.ERROR_BEFORE, Effect.ERROR_AFTER])


@EFFECTS
def test_a_writer_whose_pack_failed_fails_from_then_on_and_tells_nothing_of_it(effect):
    store, written = MemoryBackend(), []
    packs = writer(FaultyBackend(store, [Fault("put", 1, effect)]), written=written)
    packs.append([encode(DATA, b"first")])
    with pytest.raises(StorageFailed):
        packs.flush()
    for again in (packs.flush, lambda: packs.append([encode(DATA, b"second")]), packs.flush):
        with pytest.raises(StorageFailed):
            again()
    assert written == []
    assert len(list(store.list("packs"))) == (effect is Effect.ERROR_AFTER)


@EFFECTS
def test_an_append_that_failed_is_made_good_by_another_writer(effect):
    store = MemoryBackend()
    frames = [encode(DATA, noise(600, row)) for row in range(3)]
    packs = writer(FaultyBackend(store, [Fault("put", 1, effect)]), 500)
    packs.append(frames[:1])
    with pytest.raises(StorageFailed):
        packs.append(frames[1:])
    another = PackWriter(store, STORE, 0, lambda: PackName(b"another name 16b"), target=1 << 20)
    places = another.append(frames)
    another.flush()
    assert [bytes(data) for data in reader(store).read_frames(places)] == [frame.data for frame in frames]


@pytest.fixture
def no_collector():
    """What is held in a cycle stays."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Keeping(Wrapper):
    """Fails, and keeps in the frames of its errors what it was to write, as clients do."""

    def put(self, key, buffers):
        kept = [*buffers]
        raise StorageFailed(f"{len(kept)} buffers.", "")


@pytest.mark.parametrize("threads", [False, True], ids=["put by the caller", "put by a thread"])
def test_what_a_pack_that_failed_was_to_hold_is_let_go_of_while_its_writer_and_its_error_are_kept(
    no_collector, monkeypatch, threads
):
    monkeypatch.setattr(pack_writer, "_WORTH_A_THREAD", 1_000 if threads else 1 << 30)
    data = bytearray(noise(2_000, 1))
    packs = writer(Keeping(MemoryBackend()), target=1_500)
    packs.append([replace(encode(DATA, bytes(data)), data=memoryview(data))])
    if threads:
        packs.append([])
        assert packs._packs[0]._thread
    with pytest.raises(StorageFailed) as failed:
        packs.flush()
    data.extend(b"; a buffer that something holds cannot grow")
    assert failed.value.__traceback__


# Packs written while they grow


def test_where_a_storage_takes_an_object_piece_by_piece_a_pack_is_written_while_it_grows(tmp_path):
    packs = PackWriter(PosixBackend(str(tmp_path)), STORE, 0, names())
    frames = [encode(DATA, noise(1 << 18, row)) for row in range(40)]
    places = []
    for row, frame in enumerate(frames):
        places += packs.append([frame])
        [pack] = packs._packs
        written = bytes_of_files_without_a_name(tmp_path)
        assert (written > 0) == (row >= 15)  # from a sixteenth of a pack on, by the MiB
        assert pack.size - written < (1 << 20 if written else 4 << 20) + 100 * (row + 2)
    assert list(PosixBackend(str(tmp_path)).list("packs")) == []
    packs.flush()
    assert bytes_of_files_without_a_name(tmp_path) == 0
    assert len({place.pack for place in places}) == 1
    backend = PosixBackend(str(tmp_path))
    assert [bytes(data) for data in reader(backend).read_frames(places)] == [frame.data for frame in frames]


def bytes_of_files_without_a_name(folder):
    """Those of the files below a folder that this process has open and no reader sees."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{name}")
            if path.startswith(str(folder)) and path.endswith("(deleted)"):
                total += os.stat(f"/proc/self/fd/{name}").st_size
    return total


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_pack_of_which_a_piece_could_not_be_written_is_never_stored(tmp_path, monkeypatch, failing):
    backend, written, calls = PosixBackend(str(tmp_path)), [], itertools.count(1)
    real = os.writev

    def writev(file, buffers):
        if next(calls) == failing:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, buffers)

    monkeypatch.setattr(os, "writev", writev)
    packs = writer(backend, 16_000, written)
    frames = [encode(DATA, noise(900, row)) for row in range(4)]
    failed = 0
    for act in (*(partial(packs.append, [frame]) for frame in frames), packs.flush, packs.flush):
        try:
            act()
            assert not failed
        except DiskFull:
            failed += 1
    assert failed >= 2
    assert written == []
    assert list(backend.list("packs")) == []


# Packs put beside the work


class Held(Wrapper):
    """A storage whose puts wait until they may go on."""

    def __init__(self, inner):
        super().__init__(inner)
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def put(self, key, buffers):
        self.begun.release()
        assert self.go_on.acquire(timeout=30)
        self.inner.put(key, buffers)


class Wide(Wrapper):
    """A storage that wants several large requests at once."""

    traits = Traits(at_once=3)


@pytest.fixture
def beside(monkeypatch):
    monkeypatch.setattr(pack_writer, "_WORTH_A_THREAD", 0)


def test_a_full_pack_is_put_while_the_next_one_fills_and_never_two_wait(beside):
    backend, written = Held(MemoryBackend()), []
    packs = writer(backend, 2_000, written)
    places = []
    for row in range(4):  # two full packs; nothing may wait for the put of the first
        places += packs.append([encode(DATA, noise(1_000, row))])
    assert backend.begun.acquire(timeout=30)
    assert written == []
    backend.go_on.release()
    places += packs.append([encode(DATA, noise(1_000, 4))])  # waits for the first, and begins the second
    assert [ref for ref, _ in written] == [places[0].pack]
    assert backend.begun.acquire(timeout=30)
    for _ in range(2):
        backend.go_on.release()
    packs.flush()
    assert [ref for ref, _ in written] == list(dict.fromkeys(place.pack for place in places))
    frames = [encode(DATA, noise(1_000, row)).data for row in range(5)]
    assert [bytes(data) for data in reader(backend).read_frames(places)] == frames


def test_where_a_storage_wants_it_several_packs_are_on_their_way_and_they_are_told_in_order(beside):
    backend, written = Held(Wide(MemoryBackend())), []
    packs = writer(backend, 1_000, written)
    places = packs.append([encode(DATA, noise(1_000, 0))])
    for row in range(1, 4):
        places += packs.append([encode(DATA, noise(1_000, row))])
    for _ in range(3):
        assert backend.begun.acquire(timeout=30)
    assert written == []
    backend.go_on.release(10)
    packs.flush()
    assert [ref for ref, _ in written] == [place.pack for place in places]
    assert len(reader(backend).read_frames(places)) == 4


def test_a_flush_puts_all_that_waits_at_once_where_a_storage_wants_it():
    backend, written = Held(Wide(MemoryBackend())), []
    packs = writer(backend, 1_000, written)
    packs.append([encode(NODE, b"x"), encode(LIST, b"y"), encode(DATA, b"z")])  # each begins a pack
    with ThreadPoolExecutor(1) as pool:
        flushing = pool.submit(packs.flush)
        for _ in range(3):
            assert backend.begun.acquire(timeout=30)
        backend.go_on.release(3)
        flushing.result(30)
    assert len(written) == 3


@EFFECTS
@pytest.mark.parametrize("kind", [MemoryBackend, lambda: Wide(MemoryBackend())], ids=["one", "several"])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_put_beside_the_work_that_failed_is_told_by_one_of_the_next_calls_and_by_all_after(
    beside, failing, kind, effect
):
    store, written = kind(), []
    packs = writer(FaultyBackend(store, [Fault("put", failing, effect)]), 500, written)
    frames = [encode(DATA, noise(600, row)) for row in range(4)]
    places, failed = [], []
    for frame in frames:
        try:
            places += packs.append([frame])
            failed.append(False)
        except StorageFailed:
            failed.append(True)
    with pytest.raises(StorageFailed):
        packs.flush()
    assert failed == sorted(failed)
    assert len(written) < 4
    told = [place for place in places if place.pack in [ref for ref, _ in written]]
    read = [bytes(data) for data in reader(store).read_frames(told)]
    assert read == [frame.data for frame in frames[: len(told)]]


def test_packs_that_are_ended_by_the_kind_of_a_frame_do_not_pile_up(beside):
    written = []
    packs = writer(MemoryBackend(), 100_000, written)
    for row in range(12):
        packs.append([encode(DATA, noise(1_000, row))])
        packs.append([encode(LIST, b"a list")])
        assert len(packs._packs) <= 2
    assert len(written) >= 10
    packs.flush()
    assert len(written) == 12


def test_where_no_thread_can_be_begun_packs_are_put_all_the_same(beside, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    backend, written = MemoryBackend(), []
    packs = writer(backend, 2_000, written)
    places = packs.append([encode(DATA, noise(1_000, 0))])
    for row in range(1, 9):
        places += packs.append([encode(DATA, noise(1_000, row))])
    packs.flush()
    assert len(reader(backend).read_frames(places)) == 9
    assert [ref for ref, _ in written] == list(dict.fromkeys(place.pack for place in places))


# Reading frames


@st.composite
def requests(draw):
    """Places in up to three packs of 4,000 bytes: overlapping, repeated, in any order."""
    one = st.tuples(st.integers(0, 2), st.integers(0, 3999), st.integers(1, 600))
    rows = draw(st.lists(one, max_size=20))
    refs = [PackRef(storage, PackName(bytes([pack]) * 16)) for pack, storage in ((1, 0), (2, 0), (3, 1))]
    return [Place(refs[pack], start, min(length, 4000 - start), 1) for pack, start, length in rows]


def contents(pack):
    return noise(4000, pack.name)


def three_packs():
    backends = {0: Spans(MemoryBackend()), 1: Spans(MemoryBackend())}
    for storage, byte in ((0, 1), (0, 2), (1, 3)):
        name = PackName(bytes([byte]) * 16)
        backends[storage].put(Key(pack_key(name)), [contents(PackRef(storage, name))])
    return backends


@relaxed
@given(requests(), st.sampled_from([0, 1, 50, 5000]), st.integers(1, 5000))
def test_reading_together_gives_what_reading_each_alone_gives(places, hole_bytes, budget):
    backends = three_packs()
    packs = PackReader(STORE, backends.__getitem__, Traits(hole_bytes))
    expected = [contents(place.pack)[place.offset : place.offset + place.stored] for place in places]
    assert [bytes(data) for data in packs.read_ranges(places, budget)] == expected
    assert [bytes(data) for data in packs.read_frames(places)] == expected
    assert [bytes(packs.read_frames([place])[0]) for place in places] == expected


@relaxed
@given(requests())
def test_less_than_a_tenth_more_bytes_is_read_than_asked(places):
    backends = three_packs()
    PackReader(STORE, backends.__getitem__).read_frames(places)
    spans = [span for backend in backends.values() for call in backend.calls for span in call]
    asked = sum(place.stored for place in places)
    assert sum(span.stop - span.start for span in spans) * 10 <= asked * 11
    assert all(len(backend.calls) <= 1 for backend in backends.values())


@relaxed
@given(requests(), st.sampled_from([0, 50]), st.integers(1, 3000))
def test_the_budget_bounds_what_is_read_at_once(places, hole_bytes, budget):
    backends = three_packs()
    packs = PackReader(STORE, backends.__getitem__, Traits(hole_bytes))
    largest = max((place.stored for place in places), default=0)
    for _ in packs.read_ranges(places, budget):
        spans = [span for backend in backends.values() for call in backend.calls for span in call]
        assert sum(span.stop - span.start for span in spans) <= 1.1 * max(budget, largest)
        for backend in backends.values():
            backend.calls.clear()


def test_each_round_asks_for_as_much_as_the_budget_allows_holes_included():
    store, ref = Spans(MemoryBackend()), PackRef(0, PackName(b"p" * 16))
    store.put(Key(pack_key(ref.name)), [bytes(40_000)])
    places = [Place(ref, at * 400, 100, 1) for at in range(100)]
    list(reader(store).read_ranges(places, 1000))
    assert [len(call) for call in store.calls] == [10] * 10
    store.calls.clear()
    list(reader(store, traits=Traits(300)).read_ranges(places, 4000))
    assert [[span.stop - span.start for span in call] for call in store.calls] == [[3700]] * 10


def test_neighbours_are_one_request_and_far_frames_are_not():
    store, _, places = stored_frames(12)
    spans = Spans(store)
    reader(spans).read_frames([places[row] for row in (3, 1, 2, 7, 6, 11)])
    [call] = spans.calls
    key, size = Key(pack_key(places[0].pack.name)), places[0].stored
    assert call == [Span(key, 40 + a * size, 40 + b * size) for a, b in ((1, 4), (6, 8), (11, 12))]


def test_a_hole_is_read_where_it_takes_no_longer_than_a_request():
    store, _, places = stored_frames(3)
    backend, size = Spans(store), places[0].stored
    for hole_bytes in (0, size - 1, size):
        reader(backend, traits=Traits(hole_bytes)).read_frames([places[0], places[2]])
    assert [len(call) for call in backend.calls] == [2, 2, 1]


@pytest.mark.parametrize(("hole", "requests"), [(99, 1), (100, 2)])
def test_a_hole_is_read_where_it_is_shorter_than_a_twentieth_of_its_neighbours(hole, requests):
    store, ref = Spans(MemoryBackend()), PackRef(0, PackName(b"p" * 16))
    store.put(Key(pack_key(ref.name)), [bytes(4000)])
    reader(store).read_frames([Place(ref, 0, 1200, 1), Place(ref, 1200 + hole, 800, 1)])
    assert [len(call) for call in store.calls] == [requests]


def test_long_runs_are_asked_for_in_several_pieces_at_once():
    store, ref = Spans(MemoryBackend()), PackRef(0, PackName(b"p" * 16))
    store.put(Key(pack_key(ref.name)), [bytes(40 << 20)])
    read = reader(store).read_frames([Place(ref, at << 20, 1 << 20, 1) for at in range(40)])
    assert [len(data) for data in read] == [1 << 20] * 40
    assert [span.stop - span.start for span in store.calls[0]] == [16 << 20, 16 << 20, 8 << 20]


def test_frames_are_handed_back_without_copies():
    store, _, places = stored_frames(4)
    read = reader(store).read_frames(places)
    assert len({id(data.obj) for data in read}) == 1


def test_a_pack_that_is_missing_is_named():
    store, _, places = stored_frames(2)
    lost = places[0].pack
    store.delete_many([Key(pack_key(lost.name))])
    for read in (
        lambda: reader(store).read_frames(places),
        lambda: reader(store).read_footers([lost]),
        lambda: reader(store).read_whole(FrameKind.NODE, [(places[0], NodeId(bytes(32)))]),
    ):
        with pytest.raises(ObjectMissing, match=lost.name.hex()):
            read()


def test_a_place_beyond_the_end_of_its_pack_is_corrupt():
    store, _, places = stored_frames(1)
    with pytest.raises(CorruptObject):
        reader(store).read_frames([Place(places[0].pack, 1 << 20, 10, 10)])


# Reading nodes, lists and censuses


def test_nodes_are_read_in_the_order_asked_and_checked():
    store, frames, places = stored_frames(5, kind=NODE)
    order = [3, 0, 4, 0]
    wanted = [(places[row], NodeId(frames[row].ids[0])) for row in order]
    assert reader(store).read_whole(FrameKind.NODE, wanted) == [noise(1000, row) for row in order]


def test_a_node_at_the_wrong_place_or_of_another_kind_or_length_is_corrupt():
    store, frames, places = stored_frames(2, kind=NODE)
    first, node_id = places[0], NodeId(frames[0].ids[0])
    longer = Place(first.pack, first.offset, first.stored, first.plain + 1)
    for place, message in ((places[1], "hash"), (longer, "long")):
        with pytest.raises(CorruptObject, match=message):
            reader(store).read_whole(FrameKind.NODE, [(place, node_id)])
    with pytest.raises(CorruptObject, match=r"frame at 40 of packs/00/.* another kind"):
        reader(store).read_whole(CENSUS, [(first, node_id)])


def test_every_damage_to_a_stored_node_is_found():
    store, frames, places = stored_frames(1, size=50, kind=NODE)
    wanted = [(places[0], NodeId(frames[0].ids[0]))]
    for offset in range(places[0].stored):
        damaged = FaultyBackend(store, [Fault("get_ranges", 1, Effect.CORRUPT, item=0, offset=offset)])
        with pytest.raises(CorruptObject):
            reader(damaged).read_whole(FrameKind.NODE, wanted)


# Reading footers


def test_footers_of_small_packs_take_one_request_and_larger_ones_a_second_together():
    store, written = MemoryBackend(), []
    packs = writer(store, 40_000, written)
    small = [encode(DATA, noise(20_000, row)) for row in range(4)]
    blocks = [encode(DATA, *([b"x"] * 2000)) for _ in range(2)]
    packs.append(small)
    packs.flush()
    for block in blocks:
        packs.append([block])
        packs.flush()
    refs = [ref for ref, _ in written]
    refs = [refs[-1], *refs[:-1]]
    calls = Spans(store)
    footers = reader(calls).read_footers(refs)
    assert [footer.encode() for footer in footers] == [dict(written)[ref].encode() for ref in refs]
    first, second = calls.calls
    assert first == [Tail(Key(pack_key(ref.name)), 65_536) for ref in refs]
    assert [tail.key for tail in second] == [Key(pack_key(refs[row].name)) for row in (0, 3)]


def test_no_footers_take_no_request():
    assert PackReader(STORE, lambda _: pytest.fail("asked")).read_footers([]) == []


def test_a_pack_under_the_name_of_another_or_of_another_store_is_corrupt():
    store, _, places = stored_frames(2)
    ref = places[0].pack
    [pack] = store.get_many([Key(pack_key(ref.name))])
    wrong = PackRef(0, PackName(b"w" * 16))
    store.put(Key(pack_key(wrong.name)), [pack])
    with pytest.raises(CorruptObject, match=wrong.name.hex()):
        reader(store).read_footers([ref, wrong])
    with pytest.raises(CorruptObject, match="another pack"):
        PackReader(OTHER_STORE, lambda _: store).read_footers([ref])


def test_a_pack_without_its_end_or_too_short_for_one_is_corrupt():
    store, _, places = stored_frames(2)
    ref = places[0].pack
    [pack] = store.get_many([Key(pack_key(ref.name))])
    for length in (0, 10, 63, 64, len(pack) - 64, len(pack) - 1):
        cut = MemoryBackend()
        cut.put(Key(pack_key(ref.name)), [pack[:length]])
        with pytest.raises(CorruptObject, match=ref.name.hex()):
            reader(cut).read_footers([ref])
