"""The pages that are written from docstrings and from the grammar are what those say now."""

import importlib.util
from pathlib import Path

import pytest

from dataset_store import Dataset, StorageManager
from dataset_store.cli.arguments import build_parser

DOCS = Path(__file__).parents[2] / "docs"


def maker():
    spec = importlib.util.spec_from_file_location("make_reference", DOCS / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["reference.md", "commands.md"])
def test_the_page_is_up_to_date(page):
    assert (DOCS / page).read_text() == maker().PAGES[page](), "run `python docs/make_reference.py`"


@pytest.mark.parametrize("kind", [Dataset, StorageManager])
def test_every_public_member_has_a_paragraph(kind):
    page = (DOCS / "reference.md").read_text()
    for name in dir(kind):
        if not name.startswith("_"):
            assert f"`{kind.__name__}.{name}`" in page, name


def test_every_command_has_a_paragraph():
    page = (DOCS / "commands.md").read_text()
    (choices,) = (action.choices for action in build_parser()._actions if action.dest == "command")
    assert [line[3:] for line in page.splitlines() if line.startswith("## ")] == list(choices)
