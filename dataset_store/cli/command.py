"""What every command of the grammar begins with: its name, its help, and the flags that all of them have."""

import argparse
from typing import TypeAlias

from dataset_store.cli.parser import Parser

__all__ = ["PROGRAM", "STORE", "STORE_VARIABLE", "Commands", "command"]

PROGRAM = "dataset-store"
STORE_VARIABLE = "DATASET_STORE_URL"
"""The environment variable that names the store where the call does not."""

STORE = f"the store, instead of that of the version begun in this folder, {STORE_VARIABLE} and the settings file"
"""The help of the flag that every command has."""

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def command(commands: Commands, run: str, about: str, example: str) -> argparse.ArgumentParser:
    """A new command, called like the function that carries it out: with `-` for `_`, and none at its end."""
    name = run.partition(":")[2].rstrip("_").replace("_", "-")
    parser = commands.add_parser(
        name,
        help=about,
        description=about[:1].upper() + about[1:] + ".",
        epilog=f"Example:\n  {PROGRAM} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    # Not set here unless given, so that what stands before the command counts too.
    hidden = argparse.SUPPRESS
    parser.add_argument("--store", metavar="URL", default=hidden, help=STORE)
    parser.add_argument("--debug", action="store_true", default=hidden, help="show where an error came from")
    return parser
