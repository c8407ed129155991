"""What a working folder remembers."""

import json
import os
import shutil
from pathlib import Path

import pytest

from dataset_store.cli import main
from dataset_store.local.current_draft import CurrentVersion, forget, recall, remember


def test_each_working_folder_remembers_a_version_of_its_own(shell, machine, monkeypatch):
    here = shell("create", "--name", "here").out.strip()
    (machine / "elsewhere").mkdir()
    monkeypatch.chdir(machine / "elsewhere")
    there = shell("create", "--name", "there").out.strip()
    assert json.loads(shell("list", "--json").out)["id"] == there
    monkeypatch.chdir(machine / "work")
    assert json.loads(shell("list", "--json").out)["id"] == here


def test_a_folder_reached_by_a_link_is_the_same_folder(shell, machine, monkeypatch):
    draft = shell("create", "--name", "cats").out.strip()
    os.symlink(machine / "work", machine / "link")
    monkeypatch.chdir(machine / "link")
    assert json.loads(shell("list", "--json").out)["id"] == draft


@pytest.mark.parametrize("words", [["add", "--files", "."], ["remove", "--files", "*"], ["upload"], ["close"], ["get"]])
def test_without_a_version_to_mean_a_command_says_how_to_begin_one(shell, words):
    answer = shell(*words)
    assert (answer.code, answer.out) == (3, "")
    assert "dataset-store create --name" in answer.err


def test_after_close_the_folder_means_the_final_version_for_reading_only(shell, pictures):
    draft = shell("create", "--name", "cats").out.strip()
    shell("add", "--files", str(pictures))
    shell("close")
    assert json.loads(shell("list", "--json").out)["id"] == draft
    assert Path(shell("get").out.strip()).is_dir()
    refused = shell("add", "--files", str(pictures))
    assert refused.code == 4
    assert f"create --parents {draft}" in refused.err


def test_a_draft_that_gives_way_to_another_is_named(shell):
    first = shell("create", "--name", "cats").out.strip()
    assert first in shell("create", "--name", "dogs").err
    assert shell("close", "--id", first).code == 0


def test_closing_another_version_by_id_leaves_the_current_draft_current(shell):
    first = shell("create", "--name", "cats").out.strip()
    second = shell("create", "--name", "dogs").out.strip()
    shell("close", "--id", first)
    assert json.loads(shell("list", "--json").out)["id"] == second


def test_the_store_of_the_current_version_is_remembered_with_it(shell, machine, pictures):
    draft = shell("create", "--name", "cats", "--store", str(machine / "other")).out.strip()
    assert shell("add", "--files", str(pictures)).code == 0
    assert shell("close").out.endswith(f"{draft}\n")
    assert (machine / "other" / "config").exists()
    assert not (machine / "url").exists()


def test_a_remembered_store_that_is_not_the_one_in_force_is_said_once_and_only_to_people(shell, machine, pictures):
    other, url = str(machine / "other"), str(machine / "url")
    shell("create", "--name", "cats", "--store", other)
    for words in (["list"], ["add", "--files", "pictures"], ["sync", "--folder", "pictures"]):
        answer = shell(*words)
        assert answer.code == 0
        (line,) = [line for line in answer.err.splitlines() if line.startswith("note: ")]
        assert other in line
        assert url in line
    assert "note: " not in shell("list", "--json").err
    assert "note: " not in shell("list", "--store", other).err


def test_nothing_is_said_where_no_store_is_named_or_the_same(shell, machine, monkeypatch):
    shell("create", "--name", "cats")
    assert shell("list").err == ""
    shell("create", "--name", "cats", "--store", str(machine / "other"))
    monkeypatch.delenv("DATASET_STORE_URL")
    assert shell("list").err == ""


def test_another_store_named_on_the_command_line_hides_what_is_remembered(shell, machine):
    shell("create", "--name", "cats")
    answer = shell("close", "--store", str(machine / "other"))
    assert answer.code == 3
    assert str(machine / "other") in answer.err


def test_a_remembered_version_that_is_gone_is_forgotten_with_a_clear_error(shell, machine):
    draft = shell("create", "--name", "cats").out.strip()
    shutil.rmtree(machine / "data" / "drafts")
    gone = shell("list")
    assert gone.code == 3
    assert draft in gone.err
    assert shell("list").code == 0


def test_the_environment_is_afterwards_what_it_was(machine, monkeypatch):
    monkeypatch.delenv("DATASET_STORE_URL")
    assert main(["create", "--name", "cats", "--store", str(machine / "other")]) == 0
    assert main(["list", "--json"]) == 0
    assert "DATASET_STORE_URL" not in os.environ


def test_what_was_remembered_is_recalled_until_it_is_forgotten(tmp_path):
    data, folder = str(tmp_path / "data"), str(tmp_path)
    assert recall(data, folder) is None
    remember(data, folder, CurrentVersion("file:///s", "a" * 32, final=False))
    remember(data, folder, CurrentVersion("file:///s", "b" * 32, final=True))
    found = recall(data, folder)
    assert found is not None
    assert (found.store, found.id, found.final, found.folder) == ("file:///s", "b" * 32, True, folder)
    forget(data, folder)
    forget(data, folder)
    assert recall(data, folder) is None


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"store": 1}', b"[]"])
def test_a_file_that_cannot_be_understood_counts_as_none(tmp_path, content):
    data, folder = str(tmp_path / "data"), str(tmp_path)
    remember(data, folder, CurrentVersion("s", "a" * 32, final=False))
    (only,) = (tmp_path / "data" / "current").iterdir()
    only.write_bytes(content)
    assert recall(data, folder) is None


def test_a_folder_whose_name_is_no_text_can_be_remembered(tmp_path):
    folder = os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff"))
    remember(str(tmp_path), folder, CurrentVersion("s", "a" * 32, final=False))
    found = recall(str(tmp_path), folder)
    assert found is not None
    assert found.id == "a" * 32


def test_nothing_is_left_beside_what_is_remembered(tmp_path):
    remember(str(tmp_path), str(tmp_path), CurrentVersion("s", "a" * 32, final=False))
    remember(str(tmp_path), str(tmp_path), CurrentVersion("s", "b" * 32, final=False))
    assert len(list((tmp_path / "current").iterdir())) == 1
