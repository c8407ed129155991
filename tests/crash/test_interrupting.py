"""Commands that are interrupted end soon, leave no part of a copy, and can be given again."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dataset_store.local.removal import remove_tree

INTERRUPTING = Path(__file__).with_name("interrupting.py")

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs a folder in memory"),
]


@pytest.mark.parametrize(
    "times", [pytest.param(100, marks=pytest.mark.heavy), pytest.param(1_000, marks=pytest.mark.long)]
)
def test_a_command_that_is_interrupted_ends_within_two_seconds_and_can_be_given_again(times, tell):
    folder = Path(tempfile.mkdtemp(prefix="interrupting-", dir="/dev/shm"))
    try:
        done = subprocess.run(
            [sys.executable, str(INTERRUPTING), str(folder / "machine"), str(times), "1"],
            capture_output=True,
            text=True,
        )
    finally:
        remove_tree(str(folder))
    assert done.returncode == 0, done.stderr[-5_000:]
    report = json.loads(done.stdout)
    tell(f"interrupted commands: {report}")
    assert report["problems"] == []
    assert report["late"] == 0
    assert report["codes"]["ended with 130"] > times // 10
    assert report["codes"]["ended with 143"] > times // 10
