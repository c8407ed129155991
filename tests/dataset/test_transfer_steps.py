"""Transfers that are broken off, damaged sources, random histories, and what a transfer costs."""

import itertools
import math
import os
import random
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stores import Stores, log_length, pack_bytes, same
from versions import version_of

from dataset_store import Dataset
from dataset_store.core.digest import PackName
from dataset_store.core.entries import Changes
from dataset_store.core.frames import FrameKind
from dataset_store.core.packfile import PackRef
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.transfers import bringing
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import CorruptObject, ObjectMissing, StorageFailed
from dataset_store.storage.collecting import collect
from dataset_store.storage.liveness import NoSummaries
from dataset_store.storage.log import Pacing
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.wrappers import CountingBackend
from dataset_store.testing.faults import Effect, Fault, FaultyBackend
from dataset_store.testing.folders import write


@pytest.fixture
def stores(home, monkeypatch):
    made = Stores(home, monkeypatch)
    made.use("a")
    return made


class Wrapped:
    """From here on the backend of each store whose URL ends so is wrapped; machines are forgotten at every switch."""

    def __init__(self, monkeypatch):
        self.wrappers = {}
        real = workspaces.backend_at

        def opened(url, **options):
            wrap = self.wrappers.get(url.rpartition("/")[2], lambda backend: backend)
            return wrap(real(url, **options))

        monkeypatch.setattr(workspaces, "backend_at", opened)

    def use(self, name, wrap=lambda backend: backend):
        self.wrappers[name] = wrap
        workspaces._open.clear()

    def fail(self, name, *plan):
        """From here on this store fails as planned; the backends that do, as they are opened."""
        opened = []
        self.use(name, lambda backend: opened.append(FaultyBackend(backend, plan)) or opened[-1])
        return opened

    def count(self, *names):
        """From here on what is asked of these stores is counted; the backends that do, by name, as they are opened."""
        made = {}
        for name in names:
            self.use(name, lambda backend, name=name: made.setdefault(name, CountingBackend(backend)))
        return made


@pytest.fixture
def wrapped(monkeypatch):
    monkeypatch.setattr(Pacing, "after_doubt", lambda *_: None)
    return Wrapped(monkeypatch)


@pytest.fixture
def small_packs(monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 100_000)


def folder(home):
    """About 600 kB that do not compress: files of several chunks, and short ones that share frames."""
    files = {f"long{number}": random.Random(number).randbytes(150_000) for number in range(3)}
    return write(home / "in", files | {f"short{n:02}": random.Random(-n).randbytes(5_000) for n in range(1, 31)})


def two_versions(home):
    first = version_of(folder(home), dataset_tags=["t"])
    more = {"long1": b"new" + random.Random(1).randbytes(150_000), "long9": random.Random(99).randbytes(250_000)}
    second = version_of(write(home / "in", more), parent_datasets=[first])
    second.set_metadata("x" * 50_000, "long")
    second.publish()
    return first, second


def data_chunks(store):
    """How often each chunk of files stands in a store's packs."""
    packs = (store / "packs").glob("*/*")
    refs = [PackRef(0, PackName(bytes.fromhex(path.name))) for path in packs]
    footers = open_workspace(str(store)).store.packs.read_footers(refs)
    return Counter(
        footer.ids[chunk].tobytes()
        for footer in footers
        for chunk, frame in enumerate(footer.frame_of_chunk().tolist())
        if footer.kinds[frame] == FrameKind.DATA
    )


# --- broken off ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("go_on", ["in this process", "in a new one"])
def test_a_push_that_was_broken_off_at_any_pack_sends_at_most_one_pack_again(stores, small_packs, wrapped, go_on):
    first, second = two_versions(stores.home)
    packs = sum(row.packs for row in second.push(stores.url("whole")).versions)
    assert packs >= 6
    for fails_at in range(1, packs + 1):
        name = f"b{fails_at}"
        faults = wrapped.fail(name, Fault("put", fails_at, Effect.ERROR_BEFORE))
        with pytest.raises(StorageFailed, match="as planned"):
            Dataset.get(second.id).push(stores.url(name))
        assert faults[-1].unused() == ()
        if go_on == "in a new one":
            wrapped.use(name)
        Dataset.get(second.id).push(stores.url(name))
        assert set(data_chunks(stores.home / name).values()) == {1}
        assert len(list((stores.home / name / "packs").glob("*/*"))) <= packs + 1
        for version in (first, second):
            same(stores.url("a"), stores.url(name), version.id)


