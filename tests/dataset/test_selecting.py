"""Copies of some of a version's entries: named files, directories, wildcards, and shares."""

import os
import random

import pytest

from dataset_store import Dataset
from dataset_store.errors import InvalidPath, InvalidRequest, NotFinal, PathNotFound
from dataset_store.testing.folders import read, write

FILES = {f"d{number % 5}/f{number:03}.txt": random.Random(number).randbytes(number * 7) for number in range(200)}
FILES |= {"large.bin": random.Random(-1).randbytes(400_000), "empty": b"", "notes.md": b"read me"}


@pytest.fixture
def version(home):
    dataset = Dataset.create(dataset_name="d", dataset_project="p")
    dataset.sync_folder(write(home / "in", FILES))
    dataset.finalize(auto_upload=True)
    return dataset


def elsewhere(another_machine, name="d"):
    """A version as another machine sees it."""
    another_machine()
    return Dataset.get(dataset_name=name)


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_parts_are_disjoint_and_together_the_version(version, parts):
    found = [read(version.get_local_copy(part=part, num_parts=parts)) for part in range(parts)]
    assert sum(map(len, found)) == len(FILES)
    assert {path: content for part in found for path, content in part.items()} == FILES


def test_parts_hold_nearly_equal_bytes(version):
    sizes = [sum(map(len, read(version.get_local_copy(part=part, num_parts=3)).values())) for part in range(3)]
    assert max(sizes) - min(sizes) <= 2 * 400_000
    without = Dataset.create(parent_datasets=[version])
    without.remove_files("large.bin")
    without.finalize()
    sizes = [sum(map(len, read(without.get_local_copy(part=part, num_parts=3)).values())) for part in range(3)]
    assert max(sizes) - min(sizes) <= 2 * 1_400


def test_there_is_one_part_for_each_512_mib_unless_told_otherwise(version):
    assert version.get_num_chunks() == 1
    assert version.get_num_chunks(include_parents=False) == 1
    assert read(version.get_local_copy(part=0)) == FILES


@pytest.mark.parametrize(
    ("files", "meant"),
    [
        (["notes.md"], {"notes.md"}),
        ("notes.md", {"notes.md"}),
        (["/notes.md", "d1/"], {"notes.md"} | {path for path in FILES if path.startswith("d1/")}),
        (["d1/f00*.txt"], {"d1/f001.txt", "d1/f006.txt"}),
        (["*.md", "d2/f002.txt"], {"notes.md", "d2/f002.txt"}),
        (["d[34]/f003.txt", "nothing*"], {"d3/f003.txt"}),
        (["d0", "d0/f005.txt", "d*/f00[56].txt"], {*(path for path in FILES if path[:2] == "d0"), "d1/f006.txt"}),
        (
            ["d1/f00*.txt", "d1/*6.txt"],
            {path for path in FILES if path[:2] == "d1" and (path[:6] == "d1/f00" or path[-5] == "6")},
        ),
        ([], set()),
    ],
)
def test_files_are_selected_by_path_directory_and_wildcard(version, another_machine, files, meant):
    expected = {path: FILES[path] for path in meant}
    assert read(version.get_local_copy(files=files)) == expected
    assert read(elsewhere(another_machine).get_local_copy(files=files)) == expected


def test_a_share_of_selected_files_can_be_had(version):
    found = [read(version.get_local_copy(files=["d1", "d2"], part=part, num_parts=4)) for part in range(4)]
    assert {path for part in found for path in part} == {path for path in FILES if path[:2] in {"d1", "d2"}}
    assert sum(map(len, found)) == 80


def test_a_selection_that_is_on_disk_is_not_made_again(version):
    one = version.get_local_copy(files=["notes.md", "d1"])
    assert version.get_local_copy(files=["d1", "notes.md"]) == one
    assert version.get_local_copy(files=["d1"]) != one
    assert version.get_local_copy() != one


