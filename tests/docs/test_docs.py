"""The documents are true: every code block in them runs."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_store.dataset import workspace as workspaces

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list:
    return [
        pytest.param(page, block[1], id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(BLOCK.findall(page.read_text()))
        if block[0] == language
    ]


def test_every_code_block_declares_its_language_or_is_a_picture():
    languages = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text())}
    assert languages <= {"python", "console", ""}


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_blocks_run(page, code, home):
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    workspaces._open.clear()


@pytest.mark.parametrize(("page", "session"), blocks("console"))
def test_console_blocks_run(page, session, home):
    (home / "cats").mkdir()
    (home / "cats" / "tom.txt").write_text("grey\n")
    for line in session.splitlines():
        if line.startswith("$ dataset-store "):
            command = [sys.executable, "-m", "dataset_store.cli", *shlex.split(line)[2:]]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def test_the_readme_opens_with_two_one_line_commands():
    commands = re.findall(r"^    (python3 -m venv .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert ["demo.py" in command for command in commands] == [True, False]
    assert "pytest" in commands[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), target
