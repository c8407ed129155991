"""Uploads that were broken off go on, and a finalize whose reply was lost is repeated."""

import random
from collections import Counter

import pytest

from dataset_store import Dataset
from dataset_store.core.digest import PackName
from dataset_store.core.frames import FrameKind
from dataset_store.core.packfile import PackRef
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import CommitOutcomeUnknown, Conflict, ObjectMissing, OutcomeUnknown, StorageFailed
from dataset_store.storage.log import Pacing
from dataset_store.storage.packs import PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.testing.faults import Effect, Fault, FaultyBackend
from dataset_store.testing.folders import read

PACKS = 7
"""What an undisturbed upload of `folder` puts, nodes included."""


@pytest.fixture
def small_packs(monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 100_000)


@pytest.fixture
def folder(home):
    """About a megabyte that does not compress: long files of several chunks and short ones that share frames."""
    made = home / "in"
    made.mkdir()
    for number in range(5):
        (made / f"long{number}").write_bytes(random.Random(number).randbytes(150_000))
    for number in range(40):
        (made / f"short{number}").write_bytes(random.Random(-number).randbytes(5_000))
    return made


class Puts:
    """Counts puts of packs; one of them, by its number from 1, may fail."""

    def __init__(self, monkeypatch):
        self.done = []
        self.fails_at = None
        put = PosixBackend.put

        def counted(backend, key, buffers):
            if len(self.done) + 1 == self.fails_at:
                raise StorageFailed("The disk went away, as planned.", "Repeat.")
            put(backend, key, buffers)
            self.done.append(key)

        monkeypatch.setattr(PosixBackend, "put", counted)


@pytest.fixture
def puts(monkeypatch):
    return Puts(monkeypatch)


def sent_chunks(home):
    """How often each chunk of data stands in the store's packs."""
    refs = [PackRef(0, PackName(bytes.fromhex(path.name))) for path in (home / "store" / "packs").glob("*/*")]
    footers = workspaces.open_workspace().repository.packs.read_footers(refs)
    return Counter(
        footer.ids[chunk].tobytes()
        for footer in footers
        for chunk, frame in enumerate(footer.frame_of_chunk().tolist())
        if footer.kinds[frame] == FrameKind.DATA
    )


def in_this_process(draft):
    return draft


def in_a_new_process(draft):
    workspaces._open.clear()
    return Dataset.get(draft.id)


@pytest.mark.parametrize("go_on", [in_this_process, in_a_new_process])
@pytest.mark.parametrize("fails_at", range(1, PACKS + 1))
def test_an_upload_that_was_broken_off_sends_only_the_rest(home, small_packs, folder, puts, fails_at, go_on):
    draft = Dataset.create(dataset_name="d")
    draft.sync_folder(folder)
    puts.fails_at = fails_at
    with pytest.raises(StorageFailed, match="as planned"):
        draft.upload()
    puts.fails_at = None
    draft = go_on(draft)
    assert draft.is_dirty()
    assert draft.upload()
    assert set(sent_chunks(home).values()) == {1}
    assert PACKS <= len(puts.done) <= PACKS + 1
    assert draft.finalize()
    assert read(draft.get_local_copy()) == read(folder)


def test_an_undisturbed_upload_puts_as_many_packs_as_these_tests_think(small_packs, folder, puts):
    draft = Dataset.create(dataset_name="d")
    draft.sync_folder(folder)
    draft.upload()
    assert len(puts.done) == PACKS
    draft.finalize()
    assert len(puts.done) == PACKS


def test_without_the_cache_an_upload_that_was_broken_off_sends_all_again_and_is_right(
    home, small_packs, folder, puts, monkeypatch
):
    draft = Dataset.create(dataset_name="d")
    draft.sync_folder(folder)
    puts.fails_at = 4
    with pytest.raises(StorageFailed, match="as planned"):
        draft.upload()
    puts.fails_at = None
    monkeypatch.setenv("DATASET_STORE_CACHE", str(home / "other cache"))
    draft = in_a_new_process(draft)
    draft.finalize(auto_upload=True)
    assert set(sent_chunks(home).values()) == {1, 2}
    assert read(draft.get_local_copy()) == read(folder)


def test_an_upload_may_be_broken_off_again_and_again(home, small_packs, folder, puts):
    draft = Dataset.create(dataset_name="d")
    draft.sync_folder(folder)
    attempts = 0
    while draft.is_dirty():
        attempts += 1
        puts.fails_at = len(puts.done) + 2
        try:
            in_a_new_process(draft).upload()
        except StorageFailed:
            assert attempts <= PACKS
    assert set(sent_chunks(home).values()) == {1}
    puts.fails_at = None
    draft.finalize()
    assert read(draft.get_local_copy()) == read(folder)


