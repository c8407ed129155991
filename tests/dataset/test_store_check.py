"""Verifying a whole store: each kind of damage is told by its id, where it is, and what it affects; nothing else is."""

import random
from pathlib import Path

import pytest
from versions import version_of

from dataset_store import Dataset
from dataset_store.core.packfile import PackRef
from dataset_store.dataset.checks.repairing import repair_store
from dataset_store.dataset.checks.store_check import verify_store
from dataset_store.dataset.checks.surveying import EVERY_BYTE, STRUCTURE, Depth
from dataset_store.dataset.checks.walking import LiveTrees
from dataset_store.dataset.upkeep.maintaining import collect_garbage, repack_packs, wasteful_packs
from dataset_store.dataset.workspace import open_workspace
from dataset_store.errors import InvalidRequest, StorageFailed
from dataset_store.storage.findings import FINDINGS, Severity
from dataset_store.storage.pack_writer import PackWriter
from dataset_store.storage.posix_backend import PosixBackend
from dataset_store.testing.folders import write

FIRST = {"a": random.Random(1).randbytes(300_000), "b": b"b" * 1000, "sub/c": b"c" * 2000}
SECOND = FIRST | {"b": b"other", "new": random.Random(2).randbytes(200_000)}


@pytest.fixture
def versions(home):
    """Two versions of a dataset, in packs of about 100 kB."""
    first = version_of(write(home / "one", FIRST))
    second = version_of(write(home / "two", SECOND), parent_datasets=[first.id])
    return first.id, second.id


def packs_there(home):
    return sorted(path for path in (home / "store" / "packs").rglob("*") if path.is_file())


def change(path, at, count=1):
    data = bytearray(path.read_bytes())
    for place in range(at, at + count):
        data[place] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def check(depth=EVERY_BYTE):
    return verify_store(open_workspace(), depth)


def damage(found):
    return [one for one in found.findings if one.severity is not Severity.INFORMATION]


def footers():
    workspace = open_workspace()
    workspace.refresh()
    found = {}
    for row in workspace.store.backend.list("packs"):
        ref = PackRef(0, bytes.fromhex(row.key.rpartition("/")[2]))
        (found[ref],) = workspace.store.packs.read_footers([ref])
    return found


def test_a_whole_store_is_found_whole_at_every_depth(home, versions):
    for depth in (EVERY_BYTE, STRUCTURE, Depth(0.5)):
        found = check(depth)
        assert (found.sound, found.findings, found.affected) == (True, (), ())
        assert (found.slots, found.versions, found.packs) == (2, 2, len(packs_there(home)))
    assert check().frames == check().frames_read
    assert check(STRUCTURE).frames_read < check().frames
    assert check().overlooked is None


def test_every_frame_of_every_pack_is_told_when_it_is_damaged(home, versions):
    for ref, footer in footers().items():
        path = home / "store/packs" / ref.name.hex()[:2] / ref.name.hex()
        whole = path.read_bytes()
        for offset, stored in zip(footer.offsets.tolist(), footer.stored.tolist(), strict=True):
            change(path, offset + 1)
            (one,) = damage(check())
            assert (one.id, one.pack, one.offset, one.length) == ("frame-damaged", ref, offset, stored)
            path.write_bytes(whole)


def test_what_a_lost_pack_affects_is_told_by_version_and_path(home, versions, another_machine):
    first, second = versions
    workspace = open_workspace()
    root = workspace.version(second).entry.tree.place.pack
    (lost,) = [path for path in packs_there(home) if path.name == root]
    lost.unlink()
    found = check(STRUCTURE)
    assert [one.id for one in damage(found)] == ["pack-missing"]
    assert [(one.id, one.paths) for one in found.affected] == [(second, ("a", "b", "new", "sub/c"))], "by the cache"
    another_machine()
    found = check(STRUCTURE)
    assert [one.id for one in found.affected] == [second]
    assert sum(part.entries for part in found.affected[0].lost) == 4


