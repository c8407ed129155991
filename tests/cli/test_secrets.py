"""Passwords in the URL of a store are used, and neither shown nor kept."""

import itertools
import json
from pathlib import Path

import pytest

from dataset_store.dataset import workspace as workspaces

SECRET = "s3cr3t"
numbers = itertools.count()


@pytest.fixture
def url(machine, monkeypatch):
    """A store whose URL holds a password; without it the URL means another one, which does not exist."""
    workspaces._open.clear()
    found = f"memory://user:{SECRET}@secrets-{next(numbers)}/store"
    monkeypatch.setenv("DATASET_STORE_URL", found)
    return found


@pytest.fixture
def whispering(shell):
    """As `shell`, and nothing that it says holds the password."""

    def run(*words):
        answer = shell(*words)
        assert SECRET not in answer.out + answer.err, words
        return answer

    return run


def shown(url):
    return url.replace(f"user:{SECRET}@", "")


def held_in_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


def test_no_command_shows_or_keeps_the_password_of_a_store(whispering, url, machine, pictures):
    assert f"began a new store at {shown(url)}" in whispering("create", "--name", "cats").err
    assert whispering("sync", "--folder", "pictures").code == 0
    for words in (
        ["list"],
        ["list", "--versions"],
        ["list", "--versions", "--json"],
        ["search"],
        ["search", "--json"],
        ["stats"],
        ["stats", "--json"],
        ["config"],
        ["config", "--json"],
        ["get"],
        ["verify"],
        ["log", "--json"],
    ):
        assert whispering(*words).code == 0, words
    wrong = [["list", "--id", "0" * 32], ["get", "--name", "none"], ["get", "--id", "0123456"], ["list", url], [url]]
    for words in wrong:
        assert whispering(*words).code in {2, 3}, words
    assert whispering("doctor").code == 0
    assert whispering("doctor", "--json").code == 0
    assert json.loads(whispering("stats", "--json").out)["store"] == shown(url)
    assert held_in_files(machine) == []


def test_what_a_folder_remembers_is_opened_with_the_password_that_is_given_now(whispering, url, monkeypatch, pictures):
    made = whispering("create", "--name", "cats").out.strip()
    listed = whispering("list", "--json")
    assert (listed.code, json.loads(listed.out)["id"]) == (0, made)
    assert whispering("list", "--json", "--store", url).code == 0
    monkeypatch.delenv("DATASET_STORE_URL")
    assert whispering("config", "--set", f"store={url}").code == 0
    assert whispering("list").code == 0
    monkeypatch.setenv("DATASET_STORE_URL", "elsewhere")
    other = whispering("list")
    assert other.code == 0
    assert shown(url) in other.err


def test_a_url_of_sftp_is_shown_without_its_password(whispering, machine, monkeypatch):
    monkeypatch.setenv("DATASET_STORE_URL", f"sftp://u:{SECRET}@h.invalid/x")
    assert json.loads(whispering("config", "--json").out)["settings"]["store"]["value"] == "sftp://h.invalid/x"
    assert whispering("create", "--name", "x", "--storage", f"sftp://u:{SECRET}@h/x").code != 0
    assert held_in_files(machine) == []
