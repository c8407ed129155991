"""Each promise of SECURITY.md names a test that is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_promise_names_tests_that_exist():
    promises = (ROOT / "SECURITY.md").read_text().partition("## What is promised")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!-|promise)(.+) \| (.+) \|$", promises, re.MULTILINE)
    assert len(rows) >= 10
    for promise, tests in rows:
        named = re.findall(r"`(tests/[\w/.]+)`", tests)
        assert named, promise
        assert all((ROOT / name).exists() for name in named), named
