"""push, pull and clone from a shell."""

import json

import pytest


@pytest.fixture
def two(shell, pictures, closed):
    """The ids of two versions of `data/cats`."""
    (pictures / "a.txt").write_text("changed")
    made = shell("sync", "--folder", str(pictures), "--project", "data", "--name", "cats", "--parents", closed)
    assert made.code == 0, made.err
    return closed, made.lines[-1].rpartition(" ")[2]


def listed(shell, store):
    return json.loads(shell("list", "--versions", "--store", store, "--json").out)["versions"]


def test_a_version_goes_to_another_store_with_its_history_and_only_once(shell, machine, two):
    other = str(machine / "other")
    told = shell("push", other, "--name", "cats", "--dry-run")
    assert (told.code, told.lines[-1]) == (
        0,
        "2 versions to copy, 0 there already; 1.6 KiB at most, before compression",
    )
    assert not (machine / "other").exists()
    pushed = shell("push", other, "--name", "cats")
    assert pushed.code == 0, pushed.err
    assert [line.split(" copied: ")[0] for line in pushed.lines[:2]] == [
        f"data/cats 1.0.0 {two[0]}",
        f"data/cats 1.0.1 {two[1]}",
    ]
    assert pushed.lines[2].startswith("2 versions copied, 0 there already; ")
    again = shell("push", other, "--id", two[1][:8])
    assert again.lines == [
        f"data/cats 1.0.1 {two[1]} is there already",
        "0 versions copied, 2 there already; 0 B in 0 packs",
    ]
    assert {row["id"] for row in listed(shell, other)} == set(two)


def test_what_is_pulled_is_found_by_name_in_the_store_in_force(shell, machine, two):
    here = str(machine / "here")
    pulled = shell("pull", str(machine / "url"), "--id", two[1][:7], "--store", here, "--json")
    assert pulled.code == 0, pulled.err
    document = json.loads(pulled.out)
    assert [(row["id"], row["outcome"]) for row in document["versions"]] == [(one, "sent") for one in two]
    assert document["target"] == here
    got = shell("get", "--name", "cats", "--copy", "out", "--store", here)
    assert got.code == 0, got.err
    assert (machine / "work" / "out" / "a.txt").read_text() == "changed"


def test_a_clone_is_all_of_a_store_or_some(shell, machine, pictures, two):
    assert shell("sync", "--folder", str(pictures), "--name", "dogs", "--tags", "t").code == 0
    source = str(machine / "url")
    assert shell("clone", source, "--to", str(machine / "some"), "--tags", "t").code == 0
    assert [row["name"] for row in listed(shell, str(machine / "some"))] == ["dogs"]
    assert shell("clone", source, "--to", str(machine / "first"), "--ids", two[0][:10]).code == 0
    assert [row["id"] for row in listed(shell, str(machine / "first"))] == [two[0]]
    assert shell("clone", source, "--to", str(machine / "all")).code == 0
    assert len(listed(shell, str(machine / "all"))) == 3
    assert shell("push", str(machine / "pushed"), "--all", "--name", "cats").lines[-1].startswith("2 versions copied")


def test_a_conflict_says_which_flag_ends_it(shell, machine, pictures, two):
    other = str(machine / "other")
    assert shell("sync", "--folder", str(pictures), "--project", "data", "--name", "cats", "--store", other).code == 0
    refused = shell("push", other, "--name", "cats")
    assert refused.code == 4
    assert "--as NAME" in refused.err
    taken = shell("push", other, "--name", "cats", "--as", "cats")
    assert taken.code == 4
    assert "--renumber" in taken.err
    assert shell("push", other, "--name", "cats", "--as", "cats", "--renumber", "--no-history").code == 0
    assert sorted(row["version"] for row in listed(shell, other)) == ["1.0.0", "1.0.1"]
    assert shell("push", other, "--name", "cats", "--as", "felines", "--as-project", "mine").code == 0
    assert {row["name"] for row in listed(shell, other)} == {"cats", "felines"}


def test_labels_are_made_equal_where_that_is_asked_for(shell, machine, two):
    other = str(machine / "other")
    shell("push", other, "--name", "cats")
    shell("tag", "--id", two[1], "--add", "good")
    assert shell("push", other, "--name", "cats").lines[0].endswith("--labels makes them equal")
    shell("push", other, "--name", "cats", "--labels")
    assert next(row["tags"] for row in listed(shell, other) if row["id"] == two[1]) == ["good"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pull", "{}/url"], 2),
        (["pull", "{}/nowhere", "--name", "cats"], 3),
        (["pull", "{}/url", "--name", "dogs"], 3),
        (["pull", "{}/url", "--id", "abcdef", "--name", "cats"], 2),
        (["push", "{}/other", "--id", "abcdef", "--all"], 2),
        (["push", "{}/url", "--name", "cats"], 2),
        (["clone", "{}/nowhere"], 3),
        (["push", "nope://x/y", "--name", "cats"], 2),
    ],
)
def test_what_is_wrong_has_its_exit_code(shell, machine, two, words, code):
    answer = shell(*(word.format(machine) for word in words))
    assert (answer.code, answer.out) == (code, "")
    assert len(answer.err.splitlines()) == 2


def test_no_password_of_a_url_is_shown(shell, machine, two):
    answer = shell("pull", "sftp://user:hunter2@127.0.0.1:1/x", "--name", "cats")
    assert answer.code
    assert "hunter2" not in answer.out + answer.err
