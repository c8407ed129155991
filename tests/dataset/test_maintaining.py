"""Collecting, repacking and expiring: what nobody needs goes, what somebody needs stays and is read as before."""

import os
import random
import shutil

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.core.catalog import Query
from dataset_store.core.log_entries import CondemnedEntry, HoldEntry
from dataset_store.dataset.catalog.changing import delete_versions
from dataset_store.dataset.checks.verifying import verify_stored
from dataset_store.dataset.upkeep.maintaining import (
    KeepRules,
    collect_garbage,
    drop_hold,
    expire,
    packs_of_version,
    repack_packs,
    wasteful_packs,
)
from dataset_store.dataset.uploads.uploading import upload_draft
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import (
    ChunksLost,
    CorruptObject,
    InvalidRequest,
    NotFound,
    ObjectMissing,
    StorageFailed,
    VersionDeleted,
)
from dataset_store.local import materialise
from dataset_store.storage import collecting
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.testing.folders import read, write


@pytest.fixture
def small_packs(monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 50_000)


def bytes_of(seed, size=60_000):
    return random.Random(seed).randbytes(size)


def packs_there(home):
    return {path.name for path in (home / "store" / "packs").rglob("*") if path.is_file()}


def entries_of(kind):
    workspace = open_workspace()
    workspace.refresh()
    log = workspace.store.catalog._log
    return [record.entry for record in log.read_after(log.start) if isinstance(record.entry, kind)]


def collect_all(**options):
    return collect_garbage(open_workspace(), min_age=0, apply=True, **options)


# --- collecting ----------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_go_and_changes_nothing(home):
    doomed = version_of(write(home / "one", {"a": bytes_of(1)}))
    version_of(write(home / "two", {"a": bytes_of(2)}), dataset_name="other")
    Dataset.delete(dataset_id=doomed.id)
    before, slots = packs_there(home), len(list((home / "store/log/catalog").iterdir()))
    found = collect_garbage(open_workspace(), min_age=0)
    assert {pack.name.hex() for pack in found.survey.dead} < before
    assert (found.slot, found.deleted) == (None, frozenset())
    assert packs_there(home) == before
    assert len(list((home / "store/log/catalog").iterdir())) == slots


def test_what_a_deleted_version_alone_needed_goes_and_the_others_read_as_before(home, another_machine):
    doomed = version_of(write(home / "one", {"a": bytes_of(1)}))
    kept = version_of(write(home / "two", {"b": bytes_of(2)}), dataset_name="other")
    Dataset.delete(dataset_id=doomed.id)
    before = packs_there(home)
    done = collect_all()
    assert done.deleted == done.survey.dead != frozenset()
    assert packs_there(home) == before - {pack.name.hex() for pack in done.deleted}
    another_machine()
    assert read(Dataset.get(kept.id).get_local_copy()) == read(home / "two")


def test_where_nothing_is_dead_no_entry_is_written(home):
    version_of(write(home / "one", {"a": b"a"}))
    done = collect_all()
    assert (done.slot, done.survey.dead, done.deleted) == (None, frozenset(), frozenset())
    assert len(done.survey.live) == len(packs_there(home))


def test_young_packs_are_left_unless_their_age_does_not_matter(home):
    dataset = Dataset.create(dataset_name="d", dataset_project="p")
    dataset.sync_folder(write(home / "one", {"a": bytes_of(1)}))
    dataset.upload()
    found = collect_garbage(open_workspace(), apply=True).survey
    assert len(found.young) == len(packs_there(home)) == 1
    assert collect_garbage(open_workspace(), min_age=0).survey.young == frozenset()


def test_packs_older_than_the_minimum_age_go(home):
    dataset = Dataset.create(dataset_name="d", dataset_project="p")
    dataset.sync_folder(write(home / "one", {"a": bytes_of(1)}))
    dataset.upload()
    for path in (home / "store" / "packs").rglob("*"):
        os.utime(path, (1_000_000, 1_000_000))
    assert len(collect_garbage(open_workspace(), apply=True).deleted) == 1
    assert packs_there(home) == set()


