"""Uploads and downloads that were broken off go on, and a finalize whose reply was lost is repeated."""

import os
import random
from collections import Counter
from pathlib import Path
from threading import Event, Lock

import pytest

from dataset_store import Dataset
from dataset_store.core.digest import PackName
from dataset_store.core.frames import FrameKind
from dataset_store.core.packfile import PackRef
from dataset_store.dataset import workspace as workspaces
from dataset_store.errors import (
    CommitOutcomeUnknown,
    Conflict,
    DatasetNotFound,
    DiskFull,
    ObjectMissing,
    OutcomeUnknown,
    StorageFailed,
)
from dataset_store.local import local_copies, materialise
from dataset_store.local.draft_records import read_records
from dataset_store.storage.log import Pacing
from dataset_store.storage.pack_writer import PackWriter
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
    """Counts packs that became objects; one of them, by its number from 1, may fail."""

    def __init__(self, monkeypatch):
        self.done = []
        self.fails_at = None
        publish = PosixBackend._publish

        def counted(backend, key, file):
            if not key.startswith("packs/"):
                return publish(backend, key, file)
            if len(self.done) + 1 == self.fails_at:
                raise StorageFailed("The disk went away, as planned.", "Repeat.")
            self.done.append(key)
            return publish(backend, key, file)

        monkeypatch.setattr(PosixBackend, "_publish", counted)


@pytest.fixture
def puts(monkeypatch):
    return Puts(monkeypatch)


def sent_chunks(home):
    """How often each chunk of data stands in the store's packs."""
    refs = [PackRef(0, PackName(bytes.fromhex(path.name))) for path in (home / "store" / "packs").glob("*/*")]
    footers = workspaces.open_workspace().store.packs.read_footers(refs)
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
    log = dataset._workspace.store.catalog._log
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


class Reads:
    """Counts bytes read from packs; once there were `most` of them, what is read next may fail."""

    def __init__(self, monkeypatch):
        self.bytes = 0
        self.most = None
        self.error = StorageFailed("The network went away, as planned.", "Repeat.")
        get_ranges = PosixBackend.get_ranges

        def counted(backend, ranges):
            if self.most is not None and self.bytes >= self.most:
                raise self.error
            found = get_ranges(backend, ranges)
            self.bytes += sum(map(len, found))
            return found

        monkeypatch.setattr(PosixBackend, "get_ranges", counted)
        monkeypatch.setattr(os, "cpu_count", lambda: 1)  # one file at a time, so that what is whole is always the same


@pytest.fixture
def reads(monkeypatch):
    return Reads(monkeypatch)


@pytest.fixture
def stored(small_packs, folder, another_machine):
    """A version of `folder`, for a machine that holds nothing of it."""
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    another_machine()
    return Dataset.get(dataset.id)


def break_off(dataset, reads, most=800_000):
    reads.most = most
    with pytest.raises(type(reads.error)):
        dataset.get_local_copy()
    reads.most, reads.bytes = None, 0


def kept(dataset):
    return [path.name for path in Path(dataset._workspace.copies.directory).iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    "error",
    [StorageFailed("The network went away, as planned.", "Repeat."), KeyboardInterrupt()],
    ids=["the network", "Ctrl-C"],
)
def test_a_download_that_was_broken_off_goes_on_where_it_was(folder, stored, reads, error):
    reads.error = error
    break_off(stored, reads)
    assert read(stored.get_local_copy()) == read(folder)
    assert reads.bytes < 500_000  # of about 970,000
    assert kept(stored) == [stored.id]


def test_nothing_is_kept_of_a_download_from_before_the_machine_was_started_anew(folder, stored, reads, monkeypatch):
    break_off(stored, reads)
    monkeypatch.setattr(local_copies, "_boot_id", lambda: "another")
    assert read(stored.get_local_copy()) == read(folder)
    assert reads.bytes > 900_000
    assert kept(stored) == [stored.id]


@pytest.mark.parametrize(
    "error",
    [DiskFull("No space is left, as planned.", "Make room."), ObjectMissing("It is gone, as planned.", "Look.")],
)
def test_what_a_full_disk_or_a_damaged_store_leaves_is_removed(stored, reads, error):
    reads.error = error
    break_off(stored, reads)
    assert kept(stored) == []


def test_what_somebody_changed_in_a_download_that_was_broken_off_is_fetched_anew(folder, stored, reads):
    break_off(stored, reads)
    (begun,) = Path(stored._workspace.copies.directory).glob("*.making")
    for path in begun.iterdir():
        path.chmod(0o644)
        path.write_bytes(b"!" * path.stat().st_size)
    assert read(stored.get_local_copy()) == read(folder)


def test_a_large_file_that_was_half_fetched_is_not_fetched_from_its_beginning(
    home, another_machine, reads, monkeypatch
):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 1 << 20)
    content = random.Random(1).randbytes(12 << 20)
    (home / "in").mkdir()
    (home / "in/large").write_bytes(content)
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(home / "in")
    dataset.finalize(auto_upload=True)
    another_machine()
    dataset = Dataset.get(dataset.id)
    break_off(dataset, reads, most=8 << 20)
    assert read(dataset.get_local_copy()) == {"large": content}
    assert reads.bytes < 6 << 20


def test_what_runs_beside_a_failure_ends_at_its_next_piece(home, small_packs, another_machine, monkeypatch):
    (home / "in").mkdir()
    for name in ("one", "other"):
        (home / "in" / name).write_bytes(random.Random(name).randbytes(3 << 20))
    dataset = Dataset.create("d", "p")
    dataset.sync_folder(home / "in")
    dataset.finalize(auto_upload=True)
    another_machine()
    stop, first, later = Event(), Lock(), []
    monkeypatch.setattr(materialise, "Event", lambda: stop)
    copy_segment = materialise._Copier.copy_segment

    def copied(self, row, segment, opened, target):
        if first.acquire(blocking=False):
            assert stop.wait(20)
        elif not stop.is_set():
            raise KeyboardInterrupt
        else:
            later.append(target)
        copy_segment(self, row, segment, opened, target)

    monkeypatch.setattr(materialise._Copier, "copy_segment", copied)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with pytest.raises(KeyboardInterrupt):
        Dataset.get(dataset.id).get_local_copy()
    assert later == []


def test_a_draft_of_two_parents_is_there_with_what_both_hold_or_not_at_all(home):
    parents = []
    for name in ("one", "two"):
        (home / name).mkdir()
        (home / name / f"of {name}").write_text(name)
        parents.append(draft_of(home / name))
        parents[-1].finalize(auto_upload=True)
    draft = Dataset.create("both", "p", parent_datasets=parents)
    (journal,) = Path(draft._workspace.drafts_directory).rglob("journal")
    ends = [end for _, _, end in read_records(str(journal), 0)]
    for end in reversed(ends):  # as a process leaves it that was killed behind this record
        os.truncate(journal, end)
        found = in_a_new_process(draft)
        assert found.list_files() == ["of one", "of two"]
    os.truncate(journal, ends[0] - 1)
    with pytest.raises(DatasetNotFound):
        in_a_new_process(draft)
