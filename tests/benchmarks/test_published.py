"""The page of the published run says what its samples say."""

import json
from collections import defaultdict

import pytest

from benchmarks import publish
from benchmarks.systems import SYSTEMS
from benchmarks.workloads import WORKLOADS


@pytest.fixture(scope="module")
def samples():
    return publish.published()


def test_the_page_is_made_of_the_samples(samples):
    assert publish.PAGE.read_text() == publish.page(samples, json.loads(publish.ABOUT.read_text()))
    for workload in {one.workload for one in samples}:
        assert (publish.FIGURES / f"{workload}.svg").exists()


def test_each_workload_was_measured_five_times_with_every_system_that_reaches_its_store(samples):
    rounds = defaultdict(set)
    for one in samples:
        rounds[one.workload, one.system].add(one.round)
    for workload in {one.workload for one in samples}:
        far = WORKLOADS[workload].far
        wanted = {name for name, system in SYSTEMS.items() if system.reaches_far or not far}
        assert {name for name in wanted if len(rounds[workload, name]) >= 5} == wanted


def test_the_versions_of_all_systems_are_told():
    told = json.loads(publish.ABOUT.read_text())["versions"]
    assert set(told) == set(SYSTEMS)
    assert all(told.values())
