"""Which version the words of a call mean: beginnings of ids, names of several projects, `latest`, numbers."""

import json

import pytest

from dataset_store import Dataset
from dataset_store.dataset.drafts import beginning

FINDING = ["get", "list", "log", "diff", "status", "cat a.txt", "tag", "archive", "publish", "verify", "stats"]
FINDING += ["set-description --description x", "delete", "delete --force --entire-dataset", "archive --undo"]
FINDING += ["rename --new-name x", "move --new-project x"]


def made(shell, pictures, project, *words):
    """The id of a new final version of `same`."""
    answer = shell("sync", "--folder", str(pictures), "--project", project, "--name", "same", *words)
    assert answer.code == 0, answer.err
    return answer.lines[-1].rpartition(" ")[2]


def drafts(monkeypatch, *ids):
    """Drafts of these ids."""
    given = iter(ids)
    monkeypatch.setattr(beginning, "new_commit_id", lambda: next(given))
    for number in range(len(ids)):
        Dataset.create(dataset_name=f"d{number}")


# --- beginnings of ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    ["get", "list", "log", "diff", "status", "cat a.txt", "tag", "verify", "stats", "publish", "archive", "delete"],
)
@pytest.mark.parametrize("cut", [slice(6), slice(31), slice(32)])
def test_the_beginning_of_an_id_is_enough(shell, closed, words, cut):
    answer = shell(*words.split(), "--id", closed[cut])
    assert answer.code == 0, answer.err


def test_the_case_of_an_id_does_not_matter(shell, closed):
    for given in (closed.upper(), closed[:8].upper()):
        assert json.loads(shell("list", "--id", given, "--json").out)["id"] == closed


def test_beginnings_are_enough_wherever_an_id_is_taken(shell, closed, pictures):
    start = closed[:8]
    child = shell("create", "--parents", start).out.strip()
    assert shell("add", "--id", child[:8], "--files", "pictures", "--dataset-folder", "more").code == 0
    assert shell("close", "--id", child[:8]).code == 0
    assert Dataset.get(child).get_dependency_graph()[child] == [closed]
    assert json.loads(shell("compare", "--source", start, "--target", child[:8], "--json").out)["removed"] == []
    assert shell("diff", "--id", child[:8], "--against", start).code == 0
    assert shell("squash", "--name", "all", "--ids", start, child[:8]).code == 0
    assert [row["id"] for row in json.loads(shell("search", "--ids", start, "--json").out)["versions"]] == [closed]
    again = shell("sync", "--folder", "pictures", "--parents", child[:8], "--tags", "x")
    assert again.code == 0
    assert shell("delete", "--id", start, "--force").code == 0


@pytest.mark.parametrize("text", ["0123456", "01234", "x", "0" * 33, "0123456789abcdefg"])
def test_what_begins_no_id_is_not_found(shell, closed, text):
    answer = shell("get", "--id", text)
    assert (answer.code, answer.out) == (3, "")
    assert text in answer.err


def test_a_beginning_of_several_ids_is_refused_and_they_are_named(shell, monkeypatch):
    ids = ["abcdef" + "0" * 26, "abcdef" + "1" * 26]
    shell("create", "--name", "first")  # makes the store
    drafts(monkeypatch, *ids)
    answer = shell("list", "--id", "abcdef")
    assert answer.code == 4
    assert all(one in answer.err for one in ids)
    assert json.loads(shell("list", "--id", "abcdef1", "--json").out)["id"] == ids[1]


def test_the_beginning_of_a_deleted_id_says_that_it_was_deleted(shell, closed):
    shell("delete", "--id", closed)
    answer = shell("get", "--id", closed[:8])
    assert (answer.code, "was deleted" in answer.err) == (3, True)


# --- names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", FINDING)
def test_a_name_that_several_projects_have_is_refused_with_their_names(shell, pictures, words):
    made(shell, pictures, "P1")
    made(shell, pictures, "P2")
    answer = shell(*words.split(), "--name", "same")
    assert (answer.code, answer.out) == (4, "")
    assert "'P1', 'P2'" in answer.err
    assert len(Dataset.list_datasets(partial_name="^same$")) == 2
    assert shell("get", "--project", "P1", "--name", "same").code == 0


def test_at_most_five_projects_are_named(shell, pictures):
    for number in range(7):
        made(shell, pictures, f"P{number}")
    answer = shell("get", "--name", "same")
    assert "'P4', 2 more." in answer.err
    assert "P5" not in answer.err


def test_in_python_a_name_of_several_projects_finds_one_as_in_clearml(shell, pictures):
    made(shell, pictures, "P1")
    second = made(shell, pictures, "P2")
    assert Dataset.get(dataset_name="same").id == second


def test_projects_whose_versions_are_deleted_or_archived_leave_the_name_to_the_other(shell, pictures):
    made(shell, pictures, "P1")
    archived = made(shell, pictures, "P2")
    kept = made(shell, pictures, "P3")
    shell("delete", "--project", "P1", "--name", "same")
    shell("archive", "--id", archived)
    assert json.loads(shell("get", "--name", "same", "--json").out)["id"] == kept


def test_a_dataset_is_renamed_and_moved_without_its_project_where_its_name_is_enough(shell, closed):
    assert shell("rename", "--name", "cats", "--new-name", "felines").lines == ["data/felines"]
    assert shell("move", "--name", "felines", "--new-project", "zoo").lines == ["zoo/felines"]
    assert shell("rename", "--name", "cats", "--new-name", "x").code == 3
    assert shell("rename", "--project", "", "--name", "felines", "--new-name", "x").code == 3


# --- latest, and numbers -------------------------------------------------------------------------------------------


def test_latest_is_the_highest_version_of_the_dataset_that_is_named(shell, closed, pictures):
    (pictures / "a.txt").write_text("changed")
    second = shell("sync", "--folder", "pictures", "--project", "data", "--name", "cats", "--parents", "latest")
    assert second.lines[0] == "0 added, 1 modified, 0 removed"
    child = shell("create", "--name", "cats", "--parents", "latest").out.strip()
    assert Dataset.get(child).project == "data"
    assert Dataset.get(child).get_dependency_graph()[child] == [second.lines[-1].rpartition(" ")[2]]


def test_latest_of_no_dataset_is_refused(shell, closed):
    assert shell("create", "--parents", "latest").code == 2
    assert shell("create", "--name", "nothing", "--parents", "latest").code == 3
    assert shell("create", "--project", "other", "--name", "cats", "--parents", "latest").code == 3


def test_a_version_is_compared_with_a_number_of_the_same_dataset(shell, closed, pictures):
    (pictures / "a.txt").write_text("changed")
    shell("sync", "--folder", "pictures", "--parents", closed)
    shell("sync", "--folder", "pictures", "--name", "other", "--version", "7.0")
    against = shell("diff", "--project", "data", "--name", "cats", "--against", "1.0.0")
    assert against.lines[-1].startswith("0 added, 1 modified, 0 removed")
    assert shell("diff", "--project", "data", "--name", "cats", "--against", "7.0").code == 3
