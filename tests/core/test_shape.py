"""Where nodes are cut: golden cuts, made by the independent reader from the page alone."""

import importlib.util
import json
import sys
from pathlib import Path

from dataset_store.core.shape import cut_rows

GOLDEN = Path(__file__).parents[1] / "golden"


def keys(count: int) -> list[bytes]:
    return [b"d%03d\0f%06d" % (number // 1000, number) for number in range(count)]


def test_keys_are_cut_where_they_always_were():
    golden = json.loads((GOLDEN / "shape.json").read_text())
    for row in golden:
        assert cut_rows(keys(row["keys"]), row["level"]) == row["ends"]
    assert {row["level"] for row in golden} == {0, 1, 2}


def test_the_independent_reader_cuts_alike():
    spec = importlib.util.spec_from_file_location("independent_reader", GOLDEN / "independent_reader.py")
    reader = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    for level in (0, 1, 2, 3):
        groups = reader.regroup(keys(9000), level)
        assert [group[-1] for group in groups] == [keys(9000)[end - 1] for end in cut_rows(keys(9000), level)]
