"""How words are parsed and how that fails: argparse, with the errors of this package. It loads nothing heavy."""

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from dataset_store.cli.output import text_out
from dataset_store.errors import InvalidRequest

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors of this package, and whose help must arrive."""

    def error(self, message: str) -> NoReturn:
        """Raise it, and say where help is."""
        if re.search(r"arguments are required: PATH\b", message):
            raise InvalidRequest(
                "A PATH is required, and a flag that takes several words takes all that follow it.",
                f"Put paths first, or `--` before them. See `{self.prog} --help`.",
            )
        raise InvalidRequest(_safe(f"{message[:1].upper()}{message[1:]}."), f"See `{self.prog} --help`.")

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """As in argparse, but what is not known is a complaint of the command that it was given to."""
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            command = getattr(found, "command", None)
            raise InvalidRequest(
                _safe(f"Unrecognized arguments: {' '.join(unknown)}."),
                f"See `{f'{self.prog} {command}' if command else self.prog} --help`.",
            )
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            import difflib

            near = difflib.get_close_matches(str(value), list(action.choices), 1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise InvalidRequest(_safe(f"There is no command {value!r}{meant}"), f"See `{self.prog} --help`.")
        super()._check_value(action, value)

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is None or file is sys.stdout:
            text_out(message)
        else:
            super()._print_message(message, file)


def _safe(words: str) -> str:
    """Words of a call as they may be shown: of URLs without users and passwords."""
    return re.sub(r"(?<=://)\S*@", "", words)