def test_what_was_not_selected_is_not_fetched(version, another_machine, backends):
    dataset = elsewhere(another_machine)
    backends[-1].reset()
    dataset.get_local_copy(files=["notes.md"])
    assert backends[-1].snapshot().bytes_read < 200_000  # nodes, and the frame that it shares with other short files
    whole = dataset.get_local_copy()
    assert read(whole) == FILES
    part = dataset.get_local_copy(files=["large.bin"])
    assert os.stat(f"{whole}/large.bin").st_ino == os.stat(f"{part}/large.bin").st_ino


def test_many_directories_are_read_in_as_many_rounds_as_one(home, another_machine, backends):
    dataset = Dataset.create("many", "p")
    dataset.sync_folder(write(home / "many", {f"{n % 100:02}/{n:05}": b"%d" % n for n in range(8_000)}))
    dataset.finalize(auto_upload=True)
    rounds = []
    for directories in (["07"], [f"{n:02}" for n in range(0, 100, 5)]):
        another_machine()
        found = Dataset.get(dataset.id)
        backends[-1].reset()
        entries = len(read(found.get_local_copy(files=directories)))
        assert entries == 80 * len(directories)
        rounds.append(backends[-1].snapshot().calls["get_ranges"])
    assert rounds[1] <= rounds[0] + 1


def test_a_partial_copy_is_never_taken_for_the_whole(version, another_machine):
    dataset = elsewhere(another_machine)
    dataset.get_local_copy(part=0, num_parts=2)
    dataset.get_local_copy(files=["d1"])
    assert read(dataset.get_local_copy()) == FILES
    child = Dataset.create(parent_datasets=[dataset])
    child.finalize()
    assert read(child.get_local_copy()) == FILES


def test_a_mutable_copy_can_be_a_part(version, home):
    found = [read(version.get_mutable_local_copy(home / f"out{part}", part=part, num_parts=2)) for part in range(2)]
    assert found[0] | found[1] == FILES
    assert not found[0].keys() & found[1].keys()


@pytest.mark.parametrize(
    "asked", [{"num_parts": 2}, {"part": 2, "num_parts": 2}, {"part": -1, "num_parts": 2}, {"part": 0, "num_parts": 0}]
)
def test_a_part_that_is_none_is_refused(version, asked):
    with pytest.raises(InvalidRequest):
        version.get_local_copy(**asked)


def test_a_path_that_is_not_in_the_version_is_named(version):
    with pytest.raises(PathNotFound, match=r"d1/missing\.txt"):
        version.get_local_copy(files=["notes.md", "d1/missing.txt"])
    with pytest.raises(InvalidPath):
        version.get_local_copy(files=["../x"])
    with pytest.raises(NotFinal):
        Dataset.create(dataset_name="new").get_local_copy(files=["x"])


def test_files_are_listed_by_the_version_that_introduced_them(version, home):
    child = Dataset.create(parent_datasets=[version])
    child.add_files(write(home / "more", {"new": b"n", "notes.md": b"changed"}))
    child.finalize(auto_upload=True)
    assert child.list_files(dataset_id=child.id) == ["new", "notes.md"]
    assert set(child.list_files(dataset_id=version.id)) == FILES.keys() - {"notes.md"}
    assert child.list_files("*.md", dataset_id=version.id) == []
    assert child.file_entries_dict["new"].parent_dataset_id == child.id


def test_a_path_with_brackets_means_the_file_of_that_name(home):
    names = {"img1.jpg": b"1", "img[1].jpg": b"2", "d[x]/y.txt": b"3", "what?": b"4"}
    dataset = Dataset.create(dataset_name="brackets")
    dataset.sync_folder(write(home / "in", names))
    dataset.finalize(auto_upload=True)
    assert read(dataset.get_local_copy(files="img[1].jpg")) == {"img[1].jpg": b"2"}
    assert read(dataset.get_local_copy(files=["d[x]/y.txt", "what?"])) == {"d[x]/y.txt": b"3", "what?": b"4"}
    assert read(dataset.get_local_copy(files="d[x]")) == {"d[x]/y.txt": b"3"}
    assert read(dataset.get_local_copy(files="img[0-9].jpg")) == {"img1.jpg": b"1"}


