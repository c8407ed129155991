"""Tests that must not run beside each other, for memory or for one server, are on one worker."""

import pytest


@pytest.mark.heavy
@pytest.mark.xdist_group("kept together")
def test_a_group_of_tests_is_kept_together(request):
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("needs -n 2 --dist loadgroup")
    assert request.node.nodeid.endswith("@kept together"), "this pytest and this pytest-xdist do not fit together"
