"""Versions pushed, pulled and cloned between stores are the same there; what cannot be is refused beforehand."""

import os
import random

import numpy as np
import pytest
from msgspec.structs import replace
from stores import Stores, log_length, pack_bytes, rows_of, same, snapshot
from versions import version_of

from dataset_store import Dataset
from dataset_store.core.chunking import ChunkerParams
from dataset_store.core.entries import LISTED
from dataset_store.core.log_entries import Producer
from dataset_store.core.producer import current_producer
from dataset_store.dataset import workspace as workspaces
from dataset_store.dataset.transfers import arriving, bringing, relaying
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import (
    Conflict,
    DatasetNotFound,
    InvalidRequest,
    NotFinal,
    StoreNotFound,
    VersionExists,
)
from dataset_store.testing.folders import write

LONG = random.Random(1).randbytes(700_000)


@pytest.fixture
def stores(home, monkeypatch):
    """The store in force is `a`; there are no others yet."""
    made = Stores(home, monkeypatch)
    made.use("a")
    return made


def everything(home):
    """A folder of every kind of entry that a folder has, with contents in one chunk, in several and in none."""
    shorts = {f"short/{number:03}": random.Random(number).randbytes(3_000) for number in range(120)}
    files = {"long": LONG, "text": b"text that repeats\n" * 5_000, "zeros": bytes(600_000), "empty": b""}
    folder = write(home / "in", {**shorts, **files})
    (folder / "text").chmod(0o755)
    (folder / "hollow").mkdir(exist_ok=True)
    (folder / "link").symlink_to("short/001")
    return folder


def changed(folder):
    """The same folder with a file edited in its middle, others added, moved, removed."""
    (folder / "long").write_bytes(LONG[:300_000] + b"put in between" + LONG[300_000:])
    (folder / "short" / "000").write_bytes(b"other")
    (folder / "short" / "001").rename(folder / "moved")
    (folder / "short" / "002").unlink()
    (folder / "link").unlink()
    (folder / "again").write_bytes(LONG)
    return folder


@pytest.fixture
def two(stores):
    """Two versions of `a`, a parent and its child, with all that can be said of a version."""
    far = write(stores.home / "far", {"one": b"one" * 100, "sub/two": LONG})
    token = current_producer.set(Producer(kind="task", id="t1", name="a task"))
    try:
        first = Dataset.create(
            "d", "p", dataset_tags=["raw", "first"], use_current_task=True, description="of a folder"
        )
    finally:
        current_producer.reset(token)
    first.sync_folder(everything(stores.home))
    first.add_external_files(f"file://{far}/one", dataset_path="linked")
    first.add_external_files(f"file://{far}/sub", dataset_path="linked", read_hash=True)
    first.set_metadata({"long": "x" * 200_000}, "long")
    first.set_metadata(1, "short")
    first.get_logger().report_scalar("loss", "train", 0.5, 1)
    first.finalize(auto_upload=True)
    second = version_of(changed(stores.home / "in"), parent_datasets=[first], dataset_tags=["latest"])
    second.set_metadata(np.arange(50_000), "array")
    second.set_description("made after")
    second.get_logger().report_single_value("score", 1.0)
    second.add_tags("good")
    second.publish()
    first.archive()
    return first, second


# --- what a version is there -----------------------------------------------------------------------------------------


def test_a_pushed_version_is_there_what_it_is_here_and_so_are_its_ancestors(stores, two):
    report = two[1].push(stores.url("b"))
    assert [(row.id, row.outcome) for row in report.versions] == [(one.id, "sent") for one in two]
    for version in two:
        same(stores.url("a"), stores.url("b"), version.id)
    stores.use("b")
    found = Dataset.get(dataset_project="p", dataset_name="d")
    assert found.id == two[1].id
    assert found.list_modified_files() == two[1].list_modified_files()
    assert str(found.log()) == str(two[1].log())
    assert found.diff(two[0].id).renamed == [("short/001", "moved")]


def test_on_another_machine_too(stores, two, another_machine):
    another_machine()
    stores.get("a", two[1].id).push(stores.url("b"))
    another_machine("third")
    for version in two:
        same(stores.url("a"), stores.url("b"), version.id)


def test_pushed_twice_changes_nothing(stores, two):
    two[1].push(stores.url("b"))
    before = log_length(stores.url("b")), pack_bytes(stores.home / "b")
    report = two[1].push(stores.url("b"), labels=True)
    assert [row.outcome for row in report.versions] == ["there", "there"]
    assert (log_length(stores.url("b")), pack_bytes(stores.home / "b")) == before