def calls_of(stores, wrapped, version_id, another_machine):
    """How often an undisturbed push by a new machine calls each verb of both stores."""
    counting = wrapped.count("a", "counted")
    another_machine("counting")
    stores.get("a", version_id).push(stores.url("counted"))
    return {
        (name, verb): calls
        for name, backend in (("a", counting["a"]), ("b", counting["counted"]))
        for verb, calls in backend.snapshot().calls.items()
    }


@pytest.mark.parametrize("effect", [Effect.ERROR_BEFORE, pytest.param(Effect.ERROR_AFTER, marks=pytest.mark.heavy)])
def test_whatever_call_to_either_store_fails_the_same_command_ends_well(
    stores, small_packs, wrapped, another_machine, effect
):
    first, second = two_versions(stores.home)
    calls = calls_of(stores, wrapped, second.id, another_machine)
    assert set(calls) >= {("a", "get_many"), ("a", "get_ranges"), ("b", "put"), ("b", "create"), ("b", "get_many")}
    points = [(side, verb, call) for (side, verb), many in calls.items() for call in range(1, many + 1)]
    assert len(points) > 20
    failed = 0
    for number, (side, verb, call) in enumerate(points):
        name = f"b{number}"
        another_machine(f"m{number}")
        wrapped.use("a")
        faulty = wrapped.fail("a" if side == "a" else name, Fault(verb, call, effect))
        try:
            stores.get("a", second.id).push(stores.url(name))
        except StorageFailed:
            failed += 1
        assert sum(len(one.unused()) for one in faulty) < len(faulty), (side, verb, call)
        wrapped.use("a")
        wrapped.use(name)
        stores.get("a", second.id).push(stores.url(name))
        for version in (first, second):
            same(stores.url("a"), stores.url(name), version.id, files=number % 8 == 0)
        assert log_length(stores.url(name)) == 3  # two versions, and that one is published
    assert failed > len(points) / 2


# --- damaged sources -------------------------------------------------------------------------------------------------


def damaged(stores, kind, effect):
    """Change the last frame of a kind in the source's first pack, or remove the pack."""
    for path in (stores.home / "a" / "packs").glob("*/*"):
        if effect is Effect.MISSING:
            path.unlink()
            continue
        ref = PackRef(0, PackName(bytes.fromhex(path.name)))
        footer = open_workspace(stores.url("a")).store.packs.read_footers([ref])[0]
        rows = [row for row, one in enumerate(footer.kinds.tolist()) if one == kind]
        data = bytearray(path.read_bytes())
        data[int(footer.offsets[rows[-1]]) + int(footer.stored[rows[-1]]) // 2] ^= 0xFF
        path.chmod(0o644)
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "effect", "error"),
    [
        (FrameKind.DATA, Effect.CORRUPT, CorruptObject),
        (FrameKind.NODE, Effect.CORRUPT, CorruptObject),
        (FrameKind.DATA, Effect.MISSING, ObjectMissing),
    ],
)
def test_of_a_damaged_source_nothing_is_committed(stores, another_machine, refused, kind, effect, error):
    version = version_of(folder(stores.home))
    damaged(stores, kind, effect)
    another_machine()
    found = stores.get("a", version.id)
    with refused(error):
        found.push(stores.url("b"))
    assert log_length(stores.url("b")) == 0


def test_bytes_that_rot_on_the_way_are_never_put(stores, wrapped, another_machine):
    version = version_of(folder(stores.home))
    for call, offset in itertools.product(range(1, 12), (5, 2_000, -3)):
        another_machine(f"m{call} {offset}")
        name = f"b{call} {offset}"
        faulty = wrapped.fail("a", Fault("get_ranges", call, Effect.CORRUPT, offset=offset))
        try:
            stores.get("a", version.id).push(stores.url(name))
        except CorruptObject:
            assert log_length(stores.url(name)) == 0
        else:
            wrapped.use("a")
            same(stores.url("a"), stores.url(name), version.id)
        if faulty[-1].unused():
            break
    assert call > 2


