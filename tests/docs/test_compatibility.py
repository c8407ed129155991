"""The page on compatibility has every argument of every public method, once, with a verdict."""

import inspect
import re
from pathlib import Path

from dataset_store import Dataset

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
ROW = re.compile(r"^\|\s*(?:`(\w+)`)?\s*\|\s*(?:`(\w+)`)?\s*\| (.+) \|$", re.MULTILINE)


def rows() -> list[tuple[str, str, str]]:
    found, method = [], ""
    for named, argument, verdict in ROW.findall(PAGE.read_text()):
        method = named or method
        found.append((method, argument, verdict))
    return found


def arguments() -> set[tuple[str, str]]:
    found = set()
    for name, member in inspect.getmembers(Dataset, callable):
        if not name.startswith("_"):
            parameters = [each for each in inspect.signature(member).parameters if each != "self"]
            found |= {(name, each) for each in parameters or [""]}
    return found


def test_every_argument_is_in_the_tables_once():
    named = [(method, argument) for method, argument, _ in rows()]
    assert len(named) == len(set(named))
    assert set(named) == arguments()


def test_every_argument_has_one_of_the_verdicts():
    for method, argument, verdict in rows():
        assert re.match(r"(does|no effect|refused|not in ClearML)\b", verdict), (method, argument, verdict)
