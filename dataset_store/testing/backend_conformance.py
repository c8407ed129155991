"""The promises of the backend port as tests, for every backend, ours or another's.

Subclass `BackendConformance` in a test module, under a name that pytest collects, and say how to make one:

    class TestMyBackend(BackendConformance):
        def make_backend(self) -> Backend:
            return MyBackend(an_empty_place())

        def reopen(self, backend: Backend) -> Backend:
            return MyBackend(the_same_place())

Promises: every promise of the port that can be seen from outside is looked at; durability cannot, for only a
power cut shows it. Never: needs fixtures, a clock or the network; asks a backend for more than the port does.
"""

# The name of each test is the sentence it checks.
# ruff: noqa: D102

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import pytest

from dataset_store.errors import CorruptObject, InvalidRequest, ObjectMissing, StorageFailed
from dataset_store.storage.backend import Backend, Buffer, Key, ObjectInfo, Span, Tail

__all__ = ["INVALID_KEYS", "BackendConformance"]

INVALID_KEYS: Sequence[str] = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "../a",
    "a/../b",
    "a/./b",
    "A",
    "a b",
    "a\n",
    "a\0",
    "a\\b",
    "a:b",
    "tmp~",
    "é",
    "a" * 201,
]
"""Strings that are no keys, one for each way to break the grammar."""

_THREADS = 8
_MIB = 1 << 20

_Done = TypeVar("_Done")


