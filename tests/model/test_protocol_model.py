"""The protocol of commit, gc and repack holds in every schedule tried, and each of its rules is needed."""

from dataclasses import replace

import pytest
from protocol_model import ALL_ON, caught_after, play, violation_of
from protocol_rules import COST_ONLY, RULES, Rules, story

EVERYDAY = 2_000  # schedules
BLOCK = 10_000  # schedules of one heavy test; twenty of them make 200,000
SEEN_WITHIN = 5_000  # schedules in which the absence of any rule must show


def violations(first_seed: int, count: int, rules: Rules = ALL_ON) -> list[tuple[int, str]]:
    return [(seed, why) for seed in range(first_seed, first_seed + count) if (why := violation_of(seed, rules))]


def test_with_all_rules_no_schedule_breaks_an_invariant():
    assert violations(0, EVERYDAY) == []


@pytest.mark.heavy
@pytest.mark.parametrize("block", range(20))
def test_with_all_rules_none_of_200_000_schedules_breaks_an_invariant(block, tell):
    found = violations(1_000_000 + block * BLOCK, BLOCK)
    tell("schedules of the model", played=BLOCK, violations=len(found))
    assert found == []


@pytest.mark.parametrize("rule", RULES)
def test_without_this_rule_some_schedule_breaks_an_invariant(rule):
    assert caught_after(rule, SEEN_WITHIN) is not None, story(rule)


@pytest.mark.parametrize("rule", COST_ONLY)
def test_without_a_rule_kept_for_cost_alone_every_invariant_still_holds(rule):
    assert violations(0, EVERYDAY // 2, replace(ALL_ON, **{rule: False})) == []


def test_a_seed_is_one_schedule():
    first, second = play(7, ALL_ON), play(7, ALL_ON)
    assert (first.log, first.packs) == (second.log, second.packs)


def test_the_schedules_reach_every_kind_of_entry_and_every_declared_outcome():
    worlds = [play(seed, ALL_ON) for seed in range(400)]
    assert {entry.kind for world in worlds for entry in world.log} == {
        "version", "delete", "condemned", "repack", "hold", "release",
    }  # fmt: skip
    assert {outcome for world in worlds for outcome in world.outcomes} == {
        "BodyConflict", "ChunksLost", "CommitOutcomeUnknown", "VersionDeleted",
    }  # fmt: skip


def test_the_schedules_move_frames_more_than_once():
    logs = [play(seed, ALL_ON).log for seed in range(100)]
    targets = [{new for entry in log if entry.kind == "repack" for _, new in entry.rows} for log in logs]
    sources = [{old for entry in log if entry.kind == "repack" for old, _ in entry.rows} for log in logs]
    assert any(new & old for new, old in zip(targets, sources, strict=True))


def test_every_rule_tells_the_schedule_it_prevents():
    assert all(len(story(rule)) > 80 for rule in RULES + COST_ONLY)