def test_a_damaged_frame_affects_just_the_files_in_it(home, versions):
    first, second = versions
    for ref, footer in footers().items():
        rows = [row for row in range(len(footer.offsets)) if footer.chunk_counts[row] == 1 and footer.kinds[row] == 1]
        path = home / "store/packs" / ref.name.hex()[:2] / ref.name.hex()
        large = [row for row in rows if footer.plain_lengths()[row] > 5_000]
        if large:
            whole = path.read_bytes()
            change(path, int(footer.offsets[large[0]]) + 500)
            found = check()
            assert {one for version in found.affected for one in version.paths} in ({"a"}, {"new"})
            path.write_bytes(whole)


def test_a_damaged_header_and_footer_are_no_loss_and_told(home, versions):
    path = packs_there(home)[0]
    change(path, 3)
    assert [one.id for one in damage(check(STRUCTURE))] == ["pack-header-damaged"]
    change(path, 3)
    change(path, path.stat().st_size - 70)
    found = check()
    assert [(one.id, one.severity) for one in damage(found)] == [("pack-footer-damaged", Severity.SHOULD)]
    assert found.affected == ()


def test_a_damaged_frame_behind_a_damaged_footer_is_found_by_what_trees_say(home, versions):
    for ref, footer in footers().items():
        path = home / "store/packs" / ref.name.hex()[:2] / ref.name.hex()
        whole = path.read_bytes()
        change(path, len(whole) - 70)
        broken = path.read_bytes()
        for offset, stored in zip(footer.offsets.tolist(), footer.stored.tolist(), strict=True):
            change(path, offset + stored - 1)
            told = [one for one in damage(check()) if one.offset is not None]
            assert any(one.offset <= offset < one.offset + one.length for one in told)
            path.write_bytes(broken)
        path.write_bytes(whole)


@pytest.mark.parametrize("names", ["ab", "a"], ids=["another file follows", "the last file"])
def test_behind_a_damaged_frame_header_and_without_a_footer_the_rest_of_the_file_is_told(home, names):
    noise = random.Random(3).randbytes
    version_of(write(home / "in", {name: noise(2_000_000) for name in names}))
    ((ref, footer),) = footers().items()
    path = home / "store/packs" / ref.name.hex()[:2] / ref.name.hex()
    data = footer.offsets[footer.kinds == 1].tolist()
    change(path, path.stat().st_size - 70)
    for at in (
        header := data[3] + 17,
        in_a := data[10] + 500,
        in_b := data[-2] + 500,
    ):  # the first is how many chunks there are
        change(path, at)
    told = [one for one in damage(check()) if one.offset is not None]
    for at in (header, in_a, in_b):
        assert any(one.offset <= at < one.offset + one.length for one in told), at
    in_front = [one.id for one in told if one.offset <= data[1] < one.offset + one.length]
    assert in_front == ["frame-unverified"], "it may be whole, and only the digest of the whole run could tell"


def test_what_cannot_be_compared_as_its_run_is_damaged_elsewhere_is_told_beside_it(home):
    version_of(write(home / "in", {"a": random.Random(4).randbytes(2_000_000), "b": b"b" * 100}))
    ((ref, footer),) = footers().items()
    path = home / "store/packs" / ref.name.hex()[:2] / ref.name.hex()
    data = footer.offsets[footer.kinds == 1].tolist()
    for at in (path.stat().st_size - 70, header := data[5] + 17):
        change(path, at)
    for damaged_too in (False, True):
        if damaged_too:
            change(path, data[2] + 500)
        rows = [one for one in damage(check()) if one.offset is not None]
        damaged = [(one.offset, one.offset + one.length) for one in rows if one.id == "frame-damaged"]
        unverified = [(one.offset, one.offset + one.length) for one in rows if one.id == "frame-unverified"]
        assert min(damaged)[0] == data[5]
        assert any(start <= header < stop for start, stop in damaged)
        assert unverified == [(data[1], data[5])], "from behind the small file to the damage"
    assert [one.paths for one in check().affected] == [("a",)]


