"""The long trial of a storage: a sound one passes, and each lie is found by the check that is meant for it."""

import secrets

import pytest
from fault_proxy import Answer, Changed, Fault

from dataset_store.errors import AccessDenied, DiskFull, OutcomeUnknown, StorageFailed, StoreUnreachable
from dataset_store.storage.backend import Key
from dataset_store.storage.checkup import Trial, check_storage
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.storage.storages import backend_at
from dataset_store.storage.wrappers import Wrapper

SMALL = Trial(racers=4, races=5, large_bytes=3 << 20, samples=3)
CHECKS = ["absent_key", "create_twice", "create_race", "ranges", "list_after_write", "large_object", "latency"]


def failed(backend):
    return {one.id: one.text for one in check_storage(backend, SMALL) if not one.sound}


def test_a_sound_storage_passes_every_check_and_nothing_is_left_behind(tmp_path):
    for backend in (MemoryBackend(), PosixBackend(str(tmp_path))):
        backend.put(Key("packs/a"), [b"content"])
        found = list(check_storage(backend, SMALL))
        assert [one.id for one in found] == CHECKS
        assert all(one.sound for one in found), found
        figures = {name for one in found for name in one.figures}
        assert figures >= {"put_mib_per_s", "get_mib_per_s", "create_ms", "read_ms"}
        assert [*backend.list("probe")] == []
        assert backend.get_many([Key("packs/a")]) == [b"content"]


def test_a_bucket_passes(s3_bucket, s3_proxy):
    backend = backend_at(f"{s3_bucket}/{secrets.token_hex(8)}")
    assert failed(backend) == {}
    assert [*backend.list("probe")] == []
    assert not [one for one in s3_proxy.requests if "uploads" in one.target]


class _Lies(Wrapper):
    """Does wrong what the test says, over a sound storage."""

    def __init__(self, **verbs):
        super().__init__(MemoryBackend())
        for verb, lie in verbs.items():
            setattr(self, verb, lambda *given, lie=lie: lie(self.inner, *given))


def replaced(inner, key, buffers):
    inner.delete_many([key])
    return inner.create(key, buffers)


def refused_where_absent(inner, keys):
    if None in inner.get_many(keys):
        raise AccessDenied("403.", "No.")
    return inner.get_many(keys)


def one_byte_off(inner, parts):
    found = inner.get_ranges(parts)
    return [bytes([data[0] ^ 1]) + data[1:] if len(data) > 5000 else data for data in found]


def stale(inner, _prefix):
    return iter(())


def twice_in_a_race(inner, key, buffers):
    inner.create(key, buffers)
    return "race" in key or buffers == [b"first"]


LIES = {
    "an absent key answers 403": ({"get_many": refused_where_absent}, ["absent_key"], "s3:ListBucket"),
    "an absent key holds something": ({"get_many": lambda _, keys: [b"x"] * len(keys)}, ["absent_key"], "holds"),
    "the last create wins": ({"create": replaced}, ["create_twice", "create_race"], "replace"),
    "racing creates all win": ({"create": twice_in_a_race}, ["create_race"], "4 of 4 racing creates"),
    "ranges are wrong": ({"get_ranges": one_byte_off}, ["ranges", "large_object"], "not the bytes"),
    "a listing is stale": ({"list": stale}, ["list_after_write"], "0 of 10"),
    "nothing is deleted": ({"delete_many": lambda *_: None}, ["list_after_write"], "deleted"),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_found_by_the_check_meant_for_it(lie):
    verbs, checks, words = LIES[lie]
    found = failed(_Lies(**verbs))
    assert [name for name in checks if name not in found] == []
    assert words in found[checks[0]]


def test_a_storage_out_of_reach_is_tried_no_further():
    def gone(*_):
        raise StoreUnreachable("The line is cut.")

    found = list(check_storage(_Lies(get_many=gone), SMALL))
    assert [(one.id, one.sound) for one in found] == [("absent_key", False)]


def test_what_could_not_be_removed_is_said():
    def kept(*_):
        raise StorageFailed("It may not be removed.")

    found = {one.id: one for one in check_storage(_Lies(delete_many=kept), SMALL)}
    assert not found["cleanup"].sound
    assert "probe/" in found["cleanup"].text


def test_answers_left_open_in_a_race_are_told_and_are_no_fault():
    def lost(inner, key, buffers):
        inner.create(key, buffers)
        raise OutcomeUnknown("The reply was lost.")

    found = {one.id: one for one in check_storage(_Lies(create=lost), SMALL)}
    assert found["create_race"].sound
    assert "20 answers left it open" in found["create_race"].text


def test_an_error_of_one_racer_is_told_whichever_it_is():
    def full(inner, key, buffers):
        if buffers == [b"3"]:
            raise DiskFull("No room.")
        return inner.create(key, buffers)

    assert "No room" in failed(_Lies(create=full))["create_race"]


@pytest.mark.parametrize(
    ("action", "check"),
    [
        (lambda request: Changed(without=("if-none-match",)) if request.is_conditional else None, "create_twice"),
        (lambda request: Answer(501, "NotImplemented") if request.is_conditional else None, "create_race"),
        (
            lambda request: Answer(403, "AccessDenied") if request.method == "GET" and request.key else None,
            "absent_key",
        ),
        (lambda request: Fault.FLIP if "bytes=1000-899999" in request.headers.get("range", "") else None, "ranges"),
    ],
)
def test_a_server_that_lies_is_found_by_its_answers(s3_bucket, s3_proxy, action, check):
    s3_proxy.act = action
    assert check in failed(backend_at(f"{s3_bucket}/{secrets.token_hex(8)}"))
