"""Making versions from a shell: create, add, remove, sync, upload, close."""

import json
import re
from pathlib import Path

import pytest

HEX32 = re.compile(r"[0-9a-f]{32}")


def files_of(shell, *words):
    """The paths that `list` shows."""
    return [row["path"] for row in json.loads(shell("list", "--json", *words).out)["files"]]


def test_create_prints_the_id_and_nothing_else(shell):
    made = shell("create", "--project", "data", "--name", "cats", "--tags", "new", "--description", "all of them")
    assert made.code == 0
    assert HEX32.fullmatch(made.out.strip())
    assert shell("create", "--name", "dogs", "--store", "other").err.startswith("note: began a new store at file://")
    assert shell("create", "--name", "dogs", "--store", "other").err.startswith("The version ")


def test_the_seven_steps_of_a_version_as_separate_commands(shell, pictures):
    version = shell("create", "--project", "data", "--name", "cats").out.strip()
    assert shell("add", "--files", str(pictures)).out == "3 added, 0 modified\n"
    assert shell("remove", "--files", "train/*.png").out == "1 file removed\n"
    assert files_of(shell) == ["a.txt", "train/b.jpg"]
    sent, uploaded = shell("upload").lines
    assert re.fullmatch(r"2 files of 1.5 KiB, 1.5 KiB of it new: \d+ B sent", sent)
    assert uploaded == f"data/cats 1.0.0 is uploaded: {version}"
    assert shell("close").out == f"data/cats 1.0.0 is final: {version}\n"
    copied = Path(shell("get").out.strip())
    assert sorted(path.name for path in copied.rglob("*")) == ["a.txt", "b.jpg", "train"]


def test_close_uploads_what_was_not(shell, pictures):
    shell("create", "--name", "cats")
    shell("add", "--files", str(pictures))
    assert shell("close").code == 0
    assert (Path(shell("get").out.strip()) / "a.txt").read_text() == "alpha"


def test_close_with_disable_upload_fails_while_files_wait_and_works_after_upload(shell, pictures):
    shell("create", "--name", "cats")
    shell("add", "--files", str(pictures))
    refused = shell("close", "--disable-upload")
    assert (refused.code, refused.out) == (4, "")
    assert "dataset-store upload" in refused.err
    shell("upload")
    assert shell("close", "--disable-upload").code == 0


def test_add_puts_files_below_the_dataset_folder_and_takes_wildcards(shell, pictures):
    shell("create", "--name", "cats")
    added = shell("add", "--files", str(pictures), "--wildcard", "*.jpg", "*.png", "--dataset-folder", "raw")
    assert added.out == "2 added, 0 modified\n"
    assert files_of(shell) == ["raw/train/b.jpg", "raw/train/c.png"]


def test_add_without_recursion_leaves_sub_folders_alone(shell, pictures):
    shell("create", "--name", "cats")
    assert shell("add", "--files", str(pictures), "--non-recursive").out == "1 added, 0 modified\n"


def test_add_takes_several_files_and_says_more_when_verbose(shell, pictures):
    shell("create", "--name", "cats")
    added = shell("add", "--verbose", "--files", str(pictures / "a.txt"), str(pictures / "train" / "b.jpg"))
    assert added.out == "2 added, 0 modified\n"
    assert "b.jpg: 1 added, 0 modified" in added.err
    assert files_of(shell) == ["a.txt", "b.jpg"]


def test_remove_without_recursion_keeps_a_wildcard_within_one_directory(shell, pictures):
    shell("create", "--name", "cats")
    shell("add", "--files", str(pictures))
    assert shell("remove", "--files", "*", "--non-recursive").out == "1 file removed\n"
    assert files_of(shell) == ["train/b.jpg", "train/c.png"]


def test_create_then_sync_then_get_as_two_commands(shell, pictures, machine):
    shell("create", "--project", "data", "--name", "dataset")
    synced = shell("sync", "--folder", "./pictures")
    assert synced.code == 0
    assert synced.lines[0] == "3 added, 0 modified, 0 removed"
    target = machine / "out"
    assert shell("get", "--copy", str(target)).out == f"{target}\n"
    assert (target / "train" / "b.jpg").read_bytes() == (pictures / "train" / "b.jpg").read_bytes()


