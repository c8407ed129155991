"""Looking at versions from a shell: get, list, tag."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_store.dataset.workspace import open_workspace


@pytest.fixture
def second(shell, pictures, closed):
    """A second version of data/cats, tagged `second`: a.txt modified, train/c.png removed, new.txt added."""
    (pictures / "a.txt").write_text("changed")
    (pictures / "train" / "c.png").unlink()
    (pictures / "new.txt").write_text("new")
    made = shell("sync", "--folder", str(pictures), "--parents", closed, "--tags", "second")
    return made.lines[-1].rpartition(" ")[2]


def test_get_prints_the_path_of_a_read_only_copy(shell, closed):
    path = Path(shell("get", "--id", closed).out.removesuffix("\n"))
    assert (path / "a.txt").read_text() == "alpha"
    assert not os.stat(path / "a.txt").st_mode & 0o222


def test_get_finds_by_name_by_number_and_by_tag(shell, closed, second):
    name = ("--project", "data", "--name", "cats")
    assert json.loads(shell("get", "--json", *name).out)["id"] == second
    assert json.loads(shell("get", "--json", *name, "--version", "1.0.0").out)["id"] == closed
    assert json.loads(shell("get", "--json", "--tags", "none", "second").out)["id"] == second


def test_get_makes_a_copy_to_change_and_overwrites_only_when_told(shell, closed, machine):
    target = machine / "out"
    assert json.loads(shell("get", "--id", closed, "--copy", str(target), "--json").out)["mutable"] is True
    (target / "a.txt").write_text("mine")
    refused = shell("get", "--id", closed, "--copy", str(target))
    assert refused.code == 4
    assert "--overwrite" in refused.err
    assert (target / "a.txt").read_text() == "mine"
    assert shell("get", "--id", closed, "--copy", str(target), "--overwrite").code == 0
    assert (target / "a.txt").read_text() == "alpha"


def test_overwrite_without_copy_is_refused(shell, closed):
    assert shell("get", "--id", closed, "--overwrite").code == 2


def test_get_of_a_draft_says_that_it_is_not_final(shell):
    shell("create", "--name", "cats")
    assert shell("get").code == 4


def test_list_shows_sizes_content_ids_and_paths_with_a_total(shell, closed):
    lines = shell("list", "--id", closed).lines
    assert lines[0] == f"data/cats 1.0.0 {closed}"
    assert lines[1].split() == ["SIZE", "CONTENT", "ID", "PATH"]
    assert [line.split()[-1] for line in lines[2:5]] == ["a.txt", "train/b.jpg", "train/c.png"]
    assert "1.5 KiB" in lines[3]
    assert lines[5] == "3 files, 1.6 KiB"


def test_list_filters_by_any_of_several_patterns(shell, closed):
    listed = json.loads(shell("list", "--id", closed, "--filter", "*.jpg", "a.txt", "--json").out)
    assert [row["path"] for row in listed["files"]] == ["a.txt", "train/b.jpg"]
    assert listed["total"] == {"files": 2, "bytes": 1505}


def test_list_of_what_a_version_changes(shell, second):
    changes = json.loads(shell("list", "--id", second, "--modified", "--json").out)
    assert (changes["added"], changes["modified"], changes["removed"]) == (["new.txt"], ["a.txt"], ["train/c.png"])
    shown = shell("list", "--id", second, "--modified", "--filter", "*.txt").lines
    assert [line.split() for line in shown[2:]] == [
        ["modified", "a.txt"],
        ["added", "new.txt"],
        ["1", "added,", "1", "modified,", "0", "removed"],
    ]


def test_list_of_nothing_in_a_folder_without_a_version_is_the_table_of_versions(shell, second, machine, monkeypatch):
    (machine / "elsewhere").mkdir()
    monkeypatch.chdir(machine / "elsewhere")
    lines = shell("list").lines
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["DATASET", "VERSION"],
        ["data/cats", "1.0.0"],
        ["data/cats", "1.0.1"],
    ]
    assert lines[-1].startswith("2 versions, 0 drafts in ")


def test_list_versions_selects_marks_the_current_one_and_shows_drafts(shell, closed):
    draft = shell("create", "--name", "dogs", "--tags", "new").out.strip()
    starred = [line for line in shell("list", "--versions").lines if line.startswith("*")]
    assert [line.rpartition(" ")[2] for line in starred] == [draft]
    by_tag = json.loads(shell("list", "--versions", "--tags", "new", "--json").out)["versions"]
    assert [(row["id"], row["state"], row["bytes"]) for row in by_tag] == [(draft, "draft", None)]
    by_name = json.loads(shell("list", "--versions", "--name", "cats", "--json").out)["versions"]
    assert [(row["id"], row["state"], row["bytes"]) for row in by_name] == [(closed, "final", 1605)]


@pytest.mark.parametrize("extra", [["--modified"], ["--filter", "*"], ["--id", "0" * 32]])
def test_list_versions_refuses_flags_about_files(shell, closed, extra):
    assert shell("list", "--versions", *extra).code == 2


def test_list_escapes_names_that_would_disturb_a_terminal(shell, pictures):
    os.rename(pictures / "a.txt", pictures / "a\x1b[2J\nb")
    (Path(os.fsdecode(os.fsencode(pictures) + b"/\xff"))).write_text("x")
    shell("sync", "--folder", str(pictures), "--name", "cats")
    listed = shell("list")
    assert r"a\x1b[2J\nb" in listed.out
    assert r"\udcff" in listed.out
    assert len(listed.lines) == 2 + 4 + 1
    paths = [row["path"] for row in json.loads(shell("list", "--json").out)["files"]]
    assert os.fsdecode(b"\xff") in paths


def test_tag_adds_removes_sets_clears_and_prints(shell, closed):
    assert shell("tag", "--id", closed, "--add", "b", "a").out == "a\nb\n"
    assert shell("tag", "--id", closed, "--remove", "b", "--add", "c").out == "a\nc\n"
    assert shell("tag", "--id", closed).out == "a\nc\n"
    assert json.loads(shell("tag", "--id", closed, "--set", "x", "--json").out)["tags"] == ["x"]
    assert shell("tag", "--id", closed, "--set").out == ""


def test_tag_finds_its_version_by_name(shell, closed, second):
    shell("tag", "--project", "data", "--name", "cats", "--version", "1.0.0", "--add", "old")
    assert json.loads(shell("get", "--tags", "old", "--json").out)["id"] == closed


def test_tag_works_on_a_draft(shell):
    shell("create", "--name", "cats", "--tags", "a")
    assert shell("tag", "--add", "b", "--remove", "a").out == "b\n"
    assert shell("close").code == 0
    assert shell("tag").out == "b\n"


def test_tags_that_change_nothing_write_nothing(shell, closed, machine):
    shell("tag", "--id", closed, "--add", "a")
    before = sorted((machine / "url" / "log").rglob("*"))
    assert shell("tag", "--id", closed, "--add", "a", "--remove", "b").out == "a\n"
    assert sorted((machine / "url" / "log").rglob("*")) == before


def test_a_tag_to_remove_that_is_not_there_is_told(shell, closed):
    shell("tag", "--id", closed, "--add", "a")
    answer = shell("tag", "--id", closed, "--remove", "a", "nosuch")
    assert (answer.code, answer.out, answer.err) == (0, "", "note: it had no tag 'nosuch'\n")


def test_get_names_only_the_flags_that_were_given(shell, closed):
    refused = shell("get", "--id", closed, "--copy", "a", "--link", "b")
    assert refused.err.endswith("Leave out --link.\n")
    refused = shell("get", "--id", closed, "--copy", "a", "--link", "b", "--files", "x")
    assert refused.err.endswith("Leave out --link and --files.\n")


@pytest.mark.parametrize("flags", [["--svg", "--mermaid"], ["--json", "--svg"], ["--json", "--mermaid"]])
def test_log_takes_one_form(shell, closed, flags):
    assert shell("log", *flags).code == 2


def test_tag_refuses_set_together_with_add(shell, closed):
    assert shell("tag", "--id", closed, "--set", "x", "--add", "y").code == 2


def test_a_link_to_the_read_only_folder_is_made_and_replaced(shell, machine, closed):
    answer = shell("get", "--id", closed, "--link", "here")
    assert (answer.code, answer.lines) == (0, [str(machine / "work" / "here")])
    assert (machine / "work" / "here" / "a.txt").read_text() == "alpha"
    assert shell("get", "--id", closed, "--link", "here").code == 0
    again = shell("get", "--id", closed, "--link", "here", "--files", "train")
    assert again.code == 4
    assert "--overwrite" in again.err
    assert shell("get", "--id", closed, "--link", "here", "--overwrite", "--files", "train").code == 0
    assert sorted(path.name for path in (machine / "work" / "here").iterdir()) == ["train"]
    (machine / "work" / "folder").mkdir()
    (machine / "work" / "folder" / "file").write_text("precious")
    (machine / "work" / "file").write_text("precious")
    for taken in ("folder", "folder/", "file", "file/"):
        for words in ([], ["--overwrite"]):
            assert shell("get", "--id", closed, "--link", taken, *words).code == 4
    assert (machine / "work" / "file").read_text() == "precious"
    assert shell("get", "--id", closed, "--link", "here/", "--overwrite").code == 0
    assert shell("get", "--id", closed, "--link", "").code == 2
    (machine / "work" / "empty").mkdir()
    for vacant in ("empty", "not/there/yet"):
        assert shell("get", "--id", closed, "--link", vacant).code == 0
        assert (machine / "work" / vacant / "a.txt").read_text() == "alpha"
    assert not [path.name for path in (machine / "work").iterdir() if path.name.endswith(".part")]


def test_what_a_link_leads_to_is_kept_when_the_cache_is_full(shell, closed, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_CACHE_BYTES", "1")
    shell("get", "--id", closed, "--link", "here")
    copies = open_workspace().copies
    assert copies._pinned() == {closed}
    Path("here").unlink()
    assert copies._pinned() == set()


def test_a_part_or_some_files_can_be_had(shell, closed):
    paths = [shell("get", "--id", closed, "--part", str(part), "--num-parts", "2").lines[0] for part in range(2)]
    names = [{path.name for path in Path(path).rglob("*") if path.is_file()} for path in paths]
    assert names[0] | names[1] == {"a.txt", "b.jpg", "c.png"}
    assert not names[0] & names[1]
    some = shell("get", "--id", closed, "--files", "train/*.jpg").lines[0]
    assert [path.name for path in Path(some).rglob("*") if path.is_file()] == ["b.jpg"]
    assert shell("get", "--id", closed, "--part", "2", "--num-parts", "2").code == 2
    assert shell("get", "--id", closed, "--files", "missing").code == 3
    assert shell("get", "--id", closed, "--copy", "c", "--files", "a.txt").code == 2


def test_status_tells_what_a_folder_changes_and_writes_nothing(shell, machine, closed, pictures):
    before = sorted(path for path in (machine / "url").rglob("*"))
    same = shell("status", "--id", closed, "--folder", "pictures")
    assert (same.code, same.lines[-1]) == (0, "0 added, 0 modified, 0 removed")
    (pictures / "a.txt").write_text("another")
    (pictures / "new.txt").write_text("new")
    (pictures / "train" / "b.jpg").unlink()
    answer = shell("status", "--id", closed, "--folder", "pictures")
    assert answer.lines[2:] == [
        "modified  a.txt",
        "added     new.txt",
        "removed   train/b.jpg",
        "1 added, 1 modified, 1 removed",
    ]
    document = json.loads(shell("status", "--id", closed, "--folder", "pictures", "--json").out)
    assert (document["matches"], document["added"]) == (False, ["new.txt"])
    assert sorted(path for path in (machine / "url").rglob("*")) == before
    assert shell("status", "--id", closed, "--folder", "missing").code == 3


def test_cat_writes_files_as_they_are(machine, closed):
    command = [sys.executable, "-m", "dataset_store.cli", "cat", "train/b.jpg", "a.txt", "--id", closed]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"b" * 1500 + b"alpha"


def test_cat_of_what_is_not_there_is_not_found(shell, closed):
    assert shell("cat", "missing", "--id", closed).code == 3
    assert shell("cat", "--id", closed).code == 2


def test_log_draws_what_a_version_comes_from(shell, closed, pictures):
    (pictures / "a.txt").write_text("another")
    child = shell("sync", "--folder", "pictures", "--name", "cats", "--parents", closed, "--tags", "new").lines[-1]
    child = child.rpartition(" ")[2]
    merged = shell("create", "--name", "both", "--parents", closed, child).lines[0]
    answer = shell("log", "--id", merged)
    assert answer.code == 0
    graph = [line.split("  ")[0] for line in answer.lines]
    assert [graph[0], graph[-1]] == ["*", "*"]
    assert "draft" in answer.lines[0]
    assert "of data/cats 1.0.0 and data/cats 1.0.1" in answer.lines[0]
    (line,) = (line for line in answer.lines if child in line)
    assert "+0 ~1 -0" in line
    assert line.endswith("new")
    assert shell("delete", "--id", closed, "--force").code == 0
    assert "deleted" in shell("log", "--id", child).lines[-1]
    document = json.loads(shell("log", "--id", child, "--json").out)
    assert [row["id"] for row in document["lineage"]] == [child, closed]


def test_diff_tells_paths_sizes_and_sums(shell, closed, second):
    answer = shell("diff", "--id", second)
    assert answer.code == 0
    assert answer.lines[-1] == "1 added, 1 modified, 1 removed, 0 renamed; -95 B"
    assert any(line.split() == ["modified", "5", "B", "->", "7", "B", "a.txt"] for line in answer.lines)
    document = json.loads(shell("diff", "--id", second, "--against", closed, "--json").out)
    assert [one["how"] for one in document["changes"]] == ["modified", "added", "removed"]
    assert document["bytes_added"] == -95
    assert shell("diff", "--id", second, "--against", "0" * 32).code == 3


def test_diff_tells_rows_and_columns_of_tables(shell, machine, pictures, closed):
    (pictures / "t.csv").write_text("a,b\n1,2\n")
    shell("sync", "--folder", str(pictures), "--parents", closed)
    (pictures / "t.csv").write_text("a,c\n1,x\n2,y\n")
    shell("sync", "--folder", str(pictures), "--parents", json.loads(shell("get", "--json").out)["id"])
    assert "t.csv: 1 -> 2 rows; columns +c -b" in shell("diff").lines


def test_log_draws_mermaid_and_svg(shell, closed, second):
    assert shell("log", "--id", second, "--mermaid").out.startswith("flowchart BT\n")
    assert shell("log", "--id", second, "--svg").out.startswith("<svg ")


def test_links_are_listed_with_where_they_lead(shell, machine, closed):
    (machine / "far").write_bytes(b"far")
    shell("create", "--name", "cats")
    shell("add", "--links", str(machine / "far"))
    shell("close")
    assert any(line.endswith(f"far -> file://{machine}/far") for line in shell("list").lines)
    (only,) = json.loads(shell("list", "--json").out)["files"]
    assert (only["kind"], only["link"]) == ("external", f"file://{machine}/far")