def test_a_collection_that_was_broken_off_after_its_entry_is_gone_on_with(home, monkeypatch):
    doomed = version_of(write(home / "one", {"a": bytes_of(1)}))
    Dataset.delete(dataset_id=doomed.id)

    def broken_off(*_arguments):
        raise StorageFailed("The power went.", "Again.")

    with monkeypatch.context() as patch:
        patch.setattr(collecting, "delete_condemned", broken_off)
        with pytest.raises(StorageFailed):
            collect_all()
    assert len(packs_there(home)) == 1
    again = collect_all()
    assert again.survey.doomed == again.deleted != frozenset()
    assert packs_there(home) == set()
    assert len(entries_of(CondemnedEntry)) == 1


def test_a_list_of_very_many_packs_is_kept_in_a_pack_and_never_collected(home, monkeypatch, another_machine):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 200)
    doomed = version_of(write(home / "one", {f"{n:04}": bytes_of(n, 300) * 500 for n in range(550)}))
    kept = version_of(write(home / "two", {"b": b"b"}), dataset_name="other")
    Dataset.delete(dataset_id=doomed.id)
    assert len(collect_all().deleted) > 500
    assert entries_of(CondemnedEntry)[0].packs is None
    another_machine()
    assert collect_all().deleted == frozenset()
    assert read(Dataset.get(kept.id).get_local_copy()) == {"b": b"b"}
    assert version_of(write(home / "one", {"c": b"c"}), dataset_name="third").is_final()


def test_nothing_is_collected_where_a_live_version_cannot_be_walked(home, another_machine):
    version_of(write(home / "one", {"a": bytes_of(1)}))
    doomed = version_of(write(home / "two", {"b": bytes_of(2)}), dataset_name="other")
    Dataset.delete(dataset_id=doomed.id)
    before = packs_there(home)
    lost = open_workspace().catalog.resolve(Query("p", "d")).entry.tree.place.pack
    (home / "store/packs" / lost[:2] / lost).unlink()
    another_machine()
    with pytest.raises(ObjectMissing):
        collect_all()
    assert packs_there(home) == before - {lost}


def test_metadata_kept_in_packs_lives_with_its_version(home, another_machine):
    dataset = version_of(write(home / "one", {"a": b"a"}))
    dataset.set_metadata({"long": "x" * 5_000, "random": bytes_of(1, 2_000).hex()}, "long")
    assert collect_all().deleted == frozenset()
    another_machine()
    assert Dataset.get(dataset.id).get_metadata("long")["long"] == "x" * 5_000
    Dataset.delete(dataset_id=dataset.id)
    collect_all()
    assert packs_there(home) == set()


def test_a_minimum_age_below_zero_is_refused(home, refused):
    version_of(write(home / "one", {"a": b"a"}))
    with refused(InvalidRequest):
        collect_garbage(open_workspace(), min_age=-1)


# --- drafts that lose what they had sent ---------------------------------------------------------------------------


def uploaded(home, files, **create):
    dataset = Dataset.create(**({"dataset_name": "d", "dataset_project": "p"} | create))
    dataset.sync_folder(write(home / "in", files))
    dataset.upload()
    return dataset


def test_a_draft_whose_packs_were_collected_sends_them_again_and_holds_them(home, another_machine):
    files = {"a": bytes_of(1), "b/c": b"small", "b/d": bytes_of(2, 300_000)}
    dataset = uploaded(home, files)
    assert len(collect_all().deleted) == 1
    dataset.finalize()
    assert len(entries_of(HoldEntry)) == 1
    assert open_workspace().catalog.packs.hold_ids == {}.keys(), "the version has ended the hold"
    assert collect_all().deleted == frozenset()
    another_machine()
    assert read(Dataset.get(dataset.id).get_local_copy()) == files


def test_a_draft_says_which_files_it_has_lost_and_goes_on_once_they_are_added_again(home, refused):
    files = {"a": bytes_of(1), "b": b"small"}
    dataset = uploaded(home, files)
    collect_all()
    shutil.rmtree(home / "in")
    with refused(ChunksLost, "a"):
        dataset.finalize()
    dataset = Dataset.get(dataset.id)
    dataset.sync_folder(write(home / "in", files))
    dataset.finalize(auto_upload=True)
    assert read(Dataset.get(dataset.id).get_local_copy()) == files