def test_a_pack_that_was_cut_is_told(home, versions):
    path = packs_there(home)[0]
    data = path.read_bytes()
    path.chmod(0o644)
    for length in (0, 30, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        found = check()
        assert {"pack-footer-damaged"} <= {one.id for one in damage(found)}
        assert bool(found.affected) == (length < len(data) - 1)


@pytest.mark.parametrize("slot", [0, 1])
def test_a_damaged_or_missing_log_entry_is_told(home, versions, slot):
    path = home / f"store/log/catalog/{slot:012d}"
    whole = path.read_bytes()
    change(path, 40)
    (one, *_) = damage(check())
    assert (one.id, one.object) == ("entry-damaged", f"log/catalog/{slot:012d}")
    path.unlink()
    kinds = {one.id: one.object for one in damage(check())}
    assert kinds["log-cut" if slot else "log-hole"] == f"log/catalog/{slot:012d}"
    path.write_bytes(whole)
    assert check().sound


def test_a_damaged_config_is_told(home, versions):
    change(home / "store/config", 40)
    assert [one.id for one in damage(check())] == ["config-damaged"]


def test_checkpoints_are_compared_with_the_entries_they_copy(home, versions):
    dataset = Dataset.get(versions[0])
    for number in range(70):
        dataset.tags = [str(number)]
    (path,) = [one for one in (home / "store/ckpt").rglob("*") if one.is_file()]
    assert check().sound
    whole = path.read_bytes()
    change(path, 60)
    assert [one.id for one in damage(check())] == ["checkpoint-damaged"]
    path.write_bytes(whole)
    (home / "store/log/catalog/000000000005").unlink()
    found = check()
    assert [one.id for one in damage(found)] == ["log-hole"], "the checkpoint has it"
    assert found.slots == 72


def test_a_lost_relocation_table_is_told_and_nothing_is_judged_by_what_is_left(home, versions, another_machine):
    Dataset.delete(dataset_id=versions[0], force=True)
    repack_packs(open_workspace(), [one.pack for one in wasteful_packs(open_workspace(), dead_share=0.0001)])
    workspace = open_workspace()
    workspace.refresh()
    ((_, table),) = workspace.catalog.packs.relocations
    (path,) = [one for one in packs_there(home) if one.name == table.segments[0].pack]
    path.unlink()
    another_machine()
    assert [one.id for one in damage(check())] == ["table-damaged"]
    (left,) = repair_store(open_workspace()).left_alone
    assert left.name.hex() == path.name


def test_packs_that_nothing_names_are_no_damage(home, versions):
    draft = Dataset.create(dataset_name="d", dataset_project="p")
    draft.sync_folder(write(home / "three", {"x": random.Random(3).randbytes(1000)}))
    draft.upload()
    found = check()
    assert found.sound
    assert [one.id for one in found.findings] == ["pack-unnamed"]


def test_a_storage_that_does_not_answer_is_no_damage(home, versions, monkeypatch):
    def refuse(*_arguments):
        raise StorageFailed("The storage refused.", "Again.")

    monkeypatch.setattr(PosixBackend, "get_ranges", refuse)
    with pytest.raises(StorageFailed):
        check()


def test_what_is_deleted_and_collected_meanwhile_is_no_damage(home, versions, monkeypatch):
    reach = LiveTrees.reach

    def beside(trees, catalog):
        monkeypatch.setattr(LiveTrees, "reach", reach)
        found = reach(trees, catalog)
        Dataset.delete(dataset_id=versions[1])
        assert collect_garbage(open_workspace(), min_age=0, apply=True).deleted
        return found

    monkeypatch.setattr(LiveTrees, "reach", beside)
    found = check()
    assert found.sound
    assert (found.slots, found.versions) == (4, 1)


def test_a_sample_can_be_drawn_again_and_says_what_it_may_have_overlooked(home, monkeypatch):
    monkeypatch.setitem(PackWriter.__init__.__kwdefaults__, "target", 50_000)
    version_of(write(home / "one", {str(n): random.Random(n).randbytes(70_000) for n in range(30)}))
    one, same, other = check(Depth(0.5, seed=1)), check(Depth(0.5, seed=1)), check(Depth(0.5, seed=2))
    assert one == same != other
    assert 0 < one.frames_read < one.frames
    assert 0.01 < one.overlooked < 0.5
    with pytest.raises(InvalidRequest):
        Depth(1.5)


def test_the_guide_lists_every_finding():
    text = (Path(__file__).parents[2] / "docs/guides/damage.md").read_text()
    for name, kind in FINDINGS.items():
        assert f"| `{name}` | {kind.severity} | {kind.meaning} | {kind.advice} |" in text