def test_a_pulled_version_can_be_gone_on_with_and_pushed_back(stores, two):
    stores.use("b")
    found = Dataset.pull(stores.url("a"), dataset_name="d")
    assert (found.id, found.version) == (two[1].id, "1.0.1")
    copy = found.get_mutable_local_copy(stores.home / "work")
    write(stores.home / "work", {"new": b"new"})
    third = Dataset.create(parent_datasets=[found])
    assert third.sync_folder(copy) == (0, 1, 0)
    third.finalize(auto_upload=True)
    report = third.push(stores.url("a"))
    assert [row.outcome for row in report.versions] == ["there", "there", "sent"]
    same(stores.url("b"), stores.url("a"), third.id)
    assert stores.get("a", third.id).version == "1.0.2"


def test_a_clone_holds_every_version_and_another_one_adds_what_is_new(stores, two):
    apart = version_of(write(stores.home / "apart", {"x": LONG[:50_000]}), dataset_name="e", dataset_project="")
    merged = Dataset.create("m", "p", parent_datasets=[two[1], apart])
    merged.finalize(auto_upload=True)
    Dataset.clone_store(stores.url("a"), stores.url("b"))
    for version in (*two, apart, merged):
        same(stores.url("a"), stores.url("b"), version.id)
    later = version_of(
        write(stores.home / "apart", {"y": b"y"}), parent_datasets=[apart], dataset_name="e", dataset_project=""
    )
    report = Dataset.clone_store(stores.url("a"), stores.url("b"), dataset_name="e")
    assert [(row.id, row.outcome) for row in report.versions] == [(apart.id, "there"), (later.id, "sent")]
    stores.use("b")
    assert Dataset.clone_store(stores.url("a")).of("sent") == []


def test_packs_may_lie_elsewhere_on_either_side(stores, another_machine):
    first = version_of(everything(stores.home), output_uri=str(stores.home / "far a"))
    second = version_of(changed(stores.home / "in"), parent_datasets=[first])
    second.push(stores.url("b"), output_uri=str(stores.home / "far b"))
    third = version_of(write(stores.home / "in", {"more": b"more"}), parent_datasets=[second])
    third.push(stores.url("b"))
    third.push(stores.url("c"))
    another_machine()
    for version in (first, second, third):
        same(stores.url("a"), stores.url("b"), version.id)
        same(stores.url("a"), stores.url("c"), version.id)
        assert stores.get("b", version.id).get_default_storage() == f"file://{stores.home}/far b".replace(" ", "%20")
        assert stores.get("c", version.id).get_default_storage() == f"file://{stores.home}/c"
    assert not pack_bytes(stores.home / "b")


def test_times_and_origins_come_along_where_versions_of_the_same_files_are_no_ancestors(stores):
    folder = everything(stores.home)
    first = version_of(folder)
    os.utime(folder / "text", (1, 1))
    second, flat = version_of(folder), Dataset.squash("flat", dataset_ids=[first.id])
    for version in (first, second, flat):
        version.push(stores.url("b"))
        same(stores.url("a"), stores.url("b"), version.id)


def test_frames_that_are_wanted_whole_travel_as_they_are_stored(stores):
    version = version_of(everything(stores.home))
    row = version.push(stores.url("b")).versions[0]
    assert row.new_bytes == version.last_upload.new_bytes
    assert pack_bytes(stores.home / "b") == row.stored
    one, other = (rows_of(stores.url(name), version.id).segments for name in "ab")
    assert (one.offset.tolist(), one.stored.tolist()) == (other.offset.tolist(), other.stored.tolist())


def test_of_a_frame_that_the_target_has_in_part_the_rest_is_gathered_anew(stores, another_machine):
    files = {f"{number:03}": random.Random(number).randbytes(3_000) for number in range(200)}
    every = version_of(write(stores.home / "every", files))
    stores.use("b")
    half = version_of(write(stores.home / "half", {path: files[path] for path in sorted(files)[::2]}), dataset_name="h")
    stores.use("a")
    report = every.push(stores.url("b"))
    assert report.new_bytes == 300_000
    same(stores.url("a"), stores.url("b"), every.id)
    segments = rows_of(stores.url("b"), every.id).segments
    assert len({(segments.pack[at], segments.offset[at]) for at in range(len(segments))}) <= 6
    assert half.id != every.id


