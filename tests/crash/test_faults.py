"""Every file-changing call of what users do meets a kill, an error, or a short write; and power goes at any moment."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from dataset_store.local.removal import remove_tree

SHIM = Path(__file__).with_name("shim.py")
SWEEP = Path(__file__).with_name("sweep.py")
REPLAY = Path(__file__).with_name("power_cut.py")

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs LD_PRELOAD and /dev/shm"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc: apt-get install gcc"),
]


@pytest.fixture
def scratch():
    """A folder in memory."""
    folder = Path(tempfile.mkdtemp(prefix="faults-", dir="/dev/shm"))
    yield folder
    remove_tree(str(folder))


@pytest.fixture
def run(scratch):
    """Runs a script of this folder under the shim, several at once, each with its own words; what they print."""
    built = subprocess.run([sys.executable, str(SHIM), str(scratch)], check=True, capture_output=True, text=True)
    environment = os.environ | {"LD_PRELOAD": built.stdout.strip(), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(script, *words):
        commands = [[sys.executable, str(script), str(scratch / str(at)), *each] for at, each in enumerate(words)]
        processes = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for command in commands
        ]
        printed = [process.communicate()[0] for process in processes]
        assert [process.returncode for process in processes] == [0] * len(processes)
        return [json.loads(line) for each in printed for line in each.splitlines()]

    return run


def halves(*words):
    return [["--part", "0/2", *words], ["--part", "1/2", *words]]


def total(reports, field):
    return sum((Counter(report[field]) for report in reports), Counter())


def test_a_fault_at_any_write_loses_nothing_and_the_next_command_goes_on(run, tell):
    reports = run(SWEEP, *halves())
    points = sum(report["points"] for report in reports)
    fates = total(reports, "fates")
    tell("points (call and fault)", all=points, **fates)
    problems = {point: problem for report in reports for point, problem in report["problems"].items()}
    assert not problems, problems
    assert points >= 10_000
    assert fates["kill: killed"] > 2_000
    assert all(fates[f"{fault}: typed"] > 500 for fault in ("ENOSPC", "EIO", "disk stays full"))
    assert fates["EMFILE: typed"] > 100


@pytest.mark.parametrize(
    ("plant", "sequence", "found"),
    [("log before packs", "at once", "ObjectMissing"), ("write in place", "several packs", "CorruptObject")],
)
def test_faults_find_out(run, plant, sequence, found):
    reports = run(SWEEP, ["--sequence", sequence, "--every", "5", "--plant", plant])
    problems = [problem for report in reports for problem in report["problems"].values()]
    assert any(found in problem for problem in problems), problems


def test_no_state_of_the_disk_after_a_power_cut_has_lost_what_was_acknowledged(run, tell):
    reports = run(REPLAY, *halves())
    states = sum(report["states"] for report in reports)
    gone_on = sum(report["gone on"] for report in reports)
    tell(f"{states} states of the disk, the next command carried out on {gone_on} of them")
    tell("different parts of these that were looked at", **total(reports, "looked at"))
    assert not total(reports, "problems"), [report["examples"] for report in reports]
    assert states >= 100_000
    assert gone_on >= 1_000


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        ("no fsync", "CorruptObject"),
        ("no directory fsync", "the store is gone"),
        ("copies not flushed", "a local copy says that it is whole, and is not"),
    ],
)
def test_power_cuts_find_out(run, plant, found):
    reports = run(REPLAY, ["--sequence", "first commit", "--go-on", "1000000", "--plant", plant])
    problems = total(reports, "problems")
    assert any(found in problem for problem in problems), problems


def test_a_disk_that_flushes_what_it_is_told_to_keeps_a_plain_commit(run):
    """The same run as those of the planted faults, without a fault: what they find is not of the replay."""
    reports = run(REPLAY, ["--sequence", "first commit", "--go-on", "1000000"])
    assert sum(report["bad"] for report in reports) == 0