def test_a_file_that_changed_since_is_not_taken_for_what_was_lost(home, refused):
    dataset = uploaded(home, {"a": bytes_of(1)})
    collect_all()
    (home / "in" / "a").write_bytes(bytes_of(9))
    with refused(ChunksLost, "a"):
        dataset.finalize()


def test_what_lies_in_a_condemned_pack_that_is_still_there_is_copied_out_of_it(home, monkeypatch, another_machine):
    files = {"a": bytes_of(1), "b/c": b"small", "b/d": bytes_of(2, 300_000)}
    dataset = uploaded(home, files)
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "delete_condemned", lambda *_: frozenset())
        assert collect_all().slot is not None
    shutil.rmtree(home / "in")
    dataset.finalize()
    collect_all()
    another_machine()
    assert read(Dataset.get(dataset.id).get_local_copy()) == files


@pytest.mark.parametrize("deleted", [False, True], ids=["condemned", "gone"])
def test_a_child_of_a_version_that_was_collected_meanwhile_is_whole_or_says_what_it_lost(
    home, another_machine, monkeypatch, refused, deleted
):
    files = {f"d{n % 5}/f{n}": bytes_of(n, 900) for n in range(400)} | {"large": bytes_of(1, 400_000)}
    parent = version_of(write(home / "in", files))
    child = Dataset.create(parent_datasets=[parent.id])
    child.add_files(write(home / "more", {"new": b"new"}))
    child.upload()
    Dataset.delete(dataset_id=parent.id, force=True)
    with monkeypatch.context() as patch:
        if not deleted:
            patch.setattr(collecting, "delete_condemned", lambda *_: frozenset())
        collect_all()
    if deleted:
        with refused(ChunksLost, "401 files", "d0/f0"):
            child.finalize()
        child.sync_folder(write(home / "in", {"new": b"new"}))
    child.finalize(auto_upload=True)
    collect_all()
    another_machine()
    assert read(Dataset.get(child.id).get_local_copy()) == files | {"new": b"new"}


def test_long_metadata_of_a_draft_is_sent_again_too(home, another_machine):
    dataset = Dataset.create(dataset_name="d", dataset_project="p")
    dataset.add_files(write(home / "in", {"a": b"a"}))
    dataset.set_metadata({"long": bytes_of(3, 3_000).hex()}, "long")
    dataset.upload()
    collect_all()
    dataset.finalize()
    collect_all()
    another_machine()
    assert Dataset.get(dataset.id).get_metadata("long") == {"long": bytes_of(3, 3_000).hex()}


def test_a_discarded_draft_leaves_no_hold(home, monkeypatch):
    dataset = uploaded(home, {"a": bytes_of(1)})
    collect_all()
    monkeypatch.setattr(PackWriter, "flush", lambda _: (_ for _ in ()).throw(StorageFailed("Full.", "Again.")))
    with pytest.raises(StorageFailed):
        dataset.finalize()
    workspace = open_workspace()
    assert list(workspace.refresh().packs.hold_ids) == [dataset.id]
    Dataset.get(dataset.id).discard()
    assert not workspace.refresh().packs.hold_ids


def test_a_hold_of_a_machine_that_never_comes_back_can_be_dropped(home, refused):
    dataset = uploaded(home, {"a": bytes_of(1)})
    collect_all()
    workspace = open_workspace()
    upload_draft(workspace, workspace.draft(dataset.id), show_progress=False)
    (hold,) = workspace.refresh().packs.hold_ids
    assert len(collect_all().survey.held) == 1
    drop_hold(workspace, hold)
    assert len(collect_all().deleted) == 1
    with refused(NotFound, hold):
        drop_hold(workspace, hold)


def test_reading_a_version_that_was_deleted_meanwhile_says_so(home, another_machine, refused):
    dataset = version_of(write(home / "in", {"a": bytes_of(1)}))
    home_machine = open_workspace()
    another_machine()
    slow = Dataset.get(dataset.id)
    workspace = open_workspace()
    home_machine.refresh()
    delete_versions(home_machine, lambda catalog: [catalog.version(dataset.id)], force=False)
    collect_garbage(home_machine, min_age=0, apply=True)
    assert not workspace.catalog.version(dataset.id).deleted
    with refused(VersionDeleted, dataset.id):
        slow.get_local_copy()


# --- repacking -----------------------------------------------------------------------------------------------------


