"""Targets: each says what was found, in words, and whether it is enough."""

import pytest

from benchmarks import targets
from benchmarks.measuring.samples import Sample
from benchmarks.targets import Board

WARM = "dataset_store, from Python"


def taken(system: str, operation: str, wall: float, **more) -> Sample:
    return Sample("small", system, operation, 0, wall, 1.0, 0.0, **more)


SAMPLES = [
    taken("dataset_store", "first commit", 2.0, bytes=100, peak=90_000_000),
    taken("dataset_store", "no-change commit", 1.0, bytes=100),
    taken("dataset_store", "small commit", 1.0, bytes=110),
    taken("dataset_store", "warm copy", 0.060),
    taken(WARM, "diff", 0.040),
    taken("restic", "first commit", 5.0, bytes=98, peak=100_000_000),
    taken("restic", "no-change commit", 1.0, bytes=98),
    taken("restic", "small commit", 1.0, bytes=107),
    taken("restic", "diff", 1.0),
    taken("borg", "first commit", 7.0, bytes=70),
    taken("git", "first commit", 1.0, bytes=1),
    taken("limit", "hash", 1.6),
    taken("limit", "python -c pass", 0.011),
]


@pytest.mark.parametrize(
    ("row", "text", "met"),
    [
        (targets.faster("small", "first commit"), "2.5 x (restic)", True),
        (targets.faster("small", "first commit", least=3.0), "2.5 x (restic)", False),
        (targets.faster("small", "first commit", {"borg"}), "3.5 x (borg)", True),
        (targets.within("small", "first commit", "hash", 1.5), "1.25 x `hash`", True),
        (targets.within("small", "first commit", "hash", 1.2), "1.25 x `hash`", False),
        (targets.within("small", "first commit", "git", 2.0), "2.00 x `git`", True),
        (targets.rate("small", "first commit", "hash", 0.8), "80 % of the rate of `hash`", True),
        (targets.rate("small", "first commit", "hash", 0.81), "80 % of the rate of `hash`", False),
        (targets.fewest_bytes("small", "small commit", 1.05), "0.00 MB; restic 0.00 MB", True),
        (targets.fewest_bytes("small", "first commit", 1.05), "0.00 MB; borg 0.00 MB", False),
        (targets.fewest_added("small", "small commit", 1.12), "0.00 MB; restic 0.00 MB", True),
        (targets.fewest_added("small", "small commit", 1.05), "0.00 MB; restic 0.00 MB", False),
        (targets.milliseconds("small", "diff", 50.0), "40.0 ms", True),
        (targets.milliseconds("small", "diff", 30.0), "40.0 ms", False),
        (targets.from_python("small", "diff", 10.0), "25 x (restic)", True),
        (targets.from_python("small", "diff", 26.0), "25 x (restic)", False),
        (targets.short_command("small", "warm copy"), "60 ms of 64", True),
        (targets.memory("small", "first commit", 200), "90 MB; restic 100 MB", True),
        (targets.memory("small", "first commit", 80), "90 MB; restic 100 MB", False),
    ],
)
def test_what_was_found_is_told_and_whether_it_is_enough(row, text, met):
    found = row(Board(SAMPLES))
    assert (found.text, found.met) == (text, met)
    assert str(found) == (text if met else f"**{text}**")


def test_one_of_two_targets_is_enough():
    missed, met = (targets.faster("small", "first commit", least=least) for least in (3.0, 2.0))
    assert targets.either(missed, met)(Board(SAMPLES)).met
    assert not targets.either(missed, missed)(Board(SAMPLES)).met


def test_what_was_not_measured_is_in_no_row():
    assert targets.faster("small", "verify")(Board(SAMPLES)) is None
    assert targets.fewest_bytes("wide", "small commit", 1.0)(Board(SAMPLES)) is None
    found = list(targets.rows([*SAMPLES, taken("dataset_store", "verify", 1.0)]))
    assert {row[0] for row in found} == {"small"}
    assert ["small", "first commit", "2 x others", "2.5 x (restic)", "met"] in found
