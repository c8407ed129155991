"""publish, delete, rename, move, set-description, search and compare."""

import json

import pytest


def version(shell, pictures, *words: str) -> str:
    """The id of a new final version of `data/cats` with a file more."""
    (pictures / f"more-{len(list(pictures.iterdir()))}.txt").write_text("more")
    made = shell("sync", "--folder", str(pictures), "--project", "data", "--name", "cats", *words)
    assert made.code == 0, made.err
    return made.lines[-1].rpartition(" ")[2]


def ids(answer) -> list[str]:
    assert answer.code == 0, answer.err
    return [row["id"] for row in json.loads(answer.out)["versions"]]


def test_a_version_is_published_by_id_or_name(shell, closed):
    answer = shell("publish", "--id", closed)
    assert (answer.code, answer.lines) == (0, [f"data/cats 1.0.0 is published: {closed}"])
    assert shell("publish", "--name", "cats").code == 0
    assert json.loads(shell("search", "--json").out)["versions"][0]["published"] is True


def test_a_description_is_changed(shell, closed):
    assert shell("set-description", "--id", closed, "--description", "Cats, cropped").code == 0
    assert json.loads(shell("search", "--json").out)["versions"][0]["description"] == "Cats, cropped"


def test_a_dataset_is_renamed_and_moved(shell, closed):
    renamed = shell("rename", "--project", "data", "--name", "cats", "--new-name", "felines")
    assert (renamed.code, renamed.lines) == (0, ["data/felines"])
    moved = shell("move", "--project", "data", "--name", "felines", "--new-project", "zoo")
    assert (moved.code, moved.lines) == (0, ["zoo/felines"])
    assert ids(shell("search", "--project", "zoo", "--json")) == [closed]
    again = shell("rename", "--project", "data", "--name", "cats", "--new-name", "x")
    assert (again.code, again.out) == (3, "")
    assert "data/cats" in again.err


def test_versions_are_searched_by_parts_of_names_tags_and_ids(shell, closed, pictures):
    tagged = version(shell, pictures, "--tags", "latest", "good")
    assert ids(shell("search", "--json")) == [closed, tagged]
    assert ids(shell("search", "--name", "ca.s", "--json")) == [closed, tagged]
    assert ids(shell("search", "--name", "dog", "--json")) == []
    assert ids(shell("search", "--tags", "latest", "--json")) == [tagged]
    assert ids(shell("search", "--ids", closed, "--json")) == [closed]
    draft = shell("create", "--project", "data/sub", "--name", "cats").lines[0]
    assert ids(shell("search", "--project", "data", "--not-only-completed", "--json")) == [closed, tagged, draft]
    assert draft not in ids(
        shell("search", "--project", "data", "--not-only-completed", "--non-recursive-project-search", "--json")
    )
    shown = shell("search", "--tags", "latest")
    assert "data/cats" in shown.lines[1]
    assert shown.lines[-1].startswith("1 version, 0 drafts in ")
    assert shell("search", "--name", "(").code == 2


def test_a_parent_is_deleted_only_by_force(shell, closed, pictures):
    child = version(shell, pictures, "--parents", closed)
    refused = shell("delete", "--id", closed)
    assert (refused.code, refused.out) == (4, "")
    assert child in refused.err
    assert shell("delete", "--id", closed, "--force").code == 0
    assert ids(shell("search", "--json")) == [child]
    assert shell("get", "--id", child).code == 0
    gone = shell("get", "--id", closed)
    assert gone.code == 3


def test_all_versions_of_a_dataset_are_deleted_at_once(shell, closed, pictures):
    version(shell, pictures)
    several = shell("delete", "--project", "data", "--name", "cats")
    assert several.code == 2
    assert "2 versions" in several.err
    assert shell("delete", "--project", "data", "--name", "cats", "--entire-dataset").code == 2
    gone = shell("delete", "--project", "data", "--name", "cats", "--entire-dataset", "--force")
    assert (gone.code, gone.lines[0]) == (0, "data/cats is deleted: 2 versions")
    assert ids(shell("search", "--json")) == []
    assert shell("delete", "--name", "cats").code == 3


def test_a_project_is_never_deleted_for_want_of_a_name(shell, closed, pictures):
    shell("sync", "--folder", str(pictures), "--project", "data", "--name", "dogs")
    for words in (["--entire-dataset", "--force"], ["--force"], []):
        refused = shell("delete", "--project", "data", *words)
        assert (refused.code, refused.out) == (2, "")
    assert len(ids(shell("search", "--json"))) == 2