def test_a_file_of_very_many_segments_keeps_them_in_a_list(stores, monkeypatch):
    monkeypatch.setattr("dataset_store.local.ingest.RUNS_PER_READ", 10_000)
    monkeypatch.setattr(relaying, "RUNS_PER_READ", 10_000)
    pieces = [random.Random(number).randbytes(140_000) for number in range(80)]
    first = version_of(write(stores.home / "in", {f"{at:03}": one for at, one in enumerate(pieces)}))
    second = version_of(write(stores.home / "in", {"all": b"".join(pieces[::-1])}), parent_datasets=[first])
    assert (rows_of(stores.url("a"), second.id).kinds & LISTED).any()
    report = second.push(stores.url("b"))
    assert (rows_of(stores.url("b"), second.id).kinds & LISTED).any()
    assert report.versions[1].new_bytes == second.last_upload.new_bytes < 80 * 140_000
    second.push(stores.url("c"), history=False)
    same(stores.url("a"), stores.url("b"), second.id)
    same(stores.url("a"), stores.url("c"), second.id)


def test_a_tree_of_very_many_entries_is_sent_in_parts(stores, monkeypatch):
    monkeypatch.setattr(bringing, "_MOST_ENTRIES", 300)
    version = version_of(write(stores.home / "in", {f"{number:05}": b"%d" % number for number in range(1_200)}))
    report = version.push(stores.url("b"))
    assert report.packs > 3
    same(stores.url("a"), stores.url("b"), version.id)


