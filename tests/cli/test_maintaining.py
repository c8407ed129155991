"""gc, repack and expire from a shell: told first, then applied."""

import json
import os

import pytest

from dataset_store.cli.upkeep_arguments import duration


@pytest.fixture
def history(shell, pictures):
    """Four versions of data/cats, each with a file of its own that does not compress; their ids."""
    made = []
    for _ in range(4):
        (pictures / "own").write_bytes(os.urandom(40_000))
        answer = shell("sync", "--folder", str(pictures), "--project", "data", "--name", "cats")
        assert answer.code == 0, answer.err
        made.append(answer.lines[-1].rpartition(" ")[2])
    return made


def packs(machine):
    return {path.name for path in (machine / "url" / "packs").rglob("*") if path.is_file()}


def test_versions_expire_and_what_they_needed_goes(shell, machine, history):
    told = shell("expire", "--name", "cats", "--keep-last", "1")
    assert "run it again with --apply" in told.out
    assert shell("list", "--versions", "--json").out.count('"version"') == 4
    done = shell("expire", "--name", "cats", "--keep-last", "1", "--apply", "--json")
    document = json.loads(done.out)
    assert [row["id"] for row in document["kept"]] == [history[3]]
    assert {row["id"] for row in document["expired"]} == set(history[:3])
    assert "There is nothing to delete" in shell("gc").out, "all are young"
    before = packs(machine)
    found = json.loads(shell("gc", "--min-age", "0", "--json").out)
    assert (found["applied"], found["dead"]["packs"]) == (False, 2)
    assert packs(machine) == before
    assert "2 packs of" in shell("gc", "--min-age", "0", "--apply").lines[-1]
    assert len(packs(machine)) == len(before) - 2
    assert shell("verify", "--name", "cats").code == 0


def test_packs_in_good_part_dead_are_repacked(shell, machine, history):
    shell("expire", "--name", "cats", "--keep-last", "1", "--apply")
    shell("gc", "--min-age", "0", "--apply")
    told = shell("repack")
    assert told.lines[-1].startswith("Nothing was written")
    (candidate,) = json.loads(shell("repack", "--json").out)["packs"]
    assert candidate["dead_percent"] > 80
    done = json.loads(shell("repack", "--apply", "--json").out)
    assert (done["repacked"], done["new_packs"]) == (1, 1)
    assert done["new_bytes"] < done["bytes"] / 2
    assert candidate["pack"] not in packs(machine)
    assert shell("repack", "--apply").lines == ["There is nothing to repack."]
    assert shell("verify", "--name", "cats").code == 0


def test_a_version_is_put_in_the_order_in_which_it_is_read(shell, machine, history):
    assert shell("repack", "--sequential", history[3][:8], "--apply").code == 0
    assert shell("get", "--id", history[3]).code == 0
    assert shell("verify", "--name", "cats").code == 0


def test_gc_lists_holds_and_drops_one(shell, machine, pictures):
    shell("create", "--project", "data", "--name", "cats")
    shell("add", "--files", str(pictures))
    shell("upload")
    shell("gc", "--min-age", "0", "--apply")
    shell("upload")
    (hold,) = json.loads(shell("gc", "--json").out)["holds"]
    assert f"hold {hold}" in shell("gc", "--min-age", "0").lines
    assert (
        json.loads(shell("gc", "--min-age", "0", "--drop-hold", hold, "--apply", "--json").out)["deleted"]["packs"] == 1
    )
    assert shell("gc", "--drop-hold", hold).code == 3
    assert shell("close").code == 0, "what was collected is sent again"


@pytest.mark.parametrize(
    "words",
    [
        ["expire", "--keep-last", "1"],
        ["expire", "--all", "--name", "cats", "--keep-last", "1"],
        ["expire", "--all"],
        ["expire", "--all", "--keep-last", "-1"],
        ["expire", "--all", "--keep-within", "soon"],
        ["gc", "--min-age", "-1h"],
        ["gc", "--min-age", "5"],
        ["repack", "--dead", "0"],
        ["repack", "--dead", "101"],
    ],
)
def test_a_call_that_means_nothing_is_refused_and_changes_nothing(shell, closed, words):
    answer = shell(*words)
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90s", 90), ("15m", 900), ("24h", 86400), ("1.5d", 129600), ("2w", 1209600)]
)
def test_times_are_numbers_with_a_unit(text, seconds):
    assert duration(text) == seconds
