"""What `.datasetignore` files leave out of a folder, as git would by the same lines."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset_store import Dataset
from dataset_store.core.paths import to_text
from dataset_store.errors import InvalidRequest
from dataset_store.local.scan import Scope, scan
from dataset_store.testing.folders import read, write

pytestmark = pytest.mark.usefixtures("both_ways")


def found(folder, *, ignore=False) -> set[str]:
    return {to_text(key) for block in scan(str(folder), scope=Scope(ignore=ignore)) for key in [*block.keys()]}


@pytest.mark.parametrize(
    ("rules", "left"),
    [
        ("", {"a.txt", "b.tmp", "build/out.o", "sub/build/x", "sub/c.tmp"}),
        ("*.tmp", {"a.txt", "build/out.o", "sub/build/x"}),
        ("/build/", {"a.txt", "b.tmp", "sub/build/x", "sub/c.tmp"}),
        ("build", {"a.txt", "b.tmp", "sub/c.tmp"}),
        ("*.tmp\n!c.tmp", {"a.txt", "build/out.o", "sub/build/x", "sub/c.tmp"}),
        ("sub/*\n!sub/c.tmp", {"a.txt", "b.tmp", "build/out.o", "sub/c.tmp"}),
        ("build/\n!build/out.o", {"a.txt", "b.tmp", "sub/c.tmp"}),
        ("# a comment\n\n  \n", {"a.txt", "b.tmp", "build/out.o", "sub/build/x", "sub/c.tmp"}),
        ("*\n!.datasetignore", set()),
    ],
)
def test_rules_are_those_of_gitignore(tmp_path, rules, left):
    names = ["a.txt", "b.tmp", "build/out.o", "sub/build/x", "sub/c.tmp"]
    folder = write(tmp_path / "in", dict.fromkeys(names, b"1") | {".datasetignore": rules.encode()})
    assert found(folder, ignore=True) == left | {".datasetignore"}
    assert found(folder) == {*names, ".datasetignore"}


def test_deeper_files_come_first_and_hold_for_their_directory_only(tmp_path):
    folder = write(
        tmp_path / "in",
        {
            ".datasetignore": b"*.tmp\nsecret\n",
            "one.tmp": b"",
            "sub/.datasetignore": b"!one.tmp\n/two\n",
            "sub/one.tmp": b"",
            "sub/two": b"",
            "sub/secret": b"",
            "sub/deep/two": b"",
            "two": b"",
        },
    )
    assert found(folder, ignore=True) == {".datasetignore", "sub/.datasetignore", "sub/one.tmp", "sub/deep/two", "two"}


RULES = ["*", "/a", "a", "a/", "b", "a/b", "**/b", "a/**", "!a", "!b", "!a/b", "/*", "!/a/", "c?", "[ab]c", "!cc"]
RULES += ["*/", "!*/", "**/", "!*c"]
LINES = st.lists(st.sampled_from(RULES), max_size=5)
NAMES = ["a", "b", "cc", "ac"]
PATHS = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join), max_size=8)


@given(LINES, PATHS)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
def test_git_leaves_out_the_same(tmp_path_factory, lines, paths):
    folder = tmp_path_factory.mktemp("in")
    for path in paths:
        if not any((folder / part).is_file() for part in _above(path)) and not (folder / path).is_dir():
            write(folder, {path: b""})
    (folder / ".gitignore").write_text("\n".join(lines))
    (folder / ".datasetignore").write_text("\n".join(lines))
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-o", "--exclude-standard"], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.split()
    ours = {path for path in found(folder, ignore=True) if not path.startswith(".git/") and (folder / path).is_file()}
    assert ours == set(listed)


def _above(path):
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def test_a_sync_leaves_out_what_is_ignored_and_removes_it_where_it_was(home):
    folder = write(home / "in", {"a": b"1", "b.tmp": b"2"})
    dataset = Dataset.create("d")
    assert dataset.sync_folder(folder) == (0, 2, 0)
    (folder / ".datasetignore").write_text("*.tmp\n")
    assert dataset.sync_folder(folder) == (1, 1, 0)
    dataset.finalize(auto_upload=True)
    copy = dataset.get_mutable_local_copy(home / "mutable")
    write(home / "mutable", {"c.tmp": b"3"})
    assert Dataset.create(parent_datasets=[dataset]).sync_folder(copy) == (0, 0, 0)
    assert dataset.verify_dataset_hash(dataset.get_local_copy()) == []
    assert dataset.compare_folder(copy).matches


def test_a_file_that_is_named_is_added_whatever_the_rules(home):
    folder = write(home / "in", {"a": b"1", "b.tmp": b"2", ".datasetignore": b"*.tmp"})
    dataset = Dataset.create("d")
    assert dataset.add_files(folder) == 2
    assert dataset.add_files(folder / "b.tmp") == 1
    dataset.finalize(auto_upload=True)
    assert read(dataset.get_local_copy()) == read(folder)
    assert dataset.verify_dataset_hash() == []


def test_an_ignored_device_or_closed_directory_does_no_harm(tmp_path):
    import os

    folder = write(tmp_path / "in", {"a": b"1", ".datasetignore": b"pipe\n"})
    os.mkfifo(folder / "pipe")
    assert found(folder, ignore=True) == {"a", ".datasetignore"}


@pytest.mark.parametrize("line", ["!", "a\\", "[z-a]"])
def test_what_is_no_rule_is_told_of_and_passed_over(tmp_path, line, caplog):
    folder = write(tmp_path / "in", {".datasetignore": f"{line}\n*.tmp\n".encode(), "a.tmp": b"", "b": b""})
    assert found(folder, ignore=True) == {".datasetignore", "b"}
    assert ".datasetignore" in caplog.text


def test_a_file_with_a_mark_and_other_line_ends_is_read_like_any(tmp_path):
    names = ["a.tmp", "b.log", "c\x0cd", "e"]
    rules = b"\xef\xbb\xbf*.tmp\r\n*.log\r\nc\x0cd\r\n"
    folder = write(tmp_path / "in", dict.fromkeys(names, b"") | {".datasetignore": rules})
    assert found(folder, ignore=True) == {".datasetignore", "e"}


def test_very_deep_rules_are_asked_one_after_another(tmp_path):
    folder = tmp_path / "in"
    deep = folder
    for _ in range(300):
        deep /= "d"
    deep.mkdir(parents=True)
    for above in [deep, *deep.parents][:301]:
        (above / ".datasetignore").write_text("!x\n")
    (deep / "file").write_text("")
    assert len(found(folder, ignore=True)) == 302


def test_a_file_of_rules_is_not_endless(tmp_path):
    folder = write(tmp_path / "in", {".datasetignore": b"#" * 1_100_000})
    with pytest.raises(InvalidRequest, match=r"\.datasetignore"):
        found(folder, ignore=True)
