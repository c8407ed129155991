"""The documents are true: every code block in them runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dataset_store
from dataset_store.dataset import workspace as workspaces

ROOT = Path(__file__).parents[2]
PACKAGE = Path(dataset_store.__file__).parent
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
    assert languages <= {"python", "console", "json", ""}


@pytest.mark.parametrize(("page", "code"), blocks("json"))
def test_json_blocks_are_json(page, code):
    json.loads(code)


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_blocks_run(page, code, home):
    exec(compile(code, str(page), "exec"), {"__name__": "__main__"})
    workspaces._open.clear()


@pytest.mark.parametrize(("page", "session"), blocks("console"))
def test_console_blocks_run(page, session, home):
    if "mkdir cats" not in session:
        (home / "cats").mkdir()
        (home / "cats" / "tom.txt").write_text("grey\n")
    program = f'dataset-store() {{ {shlex.quote(sys.executable)} -m dataset_store.cli "$@"; }}'
    commands = [line.removeprefix("$ ") for line in session.splitlines() if line.startswith("$ ")]
    done = subprocess.run(["bash", "-ec", "\n".join([program, *commands])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_opens_with_two_one_line_commands():
    commands = re.findall(r"^    (python3 -m venv .*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert ["demo.py" in command for command in commands] == [True, False]
    assert "pytest" in commands[1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", page.read_text()):
        assert not target or (page.parent / target).exists(), target


def test_the_worked_example_of_the_format_is_true():
    from blake3 import blake3

    from dataset_store.core.entries import Entries
    from dataset_store.core.frames import FrameCodec
    from dataset_store.core.node_decoding import decode_node
    from dataset_store.core.nodes import content_digest, encode_node
    from dataset_store.core.paths import to_text

    page = (ROOT / "docs" / "format.md").read_text()
    example = page[page.index("## 16. Worked example") :].split("## 16. Worked example")[-1]
    rows = re.findall(r"^    ((?:[0-9a-f]{2,} ?)+)(?:  .*)?$", example, re.MULTILINE)
    start = next(number for number, row in enumerate(rows) if row.startswith("44534e31"))
    frame, leaf = (bytes.fromhex("".join(part).replace(" ", "")) for part in (rows[:start], rows[start:]))
    assert bytes(FrameCodec().decode_frame(frame, what="the example").plain) == b"hello\n"
    entries = decode_node(leaf, "the example")
    assert isinstance(entries, Entries)
    assert [to_text(key) for key in entries.keys] == ["a/b.txt"]
    assert encode_node(entries) == leaf
    for value in (entries.content_ids[0].tobytes(), blake3(leaf).digest(), content_digest(entries)):
        assert value.hex() in example


def test_the_architecture_names_every_module_and_no_other():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| *([\w/]*) \| (.+?) \| .+? \|$", page, re.MULTILINE)
    named, ring = set(), ""
    for begins, modules in rows:
        ring = begins or ring
        if (PACKAGE / ring).is_dir():
            named |= {f"{ring}/{module}" for module in re.findall(r"`(\w+)`", modules)}
    there = {path.relative_to(PACKAGE) for path in PACKAGE.glob("*/**/*.py") if not path.stem.startswith("__")}
    assert named == {str(path.with_suffix("")) for path in there}


def test_paths_that_the_documents_name_exist():
    for page in PAGES:
        for path in re.findall(r"`((?:dataset_store|tests|docs|benchmarks|\.ci)/[\w./-]*\w)`", page.read_text()):
            root = PACKAGE.parent if path.startswith("dataset_store/") else ROOT
            assert (root / path).exists(), f"{page.name}: {path}"


def test_what_shows_a_claim_is_there():
    page = (ROOT / "docs" / "claims.md").read_text()
    rows = re.findall(r"^\| (?!about|---).* \| (.+?) \|$", page, re.MULTILINE)
    shown = [path for row in rows for path in re.findall(r"`([^`]+\.py)`", row)]
    assert len(rows) >= 19
    assert all(re.search(r"`[^`]+\.py`", row) for row in rows)
    for path in shown:
        assert (ROOT / path).is_file(), path
