"""The page on compatibility has every argument of every public method, once, with a verdict."""

import inspect
import re
from pathlib import Path

import pytest

from dataset_store import Dataset, StorageManager

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\|\s*(?:`(\w+)`)?\s*\|\s*(?:`(\w+)`)?\s*\| (.+) \|$", re.MULTILINE)


CLASSES = [Dataset, StorageManager]


def rows(of: type) -> list[tuple[str, str, str]]:
    dataset, manager = PAGE.read_text().split("## StorageManager")
    found, method = [], ""
    for named, argument, verdict in ROW.findall(manager if of is StorageManager else dataset):
        method = named or method
        found.append((method, argument, verdict))
    return found


def arguments(of: type) -> set[tuple[str, str]]:
    found = set()
    for name, member in inspect.getmembers(of, callable):
        if not name.startswith("_"):
            parameters = [each for each in inspect.signature(member).parameters if each != "self"]
            found |= {(name, each) for each in parameters or [""]}
    return found


@pytest.mark.parametrize("of", CLASSES)
def test_every_argument_is_in_the_tables_once(of):
    named = [(method, argument) for method, argument, _ in rows(of)]
    assert len(named) == len(set(named))
    assert set(named) == arguments(of)


@pytest.mark.parametrize("of", CLASSES)
def test_every_argument_has_one_of_the_verdicts(of):
    for method, argument, verdict in rows(of):
        assert re.match(r"(does|no effect|refused|not in ClearML)\b", verdict), (method, argument, verdict)