def half_dead(home):
    """A version of which another that was deleted left half of its packs dead."""
    doomed = version_of(write(home / "one", {f"{n}": bytes_of(n) for n in range(8)}))
    kept = Dataset.create(parent_datasets=[doomed.id])
    for number in range(1, 8):
        kept.remove_files(f"{number}")
    kept.finalize(auto_upload=True)
    Dataset.delete(dataset_id=doomed.id, force=True)
    collect_all()
    return kept


def repack_wasteful():
    workspace = open_workspace()
    return repack_packs(workspace, [one.pack for one in wasteful_packs(workspace)])


def test_repacking_drops_what_is_dead_and_everything_reads_as_before(home, another_machine):
    kept = half_dead(home)
    before = packs_there(home)
    done = repack_wasteful()
    assert done.new_bytes < 0.3 * done.bytes
    assert packs_there(home).isdisjoint({pack.name.hex() for pack in done.packs})
    assert len(packs_there(home)) <= len(before) + 1
    another_machine()
    assert read(Dataset.get(kept.id).get_local_copy()) == {"0": bytes_of(0)}
    assert repack_wasteful().slot is None, "nothing is left to be dropped"


def test_a_version_made_after_a_repack_uses_what_was_moved(home, another_machine):
    kept = half_dead(home)
    repack_wasteful()
    another_machine()
    child = Dataset.create(parent_datasets=[kept.id])
    child.add_files(write(home / "more", {"again": bytes_of(0), "new": b"new"}))
    child.upload()
    assert child.last_upload.new_bytes == 3
    child.finalize()
    collect_all()
    another_machine("third")
    assert read(Dataset.get(child.id).get_local_copy()) == {"0": bytes_of(0), "again": bytes_of(0), "new": b"new"}


def test_a_large_file_of_a_repacked_pack_is_read_piece_by_piece(home, another_machine, monkeypatch):
    """A run of frames is longer than what is asked for at once, and only as a whole it says where it is now."""
    folder = write(
        home / "in", {"large": random.Random(1).randbytes(3_000_000), "dead": random.Random(2).randbytes(900_000)}
    )
    first = version_of(folder)
    (folder / "dead").unlink()
    made = version_of(folder, parent_datasets=[first.id])
    Dataset.delete(first.id, force=True)
    workspace = open_workspace()
    repack_packs(workspace, [one.pack for one in packs_of_version(workspace, workspace.live_version(made.id))])
    monkeypatch.setattr(materialise, "_READ_BYTES", 100_000)
    another_machine()
    assert read(Dataset.get(made.id).get_local_copy()) == read(folder)


def test_packs_that_were_repacked_are_repacked_again_and_again(home, another_machine, small_packs):
    files = {f"d{n}/f": bytes_of(n) for n in range(6)} | {"large": bytes_of(7, 300_000)}
    version = version_of(write(home / "one", files))
    for _ in range(3):
        workspace = open_workspace()
        workspace.refresh()
        row = workspace.version(version.id)
        repack_packs(workspace, [one.pack for one in packs_of_version(workspace, row)], row)
        collect_all()
    another_machine()
    assert read(Dataset.get(version.id).get_local_copy()) == files
    assert verify_is_sound(version.id)


def verify_is_sound(version_id):
    return verify_stored(open_workspace(), version_id).sound


def test_a_machine_whose_fold_is_old_finds_what_was_moved(home, another_machine):
    kept = half_dead(home)
    at_home = open_workspace()
    another_machine()
    slow = Dataset.get(kept.id)
    repack_packs(at_home, [one.pack for one in wasteful_packs(at_home)])
    assert read(slow.get_local_copy()) == {"0": bytes_of(0)}


def test_a_repacked_version_lies_in_the_order_in_which_it_is_read(home, backends, another_machine):
    files = {f"d{n % 7}/f{n:03}": bytes_of(n, 5_000) for n in range(120)}
    version = version_of(write(home / "in", files))
    for number in range(40):
        changed = f"d{number * 3 % 7}/f{number * 3:03}"
        write(home / "in", {changed: bytes_of(1000 + number, 5_000), f"new{number}": bytes_of(2000 + number, 5_000)})
        version = version_of(home / "in", parent_datasets=[version.id])
    workspace = open_workspace()
    row = workspace.version(version.id)
    repack_packs(workspace, [one.pack for one in packs_of_version(workspace, row)], row)
    another_machine()
    dataset = Dataset.get(version.id)
    backends[-1].reset()
    assert read(dataset.get_local_copy()) == read(home / "in")
    counts = backends[-1].snapshot()
    size = sum(len(content) for content in read(home / "in").values())
    log = sum(key.startswith(("log/", "ckpt/")) for key in counts.keys_read)
    assert len(counts.keys_read) - log <= size / 2**23 + 20