def test_sync_with_a_name_makes_uploads_and_finalizes_a_version(shell, pictures, closed):
    listed = json.loads(shell("list", "--project", "data", "--name", "cats", "--json").out)
    assert (listed["id"], listed["state"], listed["version"]) == (closed, "final", "1.0.0")
    assert listed["total"] == {"files": 3, "bytes": 1605}


def test_sync_with_parents_makes_the_next_version_of_the_same_dataset(shell, pictures, closed):
    (pictures / "a.txt").write_text("changed")
    (pictures / "train" / "b.jpg").unlink()
    (pictures / "new").write_text("new")
    synced = shell("sync", "--folder", str(pictures), "--parents", closed, "--tags", "second")
    assert synced.lines[0] == "1 added, 1 modified, 1 removed"
    listed = json.loads(shell("list", "--json", "--tags", "second").out)
    assert (listed["name"], listed["version"]) == ("cats", "1.0.1")


def test_sync_of_no_change_discards_the_version_that_it_made_and_says_so(shell, pictures, closed, machine):
    synced = shell("sync", "--folder", str(pictures), "--parents", closed)
    assert synced.code == 0
    assert synced.lines[-1] == "Nothing changed: the new version was discarded."
    versions = json.loads(shell("list", "--versions", "--json").out)["versions"]
    assert [version["id"] for version in versions] == [closed]


@pytest.mark.parametrize("extra", [["--tags", "release"], ["--version", "2.0"], ["--name", "other"]])
def test_a_sync_of_no_change_makes_a_version_where_something_is_said_of_it(shell, pictures, closed, extra):
    synced = shell("sync", "--folder", str(pictures), "--parents", closed, *extra)
    assert synced.code == 0
    assert "is final" in synced.lines[-1]
    found = json.loads(shell("list", "--versions", "--json").out)["versions"]
    assert [row["tags"] for row in found if row["id"] != closed] == [["release"] if "release" in extra else []]


def test_a_merge_is_no_version_in_which_nothing_changed(shell, pictures, closed):
    other = shell("sync", "--folder", str(pictures / "train"), "--name", "other").lines[-1].rpartition(" ")[2]
    got = shell("create", "--name", "both", "--parents", closed, other)
    shell("close")
    merged = Path(shell("get", "--id", got.out.strip()).out.strip())
    synced = shell("sync", "--folder", str(merged), "--name", "both", "--parents", closed, other)
    assert "is final" in synced.lines[-1]


def test_the_first_version_of_an_empty_folder_is_made(shell, machine):
    (machine / "work" / "empty").mkdir()
    synced = shell("sync", "--folder", "empty", "--name", "new")
    assert synced.lines[0] == "0 added, 0 modified, 0 removed"
    assert synced.lines[1].startswith("new 1.0.0 is final: ")


def test_sync_in_a_folder_that_is_about_a_final_version_makes_the_next_one(shell, pictures, closed):
    (pictures / "new.txt").write_text("new")
    synced = shell("sync", "--folder", "pictures")
    assert synced.lines[:2] == ["next version of data/cats 1.0.0", "1 added, 0 modified, 0 removed"]
    assert synced.lines[2].startswith("1 file of 3 B, 3 B of it new: ")
    assert synced.lines[3].startswith("data/cats 1.0.1 is final: ")
    (pictures / "new.txt").unlink()
    tagged = shell("sync", "--folder", "pictures", "--tags", "third")
    assert tagged.lines[0] == "next version of data/cats 1.0.1"
    assert json.loads(shell("list", "--json", "--tags", "third").out)["version"] == "1.0.2"
    again = shell("sync", "--folder", "pictures")
    assert again.lines[-1] == "Nothing changed: the new version was discarded."
    assert shell("sync", "--folder", "pictures", "--project", "other").code == 2


def test_sync_after_close_makes_the_next_version_in_the_store_that_is_remembered(shell, machine, pictures):
    other = str(machine / "other")
    shell("create", "--name", "cats", "--store", other)
    shell("add", "--files", "pictures")
    shell("close")
    (pictures / "new.txt").write_text("new")
    assert shell("sync", "--folder", "pictures").lines[0] == "next version of cats 1.0.0"
    assert len(json.loads(shell("list", "--versions", "--json", "--store", other).out)["versions"]) == 2


