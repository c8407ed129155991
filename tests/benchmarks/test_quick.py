"""The quick look: what is worse is told, and every operation has a ratio that was accepted."""

import json

from benchmarks import quick
from benchmarks.systems import Home
from benchmarks.workloads import WORKLOADS


def test_a_ratio_that_is_worse_by_more_than_a_quarter_is_told_and_so_is_one_that_nobody_accepted():
    accepted = {"a": 2.0, "b": 2.0, "c": 2.0}
    found = {"a": [2.4, 9.0, 2.5], "b": [2.6, 1.0, 9.0], "d": [1.0]}
    assert quick.worse(found, accepted) == [
        "b: 2.60, accepted was 2.00",
        "d: 1.00, and there is nothing accepted to compare it with",
    ]


def test_what_was_accepted_is_told_for_every_operation_of_the_quick_look(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(quick.Pairs, "seconds", lambda self, commands, *, cold: 1.0)
    monkeypatch.setattr(quick, "settle", lambda: None)
    for name, scale in quick.SCALES.items():
        workload = WORKLOADS[name](scale / 1000)
        root = tmp_path / name
        (root / "tree" / "data").mkdir(parents=True)
        workload.build(root / "tree" / "data")
        asked += [operation for operation, _ in quick.Pairs(quick.Prepared(workload, root), Home(root)).ratios()]
    assert asked == list(json.loads(quick.ACCEPTED.read_text()))