def test_there_may_be_more_parts_than_bytes(version):
    found = [read(version.get_local_copy(part=part, num_parts=10**9)) for part in (0, 10**9 - 1)]
    assert [len(files) for files in found] in ([0, 0], [1, 0], [0, 1], [1, 1])


def test_parts_of_a_version_use_the_whole_copy_of_its_parent(version):
    whole = version.get_local_copy()
    child = Dataset.create(parent_datasets=[version])
    child.remove_files("notes.md")
    child.finalize()
    for part in range(4):
        folder = child.get_local_copy(part=part, num_parts=4)
        for path in read(folder):
            if FILES[path]:
                assert os.stat(f"{folder}/{path}").st_ino == os.stat(f"{whole}/{path}").st_ino


@pytest.mark.parametrize("verb", ["remove_files", "list_files", "get_local_copy"])
def test_a_name_with_brackets_means_itself_and_no_other(home, verb):
    dataset = Dataset.create("brackets", "p")
    dataset.sync_folder(
        write(home / "photos", {"photo[1].jpg": b"1", "photo1.jpg": b"2", "d[ab]/x": b"3", "da/x": b"4"})
    )
    if verb == "remove_files":
        assert dataset.remove_files("photo[1].jpg") == 1
        assert dataset.remove_files("d[ab]") == 1
        assert dataset.list_files() == ["da/x", "photo1.jpg"]
    elif verb == "list_files":
        assert dataset.list_files("photo[1].jpg") == ["photo[1].jpg"]
        assert dataset.list_files("d[ab]") == ["d[ab]/x"]
        assert dataset.list_files("photo[2].jpg") == []
        assert dataset.list_files("photo[12].jpg") == ["photo1.jpg"]
    else:
        dataset.finalize(auto_upload=True)
        assert read(dataset.get_local_copy(files=["photo[1].jpg", "d[ab]"])) == {"photo[1].jpg": b"1", "d[ab]/x": b"3"}


@pytest.fixture
def linked(home):
    folder = write(home / "linked", {"top.jpg": b"1", "d/x": b"2", "d/e/y": b"3", "other": b"4"})
    links = {"same.jpg": "top.jpg", "again.jpg": "same.jpg", "d/up": "../top.jpg", "folder": "d/e", "round": "round"}
    links |= {"d/here": ".", "nowhere": "no/such/file", "through": "folder/y"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    dataset = Dataset.create("linked", "p")
    dataset.sync_folder(folder)
    dataset.finalize(auto_upload=True)
    return dataset


@pytest.mark.parametrize(
    ("files", "held"),
    [
        (["same.jpg"], {"same.jpg", "top.jpg"}),
        (["again.jpg"], {"again.jpg", "same.jpg", "top.jpg"}),
        (["d/up", "other"], {"d/up", "top.jpg", "other"}),
        (["folder"], {"folder", "d/e/y"}),
        (["*.jpg"], {"again.jpg", "same.jpg", "top.jpg"}),
        (["round"], {"round"}),
        (["d/here"], {"d/here"}),
        (["nowhere"], {"nowhere"}),
        (["d"], {"d/x", "d/e/y", "d/up", "d/here", "top.jpg"}),
        (["top.jpg"], {"top.jpg"}),
    ],
)
def test_what_selected_links_lead_to_is_selected_too(linked, another_machine, files, held):
    for dataset in (linked, elsewhere(another_machine, "linked")):
        copy = dataset.get_local_copy(files=files)
        found = {
            os.path.relpath(os.path.join(above, name), copy) for above, _, names in os.walk(copy) for name in names
        }
        found |= {name for name in ("folder", "d/here") if os.path.islink(f"{copy}/{name}")}
        assert found == held