def test_files_that_would_become_one_are_refused_and_nothing_is_added(shell, machine):
    for name in ("a", "b"):
        (machine / "work" / name).mkdir()
        (machine / "work" / name / "x").write_text(name)
    shell("create", "--name", "cats")
    refused = shell("add", "--files", "a/x", "b/x")
    assert (refused.code, refused.out) == (2, "")
    assert "'a/x' and 'b/x'" in refused.err
    assert files_of(shell) == []
    assert shell("add", "--files", "a/x", "./a/x").out == "1 added, 0 modified\n"


def test_add_counts_what_it_replaces(shell, pictures):
    shell("create", "--name", "cats")
    shell("add", "--files", str(pictures / "a.txt"))
    (pictures / "a.txt").write_text("omega")
    assert shell("add", "--files", str(pictures / "a.txt"), str(pictures / "train")).out == "2 added, 1 modified\n"


def test_what_is_mistyped_is_told_and_nothing_is_removed(shell, pictures):
    shell("create", "--name", "cats")
    shell("add", "--files", str(pictures))
    refused = shell("remove", "--files", "a.txt", "nosuch")
    assert (refused.code, refused.out) == (3, "")
    assert "'nosuch'" in refused.err
    assert len(files_of(shell)) == 3
    noted = shell("remove", "--files", "*.xyz", "train", "train/b.jpg")
    assert (noted.code, noted.out, noted.err) == (0, "2 files removed\n", "note: nothing matches '*.xyz'\n")
    assert shell("remove", "--files", "file:///nosuch").code == 3


def test_a_wildcard_that_adds_nothing_is_told(shell, machine, pictures):
    shell("create", "--name", "cats")
    nothing = shell("add", "--files", "pictures", "--wildcard", "*.gif", "*.bmp")
    assert (nothing.code, nothing.out) == (0, "0 added, 0 modified\n")
    assert nothing.err == "note: no file matches '*.gif' or '*.bmp'\n"
    assert shell("add", "--files", "pictures", "--wildcard", "*.jpg").err == ""
    assert shell("add", "--files", "pictures", "--wildcard", "*.jpg").err == ""  # there, and unchanged
    assert "note: no link matches" in shell("add", "--links", "pictures", "--wildcard", "*.gif").err


@pytest.mark.parametrize("flag", ["--store", "--storage"])
def test_a_url_that_lacks_a_slash_makes_no_folder(shell, machine, flag):
    refused = shell("create", "--name", "cats", flag, "s3:/bucket/x")
    assert refused.code == 2
    assert "Did you mean s3://bucket/x?" in refused.err
    assert list((machine / "work").iterdir()) == []


def test_an_empty_store_is_none(shell):
    assert shell("create", "--name", "cats", "--store", "").code == 2


def test_a_sync_that_fails_leaves_no_draft_behind(shell, pictures, closed):
    failed = shell("sync", "--folder", "no such folder", "--parents", closed)
    assert failed.code == 3
    versions = json.loads(shell("list", "--versions", "--json").out)["versions"]
    assert [version["id"] for version in versions] == [closed]


def test_sync_with_skip_close_leaves_a_draft_to_go_on_with(shell, pictures):
    synced = shell("sync", "--folder", str(pictures), "--name", "cats", "--skip-close")
    draft = HEX32.search(synced.out)[0]
    (pictures / "a.txt").unlink()
    changed, sent, final = shell("sync", "--folder", str(pictures)).lines
    assert (changed, final) == ("0 added, 0 modified, 1 removed", f"cats 1.0.0 is final: {draft}")
    assert sent.startswith("2 files of ")


def test_flags_of_lists_may_be_empty_as_unset_variables_make_them(shell, pictures):
    begun = shell("create", "--name", "cats", "--tags", "--parents")
    assert begun.code == 0
    assert shell("add", "--files", str(pictures), "--wildcard").out == "3 added, 0 modified\n"
    shell("close")
    assert shell("create", "--parent", begun.out.strip()).code == 0