def test_stores_that_cut_files_otherwise_hold_the_same_files(stores, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(ChunkerParams, "name", ChunkerParams(4_096).name)
        stores.use("b")
        other = version_of(everything(stores.home), dataset_name="other")
    assert open_workspace(stores.url("b")).store.chunker.average == 4_096
    stores.use("a")
    first = version_of(stores.home / "in")
    second = version_of(changed(stores.home / "in"), parent_datasets=[first])
    assert open_workspace(stores.url("a")).store.chunker.average == 65_536
    second.push(stores.url("b"))
    for version in (first, second):
        same(stores.url("a"), stores.url("b"), version.id)
    other.push(stores.url("c"))
    same(stores.url("b"), stores.url("c"), other.id)


@pytest.mark.parametrize("base", ["memory", "s3"])
def test_buckets_are_stores_like_any(stores, two, s3_bucket, base, another_machine):
    url = {"memory": "memory://", "s3": f"{s3_bucket}/"}[base] + os.urandom(8).hex()
    two[1].push(url)
    another_machine()
    stores.use("c")
    assert Dataset.pull(url, two[1].id).id == two[1].id
    for version in two:
        same(stores.url("a"), stores.url("c"), version.id)


# --- histories in part -----------------------------------------------------------------------------------------------


def chain(stores, count):
    """Versions of one file more each, each the parent of the next."""
    made = []
    for number in range(count):
        write(stores.home / "in", {f"{number}": b"%d" % number})
        made.append(version_of(stores.home / "in", parent_datasets=made[-1:]))
    return made


def test_without_its_history_a_version_names_parents_that_are_not_there(stores):
    first, second, third = chain(stores, 3)
    report = third.push(stores.url("b"), history=False)
    assert [row.id for row in report.versions] == [third.id]
    same(stores.url("a"), stores.url("b"), third.id)
    found = stores.get("b", third.id)
    assert found.get_dependency_graph() == {third.id: [second.id]}
    assert third.id in str(found.log())
    with pytest.raises(DatasetNotFound, match=second.id):
        found.list_added_files()
    found.get_logger().report_text("still alive")
    first.push(stores.url("b"))
    second.push(stores.url("b"))
    assert [row.id for row in found.log()] == [third.id, second.id, first.id]
    assert found.list_added_files() == ["2"]


def test_versions_whose_common_parent_is_absent_can_be_merged(stores):
    (root,) = chain(stores, 1)
    sides = [
        version_of(write(stores.home / side, {"0": b"0", side: b"s"}), parent_datasets=[root]) for side in ("l", "r")
    ]
    for side in sides:
        side.push(stores.url("b"), history=False)
    stores.use("b")
    both = Dataset.create(parent_datasets=[one.id for one in sides])
    both.finalize(auto_upload=True)
    assert both.list_files() == ["0", "l", "r"]
    assert Dataset.get(both.id).get_local_copy()


def test_of_a_history_only_what_lives_goes_along(stores):
    first, second, third = chain(stores, 3)
    Dataset.delete(second.id, force=True)
    report = third.push(stores.url("b"))
    assert [row.id for row in report.versions] == [first.id, third.id]
    same(stores.url("a"), stores.url("b"), third.id)
    with pytest.raises(DatasetNotFound):
        Dataset.pull(stores.url("a"), second.id)


def test_an_ancestor_that_was_deleted_there_is_passed_over_and_one_that_is_asked_for_is_a_conflict(stores, refused):
    first, second = chain(stores, 2)
    first.push(stores.url("b"))
    stores.use("b")
    Dataset.delete(first.id)
    with refused(Conflict, first.id):
        first.push(stores.url("b"))
    report = second.push(stores.url("b"))
    assert [row.outcome for row in report.versions] == ["deleted there", "sent"]
    same(stores.url("a"), stores.url("b"), second.id)


# --- names, numbers, labels ------------------------------------------------------------------------------------------


def test_a_renamed_dataset_is_known_again_under_either_name(stores):
    first, second = chain(stores, 2)
    first.push(stores.url("b"))
    Dataset.rename("here", "p", "d")
    stores.use("b")
    Dataset.rename("there", "p", "d")
    row = second.push(stores.url("b")).versions[-1]
    assert (row.name, row.number) == ("there", "1.0.1")
    assert stores.get("a", second.id).name == "here"


def test_a_dataset_begun_apart_is_a_conflict_until_it_is_given_a_name(stores, refused):
    first, second, third = chain(stores, 3)
    stores.use("b")
    other = version_of(write(stores.home / "other", {"x": b"x"}), dataset_version="7.0")
    before = log_length(stores.url("b")), pack_bytes(stores.home / "b")
    with refused(Conflict, "p/d"):
        second.push(stores.url("b"))
    assert (log_length(stores.url("b")), pack_bytes(stores.home / "b")) == before
    first.push(stores.url("b"), as_name="elsewhere", as_project="q")
    assert (stores.get("b", first.id).project, stores.get("b", first.id).name) == ("q", "elsewhere")
    assert second.push(stores.url("b")).versions[-1].name == "elsewhere"
    third.push(stores.url("b"), as_name="d")
    assert [row["id"] for row in Dataset.list_datasets(partial_name="^d$")] == [third.id, other.id]
    same(stores.url("a"), stores.url("b"), third.id)


def test_versions_given_to_a_dataset_of_that_name_are_followed_by_later_ones(stores):
    stores.use("b")
    version_of(write(stores.home / "other", {"x": b"x"}), dataset_version="7.0")
    stores.use("a")
    first, second = chain(stores, 2)
    first.push(stores.url("b"), as_name="d")
    second.push(stores.url("b"))
    stores.use("b")
    assert len(Dataset.list_datasets(partial_name="^d$")) == 3
    assert Dataset.get(dataset_name="d").version == "7.0"


def test_a_number_that_another_version_has_there_is_a_conflict_or_another_number(stores, refused):
    (first,) = chain(stores, 1)
    first.push(stores.url("b"))
    ours = version_of(write(stores.home / "in", {"ours": b"1"}), parent_datasets=[first])
    stores.use("b")
    theirs = version_of(write(stores.home / "in", {"theirs": b"1"}), parent_datasets=[first])
    assert ours.version == theirs.version == "1.0.1"
    before = log_length(stores.url("b"))
    with refused(VersionExists, "p/d 1.0.1", theirs.id):
        ours.push(stores.url("b"))
    assert log_length(stores.url("b")) == before
    report = ours.push(stores.url("b"), renumber=True)
    assert report.versions[-1].number == "1.0.2"
    same(stores.url("a"), stores.url("b"), ours.id, number="1.0.2")
    assert Dataset.pull(stores.url("a"), ours.id).version == "1.0.2"


def test_a_number_that_somebody_takes_meanwhile_is_a_conflict_too(stores, monkeypatch):
    (first,) = chain(stores, 1)
    first.push(stores.url("b"))
    ours = version_of(write(stores.home / "in", {"ours": b"1"}), parent_datasets=[first])
    relay = bringing.relay

    def meanwhile(*arguments):
        stores.use("b")
        version_of(write(stores.home / "in", {"theirs": b"1"}), parent_datasets=[first.id])
        return relay(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(bringing, "relay", meanwhile)
        with pytest.raises(VersionExists):
            ours.push(stores.url("b"))
    assert ours.push(stores.url("b"), renumber=True).versions[-1].number == "1.0.2"


def test_labels_come_along_once_and_then_only_where_that_is_asked_for(stores, two):
    first, second = two
    second.push(stores.url("b"))
    second.remove_tags("latest")
    second.set_description("another")
    second.set_metadata(2, "number")
    first.set_metadata(5, "short")
    first.unarchive()
    there = stores.get("b", second.id)
    there.add_tags("theirs")
    report = second.push(stores.url("b"))
    assert [row.labels_differ for row in report.versions] == [True, True]
    assert (there.tags, there.description) == (["good", "latest", "theirs"], "made after")
    assert there.get_metadata("number") == 2  # it had none of that name
    assert stores.get("b", first.id).get_metadata("short") == 1
    second.push(stores.url("b"), labels=True)
    for version in two:
        same(stores.url("a"), stores.url("b"), version.id)


def test_what_was_taken_away_there_is_not_brought_again(stores, two):
    first, second = two
    second.push(stores.url("b"))
    stores.get("b", first.id).unarchive()
    second.set_metadata(2, "later")
    second.push(stores.url("b"))
    there = stores.get("b", second.id)
    there.set_metadata(3, "later")
    second.push(stores.url("b"))
    assert there.get_metadata("later") == 3
    assert not open_workspace().catalog.version(first.id).archived


def test_more_metadata_than_an_entry_holds_follows_it_once(stores, monkeypatch):
    (version,) = chain(stores, 1)
    for number in range(130):
        version.get_logger().report_text(f"{number} " + "x" * 400, print_console=False)
    said, calls = arriving.set_piece, []

    def breaks_off(*arguments):
        calls.append(arguments)
        if len(calls) == 50:
            raise KeyboardInterrupt
        said(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(arriving, "set_piece", breaks_off)
        with pytest.raises(KeyboardInterrupt):
            version.push(stores.url("b"))
    version.push(stores.url("b"))
    assert log_length(stores.url("b")) == 131
    same(stores.url("a"), stores.url("b"), version.id)
    assert stores.get("b", version.id).reports == stores.get("a", version.id).reports


# --- what is refused, and what is only told --------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_sent_and_writes_nothing(stores, two):
    told = two[1].push(stores.url("b"), dry_run=True)
    assert not (stores.home / "b").exists()
    done = two[1].push(stores.url("b"))
    assert [row.outcome for row in told.versions] == ["to send", "to send"]
    for plan, row in zip(told.versions, done.versions, strict=True):
        assert (plan.id, plan.project, plan.name, plan.number) == (row.id, row.project, row.name, row.number)
        assert plan.files == row.files
        assert plan.new_bytes >= row.new_bytes
    third = version_of(write(stores.home / "in", {"more": b"more"}), parent_datasets=[two[1]])
    before = log_length(stores.url("b")), pack_bytes(stores.home / "b")
    told = third.push(stores.url("b"), dry_run=True)
    assert [(row.outcome, row.new_bytes) for row in told.versions] == [("there", 0), ("there", 0), ("to send", 4)]
    assert (log_length(stores.url("b")), pack_bytes(stores.home / "b")) == before


def test_what_cannot_be_transferred_is_refused(stores, refused):
    (version,) = chain(stores, 1)
    other = version_of(stores.home / "in", dataset_name="e")
    with refused(InvalidRequest, "file://"):
        version.push(stores.url("a"))
    with refused(NotFinal):
        Dataset.create("x").push(stores.url("b"))
    with refused(StoreNotFound):
        Dataset.pull(stores.url("nowhere"), dataset_name="d")
    with refused(InvalidRequest):
        Dataset.pull(stores.url("a"))
    with refused(InvalidRequest):
        Dataset.pull(stores.url("a"), version.id, dataset_name="d")
    merged = Dataset.create("m", "p", parent_datasets=[version, other])
    merged.finalize(auto_upload=True)
    assert not (stores.home / "b").exists()
    merged.push(stores.url("b"), as_name="n")
    assert [row["name"] for row in reversed(Dataset.list_datasets())] == ["d", "e", "m"]
    stores.use("b")
    assert [row["name"] for row in reversed(Dataset.list_datasets())] == ["d", "e", "n"]
    Dataset.set_offline(True)
    try:
        with refused(InvalidRequest, "offline"):
            version.push(stores.url("c"))
    finally:
        Dataset.set_offline(False)


def test_an_id_that_names_other_files_there_is_a_conflict(stores, refused, monkeypatch):
    first, second = chain(stores, 2)
    first.push(stores.url("b"))
    catalog = open_workspace(stores.url("b")).catalog
    version = catalog.version(first.id)
    digest = snapshot(stores.url("a"), second.id, files=False)["digest"]
    forged = replace(version.entry, tree=replace(version.entry.tree, digest=digest))
    catalog._change(first.id, entry=forged)
    with refused(Conflict, first.id):
        second.push(stores.url("b"))
    workspaces._open.clear()