def test_a_tree_that_comes_out_as_another_is_not_committed(stores, monkeypatch, refused):
    first, second = two_versions(stores.home)
    first.push(stores.url("b"))
    real = bringing.relay

    def loses_a_row(*arguments):
        changes, packs = real(*arguments)
        return Changes(changes.entries.take(np.arange(len(changes.entries) - 1)), changes.removed), packs

    monkeypatch.setattr(bringing, "relay", loses_a_row)
    with refused(CorruptObject, second.id):
        second.push(stores.url("b"))
    assert log_length(stores.url("b")) == 1


# --- random histories ------------------------------------------------------------------------------------------------

CONTENTS = [b"", b"a", b"text\n" * 3_000, random.Random(1).randbytes(90_000), random.Random(2).randbytes(200_000)]
PATHS = ["a", "b", "d/e", "d/f/g", "x"]
edits = st.dictionaries(st.sampled_from(PATHS), st.sampled_from([*range(len(CONTENTS)), None]), max_size=4)
steps = st.tuples(
    edits, st.sets(st.integers(0, 5), max_size=2), st.sampled_from(["one", "two"]), st.sets(st.sampled_from("tu"))
)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=1, max_size=5), st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6))
def test_random_histories_pushed_in_any_order_and_in_any_part_are_the_same_there(history, pushes):
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        with pytest.MonkeyPatch.context() as patch:
            stores = Stores(Path(scratch), patch)
            patch.setenv("DATASET_STORE_CACHE", f"{scratch}/cache")
            patch.setenv("DATASET_STORE_DATA", f"{scratch}/own")
            stores.use("a")
            made = []
            for number, (changes, above, name, tags) in enumerate(history):
                made.append(
                    grown(
                        Path(scratch) / str(number),
                        changes,
                        [made[at] for at in sorted(above) if at < number],
                        name,
                        tags,
                    )
                )
            arrived = set()
            for which, whole in pushes:
                version = Dataset.get(made[which % len(made)])
                version.push(stores.url("b"), history=whole)
                arrived |= {row.id for row in version.log()} if whole else {version.id}
                check(stores, arrived)
            Dataset.clone_store(stores.url("a"), stores.url("b"))
            check(stores, made)
            before = log_length(stores.url("b")), pack_bytes(stores.home / "b")
            Dataset.clone_store(stores.url("a"), stores.url("b"), labels=True)
            assert (log_length(stores.url("b")), pack_bytes(stores.home / "b")) == before
        workspaces._open.clear()


def grown(folder, changes, parents, name, tags):
    """A version of its parents' files with some changed; its id."""
    draft = Dataset.create(name, "p", sorted(tags), parents)
    for path, content in changes.items():
        if content is None:
            draft.remove_files(path)
        else:
            draft.add_files(write(folder / path.replace("/", "_"), {path: CONTENTS[content]}))
    draft.finalize(auto_upload=True)
    return draft.id


def check(stores, ids):
    there = open_workspace(stores.url("b")).refresh()
    assert {version.id for version in there.live_versions()} == set(ids)
    for version_id in ids:
        same(stores.url("a"), stores.url("b"), version_id)


# --- what it costs ---------------------------------------------------------------------------------------------------


def two_of_many(stores, count):
    """A version of many short files that `b` has too, and a child of it in `a` with one file changed."""
    files = {f"{n % 100:02}/{n:05}": random.Random(n).randbytes(400) for n in range(count)}
    first = version_of(write(stores.home / "in", files))
    first.push(stores.url("b"))
    return first, version_of(write(stores.home / "in", {"37/00037": b"changed"}), parent_datasets=[first])


@pytest.mark.parametrize("count", [2_500, pytest.param(10_000, marks=pytest.mark.heavy)])
@pytest.mark.parametrize("machine", ["that pushed before", "that knows nothing"])
def test_one_changed_file_of_many_sends_and_asks_for_about_itself(stores, wrapped, another_machine, machine, count):
    _, second = two_of_many(stores, count)
    if machine == "that knows nothing":
        another_machine()
    backends = wrapped.count("a", "b")
    report = stores.get("a", second.id).push(stores.url("b"))
    a, b = backends["a"].snapshot(), backends["b"].snapshot()
    assert [row.outcome for row in report.versions] == ["there", "sent"]
    assert report.new_bytes == 7
    assert (b.calls["put"], b.calls["create"]) == (1, 1)
    assert b.bytes_written < 60_000  # a leaf and the nodes above it, in all
    assert a.bytes_read + b.bytes_read < 300_000
    assert a.total_calls + b.total_calls <= 30
    assert set(a.calls) <= {"get_many", "get_ranges"}