# --- finalize ------------------------------------------------------------------------------------------------------

LANDED = Fault("create", None, Effect.ERROR_AFTER)
NOT_LANDED = Fault("create", None, Effect.ERROR_BEFORE, OutcomeUnknown("No reply, as planned."))
REFUSED = Fault("create", None, Effect.ERROR_BEFORE)
NO_ANSWER = Fault("get_many", None, Effect.ERROR_BEFORE)


def with_faults(monkeypatch, dataset, *plan):
    """From here on the log is written to a backend that fails as planned; gives the way back."""
    log = dataset._workspace.repository.catalog._log
    backend = log._backend
    monkeypatch.setattr(log, "_pacing", Pacing(sleep=lambda _seconds: None))
    log._backend = FaultyBackend(backend, plan)
    return lambda: setattr(log, "_backend", backend)


def draft_of(folder):
    draft = Dataset.create(dataset_name="d", dataset_project="p")
    draft.sync_folder(folder)
    draft.upload()
    return draft


def landed(home):
    return len(list((home / "store" / "log" / "catalog").glob("*"))) if (home / "store" / "log").is_dir() else 0


@pytest.mark.parametrize("go_on", [in_this_process, in_a_new_process])
@pytest.mark.parametrize("fault", [LANDED, NOT_LANDED])
def test_a_finalize_of_unknown_outcome_is_repeated_and_lands_once(home, monkeypatch, folder, fault, go_on):
    draft = draft_of(folder)
    mend = with_faults(monkeypatch, draft, fault, NO_ANSWER)
    with pytest.raises(CommitOutcomeUnknown) as raised:
        draft.finalize()
    assert draft.id in str(raised.value)
    assert landed(home) == (fault is LANDED)
    mend()
    again = go_on(draft)
    if not again.is_final():
        with pytest.raises(Conflict, match="being finalized"):
            again.remove_files("long1")
        with pytest.raises(Conflict, match="being finalized"):
            again.tags = ["another"]
        assert again.finalize()
    assert landed(home) == 1
    assert again.version == "1.0.0"
    assert read(Dataset.get(dataset_name="d").get_local_copy()) == read(folder)
    assert Dataset.get(draft.id).is_final()


@pytest.mark.parametrize("fault", [LANDED, NOT_LANDED])
def test_a_finalize_of_unknown_outcome_is_repeated_after_others_have_finalized(home, monkeypatch, folder, fault):
    draft = draft_of(folder)
    mend = with_faults(monkeypatch, draft, fault, NO_ANSWER)
    with pytest.raises(CommitOutcomeUnknown):
        draft.finalize()
    mend()
    workspaces._open.clear()
    other = draft_of(folder)
    other.finalize()
    draft.finalize()
    assert landed(home) == 2
    assert {draft.version, other.version} == {"1.0.0", "1.0.1"}
    assert (draft.version == "1.0.0") == (fault is LANDED)


def test_a_lost_reply_is_made_good_by_reading_the_slot_back(home, monkeypatch, folder):
    draft = draft_of(folder)
    with_faults(monkeypatch, draft, LANDED)
    assert draft.finalize()
    assert landed(home) == 1


def test_a_finalize_that_was_refused_leaves_a_draft_that_can_be_changed(home, monkeypatch, folder):
    draft = draft_of(folder)
    mend = with_faults(monkeypatch, draft, REFUSED)
    with pytest.raises(StorageFailed, match="as planned"):
        draft.finalize()
    mend()
    assert draft.remove_files("long1") == 1
    assert draft.finalize()
    assert "long1" not in read(draft.get_local_copy())


def test_a_refusal_after_an_unknown_outcome_decides_nothing(home, monkeypatch, folder):
    draft = draft_of(folder)
    mend = with_faults(monkeypatch, draft, LANDED, NO_ANSWER)
    with pytest.raises(CommitOutcomeUnknown):
        draft.finalize()
    mend()
    mend = with_faults(monkeypatch, draft, REFUSED)
    with pytest.raises(StorageFailed):
        draft.finalize()
    mend()
    with pytest.raises(Conflict, match="being finalized"):
        draft.remove_files("long1")
    assert draft.finalize()
    assert landed(home) == 1


def test_a_finalize_that_met_a_damaged_log_leaves_a_draft_that_can_be_changed(home, monkeypatch, folder):
    draft = draft_of(folder)
    mend = with_faults(
        monkeypatch, draft, Fault("create", None, Effect.ERROR_BEFORE, ObjectMissing("gone", "Mend it."))
    )
    with pytest.raises(ObjectMissing):
        draft.finalize()
    mend()
    assert draft.remove_files("long1") == 1
    assert draft.finalize()
