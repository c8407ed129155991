"""A test that cannot fail shows nothing: each defect, put back, makes its own test fail.

The numbers of the page, of the tests and of the plants are the same, without gaps.
"""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "defects.md"


def sibling(name):
    """A module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"defects_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLANTS = sibling("plants").PLANTS
TESTS = {
    name[5:8].upper(): test for name, test in vars(sibling("test_defects")).items() if re.match(r"test_d\d\d_", name)
}


@pytest.mark.parametrize("number", sorted(PLANTS))
def test_a_defect_that_is_put_back_fails_its_test(number, request, monkeypatch):
    test = TESTS[number]
    fixtures = {name: request.getfixturevalue(name) for name in inspect.signature(test).parameters}
    PLANTS[number].put_back(monkeypatch)
    with pytest.raises(PLANTS[number].fails_with):
        test(**fixtures)


def test_page_tests_and_plants_have_the_same_numbers_without_gaps():
    rows = re.findall(r"^\| (D\d\d) \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [f"D{number:02}" for number in range(1, len(rows) + 1)]
    assert sorted(TESTS) == sorted(PLANTS) == rows


def test_each_number_has_one_test():
    names = re.findall(r"^def (test_\w+)", (HERE / "test_defects.py").read_text(), re.MULTILINE)
    assert len(names) == len(TESTS)
    assert all(re.match(r"test_d\d\d_[a-z]", name) for name in names)
