"""Writes `reference.md` and `commands.md` from the docstrings and the grammar of the command line.

python docs/make_reference.py
"""

import argparse
import inspect
import re
from pathlib import Path

from dataset_store import Dataset, StorageManager, errors
from dataset_store.cli.arguments import PROGRAM, build_parser
from dataset_store.dataset.annotations.reports import Logger, Report
from dataset_store.dataset.catalog.differences import Change, DatasetDiff, TableChange
from dataset_store.dataset.catalog.history import Lineage
from dataset_store.dataset.checks.verifying import FolderReport
from dataset_store.dataset.entries.links import LinkEntry
from dataset_store.dataset.entries.listing import FileEntry
from dataset_store.dataset.transfers.transferring import Transferred, TransferReport
from dataset_store.dataset.uploads.uploading import UploadReport

DOCS = Path(__file__).parent
CLASSES = [Dataset, StorageManager]
VALUES = [
    DatasetDiff,
    Change,
    TableChange,
    Lineage,
    FileEntry,
    LinkEntry,
    FolderReport,
    UploadReport,
    TransferReport,
    Transferred,
    Logger,
    Report,
]
WITH_MEMBERS = {DatasetDiff, Lineage, Logger, TransferReport}
REFERENCE = """\
# Reference

Written from the docstrings by `docs/make_reference.py`. What ClearML's arguments do here is in the
[tables of compatibility](compatibility.md); commands are [here](commands.md).
"""
COMMANDS = """\
# Commands

Written from the grammar by `docs/make_reference.py`. Names and flags are those of `clearml-data` where it has them. A
folder remembers the version begun in it, so `--id` is rarely needed. Every command takes `--store URL` and `--debug`;
those that list or report take `--json`.

The store is the one that `--store` names; else, for commands about the version that the working folder remembers, the
one that it was begun in; else that of `DATASET_STORE_URL`; else that of the settings file; else a folder under the data
directory.

Where an id is taken its first six or more digits are enough. A name that several projects have needs its `--project`.

Exit codes: 0 done; 1 failed, or `verify --folder` found a difference; 2 the call was wrong; 3 not found; 4 conflict;
5 corrupt; 130 interrupted; 141 nobody reads what is printed; 143 terminated.
"""
SECTION = re.compile(r"^(Args|Returns|Raises|Attributes|Yields):$", re.MULTILINE)


def reference() -> str:
    parts = [REFERENCE]
    parts += [of_class(each, members=True) for each in CLASSES]
    parts.append("## What they return\n")
    parts += [
        of_class(each, members=each in {DatasetDiff, Lineage, Logger, TransferReport}, level="###") for each in VALUES
    ]
    parts.append(f"## Errors\n\n{fenced(inspect.getdoc(errors) or '')}")
    return "\n".join(parts)


def of_class(kind: type, *, members: bool, level: str = "##") -> str:
    lines = [f"{level} {kind.__name__}\n", text(inspect.getdoc(kind) or "")]
    ours = {name for base in kind.__mro__ if base.__module__.startswith("dataset_store.") for name in vars(base)}
    for name, member in inspect.getmembers(kind) if members else ():
        about = inspect.getdoc(member) if inspect.isroutine(member) or isinstance(member, property) else None
        if about and name in ours and not name.startswith("_"):
            lines.append(f"{level}# `{kind.__name__}.{name}`\n\n{fenced(signature(name, member))}\n{text(about)}")
    return "\n".join(lines)


def signature(name: str, member: object) -> str:
    if isinstance(member, property):
        return f"{name} -> {plain(member.fget.__annotations__.get('return', ''))}"
    found = inspect.signature(member)
    shown = [annotated(one) for one in found.parameters.values() if one.name != "self"]
    rows = [re.sub(r"'([^']*)'", r"\1", str(one), count=1) if ": '" in str(one) else str(one) for one in shown]
    end = f" -> {plain(found.return_annotation)}" if found.return_annotation is not found.empty else ""
    line = f"{name}({', '.join(rows)}){end}"
    return line if len(line) <= 110 else f"{name}(\n    " + ",\n    ".join(rows) + f",\n){end}"


def annotated(parameter: inspect.Parameter) -> inspect.Parameter:
    if parameter.annotation is parameter.empty:
        return parameter
    return parameter.replace(annotation=plain(parameter.annotation))


def plain(annotation: object) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(annotation)).replace("'", "").replace('"', "")


def text(about: str) -> str:
    """A docstring as Markdown: sections become lists, and what comes back is told in a sentence."""
    first, *rest = SECTION.split(about)
    parts = [first.strip() + "\n"]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        said = inspect.cleandoc(body)
        parts.append(f"*{title}*\n\n{said if title in {'Returns', 'Yields'} else items(said)}\n")
    return "\n".join(parts)


def items(body: str) -> str:
    rows: list[str] = []
    for line in body.splitlines():
        if line and not line.startswith(" "):
            rows.append(line)
        elif line.strip() and rows:
            rows[-1] += " " + line.strip()
    return "\n".join("* " + re.sub(r"^([\w*, ]+): ", r"`\1`: ", row) for row in rows)


def fenced(code: str) -> str:
    return f"```\n{code.rstrip()}\n```\n"


def commands() -> str:
    parser = build_parser()
    choices = next(one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    parts = [COMMANDS]
    for name, command in choices.items():
        example = (command.epilog or "").partition("Example:\n  ")[2]
        rows = [shown(action) for action in command._actions if action.dest not in {"help", "store", "debug"}]
        parts.append(f"## {name}\n\n{command.description}\n\n" + "\n".join(rows) + f"\n\n{fenced(example)}")
    return "\n".join(parts).replace(f"usage: {PROGRAM}", "")


def shown(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings) or action.metavar or action.dest
    return f"* `{names}{value(action)}`: {(action.help or '') % vars(action)}"


def value(action: argparse.Action) -> str:
    if not action.option_strings or action.nargs == 0:
        return ""
    shown = action.metavar or (action.dest.upper() if action.choices is None else "|".join(map(str, action.choices)))
    return f" {shown}" + (" ..." if action.nargs in {"+", "*"} else "")


PAGES = {"reference.md": reference, "commands.md": commands}


if __name__ == "__main__":
    for page, made in PAGES.items():
        (DOCS / page).write_text(made())