def test_folders_outside_are_taken_where_links_are_followed(shell, pictures, machine):
    (machine / "outside").mkdir()
    (machine / "outside" / "d.txt").write_text("far")
    (pictures / "link").symlink_to(machine / "outside")
    refused = shell("sync", "--folder", str(pictures), "--name", "cats")
    assert refused.code != 0
    assert "link" in refused.err
    assert shell("sync", "--folder", str(pictures), "--name", "cats", "--follow-links").code == 0
    assert "link/d.txt" in files_of(shell)
    shell("create", "--name", "dogs")
    assert shell("add", "--files", str(pictures), "--follow-links").out == "4 added, 0 modified\n"


def test_sync_of_a_dataset_folder_leaves_the_rest_alone(shell, pictures, closed):
    shell("sync", "--folder", str(pictures / "train"), "--dataset-folder", "more", "--parents", closed)
    assert files_of(shell) == ["a.txt", "more/b.jpg", "more/c.png", "train/b.jpg", "train/c.png"]


@pytest.mark.parametrize("extra", [["--project", "data"], ["--version", "2.0"], ["--tags", "x"]])
def test_sync_refuses_flags_of_a_new_version_where_it_makes_none(shell, pictures, extra):
    shell("create", "--name", "cats")
    refused = shell("sync", "--folder", str(pictures), *extra)
    assert refused.code == 2
    assert "--name or --parents" in refused.err


def test_sync_refuses_an_id_together_with_a_name(shell, pictures, closed):
    assert shell("sync", "--folder", str(pictures), "--id", closed, "--name", "cats").code == 2


def test_an_explicit_version_number_can_be_taken_once(shell, pictures):
    sync = ("sync", "--folder", str(pictures), "--name", "cats", "--version", "3.0")
    assert shell(*sync).code == 0
    assert shell(*sync).code == 4


@pytest.mark.parametrize(
    "steps",
    [
        [["create", "--name", "cats", "--storage", "STORAGE"], ["add", "--files", "FOLDER"], ["close"]],
        [["create", "--name", "cats"], ["add", "--files", "FOLDER"], ["upload", "--storage", "STORAGE"], ["close"]],
        [["create", "--name", "cats"], ["add", "--files", "FOLDER"], ["close", "--output-uri", "STORAGE"]],
        [["sync", "--name", "cats", "--folder", "FOLDER", "--storage", "STORAGE"]],
    ],
)
def test_packs_go_where_storage_says_and_the_log_into_the_store(shell, machine, pictures, steps):
    elsewhere = machine / "elsewhere"
    for words in steps:
        named = {"STORAGE": str(elsewhere), "FOLDER": str(pictures)}
        assert shell(*[named.get(word, word) for word in words]).code == 0
    assert any(path.is_file() for path in elsewhere.rglob("packs/*/*"))
    assert not (machine / "url" / "packs").exists()
    assert len(json.loads(shell("list", "--json", "--name", "cats").out)["files"]) > 0


def test_flags_without_effect_are_accepted(shell, pictures):
    shell("create", "--name", "cats")
    assert shell("add", "--files", str(pictures), "--max-workers", "4").code == 0
    assert shell("upload", "--chunk-size", "512", "--max-workers", "4").code == 0
    assert shell("close", "--chunk-size", "-1", "--max-workers", "4").code == 0


def test_create_without_a_name_takes_that_of_the_parent_and_without_one_is_refused(shell, closed):
    assert shell("create").code == 2
    shell("create", "--parents", closed)
    assert json.loads(shell("list", "--json").out)["name"] == "cats"


def test_links_are_added_beside_files(shell, machine, pictures):
    far = machine / "far"
    far.mkdir()
    (far / "one.bin").write_bytes(b"one")
    shell("create", "--name", "cats")
    assert shell("add", "--links", str(far), "--dataset-folder", "far").out == "links: 1 added, 0 modified\n"
    both = shell("add", "--files", str(pictures), "--links", f"file://{far}/one.bin")
    assert both.out == "3 added, 0 modified\nlinks: 1 added, 0 modified\n"
    assert shell("remove", "--files", f"file://{far}/*").out == "2 files removed\n"
    refused = shell("add")
    assert (refused.code, "--links" in refused.err) == (2, True)
    missing = shell("add", "--links", str(far / "none"))
    assert (missing.code, "none" in missing.err) == (3, True)