class BackendConformance(ABC):
    """Every promise of the port; the storage is fresh in each test."""

    large = 4 << 20
    """Bytes of the objects that are read while they are written; fewer where a storage is very slow."""

    @abstractmethod
    def make_backend(self) -> Backend:
        """A backend over storage that exists and is empty, and that no other call returned."""

    @abstractmethod
    def reopen(self, backend: Backend) -> Backend:
        """Another handle on the storage of a backend, such as another process would have."""

    # Whole objects

    def test_an_object_reads_back_as_it_was_put(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"content"])
        assert backend.get_many([Key("a")]) == [b"content"]

    def test_an_object_is_seen_through_another_handle_once_it_is_acknowledged(self) -> None:
        backend = self.make_backend()
        other = self.reopen(backend)
        assert other.get_many([Key("packs/aa"), Key("log/0")]) == [None, None]
        backend.put(Key("packs/aa"), [b"pack"])
        assert backend.create(Key("log/0"), [b"entry"])
        assert other.get_many([Key("packs/aa"), Key("log/0")]) == [b"pack", b"entry"]

    def test_objects_come_in_the_order_asked_with_none_for_each_that_is_absent(self) -> None:
        backend = self.make_backend()
        backend.put(Key("one"), [b"1"])
        backend.put(Key("two"), [b"2"])
        keys = [Key(name) for name in ("two", "absent", "one", "two", "one/below", "none/at/all")]
        assert backend.get_many(keys) == [b"2", None, b"1", b"2", None, None]

    def test_reading_no_keys_answers_nothing(self) -> None:
        backend = self.make_backend()
        assert backend.get_many([]) == []
        assert backend.get_ranges([]) == []

    def test_the_leading_components_of_a_key_hold_no_object(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a/b/c"), [b"content"])
        assert backend.get_many([Key("a"), Key("a/b")]) == [None, None]

    @pytest.mark.parametrize(
        "pieces",
        [[], [b""], [b"", b"", b""], [b"a", b"", b"bc"], [bytes([n % 256]) for n in range(5000)]],
        ids=["no pieces", "an empty piece", "empty pieces", "three pieces", "5000 pieces"],
    )
    def test_an_object_is_its_pieces_one_after_another(self, pieces: Sequence[bytes]) -> None:
        backend = self.make_backend()
        backend.put(Key("put"), pieces)
        backend.create(Key("create"), pieces)
        assert backend.get_many([Key("put"), Key("create")]) == [b"".join(pieces)] * 2

    def test_an_object_of_8_mib_in_uneven_pieces_reads_back(self) -> None:
        backend = self.make_backend()
        content = _content(8 * _MIB)
        cuts = [0, 1, 4096, 3 * _MIB + 17, 3 * _MIB + 18, len(content)]
        pieces = [content[start:stop] for start, stop in pairwise(cuts)]
        backend.put(Key("large"), pieces)
        assert backend.get_many([Key("large")]) == [content]

    def test_pieces_may_be_any_buffer_and_are_counted_in_bytes(self) -> None:
        backend = self.make_backend()
        words = memoryview(b"12345678").cast("I")
        backend.put(Key("a"), [b"bytes ", bytearray(b"array "), memoryview(b"a view ")[2:], words])
        assert backend.get_many([Key("a")]) == [b"bytes array view 12345678"]

    def test_buffers_are_neither_kept_nor_changed(self) -> None:
        backend = self.make_backend()
        buffer = bytearray(b"first")
        backend.put(Key("put"), [buffer])
        backend.create(Key("create"), [memoryview(buffer)])
        assert buffer == b"first"
        buffer[:] = b"reuse"
        buffer.extend(b" and resize")
        assert backend.get_many([Key("put"), Key("create")]) == [b"first", b"first"]

    def test_a_put_repeated_with_the_same_bytes_is_safe(self) -> None:
        backend = self.make_backend()
        backend.put(Key("packs/a"), [b"content"])
        self.reopen(backend).put(Key("packs/a"), [b"content"])
        assert backend.get_many([Key("packs/a")]) == [b"content"]

    # Objects written piece by piece

    def test_an_object_written_piece_by_piece_is_unseen_before_its_end_and_then_is_its_pieces_in_order(self) -> None:
        backend = self.make_backend()
        reader = self.reopen(backend)
        content = _content(8 * _MIB)
        cuts = [0, 1, 4096, 3 * _MIB + 17, 3 * _MIB + 18, len(content)]
        pieces = [content[start:stop] for start, stop in pairwise(cuts)]
        writer = backend.open_writer(Key("packs/a"))
        batches: list[list[Buffer]] = [[*pieces[:2]], [], [bytearray(pieces[2]), memoryview(pieces[3])], [pieces[4]]]
        for batch in batches:
            writer.write(batch)
            assert reader.get_many([Key("packs/a")]) == [None]
            assert _listed(reader, "packs") == {}
        writer.finish()
        assert reader.get_many([Key("packs/a")]) == [content]
        assert _listed(reader, "packs") == {"packs/a": len(content)}

    def test_an_object_of_which_no_piece_was_written_is_empty(self) -> None:
        backend = self.make_backend()
        backend.open_writer(Key("a")).finish()
        assert backend.get_many([Key("a")]) == [b""]

    def test_of_an_object_that_was_never_finished_nothing_stays(self) -> None:
        backend = self.make_backend()
        backend.open_writer(Key("packs/a")).write([b"never finished"])
        assert self.reopen(backend).get_many([Key("packs/a")]) == [None]
        assert _listed(backend, "packs") == {}
        backend.put(Key("packs/a"), [b"content"])
        assert backend.get_many([Key("packs/a")]) == [b"content"]

    def test_what_was_finished_takes_no_more(self) -> None:
        backend = self.make_backend()
        writer = backend.open_writer(Key("a"))
        writer.write([b"content"])
        writer.finish()
        with pytest.raises(StorageFailed):
            writer.write([b"more"])
        with pytest.raises(StorageFailed):
            writer.finish()
        assert backend.get_many([Key("a")]) == [b"content"]

    def test_an_object_written_piece_by_piece_again_with_the_same_bytes_is_safe(self) -> None:
        backend = self.make_backend()
        for handle in (backend, self.reopen(backend)):
            writer = handle.open_writer(Key("packs/a"))
            writer.write([b"con", b"tent"])
            writer.finish()
        assert backend.get_many([Key("packs/a")]) == [b"content"]

    def test_several_objects_may_be_written_piece_by_piece_at_once(self) -> None:
        backend = self.make_backend()
        keys = [Key(f"packs/{n}") for n in range(_THREADS)]
        writers = [backend.open_writer(key) for key in keys]
        for turn in range(5):
            for n, writer in enumerate(writers):
                writer.write([f"{n}-{turn} ".encode()])
        _in_threads(lambda n: writers[n].finish())
        expected = ["".join(f"{n}-{turn} " for turn in range(5)).encode() for n in range(_THREADS)]
        assert backend.get_many(keys) == expected

    # Create

    def test_create_of_a_taken_key_says_so_and_leaves_the_first_bytes(self) -> None:
        backend = self.make_backend()
        assert backend.create(Key("log/0"), [b"first"]) is True
        assert backend.create(Key("log/0"), [b"second, and longer"]) is False
        assert self.reopen(backend).create(Key("log/0"), [b""]) is False
        assert backend.get_many([Key("log/0")]) == [b"first"]

    def test_create_sees_what_put_wrote(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"put"])
        assert backend.create(Key("a"), [b"create"]) is False
        assert backend.get_many([Key("a")]) == [b"put"]

    def test_racing_creates_have_exactly_one_winner_whose_bytes_stand(self) -> None:
        backend = self.make_backend()
        handles = [backend if n % 2 else self.reopen(backend) for n in range(_THREADS)]
        slots = [Key(f"log/{slot:03}") for slot in range(50)]
        start = threading.Barrier(_THREADS)

        def attempt(racer: int, slot: Key) -> bool:
            start.wait()  # for each slot anew: else the first winner runs ahead, and nobody races
            return handles[racer].create(slot, [b"racer ", str(racer).encode()])

        def race(racer: int) -> Sequence[bool]:
            return [attempt(racer, slot) for slot in slots]

        won = _in_threads(race)
        winners = [[racer for racer in range(_THREADS) if won[racer][place]] for place in range(len(slots))]
        assert [len(racers) for racers in winners] == [1] * len(slots)
        assert backend.get_many(slots) == [f"racer {racers[0]}".encode() for racers in winners]

    # Ranges

    def test_a_span_is_the_bytes_from_start_to_before_stop(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"0123456789"])
        spans = [Span(Key("a"), *bounds) for bounds in [(0, 10), (0, 1), (9, 10), (3, 7)]]
        assert backend.get_ranges(spans) == [b"0123456789", b"0", b"9", b"3456"]

    def test_parts_of_several_objects_come_in_the_order_asked(self) -> None:
        backend = self.make_backend()
        a, b = Key("dir/a"), Key("b")
        backend.put(a, [b"abcdefgh"])
        backend.put(b, [b"12345678"])
        parts: list[Span | Tail] = [
            Span(b, 6, 8),
            Span(a, 4, 6),
            Tail(b, 2),
            Span(a, 0, 2),
            Span(b, 0, 2),
            Span(a, 4, 6),
        ]
        assert backend.get_ranges(parts) == [b"78", b"ef", b"78", b"ab", b"12", b"ef"]

    def test_spans_may_overlap(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"0123456789"])
        spans = [Span(Key("a"), 2, 9), Span(Key("a"), 0, 5), Span(Key("a"), 4, 6)]
        assert backend.get_ranges(spans) == [b"2345678", b"01234", b"45"]

    def test_an_empty_span_within_an_object_is_empty(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"012"])
        backend.put(Key("empty"), [])
        spans = [Span(Key("a"), 0, 0), Span(Key("a"), 3, 3), Span(Key("empty"), 0, 0)]
        assert backend.get_ranges(spans) == [b"", b"", b""]

    def test_a_tail_is_the_end_of_an_object_or_all_of_a_shorter_one(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"0123456789"])
        backend.put(Key("empty"), [])
        tails = [Tail(Key("a"), length) for length in (3, 10, 11, 0)] + [Tail(Key("empty"), 5)]
        assert backend.get_ranges(tails) == [b"789", b"0123456789", b"0123456789", b"", b""]

    def test_large_spans_read_back(self) -> None:
        backend = self.make_backend()
        content = _content(5 * _MIB)
        backend.put(Key("a"), [content])
        found = backend.get_ranges([Span(Key("a"), 1, 4 * _MIB + 1), Tail(Key("a"), 2 * _MIB)])
        assert found == [content[1 : 4 * _MIB + 1], content[3 * _MIB :]]

    @pytest.mark.parametrize("bounds", [(0, 11), (10, 11), (11, 11), (50, 60), (0, 1 << 62)])
    def test_an_object_too_short_for_a_span_is_corrupt(self, bounds: tuple[int, int]) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"0123456789"])
        with pytest.raises(CorruptObject, match="'a'"):
            backend.get_ranges([Span(Key("a"), 0, 10), Span(Key("a"), *bounds)])

    @pytest.mark.parametrize(
        "part", [Span(Key("a"), 0, 1), Span(Key("a"), 0, 0), Tail(Key("a"), 1), Tail(Key("b/c"), 0)]
    )
    def test_a_part_of_an_absent_object_is_an_error(self, part: Span | Tail) -> None:
        backend = self.make_backend()
        backend.put(Key("b"), [b"content"])
        with pytest.raises(ObjectMissing, match=f"'{part.key}'"):
            backend.get_ranges([Tail(Key("b"), 1), part])

    @pytest.mark.parametrize("part", [Span(Key("a"), -1, 2), Span(Key("a"), 2, 1), Tail(Key("a"), -1)])
    def test_a_part_that_runs_backwards_is_refused(self, part: Span | Tail) -> None:
        backend = self.make_backend()
        backend.put(Key("a"), [b"content"])
        with pytest.raises(InvalidRequest):
            backend.get_ranges([part])

    # Listing and deleting

    def test_a_listing_has_the_objects_below_whole_components_only(self) -> None:
        backend = self.make_backend()
        for name in ("a/b/c", "a/b/d/e", "a/bc", "a/b.d", "ab/c", "b"):
            backend.put(Key(name), [name.encode()])
        assert _listed(backend, "a/b") == {"a/b/c": 5, "a/b/d/e": 7}
        assert _listed(backend, "a") == {"a/b/c": 5, "a/b/d/e": 7, "a/bc": 4, "a/b.d": 5}

    def test_a_listing_of_nothing_or_of_an_object_itself_is_empty(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a/b"), [b"content"])
        assert [_listed(backend, prefix) for prefix in ("a/b", "none", "none/at/all")] == [{}, {}, {}]

    def test_a_listing_seen_through_another_handle_has_every_acknowledged_object(self) -> None:
        backend = self.make_backend()
        names = {f"packs/{n % 7}/{n}" for n in range(30)}
        for name in names:
            backend.put(Key(name), [])
        assert _listed(self.reopen(backend), "packs") == dict.fromkeys(names, 0)

    def test_objects_may_be_deleted_while_they_are_listed(self) -> None:
        backend = self.make_backend()
        for n in range(30):
            backend.put(Key(f"packs/{n % 3}/{n}"), [])
        seen = set()
        for row in backend.list("packs"):
            seen.add(row.key)
            backend.delete_many([row.key])
        assert len(seen) == 30
        assert _listed(backend, "packs") == {}

    def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(self) -> None:
        backend = self.make_backend()
        for name in ("packs/a", "packs/b", "packs/c"):
            backend.put(Key(name), [b"content"])
        for _ in range(2):
            backend.delete_many(iter([Key("packs/a"), Key("none/at/all"), Key("packs/c"), Key("packs/c")]))
            assert _listed(self.reopen(backend), "packs") == {"packs/b": 7}
        assert backend.get_many([Key("packs/a"), Key("packs/b")]) == [None, b"content"]
        backend.delete_many([])

    def test_deleting_leading_components_deletes_nothing(self) -> None:
        backend = self.make_backend()
        backend.put(Key("a/b/c"), [b"content"])
        backend.delete_many([Key("a"), Key("a/b"), Key("a/b/c/d")])
        assert _listed(backend, "a") == {"a/b/c": 7}

    # Keys

    @pytest.mark.parametrize("verb", ["get_many", "get_ranges", "put", "open_writer", "create", "delete_many", "list"])
    def test_every_verb_refuses_what_is_no_key_and_touches_nothing(self, verb: str) -> None:
        backend = self.make_backend()
        backend.put(Key("a/b"), [b"content"])
        for text in INVALID_KEYS:
            with pytest.raises(InvalidRequest):
                _ask(backend, verb, Key(text))
        assert _listed(backend, "a") == {"a/b": 7}

    def test_keys_may_be_as_long_and_odd_as_the_grammar_allows(self) -> None:
        backend = self.make_backend()
        names = ["k" * 200, "/".join("d" * 100), "...", ".a/-/_", "tmp/a", "0.9_-.z", "nul", "a."]
        for name in names:
            backend.put(Key(name), [name.encode()])
        assert backend.get_many([Key(name) for name in names]) == [name.encode() for name in names]
        assert _listed(backend, "tmp") == {"tmp/a": 5}
        assert _listed(backend, "d") == {"/".join("d" * 100): 199}

    # Threads

    def test_threads_may_write_and_read_at_once(self) -> None:
        backend = self.make_backend()
        start = threading.Barrier(_THREADS)

        def work(worker: int) -> Sequence[bytes | None]:
            start.wait()
            keys = [Key(f"packs/{n % 5}/{worker}-{n}") for n in range(20)]
            for key in keys:
                backend.put(key, [key.encode(), b"."])
                assert backend.get_ranges([Tail(key, 1), Span(key, 0, 6)]) == [b".", b"packs/"]
            return backend.get_many(keys)

        for worker, found in enumerate(_in_threads(work)):
            assert found == [f"packs/{n % 5}/{worker}-{n}.".encode() for n in range(20)]
        assert len(_listed(backend, "packs")) == 20 * _THREADS

    def test_a_reader_never_sees_a_part_of_an_object(self) -> None:
        backend = self.make_backend()
        reader = self.reopen(backend)
        content = _content(self.large)
        keys = [Key(f"packs/{n}") for n in range(6)]
        done = threading.Event()

        def write() -> None:
            try:
                for place, key in enumerate(keys):
                    backend.create(key, [content]) if place % 2 else backend.put(key, [content])
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            wrong = [len(data) for data in _reads_until(done, reader, keys) if data != content]
            writing.result()
        assert wrong == []
        assert reader.get_many(keys) == [content] * len(keys)

    def test_a_backend_says_where_it_is(self) -> None:
        backend = self.make_backend()
        assert backend.describe()
        assert self.reopen(backend).describe() == backend.describe()


def _content(size: int) -> bytes:
    """Bytes of which no two aligned blocks are alike."""
    words = b"".join(n.to_bytes(8, "little") for n in range(size // 4096))
    return b"".join(words[place : place + 8] * 512 for place in range(0, len(words), 8))


def _listed(backend: Backend, prefix: str) -> dict[str, int]:
    rows: list[ObjectInfo] = [*backend.list(prefix)]
    sizes: dict[str, int] = {row.key: row.size for row in rows}
    assert len(sizes) == len(rows), "an object was listed twice"
    return sizes


def _in_threads(work: Callable[[int], _Done]) -> list[_Done]:
    """What each of the racing threads answered."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, range(_THREADS)))


def _reads_until(done: threading.Event, reader: Backend, keys: Sequence[Key]) -> Iterator[bytes]:
    """Every object as it is read and listed over and over until the writer is done, and once more."""
    finished = False
    while not finished:
        finished = done.is_set()
        yield from (data for data in reader.get_many(keys) if data is not None)
        for row in reader.list("packs"):
            yield from reader.get_ranges([Span(row.key, 0, row.size)])


def _ask(backend: Backend, verb: str, key: Key) -> None:
    """Use a verb with a key, beside a valid one where the verb takes several."""
    good = Key("a/b")
    match verb:
        case "get_many":
            backend.get_many([good, key])
        case "get_ranges":
            backend.get_ranges([Tail(good, 1), Tail(key, 1)])
        case "put":
            backend.put(key, [b"content"])
        case "open_writer":
            backend.open_writer(key)
        case "create":
            backend.create(key, [b"content"])
        case "delete_many":
            backend.delete_many([good, key])
        case _:
            _listed(backend, key)
