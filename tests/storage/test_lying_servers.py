"""Servers that do other than they say: each is refused for shared writing by name, or nothing is lost to it."""

import secrets
from pathlib import Path

import pytest
from fault_proxy import Answer, Changed, Fault

from dataset_store import Dataset
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import AccessDenied, Corrupt, StorageFailed, StoreLacksCreateIfAbsent
from dataset_store.storage import create_probe
from dataset_store.storage.backend import Key
from dataset_store.storage.create_probe import CreateAnswers, try_creates
from dataset_store.storage.memory_backend import MemoryBackend
from dataset_store.storage.retries import Patience
from dataset_store.storage.storages import backend_at
from dataset_store.storage.store import create_config
from dataset_store.testing.faults import Effect, FaultyBackend
from dataset_store.testing.faults import Fault as PlannedFault
from dataset_store.testing.folders import read, write

NO_PAUSE = Patience(sleep=lambda _seconds: None)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(create_probe, "Patience", lambda: NO_PAUSE)


@pytest.fixture
def url(s3_bucket, s3_proxy, at_once):
    return f"{s3_bucket}/{secrets.token_hex(8)}"


def conditional(action):
    return lambda request: action if request.is_conditional else None


def each_second(first, second):
    """Two actions in turn, for conditional requests."""
    turns = []

    def act(request):
        if not request.is_conditional:
            return None
        turns.append(request)
        return first if len(turns) % 2 else second

    return act


LIARS = {
    "ignores the condition": (
        conditional(Changed(without=("if-none-match",))),
        "lets a second writer replace what the first one made, and said so",
    ),
    "ignores it, and says that the second lost": (
        each_second(None, Changed(without=("if-none-match",), status=412)),
        "lets a second writer replace what the first one made, and told it that it lost",
    ),
    "says that the second won, and keeps the first": (
        each_second(None, Answer(200, tag="made")),
        "tells a second writer of one key that it won",
    ),
    "says that it made what it did not": (
        conditional(Answer(200, tag="made")),
        "does not give back what it said it had made",
    ),
    "answers 304": (conditional(Answer(304)), "made nothing of 4 creates .* the answer was 304"),
    "answers 409": (
        conditional(Answer(409, "ConditionalRequestConflict")),
        "made nothing of 4 creates .* the answer was 409 ConditionalRequestConflict",
    ),
    "answers 412": (conditional(Answer(412, "PreconditionFailed")), "says of a key that nobody has used .* is taken"),
    "answers 501": (conditional(Answer(501, "NotImplemented")), "does not know conditional writes"),
}


@pytest.mark.parametrize("liar", LIARS)
def test_a_server_that_does_not_keep_writers_apart_is_refused_by_name_and_gets_no_store(liar, url, s3_proxy):
    s3_proxy.act, says = LIARS[liar]
    with pytest.raises(StoreLacksCreateIfAbsent, match=says) as refused:
        create_config(backend_at(url))
    assert url in str(refused.value)
    s3_proxy.act = lambda _request: None
    assert [*backend_at(url).list("probe")] == []
    assert backend_at(url).get_many([Key("config")]) == [None]


DOUBTS = [Fault.LOST, Fault.REFUSED, Fault.SLOW_DOWN, Answer(409, "ConditionalRequestConflict")]


@pytest.mark.parametrize("fault", DOUBTS, ids=str)
def test_an_honest_server_is_not_refused_for_a_reply_that_was_lost(fault, url, s3_proxy):
    turns = iter([fault, None, fault, None, fault])
    s3_proxy.act = lambda request: next(turns, None) if request.is_conditional else None
    config, is_new = create_config(backend_at(url))
    assert is_new
    assert backend_at(url).get_many([Key("config")]) == [config]
    assert create_config(backend_at(url)) == (config, False)


def test_a_server_that_hides_what_is_absent_is_a_matter_of_rights_and_no_empty_store(url, s3_proxy):
    s3_proxy.act = lambda request: Answer(403, "AccessDenied") if request.method == "GET" else None
    with pytest.raises(AccessDenied, match="s3:ListBucket"):
        create_config(backend_at(url))
    assert {request.method for request in s3_proxy.requests} == {"GET"}


def test_a_store_that_cannot_be_begun_says_so(url, s3_proxy):
    s3_proxy.act = lambda request: Fault.REFUSED if request.method == "PUT" and request.key.endswith("config") else None
    with pytest.raises(StorageFailed, match="could not be begun"):
        create_config(backend_at(url))


def test_what_an_honest_storage_answers_is_told_as_it_was():
    assert try_creates(MemoryBackend(), Key("probe/a")) == CreateAnswers(True, False, b"first")
    lost = FaultyBackend(MemoryBackend(), [PlannedFault("create", 1, Effect.ERROR_AFTER)])
    answers = try_creates(lost, Key("probe/a"), NO_PAUSE)
    assert (answers.first, answers.second, answers.stands, answers.fault) == (None, False, b"first", None)


def machine(home, name, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / name / "cache"))
    monkeypatch.setenv("DATASET_STORE_DATA", str(home / name / "own"))
    workspaces._open.clear()


FILES = {"a": b"content of a", "b/c": bytes(range(256)) * 300}


@pytest.fixture
def version_id(home, url, monkeypatch):
    """A version in that store, seen by this machine; then another machine."""
    monkeypatch.setenv("DATASET_STORE_URL", url)
    dataset = Dataset.create(dataset_project="p", dataset_name="d")
    dataset.sync_folder(write(home / "in", FILES))
    dataset.finalize(auto_upload=True)
    machine(home, "other", monkeypatch)
    return dataset.id


def test_committing_and_reading_never_asks_for_a_list_that_may_be_stale(version_id, s3_proxy):
    assert read(Path(Dataset.get(dataset_project="p", dataset_name="d").get_local_copy())) == FILES
    assert not [request for request in s3_proxy.requests if request.is_list]


@pytest.mark.parametrize(
    "lie",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[: len(data) // 2] + b"x" + data[len(data) // 2 + 1 :],
    ],
    ids=["half", "nothing", "a byte changed"],
)
@pytest.mark.parametrize("of", ["config", "log/", "packs/"])
def test_reads_that_are_cut_or_changed_end_in_typed_errors_and_leave_nothing_behind(
    of, lie, version_id, s3_proxy, home, monkeypatch
):
    def act(request):
        # Of what is absent the answer stays as it is.
        return Changed(body=lie, only=(200, 206)) if request.method == "GET" and f"/{of}" in f"/{request.key}" else None

    s3_proxy.act = act
    monkeypatch.setattr("dataset_store.storage.storages.RetryingBackend", lambda backend: backend)
    with pytest.raises((Corrupt, StorageFailed)):
        Dataset.get(version_id).get_local_copy()
    s3_proxy.act = lambda _request: None
    assert read(Path(Dataset.get(version_id).get_local_copy())) == FILES
