"""The code of commit, gc and repack loses nothing in any schedule tried, and the schedules notice what they are for."""

from collections import Counter

import pytest
from play import outcome, play
from schedule_plants import PLANTS
from schedule_watch import REQUIRED

EVERYDAY = 40  # schedules
BLOCK = 2_000  # schedules of one heavy test; ten of them make 20,000
CAUGHT_WITHIN = 2_000  # schedules in which a planted fault must show


def broken(first, count):
    """Seeds whose schedules broke an invariant, and how; and how many schedules met each situation."""
    met = Counter()
    bad = []
    for seed in range(first, first + count):
        _, problem, happened = outcome(seed)
        met.update(happened.keys())
        if problem is not None:
            bad.append((seed, problem))
    return bad, met


def test_no_schedule_breaks_an_invariant():
    assert broken(0, EVERYDAY)[0] == []


@pytest.mark.heavy
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("block", range(10))
def test_none_of_20_000_schedules_breaks_an_invariant_and_they_meet_what_the_rules_are_for(block, tell):
    require_sound(100_000 + block * BLOCK, tell)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(50))
def test_none_of_100_000_more(block, tell):
    require_sound(200_000 + block * BLOCK, tell)


def require_sound(first, tell):
    """No schedule of a block breaks an invariant, and each situation is met in one in a hundred of them."""
    bad, met = broken(first, BLOCK)
    tell("schedules", played=BLOCK, violations=len(bad), **{what: met[what] for what in REQUIRED})
    assert bad == []
    assert {what: met[what] >= BLOCK / 100 for what in REQUIRED} == dict.fromkeys(REQUIRED, True), met


@pytest.mark.heavy
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant):
    with plant():
        problems = (outcome(seed)[1] for seed in range(CAUGHT_WITHIN))
        found = next((problem for problem in problems if problem is not None), "")
    assert found
    assert "TypeError" not in found, "a plant that no longer fits the function which it replaces shows nothing"


def test_a_seed_is_one_schedule():
    first, second = play(7), play(7)
    assert [data for data, _ in first.log] == [data for data, _ in second.log]
    assert first.ever == second.ever
