"""Damage, from a shell: verify of the whole store, repair, and caches that come back."""

import json
import shutil
import subprocess
import sys

import pytest

from dataset_store.storage.findings import FINDINGS


def packs_of(machine):
    return sorted(path for path in (machine / "url" / "packs").rglob("*") if path.is_file())


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.unlink()
    path.write_bytes(data)


def test_verify_of_the_whole_store_says_what_it_read(shell, closed):
    answer = shell("verify", "--all")
    assert answer.code == 0
    assert answer.lines[-1].startswith("1 log entry, 1 version, 1 pack of ")
    assert answer.lines[-1].endswith("1 of 1 data frame read; no damage found")
    for way in (["--structure"], ["--sample", "50%"], ["--sample", "1KiB", "--seed", "3"]):
        told = json.loads(shell("verify", "--all", "--json", *way).out)
        assert (told["sound"], told["findings"]) == (True, [])
    assert shell("tag", "--id", closed, "--add", "checked").code == 0
    assert shell("verify", "--all").lines[-1].startswith("2 log entries, 1 version, ")


def test_damage_ends_with_5_and_is_told_by_a_stable_id_pack_and_frame(shell, closed, machine):
    (pack,) = packs_of(machine)
    flip(pack, 60)
    answer = shell("verify", "--all", "--json")
    assert answer.code == 5
    told = json.loads(answer.out)
    (one,) = told["findings"]
    assert one["id"] in FINDINGS
    assert (one["id"], one["severity"], one["offset"]) == ("frame-damaged", "must", 40)
    assert one["object"] == f"packs/{pack.parent.name}/{pack.name}"
    assert [(part["id"], part["paths"]) for part in told["affected"]] == [
        (closed, ["a.txt", "train/b.jpg", "train/c.png"])
    ]
    lines = shell("verify", "--all").lines
    assert lines[0].startswith(f"must  frame-damaged  {one['object']} at 40  ")
    assert lines[1] == f"version {closed} lacks 3 files"


@pytest.mark.parametrize(
    "words",
    [
        ["--all", "--name", "cats"],
        ["--all", "--folder", "x"],
        ["--structure"],
        ["--sample", "5%"],
        ["--all", "--structure", "--sample", "5%"],
        ["--all", "--sample", "much"],
        ["--all", "--sample", "500%"],
    ],
)
def test_what_cannot_be_meant_is_refused(shell, closed, words):
    assert shell("verify", *words).code == 2


def test_repair_tells_first_and_restores_when_it_is_applied(shell, closed, machine, pictures):
    (pack,) = packs_of(machine)
    pack.unlink()
    told = shell("repair", "--folder", str(pictures))
    assert told.code == 0
    assert told.lines[-1] == "Nothing was written: run it again with --apply."
    assert packs_of(machine) == []
    done = json.loads(shell("repair", "--folder", str(pictures), "--apply", "--json").out)
    assert [one["condemned"] for one in done["packs"]] == [True]
    assert done["affected"] == []
    assert shell("verify", "--all").code == 0
    assert shell("verify", "--id", closed).code == 0
    assert shell("repair").lines == ["There is nothing to repair in packs."]


def test_what_stays_lost_is_named_and_ends_with_5(shell, closed, machine, pictures):
    (pack,) = packs_of(machine)
    pack.unlink()
    shutil.rmtree(pictures)
    answer = shell("repair", "--apply")
    assert answer.code == 5
    assert "  train/b.jpg" in answer.lines
    assert "stays lost" in answer.err


def test_another_store_is_looked_into(shell, closed, machine, pictures):
    assert shell("push", str(machine / "elsewhere")).code == 0
    (pack,) = packs_of(machine)
    pack.unlink()
    shutil.rmtree(pictures)
    assert shell("repair", "--from", str(machine / "elsewhere"), "--apply").code == 0
    assert shell("verify", "--id", closed).code == 0


def test_every_cache_and_index_of_a_machine_comes_back_from_the_store(shell, closed, machine, pictures):
    """Nodes, footers, chunks, summaries, the catalog, stats of files, local copies: all below one folder."""

    def run(*words):
        done = subprocess.run(
            [sys.executable, "-m", "dataset_store.cli", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    (pictures / "new").write_text("new")
    for words in (
        ["get", "--id", closed],
        ["sync", "--folder", str(pictures), "--project", "data", "--name", "cats"],
        ["gc"],
        ["repair"],
        ["list"],
        ["verify", "--all"],
    ):
        shutil.rmtree(machine / "cache", ignore_errors=True)
        assert run(*words)
