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
    assert ids(shell("search", "--json")) == [tagged, closed]
    assert ids(shell("search", "--name", "ca.s", "--json")) == [tagged, closed]
    assert ids(shell("search", "--name", "dog", "--json")) == []
    assert ids(shell("search", "--tags", "latest", "--json")) == [tagged]
    assert ids(shell("search", "--ids", closed, "--json")) == [closed]
    draft = shell("create", "--project", "data/sub", "--name", "cats").lines[0]
    assert ids(shell("search", "--project", "data", "--not-only-completed", "--json")) == [draft, tagged, closed]
    assert draft not in ids(
        shell("search", "--project", "data", "--not-only-completed", "--non-recursive-project-search", "--json")
    )
    shown = shell("search", "--tags", "latest")
    assert "data/cats" in shown.lines[1]
    assert shown.lines[-1].startswith("1 version in ")
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
    assert shell("delete", "--project", "data", "--name", "cats", "--entire-dataset", "--force").code == 0
    assert ids(shell("search", "--json")) == []
    assert shell("delete", "--name", "cats").code == 3


def test_versions_are_squashed_into_one(shell, closed, pictures):
    child = version(shell, pictures, "--parents", closed)
    answer = shell("squash", "--name", "all", "--ids", closed, child)
    assert answer.code == 0, answer.err
    assert answer.lines[0].startswith("data/all 1.0.0 is final: ")
    squashed = answer.lines[0].rpartition(" ")[2]
    assert shell("compare", "--source", child, "--target", squashed).lines == [
        "0 files removed, 0 files modified, 0 files added"
    ]
    assert shell("squash", "--name", "all", "--ids", "x").code == 3


def test_two_versions_are_compared(shell, closed, pictures):
    (pictures / "a.txt").write_text("another")
    (pictures / "train" / "b.jpg").unlink()
    later = version(shell, pictures)
    answer = shell("compare", "--source", closed, "--target", later)
    assert answer.lines == ["1 file removed, 1 file modified, 1 file added"]
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
