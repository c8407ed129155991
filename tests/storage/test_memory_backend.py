"""The memory backend keeps the promises of the port, and nothing of the caller's."""

from dataset_store.storage.backend import Backend, Key, Span
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.testing.backend_conformance import BackendConformance


class TestMemoryBackend(BackendConformance):
    def make_backend(self) -> Backend:
        return MemoryBackend()

    def reopen(self, backend: Backend) -> Backend:
        return backend


def test_two_memory_backends_share_nothing():
    first, second = MemoryBackend(), MemoryBackend()
    first.put(Key("a"), [b"content"])
    assert second.get_many([Key("a")]) == [None]


def test_a_listing_is_of_the_moment_it_was_asked_for():
    backend = MemoryBackend()
    backend.put(Key("packs/a"), [])
    rows = backend.list("packs")
    backend.put(Key("packs/b"), [])
    assert [row.key for row in rows] == ["packs/a"]


def test_what_is_read_cannot_change_what_is_stored():
    backend = MemoryBackend()
    backend.put(Key("a"), [bytearray(b"content")])
    assert type(backend.get_many([Key("a")])[0]) is bytes
    assert type(backend.get_ranges([Span(Key("a"), 0, 7)])[0]) is bytes