def test_a_damaged_frame_is_not_copied(home, another_machine):
    kept = half_dead(home)
    workspace = open_workspace()
    found = wasteful_packs(workspace)
    for one in found:
        path = home / "store/packs" / one.pack.name.hex()[:2] / one.pack.name.hex()
        data = bytearray(path.read_bytes())
        data[80] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
    before = packs_there(home)
    with pytest.raises(CorruptObject):
        repack_packs(workspace, [one.pack for one in found])
    assert before <= packs_there(home)
    assert kept.id in {version.id for version in workspace.refresh().live_versions()}


def test_a_share_that_is_none_is_refused(home, refused):
    version_of(write(home / "one", {"a": b"a"}))
    for share in (0, -1, 1.5):
        with refused(InvalidRequest):
            wasteful_packs(open_workspace(), dead_share=share)


# --- expiring ------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(home):
    """Five versions of one dataset, each a child of the one before."""
    made = []
    for number in range(5):
        folder = write(home / "in", {"a": b"%d" % number})
        made.append(version_of(folder, parent_datasets=[made[-1].id] if made else None))
    return made


def numbers(versions):
    return [version.number for version in versions]


def test_a_rule_first_says_what_it_would_delete(five):
    found = expire(open_workspace(), Query("p", "d"), KeepRules(last=2))
    assert numbers(found.expired) == ["1.0.2", "1.0.1", "1.0.0"]
    assert [(version.number, why) for version, why in found.kept] == [
        ("1.0.4", "one of the last 2"),
        ("1.0.3", "one of the last 2"),
    ]
    assert len(list(open_workspace().refresh().live_versions())) == 5


def test_an_applied_rule_deletes_and_what_is_left_is_whole(five, another_machine):
    expire(open_workspace(), Query("p", "d"), KeepRules(last=2), apply=True)
    collect_all()
    another_machine()
    assert [row.number for row in open_workspace().refresh().live_versions()] == ["1.0.3", "1.0.4"]
    assert read(Dataset.get(five[4].id).get_local_copy()) == {"a": b"4"}
    assert list(Dataset.get(five[4].id).get_dependency_graph()[five[4].id]) == [five[3].id]


def test_tagged_published_and_young_versions_and_parents_of_drafts_are_kept(five):
    five[0].add_tags(["gold"])
    five[1].publish()
    Dataset.create(parent_datasets=[five[2].id])
    workspace = open_workspace()
    workspace.refresh()
    found = expire(workspace, Query("p", "d"), KeepRules(last=0, tagged=True))
    assert {version.number: why for version, why in found.kept} == {
        "1.0.0": "tagged gold",
        "1.0.1": "published",
        "1.0.2": "a draft is made from it",
    }
    assert numbers(found.expired) == ["1.0.4", "1.0.3"]
    assert expire(workspace, Query("p", "d"), KeepRules(within=3600)).expired == ()
    assert numbers(expire(workspace, Query("p", "d"), KeepRules(last=0, tags=frozenset({"x"}))).expired) == [
        "1.0.4",
        "1.0.3",
        "1.0.0",
    ]


def test_rules_count_for_each_dataset_alone(home, five):
    version_of(write(home / "in", {"a": b"x"}), dataset_name="other")
    assert len(expire(open_workspace(), Query("p"), KeepRules(last=1)).kept) == 2


def test_a_rule_that_says_nothing_and_a_dataset_that_is_not_there_are_refused(five, refused):
    with refused(InvalidRequest):
        expire(open_workspace(), Query("p", "d"), KeepRules())
    with refused(InvalidRequest):
        expire(open_workspace(), Query("p", "d"), KeepRules(last=-1))
    with refused(NotFound):
        expire(open_workspace(), Query("p", "none"), KeepRules(last=1))