def test_what_was_deleted_is_named(shell, closed):
    draft = shell("create", "--project", "data", "--name", "cats").out.strip()
    assert shell("delete", "--id", draft).lines == ["data/cats (draft) is deleted"]
    assert shell("delete", "--id", closed).lines[0] == "data/cats 1.0.0 is deleted: 1 version"


def test_versions_are_squashed_into_one(shell, closed, pictures):
    child = version(shell, pictures, "--parents", closed)
    answer = shell("squash", "--name", "all", "--ids", closed, child)
    assert answer.code == 0, answer.err
    assert answer.lines[0].startswith("data/all 1.0.0 is final: ")
    squashed = answer.lines[0].rpartition(" ")[2]
    assert shell("compare", "--source", child, "--target", squashed).lines == ["0 added, 0 modified, 0 removed"]
    assert shell("squash", "--name", "all", "--ids", "x").code == 3


def test_two_versions_are_compared(shell, closed, pictures):
    (pictures / "a.txt").write_text("another")
    (pictures / "train" / "b.jpg").unlink()
    later = version(shell, pictures)
    answer = shell("compare", "--source", closed, "--target", later)
    assert answer.lines == ["1 added, 1 modified, 1 removed"]
    document = json.loads(shell("compare", "--source", closed, "--target", later, "--json").out)
    assert (document["removed"], document["modified"]) == (["train/b.jpg"], ["a.txt"])
    assert (document["source"]["id"], document["target"]["id"]) == (closed, later)
    verbose = shell("compare", "--source", closed, "--target", later, "--verbose")
    assert "modified  a.txt" in verbose.lines
    assert shell("compare", "--source", closed, "--target", "x").code == 3


@pytest.mark.parametrize(
    "words",
    [
        ("publish", "--id", "x", "--name", "y"),
        ("delete",),
        ("rename", "--name", "cats"),
        ("move", "--name", "cats"),
        ("set-description", "--name", "cats"),
        ("compare", "--source", "x"),
    ],
)
def test_a_wrong_call_is_one_clear_line_and_exit_code_2(shell, closed, words):
    answer = shell(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Error: ")


def test_an_archived_version_is_hidden_until_it_is_shown_again(shell, closed):
    name = ("--project", "data", "--name", "cats")
    assert shell("archive", *name).code == 0
    assert shell("get", *name).code == 3
    assert shell("get", "--id", closed).code == 0
    assert shell("archive", "--undo", "--id", closed).code == 0
    assert shell("get", *name).code == 0


def test_search_hides_archived_versions_until_it_is_asked_for_them(shell, closed):
    shell("archive", "--id", closed)
    assert ids(shell("search", "--json")) == []
    assert ids(shell("search", "--archived", "--json")) == [closed]
    (row,) = (line for line in shell("search", "--archived").lines if closed in line)
    assert "1.0.0 (archived)" in row
    assert "(archived)" not in shell("list", "--versions").out


def test_an_archived_version_is_shown_again_by_its_name(shell, closed, pictures):
    later = version(shell, pictures)
    by_number = ("--name", "cats", "--version", "1.0.0")
    assert shell("archive", *by_number).code == 0
    missed = shell("get", *by_number)
    assert missed.code == 3
    assert closed in missed.err
    assert "archived" in missed.err
    assert shell("archive", "--undo", *by_number).lines == [f"data/cats 1.0.0 is shown again: {closed}"]
    assert shell("get", *by_number).code == 0
    shell("archive", *by_number)
    assert closed in shell("archive", "--undo", "--name", "cats").out  # and not the higher one, which is not archived
    assert ids(shell("search", "--json")) == [closed, later]
    assert shell("archive", "--undo", "--name", "nothing").code == 3


def test_search_and_list_show_versions_in_one_order_with_one_footer(shell, closed, pictures):
    version(shell, pictures, "--version", "3.0")
    version(shell, pictures, "--version", "2.0")
    shell("sync", "--folder", str(pictures), "--project", "a", "--name", "x")
    shell("create", "--project", "data", "--name", "cats")
    searched, listed = shell("search", "--not-only-completed"), shell("list", "--versions")
    assert searched.lines == listed.lines
    assert [line[1:].split()[:2] for line in listed.lines[1:-1]] == [
        ["a/x", "1.0.0"],
        ["data/cats", "1.0.0"],
        ["data/cats", "2.0"],
        ["data/cats", "3.0"],
        ["data/cats", "3.1"],
    ]
    assert "3.1 (draft)" in listed.lines[-2]
    assert listed.lines[-1].startswith("4 versions, 1 draft in ")