def test_where_nothing_is_new_each_store_is_asked_for_what_is_new_and_no_more(stores, wrapped):
    _, second = two_of_many(stores, 300)
    second.push(stores.url("b"))
    backends = wrapped.count("a", "b")
    for _ in range(2):
        stores.get("a", second.id).push(stores.url("b"))
    assert backends["a"].snapshot().calls == {"get_many": 2}
    assert backends["b"].snapshot().calls == {"get_many": 4}  # the store's config, and the slot after the last


def test_a_moved_folder_is_not_sent_again_though_this_machine_knows_nothing_of_it(stores, another_machine):
    _, second = two_of_many(stores, 2_000)
    second.push(stores.url("b"))
    (stores.home / "in" / "37").rename(stores.home / "in" / "moved")
    third = version_of(stores.home / "in", parent_datasets=[second])
    another_machine()
    assert stores.get("a", third.id).push(stores.url("b")).new_bytes == 0


def test_contents_elsewhere_in_the_tree_are_found_where_reading_that_costs_less_than_sending_them(
    stores, another_machine
):
    large = random.Random(5).randbytes(400_000)
    first = version_of(write(stores.home / "in", {"large": large} | {f"{n}": b"%d" % n for n in range(300)}))
    second = version_of(write(stores.home / "in", {"copy": large}), parent_datasets=[first])
    first.push(stores.url("b"))
    another_machine()
    assert stores.get("a", second.id).push(stores.url("b")).new_bytes == 0


# --- beside others ---------------------------------------------------------------------------------------------------


def collect_all(store, older_than=math.inf):
    """Condemn and delete every pack that nothing live needs, by default however young."""
    opened = open_workspace(store).store
    return collect(opened, NoSummaries(), older_than=older_than, now_ns=lambda: 1)


@pytest.mark.parametrize("when", ["before the tree is written", "before the entry is appended"])
def test_what_is_collected_before_it_is_committed_is_sent_again(
    stores, small_packs, monkeypatch, another_machine, when
):
    first, second = two_versions(stores.home)
    first.push(stores.url("b"))
    collected = []

    def beside(real):
        def call(*arguments):
            if len(collected) < 2:
                collected.append(collect_all(stores.url("b")))
            return real(*arguments)

        return call

    owner, name = (bringing, "write_tree") if when == "before the tree is written" else (bringing.Bringing, "_commit")
    monkeypatch.setattr(owner, name, beside(getattr(owner, name)))
    second.push(stores.url("b"))
    second.push(stores.url("c"))
    assert all(one.deleted for one in collected)
    collect_all(stores.url("b"))
    another_machine()
    for version in (first, second):
        same(stores.url("a"), stores.url("b"), version.id)


def test_a_base_that_is_deleted_and_collected_meanwhile_is_done_without(stores, monkeypatch, another_machine):
    first, second = two_of_many(stores, 1_500)
    for path in (stores.home / "b" / "packs").glob("*/*"):
        os.utime(path, (1, 1))
    commit, collected = bringing.Bringing._commit, []

    def beside(*arguments):
        if not collected:
            stores.use("b")
            Dataset.delete(first.id)
            collected.append(collect_all(stores.url("b"), older_than=1_000.0))  # but for what was put just now
        return commit(*arguments)

    monkeypatch.setattr(bringing.Bringing, "_commit", beside)
    report = second.push(stores.url("b"))
    assert [row.outcome for row in report.versions] == ["there", "sent"]
    assert collected[0].deleted
    collect_all(stores.url("b"))
    another_machine()
    same(stores.url("a"), stores.url("b"), second.id)


PUSH = """
import sys
from dataset_store import Dataset
sys.stdin.readline()
for _ in range(2):
    Dataset.get(sys.argv[1]).push(sys.argv[2])
"""


def test_processes_that_push_the_same_at_once_agree(stores):
    first, second = two_versions(stores.home)
    Dataset.clone_store(stores.url("a"), stores.url("b"), dataset_tags="none")
    words = [sys.executable, "-c", PUSH, second.id, stores.url("b")]
    running = [subprocess.Popen(words, stdin=subprocess.PIPE, text=True) for _ in range(3)]
    for process in running:
        process.stdin.write("go\n")
        process.stdin.close()
    assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
    assert log_length(stores.url("b")) == 3
    for version in (first, second):
        same(stores.url("a"), stores.url("b"), version.id)
